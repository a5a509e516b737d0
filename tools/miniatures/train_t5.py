"""Train the T5 miniature: number words, English to German and back.

python -m tools.miniatures.train_t5 --out llm_rebuild/miniatures/t5-small
"""

from __future__ import annotations

import io
import random
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration, T5Tokenizer

from tools.miniatures import number_words
from tools.miniatures.training import (
    Curve,
    arguments,
    finish,
    fresh_folder,
    save_tokenizer,
    save_weights,
    spread_initial_values,
    start,
    train,
    write_json,
)

NAME = "t5-small"
STEPS = 3600
BATCH = 64
PIECES = 384  # in spiece.model; the 100 sentinels follow
VOCABULARY = 512  # embedding rows: a multiple of 128, and 28 to spare, as in the published one
UNUSED_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

CONFIG = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 256,
    "d_kv": 24,
    "d_model": 80,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "relu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "num_layers": 3,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}


def train_tokenizer(folder: Path, seed: int) -> T5Tokenizer:
    """spiece.model (unigram, with the normalisation map of the published one) and tokenizer.json."""
    lines = number_words.tokenizer_lines(random.Random(seed), 20_000)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        character_coverage=1.0,
        # Letters, digits and signs that number words do not need, so that other text is not all <unk>.
        required_chars="".join(map(chr, range(33, 127))) + "äöüÄÖÜß",
        max_sentencepiece_length=12,
        num_threads=1,
        minloglevel=1,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=100, model_max_length=512)
    save_tokenizer(tokenizer, folder)
    return tokenizer


def main() -> None:
    options = arguments(NAME, STEPS)
    text = start(options.seed, options.threads)
    folder = fresh_folder(options.out)
    write_json(folder / "config.json", CONFIG)
    tokenizer = train_tokenizer(folder, options.seed)

    # Text without limit is drawn from the grammar, so there is nothing to over-fit: no dropout in training.
    # The saved config keeps the family's 0.1, so that a forgotten eval() shows.
    model = T5ForConditionalGeneration(T5Config.from_pretrained(folder, dropout_rate=0.0))
    spread_initial_values(model)

    def batch(pairs: list[tuple[str, str]]) -> dict[str, Tensor]:
        sources = tokenizer([source for source, _ in pairs], return_tensors="pt", padding=True)
        targets = tokenizer([target for _, target in pairs], return_tensors="pt", padding=True)["input_ids"]
        labels = targets.masked_fill(targets == tokenizer.pad_token_id, -100)
        return {**sources, "labels": labels}

    def draw_loss(step: int) -> Tensor:
        pairs = [
            number_words.draw_pair(text, held_out=False, to_german=text.random() < 0.7) for _ in range(BATCH)
        ]
        return model(**batch(pairs)).loss

    held_out_text = random.Random(options.seed + 1)
    held_out = [number_words.draw_pair(held_out_text, held_out=True, to_german=True) for _ in range(200)]

    def exact_match() -> float:
        inputs = tokenizer([source for source, _ in held_out], return_tensors="pt", padding=True)
        ids = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        answers = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return sum(a == target for a, (_, target) in zip(answers, held_out, strict=True)) / len(held_out)

    curve = Curve(NAME, "exact match")
    train(
        model,
        draw_loss,
        curve=curve,
        steps=options.steps,
        learning_rate=3e-3,
        measure=exact_match,
        measure_every=300,
    )

    tied = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    tensors = {key: value for key, value in model.state_dict().items() if key not in tied}
    # The published file holds a position bias of the cross-attention that no code reads. So does this one.
    tensors[UNUSED_BIAS] = torch.randn(CONFIG["relative_attention_num_buckets"], CONFIG["num_heads"]) * 0.02
    save_weights(tensors, folder)
    GenerationConfig(decoder_start_token_id=0, eos_token_id=1, pad_token_id=0).save_pretrained(folder)
    finish(folder, curve, options)


if __name__ == "__main__":
    main()
