"""T5's formulas, in the order in which they are computed. Compare models/t5.py, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from llm_rebuild.models.formulas import (
    DECODER_IDS,
    DECODER_MASK,
    MASK,
    PAST,
    TOKEN_IDS,
    Formula,
    activation,
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
    (ids, mask), (config, _, fused) = inputs, run
    own, causal = f"{side}.embed_tokens.weight", side == "decoder"
    table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
    steps = [
        Formula(
            f"{side}.embed_tokens",
            "lookup",
            (ids,),
            (own if own in weights else "shared.weight",),
            {"what": "token"},
        ),
        Formula(f"{side}.#buckets", "buckets", (ids, mask), facts=_distances(not causal, config)),
        Formula(table, "lookup", (f"{side}.#buckets",), (f"{table}.weight",), {"what": "bucket"}),
        Formula(f"{side}.#bias", "bias by head", (table,)),
        Formula(f"{side}.mask", "mask", (mask, ids), facts={"causal": causal}),
    ]
    if side == "decoder":
        steps += [
            Formula("decoder.#no_bias", "no bias", (ids, MASK), facts={"heads": config.num_heads}),
            Formula("decoder.cross_mask", "mask", (MASK, ids), facts={"causal": False, "cross": True}),
        ]
    if fused:
        steps.append(Formula(f"{side}.biased_mask", "biased mask", (f"{side}.#bias", f"{side}.mask")))
    if fused and side == "decoder":
        inputs = ("decoder.#no_bias", "decoder.cross_mask")
        steps.append(Formula("decoder.cross_biased_mask", "biased mask", inputs))
    x = f"{side}.embed_tokens"
    for i in range(config.num_layers if side == "encoder" else config.decoder_layers):
        layer = f"{side}.block.{i}.layer"
        looks = (f"{side}.#bias", f"{side}.mask", f"{side}.biased_mask" if fused else "")
        steps += _attend(f"{layer}.0.SelfAttention", x, None, looks, run)
        x = f"{layer}.0.residual"
        if side == "decoder":
            source = "encoder.final_layer_norm"
            looks = (
                "decoder.#no_bias",
                "decoder.cross_mask",
                "decoder.cross_biased_mask" if fused else "",
            )
            steps += _attend(f"{layer}.1.EncDecAttention", x, source, looks, run)
            x = f"{layer}.1.residual"
        steps += _feed_forward(f"{layer}.{1 if side == 'encoder' else 2}", x, config)
        x = steps[-1].name
    return [*steps, *_norm(f"{side}.final_layer_norm", x, config)]


def _attend(part: str, x: str, source: str | None, looks: tuple[str, str, str], run: _Run) -> list[Formula]:
    layer, (config, cached, _) = part.rpartition(".")[0], run
    bias, mask, both = looks  # for the fused kernel `both` in one
    normed, heads = f"{layer}.layer_norm", config.num_heads
    steps = [*_norm(normed, x, config), _linear(f"{part}.q", normed, group=f"{part}.")]
    known = cached and source is not None  # the encoder's keys and values are those of the first step
    if not known:
        steps += [_linear(f"{part}.{t}", source or normed, group=f"{part}.", cross=source) for t in "kv"]
    for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
        facts = {"heads": heads, "group": f"{part}.#", "name": word}
        if letter == "q" or not known:
            steps.append(Formula(f"{part}.#{word}", "split", (f"{part}.{letter}",), facts=facts))
    for word in ("key", "value"):
        new, old = f"{part}.#{word}", f"{PAST}{part}.{word}"
        if known:
            steps.append(Formula(f"{part}.{word}", "same", (old,), facts={"name": word}))
        elif cached:
            steps.append(Formula(f"{part}.{word}", "cat", (old, new), facts={"name": word}))
        else:
            steps.append(Formula(f"{part}.{word}", "same", (new,), facts={"name": word}))
    return [
        *steps,
        Formula(f"{part}.product", "product", (f"{part}.#query", f"{part}.key"), facts={"unscaled": True}),
        Formula(f"{part}.biased", "add bias", (f"{part}.product", bias)),
        Formula(f"{part}.scores", "add", (f"{part}.product", both))
        if both
        else Formula(f"{part}.scores", "add mask", (f"{part}.biased", mask)),
        Formula(f"{part}.probs", "softmax", (f"{part}.scores",)),
        Formula(f"{part}.head_context", "mix", (f"{part}.probs", f"{part}.value")),
        Formula(f"{part}.context", "merge", (f"{part}.head_context",)),
        _linear(f"{part}.o", f"{part}.context"),
        Formula(f"{layer}.residual", "add", (x, f"{part}.o"), facts={"residual": x, "normed": normed}),
    ]


def _feed_forward(layer: str, x: str, config: Config) -> list[Formula]:
    dense, normed = f"{layer}.DenseReluDense", f"{layer}.layer_norm"
    first = f"{dense}.wi_0" if config.gated else f"{dense}.wi"
    bent = f"{dense}.act"
    steps = [
        *_norm(normed, x, config),
        _linear(first, normed),
        *activation(config.activation, bent, first),
    ]
    if config.gated:
        steps += [
            _linear(f"{dense}.wi_1", normed),
            Formula(f"{dense}.gated", "multiply", (bent, f"{dense}.wi_1")),
        ]
        bent = f"{dense}.gated"
    return [
        *steps,
        _linear(f"{dense}.wo", bent),
        Formula(f"{layer}.residual", "add", (x, f"{dense}.wo"), facts={"residual": x, "normed": normed}),
    ]


def _norm(path: str, x: str, config: Config) -> list[Formula]:
    def of(kind: str, name: str, *inputs: str, **facts: object) -> Formula:
        return Formula(f"{path}.{name}", kind, inputs, facts={"whole": x, "norm": path, **facts})

    return [
        of("square", "square", x),
        of("mean square", "mean_square", f"{path}.square"),
        of("plus eps", "above_zero", f"{path}.mean_square", eps=config.layer_norm_epsilon),
        of("inverse root", "inverse_root", f"{path}.above_zero"),
        of("multiply", "normed", x, f"{path}.inverse_root", eps=config.layer_norm_epsilon),
        Formula(
            path,
            "stretch",
            (f"{path}.normed",),
            (f"{path}.weight",),
            {"whole": x, "norm": path, "eps": config.layer_norm_epsilon},
        ),
    ]


def _distances(both_ways: bool, config: Config) -> dict[str, object]:
    count, limit = config.relative_attention_num_buckets, config.relative_attention_max_distance
    return {"both_ways": both_ways, "count": count, "limit": limit}


def _linear(path: str, x: str, **facts: object) -> Formula:
    return Formula(path, "linear", (x,), (f"{path}.weight",), facts)
