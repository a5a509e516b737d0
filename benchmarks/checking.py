"""`llm-rebuild check` of a rebuild with a mistake, beside the right one: what a diagnosis costs.

The solved skeletons of three miniatures, each check in a process of its own as a person does it, in a store
of their own. The first check makes the official side, and is not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import Harness, Row, Run, digits
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


def check(folder: Path, model: str, code: str) -> Run:
    """A check of this code."""
    command = [sys.executable, "-m", "llm_rebuild", "check", "mine.py", "--model", str(MINIATURES / model)]
    environment = os.environ | {"LLM_REBUILD_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1"}

    def run() -> object:
        (folder / "mine.py").write_text(code, encoding="utf-8")
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)

    return run


def measure(harness: Harness) -> Iterator[Row]:
    """Eighteen mistakes, six a model. A model's first check makes the official side, and is not counted."""
    harness = replace(harness, rounds=min(harness.rounds, 2))
    with tempfile.TemporaryDirectory() as temporary:
        for model, mistakes in MISTAKES.items():
            right = source(model, solved=True)
            runs = {"right": check(Path(temporary), model, right)}
            for before, after in mistakes[:1] if harness.quick else mistakes:
                assert right.count(before) == 1, before
                runs[after.strip()] = check(Path(temporary), model, right.replace(before, after))
            runs["right"]()
            for one in harness.compare({"model": f"{model}, miniature"}, runs, "right", cold=False):
                yield one | {"more_seconds": digits(one["seconds"] - one["baseline_seconds"])}
