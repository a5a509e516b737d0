"""Formulas for a model that nobody has written any for: guessed from its trace, kept where they are right.

A trace says what made each tensor and what went into it. For the usual kinds of steps (linear layers, norms,
activations, products, sums, …) that is nearly the formula. What is missing, an epsilon or how heads are cut,
is tried; only a formula that gives the official tensor to the bit is kept. A step without one is not
diagnosed by computation, and everything else is said of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.diagnosis.graph import BASES, Run, Value, World, sizes_of
from llm_rebuild.models.formulas import DECODER_IDS, DECODER_MASK, MASK, TOKEN_IDS, Formula
from llm_rebuild.models.ops import ACTIVATIONS
from llm_rebuild.verify.any_model import Step
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.equality import identical

EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-7, 0.0)
# Operations inside an RMS norm that is written out, and the kinds of steps that they are.
NORM_STEPS = {
    "pow": "square",
    "mean": "mean square",
    "add": "plus eps",
    "rsqrt": "inverse root",
    "mul": "multiply",
}


def world_of_any(truth: Capture, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> World:
    """The graph of a captured run of any model, as far as its formulas could be found."""
    known: dict[str, Value] = {
        TOKEN_IDS: truth.inputs.token_ids,
        MASK: truth.inputs.mask,
        DECODER_IDS: truth.inputs.decoder_ids,
        DECODER_MASK: truth.inputs.decoder_mask,
        **truth.tensors,
    }
    bases = [*_numbers(config), *BASES]
    run = Run(truth.attention == "sdpa", sizes_of(config), _blocks(truth.tensors))
    world = World({}, known, weights, run)
    formulas: dict[str, Formula] = {}
    for name, step in truth.steps.items():
        if name in truth.tensors:
            for guess in (*_guesses(name, step, truth, world, formulas), *_angles(name, step, truth, bases)):
                trial = replace(world, formulas={**formulas, **{f.name: f for f in guess}})
                if _right(trial, guess[-1], truth.tensors[name]):
                    formulas |= {f.name: f for f in guess}
                    break
            else:
                formulas[name] = Formula(name, "given")
    return replace(world, formulas=formulas)


def _blocks(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """What blocks hand on: a block is a module whose name is a number. What goes into the first is the last
    tensor of that shape before it."""
    blocks = {name: int(last) for name in tensors if (last := name.rpartition(".")[2]).isdigit()}
    first = next(iter(blocks), "")
    for name, tensor in tensors.items():
        if any(word.isdigit() for word in name.split(".")):
            break
        if first and tensor.shape == tensors[first].shape:
            blocks = {n: b for n, b in blocks.items() if b >= 0} | {name: -1}
    return blocks


def _right(world: World, formula: Formula, official: Tensor) -> bool:
    value = world.attempt(formula)
    return value is not None and identical(value, official)


def _guesses(
    name: str, step: Step, truth: Capture, world: World, found: Mapping[str, Formula]
) -> Iterator[list[Formula]]:
    """What the step may be, each with the steps in between that it needs, itself last."""
    inputs = tuple(step.given or step.inputs) if step.kind[0].isupper() else tuple(step.inputs)
    if not all(x in truth.tensors for x in inputs):  # a capture that was narrowed has not all of them
        return
    shape = truth.tensors[name].shape
    if step.same_as is not None:
        yield [Formula(name, "same", (step.same_as,))]
        return
    weight, bias = _key(name, "weight", world.weights), _key(name, "bias", world.weights)
    kind = step.kind
    if "embedding" in kind.lower():
        keys = [weight] if weight else [k for k, w in world.weights.items() if w.shape[-1:] == shape[-1:]]
        for key in keys:
            yield from _lookup(name, key)
        for x in inputs[:1]:  # which a module of its own hands on, perhaps after a factor
            yield [Formula(name, "same", (x,))]
            for scaled in _scale(name, x, truth):
                yield [replace(f, facts={**f.facts, "embedding": True}) for f in scaled]
    elif kind in ("Linear", "Conv1D"):
        yield from _linear(name, kind, inputs, (weight, bias), world, found)
    elif "Norm" in kind and weight:
        yield from _norm(name, step, inputs, weight, bias, found)
    elif kind in NORM_STEPS and "norm" in step.path.lower():
        yield from _norm_step(name, step, truth)
    elif kind == "where" and len(shape) == 4:
        for mask, ids in ((MASK, TOKEN_IDS), (DECODER_MASK, DECODER_IDS), (MASK, DECODER_IDS)):
            for causal in (True, False):
                yield [Formula(name, "mask", (mask, ids), facts={"causal": causal})]
    elif len(inputs) == 1 and (kind[0].isupper() or kind in ACTIVATIONS):
        for activation in ACTIVATIONS:
            yield [Formula(name, "act", inputs, facts={"name": activation, "whole": inputs[0]})]
    elif kind in ("matmul", "bmm") and len(inputs) == 2:
        yield from _product(name, inputs, truth)
    elif kind == "softmax" and len(inputs) == 1:
        yield [Formula(name, "softmax", inputs)]
    elif kind in ("mul", "div") and len(inputs) == 1:
        yield from _scale(name, inputs[0], truth)
    parts = tuple(x for x in step.inputs if x in truth.tensors)
    if len(parts) < len(step.inputs):
        return
    if len(parts) == 1 and len(shape) == 3 and truth.tensors[parts[0]].dim() == 4:
        yield [Formula(name, "merge", parts)]
    if len(parts) != 2:
        return
    if kind == "add" and len(shape) == 4:
        yield from _rotation(name, step, truth, found)
    for x, mask in (parts, parts[::-1]):
        if len(shape) == 4 and float(truth.tensors[mask].min()) < -1e3:
            yield [Formula(name, "add mask", (x, mask))]
    residual = min(parts, key=list(truth.tensors).index)
    in_a_block = any(word.isdigit() for word in name.split(".")) and len(shape) == 3
    yield [Formula(name, "add", parts, facts={"residual": residual} if in_a_block else {})]
    yield [Formula(name, "multiply", parts)]


def _lookup(name: str, key: str) -> Iterator[list[Formula]]:
    for ids in (TOKEN_IDS, DECODER_IDS):
        yield [Formula(name, "lookup", (ids,), (key,), {"what": "token"})]
        for kind, inputs in (("positions", (ids, ids)), ("counted", (MASK,))):
            for first in (0, 1, 2):
                places = Formula(f"{name}.#positions", kind, inputs, facts={"first": first})
                yield [places, Formula(name, "lookup", (places.name,), (key,), {"what": "position"})]
        types = Formula(f"{name}.#types", "types", (ids,))
        yield [types, Formula(name, "lookup", (types.name,), (key,), {"what": "type"})]


def _numbers(config: Mapping[str, Any]) -> Iterator[float]:
    """The numbers of a config.json, and of what is inside it."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int | float) and value > 1:
            yield float(value)


def _angles(name: str, step: Step, truth: Capture, bases: Sequence[float]) -> Iterator[list[Formula]]:
    """Sines and cosines by which rotary positions turn: of which base, the numbers of config.json tell."""
    if "rotary" in step.path.lower():
        width = truth.tensors[name].shape[-1]
        for wave in ("cos", "sin") if truth.tensors[name].dim() == 3 and width % 2 == 0 else ():
            for base in bases:
                facts = {"base": base, "width": width, "wave": wave}
                yield [Formula(name, "angles", (TOKEN_IDS,), facts=facts)]


def _rotation(name: str, step: Step, truth: Capture, found: Mapping[str, Formula]) -> Iterator[list[Formula]]:
    """x · cos + (x with its halves exchanged) · sin: two products with a table each."""
    products = [truth.steps[i].inputs for i in step.inputs if truth.steps[i].kind == "mul"]
    if len(products) != 2:
        return
    (x, cos), (_, sin) = products
    heads = truth.tensors[name].shape[1]
    role = "key" if f"{step.path}.#query" in found else "query"
    cut = Formula(f"{step.path}.#{role}", "split", (x,), facts=_cut(step.path, role, heads))
    yield [cut, Formula(name, "rotate", (cut.name, cos, sin))]


def _key(path: str, word: str, weights: Mapping[str, Tensor]) -> str:
    """The key of a module's weight. A file saved without its head lacks the first word of the path."""
    words = path.split(".")
    for start in range(len(words)):
        key = ".".join([*words[start:], word])
        if key in weights:
            return key
    return ""


def _linear(
    name: str,
    kind: str,
    inputs: tuple[str, ...],
    keys: tuple[str, str],
    world: World,
    found: Mapping[str, Formula],
) -> Iterator[list[Formula]]:
    (weight, bias), group = keys, f"{name.rpartition('.')[0]}."
    width = world[name].shape[-1]
    facts: dict[str, Any] = {"group": group}
    others = [f for f in found.values() if f.facts.get("group") == group and f.kind == "linear"]
    tables = [k for k, w in world.weights.items() if w.dim() == 2 and w.shape[0] == width]
    if not weight or name.endswith(("head", "embed_out")):  # without one it is tied to the token table
        facts = {"head": True}
    for x in inputs:
        before: list[Formula] = []
        if others and x not in others[0].inputs and part_of(x) != part_of(name):
            facts = {**facts, "cross": x}  # not from where its neighbours are: from another text
        if world[x].dim() == 4:  # by head: to be merged first
            before, x = [Formula(f"{name}.#context", "merge", (x,))], f"{name}.#context"
        elif world[x].dim() > world[name].dim():
            before, x = [Formula(f"{name}.#first", "first token", (x,))], f"{name}.#first"
        for key in [weight] if weight else tables:
            used = (key, bias) if bias else (key,)
            kinds = ("conv1d",) if kind == "Conv1D" else ("linear",)
            yield from ([*before, Formula(name, k, (x,), used, facts)] for k in kinds)


def _norm(
    name: str, step: Step, inputs: tuple[str, ...], weight: str, bias: str, found: Mapping[str, Formula]
) -> Iterator[list[Formula]]:
    for x in inputs if bias else ():
        for eps in EPSILONS:
            yield [Formula(name, "layer norm", (x,), (weight, bias), {"eps": eps})]
    inside = [f.facts["eps"] for n, f in found.items() if n.startswith(f"{step.path}.") and "eps" in f.facts]
    facts = {"whole": inputs[0] if inputs else "", "norm": name, "eps": inside[0] if inside else 1e-6}
    for x in step.inputs:
        yield [Formula(name, "stretch", (x,), (weight,), facts)]


def _norm_step(name: str, step: Step, truth: Capture) -> Iterator[list[Formula]]:
    kind = NORM_STEPS[step.kind]
    into = truth.steps[step.path].given if step.path in truth.steps else ()
    facts: dict[str, Any] = {"whole": into[0] if into else step.inputs[0], "norm": step.path}
    if kind == "plus eps":
        yield from ([Formula(name, kind, tuple(step.inputs), facts={**facts, "eps": e})] for e in EPSILONS)
    else:
        yield [Formula(name, kind, tuple(step.inputs), facts=facts)]
    x, shape = step.inputs[0], truth.tensors[name].shape
    if (
        truth.tensors[x].dim() == 3 and len(shape) == 4
    ):  # a norm of each head: queries and keys often have one
        cut = Formula(f"{step.path}.#heads", "by head", (x,), facts={"heads": shape[2]})
        whole = {**facts, "whole": cut.name}
        yield [cut, Formula(name, kind, (cut.name, *step.inputs[1:]), facts=whole)]


def _product(name: str, inputs: tuple[str, ...], truth: Capture) -> Iterator[list[Formula]]:
    """Query times key, or shares times value; the second may have to be cut into heads, or shared by some."""
    a, b = inputs
    path, shape = name.rpartition(".")[0], truth.tensors[name].shape
    if truth.tensors[a].dim() != 4:
        for heads in shape[1:2] if len(shape) == 4 else ():
            cuts = [
                Formula(f"{path}.#{role}", "split", (x,), facts=_cut(path, role, heads))
                for role, x in (("query", a), ("key", b))
            ]
            yield [*cuts, Formula(name, "product", (cuts[0].name, cuts[1].name))]
        return
    heads, other = truth.tensors[a].shape[1], truth.tensors[b]
    for kind in ("product", "mix"):
        yield [Formula(name, kind, (a, b))]
        role = "key" if kind == "product" else "value"
        width = other.shape[-1]
        for count in [other.shape[1]] if other.dim() == 4 else range(heads, 0, -1):
            if heads % count or (other.dim() == 3 and width % count):
                continue
            cuts, x = [], b
            if other.dim() == 3:
                cuts.append(Formula(f"{path}.#{role}", "split", (x,), facts=_cut(path, role, count)))
                x = cuts[-1].name
            if count < heads:  # heads that several queries share
                cuts.append(Formula(f"{name}.#shared", "repeat", (x,), facts={"times": heads // count}))
                x = cuts[-1].name
            yield [*cuts, Formula(name, kind, (a, x))]


def _cut(path: str, role: str, heads: int) -> dict[str, Any]:
    return {"heads": heads, "group": f"{path}.#", "name": role}


def _scale(name: str, x: str, truth: Capture) -> Iterator[list[Formula]]:
    before, after = truth.tensors[x].double().flatten(), truth.tensors[name].double().flatten()
    usual = (before.abs() > 1e-6) & (before.abs() < 1e6)
    if before.shape != after.shape or not bool(usual.any()):
        return
    factor = float((after[usual] / before[usual]).median())
    if factor > 0:
        width = round(factor**-2)
        for by in (width**-0.5 if width else factor, float(factor)):
            yield [Formula(name, "scale", (x,), facts={"by": by})]
