"""What the pictures are drawn from: the local copies, and their official runs, each made once."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify import capture
from llm_rebuild.verify.capture import Capture
from tools import fences

DOCS = Path(__file__).resolve().parents[2] / "docs"


@cache
def copy_of(model: str) -> LocalCopy:
    """MiniLM itself; GPT-2 and T5 always as miniatures, so that a picture is the same on every machine."""
    if model == "minilm":
        return local_copy.get(model, strict=True)
    return LocalCopy(model, local_copy.MINIATURES / model, "miniature")


@cache
def run_of(copy: LocalCopy, text: str) -> Capture:
    """Every checkpoint of the official model on this text."""
    return capture(copy, text)


def written_on(page: str, name: str) -> Any:
    """What a page's code gives this name, first of all: a picture shows the page's own sentences."""
    for fence in fences.read_page(DOCS / page).runnable:
        for statement in ast.parse(fence.source).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
                return ast.literal_eval(statement.value)
    raise ValueError(f"{page}: no snippet sets {name}")


def output_of(page: str, begins: str) -> list[str]:
    """The lines of the output on a page whose first line has these words: what the page's tests compare."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line == "```text" and begins in lines[i + 1]]
    if len(starts) != 1:
        raise ValueError(f"{page} has {len(starts)} outputs that begin with {begins!r}")
    return lines[starts[0] + 1 : lines.index("```", starts[0])]
