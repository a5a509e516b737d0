"""SmolLM2-135M at full size: the config of huggingface.co/HuggingFaceTB/SmolLM2-135M, seeded weights."""

from __future__ import annotations

import math

import pytest

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from tests.verify import full_size
from tools.full_size import CONFIGS, make


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    folder = make(tmp_path_factory.mktemp("models") / "smollm2-135m", CONFIGS["smollm2-135m"])
    return LocalCopy("smollm2-135m", folder, "folder")


def test_it_is_smollm2(smollm2: LocalCopy):
    shapes = rebuild_for(smollm2.config).shapes()
    assert sum(math.prod(shape) for shape in shapes.values()) == 134_515_008  # as published


@pytest.mark.parametrize(("attention", "rows", "use_cache"), full_size.WAYS)
def test_every_checkpoint_is_bit_identical(smollm2: LocalCopy, attention: str, rows: int, use_cache: bool):
    report = full_size.one_pass(smollm2, attention, full_size.ROWS[:rows], use_cache)
    assert report.coverage is not None
    assert report.coverage.share >= 0.97


@pytest.mark.parametrize(("attention", "rows"), full_size.STEPPED)
@pytest.mark.parametrize("steps", full_size.STEPS)
def test_every_checkpoint_of_decode_steps_is_bit_identical(
    smollm2: LocalCopy, attention: str, rows: int, steps: int
):
    full_size.every_step(smollm2, attention, full_size.ROWS[:rows], steps)


@pytest.mark.parametrize(
    ("key", "first"),
    [
        ("model.layers.3.self_attn.k_proj.weight", "model.layers.3.self_attn.k_proj"),
        ("model.layers.29.mlp.up_proj.weight", "model.layers.29.mlp.up_proj"),
        ("model.layers.0.input_layernorm.weight", "model.layers.0.input_layernorm"),
        ("model.norm.weight", "model.norm"),
    ],
)
def test_one_changed_number_shows_at_its_place(smollm2: LocalCopy, key: str, first: str):
    assert full_size.first_difference(smollm2, key) == first
