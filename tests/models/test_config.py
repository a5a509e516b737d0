"""No field of an official config class can be asked for and silently not be had."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from llm_rebuild.errors import InputError
from llm_rebuild.models import gpt2_config, llama_config, minilm_config, rebuild_for, t5_config
from llm_rebuild.models.config import FIXED_EVERYWHERE
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question, ask
from tests.models import irrelevant, small

# One layout reads four official configs.
OF_LLAMA = {
    kind: SimpleNamespace(
        Config=llama_config.Config,
        ARCHITECTURE=dataclasses.replace(llama_config.ARCHITECTURE, model_type=kind),
    )
    for kind in llama_config.RELATIVES
}
FAMILIES: list[tuple[Any, Any]] = [
    (BertConfig, minilm_config),
    (GPT2Config, gpt2_config),
    (T5Config, t5_config),
]
FAMILIES += zip((LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config), OF_LLAMA.values(), strict=True)
LLAMAS = [{**small.LLAMA, "model_type": kind} for kind in OF_LLAMA]
IDS = ["bert", "gpt2", "t5", *OF_LLAMA]


def official_fields(official: type) -> set[str]:
    """Every field of the class, its parents', and what it adds to a saved config.json by itself."""
    fields = {field.name for kind in (official, PreTrainedConfig) for field in dataclasses.fields(kind)}
    return (fields | set(official().to_dict())) - {"model_type"}


def known_fields(layout: Any) -> set[str]:
    used = {field.name for field in dataclasses.fields(layout.Config)}
    reading = {*layout.ARCHITECTURE.fixed, *irrelevant.of(layout.ARCHITECTURE)}
    return {*used, *reading, *FIXED_EVERYWHERE, *irrelevant.EVERYWHERE}


def official_defaults(layout: Any) -> dict[str, Any]:
    """The defaults of the fields that the official class has, too."""
    ours = {"scale_decoder_outputs", "pooling", "normalize", "max_tokens", "decoder_start_token_id"}
    ours |= {"rope", "window", "model_type"}
    return {
        field.name: field.default for field in dataclasses.fields(layout.Config) if field.name not in ours
    }


def unknown_fields(official: type, layout: Any) -> set[str]:
    return official_fields(official) - known_fields(layout)


@pytest.mark.parametrize(("official", "layout"), FAMILIES, ids=IDS)
def test_every_official_field_is_used_fixed_or_irrelevant(official: type, layout: Any):
    assert not unknown_fields(official, layout)


def test_a_field_that_a_new_release_adds_is_noticed():
    @dataclasses.dataclass
    class Newer(GPT2Config):
        attention_sinks: int = 0

    assert unknown_fields(Newer, gpt2_config) == {"attention_sinks"}


@pytest.mark.parametrize(("official", "layout"), FAMILIES, ids=IDS)
def test_no_field_is_in_two_groups(official: type, layout: Any):
    used = {field.name for field in dataclasses.fields(layout.Config)}
    own = irrelevant.of(layout.ARCHITECTURE)
    fixed, idle = set(layout.ARCHITECTURE.fixed), {*own, *irrelevant.EVERYWHERE}
    assert not used & fixed
    assert not used & idle
    assert not fixed & idle
    assert all(own.values())


@pytest.mark.parametrize(("official", "layout"), FAMILIES, ids=IDS)
def test_defaults_are_the_official_ones(official: type, layout: Any):
    fields = {field.name: field.default for field in dataclasses.fields(official)}
    silent = llama_config.RELATIVES.get(layout.ARCHITECTURE.model_type, {})
    for name, value in official_defaults(layout).items():
        assert fields.get(name, value) == silent.get(name, value), name
    for name, value in layout.ARCHITECTURE.fixed.items():
        if name in fields:
            assert fields[name] == value, name
    # What an empty config.json means is what the official class makes of nothing at all.
    read = layout.Config.read({"model_type": layout.ARCHITECTURE.model_type})
    saved = official().to_dict()
    for name in fields:
        if hasattr(read, name) and name != "num_decoder_layers":
            assert getattr(read, name) == saved[name], name


@pytest.mark.parametrize(("official", "layout"), FAMILIES, ids=IDS)
def test_aliases_are_the_official_ones(official: type, layout: Any):
    assert {general: own for own, general in layout.ARCHITECTURE.aliases.items()} == official.attribute_map


def test_an_alias_is_read_and_a_contradiction_refused():
    config = {key: value for key, value in small.GPT2.items() if key != "n_embd"}
    assert gpt2_config.Config.read({**config, "hidden_size": 48}).n_embd == 48
    with pytest.raises(InputError, match="n_embd is 24 but hidden_size is 48"):
        gpt2_config.Config.read({**small.GPT2, "hidden_size": 48})


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (small.GPT2, "add_cross_attention", True),
        (small.GPT2, "reorder_and_upcast_attn", True),
        (small.GPT2, "is_causal", False),
        (small.GPT2, "quantization_config", {"bits": 4}),
        (small.GPT2, "activation_function", "gelu_fast"),
        (small.GPT2, "n_head", 5),
        (small.GPT2, "n_embd", "24"),
        (small.GPT2, "n_embd", True),
        (small.GPT2, "n_layer", 0),
        (small.GPT2, "scale_attn_weights", 1),
        (small.T5, "is_decoder", True),
        (small.T5, "is_encoder_decoder", False),
        (small.T5, "is_causal", False),
        (small.T5, "feed_forward_proj", "gated-xielu"),
        (small.T5, "feed_forward_proj", "gated"),
        (small.T5, "dense_act_fn", "silu"),
        (small.T5, "is_gated_act", True),
        (small.T5, "relative_attention_num_buckets", 2),
        (small.T5, "relative_attention_max_distance", 4),
        (small.T5, "decoder_start_token_id", -1),
        (small.BERT, "is_decoder", True),
        (small.BERT, "add_cross_attention", True),
        (small.BERT, "position_embedding_type", "relative_key"),
        (small.BERT, "hidden_act", "laplace"),
        (small.BERT, "quantization_config", {"bits": 8}),
        (small.LLAMA, "quantization_config", {"quant_method": "gptq", "bits": 4}),
        (small.LLAMA, "sliding_window", 16),
        (small.LLAMA, "hidden_act", "xielu"),
        (small.LLAMA, "num_attention_heads", 5),
        (small.LLAMA, "num_key_value_heads", 3),
        (small.LLAMA, "num_key_value_heads", 0),
        (small.LLAMA, "head_dim", 7),
        (small.LLAMA, "head_dim", 2),
        (small.LLAMA, "rope_theta", 0.5),
        (small.LLAMA, "rope_theta", "10000"),
        (small.LLAMA, "partial_rotary_factor", 0.5),
        (small.LLAMA, "rope_scaling", "linear"),
        (small.LLAMA, "model_type", "mixtral"),
        ({**small.LLAMA, "model_type": "mistral"}, "sliding_window", "all"),
        ({**small.LLAMA, "model_type": "mistral"}, "sliding_window", 1),
        ({**small.LLAMA, "model_type": "mistral"}, "layer_types", ["sliding_attention"] * 2),
        ({**small.LLAMA, "model_type": "qwen2"}, "layer_types", ["chunked_attention"] * 2),
        ({**small.LLAMA, "model_type": "qwen2"}, "max_window_layers", "3"),
        ({**small.LLAMA, "model_type": "qwen3"}, "use_sliding_window", 1),
    ],
)
def test_what_is_not_supported_is_refused_by_name(config: dict[str, Any], field: str, value: Any):
    with pytest.raises(InputError, match=rf"config\.json: .*\b{field}\b") as refusal:
        rebuild_for({**config, field: value})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("words", "field", "above"),
    [
        ({"rope_type": "longrope", "factor": 2.0}, "rope_type", {}),
        ({"rope_type": ["linear"]}, "rope_type", {}),
        ({"rope_type": "linear", "type": "yarn", "factor": 2.0}, "rope_type", {}),
        ({"rope_type": "linear"}, "factor", {}),
        ({"rope_type": "linear", "factor": 0.5}, "factor", {}),
        ({"rope_type": "linear", "factor": float("nan")}, "factor", {}),
        ({"rope_type": "linear", "factor": True}, "factor", {}),
        ({"rope_type": "linear", "factor": 2.0, "low_freq_factor": 1.0}, "low_freq_factor", {}),
        ({"rope_type": "linear", "factor": 2.0, "trained": 7}, "trained", {}),
        ({"factor": 2.0}, "factor", {}),
        ({"rope_theta": 500.0}, "rope_theta", {"rope_theta": 10000.0}),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor", {}),
        ({"rope_type": "linear", "factor": 2.0}, "factor", {"rope_parameters": {"factor": 4.0}}),
        ({"rope_type": "linear", "factor": 2.0}, "rope_type", {"rope_parameters": {"rope_type": "default"}}),
        ({"rope_type": "linear", "factor": 2.0}, "rope_parameters", {"rope_parameters": 7}),
        ({**LLAMA3, "high_freq_factor": 1.0}, "high_freq_factor", {}),
        ({**LLAMA3, "low_freq_factor": None}, "low_freq_factor", {}),
        ({**LLAMA3, "original_max_position_embeddings": 0}, "original_max_position_embeddings", {}),
        (LLAMA3, "original_max_position_embeddings", {"original_max_position_embeddings": 16}),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": 1}, "truncate", {}),
        ({"rope_type": "yarn", "factor": 2.0, "attention_factor": -1.0}, "attention_factor", {}),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": 0}, "beta_fast", {}),
        ({"rope_type": None}, "rope_scaling.rope_type is None", {}),
        ({"rope_theta": None}, "rope_scaling.rope_theta is None", {}),
        ({}, "rope_theta is None", {"rope_theta": None}),
        ({}, "rope_parameters.factor is None", {"rope_parameters": {"rope_type": "linear"}}),
        ({"rope_type": "linear", "factor": float("nan")}, "rope_scaling.factor is nan, expected a", {}),
    ],
)
def test_rotary_positions_that_make_no_sense_are_refused_by_name(
    words: dict[str, Any], field: str, above: dict[str, Any]
):
    with pytest.raises(InputError, match=rf"^config\.json: .*\b{field}\b") as refusal:
        rebuild_for({**small.LLAMA, "rope_scaling": words, **above})
    assert "\n" not in str(refusal.value)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(
        InputError, match="model_type is 'gemma'; there is a rebuild for bert, gpt2, t5, llama, mistral,"
    ):
        rebuild_for({"model_type": "gemma"})


# --------------------------------------------------------- what official code reads, and what it makes of it

# Attributes that official code reads from a config and that no config.json decides over.
OF_THE_PROGRAM = {
    "_attn_implementation": "what the caller asked for",
    "get_text_config": "a method",
    "num_labels": "the length of id2label, for a classifier head",
    "use_return_dict": "the form of the answer",
    "embedding_size": "asked for in an error message only",
    "hidden_dropout": "of a classifier head",
    "classifier_dropout": "of a classifier head",
    "summary_last_dropout": "of a head of two tasks",
}
READ = re.compile(r"""(?:\bconfig\.|\w*attr\((?:self\.)?config, ?["'])(\w+)""")


@pytest.mark.parametrize(("official", "layout"), FAMILIES, ids=IDS)
def test_every_field_that_official_code_reads_is_accounted_for(official: type, layout: Any):
    """Masks and caches are made from fields that the config classes do not declare."""
    model = official.__module__.replace("configuration_", "modeling_")
    modules = (model, "transformers.masking_utils", "transformers.cache_utils")
    source = "".join(inspect.getsource(importlib.import_module(module)) for module in modules)
    fields = {field for field in READ.findall(source) if field not in OF_THE_PROGRAM}
    assert {"sliding_window", "layer_types", "attention_chunk_size"} < fields
    assert fields - known_fields(layout) - set(official.attribute_map) == set()


OTHER_VALUES = (True, False, 0, 1, 3, 0.5, None, "x", "float16", {"0": "a"})
TRIED = [
    (layout, config, optional, field)
    for layout, config, optional in (
        (minilm_config, small.BERT, small.POOLER),
        (gpt2_config, small.GPT2, ()),
        (t5_config, small.T5, ()),
        *((layout, config, ()) for layout, config in zip(OF_LLAMA.values(), LLAMAS, strict=True)),
    )
    for field in sorted(
        field
        for field, why in irrelevant.of(layout.ARCHITECTURE).items()
        if not why.startswith(("read as", "follows from"))  # of those the reader makes something else
    )
]


@pytest.mark.parametrize(
    ("layout", "config", "optional", "field"),
    TRIED,
    ids=[f"{t[0].ARCHITECTURE.model_type} {t[3]}" for t in TRIED],
)
def test_an_irrelevant_field_changes_no_official_bit(
    layout: Any, config: dict[str, Any], optional: tuple[str, ...], field: str, tmp_path: Path
):
    """Whatever stands in it: the official model refuses it, or answers the same."""
    copy = small.model(tmp_path / "model", config, optional)
    written = json.loads((copy.folder / "config.json").read_text(encoding="utf-8"))
    inputs = ask(copy, token_ids=small.ROWS).inputs

    def answer() -> dict[str, Any]:
        return Official(copy.folder, "eager").run(Question(copy, inputs, "eager", config is not small.BERT))

    right = answer()
    for value in OTHER_VALUES:
        (copy.folder / "config.json").write_text(json.dumps({**written, field: value}), encoding="utf-8")
        try:
            found = answer()
        except InputError:
            continue
        assert all(torch.equal(found[name], tensor) for name, tensor in right.items()), value


@pytest.mark.parametrize("config", [small.BERT, small.GPT2, small.T5, *LLAMAS], ids=IDS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chunk_size_feed_forward", 1),
        ("dtype", "float8_e4m3fn"),
        ("torch_dtype", 16),
        ("sliding_window", 3),
        ("attention_chunk_size", 4),
        ("layer_types", ["sliding_attention"] * 3),
        ("per_layer_config", {"0": {}}),
        ("kv_sharing_modes", ["x"]),
        ("fusion_config", {"x": 1}),
        ("quantization_config", {"bits": 4}),
        ("transformers_weights", "other.safetensors"),
        ("is_encoder_decoder", 0),
    ],
    ids=str,
)
def test_what_the_official_code_would_obey_is_refused_by_name(config: dict[str, Any], field: str, value: Any):
    if field in llama_config.WINDOWS.get(config["model_type"], {}):
        return  # read, see test_relatives.py
    with pytest.raises(InputError, match=rf"^config\.json: {field} is ") as refusal:
        rebuild_for({**config, field: value})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64", None])
def test_the_dtype_of_the_file_may_be_said(dtype: Any):
    rebuild_for({**small.BERT, "dtype": dtype, "torch_dtype": dtype})


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (small.BERT, "layer_norm_eps"),
        (small.GPT2, "layer_norm_epsilon"),
        (small.T5, "layer_norm_epsilon"),
        (small.LLAMA, "rms_norm_eps"),
    ],
    ids=["bert", "gpt2", "t5", "llama"],
)
def test_a_whole_number_in_place_of_a_decimal_one_is_refused_by_name(config: dict[str, Any], field: str):
    with pytest.raises(InputError, match=rf"^config\.json: {field} is 1, expected a finite number"):
        rebuild_for({**config, field: 1})
