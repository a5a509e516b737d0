"""Mistakes in what is looked up: token ids, positions, token types, and buckets of distances."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.buckets import Buckets
from llm_rebuild.diagnosis.graph import Edit, World, distances
from llm_rebuild.diagnosis.wrong.base import Also, Tables
from llm_rebuild.models.formulas import Formula


def rows(ids: Tensor, table: Tensor) -> Tensor:
    """Rows of a table; a number outside it means its first or last row."""
    return F.embedding(ids.clamp(0, len(table) - 1), table)


def _cached(world: World, f: Formula) -> Tensor:
    if not world.cached:
        raise LookupError("no tokens came before")
    return world[f.inputs[0]]


ALSO: Also = {
    "mask": lambda world, f: world["#mask"],
    "new": _cached,
    "width": lambda world, f: world.weights[f.weights[0]].shape[-1],
}


def sinusoidal(positions: Tensor, width: int, halves: bool) -> Tensor:
    """The original transformer's positions: [1, token, width]."""
    half = width // 2
    steps = positions[..., None].float() * torch.exp(torch.arange(half).float() * (-math.log(10000.0) / half))
    if halves:
        return torch.cat([steps.sin(), steps.cos()], dim=-1)
    return torch.stack([steps.sin(), steps.cos()], dim=-1).flatten(-2)


# What may be otherwise in how distances become buckets; a function is given what is right.
BUCKETS: dict[str, dict[str, Any]] = {
    "buckets-direction": {
        "two-way instead of one-way buckets, or the reverse": lambda right: {"both": not right.both},
        "the absolute distance, whatever the side": {"sign": 0},
        "the other kind of buckets and the opposite sign": lambda right: {"both": not right.both, "sign": -1},
    },
    "buckets-sign": {
        "query minus key instead of key minus query": {"sign": -1},
        "the other half of the buckets for what comes after": {"half": "before"},
    },
    "buckets-count": {
        "the halves told apart by ≥ 0 instead of > 0": {"half": "here and after"},
        "no half for what comes after": {"half": "none"},
        "half as many buckets": lambda right: {"count": right.count // 2},
        "twice as many buckets": lambda right: {"count": right.count * 2},
        "one bucket less": lambda right: {"count": right.count - 1},
        **{f"{count} buckets": {"count": count} for count in (16, 32, 64)},
        "half the largest distance": lambda right: {"limit": right.limit // 2},
        "twice the largest distance": lambda right: {"limit": right.limit * 2},
        "a largest distance that is one less": lambda right: {"limit": right.limit - 1},
        "a largest distance that is one more": lambda right: {"limit": right.limit + 1},
        **{
            f"a largest distance of {limit}": {"limit": limit}
            for limit in (20, 32, 64, 100, 127, 256, 512, 1000)
        },
        **{f"{part:g} of the buckets for exact distances": {"exact": part} for part in (0.25, 0.75, 1.0)},
        "distances counted one by one, without the logarithm": {"whole": "none"},
        "rounded instead of cut off": {"whole": "round"},
        "rounded up instead of cut off": {"whole": "ceil"},
        "the logarithm to base 2": {"base": 2.0},
        "the logarithm to base 10": {"base": 10.0},
        "the logarithm not divided by its largest value": {"base": math.e},
        "≤ instead of < where the logarithm begins": {"closed": True},
        "not limited to the last bucket": {"cut": False},
    },
}


def bucket(world: World, formula: Formula) -> Iterator[Edit]:
    """Distances as numbers of buckets, in all the ways in which they go wrong."""
    step, table = world.formulas[formula.inputs[0]], world.weights[formula.weights[0]]
    right = Buckets(step.facts["both_ways"], step.facts["count"], step.facts["limit"])
    ids, mask = (world[name] for name in step.inputs)
    apart = distances(ids, mask)

    def looked_up(cause: str, says: str, distance: Tensor, how: Mapping[str, Any]) -> Edit:
        numbers = replace(right, **how).of(distance)
        return Edit(cause, says, {formula.name: lambda w: rows(numbers, table[: right.count])})

    if world.cached:
        query, key = apart.shape
        without = torch.arange(query) - torch.arange(query)[:, None]
        yield looked_up("positions-not-advanced", "those before are not counted", without, {})
        start = torch.arange(key) - torch.arange(query)[:, None]
        says = "queries are counted from 0, though others came before"
        yield looked_up("positions-not-advanced", says, start, {})
    for cause, ways in BUCKETS.items():
        for says, way in ways.items():
            how = way(right) if callable(way) else way
            if how.get("count", 4) > 3 and how.get("limit", 2) > 1:
                yield looked_up(cause, says, apart, how)


# fmt: off
TABLES: Tables = {
    "token": (ALSO, (  # ids [batch, token]
        ("token-ids-wrong", "every id plus 1", lambda ids, table: rows(ids + 1, table)),
        ("token-ids-wrong", "every id minus 1", lambda ids, table: rows(ids - 1, table)),
    )),
    "position": (ALSO, (  # ids: the positions [1, token]; new: the same, where others came before
        ("positions-not-advanced", "the new token counts from 0", lambda new, table: rows(new - new.min(), table)),
        ("positions-not-advanced", "one position behind", lambda new, table: rows(new - 1, table)),
        *(("positions-shifted", f"{by:+d} for every token", lambda ids, table, by=by: rows(ids + by, table)) for by in (1, 2, -1, 3, -2)),
        ("positions-missing", "zeros instead", lambda ids, table: torch.zeros_like(rows(ids, table))),
        ("positions-wrong", "counted from the first real token, by the mask", lambda ids, table, mask: rows((mask.cumsum(1) - 1)[:, -ids.shape[1] :], table)),
        ("positions-sinusoidal", "sines and cosines (halves)", lambda ids, width: sinusoidal(ids, width, True)),
        ("positions-sinusoidal", "sines and cosines (alternating)", lambda ids, width: sinusoidal(ids, width, False)),
    )),
    "type": (ALSO, (  # ids: a 0 for each token
        ("token-types-missing", "zeros instead", lambda ids, table: torch.zeros_like(rows(ids, table))),
        ("token-types-wrong", "the second type for all", lambda ids, table: rows(torch.ones_like(ids), table)),
        ("token-types-wrong", "the types taken from the mask", lambda mask, table: rows(mask, table)),
        ("token-types-wrong", "the mask turned round as types", lambda mask, table: rows(1 - mask, table)),
    )),
}
# fmt: on
