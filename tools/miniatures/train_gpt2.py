"""Train the GPT-2 miniature: passages about a small invented world.

python -m tools.miniatures.train_gpt2 --out llm_rebuild/miniatures/gpt2
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from tools.miniatures import world, writers
from tools.miniatures.training import (
    Curve,
    arguments,
    finish,
    fresh_folder,
    save_tokenizer,
    save_weights,
    start,
    write_json,
)

NAME = "gpt2"
STEPS = 4400
BATCH = 8
# 256 bytes, 767 merges, and the end of a text, which has the last id as in the published one.
VOCABULARY = 1024
END = VOCABULARY - 1
POSITIONS = 192

CONFIG = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": END,
    "embd_pdrop": 0.1,
    "eos_token_id": END,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": POSITIONS,
    "n_embd": 96,
    "n_head": 4,
    "n_layer": 3,
    "n_positions": POSITIONS,
    "resid_pdrop": 0.1,
    "vocab_size": VOCABULARY,
}


def train_tokenizer(folder: Path, seed: int) -> GPT2Tokenizer:
    """vocab.json, merges.txt and tokenizer.json of a byte-level BPE."""
    library = ByteLevelBPETokenizer()
    passages = world.tokenizer_passages(random.Random(seed), 20_000)
    library.train_from_iterator(passages, vocab_size=VOCABULARY - 1, min_frequency=2, show_progress=False)
    library.save_model(str(folder))
    vocabulary = json.loads((folder / "vocab.json").read_text("utf-8"))
    if len(vocabulary) != END:
        raise ValueError(f"the text gives {len(vocabulary)} tokens, not {END}: too few pieces repeat")
    vocabulary["<|endoftext|>"] = END
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    tokenizer = GPT2Tokenizer.from_pretrained(folder, model_max_length=POSITIONS)
    save_tokenizer(tokenizer, folder)
    return tokenizer


def main() -> None:
    options = arguments(NAME, STEPS)
    text = start(options.seed, options.threads)
    folder = fresh_folder(options.out)
    write_json(folder / "config.json", CONFIG)
    tokenizer = train_tokenizer(folder, options.seed)

    # No dropout in training, since each batch is new text; the saved config keeps the family's 0.1.
    no_dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(folder, **no_dropout))
    curve = Curve(NAME, "facts")
    writers.learn(
        model, tokenizer, text, options, curve=curve, batch=BATCH, positions=POSITIONS, measure_every=550
    )

    # The published file has no "transformer." in front of the keys and no tied head, but it does hold the
    # causal masks of its time as if they were weights. So does this one.
    tensors = {
        key.removeprefix("transformer."): value
        for key, value in model.state_dict().items()
        if key != "lm_head.weight"
    }
    causal_mask = torch.ones(POSITIONS, POSITIONS).tril()[None, None]
    for block in range(CONFIG["n_layer"]):
        tensors[f"h.{block}.attn.bias"] = causal_mask
    save_weights(tensors, folder)
    GenerationConfig(bos_token_id=END, eos_token_id=END).save_pretrained(folder)
    finish(folder, curve, options)


if __name__ == "__main__":
    main()
