"""Mistakes in who may look at whom."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.graph import LOWEST, Edit, World, may_look
from llm_rebuild.diagnosis.wrong.base import Also, Table, Tables, bound
from llm_rebuild.models.formulas import Formula
from llm_rebuild.verify.equality import HIDDEN

# What people add instead of the lowest number.
FILLS = (-math.inf, -1e4, -1e9, -1e5, -1e3, -100.0, -10.0, -1.0, 1.0, -1e8, -1e10, -1e6, -1e30, -1e38)


def _allowed(world: World, f: Formula) -> Tensor:
    return may_look(world.value(f.inputs[0]), world[f.inputs[1]], causal=f.facts["causal"])


def _padding(world: World, f: Formula) -> Tensor:
    """Where the key is padding [batch, 1, query, key]."""
    return ~may_look(world.value(f.inputs[0]), world[f.inputs[1]], causal=False)


def _apart(world: World, f: Formula) -> Tensor:
    """How far a key is behind its query [query, key]; above 0 for what comes later."""
    query, key = _allowed(world, f).shape[-2:]
    return torch.arange(key) - torch.arange(key - query, key)[:, None]


def _square(world: World, f: Formula) -> Tensor:
    """The same with queries counted from 0, whatever came before."""
    query, key = _allowed(world, f).shape[-2:]
    return torch.arange(key) - torch.arange(query)[:, None]


ALSO: Also = {
    "allowed": _allowed,
    "wrong": lambda world, f: ~_allowed(world, f),
    "padding": _padding,
    "apart": _apart,
    "counted": _square,
}

# Which places are hidden [batch, 1, query, key], in any attention …
# fmt: off
PLACES: Table = (
    ("mask-inverted", "hides what it should show", lambda allowed: allowed),
    ("mask-padding-missing", "the first row's for all rows", lambda wrong: wrong[:1]),
    ("mask-padding-missing", "the last row's for all rows", lambda wrong: wrong[-1:]),
    ("mask-direction", "the rows of the batch exchanged", lambda wrong: wrong.flip(0)),
)
# fmt: on
# … in one that looks back only …
# fmt: off
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
# fmt: on
# … and in one that looks both ways.
# fmt: off
PLACES_BOTH_WAYS: Table = (
    ("mask-extra", "a causal mask on top", lambda wrong, counted: wrong | (counted > 0)),
    ("mask-extra", "a causal mask alone", lambda counted: counted > 0),
    ("mask-extra", "queries hidden as well as keys", lambda wrong: wrong | wrong.mT),
    ("mask-direction", "queries hidden instead of keys", lambda wrong: wrong.mT),
)
# fmt: on


def patterns(world: World, formula: Formula) -> Iterator[tuple[str, str, Tensor]]:
    """All ways to hide the wrong places: cause, in words, and which they are [batch, 1, query, key]."""
    shape = _allowed(world, formula).shape
    for table in (PLACES, PLACES_CAUSAL if formula.facts["causal"] else PLACES_BOTH_WAYS):
        for cause, says, mistake in table:
            hidden = bound(formula, mistake, ALSO)(world)
            if hidden is not None:
                whole = hidden | torch.zeros(shape, dtype=torch.bool)
                yield cause, says, whole if whole.shape == shape else hidden  # of one query it is turned


def hide(hidden: Tensor, fill: float = LOWEST) -> Tensor:
    """A mask that is added: 0, and a number where something is hidden."""
    return torch.where(hidden, torch.tensor(fill), torch.zeros(()))


def mask(world: World, formula: Formula) -> Iterator[Edit]:
    """The places first, whatever the number; then the number."""
    yield Edit("mask-missing", "nothing is hidden", {formula.name: lambda w: None})
    for cause, says, hidden in patterns(world, formula):
        yield Edit(cause, says, {formula.name: lambda w, hidden=hidden: hide(hidden)})
        if cause == "mask-inverted":
            says = f"{says}, by -inf"
            yield Edit(cause, says, {formula.name: lambda w, hidden=hidden: hide(hidden, -math.inf)})


# ------------------------------------------------------------------------- where a mask is put to use


def _hides(world: World, f: Formula) -> Tensor:
    """What the mask of these scores hides."""
    mask = world.value(f.inputs[1])
    return torch.zeros(1, 1, 1, 1, dtype=torch.bool) if mask is None else mask < HIDDEN


def _later(world: World, f: Formula) -> Tensor:
    """Where the key comes after the query, of scores that no causal mask belongs to."""
    if world.value(f.inputs[1]) is not None and world.formulas[f.inputs[1]].facts.get("causal"):
        raise LookupError("there is a causal mask already")
    query, key = world[f.inputs[0]].shape[-2:]
    first = key - query if key >= query else 0
    return torch.arange(key) > torch.arange(first, first + query)[:, None]


ALSO_SCORES: Also = {
    "unmasked": lambda world, f: world[f.inputs[0]],
    "hides": _hides,
    "later": _later,
}


def after_softmax(unmasked: Tensor, hides: Tensor) -> Tensor:
    """Shares of hidden tokens set to 0 afterwards."""
    return F.softmax(unmasked, -1) * (~hides).float()


def after_softmax_again(unmasked: Tensor, hides: Tensor) -> Tensor:
    """The same, the others raised to sum to 1."""
    shares = after_softmax(unmasked, hides)
    return shares / shares.sum(-1, keepdim=True)


AFTER_SOFTMAX = {
    "shares of hidden tokens set to 0 afterwards": after_softmax,
    "shares of hidden tokens set to 0 afterwards, the others raised to sum to 1": after_softmax_again,
}


def add_mask(world: World, formula: Formula) -> Iterator[Edit]:
    """A mask that comes after the softmax changes two steps."""
    for shares in world.users(formula.name, "softmax"):
        for says, after in AFTER_SOFTMAX.items():
            changes = {
                formula.name: bound(formula, lambda x: x, ALSO_SCORES),
                shares.name: bound(formula, after, ALSO_SCORES),
            }
            yield Edit("mask-after-softmax", says, changes)


# fmt: off
TABLES: Tables = {
    "mask": (ALSO, (
        *(("mask-fill", f"adds {fill:g}", lambda wrong, fill=fill: hide(wrong, fill)) for fill in FILLS),
        ("mask-fill", "adds half the lowest number", lambda wrong: hide(wrong, LOWEST / 2)),
        ("mask-fill", "adds the lowest number of float16", lambda wrong: hide(wrong, torch.finfo(torch.float16).min)),
        ("mask-fill", "1 and 0 are added as they are", lambda allowed: allowed.float()),
        ("mask-inverted", "1 is added where it should hide", lambda wrong: wrong.float()),
    )),
    "add mask": (ALSO_SCORES, (  # x: the scores before the mask
        ("mask-missing", "the scores alone", lambda x: x),
        ("mask-inverted", "the mask subtracted", lambda x, mask: x - mask),
        *(("mask-inverted", f"scores replaced by {fill:g} where shown", lambda x, hides, fill=fill: x.masked_fill(~hides, fill)) for fill in (LOWEST, *FILLS, 0.0, 1e-9)),
        ("mask-fill", "multiplied by the mask", lambda x, mask: x * mask),
        *(("mask-fill", f"scores replaced by {fill:g} where hidden", lambda x, hides, fill=fill: x.masked_fill(hides, fill)) for fill in (LOWEST, *FILLS, 0.0, 1e-9)),
        ("mask-direction", "the mask transposed", lambda x, mask: x + mask.mT),
        ("mask-extra", "a causal mask on top", lambda x, hides, later: x.masked_fill(later | hides, LOWEST)),
        ("mask-extra", "a causal mask on top, by -inf", lambda x, hides, later: x.masked_fill(later | hides, -math.inf)),
    )),
    "biased mask": (ALSO_SCORES, (  # for the fused kernel: the bias where one may look, the lowest number where not
        ("position-bias-missing", "the mask alone", lambda bias, hides: torch.zeros_like(bias).masked_fill(hides, LOWEST)),
        *(("mask-fill", f"{fill:g} where hidden", lambda bias, hides, fill=fill: bias.masked_fill(hides, fill)) for fill in (*FILLS, 0.0)),
        ("mask-fill", "bias and mask added", lambda bias, mask: bias + mask),
        ("position-bias-wrong", "query and key exchanged in the bias", lambda bias, hides: bias.mT.masked_fill(hides, LOWEST)),
    )),
}
# fmt: on
