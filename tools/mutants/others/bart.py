"""BART as a person rebuilt it: an encoder and a decoder that normalise after each sum."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def forward(token_ids, mask, decoder_ids, decoder_mask, weights, config, tap):
    encoded = encode(token_ids, mask, weights, config, tap)
    x = decode(decoder_ids, decoder_mask, encoded, mask, weights, config, tap)
    logits = F.linear(x, weights["model.shared.weight"])
    tap("lm_head", logits)
    logits = logits + weights["final_logits_bias"]
    tap("add[0]", logits)
    return logits


def linear(x, at, weights):
    return F.linear(x, weights[f"{at}.weight"], weights[f"{at}.bias"])


def norm(x, at, weights):
    return F.layer_norm(x, x.shape[-1:], weights[f"{at}.weight"], weights[f"{at}.bias"], 1e-5)


def words(token_ids, weights, config):
    x = F.embedding(token_ids, weights["model.shared.weight"])
    return x * math.sqrt(config.d_model) if config.scale_embedding else x


def places(count, at, weights):
    # The first two rows of the table are of no use: positions begin at 2.
    return weights[f"{at}.embed_positions.weight"][2 : count + 2]


def padding(mask, count):
    shown = mask.bool()[:, None, None, :].expand(-1, 1, count, -1)
    return torch.where(shown, 0.0, torch.finfo(torch.float32).min)


def causal(mask):
    count = mask.shape[1]
    shown = torch.ones(count, count, dtype=torch.bool).tril() & mask.bool()[:, None, None, :]
    return torch.where(shown, 0.0, torch.finfo(torch.float32).min)


def encode(token_ids, mask, weights, config, tap):
    x = words(token_ids, weights, config)
    tap("model.encoder.embed_tokens", x)
    position = places(token_ids.shape[1], "model.encoder", weights)
    x = x + position
    tap("model.encoder.add[0]", x)
    x = norm(x, "model.encoder.layernorm_embedding", weights)
    tap("model.encoder.layernorm_embedding", x)
    hidden = padding(mask, token_ids.shape[1])
    tap("model.encoder.where[0]", hidden)
    for number in range(config.encoder_layers):
        at = f"model.encoder.layers.{number}"
        x = x + attention(x, x, hidden, f"{at}.self_attn", weights, config, tap)
        tap(f"{at}.add[0]", x)
        x = norm(x, f"{at}.self_attn_layer_norm", weights)
        tap(f"{at}.self_attn_layer_norm", x)
        x = x + feed_forward(x, at, weights, tap)
        tap(f"{at}.add[1]", x)
        x = norm(x, f"{at}.final_layer_norm", weights)
        tap(f"{at}.final_layer_norm", x)
    return x


def decode(decoder_ids, decoder_mask, encoded, mask, weights, config, tap):
    count = decoder_ids.shape[1]
    x = words(decoder_ids, weights, config)
    tap("model.decoder.embed_tokens", x)
    back = causal(decoder_mask)
    tap("model.decoder.where[0]", back)
    across = padding(mask, count)
    tap("model.decoder.where[1]", across)
    position = places(count, "model.decoder", weights)
    tap("model.decoder.embed_positions", position[None])
    x = x + position
    tap("model.decoder.add[0]", x)
    x = norm(x, "model.decoder.layernorm_embedding", weights)
    tap("model.decoder.layernorm_embedding", x)
    for number in range(config.decoder_layers):
        at = f"model.decoder.layers.{number}"
        x = x + attention(x, x, back, f"{at}.self_attn", weights, config, tap)
        tap(f"{at}.add[0]", x)
        x = norm(x, f"{at}.self_attn_layer_norm", weights)
        tap(f"{at}.self_attn_layer_norm", x)
        x = x + attention(x, encoded, across, f"{at}.encoder_attn", weights, config, tap)
        tap(f"{at}.add[1]", x)
        x = norm(x, f"{at}.encoder_attn_layer_norm", weights)
        tap(f"{at}.encoder_attn_layer_norm", x)
        x = x + feed_forward(x, at, weights, tap)
        tap(f"{at}.add[2]", x)
        x = norm(x, f"{at}.final_layer_norm", weights)
        tap(f"{at}.final_layer_norm", x)
    return x


def attention(x, source, hidden, at, weights, config, tap):
    heads = config.decoder_attention_heads
    query = linear(x, f"{at}.q_proj", weights)
    tap(f"{at}.q_proj", query)
    key = linear(source, f"{at}.k_proj", weights)
    tap(f"{at}.k_proj", key)
    value = linear(source, f"{at}.v_proj", weights)
    tap(f"{at}.v_proj", value)
    query, key, value = (t.view(*t.shape[:2], heads, -1).transpose(1, 2) for t in (query, key, value))
    scores = query @ key.transpose(2, 3)
    tap(f"{at}.matmul[0]", scores)
    scores = scores * query.shape[-1] ** -0.5
    tap(f"{at}.mul[0]", scores)
    scores = scores + hidden
    tap(f"{at}.add[0]", scores)
    probs = F.softmax(scores, dim=-1)
    tap(f"{at}.softmax[0]", probs)
    context = probs @ value
    tap(f"{at}.matmul[1]", context)
    context = context.transpose(1, 2).flatten(2)
    output = linear(context, f"{at}.out_proj", weights)
    tap(f"{at}.out_proj", output)
    return output


def feed_forward(x, at, weights, tap):
    wide = linear(x, f"{at}.fc1", weights)
    tap(f"{at}.fc1", wide)
    wide = F.gelu(wide)
    tap(f"{at}.activation_fn", wide)
    narrow = linear(wide, f"{at}.fc2", weights)
    tap(f"{at}.fc2", narrow)
    return narrow
