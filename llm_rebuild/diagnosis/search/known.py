"""The first round of a diagnosis: the mistakes that are known for each kind of step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.diagnosis.case import MINE, Case, Found, block_output
from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses import Hypothesis, hypotheses
from llm_rebuild.diagnosis.hypotheses.base import Make
from llm_rebuild.verify.equality import identical, reproduces
from llm_rebuild.weights import template


def by_type(case: Case) -> Iterator[Found]:
    if case.mine.dtype != case.official.dtype:
        kind = str(case.mine.dtype).removeprefix("torch.")
        yield Found("wrong-dtype", f"the tensor is {kind}", 2, 0.95)


def chance(case: Case, second: Mapping[str, Tensor]) -> Iterator[Found]:
    """Two runs on the same input that do not agree: something is drawn."""
    assert case.target is not None
    if case.target in second and not identical(second[case.target], case.mine):
        formula = case.world.formulas.get(case.target) if case.world is not None else None
        head = formula is not None and bool(formula.facts.get("head"))
        says = "two runs on the same input differ: random numbers take part"
        yield Found("untied-head" if head else "dropout", says, 2, 0.9)


def whole_blocks(case: Case, world: World) -> Iterator[Found]:
    """A block of which nothing was shown, and the next step went on without it."""
    assert case.target is not None
    formula = world.formulas[case.target]
    for slot, right in enumerate(formula.inputs):
        block = block_output(world, right)
        part = part_of(right)
        lost = [name for name in world.reaching(right, case.same) if "#" not in name]
        if block is None or block < 0 or any(name in case.rebuilt for name in lost):
            continue
        for name in world.known:
            came = block_output(world, name)
            if came is None or came >= block or name.startswith(MINE):
                continue
            inputs = (*formula.inputs[:slot], name, *formula.inputs[slot + 1 :])
            skipping = replace(formula, inputs=inputs)
            change: dict[str, Make] = {formula.name: lambda w, c=skipping: world.compute(c)}  # type: ignore[misc]
            hypothesis = Hypothesis("block-skipped", f"nothing of {part} was shown", change)
            level = fits(case, world, hypothesis)
            if level:
                yield Found(
                    "block-skipped",
                    f"nothing of {part} was shown, and {name} went on",
                    level,
                    0.98,
                    hypothesis=hypothesis,
                )
                return


def no_mistake(case: Case, world: World) -> Iterator[Found]:
    """The same steps one by one, where the official model has them in one kernel."""
    assert case.target is not None
    steps = [world.formulas[name] for name in world.reaching(case.target, case.same)]
    alone = Hypothesis("rounding", "", {s.name: lambda w, s=s: w.compute(s) for s in steps})  # type: ignore[misc]
    if fits(case, world, alone) == 2:
        yield Found("rounding", "the steps one by one instead of the fused kernel", 2, 0.97, hypothesis=alone)


def known_mistakes(case: Case, world: World) -> Iterator[Found]:
    """Try each known mistake at the target and at the steps before it that nobody has checked."""
    assert case.target is not None
    together: dict[tuple[str, str, str], list[Hypothesis]] = {}
    for site in reversed(world.reaching(case.target, case.same)):  # in the order of computation
        for hypothesis in hypotheses(world, world.formulas[site]):
            key = (template(site), hypothesis.cause, hypothesis.says)
            together.setdefault(key, []).append(hypothesis)
    for (_, cause, says), several in together.items():
        # The same mistake in every block, as one function makes it; and in a single one.
        merged = replace(several[0], changes={k: v for h in several for k, v in h.changes.items()})
        for hypothesis in [merged, *(several if len(several) > 1 else [])]:
            level = fits(case, world, hypothesis)
            if level and (cause != "rounding" or level == 2):
                confidence = 0.99 if level == 2 else 0.9
                yield Found(cause, says, level, confidence, next(iter(hypothesis.changes)), hypothesis)
                break


def fits(case: Case, world: World, hypothesis: Hypothesis) -> int:
    """2 if the hypothesis gives the tensor at hand to the bit, 1 if but for rounding, else 0."""
    assert case.target is not None
    guess = world.changed(hypothesis.changes, case.same).attempt(case.target)
    level = 0 if guess is None else reproduces(case.narrowed(guess), case.mine, case.official)
    several = len(hypothesis.changes) > 1
    return 0 if level and several and contradicted(case, world, hypothesis) else level


def contradicted(case: Case, world: World, hypothesis: Hypothesis) -> bool:
    """Whether the changes would also have changed a checkpoint that is right."""
    changed = world.changed(hypothesis.changes, frozenset())
    for name, formula in world.formulas.items():
        if name in case.same and any(i in hypothesis.changes for i in formula.inputs):
            value = changed.attempt(name)
            if value is None or not identical(value, case.truth[name]):
                return True
    return False


# Steps that treat every token by itself: a few tokens tell already whether a guess can be right.
ROWWISE = {
    "layer norm", "linear", "conv1d", "act", "elementwise", "square", "mean square", "plus eps",
    "inverse root", "multiply", "stretch", "add", "masked",
}  # fmt: skip


def worth_it(case: Case, formula: Formula, world: World, values: Mapping[str, Tensor | None]) -> bool:
    """Whether a guess agrees for the first few tokens. Saves most of the work in a large model."""
    if formula.kind not in ROWWISE or formula.name != case.target or case.part is not None:
        return True
    if case.mine.shape != case.official.shape or case.mine.dim() < 2:
        return True
    size = case.mine.shape[:2]

    def by_token(value: Tensor | None) -> bool:
        alike = value is not None and value.dim() > 1 and value.shape[1] == size[1]
        return alike and value is not None and len(value) in (1, size[0])

    few = {n: v[:1, :4] if v is not None and by_token(v) else v for n, v in values.items()}
    guess = world.given(few).attempt(formula)
    return guess is not None and reproduces(guess, case.mine[:1, :4], case.official[:1, :4]) > 0
