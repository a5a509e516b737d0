"""Random models, random inputs: a slice of what `python -m tools.parity` runs."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("hypothesis", reason='`pip install -e ".[test]"` brings it')

from llm_rebuild.models import ops
from tools import parity


def test_every_checkpoint_of_200_cases_is_bit_identical(figure: Any):
    compared = parity.batch(0, examples=40)
    figure(parity.shown([compared]))
    assert not compared["failure"]
    assert compared["cases"] >= 200
    assert compared["passes"] > compared["cases"]  # some go on from a cache
    assert {"bert", "gpt2", "t5"} < set(compared)


def test_a_model_that_computes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch):
    for name in ops.ACTIVATIONS:
        monkeypatch.setitem(ops.ACTIVATIONS, name, lambda x, tap: x.clamp(min=0.01))
    assert "step 0: " in parity.batch(0, examples=2, smallest=False)["failure"]
