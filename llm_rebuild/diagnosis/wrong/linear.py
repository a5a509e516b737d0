"""Mistakes in linear layers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.graph import World
from llm_rebuild.diagnosis.wrong.base import NARROW, Also, Tables
from llm_rebuild.models.formulas import Formula


def _weight(world: World, f: Formula) -> Tensor:
    """As [out, in], however it lies in the file."""
    weight = world.weights[f.weights[0]]
    return weight if f.kind == "linear" else weight.T


def _bias(world: World, f: Formula) -> Tensor | None:
    return world.weights[f.weights[1]] if len(f.weights) > 1 else None


def _square(weight: Tensor) -> Tensor:
    if weight.shape[0] != weight.shape[1]:
        raise LookupError("not square")
    return weight


def _oblong(weight: Tensor) -> Tensor:
    if weight.shape[0] == weight.shape[1]:
        raise LookupError("square")
    return weight


def _three(weight: Tensor) -> Tensor:
    if weight.shape[0] != 3 * weight.shape[1]:
        raise LookupError("not three squares")
    return weight


def _head(world: World, f: Formula) -> float:
    return float(world[f.inputs[0]].shape[-1] ** -0.5) if f.facts["head"] else 0.0


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    real = mask.unsqueeze(-1).float()
    return (x * real).sum(1) / real.sum(1)


ALSO: Also = {
    "weight": _weight,
    "maybe": _bias,
    "square": lambda world, f: _square(_weight(world, f)),
    "oblong": lambda world, f: _oblong(_weight(world, f)),
    "three": lambda world, f: _three(_weight(world, f)),
    "scale": _head,
    "width": lambda world, f: world[f.inputs[0]].shape[-1],
    "mask": lambda world, f: world["#mask"],
}


# fmt: off
TABLES: Tables = {
    "linear": (ALSO, (  # weight [out, in]; maybe: the bias, or None
        ("bias-missing", "the product alone", lambda x, weight, bias: F.linear(x, weight)),
        ("bias-wrong", "subtracted", lambda x, weight, bias: F.linear(x, weight) - bias),
        ("bias-wrong", "added twice", lambda x, weight, bias: F.linear(x, weight, bias) + bias),
        ("bias-wrong", "added before the product", lambda x, weight, bias: F.linear(x + bias, weight)),
        ("bias-wrong", "multiplied", lambda x, weight, bias: F.linear(x, weight) * bias),
        ("weight-transposed", "x @ W", lambda x, square, maybe: F.linear(x, square.T, maybe)),
        ("weight-transposed", "x @ W, and no bias", lambda x, square, bias: F.linear(x, square.T)),
        ("weight-transposed", "read as [in, out]", lambda x, oblong, maybe: F.linear(x, oblong.reshape(oblong.T.shape).T, maybe)),
        ("weight-transposed", "read as [in, out], and no bias", lambda x, oblong, bias: F.linear(x, oblong.reshape(oblong.T.shape).T)),
        ("weight-transposed", "brought into shape by a reshape instead of a transpose", lambda x, oblong, maybe: F.linear(x, oblong.T.reshape(oblong.shape), maybe)),
        ("weight-transposed", "brought into shape by a reshape instead of a transpose, and no bias", lambda x, oblong, bias: F.linear(x, oblong.T.reshape(oblong.shape))),
        ("weight-transposed", "each of the three squares", lambda x, three, maybe: F.linear(x, torch.cat([part.T for part in three.chunk(3)]), maybe)),
        *(("wrong-dtype", f"multiplied in {name}", lambda x, weight, maybe, t=t: (F.linear(x.to(t), weight.to(t)).float() + (0 if maybe is None else maybe))) for name, t in NARROW.items()),
        *(("wrong-dtype", f"the weights were kept in {name}", lambda x, weight, maybe, t=t: F.linear(x, weight.to(t).float(), None if maybe is None else maybe.to(t).float())) for name, t in NARROW.items()),
        *(("wrong-dtype", f"what goes in was kept in {name}", lambda x, weight, maybe, t=t: F.linear(x.to(t).float(), weight, maybe)) for name, t in NARROW.items()),
        ("rounding", "the product, then the bias", lambda x, weight, bias: x @ weight.T + bias),
        ("output-scale-wrong", "scores times 1/√{width}", lambda x, weight, scale: F.linear(x, weight) * scale),
    )),
    "first token": (ALSO, (
        ("pooler-token", "the last place", lambda x: x[:, -1]),
        ("pooler-token", "the mean over all places", lambda x: x.mean(1)),
        ("pooler-token", "the largest over all places", lambda x: x.amax(1)),
        ("pooler-token", "the second token", lambda x: x[:, 1]),
        ("pooler-token", "the mean over the tokens", _mean),
        ("pooler-token", "the last token", lambda x, mask: x[torch.arange(len(mask)), mask.sum(1) - 1]),
        ("pooler-token", "the sum over all places", lambda x: x.sum(1)),
    )),
}
# fmt: on
