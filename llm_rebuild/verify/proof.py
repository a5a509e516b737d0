"""A proof: one question to the official model and to a rebuild, and every checkpoint of theirs compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor
from typing_extensions import Unpack

from llm_rebuild.verify.capture import Capture, read_capture
from llm_rebuild.verify.coverage import measure
from llm_rebuild.verify.question import Model, Options, Question, ask
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.run import judge, rebuild_run
from llm_rebuild.verify.trace import observe

# How a rebuild is run: its tensors by checkpoint name.
Run = Callable[[Question], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Proof:
    """A verification with everything that it compared: the question, the verdicts, both sides' tensors."""

    question: Question
    report: Report
    truth: Capture = field(repr=False)
    rebuilt: Mapping[str, Tensor] = field(repr=False)


def verify(
    model: Model | Question,
    texts: str | Sequence[str] | None = None,
    *,
    coverage: bool = True,
    **options: Unpack[Options],
) -> Report:
    """Run the official model and the rebuild on the same input and compare every checkpoint.

    What differs is measured here, and explained by `llm_rebuild.prove`.

    The model, texts and options are those of `question.ask`; a question that is made already serves as well.
    Raises InputError for input that cannot be used.
    """
    return prove(model, texts, coverage=coverage, **options).report


def prove(
    model: Model | Question,
    texts: str | Sequence[str] | None = None,
    *,
    coverage: bool = True,
    progress: Callable[[str], None] = lambda step: None,
    run: Run = rebuild_run,
    **options: Unpack[Options],
) -> Proof:
    """As `verify`, and keep the tensors of both sides. `run` says how the rebuild is run."""
    question = ask(model, texts, **options)
    architecture = question.rebuild.architecture  # where there is none, it is said before the work
    observer = observe(question, sides=2)
    truth = read_capture(question, observer)
    progress("official")
    rebuilt = run(question)
    progress("rebuild")
    report = replace(judge(rebuilt, truth), untried=question.untried(), device=question.device)
    progress("compare")
    if coverage:
        report = replace(report, coverage=measure(observer.trace(), truth.tensors, architecture.uncovered))
    progress("coverage")
    return Proof(question, report, truth, rebuilt)
