"""Random models, random inputs: a slice of what `python -m tools.parity` runs."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("hypothesis", reason='`pip install -e ".[test]"` brings it')

from llm_rebuild.models import ops
from tools import parity


@pytest.mark.parametrize("examples", [10, pytest.param(40, marks=pytest.mark.weekly)])
def test_every_checkpoint_is_bit_identical(examples: int, figure: Any):
    compared = parity.batch(0, examples)
    figure(parity.shown([compared]))
    assert not compared["failure"]
    assert compared["cases"] >= 5 * examples
    assert compared["passes"] > compared["cases"]  # some go on from a cache
    assert {"bert", "gpt2", "t5"} < set(compared)


def test_a_model_that_computes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch):
    for name in ops.ACTIVATIONS:
        monkeypatch.setitem(ops.ACTIVATIONS, name, lambda x, tap: x.clamp(min=0.01))
    assert "step 0: " in parity.batch(0, examples=2, smallest=False)["failure"]
