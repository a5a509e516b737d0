"""Each checkpoint's formula: from which tensors and weights it is computed, and how.

A rebuild runs from the ids to the answer and cannot be entered in the middle. To find out which mistake made
a tensor wrong, one wants just that: to compute one checkpoint from the official ones before it, with a
single thing changed. So every step is written down once more as a node of a graph: its name, what goes into
it, and which of a few kinds of operation it is. A test holds each of them against the official tensors, bit
for bit.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import NO_TAP
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import ops, rebuild_for
from llm_rebuild.models.t5 import bucket_of
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.equality import HIDDEN

# What a graph starts from: the inputs of a run, and what an earlier step kept.
TOKEN_IDS, MASK, DECODER_IDS, DECODER_MASK = "#token_ids", "#mask", "#decoder_ids", "#decoder_mask"
PAST = "#past."  # followed by the checkpoint that was kept, of the pass before this one

Value = Tensor | None  # a mask may be None: nothing is hidden


@dataclass(frozen=True)
class Formula:
    """One step.

    name     A checkpoint; or, with a `#` in it, a tensor in between that has no checkpoint.
    kind     Which operation it is: a key of `COMPUTE`.
    inputs   The names of the tensors that go into it.
    weights  The keys of the weights that it uses.
    facts    Its numbers: epsilon, scale, how many heads, …
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class World:
    """The tensors of a run, computed where they are asked for; or of one in which some steps are changed.

    known    Tensors that are given: inputs and official checkpoints.
    changes  For some names another way to compute them. What follows from them is computed anew.
    fixed    Names that stay as they are known even so.
    fused    Whether the official attention is the fused kernel.
    """

    def __init__(
        self,
        formulas: Mapping[str, Formula],
        known: Mapping[str, Value],
        weights: Mapping[str, Tensor],
        config: Any,
        changes: Mapping[str, Callable[[World], Value]] | None = None,
        fixed: frozenset[str] = frozenset(),
        fused: bool = False,
    ) -> None:
        self.formulas, self.known, self.weights, self.config = formulas, known, weights, config
        self.fused = fused
        self.changes = dict(changes or {})
        self.fixed = fixed
        self._values: dict[str, Value] = {}
        self._stale: dict[str, bool] = {}

    def changed(self, changes: Mapping[str, Callable[[World], Value]], fixed: frozenset[str]) -> World:
        """The world in which these steps are computed in another way."""
        return World(self.formulas, self.known, self.weights, self.config, changes, fixed, self.fused)

    def given(self, more: Mapping[str, Value]) -> World:
        """The world in which these tensors are known, too, or instead."""
        known = {**self.known, **more}
        return World(self.formulas, known, self.weights, self.config, fused=self.fused)

    def with_weights(self, more: Mapping[str, Tensor]) -> World:
        """The world with more weights, or with others."""
        weights = {**self.weights, **more}
        return World(self.formulas, self.known, weights, self.config, fused=self.fused)

    def __getitem__(self, name: str) -> Tensor:
        value = self.value(name)
        if value is None:
            raise LookupError(f"{name} does not exist in this run")
        return value

    def value(self, name: str) -> Value:
        """The tensor of this name, or None where the run has none (a mask that hides nothing)."""
        if name not in self._values:
            if name in self.known and not self.stale(name):
                return self.known[name]
            if name in self.changes:
                self._values[name] = self.changes[name](self)
            else:
                self._values[name] = self.compute(self.formulas[name])
        return self._values[name]

    def attempt(self, step: str | Formula) -> Value:
        """The tensor of this name, or of this formula; None where it cannot be computed: changes can lead to
        shapes that do not meet, and ask for tensors that this run has not."""
        try:
            return self.value(step) if isinstance(step, str) else self.compute(step)
        except (RuntimeError, LookupError, ValueError):
            return None

    def compute(self, formula: Formula) -> Value:
        """One step as it should be, from the values of this world."""
        return COMPUTE[formula.kind](self, formula)

    def stale(self, name: str) -> bool:
        """Whether a change reaches this name."""
        if name in self.fixed:
            return False
        if name not in self._stale:
            formula = self.formulas.get(name)
            self._stale[name] = name in self.changes or (
                formula is not None and any(self.stale(i) for i in formula.inputs)
            )
        return self._stale[name]

    def reaching(self, name: str, seen: Iterable[str]) -> list[str]:
        """The steps that lie between `name` and the tensors in `seen`, itself first."""
        stop, found, queue = set(seen), [], [name]
        while queue:
            current = queue.pop(0)
            if current in found or current not in self.formulas:
                continue
            found.append(current)
            queue.extend(i for i in self.formulas[current].inputs if i not in stop)
        return found

    def inputs_of(self, name: str) -> list[str]:
        """The checkpoints from which this one is computed, through steps that have no name of their own."""
        found: list[str] = []
        queue = list(self.formulas[name].inputs) if name in self.formulas else []
        while queue:
            current = queue.pop(0)
            if current in self.known and "#" not in current:
                if current not in found:
                    found.append(current)
            elif current in self.formulas:
                queue.extend(self.formulas[current].inputs)
        return found


# --------------------------------------------------------------------------------- the operations


def _lookup(world: World, f: Formula) -> Tensor:
    return F.embedding(world[f.inputs[0]], world.weights[f.weights[0]])


def _positions(world: World, f: Formula) -> Tensor:
    token, key = world[f.inputs[0]].shape[1], world[f.inputs[1]].shape[1]
    return torch.arange(key - token, key).unsqueeze(0)


def _zeros_like(world: World, f: Formula) -> Tensor:
    return torch.zeros_like(world[f.inputs[0]])


def _add(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]] + world[f.inputs[1]]


def _layer_norm(world: World, f: Formula) -> Tensor:
    x, (weight, bias) = world[f.inputs[0]], (world.weights[key] for key in f.weights)
    return F.layer_norm(x, x.shape[-1:], weight, bias, f.facts["eps"])


def _linear(world: World, f: Formula) -> Tensor:
    bias = world.weights[f.weights[1]] if len(f.weights) > 1 else None
    return F.linear(world[f.inputs[0]], world.weights[f.weights[0]], bias)


def _conv1d(world: World, f: Formula) -> Tensor:
    x, weight, bias = world[f.inputs[0]], world.weights[f.weights[0]], world.weights[f.weights[1]]
    return torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[1])


def _split(world: World, f: Formula) -> Tensor:
    x = world[f.inputs[0]]
    if "part" in f.facts:
        x = x.chunk(3, dim=-1)[f.facts["part"]]
    return ops.split_heads(x, f.facts["heads"])


def _cat(world: World, f: Formula) -> Tensor:
    return torch.cat([world[name] for name in f.inputs], dim=-2)


def _same(world: World, f: Formula) -> Value:
    return world.value(f.inputs[0])


def _product(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]] @ world[f.inputs[1]].transpose(-1, -2)


def _scale(world: World, f: Formula) -> Tensor:
    by: float = f.facts["by"]
    return world[f.inputs[0]] * by


def _add_mask(world: World, f: Formula) -> Tensor:
    mask = world.value(f.inputs[1])
    return world[f.inputs[0]] if mask is None else world[f.inputs[0]] + mask


def _softmax(world: World, f: Formula) -> Tensor:
    shares = F.softmax(world[f.inputs[0]], dim=-1)
    return shares.nan_to_num(0.0) if world.fused else shares  # the kernel gives a row that sees nothing zeros


def _mix(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]] @ world[f.inputs[1]]


def _merge(world: World, f: Formula) -> Tensor:
    return ops.merge_heads(world[f.inputs[0]])


def _act(world: World, f: Formula) -> Tensor:
    return ops.ACTIVATIONS[f.facts["name"]](world[f.inputs[0]], NO_TAP)


def _elementwise(world: World, f: Formula) -> Tensor:
    result: Tensor = f.facts["of"](*(world[name] for name in f.inputs))
    return result


def may_look(world: World, f: Formula) -> Tensor:
    """Who may look at whom [batch, 1, query, key]: True or False, from the tokens' mask."""
    query, causal = world[f.inputs[1]].shape[1], f.facts["causal"]
    given = world.value(f.inputs[0])
    mask = torch.ones_like(world[f.inputs[1]]) if given is None else given
    key = mask.shape[1]
    allowed = mask.bool()[:, None, None, :].expand(-1, 1, query, key)
    if causal:
        order = torch.arange(key)
        allowed = allowed & (order <= order[key - query :, None])
    return allowed


def _mask(world: World, f: Formula) -> Value:
    allowed = may_look(world, f)
    if bool(allowed.all()) and not f.facts["causal"]:
        return None
    return torch.where(allowed, torch.zeros(()), torch.finfo(torch.float32).min)


def _biased_mask(world: World, f: Formula) -> Tensor:
    bias, mask = world[f.inputs[0]], world.value(f.inputs[1])
    return bias if mask is None else torch.where(mask < HIDDEN, torch.finfo(bias.dtype).min, bias)


def _buckets(world: World, f: Formula) -> Tensor:
    return bucket_of(distances(world, f), f.facts["both_ways"], world.config)


def distances(world: World, f: Formula) -> Tensor:
    """How far each key is from each query [query, key]; below 0 for what came before."""
    query, key = world[f.inputs[0]].shape[1], world[f.inputs[1]].shape[1]
    where = torch.arange(key)
    return where - where[key - query :, None]


def _bias_by_head(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]].permute(2, 0, 1).unsqueeze(0)


def _no_bias(world: World, f: Formula) -> Tensor:
    return torch.zeros(1, f.facts["heads"], world[f.inputs[0]].shape[1], world[f.inputs[1]].shape[1])


def _square(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]].pow(2)


def _mean_square(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]].mean(-1, keepdim=True)


def _plus_eps(world: World, f: Formula) -> Tensor:
    eps: float = f.facts["eps"]
    return world[f.inputs[0]] + eps


def _inverse_root(world: World, f: Formula) -> Tensor:
    return torch.rsqrt(world[f.inputs[0]])


def _multiply(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]] * world[f.inputs[1]]


def _stretch(world: World, f: Formula) -> Tensor:
    return world.weights[f.weights[0]] * world[f.inputs[0]]


def _first_token(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]][:, 0]


def _real(world: World, f: Formula) -> Tensor:
    x = world[f.inputs[0]]
    return world[f.inputs[1]].unsqueeze(-1).expand(x.shape).to(x.dtype)


def _total(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]].sum(dim=1)


def _count(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]].sum(dim=1).clamp(min=1e-9)


def _divide(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]] / world[f.inputs[1]]


def _unit(world: World, f: Formula) -> Tensor:
    x = world[f.inputs[0]]
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp_min(1e-12)


def _repeat(world: World, f: Formula) -> Tensor:
    return world[f.inputs[0]].repeat_interleave(f.facts["times"], dim=1)


def _given(world: World, f: Formula) -> Value:
    return world.known[f.name]


COMPUTE: dict[str, Callable[[World, Formula], Value]] = {
    "lookup": _lookup,
    "positions": _positions,
    "types": _zeros_like,
    "add": _add,
    "layer norm": _layer_norm,
    "linear": _linear,
    "conv1d": _conv1d,
    "split": _split,
    "cat": _cat,
    "same": _same,
    "product": _product,
    "scale": _scale,
    "add bias": _add,
    "add mask": _add_mask,
    "softmax": _softmax,
    "mix": _mix,
    "merge": _merge,
    "act": _act,
    "elementwise": _elementwise,
    "mask": _mask,
    "biased mask": _biased_mask,
    "buckets": _buckets,
    "bias by head": _bias_by_head,
    "no bias": _no_bias,
    "square": _square,
    "mean square": _mean_square,
    "plus eps": _plus_eps,
    "inverse root": _inverse_root,
    "multiply": _multiply,
    "stretch": _stretch,
    "first token": _first_token,
    "real": _real,
    "masked": _multiply,
    "total": _total,
    "count": _count,
    "divide": _divide,
    "unit": _unit,
    "repeat": _repeat,  # heads that several queries share
    "given": _given,  # a step that has no formula here
}


# ------------------------------------------------------------------- parts that several models have


def gelu_new(path: str, x: str) -> list[Formula]:
    """The steps of `ops.gelu_new`, and its result."""

    def step(name: str, of: Callable[..., Tensor], *inputs: str, **facts: Any) -> Formula:
        return Formula(f"{path}.{name}", "elementwise", inputs, facts={"of": of, "gelu": x, **facts})

    return [
        step("half", lambda x: 0.5 * x, x),
        step("cube", lambda x: torch.pow(x, 3.0), x),
        step("small_cube", lambda cube: 0.044715 * cube, f"{path}.cube"),
        step("steeper", lambda x, cube: x + cube, x, f"{path}.small_cube"),
        step("scaled", lambda x: math.sqrt(2.0 / math.pi) * x, f"{path}.steeper"),
        step("tanh", torch.tanh, f"{path}.scaled"),
        step("gate", lambda x: 1.0 + x, f"{path}.tanh"),
        Formula(
            path,
            "elementwise",
            (f"{path}.half", f"{path}.gate"),
            facts={"of": torch.mul, "gelu": x, "name": "gelu_new", "x": x},
        ),
    ]


def activation(name: str, path: str, x: str) -> list[Formula]:
    """An activation by config.json's name, with its steps where they are checkpoints."""
    if name == "gelu_new":
        return gelu_new(path, x)
    return [Formula(path, "act", (x,), facts={"name": name, "x": x})]


def world_of(truth: Capture, copy: LocalCopy, prompt: Capture | None = None) -> World:
    """The graph of a captured run with its official tensors in it.

    prompt  The capture of the pass before, where this one goes on from its keys and values.
    Raises InputError for an architecture without formulas.
    """
    rebuild = rebuild_for(copy.config)
    weights = rebuild.renamed(copy.weights()).peek()
    module = importlib.import_module(f"llm_rebuild.diagnosis.formulas.{rebuild.architecture.file}")
    steps = module.formulas(rebuild.config, weights, prompt is not None, truth.attention == "sdpa")
    inputs = truth.inputs
    known: dict[str, Value] = {
        TOKEN_IDS: inputs.token_ids,
        MASK: inputs.mask,
        DECODER_IDS: inputs.decoder_ids,
        DECODER_MASK: inputs.decoder_mask,
        **truth.tensors,
    }
    if prompt is not None:
        known |= {f"{PAST}{name}": tensor for name, tensor in prompt.tensors.items()}
    fused = truth.attention == "sdpa"
    return World({step.name: step for step in steps}, known, weights, rebuild.config, fused=fused)
