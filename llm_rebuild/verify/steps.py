"""Verification of decoding: not one pass but many, each going on from the keys and values of the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from typing_extensions import Unpack

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.errors import InputError, counted
from llm_rebuild.verify.capture import Capture, capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Model, Options, Question, ask
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.run import judge, run_rebuild


def verify_steps(
    model: Model | Question,
    texts: str | Sequence[str] | None = None,
    *,
    steps: int = 32,
    progress: Callable[[str], None] = lambda step: None,
    **options: Unpack[Options],
) -> tuple[Report, ...]:
    """Decode `steps` tokens on both sides, each with its own cache, and compare every checkpoint each time.

    Gives a report on the prompt and then one on each step. Both sides are fed the same ids, those that the
    official model finds most probable; a decoder-only model's shorter prompts are padded on the left, and a
    decoder beside an encoder begins with its start token.
    Raises InputError for a model that does not decode, and where the steps would run past its positions.
    """
    question, cache = first_pass(ask(model, texts, **options), steps), None
    official, reports = Official(question.copy.folder, question.attention, question.dtype), []
    for number in range(steps + 1):
        truth, recorder = capture(question, official=official), Recorder()
        cache = run_rebuild(question, recorder.tap(), cache).cache
        report = judge(recorder.tensors, truth)
        reports.append(replace(report, untried=question.untried(), device=question.device))
        question = question.step(likeliest(truth))
        progress(f"step {number}")
    return tuple(reports)


def likeliest(truth: Capture) -> Tensor:
    """The token that the official model finds most probable next, of each row. [batch]"""
    scores = truth.tensors[list(truth)[-1]]  # [batch, token, vocabulary]
    return scores[:, -1].argmax(dim=-1)


def first_pass(question: Question, steps: int) -> Question:
    """The same question as decoding begins with it: keys and values are kept, shorter prompts padded on the
    left, and a decoder beside an encoder begins with its start token.

    Nothing is computed. Raises InputError for a model that does not decode, and where so many steps would run
    past its positions.
    """
    copy, rebuild, inputs = question.copy, question.rebuild, question.inputs
    if not rebuild.architecture.generates:
        raise InputError(f"{copy.name} is an encoder: it answers in one pass and has no steps to verify")
    start = getattr(rebuild.config, "decoder_start_token_id", None)
    if start is None:
        inputs = inputs.with_padding("left")
    else:
        inputs = inputs.with_decoder([[start]] * len(inputs.token_ids), start, rebuild.config.vocab_size)
    positions = rebuild.config.positions
    if positions is not None and inputs.token_ids.shape[1] + steps > positions:
        raise InputError(
            f"a prompt of {counted(inputs.token_ids.shape[1], 'token')} and {counted(steps, 'step')} do not "
            f"fit the model's {positions} positions"
        )
    return replace(question, inputs=inputs, cache=True)


def to_json(reports: Sequence[Report]) -> dict[str, Any]:
    """The contract of `verify --steps --json`: a report on the prompt and on each step, and a summary."""
    verdicts = [verdict for report in reports for verdict in report.verdicts]
    summary = {
        "steps": len(reports) - 1,
        "checkpoints": len(verdicts),
        "bit_identical": sum(verdict.identical for verdict in verdicts),
        "failed": sum(not verdict.passes for verdict in verdicts),
    }
    return {"steps": [report.to_json() for report in reports], "summary": summary}
