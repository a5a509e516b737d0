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

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import NO_TAP, Tap
from llm_rebuild.errors import InputError
from llm_rebuild.models.cache import EncoderDecoderCache as Cache
from llm_rebuild.models.cache import KeysAndValues
from llm_rebuild.models.ops import ACTIVATIONS, merge_heads, split_heads
from llm_rebuild.models.t5_checkpoints import BIAS, CHECKPOINTS
from llm_rebuild.models.t5_config import Config
from llm_rebuild.models.t5_looks import Looks, make_looks, may_look_back, position_bias
from llm_rebuild.weights import Weights

__all__ = ["CHECKPOINTS", "Cache", "Output", "decode", "encode", "forward"]

Past = KeysAndValues | None  # what an attention has seen before; None: nothing is kept


class Output(NamedTuple):
    logits: Tensor  # [batch, decoder token, vocabulary]
    last_hidden_state: Tensor  # [batch, decoder token, width]
    encoded: Tensor | None  # [batch, token, width]; None where the encoder did not run
    cache: Cache | None  # what the next step wants to be given


# -------------------------------------------------------------------- from ids to scores


def forward(
    token_ids: Tensor,
    mask: Tensor,
    weights: Weights,
    config: Config,
    *,
    decoder_ids: Tensor | None = None,
    decoder_mask: Tensor | None = None,
    attention: str = "eager",
    tap: Tap = NO_TAP,
    cache: Cache | None = None,
    use_cache: bool = False,
) -> Output:
    """Scores of the token that follows each token of the answer.

    token_ids, mask  [batch, token]: the text, mask 1 for a token and 0 for padding.
    decoder_ids      [batch, decoder token]: the answer so far, the start token first (None: it alone); with
                     a `cache`, what came after it.
    decoder_mask     [batch, cached and new decoder tokens]. None: no padding.
    cache            What an earlier call returned; then the encoder need not run again. With `use_cache`
                     the first call returns one, too.
    """
    encoded = None if cache else encode(token_ids, mask, weights, config, attention=attention, tap=tap)
    if decoder_ids is None:
        decoder_ids = torch.full((len(token_ids), 1), config.decoder_start_token_id or 0)
    return decode(decoder_ids, encoded, mask, weights, config, decoder_mask, attention, tap, cache, use_cache)


def encode(
    token_ids: Tensor, mask: Tensor, weights: Weights, config: Config, attention: str, tap: Tap = NO_TAP
) -> Tensor:
    """The text, each token with all others in view. [batch, token] -> [batch, token, width]."""
    x = embed(token_ids, "encoder", weights, tap)
    weights, tap, token = weights.at("encoder"), tap.at("encoder"), token_ids.shape[1]
    bias = position_bias(token, token, True, weights.at(BIAS), config, tap.at(BIAS))
    may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, token)
    looks = make_looks(may_look, bias, attention, tap, "")
    for i in range(config.num_layers):
        w, t = weights.at(f"block.{i}.layer"), tap.at(f"block.{i}.layer")
        x, _ = attend(x, None, "SelfAttention", looks, w.at("0"), config, attention, None, t.at("0"))
        x = feed_forward(x, w.at("1"), config, t.at("1"))
    return rms_norm(x, weights.at("final_layer_norm"), config, tap.at("final_layer_norm"))


def decode(
    decoder_ids: Tensor,
    encoded: Tensor | None,
    mask: Tensor,
    weights: Weights,
    config: Config,
    decoder_mask: Tensor | None = None,
    attention: str = "eager",
    tap: Tap = NO_TAP,
    cache: Cache | None = None,
    use_cache: bool = False,
) -> Output:
    """Scores of the token that follows each token of the answer. Arguments as in `forward`; `encoded` is
    what `encode` returned, and not needed with a `cache`."""
    (batch, token), root = decoder_ids.shape, tap
    x = embed(decoder_ids, "decoder", weights, tap)
    body, tap = weights.at("decoder"), tap.at("decoder")
    key = token + (cache.tokens if cache else 0)
    bias = position_bias(token, key, False, body.at(BIAS), config, tap.at(BIAS))
    looks = make_looks(may_look_back(decoder_mask, batch, token, key, attention), bias, attention, tap, "")
    nearness = torch.zeros(1, config.num_heads, token, mask.shape[1])  # cross-attention knows no distances
    may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, -1)
    across = make_looks(may_look, nearness, attention, tap, "cross_")
    cache = Cache.empty(config.decoder_layers) if use_cache and cache is None else cache
    kept = []
    for i in range(config.decoder_layers):
        w, t = body.at(f"block.{i}.layer"), tap.at(f"block.{i}.layer")
        past, there = cache.blocks[i] if cache else (None, None)
        x, own = attend(x, None, "SelfAttention", looks, w.at("0"), config, attention, past, t.at("0"))
        x, cross = attend(
            x, encoded, "EncDecAttention", across, w.at("1"), config, attention, there, t.at("1")
        )
        kept += [(own, cross)] if own and cross else []
        x = feed_forward(x, w.at("2"), config, t.at("2"))
    x = rms_norm(x, body.at("final_layer_norm"), config, tap.at("final_layer_norm"))
    scaled = x
    if config.scale_decoder_outputs:  # for a table that serves as the head, too (not in T5 1.1)
        scaled = x * config.d_model**-0.5  # [batch, token, width]
        tap("scaled", scaled)
    # Tied: the table that turned ids into vectors turns vectors into scores. T5 1.1 has one of its own.
    logits = F.linear(scaled, weights["lm_head.weight" if "lm_head.weight" in weights else "shared.weight"])
    root("lm_head", logits)
    return Output(logits, x, encoded, Cache(tuple(kept)) if cache else None)


def embed(token_ids: Tensor, side: str, weights: Weights, tap: Tap) -> Tensor:
    """[batch, token] -> [batch, token, width]: a looked-up row for each token, and no position."""
    if token_ids.shape[1] < 1:
        raise InputError(f"the {side} has no tokens to read; it needs at least one")
    own = f"{side}.embed_tokens.weight"  # not in the hub's file: one table serves both sides
    x = F.embedding(token_ids, weights[own if own in weights else "shared.weight"])
    tap(f"{side}.embed_tokens", x)
    return x


# ----------------------------------------------------------------------------- parts of a block


def attend(
    x: Tensor,
    encoded: Tensor | None,
    name: str,
    looks: Looks,
    weights: Weights,
    config: Config,
    attention: str,
    past: Past,
    tap: Tap,
) -> tuple[Tensor, Past]:
    """Normalise, look at the same tokens (`SelfAttention`) or at the encoder's (`EncDecAttention`), and add
    what was untouched back. [batch, token, width] -> [batch, token, width]."""
    normed = rms_norm(x, weights.at("layer_norm"), config, tap.at("layer_norm"))
    part, inside = weights.at(name), tap.at(name)
    query = linear(normed, part.at("q"))  # [batch, token, heads × head width]
    inside("q", query)
    query = split_heads(query, config.num_heads)
    crossing = name == "EncDecAttention"
    if crossing and past and past.tokens:
        key, value = past.key, past.value  # the encoder's tokens are what they were
    else:
        source = encoded if crossing and encoded is not None else normed
        key, value = linear(source, part.at("k")), linear(source, part.at("v"))
        inside("k", key)
        inside("v", value)
        key, value = split_heads(key, config.num_heads), split_heads(value, config.num_heads)
        if past:
            past = past.then(key, value)
            key, value = past.key, past.value  # [batch, head, key, head width]
            inside("key", key)
            inside("value", value)
    mix = {"eager": eager_attention, "sdpa": fused_attention}[attention]
    head_context = mix(query, key, value, looks, inside)  # [batch, head, query, head width]
    inside("head_context", head_context)
    context = merge_heads(head_context)  # [batch, token, heads × head width]
    inside("context", context)
    output = linear(context, part.at("o"))  # [batch, token, width]
    inside("o", output)
    x = x + output  # [batch, token, width]
    tap("residual", x)
    return x, past


def eager_attention(query: Tensor, key: Tensor, value: Tensor, looks: Looks, tap: Tap) -> Tensor:
    """query, key, value [batch, head, token, head width] -> [batch, head, query, head width]."""
    # Never scaled: the initialisation of the query's weights has 1/√(head width) in it (Mesh TensorFlow).
    product = query @ key.transpose(-1, -2)  # [batch, head, query, key]
    tap("product", product)
    biased = product + looks.bias  # [batch, head, query, key]
    tap("biased", biased)
    scores = biased if looks.mask is None else biased + looks.mask  # [batch, head, query, key]
    tap("scores", scores)
    probs = F.softmax(scores, dim=-1)  # [batch, head, query, key]
    tap("probs", probs)
    return probs @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor, looks: Looks, tap: Tap) -> Tensor:
    """The same in one kernel, which never shows its scores; its sums run in another order."""
    return F.scaled_dot_product_attention(query, key, value, looks.mask, scale=1.0)


def feed_forward(x: Tensor, weights: Weights, config: Config, tap: Tap) -> Tensor:
    """Normalise, widen, bend, narrow, and add what was untouched back. [batch, token, width] -> the same."""
    normed = rms_norm(x, weights.at("layer_norm"), config, tap.at("layer_norm"))
    dense, inside = weights.at("DenseReluDense"), tap.at("DenseReluDense")
    first = "wi_0" if config.gated else "wi"
    wide = linear(normed, dense.at(first))  # [batch, token, wide]
    inside(first, wide)
    bent = ACTIVATIONS[config.activation](wide, inside.at("act"))  # [batch, token, wide]
    inside("act", bent)
    if config.gated:  # T5 1.1: a second branch says how much of the first goes on
        gate = linear(normed, dense.at("wi_1"))  # [batch, token, wide]
        inside("wi_1", gate)
        bent = bent * gate  # [batch, token, wide]
        inside("gated", bent)
    output = linear(bent, dense.at("wo"))  # [batch, token, width]
    inside("wo", output)
    x = x + output  # [batch, token, width]
    tap("residual", x)
    return x


def linear(x: Tensor, weights: Weights) -> Tensor:
    """x [..., in] -> [..., out]. T5's linear layers have no bias."""
    return F.linear(x, weights["weight"])


def rms_norm(x: Tensor, weights: Weights, config: Config, tap: Tap) -> Tensor:
    """Each token's numbers scaled to mean square 1, then stretched; never shifted. Shape as before."""
    square = x.pow(2)  # [batch, token, width]
    tap("square", square)
    mean_square = square.mean(-1, keepdim=True)  # [batch, token, 1]
    tap("mean_square", mean_square)
    above_zero = mean_square + config.layer_norm_epsilon  # [batch, token, 1]
    tap("above_zero", above_zero)
    inverse_root = torch.rsqrt(above_zero)  # [batch, token, 1]
    tap("inverse_root", inverse_root)
    normed = x * inverse_root  # [batch, token, width]
    tap("normed", normed)
    stretched = weights["weight"] * normed  # [batch, token, width]
    tap("", stretched)
    return stretched
