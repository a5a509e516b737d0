"""The search for what gives the tensor at hand, in rounds: each is tried only if those before found nothing.

1. What is known to go wrong at the steps in question (`wrong/`).
2. The same steps with another tensor or another weight put in.
3. Something done to a tensor on its way.
4. All of that once more, for the part of the tensor that differs.

How long it may go on is counted in work (`graph.Work`) and not in seconds: the same file gets the same answer
on any machine, however busy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.diagnosis import edits, names
from llm_rebuild.diagnosis.case import Case, Finding, Level
from llm_rebuild.diagnosis.exact import in_full
from llm_rebuild.diagnosis.graph import MINE, NORM_STEPS, Edit, Formula, Make, World
from llm_rebuild.diagnosis.numbers import parts_that_differ
from llm_rebuild.diagnosis.wrong import mistakes
from llm_rebuild.verify.equality import apart, equal, identical, reproduces
from llm_rebuild.verify.transforms import Function
from llm_rebuild.weights import template

# Work for one round: some seconds. Only a large model of which little was shown needs so much: there every
# guess is half a forward pass.
PATIENCE = 20_000_000_000


def fits(case: Case, world: World, edit: Edit) -> Level | None:
    """How well an edit gives the tensor at hand; None if it does not."""
    level = case.level(world.changed(edit.changes, case.same).attempt(case.target))
    if level and (_only_reorders(case, edit) or (len(edit.changes) > 1 and contradicted(case, world, edit))):
        return None
    return level


def _only_reorders(case: Case, edit: Edit) -> bool:
    """Whether what was done leaves the tensor as it is but for rounding: in float64 it is the same."""
    if edit.cause == "rounding" or not case.rounding:
        return False
    lost = tuple(name for name in case.world.reaching(case.target, case.same) if name != case.target)
    one, other = (in_full(case.world, case.target, lost, changes) for changes in ({}, edit.changes))
    return one is not None and other is not None and equal(one.float(), other.float())


def contradicted(case: Case, world: World, edit: Edit) -> bool:
    """Whether an edit would also have changed a checkpoint that is right."""
    changed = world.changed(edit.changes, frozenset())
    for name, formula in world.formulas.items():
        if name in case.same and any(i in edit.changes for i in formula.inputs):
            value = changed.attempt(name)
            if value is None or not identical(value, case.truth[name]):
                return True
    return False


def tells(case: Case, edit: Edit) -> bool:
    """Whether a tensor that an edit gives tells of it. But of a mask, one number everywhere does not: many
    ways lead there. Nor does it of a mask where queries have lost their effect: of the only key that is left
    there is nothing but its value, whatever hid the others."""
    one_number = not bool(apart(case.mine, case.mine.flatten()[:1]).any())
    if one_number and case.world.formulas[case.target].kind not in names.MASKS:
        return False
    if not edit.telling or case.target in edit.changes or not edit.cause.startswith("mask"):
        return edit.telling
    world = case.world
    steps = (world.formulas[name] for name in world.reaching(case.target))
    if not (query := next((step.inputs[0] for step in steps if step.kind == "product"), "")):
        return True
    other: dict[str, Make] = {**edit.changes, query: lambda w: world[query].cos()}
    one, two = (world.changed(c, case.same - c.keys()).attempt(case.target) for c in (edit.changes, other))
    return one is None or two is None or not equal(one, two)


def computed(case: Case, world: World) -> Iterator[Finding]:
    """All that reproduces the tensor, of the first round in which something does."""
    findings = [*_whole_blocks(case, world), *_one_by_one(case, world)]
    for search in (known, elsewhere, on_the_way, in_part):
        findings = findings or list(search(case, world))
    yield from findings


def _whole_blocks(case: Case, world: World) -> Iterator[Finding]:
    """A block of which nothing was shown, and the next step went on without it."""
    formula = world.formulas[case.target]
    for slot, right in enumerate(formula.inputs):
        block, part = world.run.blocks.get(right, -1), part_of(right)
        lost = [name for name in world.reaching(right, case.same) if "#" not in name]
        if block < 0 or any(name in case.rebuilt for name in lost):
            continue
        for name, number in world.run.blocks.items():
            if number < block and name in world.tensors:
                inputs = (*formula.inputs[:slot], name, *formula.inputs[slot + 1 :])
                says = f"nothing of {part} was shown, and {name} went on"
                edit = instead(world, "block-skipped", says, replace(formula, inputs=inputs))
                level = fits(case, world, edit)
                if level:
                    yield Finding(edit.cause, says, level, edit=edit)
                    return


def _one_by_one(case: Case, world: World) -> Iterator[Finding]:
    """The same steps one by one, where the official model has them in one kernel."""
    steps = [world.formulas[name] for name in world.reaching(case.target, case.same)]
    says = "the steps one by one instead of the fused kernel, F.scaled_dot_product_attention"
    edit = Edit("rounding", says, {s.name: lambda w, s=s: w.compute(s) for s in steps})
    if fits(case, world, edit) == Level.EXACT:
        yield Finding("rounding", says, Level.EXACT, edit=edit)


def instead(world: World, cause: str, says: str, formula: Formula) -> Edit:
    """A step that is computed by another formula, from the tensors of this world."""
    return Edit(cause, says, {formula.name: lambda w: world.compute(formula)})


def known(case: Case, world: World) -> Iterator[Finding]:
    """The mistakes of each step between the target and what is right, in the order of computation."""
    together: dict[tuple[str, str, str], list[Edit]] = {}
    for site in reversed(world.reaching(case.target, case.same)):
        step = world.formulas[site]
        for edit in (*edits.on_a_step(world, step), *mistakes(world, step)):
            together.setdefault((_function(step), edit.cause, template(edit.says)), []).append(edit)
    until = world.run.work.spent + 2 * PATIENCE
    for several in together.values():
        # The same mistake in every block, as one function makes it; and in a single one.
        merged = replace(several[0], changes={k: v for e in several for k, v in e.changes.items()})
        for edit in [merged, *(several if len(several) > 1 else [])]:
            level = fits(case, world, edit)
            if level and (edit.cause != "rounding" or level == Level.EXACT or case.rounding):
                yield Finding(edit.cause, edit.says, level, next(iter(edit.changes)), edit)
                break
            if world.run.work.spent > until:
                return


def _function(step: Formula) -> str:
    """What one function of a rebuild makes in all blocks; both times, where a module does it twice."""
    if step.kind in ("rotate", "repeat"):
        return f"{template(part_of(step.name))}.{step.kind}"
    return template(re.sub(r"\[\d+\]", "", step.name))


def elsewhere(case: Case, world: World) -> Iterator[Finding]:
    """The same steps with another tensor put in, or with another weight."""
    until = world.run.work.spent + PATIENCE
    for site in world.reaching(case.target, case.same):
        formula = world.formulas[site]
        for search in (_other_inputs, _other_weights, _twice):
            for finding in search(case, world, formula, until):
                yield finding
                if finding.level == Level.EXACT and site != case.target:
                    return
            if world.run.work.spent > until:
                return  # a step far from the last one that is right, in a large model


def _other_inputs(case: Case, world: World, formula: Formula, until: int) -> Iterator[Finding]:
    for right, name, changed in edits.other_inputs(world, formula):
        if world.run.work.spent > until:
            return
        if not worth_it(case, changed, world, {i: world.value(i) for i in changed.inputs}):
            continue
        only_here = _with_its_norm(case, world, changed, right, name)
        level = fits(case, world, only_here)
        if not level:
            continue
        for cause, says, change in names.of_other_input(world, formula, right, name, right in case.same):
            edit = Edit(cause, says, change or only_here.changes)
            if change is None or not contradicted(case, world, edit):
                yield Finding(cause, says, level, edit=edit)


def _with_its_norm(case: Case, world: World, changed: Formula, right: str, other: str) -> Edit:
    """A changed step; and of a norm, which is given one tensor, the others into which it goes."""
    norm, change = changed.facts.get("norm"), dict[str, Make]()
    for f in world.formulas.values() if norm and changed.kind in NORM_STEPS else ():
        if f.facts.get("norm") == norm and right in f.inputs and f.name not in case.same:
            f = replace(f, inputs=tuple(other if i == right else i for i in f.inputs))
            change[f.name] = lambda w, f=f: w.compute(f)
    return Edit("", "", {**change, changed.name: lambda w: world.compute(changed)})


def _other_weights(case: Case, world: World, formula: Formula, until: int) -> Iterator[Finding]:
    world, tried = edits.other_weights(world, formula)
    values = {i: world.value(i) for i in formula.inputs} if tried else {}
    for changed in tried:
        if world.run.work.spent > until:
            return
        if worth_it(case, changed, world, values):
            edit = instead(world, "", "", changed)
            level = fits(case, world, edit)
            if level:
                cause, says = _of_other_weights(case, world, formula, changed.weights)
                yield Finding(cause, says, level, edit=replace(edit, cause=cause, says=says))


def _of_other_weights(case: Case, world: World, formula: Formula, keys: tuple[str, ...]) -> tuple[str, str]:
    """What it means that these weights were used: the cause, and in words."""
    wrong = [(k, right) for k, right in zip(keys, formula.weights, strict=True) if k != right]
    says = "; ".join(f"{k} was used instead of {right}" for k, right in wrong)
    key, right = wrong[0]
    if formula.facts.get("head"):
        return "untied-head", says
    if formula.facts.get("what") == "bucket":
        return "position-bias-wrong", says
    if template(key) == template(right) and part_of(key) != part_of(right):
        if _exchanged(case, world, formula, key, right):
            return "block-order", f"{says}, and so in the other blocks: they run in another order"
        return "wrong-block-weights", says
    if formula.facts.get("group") and len(wrong) == len(keys):
        other = key.removesuffix(".weight")
        both = {path.rpartition(".")[2][0] for path in (other, formula.name)}
        used = other in case.rebuilt and identical(case.rebuilt[other], world[formula.name])
        if used and both == {"q", "k"}:
            return "query-key-swapped", says
    if len(wrong) == 1 and right.endswith("bias") and len(formula.weights) > 1:
        return ("norm-affine-wrong" if formula.kind == "layer norm" else "bias-wrong"), says
    return "wrong-weight", says


def _exchanged(case: Case, world: World, formula: Formula, key: str, right: str) -> bool:
    """Whether the block whose weights were used here, uses others itself."""
    name = formula.name.replace(part_of(right), part_of(key), 1)
    other = world.formulas.get(name)
    if other is None or name not in case.rebuilt or name in case.same:
        return False
    inputs = tuple(MINE + i if MINE + i in world.tensors else i for i in other.inputs)
    rebuilt = case.rebuilt[name]
    with_own = world.attempt(replace(other, inputs=inputs))
    return with_own is not None and not reproduces(with_own, rebuilt, torch.zeros_like(rebuilt))


STARTS = 60  # tensors upstream from which a second pass may have begun


def _twice(case: Case, world: World, formula: Formula, until: int) -> Iterator[Finding]:
    """What goes in went through its block, or through a part of it, a second time."""
    for right in formula.inputs:
        value, step = world.value(right), world.formulas.get(right)
        if value is None or step is None or value.dim() != 3:
            continue
        if right not in world.run.blocks and "residual" not in step.facts:
            continue
        part = world.reaching(right)[1:]
        for start in [n for n in part if world.tensors.get(n) is not None][:STARTS]:
            if world.run.work.spent > until:
                return
            if world[start].shape != value.shape or not world[start].is_floating_point():
                continue
            again: dict[str, Make] = {start: lambda w, right=right: world.value(right)}
            second = world.changed(again, case.same - {right, *part}).attempt(right)
            change: dict[str, Make] = {right: lambda w, second=second: second}
            through = world.changed(change, case.same - {right}).attempt(case.target)
            level = case.level(through) if second is not None else None
            if level:
                between = [n for n in part if start in world.reaching(n)[1:]]
                norm = {world.formulas[n].kind for n in (right, *between)} <= NORM_STEPS
                cause = "norm-twice" if norm else "block-repeated"
                says = f"what lies between {start} and {right} ran twice"
                yield Finding(cause, says, level, edit=Edit(cause, says, change))
                return


def on_the_way(case: Case, world: World) -> Iterator[Finding]:
    """Something was done to what went into a step, or to what came out of it."""
    until = world.run.work.spent + PATIENCE
    for site in world.reaching(case.target, case.same):
        formula = world.formulas[site]
        for edit in _done_at(case, world, formula):
            level = fits(case, world, edit)
            if level:
                yield Finding(edit.cause, edit.says, level, site, edit)
                return
            if world.run.work.spent > until:
                return


def _done_at(case: Case, world: World, formula: Formula) -> Iterator[Edit]:
    """All that may have been done at a step: to each input, to each weight, to the result."""
    values = {name: world.value(name) for name in formula.inputs}
    for right, value in values.items():
        if value is not None and value.is_floating_point() and formula.kind != "mask":
            for action, says, do in edits.on_a_tensor(world, value):
                instead_of = {**values, right: do(value)}
                if worth_it(case, formula, world, instead_of):
                    cause = names.of_input(world, formula, right, action)
                    says = f"what went in ({right.replace('#', '')}): {says}"
                    make: Make = _with_input(formula, right, do)
                    yield Edit(cause, says, {formula.name: make}, names.is_telling(formula, cause, action))
    for key in formula.weights:
        for action, says, do in edits.on_a_weight(formula, world.weights[key]):
            other = world.with_weights({key: do(world.weights[key])})
            if worth_it(case, formula, other, values):
                cause = names.of_weight(formula, key, action)
                make = lambda w, o=other: o.compute(formula)  # noqa: E731
                telling = action == names.MOVED or names.is_telling(formula, cause, action)
                yield Edit(cause, f"{key}: {says}", {formula.name: make}, telling)
    result = world.value(formula.name)
    if result is not None and result.is_floating_point() and formula.kind != "mask":
        for action, says, do in edits.on_a_tensor(world, result):
            cause, make = names.of_result(formula, action), lambda w, do=do: do(w.compute(formula))
            telling = names.is_telling(formula, cause, action)
            yield Edit(cause, f"what came out: {says}", {formula.name: make}, telling)


def _with_input(formula: Formula, right: str, do: Function) -> Make:
    """A step into which one tensor goes after something was done to it."""
    return lambda w: w.given({n: w.value(n) for n in formula.inputs} | {right: do(w[right])}).compute(formula)


def in_part(case: Case, world: World) -> Iterator[Finding]:
    """Mistakes in a part of the tensor only. Not in one column of a mask: too much fits its two numbers."""
    for axis, places, says in parts_that_differ(case.mine, case.official):
        wrong = case.mine[apart(case.mine, case.official)]
        if len(places) == 1 and bool(((wrong == wrong.min()) | (wrong == wrong.max())).all()):
            continue
        narrow = replace(case, part=(axis, places))
        findings = [*known(narrow, world), *elsewhere(narrow, world)]
        for finding in findings:
            cause = names.in_part(case.world.formulas.get(case.target), finding.cause)
            yield replace(finding, cause=cause, says=f"{finding.says}, {says}", edit=None)
        if findings:
            return


# Steps that treat every token by itself: a few tokens tell already whether a guess can be right.
ROWWISE = NORM_STEPS | {"linear", "conv1d", "act", "elementwise", "add", "masked"}


def worth_it(case: Case, formula: Formula, world: World, values: Mapping[str, Tensor | None]) -> bool:
    """Whether a guess agrees for the first few tokens. Saves most of the work in a large model."""
    if formula.kind not in ROWWISE or formula.name != case.target or case.part is not None:
        return True
    if case.mine.shape != case.official.shape or case.mine.dim() < 3:
        return True
    rows, tokens = case.mine.shape[:2]

    def few(value: Tensor | None) -> Tensor | None:
        """Of a tensor with these rows and tokens the first row and four tokens."""
        by_token = value is not None and value.dim() > 1 and value.shape[1] == tokens
        return value[:1, :4] if value is not None and by_token and len(value) in (1, rows) else value

    guess = world.given({n: few(v) for n, v in values.items()}).attempt(formula)
    return guess is not None and bool(reproduces(guess, case.mine[:1, :4], case.official[:1, :4]))
