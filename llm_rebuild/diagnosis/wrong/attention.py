"""Mistakes between the width and the context: heads, products, scores, shares, and what a cache keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis import graph
from llm_rebuild.diagnosis.graph import LOWEST, MINE, OPERATIONS, Edit, Formula, Make, World
from llm_rebuild.diagnosis.wrong.base import Mistake, Tables, bound
from llm_rebuild.diagnosis.wrong.masks import FILLS
from llm_rebuild.verify.transforms import NARROW, Function, narrowed

NAMES = ("query", "key", "value")


def _own(x: Tensor, part: int | None) -> Tensor:
    """The tensor that is cut, or its third of a fused product."""
    return x if part is None else x.chunk(3, dim=-1)[part]


# x [batch, token, width], or a fused product of three; part: which third. To [batch, head, token, head width]
INTERLEAVED: Mapping[str, Mistake] = {
    "head by head: query, key, value of the first head, …": (
        lambda x, part, heads: x.reshape(*x.shape[:2], heads, 3, -1)[..., part, :].transpose(1, 2)
    ),
    "every third number": lambda x, part, heads: OPERATIONS["split"](x[..., part::3], heads=heads),
}
CUT: Mapping[str, Mistake] = {
    "reshaped to [batch, head, token, head width] at once, without a transpose": (
        lambda x, part, heads: _own(x, part).reshape(x.shape[0], heads, x.shape[1], -1)
    ),
    "the head width in front of the heads": (
        lambda x, part, heads: _own(x, part).reshape(*x.shape[:2], -1, heads).permute(0, 3, 1, 2)
    ),
}


def split(world: World, formula: Formula) -> Iterator[Edit]:
    """One function cuts all three, or it was written out three times. A group is tried where it is first met."""
    group, heads, part = formula.facts["group"], formula.facts["heads"], formula.facts.get("part")
    members = {name: world.formulas[group + name] for name in NAMES if group + name in world.formulas}
    if formula.facts["name"] != "query" and group + "query" in world.reaching(formula.name):
        return

    def cut(mistake: Mistake, *names: str) -> dict[str, Make]:
        """The steps of these names, each with the mistake in it."""
        steps = (replace(m, facts={"part": None, **m.facts}) for n, m in members.items() if n in names)
        return {step.name: bound(step, mistake) for step in steps}

    if part is not None:
        for order in list(permutations(range(3)))[1:]:  # the first is the right one
            parts = dict(zip(NAMES, order, strict=True))
            says = ", ".join(sorted(NAMES, key=parts.__getitem__))
            yield Edit("qkv-order", f"as {says}", _with(members, "part", parts))
        for says, mistake in INTERLEAVED.items():
            yield Edit("qkv-interleaved", says, cut(mistake, *members))
    for names in (list(members), *([name] for name in members)):
        only = f"only in the {names[0]}: " if len(names) == 1 else ""
        for says, mistake in CUT.items():
            yield Edit("heads-split", f"{only}{says}", cut(mistake, *names))
    for count in dict.fromkeys((heads * 2, heads // 2, 1, heads * 3, heads + 1, heads - 1, 2, 8, 12, 16)):
        if 0 < count != heads:
            says = f"{count} heads instead of {heads}"
            yield Edit("heads-count", says, _with(members, "heads", dict.fromkeys(NAMES, count)))


def _with(members: Mapping[str, Formula], fact: str, values: Mapping[str, int]) -> dict[str, Make]:
    """The steps of a group with another fact each: those of which the formula is known."""
    steps = [replace(m, facts={**m.facts, fact: values[name]}) for name, m in members.items()]
    return {step.name: lambda w, step=step: w.compute(step) for step in steps}


def _in_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbours turned together, instead of the halves. cos, sin [batch, token, head width]"""
    half = x.shape[-1] // 2
    cos, sin = cos[:, None, :, :half], sin[:, None, :, :half]
    one, other = x[..., ::2], x[..., 1::2]
    return torch.stack([one * cos - other * sin, other * cos + one * sin], dim=-1).flatten(-2)


def _in_a_row(angles: Tensor) -> Tensor:
    """Each angle twice in a row, and not all of them twice. [batch, token, head width]"""
    return angles.chunk(2, dim=-1)[0].repeat_interleave(2, dim=-1)


# Places [batch, key] that are counted otherwise, by the mask.
COUNTED: Mapping[str, Function] = {
    "counted from the first real token, by the mask": lambda mask: mask.cumsum(1) - 1,
    "counted so, and padding at 1": lambda mask: (mask.cumsum(1) - 1).masked_fill(mask == 0, 1),
    "in reverse": lambda mask: torch.arange(mask.shape[1]).flip(0)[None],
}


def product(world: World, formula: Formula) -> Iterator[Edit]:
    """A query that is scaled already, and the next step lets it be: an order, and no other number."""
    for scaled in world.users(formula.name, "scale") if MINE + formula.name in world.tensors else ():
        make = bound(formula, lambda query, key, by=scaled.facts["by"]: (query * by) @ key.mT)
        changes = {formula.name: make, scaled.name: bound(scaled, lambda x: x)}
        yield Edit("scale-order", "the query was scaled", changes)


def scale(world: World, formula: Formula) -> Iterator[Edit]:
    """The mask before the scale."""
    x, by = formula.inputs[0], formula.facts["by"]
    for masked in world.users(formula.name, "add mask"):
        for factor, says in (
            (by, "the mask was added before, and scaled"),
            (1.0, "the mask was added first"),
        ):
            make = lambda w, factor=factor, mask=masked.inputs[1]: (w[x] + w[mask]) * factor  # noqa: E731
            yield Edit("scale-order", says, {formula.name: make})
    if by:
        yield Edit("rounding", "divided by one over the factor", {formula.name: lambda w: w[x] / (1 / by)})


def add_bias(world: World, formula: Formula) -> Iterator[Edit]:
    """The bias of another attention, where none belongs."""
    product, bias = formula.inputs
    if world.formulas[bias].kind == "no bias":
        for own in reversed(world.all_of("bias by head")):
            says = f"that of another attention ({own.name.replace('#', '')})"
            make = lambda w, own=own: w[product] + w[own.name]  # noqa: E731
            yield Edit("position-bias-extra", says, {formula.name: make})


def after_softmax(unmasked: Tensor, hides: Tensor) -> Tensor:
    """Shares of hidden tokens set to 0 afterwards."""
    return F.softmax(unmasked, -1) * (~hides).float()


def add_mask(world: World, formula: Formula) -> Iterator[Edit]:
    """A mask that comes after the softmax changes two steps."""
    for shares in world.users(formula.name, "softmax"):
        changes = {formula.name: bound(formula, lambda x: x), shares.name: bound(shares, after_softmax)}
        yield Edit("mask-after-softmax", "shares of hidden tokens set to 0 afterwards", changes)


OTHER_AXES = {"over the queries": -2, "over the heads": 1, "over the batch": 0}
SEVERAL = {"queries and keys": (2, 3), "heads and keys": (1, 3), "the batch and keys": (0, 3)}


def _together(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A softmax over some axes at once."""
    moved = x.movedim(axes, (-2, -1))
    return F.softmax(moved.flatten(-2), -1).view(moved.shape).movedim((-2, -1), axes)


def _summed(x: Tensor, axis: int) -> Tensor:
    """Exponentials less the largest of a query's scores, divided by their sum over an axis."""
    powers = (x - x.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(axis, keepdim=True)


# fmt: off
TABLES: Tables = {
    "merge": (("heads-merged", "reshaped without moving the tokens in front", lambda x: x.reshape(len(x), x.shape[2], -1)),),
    "cat": (  # old, new [batch, head, token, head width]: keys, or values; *_other: the other of the two
        ("cache-not-appended", "the new token alone, without those before", lambda new: new),
        ("cache-not-appended", "those before alone, without the new token", lambda old: old),
        ("cache-not-appended", "the new token written over the last one", lambda old, new: torch.cat([old[:, :, :-1], new], -2)),
        ("cache-not-appended", "the first of those before dropped", lambda old, new: torch.cat([old[:, :, 1:], new], -2)),
        ("cache-order", "the new token written over the last one, and nothing behind it", lambda old, new: torch.cat([old[:, :, :-1], new, 0 * new], -2)),
        ("cache-order", "the new token in front of those before", lambda old, new: torch.cat([new, old], -2)),
        ("rotary-value", "the values were turned", lambda old, new, past_cos, past_sin, turn_cos, turn_sin: torch.cat([graph.rotate(old, past_cos, past_sin), graph.rotate(new, turn_cos, turn_sin)], -2)),
        ("rotary-value", "the new values were turned", lambda old, new, turn_cos, turn_sin: torch.cat([old, graph.rotate(new, turn_cos, turn_sin)], -2)),
        ("rotary-wrong", "all that is kept was turned again", lambda old, new, turn_cos, turn_sin: graph.rotate(torch.cat([old, new], -2), turn_cos, turn_sin)),
        ("cache-mixed", "the new values appended to keys, or keys to values", lambda old, new_other: torch.cat([old, new_other], -2)),
        ("cache-mixed", "keys kept for values, or values for keys", lambda old_other, new_other: torch.cat([old_other, new_other], -2)),
        ("cache-mixed", "appended to the values kept instead of the keys, or the keys", lambda old_other, new: torch.cat([old_other, new], -2)),
    ),
    "same": (  # keys or values of the pass before, as they were
        ("cache-mixed", "keys kept for values, or values for keys", lambda old_other: old_other),
    ),
    "turns": (  # ids, mask: of the tokens; new_ids: the same, where others came before; speeds: of the pairs
        ("positions-not-advanced", "the new token counts from 0", lambda new_ids, speeds: graph.turns(new_ids, new_ids, speeds=speeds)),
        ("positions-not-advanced", "one position behind", lambda new_ids, mask, speeds: graph.turns(new_ids, mask, speeds=speeds, first=-1)),
        *(("positions-shifted", f"counted from {first}", lambda ids, mask, speeds, first=first: graph.turns(ids, mask, speeds=speeds, first=first)) for first in (1, -1, 2)),
        *(("positions-wrong", says, lambda ids, mask, speeds, count=count: count(mask)[:, -ids.shape[1] :, None].float() * speeds) for says, count in COUNTED.items()),
        ("rotary-missing", "every token at the first place", lambda ids, mask, speeds: 0 * graph.turns(ids, mask, speeds=speeds)),
        *(("rotary-base", f"base: {base} instead", lambda ids, mask, width, base=base: graph.turns(ids, mask, speeds=graph.speeds_of(base, width))) for base in graph.BASES),
        ("rotary-base", "the powers from the second pair on", lambda ids, mask, base, width: graph.turns(ids, mask, speeds=base ** -(torch.arange(2, width + 2, 2).float() / width))),
        *(("wrong-dtype", f"speeds kept in {name}", lambda ids, mask, speeds, t=t: graph.turns(ids, mask, speeds=narrowed(speeds, t))) for name, t in NARROW.items()),
    ),
    "twice": (  # x: the angles of all pairs
        ("rotary-pairs", "each angle twice in a row", lambda x: x.repeat_interleave(2, -1)),
        ("rotary-wrong", "the second time negated", lambda x: torch.cat([x, -x], -1)),
        ("rotary-wrong", "the second time in reverse", lambda x: torch.cat([x, x.flip(-1)], -1)),
    ),
    "wave": (  # x: the angles
        *(("rotary-wrong", "sine and cosine exchanged", do) for do in (lambda x: x.cos(), lambda x: x.sin())),
        *(("rotary-wrong", "turned the other way", do) for do in (lambda x: (-x).sin(), lambda x: -x.cos())),
        *(("rotary-pairs", "each angle twice in a row", do) for do in (lambda x: _in_a_row(x).cos(), lambda x: _in_a_row(x).sin())),
    ),
    "by wave": (  # x [batch, head, token, head width]; wave, and the angle that it is of [batch, token, head width]
        *(("rotary-wrong", "sine and cosine exchanged", do) for do in (lambda x, angle: x * angle.cos()[:, None], lambda x, angle: x * angle.sin()[:, None])),
        ("rotary-wrong", "turned the other way", lambda x, wave: x * -wave[:, None]),
    ),
    "minus": (  # x [batch, head, token, head width]
        ("rotary-pairs", "every second number instead of the second half", lambda x: -x[..., 1::2]),
        ("rotary-wrong", "the first half instead of the second", lambda x: -x.chunk(2, -1)[0]),
        ("rotary-wrong", "not negated", lambda x: x.chunk(2, -1)[1]),
    ),
    "swapped": (  # minus: the second half of x, negated
        ("rotary-pairs", "put together number by number", lambda minus, x: torch.stack([minus, x.chunk(2, -1)[0]], -1).flatten(-2)),
        ("rotary-wrong", "the first half in front", lambda minus, x: torch.cat([x.chunk(2, -1)[0], minus], -1)),
    ),
    "rotate": (  # x [batch, head, token, head width]; cos, sin [batch, token, head width]
        ("rotary-pairs", "neighbours turned together instead of halves", _in_pairs),
        ("rotary-wrong", "turned the other way", lambda x, cos, sin: graph.rotate(x, cos, -sin)),
        ("rotary-wrong", "sine and cosine exchanged", lambda x, cos, sin: graph.rotate(x, sin, cos)),
        ("rotary-wrong", "the halves exchanged without a sign", lambda x, cos, sin: x * cos[:, None] + x.roll(x.shape[-1] // 2, -1) * sin[:, None]),
        ("rotary-wrong", "all tokens in the place of the first", lambda x, cos, sin: graph.rotate(x, cos[:, :1], sin[:, :1])),
    ),
    "repeat": (
        ("heads-shared-wrong", "the heads one after the other instead of each for its neighbours", lambda x, times: x.repeat(1, times, 1, 1)),
        ("heads-shared-wrong", "the first head for all", lambda x, times: x[:, :1].expand(-1, times * x.shape[1], -1, -1)),
        ("heads-shared-wrong", "the sum of all heads for all", lambda x, times: x.sum(1, keepdim=True).expand(-1, times * x.shape[1], -1, -1)),
        ("heads-shared-wrong", "tokens repeated instead of heads", lambda x, times: x.repeat_interleave(times, 2).reshape(len(x), -1, *x.shape[2:])),
    ),
    "product": (
        ("rotary-missing", "neither query nor key was turned", lambda raw_query, raw_key: raw_query @ raw_key.mT),
        ("rotary-missing", "the query was not turned", lambda raw_query, key: raw_query @ key.mT),
        ("rotary-missing", "the key was not turned", lambda query, raw_key: query @ raw_key.mT),
        ("query-key-swapped", "key times query", lambda query, key: key @ query.mT),
        ("scale-extra", "query and key were brought to length 1", lambda query, key: F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT),
        ("scale-extra", "the product ÷ √(head width)", lambda query, key: (query @ key.mT) * query.shape[-1] ** -0.5),
        ("scale-extra", "the query ÷ √(head width)", lambda query, key: (query * query.shape[-1] ** -0.5) @ key.mT),
        ("wrong-operand", "the key reshaped instead of transposed", lambda query, key: query @ key.reshape(key.mT.shape)),
    ),
    "add bias": (  # bias [1, head, query, key]
        ("scale-order", "the mask was added before the bias", lambda product, mask_next: product + mask_next),
        ("position-bias-wrong", "query and key exchanged in the bias", lambda product, bias: product + bias.mT),
    ),
    "softmax": (  # x: the scores; unmasked: before the mask was added
        *(("softmax-axis", says, lambda x, axis=axis: F.softmax(x, axis)) for says, axis in OTHER_AXES.items()),
        *(("softmax-axis", f"the exponentials of each query's, their sum {says}", lambda x, axis=axis: _summed(x, axis)) for says, axis in OTHER_AXES.items()),
        *(("softmax-axis", f"over {says} together", lambda x, axes=axes: _together(x, axes)) for says, axes in SEVERAL.items()),
        ("scale-extra", "of the scores ÷ √(head width)", lambda x, query: F.softmax(x * query.shape[-1] ** -0.5, -1)),
        ("mask-missing", "of the scores before the mask", lambda unmasked: F.softmax(unmasked, -1)),
        ("mask-after-softmax", "shares of hidden tokens set to 0 afterwards", after_softmax),
        ("softmax-changed", "with one more in the sum", lambda x: x.exp() / (1 + x.exp().sum(-1, keepdim=True))),
        ("rounding", "in float64, then rounded", lambda x: F.softmax(x.double(), -1).float()),
        ("rounding", "by its logarithm", lambda x: F.log_softmax(x, -1).exp()),
        ("rounding", "by the logarithm of its sum", lambda x: (x - x.logsumexp(-1, keepdim=True)).exp()),
    ),
    "mix": (
        ("softmax-axis", "each token's heads look at one another", lambda query, key, value: F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (query, key, value))).transpose(1, 2)),
        ("rotary-value", "the values were turned", lambda shares, value, turn_cos, turn_sin: shares @ graph.rotate(value, turn_cos, turn_sin)),
        ("wrong-operand", "the shares transposed", lambda shares, value: shares.mT @ value),
        ("softmax-missing", "the scores instead of the shares", lambda scores, value: scores @ value),
        ("softmax-missing", "the scores before the mask instead of the shares", lambda unmasked, value: unmasked @ value),
    ),
    "add mask": (  # x: the scores before the mask
        *(("mask-fill", f"scores replaced by {fill:g} where hidden", lambda x, hides, fill=fill: x.masked_fill(hides, fill)) for fill in (LOWEST, *FILLS, 0.0)),
        *(("mask-inverted", f"scores replaced by {fill:g} where shown", lambda x, hides, fill=fill: x.masked_fill(~hides, fill)) for fill in (LOWEST, *FILLS, 0.0)),
        *(("mask-fill", f"{fill:g} added where hidden", lambda x, hides, fill=fill: x + fill * hides) for fill in (1.0, -1.0)),
        ("mask-direction", "the mask transposed", lambda x, mask: x + mask.mT),
        ("mask-extra", "each query sees as many keys as queries stand before it", lambda x: x.masked_fill(torch.ones(x.shape[-2:]).triu(1).bool(), -math.inf)),
        *(("mask-extra", f"a causal mask on top, by {fill:g}", lambda x, hides, later, fill=fill: x.masked_fill(later | hides, fill)) for fill in (LOWEST, -math.inf)),
    ),
    "add": (  # of scores and a mask with the bias in it
        ("mask-missing", "the bias without the mask", lambda a, only_bias: a + only_bias),
        ("position-bias-missing", "the mask without the bias", lambda a, only_mask: a + only_mask),
    ),
    "biased mask": (  # for the fused kernel: the bias where one may look, the lowest number where not
        ("mask-missing", "the bias alone", lambda own: own),
        ("position-bias-missing", "the mask alone", lambda own, hides: torch.zeros_like(own).masked_fill(hides, LOWEST)),
        *(("mask-fill", f"{fill:g} where hidden", lambda own, hides, fill=fill: own.masked_fill(hides, fill)) for fill in (*FILLS, 0.0)),
    ),
}
# fmt: on
