"""The official side, the comparison, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import NO_TAP, Recorder, Tap
from llm_rebuild.errors import InputError
from llm_rebuild.inputs import Inputs
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
from llm_rebuild.verify.compare import MISSING, Verdict, compare
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.report import Report

__all__ = ["Capture", "Interim", "Report", "Verdict", "capture", "compare", "judge", "verify"]


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
    truth = capture_inputs(copy, inputs, attention, use_cache)
    progress("official")
    rebuilt = rebuild_run(copy, inputs, attention, use_cache)
    progress("rebuild")
    report = judge(rebuilt, truth)
    progress("compare")
    if coverage:
        measured = coverage_of.measure(Official(copy.folder, attention), inputs, truth.tensors, use_cache)
        report = replace(report, coverage=measured)
    progress("coverage")
    return report


def rebuild_run(
    copy: LocalCopy, inputs: Inputs, attention: str, use_cache: bool = False
) -> dict[str, Tensor]:
    """One forward pass of the rebuild. It gets ids, masks, config and the weight file, nothing else."""
    recorder = Recorder()
    run_rebuild(copy, inputs, attention, recorder.tap(), use_cache=use_cache)
    return recorder.tensors


def run_rebuild(copy: LocalCopy, inputs: Inputs, attention: str, tap: Tap = NO_TAP, **decoding: Any) -> Any:
    """The rebuild's answer. `decoding` is `use_cache` and `cache`, for models that know them."""
    rebuild = rebuild_for(copy.config)
    if inputs.decoder_ids is not None:
        decoding |= {"decoder_ids": inputs.decoder_ids, "decoder_mask": inputs.decoder_mask}
    elif rebuild.module.__name__.endswith("minilm"):
        decoding = {}
    with torch.no_grad():
        return rebuild.module.forward(
            inputs.token_ids,
            inputs.mask,
            copy.weights(),
            rebuild.config,
            attention=attention,
            tap=tap,
            **decoding,
        )


def judge(rebuilt: Mapping[str, Tensor], truth: Capture) -> Report:
    """A verdict for every checkpoint, in order. What was not rebuilt is `missing`, never skipped.

    rebuilt  Your tensors by checkpoint name, for example `Recorder().tensors` after a run.
    Raises InputError for a name that is no checkpoint, and where a tensor is compared with itself.
    """
    unknown = [name for name in rebuilt if name not in truth]
    if unknown:
        raise InputError(f"the rebuild names {', '.join(unknown[:3])}, which is no checkpoint of this run")
    verdicts = tuple(
        compare(rebuilt[name], interim)
        if name in rebuilt
        else Verdict(name, tuple(interim.shape), interim.dtype, MISSING)
        for name, interim in truth.items()
    )
    return Report(
        model=truth.model,
        environment=environment(),
        attention=truth.attention,
        texts=truth.inputs.token_ids.shape[0],
        tokens=truth.inputs.count,
        verdicts=verdicts,
        coupled=tuple(truth.coupled),
        notes=notes(truth.inputs),
    )


def notes(inputs: Inputs) -> tuple[str, ...]:
    """What a person should know about the input: texts that were cut."""
    width = inputs.token_ids.shape[1]
    return tuple(
        f"text {number} was cut to the model's {width} tokens; {lost} more did not fit"
        for number, lost in enumerate(inputs.truncated, 1)
        if lost
    )
