"""T5, rebuilt by you.

    llm-rebuild check FILE --model t5-small

Axes     batch   texts that run together            head        one of num_heads attention heads
         token   a position in the text             head width  d_kv
         width   d_model numbers that describe      inner       heads × head width
                 a token                            wide        d_ff, inside the feed-forward
         query   a token that looks                 key         a token that is looked at
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.workbench import step

Weights = Mapping[str, Tensor]  # the weight file: weights["shared.weight"]
Tap = Callable[[str, Tensor], Tensor]  # tap(name, tensor) shows a tensor to the checker, and returns it
HALF, SAME = "{side:encoder|decoder}.block.{layer}.layer.{half}", "{side}.block.{layer}.layer.{half}"
LOOK, ITS = HALF + ".{kind:SelfAttention|EncDecAttention}", SAME + ".{kind}"
TEXT, OWN = "encoder.block.{layer}.layer.0.SelfAttention", "decoder.block.{layer}.layer.0.SelfAttention"
CROSS = "decoder.block.{layer}.layer.1.EncDecAttention"
BEFORE_TEXT = "encoder.block.{layer-1}.layer.1.residual or encoder.embed_tokens"  # what goes into a block
BEFORE_OWN = "decoder.block.{layer-1}.layer.2.residual or decoder.embed_tokens"


def forward(
    token_ids: Tensor,
    mask: Tensor,
    weights: Weights,
    config: Any,
    tap: Tap,
    decoder_ids: Tensor,
    decoder_mask: Tensor,
    attention: str = "eager",
    cache: dict[str, Tensor] | None = None,
) -> Tensor:
    """token_ids, mask [batch, token], decoder_ids, decoder_mask [batch, decoder token] -> scores of the token
    that follows each of the answer [batch, decoder token, vocabulary]. Mask: 1 for a token, 0 for padding.

    config is config.json: config.num_layers, config.num_heads, config.layer_norm_epsilon.
    attention is `eager`, step by step, or `sdpa`, all in one.
    cache is a dictionary of yours, empty at first. Leave keys and values there: the next time decoder_ids has
    the new token only, and decoder_mask all of them. None: nothing is kept.
    """
    part = Part(weights, config, tap, attention, cache)
    encoded = cache["encoded"] if cache else encoder(token_ids, mask, part._replace(cache=None))  # runs once
    if cache is not None:
        cache["encoded"] = encoded
    return decoder(decoder_ids, decoder_mask, encoded, mask, part)


class Part(NamedTuple):
    """What every part of the model is given."""

    weights: Weights
    config: Any
    tap: Tap
    attention: str
    cache: dict[str, Tensor] | None


def encoder(token_ids: Tensor, mask: Tensor, part: Part) -> Tensor:
    """The text, each token with all others in view. [batch, token] -> [batch, token, width]"""
    weights, config, tap, *_ = part
    x = tap("encoder.embed_tokens", embed(token_ids, weights))
    table = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    bias = tap(table, encoder_bias(x, table, weights, config))
    may_look = padding_mask(mask, x) if not bool(mask.all()) else None  # None: everybody may look everywhere
    looks = shown(bias, may_look, "encoder.mask", part)
    for layer in range(config.num_layers):
        block = f"encoder.block.{layer}.layer"
        normed = rms_norm(x, f"{block}.0.layer_norm", weights, config, tap)
        attended = attend(normed, normed, f"{block}.0.SelfAttention", looks, may_look, part)
        x = tap(f"{block}.0.residual", add(x, attended))
        x = feed_forward(x, f"{block}.1", part)
    return rms_norm(x, "encoder.final_layer_norm", weights, config, tap)


def decoder(decoder_ids: Tensor, decoder_mask: Tensor, encoded: Tensor, mask: Tensor, part: Part) -> Tensor:
    """The answer so far, each token with those before and the whole text in view, and what comes next."""
    weights, config, tap, *_ = part
    token = decoder_ids.shape[1]
    x = tap("decoder.embed_tokens", embed(decoder_ids, weights))
    table = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    bias = tap(table, decoder_bias(decoder_mask, table, weights, config)[-token:])
    may_look = causal_mask(decoder_mask)[:, :, -token:]
    looks = shown(bias, may_look, "decoder.mask", part)
    may_look_across = padding_mask(mask, x) if not bool(mask.all()) else None
    nothing = torch.zeros(token, mask.shape[1], config.num_heads)  # cross-attention knows no distances
    across = shown(
        None if part.attention == "eager" else nothing, may_look_across, "decoder.cross_mask", part
    )
    for layer in range(config.num_decoder_layers or config.num_layers):
        block = f"decoder.block.{layer}.layer"
        normed = rms_norm(x, f"{block}.0.layer_norm", weights, config, tap)
        attended = attend(normed, normed, f"{block}.0.SelfAttention", looks, may_look, part)
        x = tap(f"{block}.0.residual", add(x, attended))
        normed = rms_norm(x, f"{block}.1.layer_norm", weights, config, tap)
        attended = attend(normed, encoded, f"{block}.1.EncDecAttention", across, may_look_across, part)
        x = tap(f"{block}.1.residual", add(x, attended))
        x = feed_forward(x, f"{block}.2", part)
    x = rms_norm(x, "decoder.final_layer_norm", weights, config, tap)
    x = tap("decoder.scaled", scale(x, config))
    return tap("lm_head", head(x, weights))


def shown(bias: Tensor | None, may_look: Tensor | None, name: str, part: Part) -> Tensor | None:
    """Show the checker who may look at whom. For `sdpa`, bias and mask in one."""
    if part.attention == "eager" or bias is None:
        if may_look is not None:
            part.tap(name, may_look)
        return bias
    bias = biased_mask(bias, may_look)
    if may_look is not None:
        part.tap(name.replace("mask", "biased_mask"), bias)
    return bias


def attend(
    x: Tensor, source: Tensor, name: str, bias: Tensor | None, may_look: Tensor | None, part: Part
) -> Tensor:
    """Tokens of x look at tokens of `source`: at each other, or in cross-attention at the encoder's."""
    weights, config, tap, how, cache = part
    query = tap(f"{name}.q", linear(x, f"{name}.q", weights))
    if cache and source is not x and f"{name}.k" in cache:  # the text's are what they were
        key, value = cache[f"{name}.k"], cache[f"{name}.v"]
    else:
        key = tap(f"{name}.k", linear(source, f"{name}.k", weights))
        value = tap(f"{name}.v", linear(source, f"{name}.v", weights))
        if cache is not None:
            key = tap(f"{name}.key", remember(split_heads(key, config), f"{name}.k", cache))
            value = tap(f"{name}.value", remember(split_heads(value, config), f"{name}.v", cache))
    if how == "eager":
        product = tap(f"{name}.product", query_times_key(query, key, config))
        biased = tap(f"{name}.biased", add_bias(product, bias))
        scores = tap(f"{name}.scores", add_mask(biased, may_look))
        probs = tap(f"{name}.probs", probabilities(scores))
        head_context = mix_values(probs, value, config)
    else:
        head_context = all_in_one(query, key, value, bias, config)
    tap(f"{name}.head_context", head_context)
    context = tap(f"{name}.context", merge_heads(head_context))
    return tap(f"{name}.o", linear(context, f"{name}.o", weights))


def feed_forward(x: Tensor, name: str, part: Part) -> Tensor:
    """Each token by itself, normalised, widened, bent, narrowed, and added to what it was."""
    weights, config, tap, *_ = part
    normed = rms_norm(x, f"{name}.layer_norm", weights, config, tap)
    wide = tap(f"{name}.DenseReluDense.wi", linear(normed, f"{name}.DenseReluDense.wi", weights))
    bent = tap(f"{name}.DenseReluDense.act", relu(wide))
    narrow = tap(f"{name}.DenseReluDense.wo", linear(bent, f"{name}.DenseReluDense.wo", weights))
    return tap(f"{name}.residual", add(x, narrow))


# ------------------------------------------------------------------------------------ before the blocks


@step("encoder.embed_tokens", "inputs.token_ids")
@step("decoder.embed_tokens", "inputs.decoder_ids")
def embed(ids: Tensor, weights: Weights) -> Tensor:  # given
    """Which token it is. [batch, token] -> [batch, token, width]: its row of the shared table."""
    return F.embedding(ids, weights["shared.weight"])


@step("encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "encoder.embed_tokens")
def encoder_bias(x: Tensor, name: str, weights: Weights, config: Any) -> Tensor:
    """A learned number a head for each distance. -> [query, key, head], as many of both as x has tokens.

    The distance is the key's place minus the query's. `bucket_of` gives the row of {name}.weight.
    """
    where = torch.arange(x.shape[1])
    distance = where - where[:, None]  # [query, key]
    return F.embedding(bucket_of(distance, True, config), weights[f"{name}.weight"])


@step("decoder.block.0.layer.0.SelfAttention.relative_attention_bias", "inputs.decoder_mask")
def decoder_bias(decoder_mask: Tensor, name: str, weights: Weights, config: Any) -> Tensor:
    """The same for the answer's tokens, as many as the mask [batch, token] has, which look back only."""
    where = torch.arange(decoder_mask.shape[1])
    distance = where - where[:, None]  # [query, key]
    return F.embedding(bucket_of(distance, False, config), weights[f"{name}.weight"])


def bucket_of(distance: Tensor, both_ways: bool, config: Any) -> Tensor:  # yours
    """Distances [query, key], below 0 for what came before -> the numbers of their buckets.

    There are config.relative_attention_num_buckets. `both_ways` keeps the second half of them for what comes
    after (distance above 0) and counts both halves by how far it is; otherwise what comes after is as far as
    0. Of these buckets, the first half have one distance each. The others share the distances up to
    config.relative_attention_max_distance, by the logarithm, cut off to whole numbers:
    exact + int(log(distance / exact) / log(max_distance / exact) · (buckets - exact)); what is farther is in
    the last. No step by itself: two of them use it.
    """
    buckets, farthest = config.relative_attention_num_buckets, config.relative_attention_max_distance
    first = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first, distance = (distance > 0).long() * buckets, distance.abs()
    else:
        distance = -torch.clamp(distance, max=0)
    exact = buckets // 2
    far = torch.log(distance.float() / exact) / math.log(farthest / exact) * (buckets - exact)
    far = torch.clamp(exact + far.long(), max=buckets - 1)
    return first + torch.where(distance < exact, distance, far)


@step("encoder.mask", "inputs.mask", "encoder.embed_tokens")
@step("decoder.cross_mask", "inputs.mask", "decoder.embed_tokens")
def padding_mask(mask: Tensor, x: Tensor) -> Tensor:
    """Who may look at whom in the text. [batch, token] of 1 and 0 -> [batch, 1, query, key], to be added.

    0 where the key is a token, the lowest float32 there is (torch.finfo) where it is padding; the same for
    every query, of which there are as many as x [batch, query, width] has tokens.
    """
    batch, token = mask.shape
    may_look = mask.bool()[:, None, None, :].expand(batch, 1, x.shape[1], token)
    return torch.where(may_look, torch.zeros(()), torch.finfo(torch.float32).min)


@step("decoder.mask", "inputs.decoder_mask")
def causal_mask(decoder_mask: Tensor) -> Tensor:
    """The same in the answer, where no token may look at a later one either. -> [batch, 1, query, key]"""
    order = torch.arange(decoder_mask.shape[1])
    not_later = order <= order[:, None]  # [query, key]
    may_look = not_later & decoder_mask.bool()[:, None, None, :]
    return torch.where(may_look, torch.zeros(()), torch.finfo(torch.float32).min)


def biased_mask(bias: Tensor, may_look: Tensor | None) -> Tensor:  # yours
    """Bias [query, key, head] and mask [batch, 1, query, key] in one. -> [batch, head, query, key]

    The bias where the mask has its 0, the lowest float32 elsewhere. Without a mask the batch is 1.
    """
    bias = bias.permute(2, 0, 1).unsqueeze(0)
    lowest = torch.finfo(torch.float32).min
    return bias.contiguous() if may_look is None else torch.where(may_look == 0, bias, lowest)


# --------------------------------------------------------------------------------- parts of every block


@step("encoder.block.{layer}.layer.0.layer_norm", BEFORE_TEXT)
@step("decoder.block.{layer}.layer.0.layer_norm", BEFORE_OWN)
@step(f"{HALF}.layer_norm", "{side}.block.{layer}.layer.{half-1}.residual")
@step("encoder.final_layer_norm", "encoder.block.{last}.layer.1.residual")
@step("decoder.final_layer_norm", "decoder.block.{last}.layer.2.residual")
def rms_norm(x: Tensor, name: str, weights: Weights, config: Any, tap: Tap) -> Tensor:
    """Each token's numbers at mean square 1, then stretched by {name}.weight; never shifted.

    [batch, token, width] -> the same. Tap each stage, in this order: {name}.square (x²), .mean_square
    ([batch, token, 1]), .above_zero (plus config.layer_norm_epsilon), .inverse_root (1/√ of that), .normed
    (x times that), and at last {name} itself: the weight times that.
    """
    square = tap(f"{name}.square", x.pow(2))
    mean_square = tap(f"{name}.mean_square", square.mean(-1, keepdim=True))
    above_zero = tap(f"{name}.above_zero", mean_square + config.layer_norm_epsilon)
    inverse_root = tap(f"{name}.inverse_root", torch.rsqrt(above_zero))
    normed = tap(f"{name}.normed", x * inverse_root)
    return tap(name, weights[f"{name}.weight"] * normed)


@step(f"{TEXT}.{{which:q|k|v}}", "encoder.block.{layer}.layer.0.layer_norm")
@step(f"{OWN}.{{which:q|k|v}}", "decoder.block.{layer}.layer.0.layer_norm")
@step(f"{CROSS}.q", "decoder.block.{layer}.layer.1.layer_norm")
@step("decoder.block.{layer}.layer.1.EncDecAttention.{which:k|v}", "encoder.final_layer_norm")
@step(f"{LOOK}.o", f"{ITS}.context")
@step(f"{HALF}.DenseReluDense.wi", f"{SAME}.layer_norm")
@step(f"{HALF}.DenseReluDense.wo", f"{SAME}.DenseReluDense.act")
def linear(x: Tensor, name: str, weights: Weights) -> Tensor:
    """A linear layer without a bias, {name}.weight [out, in]. [batch, token, in] -> [batch, token, out]"""
    return F.linear(x, weights[f"{name}.weight"])


@step(f"{LOOK}.product", f"{ITS}.q", f"{ITS}.k")
def query_times_key(query: Tensor, key: Tensor, config: Any) -> Tensor:
    """Every query times every key, head by head. Twice [batch, token, inner] -> [batch, head, query, key].

    Split each into heads with `split_heads` first. T5 never divides by √(head width).
    """
    return split_heads(query, config) @ split_heads(key, config).transpose(-1, -2)


def split_heads(x: Tensor, config: Any) -> Tensor:  # yours
    """[batch, token, inner] -> [batch, head, token, head width].

    Head 0 has the first d_kv numbers, head 1 the next, and so on. What is split already (as kept keys are)
    stays as it is. It is no step by itself. Some of them use it.
    """
    return x if x.dim() == 4 else x.view(*x.shape[:-1], config.num_heads, -1).transpose(1, 2)


def remember(new: Tensor, name: str, cache: dict[str, Tensor]) -> Tensor:  # yours
    """Keys or values [batch, head, token, head width] of all tokens so far, those in cache[name] first. They
    are kept there, whole in memory (`contiguous`), as torch.cat leaves them.
    """
    cache[name] = torch.cat([cache[name], new], dim=-2) if name in cache else new.contiguous()
    return cache[name]


@step(f"{TEXT}.biased", f"{TEXT}.product", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias")
@step(f"{OWN}.biased", f"{OWN}.product", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias")
@step(f"{CROSS}.biased", f"{CROSS}.product")
def add_bias(product: Tensor, bias: Tensor | None = None) -> Tensor:
    """Plus the bias of block 0, in every block. [batch, head, query, key] and [query, key, head].

    Cross-attention knows no distances: there the bias is None, and nothing changes.
    """
    return product if bias is None else product + bias.permute(2, 0, 1)


@step(f"{TEXT}.scores", f"{TEXT}.biased", "encoder.mask?")
@step(f"{OWN}.scores", f"{OWN}.biased", "decoder.mask?")
@step(f"{CROSS}.scores", f"{CROSS}.biased", "decoder.cross_mask?")
def add_mask(biased: Tensor, may_look: Tensor | None) -> Tensor:
    """What enters the softmax. [batch, head, query, key] -> the same. None: there is no padding."""
    return biased if may_look is None else biased + may_look


@step(f"{LOOK}.probs", f"{ITS}.scores")
def probabilities(scores: Tensor) -> Tensor:
    """How much each token looks where. [batch, head, query, key] -> the same; each query's sum is 1."""
    return F.softmax(scores, dim=-1)


@step(f"{LOOK}.head_context", f"{ITS}.probs", f"{ITS}.v")
def mix_values(probs: Tensor, value: Tensor, config: Any) -> Tensor:
    """The values by these shares. -> [batch, head, query, head width]. Split the value into heads first."""
    return probs @ split_heads(value, config)


def all_in_one(query: Tensor, key: Tensor, value: Tensor, bias: Any, config: Any) -> Tensor:  # yours
    """From `query_times_key` to `mix_values` at once, by torch's scaled_dot_product_attention.

    Three times [batch, token, inner] -> [batch, head, query, head width]. It takes the bias as its mask, and
    scales if it is left to itself; T5 does not: scale=1.0.
    """
    query, key, value = (split_heads(x, config) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, bias, scale=1.0)


@step(f"{LOOK}.context", f"{ITS}.head_context")
def merge_heads(head_context: Tensor) -> Tensor:
    """The heads side by side again. [batch, head, token, head width] -> [batch, token, inner]"""
    return head_context.transpose(1, 2).flatten(start_dim=2)


@step("encoder.block.{layer}.layer.0.residual", BEFORE_TEXT, f"{TEXT}.o")
@step("decoder.block.{layer}.layer.0.residual", BEFORE_OWN, f"{OWN}.o")
@step("decoder.block.{layer}.layer.1.residual", "decoder.block.{layer}.layer.0.residual", f"{CROSS}.o")
@step(f"{HALF}.residual", "{side}.block.{layer}.layer.{half-1}.residual", f"{SAME}.DenseReluDense.wo")
def add(x: Tensor, made: Tensor) -> Tensor:
    """What a part of the block was given, plus what it made of it. [batch, token, width]"""
    return x + made


@step(f"{HALF}.DenseReluDense.act", f"{SAME}.DenseReluDense.wi")
def relu(x: Tensor) -> Tensor:
    """What is below 0 becomes 0. [batch, token, wide] -> the same"""
    return F.relu(x)


# ------------------------------------------------------------------------------------- after the blocks


@step("decoder.scaled", "decoder.final_layer_norm")
def scale(x: Tensor, config: Any) -> Tensor:
    """Times 1/√width, because the table of tokens serves as the head, too. [batch, token, width]

    For the last bit, multiply by the power -0.5 of config.d_model.
    """
    power: float = config.d_model**-0.5
    return x * power


@step("lm_head", "decoder.scaled")
def head(x: Tensor, weights: Weights) -> Tensor:
    """A score for every possible next token. [batch, token, width] -> [batch, token, vocabulary]

    The head is the shared table of tokens once more.
    """
    return F.linear(x, weights["shared.weight"])
