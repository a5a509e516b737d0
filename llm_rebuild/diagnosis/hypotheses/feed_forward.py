"""Mistakes in the activation and its steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, Value, World
from llm_rebuild.diagnosis.hypotheses.base import Tries


def activations() -> dict[str, Callable[[Tensor], Tensor]]:
    def tanh_gelu(x: Tensor, root: float = math.sqrt(2 / math.pi), cubic: float = 0.044715) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(root * (x + cubic * torch.pow(x, 3.0))))

    return {
        "gelu": F.gelu,
        "gelu_new": tanh_gelu,
        "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
        "relu": F.relu,
        "silu": F.silu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "leaky_relu": F.leaky_relu,
        "elu": F.elu,
        "selu": F.selu,
        "softplus": F.softplus,
        "mish": F.mish,
        "relu6": F.relu6,
        "hardswish": F.hardswish,
        "squared relu": lambda x: F.relu(x).pow(2),
        "hardtanh": F.hardtanh,
        "abs": torch.abs,
        "relu of the negative": lambda x: F.relu(-x),
        "gelu by erf, written out": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        "gelu without the half": lambda x: x * (1.0 + torch.erf(x / math.sqrt(2.0))),
        "gelu without √2": lambda x: x * 0.5 * (1.0 + torch.erf(x)),
        "gelu_new without the cube": lambda x: tanh_gelu(x, cubic=0.0),
        "gelu_new with 0.44715": lambda x: tanh_gelu(x, cubic=0.44715),
        "gelu_new with 0.0447": lambda x: tanh_gelu(x, cubic=0.0447),
        "gelu_new with 0.04": lambda x: tanh_gelu(x, cubic=0.04),
        "gelu_new with 0.04471": lambda x: tanh_gelu(x, cubic=0.04471),
        "gelu_new with √(2π)": lambda x: tanh_gelu(x, root=math.sqrt(2 * math.pi)),
        "gelu_new with 2/π": lambda x: tanh_gelu(x, root=2 / math.pi),
        "gelu_new with √(1/π)": lambda x: tanh_gelu(x, root=math.sqrt(1 / math.pi)),
        "gelu_new with √(2/3)": lambda x: tanh_gelu(x, root=math.sqrt(2 / 3)),
        "gelu_new with √2/π": lambda x: tanh_gelu(x, root=math.sqrt(2) / math.pi),
        "gelu_new with 0.8": lambda x: tanh_gelu(x, root=0.8),
        "gelu_new without √(2/π)": lambda x: tanh_gelu(x, root=1.0),
        "gelu_new without the half": lambda x: 2 * tanh_gelu(x),
        "gelu_new without the 1": lambda x: (
            0.5 * x * torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3)))
        ),
    }


SIGMOIDS = ("quick_gelu",)


def act(world: World, f: Formula) -> Tries:
    x, name = f.facts["x"], f.facts["name"]
    yield "activation-missing", "the tensor went on as it was", lambda w: w[x]
    for other, bend in activations().items():
        if other == name:
            continue
        exact = other in ("gelu", "gelu by erf, written out")
        tanh = other in ("gelu_new", "gelu_pytorch_tanh")
        if (name == "gelu" and exact) or (name in ("gelu_new", "gelu_pytorch_tanh") and tanh):
            cause = "rounding"
        elif exact:
            cause = "gelu-exact" if name in ("gelu_new", "gelu_pytorch_tanh") else "activation-other"
        elif tanh:
            cause = "gelu-tanh" if name == "gelu" else "activation-other"
        elif other in SIGMOIDS:
            cause = "gelu-sigmoid"
        elif other.startswith(("gelu_new with", "gelu with")):
            cause = "gelu-constant"
        elif other == "relu":
            cause = "activation-relu"
        else:
            cause = "activation-other"
        yield cause, f"{other} instead of {name}", lambda w, bend=bend: bend(w[x])  # type: ignore[misc]
    yield "activation-other", "applied twice", lambda w: applied_twice(w, f)
    for narrow in (torch.bfloat16, torch.float16):
        bend_official = activations().get(name)
        if bend_official is not None:
            short = str(narrow).removeprefix("torch.")
            yield (
                "wrong-dtype",
                f"computed in {short}",
                lambda w, t=narrow, b=bend_official: b(w[x].to(t)).float(),  # type: ignore[misc]
            )


def applied_twice(w: World, f: Formula) -> Value:
    bend = activations().get(f.facts["name"])
    return None if bend is None else bend(bend(w[f.facts["x"]]))


def elementwise(world: World, f: Formula) -> Tries:
    if "name" in f.facts:  # the result of GELU's steps
        yield from act(world, f)
        half, gate = f.inputs
        yield "gelu-constant", "x instead of x / 2", lambda w: w[f.facts["x"]] * w[gate]
        yield "activation-missing", "the half alone", lambda w: w[half]
        yield "activation-other", "the gate alone", lambda w: w[gate]
        yield "gelu-constant", "added instead of multiplied", lambda w: w[half] + w[gate]
        return
    step = f.name.rpartition(".")[2]
    x = f.facts["gelu"]
    of = f.inputs[0]
    if step == "half":
        yield "gelu-constant", "x instead of x / 2", lambda w: w[x]
    elif step == "cube":
        for power in (2.0, 4.0, 1.0, 5.0):
            yield "gelu-constant", f"to the power of {power:g}", lambda w, p=power: w[x].pow(p)  # type: ignore[misc]
        yield "rounding", "x · x · x", lambda w: w[x] * w[x] * w[x]
        yield "rounding", "x · x²", lambda w: w[x] * (w[x] * w[x])
    elif step == "steeper":
        cube = f.inputs[1]
        yield "gelu-constant", "minus instead of plus", lambda w: w[x] - w[cube]
        yield "gelu-constant", "the cube alone", lambda w: w[cube]
        yield "gelu-constant", "x alone", lambda w: w[x]
    elif step == "tanh":
        yield "gelu-sigmoid", "a sigmoid instead of tanh", lambda w: torch.sigmoid(w[of])
        yield "gelu-exact", "erf instead of tanh", lambda w: torch.erf(w[of])
        yield "gelu-exact", "erf of x/√2 instead of tanh", lambda w: torch.erf(w[x] / math.sqrt(2.0))
        yield "gelu-constant", "no tanh", lambda w: w[of]
        for other in ("relu", "silu", "hardtanh", "softplus"):
            bend = activations()[other]
            yield "activation-other", f"{other} instead of tanh", lambda w, b=bend: b(w[of])  # type: ignore[misc]
    elif step == "gate":
        yield "gelu-constant", "1 not added", lambda w: w[of]
        yield "gelu-constant", "1 minus instead of 1 plus", lambda w: 1.0 - w[of]
        yield "gelu-constant", "halved", lambda w: 0.5 * (1.0 + w[of])
