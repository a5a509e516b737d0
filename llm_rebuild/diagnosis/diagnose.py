"""Which mistake is it? Not a table of symptoms: every possible mistake is tried out.

The first checkpoint that differs has inputs that are still right. So its wrong value can be computed again,
from the official inputs and the weight file, once for each mistake that can be made at this step: if the
scores had not been scaled, they would be *these*. Where that gives the tensor at hand, bit for bit, the
mistake is found (`search.py`); where none does, the diagnosis says what the numbers show (`numbers.py`).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis import numbers, search
from llm_rebuild.diagnosis.case import DEGREES, Case, Finding, Level, NothingToExplain, case_of, own_case
from llm_rebuild.diagnosis.causes import CAUSES, chapter
from llm_rebuild.diagnosis.exact import exact
from llm_rebuild.diagnosis.graph import Edit, World
from llm_rebuild.diagnosis.names import VAGUE, by_a_factor, contradicts, of_repair, tells
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.diagnosis.reading.result import Line, Reading, Repair
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import judge
from llm_rebuild.verify.equality import equal, identical
from llm_rebuild.verify.rounding import MISTAKE, Rounding
from llm_rebuild.weights import template

# Of each degree, in how many of so many cases the first explanation was right, the second, the third:
# measured on mutants by `python -m tools.mutation`.
MEASURED: Mapping[str, list[list[int]]] = json.loads(
    Path(__file__).with_name("measured.json").read_text(encoding="utf-8")
)["degrees"]
TRIED = 8  # so many steps are looked at for further mistakes
FOLLOWING = 8  # so many later checkpoints tell between explanations that fit alike


@dataclass(frozen=True)
class Diagnosis:
    """One explanation of a first difference.

    cause        Its name in `causes.py`.
    checkpoint   Where.
    says         What exactly was done, or seen; may be empty.
    evidence     What was computed, and how well it agrees with the tensor at hand.
    level        How well it is known; `degree` says it in words: `proved`, `proved but for rounding`,
                 `seen in the numbers`; or `a question`, where it is asked and not said.
    confidence   How often an explanation of this degree, in this place of the list, was right when it was
                 measured; 0 of `unknown`, which names nothing.
    seen         The first checkpoint that shows it.
    also         Others with the same mistake.
    either       Other causes that give just these numbers, and as many of those that follow: it may be they.
    lines        Where it stands in the person's code, the likeliest first; empty where that was not read.
    difference   What that code does there and what the official model does, as it was read.
    repairs      What puts it right, as it was tried out. Of several any one would do.
    """

    cause: str
    checkpoint: str
    says: str
    evidence: str
    level: Level
    confidence: float
    seen: str
    also: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    difference: str = ""
    repairs: tuple[Repair, ...] = ()

    @property
    def did(self) -> str:
        """What was done: a clause that can stand behind the checkpoint, or a question. What no name is known
        of is said as it was read."""
        if self.cause == "unknown" and (self.difference or self.says):
            return f"{self.difference or self.says}."
        did = f"{CAUSES[self.cause].did} ({self.says})" if self.says else CAUSES[self.cause].did
        return f"could it be that {did}?" if self.asked and self.cause != "unknown" else f"{did}."

    @property
    def degree(self) -> str:
        """How well it is known, in words."""
        return self.level.words

    @property
    def asked(self) -> bool:
        """Whether the cause is asked, and not said."""
        return self.level == Level.GUESSED

    @property
    def should(self) -> str:
        """What is right, or what to do: a sentence."""
        if self.cause == "unknown" and self.repairs:
            words = " or ".join(repair.words for repair in self.repairs)
            return f"{words[0].upper()}{words[1:]}."
        return CAUSES[self.cause].should

    @property
    def why(self) -> str:
        """Why it matters: a sentence."""
        return CAUSES[self.cause].why

    @property
    def explanation(self) -> str:
        """Where, what was done, and what to do: two sentences."""
        return f"At {self.checkpoint}: {self.did} {self.should}"

    @property
    def chapter(self) -> str:
        """The section of the course about it."""
        return chapter(self.cause)

    def to_json(self) -> dict[str, Any]:
        """The contract's keys."""
        keys = ["cause", "explanation", "degree", "confidence", "evidence", "chapter", "checkpoint"]
        keys += ["did", "should", "why", "difference"]
        line, repair = (*self.lines, None)[0], (*self.repairs, None)[0]
        written = ("words", "before", "after", "degree")
        return {
            **{key: getattr(self, key) for key in keys},
            "also": list(self.also),
            "either": list(self.either),
            "line": _where(line),
            "code": line.code if line else None,
            "lines": [asdict(line) for line in self.lines],
            "repair": {**{key: getattr(repair, key) for key in written}, "line": _where(repair.line)}
            if repair
            else None,
        }

    def __str__(self) -> str:
        return f"{self.explanation}\n  {self.evidence} ({self.degree}; {self.chapter})"


def _where(line: Line | None) -> dict[str, Any] | None:
    return None if line is None else {key: getattr(line, key) for key in ("file", "number", "function")}


@dataclass(frozen=True)
class Account:
    """What is known of a person's run beside the tensors that it showed.

    error  What stopped it, if something did.
    again  Runs it once more. It is called only where nothing explains the tensor, to see whether two runs
           agree.
    fed    Whether each tensor was computed from official ones, and not from the person's others.
    """

    error: BaseException | None = None
    again: Callable[[], Mapping[str, Tensor]] | None = None
    fed: bool = False


PLAIN = Account()


def diagnose(
    rebuilt: Mapping[str, Tensor],
    truth: Capture,
    copy: LocalCopy,
    *,
    prompt: Capture | None = None,
    account: Account = PLAIN,
) -> tuple[Diagnosis, ...]:
    """Explain the first checkpoint that is not bit-identical: up to three causes, the likeliest first.

    rebuilt  The person's tensors by checkpoint name, in the order in which they were tapped.
    truth    The official ones of the same run.
    copy     The local copy that both were computed from.
    prompt   For a run that goes on from keys and values: the official tensors of the pass before it.
    account  What else is known of the person's run.
    Empty where everything is bit-identical.
    """
    world = world_of(truth, copy, prompt)
    diagnoses = of_first(rebuilt, truth, world, account)
    if not diagnoses or diagnoses[0].cause != "rounding":
        return diagnoses
    rounding = exact(world, rebuilt, truth, fed=account.fed)
    behind = of_others(rebuilt, truth, world, rounding, diagnoses[0])
    return tuple(sorted((*behind[:1], *diagnoses), key=lambda d: d.asked)[:3])


def of_first(
    rebuilt: Mapping[str, Tensor], truth: Capture, world: World, account: Account = PLAIN
) -> tuple[Diagnosis, ...]:
    """As `diagnose`, of the first checkpoint alone. `world`: the graph of the run."""
    case = case_of(rebuilt, truth, world)
    if case is None:
        return _signed_zeros(rebuilt, truth)
    if isinstance(case, NothingToExplain):
        return (_never_shown(case, account.error),)
    findings = _findings(case, account)
    best, *others = [_diagnosis(case, finding, at) for at, finding in enumerate(findings[:3])]
    return (replace(best, either=_alike(case, findings[:3])), *others)


def of_others(
    rebuilt: Mapping[str, Tensor],
    truth: Capture,
    world: World,
    rounding: Rounding,
    first: Diagnosis,
    readings: Sequence[Reading] = (),
) -> tuple[Diagnosis, ...]:
    """Mistakes behind the first: each step that makes something wrong of what the person gave it. The same
    step in another block is the same mistake, and so is another step with the same cause.

    rounding  What each step in float64 says of the tensors that differ.
    first     What is said of the first checkpoint. It is not among them. Beside what is harmless the first
              mistake is there without a name, if none has one.
    readings  What was read of the person's code. Where it was read to its end, nothing else is looked at.
    """
    read = {name for reading in readings for name in (reading.checkpoint, *reading.also)}
    looked_at = read if _whole(readings) else set(truth.tensors)
    odd = [name for name in truth.tensors if name in rebuilt and not rebuilt[name].isfinite().all()]
    broken = {name for name in odd if truth.tensors[name].isfinite().all()}  # so may be all behind it
    steps, tried, by_cause = {template(first.seen)}, list[tuple[Case, Finding]](), {first.cause: [first]}
    for name in truth.tensors:
        skipped = template(name) in steps or name not in looked_at or broken & {*world.inputs_of(name)}
        if rounding.kind(name) != MISTAKE or skipped:
            continue
        steps.add(template(name))
        if (case := own_case(rebuilt, truth, world, name)) is not None:
            tried.append((case, _findings(case, PLAIN)[0]))
        if len(tried) == TRIED:
            break
    for case, finding in tried:
        if finding.level and finding.cause not in ("rounding", "unknown", "wrong-shape"):
            by_cause.setdefault(finding.cause, []).append(_diagnosis(case, finding, 0))
    del by_cause[first.cause]
    if first.cause == "rounding" and not by_cause and not readings:
        nameless = [one for one in tried if one[1].cause != "rounding"]
        return tuple(_diagnosis(case, finding, 0) for case, finding in nameless[:1])
    return tuple(replace(best, also=tuple(d.seen for d in same)) for best, *same in by_cause.values())


def with_readings(
    mistakes: Sequence[Diagnosis], readings: Sequence[Reading], world: World
) -> tuple[Diagnosis, ...]:
    """The mistakes that were read, each with the name that was found for it, in the order of the data. What
    was not read to its end may hold more: then the others stand behind them."""
    named, read = list[Diagnosis](), list[Diagnosis]()
    checkpoints = [reading for reading in readings if reading.checkpoint]
    alike = [[mistake for mistake in mistakes if _same_step(mistake, reading)] for reading in checkpoints]
    if mistakes and checkpoints and not any(mistakes[0] in same for same in alike):
        alike[0] = [*alike[0], mistakes[0]]  # what is missing, and what differs first because of it
    for reading, same in zip(checkpoints, alike, strict=True):
        read += same
        named.append(_read(same[0] if same else None, reading, world))
    if not _whole(readings):
        named += [mistake for mistake in mistakes if mistake not in read]
    return _merged(named)


def _same_step(mistake: Diagnosis, reading: Reading) -> bool:
    """Whether both are of the same step, in whichever block."""
    steps = {template(name) for name in (reading.checkpoint, *reading.also)}
    return bool(steps & {template(name) for name in (mistake.checkpoint, mistake.seen, *mistake.also)})


def _whole(readings: Sequence[Reading]) -> bool:
    """Whether a person's code was read, and to its end."""
    return bool(readings) and not any(reading.extent for reading in readings)


def _merged(mistakes: Sequence[Diagnosis]) -> tuple[Diagnosis, ...]:
    """What has one cause and stands on one line is one mistake."""
    merged: dict[object, Diagnosis] = {}
    for mistake in mistakes:
        key = (mistake.cause, *mistake.lines[:1]) if mistake.lines else (mistake.seen, mistake.cause)
        first = merged.setdefault(key, mistake)
        if first is not mistake:
            also = dict.fromkeys((*first.also, mistake.seen, *mistake.also))
            merged[key] = replace(first, also=tuple(also))
    return tuple(merged.values())


def _read(diagnosis: Diagnosis | None, reading: Reading, world: World) -> Diagnosis:
    """What was read, under the name that was found for it, else that of its repair, else none. Of two names
    the better proved one holds; one that its repair does not tell is no better proved by it."""
    formula, cause, level = world.formulas.get(reading.checkpoint), "unknown", Level.GUESSED
    evidence, repair = "Read in your code.", next(iter(reading.repairs), None)
    if repair is not None:
        cause = of_repair(world, formula, repair)
        level = next(level for level, words in DEGREES.items() if words == repair.degree)
        alike = diagnosis.level if diagnosis is not None and diagnosis.cause == cause else Level.GUESSED
        seen = alike in (Level.SEEN, Level.ROUNDED) and repair.kind != "value"  # in the numbers, too
        if cause not in ("", "unknown") and not seen and not tells(world, formula, repair, cause):
            level = Level.SEEN
        how_well = "bit-identical" if repair.degree == DEGREES[Level.EXACT] else "right but for rounding"
        evidence = f"With this put right your code ran once more, and {reading.checkpoint} was {how_well}."
    # The official tensor times a number: what only says that something else went in says less.
    scaled = diagnosis is not None and diagnosis.cause == "scaled" and level <= diagnosis.level
    better = diagnosis is not None and diagnosis.level == Level.SEEN < level and cause not in VAGUE
    if diagnosis is not None and cause in ("", diagnosis.cause):
        if cause and diagnosis.level < level:
            says = "" if diagnosis.asked else diagnosis.says
            diagnosis = replace(diagnosis, says=says, level=level, evidence=evidence)
    elif diagnosis is None or (
        repair is not None
        and (
            diagnosis.asked
            or (cause not in ("unknown", "another-checkpoint") and diagnosis.cause in VAGUE and not scaled)
            or (better and repair.kind != "value" and not by_a_factor(formula, repair, diagnosis.cause))
            or contradicts(world, formula, repair, diagnosis.cause)
        )
    ):
        cause = cause or "unknown"
        sure = 0.0 if cause == "unknown" else confidence(level)
        diagnosis = Diagnosis(cause, reading.checkpoint, "", evidence, level, sure, reading.checkpoint)
    return replace(
        diagnosis,
        checkpoint=diagnosis.checkpoint if reading.checkpoint == diagnosis.seen else reading.checkpoint,
        seen=reading.checkpoint,
        also=reading.also,
        lines=reading.lines,
        difference=reading.difference,
        repairs=reading.repairs,
    )


def _findings(case: Case, account: Account) -> list[Finding]:
    """One explanation a cause, the likeliest first."""
    error, again = account.error, account.again
    unused = [] if account.fed else _only_shown(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a wrong formula may well divide by n - 1 = 0
        findings = list(explanations(case))
    if error is not None and "tapped twice" in str(error):
        findings.insert(0, Finding("block-repeated", str(error), Level.SHOWN))
    if again is not None and not any(finding.level for finding in findings):
        findings[:0] = _chance(case, again())
    findings = _ranked(case, findings)
    if unused and findings[0].cause != "scale-order":  # which changes steps between, not the sum
        findings = unused
    by_cause: dict[str, Finding] = {}
    for finding in findings:
        by_cause.setdefault(finding.cause, finding)
    findings = list(by_cause.values())
    exact = [finding for finding in findings if finding.level == Level.EXACT]
    if findings[0].cause == "rounding" and (case.rounding or exact == findings[:1]):  # nobody is accused
        return findings[:1]
    if findings[0].level:  # what was computed, or seen, needs no guesses beside it
        findings = [finding for finding in findings if finding.level]
    return findings


def explanations(case: Case) -> Iterator[Finding]:
    """All that fits, in the order in which it is tried: shape and type before values."""
    rebuilt, official = case.mine, case.official
    if rebuilt.dtype != official.dtype:
        kind = str(rebuilt.dtype).removeprefix("torch.")
        yield Finding("wrong-dtype", f"the tensor is {kind}", Level.SHOWN)
    if not rebuilt.is_floating_point():
        return
    drawn = list(numbers.dropped(rebuilt, official))
    if drawn:
        yield from drawn
        return
    if case.target in case.world.formulas:
        yield from search.computed(case, case.world)
    yield from numbers.describe(case)


def _only_shown(case: Case) -> list[Finding]:
    """A tensor that is wrong although what is computed from it is right: only its own numbers are asked."""
    rebuilt, official, target = case.mine, case.official, case.target
    if rebuilt.shape != official.shape or rebuilt.dtype != official.dtype or case.rounding:
        return []
    with_mine = case.world.given({target: case.mine})
    for user in case.world.users(target):
        value = with_mine.attempt(user) if user.name in case.same else None
        if value is not None and not equal(value, case.world[user.name]):
            says = f"{user.name}, computed from it, is right, so another tensor was used there"
            made = replace(case, world=replace(case.world, formulas={}))
            seen = [f for f in numbers.describe(made) if f.level] or [Finding("unknown", "", Level.SHOWN)]
            return [replace(f, says=f"{f.says}; {says}".removeprefix("; ")) for f in seen]
    return []


def _chance(case: Case, second: Mapping[str, Tensor]) -> Iterator[Finding]:
    """Two runs on the same input that do not agree: something is drawn."""
    if case.target in second and not identical(second[case.target], case.mine):
        formula = case.world.formulas.get(case.target)
        head = formula is not None and formula.facts.get("head")
        says = "two runs on the same input differ: random numbers take part"
        yield Finding("untied-head" if head else "dropout", says, Level.SHOWN)


# ------------------------------------------------------------------------------------ the verdict


def _ranked(case: Case, findings: list[Finding]) -> list[Finding]:
    """To the bit before nearly; of what fits alike rounding first, then what explains what follows, too."""
    best = max((finding.level for finding in findings), default=Level.GUESSED)
    rivals = [finding for finding in findings if finding.level == best and finding.edit is not None]
    after: dict[int, int] = {}
    if len({finding.cause for finding in rivals}) > 1:
        following = _following(case)
        after = {id(f): _explained(case, case.world, f.edit, following) for f in rivals if f.edit is not None}
    order = {id(finding): number for number, finding in enumerate(findings)}

    def rank(finding: Finding) -> tuple[int, bool, int, int]:
        """The better one first, by its level; of equals what was tried earlier."""
        harmless = finding.cause == "rounding" and finding.level >= Level.ROUNDED and case.rounding
        return -finding.level, not harmless, -after.get(id(finding), 0), order[id(finding)]

    return sorted(findings, key=rank)


def _alike(case: Case, findings: list[Finding]) -> tuple[str, ...]:
    """The causes that give the tensor as well as the first does, and as many of those that follow."""
    world, best = case.world, findings[0]
    if best.edit is None or best.cause == "rounding":
        return ()
    following = _following(case)
    after = _explained(case, world, best.edit, following)
    return tuple(
        other.cause
        for other in findings[1:]
        if other.edit is not None
        and other.level == best.level
        and _explained(case, world, other.edit, following) == after
    )


def _following(case: Case) -> list[str]:
    """The next checkpoints that were shown, of the same part if there are any."""
    names = list(case.truth)
    later = [n for n in names[names.index(case.target) + 1 :] if n in case.rebuilt]
    inside = [n for n in later if part_of(n) == part_of(case.target)]
    return (inside or later)[:FOLLOWING]


def _explained(case: Case, world: World, edit: Edit, names: list[str]) -> int:
    """How many of these checkpoints an edit gives as they are."""
    changed, count = world.changed(edit.changes, case.same - set(edit.changes)), 0
    for name in names:
        guess = changed.attempt(name) if name in world.formulas else None
        follower = Case(world, case.rebuilt, case.truth, name, case.same)
        if follower.level(guess) is None:
            break
        count += 1
    return count


def _diagnosis(case: Case, finding: Finding, at: int) -> Diagnosis:
    cause, level = finding.cause, finding.level
    site = finding.site if finding.site and "#" not in finding.site else case.target
    if finding.edit is not None:
        inputs = "your own inputs" if case.own else "the official inputs"
        how_well = _agreement(case, finding.edit)
        evidence = f"Computed in this way from {inputs}, {case.target} is yours{how_well}."
    elif level in (Level.EXACT, Level.ROUNDED):
        how_well = "to the bit" if level == Level.EXACT else "but for rounding"
        evidence = f"Computed in this way, the part of {case.target} that differs is yours {how_well}."
    elif level == Level.SHOWN:
        evidence = f"Seen in the numbers of {case.target}, to the bit."
    else:
        evidence = f"Seen in the numbers of {case.target}; {numbers.where(case.mine, case.official)}."
    if finding.edit is not None and not search.tells(case, finding.edit):
        level = Level.SHOWN
    sure = confidence(level, at) if cause != "unknown" else 0.0
    return Diagnosis(cause, site, finding.says, evidence, level, sure, case.target)


def confidence(level: Level, at: int = 0) -> float:
    """How often an explanation of this level was right that stood `at` this place of the list."""
    right, made = MEASURED[level.words][at]
    return round(right / made, 2) if made else 0.0


def _agreement(case: Case, edit: Edit) -> str:
    """How well an edit gives the tensor at hand: to the bit, or to so many digits."""
    guess = case.world.changed(edit.changes, case.same - set(edit.changes)).attempt(case.target)
    if guess is None or guess.shape != case.rebuilt[case.target].shape:
        return " but for rounding"
    verdict = judge(case.target, guess, case.rebuilt[case.target])
    if verdict.identical:
        return f" to the bit, all {guess.numel():,} numbers"
    if not verdict.max_abs_diff:
        return " but for rounding: only the sign of zeros differs"
    return f" but for rounding: off by {verdict.max_abs_diff:.1e} at the most"


def _signed_zeros(rebuilt: Mapping[str, Tensor], truth: Capture) -> tuple[Diagnosis, ...]:
    """Where no number differs, a zero's sign may."""
    for name, official in truth.tensors.items():
        if not identical(rebuilt[name], official):
            says = "-0 instead of 0, which changes no other number"
            evidence = f"All numbers of {name} are equal; only the sign of zeros differs."
            return (Diagnosis("rounding", name, says, evidence, Level.SHOWN, confidence(Level.SHOWN), name),)
    return ()


def _never_shown(case: NothingToExplain, error: BaseException | None) -> Diagnosis:
    """Nothing that is there differs: the rest is missing."""
    cause, says, level = "missing", "", Level.SHOWN
    if error is not None:
        says = f"the run stopped here: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        cause, level = "unknown", Level.GUESSED
        if "tapped twice" in str(error):
            cause, level = "block-repeated", Level.SHOWN
        elif _turned(case, error):
            cause, level = "weight-transposed", Level.SEEN
    else:
        part = part_of(case.first)
        if not any(part_of(name) == part for name in case.rebuilt) and any(c.isdigit() for c in part):
            cause, says = "block-skipped", f"nothing of {part} was shown"
    evidence = "All checkpoints that were shown before it are bit-identical."
    return Diagnosis(cause, case.first, says, evidence, level, confidence(level), case.first)


def _turned(case: NothingToExplain, error: BaseException) -> bool:
    """Whether torch complains about just the shapes that the next step's weight has when it is turned."""
    formula = case.world.formulas.get(case.first)
    if formula is None or formula.kind not in ("linear", "conv1d"):
        return False
    weight = case.world.weights[formula.weights[0]]
    out, into = weight.shape if formula.kind == "linear" else weight.T.shape
    return any(f"{a}x{b}" in str(error) for a, b in ((out, into), (into, out))) and "shapes" in str(error)
