"""What can be done at any step, whatever it is: another tensor goes in, another weight, or something is done
to a tensor on its way.

Each is generated from the step's own signature: its inputs, its weights, its result. What is peculiar to a
kind of step, a wrong fact included, stands in `wrong/`; what an edit is called, in `names.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.diagnosis import names
from llm_rebuild.diagnosis.graph import MINE, Edit, Formula, Make, Value, World, layer_norm
from llm_rebuild.verify import transforms
from llm_rebuild.verify.transforms import Function

# Kinds of steps that compute no number.
MOVES = {"same", "split", "merge", "by head", "by token", "cat", "repeat", "grouped", "mask", "given"}
TURNED = " (transposed)"  # follows the key of a weight

Transform = tuple[str, str, Function]  # the kind of edit, in words, and what is done


def other_inputs(world: World, formula: Formula) -> Iterator[tuple[str, str, Formula]]:
    """Every other known tensor in the place of each that goes in: where, which, and the changed step."""
    for slot, right in enumerate(formula.inputs):
        official = world.value(right)
        if official is None or not official.is_floating_point():
            continue
        for name, tensor in world.tensors.items():
            if name in (right, MINE + formula.name) or tensor is None or not tensor.is_floating_point():
                continue
            if tensor.shape[1:] == official.shape[1:] and may_be_later(world, formula, right, name):
                inputs = (*formula.inputs[:slot], name, *formula.inputs[slot + 1 :])
                yield right, name, replace(formula, inputs=inputs)


def may_be_later(world: World, formula: Formula, right: str, name: str) -> bool:
    """Whether a tensor can have gone in here. One of the person's own, which differs, can, although this step
    is the first that differs, only where blocks or halves of a block run in another order."""
    if not name.startswith(MINE):
        return True
    other, blocks = name.removeprefix(MINE), world.run.blocks
    return (right in blocks and other in blocks) or names.after_its_half_block(formula, other)


def other_weights(world: World, formula: Formula) -> tuple[World, list[Formula]]:
    """The same step with weights of another part, all of them or one; and the world that holds them."""
    if not formula.weights:
        return world, []
    shapes = [world.weights[key].shape for key in formula.weights]
    tried: list[tuple[str, ...]] = []
    if len(formula.weights) > 1:
        last = [key.rpartition(".")[2] for key in formula.weights]
        for key in world.weights:
            path, _, word = key.rpartition(".")
            keys = tuple(f"{path}.{w}" for w in last)
            if word == last[0] and all(k in world.weights for k in keys):
                tried.append(keys)
    for slot, right in enumerate(formula.weights):
        shape, linear = shapes[slot], formula.kind in ("linear", "conv1d")
        others = [k for k, w in world.weights.items() if k != right and w.dim() == len(shape)]
        if linear and len(shape) == 2:
            others += [k + TURNED for k, w in world.weights.items() if w.shape[::-1] == shape and k != right]
        tried += [(*formula.weights[:slot], key, *formula.weights[slot + 1 :]) for key in others]
    keys_turned = {k for keys in tried for k in keys if k.endswith(TURNED)}
    world = world.with_weights({k: world.weights[k.removesuffix(TURNED)].mT for k in keys_turned})
    return world, [
        replace(formula, weights=keys)
        for keys in tried
        if keys != formula.weights
        and (formula.kind == "lookup" or [world.weights[k].shape for k in keys] == shapes)
    ]


def on_a_tensor(world: World, x: Tensor) -> Iterator[Transform]:
    """All that is tried on a tensor that goes into a step or comes out of it."""
    for name, dtype in transforms.NARROW.items():
        yield names.NARROW, f"kept in {name}", lambda t, d=dtype: transforms.narrowed(t, d)
    yield from _norms(world, x)
    if x.dim() == 4:
        yield from ((names.MOVED, says, do) for says, do in transforms.shared_heads(x))
    for says, do in (*transforms.layouts(x), *transforms.omissions(x)):
        yield names.MOVED, says, do
    yield from ((names.OTHER, says, do) for says, do in transforms.OF_ROWS.items())
    yield names.SHIFT, "its log-softmax", lambda t: t.log_softmax(-1)
    for says in ("relu", "tanh", "gelu", "gelu_new", "silu", "sigmoid"):
        yield names.RELU if says == "relu" else names.BENT, f"{says} of it", transforms.ACTIVATIONS[says]
    for bound in (1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 20.0, 30.0, 50.0, 100.0, 1e4):
        yield names.OTHER, f"cut off at ±{bound:g}", lambda t, b=bound: t.clamp(-b, b)
    yield names.FACTOR, "negated", torch.neg
    mask = world.tensors.get("#mask")
    if mask is not None and x.dim() == 3 and x.shape[:2] == mask.shape:
        real = mask.unsqueeze(-1)
        yield names.OTHER, "padding set to 0", lambda t: t * real
    for says, by in transforms.factors(x.shape[-1]).items():
        yield names.FACTOR, says, lambda t, by=by: t * by


def _norms(world: World, x: Tensor) -> Iterator[Transform]:
    """Any norm of the file, and norms without weights."""
    for norm in world.formulas.values():
        weights = [world.weights[key] for key in norm.weights]
        if norm.kind in ("layer norm", "stretch") and weights[0].shape[0] == x.shape[-1]:
            says = f"normalised once more, by {norm.name}"
            yield names.NORM, says, lambda t, f=norm, w=weights: _normed(f, w, t)
    for eps in transforms.EPSILONS:
        for says, do in (("a LayerNorm", transforms.layer_norm), ("an RMS norm", transforms.rms_norm)):
            yield names.NORM, f"{says} without weights (epsilon {eps:g})", lambda t, e=eps, do=do: do(t, e)


def _normed(norm: Formula, weights: list[Tensor], x: Tensor) -> Tensor:
    if norm.kind == "stretch":
        return weights[0] * transforms.rms_norm(x, norm.facts["eps"])
    return layer_norm(x, *weights, eps=norm.facts["eps"])


OF_WEIGHTS: Mapping[str, Function] = {
    "in reverse": lambda t: t.flip(-1),
    "moved by one": lambda t: t.roll(1, 0),
    "brought to length 1": transforms.to_length_one,
    "its mean": lambda t: t.mean().expand_as(t),
    "its absolute value": torch.abs,
    "its exponential": torch.exp,
    "1 added": lambda t: 1 + t,
}


def on_a_weight(formula: Formula, weight: Tensor) -> Iterator[Transform]:
    """All that is tried on a weight of a step."""
    if weight.dim() == 2:
        turned = weight.T.shape
        yield names.MOVED, "brought into the other shape and transposed", lambda t: t.reshape(turned).T
        if formula.kind == "lookup" and turned[0] == turned[1]:
            yield names.MOVED, "transposed", lambda t: t.T
        yield names.OTHER, "the first row set to 0", lambda t: transforms.zeroed(t, 0, 0)
    rows = "moved by one" if formula.kind == "lookup" else ""  # which are other ids
    yield from ((names.OTHER, says, do) for says, do in OF_WEIGHTS.items() if says != rows)
    for says, by in transforms.factors(weight.shape[-1]).items():
        yield names.FACTOR, says, lambda t, by=by: t * by


# ------------------------------------------------------------------------------- the step itself

OPERATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]]
OPERATORS = {"+": torch.add, "-": torch.sub, "×": torch.mul, "÷": torch.div}
EPSILONS = (1e-5, 1e-12, 1e-6, 1e-8, 1e-3, 1e-4, 1e-7, 1e-10, 1e-9, 1e-2, 1e-15, 0.1)


def on_a_step(world: World, formula: Formula) -> Iterator[Edit]:
    """A step that was left out, done twice, in a narrower type, with another operation or another number."""
    name = formula.name
    result = world.value(name)
    if result is not None and result.is_floating_point() and formula.kind not in MOVES:
        yield from _left_out(world, formula, result)
        yield from _otherwise(world, formula, result)
    for fact, values in rivals(world, formula).items():
        for value in values:
            if value != formula.facts[fact]:
                changed = replace(formula, facts={**formula.facts, fact: value})
                of = fact.replace("_", " ")
                says = f"{of}: {_spelled(fact, value)} instead of {_spelled(fact, formula.facts[fact])}"
                yield Edit(names.of_fact(formula, fact), says, {name: lambda w, f=changed: w.compute(f)})


def _spelled(fact: str, value: Any) -> str:
    return transforms.spelled(value) if isinstance(value, float) and fact == "by" else str(value)


def _left_out(world: World, formula: Formula, result: Tensor) -> Iterator[Edit]:
    if formula.kind == "lookup":
        zeros: Make = lambda w: torch.zeros_like(result)  # noqa: E731
        yield Edit(names.of_result(formula, names.LEFT), "zeros instead", {formula.name: zeros})
    tensors = {p: world.attempt(p) for p in (*formula.inputs, formula.facts.get("whole", "")) if p}
    alike = [p for p, t in tensors.items() if t is not None and t.shape[1:] == result.shape[1:]]
    for present in alike if formula.kind not in ("linear", "conv1d") else ():
        says = f"{present.replace('#', '')} alone" if len(alike) > 1 else "left out"
        change: dict[str, Make] = {formula.name: lambda w, present=present: w[present]}
        yield Edit(names.left_out(world, formula, present), says, change)
    for key in formula.weights:
        if world.weights[key].dim() == 1:
            nothing = torch.zeros_like if key.endswith("bias") else torch.ones_like
            for action, says, do in (
                (names.LEFT, "not used", nothing),
                (names.FACTOR, "negated", torch.neg),
                (names.FACTOR, "twice", lambda t: t + t),
            ):
                other = world.with_weights({key: do(world.weights[key])})
                cause = names.of_weight(formula, key, action)
                make: Make = lambda w, other=other: other.compute(formula)  # noqa: E731
                yield Edit(cause, f"{key} {says}", {formula.name: make})


def _otherwise(world: World, formula: Formula, result: Tensor) -> Iterator[Edit]:
    name, values = formula.name, [world.value(i) for i in formula.inputs]
    for right, tensor in zip(formula.inputs, values, strict=True):
        if tensor is not None and tensor.shape == result.shape and tensor.dtype == result.dtype:
            make: Make = lambda w, right=right: w.given({right: w.compute(formula)}).compute(formula)  # noqa: E731
            yield Edit(names.of_twice(world, formula, right), "done twice", {name: make})
    operands = [*values, *(world.weights[key] for key in formula.weights)]
    if formula.kind in names.BINARY and len(operands) == 2 and all(o is not None for o in operands):
        for sign, operator in OPERATORS.items():
            make = lambda w, do=operator: do(*operands)  # noqa: E731
            yield Edit(
                names.of_operator(formula, sign), f"its two parts put together by {sign}", {name: make}
            )
    for says, dtype in transforms.NARROW.items():
        for how in ("computed", "inputs kept", "weights kept"):
            make = lambda w, how=how, dtype=dtype: _narrowly(w, formula, how, dtype)  # noqa: E731
            yield Edit(names.ANYWHERE[names.NARROW], f"{how} in {says}", {name: make})


def _narrowly(world: World, formula: Formula, how: str, dtype: torch.dtype) -> Value:
    """A step with its inputs or its weights kept in a narrower type, or computed in it."""
    wide = torch.float32 if how != "computed" else dtype
    values = {i: world.value(i) for i in formula.inputs if how != "weights kept"}
    floats = {i: t.to(dtype).to(wide) for i, t in values.items() if t is not None and t.is_floating_point()}
    used = formula.weights if how != "inputs kept" else ()
    weights = {key: world.weights[key].to(dtype).to(wide) for key in used}
    result = world.given(floats).with_weights(weights).compute(formula)
    return None if result is None else result.float()


def rivals(world: World, formula: Formula) -> dict[str, Sequence[Any]]:
    """For each number of a step, what people write in its place."""
    facts = formula.facts
    tried: dict[str, Sequence[Any]] = {}
    if formula.kind in ("layer norm", "plus eps"):
        tried["eps"] = EPSILONS
    if formula.kind == "buckets":
        tried["both_ways"] = (not facts["both_ways"],)
        tried["count"] = [n for n in (facts["count"] // 2, facts["count"] - 1) if n > 3]
        tried["limit"] = (facts["limit"] // 2, facts["limit"] * 2)
    if formula.kind == "scale":
        width, sizes = round(facts["by"] ** -2) if facts["by"] else 0, dict.fromkeys(world.run.sizes.values())
        sizes |= {width: None, world[formula.inputs[0]].shape[-1]: None}
        tried["by"] = [f for n in sizes if n for f in (n**-0.5, 1 / n, n**0.5, float(n))]
    return tried
