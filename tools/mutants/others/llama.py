"""Llama as a person rebuilt it: rotary positions, shared keys and values, a gated feed-forward."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def forward(token_ids, mask, weights, config, tap):
    x = F.embedding(token_ids, weights["model.embed_tokens.weight"])
    tap("model.embed_tokens", x)
    causal = causal_mask(mask, x)
    tap("model.where[0]", causal)
    cos, sin = rotary(token_ids.shape[1], config)
    tap("model.rotary_emb", cos)
    tap("model.rotary_emb.mul[2]", sin)
    for layer in range(config.num_hidden_layers):
        x = block(x, causal, (cos, sin), f"model.layers.{layer}", weights, config, tap)
        tap(f"model.layers.{layer}", x)
    x = rms_norm(x, weights["model.norm.weight"], config)
    tap("model.norm", x)
    logits = F.linear(x, weights["lm_head.weight"])
    tap("lm_head", logits)
    return logits


def causal_mask(mask, x):
    token = x.shape[1]
    may_look = torch.ones(token, token, dtype=torch.bool).tril() & mask.bool()[:, None, None, :]
    return torch.where(may_look, 0.0, torch.finfo(x.dtype).min)


def rotary(token, config):
    """Cosines and sines of the angles by which each position is turned, [1, token, head width]."""
    width = config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"]
    turns = 1.0 / theta ** (torch.arange(0, width, 2).float() / width)
    angles = torch.arange(token).float()[:, None] * turns
    angles = torch.cat((angles, angles), dim=-1)[None]
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """x [batch, head, token, head width]: the first half of the width is paired with the second."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]


def rms_norm(x, weight, config):
    mean_square = x.pow(2).mean(-1, keepdim=True)
    return weight * (x * torch.rsqrt(mean_square + config.rms_norm_eps))


def block(x, mask, turns, name, weights, config, tap):
    normed = rms_norm(x, weights[f"{name}.input_layernorm.weight"], config)
    tap(f"{name}.input_layernorm", normed)
    attended = attention(normed, mask, turns, f"{name}.self_attn", weights, config, tap)
    x = x + attended
    tap(f"{name}.add[0]", x)
    normed = rms_norm(x, weights[f"{name}.post_attention_layernorm.weight"], config)
    tap(f"{name}.post_attention_layernorm", normed)
    return x + feed_forward(normed, f"{name}.mlp", weights, tap)


def attention(x, mask, turns, name, weights, config, tap):
    batch, token, _ = x.shape
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    query = F.linear(x, weights[f"{name}.q_proj.weight"])
    tap(f"{name}.q_proj", query)
    key = F.linear(x, weights[f"{name}.k_proj.weight"])
    tap(f"{name}.k_proj", key)
    value = F.linear(x, weights[f"{name}.v_proj.weight"])
    tap(f"{name}.v_proj", value)
    query = query.view(batch, token, heads, -1).transpose(1, 2)
    key = key.view(batch, token, groups, -1).transpose(1, 2)
    value = value.view(batch, token, groups, -1).transpose(1, 2)
    query = rotate(query, *turns)
    tap(f"{name}.add[0]", query)
    key = rotate(key, *turns)
    tap(f"{name}.add[1]", key)
    key = key.repeat_interleave(heads // groups, dim=1)
    value = value.repeat_interleave(heads // groups, dim=1)
    product = query @ key.transpose(2, 3)
    tap(f"{name}.matmul[0]", product)
    scaled = product * query.shape[-1] ** -0.5
    tap(f"{name}.mul[4]", scaled)
    scores = scaled + mask
    tap(f"{name}.add[2]", scores)
    probs = F.softmax(scores, dim=-1)
    tap(f"{name}.softmax[0]", probs)
    context = probs @ value
    tap(f"{name}.matmul[1]", context)
    merged = context.transpose(1, 2).reshape(batch, token, -1)
    output = F.linear(merged, weights[f"{name}.o_proj.weight"])
    tap(f"{name}.o_proj", output)
    return output


def feed_forward(x, name, weights, tap):
    gate = F.linear(x, weights[f"{name}.gate_proj.weight"])
    tap(f"{name}.gate_proj", gate)
    bent = F.silu(gate)
    tap(f"{name}.act_fn", bent)
    up = F.linear(x, weights[f"{name}.up_proj.weight"])
    tap(f"{name}.up_proj", up)
    gated = bent * up
    tap(f"{name}.mul[0]", gated)
    down = F.linear(gated, weights[f"{name}.down_proj.weight"])
    tap(f"{name}.down_proj", down)
    return down
