"""What may be done to a tensor: one list, for `find` (what was done to which official tensor?) and for the
diagnosis (what was done here?)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[..., Tensor]  # of one tensor

# By config.json's name where it has one.
ACTIVATIONS: dict[str, Function] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
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
}

EPSILONS = (1e-6, 1e-5, 1e-12)  # that models have in their norms


def layer_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Each row brought to mean 0 and variance 1. x [..., width]"""
    return F.layer_norm(x, x.shape[-1:], eps=eps)


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Each row brought to mean square 1. x [..., width]"""
    return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + eps)


def to_length_one(x: Tensor) -> Tensor:
    """Each row divided by its length. x [..., width]"""
    return F.normalize(x, dim=-1)


# Of a row, what follows from its numbers alone.
OF_ROWS: dict[str, Function] = {
    "brought to length 1": to_length_one,
    "its softmax": lambda x: F.softmax(x, -1),
    "its mean subtracted": lambda x: x - x.mean(-1, keepdim=True),
    "its absolute value": torch.abs,
    "squared": torch.square,
}

NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Kept in a narrower type in between."""
    return x.to(dtype).float()


def factors(width: int) -> dict[str, float]:
    """What a tensor of this width is multiplied by, rightly elsewhere or wrongly here."""
    return {
        "doubled": 2.0,
        "halved": 0.5,
        f"times √{width}": width**0.5,
        f"divided by √{width}": width**-0.5,
        f"divided by {width}": 1 / width,
        "divided by √2": 2**-0.5,
        "times √2": 2**0.5,
        "divided by 3": 1 / 3,
        "times 0.1": 0.1,
        "times 0.9": 0.9,
        "times 10": 10.0,
    }


def spelled(factor: float) -> str:
    """A factor as people write it: 0.125 is 1/8, 5.65685 is √32."""
    sign, size = "-" if factor < 0 else "", abs(factor)
    for before, value in (("", size), ("1/", 1.0 / size)):
        if abs(value - round(value)) < 1e-5 * value and round(value) <= 4096:
            return f"{sign}{before}{round(value)}"
    for before, value in (("√", size * size), ("1/√", 1.0 / (size * size))):
        if abs(value - round(value)) < 2e-5 * value and round(value) <= 65536:
            return f"{sign}{before}{round(value)}"
    return f"{factor:.6g}"


AXES = {
    1: ("place",),
    2: ("row", "width"),
    3: ("row", "token", "width"),
    4: ("row", "head", "token", "head width"),
}


def axes_of(x: Tensor) -> tuple[str, ...]:
    """What a tensor's axes usually are."""
    return AXES.get(x.dim(), tuple(f"axis {i}" for i in range(x.dim())))


def layouts(x: Tensor) -> Iterator[tuple[str, Function]]:
    """The same numbers at other places, in the same shape."""
    for axis, name in enumerate(axes_of(x)):
        if x.shape[axis] > 1:
            yield f"in reverse along the {name}", lambda t, a=axis: t.flip(a)
            yield f"moved by one along the {name}", lambda t, a=axis: t.roll(1, a)
            yield f"moved back by one along the {name}", lambda t, a=axis: t.roll(-1, a)


def omissions(x: Tensor) -> Iterator[tuple[str, Function]]:
    """One place along an axis for all, or none of it."""
    for axis, name in enumerate(axes_of(x)):
        for at, which in ((0, "first"), (-1, "last")):
            if x.shape[axis] > 1:
                yield f"the {which} {name} for all", lambda t, a=axis, at=at: t.narrow(a, at, 1).expand_as(t)
                yield f"the {which} {name} set to 0", lambda t, a=axis, at=at: zeroed(t, a, at)


def zeroed(x: Tensor, axis: int, at: int) -> Tensor:
    """x with one place along an axis set to 0."""
    x = x.clone()
    x.select(axis, at).zero_()
    return x


def shared_heads(x: Tensor) -> Iterator[tuple[str, Function]]:
    """Heads that are shared, as in models with fewer keys and values than queries. x [batch, head, …]"""
    heads = x.shape[1]
    for count in (n for n in range(1, heads) if heads % n == 0):
        says, each = f"{count} of {heads} heads for all", heads // count
        yield says, lambda t, c=count, n=each: t[:, :c].repeat(1, n, 1, 1)
        yield f"{says}, each for its neighbours", lambda t, c=count, n=each: t[:, :c].repeat_interleave(n, 1)
        yield f"{says}, every {each}th", lambda t, n=each: t[:, ::n].repeat_interleave(n, 1)
    yield "the mean of the heads for all", lambda t: t.mean(1, keepdim=True).expand_as(t)
