"""What a proof costs by the text, and from that what a sweep of many models and texts would take.

    python -m benchmarks.sweep_cost minilm DIR…

Processor time of one thread, which a busy machine changes little: the official run, the rebuild and the
comparison of every checkpoint, in batches of eight lines of a file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from llm_rebuild.proof.sweep import prove_task, tasks

LINES, ROUNDS = 32, 4
MODELS, TEXTS = 1_000, 1_000_000  # of the estimate
HOUR = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+")
    parser.add_argument("--texts", type=Path, default=Path(__file__).with_name("README.md"))
    options = parser.parse_args()
    lines = [line for line in options.texts.read_text(encoding="utf-8").splitlines() if len(line) > 60]
    for model in options.models:
        for attention in ("eager", "sdpa"):
            asked = list(tasks([model], lines[:LINES], [attention]))[:ROUNDS]
            prove_task(asked[0])
            start = time.process_time()
            rows = [prove_task(task) for task in asked]
            seconds = (time.process_time() - start) / sum(row["texts"] for row in rows)
            tokens = sum(row["tokens"] for row in rows) / sum(row["texts"] for row in rows)
            hours = seconds * MODELS * TEXTS / HOUR
            print(
                f"{model}, {attention}: {seconds:.3f} s a text of {tokens:.0f} tokens; "
                f"{MODELS:,} such models × {TEXTS:,} texts: {hours:,.0f} processor hours"
            )


if __name__ == "__main__":
    main()
