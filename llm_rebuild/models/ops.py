"""Operations that are the same wherever they occur: everything below the lesson.

What differs from model to model (how scores are scaled and masked, where the norm stands, which
activation, how weights lie in the file) is spelled out in each model's own file.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.weights import Weights


def linear(x: Tensor, weights: Weights) -> Tensor:
    """x [..., in] -> [..., out]. The weight lies in the file as [out, in], as torch stores it."""
    return F.linear(x, weights["weight"], weights["bias"])


def layer_norm(x: Tensor, weights: Weights, eps: float) -> Tensor:
    """Each token's numbers, shifted to mean 0 and scaled to variance 1, then stretched and moved.

    x [..., width] -> [..., width]. One fused operation, not the formula: written out by hand it
    rounds differently in 40% of the elements.
    """
    return F.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], eps)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, token, width] -> [batch, head, token, head width]."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[batch, head, token, head width] -> [batch, token, width]."""
    return x.transpose(1, 2).flatten(start_dim=2)
