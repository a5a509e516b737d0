"""One release's side of the board: what the official models compute here, and how far the rebuild agrees.

    python -m tools.drift.probe FOLDER

It runs in an environment of its own, with whichever transformers and torch are there; the board starts it. A
checkpoint that this release computes in no tensor of its own is noted as missing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import one_line
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.equality import by_rounding, identical
from llm_rebuild.verify.operations import facts_of
from llm_rebuild.verify.question import ask
from llm_rebuild.verify.run import rebuild_run
from llm_rebuild.verify.trace import observe
from tools.drift import LIBRARIES

ATTENTION = ("eager", "sdpa")


def copies() -> Iterator[LocalCopy]:
    """The models of the course: the real files where they are in the store, else the miniatures."""
    for name in local_copy.PINS:
        if (local_copy.store_folder() / name).exists():
            yield local_copy.get(name, strict=True)
        else:
            yield LocalCopy(name, local_copy.MINIATURES / name, "miniature")


def attempted(copy: LocalCopy, attention: str, folder: Path) -> dict[str, Any]:
    """As `probed`; or why not."""
    try:
        return probed(copy, attention, folder)
    except Exception as error:  # another release may fail in any way, and the board says how
        return {"error": f"{type(error).__name__}: {one_line(error)}"}


def probed(copy: LocalCopy, attention: str, folder: Path) -> dict[str, Any]:
    """A model's tensors into a file, and what the board says beside them."""
    texts = copy.rebuild.architecture.default_texts(copy.source)
    question = ask(copy, texts, attention=attention)
    observer = observe(question)
    tensors, trace = observer.checkpoints(), observer.trace()
    names = [checkpoint.name for checkpoint in question.checkpoints]
    rebuilt = rebuild_run(question)
    save_file({n: t.clone().contiguous() for n, t in tensors.items()}, folder / f"{copy.name}-{attention}")
    return {
        "source": copy.source,
        "missing": [name for name in names if name not in tensors],
        "made": {name: made(trace, name) for name in tensors},
        "rebuild": agreement(rebuilt, tensors),
    }


def made(trace: Trace, name: str) -> dict[str, list[str]]:
    """Of which checkpoints and by which operations a checkpoint was made, in the order of computation."""
    nodes, start = trace.nodes, trace.nodes[trace.checkpoints[name]].number
    queue, seen, operations, sources = [start], set[int](), dict[int, str](), dict[int, str]()
    while queue:
        node = nodes[queue.pop()]
        if node.number in seen:
            continue
        seen.add(node.number)
        if node.checkpoint and node.number != start:
            sources[node.number] = node.checkpoint
        elif node.function is not None:
            operations[node.number] = facts_of(node.function).word
            queue += node.inputs
    return {
        "of": [sources[number] for number in sorted(sources)],
        "by": [operations[number] for number in sorted(operations)],
    }


def agreement(rebuilt: dict[str, Tensor], official: dict[str, Tensor]) -> dict[str, int]:
    """How many checkpoints the rebuild has to the bit, but for rounding, and otherwise."""
    both = [(rebuilt[name], official[name]) for name in official if name in rebuilt]
    exact = [pair for pair in both if identical(*pair)]
    near = [pair for pair in both if not identical(*pair) and by_rounding(*pair)]
    return {"identical": len(exact), "rounding": len(near), "other": len(both) - len(exact) - len(near)}


def main(folder: Path) -> None:
    """Write `probe.json` and a file of tensors for each model and spelling of attention."""
    runs: dict[str, Any] = {}
    for copy in copies():
        for attention in ATTENTION:
            runs[f"{copy.name}-{attention}"] = attempted(copy, attention, folder)
    versions = {name: metadata.version(name).partition("+")[0] for name in LIBRARIES}
    (folder / "probe.json").write_text(json.dumps({"versions": versions, "runs": runs}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
