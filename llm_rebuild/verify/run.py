"""Running the rebuild, and holding what it computed against a capture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import NO_TAP, Recorder, Tap, plain
from llm_rebuild.errors import InputError
from llm_rebuild.models.part import Batch
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import MISSING, Verdict, compare, memory_of
from llm_rebuild.verify.divergence import describe
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.question import Question
from llm_rebuild.verify.report import Report
from llm_rebuild.weights import computing_on


def rebuild_run(question: Question) -> dict[str, Tensor]:
    """One forward pass of the rebuild. It gets ids, masks, config and the weight file, nothing else."""
    recorder = Recorder()
    run_rebuild(question, recorder.tap())
    return recorder.tensors


def run_rebuild(question: Question, tap: Tap = NO_TAP, cache: Any = None) -> Any:
    """The rebuild's answer. `cache` is what it kept at the step before, where the question goes on."""
    rebuild = question.rebuild
    if question.cache and cache is None:
        cache = rebuild.module.Cache()
    weights = question.copy.weights(question.dtype, question.device)
    batch = Batch(**{name: tensor.to(question.device) for name, tensor in question.inputs.tensors.items()})
    with torch.no_grad(), computing_on(question.device):
        return rebuild.run(batch, rebuild.part(weights, tap, question.attention), cache)


def judge(rebuilt: Mapping[str, Tensor], truth: Capture) -> Report:
    """A verdict for every checkpoint, in order. What was not rebuilt is `missing`, never skipped.

    rebuilt  Your tensors by checkpoint name, for example `Recorder().tensors` after a run.
    Raises InputError for a name that is no checkpoint, and where a rebuilt tensor lies in the memory of
    an official one, whichever: what is compared then was not computed twice.
    """
    unknown = [name for name in rebuilt if name not in truth]
    if unknown:
        raise InputError(f"the rebuild names {', '.join(unknown[:3])}, which is no checkpoint of this run")
    rebuilt = {name: plain(tensor, f"the rebuilt {name} is") for name, tensor in rebuilt.items()}
    _disjoint(rebuilt, truth.tensors)
    verdicts = tuple(
        compare(rebuilt[name], interim)
        if name in rebuilt
        else Verdict(name, tuple(interim.shape), interim.dtype, MISSING)
        for name, interim in truth.items()
    )
    return Report(
        model=truth.model,
        environment=environment(truth.dtype),
        attention=truth.attention,
        texts=truth.inputs.token_ids.shape[0],
        tokens=truth.inputs.count,
        verdicts=_coupled(verdicts, truth.coupled),
        coupled=tuple(truth.coupled),
        notes=notes(truth),
        first_divergence=describe(verdicts, truth),
        tokenizer=truth.tokenizer,
    )


def _disjoint(rebuilt: Mapping[str, Tensor], official: Mapping[str, Tensor]) -> None:
    """Refuse tensors that lie in each other's memory. Two rebuilt ones may: one checkpoint may be a view of
    another. Sorted by where they begin, only neighbours can overlap."""
    spans = [(*memory_of(tensor), False, name) for name, tensor in official.items()]
    spans += [(*memory_of(tensor), True, name) for name, tensor in rebuilt.items()]
    reach = {True: (0, ""), False: (0, "")}  # rebuilt or official -> the furthest end so far, and whose
    for start, end, is_rebuilt, name in sorted(span for span in spans if span[0] < span[1]):
        other_end, other = reach[not is_rebuilt]
        if start < other_end:
            rebuilt_name, official_name = (name, other) if is_rebuilt else (other, name)
            raise InputError(
                f"the rebuilt {rebuilt_name} lies in the memory of the official {official_name}: a tensor is "
                "compared with itself, which proves nothing; compute it, or take it openly by bridge()"
            )
        reach[is_rebuilt] = max(reach[is_rebuilt], (end, name))


def _coupled(verdicts: tuple[Verdict, ...], bridged: list[str]) -> tuple[Verdict, ...]:
    """Mark what was rebuilt at or after the first bridge, in the order of computation."""
    names = [verdict.name for verdict in verdicts]
    first = min((names.index(name) for name in bridged), default=len(names))
    return tuple(
        replace(v, coupled=True) if number >= first and v.verdict != MISSING else v
        for number, v in enumerate(verdicts)
    )


def notes(truth: Capture) -> tuple[str, ...]:
    """What a person should know: texts that were cut, official tensors that prove nothing."""
    width = truth.inputs.token_ids.shape[1]
    without = [name for name, tensor in truth.tensors.items() if bool(tensor.isnan().any())][:1]
    cut = (
        f"text {number} was cut to the model's {width} tokens; {lost} more did not fit"
        for number, lost in enumerate(truth.inputs.truncated, 1)
        if lost
    )
    return (*cut, *(f"the official {name} holds NaN; there and behind it NaN is right" for name in without))
