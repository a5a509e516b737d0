"""How long `llm-rebuild check` takes: of a right rebuild, and of one with a mistake, with its diagnosis.

    python -m benchmarks.check_speed [--rounds 5]

The solved skeletons of the three miniatures are checked, each in a process of its own as a person does it,
in a store of their own. The first check of each makes the official side and is not counted. A figure is the
median of the rounds, in seconds, by the clock and of processor time (this process's children). With a
mistake: how much more than the right rebuild, at the 95th percentile of all mistakes. A busy machine slows
the clock, hardly the processor.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llm_rebuild.copies.local_copy import MINIATURES
from llm_rebuild.workbench.new import source

MISTAKES = {
    "minilm": (
        ("return product * power", "return product"),
        ("return F.gelu(x)", "return F.gelu(x, approximate='tanh')"),
        ("merge_heads(head_context))", "merge_heads(head_context).flip(-1))"),
        ("add(narrow, x)", "add(narrow, bent[..., : x.shape[-1]])"),
        ("return masked.sum(dim=1)", "return masked.mean(dim=1)"),
        ("return one + other", "return one - other"),
    ),
    "gpt2": (
        ("return product * power", "return product / power"),
        ("0.044715 * cube", "0.04471 * cube"),
        ("add(attended, x)", "add(attended, normed)"),
        ("return F.softmax(scores, dim=-1)", "return F.softmax(scores, dim=-2)"),
        ("torch.cat([cache[name], new], dim=-2)", "torch.cat([new, cache[name]], dim=-2)"),
        ("return one + other", "return one + 2 * other"),
    ),
    "t5-small": (
        ("x.pow(2)", "(x - x.mean(-1, keepdim=True)).pow(2)"),
        ("relu(wide))", "F.gelu(wide))"),
        ("return biased if may_look is None else biased + may_look", "return biased"),
        ("return F.softmax(scores, dim=-1)", "return F.softmax(scores / 2, dim=-1)"),
        ("scale(x, config))", "x + 0)"),
        ("far = torch.clamp(exact + far.long(), max=buckets - 1)", "far = exact + far.round().long()"),
    ),
}


def timed(folder: Path, model: str, code: str) -> tuple[float, float]:
    """One check, in seconds by the clock and of the processor."""
    (folder / "mine.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "llm_rebuild", "check", "mine.py", "--model", str(MINIATURES / model)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"LLM_REBUILD_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def median(folder: Path, model: str, code: str, rounds: int) -> tuple[float, float]:
    times = [timed(folder, model, code) for _ in range(rounds)]
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a check takes.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    more: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model, mistakes in MISTAKES.items():
            right = source(model, solved=True)
            timed(Path(folder), model, right)
            clock, processor = median(Path(folder), model, right, rounds)
            print(f"{model}: right {clock:.2f} s, {processor:.2f} s of the processor", flush=True)
            for before, after in mistakes:
                assert right.count(before) == 1, before
                wrong = median(Path(folder), model, right.replace(before, after), max(1, rounds // 2))
                more.append((wrong[0] - clock, wrong[1] - processor))
                print(f"  {after[:60]}: +{more[-1][0]:.2f} s, +{more[-1][1]:.2f} s", flush=True)
    for unit, values in zip(("by the clock", "of the processor"), zip(*more, strict=True), strict=True):
        print(f"with a diagnosis, 95th percentile: +{sorted(values)[int(0.95 * len(values))]:.2f} s {unit}")


if __name__ == "__main__":
    main()
