"""Mistakes on the way from token vectors to one vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.wrong.base import Tables


def _last(tokens: Tensor, real: Tensor) -> Tensor:
    """Each row's last token."""
    return tokens[torch.arange(len(tokens)), real[..., 0].sum(1).long() - 1]


def _largest(tokens: Tensor, real: Tensor) -> Tensor:
    return tokens.masked_fill(real == 0, -math.inf).amax(1)


# fmt: off
TABLES: Tables = {
    "masked": (  # tokens [batch, token, width], real [batch, token, width] of 1 and 0
        ("pool-padding", "tokens set to 0 and padding kept", lambda tokens, real: tokens * (1 - real)),
        ("pool-cls", "only the first token kept", lambda tokens: F.pad(tokens[:, :1], (0, 0, 0, tokens.shape[1] - 1))),
    ),
    "total": (
        ("pool-padding", "the sum over all places, padding included", lambda tokens: tokens.sum(1)),
        ("pool-padding", "the mean over all places, padding included", lambda tokens: tokens.mean(1)),
        ("pool-cls", "the first token alone", lambda tokens: tokens[:, 0]),
        ("pool-other", "the last token", _last),
    ),
    "count": (  # x: real
        ("pool-other", "1: nothing is divided", lambda x: torch.ones_like(x[:, 0])),
        ("pool-other", "the tokens of the whole batch", lambda x: x.sum((0, 1)).expand(len(x), -1)),
        ("pool-padding", "the padding counted", lambda x: (1 - x).sum(1).clamp(min=1e-9)),
    ),
    "divide": (
        ("pool-other", "the largest over the tokens", _largest),
        ("pool-other", "the last token", _last),
        ("pool-cls", "the first token instead of the mean", lambda tokens: tokens[:, 0]),
        ("pool-padding", "the mean over all places, padding included", lambda tokens: tokens.mean(1)),
    ),
    "unit": (  # x [batch, width]
        *(("normalised-wrong", f"by its norm of order {p:g}", lambda x, p=p: F.normalize(x, p=p, dim=1)) for p in (1, math.inf)),
        ("normalised-wrong", "over the batch instead of the width", lambda x: F.normalize(x, dim=0)),
    ),
}
# fmt: on
