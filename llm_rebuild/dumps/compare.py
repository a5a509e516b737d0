"""A dump held against the official run: the proof, with verdicts of what the dump has."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from llm_rebuild.diagnosis.explain import explain, with_rounding
from llm_rebuild.dumps.names import Matched
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.divergence import describe
from llm_rebuild.verify.equality import is_rounded_from
from llm_rebuild.verify.proof import Proof
from llm_rebuild.verify.question import Question
from llm_rebuild.verify.rounding import MISTAKE, ROUNDING, Rounding
from llm_rebuild.verify.run import judge


def proof_of(question: Question, truth: Capture, matched: Matched) -> Proof:
    """Every tensor that is a checkpoint, compared, in the order of computation. What the dump does not have
    is not asked for. What differs is explained, unless the dump has half the precision: its numbers are then
    held against the official ones, rounded to it, and bits say nothing of a cause."""
    rebuilt = dict(matched.tensors)
    narrowed = {
        name: _as_precise(official, rebuilt.get(name, official)) for name, official in truth.tensors.items()
    }
    short = {name for name, official in truth.tensors.items() if narrowed[name] is not official}
    as_precise = replace(truth, tensors=narrowed) if short else truth
    report = judge(rebuilt, as_precise)
    present = tuple(verdict for verdict in report.verdicts if verdict.name in rebuilt)
    kinds = {n: ROUNDING if is_rounded_from(rebuilt[n], truth.tensors[n]) else MISTAKE for n in short}
    rounding = Rounding(kinds) if short else None
    present = with_rounding(present, rounding) if rounding else present
    divergence = describe(present, as_precise)
    report = replace(report, verdicts=present, first_divergence=divergence, rounding=rounding)
    proof = Proof(question, report, as_precise, rebuilt)
    return proof if short else explain(proof, unfinished=True)


def _as_precise(official: Tensor, rebuilt: Tensor) -> Tensor:
    shorter = rebuilt.is_floating_point() and rebuilt.itemsize < official.itemsize
    return official.to(rebuilt.dtype) if shorter else official
