"""The official side, the comparison, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.inputs import Inputs
from llm_rebuild.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from llm_rebuild.verify import coverage as coverage_of
from llm_rebuild.verify.capture import (
    Capture,
    Interim,
    capture,
    capture_inputs,
    describe,
    open_copy,
    read_inputs,
)
from llm_rebuild.verify.compare import MISSING, Verdict, compare
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.report import Report

__all__ = ["Capture", "Interim", "Report", "Verdict", "capture", "compare", "verify"]


def verify(
    model: str | Path | LocalCopy,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
    coverage: bool = True,
    progress: Callable[[str], None] = lambda step: None,
) -> Report:
    """Run the official model and the rebuild on the same input and compare every checkpoint.

    Arguments as in `capture`. With `coverage`, the official model runs once more under a trace.
    Raises InputError for input that cannot be used.
    """
    copy = open_copy(model)
    inputs = read_inputs(copy, texts, token_ids)
    truth = capture_inputs(copy, inputs, attention)
    progress("official")
    rebuilt = rebuild_run(copy, inputs, attention)
    progress("rebuild")
    report = judge_run(truth, rebuilt, copy, inputs)
    progress("compare")
    if coverage:
        measured = coverage_of.measure(Official(copy.folder, attention), inputs, truth.tensors)
        report = Report(**{**vars(report), "coverage": measured})
    progress("coverage")
    return report


def rebuild_run(copy: LocalCopy, inputs: Inputs, attention: str) -> dict[str, Tensor]:
    """One forward pass of the rebuild. It gets ids, mask, config and the weight file, nothing else."""
    rebuild = rebuild_for(copy.config)
    recorder = Recorder()
    with torch.no_grad():
        rebuild.module.forward(
            inputs.token_ids,
            inputs.mask,
            copy.weights(),
            rebuild.config,
            attention=attention,
            tap=recorder.tap(),
        )
    return recorder.tensors


def judge_run(truth: Capture, rebuilt: Mapping[str, Tensor], copy: LocalCopy, inputs: Inputs) -> Report:
    """A verdict for every checkpoint, in order. What was not tapped is `missing`, never skipped."""
    verdicts = []
    for name, interim in truth.items():
        if name in rebuilt:
            verdicts.append(compare(rebuilt[name], interim))
        else:
            verdicts.append(Verdict(name, tuple(interim.shape), "float32", MISSING))
    unknown = [name for name in rebuilt if name not in truth]
    if unknown:
        raise ValueError(f"the rebuild taps {', '.join(unknown)}, which is no checkpoint of this run")
    return Report(
        model=describe(copy),
        environment=environment(),
        attention=truth.attention,
        texts=inputs.token_ids.shape[0],
        tokens=inputs.count,
        verdicts=tuple(verdicts),
        notes=notes(inputs),
    )


def notes(inputs: Inputs) -> tuple[str, ...]:
    """What a person should know about the input: texts that were cut."""
    width = inputs.token_ids.shape[1]
    return tuple(
        f"text {number} was cut to the model's {width} tokens; {lost} more did not fit"
        for number, lost in enumerate(inputs.truncated, 1)
        if lost
    )
