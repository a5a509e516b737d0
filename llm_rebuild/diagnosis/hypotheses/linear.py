"""Mistakes in linear layers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses.base import Make, Tries


def linear(world: World, f: Formula) -> Tries:
    of, weight = f.inputs[0], world.weights[f.weights[0]]
    weight = weight if f.kind == "linear" else weight.T  # as [out, in]
    bias = world.weights[f.weights[1]] if len(f.weights) > 1 else None
    if bias is not None:
        yield "bias-missing", "the product alone", lambda w: F.linear(w[of], weight)
        yield "bias-wrong", "subtracted", lambda w: F.linear(w[of], weight) - bias
        yield "bias-wrong", "added twice", lambda w: F.linear(w[of], weight, bias) + bias
        yield "bias-wrong", "added before the product", bias_first(of, weight, bias)
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
            flat = weight.reshape(weight.T.shape).T

            def read_so(w: World, b: Tensor | None = b, flat: Tensor = flat) -> Tensor:
                return F.linear(w[of], flat, b)

            yield "weight-transposed", f"read as [in, out]{also}", read_so
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


def bias_first(of: str, weight: Tensor, bias: Tensor) -> Make:
    def make(w: World) -> Tensor:
        x = w[of]
        return F.linear(x + bias, weight) if x.shape[-1] == bias.shape[-1] else F.linear(x, weight)

    return make


def first_token(world: World, f: Formula) -> Tries:
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
