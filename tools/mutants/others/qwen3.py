"""Qwen3 as a person rebuilt it: heads of a width of their own, and a norm on each query and key."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def rms(x, weight, eps):
    return weight * (x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + eps))


def turn(x, cosine, sine):
    size = x.shape[-1] // 2
    left, right = x[..., :size], x[..., size:]
    return x * cosine + torch.cat((-right, left), dim=-1) * sine


def angles(count, config):
    steps = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    speed = 1.0 / config.rope_parameters["rope_theta"] ** steps
    both = (torch.arange(count).float()[:, None] @ speed[None]).repeat(1, 2)
    return both.cos(), both.sin()


def visible(mask):
    count = mask.shape[1]
    seen = torch.zeros(len(mask), 1, count, count)
    later = torch.ones(count, count, dtype=torch.bool).triu(1)
    hidden = later | (mask == 0)[:, None, None, :]
    return seen.masked_fill(hidden, torch.finfo(torch.float32).min)


def attend(x, hidden, cosine, sine, at, weights, config, tap):
    batch, count, _ = x.shape
    shape = (batch, count, -1, config.head_dim)
    query = x @ weights[f"{at}.q_proj.weight"].T
    tap(f"{at}.q_proj", query)
    query = rms(query.view(shape), weights[f"{at}.q_norm.weight"], config.rms_norm_eps)
    tap(f"{at}.q_norm", query)
    key = x @ weights[f"{at}.k_proj.weight"].T
    tap(f"{at}.k_proj", key)
    key = rms(key.view(shape), weights[f"{at}.k_norm.weight"], config.rms_norm_eps)
    tap(f"{at}.k_norm", key)
    value = x @ weights[f"{at}.v_proj.weight"].T
    tap(f"{at}.v_proj", value)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.view(shape).transpose(1, 2)
    query = turn(query, cosine, sine)
    tap(f"{at}.add[0]", query)
    key = turn(key, cosine, sine)
    tap(f"{at}.add[1]", key)
    times = config.num_attention_heads // config.num_key_value_heads
    key = torch.stack([key] * times, dim=2).flatten(1, 2)
    value = torch.stack([value] * times, dim=2).flatten(1, 2)
    scores = query @ key.mT
    tap(f"{at}.matmul[0]", scores)
    scores = scores * config.head_dim**-0.5
    tap(f"{at}.mul[4]", scores)
    scores = scores + hidden
    tap(f"{at}.add[2]", scores)
    shares = scores.softmax(-1)
    tap(f"{at}.softmax[0]", shares)
    mixed = shares @ value
    tap(f"{at}.matmul[1]", mixed)
    mixed = mixed.transpose(1, 2).flatten(2)
    result = mixed @ weights[f"{at}.o_proj.weight"].T
    tap(f"{at}.o_proj", result)
    return result


def gated(x, at, weights, tap):
    gate = x @ weights[f"{at}.gate_proj.weight"].T
    tap(f"{at}.gate_proj", gate)
    gate = F.silu(gate)
    tap(f"{at}.act_fn", gate)
    wide = x @ weights[f"{at}.up_proj.weight"].T
    tap(f"{at}.up_proj", wide)
    wide = gate * wide
    tap(f"{at}.mul[0]", wide)
    narrow = wide @ weights[f"{at}.down_proj.weight"].T
    tap(f"{at}.down_proj", narrow)
    return narrow


def forward(token_ids, mask, weights, config, tap):
    x = F.embedding(token_ids, weights["model.embed_tokens.weight"])
    tap("model.embed_tokens", x)
    hidden = visible(mask)
    tap("model.where[0]", hidden)
    cosine, sine = angles(token_ids.shape[1], config)
    tap("model.rotary_emb", cosine[None])
    tap("model.rotary_emb.mul[2]", sine[None])
    for number in range(config.num_hidden_layers):
        at = f"model.layers.{number}"
        residual = x
        x = rms(x, weights[f"{at}.input_layernorm.weight"], config.rms_norm_eps)
        tap(f"{at}.input_layernorm", x)
        x = attend(x, hidden, cosine, sine, f"{at}.self_attn", weights, config, tap)
        x = residual + x
        tap(f"{at}.add[0]", x)
        residual = x
        x = rms(x, weights[f"{at}.post_attention_layernorm.weight"], config.rms_norm_eps)
        tap(f"{at}.post_attention_layernorm", x)
        x = gated(x, f"{at}.mlp", weights, tap)
        x = residual + x
        tap(at, x)
    x = rms(x, weights["model.norm.weight"], config.rms_norm_eps)
    tap("model.norm", x)
    logits = x @ weights["lm_head.weight"].T
    tap("lm_head", logits)
    return logits
