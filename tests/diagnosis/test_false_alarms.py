"""Right rebuilds are never reported: no difference, and no diagnosis.

`python -m benchmarks.false_alarms` does the same at full size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import llm_rebuild
from benchmarks.false_alarms import MODELS, false_alarms
from llm_rebuild.copies.local_copy import LocalCopy

MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"


@pytest.mark.parametrize("inputs", [6, pytest.param(100, marks=pytest.mark.weekly)])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_none_on_the_miniatures(
    name: str, attention: str, inputs: int, figure: Callable[[str], None]
) -> None:
    copy = LocalCopy(name, MINIATURES / name, "miniature")
    alarms, compared = false_alarms(copy, attention, inputs)
    figure(f"{name} miniature, {attention}, {inputs} inputs: {alarms} false alarms in {compared} checkpoints")
    assert compared > 40 * inputs
    assert alarms == 0


def test_an_alarm_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The count can be other than 0."""
    from llm_rebuild.verify import run

    right = run.run_rebuild

    def wrong(question, tap):  # type: ignore[no-untyped-def]
        question.inputs.token_ids[:, -1] = 3
        return right(question, tap)

    monkeypatch.setattr(run, "run_rebuild", wrong)
    alarms, _ = false_alarms(LocalCopy("gpt2", MINIATURES / "gpt2", "miniature"), "eager", inputs=2)
    assert alarms == 2
