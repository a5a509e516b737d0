"""Each checkpoint's formula: from which tensors and weights it is computed, and how.

A rebuild runs from the ids to the answer and cannot be entered in the middle. To find out which mistake made
a tensor wrong, one wants just that: to compute one checkpoint from the official ones before it, with a
single thing changed. So every step of a model is written down once more as a node of a graph: its name, what
goes into it, and which of a few kinds of operation it is. One file a model, parallel to its rebuild; what
the kinds compute stands in `diagnosis/graph.py`. A test holds each of them against the official tensors, bit
for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# What a graph starts from: the inputs of a run, and what an earlier step kept.
TOKEN_IDS, MASK, DECODER_IDS, DECODER_MASK = "#token_ids", "#mask", "#decoder_ids", "#decoder_mask"
PAST = "#past."  # followed by the checkpoint that was kept, of the pass before this one


@dataclass(frozen=True)
class Formula:
    """One step.

    name     A checkpoint; or, with a `#` in it, a tensor in between that has no checkpoint.
    kind     Which operation it is: a key of `diagnosis.graph.OPERATIONS`.
    inputs   The names of the tensors that go into it.
    weights  The keys of the weights that it uses.
    facts    Its numbers (epsilon, scale, how many heads, …), and what its inputs are to it (`residual`, …).
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


def linear(path: str, x: str, kind: str = "linear", bias: bool = True, **facts: Any) -> Formula:
    """A linear layer with the weights under its path."""
    weights = (f"{path}.weight", f"{path}.bias") if bias else (f"{path}.weight",)
    return Formula(path, kind, (x,), weights, facts)


def layer_norm(path: str, x: str, eps: float) -> Formula:
    """A LayerNorm with the weights under its path."""
    return Formula(path, "layer norm", (x,), (f"{path}.weight", f"{path}.bias"), {"eps": eps})


def lookup(path: str, ids: str, what: str, weight: str = "") -> Formula:
    """Rows of a table. what: `token`, `position`, `type` or `bucket`"""
    return Formula(path, "lookup", (ids,), (weight or f"{path}.weight",), {"what": what})


def residual(path: str, one: str, other: str, x: str, **facts: Any) -> Formula:
    """A half-block's sum, in the order in which the model adds; x is what came in."""
    return Formula(path, "add", (one, other), facts={"residual": x, **facts})


def heads(part: str, count: int, **sources: str) -> list[Formula]:
    """Queries, keys and values cut into heads. A source that all three share is cut into thirds first."""
    fused = len(set(sources.values())) < len(sources) == 3
    return [
        Formula(
            f"{part}.#{name}",
            "split",
            (x,),
            facts={"heads": count, "group": f"{part}.#", "name": name} | ({"part": i} if fused else {}),
        )
        for i, (name, x) in enumerate(sources.items())
    ]


def kept(part: str, cached: bool, known: bool = False) -> list[Formula]:
    """Keys and values behind those of the pass before; `known`: those of the pass before alone."""
    steps = []
    for name in ("key", "value"):
        old, new = f"{PAST}{part}.{name}", f"{part}.#{name}"
        inputs = (old,) if known else (old, new) if cached else (new,)
        kind = "cat" if len(inputs) > 1 else "same"
        steps.append(Formula(f"{part}.{name}", kind, inputs, facts={"name": name}))
    return steps


def context(part: str, scores: str, value: str) -> list[Formula]:
    """From the masked scores to the heads' context, side by side."""
    return [
        Formula(f"{part}.probs", "softmax", (scores,)),
        Formula(f"{part}.head_context", "mix", (f"{part}.probs", value)),
        Formula(f"{part}.context", "merge", (f"{part}.head_context",)),
    ]


def attend(part: str, by: float, key: str, value: str) -> list[Formula]:
    """Scaled products of queries and keys, the mask, and the context."""
    return [
        Formula(f"{part}.product", "product", (f"{part}.#query", key)),
        Formula(f"{part}.scaled", "scale", (f"{part}.product",), facts={"by": by}),
        Formula(f"{part}.scores", "add mask", (f"{part}.scaled", "mask")),
        *context(part, f"{part}.scores", value),
    ]


def activation(name: str, path: str, x: str) -> list[Formula]:
    """An activation by config.json's name, with its steps where they are checkpoints."""
    if name == "gelu_new":
        return gelu_new(path, x)
    return [Formula(path, "act", (x,), facts={"name": name, "whole": x})]


def gelu_new(path: str, x: str) -> list[Formula]:
    """The steps of `ops.gelu_new`, and its result."""

    def step(name: str, of: Callable[..., Tensor], *inputs: str) -> Formula:
        return Formula(f"{path}.{name}", "elementwise", inputs, facts={"of": of, "whole": x})

    result = {"of": torch.mul, "name": "gelu_new", "whole": x}
    return [
        step("half", lambda x: 0.5 * x, x),
        step("cube", lambda x: torch.pow(x, 3.0), x),
        step("small_cube", lambda cube: 0.044715 * cube, f"{path}.cube"),
        step("steeper", torch.add, x, f"{path}.small_cube"),
        step("scaled", lambda steeper: math.sqrt(2.0 / math.pi) * steeper, f"{path}.steeper"),
        step("tanh", torch.tanh, f"{path}.scaled"),
        step("gate", lambda tanh: 1.0 + tanh, f"{path}.tanh"),
        Formula(path, "elementwise", (f"{path}.half", f"{path}.gate"), facts=result),
    ]
