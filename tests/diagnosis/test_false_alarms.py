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


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", MODELS)
def test_none_on_the_miniatures(name: str, attention: str, figure: Callable[[str], None]) -> None:
    alarms, compared = false_alarms(LocalCopy(name, MINIATURES / name, "miniature"), attention, inputs=100)
    figure(
        f"{name} miniature, {attention}, 100 random inputs: {alarms} false alarms in {compared} checkpoints"
    )
    assert compared > 4000
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
