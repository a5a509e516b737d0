"""Things that are done to a tensor on the way: before a step is given it, or after it was computed.

Where neither a known mistake nor another tensor explains a difference, each of these is tried on what goes
into the step and on what comes out of it, and some on its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, World

Transform = tuple[str, str, Callable[[Tensor], Tensor]]  # an action, in words, and what is done

# Actions, by what they have in common: another cause at each kind of step.
FACTOR, MOVED, NARROW, NORM, BENT, OTHER = "factor", "moved", "narrow", "norm", "bent", "other"


def transforms(world: World, x: Tensor) -> Iterator[Transform]:
    """All that is tried on a tensor `x` that goes into a step or comes out of it."""
    yield from _narrow()
    yield from _norms(world, x)
    if x.dim() == 4:
        yield from _by_head(x)
    yield from _moved(x)
    yield OTHER, "brought to length 1", lambda t: F.normalize(t, dim=-1)
    yield OTHER, "its softmax", lambda t: F.softmax(t, -1)
    yield OTHER, "its mean subtracted", lambda t: t - t.mean(-1, keepdim=True)
    for name, bend in (
        ("ReLU", F.relu),
        ("tanh", torch.tanh),
        ("GELU", F.gelu),
        ("GELU by tanh", lambda t: F.gelu(t, approximate="tanh")),
        ("SiLU", F.silu),
        ("a sigmoid", torch.sigmoid),
    ):
        yield BENT, f"{name} of it", bend
    for bound in (1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 20.0, 30.0, 50.0, 100.0, 1e4):
        yield OTHER, f"cut off at ±{bound:g}", lambda t, b=bound: t.clamp(-b, b)  # type: ignore[misc]
        yield OTHER, f"cut off at {bound:g}", lambda t, b=bound: t.clamp(max=b)  # type: ignore[misc]
        yield OTHER, f"cut off at -{bound:g}", lambda t, b=bound: t.clamp(min=-b)  # type: ignore[misc]
    yield OTHER, "its absolute value", torch.abs
    yield OTHER, "squared", lambda t: t * t
    yield FACTOR, "negated", torch.neg
    mask = world.known.get("#mask")
    if mask is not None and x.dim() == 3 and x.shape[:2] == mask.shape:
        real = mask.unsqueeze(-1)
        yield OTHER, "padding set to 0", lambda t: t * real
    for says, by in _factors(x):
        yield FACTOR, says, lambda t, by=by: t * by  # type: ignore[misc]


def called(world: World, formula: Formula, right: str | None, action: str) -> str:
    """What the catalogue calls an action on one input of a step (`right`), or on its result (None)."""
    if action == NARROW:
        return "wrong-dtype"
    if action == NORM:
        return "norm-twice"
    if action == BENT:
        return "activation-other"
    if right is None:
        return _of_result(formula, action)
    before = world.formulas.get(right)
    residual = formula.facts.get("residual")
    if residual is not None and action == FACTOR:
        return "residual-scaled"
    if residual is not None:
        return "residual-wrong" if right == residual else "wrong-operand"
    if before is not None and before.kind == "lookup" and action == FACTOR:
        return "embedding-scaled"
    if formula.kind == "split" and "part" in formula.facts and action == MOVED:
        return "qkv-order"
    if formula.facts.get("cross") == right:
        return "cross-attention-source"
    kept = before is not None and before.kind == "same" and before.inputs[0].startswith("#past.")
    if kept or right.startswith("#past."):
        return "cache-order"
    if before is not None and before.kind in ("bias by head", "biased mask"):
        return "position-bias-wrong"
    if before is not None and before.kind == "mask":
        return "mask-fill" if action == FACTOR else "mask-direction"
    if formula.kind == "product" and action == FACTOR:
        return "scale-extra" if formula.facts.get("unscaled") else "scale-order"
    if formula.facts.get("head") and action == FACTOR:
        return "output-scale-wrong"
    named = {
        "product": "wrong-operand",
        "mix": "wrong-operand",
        "merge": "heads-merged",
        "unit": "normalised-wrong",
        "softmax": "softmax-changed",
    }
    if formula.kind in ("masked", "total", "count", "divide"):
        return "pool-other"
    return named.get(formula.kind, "scaled" if action == FACTOR else "wrong-input")


def _of_result(formula: Formula, action: str) -> str:
    kind = formula.kind
    if action == FACTOR and kind == "add" and "residual" not in formula.facts:
        return "embedding-scaled"
    if formula.facts.get("output"):
        return "output-scale-wrong"
    if formula.facts.get("head") and action == FACTOR:
        return "output-scale-wrong"
    factors = {
        "product": "scale-extra" if formula.facts.get("unscaled") else "scale-order",
        "scale": "scale-wrong",
        "add bias": "scale-extra",
        "add mask": "scale-order",
        "add": "residual-scaled",
        "layer norm": "norm-affine-wrong",
        "stretch": "norm-affine-wrong",
        "lookup": "embedding-scaled",
    }
    if action == FACTOR and kind in factors:
        return factors[kind]
    if kind == "lookup":
        return LOOKUPS[formula.facts["what"]]
    return OTHERWISE.get(kind, "scaled" if action == FACTOR else "unknown")


# What can be said of a lookup, or of a step, that nothing more exact explains.
LOOKUPS = {
    "token": "token-ids-wrong",
    "position": "positions-wrong",
    "type": "token-types-wrong",
    "bucket": "buckets-count",
}
OTHERWISE = {
    "softmax": "softmax-changed",
    "unit": "normalised-wrong",
    "masked": "pool-other",
    "total": "pool-other",
    "count": "pool-other",
    "divide": "pool-other",
    "act": "activation-other",
    "elementwise": "gelu-constant",
    "scale": "scale-wrong",
    "first token": "pooler-token",
    "cat": "cache-mixed",
    "mean square": "norm-variance",
    "square": "norm-variance",
    "inverse root": "norm-variance",
    "add bias": "position-bias-wrong",
    "add mask": "mask-fill",
    "merge": "heads-merged",
    "product": "wrong-operand",
    "mix": "wrong-operand",
    "layer norm": "norm-affine-wrong",
    "stretch": "norm-affine-wrong",
}


def of_weights(world: World, formula: Formula, weight: Tensor) -> Iterator[Transform]:
    """All that is tried on a weight of a step: the cause, in words, and what is done."""
    norm = formula.kind in ("layer norm", "stretch")
    other = "norm-affine-wrong" if norm else "untied-head" if formula.facts.get("head") else "wrong-weight"
    if weight.dim() == 2:
        turned = weight.T.shape
        yield (
            "weight-transposed",
            "brought into the other shape and transposed",
            lambda t: t.reshape(turned).T,
        )
        if formula.kind == "lookup" and turned[0] == turned[1]:
            yield "weight-transposed", "transposed", lambda t: t.T
    for _, says, do in _narrow():
        yield "wrong-dtype", says, do
    yield other, "in reverse", lambda t: t.flip(-1)
    yield other, "in reverse along its first axis", lambda t: t.flip(0)
    yield other, "moved by one", lambda t: t.roll(1, 0)
    yield other, "brought to length 1", lambda t: F.normalize(t, dim=-1)
    yield other, "its mean", lambda t: t.mean().expand_as(t)
    yield other, "its mean subtracted", lambda t: t - t.mean(-1, keepdim=True)
    yield other, "its absolute value", torch.abs
    yield other, "its square", lambda t: t * t
    yield other, "its root", torch.sqrt
    yield other, "one over it", lambda t: 1 / t
    yield other, "its exponential", torch.exp
    yield other, "negated", torch.neg
    yield other, "one minus it", lambda t: 1 - t
    yield other, "1 added", lambda t: 1 + t
    yield other, "set to 0", torch.zeros_like
    yield other, "set to 1", torch.ones_like
    if weight.dim() == 2:
        for says, part in (("the last", slice(-1, None)), ("the first", slice(0, 1))):
            yield other, f"{says} row set to 0", lambda t, p=part: _blank(t, p)  # type: ignore[misc]
    scaled = "output-scale-wrong" if formula.facts.get("head") else other
    if formula.kind == "lookup":
        scaled = "embedding-scaled"
    for says, by in _factors(weight):
        yield scaled, says, lambda t, by=by: t * by  # type: ignore[misc]


def _blank(x: Tensor, rows: slice) -> Tensor:
    x = x.clone()
    x[rows] = 0
    return x


def _factors(x: Tensor) -> Iterator[tuple[str, float]]:
    yield "doubled", 2.0
    yield "halved", 0.5
    width = x.shape[-1]
    yield f"times √{width}", width**0.5
    yield f"divided by √{width}", width**-0.5
    yield f"divided by {width}", 1 / width
    yield "divided by √2", 2**-0.5
    yield "times √2", 2**0.5
    yield "divided by 3", 1 / 3
    yield "times 0.1", 0.1
    yield "times 0.9", 0.9
    yield "times 10", 10.0


def _narrow() -> Iterator[Transform]:
    for narrow in (torch.bfloat16, torch.float16):
        short = str(narrow).removeprefix("torch.")
        yield NARROW, f"kept in {short}", lambda t, n=narrow: t.to(n).float()  # type: ignore[misc]


def _norms(world: World, x: Tensor) -> Iterator[Transform]:
    """Any norm of the file, and norms without weights."""
    for norm in world.formulas.values():
        weights = [world.weights[key] for key in norm.weights]
        if norm.kind == "layer norm" and weights[0].shape[0] == x.shape[-1]:
            eps = norm.facts["eps"]
            yield (
                NORM,
                f"normalised once more, by {norm.name}",
                lambda t, w=weights, e=eps: F.layer_norm(t, t.shape[-1:], w[0], w[1], e),  # type: ignore[misc]
            )
        elif norm.kind == "stretch" and weights[0].shape[0] == x.shape[-1]:
            eps = norm.facts["eps"]
            yield (
                NORM,
                f"normalised once more, by {norm.name}",
                lambda t, w=weights, e=eps: w[0] * (t * torch.rsqrt(t.pow(2).mean(-1, keepdim=True) + e)),  # type: ignore[misc]
            )
    for eps in (1e-5, 1e-6, 1e-12):
        yield (
            NORM,
            f"a LayerNorm without weights (epsilon {eps:g})",
            lambda t, e=eps: F.layer_norm(t, t.shape[-1:], eps=e),  # type: ignore[misc]
        )
        yield (
            NORM,
            f"an RMS norm without weights (epsilon {eps:g})",
            lambda t, e=eps: t * torch.rsqrt(t.pow(2).mean(-1, keepdim=True) + e),  # type: ignore[misc]
        )


def _by_head(x: Tensor) -> Iterator[Transform]:
    """Heads that are shared, as in models with fewer keys and values than queries."""
    heads = x.shape[1]
    for count in range(1, heads):
        if heads % count:
            continue
        says = f"{count} of {heads} heads for all"
        yield MOVED, says, lambda t, c=count: t[:, :c].repeat(1, heads // c, 1, 1)  # type: ignore[misc]
        yield (
            MOVED,
            says + ", each for its neighbours",
            lambda t, c=count: t[:, :c].repeat_interleave(heads // c, 1),  # type: ignore[misc]
        )
        yield (
            MOVED,
            f"{says}, every {heads // count}th",
            lambda t, c=count: t[:, :: heads // c].repeat_interleave(heads // c, 1),  # type: ignore[misc]
        )
    yield MOVED, "the mean of the heads for all", lambda t: t.mean(1, keepdim=True).expand_as(t)
    if x.shape[-1] % 2 == 0:
        yield OTHER, "rotated by its position", lambda t: _rotated(t, halves=True)
        yield OTHER, "rotated by its position, neighbours in pairs", lambda t: _rotated(t, halves=False)


def _rotated(x: Tensor, halves: bool) -> Tensor:
    """Rotary positions. x [batch, head, token, head width] -> the same."""
    token, width = x.shape[-2:]
    angle = torch.arange(token)[:, None] * 10000.0 ** (-torch.arange(0, width, 2).float() / width)
    cos, sin = angle.cos(), angle.sin()
    if halves:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


def _moved(x: Tensor) -> Iterator[Transform]:
    """The same numbers at other places."""
    names = {3: ("row", "token", "width"), 4: ("row", "head", "token", "head width"), 2: ("row", "width")}
    for axis, name in enumerate(names.get(x.dim(), ())):
        if x.shape[axis] < 2:
            continue
        yield MOVED, f"in reverse along the {name}", lambda t, a=axis: t.flip(a)  # type: ignore[misc]
        yield MOVED, f"moved by one along the {name}", lambda t, a=axis: t.roll(1, a)  # type: ignore[misc]
        yield MOVED, f"moved back by one along the {name}", lambda t, a=axis: t.roll(-1, a)  # type: ignore[misc]
        for at, which in ((0, "first"), (-1, "last")):
            yield (
                MOVED,
                f"the {which} {name} for all",
                lambda t, a=axis, at=at: t.select(a, at).unsqueeze(a).expand_as(t),  # type: ignore[misc]
            )
            yield (
                MOVED,
                f"the {which} {name} set to 0",
                lambda t, a=axis, at=at: _zeroed(t, a, at),  # type: ignore[misc]
            )


def _zeroed(x: Tensor, axis: int, at: int) -> Tensor:
    x = x.clone()
    x.select(axis, at).zero_()
    return x


def along_distance(apart: Tensor) -> bool:
    """Whether numbers [..., query, key] depend only on how far the key is from the query: an added bias."""
    query, key = apart.shape[-2:]
    if query < 3 or key < 3:
        return False
    scale = float(apart.abs().max())
    if scale == 0:
        return False
    off = (apart[..., 1:, 1:] - apart[..., :-1, :-1]).abs()
    varied = float((apart[..., :, 1:] - apart[..., :, :-1]).abs().max()) > 1e-3 * scale
    return varied and float(off.max()) <= 1e-3 * scale


def added_weight(apart: Tensor, weights: Mapping[str, Tensor]) -> tuple[str, float] | None:
    """A vector of the weight file that was added to every token, and how many times."""
    if apart.dim() < 2:
        return None
    vector = apart.flatten(0, -2).mean(0)
    scale = float(vector.abs().max())
    if scale == 0 or float((apart - vector).abs().max()) > 1e-3 * scale:
        return None
    for key, weight in weights.items():
        if weight.dim() != 1 or weight.shape != vector.shape:
            continue
        square = float((weight.double() ** 2).sum())
        factor = float((vector.double() * weight.double()).sum()) / square if square else 0.0
        if abs(factor) > 0.01 and float((vector - factor * weight).abs().max()) <= 1e-3 * scale:
            return key, factor
    return None
