"""Random models, random inputs: a slice of what `python -m tools.parity` runs."""

from __future__ import annotations

from collections import Counter
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


# What was found, as small as it became. One key for all queries: a copy gives other bits than a view.
ONE_KEY = {
    "vocab_size": 41, "model_type": "llama", "hidden_size": 8, "intermediate_size": 37,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 15, "hidden_act": "silu", "rms_norm_eps": 1e-12,
    "tie_word_embeddings": False, "rope_theta": 10.0, "rope_scaling": None,
    "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
FOUND = {
    "one key for all queries": parity.Example(
        ONE_KEY,
        ("lm_head.weight",),
        840,
        "eager",
        [parity.Case([list(range(11))] * 2, "none", False, 0, None)],
    )
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_is_bit_identical(name: str):
    assert not parity.mismatches(FOUND[name], Counter())


def test_a_model_that_computes_something_else_is_seen(monkeypatch: pytest.MonkeyPatch):
    for name in ops.ACTIVATIONS:
        monkeypatch.setitem(ops.ACTIVATIONS, name, lambda x, tap: x.clamp(min=0.01))
    assert "step 0: " in parity.batch(0, examples=2, smallest=False)["failure"]
