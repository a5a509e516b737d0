"""How a table of mistakes is read.

A table has, for a kind of step, a row for each thing that may have been done instead: its cause, what was done,
in words, and a function of tensors that computes it. The function's parameters are names: of the step's inputs
and weights as `INPUTS` and `WEIGHTS` call them, of its facts, or of what is found around it (`AROUND`). Words in
braces are such names, too. Where something asked for does not exist in a run, neither does the mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from llm_rebuild.diagnosis.graph import PAST, Edit, Formula, Make, Value, World, layer_norm, may_look
from llm_rebuild.verify.equality import HIDDEN
from llm_rebuild.verify.transforms import ACTIVATIONS

Mistake: TypeAlias = Callable[..., Value]  # from named tensors, weights and facts
Table: TypeAlias = Sequence[tuple[str, str, Mistake]]
Tables: TypeAlias = Mapping[str, Table]  # by what `names.called` calls the step

INPUTS = {
    "lookup": "ids", "add": "a b", "add bias": "product bias", "add mask": "x", "mix": "shares value",
    "cat": "old new", "biased mask": "own", "multiply": "a b", "stretch": "normed", "turns": "ids mask",
    "by wave": "x wave", "swapped": "minus x", "rotate": "x cos sin", "masked": "x real", "total": "masked",
    "divide": "total count",
}  # of all other kinds: x  # fmt: skip
WEIGHTS = {"lookup": "table"}  # of all other kinds: weight, bias


def value_of(world: World, formula: Formula, name: str) -> Any:
    """What a name means at a step. Raises LookupError where there is no such thing."""
    inputs = INPUTS.get(formula.kind, "x").split()
    weights = WEIGHTS.get(formula.kind, "weight bias").split()
    if name in inputs[: len(formula.inputs)]:
        return world[formula.inputs[inputs.index(name)]]
    if name in weights[: len(formula.weights)]:
        return world.weights[formula.weights[weights.index(name)]]
    return AROUND[name](world, formula) if name in AROUND else formula.facts[name]


def bound(formula: Formula, mistake: Mistake) -> Make:
    """A mistake at a step, as a function of the world."""
    names = [p.name for p in inspect.signature(mistake).parameters.values() if p.default is p.empty]
    return lambda world: mistake(*(value_of(world, formula, name) for name in names))


def edits(world: World, formula: Formula, table: Table) -> Iterator[Edit]:
    """All mistakes of a table at a step."""
    for cause, says, mistake in table:
        yield Edit(cause, says, {formula.name: bound(formula, mistake)})


# --------------------------------------------------------------------- what is found around a step


def _need(condition: bool) -> None:
    if not condition:
        raise LookupError("there is no such thing at this step")


def _new_ids(world: World, f: Formula) -> Tensor:
    """Of new tokens, where others came before."""
    _need(world.cached)
    return world[f.inputs[0]]


def _behind(world: World, f: Formula) -> Tensor:
    """What a norm is given that stands behind its half-block: the half-block's sum, computed without it."""
    norm, x = f.facts.get("norm", f.name), f.inputs[0]
    for step in world.formulas.values():
        if step.facts.get("residual") == x and norm in world.reaching(step.name):
            return world.changed({norm: lambda w: w[x]}, frozenset())[step.name]
    raise LookupError(f"{f.name} stands before no half-block")


def _norm(world: World, f: Formula) -> Callable[[Tensor], Tensor]:
    """The norm that follows a sum, as a function."""
    norm = world.formulas[f.facts["norm"]]
    weight, bias = (world.weights[key] for key in norm.weights)
    return lambda x: layer_norm(x, weight, bias, eps=norm.facts["eps"])


def _matrix(world: World, f: Formula) -> Tensor:
    """The weight as [out, in], however it lies in the file."""
    weight = world.weights[f.weights[0]]
    return weight if f.kind == "linear" else weight.T


def _bent(world: World, f: Formula) -> Tensor:
    """A gate whose activation is on the other branch."""
    inner, other = world.formulas[f.inputs[0]], world[f.inputs[1]]
    return world[inner.facts["whole"]] * ACTIVATIONS[inner.facts["name"]](other)


def _masking(world: World, f: Formula) -> Formula:
    """The step that adds the mask, or the bias, or both."""
    if f.kind in ("add mask", "biased mask"):
        return f
    step = world.formulas[world.source(f.name, "softmax").inputs[0]]
    _need(len(step.inputs) == 2)
    return step


def _biased(world: World, f: Formula) -> Formula:
    """The mask with a bias in it that scores are added to."""
    step = world.formulas[f.inputs[1]]
    _need(step.kind == "biased mask")
    return step


def _hidden(world: World, f: Formula) -> Tensor:
    """What the mask of these scores hides."""
    mask = world.value(_masking(world, f).inputs[1])
    return torch.zeros(1, 1, 1, 1, dtype=torch.bool) if mask is None else mask < HIDDEN


def _later(world: World, f: Formula) -> Tensor:
    """Where the key comes after the query, of scores that no causal mask belongs to."""
    mask = world.formulas[f.inputs[1]]
    _need(world.value(mask.name) is None or not mask.facts.get("causal"))
    scores = world[f.inputs[0]]
    return _apart(scores, scores.shape[-2] > scores.shape[-1]) > 0


def _apart(scores: Tensor, from_zero: bool) -> Tensor:
    """How far a key is behind its query [query, key], of scores or a mask: above 0 for what comes later.
    `from_zero`: with queries counted from 0, whatever came before."""
    query, key = scores.shape[-2:]
    first = 0 if from_zero else key - query
    return torch.arange(key) - torch.arange(first, first + query)[:, None]


def allowed(world: World, f: Formula, causal: bool) -> Tensor:
    """Who may look at whom by a mask [batch, 1, query, key]."""
    return may_look(world.value(f.inputs[0]), world[f.inputs[1]], causal=causal)


def _of_product(slot: int) -> Around:
    return lambda world, f: world[world.source(f.name, "product").inputs[slot]]


def _raw(world: World, name: str) -> Tensor:
    """A query or a key, before it was turned by its position."""
    step = world.formulas[name]
    if step.kind == "rotate":
        return world[step.inputs[0]]
    _need(step.kind == "repeat")
    return world.given({step.inputs[0]: _raw(world, step.inputs[0])})[name]


def _of_pooling(slot: int) -> Around:
    """The step that sets padding to 0 is given the tokens' vectors, and 1 where they are real."""
    return lambda world, f: world[world.source(f.name, "masked").inputs[slot]]


def _of_other(slot: int) -> Around:
    """Of keys what goes into the values, and of values what goes into the keys."""
    return lambda world, f: world[world.formulas[other_of(f)].inputs[slot]]


def _turn(wave: int, before: str = "") -> Around:
    """The cosines or sines by which queries are turned, of this pass or of the one before."""
    return lambda world, f: world[before + next(iter(world.all_of("rotate"))).inputs[wave]]


def other_of(formula: Formula) -> str:
    """Of keys the values, and of values the keys."""
    path, _, name = formula.name.rpartition(".")
    return f"{path}.{name.replace('key', 'value') if 'key' in name else name.replace('value', 'key')}"


Around: TypeAlias = Callable[[World, Formula], Any]
AROUND: Mapping[str, Around] = {
    # the inputs of the run
    "real_tokens": lambda world, f: world["#mask"],
    "new_ids": _new_ids,
    # sums, norms, activations, linear layers
    "residual": lambda world, f: world[f.facts["residual"]],
    "result": lambda world, f: world[next(name for name in f.inputs if name != f.facts["residual"])],
    "norm": _norm,
    "behind": _behind,
    "whole": lambda world, f: world[f.facts["whole"]],
    "bare": lambda world, f: world[world.formulas[f.inputs[0]].inputs[0]],
    "small": lambda world, f: world.formulas[f.inputs[0]].facts.get("eps", 0.0),
    "matrix": _matrix,
    "maybe": lambda world, f: world.weights[f.weights[1]] if len(f.weights) > 1 else None,
    "bent": _bent,
    # heads and scores
    "query": _of_product(0),
    "key": _of_product(1),
    "raw_query": lambda world, f: _raw(world, f.inputs[0]),
    "raw_key": lambda world, f: _raw(world, f.inputs[1]),
    "scores": lambda world, f: world[world.source(f.name, "softmax").inputs[0]],
    "unmasked": lambda world, f: world[_masking(world, f).inputs[0]],
    "mask": lambda world, f: world[_masking(world, f).inputs[1]],
    "mask_next": lambda world, f: world[world.user(f.name, "add mask").inputs[1]],
    "hides": _hidden,
    "later": _later,
    "only_bias": lambda world, f: world[_biased(world, f).inputs[0]],
    "only_mask": lambda world, f: world[_biased(world, f).inputs[1]],
    "angle": lambda world, f: world[world.formulas[f.inputs[1]].inputs[0]],
    "turn_cos": _turn(1),
    "turn_sin": _turn(2),
    "past_cos": _turn(1, PAST),
    "past_sin": _turn(2, PAST),
    "old_other": _of_other(0),
    "new_other": _of_other(1),
    # masks
    "shown": lambda world, f: allowed(world, f, f.facts["causal"]),
    "wrong": lambda world, f: ~allowed(world, f, f.facts["causal"]),
    "padding": lambda world, f: ~allowed(world, f, False),
    "apart": lambda world, f: _apart(allowed(world, f, False), False),
    "counted": lambda world, f: _apart(allowed(world, f, False), True),
    # from token vectors to one
    "tokens": _of_pooling(0),
    "real": _of_pooling(1),
}
