"""T5-small at full size: the official config, seeded weights in the hub's layout."""

from __future__ import annotations

import math

import pytest

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from tests.verify import full_size
from tools.full_size import CONFIGS, make


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    folder = make(tmp_path_factory.mktemp("models") / "t5-small", CONFIGS["t5-small"])
    return LocalCopy("t5-small", folder, "folder")


def test_it_is_t5_small(t5: LocalCopy):
    shapes = rebuild_for(t5.config).shapes()
    assert sum(math.prod(shape) for shape in shapes.values()) == 60_506_624  # as published


@pytest.mark.parametrize(("attention", "rows", "use_cache"), full_size.WAYS)
def test_every_checkpoint_is_bit_identical(t5: LocalCopy, attention: str, rows: int, use_cache: bool):
    full_size.one_pass(t5, attention, full_size.ROWS[:rows], use_cache)


def test_distances_that_share_buckets(t5: LocalCopy):
    """Long enough for every bucket of both sides, the last ones for more than 128 tokens apart, included."""
    full_size.one_pass(t5, "sdpa", [[(7 * i) % 32000 + 3 for i in range(200)]], use_cache=False)


@pytest.mark.parametrize(("attention", "rows"), full_size.STEPPED)
@pytest.mark.parametrize("steps", full_size.STEPS)
def test_every_checkpoint_of_decode_steps_is_bit_identical(
    t5: LocalCopy, attention: str, rows: int, steps: int
):
    full_size.every_step(t5, attention, full_size.ROWS[:rows], steps)


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ("encoder.block.3.layer.0.SelfAttention.k.weight", "encoder.block.3.layer.0.SelfAttention.k"),
        ("encoder.final_layer_norm.weight", "encoder.final_layer_norm"),
        ("decoder.block.5.layer.1.EncDecAttention.v.weight", "decoder.block.5.layer.1.EncDecAttention.v"),
        ("decoder.block.0.layer.2.DenseReluDense.wo.weight", "decoder.block.0.layer.2.DenseReluDense.wo"),
    ],
)
def test_one_changed_number_shows_at_its_place(t5: LocalCopy, key: str, first: str):
    assert full_size.first_difference(t5, key) == first
