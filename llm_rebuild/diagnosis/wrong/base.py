"""How a table of mistakes is read.

A table has, for a kind of step, a row for each thing that may have been done instead: its cause, what was done,
in words, and a function of tensors that computes it. The function's parameters are names: of the step's inputs and weights as `INPUTS`
and `WEIGHTS` call them, of its facts, or of something that the table's module works out for it (its `ALSO`).
Words in braces are such names, too. Where something asked for does not exist in a run, neither does the
mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch

from llm_rebuild.diagnosis.graph import Edit, Make, Value, World
from llm_rebuild.models.formulas import Formula

Mistake: TypeAlias = Callable[..., Value]  # from named tensors, weights and facts
Table: TypeAlias = Sequence[tuple[str, str, Mistake]]
Also: TypeAlias = Mapping[str, Callable[[World, Formula], Any]]
Tables: TypeAlias = Mapping[str, tuple[Also, Table]]  # by what `called` calls the step

INPUTS = {
    "lookup": "ids",
    "add": "a b",
    "add bias": "product bias",
    "add mask": "x",
    "mix": "shares value",
    "cat": "old new",
    "biased mask": "own",
    "multiply": "a b",
    "stretch": "normed",
    "masked": "x real",
    "total": "masked",
    "divide": "total count",
}  # of all other kinds: x
WEIGHTS = {"lookup": "table"}  # of all other kinds: weight, bias

NARROW = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def value_of(world: World, formula: Formula, name: str, also: Also) -> Any:
    """What a name means at a step. Raises LookupError where there is no such thing."""
    inputs = INPUTS.get(formula.kind, "x").split()
    weights = WEIGHTS.get(formula.kind, "weight bias").split()
    if name in also:
        return also[name](world, formula)
    if name in inputs[: len(formula.inputs)]:
        return world[formula.inputs[inputs.index(name)]]
    if name in weights[: len(formula.weights)]:
        return world.weights[formula.weights[weights.index(name)]]
    return formula.facts[name]


def bound(formula: Formula, mistake: Mistake, also: Also) -> Make:
    """A mistake at a step, as a function of the world."""
    names = [p.name for p in inspect.signature(mistake).parameters.values() if p.default is p.empty]
    return lambda world: mistake(*(value_of(world, formula, name, also) for name in names))


class Words(dict[str, Any]):
    """The names in a mistake's words, looked up where they are used."""

    def __init__(self, world: World, formula: Formula, also: Also) -> None:
        super().__init__()
        self.world, self.formula, self.also = world, formula, also

    def __missing__(self, name: str) -> Any:
        return value_of(self.world, self.formula, name, self.also)


def edits(world: World, formula: Formula, table: Table, also: Also) -> Iterator[Edit]:
    """All mistakes of a table at a step."""
    words = Words(world, formula, also)
    for cause, says, mistake in table:
        try:
            spelled = says.format_map(words) if "{" in says else says
        except LookupError:
            continue
        yield Edit(cause, spelled, {formula.name: bound(formula, mistake, also)})
