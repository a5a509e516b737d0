"""GPT-2's formulas, in the order in which they are computed. Compare models/gpt2.py, step by step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from llm_rebuild.models.formulas import MASK, PAST, TOKEN_IDS, Formula, activation
from llm_rebuild.models.gpt2_config import Config


def formulas(config: Config, weights: Mapping[str, Tensor], cached: bool, fused: bool) -> list[Formula]:
    """All steps of a run. `cached`: it goes on from keys and values of an earlier one. `fused`: the fused
    kernel's are the same steps, but for their rounding."""
    eps = config.layer_norm_epsilon
    steps = [
        Formula("wte", "lookup", (TOKEN_IDS,), ("wte.weight",), {"what": "token"}),
        Formula("#positions", "positions", (TOKEN_IDS, MASK)),
        Formula("wpe", "lookup", ("#positions",), ("wpe.weight",), {"what": "position"}),
        Formula("embeddings", "add", ("wte", "wpe"), facts={"lack": {"wpe": "positions-missing"}}),
        Formula("mask", "mask", (MASK, TOKEN_IDS), facts={"causal": True}),
    ]
    x = "embeddings"
    for i in range(config.n_layer):
        block, attn, mlp = f"h.{i}", f"h.{i}.attn", f"h.{i}.mlp"
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= i + 1
        steps += [
            Formula(f"{block}.ln_1", "layer norm", (x,), _pair(f"{block}.ln_1"), {"eps": eps}),
            Formula(f"{attn}.c_attn", "conv1d", (f"{block}.ln_1",), _pair(f"{attn}.c_attn")),
        ]
        for part, name in enumerate(("query", "key", "value")):
            facts = {"heads": config.n_head, "part": part, "group": f"{attn}.#", "name": name}
            steps.append(Formula(f"{attn}.#{name}", "split", (f"{attn}.c_attn",), facts=facts))
        for name in ("key", "value"):
            new, kind = f"{attn}.#{name}", "cat" if cached else "same"
            old = (f"{PAST}{attn}.{name}",) if cached else ()
            steps.append(Formula(f"{attn}.{name}", kind, (*old, new), facts={"name": name}))
        steps += [
            Formula(f"{attn}.product", "product", (f"{attn}.#query", f"{attn}.key")),
            Formula(f"{attn}.scaled", "scale", (f"{attn}.product",), facts={"by": scale}),
            Formula(f"{attn}.scores", "add mask", (f"{attn}.scaled", "mask")),
            Formula(f"{attn}.probs", "softmax", (f"{attn}.scores",)),
            Formula(f"{attn}.head_context", "mix", (f"{attn}.probs", f"{attn}.value")),
            Formula(f"{attn}.context", "merge", (f"{attn}.head_context",)),
            Formula(f"{attn}.c_proj", "conv1d", (f"{attn}.context",), _pair(f"{attn}.c_proj")),
            Formula(
                f"{attn}.residual",
                "add",
                (f"{attn}.c_proj", x),
                facts={"residual": x, "norm": f"{block}.ln_2"},
            ),
            Formula(
                f"{block}.ln_2", "layer norm", (f"{attn}.residual",), _pair(f"{block}.ln_2"), {"eps": eps}
            ),
            Formula(f"{mlp}.c_fc", "conv1d", (f"{block}.ln_2",), _pair(f"{mlp}.c_fc")),
            *activation(config.activation_function, f"{mlp}.act", f"{mlp}.c_fc"),
            Formula(f"{mlp}.c_proj", "conv1d", (f"{mlp}.act",), _pair(f"{mlp}.c_proj")),
            Formula(
                f"{mlp}.residual",
                "add",
                (f"{attn}.residual", f"{mlp}.c_proj"),
                facts={"residual": f"{attn}.residual"},
            ),
        ]
        x = f"{mlp}.residual"
    head = "lm_head.weight" if "lm_head.weight" in weights else "wte.weight"
    return [
        *steps,
        Formula("ln_f", "layer norm", (x,), _pair("ln_f"), {"eps": eps}),
        Formula("lm_head", "linear", ("ln_f",), (head,), {"head": True}),
    ]


def _pair(path: str) -> tuple[str, str]:
    return f"{path}.weight", f"{path}.bias"
