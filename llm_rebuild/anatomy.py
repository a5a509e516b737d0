"""Part 2: what a model is made of. Its parts, their shapes, where the numbers are, and where it departs
from the textbook.

Nothing is run here: the anatomy comes from config.json, the weight file's header, and the model file's
list of checkpoints.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_rebuild.checkpoints import Checkpoint, part_of
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import Rebuild, architecture_for, rebuild_for
from llm_rebuild.verify import matched
from llm_rebuild.weights import template


@dataclass(frozen=True)
class Part:
    """One part of a model: the embeddings, a block, a head.

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
class Anatomy:
    """A model laid open. `parameters` counts what a forward pass can use, each number once."""

    name: str
    model_type: str
    config: Any
    parts: tuple[Part, ...]
    unused: dict[str, str]
    checkpoints: tuple[Checkpoint, ...]
    departures: tuple[tuple[str, str], ...]
    matched: matched.Matched | None = None
    rebuilt: bool = True  # False for a model of another family, known by its official code only

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    def part(self, path: str) -> Part:
        """The part of this path. Raises InputError if there is none."""
        for part in self.parts:
            if part.path == path:
                return part
        raise InputError(f"{self.name} has no part {path!r}; it has {', '.join(p.path for p in self.parts)}")

    def __rich__(self) -> RenderableType:
        return Group(*_shown(self))


def describe(model: str | Path | LocalCopy, *, attention: str = "eager") -> Anatomy:
    """The anatomy of a local copy. Raises InputError where the files do not fit each other."""
    copy = model if isinstance(model, LocalCopy) else local_copy.get(model)
    if architecture_for(copy.config) is None:
        return _any_model(copy)
    rebuild = rebuild_for(copy.config)
    architecture = rebuild.architecture
    rebuild.check(copy.weights())
    weights = rebuild.renamed(copy.weights())
    needed = rebuild.shapes(weights)
    return Anatomy(
        name=copy.name,
        model_type=copy.config["model_type"],
        config=rebuild.config,
        parts=tuple(_parts(rebuild, needed)),
        unused={key: architecture.unused[template(key)] for key in weights if key not in needed},
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
        words = key.split(".")
        numbered = [place for place, word in enumerate(words) if word.isdigit()]
        path = ".".join(words[: numbered[0] + 1] if numbered else words[:-1] or words)
        inside.setdefault(path, {})[key.removeprefix(path + ".")] = shape
    return Anatomy(
        name=copy.name,
        model_type=copy.config["model_type"],
        config=skeleton.config,
        parts=tuple(
            Part(path, modules.get(path) or modules.get(path.removeprefix(prefix)) or "of its own", shapes)
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


def _parts(rebuild: Rebuild, needed: dict[str, tuple[int, ...]]) -> Iterator[Part]:
    for numbered, purpose in rebuild.architecture.parts.items():
        stack, repeated, _ = numbered.partition(".{layer}")
        for layer in range(rebuild.config.depth[stack]) if repeated else range(1):
            path = numbered.replace("{layer}", str(layer))
            inside = {
                key.removeprefix(path + "."): shape
                for key, shape in needed.items()
                if key.startswith(path + ".")
            }
            yield Part(path, purpose, inside)


# ---------------------------------------------------------------------------------- for people


def _shown(anatomy: Anatomy) -> Iterator[RenderableType]:
    yield Text(
        f"{anatomy.name} ({anatomy.model_type}): {anatomy.parameters:,} parameters in "
        f"{sum(len(p.shapes) for p in anatomy.parts)} tensors",
        style="bold",
    )
    yield ""
    yield _parts_table(anatomy)
    yield ""
    if not anatomy.rebuilt:
        yield from _shown_any(anatomy)
        return
    yield Text("Departures from the textbook", style="bold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for title, explanation in anatomy.departures:
        table.add_row(Text("  " + title), Text(explanation))
    yield table
    for key, reason in {template(key): reason for key, reason in anatomy.unused.items()}.items():
        yield Text(f"  not read: {key} ({reason})")
    yield ""
    yield Text("Checkpoints, in the order they are computed (of equal blocks, the first)", style="bold")
    yield _checkpoint_table(anatomy)
    yield ""
    yield Text(anatomy.matched.line() if anatomy.matched else matched.NOTHING.format(name=anatomy.name))


def _shown_any(anatomy: Anatomy) -> Iterator[RenderableType]:
    for key, reason in {template(key): reason for key, reason in anatomy.unused.items()}.items():
        yield Text(f"  not read under this name: {key} ({reason})")
    yield Text(f"{len(anatomy.checkpoints)} checkpoints are returned by modules", style="bold")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    counts = Counter(part_of_module(checkpoint.name) for checkpoint in anatomy.checkpoints)
    for part, count in counts.items():
        table.add_row(Text(f"  {part}"), str(count))
    yield table
    yield Text(
        f"There is no rebuild of {anatomy.model_type} here, and so no list of departures from the textbook. "
        "`llm-rebuild capture` keeps these checkpoints and what is computed between the modules; "
        "`llm-rebuild check` holds a rebuild of your own against them."
    )


def part_of_module(path: str) -> str:
    """The block that a module is in, or the module itself: `model.layers.0`, `model.norm`."""
    words = path.split(".")
    numbered = [place for place, word in enumerate(words) if word.isdigit()]
    return ".".join(words[: numbered[0] + 1]) if numbered else path


def _parts_table(anatomy: Anatomy) -> Table:
    """The first of several equal blocks in full, the others in a line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("part", overflow="fold")
    table.add_column("shape", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    before: Part | None = None
    for part in anatomy.parts:
        table.add_row(Text(part.path, style="bold"), "", Text(f"{part.parameters:,}", style="bold"))
        if before is not None and part.shapes and part.shapes == before.shapes:
            table.add_row(Text(f"  as {before.path}", style="dim"), "", "")
        else:
            table.add_row(Text(f"  {part.purpose}", style="dim"), "", "")
            for key, shape in part.shapes.items():
                table.add_row(f"  {key}", "×".join(map(str, shape)), f"{math.prod(shape):,}")
            before = part
    return table


def _checkpoint_table(anatomy: Anatomy) -> Table:
    """Every checkpoint that is not in a block, and those of each stack's block 0."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("shape in words")
    table.add_column("what it holds")
    for part, checkpoints in groupby(anatomy.checkpoints, key=lambda c: part_of(c.name)):
        number = part.rpartition(".")[2]
        if number.isdigit() and number != "0":
            continue
        table.add_row(Text(part, style="bold"))
        for checkpoint in checkpoints:
            name = checkpoint.name.removeprefix(part + ".")
            table.add_row("  " + name, Text(checkpoint.shape), checkpoint.meaning)
    return table
