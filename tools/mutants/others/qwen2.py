"""Qwen2 as a person rebuilt it, in one class-free page: like Llama, with biases on query, key and value."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Layer:
    """The weights of one block by short names."""

    def __init__(self, weights, number):
        self.path = f"model.layers.{number}"
        self.weights = weights

    def __call__(self, name):
        return self.weights[f"{self.path}.{name}"]


def norm(h, w, eps):
    variance = torch.mean(h**2, -1, keepdim=True)
    return w * (h * torch.rsqrt(variance + eps))


def rope(h, cos, sin):
    first, second = h.chunk(2, dim=-1)
    return h * cos + torch.cat([-second, first], dim=-1) * sin


def heads_of(h, w, b, count):
    out = F.linear(h, w, b)
    return out, out.unflatten(-1, (count, -1)).permute(0, 2, 1, 3)


def forward(token_ids, mask, weights, config, tap):
    eps, n_head, n_kv = config.rms_norm_eps, config.num_attention_heads, config.num_key_value_heads
    length, head_dim = token_ids.size(1), config.hidden_size // n_head

    h = weights["model.embed_tokens.weight"][token_ids]
    tap("model.embed_tokens", h)

    past = torch.arange(length)[None, :] <= torch.arange(length)[:, None]
    allowed = past[None, None] & (mask[:, None, None, :] == 1)
    bias = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(h.dtype).min)
    tap("model.where[0]", bias)

    freq = config.rope_parameters["rope_theta"] ** (torch.arange(0, head_dim, 2) / head_dim)
    angle = torch.outer(torch.arange(length).float(), 1.0 / freq)
    cos, sin = torch.cat([angle, angle], -1).cos()[None], torch.cat([angle, angle], -1).sin()[None]
    tap("model.rotary_emb", cos)
    tap("model.rotary_emb.mul[2]", sin)

    for number in range(config.num_hidden_layers):
        w = Layer(weights, number)
        at = w.path

        n = norm(h, w("input_layernorm.weight"), eps)
        tap(f"{at}.input_layernorm", n)
        out, q = heads_of(n, w("self_attn.q_proj.weight"), w("self_attn.q_proj.bias"), n_head)
        tap(f"{at}.self_attn.q_proj", out)
        out, k = heads_of(n, w("self_attn.k_proj.weight"), w("self_attn.k_proj.bias"), n_kv)
        tap(f"{at}.self_attn.k_proj", out)
        out, v = heads_of(n, w("self_attn.v_proj.weight"), w("self_attn.v_proj.bias"), n_kv)
        tap(f"{at}.self_attn.v_proj", out)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        tap(f"{at}.self_attn.add[0]", q)
        tap(f"{at}.self_attn.add[1]", k)

        k = k[:, :, None].expand(-1, -1, n_head // n_kv, -1, -1).flatten(1, 2)
        v = v[:, :, None].expand(-1, -1, n_head // n_kv, -1, -1).flatten(1, 2)
        s = torch.matmul(q, k.mT)
        tap(f"{at}.self_attn.matmul[0]", s)
        s = s * head_dim**-0.5
        tap(f"{at}.self_attn.mul[4]", s)
        s = s + bias
        tap(f"{at}.self_attn.add[2]", s)
        p = torch.softmax(s, dim=-1)
        tap(f"{at}.self_attn.softmax[0]", p)
        c = torch.matmul(p, v)
        tap(f"{at}.self_attn.matmul[1]", c)
        c = c.permute(0, 2, 1, 3).flatten(2)
        a = F.linear(c, w("self_attn.o_proj.weight"))
        tap(f"{at}.self_attn.o_proj", a)
        h = h + a
        tap(f"{at}.add[0]", h)

        n = norm(h, w("post_attention_layernorm.weight"), eps)
        tap(f"{at}.post_attention_layernorm", n)
        g = F.linear(n, w("mlp.gate_proj.weight"))
        tap(f"{at}.mlp.gate_proj", g)
        g = F.silu(g)
        tap(f"{at}.mlp.act_fn", g)
        u = F.linear(n, w("mlp.up_proj.weight"))
        tap(f"{at}.mlp.up_proj", u)
        g = g * u
        tap(f"{at}.mlp.mul[0]", g)
        d = F.linear(g, w("mlp.down_proj.weight"))
        tap(f"{at}.mlp.down_proj", d)
        h = h + d
        tap(at, h)

    h = norm(h, weights["model.norm.weight"], eps)
    tap("model.norm", h)
    scores = F.linear(h, weights["lm_head.weight"])
    tap("lm_head", scores)
    return scores
