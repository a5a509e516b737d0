"""Mistakes in what is looked up, in sums, linear layers, norms and activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.graph import Edit, Formula, World, buckets_of, distances, layer_norm
from llm_rebuild.diagnosis.wrong.base import Tables
from llm_rebuild.verify.transforms import ACTIVATIONS, NARROW, Function, rms_norm
from llm_rebuild.verify.transforms import layer_norm as plain


def rows(ids: Tensor, table: Tensor) -> Tensor:
    """Rows of a table; a number outside it means its first or last row."""
    return F.embedding(ids.clamp(0, len(table) - 1), table)


def sinusoidal(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The original transformer's sines and cosines: [1, token, width / 2] each."""
    half = width // 2
    steps = positions[..., None].float() * torch.exp(torch.arange(half).float() * (-math.log(10000.0) / half))
    return steps.sin(), steps.cos()


WAVES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "halves": lambda sine, cosine: torch.cat([sine, cosine], -1),
    "alternating": lambda sine, cosine: torch.stack([sine, cosine], -1).flatten(-2),
}


def bucket(world: World, formula: Formula) -> Iterator[Edit]:
    """Distances between other places, or counted the other way."""
    step, table = world.formulas[formula.inputs[0]], world.weights[formula.weights[0]]
    apart = distances(*(world[name] for name in step.inputs))
    both_ways, count, limit = (step.facts[name] for name in ("both_ways", "count", "limit"))
    ways = []
    if world.cached:
        places, query = torch.arange(apart.shape[1]), len(apart)
        advanced, from_zero = places[:query] - places[:query, None], places - places[:query, None]
        ways = [
            ("positions-not-advanced", "those before are not counted", advanced, both_ways),
            ("positions-not-advanced", "queries are counted from 0", from_zero, both_ways),
        ]
    ways += [
        ("buckets-sign", "query minus key instead of key minus query", -apart, both_ways),
        ("buckets-direction", "the absolute distance, whatever the side", -apart.abs(), both_ways),
        ("buckets-direction", "the absolute distance, as if all came after", apart.abs(), both_ways),
        ("buckets-direction", "the other kind of buckets and the opposite sign", -apart, not both_ways),
    ]
    for cause, says, distance, both in ways:
        numbers = buckets_of(distance, both, count, limit)
        yield Edit(cause, says, {formula.name: lambda w, ids=numbers: rows(ids, table)})


GELU_BY_TANH = ("gelu_new", "gelu_pytorch_tanh")  # two spellings of one function


def gelu_by_tanh(x: Tensor, root: float = math.sqrt(2 / math.pi), cubic: float = 0.044715) -> Tensor:
    """GELU by tanh with its constants as arguments."""
    return 0.5 * x * (1.0 + torch.tanh(root * (x + cubic * torch.pow(x, 3.0))))


SPELLINGS: Mapping[str, Function] = {
    "gelu, written out": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "gelu_new, written out": gelu_by_tanh,
}
GELU_WRONG: Mapping[str, Function] = {
    "gelu without the half": lambda x: x * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "gelu without the root of two": lambda x: x * 0.5 * (1.0 + torch.erf(x)),
    "gelu_new without the half": lambda x: 2 * gelu_by_tanh(x),
    "gelu_new without the 1": lambda x: 0.5 * x * torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
}


def act(world: World, formula: Formula) -> Iterator[Edit]:
    """Another activation, whatever its steps are."""
    x, right = formula.facts["whole"], formula.facts["name"]
    for other, bend in {**ACTIVATIONS, **SPELLINGS, **GELU_WRONG}.items():
        if other != right:
            change = {formula.name: lambda w, bend=bend: bend(w[x])}
            yield Edit(_called(other, right), f"{other} instead of {right}", change)


def _called(other: str, right: str) -> str:
    """What it is to use another activation in the place of the right one."""
    other = other.removesuffix(", written out")
    if other in GELU_WRONG:
        return "gelu-constant"
    if other == right or (other in GELU_BY_TANH and right in GELU_BY_TANH):
        return "rounding"
    if other in GELU_BY_TANH and right == "gelu":
        return "gelu-tanh"
    if other == "gelu" and right in GELU_BY_TANH:
        return "gelu-exact"
    return {"quick_gelu": "gelu-sigmoid", "relu": "activation-relu"}.get(other, "activation-other")


def centred(x: Tensor, axes: int | tuple[int, ...] = -1) -> Tensor:
    """x less its mean along some axes."""
    return x - x.mean(axes, keepdim=True)


def variance(x: Tensor, axes: int | tuple[int, ...] = -1, less: int = 0) -> Tensor:
    """The mean square of that, or the sum of squares by n - 1."""
    return x.var(axes, correction=less, keepdim=True)


def _square(x: Tensor) -> Tensor:
    return x.pow(2).mean(-1, keepdim=True)


AXES = {
    "over the tokens": (1,),
    "over tokens and width": (1, 2),
    "over the batch": (0,),
    "over batch and tokens": (0, 1),
    "over everything": (0, 1, 2),
}

# By what a centred row may have been divided instead of its standard deviation.
DIVISORS: Mapping[str, Callable[[Tensor, float], Tensor | float]] = {
    "the deviation by n - 1": lambda x, eps: (variance(x, less=1) + eps).sqrt(),
    "the variance instead of its root": lambda x, eps: variance(x) + eps,
    "the mean distance from the mean": lambda x, eps: centred(x).abs().mean(-1, keepdim=True) + eps,
    "the length": lambda x, eps: centred(x).norm(dim=-1, keepdim=True),
    "the root mean square of what is not centred": lambda x, eps: (_square(x) + eps).sqrt(),
    "the root of the mean square less the mean": lambda x, eps: (
        _square(x) - x.mean(-1, keepdim=True) + eps
    ).sqrt(),
}

# fmt: off
TABLES: Tables = {
    "position": (  # ids: the positions [1, token]; new_ids: the same, where others came before
        ("positions-not-advanced", "the new token counts from 0", lambda new_ids, table: rows(new_ids - new_ids.min(), table)),
        ("positions-not-advanced", "one position behind", lambda new_ids, table: rows(new_ids - 1, table)),
        *(("positions-shifted", f"{by:+d} for every token", lambda ids, table, by=by: rows(ids + by, table)) for by in (1, 2, -1, 3, -2)),
        ("positions-wrong", "counted from the first real token, by the mask", lambda ids, table, real_tokens: rows((real_tokens.cumsum(1) - 1)[:, -ids.shape[1] :], table)),
        *(("positions-sinusoidal", f"sines and cosines ({says})", lambda ids, table, lay=lay: lay(*sinusoidal(ids, table.shape[-1]))) for says, lay in WAVES.items()),
    ),
    "token": (  # of a model that has no table of positions
        *(("positions-sinusoidal", f"sines and cosines ({says}) added", lambda ids, table, lay=lay: rows(ids, table) + lay(*sinusoidal(torch.arange(ids.shape[1])[None], table.shape[-1]))) for says, lay in WAVES.items()),
    ),
    "type": (  # ids: a 0 for each token
        ("token-types-wrong", "the second type for all", lambda ids, table: rows(ids + 1, table)),
    ),
    "residual": (  # result: what the half-block made; residual: what it was given
        ("norm-position", "the result was normalised before the residual was added", lambda result, residual, norm: norm(result) + residual),
    ),
    "linear": (  # matrix [out, in]; maybe: the bias, or None; with `bias`, only where there is one
        ("weight-transposed", "read as [in, out]", lambda x, matrix, maybe: F.linear(x, matrix.reshape(matrix.T.shape).T, maybe)),
        ("weight-transposed", "reshaped instead of transposed", lambda x, matrix, maybe: F.linear(x, matrix.T.reshape(matrix.shape), maybe)),
        ("weight-transposed", "each of the three squares", lambda x, matrix, maybe: F.linear(x, torch.cat([part.T for part in matrix.chunk(3)]), maybe)),
        *(("wrong-dtype", f"multiplied in {name}, then the bias", lambda x, matrix, bias, t=t: F.linear(x.to(t), matrix.to(t)).float() + bias) for name, t in NARROW.items()),
        ("rounding", "multiplied first, then the bias added", lambda x, matrix, bias: F.linear(x, matrix) + bias),
    ),
    "layer norm": (
        ("norm-position", "of the half-block's sum: the norm stands behind it", lambda behind, weight, bias, eps: layer_norm(behind, weight, bias, eps=eps)),
        ("norm-affine-missing", "neither stretch nor shift", lambda x, eps: plain(x, eps)),
        ("norm-mean-kept", "an RMS norm with weight and bias", lambda x, weight, bias, eps: rms_norm(x, eps) * weight + bias),
        ("norm-mean-kept", "divided by the deviation, and not centred", lambda x, weight, bias, eps: x / (variance(x) + eps).sqrt() * weight + bias),
        ("norm-mean-kept", "an RMS norm without bias", lambda x, weight, eps: rms_norm(x, eps) * weight),
        *(("norm-variance", f"centred, then divided by {by}", lambda x, weight, bias, eps, divisor=divisor: centred(x) / divisor(x, eps) * weight + bias) for by, divisor in DIVISORS.items()),
        ("norm-eps-place", "epsilon outside the root", lambda x, weight, bias, eps: centred(x) / (variance(x).sqrt() + eps) * weight + bias),
        *(("wrong-dtype", f"normalised in {name}", lambda x, weight, bias, eps, t=t: (plain(x.to(t), eps).float() * weight + bias)) for name, t in NARROW.items()),
        *(("norm-axis", f"{says}{how}", lambda x, weight, bias, eps, axes=axes, less=less: centred(x, axes) * torch.rsqrt(variance(x, axes, less) + eps) * weight + bias) for less, how in enumerate(("", ", by n - 1")) for says, axes in AXES.items()),
        ("rounding", "the formula written out by hand", lambda x, weight, bias, eps: centred(x) / (variance(x) + eps).sqrt() * weight + bias),
    ),
    "square": (
        ("norm-position", "of the half-block's sum: the norm stands behind it", lambda behind: behind.pow(2)),
        ("norm-mean-subtracted", "the mean was subtracted first", lambda x: centred(x).pow(2)),
    ),
    "mean square": (  # x: the squares; whole: what the norm is given
        ("norm-mean-subtracted", "the variance", lambda whole: variance(whole)),
        ("norm-mean-subtracted", "the variance by n - 1", lambda whole: variance(whole, less=1)),
        *(("norm-axis", says, lambda x, axes=axes: x.mean(axes, keepdim=True)) for says, axes in AXES.items()),
        *(("norm-axis", f"{says}, for every token", lambda x, axes=axes: x.mean(axes, keepdim=True)[..., :1].expand((*x.shape[:-1], 1))) for says, axes in AXES.items()),
        ("norm-axis", "over the heads", lambda x: x.mean(-2, keepdim=True)),
        ("norm-axis", "over all heads at once", lambda x: x.mean((-2, -1), keepdim=True)),
        ("rounding", "each token times itself", lambda whole: torch.einsum("...w,...w->...", whole, whole)[..., None] / whole.shape[-1]),
    ),
    "inverse root": (  # x: what has epsilon; bare: what has none; small: epsilon
        ("norm-eps-place", "epsilon outside the root", lambda bare, small: 1.0 / (bare.sqrt() + small)),
        ("rounding", "1 / √x instead of rsqrt", lambda x: 1.0 / torch.sqrt(x)),
    ),
    "normed": (  # a: what is normalised; b: one over its root mean square
        ("norm-mean-subtracted", "the mean was subtracted", lambda a, b: centred(a) * b),
        ("norm-mean-subtracted", "a LayerNorm without weights", lambda a, eps: plain(a, eps)),
        ("norm-variance", "brought to length 1", lambda a: F.normalize(a, dim=-1)),
    ),
    "stretch": (
        ("norm-mean-subtracted", "a LayerNorm with this weight", lambda whole, weight, eps: layer_norm(whole, weight, None, eps=eps)),
    ),
    "gelu tanh": (
        ("gelu-sigmoid", "a sigmoid instead of tanh", lambda x: torch.sigmoid(x)),
        *(("activation-other", f"{other} instead of tanh", lambda x, other=other: ACTIVATIONS[other](x)) for other in ("relu", "silu", "hardtanh", "softplus")),
    ),
    "multiply": (("gate-swapped", "the activation on the other branch", lambda bent: bent),),
    "first token": (
        ("pooler-token", "the last place", lambda x: x[:, -1]),
        ("pooler-token", "the second token", lambda x: x[:, 1]),
        ("pooler-token", "the mean over all places", lambda x: x.mean(1)),
    ),
}
# fmt: on
