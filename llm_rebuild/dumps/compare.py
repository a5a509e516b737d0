"""A dump held against the official run: the proof, with verdicts of what the dump has."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.dumps.names import Matched
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.divergence import describe
from llm_rebuild.verify.equality import ROUNDED, largest
from llm_rebuild.verify.proof import Proof
from llm_rebuild.verify.question import Question
from llm_rebuild.verify.run import judge


def proof_of(question: Question, truth: Capture, matched: Matched) -> Proof:
    """Every tensor that is a checkpoint, compared, in the order of computation. What the dump does not have
    is not asked for. Where the dump has half the precision, the official numbers are rounded to it first, and
    bits then say nothing of a cause: else what differs is explained."""
    rebuilt = dict(matched.tensors)
    narrowed = {n: _as_precise(tensor, rebuilt.get(n, tensor)) for n, tensor in truth.tensors.items()}
    as_precise = all(narrowed[name] is official for name, official in truth.tensors.items())
    truth = truth if as_precise else replace(truth, tensors=narrowed)
    report = judge(rebuilt, truth)
    present = tuple(verdict for verdict in report.verdicts if verdict.name in rebuilt)
    report = replace(report, verdicts=present, first_divergence=describe(present, truth))
    proof = Proof(question, report, truth, rebuilt)
    return explain(proof, unfinished=True) if as_precise else proof


def _as_precise(official: Tensor, rebuilt: Tensor) -> Tensor:
    """The official numbers, rounded to the dump's precision if that is half; of two neighbours between which
    the order of a sum decides, the dump's."""
    if not rebuilt.is_floating_point() or rebuilt.itemsize >= official.itemsize:
        return official
    off = ROUNDED * largest(official)
    low, high = ((official + share).to(rebuilt.dtype) for share in (-off, off))
    return torch.where((low <= rebuilt) & (rebuilt <= high), rebuilt, official.to(rebuilt.dtype))
