"""Mistakes in cutting the width into heads, in joining it again, and in what a cache keeps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.diagnosis.graph import Edit, World
from llm_rebuild.diagnosis.wrong.base import Also, Mistake, Tables, bound
from llm_rebuild.models.formulas import PAST, Formula
from llm_rebuild.weights import template

NAMES = ("query", "key", "value")


def _part(world: World, f: Formula, number: int | None = None) -> Tensor:
    """What a split is given: the tensor, or its third of a fused product."""
    x, part = world[f.inputs[0]], f.facts.get("part")
    return x if part is None else x.chunk(3, dim=-1)[part if number is None else number]


def _split(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


ALSO_SPLIT: Also = {"own": _part, "x": lambda world, f: world[f.inputs[0]]}

# own: the width that is cut, x: the fused product; to [batch, head, token, head width]
INTERLEAVED: dict[str, Mistake] = {
    "head by head: query, key, value of the first head, …": (
        lambda x, part, heads: x.reshape(*x.shape[:2], heads, 3, -1)[..., part, :].transpose(1, 2)
    ),
    "every third number": lambda x, part, heads: _split(x[..., part::3], heads),
}
SPLIT: dict[str, Mistake] = {
    "reshaped to [batch, head, token, head width] at once, without a transpose": (
        lambda own, heads: own.reshape(own.shape[0], heads, own.shape[1], -1)
    ),
    "the head width in front of the heads": (
        lambda own, heads: own.reshape(*own.shape[:2], -1, heads).permute(0, 3, 1, 2)
    ),
}


def split(world: World, formula: Formula) -> Iterator[Edit]:
    """One function cuts all three, so one mistake is in all three; or somebody wrote it out three times. The
    group is tried once, where it is first met."""
    group, heads = formula.facts["group"], formula.facts["heads"]
    members = {name: world.formulas[group + name] for name in NAMES if group + name in world.formulas}
    if formula.facts["name"] != "query" and group + "query" in world.reaching(formula.name):
        return

    def everywhere(mistake: Mistake, **facts: Any) -> dict[str, Any]:
        cut = [Formula(m.name, m.kind, m.inputs, facts={**m.facts, **facts}) for m in members.values()]
        return {m.name: bound(m, mistake, ALSO_SPLIT) for m in cut}

    if "part" in formula.facts:
        for order in list(permutations(range(3)))[1:]:  # the first is the right one
            says = ", ".join(NAMES[order.index(i)] for i in range(3))
            changes = {
                members[name].name: lambda w, m=members[name], i=i: _split(_part(w, m, i), heads)
                for name, i in zip(NAMES, order, strict=True)
            }
            yield Edit("qkv-order", f"as {says}", changes)
        for says, mistake in INTERLEAVED.items():
            yield Edit("qkv-interleaved", says, everywhere(mistake))
    for says, mistake in SPLIT.items():
        yield Edit("heads-split", says, everywhere(mistake))
    for says, mistake in SPLIT.items():
        for name, member in members.items():
            change = {member.name: bound(member, mistake, ALSO_SPLIT)}
            yield Edit("heads-split", f"only in the {name}: {says}", change)
    width = _part(world, formula).shape[-1]
    for count in dict.fromkeys((heads * 2, heads // 2, 1, heads * 3, heads + 1, heads - 1, 2, 8, 12, 16)):
        if 0 < count != heads and width % count == 0:
            yield Edit(
                "heads-count",
                f"{count} heads instead of {heads}",
                everywhere(lambda own, heads: _split(own, heads), heads=count),
            )
    for name, member in members.items():
        reverse = {member.name: bound(member, lambda own, heads: _split(own, heads).flip(1), ALSO_SPLIT)}
        yield Edit("wrong-operand", f"the heads of the {name} in reverse", reverse)


def _flat(x: Tensor, *order: int) -> Tensor:
    """Axes in an order, read as [batch, token, width]. x [batch, head, token, head width]"""
    batch, heads, token, width = x.shape
    return x.permute(0, *order).reshape(batch, token, heads * width)


# ------------------------------------------------------------------------------------------ a cache


def _other(f: Formula) -> str:
    """Of keys the values, and of values the keys."""
    path, _, name = f.name.rpartition(".")
    return f"{path}.{'value' if name == 'key' else 'key'}"


def _written(old: Tensor, new: Tensor, at: int) -> Tensor:
    cache = old.clone()
    cache[:, :, at] = new[:, :, -1]
    return cache


ALSO_CAT: Also = {
    "other": lambda world, f: f.facts["name"] and _other(f).rpartition(".")[2],
    "new_other": lambda world, f: world[world.formulas[_other(f)].inputs[1]],
    "old_other": lambda world, f: world[world.formulas[_other(f)].inputs[0]],
}


def of_other_blocks(world: World, formula: Formula) -> Iterator[Edit]:
    """The keys or values that another block kept; and keys for values."""
    old, *new = formula.inputs
    if not old.startswith(PAST):
        return
    for name in world.known:
        if name != old and template(name) == template(old):
            inputs = (name, *new)
            instead = Formula(formula.name, formula.kind, inputs)
            yield Edit(
                "cache-order",
                f"the keys and values that another block kept ({name.removeprefix(PAST)})",
                {formula.name: lambda w, f=instead: w.compute(f)},
            )
    if formula.kind == "same":
        other = world.formulas[_other(formula)]
        swapped = {
            f.name: lambda w, name=g.inputs[0]: w[name] for f, g in ((formula, other), (other, formula))
        }
        yield Edit("cache-mixed", "keys and values exchanged", swapped)
        mixed = {formula.name: lambda w: w[other.inputs[0]]}
        yield Edit("cache-mixed", f"the kept {other.facts['name']}s", mixed)


# fmt: off
TABLES: Tables = {
    "merge": ({}, (
        ("heads-merged", "reshaped without moving the tokens in front", lambda x: _flat(x, 1, 2, 3)),
        ("heads-merged", "the head width in front of the heads", lambda x: _flat(x, 2, 3, 1)),
        ("heads-merged", "tokens and head width exchanged", lambda x: _flat(x, 3, 2, 1)),
        ("heads-merged", "the head width in front", lambda x: _flat(x, 3, 1, 2)),
    )),
    "cat": (ALSO_CAT, (  # old, new [batch, head, token, head width]: keys, or values; *_other: the other of the two
        ("cache-not-appended", "the new token alone, without those before", lambda new: new),
        ("cache-not-appended", "those before alone, without the new token", lambda old: old),
        ("cache-not-appended", "the new token written over the last one", lambda old, new: _written(old, new, -1)),
        ("cache-not-appended", "the first of those before dropped", lambda old, new: torch.cat([old[:, :, 1:], new], -2)),
        ("cache-not-appended", "the last of those before dropped", lambda old, new: torch.cat([old[:, :, :-1], new], -2)),
        ("cache-order", "the new token in front of those before", lambda old, new: torch.cat([new, old], -2)),
        ("cache-order", "the new token written over the first one", lambda old, new: _written(old, new, 0)),
        ("cache-order", "the new token twice", lambda old, new: torch.cat([old, new, new], -2)),
        ("cache-mixed", "the new {other} appended", lambda old, new_other: torch.cat([old, new_other], -2)),
        ("cache-mixed", "the kept {other}s", lambda old_other, new_other: torch.cat([old_other, new_other], -2)),
        ("cache-mixed", "appended to the kept {other}s", lambda old_other, new: torch.cat([old_other, new], -2)),
    )),
}
# fmt: on
