"""Mistakes in LayerNorm, and in the steps of an RMS norm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.graph import World, layer_norm
from llm_rebuild.diagnosis.wrong.base import NARROW, Also, Tables
from llm_rebuild.models.formulas import Formula

EPSILONS = (1e-5, 1e-12, 1e-6, 1e-8, 1e-3, 1e-4, 1e-7, 1e-10, 1e-9, 1e-2, 1e-15, 0.1)


def _behind(world: World, f: Formula) -> Tensor:
    """What a norm is given that stands behind its half-block: the half-block's sum, computed without it."""
    norm, x = f.facts.get("norm", f.name), f.inputs[0]
    for step in world.formulas.values():
        if step.facts.get("residual") == x and norm in world.reaching(step.name):
            return world.changed({norm: lambda w: w[x]}, frozenset())[step.name]
    raise LookupError(f"{f.name} stands before no half-block")


ALSO: Also = {
    "behind": _behind,
    "of": lambda world, f: world[f.facts["norm of"]],  # what the whole norm is given
    "square": lambda world, f: world[world.formulas[f.inputs[0]].inputs[0]],  # what epsilon is added to
    "small": lambda world, f: world.formulas[f.inputs[0]].facts.get("eps", 0.0),
    "root": lambda world, f: world[world.formulas[f.inputs[1]].inputs[0]].sqrt(),
}


def _centred(x: Tensor, axes: int | tuple[int, ...] = -1) -> Tensor:
    return x - x.mean(axes, keepdim=True)


def _variance(x: Tensor, axes: int | tuple[int, ...] = -1, unbiased: bool = False) -> Tensor:
    variance = x.var(axes, unbiased=False, keepdim=True)
    count = x.numel() // variance.numel()
    if unbiased and count < 2:
        raise LookupError("a single number has no variance by n - 1")
    return variance if not unbiased else x.var(axes, unbiased=True, keepdim=True)


def _over(x: Tensor, axes: tuple[int, ...], eps: float, unbiased: bool) -> Tensor:
    return _centred(x, axes) * torch.rsqrt(_variance(x, axes, unbiased) + eps)


def rms(x: Tensor, eps: float) -> Tensor:
    """x divided by its root mean square."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def _plain(x: Tensor, eps: float) -> Tensor:
    return layer_norm(x, None, None, eps=eps)


AXES = {
    "over the tokens instead of the width": (1,),
    "over tokens and width together": (1, 2),
    "over the batch": (0,),
    "over batch and tokens": (0, 1),
    "over everything": (0, 1, 2),
}


# fmt: off
TABLES: Tables = {
    "layer norm": (ALSO, (
        ("norm-missing", "the tensor went on as it was", lambda x: x),
        ("norm-position", "of the half-block's sum: the norm stands behind it", lambda behind, weight, bias, eps: layer_norm(behind, weight, bias, eps=eps)),
        *(("norm-eps", f"{e:g} instead of {{eps:g}}", lambda x, weight, bias, e=e: layer_norm(x, weight, bias, eps=e)) for e in EPSILONS),
        ("norm-affine-missing", "neither stretch nor shift", lambda x, eps: _plain(x, eps)),
        ("norm-affine-missing", "no stretch (weight)", lambda x, bias, eps: layer_norm(x, None, bias, eps=eps)),
        ("norm-affine-missing", "no shift (bias)", lambda x, weight, eps: layer_norm(x, weight, None, eps=eps)),
        ("norm-affine-wrong", "weight and bias exchanged", lambda x, weight, bias, eps: layer_norm(x, bias, weight, eps=eps)),
        ("norm-affine-wrong", "shifted before it was stretched", lambda x, weight, bias, eps: (_plain(x, eps) + bias) * weight),
        ("norm-mean-kept", "an RMS norm with weight and bias", lambda x, weight, bias, eps: rms(x, eps) * weight + bias),
        ("norm-mean-kept", "an RMS norm without bias", lambda x, weight, eps: rms(x, eps) * weight),
        ("norm-mean-kept", "an RMS norm without weight and bias", lambda x, eps: rms(x, eps)),
        ("norm-mean-kept", "the mean was not subtracted, but the deviation from it is what divides", lambda x, weight, bias, eps: x / (_variance(x) + eps).sqrt() * weight + bias),
        ("norm-variance", "only the mean was subtracted", lambda x, weight, bias: _centred(x) * weight + bias),
        ("norm-variance", "divided by n - 1", lambda x, weight, bias, eps: (_centred(x) / (_variance(x, unbiased=True) + eps).sqrt() * weight + bias)),
        ("norm-variance", "divided by n - 1, epsilon outside the root", lambda x, weight, bias, eps: _centred(x) / (x.std(-1, keepdim=True) + eps) * weight + bias),
        ("norm-variance", "divided by the variance instead of its root", lambda x, weight, bias, eps: _centred(x) / (_variance(x) + eps) * weight + bias),
        ("norm-variance", "divided by the mean distance from the mean", lambda x, weight, bias, eps: (_centred(x) / (_centred(x).abs().mean(-1, keepdim=True) + eps) * weight + bias)),
        ("norm-eps-place", "epsilon outside the root", lambda x, weight, bias, eps: _centred(x) / (_variance(x).sqrt() + eps) * weight + bias),
        ("norm-twice", "the norm of the norm", lambda x, weight, bias, eps: layer_norm(layer_norm(x, weight, bias, eps=eps), weight, bias, eps=eps)),
        *(("wrong-dtype", f"normalised in {name}", lambda x, weight, bias, eps, t=t: (_plain(x.to(t), eps).float() * weight + bias)) for name, t in NARROW.items()),
        *(("norm-axis", f"{says}{how}", lambda x, weight, bias, eps, axes=axes, unbiased=bool(how): (_over(x, axes, eps, unbiased) * weight + bias)) for how in ("", ", by n - 1") for says, axes in AXES.items()),
        ("rounding", "the formula written out by hand", lambda x, weight, bias, eps: _centred(x) / (_variance(x) + eps).sqrt() * weight + bias),
    )),
    "square": (ALSO, (
        ("norm-position", "of the half-block's sum: the norm stands behind it", lambda behind: behind.pow(2)),
        ("norm-mean-subtracted", "the mean was subtracted first", lambda x: _centred(x).pow(2)),
        ("norm-variance", "not squared", lambda x: x),
        ("norm-variance", "the absolute value", lambda x: x.abs()),
        ("norm-variance", "cubed", lambda x: x.pow(3)),
        ("norm-variance", "to the fourth power", lambda x: x.pow(4)),
    )),
    "mean square": (ALSO, (  # x: the squares; of: what the norm is given
        ("norm-variance", "the sum instead of the mean", lambda x: x.sum(-1, keepdim=True)),
        ("norm-variance", "divided by n - 1", lambda x: x.sum(-1, keepdim=True) / (x.shape[-1] - 1)),
        ("norm-variance", "the square of the mean", lambda of: of.mean(-1, keepdim=True).pow(2)),
        ("norm-variance", "the root already", lambda x: x.mean(-1, keepdim=True).sqrt()),
        ("norm-variance", "the largest", lambda x: x.amax(-1, keepdim=True)),
        ("norm-variance", "the median", lambda x: x.median(-1, keepdim=True).values),
        ("norm-mean-subtracted", "the variance", lambda of: of.var(-1, unbiased=False, keepdim=True)),
        ("norm-mean-subtracted", "the variance by n - 1", lambda of: of.var(-1, unbiased=True, keepdim=True)),
        ("norm-axis", "over the tokens instead of the width", lambda x: x.mean(1, keepdim=True)),
        ("norm-axis", "over tokens and width together", lambda x: x.mean((1, 2), keepdim=True)),
        ("norm-axis", "over everything", lambda x: x.mean()),
        ("norm-axis", "over tokens and width together, for every token", lambda x: x.mean((1, 2), keepdim=True).expand((*x.shape[:2], 1))),
    )),
    "plus eps": (ALSO, (
        ("norm-eps-place", "no epsilon at all, or one too small to show", lambda x: x),
        ("norm-eps-place", "the epsilon subtracted", lambda x, eps: x - eps),
        ("norm-eps-place", "at least epsilon, not plus epsilon", lambda x, eps: x.clamp(min=eps)),
        *(("norm-eps", f"{e:g} instead of {{eps:g}}", lambda x, e=e: x + e) for e in EPSILONS),
    )),
    "inverse root": (ALSO, (  # x: what has epsilon; square: what has none; small: epsilon
        ("norm-variance", "one over it, without the root", lambda x: 1.0 / x),
        ("norm-variance", "the root, not one over it", lambda x: x.sqrt()),
        ("norm-eps-place", "epsilon outside the root", lambda square, small: 1.0 / (square.sqrt() + small)),
        ("norm-eps-place", "epsilon added after the root", lambda square, small: torch.rsqrt(square) + small),
        ("norm-eps-place", "the epsilon twice", lambda x, small: torch.rsqrt(x + small)),
        ("norm-eps-place", "the root of what has no epsilon", lambda square: torch.rsqrt(square)),
        ("rounding", "1 / √x instead of rsqrt", lambda x: 1.0 / torch.sqrt(x)),
        ("rounding", "to the power of -1/2", lambda x: x.pow(-0.5)),
    )),
    "normed": (ALSO, (  # a: what is normalised; b: one over its root mean square
        ("norm-missing", "not divided by the root", lambda a: a),
        ("norm-mean-subtracted", "the mean was subtracted", lambda a, b: _centred(a) * b),
        ("norm-mean-subtracted", "a LayerNorm without weights", lambda a, eps: _plain(a, eps)),
        ("norm-variance", "divided instead of multiplied", lambda a, b: a / b),
        ("rounding", "divided by one over it", lambda a, b: a / b.reciprocal()),
        ("rounding", "divided by the root", lambda a, root: a / root),
        ("norm-twice", "multiplied twice", lambda a, b: a * b * b),
    )),
    "stretch": (ALSO, (
        ("norm-affine-missing", "not stretched (no weight)", lambda normed: normed),
        ("norm-affine-wrong", "the weight added", lambda normed, weight: normed + weight),
        ("norm-affine-wrong", "the weight twice", lambda normed, weight: weight * weight * normed),
        ("norm-mean-subtracted", "a LayerNorm with this weight", lambda of, weight, eps: layer_norm(of, weight, None, eps=eps)),
        ("norm-missing", "the tensor went on as it was", lambda of: of),
        ("norm-missing", "stretched but never normalised", lambda of, weight: weight * of),
        *(("norm-eps", f"{e:g} instead of {{eps:g}}", lambda of, weight, e=e: weight * rms(of, e)) for e in EPSILONS),
        ("rounding", "torch's fused RMS norm", lambda of, weight, eps: F.rms_norm(of, of.shape[-1:], weight, eps)),
    )),
}
# fmt: on
