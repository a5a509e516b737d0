"""T5's formulas, in the order in which they are computed. Compare models/t5.py, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from llm_rebuild.models.formulas import (
    DECODER_IDS,
    DECODER_MASK,
    MASK,
    TOKEN_IDS,
    Formula,
    activation,
    context,
    heads,
    kept,
    linear,
    lookup,
    residual,
)
from llm_rebuild.models.t5_config import Config


def formulas(config: Config, weights: Mapping[str, Tensor], cached: bool, fused: bool) -> list[Formula]:
    """All steps of a run. `cached`: the decoder goes on from keys and values of an earlier one, and the
    encoder does not run. `fused`: the fused kernel gets bias and mask in one tensor."""
    run = _Run(config, cached, fused)
    steps = [] if cached else _stack("encoder", weights, (TOKEN_IDS, MASK), run)
    steps += _stack("decoder", weights, (DECODER_IDS, DECODER_MASK), run)
    x = "decoder.final_layer_norm"
    if config.scale_decoder_outputs:
        facts = {"by": config.d_model**-0.5, "output": True}
        steps.append(Formula("decoder.scaled", "scale", (x,), facts=facts))
        x = "decoder.scaled"
    head = "lm_head.weight" if "lm_head.weight" in weights else "shared.weight"
    return [*steps, Formula("lm_head", "linear", (x,), (head,), {"head": True})]


class _Run(NamedTuple):
    """What holds for all steps; as in `formulas`."""

    config: Config
    cached: bool
    fused: bool


def _stack(side: str, weights: Mapping[str, Tensor], inputs: tuple[str, str], run: _Run) -> list[Formula]:
    (ids, mask), config, causal = inputs, run.config, side == "decoder"
    own = f"{side}.embed_tokens.weight"
    table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    distances = {
        "both_ways": not causal,
        "count": config.relative_attention_num_buckets,
        "limit": config.relative_attention_max_distance,
    }
    steps = [
        lookup(f"{side}.embed_tokens", ids, "token", own if own in weights else "shared.weight"),
        Formula(f"{side}.#buckets", "buckets", (ids, mask), facts=distances),
        lookup(table, f"{side}.#buckets", "bucket"),
        Formula(f"{side}.#bias", "bias by head", (table,)),
        Formula(f"{side}.mask", "mask", (mask, ids), facts={"causal": causal}),
    ]
    looks, across = (f"{side}.#bias", f"{side}.mask"), ("decoder.#no_bias", "decoder.cross_mask")
    if side == "decoder":
        steps += [
            Formula(across[0], "no bias", (ids, MASK), facts={"heads": config.num_heads}),
            Formula(across[1], "mask", (MASK, ids), facts={"causal": False, "cross": True}),
        ]
    if run.fused:
        steps.append(Formula(f"{side}.biased_mask", "biased mask", looks))
    if run.fused and side == "decoder":
        steps.append(Formula("decoder.cross_biased_mask", "biased mask", across))
    x = f"{side}.embed_tokens"
    for i in range(config.num_layers if side == "encoder" else config.decoder_layers):
        layer = f"{side}.block.{i}.layer"
        steps += _attend(f"{layer}.0.SelfAttention", x, None, looks, run)
        if side == "decoder":
            steps += _attend(
                f"{layer}.1.EncDecAttention", f"{layer}.0.residual", "encoder.final_layer_norm", across, run
            )
        steps += _feed_forward(f"{layer}.{1 if side == 'encoder' else 2}", steps[-1].name, config)
        x = steps[-1].name
    return [*steps, *_norm(f"{side}.final_layer_norm", x, config)]


def _attend(part: str, x: str, source: str | None, looks: tuple[str, str], run: _Run) -> list[Formula]:
    layer, (config, cached, fused), (bias, mask) = part.rpartition(".")[0], run, looks
    normed, known = f"{layer}.layer_norm", cached and source is not None
    # In the cross-attention of a later step, keys and values are those of the first one.
    three = {"query": f"{part}.q"} if known else {w: f"{part}.{w[0]}" for w in ("query", "key", "value")}
    steps = [*_norm(normed, x, config), linear(f"{part}.q", normed, bias=False, group=f"{part}.")]
    steps += [
        linear(path, source or normed, bias=False, group=f"{part}.", cross=source)
        for word, path in three.items()
        if word != "query"
    ]
    both = mask.replace("mask", "biased_mask")
    return [
        *steps,
        *heads(part, config.num_heads, **three),
        *kept(part, cached, known),
        Formula(f"{part}.product", "product", (f"{part}.#query", f"{part}.key"), facts={"unscaled": True}),
        Formula(f"{part}.biased", "add bias", (f"{part}.product", bias)),
        Formula(f"{part}.scores", "add", (f"{part}.product", both))
        if fused
        else Formula(f"{part}.scores", "add mask", (f"{part}.biased", mask)),
        *context(part, f"{part}.scores", f"{part}.value"),
        linear(f"{part}.o", f"{part}.context", bias=False),
        residual(f"{layer}.residual", x, f"{part}.o", x, normed=normed),
    ]


def _feed_forward(layer: str, x: str, config: Config) -> list[Formula]:
    dense, normed = f"{layer}.DenseReluDense", f"{layer}.layer_norm"
    first, bent = f"{dense}.wi_0" if config.gated else f"{dense}.wi", f"{dense}.act"
    steps = [
        *_norm(normed, x, config),
        linear(first, normed, bias=False),
        *activation(config.activation, bent, first),
    ]
    if config.gated:
        steps += [
            linear(f"{dense}.wi_1", normed, bias=False),
            Formula(f"{dense}.gated", "multiply", (bent, f"{dense}.wi_1")),
        ]
        bent = f"{dense}.gated"
    return [
        *steps,
        linear(f"{dense}.wo", bent, bias=False),
        residual(f"{layer}.residual", x, f"{dense}.wo", x, normed=normed),
    ]


def _norm(path: str, x: str, config: Config) -> list[Formula]:
    facts = {"whole": x, "norm": path, "eps": config.layer_norm_epsilon}
    return [
        Formula(f"{path}.square", "square", (x,), facts=facts),
        Formula(f"{path}.mean_square", "mean square", (f"{path}.square",), facts=facts),
        Formula(f"{path}.above_zero", "plus eps", (f"{path}.mean_square",), facts=facts),
        Formula(f"{path}.inverse_root", "inverse root", (f"{path}.above_zero",), facts=facts),
        Formula(f"{path}.normed", "multiply", (x, f"{path}.inverse_root"), facts=facts),
        Formula(path, "stretch", (f"{path}.normed",), (f"{path}.weight",), facts),
    ]
