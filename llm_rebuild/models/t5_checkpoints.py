"""Every interim tensor of T5, in the order of its making. The model that taps them is t5.py."""

from __future__ import annotations

from dataclasses import replace

from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.models.ops import gelu_new_checkpoints, rms_norm_checkpoints

VECTORS, WIDE = "[batch, token, width]", "[batch, token, wide]"
INNER = "[batch, token, heads × head width]"  # in t5-small as many as the width, in others not
SCORES, HEADS = "[batch, head, query, key]", "[batch, head, query, head width]"
LOOKS, KEYS = "[batch, 1, query, key]", "[batch, head, key, head width]"
EAGER, SDPA = frozenset({"eager"}), frozenset({"sdpa"})  # the fused kernel never shows its scores
PADDED, CACHE, START = frozenset({"padding"}), frozenset({"cache"}), frozenset({"start"})
OWN_MASK = frozenset({"decoder mask"})  # the decoder reads several tokens at once, or padding
GATED, PLAIN, SCALED = frozenset({"gated"}), frozenset({"plain"}), frozenset({"scaled head"})
ENCODER, DECODER = "encoder.block.{layer}.layer", "decoder.block.{layer}.layer"
BIAS, CROSS = "block.0.layer.0.SelfAttention", "block.0.layer.1.EncDecAttention"


def _attention(path: str, new: frozenset[str]) -> tuple[Checkpoint, ...]:
    return (
        Checkpoint(f"{path}.q", INNER, "what each token looks for"),
        Checkpoint(f"{path}.k", INNER, "what each token has to offer", only=new),
        Checkpoint(f"{path}.v", INNER, "what each token passes on", only=new),
        *(
            Checkpoint(f"{path}.{name}", KEYS, f"{name}s, kept", f"cat[{number}]", CACHE | new)
            for number, name in enumerate(("key", "value"))
            if path.startswith("decoder")
        ),
        Checkpoint(f"{path}.product", SCORES, "query times key, never scaled", "matmul[0]", EAGER),
        Checkpoint(f"{path}.biased", SCORES, "plus the position bias", "add[0]", EAGER),
        Checkpoint(f"{path}.scores", SCORES, "masked: what enters the softmax", "into softmax[0]", EAGER),
        Checkpoint(f"{path}.probs", SCORES, "how much each token looks where", "softmax[0]", EAGER),
        Checkpoint(f"{path}.head_context", HEADS, "values by these shares", "matmul[1]", EAGER),
        Checkpoint(f"{path}.head_context", HEADS, "values by attention", "sdpa[0]", SDPA),
        Checkpoint(f"{path}.context", INNER, "heads merged", "into o"),
        Checkpoint(f"{path}.o", VECTORS, "heads mixed"),
        Checkpoint(f"{path.rpartition('.')[0]}.residual", VECTORS, "added back", "returned"),
    )


def _feed_forward(path: str) -> tuple[Checkpoint, ...]:
    dense = f"{path}.DenseReluDense"
    return (
        *rms_norm_checkpoints(f"{path}.layer_norm", VECTORS),
        Checkpoint(f"{dense}.wi", WIDE, "widened", only=PLAIN),
        Checkpoint(f"{dense}.wi_0", WIDE, "widened", only=GATED),
        *gelu_new_checkpoints(f"{dense}.act", WIDE),
        Checkpoint(f"{dense}.act", WIDE, "bent"),
        Checkpoint(f"{dense}.wi_1", WIDE, "widened by the second branch", only=GATED),
        Checkpoint(f"{dense}.gated", WIDE, "one branch times the other", "mul[0]", GATED),
        Checkpoint(f"{dense}.wo", VECTORS, "narrowed"),
        Checkpoint(f"{path}.residual", VECTORS, "added back: the block's output", "returned"),
    )


_ENCODER = (
    Checkpoint("encoder.embed_tokens", VECTORS, "which token it is"),
    Checkpoint(f"encoder.{BIAS}.relative_attention_bias", "[query, key, head]", "by distance"),
    Checkpoint("encoder.mask", LOOKS, "0, or the lowest float", "where[0]", EAGER | PADDED),
    Checkpoint("encoder.biased_mask", SCORES, "bias, masked", f"encoder.{BIAS}: where[0]", SDPA | PADDED),
    *rms_norm_checkpoints(f"{ENCODER}.0.layer_norm", VECTORS),
    *_attention(f"{ENCODER}.0.SelfAttention", frozenset()),
    *_feed_forward(f"{ENCODER}.1"),
    *rms_norm_checkpoints("encoder.final_layer_norm", VECTORS),
)
_DECODER = (
    Checkpoint("decoder.embed_tokens", VECTORS, "which token it is"),
    Checkpoint(f"decoder.{BIAS}.relative_attention_bias", "[query, key, head]", "by distance"),
    Checkpoint("decoder.mask", LOOKS, "0, or the lowest float", "where[0]", EAGER),
    Checkpoint("decoder.biased_mask", SCORES, "bias, masked", f"decoder.{BIAS}: where[0]", SDPA | OWN_MASK),
    Checkpoint("decoder.cross_mask", LOOKS, "0, or the lowest float", "where[1]", EAGER | PADDED),
    Checkpoint("decoder.cross_biased_mask", SCORES, "the same", f"decoder.{CROSS}: where[0]", SDPA | PADDED),
    *rms_norm_checkpoints(f"{DECODER}.0.layer_norm", VECTORS),
    *_attention(f"{DECODER}.0.SelfAttention", frozenset()),
    *rms_norm_checkpoints(f"{DECODER}.1.layer_norm", VECTORS),
    *_attention(f"{DECODER}.1.EncDecAttention", START),
    *_feed_forward(f"{DECODER}.2"),
    *rms_norm_checkpoints("decoder.final_layer_norm", VECTORS),
    Checkpoint("decoder.scaled", VECTORS, "times 1/√(width)", ": mul[0]", SCALED),
    Checkpoint("lm_head", "[batch, token, vocabulary]", "a score for every possible next token"),
)

# The encoder runs once an answer: not in the later steps of a decoder that keeps keys and values.
CHECKPOINTS = (*(replace(c, only=c.only | START) for c in _ENCODER), *_DECODER)
