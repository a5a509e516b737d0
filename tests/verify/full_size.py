"""What both full-size tests do: one pass in every way, and decoding step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pytest
import torch

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from llm_rebuild.verify import Capture, Question, Report, ask, capture, verify, verify_steps
from tests.turns import in_turn

WAYS = in_turn(["eager", "sdpa"], [1, 2], [False, True])  # attention, texts, whether there is a cache
STEPPED = in_turn(["eager", "sdpa"], [2, 1])  # attention, texts
STEPS = [4, pytest.param(32, marks=pytest.mark.weekly)]  # of decoding
# Ids of two prompts of unequal length, from the whole width of both vocabularies.
ROWS = [[464, 3290, 373, 1043, 31000, 257, 2214, 1474, 12], [11505, 12, 10459, 27140]]


def one_pass(copy: LocalCopy, attention: str, rows: list[list[int]], use_cache: bool) -> Report:
    """Every checkpoint bit-identical, and at least 95% of what is computed covered."""
    report = verify(copy, token_ids=rows, attention=attention, use_cache=use_cache)
    assert report.verdicts
    assert report.exact, report.first_divergence
    assert report.coverage is not None
    uncovered = {op: (n, report.coverage.reasons()[op]) for op, n in report.coverage.uncovered.items()}
    print(
        f"{copy.name} {attention}: {len(report.verdicts)} checkpoints, coverage {report.coverage.share:.1%}"
    )
    print(f"  not covered: {uncovered or 'nothing'}; set aside: {dict(report.coverage.aside)}")
    assert report.coverage.share >= 0.95
    assert "no checkpoint" not in report.coverage.reasons().values()  # every one left out has a reason
    return report


def every_step(copy: LocalCopy, attention: str, rows: list[list[int]], steps: int) -> None:
    """The prompt and every decode step after it: every checkpoint bit-identical.

    In one thread: a step is so small that a second one mostly waits. `one_pass` runs in as many as there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        reports = verify_steps(copy, token_ids=rows, attention=attention, steps=steps)
    finally:
        torch.set_num_threads(threads)
    assert len(reports) == steps + 1
    for number, report in enumerate(reports):
        assert report.verdicts
        assert report.exact, f"step {number}: {report.first_divergence}"


@contextmanager
def changed(copy: LocalCopy, change: Callable[[dict[str, torch.Tensor]], Any]) -> Iterator[None]:
    """The rebuild alone with other weights: to see that the tests above can fail."""
    from llm_rebuild.weights import Weights

    tensors = {key: tensor.clone() for key, tensor in copy.weights().peek().items()}
    change(tensors)
    weights, method = Weights(tensors), LocalCopy.weights
    try:
        LocalCopy.weights = lambda self, *types: weights  # type: ignore[method-assign]
        yield
    finally:
        LocalCopy.weights = method  # type: ignore[method-assign]


@lru_cache(maxsize=1)
def official(copy: LocalCopy) -> tuple[Question, Capture]:
    """One official run, for all the numbers that are changed in one model."""
    question = ask(copy, token_ids=ROWS)
    return question, capture(question)


def first_difference(copy: LocalCopy, key: str) -> str:
    """The first checkpoint that shows one changed number in the tensor `key`."""
    from llm_rebuild.verify.run import judge, rebuild_run

    question, truth = official(copy)
    assert rebuild_for(copy.config).shapes()[key]

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key].view(-1)[-1] *= 1.0 + 2.0**-10

    with changed(copy, change):
        first = judge(rebuild_run(question), truth).first_divergence
    assert first is not None
    return first.name
