"""MiniLM's formulas, in the order in which they are computed. Compare models/minilm.py, step by step."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from llm_rebuild.models.formulas import MASK, TOKEN_IDS, Formula, activation
from llm_rebuild.models.minilm_config import Config


def formulas(config: Config, weights: Mapping[str, Tensor], cached: bool, fused: bool) -> list[Formula]:
    """All steps of a run. An encoder keeps no keys and values, so `cached` is never true; `fused`: the fused
    kernel's are the same steps, but for their rounding."""
    eps, heads = config.layer_norm_eps, config.num_attention_heads
    scale = (config.hidden_size // heads) ** -0.5
    steps = [
        Formula(
            "embeddings.word_embeddings",
            "lookup",
            (TOKEN_IDS,),
            ("embeddings.word_embeddings.weight",),
            {"what": "token"},
        ),
        Formula("#types", "types", (TOKEN_IDS,)),
        Formula(
            "embeddings.token_type_embeddings",
            "lookup",
            ("#types",),
            ("embeddings.token_type_embeddings.weight",),
            {"what": "type"},
        ),
        Formula(
            "embeddings.word_and_type",
            "add",
            ("embeddings.word_embeddings", "embeddings.token_type_embeddings"),
            facts={"lack": {"embeddings.token_type_embeddings": "token-types-missing"}},
        ),
        Formula("#positions", "positions", (TOKEN_IDS, MASK)),
        Formula(
            "embeddings.position_embeddings",
            "lookup",
            ("#positions",),
            ("embeddings.position_embeddings.weight",),
            {"what": "position"},
        ),
        Formula(
            "embeddings.sum",
            "add",
            ("embeddings.word_and_type", "embeddings.position_embeddings"),
            facts={"lack": {"embeddings.position_embeddings": "positions-missing"}},
        ),
        _norm("embeddings.LayerNorm", "embeddings.sum", eps),
        Formula("mask", "mask", (MASK, TOKEN_IDS), facts={"causal": False}),
    ]
    x = "embeddings.LayerNorm"
    for i in range(config.num_hidden_layers):
        block = f"encoder.layer.{i}"
        attn, after = f"{block}.attention.self", f"{block}.attention.output"
        steps += [_linear(f"{attn}.{name}", x, group=f"{attn}.") for name in ("query", "key", "value")]
        for name in ("query", "key", "value"):
            facts = {"heads": heads, "group": f"{attn}.#", "name": name}
            steps.append(Formula(f"{attn}.#{name}", "split", (f"{attn}.{name}",), facts=facts))
        wide = f"{block}.intermediate"
        steps += [
            Formula(f"{attn}.product", "product", (f"{attn}.#query", f"{attn}.#key")),
            Formula(f"{attn}.scaled", "scale", (f"{attn}.product",), facts={"by": scale}),
            Formula(f"{attn}.scores", "add mask", (f"{attn}.scaled", "mask")),
            Formula(f"{attn}.probs", "softmax", (f"{attn}.scores",)),
            Formula(f"{attn}.head_context", "mix", (f"{attn}.probs", f"{attn}.#value")),
            Formula(f"{attn}.context", "merge", (f"{attn}.head_context",)),
            *_add_and_norm(after, f"{attn}.context", x, eps),
            _linear(f"{wide}.dense", f"{after}.LayerNorm"),
            *activation(config.hidden_act, f"{wide}.intermediate_act_fn", f"{wide}.dense"),
            *_add_and_norm(f"{block}.output", f"{wide}.intermediate_act_fn", f"{after}.LayerNorm", eps),
        ]
        x = f"{block}.output.LayerNorm"
    if "pooler.dense.weight" in weights:
        steps += [
            Formula("pooler.#first", "first token", (x,)),
            _linear("pooler.dense", "pooler.#first"),
            *activation("tanh", "pooler.activation", "pooler.dense"),
        ]
    if config.pooling != "mean":  # another folder than the course's: what numbers tell has to do
        return steps
    steps += [
        Formula("sentence.#real", "real", (x, MASK)),
        Formula("sentence.masked", "masked", (x, "sentence.#real")),
        Formula("sentence.sum", "total", ("sentence.masked",)),
        Formula("sentence.count", "count", ("sentence.#real",)),
        Formula("sentence.mean", "divide", ("sentence.sum", "sentence.count"), facts={"tokens": x}),
    ]
    steps.append(Formula("sentence.embedding", "unit" if config.normalize else "same", ("sentence.mean",)))
    return steps


def _add_and_norm(path: str, x: str, residual: str, eps: float) -> tuple[Formula, ...]:
    return (
        _linear(f"{path}.dense", x),
        Formula(
            f"{path}.residual",
            "add",
            (f"{path}.dense", residual),
            facts={"residual": residual, "norm": f"{path}.LayerNorm"},
        ),
        _norm(f"{path}.LayerNorm", f"{path}.residual", eps),
    )


def _norm(path: str, x: str, eps: float) -> Formula:
    return Formula(path, "layer norm", (x,), (f"{path}.weight", f"{path}.bias"), {"eps": eps})


def _linear(path: str, x: str, **facts: str) -> Formula:
    return Formula(path, "linear", (x,), (f"{path}.weight", f"{path}.bias"), facts)
