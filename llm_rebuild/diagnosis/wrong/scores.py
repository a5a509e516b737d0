"""Mistakes between query and context: product, scale, bias, softmax, and the mixing of values."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.buckets import Buckets
from llm_rebuild.diagnosis.graph import MINE, Edit, Make, World
from llm_rebuild.diagnosis.wrong.base import NARROW, Also, Tables, edits
from llm_rebuild.diagnosis.wrong.masks import AFTER_SOFTMAX, ALSO_SCORES
from llm_rebuild.models.formulas import Formula


def _value(world: World, f: Formula) -> Tensor:
    """The values of the attention that a product belongs to: they are mixed next."""
    later = list(world.formulas).index(f.name)
    mixes = [g for g in list(world.formulas.values())[later:] if g.kind == "mix"]
    if not mixes:
        raise LookupError(f"{f.name}: no values are mixed after it")
    return world[mixes[0].inputs[1]]


def _square(world: World, f: Formula) -> Tensor:
    """The key, where it could be multiplied as it is."""
    key = world[f.inputs[1]]
    if key.shape[-2] != key.shape[-1]:
        raise LookupError("the key has another shape when it is transposed")
    return key


ALSO_PRODUCT: Also = {
    "value": _value,
    "square": _square,
    "width": lambda world, f: world[f.inputs[0]].shape[-1],
}


def product(world: World, formula: Formula) -> Iterator[Edit]:
    """A product that is scaled already, and the next step lets it be: that is an order, and no other number."""
    for scaled in world.users(formula.name, "scale"):
        if MINE + formula.name in world.known:
            table = [row for row in TABLES["product"][1] if "{width}" in row[1]]
            for edit in edits(world, formula, table, ALSO_PRODUCT):
                passed_on: Make = lambda w: w[formula.name]  # noqa: E731
                yield Edit("scale-order", edit.says, {**edit.changes, scaled.name: passed_on})


# --------------------------------------------------------------------------------- scale and bias


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


def _width(world: World, f: Formula) -> int:
    """Of one head."""
    return world[world.source(f.inputs[0], "product").inputs[0]].shape[-1]


def _rows(world: World, f: Formula) -> Tensor:
    """The table's rows for each distance [query, key, head], before they are laid out by head."""
    if world.formulas[f.inputs[1]].kind != "bias by head":
        raise LookupError("no bias belongs here")
    return world[world.formulas[f.inputs[1]].inputs[0]]


def _bias(world: World, f: Formula) -> Tensor:
    _rows(world, f)
    return world[f.inputs[1]]


ALSO_BIAS: Also = {
    "width": _width,
    "rows": _rows,
    "bias": _bias,
    "sum": lambda world, f: world[f.inputs[0]] + world[f.inputs[1]],
    "any": lambda world, f: world[f.inputs[1]],
    "mask": lambda world, f: world[world.user(f.name, "add mask").inputs[1]],
}


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


# -------------------------------------------------------------------------------- softmax and mix


def _before(world: World, f: Formula) -> Formula:
    """The step that adds the mask, or the bias, or both."""
    step = world.formulas[f.inputs[0]]
    if len(step.inputs) != 2:
        raise LookupError(f"{f.name}: nothing is added before it")
    return step


ALSO_SOFTMAX: Also = {
    "unmasked": lambda world, f: world[_before(world, f).inputs[0]],
    "mask": lambda world, f: world[_before(world, f).inputs[1]],
    "hides": lambda world, f: ALSO_SCORES["hides"](world, _before(world, f)),
    "width": lambda world, f: world[world.source(f.name, "product").inputs[0]].shape[-1],
}


def _of_product(world: World, f: Formula, number: int) -> Tensor:
    return world[world.source(f.inputs[0], "product").inputs[number]]


def _visible(world: World, f: Formula) -> Tensor:
    """1 where a key may be looked at, as the mask has it."""
    hides: Tensor = ALSO_SCORES["hides"](world, _before(world, world.formulas[f.inputs[0]]))
    return (~hides).float()


ALSO_MIX: Also = {
    "query": lambda world, f: _of_product(world, f, 0),
    "key": lambda world, f: _of_product(world, f, 1),
    "scores": lambda world, f: world[world.formulas[f.inputs[0]].inputs[0]],
    "scaled": lambda world, f: world[world.source(f.inputs[0], "scale").name],
    "visible": _visible,
}


# fmt: off
TABLES: Tables = {
    "product": (ALSO_PRODUCT, (
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
    "add bias": (ALSO_BIAS, (  # bias [1, head, query, key] where one belongs here; any: also where there is none
        ("position-bias-missing", "the product alone", lambda product, bias: product),
        ("scale-order", "the mask was added before the bias", lambda product, bias, mask: product + mask),
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
    "softmax": (ALSO_SOFTMAX, (  # x: the scores; unmasked: before the mask was added
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
    "mix": (ALSO_MIX, (
        ("wrong-operand", "the shares transposed", lambda shares, value: shares.mT @ value),
        ("wrong-operand", "the key instead of the value", lambda shares, key: shares @ key),
        ("wrong-operand", "the query instead of the value", lambda shares, query: shares @ query),
        ("wrong-operand", "the values without the shares", lambda value: value),
        ("wrong-operand", "all values in equal shares", lambda shares, value: torch.full_like(shares, 1 / shares.shape[-1]) @ value),
        ("softmax-missing", "the scores instead of the shares", lambda scores, value: scores @ value),
        ("softmax-missing", "the scaled products instead of the shares", lambda scaled, value: scaled @ value),
        ("mask-direction", "queries hidden after the softmax", lambda shares, visible, value: (shares * visible.mT) @ value),
    )),
}
# fmt: on
