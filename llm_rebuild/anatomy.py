"""Part 2: what a model is made of. Its parts, their shapes, where the numbers are, and where it departs
from the textbook.

Nothing is run here: the anatomy comes from config.json, the weight file's header, and the model file's
list of checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_rebuild.checkpoints import Checkpoint, block_of
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import Rebuild
from llm_rebuild.printing import Printable
from llm_rebuild.verify import matched
from llm_rebuild.weights import reason


@dataclass(frozen=True)
class Piece:
    """One piece of a model: the embeddings, a block, a head.

    path       Its path in the weight file, `encoder.layer.0`.
    purpose    What it is for, in a line.
    shapes     Its tensors: key below the path -> shape.
    """

    path: str
    purpose: str
    shapes: dict[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """How many numbers were learned here."""
        return sum(math.prod(shape) for shape in self.shapes.values())


@dataclass(frozen=True)
class Anatomy(Printable):
    """A model laid open. `parameters` counts what a forward pass can use, each number once."""

    name: str
    model_type: str
    config: Any
    parts: tuple[Piece, ...]
    unused: dict[str, str]
    checkpoints: tuple[Checkpoint, ...]
    departures: tuple[tuple[str, str], ...]
    matched: str | None = None
    rebuilt: bool = True  # False for a model of another family, known by its official code only

    @property
    def parameters(self) -> int:
        """How many numbers were learned, in all parts."""
        return sum(part.parameters for part in self.parts)

    def part(self, path: str) -> Piece:
        """The part of this path. Raises InputError if there is none."""
        for part in self.parts:
            if part.path == path:
                return part
        raise InputError(f"{self.name} has no part {path!r}; it has {', '.join(p.path for p in self.parts)}")


def describe(model: str | Path | LocalCopy, *, attention: str = "eager") -> Anatomy:
    """The anatomy of a local copy. Raises InputError where the files do not fit each other."""
    copy = local_copy.get(model)
    if copy.architecture is None:
        return _any_model(copy)
    rebuild = copy.rebuild
    architecture = rebuild.architecture
    rebuild.check(copy.weights())
    weights = rebuild.renamed(copy.weights())
    needed = rebuild.shapes(weights)
    return Anatomy(
        name=copy.name,
        model_type=copy.config["model_type"],
        config=rebuild.config,
        parts=tuple(_parts(rebuild, needed)),
        unused={key: reason(key, architecture.unused) or "" for key in weights if key not in needed},
        checkpoints=tuple(
            rebuild.checkpoints({attention} | architecture.whole | rebuild.conditions(weights))
        ),
        departures=tuple((t, why.format(**vars(rebuild.config))) for t, why in architecture.departures),
        matched=matched.last(copy),
    )


def _any_model(copy: LocalCopy) -> Anatomy:
    """The anatomy of a model that there is no rebuild for: its modules, by the names of their classes. What
    is computed between them is not known without a run; `capture` tells."""
    from llm_rebuild.verify import any_model

    skeleton = any_model.skeleton(copy)
    used, unused = any_model.fitting(copy, skeleton)
    modules = {path: type(module).__name__ for path, module in skeleton.named_modules()}
    prefix = f"{getattr(skeleton, 'base_model_prefix', '')}."
    inside: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in used.items():
        path = block_of(key) or key.rpartition(".")[0] or key
        inside.setdefault(path, {})[key.removeprefix(path + ".")] = shape
    return Anatomy(
        name=copy.name,
        model_type=copy.config["model_type"],
        config=skeleton.config,
        parts=tuple(
            Piece(path, modules.get(path) or modules.get(path.removeprefix(prefix)) or "of its own", shapes)
            for path, shapes in inside.items()
        ),
        unused=dict.fromkeys(unused, "the official class has no module of this name"),
        checkpoints=tuple(
            Checkpoint(path, "", f"what this {kind} returns")
            for path, kind in modules.items()
            if path and not kind.startswith(("ModuleList", "ModuleDict", "Dropout", "Identity"))
        ),
        departures=(),
        rebuilt=False,
    )


def _parts(rebuild: Rebuild, needed: dict[str, tuple[int, ...]]) -> Iterator[Piece]:
    for numbered, purpose in rebuild.architecture.parts.items():
        stack, repeated, _ = numbered.partition(".{layer}")
        for layer in range(rebuild.depth[stack]) if repeated else range(1):
            path = numbered.replace("{layer}", str(layer))
            inside = {
                key.removeprefix(path + "."): shape
                for key, shape in needed.items()
                if key.startswith(path + ".")
            }
            yield Piece(path, purpose, inside)
