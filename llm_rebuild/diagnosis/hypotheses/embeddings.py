"""Mistakes in what is looked up: token ids, positions, token types, and T5's buckets of distances."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, World, distances
from llm_rebuild.diagnosis.hypotheses.base import Make, Tries, cached


def lookup(world: World, f: Formula) -> Tries:
    table, of = world.weights[f.weights[0]], f.inputs[0]
    width, rows = table.shape[-1], table.shape[0]

    def at(ids: Callable[[Tensor], Tensor]) -> Make:
        return lambda w: F.embedding(ids(w[of]).clamp(0, rows - 1), table)

    def times(by: float) -> Make:
        return lambda w: F.embedding(w[of], table) * by

    what = f.facts["what"]
    if what == "token":
        yield "token-ids-wrong", "every id plus 1", at(lambda ids: ids + 1)
        yield "token-ids-wrong", "every id minus 1", at(lambda ids: ids - 1)
        yield "token-ids-wrong", "the ids moved one place to the right", at(lambda ids: ids.roll(1, 1))
        yield "token-ids-wrong", "the ids moved one place to the left", at(lambda ids: ids.roll(-1, 1))
        yield "token-ids-wrong", "the ids in reverse", at(lambda ids: ids.flip(1))
        yield "token-ids-wrong", "the rows of the batch exchanged", at(lambda ids: ids.flip(0))
        yield "embedding-scaled", f"times √{width}", times(width**0.5)
        yield "embedding-scaled", f"divided by √{width}", times(width**-0.5)
    elif what == "position":
        if cached(world):
            yield "positions-not-advanced", "the new token counts from 0", at(lambda p: p - p.min())
            yield "positions-not-advanced", "one position behind", at(lambda p: p - 1)
            yield "positions-shifted", "one position too far", at(lambda p: p + 1)
        for by in (1, 2, -1, 3, -2):
            yield "positions-shifted", f"{by:+d} for every token", at(lambda p, by=by: p + by)  # type: ignore[misc]
        yield "positions-missing", "zeros instead", lambda w: torch.zeros_like(w.compute(f))  # type: ignore[arg-type]
        yield "positions-wrong", "the same position for every token", at(torch.zeros_like)
        yield "positions-wrong", "from the last token back to the first", at(lambda p: p.flip(1))

        def by_mask(w: World) -> Tensor:
            mask = w["#mask"]
            return F.embedding((mask.cumsum(1) - 1).clamp(min=0)[:, -w[of].shape[1] :], table)

        yield "positions-wrong", "counted from the first real token, by the mask", by_mask
        for way in ("halves", "alternating"):
            yield (
                "positions-sinusoidal",
                f"sines and cosines ({way})",
                lambda w, way=way: sinusoidal(w[of], width, way),  # type: ignore[misc]
            )
    elif what == "type":
        yield "token-types-missing", "zeros instead", lambda w: torch.zeros_like(w.compute(f))  # type: ignore[arg-type]
        yield "token-types-wrong", "the second type for all", at(torch.ones_like)
        yield "token-types-wrong", "the types taken from the mask", lambda w: F.embedding(w["#mask"], table)
        yield (
            "token-types-wrong",
            "the mask turned round as types",
            lambda w: F.embedding(1 - w["#mask"], table),
        )
    elif what == "bucket":
        yield from distances_in_buckets(world, f, table)


def sinusoidal(positions: Tensor, width: int, way: str) -> Tensor:
    """The original transformer's positions: [1, token, width]."""
    half = width // 2
    steps = positions[..., None].float() * torch.exp(torch.arange(half).float() * (-math.log(10000.0) / half))
    if way == "halves":
        return torch.cat([steps.sin(), steps.cos()], dim=-1)
    return torch.stack([steps.sin(), steps.cos()], dim=-1).flatten(-2)


def distances_in_buckets(world: World, f: Formula, table: Tensor) -> Tries:
    """T5's distances as numbers of buckets, in all the ways in which they go wrong."""
    step = world.formulas[f.inputs[0]]
    both, config = step.facts["both_ways"], world.config
    count, limit = config.relative_attention_num_buckets, config.relative_attention_max_distance

    def by(**how: object) -> Make:
        def make(w: World) -> Tensor:
            given = {"both": both, "count": count, "limit": limit, **how}
            return F.embedding(buckets(distances(w, step), **given).clamp(0, count - 1), table)

        return make

    if cached(world):

        def from_the_start(w: World) -> Tensor:
            query, key = w[step.inputs[0]].shape[1], w[step.inputs[1]].shape[1]
            apart = torch.arange(key) - torch.arange(query)[:, None]
            return F.embedding(buckets(apart, both, count, limit), table)

        def without_those_before(w: World) -> Tensor:
            query = w[step.inputs[0]].shape[1]
            apart = torch.arange(query) - torch.arange(query)[:, None]
            return F.embedding(buckets(apart, both, count, limit), table)

        yield "positions-not-advanced", "those before are not counted", without_those_before
        yield (
            "positions-not-advanced",
            "queries are counted from 0, though others came before",
            from_the_start,
        )
    name = {True: "two-way", False: "one-way"}
    yield "buckets-direction", f"{name[not both]} instead of {name[both]} buckets", by(both=not both)
    yield "buckets-sign", "query minus key instead of key minus query", by(sign=-1)
    yield "buckets-direction", "the absolute distance, whatever the side", by(absolute=True)
    yield (
        "buckets-direction",
        f"{name[not both]} buckets and the opposite sign",
        by(both=not both, sign=-1),
    )
    yield "buckets-sign", "the other half of the buckets for what comes after", by(half="other")
    yield "buckets-count", "the halves told apart by ≥ 0 instead of > 0", by(half="at zero")
    yield "buckets-count", "no half for what comes after", by(half="none")
    for other in (count // 2, count * 2, count - 1, 16, 32, 64):
        if other != count and other > 3:
            yield "buckets-count", f"{other} buckets instead of {count}", by(count=other)
    for other in (limit // 2, limit * 2, limit - 1, limit + 1, 20, 32, 64, 100, 127, 256, 512, 1000):
        if other != limit and other > 1:
            yield "buckets-count", f"a largest distance of {other} instead of {limit}", by(limit=other)
    for part in (0.25, 0.75, 1.0):
        yield "buckets-count", f"{part:g} of the buckets for exact distances", by(exact=part)
    yield "buckets-count", "distances counted one by one, without the logarithm", by(log=False)
    yield "buckets-count", "rounded instead of cut off", by(whole="round")
    yield "buckets-count", "rounded up instead of cut off", by(whole="ceil")
    yield "buckets-count", "the logarithm to base 2", by(base=2.0)
    yield "buckets-count", "the logarithm to base 10", by(base=10.0)
    yield "buckets-count", "the logarithm not divided by its largest value", by(base=math.e)
    yield "buckets-count", "≤ instead of < where the logarithm begins", by(edge="closed")
    yield "buckets-count", "not limited to the last bucket", by(cut=False)


def buckets(
    distance: Tensor,
    both: bool,
    count: int,
    limit: int,
    sign: int = 1,
    absolute: bool = False,
    half: str = "",
    exact: float = 0.5,
    log: bool = True,
    whole: str = "",
    base: float | None = None,
    edge: str = "",
    cut: bool = True,
) -> Tensor:
    """`t5.bucket_of` with its places for mistakes as arguments."""
    distance = distance * sign
    if absolute:
        distance = -distance.abs()
    first = torch.zeros_like(distance)
    if both:
        count //= 2
        after = distance > 0
        if half == "other":
            after = distance < 0
        elif half == "at zero":
            after = distance >= 0
        elif half == "none":
            after = torch.zeros_like(after)
        first, distance = after.long() * count, distance.abs()
    else:
        distance = -torch.clamp(distance, max=0)
    near = max(1, int(count * exact))
    if near >= count or not log:
        return first + torch.clamp(distance, max=count - 1)
    ratio = torch.log(distance.float() / near)
    scale = math.log(limit / near) if base is None else math.log(base)
    far = ratio / scale * (count - near)
    far = {"round": torch.round, "ceil": torch.ceil}.get(whole, torch.floor)(far)
    far = near + torch.where(torch.isfinite(far), far, torch.zeros_like(far)).long()
    if cut:
        far = torch.clamp(far, max=count - 1)
    close = distance <= near if edge == "closed" else distance < near
    return first + torch.where(close, distance, far)
