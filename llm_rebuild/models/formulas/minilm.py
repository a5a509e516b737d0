"""MiniLM's formulas, in the order in which they are computed. Compare models/minilm.py, step by step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from llm_rebuild.models.formulas import (
    MASK,
    TOKEN_IDS,
    Formula,
    activation,
    attend,
    heads,
    layer_norm,
    linear,
    lookup,
    residual,
)
from llm_rebuild.models.minilm_config import Config


def formulas(config: Config, weights: Mapping[str, Tensor], cached: bool, fused: bool) -> list[Formula]:
    """All steps of a run. An encoder keeps no keys and values, so `cached` is never true; `fused`: the fused
    kernel's are the same steps, but for their rounding."""
    eps, at = config.layer_norm_eps, "embeddings"
    scale = (config.hidden_size // config.num_attention_heads) ** -0.5
    steps = [
        lookup(f"{at}.word_embeddings", TOKEN_IDS, "token"),
        Formula("#types", "types", (TOKEN_IDS,)),
        lookup(f"{at}.token_type_embeddings", "#types", "type"),
        Formula(f"{at}.word_and_type", "add", (f"{at}.word_embeddings", f"{at}.token_type_embeddings")),
        Formula("#positions", "positions", (TOKEN_IDS, MASK)),
        lookup(f"{at}.position_embeddings", "#positions", "position"),
        Formula(f"{at}.sum", "add", (f"{at}.word_and_type", f"{at}.position_embeddings")),
        layer_norm(f"{at}.LayerNorm", f"{at}.sum", eps),
        Formula("mask", "mask", (MASK, TOKEN_IDS), facts={"causal": False}),
    ]
    x = f"{at}.LayerNorm"
    for i in range(config.num_hidden_layers):
        block = f"encoder.layer.{i}"
        attn, after, wide = f"{block}.attention.self", f"{block}.attention.output", f"{block}.intermediate"
        three = {name: f"{attn}.{name}" for name in ("query", "key", "value")}
        steps += [
            *(linear(path, x, group=f"{attn}.") for path in three.values()),
            *heads(attn, config.num_attention_heads, **three),
            *attend(attn, scale, f"{attn}.#key", f"{attn}.#value"),
            *_add_and_norm(after, f"{attn}.context", x, eps),
            linear(f"{wide}.dense", f"{after}.LayerNorm"),
            *activation(config.hidden_act, f"{wide}.intermediate_act_fn", f"{wide}.dense"),
            *_add_and_norm(f"{block}.output", f"{wide}.intermediate_act_fn", f"{after}.LayerNorm", eps),
        ]
        x = f"{block}.output.LayerNorm"
    if "pooler.dense.weight" in weights:
        steps += [
            Formula("pooler.#first", "first token", (x,)),
            linear("pooler.dense", "pooler.#first"),
            *activation("tanh", "pooler.activation", "pooler.dense"),
        ]
    if config.pooling != "mean":  # another folder than the course's: what numbers tell has to do
        return steps
    return [
        *steps,
        Formula("sentence.#real", "real", (x, MASK)),
        Formula("sentence.masked", "masked", (x, "sentence.#real")),
        Formula("sentence.sum", "total", ("sentence.masked",)),
        Formula("sentence.count", "count", ("sentence.#real",)),
        Formula("sentence.mean", "divide", ("sentence.sum", "sentence.count")),
        Formula("sentence.embedding", "unit" if config.normalize else "same", ("sentence.mean",)),
    ]


def _add_and_norm(path: str, x: str, before: str, eps: float) -> tuple[Formula, ...]:
    return (
        linear(f"{path}.dense", x),
        residual(f"{path}.residual", f"{path}.dense", before, before, norm=f"{path}.LayerNorm"),
        layer_norm(f"{path}.LayerNorm", f"{path}.residual", eps),
    )
