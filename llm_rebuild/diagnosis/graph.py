"""An official run as a graph: every checkpoint is an operation of tensors, weights and facts.

A model runs from the ids to the answer and cannot be entered in the middle. To find out which mistake made a
tensor wrong, one wants just that: to compute one checkpoint from the official ones before it, with a single
thing changed. What the steps are is read off the official run's trace (`read_off.py`). Here is what each kind
of step computes, as a function of its values, and the `World` that computes them: as they should be, or with
some steps changed.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import NO_TAP
from llm_rebuild.models import ops
from llm_rebuild.verify.equality import HIDDEN

# What a graph starts from: the inputs of a run, and what an earlier step kept.
TOKEN_IDS, MASK, DECODER_IDS, DECODER_MASK = "#token_ids", "#mask", "#decoder_ids", "#decoder_mask"
PAST = "#past."  # followed by the checkpoint that was kept, of the pass before this one
MINE = "#mine."  # followed by a checkpoint: the tensor that the person has there, and which differs
LOWEST = torch.finfo(torch.float32).min

Value: TypeAlias = Tensor | None  # a mask may be None: nothing is hidden
Make: TypeAlias = Callable[..., Value]  # of a world: its tensors with some steps changed

# What a formula that was changed may fail with: shapes that do not meet, a tensor that this run has not.
FAILS = (RuntimeError, LookupError, ValueError)


@dataclass(frozen=True)
class Formula:
    """One step.

    name     A checkpoint; or, with a `#` in it, a tensor in between that has no checkpoint.
    kind     Which operation it is: a key of `OPERATIONS`.
    inputs   The names of the tensors that go into it.
    weights  The keys of the weights that it uses.
    facts    Its numbers (epsilon, scale, how many heads, …), and what its inputs are to it (`residual`, …).
    """

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Work:
    """How much was computed: multiplications, and a share for each step. Counted, not timed."""

    spent: int = 0

    def add(self, formula: Formula, values: Sequence[Value], result: Value) -> None:
        """One step."""
        inner = values[0].shape[-1] if formula.kind in PRODUCTS and values[0] is not None else 1
        self.spent += STEP + (result.numel() * inner if result is not None else 0)


PRODUCTS = ("linear", "conv1d", "product", "mix")
NORM_STEPS = {"layer norm", "square", "mean square", "plus eps", "inverse root", "multiply", "stretch"}
STEP = 100_000  # multiplications that take as long as the smallest step


@dataclass(frozen=True)
class Run:
    """What holds for a whole run.

    fused   Whether attention is the fused kernel.
    sizes   The whole numbers of config.json by name: widths, heads, how many blocks.
    blocks  The checkpoints that one block hands to the next: the block's number; -1 for what goes into the
            first.
    work    What was computed in all worlds of this run.
    """

    fused: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    blocks: Mapping[str, int] = field(default_factory=dict)
    work: Work = field(default_factory=Work, compare=False)


@dataclass(frozen=True)
class Edit:
    """One thing that may have been done instead.

    cause    Its name in the catalogue.
    says     What exactly would have been done.
    changes  The steps that are computed in another way, and how.
    telling  Whether what was done says why, as the cause does, and is not only one of many ways to go wrong.
    """

    cause: str
    says: str
    changes: Mapping[str, Make]
    telling: bool = True


@dataclass(frozen=True)
class World:
    """The tensors of a run, computed where they are asked for; or of one in which some steps are changed.

    tensors  What is given: inputs and official checkpoints.
    changes  For some names another way to compute them. What follows from them is computed anew.
    fixed    Names that stay as they are even so.
    """

    formulas: Mapping[str, Formula]
    tensors: Mapping[str, Value]
    weights: Mapping[str, Tensor]
    run: Run = field(default_factory=Run)
    changes: Mapping[str, Make] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    _values: dict[str, Value] = field(default_factory=dict, init=False, repr=False)
    _stale: dict[str, bool] = field(default_factory=dict, init=False, repr=False)

    def changed(self, changes: Mapping[str, Make], fixed: frozenset[str]) -> World:
        """The world in which these steps are computed in another way."""
        return replace(self, changes=changes, fixed=fixed)

    def given(self, tensors: Mapping[str, Value]) -> World:
        """The world in which these tensors are known, too, or instead."""
        return World(self.formulas, {**self.tensors, **tensors}, self.weights, self.run)

    def with_weights(self, weights: Mapping[str, Tensor]) -> World:
        """The world with more weights, or with others."""
        return World(self.formulas, self.tensors, {**self.weights, **weights}, self.run)

    def __getitem__(self, name: str) -> Tensor:
        value = self.value(name)
        if value is None:
            raise LookupError(f"{name} does not exist in this run")
        return value

    def value(self, name: str) -> Value:
        """The tensor of this name, or None where the run has none (a mask that hides nothing)."""
        if name not in self._values:
            if name in self.tensors and not self.stale(name):
                return self.tensors[name]
            if name in self.changes:
                self._values[name] = self.changes[name](self)
            else:
                self._values[name] = self.compute(self.formulas[name])
        return self._values[name]

    def attempt(self, step: str | Formula) -> Value:
        """The tensor of this name, or of this formula; None where it cannot be computed."""
        try:
            return self.value(step) if isinstance(step, str) else self.compute(step)
        except FAILS:
            return None

    def compute(self, formula: Formula) -> Value:
        """One step as it should be, from the values of this world."""
        if formula.kind == "given":
            return self.tensors[formula.name]
        values = [self.value(name) for name in formula.inputs]
        if formula.kind not in MAY_LACK and any(value is None for value in values):
            raise LookupError(f"{formula.name}: one of its inputs does not exist in this run")
        facts = {"fused": self.run.fused, **formula.facts}
        chosen = {name: facts[name] for name in _FACTS[formula.kind] if name in facts}
        weights = (self.weights[key] for key in formula.weights)
        result: Value = OPERATIONS[formula.kind](*values, *weights, **chosen)
        self.run.work.add(formula, values, result)
        return result

    def stale(self, name: str) -> bool:
        """Whether a change reaches this name."""
        if name in self.fixed or not self.changes:
            return False
        if name not in self._stale:
            formula = self.formulas.get(name)
            self._stale[name] = name in self.changes or (
                formula is not None and any(self.stale(i) for i in formula.inputs)
            )
        return self._stale[name]

    def reaching(self, name: str, stop: Iterable[str] = ()) -> list[str]:
        """The steps that lie between `name` and the tensors in `stop`, itself first."""
        stop, steps, queue = set(stop), dict[str, None](), deque([name])
        while queue:
            current = queue.popleft()
            if current not in steps and current in self.formulas:
                steps[current] = None
                queue.extend(i for i in self.formulas[current].inputs if i not in stop)
        return list(steps)

    def inputs_of(self, name: str) -> list[str]:
        """The checkpoints from which this one is computed, through steps that have no name of their own."""
        shown = [n for n in self.tensors if "#" not in n]
        steps = [self.formulas[n] for n in self.reaching(name, shown)]
        return list(dict.fromkeys(i for f in steps for i in f.inputs if "#" not in i and i in self.tensors))

    def source(self, name: str, kind: str) -> Formula:
        """The nearest step of a kind from which this tensor is computed. Raises LookupError."""
        for step in self.reaching(name):
            if self.formulas[step].kind == kind:
                return self.formulas[step]
        raise LookupError(f"no {kind} goes into {name}")

    def users(self, name: str, kind: str = "") -> Iterator[Formula]:
        """The steps into which a tensor goes."""
        return (f for f in self.formulas.values() if name in f.inputs and kind in ("", f.kind))

    def user(self, name: str, kind: str) -> Formula:
        """The first step of a kind into which a tensor goes. Raises LookupError."""
        for formula in self.users(name, kind):
            return formula
        raise LookupError(f"{name} goes into no {kind}")

    def all_of(self, kind: str) -> list[Formula]:
        """All steps of a kind, in the order of computation."""
        return [f for f in self.formulas.values() if f.kind == kind]

    @property
    def cached(self) -> bool:
        """Whether the run goes on from keys and values of an earlier one."""
        return any(name.startswith(PAST) for name in self.tensors)


# --------------------------------------------------------------------------------- the operations
# Each takes the values of its inputs, then its weights, then its facts by name.


def positions(ids: Tensor, mask: Tensor, *, first: int = 0) -> Tensor:
    """Of new tokens the places among all [1, token]; `first` is the number of the first place."""
    return torch.arange(mask.shape[1] - ids.shape[1], mask.shape[1]).unsqueeze(0) + first


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    """torch's LayerNorm over the width."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer whose weight lies as [in, out]."""
    return torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight).view(*x.shape[:-1], weight.shape[1])


def split(x: Tensor, *, heads: int, part: int | None = None, whole: bool = False) -> Tensor:
    """[batch, token, width], or a third of it, or [batch, token, head, head width] that is cut already
    -> [batch, head, token, head width]; `whole` in memory, as a cache keeps it."""
    x = x if part is None else x.chunk(3, dim=-1)[part]
    cut = x.transpose(1, 2) if x.dim() == 4 else ops.split_heads(x, heads)
    return cut.contiguous() if whole else cut


def counted(mask: Tensor, *, first: int) -> Tensor:
    """Places that count tokens only, behind `first`, which is padding's."""
    return mask.cumsum(1) * mask + first


BASES = (1e4, 5e5, 1e6, 1e5, 1e3, 2e4, 100.0)  # of angles, as models have them


def speeds_of(base: float, width: int) -> Tensor:
    """How far each pair turns from one place to the next: one over a power of the base [pair]."""
    return torch.reciprocal(base ** (torch.arange(0, width, 2).float() / width))


def turns(ids: Tensor, mask: Tensor, *, speeds: Tensor, first: int = 0) -> Tensor:
    """Angles of rotary positions [1, token, pair]: a place times how far each pair turns."""
    return positions(ids, mask, first=first)[..., None].float() * speeds


def wave_of(angles: Tensor, *, wave: str) -> Tensor:
    """Their sines or cosines."""
    return angles.cos() if wave == "cos" else angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: each number of the first half of a head with its fellow of the second one, turned.
    x [batch, head, token, head width]; cos, sin [batch, token, head width]"""
    one, other = x.chunk(2, dim=-1)
    return x * cos.unsqueeze(1) + torch.cat([-other, one], dim=-1) * sin.unsqueeze(1)


def product(query: Tensor, key: Tensor) -> Tensor:
    """Queries with keys: [batch, head, query, key]."""
    return query @ key.transpose(-1, -2)


def add_mask(x: Tensor, mask: Value) -> Tensor:
    """The sum, or the tensor itself where nothing is hidden."""
    return x if mask is None else x + mask


def softmax(x: Tensor, *, fused: bool) -> Tensor:
    """Over the last axis. The fused kernel gives a row that sees nothing zeros."""
    shares = F.softmax(x, dim=-1)
    return shares.nan_to_num(0.0) if fused else shares


def may_look(given: Value, ids: Tensor, *, causal: bool) -> Tensor:
    """Who may look at whom [batch, 1, query, key]: True or False, from the tokens' mask."""
    mask, query = torch.ones_like(ids) if given is None else given, ids.shape[1]
    key = mask.shape[1]
    allowed = mask.bool()[:, None, None, :].expand(-1, 1, query, key)
    if causal:
        order = torch.arange(key)
        allowed = allowed & (order <= order[key - query :, None])
    return allowed


def mask(given: Value, ids: Tensor, *, causal: bool) -> Value:
    """What is added to the scores: 0, and the lowest number where one may not look."""
    allowed = may_look(given, ids, causal=causal)
    if bool(allowed.all()) and not causal:
        return None
    return torch.where(allowed, torch.zeros(()), LOWEST)


def biased_mask(bias: Tensor, mask: Value) -> Tensor:
    """Bias and mask in one tensor, as the fused kernel takes them."""
    return bias if mask is None else torch.where(mask < HIDDEN, torch.finfo(bias.dtype).min, bias)


def distances(ids: Tensor, mask: Tensor) -> Tensor:
    """How far each key is from each query [query, key]; below 0 for what came before."""
    key = torch.arange(mask.shape[1])
    return key - key[mask.shape[1] - ids.shape[1] :, None]


def buckets(ids: Tensor, mask: Tensor, *, both_ways: bool, count: int, limit: int) -> Tensor:
    """Distances as numbers of buckets [query, key]."""
    return buckets_of(distances(ids, mask), both_ways, count, limit)


def buckets_of(distance: Tensor, both_ways: bool, count: int, limit: int) -> Tensor:
    """Distances [query, key], below 0 for what came before, as numbers of buckets. Half of them hold one
    distance each; the others grow with the logarithm, up to a distance from which on all share the last."""
    first, distance = torch.zeros_like(distance), -distance.clamp(max=0) if not both_ways else distance
    if both_ways:  # what comes after has buckets of its own
        count //= 2
        first, distance = (distance > 0).long() * count, distance.abs()
    near = count // 2
    far = torch.log(distance.clamp(min=1).float() / near) / math.log(limit / near) * (count - near)
    return first + torch.where(distance < near, distance, (near + far.long()).clamp(max=count - 1))


def real(x: Tensor, mask: Tensor) -> Tensor:
    """1 where a token is and 0 where padding is, in the shape of x."""
    return mask.unsqueeze(-1).expand(x.shape).to(x.dtype)


def unit(x: Tensor) -> Tensor:
    """Each row divided by its length."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp_min(1e-12)


OF_THEIR_NAME = (
    positions, layer_norm, conv1d, split, counted, turns, rotate, product, add_mask, softmax, mask,
    biased_mask, buckets, real, unit,
)  # fmt: skip
OPERATIONS: dict[str, Callable[..., Any]] = {
    **{operation.__name__.replace("_", " "): operation for operation in OF_THEIR_NAME},
    "wave": wave_of,
    "lookup": F.embedding,
    "types": torch.zeros_like,
    "add": lambda a, b: a + b,
    "linear": lambda x, weight, bias=None: F.linear(x, weight, bias),
    "cat": lambda old, new: torch.cat([old, new], dim=-2),
    "same": lambda x: x,
    "by head": lambda x, *, heads: x.unflatten(-1, (heads, -1)),
    "twice": lambda turns: torch.cat([turns, turns], dim=-1),
    "by wave": lambda x, wave: x * wave.unsqueeze(1),
    "minus": lambda x: -x.chunk(2, dim=-1)[1],
    "swapped": lambda minus, x: torch.cat([minus, x.chunk(2, dim=-1)[0]], dim=-1),
    "scale": lambda x, *, by: x * by,
    "add bias": lambda product, bias: product + bias,
    "mix": lambda shares, value: shares @ value,
    "merge": ops.merge_heads,
    "act": lambda x, *, name: ops.ACTIVATIONS[name](x, NO_TAP),
    "elementwise": lambda *x, of: of(*x),
    "bias by head": lambda table: table.permute(2, 0, 1).unsqueeze(0),
    "no bias": lambda ids, mask, *, heads: torch.zeros(1, heads, ids.shape[1], mask.shape[1]),
    "square": lambda x: x.pow(2),
    "mean square": lambda square: square.mean(-1, keepdim=True),
    "plus eps": lambda x, *, eps: x + eps,
    "inverse root": torch.rsqrt,
    "multiply": lambda a, b: a * b,
    "stretch": lambda normed, weight: weight * normed,
    "first token": lambda x: x[:, 0],
    "masked": lambda x, real: x * real,
    "total": lambda masked: masked.sum(dim=1),
    "count": lambda real: real.sum(dim=1).clamp(min=1e-9),
    "divide": lambda total, count: total / count,
    "grouped": lambda x, *, heads: x.reshape(len(x), heads, -1, x.shape[-1]),  # of one token, by shared head
    "by token": lambda x: x.flatten(1).unsqueeze(1),  # these side by side again
    "repeat": lambda x, *, times: (
        x[:, :, None].expand(-1, -1, times, -1, -1).flatten(1, 2)
    ),  # heads that several queries share
    "given": lambda: None,  # a step that has no formula here: only its tensor is known
}
MAY_LACK = ("same", "add mask", "mask", "biased mask")  # kinds that can do without one of their inputs


def _facts_of(operation: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(operation).parameters.values()
    except (TypeError, ValueError):  # a function of torch, which takes no facts
        return ()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


_FACTS = {kind: _facts_of(operation) for kind, operation in OPERATIONS.items()}
