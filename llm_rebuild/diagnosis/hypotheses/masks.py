"""Mistakes in who may look at whom."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from llm_rebuild.diagnosis.formulas import Formula, World, may_look
from llm_rebuild.diagnosis.hypotheses.base import FILLS, LOWEST, Make, Tries
from llm_rebuild.diagnosis.hypotheses.scores import after_softmax


def mask(world: World, f: Formula) -> Tries:
    causal = f.facts["causal"]
    given, ids = f.inputs

    def filled(hidden: Callable[[World], Tensor], fill: float = LOWEST) -> Make:
        return lambda w: torch.where(hidden(w), torch.tensor(fill), torch.zeros(()))

    def wrong(w: World) -> Tensor:
        return ~may_look(w, f)

    def order(w: World, past: int = 0) -> Tensor:
        """Where the key lies more than `past` behind the query, hidden as in a causal mask."""
        query, key = w[ids].shape[1], _mask_of(w).shape[1]
        where = torch.arange(key)
        return (where > where[key - query :, None] + past)[None, None].expand(len(w[ids]), 1, query, key)

    def _mask_of(w: World) -> Tensor:
        mask = w.value(given)
        return torch.ones_like(w[ids]) if mask is None else mask

    def padding(w: World) -> Tensor:
        query = w[ids].shape[1]
        return ~_mask_of(w).bool()[:, None, None, :].expand(-1, 1, query, -1)

    yield "mask-missing", "nothing is hidden", lambda w: None
    yield "mask-inverted", "hides what it should show", filled(lambda w: may_look(w, f))
    yield "mask-inverted", "hides what it should show, by -inf", filled(lambda w: may_look(w, f), -math.inf)
    yield (
        "mask-padding-missing",
        "the first row's for all rows",
        filled(lambda w: wrong(w)[:1].expand_as(wrong(w))),
    )
    yield (
        "mask-padding-missing",
        "the last row's for all rows",
        filled(lambda w: wrong(w)[-1:].expand_as(wrong(w))),
    )
    yield "mask-direction", "the rows of the batch exchanged", filled(lambda w: wrong(w).flip(0))
    if causal:
        yield "mask-causal-missing", "later tokens are seen", filled(padding)
        yield "mask-padding-missing", "padding is seen", filled(order)
        yield (
            "mask-causal-missing",
            "only what is both later and padding is hidden",
            filled(lambda w: order(w) & padding(w)),
        )
        for by, says in ((1, "one later token is seen, too"), (-1, "a token does not see itself")):
            yield "mask-off-by-one", says, filled(lambda w, by=by: order(w, by) | padding(w))  # type: ignore[misc]
            yield "mask-off-by-one", says + ", and padding is seen", filled(lambda w, by=by: order(w, by))  # type: ignore[misc]

        def later(w: World) -> Tensor:
            query, key = w[ids].shape[1], _mask_of(w).shape[1]
            where = torch.arange(key)
            return (where < where[key - query :, None])[None, None].expand(len(w[ids]), 1, query, key)

        yield (
            "mask-direction",
            "earlier tokens are hidden instead of later ones",
            filled(lambda w: later(w) | padding(w)),
        )
        yield "mask-direction", "earlier tokens are hidden, and padding is seen", filled(later)

        def from_the_start(w: World) -> Tensor:
            query, key = w[ids].shape[1], _mask_of(w).shape[1]
            return (torch.arange(key) > torch.arange(query)[:, None])[None, None].expand(
                len(w[ids]), 1, query, key
            )

        yield (
            "mask-extra",
            "queries are counted from 0, though others came before",
            filled(lambda w: from_the_start(w) | padding(w)),
        )
        yield "mask-inverted", "padding shown, tokens hidden", filled(lambda w: order(w) | ~padding(w))
        yield (
            "mask-direction",
            "queries of padding are hidden instead of keys",
            filled(lambda w: order(w) | padding(w).transpose(-1, -2)),
        )
        yield (
            "mask-extra",
            "queries of padding are hidden as well as keys",
            filled(lambda w: order(w) | padding(w) | padding(w).transpose(-1, -2)),
        )
    else:

        def triangle(w: World) -> Tensor:
            return torch.ones_like(wrong(w)).triu(1)

        yield "mask-extra", "a causal mask on top", filled(lambda w: wrong(w) | triangle(w))
        yield "mask-extra", "a causal mask alone", filled(triangle)
        yield "mask-direction", "queries hidden instead of keys", filled(lambda w: wrong(w).mT)
        yield "mask-extra", "queries hidden as well as keys", filled(lambda w: wrong(w) | wrong(w).mT)
    for fill in FILLS:
        yield "mask-fill", f"adds {fill:g}", filled(wrong, fill)
    yield "mask-fill", "adds half the lowest number", filled(wrong, LOWEST / 2)
    yield "mask-fill", "adds the lowest number of float16", filled(wrong, torch.finfo(torch.float16).min)
    yield "mask-fill", "1 and 0 are added as they are", lambda w: may_look(w, f).float()
    yield "mask-inverted", "1 is added where it should hide", lambda w: wrong(w).float()


def add_mask(world: World, f: Formula) -> Tries:
    of, mask = f.inputs

    def hides(w: World) -> Tensor:
        hidden = w.value(mask)
        if hidden is None:
            return torch.zeros(1, 1, 1, 1, dtype=torch.bool)
        return hidden < -1

    cause = "mask-missing"
    probs = f"{f.name.rpartition('.')[0]}.probs"
    yield cause, "the scores alone", lambda w: w[of]
    if probs in world.formulas:
        for says, after in after_softmax(of, hides):
            yield "mask-after-softmax", says, {f.name: lambda w: w[of], probs: after}
    yield "mask-inverted", "the mask subtracted", lambda w: w[of] - w[mask]
    yield "mask-fill", "multiplied by 1 and 0 instead", lambda w: w[of] * (~hides(w)).float()
    yield "mask-fill", "multiplied by the mask", lambda w: w[of] * w[mask]
    for fill in (LOWEST, *FILLS, 0.0, 1e-9):
        yield (
            "mask-fill",
            f"scores replaced by {fill:g} where hidden",
            lambda w, x=fill: w[of].masked_fill(hides(w), x),  # type: ignore[misc]
        )
        yield (
            "mask-inverted",
            f"scores replaced by {fill:g} where shown",
            lambda w, x=fill: w[of].masked_fill(~hides(w), x),  # type: ignore[misc]
        )
    yield "mask-direction", "the mask transposed", lambda w: w[of] + w[mask].transpose(-1, -2)
    if world[of].dim() == 4:
        query, key = world[of].shape[-2:]
        if world.value(mask) is None or not world.formulas[mask].facts.get("causal"):
            where = torch.arange(key)
            later = (
                where > where[key - query :, None] if key >= query else where > torch.arange(query)[:, None]
            )
            yield (
                "mask-extra",
                "a causal mask on top",
                lambda w: w[of].masked_fill(later | hides(w), LOWEST),
            )
            yield (
                "mask-extra",
                "a causal mask on top",
                lambda w: w[of].masked_fill(later | hides(w), -math.inf),
            )


def biased_mask(world: World, f: Formula) -> Tries:
    """For the fused kernel: the bias where one may look, the lowest float where not."""
    bias, mask = f.inputs

    def filled(make: Callable[[World], Tensor], fill: float = LOWEST) -> Make:
        def how(w: World) -> Tensor:
            hidden = w.value(mask)
            numbers = make(w)
            return numbers if hidden is None else torch.where(hidden < -1, torch.tensor(fill), numbers)

        return how

    yield "position-bias-missing", "the mask alone", filled(lambda w: torch.zeros_like(w[bias]))
    yield "mask-missing", "the bias alone", lambda w: w[bias].expand(world[f.name].shape)
    for fill in (*FILLS, 0.0):
        yield "mask-fill", f"{fill:g} where hidden", filled(lambda w: w[bias], fill)
    yield "mask-fill", "bias and mask added", lambda w: w[bias] + w[mask]
    yield (
        "position-bias-wrong",
        "query and key exchanged in the bias",
        filled(lambda w: w[bias].transpose(-1, -2)),
    )
    yield "position-bias-wrong", "the bias subtracted", filled(lambda w: -w[bias])
    yield (
        "mask-inverted",
        "hides what it should show",
        lambda w: torch.where(w[mask] < -1, w[bias], torch.tensor(LOWEST)),
    )
