"""GPT-2 at full size: the official config, seeded weights in the hub's layout."""

from __future__ import annotations

import math

import pytest

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from tests.verify import full_size
from tools.full_size import CONFIGS, make


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return LocalCopy("gpt2", make(tmp_path_factory.mktemp("models") / "gpt2", CONFIGS["gpt2"]), "folder")


def test_it_is_gpt2(gpt2: LocalCopy):
    shapes = rebuild_for(gpt2.config).shapes()
    assert sum(math.prod(shape) for shape in shapes.values()) == 124_439_808  # as published
    assert "h.0.attn.bias" in gpt2.weights()  # the causal mask that the hub's file holds, too


@pytest.mark.parametrize(("attention", "rows", "use_cache"), full_size.WAYS)
def test_every_checkpoint_is_bit_identical(gpt2: LocalCopy, attention: str, rows: int, use_cache: bool):
    full_size.one_pass(gpt2, attention, full_size.ROWS[:rows], use_cache)


@pytest.mark.parametrize(("attention", "rows"), full_size.STEPPED)
@pytest.mark.parametrize("steps", full_size.STEPS)
def test_every_checkpoint_of_decode_steps_is_bit_identical(
    gpt2: LocalCopy, attention: str, rows: int, steps: int
):
    full_size.every_step(gpt2, attention, full_size.ROWS[:rows], steps)


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ("h.0.ln_1.bias", "h.0.ln_1"),
        ("h.5.attn.c_attn.bias", "h.5.attn.c_attn"),
        ("h.11.mlp.c_proj.weight", "h.11.mlp.c_proj"),
        ("ln_f.weight", "ln_f"),
    ],
)
def test_one_changed_number_shows_at_its_place(gpt2: LocalCopy, key: str, first: str):
    assert full_size.first_difference(gpt2, key) == first
