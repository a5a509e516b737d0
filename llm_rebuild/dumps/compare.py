"""A dump held against the official run: the proof, with verdicts of what the dump has."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from llm_rebuild.dumps.names import Matched
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.proof import Proof
from llm_rebuild.verify.question import Question
from llm_rebuild.verify.run import judge


def proof_of(question: Question, truth: Capture, matched: Matched) -> Proof:
    """Every tensor that is a checkpoint, compared, in the order of computation. What the dump does not have is
    not asked for. Where the dump has half the precision, the official numbers are rounded to it first."""
    rebuilt = dict(matched.tensors)
    narrowed = {name: _as_precise(official, rebuilt.get(name)) for name, official in truth.tensors.items()}
    report = judge(rebuilt, replace(truth, tensors=narrowed))
    verdicts = tuple(verdict for verdict in report.verdicts if verdict.name in rebuilt)
    first = report.first_divergence
    report = replace(
        report, verdicts=verdicts, first_divergence=first if first and first.name in rebuilt else None
    )
    return Proof(question, report, truth, rebuilt)


def _as_precise(official: Tensor, rebuilt: Tensor | None) -> Tensor:
    half = rebuilt is not None and rebuilt.is_floating_point() and official.is_floating_point()
    if half and rebuilt is not None and rebuilt.itemsize < official.itemsize:
        return official.to(rebuilt.dtype)
    return official
