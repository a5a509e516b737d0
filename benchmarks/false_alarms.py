"""Does the comparison cry wolf? Right rebuilds on random inputs: no checkpoint may differ by a bit.

    python -m benchmarks.false_alarms [--inputs 100] [--full DIR]

Three models, as miniatures and at full size, eager and sdpa, each on as many random inputs: one to three rows
of random ids, padded, of random lengths. MiniLM at full size is the real one; GPT-2 and T5-small have their
official configs and seeded weights, made in DIR as
`python -m tools.full_size` does, or in a temporary folder.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import llm_rebuild
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.diagnosis.diagnose import diagnose
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.verify import ask, capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.run import judge, rebuild_run
from tools import full_size

MODELS = NAMES


def false_alarms(copy: LocalCopy, attention: str, inputs: int, seed: int = 0) -> tuple[int, int]:
    """Runs with a difference or a diagnosis, and how many checkpoints were compared in all."""
    draw = random.Random(seed)
    rebuild = rebuild_for(copy.config)
    official = Official(copy.folder, attention)
    alarms = compared = 0
    for number in range(inputs):
        rows = _rows(draw, rebuild.config.vocab_size)
        start = getattr(rebuild.config, "decoder_start_token_id", None)
        decoder = None
        if start is not None and number % 2:
            decoder = [[start, *row[: draw.randint(0, 8)]] for row in rows]
        cached = rebuild.architecture.generates and number % 3 == 0
        question = ask(copy, token_ids=rows, decoder_ids=decoder, attention=attention, use_cache=cached)
        truth = capture(question, official=official)
        rebuilt = rebuild_run(question)
        report = judge(rebuilt, truth)
        compared += len(report.verdicts)
        if not report.exact or diagnose(rebuilt, truth, copy):
            alarms += 1
            print(f"  {copy.name} {attention} {rows}: {report.first_divergence}")
    return alarms, compared


def _rows(draw: random.Random, vocabulary: int) -> list[list[int]]:
    return [
        [draw.randrange(vocabulary) for _ in range(draw.randint(1, 24))] for _ in range(draw.randint(1, 3))
    ]


def copies(folder: Path) -> Iterator[tuple[str, LocalCopy]]:
    """The six local copies, those that can be had."""
    miniatures = Path(llm_rebuild.__file__).parent / "miniatures"
    for name in MODELS:
        yield f"{name}, miniature", LocalCopy(name, miniatures / name, "miniature")
    try:
        yield "minilm, real", local_copy.get("minilm", strict=True)
    except InputError as reason:
        print(f"no real MiniLM: {reason}")
    for name in ("gpt2", "t5-small"):
        made = folder / name
        if not (made / "model.safetensors").is_file():
            full_size.make(made, full_size.CONFIGS[name])
        yield f"{name}, full size", LocalCopy(name, made, "folder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--full", type=Path, metavar="DIR", help="where the full-size models are, or go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        total = runs = 0
        for name, copy in copies(arguments.full or Path(temporary)):
            for attention in ("eager", "sdpa"):
                begun = time.monotonic()
                alarms, compared = false_alarms(copy, attention, arguments.inputs)
                took = time.monotonic() - begun
                print(
                    f"{name:22} {attention:6} {arguments.inputs} inputs, {compared:7,} checkpoints: "
                    f"{alarms} false alarms ({took:.0f} s)"
                )
                total, runs = total + alarms, runs + arguments.inputs
        print(f"{total} false alarms in {runs} runs")
    raise SystemExit(1 if total else 0)


if __name__ == "__main__":
    main()
