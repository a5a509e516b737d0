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
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
ROWS = [[5, 17, 3, 44, 9, 60, 2], [11, 5, 8]]


def model(folder: Path, config: dict[str, Any], optional: Iterable[str] = (), **changes: Any) -> LocalCopy:
    """The model of `config` with some fields changed."""
    full_size.make(folder, {**config, **changes}, seed=3, optional=optional)
    return LocalCopy(folder.name, folder, "folder")
