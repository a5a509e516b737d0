"""T5 from token ids to the scores of the answer's next token, rebuilt from its weight file.

Axes     batch   texts that run together           head        one of 8 attention heads
         token   a position in the text            head width  64, here not width / heads
         width   512 numbers that describe a token
         wide    2048, inside the feed-forward     vocabulary  32128 possible next tokens
         query   a token that looks                key         a token that is looked at
Sources  Raffel et al. (2020), T5. Weights: google-t5/t5-small. Order of operations as in
         transformers 5.23 models/t5/modeling_t5.py, because float addition does not associate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.errors import InputError
from llm_rebuild.models.cache import EncoderDecoderCache as Cache
from llm_rebuild.models.cache import KeysAndValues
from llm_rebuild.models.ops import ACTIVATIONS, merge_heads, split_heads
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.models.t5_checkpoints import BIAS, CHECKPOINTS
from llm_rebuild.models.t5_config import Config

__all__ = ["CHECKPOINTS", "Cache", "Output", "decode", "encode", "forward"]

Past = KeysAndValues | None  # what an attention has seen before; None: nothing is kept

# -------------------------------------------------------------------- from ids to scores


class Output(NamedTuple):
    logits: Tensor  # [batch, decoder token, vocabulary]
    last_hidden_state: Tensor  # [batch, decoder token, width]
    encoded: Tensor | None  # [batch, token, width]; None where the encoder did not run
    cache: Cache | None  # what the next step wants to be given


def forward(batch: Batch, model: Part[Config], cache: Cache | None = None) -> Output:
    """Scores of the token that follows each token of the answer.

    cache  What an earlier call returned, or `Cache()` to begin with: then keys and values are kept, and the
           encoder runs in the first call only. The batch has the answer's new tokens.
    """
    encoded = None if cache is not None and cache.tokens else encode(batch, model)
    return decode(batch, encoded, model, cache)


def encode(batch: Batch, model: Part[Config]) -> Tensor:
    """The text, each token with all others in view. [batch, token] -> [batch, token, width]."""
    x = embed(batch.token_ids, model, "encoder")
    encoder, token = model.at("encoder"), x.shape[1]
    bias = position_bias(token, token, True, encoder.at(BIAS))  # [1, head, query, key]
    looks = make_looks(may_look_at_text(batch.mask, token), bias, encoder)
    for i in range(model.config.num_layers):
        x = encoder_block(x, looks, encoder.at(f"block.{i}.layer"))
    x = rms_norm(x, encoder.at("final_layer_norm"))  # [batch, token, width]
    encoder.tap("final_layer_norm", x)
    return x


def decode(batch: Batch, encoded: Tensor | None, model: Part[Config], cache: Cache | None = None) -> Output:
    """Scores of the token that follows each token of the answer.

    encoded  What `encode` made of the texts, [batch, token, width]. None only where the cache has it.
    """
    start = torch.full((len(batch.token_ids), 1), model.config.decoder_start_token_id or 0)
    ids = start if batch.decoder_ids is None else batch.decoder_ids  # [batch, decoder token]
    x = embed(ids, model, "decoder")
    decoder, token = model.at("decoder"), x.shape[1]
    key = token + (cache.tokens if cache else 0)
    bias = position_bias(token, key, False, decoder.at(BIAS))  # [1, head, query, key]
    may_look = may_look_back(batch.decoder_mask, len(x), token, key, model.attention)
    looks = make_looks(may_look, bias, decoder)
    nearness = torch.zeros(1, model.config.num_heads, token, batch.mask.shape[1])  # it knows no distances
    nearness = nearness.to(x.dtype)
    across = make_looks(may_look_at_text(batch.mask, token), nearness, decoder, "cross_")
    blocks: list[tuple[KeysAndValues, KeysAndValues]] = []
    for i in range(model.config.decoder_layers):
        past = (None, None) if cache is None else cache.block(i)
        x, (own, far) = decoder_block(x, encoded, (looks, across), decoder.at(f"block.{i}.layer"), past)
        blocks += [] if own is None or far is None else [(own, far)]
    x = rms_norm(x, decoder.at("final_layer_norm"))  # [batch, token, width]
    decoder.tap("final_layer_norm", x)
    return Output(head(x, model), x, encoded, None if cache is None else Cache(tuple(blocks)))


def embed(token_ids: Tensor, model: Part[Config], side: str) -> Tensor:
    """[batch, token] -> [batch, token, width]: a looked-up row for each token, and no position."""
    if token_ids.shape[1] < 1:
        raise InputError(f"the {side} has no tokens to read; it needs at least one")
    own = f"{side}.embed_tokens.weight"  # not in the hub's file: one table serves both sides
    x = F.embedding(token_ids, model.weights[own if own in model.weights else "shared.weight"])
    model.tap(f"{side}.embed_tokens", x)
    return x


def head(x: Tensor, model: Part[Config]) -> Tensor:
    """[batch, token, width] -> [batch, token, vocabulary]. Tied: the table that turned ids into vectors turns
    vectors into scores. T5 1.1 has one of its own."""
    scaled = x
    if model.config.scale_decoder_outputs:  # for a table that serves as the head, too (not in T5 1.1)
        scaled = x * model.config.d_model**-0.5  # [batch, token, width]
        model.tap("decoder.scaled", scaled)
    table = model.weights["lm_head.weight" if "lm_head.weight" in model.weights else "shared.weight"]
    logits = F.linear(scaled, table)  # [batch, token, vocabulary]
    model.tap("lm_head", logits)
    return logits


# --------------------------------------------------- who may look at whom, and from how far: the looks


class Looks(NamedTuple):
    """Who may look at whom, and how far away it is: both are added to the scores."""

    bias: Tensor  # [1, head, query, key]
    mask: Tensor | None  # [batch, 1, query, key]; fused: [batch, head, query, key], the bias in it


def position_bias(query: int, key: int, both_ways: bool, part: Part[Config]) -> Tensor:
    """A learned number a head for each distance -> [1, head, query, key]. The queries are the last keys.

    T5 gives its tokens no positions. Instead every score gets a number for the distance between the token
    that looks (query) and the token that is looked at (key).
    """
    position = torch.arange(key)
    distance = position - position[key - query :, None]  # [query, key]: below 0 for what came before
    bucket = bucket_of(distance, both_ways, part.config)  # [query, key]
    table = F.embedding(bucket, part.weights["relative_attention_bias.weight"])  # [query, key, head]
    part.tap("relative_attention_bias", table)
    return table.permute(2, 0, 1).unsqueeze(0)


def bucket_of(distance: Tensor, both_ways: bool, config: Config) -> Tensor:
    """Distances [query, key] as numbers of buckets: near ones have their own, far ones share, the more the
    farther. The encoder keeps one half of the buckets for what comes after."""
    buckets, farthest = config.relative_attention_num_buckets, config.relative_attention_max_distance
    first = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first, distance = (distance > 0).long() * buckets, distance.abs()
    else:
        distance = -torch.clamp(distance, max=0)  # what comes after is masked
    exact = buckets // 2
    far = torch.log(distance.float() / exact) / math.log(farthest / exact) * (buckets - exact)
    far = torch.clamp(exact + far.long(), max=buckets - 1)
    return first + torch.where(distance < exact, distance, far)


def may_look_at_text(mask: Tensor, token: int) -> Tensor | None:
    """Every token of the text may be looked at, padding not. [batch, key] -> [batch, 1, query, key], or None
    where there is no padding. `token` is how many look."""
    return None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, -1)


def may_look_back(mask: Tensor | None, batch: int, query: int, key: int, attention: str) -> Tensor | None:
    """No token of the answer may look at a later one, nor at padding. -> [batch or 1, 1, query, key]"""
    padded = mask is not None and not bool(mask.all())
    if attention == "sdpa" and query == 1 and not padded:
        return None  # the last token may look at all there is
    order = torch.arange(key)
    not_later = (order <= order[key - query :, None])[None, None]  # [1, 1, query, key]
    if mask is not None and padded:
        not_later = not_later & mask.bool()[:, None, None, :]
    alike = attention == "sdpa" and query == key and not padded  # one mask for all rows
    return not_later if alike else not_later.expand(batch, 1, query, key)


def make_looks(may_look: Tensor | None, bias: Tensor, part: Part[Config], kind: str = "") -> Looks:
    """The mask in numbers: 0 where one may look and the lowest float where not, after which the softmax has
    nothing left. The fused kernel takes one tensor only, so there the bias stands instead of the 0."""
    lowest = torch.finfo(bias.dtype).min
    if part.attention == "sdpa":
        if may_look is None:
            return Looks(bias, bias.contiguous())
        biased = torch.where(may_look, bias, lowest).contiguous()  # [batch or 1, head, query, key]
        part.tap(f"{kind}biased_mask", biased)
        return Looks(bias, biased)
    if may_look is None:
        return Looks(bias, None)
    added = torch.where(may_look, torch.zeros((), dtype=bias.dtype), lowest)  # [batch, 1, query, key]
    part.tap(f"{kind}mask", added)
    return Looks(bias, added)


# -------------------------------------------------------------------------------- one block


#   x ---+---> layer_norm ---> self_attention --->(+)---> x
#        |                                         ^
#        +-----------------------------------------+
#
#   then, in the decoder, the same with cross_attention, which looks at the encoder's tokens; and last
#
#   x ---+---> layer_norm ---> feed_forward ----->(+)---> x
#        |                                         ^
#        +-----------------------------------------+


def encoder_block(x: Tensor, looks: Looks, part: Part[Config]) -> Tensor:
    """[batch, token, width] -> the same. T5 normalises *before* each part and adds the untouched input
    afterwards (pre-LN)."""
    x, _ = self_attention(x, looks, part.at("0"))
    return feed_forward(x, part.at("1"))


def decoder_block(
    x: Tensor, encoded: Tensor | None, looks: tuple[Looks, Looks], part: Part[Config], past: tuple[Past, Past]
) -> tuple[Tensor, tuple[Past, Past]]:
    """[batch, token, width] -> the same. `looks` and `past` are of the answer's tokens and of the text's."""
    x, own = self_attention(x, looks[0], part.at("0"), past[0])
    x, far = cross_attention(x, encoded, looks[1], part.at("1"), past[1])
    return feed_forward(x, part.at("2")), (own, far)


def self_attention(x: Tensor, looks: Looks, part: Part[Config], past: Past = None) -> tuple[Tensor, Past]:
    """Tokens look at each other. [batch, token, width] -> [batch, token, width]."""
    normed = rms_norm(x, part.at("layer_norm"))  # [batch, token, width]
    part.tap("layer_norm", normed)
    inside = part.at("SelfAttention")
    query = linear(normed, inside.at("q"))  # [batch, token, heads × head width]
    inside.tap("q", query)
    key, value = keys_and_values(normed, inside)  # [batch, head, key, head width]
    if past is not None:
        past = past.extended(key, value)
        key, value = past.key, past.value  # those in the cache first
        inside.tap("key", key)
        inside.tap("value", value)
    x = x + mix(query, key, value, looks, inside)  # [batch, token, width]
    part.tap("residual", x)
    return x, past


def cross_attention(
    x: Tensor, encoded: Tensor | None, looks: Looks, part: Part[Config], past: Past = None
) -> tuple[Tensor, Past]:
    """The answer's tokens look at the text's. [batch, token, width] -> [batch, token, width].

    encoded  [batch, key, width]. Keys and values are made of it once, and then stay what they are: with a
             `past` that has them it is not needed. Raises InputError where both are missing.
    """
    x = short_of_infinity(x)
    normed = rms_norm(x, part.at("layer_norm"))  # [batch, token, width]
    part.tap("layer_norm", normed)
    inside = part.at("EncDecAttention")
    query = linear(normed, inside.at("q"))  # [batch, token, heads × head width]
    inside.tap("q", query)
    if past is not None and past.tokens:
        key, value = past.key, past.value  # [batch, head, key, head width]
    elif encoded is None:
        raise InputError("cross-attention has nothing to look at: give what encode() made, or a filled cache")
    else:
        key, value = keys_and_values(encoded, inside)  # [batch, head, key, head width]
        if past is not None:
            past = past.extended(key, value)
            key, value = past.key, past.value
            inside.tap("key", key)
            inside.tap("value", value)
    x = x + mix(query, key, value, looks, inside)  # [batch, token, width]
    part.tap("residual", x)
    return x, past


def keys_and_values(source: Tensor, part: Part[Config]) -> tuple[Tensor, Tensor]:
    """What the source's tokens offer, and what they pass on. -> twice [batch, head, key, head width]."""
    key, value = linear(source, part.at("k")), linear(source, part.at("v"))
    part.tap("k", key)
    part.tap("v", value)
    return split_heads(key, part.config.num_heads), split_heads(value, part.config.num_heads)


def mix(query: Tensor, key: Tensor, value: Tensor, looks: Looks, part: Part[Config]) -> Tensor:
    """What both attentions do with query [batch, token, heads × head width], key and value [batch, head, key,
    head width] -> [batch, token, width]."""
    query = split_heads(query, part.config.num_heads)  # [batch, head, query, head width]
    attend = {"eager": eager_attention, "sdpa": fused_attention}[part.attention]
    head_context = attend(query, key, value, looks, part)  # [batch, head, query, head width]
    part.tap("head_context", head_context)
    context = merge_heads(head_context)  # [batch, token, heads × head width]
    part.tap("context", context)
    output = linear(context, part.at("o"))  # [batch, token, width]
    part.tap("o", output)
    return output


def eager_attention(query: Tensor, key: Tensor, value: Tensor, looks: Looks, part: Part[Config]) -> Tensor:
    """query, key, value [batch, head, token, head width] -> [batch, head, query, head width]."""
    # Never scaled: the initialisation of the query's weights has 1/√(head width) in it (Mesh TensorFlow).
    product = query @ key.transpose(-1, -2)  # [batch, head, query, key]
    part.tap("product", product)
    biased = product + looks.bias  # [batch, head, query, key]
    part.tap("biased", biased)
    scores = biased if looks.mask is None else biased + looks.mask  # [batch, head, query, key]
    part.tap("scores", scores)
    probs = F.softmax(scores, dim=-1)  # [batch, head, query, key]
    part.tap("probs", probs)
    return probs @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor, looks: Looks, part: Part[Config]) -> Tensor:
    """The same in one kernel, which never shows its scores; its sums run in another order."""
    return F.scaled_dot_product_attention(query, key, value, looks.mask, scale=1.0)


def feed_forward(x: Tensor, part: Part[Config]) -> Tensor:
    """Normalise, widen, bend, narrow, and add what was untouched back. [batch, token, width] -> the same."""
    x = short_of_infinity(x)
    normed = rms_norm(x, part.at("layer_norm"))  # [batch, token, width]
    part.tap("layer_norm", normed)
    inside, config = part.at("DenseReluDense"), part.config
    first = "wi_0" if config.gated else "wi"
    wide = linear(normed, inside.at(first))  # [batch, token, wide]
    inside.tap(first, wide)
    bent = ACTIVATIONS[config.activation](wide, inside.tap.at("act"))  # [batch, token, wide]
    inside.tap("act", bent)
    if config.gated:  # T5 1.1: a second branch says how much of the first goes on
        gate = linear(normed, inside.at("wi_1"))  # [batch, token, wide]
        inside.tap("wi_1", gate)
        bent = bent * gate  # [batch, token, wide]
        inside.tap("gated", bent)
    output = linear(bent, inside.at("wo"))  # [batch, token, width]
    inside.tap("wo", output)
    x = x + output  # [batch, token, width]
    part.tap("residual", x)
    return x


def linear(x: Tensor, part: Part[Config]) -> Tensor:
    """x [..., in] -> [..., out]. T5's linear layers have no bias. In float16 the last one of a feed-forward,
    `wo`, stays float32: its sums would go beyond 65504. Then so does whatever it is added to."""
    x = x.to(part.weights["weight"].dtype)
    return F.linear(x, part.weights["weight"])


def short_of_infinity(x: Tensor) -> Tensor:
    """The same, but in float16, which ends at 65504: where one is beyond, all are cut 1000 below that."""
    if x.dtype != torch.float16 or not bool(x.isinf().any()):
        return x
    most = torch.finfo(x.dtype).max - 1000
    return x.clamp(-most, most)


def rms_norm(x: Tensor, part: Part[Config]) -> Tensor:
    """Each token's numbers scaled to mean square 1, then stretched; never shifted. Shape as before. Squares
    and their mean are float32 whatever the type: shorter ones add badly."""
    square = x.float().pow(2)  # [batch, token, width]
    part.tap("square", square)
    mean_square = square.mean(-1, keepdim=True)  # [batch, token, 1]
    part.tap("mean_square", mean_square)
    above_zero = mean_square + part.config.layer_norm_epsilon  # [batch, token, 1]
    part.tap("above_zero", above_zero)
    inverse_root = torch.rsqrt(above_zero)  # [batch, token, 1]
    part.tap("inverse_root", inverse_root)
    normed = x * inverse_root  # [batch, token, width]
    part.tap("normed", normed)
    normed = normed.to(part.weights["weight"].dtype)
    return part.weights["weight"] * normed  # [batch, token, width]: stretched
