"""The official side, the comparison, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify import coverage as coverage_of
from llm_rebuild.verify.capture import (
    Capture,
    Interim,
    capture,
    capture_inputs,
    open_copy,
    read_inputs,
)
from llm_rebuild.verify.compare import Verdict, compare
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.rounding import separate
from llm_rebuild.verify.run import judge, rebuild_run
from llm_rebuild.verify.steps import verify_steps

__all__ = [
    "Capture",
    "Interim",
    "Proof",
    "Report",
    "Verdict",
    "capture",
    "compare",
    "judge",
    "prove",
    "verify",
    "verify_steps",
]

# How a rebuild is run: local copy, inputs, attention, use_cache -> its tensors by checkpoint name.
Run = Callable[[LocalCopy, Inputs, str, bool], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Proof:
    """A verification with everything that it compared: the verdicts, and both sides' tensors."""

    report: Report
    truth: Capture = field(repr=False)
    rebuilt: Mapping[str, Tensor] = field(repr=False)


def verify(
    model: str | Path | LocalCopy,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
    decoder_ids: Sequence[Sequence[int]] | None = None,
    use_cache: bool = False,
    coverage: bool = True,
    progress: Callable[[str], None] = lambda step: None,
) -> Report:
    """Run the official model and the rebuild on the same input and compare every checkpoint.

    Arguments as in `capture`. With `coverage`, the official model runs once more under a trace.
    Raises InputError for input that cannot be used.
    """
    return prove(
        model,
        texts,
        token_ids=token_ids,
        attention=attention,
        decoder_ids=decoder_ids,
        use_cache=use_cache,
        coverage=coverage,
        progress=progress,
    ).report


def prove(
    model: str | Path | LocalCopy,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
    decoder_ids: Sequence[Sequence[int]] | None = None,
    use_cache: bool = False,
    coverage: bool = True,
    progress: Callable[[str], None] = lambda step: None,
    run: Run = rebuild_run,
) -> Proof:
    """As `verify`, and keep the tensors of both sides. `run` says how the rebuild is run."""
    copy = open_copy(model)
    rebuild = rebuild_for(copy.config)
    inputs = read_inputs(copy, texts, token_ids, decoder_ids)
    rebuild.check(copy.weights())  # before the official model fills gaps with random numbers
    official = Official(copy.folder, attention)
    truth = capture_inputs(copy, inputs, attention, use_cache, official)
    progress("official")
    rebuilt = run(copy, inputs, attention, use_cache)
    progress("rebuild")
    report = judge(rebuilt, truth)
    progress("compare")
    if coverage:
        measured = coverage_of.measure(official, inputs, truth.tensors, use_cache)
        report = replace(report, coverage=measured)
    progress("coverage")
    del official  # its memory is wanted now
    if report.first_divergence is not None:
        report = replace(report, rounding=separate(copy, inputs, attention, use_cache=use_cache))
    return Proof(report, truth, rebuilt)
