"""Llama, rebuilt by you.

    llm-rebuild check FILE --model llama

Axes     batch   texts that run together            head        one of num_attention_heads heads of queries
         token   a position in the padded text      kv head     one of fewer, of keys and values;
         width   numbers that describe a token                  config.group heads share each
         query   a token that looks                 head width  config.head_width
         key     a token that is looked at          pair        half of it: what is turned by one angle
         wide    inside the feed-forward
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.workbench import step

Weights = Mapping[str, Tensor]  # the weight file: weights["model.norm.weight"]
Tap = Callable[[str, Tensor], Tensor]  # tap(name, tensor) shows a tensor to the checker, and returns it
BLOCK = "model.layers.{layer}"
ATTN, MLP = f"{BLOCK}.self_attn", f"{BLOCK}.mlp"
TURN = "model.rotary_emb.cos", "model.rotary_emb.sin"
KEPT = f"{ATTN}.keys?", f"{ATTN}.values?"
BEFORE = "model.layers.{layer-1}.mlp.residual or model.embed_tokens"  # what goes into a block


def forward(
    token_ids: Tensor,
    mask: Tensor,
    weights: Weights,
    config: Any,
    tap: Tap,
    attention: str = "eager",
    cache: dict[str, Tensor] | None = None,
) -> Tensor:
    """token_ids, mask [batch, token], mask 1 for a token and 0 for padding -> [batch, token, vocabulary].

    config is config.json: config.num_hidden_layers, config.rms_norm_eps, config.rope.rope_theta; and what
    follows from it: config.head_width, config.group.
    attention is `eager`, step by step, or `sdpa`, all in one.
    cache is a dictionary of yours, empty at first. Leave keys and values there: the next time token_ids has
    the new token only, and mask all of them. None: nothing is kept.
    """
    token = token_ids.shape[1]
    x = tap("model.embed_tokens", token_embedding(token_ids, weights))
    may_look = attention_mask(mask)[:, :, -token:]
    if attention == "eager":
        tap("model.mask", may_look)
    turns = tap("model.rotary_emb.turns", turns_of(mask, config)[:, -token:])
    angles = tap("model.rotary_emb.angles", for_both_halves(turns))
    cos = tap("model.rotary_emb.cos", cosines(angles))
    sin = tap("model.rotary_emb.sin", sines(angles))
    for layer in range(config.num_hidden_layers):
        attn, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        # First half of the block: every token looks at itself and at those before.
        normed = rms_norm(x, f"model.layers.{layer}.input_layernorm", weights, config, tap)
        query = tap(f"{attn}.q_proj", linear(normed, f"{attn}.q_proj", weights))
        key = tap(f"{attn}.k_proj", linear(normed, f"{attn}.k_proj", weights))
        value = tap(f"{attn}.v_proj", linear(normed, f"{attn}.v_proj", weights))
        query = rotate(query, cos, sin, f"{attn}.query", config, tap)
        key = rotate(key, cos, sin, f"{attn}.key", config, tap)
        keys = values = None
        if cache is not None:
            keys = tap(f"{attn}.keys", remember(key, f"{attn}.keys", cache))
            values = tap(f"{attn}.values", remember(split_heads(value, config), f"{attn}.values", cache))
        if attention == "eager":
            product = tap(f"{attn}.product", query_times_key(query, key, keys, config))
            scaled = tap(f"{attn}.scaled", scale(product, config))
            scores = tap(f"{attn}.scores", add_mask(scaled, may_look))
            probs = tap(f"{attn}.probs", probabilities(scores))
            head_context = mix_values(probs, value, values, config)
        else:
            head_context = all_in_one(query, key, value, mask, keys, values, config)
        tap(f"{attn}.head_context", head_context)
        context = tap(f"{attn}.context", merge_heads(head_context))
        attended = tap(f"{attn}.o_proj", linear(context, f"{attn}.o_proj", weights))
        x = tap(f"{attn}.residual", add(x, attended))

        # Second half: each token by itself, widened twice, gated and narrowed again.
        normed = rms_norm(x, f"model.layers.{layer}.post_attention_layernorm", weights, config, tap)
        gate = tap(f"{mlp}.gate_proj", linear(normed, f"{mlp}.gate_proj", weights))
        bent = tap(f"{mlp}.act_fn", silu(gate))
        up = tap(f"{mlp}.up_proj", linear(normed, f"{mlp}.up_proj", weights))
        gated = tap(f"{mlp}.gated", through_the_gate(bent, up))
        narrow = tap(f"{mlp}.down_proj", linear(gated, f"{mlp}.down_proj", weights))
        x = tap(f"{mlp}.residual", add(x, narrow))

    x = rms_norm(x, "model.norm", weights, config, tap)
    return tap("lm_head", head(x, weights))


# ------------------------------------------------------------------------------------ before the blocks


@step("model.embed_tokens", "inputs.token_ids")
def token_embedding(token_ids: Tensor, weights: Weights) -> Tensor:  # given
    """Which token it is. [batch, token] -> [batch, token, width]: its row of model.embed_tokens.weight."""
    return F.embedding(token_ids, weights["model.embed_tokens.weight"])


@step("model.mask", "inputs.mask")
def attention_mask(mask: Tensor) -> Tensor:
    """Who may look at whom. [batch, token] of 1 and 0 -> [batch, 1, query, key], to be added to the scores.

    0 where a token may look: at itself and at earlier tokens, unless they are padding. The lowest float32
    there is (torch.finfo) where it may not.
    """
    order = torch.arange(mask.shape[1])
    not_later = order <= order[:, None]  # [query, key]
    may_look = not_later & mask.bool()[:, None, None, :]  # [batch, 1, query, key]
    return torch.where(may_look, torch.zeros(()), torch.finfo(torch.float32).min)


@step("model.rotary_emb.turns", "inputs.mask")
def turns_of(mask: Tensor, config: Any) -> Tensor:
    """By which angles, in radians, each token's pairs are turned. [batch, token] -> [1, token, pair]

    Position 0, 1, 2, … (padding counted) times the pair's speed. Pair i turns by 1/θ^(2i / head width) from
    one position to the next, with θ = config.rope.rope_theta. For the last bit, raise θ to the powers
    0, 2/head width, 4/head width, … and divide 1 by that; the negative power rounds differently.
    """
    positions = torch.arange(mask.shape[1]).unsqueeze(0)  # [1, token]
    steps = torch.arange(0, config.head_width, 2).float() / config.head_width  # [pair]
    speeds: Tensor = 1.0 / config.rope.rope_theta**steps
    return positions[..., None].float() * speeds


@step("model.rotary_emb.angles", "model.rotary_emb.turns")
def for_both_halves(turns: Tensor) -> Tensor:
    """The same angles twice, one set behind the other. [1, token, pair] -> [1, token, head width]

    Number i of a head and number i + head width / 2 make a pair.
    """
    return torch.cat((turns, turns), dim=-1)


@step("model.rotary_emb.cos", "model.rotary_emb.angles")
def cosines(angles: Tensor) -> Tensor:
    """Their cosines. [1, token, head width] -> the same"""
    return angles.cos()


@step("model.rotary_emb.sin", "model.rotary_emb.angles")
def sines(angles: Tensor) -> Tensor:
    """Their sines. [1, token, head width] -> the same"""
    return angles.sin()


# --------------------------------------------------------------------------------- parts of every block


@step(f"{BLOCK}.input_layernorm", BEFORE)
@step(f"{BLOCK}.post_attention_layernorm", f"{ATTN}.residual")
@step("model.norm", "model.layers.{last}.mlp.residual")
def rms_norm(x: Tensor, name: str, weights: Weights, config: Any, tap: Tap) -> Tensor:
    """Each token's numbers at mean square 1, then stretched by {name}.weight; never shifted.

    [batch, token, width] -> the same. Tap each stage, in this order: {name}.square (x²), .mean_square
    ([batch, token, 1]), .above_zero (plus config.rms_norm_eps), .inverse_root (1/√ of that), .normed
    (x times that), and at last {name} itself: the weight times that.
    """
    square = tap(f"{name}.square", x.pow(2))
    mean_square = tap(f"{name}.mean_square", square.mean(-1, keepdim=True))
    above_zero = tap(f"{name}.above_zero", mean_square + config.rms_norm_eps)
    inverse_root = tap(f"{name}.inverse_root", torch.rsqrt(above_zero))
    normed = tap(f"{name}.normed", x * inverse_root)
    return tap(name, weights[f"{name}.weight"] * normed)


@step(f"{ATTN}.{{which:q|k|v}}_proj", f"{BLOCK}.input_layernorm")
@step(f"{ATTN}.o_proj", f"{ATTN}.context")
@step(f"{MLP}.{{which:gate|up}}_proj", f"{BLOCK}.post_attention_layernorm")
@step(f"{MLP}.down_proj", f"{MLP}.gated")
def linear(x: Tensor, name: str, weights: Weights) -> Tensor:
    """A linear layer without a bias, {name}.weight [out, in]. [batch, token, in] -> [batch, token, out]"""
    return F.linear(x, weights[f"{name}.weight"])


@step(f"{ATTN}.query", f"{ATTN}.q_proj", *TURN)
@step(f"{ATTN}.key", f"{ATTN}.k_proj", *TURN)
def rotate(flat: Tensor, cos: Tensor, sin: Tensor, name: str, config: Any, tap: Tap) -> Tensor:
    """Split into heads, and turn each pair of numbers by its angle: (a, b) becomes (a cos - b sin,
    b cos + a sin). Number i and number i + head width / 2 make a pair.

    [batch, token, heads × head width], twice [1, token, head width] -> [batch, head, token, head width]. Tap
    each stage, in this order: {name}.by_cos (x times the cosines), .minus (the second half of each head,
    negated), .swapped (that, and the first half behind it), .by_sin (that times the sines); the sum of the
    first and the last is {name}.
    """
    x = split_heads(flat, config)
    by_cos = tap(f"{name}.by_cos", x * cos.unsqueeze(1))
    first, second = x.chunk(2, dim=-1)
    minus = tap(f"{name}.minus", -second)
    swapped = tap(f"{name}.swapped", torch.cat((minus, first), dim=-1))
    by_sin = tap(f"{name}.by_sin", swapped * sin.unsqueeze(1))
    return tap(name, by_cos + by_sin)


def split_heads(flat: Tensor, config: Any) -> Tensor:  # yours
    """[batch, token, heads × head width] -> [batch, head, token, head width], of as many heads as there are.

    Head 0 has the first numbers, head 1 the next, and so on. It is no step by itself. Some of them use it.
    """
    return flat.view(*flat.shape[:-1], -1, config.head_width).transpose(1, 2)


def remember(new: Tensor, name: str, cache: dict[str, Tensor]) -> Tensor:  # yours
    """Keys or values [batch, kv head, token, head width] of all tokens so far, those in cache[name] first.
    They are kept there, whole in memory (`contiguous`), as torch.cat leaves them.
    """
    cache[name] = torch.cat([cache[name], new], dim=-2) if name in cache else new.contiguous()
    return cache[name]


def repeat(x: Tensor, config: Any) -> Tensor:  # yours
    """[batch, kv head, token, head width] -> [batch, head, token, head width]: each kv head config.group
    times, all of them before the next one. It is no step by itself. Some of them use it.
    """
    return x[:, :, None].expand(-1, -1, config.group, -1, -1).flatten(1, 2)


@step(f"{ATTN}.product", f"{ATTN}.query", f"{ATTN}.key", f"{ATTN}.keys?")
def query_times_key(query: Tensor, key: Tensor, keys: Tensor | None, config: Any) -> Tensor:
    """Every query times every key, head by head; kv heads have to be repeated first.
    [batch, head, query, head width], [batch, kv head, key, head width] -> [batch, head, query, key]

    Where keys are kept, all of them come as `keys`, else None.
    """
    return query @ repeat(key if keys is None else keys, config).transpose(-1, -2)


@step(f"{ATTN}.scaled", f"{ATTN}.product")
def scale(product: Tensor, config: Any) -> Tensor:
    """Times 1/√(head width). [batch, head, query, key] -> the same.

    For the last bit, multiply by the power -0.5; a division by the root rounds differently for some widths.
    """
    power: float = config.head_width**-0.5
    return product * power


@step(f"{ATTN}.scores", f"{ATTN}.scaled", "model.mask")
def add_mask(scaled: Tensor, may_look: Tensor) -> Tensor:
    """What enters the softmax. [batch, head, query, key] -> the same"""
    return scaled + may_look


@step(f"{ATTN}.probs", f"{ATTN}.scores")
def probabilities(scores: Tensor) -> Tensor:
    """How much each token looks where. [batch, head, query, key] -> the same; each query's sum is 1."""
    return F.softmax(scores, dim=-1)


@step(f"{ATTN}.head_context", f"{ATTN}.probs", f"{ATTN}.v_proj", f"{ATTN}.values?")
def mix_values(probs: Tensor, flat: Tensor, values: Tensor | None, config: Any) -> Tensor:
    """The values by these shares. -> [batch, head, query, head width]. Split them into kv heads, which are
    repeated; where values are kept, all of them come as `values`, split already, else None."""
    return probs @ repeat(split_heads(flat, config) if values is None else values, config)


@step(f"{ATTN}.head_context", f"{ATTN}.query", f"{ATTN}.key", f"{ATTN}.v_proj", "inputs.mask", *KEPT)
def all_in_one(
    query: Tensor, key: Tensor, flat: Tensor, mask: Tensor, keys: Any, values: Any, config: Any
) -> Tensor:
    """From `query_times_key` to `mix_values` at once, by torch's scaled_dot_product_attention.

    -> [batch, head, query, head width]. It scales by itself, and takes who may look at whom as True and
    False: where `attention_mask` has its 0. Of that, the last rows: as many as there are queries.
    """
    may_look = attention_mask(mask)[:, :, -query.shape[-2] :] == 0
    key = repeat(key if keys is None else keys, config)
    value = repeat(split_heads(flat, config) if values is None else values, config)
    return F.scaled_dot_product_attention(query, key, value, may_look)


@step(f"{ATTN}.context", f"{ATTN}.head_context")
def merge_heads(head_context: Tensor) -> Tensor:
    """The heads side by side. [batch, head, token, head width] -> [batch, token, heads × head width]"""
    return head_context.transpose(1, 2).flatten(start_dim=2)


@step(f"{ATTN}.residual", BEFORE, f"{ATTN}.o_proj")
@step(f"{MLP}.residual", f"{ATTN}.residual", f"{MLP}.down_proj")
def add(x: Tensor, made: Tensor) -> Tensor:
    """What a half of the block was given, plus what it made of it. [batch, token, width]"""
    return x + made


@step(f"{MLP}.act_fn", f"{MLP}.gate_proj")
def silu(gate: Tensor) -> Tensor:
    """How far the gate is open: x · sigmoid(x), as one operation of torch. [batch, token, wide]"""
    return F.silu(gate)


@step(f"{MLP}.gated", f"{MLP}.act_fn", f"{MLP}.up_proj")
def through_the_gate(bent: Tensor, up: Tensor) -> Tensor:
    """What goes through it: one times the other. [batch, token, wide]"""
    return bent * up


# ------------------------------------------------------------------------------------- after the blocks


@step("lm_head", "model.norm")
def head(x: Tensor, weights: Weights) -> Tensor:
    """A score for every possible next token. [batch, token, width] -> [batch, token, vocabulary]

    By a table of its own, lm_head.weight. Small models have none in their file, and take the table of tokens,
    model.embed_tokens.weight, once more.
    """
    table = "lm_head.weight" if "lm_head.weight" in weights else "model.embed_tokens.weight"
    return F.linear(x, weights[table])
