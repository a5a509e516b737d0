"""Each step of a rebuild that differs, computed in float64 from what went into it: rounding, or a mistake."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.diagnosis.graph import PAST, Make, Value, World
from llm_rebuild.diagnosis.wrong import mistakes
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.equality import as_exact, by_rounding, identical, relative_difference
from llm_rebuild.verify.rounding import INHERITED, MISTAKE, ROUNDING, Rounding


def exact(world: World, rebuilt: Mapping[str, Tensor], truth: Capture, *, fed: bool = False) -> Rounding:
    """Hold every tensor that differs against its step in float64, and the official ones against theirs.

    world    The official run as a graph.
    rebuilt  Tensors by checkpoint name.
    fed      Whether each of them was computed from official ones, or from others that one step made on its
             way, and not from the person's others.
    """
    own = world.given(rebuilt)
    lost = () if fed else tuple(name for name in truth if name not in rebuilt)
    kinds: dict[str, str] = {}
    off: dict[str, tuple[float, float]] = {}
    problems: dict[str, str] = {}
    for name, right in truth.tensors.items():
        tensor = rebuilt.get(name)
        if tensor is None or identical(tensor, right):
            continue
        if tensor.shape != right.shape or tensor.dtype != right.dtype or not right.is_floating_point():
            kinds[name], off[name] = MISTAKE, (math.inf, 0.0)
            continue
        if keeps(world, name) and by_rounding(tensor, right):
            kinds[name], off[name] = ROUNDING, (relative_difference(tensor, right), 0.0)
            continue
        # Both from the same checkpoints: what was not shown is computed on either side.
        step, official_step = in_full(own, name, lost), in_full(world, name, lost)
        if step is None or official_step is None:
            problems[name] = "this step has no formula that could be computed in float64"
            continue
        off[name] = (relative_difference(tensor, step), relative_difference(right, official_step))
        into = [n for n in world.inputs_of(name) if n in rebuilt]
        differing = [n for n in into if not identical(rebuilt[n], truth.tensors[n])]
        near = as_exact(tensor, official_step, right, official_step)
        if fed and (near or is_spelling(world, name, tensor)):
            kinds[name] = ROUNDING
        elif not as_exact(tensor, step, right, official_step) and not is_spelling(own, name, tensor):
            kinds[name] = MISTAKE
        else:
            kinds[name] = ROUNDING if all(kinds.get(n) == ROUNDING for n in differing) else INHERITED
    return Rounding(kinds, off, problems)


def keeps(world: World, name: str) -> bool:
    """Whether a checkpoint is made of keys or values of the pass before. What the rebuild itself kept is not
    known here. The pass was the same computation as one that was found right."""
    steps = world.reaching(name, world.tensors)
    return any(n.startswith(PAST) for step in steps for n in world.formulas[step].inputs)


def is_spelling(world: World, name: str, tensor: Tensor) -> bool:
    """Whether a tensor is its step in another spelling, to the bit: one that rounds large numbers on its way,
    as the logarithm of a softmax does, is no mistake, however far it is from float64."""
    ways = (edit.changes for edit in mistakes(world, world.formulas[name]) if edit.cause == "rounding")
    others = frozenset(world.tensors) - {name}
    spelled = (world.changed(changes, others).attempt(name) for changes in ways)
    return any(guess is not None and identical(tensor, guess) for guess in spelled)


def in_full(
    world: World, name: str, lost: tuple[str, ...] = (), changes: Mapping[str, Make] = MappingProxyType({})
) -> Value:
    """The step that makes a checkpoint, in float64; None where that cannot be computed.

    lost     Checkpoints that were not shown: they are computed from those that were.
    changes  Of these steps, some that are computed in another way.
    """
    formula = world.formulas.get(name)
    if formula is None or formula.kind == "given":
        return None
    shown = set(world.tensors) - set(lost)
    steps = [world.formulas[n] for n in world.reaching(name, shown - {name})]
    read = {n for step in steps for n in (*step.inputs, step.name) if n in shown and n != name}
    wide = world.given({n: _wide(world.tensors[n]) for n in read})
    wide = wide.with_weights({k: _wide(world.weights[k]) for step in steps for k in step.weights})
    anew = {n: lambda w, n=n: w.compute(w.formulas[n]) for n in (name, *lost)} | dict(changes)
    with torch.no_grad():
        return wide.changed(anew, frozenset(shown - anew.keys())).attempt(name)


def _wide(tensor: Any) -> Any:
    """A floating-point tensor in float64, any other, and none, as it is."""
    return tensor if tensor is None or not tensor.is_floating_point() else tensor.detach().double()
