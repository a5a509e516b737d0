"""Mistakes in the activation and its steps, and in the gate beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from llm_rebuild.diagnosis.graph import Edit, World
from llm_rebuild.diagnosis.wrong.base import NARROW, Also, Tables
from llm_rebuild.models.formulas import Formula
from llm_rebuild.verify.transforms import ACTIVATIONS, Function

GELU_BY_TANH = ("gelu_new", "gelu_pytorch_tanh")  # two spellings of one function
GELU_EXACT = ("gelu", "gelu by erf, written out")


def gelu_by_tanh(x: Tensor, root: float = math.sqrt(2 / math.pi), cubic: float = 0.044715) -> Tensor:
    """GELU by tanh with its constants as arguments."""
    return 0.5 * x * (1.0 + torch.tanh(root * (x + cubic * torch.pow(x, 3.0))))


# Names of config.json first, then what people write down wrongly.
OTHERS: dict[str, Function] = {
    **ACTIVATIONS,
    "gelu_new": gelu_by_tanh,
    "gelu by erf, written out": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
}
CONSTANTS: dict[str, Function] = {
    "gelu without the half": lambda x: x * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "gelu without √2": lambda x: x * 0.5 * (1.0 + torch.erf(x)),
    "gelu_new without the half": lambda x: 2 * gelu_by_tanh(x),
    "gelu_new without the 1": lambda x: 0.5 * x * torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    "gelu_new without the cube": lambda x: gelu_by_tanh(x, cubic=0.0),
    "gelu_new without √(2/π)": lambda x: gelu_by_tanh(x, root=1.0),
    **{
        f"gelu_new with {c:g}": lambda x, c=c: gelu_by_tanh(x, cubic=c)
        for c in (0.44715, 0.0447, 0.04, 0.04471)
    },
    **{
        f"gelu_new with {says}": lambda x, root=root: gelu_by_tanh(x, root=root)
        for says, root in {
            "√(2π)": math.sqrt(2 * math.pi),
            "2/π": 2 / math.pi,
            "√(1/π)": math.sqrt(1 / math.pi),
            "√(2/3)": math.sqrt(2 / 3),
            "√2/π": math.sqrt(2) / math.pi,
            "0.8": 0.8,
        }.items()
    },
}


def called(other: str, right: str) -> str:
    """What it is to use another activation in the place of the right one."""
    if other in GELU_BY_TANH:
        return {"gelu": "gelu-tanh"}.get(right, "rounding" if right in GELU_BY_TANH else "activation-other")
    if other in GELU_EXACT:
        return (
            "rounding" if right == "gelu" else "gelu-exact" if right in GELU_BY_TANH else "activation-other"
        )
    if other in CONSTANTS:
        return "gelu-constant"
    return {"quick_gelu": "gelu-sigmoid", "relu": "activation-relu"}.get(other, "activation-other")


def act(world: World, formula: Formula) -> Iterator[Edit]:
    """An activation, whatever its steps are."""
    x, right = formula.facts["x"], formula.facts["name"]
    ways: list[tuple[str, str, Function]] = [
        ("activation-missing", "the tensor went on as it was", lambda t: t)
    ]
    for other, bend in {**OTHERS, **CONSTANTS}.items():
        if other != right:
            ways.append((called(other, right), f"{other} instead of {right}", bend))
    bend = OTHERS[right]
    ways.append(("activation-other", "applied twice", lambda t: bend(bend(t))))
    for name, narrow in NARROW.items():
        ways.append(("wrong-dtype", f"computed in {name}", lambda t, n=narrow: bend(t.to(n)).float()))
    for cause, says, way in ways:
        yield Edit(cause, says, {formula.name: lambda w, way=way: way(w[x])})


ALSO: Also = {
    "whole": lambda world, f: world[f.facts["x"]],  # what the activation is given
    "half": lambda world, f: world[f.inputs[0]],
    "gate": lambda world, f: world[f.inputs[1]],
    "cube": lambda world, f: world[f.inputs[1]],
    "x": lambda world, f: world[f.inputs[0]],
}


def _bent(world: World, f: Formula) -> Tensor:
    """The activation on the branch that is not bent officially, and the other as it was."""
    inner = world.formulas[f.inputs[0]]
    return world[inner.facts["x"]] * OTHERS[inner.facts["name"]](world[f.inputs[1]])


ALSO_GATED: Also = {"bent": _bent}


# fmt: off
TABLES: Tables = {
    "gelu ": (ALSO, (
        ("gelu-constant", "x instead of x / 2", lambda whole, gate: whole * gate),
        ("gelu-constant", "added instead of multiplied", lambda half, gate: half + gate),
        ("activation-missing", "the half alone", lambda half: half),
        ("activation-other", "the gate alone", lambda gate: gate),
    )),
    "gelu half": (ALSO, (
        ("gelu-constant", "x instead of x / 2", lambda x: x),
    )),
    "gelu cube": (ALSO, (
        *(("gelu-constant", f"to the power of {power:g}", lambda x, power=power: x.pow(power)) for power in (2.0, 4.0, 1.0, 5.0)),
        ("rounding", "x · x · x", lambda x: x * x * x),
        ("rounding", "x · x²", lambda x: x * (x * x)),
    )),
    "gelu steeper": (ALSO, (
        ("gelu-constant", "minus instead of plus", lambda x, cube: x - cube),
        ("gelu-constant", "the cube alone", lambda cube: cube),
        ("gelu-constant", "x alone", lambda x: x),
    )),
    "gelu tanh": (ALSO, (
        ("gelu-sigmoid", "a sigmoid instead of tanh", lambda x: torch.sigmoid(x)),
        ("gelu-exact", "erf instead of tanh", lambda x: torch.erf(x)),
        ("gelu-exact", "erf of x/√2 instead of tanh", lambda whole: torch.erf(whole / math.sqrt(2.0))),
        ("gelu-constant", "no tanh", lambda x: x),
        *(("activation-other", f"{other} instead of tanh", lambda x, other=other: ACTIVATIONS[other](x)) for other in ("relu", "silu", "hardtanh", "softplus")),
    )),
    "gelu gate": (ALSO, (
        ("gelu-constant", "1 not added", lambda x: x),
        ("gelu-constant", "1 minus instead of 1 plus", lambda x: 1.0 - x),
        ("gelu-constant", "halved", lambda x: 0.5 * (1.0 + x)),
    )),
    "multiply": (ALSO_GATED, (
        ("activation-missing", "one branch alone", lambda a: a),
        ("wrong-operand", "the other branch alone", lambda b: b),
        ("wrong-operand", "added instead of multiplied", lambda a, b: a + b),
        ("wrong-operand", "the activation on the other branch", lambda bent: bent),
    )),
}
# fmt: on
