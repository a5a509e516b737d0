"""Mistakes in who may look at whom."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from llm_rebuild.diagnosis.graph import LOWEST, Edit, Formula, World
from llm_rebuild.diagnosis.wrong.base import Table, Tables, allowed, bound

# What people add instead of the lowest number.
FILLS = (-math.inf, -1e4, -1e9, -1e5, -1e3, -100.0, -10.0, -1.0, 1.0, -1e8, -1e10, -1e6, -1e30, -1e38)

# Which places are hidden [batch, 1, query, key]; apart: how far the key is behind the query.
# fmt: off
PLACES: Table = (
    ("mask-inverted", "hides what it should show", lambda shown: shown),
    ("mask-padding-missing", "the first row's for all rows", lambda wrong: wrong[:1]),
    ("mask-padding-missing", "the last row's for all rows", lambda wrong: wrong[-1:]),
    ("mask-padding-missing", "the rows of the batch exchanged", lambda wrong: wrong.flip(0)),
)
# In an attention that looks back only …
PLACES_CAUSAL: Table = (
    ("mask-causal-missing", "later tokens are seen", lambda padding: padding),
    ("mask-causal-missing", "only what is both later and padding is hidden", lambda apart, padding: (apart > 0) & padding),
    ("mask-padding-missing", "padding is seen", lambda apart: apart > 0),
    ("mask-off-by-one", "one later token is seen, too", lambda apart, padding: (apart > 1) | padding),
    ("mask-off-by-one", "one later token is seen, too, and padding is seen", lambda apart: apart > 1),
    ("mask-off-by-one", "a token does not see itself", lambda apart, padding: (apart > -1) | padding),
    ("mask-off-by-one", "a token does not see itself, and padding is seen", lambda apart: apart > -1),
    ("mask-direction", "earlier tokens are hidden instead of later ones", lambda apart, padding: (apart < 0) | padding),
    ("mask-direction", "earlier tokens are hidden, and padding is seen", lambda apart: apart < 0),
    ("mask-direction", "queries of padding are hidden instead of keys", lambda apart, padding: (apart > 0) | padding.mT),
    ("mask-extra", "queries are counted from 0, though others came before", lambda counted, padding: (counted > 0) | padding),
    ("mask-extra", "queries of padding are hidden as well as keys", lambda apart, padding: (apart > 0) | padding | padding.mT),
    ("mask-inverted", "padding shown, tokens hidden", lambda apart, padding: (apart > 0) | ~padding),
)
# … and in one that looks both ways.
PLACES_BOTH_WAYS: Table = (
    ("mask-extra", "a causal mask on top", lambda wrong, counted: wrong | (counted > 0)),
    ("mask-extra", "a causal mask alone", lambda counted: counted > 0),
    ("mask-extra", "queries hidden as well as keys", lambda wrong: wrong | wrong.mT),
    ("mask-direction", "queries hidden instead of keys", lambda wrong: wrong.mT),
)
# fmt: on


def patterns(world: World, formula: Formula) -> Iterator[tuple[str, str, Tensor]]:
    """All ways to hide the wrong places: cause, in words, and which they are [batch, 1, query, key]."""
    shape = allowed(world, formula, False).shape
    for table in (PLACES, PLACES_CAUSAL if formula.facts["causal"] else PLACES_BOTH_WAYS):
        for cause, says, mistake in table:
            try:
                hidden = bound(formula, mistake)(world)
                whole = None if hidden is None else hidden | torch.zeros(shape, dtype=torch.bool)
            except RuntimeError:  # between two texts of different lengths, queries are no keys
                continue
            if hidden is not None and whole is not None:
                yield cause, says, whole if whole.shape == shape else hidden  # of one query it is turned


def hide(hidden: Tensor, fill: float = LOWEST) -> Tensor:
    """A mask that is added: 0, and a number where something is hidden."""
    return torch.where(hidden, torch.tensor(fill), torch.zeros(()))


def mask(world: World, formula: Formula) -> Iterator[Edit]:
    """The wrong places, by the right number."""
    shown = torch.zeros_like(allowed(world, formula, False))
    for cause, says, hidden in (*patterns(world, formula), ("mask-missing", "nothing is hidden", shown)):
        yield Edit(cause, says, {formula.name: lambda w, hidden=hidden: hide(hidden)})


# fmt: off
TABLES: Tables = {
    "mask": (  # the right places, by the wrong number
        *(("mask-fill", f"adds {fill:g}", lambda wrong, fill=fill: hide(wrong, fill)) for fill in (*FILLS, LOWEST / 2, torch.finfo(torch.float16).min)),
        ("mask-fill", "1 and 0 are added as they are", lambda shown: shown.float()),
    ),
}
# fmt: on
