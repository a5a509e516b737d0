"""Which mistake is it? Not a table of symptoms: every possible mistake is tried out.

The first checkpoint that differs has inputs that are still right. So its wrong value can be computed again,
from the official inputs and the weight file, once for each mistake that can be made at this step: if the
scores had not been scaled, they would be *these*. Where that gives the tensor at hand, bit for bit, the
mistake is found; where none does, the diagnosis says so, and in which part the numbers differ.

In rounds (`search/`): the mistakes that are known for this kind of step (`hypotheses/`); then the same step
with any other tensor or weight that would fit in; then things that are done to a tensor on its way
(`transforms.py`); and what can be said about the numbers alone (`numbers.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis import numbers
from llm_rebuild.diagnosis.case import Case, Found
from llm_rebuild.diagnosis.causes import CAUSES, REMEDIES, chapter
from llm_rebuild.diagnosis.formulas import World
from llm_rebuild.diagnosis.hypotheses import Hypothesis
from llm_rebuild.diagnosis.search.elsewhere import elsewhere
from llm_rebuild.diagnosis.search.known import by_type, chance, known_mistakes, no_mistake, whole_blocks
from llm_rebuild.diagnosis.search.on_the_way import in_part, on_the_way
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import judge
from llm_rebuild.verify.equality import equal, identical, reproduces


@dataclass(frozen=True)
class Diagnosis:
    """One explanation of a first difference.

    cause        Its name in `causes.py`.
    explanation  What happened, and what to do: two sentences.
    confidence   Between 0 and 1; above 0.9 the wrong tensor was reproduced.
    evidence     What was computed, and how well it agrees with the tensor at hand.
    chapter      The section of the course about it.
    checkpoint   Where.
    """

    cause: str
    explanation: str
    confidence: float
    evidence: str
    chapter: str
    checkpoint: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.explanation}\n  {self.evidence} (confidence {self.confidence:.0%}; {self.chapter})"


def diagnose(
    rebuilt: Mapping[str, Tensor],
    truth: Capture,
    copy: LocalCopy,
    *,
    prompt: Capture | None = None,
    error: BaseException | None = None,
    again: Callable[[], Mapping[str, Tensor]] | None = None,
    fed: bool = False,
    limit: int = 3,
) -> tuple[Diagnosis, ...]:
    """Explain the first checkpoint that is not bit-identical, the likeliest cause first.

    rebuilt  The person's tensors by checkpoint name, in the order in which they were tapped.
    truth    The official ones of the same run.
    copy     The local copy that both were computed from.
    prompt   For a run that goes on from keys and values: the official tensors of the pass before it.
    error    What stopped the rebuild, if something did.
    again    Runs the rebuild once more. It is called only where nothing explains the tensor, to see whether
             two runs agree.
    fed      Whether each tensor was computed from official ones, and not from the person's others.
    Empty where everything is bit-identical.
    """
    case = Case.of(rebuilt, truth, copy, prompt)
    if case is None:
        return _signed_zeros(rebuilt, truth)
    if case.target is None:
        return (_never_shown(case, error),)
    said = _explained_by(case, error, again, fed)
    if said[0].cause == "rounding":  # and behind it, is there more?
        behind = Case.of(rebuilt, truth, copy, prompt, near=True)
        if behind is not None and behind.target is not None:
            said = [*_explained_by(behind, error, again, fed)[:1], *said]
    return tuple(said[:limit])


def _explained_by(
    case: Case,
    error: BaseException | None,
    again: Callable[[], Mapping[str, Tensor]] | None,
    fed: bool,
) -> list[Diagnosis]:
    """The explanations of one case, the likeliest first."""
    shown = None if fed else _only_shown(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a wrong formula may well divide by n - 1 = 0
        found = list(explanations(case))
    if error is not None and "tapped twice" in str(error):
        found.insert(0, Found("block-repeated", str(error), 2, 0.9))
    if again is not None and not any(f.level for f in found):
        found[:0] = chance(case, again())
    found = _ranked(case, found)
    if shown is not None and found[0].cause != "scale-order":  # which changes the steps between, not the sum
        found = [shown]
    return [_said(case, f) for f in _confident(found)]


def _only_shown(case: Case) -> Found | None:
    """A tensor that is wrong although what is computed from it is right: then it was never used."""
    assert case.target is not None
    if case.world is None or case.mine.shape != case.official.shape:
        return None
    with_mine = case.world.given({case.target: case.mine})
    for name, formula in case.world.formulas.items():
        if case.target not in formula.inputs or name not in case.same:
            continue
        value = with_mine.attempt(formula)
        if value is not None and not equal(value, case.world[name]):
            same = [n for n, t in case.truth.items() if n != case.target and equal(case.mine, t)]
            which = f"it is the official {same[0]}; " if same else ""
            says = f"{which}{name}, which is computed from it, is right, so another tensor was used there"
            return Found("another-checkpoint", says, 2, 0.95)
    return None


def _signed_zeros(rebuilt: Mapping[str, Tensor], truth: Capture) -> tuple[Diagnosis, ...]:
    """Where no number differs, a zero's sign may."""
    for name, official in truth.tensors.items():
        if not identical(rebuilt[name], official):
            explanation = f"At {name}: {CAUSES['rounding']} (-0 instead of 0). It changes no other number."
            evidence = f"All numbers of {name} are equal; only the sign of zeros differs."
            return (Diagnosis("rounding", explanation, 0.99, evidence, chapter("rounding"), name),)
    return ()


# ------------------------------------------------------------------------------------ the rounds


def explanations(case: Case) -> Iterator[Found]:
    """All that fits, in the order in which it is tried."""
    assert case.target is not None
    yield from by_type(case)
    if not case.mine.is_floating_point():
        return
    drawn = [Found(*description) for description in numbers.dropped(case.mine, case.official)]
    if drawn:
        yield from drawn
        return
    if case.world is not None and case.target in case.world.formulas:
        known = [*whole_blocks(case, case.world), *no_mistake(case, case.world)]
        if not known:
            known = list(known_mistakes(case, case.world))
        for search in (elsewhere, on_the_way, in_part):
            if not known:
                known = list(search(case, case.world))
        yield from known
    formula = case.world.formulas.get(case.target) if case.world is not None else None
    others = {n: t for n, t in case.truth.items() if n != case.target}
    for cause, says, level, confidence in numbers.describe(
        case.mine, case.official, others, formula, case.world
    ):
        yield Found(cause, says, level, confidence)


# ------------------------------------------------------------------------------------ the verdict


def _ranked(case: Case, found: list[Found]) -> list[Found]:
    """To the bit before nearly; where several fit alike, first those that also explain what follows."""
    best = max((f.level for f in found), default=0)
    rivals = [f for f in found if f.level == best and f.hypothesis is not None]
    after: dict[int, int] = {}
    if case.world is not None and len({f.cause for f in rivals}) > 1:
        names = list(case.truth)
        assert case.target is not None
        here = names.index(case.target)
        part = part_of(case.target)
        following = [n for n in names[here + 1 :] if n in case.rebuilt and part_of(n) == part][:8]
        following = following or [n for n in names[here + 1 : here + 9] if n in case.rebuilt]
        for f in rivals:
            assert f.hypothesis is not None
            after[id(f)] = _explained(case, case.world, f.hypothesis, following)
    order = {id(f): number for number, f in enumerate(found)}
    return sorted(found, key=lambda f: (-f.level, -after.get(id(f), 0), order[id(f)]))


def _explained(case: Case, world: World, hypothesis: Hypothesis, names: list[str]) -> int:
    """How many of these checkpoints a hypothesis gives as they are."""
    changed, count = world.changed(hypothesis.changes, case.same - set(hypothesis.changes)), 0
    for name in names:
        guess = changed.attempt(name) if name in world.formulas else None
        fit = guess is not None and (
            identical(guess, case.rebuilt[name])
            or reproduces(guess, case.rebuilt[name], case.truth[name]) > 0
        )
        if not fit:
            break
        count += 1
    return count


def _confident(found: list[Found]) -> list[Found]:
    """One explanation a cause, each less sure where others fit as well."""
    kept: list[Found] = []
    for f in found:
        if f.cause not in {k.cause for k in kept}:
            kept.append(f)
    if kept[0].level:  # what was computed, or seen to the bit, needs no guesses beside it
        kept = [f for f in kept if f.level]
    rivals = [f for f in kept if f.level == kept[0].level and f.level and f.hypothesis is not None]
    sure = []
    for at, f in enumerate(kept):
        doubt = 0.1 * max(0, len(rivals) - 1) + 0.05 * at + (0.3 if f.level < kept[0].level else 0.0)
        sure.append(replace(f, confidence=round(max(0.05, f.confidence - doubt), 2)))
    return sure


def _said(case: Case, f: Found) -> Diagnosis:
    assert case.target is not None
    site = f.site if f.site and "#" not in f.site else case.target
    what = CAUSES[f.cause]
    explanation = f"At {site}: {what}" + (f" ({f.says})" if f.says else "") + f". {REMEDIES[f.cause]}"
    if f.hypothesis is not None:
        how_well = _agreement(case, f.hypothesis)
        inputs = "your own inputs, which are right but for rounding" if case.own else "the official inputs"
        evidence = f"Computed in this way from {inputs}, {case.target} is yours{how_well}."
    elif f.level == 2:
        evidence = f"Seen in the numbers of {case.target}, to the bit."
    else:
        evidence = f"Seen in the numbers of {case.target}; {numbers.where(case.mine, case.official)}."
    return Diagnosis(f.cause, explanation, f.confidence, evidence, chapter(f.cause), site)


def _agreement(case: Case, hypothesis: Hypothesis) -> str:
    """How well a hypothesis gives the tensor at hand: to the bit, or to so many digits."""
    assert case.world is not None
    assert case.target is not None
    fixed = case.same - set(hypothesis.changes)
    guess = case.world.changed(hypothesis.changes, fixed).value(case.target)
    if guess is None or guess.shape != case.rebuilt[case.target].shape:
        return " but for rounding"
    verdict = judge(case.target, guess, case.rebuilt[case.target])
    if verdict.identical:
        return f" to the bit, all {guess.numel():,} numbers"
    return f" but for rounding: off by {verdict.max_abs_diff:.1e} at the most"


def _never_shown(case: Case, error: BaseException | None) -> Diagnosis:
    """Nothing that is there differs: the rest is missing."""
    cause, says, confidence = "missing", "", 0.9
    if error is not None:
        says = f"the run stopped here: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        cause, confidence = "unknown", 0.3
        if "tapped twice" in str(error):
            cause, confidence = "block-repeated", 0.9
        elif _turned(case, error):
            cause, confidence = "weight-transposed", 0.9
    else:
        part = part_of(case.first)
        if not any(part_of(name) == part for name in case.rebuilt) and any(c.isdigit() for c in part):
            cause, says = "block-skipped", f"nothing of {part} was shown"
    explanation = (
        f"At {case.first}: {CAUSES[cause]}" + (f" ({says})" if says else "") + f". {REMEDIES[cause]}"
    )
    evidence = f"All {len(case.same)} checkpoints that were shown are bit-identical."
    return Diagnosis(cause, explanation, confidence, evidence, chapter(cause), case.first)


def _turned(case: Case, error: BaseException) -> bool:
    """Whether torch complains about just the shapes that the next step's weight has when it is turned."""
    formula = case.world.formulas.get(case.first) if case.world is not None else None
    if formula is None or formula.kind not in ("linear", "conv1d") or case.world is None:
        return False
    weight = case.world.weights[formula.weights[0]]
    out, into = weight.shape if formula.kind == "linear" else weight.T.shape
    return any(f"{a}x{b}" in str(error) for a, b in ((out, into), (into, out))) and "shapes" in str(error)
