"""Mistakes where two tensors are added: embeddings and residuals."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from llm_rebuild.diagnosis.graph import Edit, World, layer_norm
from llm_rebuild.diagnosis.wrong.base import Also, Tables
from llm_rebuild.models.formulas import Formula


def _other(world: World, f: Formula) -> Tensor:
    return world[next(name for name in f.inputs if name != f.facts["residual"])]


def _norm(world: World, f: Formula) -> Callable[[Tensor], Tensor]:
    norm = world.formulas[f.facts["norm"]]
    weight, bias = (world.weights[key] for key in norm.weights)
    return lambda x: layer_norm(x, weight, bias, eps=norm.facts["eps"])


ALSO: Also = {
    "residual": lambda world, f: world[f.facts["residual"]],
    "new": _other,
    "norm": _norm,
    "first": lambda world, f: f.inputs[0],
    "second": lambda world, f: f.inputs[1],
    "width": lambda world, f: world[f.inputs[0]].shape[-1],
}


def add(world: World, formula: Formula) -> Iterator[Edit]:
    """One of the two left out."""
    residual, lack = formula.facts.get("residual"), formula.facts.get("lack", {})
    a, b = formula.inputs
    for absent, present in ((a, b), (b, a)):
        cause = lack.get(absent, "residual-missing" if absent == residual else "wrong-operand")
        says = f"{present.replace('#', '')} alone, without {absent.replace('#', '')}"
        yield Edit(cause, says, {formula.name: lambda w, present=present: w[present]})


# new: what the half-block made; residual: what it was given


# fmt: off
TABLES: Tables = {
    "residual": (ALSO, (
        ("residual-scaled", "the residual twice", lambda new, residual: new + residual + residual),
        ("residual-scaled", "the result twice", lambda new: new + new),
        ("residual-scaled", "result minus residual", lambda new, residual: new - residual),
        ("residual-scaled", "residual minus result", lambda new, residual: residual - new),
        ("residual-scaled", "the sum halved", lambda new, residual: (new + residual) * 0.5),
        ("residual-scaled", "the sum divided by √2", lambda new, residual: (new + residual) / 2**0.5),
        ("residual-scaled", "the product of both", lambda new, residual: new * residual),
        ("residual-scaled", "the residual halved", lambda new, residual: new + 0.5 * residual),
        ("residual-scaled", "the result halved", lambda new, residual: 0.5 * new + residual),
        ("norm-position", "the result was normalised before the residual was added", lambda new, residual, norm: norm(new) + residual),
        ("norm-position", "the residual was normalised before it was added", lambda new, residual, norm: norm(residual) + new),
    )),
    "add": (ALSO, (
        ("wrong-operand", "{second} subtracted", lambda a, b: a - b),
        ("wrong-operand", "multiplied instead of added", lambda a, b: a * b),
    )),
}
# fmt: on
