"""GPT-2's formulas, in the order in which they are computed. Compare models/gpt2.py, step by step."""

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
    kept,
    layer_norm,
    linear,
    lookup,
    residual,
)
from llm_rebuild.models.gpt2_config import Config


def formulas(config: Config, weights: Mapping[str, Tensor], cached: bool, fused: bool) -> list[Formula]:
    """All steps of a run. `cached`: it goes on from keys and values of an earlier one. `fused`: the fused
    kernel's are the same steps, but for their rounding."""
    eps = config.layer_norm_epsilon
    steps = [
        lookup("wte", TOKEN_IDS, "token"),
        Formula("#positions", "positions", (TOKEN_IDS, MASK)),
        lookup("wpe", "#positions", "position"),
        Formula("embeddings", "add", ("wte", "wpe")),
        Formula("mask", "mask", (MASK, TOKEN_IDS), facts={"causal": True}),
    ]
    x = "embeddings"
    for i in range(config.n_layer):
        block, attn, mlp = f"h.{i}", f"h.{i}.attn", f"h.{i}.mlp"
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= i + 1
        fused_product, middle = f"{attn}.c_attn", f"{attn}.residual"
        steps += [
            layer_norm(f"{block}.ln_1", x, eps),
            linear(fused_product, f"{block}.ln_1", "conv1d"),
            *heads(attn, config.n_head, query=fused_product, key=fused_product, value=fused_product),
            *kept(attn, cached),
            *attend(attn, scale, f"{attn}.key", f"{attn}.value"),
            linear(f"{attn}.c_proj", f"{attn}.context", "conv1d"),
            residual(middle, f"{attn}.c_proj", x, x, norm=f"{block}.ln_2"),
            layer_norm(f"{block}.ln_2", middle, eps),
            linear(f"{mlp}.c_fc", f"{block}.ln_2", "conv1d"),
            *activation(config.activation_function, f"{mlp}.act", f"{mlp}.c_fc"),
            linear(f"{mlp}.c_proj", f"{mlp}.act", "conv1d"),
            residual(f"{mlp}.residual", middle, f"{mlp}.c_proj", middle),
        ]
        x = f"{mlp}.residual"
    head = "lm_head.weight" if "lm_head.weight" in weights else "wte.weight"
    steps.append(layer_norm("ln_f", x, eps))
    return [*steps, Formula("lm_head", "linear", ("ln_f",), (head,), {"head": True})]
