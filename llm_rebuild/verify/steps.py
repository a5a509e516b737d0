"""Verification of decoding: not one pass but many, each going on from the keys and values of the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import open_copy, read_inputs, watch
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.run import judge, run_rebuild


def verify_steps(
    model: str | Path | LocalCopy,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    steps: int = 32,
    attention: str = "eager",
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Report, ...]:
    """Decode `steps` tokens on both sides, each with its own cache, and compare every checkpoint each time.

    Gives a report on the prompt and then one on each step. Both sides are fed the same ids, those that the
    official model finds most probable; a decoder-only model's shorter prompts are padded on the left.
    Raises InputError for a model that does not decode, and where the steps would run past its positions.
    """
    copy = open_copy(model)
    rebuild = rebuild_for(copy.config)
    start = getattr(rebuild.config, "decoder_start_token_id", None)
    if not rebuild.architecture.generates:
        raise InputError(f"{copy.name} is an encoder: it answers in one pass and has no steps to verify")
    rebuild.check(copy.weights())
    inputs = read_inputs(copy, texts, token_ids, side="left" if start is None else "right")
    if start is not None:
        inputs = inputs.with_decoder([[start]] * len(inputs.token_ids), start, rebuild.config.vocab_size)
    positions = rebuild.config.positions
    if positions is not None and inputs.token_ids.shape[1] + steps > positions:
        raise InputError(
            f"a prompt of {inputs.token_ids.shape[1]} tokens and {steps} steps do not fit the model's "
            f"{positions} positions"
        )
    official, cache, reports = Official(copy.folder, attention), None, []
    for number in range(steps + 1):
        first = number == 0
        run = partial(official.run, use_cache=True) if first else official.step
        truth = watch(official, copy, inputs, run, {"cache", "start"} if first else {"cache"})
        recorder = Recorder()
        output = run_rebuild(copy, inputs, attention, recorder.tap(), cache=cache, use_cache=True)
        reports.append(judge(recorder.tensors, truth))
        cache = output.cache
        inputs = then(inputs, truth.tensors["lm_head"][:, -1].argmax(dim=-1))
        progress(f"step {number}")
    return tuple(reports)


def then(inputs: Inputs, new_ids: Tensor) -> Inputs:
    """What a step is given: one new id a row, and a mask that counts it. new_ids [batch]."""
    one = torch.ones(len(new_ids), 1, dtype=torch.int64)
    if inputs.decoder_ids is not None and inputs.decoder_mask is not None:
        mask = torch.cat([inputs.decoder_mask, one], dim=1)
        return replace(inputs, decoder_ids=new_ids.unsqueeze(1), decoder_mask=mask)
    return replace(inputs, token_ids=new_ids.unsqueeze(1), mask=torch.cat([inputs.mask, one], dim=1))
