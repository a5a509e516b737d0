"""The official side, the comparison, and the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from llm_rebuild.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
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
from llm_rebuild.verify.run import judge, rebuild_run
from llm_rebuild.verify.steps import verify_steps

__all__ = ["Capture", "Interim", "Report", "Verdict", "capture", "compare", "judge", "verify", "verify_steps"]


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
    copy = open_copy(model)
    inputs = read_inputs(copy, texts, token_ids, decoder_ids)
    rebuild_for(copy.config).check(copy.weights())  # before the official model fills gaps with random numbers
    official = Official(copy.folder, attention)
    truth = capture_inputs(copy, inputs, attention, use_cache, official)
    progress("official")
    rebuilt = rebuild_run(copy, inputs, attention, use_cache)
    progress("rebuild")
    report = judge(rebuilt, truth)
    progress("compare")
    if coverage:
        measured = coverage_of.measure(official, inputs, truth.tensors, use_cache)
        report = replace(report, coverage=measured)
    progress("coverage")
    return report
