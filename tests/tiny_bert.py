"""A small seeded BERT as a folder of files, for tests that need a model but not the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for

CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
WORDS = list("abcdefghijklmnopqrstuvwxy.,")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
assert len(VOCABULARY) == CONFIG["vocab_size"]


def weights(config: dict[str, Any] = CONFIG, seed: int = 0) -> dict[str, Tensor]:
    """Random numbers under every key. Norms and biases too, so that none of them can be left out unseen."""
    rebuild = rebuild_for(config)
    shapes = rebuild.shapes() | {"pooler.dense.weight": (16, 16), "pooler.dense.bias": (16,)}
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, shape in shapes.items():
        random = 0.3 * torch.randn(shape, generator=generator)
        tensors[key] = random + 1 if key.endswith("LayerNorm.weight") else random
    return tensors


def write(folder: Path, config: dict[str, Any] = CONFIG, tensors: dict[str, Tensor] | None = None) -> Path:
    """The folder, with config.json, model.safetensors and vocab.txt in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights() if tensors is None else tensors, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder


def copy(folder: Path) -> LocalCopy:
    """The folder as the package sees it."""
    return LocalCopy(folder.name, folder, "folder")
