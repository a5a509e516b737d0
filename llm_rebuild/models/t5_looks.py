"""Who may look at whom in T5, and from how far: the position bias and the mask, both added to the scores.

T5 gives its tokens no positions. Instead every score gets a learned number for the distance between the
token that looks (query) and the token that is looked at (key), by head. Axes and sources as in `t5.py`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import Tap
from llm_rebuild.models.t5_config import Config
from llm_rebuild.weights import Weights


class Looks(NamedTuple):
    """Who may look at whom, and how far away it is: both are added to the scores."""

    bias: Tensor  # [1, head, query, key]
    mask: (
        Tensor | None
    )  # [batch, 1, query, key]; for the fused kernel [batch, head, query, key], bias and all


def position_bias(
    query: int, key: int, both_ways: bool, weights: Weights, config: Config, tap: Tap
) -> Tensor:
    """A learned number a head for each distance -> [1, head, query, key]. The queries are the last keys."""
    where = torch.arange(key)
    distance = where - where[key - query :, None]  # [query, key]: below 0 for what came before
    bucket = bucket_of(distance, both_ways, config)  # [query, key]
    table = F.embedding(bucket, weights["relative_attention_bias.weight"])  # [query, key, head]
    tap("relative_attention_bias", table)
    return table.permute(2, 0, 1).unsqueeze(0)


def bucket_of(distance: Tensor, both_ways: bool, config: Config) -> Tensor:
    """Distances [query, key] as numbers of buckets: near ones have their own, far ones share, the more the
    farther. The encoder keeps one half of the buckets for what comes after."""
    buckets, farthest = config.relative_attention_num_buckets, config.relative_attention_max_distance
    first = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first, distance = (distance > 0).long() * buckets, distance.abs()
    else:
        distance = -torch.clamp(distance, max=0)  # of what comes after nobody asks: it is masked
    exact = buckets // 2
    far = torch.log(distance.float() / exact) / math.log(farthest / exact) * (buckets - exact)
    far = torch.clamp(exact + far.long(), max=buckets - 1)
    return first + torch.where(distance < exact, distance, far)


def may_look_back(mask: Tensor | None, batch: int, query: int, key: int, attention: str) -> Tensor | None:
    """No token of the answer may look at a later one, nor at padding. -> [batch or 1, 1, query, key]"""
    padded = mask is not None and not bool(mask.all())
    if attention == "sdpa" and query == 1 and not padded:
        return None  # the last token may look at all there is
    order = torch.arange(key)
    not_later = (order <= order[key - query :, None])[None, None]  # [1, 1, query, key]
    if mask is not None and padded:
        not_later = not_later & mask.bool()[:, None, None, :]
    alike = attention == "sdpa" and query == key and not padded  # one mask for all rows
    return not_later if alike else not_later.expand(batch, 1, query, key)


def make_looks(may_look: Tensor | None, bias: Tensor, attention: str, tap: Tap, kind: str) -> Looks:
    """The mask in numbers: 0 where one may look and the lowest float where not, after which the softmax has
    nothing left. The fused kernel takes one tensor only, so there the bias stands instead of the 0."""
    lowest = torch.finfo(bias.dtype).min
    if attention == "sdpa":
        if may_look is None:
            return Looks(bias, bias.contiguous())
        biased = torch.where(may_look, bias, lowest).contiguous()  # [batch or 1, head, query, key]
        tap(f"{kind}biased_mask", biased)
        return Looks(bias, biased)
    if may_look is None:
        return Looks(bias, None)
    added = torch.where(may_look, torch.zeros((), dtype=bias.dtype), lowest)  # [batch, 1, query, key]
    tap(f"{kind}mask", added)
    return Looks(bias, added)
