"""What a check found: how the learner's tensors compare, what was tried, and what was not.

How it looks is said in `show/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from llm_rebuild.printing import Printable
from llm_rebuild.verify.compare import BIT_IDENTICAL, MISSING, Verdict
from llm_rebuild.verify.proof import Proof
from llm_rebuild.verify.report import Report

UNFILLED = "not filled in"
FORWARD = "forward"  # untried, where single steps were


@dataclass(frozen=True)
class StepVerdict:
    """A step by itself, fed with official tensors.

    verdict  How what it returned compares; None where it returned nothing that could be compared.
    problem  Why: `not filled in`, or what it raised.
    line     Where it has to be filled in: `my_gpt2.py, line 40, in scale`.
    """

    name: str
    verdict: Verdict | None
    problem: str | None = None
    line: str | None = None

    @property
    def right(self) -> bool:
        """Whether it agrees to five decimals."""
        return self.verdict is not None and self.verdict.passes

    @property
    def unfilled(self) -> bool:
        """Whether it has no body yet."""
        return self.problem == UNFILLED

    @property
    def word(self) -> str:
        """Right or wrong, in a few words."""
        if self.verdict is None:
            return UNFILLED if self.unfilled else "fails alone"
        if self.verdict.identical:
            return "right alone"
        return f"{self.verdict.verdict} alone" if self.right else "wrong itself"

    def to_json(self) -> dict[str, Any]:
        """As in a check's `steps`."""
        verdict = self.verdict.to_json() if self.verdict is not None else {"name": self.name, "verdict": None}
        return {**verdict, "right": self.right, "problem": self.problem}


@dataclass(frozen=True)
class OtherRun:
    """One more run of the same forward: with the other attention, on other texts, or one token behind kept
    keys and values.

    way     Which: `sdpa attention`, `cached step`.
    answer  How what forward returned compares.
    error   What ended it, in one line.
    """

    way: str
    report: Report
    answer: Verdict | None
    error: str | None = None

    @property
    def title(self) -> str:
        """Which, and of what."""
        return f"{self.way}, on other texts" if self.way.endswith(" attention") else self.way

    @property
    def passed(self) -> bool:
        """It came to its end, and all that it gave agrees to five decimals."""
        return self.error is None and self.report.passed and self.answer is not None and self.answer.passes

    @property
    def exact(self) -> bool:
        """The same to the last bit."""
        return self.passed and self.report.exact and self.answer is not None and self.answer.identical

    def to_json(self) -> dict[str, Any]:
        """As in a check's `others`."""
        first = self.report.first_divergence
        return {
            "way": self.way,
            "checkpoints": len(self.report.verdicts),
            "bit_identical": self.report.bit_identical,
            "failed": sum(not v.passes for v in self.report.verdicts),
            "first_divergence": None if first is None else first.name,
            "answer": None if self.answer is None else self.answer.to_json(),
            "mistakes": [mistake.to_json() for mistake in self.report.mistakes],
            "error": self.error,
        }


@dataclass(frozen=True, repr=False)
class Check(Printable):
    """A learner's rebuild, checked.

    proof     Both sides' tensors, and the report on them.
    steps     The steps by themselves, by checkpoint.
    answer    How what forward returned compares with the last checkpoint; None where it did not get there.
    others    Further runs: the other attention, a cached step.
    untried   What this check did not try, and what to do so that it does.
    empty     Steps that nothing called and that are not filled in: `my_minilm.py, line 9, in attention_mask`.
    error     What ended the run before its end, in one line.
    unfilled  Where the run stopped because a step has no body yet: `my_gpt2.py, line 40, in scale`.
    output    What the file printed; `lost` more characters are left out.
    notes     What else a person should know.
    untapped  Checkpoints of a model that is none of the course's, which nobody asked for.
    """

    file: str
    proof: Proof
    steps: Mapping[str, StepVerdict]
    answer: Verdict | None = None
    others: tuple[OtherRun, ...] = ()
    untried: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    error: str | None = None
    unfilled: str | None = None
    output: str = ""
    lost: int = 0
    notes: tuple[str, ...] = ()
    untapped: tuple[str, ...] = ()

    @property
    def report(self) -> Report:
        """A verdict for every checkpoint, in order."""
        return self.proof.report

    @property
    def passed(self) -> bool:
        """All that ran agrees to five decimals (checkpoints, answer, steps by themselves, further runs), it
        came to its end, and no step is empty."""
        return (
            self.error is None
            and bool(self.report.verdicts)
            and self.report.passed
            and (self.answer is None or self.answer.passes)
            and all(step.right for step in self.steps.values())
            and all(run.passed for run in self.others)
            and not self.empty
        )

    @property
    def exact(self) -> bool:
        """The same to the last bit, in every way that `forward` was run. Of steps by themselves it is enough
        that they pass: they are fed with copies, which lie in memory otherwise than in a run, and on some
        processors a product of these adds in another order."""
        return (
            self.passed
            and self.report.exact
            and (self.answer is None or self.answer.identical)
            and all(run.exact for run in self.others)
        )

    @property
    def done(self) -> bool:
        """Passed, and nothing is left untried."""
        return self.passed and not self.untried and not self.untapped

    @property
    def next(self) -> str | None:
        """The first checkpoint, in the order of computation, that is not there or does not agree."""
        return next((v.name for v in self.report.verdicts if not v.passes), None)

    @property
    def differs(self) -> Verdict | None:
        """The first checkpoint that is there and not bit-identical."""
        return next((v for v in self.report.verdicts if v.verdict != MISSING and not v.identical), None)

    @property
    def stopped(self) -> str:
        """What ended the run before its end, and how far it came; empty where nothing did."""
        *_, last = "", *(v.name for v in takewhile(lambda v: v.passes, self.report.verdicts))
        passed = f"; the last checkpoint that passed is {last}" if last else ""
        return f"{self.error}{passed}" if self.error else ""

    @property
    def count(self) -> str:
        """How much is matched, of which model: the last line of what is shown."""
        r = self.report
        count = f"{r.bit_identical} of {len(r.verdicts)} checkpoints {BIT_IDENTICAL}"
        if self.untapped:
            count += f", {len(self.untapped)} not tapped"
        return f"{count} ({r.which})"

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"<check of {self.file}: {self.count}>"

    def to_json(self) -> dict[str, Any]:
        """As `verify --json`, and what only a check has."""
        return {
            **self.report.to_json(),
            "file": self.file,
            "done": self.done,
            "untried": [*self.untried, *(f"{line}, which is not filled in" for line in self.empty)],
            "next": self.next,
            "error": self.error,
            "answer": None if self.answer is None else self.answer.to_json(),
            "steps": [step.to_json() for step in self.steps.values()],
            "others": [run.to_json() for run in self.others],
            "not_tapped": list(self.untapped),
            "output": self.output,
            "output_lost": self.lost,
            "notes": list(self.notes),
        }
