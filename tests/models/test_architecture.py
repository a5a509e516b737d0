"""The records of the architectures fit their models, and the models fit on a screen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import llm_rebuild.models
from llm_rebuild.errors import InputError
from llm_rebuild.models import ARCHITECTURES, architecture_for
from llm_rebuild.models.architecture import Architecture
from tests.models import small

FOLDER = Path(llm_rebuild.models.__file__).parent
RECORDS = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_a_function_fits_on_a_screen(file: Path):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            named = [a.arg for a in arguments if a.arg not in ("self", "cls")]
            assert len(named) <= 5, f"{node.name}({', '.join(named)})"
            assert (node.end_lineno or node.lineno) - node.lineno < 40, node.name


@RECORDS
def test_a_record_names_checkpoints_and_fields_that_there_are(architecture: Architecture):
    names = {checkpoint.name for checkpoint in architecture.checkpoints}
    config = architecture.config.read({"model_type": architecture.model_type})
    for stack in architecture.stacks:
        assert {stack.enters, stack.output()} <= names
        assert getattr(config, stack.blocks) > 0
        assert all(stack.inside in name for name in names if name.startswith(f"{stack.path}."))
    assert getattr(config, architecture.width) > 0
    for piece in architecture.crossing:
        assert any(piece in name for name in names)
    conditions = {condition for checkpoint in architecture.checkpoints for condition in checkpoint.only}
    assert architecture.whole <= conditions | {"padding"}
    for texts in (architecture.texts, architecture.miniature_texts):
        assert len(set(map(len, texts))) == 2, "the second is padded"


@pytest.mark.parametrize(
    ("model_type", "name", "number"),
    [
        ("bert", "embeddings.LayerNorm", -1),
        ("bert", "encoder.layer.3.output.LayerNorm", 3),
        ("bert", "encoder.layer.3.attention.output.LayerNorm", None),
        ("gpt2", "embeddings", -1),
        ("gpt2", "h.11.mlp.residual", 11),
        ("gpt2", "h.11.attn.residual", None),
        ("t5", "encoder.block.2.layer.1.residual", 2),
        ("t5", "decoder.block.2.layer.1.residual", None),
        ("t5", "decoder.block.2.layer.2.residual", 2),
        ("t5", "decoder.embed_tokens", -1),
        ("t5", "lm_head", None),
        ("qwen3", "model.layers.7.mlp.residual", 7),
    ],
)
def test_which_block_a_checkpoint_is_the_output_of(model_type: str, name: str, number: int | None):
    assert ARCHITECTURES[model_type].block_output(name) == number


@pytest.mark.parametrize(
    ("name", "axis", "counts"),
    [
        ("encoder.block.0.layer.0.SelfAttention.probs", "key", False),
        ("decoder.block.0.layer.0.SelfAttention.probs", "key", True),
        ("decoder.block.0.layer.1.EncDecAttention.probs", "query", True),
        ("decoder.block.0.layer.1.EncDecAttention.probs", "key", False),
        ("decoder.block.0.layer.1.EncDecAttention.q", "token", True),
        ("decoder.block.0.layer.1.EncDecAttention.k", "token", False),
        ("decoder.cross_mask", "key", False),
        ("lm_head", "token", True),
    ],
)
def test_whose_tokens_an_axis_counts(name: str, axis: str, counts: bool):
    assert ARCHITECTURES["t5"].counts_decoder(name, axis) is counts
    assert not ARCHITECTURES["gpt2"].counts_decoder(name, axis)


def test_an_architecture_is_looked_up_by_its_name():
    assert architecture_for(small.T5) is ARCHITECTURES["t5"]
    assert architecture_for({"model_type": "mistral"}) is architecture_for({"model_type": "llama"})
    assert architecture_for({"model_type": "gemma"}) is None
    for nothing in ({}, {"model_type": 5}, {"model_type": ["t5"]}):
        with pytest.raises(InputError, match="model_type is "):
            architecture_for(nothing)
