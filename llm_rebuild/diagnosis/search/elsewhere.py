"""The second round of a diagnosis: the same step with another tensor or another weight put in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from llm_rebuild.checkpoints import part_of
from llm_rebuild.diagnosis.case import MINE, Case, Found, block_output
from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses import Hypothesis
from llm_rebuild.diagnosis.search.known import contradicted, fits, worth_it
from llm_rebuild.verify.equality import identical, reproduces
from llm_rebuild.weights import template

# Seconds for the search among all tensors and weights, which in a large model with few checkpoints is long.
PATIENCE = 4.0


TURNED = " (transposed)"  # follows the key of a weight


def elsewhere(case: Case, world: World) -> Iterator[Found]:
    """The same steps with another tensor put in, or with another weight."""
    assert case.target is not None
    until = time.monotonic() + PATIENCE
    for site in world.reaching(case.target, case.same):
        formula = world.formulas[site]
        for search in (other_inputs, other_weights, twice):
            for found in search(case, world, formula):
                yield found
                if found.level == 2 and site != case.target:
                    return
            if time.monotonic() > until:
                return  # a step far from the last one that is right, in a large model


def other_inputs(case: Case, world: World, formula: Formula) -> Iterator[Found]:
    for slot, right in enumerate(formula.inputs):
        official = world.value(right)
        if official is None or not official.is_floating_point():
            continue
        for name, tensor in list(world.known.items()):
            if name == right or tensor is None or tensor.shape[1:] != official.shape[1:]:
                continue
            if not tensor.is_floating_point() or name == MINE + formula.name:
                continue
            if name.startswith(MINE) and not may_be_later(world, formula, right, name):
                continue
            inputs = (*formula.inputs[:slot], name, *formula.inputs[slot + 1 :])
            changed = replace(formula, inputs=inputs)
            if not worth_it(case, changed, world, {i: world.value(i) for i in inputs}):
                continue
            only_here = Hypothesis("", "", {formula.name: lambda w, c=changed: world.compute(c)})  # type: ignore[misc]
            level = fits(case, world, only_here)
            if level:
                for cause, says, change in causes_of_input(case, world, formula, right, name):
                    hypothesis = Hypothesis(cause, says, change or only_here.changes)
                    if change is not None and contradicted(case, world, hypothesis):
                        continue
                    yield Found(cause, says, level, 0.97 if level == 2 else 0.88, hypothesis=hypothesis)


def may_be_later(world: World, f: Formula, right: str, name: str) -> bool:
    """Whether a tensor of the person's own, which differs, can have gone in here although this step is the
    first that differs: only where blocks or halves of a block run in another order."""
    shown = name.removeprefix(MINE)
    blocks = block_output(world, right) is not None and block_output(world, shown) is not None
    after = part_of(shown) == part_of(f.name) and (f.kind == "layer norm" or "norm" in f.facts)
    return blocks or after


def causes_of_input(
    case: Case, world: World, f: Formula, right: str, name: str
) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """What it can mean that `name` went in where `right` belongs: the cause, in words, and what would then
    be changed if it is more than this step."""
    shown = name.removeprefix(MINE)
    own = "your own " if name.startswith(MINE) else ""
    says = f"{own}{shown.replace('#', '')} went in instead of {right.replace('#', '')}"
    everywhere = {right: lambda w: world.value(name)}
    into, came = block_output(world, right), block_output(world, shown)
    before = world.formulas.get(right)
    if into is not None and came is not None and f.facts.get("residual") != right:
        if own:
            yield "block-order", f"{says}: another block ran before", None
        elif came <= into:
            yield "block-skipped", f"{says}: what lies between was left out", everywhere
            yield "wrong-input", says, None
        else:
            yield "block-repeated", f"{says}: this block ran before already", everywhere
    elif f.facts.get("norm") == shown:
        yield "norm-twice", says, None
    elif own and part_of(shown) == part_of(f.name) and (f.kind == "layer norm" or "norm" in f.facts):
        yield "norm-position", f"{says}: the norm stands after the half-block", None
    elif right.startswith("#past."):
        yield "cache-order", says, None
    elif f.facts.get("cross") == right:
        yield "cross-attention-source", says, None
    elif f.facts.get("residual") == right:
        yield "residual-wrong", says, None
    elif f.kind == "add bias" and right == f.inputs[1]:
        yield "position-bias-wrong", says, None
    elif f.kind in ("product", "mix", "multiply", "add"):
        yield "wrong-operand", says, None
    elif before is not None and before.kind == "scale" and before.facts.get("output"):
        yield "output-scale-missing", says, None
    else:
        computed = right in case.same
        source = before.facts.get("norm of", before.inputs[0] if before.inputs else "") if before else ""
        left_out = before is not None and shown == source and before.kind in ("layer norm", "stretch")
        bent = before is not None and before.kind in ("act", "elementwise") and shown == before.facts.get("x")
        if left_out and not computed:
            yield "norm-missing", f"{says}: what should have been normalised first", None
        elif bent:
            yield "activation-missing", says, None
        if right in world.formulas and world.formulas[right].facts.get("residual") and not own:
            yield "wrong-input", says, None
            yield "block-skipped", f"{says}: the half-block between them has no effect", everywhere
        else:
            yield "wrong-input", says, None
        if left_out and computed:
            yield "norm-missing", f"{says}: what should have been normalised first", None


def twice(case: Case, world: World, formula: Formula) -> Iterator[Found]:
    """What goes in went through its block, or through a part of it, a second time."""
    for right in formula.inputs:
        value = world.value(right)
        if value is None or right not in world.formulas or value.dim() != 3:
            continue
        if block_output(world, right) is None and "residual" not in world.formulas[right].facts:
            continue
        part = world.reaching(right, ())[1:]
        upstream = [n for n in part if n in world.known and world.known[n] is not None]
        for start in upstream[:60]:
            tensor = world.known[start]
            if tensor is None or tensor.shape != value.shape or not tensor.is_floating_point():
                continue
            again = Hypothesis("block-repeated", "", {start: lambda w, r=right: world.value(r)})  # type: ignore[misc]
            second = world.changed(again.changes, case.same - {right, *part}).attempt(right)
            if second is None:
                continue
            change = {right: lambda w, s=second: s}
            hypothesis = Hypothesis("block-repeated", "", change)  # type: ignore[arg-type]
            level = fits_through(case, world, hypothesis)
            if level:
                between = [n for n in part if start in world.reaching(n, ())[1:]]
                kinds = {world.formulas[n].kind for n in (right, *between)}
                norm = kinds <= {
                    "layer norm",
                    "square",
                    "mean square",
                    "plus eps",
                    "inverse root",
                    "multiply",
                    "stretch",
                }
                cause = "norm-twice" if norm else "block-repeated"
                yield Found(
                    cause,
                    f"what lies between {start} and {right} ran twice",
                    level,
                    0.95,
                    hypothesis=hypothesis,
                )
                return


def fits_through(case: Case, world: World, hypothesis: Hypothesis) -> int:
    """As `fits`, for a change before the target of a checkpoint that the person has right."""
    assert case.target is not None
    fixed = case.same - set(hypothesis.changes)
    guess = world.changed(hypothesis.changes, fixed).value(case.target)
    return 0 if guess is None else reproduces(case.narrowed(guess), case.mine, case.official)


def other_weights(case: Case, world: World, formula: Formula) -> Iterator[Found]:
    """The same step with weights of another part: all of them, or one."""
    if not formula.weights:
        return
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
        alike = [k for k in world.weights if k != right and world.weights[k].dim() == len(shapes[slot])]
        tried += [(*formula.weights[:slot], key, *formula.weights[slot + 1 :]) for key in alike]
        if formula.kind in ("linear", "conv1d") and len(shapes[slot]) == 2:
            turned = [k for k in world.weights if world.weights[k].shape[::-1] == shapes[slot] and k != right]
            tried += [(*formula.weights[:slot], k + TURNED, *formula.weights[slot + 1 :]) for k in turned]
    world = world.with_weights(
        {k: world.weights[k.removesuffix(TURNED)].mT for keys in tried for k in keys if k.endswith(TURNED)}
    )
    for keys in tried:
        if keys == formula.weights:
            continue
        if formula.kind != "lookup" and [world.weights[k].shape for k in keys] != shapes:
            continue
        changed = replace(formula, weights=keys)
        if not worth_it(case, changed, world, {i: world.value(i) for i in formula.inputs}):
            continue
        hypothesis = Hypothesis("wrong-weight", "", {formula.name: lambda w, c=changed: world.compute(c)})  # type: ignore[misc]
        level = fits(case, world, hypothesis)
        if level:
            cause, says = cause_of_weights(case, world, formula, keys)
            yield Found(cause, says, level, 0.97 if level == 2 else 0.88, hypothesis=hypothesis)


def cause_of_weights(case: Case, world: World, f: Formula, keys: tuple[str, ...]) -> tuple[str, str]:
    """What it means that these weights were used."""
    wrong = [(k, right) for k, right in zip(keys, f.weights, strict=True) if k != right]
    says = "; ".join(f"{k} was used instead of {right}" for k, right in wrong)
    key, right = wrong[0]
    if f.facts.get("head"):
        return "untied-head", says
    if f.facts.get("what") == "bucket":
        return "position-bias-wrong", says
    if template(key) == template(right) and part_of(key) != part_of(right):
        if exchanged(case, world, f, key, right):
            return "block-order", f"{says}, and so in the other blocks: they run in another order"
        return "wrong-block-weights", says
    group = f.facts.get("group")
    if group and len(wrong) == len(keys):
        other = key.removesuffix(".weight")
        names = {word.rpartition(".")[2] for word in (other, f.name)}
        both = other in case.rebuilt and identical(case.rebuilt[other], case.truth[f.name])
        if both and names in ({"query", "key"}, {"q", "k"}):
            return "query-key-swapped", says
    if len(wrong) == 1 and right.endswith("bias") and len(f.weights) > 1:
        return ("norm-affine-wrong" if f.kind == "layer norm" else "bias-wrong"), says
    return "wrong-weight", says


def exchanged(case: Case, world: World, f: Formula, key: str, right: str) -> bool:
    """Whether the block whose weights were used here, uses others itself."""
    there = f.name.replace(part_of(right), part_of(key), 1)
    formula = world.formulas.get(there)
    if formula is None or there not in case.rebuilt or there in case.same:
        return False
    inputs = tuple(MINE + i if MINE + i in world.known else i for i in formula.inputs)
    mine = case.rebuilt[there]
    with_own = world.compute(replace(formula, inputs=inputs))
    return with_own is not None and not reproduces(with_own, mine, torch.zeros_like(mine))
