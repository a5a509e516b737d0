"""Mistakes in LayerNorm, and in the steps of T5's norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses.base import Make, Tries
from llm_rebuild.diagnosis.hypotheses.feed_forward import activations

EPSILONS = (1e-5, 1e-12, 1e-6, 1e-8, 1e-3, 1e-4, 1e-7, 1e-10, 1e-9, 1e-2, 1e-15, 0.1)


def layer_norm(world: World, f: Formula) -> Tries:
    of, eps = f.inputs[0], f.facts["eps"]
    weight, bias = (world.weights[key] for key in f.weights)

    def normed(x: Tensor, w: Tensor | None = weight, b: Tensor | None = bias, e: float = eps) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w, b, e)

    def rms(x: Tensor, w: Tensor | None = weight, b: Tensor | None = bias) -> Tensor:
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        y = y if w is None else y * w
        return y if b is None else y + b

    def by_hand(divisor: Callable[[Tensor], Tensor]) -> Make:
        def make(w: World) -> Tensor:
            x = w[of]
            return (x - x.mean(-1, keepdim=True)) / divisor(x) * weight + bias

        return make

    yield "norm-missing", "the tensor went on as it was", lambda w: w[of]
    moved = behind(world, of, f.name)
    if moved is not None:

        def of_the_sum(w: World) -> Tensor | None:
            total = moved(w)
            return None if total is None else normed(total)

        yield "norm-position", "of the half-block's sum: the norm stands behind it", of_the_sum
    for other in EPSILONS:
        if other != eps:
            yield "norm-eps", f"{other:g} instead of {eps:g}", lambda w, e=other: normed(w[of], e=e)  # type: ignore[misc]
    yield "norm-eps-place", "no epsilon at all", lambda w: normed(w[of], e=0.0)
    yield "norm-affine-missing", "neither stretch nor shift", lambda w: normed(w[of], None, None)
    yield "norm-affine-missing", "no stretch (weight)", lambda w: normed(w[of], None, bias)
    yield "norm-affine-missing", "no shift (bias)", lambda w: normed(w[of], weight, None)
    yield "norm-affine-wrong", "1 + weight instead of weight", lambda w: normed(w[of], weight + 1)
    yield "norm-affine-wrong", "weight and bias exchanged", lambda w: normed(w[of], bias, weight)
    yield "norm-affine-wrong", "the bias subtracted", lambda w: normed(w[of], weight, -bias)
    yield (
        "norm-affine-wrong",
        "shifted before it was stretched",
        lambda w: (normed(w[of], None, None) + bias) * weight,
    )
    yield "norm-mean-kept", "an RMS norm with weight and bias", lambda w: rms(w[of])
    yield "norm-mean-kept", "an RMS norm without bias", lambda w: rms(w[of], weight, None)
    yield "norm-mean-kept", "an RMS norm without weight and bias", lambda w: rms(w[of], None, None)
    yield (
        "norm-mean-kept",
        "the mean was not subtracted, but the deviation from it is what divides",
        lambda w: w[of] / (w[of].var(-1, unbiased=False, keepdim=True) + eps).sqrt() * weight + bias,
    )
    yield (
        "norm-variance",
        "only the mean was subtracted",
        lambda w: (w[of] - w[of].mean(-1, keepdim=True)) * weight + bias,
    )
    yield (
        "norm-variance",
        "divided by n - 1",
        by_hand(lambda x: (x.var(-1, unbiased=True, keepdim=True) + eps).sqrt()),
    )
    yield (
        "norm-variance",
        "divided by n - 1, epsilon outside the root",
        by_hand(lambda x: x.std(-1, unbiased=True, keepdim=True) + eps),
    )
    yield (
        "norm-eps-place",
        "epsilon outside the root",
        by_hand(lambda x: x.var(-1, unbiased=False, keepdim=True).sqrt() + eps),
    )
    yield (
        "norm-variance",
        "divided by the variance instead of its root",
        by_hand(lambda x: x.var(-1, unbiased=False, keepdim=True) + eps),
    )
    yield (
        "norm-variance",
        "divided by the mean distance from the mean",
        by_hand(lambda x: (x - x.mean(-1, keepdim=True)).abs().mean(-1, keepdim=True) + eps),
    )
    yield "norm-twice", "the norm of the norm", lambda w: normed(normed(w[of]))
    for narrow in (torch.bfloat16, torch.float16):
        short = str(narrow).removeprefix("torch.")

        def within(w: World, t: torch.dtype = narrow) -> Tensor:
            return normed(w[of].to(t), None, None).float() * weight + bias

        yield "wrong-dtype", f"normalised in {short}", within

    def over(axes: tuple[int, ...], unbiased: bool = False) -> Make:
        def make(w: World) -> Tensor:
            x = w[of]
            variance = x.var(axes, unbiased=unbiased, keepdim=True)
            return (x - x.mean(axes, keepdim=True)) * torch.rsqrt(variance + eps) * weight + bias

        return make

    if world[of].dim() == 3:
        yield "norm-axis", "over the tokens instead of the width", over((1,))
        yield "norm-axis", "over tokens and width together", over((1, 2))
        yield "norm-axis", "over the batch", over((0,))
        if world[of].shape[1] > 1:  # one number has no variance by n - 1
            yield "norm-axis", "over the tokens instead of the width, by n - 1", over((1,), True)
        yield "norm-axis", "over tokens and width together, by n - 1", over((1, 2), True)
        if world[of].shape[0] > 1:
            yield "norm-axis", "over the batch, by n - 1", over((0,), True)
        yield "norm-axis", "over batch and tokens", over((0, 1))
        yield "norm-axis", "over everything", over((0, 1, 2))
    yield (
        "rounding",
        "the formula written out by hand",
        by_hand(lambda x: (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()),
    )


def behind(world: World, x: str, norm: str) -> Make | None:
    """What a norm is given that stands behind its half-block: the half-block's sum, computed without it."""
    for name, formula in world.formulas.items():
        if formula.facts.get("residual") == x and norm in world.reaching(name, ()):
            return lambda w, name=name: world.changed({norm: lambda v: v[x]}, frozenset()).value(name)  # type: ignore[misc]
    return None


def square(world: World, f: Formula) -> Tries:
    of = f.inputs[0]
    moved = behind(world, of, f.facts["norm"])
    if moved is not None:

        def of_the_sum(w: World) -> Tensor | None:
            total = moved(w)
            return None if total is None else total.pow(2)

        yield "norm-position", "of the half-block's sum: the norm stands behind it", of_the_sum
    yield (
        "norm-mean-subtracted",
        "the mean was subtracted first",
        lambda w: (w[of] - w[of].mean(-1, keepdim=True)).pow(2),
    )
    yield "norm-variance", "not squared", lambda w: w[of]
    yield "norm-variance", "the absolute value", lambda w: w[of].abs()
    yield "norm-variance", "cubed", lambda w: w[of].pow(3)
    yield "norm-variance", "to the fourth power", lambda w: w[of].pow(4)


def mean_square(world: World, f: Formula) -> Tries:
    of, x = f.inputs[0], f.facts["norm of"]
    width = world[of].shape[-1]
    yield "norm-variance", "the sum instead of the mean", lambda w: w[of].sum(-1, keepdim=True)
    yield "norm-mean-subtracted", "the variance", lambda w: w[x].var(-1, unbiased=False, keepdim=True)
    yield "norm-mean-subtracted", "the variance by n - 1", lambda w: w[x].var(-1, unbiased=True, keepdim=True)
    yield "norm-variance", "divided by n - 1", lambda w: w[of].sum(-1, keepdim=True) / (width - 1)
    yield "norm-variance", "the square of the mean", lambda w: w[x].mean(-1, keepdim=True).pow(2)
    yield "norm-variance", "the root already", lambda w: w[of].mean(-1, keepdim=True).sqrt()
    yield "norm-variance", "the largest", lambda w: w[of].amax(-1, keepdim=True)
    yield "norm-variance", "the median", lambda w: w[of].median(-1, keepdim=True).values
    yield "norm-axis", "over the tokens instead of the width", lambda w: w[of].mean(1, keepdim=True)
    yield "norm-axis", "over tokens and width together", lambda w: w[of].mean((1, 2), keepdim=True)
    yield "norm-axis", "over everything", lambda w: w[of].mean()
    yield (
        "norm-axis",
        "over tokens and width together",
        lambda w: w[of].mean((1, 2), keepdim=True).expand((*w[of].shape[:2], 1)),
    )


def plus_eps(world: World, f: Formula) -> Tries:
    of, eps = f.inputs[0], f.facts["eps"]
    yield "norm-eps-place", "no epsilon at all, or one too small to show", lambda w: w[of]
    for other in EPSILONS:
        if other != eps:
            yield "norm-eps", f"{other:g} instead of {eps:g}", lambda w, e=other: w[of] + e  # type: ignore[misc]
    yield "norm-eps-place", "the epsilon subtracted", lambda w: w[of] - eps
    yield "norm-eps-place", "at least epsilon, not plus epsilon", lambda w: w[of].clamp(min=eps)


def inverse_root(world: World, f: Formula) -> Tries:
    of = f.inputs[0]
    inner = world.formulas[of]
    eps, square = inner.facts.get("eps", 0.0), inner.inputs[0]
    yield "norm-variance", "one over it, without the root", lambda w: 1.0 / w[of]
    yield "norm-variance", "the root, not one over it", lambda w: w[of].sqrt()
    yield "norm-eps-place", "epsilon outside the root", lambda w: 1.0 / (w[square].sqrt() + eps)
    yield "norm-eps-place", "epsilon added after the root", lambda w: torch.rsqrt(w[square]) + eps
    yield "norm-eps-place", "the epsilon twice", lambda w: torch.rsqrt(w[of] + eps)
    yield "norm-eps-place", "the root of what has no epsilon", lambda w: torch.rsqrt(w[square])
    yield "rounding", "1 / √x instead of rsqrt", lambda w: 1.0 / torch.sqrt(w[of])
    yield "rounding", "to the power of -1/2", lambda w: w[of].pow(-0.5)


def multiply(world: World, f: Formula) -> Tries:
    a, b = f.inputs
    norm = f.facts.get("norm of")
    if norm:
        yield "norm-missing", "not divided by the root", lambda w: w[a]
        yield (
            "norm-mean-subtracted",
            "the mean was subtracted",
            lambda w: (w[a] - w[a].mean(-1, keepdim=True)) * w[b],
        )
        yield (
            "norm-mean-subtracted",
            "a LayerNorm without weights",
            lambda w: F.layer_norm(w[a], w[a].shape[-1:], eps=world.config.layer_norm_epsilon),
        )
        yield "norm-variance", "divided instead of multiplied", lambda w: w[a] / w[b]
        yield "rounding", "divided by the root", lambda w: w[a] / world[f.inputs[1]].reciprocal()
        yield (
            "rounding",
            "divided by the root",
            lambda w: w[a] / torch.sqrt(w[world.formulas[b].inputs[0]]),
        )
        yield "norm-twice", "multiplied twice", lambda w: w[a] * w[b] * w[b]
    else:
        yield "activation-missing", "one branch alone", lambda w: w[a]
        yield "wrong-operand", "the other branch alone", lambda w: w[b]
        yield "wrong-operand", "added instead of multiplied", lambda w: w[a] + w[b]
        inner = world.formulas.get(a)
        if inner is not None and "x" in inner.facts:
            x, name = inner.facts["x"], inner.facts["name"]
            bend = activations().get(name)
            if bend is not None:
                yield (
                    "wrong-operand",
                    "the activation on the other branch",
                    lambda w: w[x] * bend(w[b]),
                )


def stretch(world: World, f: Formula) -> Tries:
    of, weight = f.inputs[0], world.weights[f.weights[0]]
    x, eps = f.facts["norm of"], f.facts["eps"]
    yield "norm-affine-missing", "not stretched (no weight)", lambda w: w[of]
    yield "norm-affine-wrong", "1 + weight instead of weight", lambda w: (1 + weight) * w[of]
    yield "norm-affine-wrong", "divided by the weight", lambda w: w[of] / weight
    yield "norm-affine-wrong", "the weight added", lambda w: w[of] + weight
    yield "norm-affine-wrong", "the weight twice", lambda w: weight * weight * w[of]
    yield (
        "norm-mean-subtracted",
        "a LayerNorm with this weight",
        lambda w: F.layer_norm(w[x], w[x].shape[-1:], weight, None, eps),
    )
    yield "norm-missing", "the tensor went on as it was", lambda w: w[x]
    yield "norm-missing", "stretched but never normalised", lambda w: weight * w[x]

    def again(w: World) -> Tensor:
        once = weight * w[of]
        return weight * (once * torch.rsqrt(once.pow(2).mean(-1, keepdim=True) + eps))

    yield "norm-twice", "the norm of the norm", again
    for other in EPSILONS:
        if other != eps:

            def with_eps(w: World, e: float = other) -> Tensor:
                return weight * (w[x] * torch.rsqrt(w[x].pow(2).mean(-1, keepdim=True) + e))

            yield "norm-eps", f"{other:g} instead of {eps:g}", with_eps
    yield (
        "rounding",
        "torch's fused RMS norm",
        lambda w: F.rms_norm(w[x], w[x].shape[-1:], weight, eps),
    )
