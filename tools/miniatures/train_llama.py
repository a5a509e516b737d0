"""Train the Llama miniature: the same small invented world as GPT-2's, told to a model of today.

python -m tools.miniatures.train_llama --out llm_rebuild/miniatures/llama
"""

from __future__ import annotations

import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llm_rebuild.tokenizers.byte_bpe_json import LLAMA3
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

NAME = "llama"
STEPS = 4800
BATCH = 8
# 256 bytes, 766 merges, and the begin and the end of a text, which have the last ids as in Llama 3.
VOCABULARY = 1024
BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
POSITIONS = 192

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": VOCABULARY - 2,
    "eos_token_id": VOCABULARY - 1,
    "head_dim": 24,
    "hidden_act": "silu",
    "hidden_size": 96,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "max_position_embeddings": POSITIONS,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}


def train_tokenizer(folder: Path, seed: int) -> PreTrainedTokenizerFast:
    """tokenizer.json of a byte-level BPE, its rules around the merges those of Llama 3's."""
    library = Tokenizer(models.BPE(ignore_merges=True))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(world.tokenizer_passages(random.Random(seed), 20_000), trainer)
    library.add_special_tokens([BEGIN, END])
    if library.get_vocab_size() != VOCABULARY:
        raise ValueError(f"{library.get_vocab_size()} tokens, not {VOCABULARY}: too few pieces repeat")
    around = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN}:1 $B:1",
        special_tokens=[(BEGIN, CONFIG["bos_token_id"])],
    )
    library.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), around])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=library, bos_token=BEGIN, eos_token=END, model_max_length=POSITIONS
    )
    save_tokenizer(tokenizer, folder)
    return tokenizer


def main() -> None:
    options = arguments(NAME, STEPS)
    text = start(options.seed, options.threads)
    folder = fresh_folder(options.out)
    write_json(folder / "config.json", CONFIG)
    tokenizer = train_tokenizer(folder, options.seed)

    model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
    curve = Curve(NAME, "facts")
    writers.learn(
        model, tokenizer, text, options, curve=curve, batch=BATCH, positions=POSITIONS, measure_every=600
    )
    save_weights(model.state_dict(), folder)
    GenerationConfig(
        bos_token_id=CONFIG["bos_token_id"], eos_token_id=CONFIG["eos_token_id"]
    ).save_pretrained(folder)
    finish(folder, curve, options)


if __name__ == "__main__":
    main()
