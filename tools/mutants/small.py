"""Small seeded models of Llama's relatives, for mistakes that can be made in one of them only."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from llm_rebuild.copies.local_copy import LocalCopy
from tools import full_size

# Groups of two heads for each head of keys and values, and a head of its own.
_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "llama3": {
        **_LLAMA,
        "rope_theta": 100.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "yarn": {
        **_LLAMA,
        "rope_theta": 100.0,
        "max_position_embeddings": 256,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "beta_fast": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "linear": {**_LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "dynamic": {  # of the longest text in training the longer of ROWS is one and a half
        **_LLAMA,
        "max_position_embeddings": 6,
        "rope_scaling": {"rope_type": "dynamic", "factor": 4.0},
    },
    "qwen2": {**_LLAMA, "model_type": "qwen2"},
    "qwen3": {**_LLAMA, "model_type": "qwen3", "head_dim": 12},
}
ROWS = [[5, 17, 3, 44, 9, 60, 2, 31, 5], [11, 5, 8, 23]]
_FOLDER = tempfile.TemporaryDirectory(prefix="mutants-")  # until the program ends


@functools.cache
def copy_of(kind: str) -> LocalCopy:
    """The model of a kind: always the same numbers."""
    return LocalCopy(kind, full_size.make(Path(_FOLDER.name) / kind, KINDS[kind], seed=7), "folder")
