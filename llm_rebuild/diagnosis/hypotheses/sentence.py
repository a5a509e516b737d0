"""Mistakes on the way from token vectors to one vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses.base import LOWEST, Tries


def masked(world: World, f: Formula) -> Tries:
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


def total(world: World, f: Formula) -> Tries:
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


def count(world: World, f: Formula) -> Tries:
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


def divide(world: World, f: Formula) -> Tries:
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


def unit(world: World, f: Formula) -> Tries:
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
