"""Mistakes between query and context: product, scale, bias, mask, softmax, and the mixing of values."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.buckets import Buckets
from llm_rebuild.diagnosis.graph import LOWEST, MINE, Edit, World
from llm_rebuild.diagnosis.wrong.base import NARROW, Also, Tables, bound, edits
from llm_rebuild.diagnosis.wrong.masks import FILLS
from llm_rebuild.models.formulas import Formula
from llm_rebuild.verify.equality import HIDDEN


def _product(world: World, f: Formula) -> Formula:
    return world.source(f.name, "product")


def _value(world: World, f: Formula) -> Tensor:
    """The values of the attention that a step belongs to: they are mixed next."""
    later = list(world.formulas).index(f.name)
    for step in list(world.formulas.values())[later:]:
        if step.kind == "mix":
            return world[step.inputs[1]]
    raise LookupError(f"{f.name}: no values are mixed after it")


def _square(world: World, f: Formula) -> Tensor:
    """The key, where it could be multiplied as it is."""
    key = world[f.inputs[1]]
    if key.shape[-2] != key.shape[-1]:
        raise LookupError("the key has another shape when it is transposed")
    return key


def _bias(world: World, f: Formula) -> Formula:
    """The step that lays a bias out by head, where one belongs."""
    bias = world.formulas[f.inputs[1]]
    if bias.kind != "bias by head":
        raise LookupError("no bias belongs here")
    return bias


def _masking(world: World, f: Formula) -> Formula:
    """The step that adds the mask, or the bias, or both."""
    if f.kind in ("add mask", "biased mask"):
        return f
    step = world.formulas[world.source(f.name, "softmax").inputs[0]]
    if len(step.inputs) != 2:
        raise LookupError(f"{f.name}: nothing is added before it")
    return step


def _hides(world: World, f: Formula) -> Tensor:
    """What the mask of these scores hides."""
    mask = world.value(_masking(world, f).inputs[1])
    return torch.zeros(1, 1, 1, 1, dtype=torch.bool) if mask is None else mask < HIDDEN


def _later(world: World, f: Formula) -> Tensor:
    """Where the key comes after the query, of scores that no causal mask belongs to."""
    if world.value(f.inputs[1]) is not None and world.formulas[f.inputs[1]].facts.get("causal"):
        raise LookupError("there is a causal mask already")
    query, key = world[f.inputs[0]].shape[-2:]
    first = key - query if key >= query else 0
    return torch.arange(key) > torch.arange(first, first + query)[:, None]


ALSO: Also = {
    "query": lambda world, f: world[_product(world, f).inputs[0]],
    "key": lambda world, f: world[_product(world, f).inputs[1]],
    "width": lambda world, f: world[_product(world, f).inputs[0]].shape[-1],  # of a head
    "value": _value,
    "square": _square,
    "scaled": lambda world, f: world[world.source(f.inputs[0], "scale").name],
    "scores": lambda world, f: world[world.formulas[f.inputs[0]].inputs[0]],
    # of a step that adds a bias
    "bias": lambda world, f: world[_bias(world, f).name],
    "rows": lambda world, f: world[_bias(world, f).inputs[0]],
    "sum": lambda world, f: world[f.inputs[0]] + world[f.inputs[1]],
    "any": lambda world, f: world[f.inputs[1]],
    "masked_next": lambda world, f: world[world.user(f.name, "add mask").inputs[1]],
    # of a step that adds a mask, or comes after it
    "unmasked": lambda world, f: world[_masking(world, f).inputs[0]],
    "mask": lambda world, f: world[_masking(world, f).inputs[1]],
    "hides": _hides,
    "visible": lambda world, f: (~_hides(world, f)).float(),
    "later": _later,
}


def product(world: World, formula: Formula) -> Iterator[Edit]:
    """A product that is scaled already, and the next step lets it be: an order, and no other number."""
    table = [row for row in TABLES["product"][1] if "{width}" in row[1]]
    for scaled in world.users(formula.name, "scale") if MINE + formula.name in world.known else ():
        for edit in edits(world, formula, table, ALSO):
            changes = {**edit.changes, scaled.name: bound(scaled, lambda x: x, {})}
            yield Edit("scale-order", edit.says, changes)


def scale(world: World, formula: Formula) -> Iterator[Edit]:
    """Another factor, or the mask before it."""
    x, by = formula.inputs[0], formula.facts["by"]
    width = round(by**-2) if by and by != 1 else 0
    kind = "output-scale" if formula.facts.get("output") else "scale"
    factors = {
        "not scaled": 1.0,
        f"divided by {width}": 1 / max(width, 1),
        f"times √{width}": width**0.5,
        f"times {width}": float(width),
    }
    sizes = {f"{n} ({name})": n for name, n in world.run.sizes.items() if n != width}
    if world[x].dim() == 4:
        sizes |= {f"{n}, the number of keys": n for n in (world[x].shape[-1],)}
    factors |= {f"divided by √{says}": n**-0.5 for says, n in sizes.items()}
    factors |= {f"divided by {says}": 1 / n for says, n in sizes.items()}
    for says, factor in factors.items():
        cause = f"{kind}-missing" if says == "not scaled" else f"{kind}-wrong"
        if factor not in (by, 0.0):
            yield Edit(cause, says, {formula.name: lambda w, factor=factor: w[x] * factor})
    twice = "scale-extra" if kind == "scale" else "output-scale-wrong"
    yield Edit(twice, "twice", {formula.name: lambda w: w[x] * by * by})
    for says, root in {"": math.sqrt(width or 1), " as one over the factor": 1 / by if by else 1.0}.items():
        yield Edit("rounding", f"divided by √{width}{says}", {formula.name: lambda w, r=root: w[x] / r})
    for masked in world.users(formula.name, "add mask"):
        for factor, says in (
            (by, "the mask was added before, and scaled as well"),
            (1.0, "the mask was added first"),
        ):
            yield Edit(
                "scale-order",
                says,
                {formula.name: lambda w, factor=factor, mask=masked.inputs[1]: (w[x] + w[mask]) * factor},
            )


def add_bias(world: World, formula: Formula) -> Iterator[Edit]:
    """A bias where there is none, or from another table."""
    product, bias = formula.inputs
    tables = [f for f in world.all_of("lookup") if f.facts.get("what") == "bucket"]

    def with_rows(says: str, cause: str, table: Formula, ids: Tensor) -> Edit:
        def make(w: World) -> Tensor:
            return w[product] + F.embedding(ids, w.weights[table.weights[0]]).permute(2, 0, 1).unsqueeze(0)

        return Edit(cause, says, {formula.name: make})

    if world.formulas[bias].kind == "no bias":
        for own in reversed(world.all_of("bias by head")):
            says = f"that of another attention ({own.name.replace('#', '')})"
            yield Edit(
                "position-bias-extra", says, {formula.name: lambda w, own=own: w[product] + w[own.name]}
            )
        query, key = world[product].shape[-2:]
        for table in tables:
            facts = world.formulas[table.inputs[0]].facts
            apart = torch.arange(key) - torch.arange(query)[:, None]
            ids = Buckets(True, facts["count"], facts["limit"]).of(apart)
            yield with_rows("distances between both texts", "position-bias-extra", table, ids)
        return


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
            passed_on = bound(formula, lambda x: x, {})
            changes = {formula.name: passed_on, shares.name: bound(formula, after, ALSO)}
            yield Edit("mask-after-softmax", says, changes)


# fmt: off
TABLES: Tables = {
    "product": (ALSO, (
        ("query-key-swapped", "key times query", lambda query, key: key @ query.mT),
        ("scale-extra", "the product times 1/√{width}", lambda query, key, width: (query @ key.mT) * width**-0.5),
        ("scale-extra", "the query times 1/√{width}", lambda query, key, width: (query * width**-0.5) @ key.mT),
        ("scale-extra", "the key times 1/√{width}", lambda query, key, width: query @ (key * width**-0.5).mT),
        ("scale-extra", "the product divided by {width}", lambda query, key, width: (query @ key.mT) * (1 / width)),
        ("scale-extra", "the query divided by {width}", lambda query, key, width: (query * (1 / width)) @ key.mT),
        ("scale-extra", "the key divided by {width}", lambda query, key, width: query @ (key * (1 / width)).mT),
        ("scale-extra", "query and key were brought to length 1", lambda query, key: F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT),
        ("wrong-operand", "query times query", lambda query: query @ query.mT),
        ("wrong-operand", "key times key", lambda key: key @ key.mT),
        ("wrong-operand", "query times value", lambda query, value: query @ value.mT),
        ("wrong-operand", "value times key", lambda value, key: value @ key.mT),
        ("wrong-operand", "the key not transposed", lambda query, square: query @ square),
        ("wrong-operand", "the key reshaped instead of transposed", lambda query, key: query @ key.reshape(key.mT.shape)),
    )),
    "add bias": (ALSO, (  # bias [1, head, query, key] where one belongs here; any: also where there is none
        ("position-bias-missing", "the product alone", lambda product, bias: product),
        ("scale-order", "the mask was added before the bias", lambda product, bias, masked_next: product + masked_next),
        ("position-bias-wrong", "query and key exchanged in the bias", lambda product, bias: product + bias.mT),
        ("position-bias-wrong", "the bias twice", lambda product, bias: product + 2 * bias),
        ("position-bias-wrong", "multiplied by the bias", lambda product, bias: product * bias),
        ("position-bias-wrong", "multiplied by 1 + the bias", lambda product, bias: product * (1 + bias)),
        ("position-bias-wrong", "brought into shape by a reshape, which mixes its axes", lambda product, rows: product + rows.reshape(1, -1, *rows.shape[:2])),
        ("scale-extra", "times 1/√{width} before the bias", lambda product, any, width: product * width**-0.5 + any),
        ("scale-extra", "times 1/√{width} after the bias", lambda sum, width: sum * width**-0.5),
        ("scale-extra", "times 1/{width} before the bias", lambda product, any, width: product * (1 / width) + any),
        ("scale-extra", "times 1/{width} after the bias", lambda sum, width: sum * (1 / width)),
        ("scale-extra", "times √{width} before the bias", lambda product, any, width: product * width**0.5 + any),
        ("scale-extra", "times √{width} after the bias", lambda sum, width: sum * width**0.5),
    )),
    "softmax": (ALSO, (  # x: the scores; unmasked: before the mask was added
        ("softmax-axis", "over the queries", lambda x: F.softmax(x, -2)),
        ("softmax-axis", "over the heads", lambda x: F.softmax(x, 1)),
        ("softmax-axis", "over the batch", lambda x: F.softmax(x, 0)),
        ("softmax-axis", "over queries and keys together", lambda x: F.softmax(x.flatten(-2), -1).view(x.shape)),
        ("softmax-missing", "the scores went on as they were", lambda x: x),
        ("mask-missing", "of the scores before the mask", lambda unmasked: F.softmax(unmasked, -1)),
        *(("mask-after-softmax", says, do) for says, do in AFTER_SOFTMAX.items()),
        ("mask-after-softmax", "the mask added to the shares", lambda unmasked, mask: F.softmax(unmasked, -1) + mask),
        ("softmax-changed", "its logarithm", lambda x: F.log_softmax(x, -1)),
        ("softmax-changed", "a sigmoid", lambda x: torch.sigmoid(x)),
        ("softmax-changed", "the exponentials, not divided by their sum", lambda x: x.exp()),
        ("softmax-changed", "the exponentials less the largest, not divided by their sum", lambda x: (x - x.amax(-1, keepdim=True)).exp()),
        ("softmax-changed", "applied twice", lambda x: F.softmax(F.softmax(x, -1), -1)),
        ("softmax-changed", "to base 2", lambda x: F.softmax(x * math.log(2), -1)),
        ("softmax-changed", "with one more in the sum", lambda x: x.exp() / (1 + x.exp().sum(-1, keepdim=True))),
        ("softmax-changed", "scores divided by their sum", lambda x: x / x.sum(-1, keepdim=True)),
        ("softmax-changed", "the largest score alone", lambda x: F.one_hot(x.argmax(-1), x.shape[-1]).float()),
        ("softmax-changed", "of the scores ÷ 2", lambda x: F.softmax(x * 0.5, -1)),
        ("softmax-changed", "of the scores × 2", lambda x: F.softmax(x * 2.0, -1)),
        ("scale-extra", "of the scores ÷ √{width}", lambda x, width: F.softmax(x * width**-0.5, -1)),
        *(("wrong-dtype", f"computed in {name}", lambda x, t=t: F.softmax(x.to(t), -1).float()) for name, t in NARROW.items()),
        ("rounding", "in float64, then rounded", lambda x: F.softmax(x.double(), -1).float()),
    )),
    "mix": (ALSO, (
        ("wrong-operand", "the shares transposed", lambda shares, value: shares.mT @ value),
        ("wrong-operand", "the key instead of the value", lambda shares, key: shares @ key),
        ("wrong-operand", "the query instead of the value", lambda shares, query: shares @ query),
        ("wrong-operand", "the values without the shares", lambda value: value),
        ("wrong-operand", "all values in equal shares", lambda shares, value: torch.full_like(shares, 1 / shares.shape[-1]) @ value),
        ("softmax-missing", "the scores instead of the shares", lambda scores, value: scores @ value),
        ("softmax-missing", "the scaled products instead of the shares", lambda scaled, value: scaled @ value),
        ("mask-direction", "queries hidden after the softmax", lambda shares, visible, value: (shares * visible.mT) @ value),
    )),
    "add mask": (ALSO, (  # x: the scores before the mask
        ("mask-missing", "the scores alone", lambda x: x),
        ("mask-inverted", "the mask subtracted", lambda x, mask: x - mask),
        *(("mask-inverted", f"scores replaced by {fill:g} where shown", lambda x, hides, fill=fill: x.masked_fill(~hides, fill)) for fill in (LOWEST, *FILLS, 0.0, 1e-9)),
        ("mask-fill", "multiplied by the mask", lambda x, mask: x * mask),
        *(("mask-fill", f"scores replaced by {fill:g} where hidden", lambda x, hides, fill=fill: x.masked_fill(hides, fill)) for fill in (LOWEST, *FILLS, 0.0, 1e-9)),
        ("mask-direction", "the mask transposed", lambda x, mask: x + mask.mT),
        ("mask-extra", "a causal mask on top", lambda x, hides, later: x.masked_fill(later | hides, LOWEST)),
        ("mask-extra", "a causal mask on top, by -inf", lambda x, hides, later: x.masked_fill(later | hides, -math.inf)),
    )),
    "biased mask": (ALSO, (  # for the fused kernel: the bias where one may look, the lowest number where not
        ("position-bias-missing", "the mask alone", lambda own, hides: torch.zeros_like(own).masked_fill(hides, LOWEST)),
        *(("mask-fill", f"{fill:g} where hidden", lambda own, hides, fill=fill: own.masked_fill(hides, fill)) for fill in (*FILLS, 0.0)),
        ("mask-fill", "bias and mask added", lambda own, mask: own + mask),
        ("position-bias-wrong", "query and key exchanged in the bias", lambda own, hides: own.mT.masked_fill(hides, LOWEST)),
    )),
}
# fmt: on
