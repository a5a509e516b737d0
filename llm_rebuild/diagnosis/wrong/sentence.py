"""Mistakes on the way from token vectors to one vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.graph import LOWEST, World
from llm_rebuild.diagnosis.wrong.base import Also, Tables
from llm_rebuild.models.formulas import Formula


def _tokens(world: World, f: Formula) -> Formula:
    """The step that sets padding to 0: its inputs are the tokens' vectors, and 1 where they are real."""
    return world.source(f.name, "masked")


ALSO: Also = {
    "tokens": lambda world, f: world[_tokens(world, f).inputs[0]],
    "real": lambda world, f: world[_tokens(world, f).inputs[1]],
}


def _last(x: Tensor, real: Tensor) -> Tensor:
    """The place of each row's last token."""
    return real[..., 0].sum(1).long() - 1


def _without(x: Tensor, real: Tensor, first: bool, last: bool) -> Tensor:
    real = real.clone()
    if last:
        real[torch.arange(len(x)), _last(x, real)] = 0
    if first:
        real[:, 0] = 0
    return x * real


# fmt: off
TABLES: Tables = {
    "masked": (ALSO, (  # tokens [batch, token, width], real [batch, token, width] of 1 and 0
        ("pool-padding", "padding not set to 0", lambda tokens: tokens),
        ("pool-padding", "tokens set to 0 and padding kept", lambda tokens, real: tokens * (1 - real)),
        ("pool-cls", "only the first token kept", lambda tokens: F.pad(tokens[:, :1], (0, 0, 0, tokens.shape[1] - 1))),
        ("pool-other", "padding set to the lowest number", lambda tokens, real: tokens.masked_fill(real == 0, LOWEST)),
        ("pool-other", "padding set to -1e9", lambda tokens, real: tokens.masked_fill(real == 0, -1e9)),
        ("pool-other", "without the first token", lambda tokens, real: _without(tokens, real, True, False)),
        ("pool-other", "without the last token", lambda tokens, real: _without(tokens, real, False, True)),
        ("pool-other", "without the first and the last token", lambda tokens, real: _without(tokens, real, True, True)),
    )),
    "total": (ALSO, (
        ("pool-padding", "the sum over all places, padding included", lambda tokens: tokens.sum(1)),
        ("pool-padding", "the mean over all places, padding included", lambda tokens: tokens.mean(1)),
        ("pool-cls", "the first token alone", lambda tokens: tokens[:, 0]),
        ("pool-other", "the largest", lambda masked: masked.amax(1)),
        ("pool-other", "the largest over all places", lambda tokens: tokens.amax(1)),
        ("pool-other", "the largest over the tokens", lambda tokens, real: tokens.masked_fill(real == 0, -math.inf).amax(1)),
        ("pool-other", "the smallest", lambda masked: masked.amin(1)),
        ("pool-other", "divided by all places", lambda masked: masked.mean(1)),
        ("pool-other", "the last place", lambda tokens: tokens[:, -1]),
        ("pool-other", "without the first token", lambda masked: masked[:, 1:].sum(1)),
        ("pool-other", "without the last place", lambda masked: masked[:, :-1].sum(1)),
        ("pool-other", "without the first and the last place", lambda masked: masked[:, 1:-1].sum(1)),
        ("pool-other", "the absolute values", lambda masked: masked.abs().sum(1)),
        ("pool-other", "the last token", lambda tokens, real: tokens[torch.arange(len(tokens)), _last(tokens, real)]),
        ("pool-other", "over the width instead of the tokens", lambda masked: masked.sum(-1)),
    )),
    "count": ({}, (
        ("pool-other", "all places counted, padding included", lambda x: torch.full_like(x[:, 0], x.shape[1])),
        ("pool-other", "one more", lambda x: x.sum(1) + 1),
        ("pool-other", "one less", lambda x: x.sum(1) - 1),
        ("pool-other", "two less: without the first and the last", lambda x: x.sum(1) - 2),
        ("pool-other", "the root of the count", lambda x: x.sum(1).sqrt()),
        ("pool-other", "1: nothing is divided", lambda x: torch.ones_like(x[:, 0])),
        ("pool-other", "the square of the count", lambda x: x.sum(1).pow(2)),
        ("pool-other", "the width instead of the tokens", lambda x: torch.full_like(x[:, 0], x.shape[-1])),
        ("pool-other", "the tokens of the whole batch", lambda x: x.sum((0, 1)).expand(len(x), -1)),
        ("pool-other", "the longest row's count for all", lambda x: x.sum(1).amax(0).expand(len(x), -1)),
        ("pool-padding", "the padding counted", lambda x: (1 - x).sum(1).clamp(min=1e-9)),
    )),
    "divide": (ALSO, (
        ("pool-other", "the sum, not divided", lambda total: total),
        ("pool-other", "divided by all places", lambda total, tokens: total / tokens.shape[1]),
        ("pool-other", "divided by the root of the count", lambda total, count: total / count.sqrt()),
        ("pool-other", "multiplied by the count", lambda total, count: total * count),
        ("pool-other", "the largest over all places", lambda tokens: tokens.amax(1)),
        ("pool-other", "the largest over the tokens", lambda tokens, real: tokens.masked_fill(real == 0, -math.inf).amax(1)),
        ("pool-other", "the last place", lambda tokens: tokens[:, -1]),
        ("pool-other", "divided by one less", lambda total, count: total / (count - 1)),
        ("pool-other", "divided by one more", lambda total, count: total / (count + 1)),
        ("pool-other", "divided by the width", lambda total: total / total.shape[-1]),
        ("pool-cls", "the first token instead of the mean", lambda tokens: tokens[:, 0]),
        ("pool-padding", "the mean over all places, padding included", lambda tokens: tokens.mean(1)),
        ("rounding", "times one over the count", lambda total, count: total * (1.0 / count)),
    )),
    "unit": ({}, (  # x [batch, width]
        ("not-normalised", "the mean as it is", lambda x: x),
        ("normalised-wrong", "by the sum of absolute values", lambda x: F.normalize(x, p=1, dim=1)),
        ("normalised-wrong", "by the largest value", lambda x: F.normalize(x, p=math.inf, dim=1)),
        ("normalised-wrong", "over the batch instead of the width", lambda x: F.normalize(x, dim=0)),
        ("normalised-wrong", "by the length of the whole batch", lambda x: x / x.norm()),
        ("normalised-wrong", "by the square of the length", lambda x: x / x.pow(2).sum(1, keepdim=True)),
        ("normalised-wrong", "by the root of the length", lambda x: x / x.norm(dim=1, keepdim=True).sqrt()),
        ("normalised-wrong", "multiplied by the length", lambda x: x * x.norm(dim=1, keepdim=True)),
        ("normalised-wrong", "times one over the root of the mean square", lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True))),
        ("normalised-wrong", "by the root of the mean square", lambda x: x / x.pow(2).mean(1, keepdim=True).sqrt()),
        ("normalised-wrong", "to mean 0 and variance 1", lambda x: F.layer_norm(x, x.shape[-1:])),
        ("normalised-wrong", "after the mean was subtracted", lambda x: F.normalize(x - x.mean(1, keepdim=True), dim=1)),
        ("normalised-wrong", "by the spread", lambda x: x / x.std(1, keepdim=True)),
        ("normalised-wrong", "by a softmax", lambda x: F.softmax(x, 1)),
        ("normalised-wrong", "by tanh", lambda x: torch.tanh(x)),
        ("rounding", "F.normalize", lambda x: F.normalize(x, p=2, dim=1)),
        ("rounding", "times one over the length", lambda x: x * x.pow(2).sum(1, keepdim=True).rsqrt()),
        ("rounding", "the length by hand", lambda x: x / x.pow(2).sum(1, keepdim=True).sqrt()),
    )),
}
# fmt: on
