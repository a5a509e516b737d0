"""Operations that are the same wherever they occur: everything below the lesson.

What differs from model to model (how scores are scaled and masked, where the norm stands, which
activation, how weights lie in the file) is spelled out in each model's own file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import Checkpoint, Tap
from llm_rebuild.models.part import Part


def linear(x: Tensor, part: Part[Any]) -> Tensor:
    """x [..., in] -> [..., out]. The weight lies in the file as [out, in], as torch stores it."""
    return F.linear(x, part.weights["weight"], part.weights["bias"])


def layer_norm(x: Tensor, part: Part[Any], eps: float) -> Tensor:
    """Each token's numbers, shifted to mean 0 and scaled to variance 1, then stretched and moved.

    x [..., width] -> [..., width]. One fused operation, not the formula: written out by hand it
    rounds differently in 40% of the elements.
    """
    return F.layer_norm(x, x.shape[-1:], part.weights["weight"], part.weights["bias"], eps)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, token, width] -> [batch, head, token, head width]."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[batch, head, token, head width] -> [batch, token, width], whole in memory.

    With heads of width 1 the transposed tensor might pass for a flat one as it is, and the product with the
    next weight would sum in another order.
    """
    return x.transpose(1, 2).contiguous().flatten(start_dim=2)


def rms_norm_checkpoints(path: str, shape: str, only: frozenset[str] = frozenset()) -> tuple[Checkpoint, ...]:
    """The steps of a norm that scales and never shifts, at `path`. The models' files have them."""
    number = f"{shape.rpartition(',')[0]}, 1]"
    return (
        Checkpoint(f"{path}.square", shape, "each number squared", "pow[0]", only),
        Checkpoint(f"{path}.mean_square", number, "over the width", "mean[0]", only),
        Checkpoint(f"{path}.above_zero", number, "plus epsilon", "add[0]", only),
        Checkpoint(f"{path}.inverse_root", number, "1 / √ of it", "rsqrt[0]", only),
        Checkpoint(f"{path}.normed", shape, "of mean square 1", "mul[0]", only),
        Checkpoint(path, shape, "stretched, each of the width by its own", only=only),
    )


# ---------------------------------------------------------------------- activations, by config.json's name


def gelu_new(x: Tensor, tap: Tap) -> Tensor:
    """x · Φ(x), with Φ approximated by tanh: GPT-2's formula, step by step as it was first written down.

    x [...] -> [...]. torch has it in one kernel (`gelu_pytorch_tanh`), which rounds differently.
    """
    half = 0.5 * x
    tap("half", half)
    cube = torch.pow(x, 3.0)
    tap("cube", cube)
    small_cube = 0.044715 * cube
    tap("small_cube", small_cube)
    steeper = x + small_cube
    tap("steeper", steeper)
    scaled = math.sqrt(2.0 / math.pi) * steeper
    tap("scaled", scaled)
    tanh = torch.tanh(scaled)
    tap("tanh", tanh)
    gate = 1.0 + tanh  # 0 where x is far below zero, 2 where it is far above
    tap("gate", gate)
    return half * gate


def gelu_new_checkpoints(path: str, shape: str) -> tuple[Checkpoint, ...]:
    """The steps inside `gelu_new`, for a model whose activation lives at `path`."""
    steps = (
        ("half", "0.5 x", "mul[0]"),
        ("cube", "x³", "pow[0]"),
        ("small_cube", "0.044715 x³", "mul[1]"),
        ("steeper", "x + 0.044715 x³", "add[0]"),
        ("scaled", "times √(2/π)", "mul[2]"),
        ("tanh", "between -1 and 1", "tanh[0]"),
        ("gate", "between 0 and 2", "add[1]"),
    )
    only = frozenset({"gelu_new"})
    return tuple(Checkpoint(f"{path}.{name}", shape, meaning, op, only) for name, meaning, op in steps)


ACTIVATIONS: dict[str, Callable[[Tensor, Tap], Tensor]] = {
    "gelu": lambda x, tap: F.gelu(x),  # exact, by the error function
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": lambda x, tap: F.gelu(x, approximate="tanh"),
    "relu": lambda x, tap: F.relu(x),
    "silu": lambda x, tap: F.silu(x),
    "swish": lambda x, tap: F.silu(x),  # silu's other name
    "tanh": lambda x, tap: torch.tanh(x),
}
