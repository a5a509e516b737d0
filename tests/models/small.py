"""Small seeded models of each family as folders of files, in any variation that config.json can ask for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llm_rebuild.copies.local_copy import LocalCopy
from tools import full_size

GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "vocab_size": 61,
    "n_positions": 24,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
}
T5: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": 61,
    "d_model": 24,
    "d_kv": 10,
    "d_ff": 36,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
}
BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 24,
}
# What the relatives of Llama differ in: a name, what is changed, optional keys that the file has.
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6}
LLAMAS: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("2", {}, ()),
    ("tied", {"tie_word_embeddings": True}, ()),
    ("said to be tied, is not", {"tie_word_embeddings": True}, ("lm_head.weight",)),
    ("one kv head", {"num_key_value_heads": 1}, ()),
    ("as many kv heads", {"num_key_value_heads": None}, ()),
    ("head width", {"head_dim": 10, "rms_norm_eps": 0.1}, ()),
    ("wide heads", {"head_dim": 260, "num_hidden_layers": 1}, ()),
    ("biases", {"attention_bias": True, "mlp_bias": True}, ()),
    ("gelu_new", {"hidden_act": "gelu_new"}, ()),
    ("linear", {"rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 100}, ()),
    (
        "dynamic, longer",
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.5}, "max_position_embeddings": 5},
        (),
    ),
    ("dynamic, not reached", {"rope_scaling": {"rope_type": "dynamic", "factor": 1.1}}, ()),
    (
        "3",
        {
            "rope_scaling": {**_LLAMA3, "original_max_position_embeddings": 16},
            "rope_theta": 500.0,
            "head_dim": 16,
        },
        (),
    ),
    ("3 as saved", {"rope_parameters": {**_LLAMA3, "rope_theta": 50.0}, "head_dim": 16}, ()),
    ("yarn", {"rope_scaling": {**_YARN, "beta_fast": 1.5, "beta_slow": 0.1}, "head_dim": 16}, ()),
    (
        "yarn, length",
        {"rope_scaling": {**_YARN, "attention_factor": 1.7, "truncate": False}, "head_dim": 16},
        (),
    ),
    ("yarn, scales", {"rope_parameters": {**_YARN, "mscale": 0.7, "mscale_all_dim": 0.3}}, ()),
    ("null", {"model_type": "mistral", "sliding_window": None}, ()),
    ("window", {"model_type": "mistral", "sliding_window": 64, "num_key_value_heads": 1}, ()),
    ("plain", {"model_type": "qwen2"}, ()),
    (
        "window, tied",
        {
            "model_type": "qwen2",
            "use_sliding_window": True,
            "sliding_window": 64,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        },
        (),
    ),
    ("plain", {"model_type": "qwen3", "head_dim": 8}, ()),
    (
        "biases, yarn",
        {"model_type": "qwen3", "head_dim": 8, "attention_bias": True, "rope_scaling": _YARN},
        (),
    ),
]
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
ROWS = [[5, 17, 3, 44, 9, 60, 2], [11, 5, 8]]


def model(folder: Path, config: dict[str, Any], optional: Iterable[str] = (), **changes: Any) -> LocalCopy:
    """The model of `config` with some fields changed."""
    full_size.make(folder, {**config, **changes}, seed=3, optional=optional)
    return LocalCopy(folder.name, folder, "folder")
