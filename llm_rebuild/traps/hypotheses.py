"""What a person may have done instead. For every kind of step the mistakes that are made there, each as a
computation: if this had happened, the tensor would be *that*. `diagnose.py` tries which of them gives the
tensor that the person has.

A hypothesis computes with the same numbers as the step itself: the official tensors before it and the weight
file. It never looks at the tensor that it should explain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.traps.formulas import Formula, Value, World, distances, may_look

LOWEST = torch.finfo(torch.float32).min
# What people add instead of it.
FILLS = (-math.inf, -1e4, -1e9, -1e5, -1e3, -100.0, -10.0, -1.0, 1.0, -1e8, -1e10, -1e6, -1e30, -1e38)
Make = Callable[[World], Value]


@dataclass(frozen=True)
class Hypothesis:
    """One possible mistake.

    cause    Its name in `causes.py`.
    says     What exactly would have been done.
    changes  The steps that are computed in another way, and how.
    """

    cause: str
    says: str
    changes: dict[str, Make]


def hypotheses(world: World, formula: Formula) -> Iterator[Hypothesis]:
    """All mistakes that are tried at this step, the likelier first."""
    for cause, says, make in _OF_KIND.get(formula.kind, _nothing)(world, formula):
        if isinstance(make, dict):
            yield Hypothesis(cause, says, make)
        else:
            yield Hypothesis(cause, says, {formula.name: make})


Tries = Iterator[tuple[str, str, Make | dict[str, Make]]]


def _nothing(world: World, f: Formula) -> Tries:
    return iter(())


# ------------------------------------------------------------------------------------ embeddings


def _lookup(world: World, f: Formula) -> Tries:
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
        if _cached(world):
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
        yield from _buckets(world, f, table)


def _cached(world: World) -> bool:
    return any(name.startswith("#past.") for name in world.known)


def sinusoidal(positions: Tensor, width: int, way: str) -> Tensor:
    """The original transformer's positions: [1, token, width]."""
    half = width // 2
    steps = positions[..., None].float() * torch.exp(torch.arange(half).float() * (-math.log(10000.0) / half))
    if way == "halves":
        return torch.cat([steps.sin(), steps.cos()], dim=-1)
    return torch.stack([steps.sin(), steps.cos()], dim=-1).flatten(-2)


def _buckets(world: World, f: Formula, table: Tensor) -> Tries:
    """T5's distances as numbers of buckets, in all the ways in which they go wrong."""
    step = world.formulas[f.inputs[0]]
    both, config = step.facts["both_ways"], world.config
    count, limit = config.relative_attention_num_buckets, config.relative_attention_max_distance

    def by(**how: object) -> Make:
        def make(w: World) -> Tensor:
            given = {"both": both, "count": count, "limit": limit, **how}
            return F.embedding(buckets(distances(w, step), **given).clamp(0, count - 1), table)  # type: ignore[arg-type]

        return make

    if _cached(world):

        def from_the_start(w: World) -> Tensor:
            query, key = w[step.inputs[0]].shape[1], w[step.inputs[1]].shape[1]
            apart = torch.arange(key) - torch.arange(query)[:, None]
            return F.embedding(buckets(apart, both, count, limit), table)

        yield (
            "positions-not-advanced",
            "queries are counted from 0, though others came before",
            from_the_start,
        )
    name = {True: "two-way", False: "one-way"}
    yield "buckets-direction", f"{name[not both]} instead of {name[both]} buckets", by(both=not both)
    yield "buckets-sign", "query minus key instead of key minus query", by(sign=-1)
    yield "buckets-sign", "the absolute distance, whatever the side", by(absolute=True)
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
    """`t5_looks.bucket_of` with its places for mistakes as arguments."""
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


# ------------------------------------------------------------------------------- sums and residuals


def _add(world: World, f: Formula) -> Tries:
    a, b = f.inputs
    residual, lack = f.facts.get("residual"), f.facts.get("lack", {})
    for absent, kept in ((a, b), (b, a)):
        if residual:
            what = "residual-missing" if absent == residual else "wrong-operand"
            says = (
                "the half-block's result alone"
                if absent == residual
                else "the residual alone, without the result"
            )
        else:
            what, says = lack.get(absent, "wrong-operand"), f"{absent} left out"
        yield what, says, lambda w, kept=kept: w[kept]  # type: ignore[misc]
    if residual:
        new = b if a == residual else a
        yield "residual-scaled", "the residual twice", lambda w: w[new] + w[residual] + w[residual]
        yield "residual-scaled", "the result twice", lambda w: w[new] + w[new]
        yield "residual-scaled", "result minus residual", lambda w: w[new] - w[residual]
        yield "residual-scaled", "residual minus result", lambda w: w[residual] - w[new]
        yield "residual-scaled", "the sum halved", lambda w: (w[new] + w[residual]) * 0.5
        yield "residual-scaled", "the sum divided by √2", lambda w: (w[new] + w[residual]) / 2**0.5
        yield "residual-scaled", "the product of both", lambda w: w[new] * w[residual]
        yield "residual-scaled", "the residual halved", lambda w: w[new] + 0.5 * w[residual]
        yield "residual-scaled", "the result halved", lambda w: 0.5 * w[new] + w[residual]
        norm = world.formulas.get(f.facts.get("norm", ""))
        if norm is not None:
            for one, other, says in (
                (new, residual, "the result was normalised before the residual was added"),
                (residual, new, "the residual was normalised before it was added"),
            ):

                def before(w: World, one: str = one, other: str = other) -> Tensor:
                    weight, bias = (w.weights[key] for key in norm.weights)
                    return F.layer_norm(w[one], w[one].shape[-1:], weight, bias, norm.facts["eps"]) + w[other]

                yield "norm-position", says, before
    else:
        width = world[a].shape[-1]
        yield "embedding-scaled", f"{a} times √{width}", lambda w: w[a] * width**0.5 + w[b]
        yield "wrong-operand", f"{b} subtracted", lambda w: w[a] - w[b]
        yield "wrong-operand", "multiplied instead of added", lambda w: w[a] * w[b]


# ------------------------------------------------------------------------------------------ norms

EPSILONS = (1e-5, 1e-12, 1e-6, 1e-8, 1e-3, 1e-4, 1e-7, 1e-10, 1e-9, 1e-2, 1e-15, 0.1)


def _layer_norm(world: World, f: Formula) -> Tries:
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

    def over(axes: tuple[int, ...]) -> Make:
        def make(w: World) -> Tensor:
            x = w[of]
            variance = x.var(axes, unbiased=False, keepdim=True)
            return (x - x.mean(axes, keepdim=True)) * torch.rsqrt(variance + eps) * weight + bias

        return make

    if world[of].dim() == 3:
        yield "norm-axis", "over the tokens instead of the width", over((1,))
        yield "norm-axis", "over tokens and width together", over((1, 2))
        yield "norm-axis", "over the batch", over((0,))
    yield (
        "rounding",
        "the formula written out by hand",
        by_hand(lambda x: (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()),
    )


def _square(world: World, f: Formula) -> Tries:
    of = f.inputs[0]
    yield (
        "norm-mean-subtracted",
        "the mean was subtracted first",
        lambda w: (w[of] - w[of].mean(-1, keepdim=True)).pow(2),
    )
    yield "norm-variance", "not squared", lambda w: w[of]
    yield "norm-variance", "the absolute value", lambda w: w[of].abs()
    yield "norm-variance", "cubed", lambda w: w[of].pow(3)
    yield "norm-variance", "to the fourth power", lambda w: w[of].pow(4)


def _mean_square(world: World, f: Formula) -> Tries:
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
        lambda w: w[of].mean((1, 2), keepdim=True).expand(w[of].shape[:2] + (1,)),
    )


def _plus_eps(world: World, f: Formula) -> Tries:
    of, eps = f.inputs[0], f.facts["eps"]
    for other in EPSILONS:
        if other != eps:
            yield "norm-eps", f"{other:g} instead of {eps:g}", lambda w, e=other: w[of] + e  # type: ignore[misc]
    yield "norm-eps-place", "no epsilon at all", lambda w: w[of]
    yield "norm-eps-place", "the epsilon subtracted", lambda w: w[of] - eps
    yield "norm-eps-place", "at least epsilon, not plus epsilon", lambda w: w[of].clamp(min=eps)


def _inverse_root(world: World, f: Formula) -> Tries:
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


def _multiply(world: World, f: Formula) -> Tries:
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
            bend = _activations().get(name)
            if bend is not None:
                yield (
                    "wrong-operand",
                    "the activation on the other branch",
                    lambda w: w[x] * bend(w[b]),
                )


def _stretch(world: World, f: Formula) -> Tries:
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


# ----------------------------------------------------------------------------------- linear layers


def _linear(world: World, f: Formula) -> Tries:
    of, weight = f.inputs[0], world.weights[f.weights[0]]
    weight = weight if f.kind == "linear" else weight.T  # as [out, in]
    bias = world.weights[f.weights[1]] if len(f.weights) > 1 else None
    if bias is not None:
        yield "bias-missing", "the product alone", lambda w: F.linear(w[of], weight)
        yield "bias-wrong", "subtracted", lambda w: F.linear(w[of], weight) - bias
        yield "bias-wrong", "added twice", lambda w: F.linear(w[of], weight, bias) + bias
        yield "bias-wrong", "added before the product", _bias_first(of, weight, bias)
        yield "bias-wrong", "multiplied", lambda w: F.linear(w[of], weight) * bias
    others: tuple[Tensor | None, ...] = (bias, None) if bias is not None else (None,)
    if weight.shape[0] == weight.shape[1]:
        for b in others:
            also = "" if b is bias else ", and no bias"
            yield "weight-transposed", f"x @ W{also}", lambda w, b=b: F.linear(w[of], weight.T, b)  # type: ignore[misc]
    else:
        for b in others:
            also = "" if b is bias else ", and no bias"
            turned = weight.T.reshape(weight.shape)
            yield (
                "weight-transposed",
                f"brought into shape by a reshape instead of a transpose{also}",
                lambda w, b=b, turned=turned: F.linear(w[of], turned, b),  # type: ignore[misc]
            )
    if weight.shape[0] == 3 * weight.shape[1]:
        thirds = torch.cat([part.T for part in weight.chunk(3)])
        yield "weight-transposed", "each of the three squares", lambda w: F.linear(w[of], thirds, bias)
    for narrow in (torch.bfloat16, torch.float16):
        short = str(narrow).removeprefix("torch.")

        def multiplied(w: World, t: torch.dtype = narrow) -> Tensor:
            product = F.linear(w[of].to(t), weight.to(t)).float()
            return product if bias is None else product + bias

        yield "wrong-dtype", f"multiplied in {short}", multiplied

        def narrowed(w: World, t: torch.dtype = narrow) -> Tensor:
            return F.linear(w[of], weight.to(t).float(), None if bias is None else bias.to(t).float())

        yield "wrong-dtype", f"the weights were kept in {short}", narrowed
        yield (
            "wrong-dtype",
            f"what goes in was kept in {short}",
            lambda w, t=narrow: F.linear(w[of].to(t).float(), weight, bias),  # type: ignore[misc]
        )
    if bias is not None:
        yield "rounding", "the product, then the bias", lambda w: w[of] @ weight.T + bias
    if f.facts.get("head"):
        width = world[of].shape[-1]
        yield (
            "output-scale-wrong",
            f"scores times 1/√{width}",
            lambda w: F.linear(w[of], weight) * width**-0.5,
        )


def _bias_first(of: str, weight: Tensor, bias: Tensor) -> Make:
    def make(w: World) -> Tensor:
        x = w[of]
        return F.linear(x + bias, weight) if x.shape[-1] == bias.shape[-1] else F.linear(x, weight)

    return make


def _first_token(world: World, f: Formula) -> Tries:
    of = f.inputs[0]
    yield "pooler-token", "the last place", lambda w: w[of][:, -1]
    yield "pooler-token", "the mean over all places", lambda w: w[of].mean(1)
    yield "pooler-token", "the largest over all places", lambda w: w[of].amax(1)
    yield "pooler-token", "the second token", lambda w: w[of][:, 1]

    def real_mean(w: World) -> Tensor:
        mask = w["#mask"].unsqueeze(-1).float()
        return (w[of] * mask).sum(1) / mask.sum(1)

    def last_real(w: World) -> Tensor:
        mask = w["#mask"]
        return w[of][torch.arange(len(mask)), mask.sum(1) - 1]

    yield "pooler-token", "the mean over the tokens", real_mean
    yield "pooler-token", "the last token", last_real
    yield "pooler-token", "the sum over all places", lambda w: w[of].sum(1)


# ------------------------------------------------------------------------------------------- heads


def _split(world: World, f: Formula) -> Tries:
    group, heads = f.facts["group"], f.facts["heads"]
    members = {
        name: world.formulas[group + name]
        for name in ("query", "key", "value")
        if group + name in world.formulas
    }

    def together(how: Callable[[World, Formula], Tensor]) -> dict[str, Make]:
        """The same mistake in all three, as one function makes it."""
        return {m.name: (lambda w, m=m: how(w, m)) for m in members.values()}  # type: ignore[misc]

    def part(w: World, m: Formula, index: int | None = None) -> Tensor:
        x = w[m.inputs[0]]
        if "part" not in m.facts:
            return x
        return x.chunk(3, dim=-1)[m.facts["part"] if index is None else index]

    def heads_of(x: Tensor, count: int = heads) -> Tensor:
        return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)

    if f.facts["name"] != "query" and group + "query" in world.formulas:
        order = world.reaching(f.name, ())  # the group is tried once, where it is first met
        if group + "query" in order:
            return
    if "part" in f.facts:
        names = ("query", "key", "value")
        for order_of in permutations(range(3)):
            if order_of == (0, 1, 2):
                continue
            says = ", ".join(names[order_of.index(i)] for i in range(3))
            yield (
                "qkv-order",
                f"as {says}",
                {
                    members[name].name: (
                        lambda w, m=members[name], i=order_of[number]: heads_of(part(w, m, i))  # type: ignore[misc]
                    )
                    for number, name in enumerate(names)
                },
            )

        def interleaved(w: World, m: Formula) -> Tensor:
            x = w[m.inputs[0]]
            return x.reshape(*x.shape[:2], heads, 3, -1)[..., m.facts["part"], :].transpose(1, 2)

        def every_third(w: World, m: Formula) -> Tensor:
            return heads_of(w[m.inputs[0]][..., m.facts["part"] :: 3])

        yield "qkv-interleaved", "head by head: query, key, value of the first head, …", together(interleaved)
        yield "qkv-interleaved", "every third number", together(every_third)

    def no_transpose(w: World, m: Formula) -> Tensor:
        x = part(w, m)
        return x.reshape(x.shape[0], heads, x.shape[1], -1)

    def width_first(w: World, m: Formula) -> Tensor:
        x = part(w, m)
        return x.reshape(*x.shape[:2], -1, heads).permute(0, 3, 1, 2)

    ways: tuple[tuple[str, Callable[[World, Formula], Tensor]], ...] = (
        ("reshaped to [batch, head, token, head width] at once, without a transpose", no_transpose),
        ("the head width in front of the heads", width_first),
    )
    for says, how in ways:
        yield "heads-split", says, together(how)
    for says, how in ways:
        for m in members.values():
            only = f"only in the {m.facts['name']}: {says}"
            yield "heads-split", only, {m.name: (lambda w, m=m, how=how: how(w, m))}  # type: ignore[misc]
    width = part(world, f).shape[-1]
    for count in (heads * 2, heads // 2, 1, heads * 3, heads + 1, heads - 1, 2, 8, 12, 16):
        if 0 < count != heads and width % count == 0:
            yield (
                "heads-count",
                f"{count} heads instead of {heads}",
                together(lambda w, m, count=count: heads_of(part(w, m), count)),  # type: ignore[misc]
            )
    for m in members.values():
        yield (
            "permuted",
            f"the heads of the {m.facts['name']} in reverse",
            {m.name: (lambda w, m=m: heads_of(part(w, m)).flip(1))},  # type: ignore[misc]
        )


def _cat(world: World, f: Formula) -> Tries:
    old, new = f.inputs
    other = {"key": "value", "value": "key"}[f.facts["name"]]
    path = f.name.rpartition(".")[0]
    yield "cache-not-appended", "the new token alone, without those before", lambda w: w[new]
    yield "cache-not-appended", "those before alone, without the new token", lambda w: w[old]
    yield "cache-order", "the new token in front of those before", lambda w: torch.cat([w[new], w[old]], -2)
    yield (
        "cache-mixed",
        f"the new {other} appended",
        lambda w: torch.cat([w[old], w[f"{path}.#{other}"]], -2),
    )
    far = f"#past.{path}.{other}"
    if far in world.known:
        yield "cache-mixed", f"the kept {other}s", lambda w: torch.cat([w[far], w[f"{path}.#{other}"]], -2)
        yield "cache-mixed", f"appended to the kept {other}s", lambda w: torch.cat([w[far], w[new]], -2)

    def in_place(at: int) -> Make:
        def make(w: World) -> Tensor:
            kept = w[old].clone()
            kept[:, :, at] = w[new][:, :, -1]
            return kept

        return make

    yield "cache-not-appended", "the new token written over the last one", in_place(-1)
    yield "cache-order", "the new token written over the first one", in_place(0)
    yield (
        "cache-not-appended",
        "the first of those before dropped",
        lambda w: torch.cat([w[old][:, :, 1:], w[new]], -2),
    )
    yield (
        "cache-not-appended",
        "the last of those before dropped",
        lambda w: torch.cat([w[old][:, :, :-1], w[new]], -2),
    )
    yield "cache-order", "the new token twice", lambda w: torch.cat([w[old], w[new], w[new]], -2)
    yield "cache-order", "those before in reverse", lambda w: torch.cat([w[old].flip(-2), w[new]], -2)
    yield "cache-mixed", "the rows of the batch exchanged", lambda w: torch.cat([w[old].flip(0), w[new]], -2)
    for number in range(12):
        elsewhere = f"#past.{_other_block(path, number)}.{f.facts['name']}"
        if elsewhere in world.known and elsewhere != old:
            yield (
                "cache-order",
                f"the keys and values kept by block {number}",
                lambda w, e=elsewhere: torch.cat([w[e], w[new]], -2),  # type: ignore[misc]
            )


def _other_block(path: str, number: int) -> str:
    words = path.split(".")
    for at, word in enumerate(words):
        if word.isdigit():
            return ".".join([*words[:at], str(number), *words[at + 1 :]])
    return path


def _biased_mask(world: World, f: Formula) -> Tries:
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
    for fill in FILLS:
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


def _same(world: World, f: Formula) -> Tries:
    if f.inputs[0].startswith("#past."):
        path, kept = f.name.rpartition(".")[0], f.inputs[0].rpartition(".")[0]
        exchanged: dict[str, Make] = {
            f"{path}.key": lambda w: w[f"{kept}.value"],
            f"{path}.value": lambda w: w[f"{kept}.key"],
        }
        yield "cache-mixed", "keys and values exchanged", exchanged
        other = {"key": "value", "value": "key"}[f.facts["name"]]
        yield "cache-mixed", f"the kept {other}s", lambda w: w[f"{kept}.{other}"]
        for number in range(12):
            elsewhere = f"{_other_block(kept, number)}.{f.facts['name']}"
            if elsewhere in world.known and elsewhere != f.inputs[0]:
                yield "cache-order", f"those kept by block {number}", lambda w, e=elsewhere: w[e]  # type: ignore[misc]


# ------------------------------------------------------------------------------------------ scores


def _product(world: World, f: Formula) -> Tries:
    query, key = f.inputs
    path = f.name.rpartition(".")[0]
    value = _heads_of(world, path, "value")
    width = world[query].shape[-1]

    yield "query-key-swapped", "key times query", lambda w: w[key] @ w[query].transpose(-1, -2)
    for says, by in (
        (f"times 1/√{width}", width**-0.5),
        (f"divided by {width}", 1 / width),
    ):
        cause = "scale-extra" if f.facts.get("unscaled") else "scale-order"
        yield cause, f"the product {says}", lambda w, by=by: (w[query] @ w[key].transpose(-1, -2)) * by  # type: ignore[misc]
        yield cause, f"the query {says}", lambda w, by=by: (w[query] * by) @ w[key].transpose(-1, -2)  # type: ignore[misc]
    yield "wrong-operand", "query times query", lambda w: w[query] @ w[query].transpose(-1, -2)
    yield "wrong-operand", "key times key", lambda w: w[key] @ w[key].transpose(-1, -2)
    yield "wrong-operand", "query times value", lambda w: w[query] @ w[value].transpose(-1, -2)
    yield "wrong-operand", "value times key", lambda w: w[value] @ w[key].transpose(-1, -2)

    def lengths(w: World) -> Tensor:
        return F.normalize(w[query], dim=-1) @ F.normalize(w[key], dim=-1).transpose(-1, -2)

    yield "scale-extra", "query and key were brought to length 1", lengths
    if world[query].shape[-2] == world[query].shape[-1]:
        yield "wrong-operand", "the key not transposed", lambda w: w[query] @ w[key]
    yield (
        "wrong-operand",
        "the key reshaped instead of transposed",
        lambda w: w[query] @ w[key].reshape(*w[key].shape[:2], w[key].shape[3], w[key].shape[2]),
    )


def _heads_of(world: World, path: str, name: str) -> str:
    """The step that holds all keys or values of an attention by head, those of a cache included."""
    kept = world.formulas.get(f"{path}.{name}")
    return kept.name if kept is not None and kept.kind in ("same", "cat") else f"{path}.#{name}"


def _scale(world: World, f: Formula) -> Tries:
    of, by = f.inputs[0], f.facts["by"]
    width = round(by**-2) if by and by != 1 else 0
    output = f.facts.get("output")
    missing, wrong = (
        ("output-scale-missing", "output-scale-wrong") if output else ("scale-missing", "scale-wrong")
    )
    yield missing, "went on as it was", lambda w: w[of]
    yield "rounding", f"divided by √{width}", lambda w: w[of] / math.sqrt(width or 1)
    yield "rounding", f"divided by √{width}", lambda w: w[of] / by**-1
    factors = {
        f"divided by {width}": 1 / max(width, 1),
        f"times √{width}": width**0.5,
        f"times {width}": width,
    }
    for attribute in ("n_embd", "hidden_size", "d_model", "d_kv"):
        total = getattr(world.config, attribute, 0)
        if total and total != width:
            factors |= {f"divided by √{total} ({attribute})": total**-0.5, f"divided by {total}": 1 / total}
    for attribute in ("n_head", "num_attention_heads", "num_heads"):
        heads = getattr(world.config, attribute, 0)
        if heads:
            factors |= {f"divided by √{heads}, the number of heads": heads**-0.5}
    if world[of].dim() == 4:
        keys = world[of].shape[-1]
        factors |= {f"divided by √{keys}, the number of keys": keys**-0.5}
    for says, factor in factors.items():
        if factor != by:
            yield wrong, says, lambda w, x=factor: w[of] * x  # type: ignore[misc]
    twice = wrong if output else "scale-extra"
    yield twice, "twice", lambda w: w[of] * by * by
    mask = f"{f.name.rpartition('.')[0]}.scores"
    if mask in world.formulas and not output:
        hidden = world.formulas[mask].inputs[1]

        def masked_first(w: World, by: float = by) -> Value:
            hides = w.value(hidden)
            return None if hides is None else (w[of] + hides) * by

        yield "scale-order", "the mask was added before, and scaled as well", masked_first
        yield "scale-order", "the mask was added first", lambda w: masked_first(w, 1.0)


def _add_bias(world: World, f: Formula) -> Tries:
    product, bias = f.inputs
    path = f.name.rpartition(".")[0]
    width = world[f"{path}.#query"].shape[-1]
    side = f.name.partition(".")[0]
    if world.formulas[bias].kind == "no bias":
        for own in ("decoder.#bias", "encoder.#bias"):
            if own in world.formulas:
                says = f"that of the {own.partition('.')[0]}'s self-attention"
                yield "position-bias-extra", says, lambda w, own=own: w[product] + w[own]  # type: ignore[misc]

        def mixed(w: World) -> Tensor:
            table = w.weights[_table(side)]
            query, key = w[product].shape[-2:]
            apart = torch.arange(key) - torch.arange(query)[:, None]
            config = w.config
            both = buckets(
                apart, True, config.relative_attention_num_buckets, config.relative_attention_max_distance
            )
            return w[product] + F.embedding(both, table).permute(2, 0, 1).unsqueeze(0)

        yield "position-bias-extra", "distances between answer and text", mixed
    else:
        yield "position-bias-missing", "the product alone", lambda w: w[product]
        if f"{path}.scores" in world.formulas:
            hidden = world.formulas[f"{path}.scores"].inputs[1]
            yield "scale-order", "the mask was added before the bias", lambda w: w[product] + w[hidden]
        yield (
            "position-bias-wrong",
            "query and key exchanged in the bias",
            lambda w: w[product] + w[bias].transpose(-1, -2),
        )
        yield "position-bias-wrong", "the bias subtracted", lambda w: w[product] - w[bias]
        yield "position-bias-wrong", "the bias twice", lambda w: w[product] + 2 * w[bias]
        yield "position-bias-wrong", "multiplied by the bias", lambda w: w[product] * w[bias]
        yield "position-bias-wrong", "the heads in reverse", lambda w: w[product] + w[bias].flip(1)
        yield (
            "position-bias-wrong",
            "the bias of the first head for all",
            lambda w: w[product] + w[bias][:, :1],
        )
        yield (
            "position-bias-wrong",
            "the mean over the heads",
            lambda w: w[product] + w[bias].mean(1, keepdim=True),
        )

        def moved(w: World) -> Tensor:
            table = w[world.formulas[bias].inputs[0]]
            heads = table.shape[-1]
            return w[product] + table.reshape(1, heads, *table.shape[:2])

        yield "position-bias-wrong", "brought into shape by a reshape, which mixes its axes", moved
        other = "encoder" if side == "decoder" else "decoder"

        def of_the_other(w: World) -> Tensor:
            table = world.formulas[world.formulas[bias].inputs[0]]
            numbers = w[table.inputs[0]]
            return w[product] + F.embedding(numbers, w.weights[_table(other)]).permute(2, 0, 1).unsqueeze(0)

        if _table(other) in world.weights:
            yield "position-bias-wrong", f"from the table of the {other}", of_the_other
    for says, by in ((f"1/√{width}", width**-0.5), (f"1/{width}", 1 / width), (f"√{width}", width**0.5)):
        yield "scale-extra", f"times {says} before the bias", lambda w, by=by: w[product] * by + w[bias]  # type: ignore[misc]
        yield "scale-extra", f"times {says} after the bias", lambda w, by=by: (w[product] + w[bias]) * by  # type: ignore[misc]


def _table(side: str) -> str:
    return f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def _mask(world: World, f: Formula) -> Tries:
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
    if causal:
        yield "mask-causal-missing", "later tokens are seen", filled(padding)
        yield "mask-padding-missing", "padding is seen", filled(order)
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


def _add_mask(world: World, f: Formula) -> Tries:
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
        for says, after in _after_softmax(of, hides):
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


def _after_softmax(of: str, hides: Callable[[World], Tensor]) -> tuple[tuple[str, Make], ...]:
    def alone(w: World) -> Tensor:
        return F.softmax(w[of], -1) * (~hides(w)).float()

    def again(w: World) -> Tensor:
        kept = alone(w)
        return kept / kept.sum(-1, keepdim=True)

    return (
        ("shares of hidden tokens set to 0 afterwards", alone),
        ("shares of hidden tokens set to 0 afterwards, the others raised to sum to 1", again),
    )


def _softmax(world: World, f: Formula) -> Tries:
    of = f.inputs[0]
    before = world.formulas[of]
    x, mask = before.inputs if len(before.inputs) == 2 else (of, "")

    def hides(w: World) -> Tensor:
        hidden = w.value(mask) if mask else None
        return torch.zeros(1, 1, 1, 1, dtype=torch.bool) if hidden is None else hidden < -1

    for axis, says in ((-2, "over the queries"), (1, "over the heads"), (0, "over the batch")):
        yield "softmax-axis", says, lambda w, axis=axis: F.softmax(w[of], axis)  # type: ignore[misc]
    yield (
        "softmax-axis",
        "over queries and keys together",
        lambda w: F.softmax(w[of].flatten(-2), -1).view(w[of].shape),
    )
    yield "softmax-missing", "the scores went on as they were", lambda w: w[of]
    yield "mask-missing", "of the scores before the mask", lambda w: F.softmax(w[x], -1)
    for says, after in _after_softmax(x, hides):
        yield "mask-after-softmax", says, after
    yield (
        "mask-after-softmax",
        "the mask added to the shares",
        lambda w: F.softmax(w[x], -1) + w[mask],
    )
    yield "softmax-changed", "its logarithm", lambda w: F.log_softmax(w[of], -1)
    yield "softmax-changed", "a sigmoid", lambda w: torch.sigmoid(w[of])
    yield "softmax-changed", "of the negative scores", lambda w: F.softmax(-w[of], -1)
    yield "softmax-changed", "the exponentials, not divided by their sum", lambda w: w[of].exp()
    yield (
        "softmax-changed",
        "the exponentials less the largest, not divided by their sum",
        lambda w: (w[of] - w[of].amax(-1, keepdim=True)).exp(),
    )
    yield "softmax-changed", "applied twice", lambda w: F.softmax(F.softmax(w[of], -1), -1)
    yield "softmax-changed", "to base 2", lambda w: F.softmax(w[of] * math.log(2), -1)
    yield (
        "softmax-changed",
        "divided by the length instead of the sum",
        lambda w: F.normalize(F.softmax(w[of], -1), dim=-1),
    )
    yield (
        "softmax-changed",
        "with one more in the sum",
        lambda w: w[of].exp() / (1 + w[of].exp().sum(-1, keepdim=True)),
    )
    yield (
        "softmax-changed",
        "scores divided by their sum",
        lambda w: w[of] / w[of].sum(-1, keepdim=True),
    )
    yield (
        "softmax-changed",
        "the largest score alone",
        lambda w: F.one_hot(w[of].argmax(-1), w[of].shape[-1]).float(),
    )
    width = next(
        (world[n].shape[-1] for n in (f"{f.name.rpartition('.')[0]}.#query",) if n in world.formulas), 1
    )
    for by, says in ((0.5, "÷ 2"), (2.0, "× 2"), (width**-0.5, f"÷ √{width}")):
        yield (
            "softmax-changed" if by in (0.5, 2.0) else "scale-extra",
            f"of the scores {says}",
            lambda w, by=by: F.softmax(w[of] * by, -1),  # type: ignore[misc]
        )
    for narrow in (torch.bfloat16, torch.float16):
        short = str(narrow).removeprefix("torch.")
        yield (
            "wrong-dtype",
            f"computed in {short}",
            lambda w, t=narrow: F.softmax(w[of].to(t), -1).float(),  # type: ignore[misc]
        )
    yield "rounding", "in float64, then rounded", lambda w: F.softmax(w[of].double(), -1).float()


def _mix(world: World, f: Formula) -> Tries:
    probs, value = f.inputs
    path = f.name.rpartition(".")[0]
    key, query = _heads_of(world, path, "key"), f"{path}.#query"
    scores = f"{path}.scores"
    yield "wrong-operand", "the shares transposed", lambda w: w[probs].transpose(-1, -2) @ w[value]
    for other in (key, query):
        says = f"the {other.rpartition('.')[2].strip('#')} instead of the value"
        yield "wrong-operand", says, lambda w, o=other: w[probs] @ w[o]  # type: ignore[misc]
    yield "softmax-missing", "the scores instead of the shares", lambda w: w[scores] @ w[value]
    if f"{path}.scaled" in world.formulas:
        yield (
            "softmax-missing",
            "the scaled products instead of the shares",
            lambda w: w[f"{path}.scaled"] @ w[value],
        )
    yield "wrong-operand", "the values without the shares", lambda w: w[value]
    yield (
        "wrong-operand",
        "all values in equal shares",
        lambda w: torch.full_like(w[probs], 1 / w[probs].shape[-1]) @ w[value],
    )
    mask = world.formulas[scores].inputs[1] if scores in world.formulas else ""
    if mask:

        def masked(w: World) -> Tensor:
            hidden = w.value(mask)
            shown = torch.ones(()) if hidden is None else (hidden >= -1).float()
            return (w[probs] * shown.transpose(-1, -2) if shown.dim() else w[probs]) @ w[value]

        yield "mask-direction", "queries hidden after the softmax", masked


def _merge(world: World, f: Formula) -> Tries:
    of = f.inputs[0]

    def shaped(x: Tensor, like: Tensor) -> Tensor:
        batch, heads, token, width = like.shape
        return x.reshape(batch, token, heads * width)

    yield "heads-merged", "reshaped without moving the tokens in front", lambda w: shaped(w[of], w[of])
    yield (
        "heads-merged",
        "the head width in front of the heads",
        lambda w: shaped(w[of].permute(0, 2, 3, 1), w[of]),
    )
    yield (
        "heads-merged",
        "heads and head width exchanged",
        lambda w: shaped(w[of].transpose(2, 3), w[of]),
    )
    yield "heads-merged", "the heads in reverse", lambda w: shaped(w[of].flip(1).transpose(1, 2), w[of])
    for order in permutations((1, 2, 3)):
        if order != (2, 1, 3):
            yield (
                "heads-merged",
                "its axes in another order",
                lambda w, order=order: shaped(w[of].permute(0, *order), w[of]),  # type: ignore[misc]
            )
    yield (
        "heads-merged",
        "the mean over the heads, repeated",
        lambda w: w[of].mean(1).repeat(1, 1, w[of].shape[1]),
    )


# ------------------------------------------------------------------------------------- feed-forward


def _activations() -> dict[str, Callable[[Tensor], Tensor]]:
    def tanh_gelu(x: Tensor, root: float = math.sqrt(2 / math.pi), cubic: float = 0.044715) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(root * (x + cubic * torch.pow(x, 3.0))))

    return {
        "gelu": F.gelu,
        "gelu_new": tanh_gelu,
        "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
        "relu": F.relu,
        "silu": F.silu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "leaky_relu": F.leaky_relu,
        "elu": F.elu,
        "selu": F.selu,
        "softplus": F.softplus,
        "mish": F.mish,
        "relu6": F.relu6,
        "hardswish": F.hardswish,
        "squared relu": lambda x: F.relu(x).pow(2),
        "hardtanh": F.hardtanh,
        "abs": torch.abs,
        "relu of the negative": lambda x: F.relu(-x),
        "gelu by erf, written out": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        "gelu without the half": lambda x: x * (1.0 + torch.erf(x / math.sqrt(2.0))),
        "gelu without √2": lambda x: x * 0.5 * (1.0 + torch.erf(x)),
        "gelu_new without the cube": lambda x: tanh_gelu(x, cubic=0.0),
        "gelu_new with 0.44715": lambda x: tanh_gelu(x, cubic=0.44715),
        "gelu_new with 0.0447": lambda x: tanh_gelu(x, cubic=0.0447),
        "gelu_new with 0.04": lambda x: tanh_gelu(x, cubic=0.04),
        "gelu_new with 0.04471": lambda x: tanh_gelu(x, cubic=0.04471),
        "gelu_new with √(2π)": lambda x: tanh_gelu(x, root=math.sqrt(2 * math.pi)),
        "gelu_new with 2/π": lambda x: tanh_gelu(x, root=2 / math.pi),
        "gelu_new with √(1/π)": lambda x: tanh_gelu(x, root=math.sqrt(1 / math.pi)),
        "gelu_new with √(2/3)": lambda x: tanh_gelu(x, root=math.sqrt(2 / 3)),
        "gelu_new with √2/π": lambda x: tanh_gelu(x, root=math.sqrt(2) / math.pi),
        "gelu_new with 0.8": lambda x: tanh_gelu(x, root=0.8),
        "gelu_new without √(2/π)": lambda x: tanh_gelu(x, root=1.0),
        "gelu_new without the half": lambda x: 2 * tanh_gelu(x),
        "gelu_new without the 1": lambda x: (
            0.5 * x * torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3)))
        ),
    }


SIGMOIDS = ("quick_gelu",)


def _act(world: World, f: Formula) -> Tries:
    x, name = f.facts["x"], f.facts["name"]
    yield "activation-missing", "the tensor went on as it was", lambda w: w[x]
    for other, bend in _activations().items():
        if other == name:
            continue
        exact = other in ("gelu", "gelu by erf, written out")
        tanh = other in ("gelu_new", "gelu_pytorch_tanh")
        if (name == "gelu" and exact) or (name in ("gelu_new", "gelu_pytorch_tanh") and tanh):
            cause = "rounding"
        elif exact:
            cause = "gelu-exact" if name in ("gelu_new", "gelu_pytorch_tanh") else "activation-other"
        elif tanh:
            cause = "gelu-tanh" if name == "gelu" else "activation-other"
        elif other in SIGMOIDS:
            cause = "gelu-sigmoid"
        elif other.startswith(("gelu_new with", "gelu with")):
            cause = "gelu-constant"
        elif other == "relu":
            cause = "activation-relu"
        else:
            cause = "activation-other"
        yield cause, f"{other} instead of {name}", lambda w, bend=bend: bend(w[x])  # type: ignore[misc]
    yield "activation-other", "applied twice", lambda w: w_twice(w, f)
    for narrow in (torch.bfloat16, torch.float16):
        bend_official = _activations().get(name)
        if bend_official is not None:
            short = str(narrow).removeprefix("torch.")
            yield (
                "wrong-dtype",
                f"computed in {short}",
                lambda w, t=narrow, b=bend_official: b(w[x].to(t)).float(),  # type: ignore[misc]
            )


def w_twice(w: World, f: Formula) -> Value:
    bend = _activations().get(f.facts["name"])
    return None if bend is None else bend(bend(w[f.facts["x"]]))


def _elementwise(world: World, f: Formula) -> Tries:
    if "name" in f.facts:  # the result of GELU's steps
        yield from _act(world, f)
        half, gate = f.inputs
        yield "gelu-constant", "x instead of x / 2", lambda w: w[f.facts["x"]] * w[gate]
        yield "activation-missing", "the half alone", lambda w: w[half]
        yield "activation-other", "the gate alone", lambda w: w[gate]
        yield "gelu-constant", "added instead of multiplied", lambda w: w[half] + w[gate]
        return
    step = f.name.rpartition(".")[2]
    x = f.facts["gelu"]
    of = f.inputs[0]
    if step == "half":
        yield "gelu-constant", "x instead of x / 2", lambda w: w[x]
    elif step == "cube":
        for power in (2.0, 4.0, 1.0, 5.0):
            yield "gelu-constant", f"to the power of {power:g}", lambda w, p=power: w[x].pow(p)  # type: ignore[misc]
        yield "rounding", "x · x · x", lambda w: w[x] * w[x] * w[x]
        yield "rounding", "x · x²", lambda w: w[x] * (w[x] * w[x])
    elif step == "steeper":
        cube = f.inputs[1]
        yield "gelu-constant", "minus instead of plus", lambda w: w[x] - w[cube]
        yield "gelu-constant", "the cube alone", lambda w: w[cube]
        yield "gelu-constant", "x alone", lambda w: w[x]
    elif step == "tanh":
        yield "gelu-sigmoid", "a sigmoid instead of tanh", lambda w: torch.sigmoid(w[of])
        yield "gelu-exact", "erf instead of tanh", lambda w: torch.erf(w[of])
        yield "gelu-constant", "no tanh", lambda w: w[of]
        for other in ("relu", "silu", "hardtanh", "softplus"):
            bend = _activations()[other]
            yield "activation-other", f"{other} instead of tanh", lambda w, b=bend: b(w[of])  # type: ignore[misc]
    elif step == "gate":
        yield "gelu-constant", "1 not added", lambda w: w[of]
        yield "gelu-constant", "1 minus instead of 1 plus", lambda w: 1.0 - w[of]
        yield "gelu-constant", "halved", lambda w: 0.5 * (1.0 + w[of])


# ------------------------------------------------------------------------------ sentence embedding


def _masked(world: World, f: Formula) -> Tries:
    x, real = f.inputs
    yield "pool-padding", "padding not set to 0", lambda w: w[x]
    yield "pool-padding", "tokens set to 0 and padding kept", lambda w: w[x] * (1 - w[real])

    def first(w: World) -> Tensor:
        kept = torch.zeros_like(w[x])
        kept[:, 0] = w[x][:, 0]
        return kept

    yield "pool-cls", "only the first token kept", first
    yield "pool-other", "padding set to the lowest number", lambda w: w[x].masked_fill(w[real] == 0, LOWEST)
    yield "pool-other", "padding set to -1e9", lambda w: w[x].masked_fill(w[real] == 0, -1e9)

    def without(w: World, cls: bool, sep: bool) -> Tensor:
        mask = w["#mask"].clone()
        if sep:
            mask[torch.arange(len(mask)), mask.sum(1) - 1] = 0
        if cls:
            mask[:, 0] = 0
        return w[x] * mask.unsqueeze(-1)

    yield "pool-other", "without the first token", lambda w: without(w, True, False)
    yield "pool-other", "without the last token", lambda w: without(w, False, True)
    yield "pool-other", "without the first and the last token", lambda w: without(w, True, True)


def _total(world: World, f: Formula) -> Tries:
    masked = f.inputs[0]
    tokens = world.formulas[masked].inputs[0]
    real = world.formulas[masked].inputs[1]
    yield "pool-padding", "the sum over all places, padding included", lambda w: w[tokens].sum(1)
    yield "pool-padding", "the mean over all places, padding included", lambda w: w[tokens].mean(1)
    yield "pool-cls", "the first token alone", lambda w: w[tokens][:, 0]
    yield "pool-other", "the largest", lambda w: w[masked].amax(1)
    yield "pool-other", "the largest over all places", lambda w: w[tokens].amax(1)
    yield (
        "pool-other",
        "the largest over the tokens",
        lambda w: w[tokens].masked_fill(w[real] == 0, -math.inf).amax(1),
    )
    yield "pool-other", "the smallest", lambda w: w[masked].amin(1)
    yield "pool-other", "divided by all places", lambda w: w[masked].mean(1)
    yield "pool-other", "the last place", lambda w: w[tokens][:, -1]
    yield "pool-other", "without the first token", lambda w: w[masked][:, 1:].sum(1)
    yield "pool-other", "without the last place", lambda w: w[masked][:, :-1].sum(1)
    yield "pool-other", "without the first and the last place", lambda w: w[masked][:, 1:-1].sum(1)
    yield "pool-other", "the absolute values", lambda w: w[masked].abs().sum(1)

    def last(w: World) -> Tensor:
        mask = w["#mask"]
        return w[tokens][torch.arange(len(mask)), mask.sum(1) - 1]

    yield "pool-other", "the last token", last
    yield "pool-other", "over the width instead of the tokens", lambda w: w[masked].sum(-1)


def _count(world: World, f: Formula) -> Tries:
    real = f.inputs[0]
    yield (
        "pool-other",
        "all places counted, padding included",
        lambda w: torch.full_like(w[real][:, 0], w[real].shape[1]),
    )
    yield "pool-other", "one more", lambda w: w[real].sum(1) + 1
    yield "pool-other", "one less", lambda w: w[real].sum(1) - 1
    yield "pool-other", "two less: without the first and the last", lambda w: w[real].sum(1) - 2
    yield "pool-other", "the root of the count", lambda w: w[real].sum(1).sqrt()
    yield "pool-other", "1: nothing is divided", lambda w: torch.ones_like(w[real][:, 0])
    yield "pool-other", "the square of the count", lambda w: w[real].sum(1).pow(2)
    yield (
        "pool-other",
        "the width instead of the tokens",
        lambda w: torch.full_like(w[real][:, 0], w[real].shape[-1]),
    )
    yield "pool-padding", "the padding counted", lambda w: (1 - w[real]).sum(1).clamp(min=1e-9)
    yield (
        "pool-other",
        "the tokens of the whole batch",
        lambda w: w[real].sum((0, 1)).expand(len(w[real]), -1),
    )
    yield (
        "pool-other",
        "the longest row's count for all",
        lambda w: w[real].sum(1).amax(0).expand(len(w[real]), -1),
    )


def _divide(world: World, f: Formula) -> Tries:
    total, count = f.inputs
    tokens = f.facts["tokens"]
    yield "pool-other", "the sum, not divided", lambda w: w[total]
    yield "pool-cls", "the first token instead of the mean", lambda w: w[tokens][:, 0]
    yield "pool-padding", "the mean over all places, padding included", lambda w: w[tokens].mean(1)
    yield "pool-other", "divided by all places", lambda w: w[total] / w[tokens].shape[1]
    yield "pool-other", "divided by the root of the count", lambda w: w[total] / w[count].sqrt()
    yield "pool-other", "multiplied by the count", lambda w: w[total] * w[count]
    yield "pool-other", "the largest over all places", lambda w: w[tokens].amax(1)
    yield (
        "pool-other",
        "the largest over the tokens",
        lambda w: w[tokens].masked_fill(w["#mask"].unsqueeze(-1) == 0, -math.inf).amax(1),
    )
    yield "pool-other", "the last place", lambda w: w[tokens][:, -1]
    yield "pool-other", "divided by one less", lambda w: w[total] / (w[count] - 1)
    yield "pool-other", "divided by one more", lambda w: w[total] / (w[count] + 1)
    yield "pool-other", "divided by the width", lambda w: w[total] / w[total].shape[-1]
    yield "rounding", "times one over the count", lambda w: w[total] * (1.0 / w[count])


def _unit(world: World, f: Formula) -> Tries:
    of = f.inputs[0]
    yield "not-normalised", "the mean as it is", lambda w: w[of]
    for says, make in (
        ("by the sum of absolute values", lambda x: F.normalize(x, p=1, dim=1)),
        ("by the largest value", lambda x: F.normalize(x, p=math.inf, dim=1)),
        ("over the batch instead of the width", lambda x: F.normalize(x, dim=0)),
        ("by the length of the whole batch", lambda x: x / x.norm()),
        ("by the square of the length", lambda x: x / x.pow(2).sum(1, keepdim=True)),
        ("by the root of the length", lambda x: x / x.norm(dim=1, keepdim=True).sqrt()),
        ("multiplied by the length", lambda x: x * x.norm(dim=1, keepdim=True)),
        ("by the mean square", lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True))),
        ("by the mean square", lambda x: x / x.pow(2).mean(1, keepdim=True).sqrt()),
        ("to mean 0 and variance 1", lambda x: F.layer_norm(x, x.shape[-1:])),
        ("after the mean was subtracted", lambda x: F.normalize(x - x.mean(1, keepdim=True), dim=1)),
        ("by the spread", lambda x: x / x.std(1, keepdim=True)),
        ("by a softmax", lambda x: F.softmax(x, 1)),
        ("by tanh", lambda x: torch.tanh(x)),
    ):
        yield "normalised-wrong", says, lambda w, make=make: make(w[of])  # type: ignore[misc]
    yield "rounding", "F.normalize", lambda w: F.normalize(w[of], p=2, dim=1)
    yield "rounding", "times one over the length", lambda w: w[of] * w[of].pow(2).sum(1, keepdim=True).rsqrt()
    yield "rounding", "the length by hand", lambda w: w[of] / w[of].pow(2).sum(1, keepdim=True).sqrt()


_OF_KIND: dict[str, Callable[[World, Formula], Tries]] = {
    "lookup": _lookup,
    "add": _add,
    "layer norm": _layer_norm,
    "square": _square,
    "mean square": _mean_square,
    "plus eps": _plus_eps,
    "inverse root": _inverse_root,
    "multiply": _multiply,
    "stretch": _stretch,
    "linear": _linear,
    "conv1d": _linear,
    "first token": _first_token,
    "split": _split,
    "cat": _cat,
    "same": _same,
    "product": _product,
    "scale": _scale,
    "add bias": _add_bias,
    "mask": _mask,
    "add mask": _add_mask,
    "biased mask": _biased_mask,
    "softmax": _softmax,
    "mix": _mix,
    "merge": _merge,
    "act": _act,
    "elementwise": _elementwise,
    "masked": _masked,
    "total": _total,
    "count": _count,
    "divide": _divide,
    "unit": _unit,
}
