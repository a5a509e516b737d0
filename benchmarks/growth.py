"""How time and memory grow: over texts, over tokens, over depth, each with the exponent that fits.

    python -m benchmarks.growth KIND SIZE      one size, in this process: its seconds, and its peak memory

Each size runs in a process of its own, for the peak of a process's memory never falls. The memory is the
whole process's, torch included; the time that of its processor, so that what else runs does not count.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import BUILD, ROOT, Harness, Row, digits, exponent, processor
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy

Probe = Callable[[str, int], Mapping[str, float]]

# What grows, and its sizes; of a short run the first three.
KINDS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "embeddings": ("texts", (250, 500, 1000, 2000, 4000)),
    "proofs": ("texts", (16, 32, 64, 128, 256)),
    "forward": ("tokens", (64, 128, 256, 512, 1024)),
    "proof": ("blocks", (4, 8, 16, 32, 64)),
}
WORDS = {
    "embeddings": "MiniLM embeds texts",
    "proofs": "GPT-2's miniature is proved on texts, eight at a time",
    "forward": "GPT-2 at full size reads a text",
    "proof": "a GPT-2 256 wide is proved on a text of 16 tokens",
}
ROUNDS = 2


def work(kind: str, size: int) -> Callable[[], object]:
    """One size of a kind, ready to be timed."""
    from benchmarks.encode import mixed_texts
    from benchmarks.passes import question_of, rebuilt
    from llm_rebuild.using.embedding import embed
    from llm_rebuild.verify.proof import prove
    from tools import full_size

    if kind == "embeddings":
        copy = local_copy.get("minilm", strict=True)
        texts = mixed_texts(copy, size)
        return lambda: embed(copy, texts)
    if kind == "proofs":
        copy = LocalCopy("gpt2", MINIATURES / "gpt2", "miniature")
        batches = [question_of(copy, 16, 8, "eager")] * (size // 8)
        return lambda: [prove(question, coverage=False).report for question in batches]
    config: dict[str, Any] = full_size.CONFIGS["gpt2"]
    if kind == "proof":
        config = config | {"n_layer": size, "n_embd": 256, "n_head": 8, "vocab_size": 1000, "n_positions": 64}
    folder = BUILD / "models" / (f"gpt2-{size}-blocks" if kind == "proof" else "gpt2")
    if not (folder / "config.json").is_file():
        full_size.make(folder, config)
    copy = LocalCopy("gpt2", folder, "folder")
    if kind == "proof":
        question = question_of(copy, 16, 1, "eager")
        return lambda: prove(question, coverage=False).report
    return rebuilt(question_of(copy, size, 1, "sdpa"))


def probe(kind: str, size: int) -> Mapping[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.growth", kind, str(size)]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    answer: Mapping[str, float] = json.loads(result.stdout.splitlines()[-1])
    return answer


def measure(harness: Harness, probe: Probe = probe) -> Iterator[Row]:
    """Sizes take turns, smallest first in one round and largest first in the next."""
    for kind, (grows, sizes) in KINDS.items():
        chosen = sizes[:3] if harness.quick else sizes
        lasted: dict[int, list[Mapping[str, float]]] = {size: [] for size in chosen}
        for number in range(1 if harness.quick else ROUNDS):
            for size in chosen[:: -1 if number % 2 else 1]:
                lasted[size].append(probe(kind, size))
        seconds = [digits(median(one["seconds"] for one in lasted[size])) for size in chosen]
        megabytes = [round(median(one["megabytes"] for one in lasted[size])) for size in chosen]
        one: Row = {
            "case": {"what": WORDS[kind], "over": grows},
            "sizes": list(chosen),
            "seconds": seconds,
            "megabytes": megabytes,
            "time_exponent": exponent(chosen, seconds),
            "memory_exponent": exponent(chosen, megabytes),
        }
        harness.say(f"  {WORDS[kind]}: time {one['time_exponent']}, memory {one['memory_exponent']}")
        yield one


def main() -> None:
    kind, size = sys.argv[1], int(sys.argv[2])
    run = work(kind, size)
    run()  # once unmeasured
    begun = processor()
    run()
    seconds = processor() - begun
    print(json.dumps({"seconds": seconds, "megabytes": peak() / 1024}))


def peak() -> int:
    """The most memory that this process ever had, in kB. What `resource` says of it is, on Linux, no less
    than that of the process which began it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
