"""A tiny seeded SmolLM3 in a folder, and a learner's rebuild of it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIG = {
    "model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"], "vocab_size": 53, "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "no_rope_layers": [1, 1], "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def write(folder: Path) -> Path:
    """The model's folder."""
    folder.mkdir()
    torch.manual_seed(1)
    width, wide, pairs = 16, 24, 8
    tensors = {"model.embed_tokens.weight": torch.randn(53, width), "lm_head.weight": torch.randn(53, width)}
    tensors["model.norm.weight"] = torch.rand(width) + 0.5
    for layer in range(2):
        at = f"model.layers.{layer}"
        for part, shape in (
            ("q", (width, width)),
            ("k", (pairs, width)),
            ("v", (pairs, width)),
            ("o", (width, width)),
        ):
            tensors[f"{at}.self_attn.{part}_proj.weight"] = torch.randn(shape) / 4
        for part, shape in (("gate", (wide, width)), ("up", (wide, width)), ("down", (width, wide))):
            tensors[f"{at}.mlp.{part}_proj.weight"] = torch.randn(shape) / 4
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}.{part}.weight"] = torch.rand(width) + 0.5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return folder


REBUILD = """
import torch
from torch.nn import functional as F

from llm_rebuild.workbench import step


@step("model.layers.{layer}.self_attn.{which:q|k|v}_proj", "model.layers.{layer}.input_layernorm")
def project(x, name, weights):
    return F.linear(x, weights[f"{name}.weight"])


def rms_norm(x, weight, config):
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def forward(token_ids, mask, weights, config, tap):
    x = F.embedding(token_ids, weights["model.embed_tokens.weight"])
    tap("model.embed_tokens", x)
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = config.hidden_size // heads
    token = token_ids.shape[1]
    turns = 1.0 / config.rope_theta ** (torch.arange(0, width, 2).float() / width)
    angles = torch.arange(token).float()[:, None] * turns
    angles = torch.cat((angles, angles), dim=-1)
    cos, sin = angles.cos(), angles.sin()
    later = torch.full((token, token), torch.finfo(torch.float32).min).triu(1)
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}"
        normed = rms_norm(x, weights[f"{at}.input_layernorm.weight"], config)
        tap(f"{at}.input_layernorm", normed)
        parts = []
        for which, count in (("q", heads), ("k", groups), ("v", groups)):
            part = project(normed, f"{at}.self_attn.{which}_proj", weights)
            tap(f"{at}.self_attn.{which}_proj", part)
            parts.append(part.view(1, token, count, width).transpose(1, 2))
        query, key, value = parts
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        key, value = (t.repeat_interleave(heads // groups, dim=1) for t in (key, value))
        scores = query @ key.transpose(2, 3) * width**-0.5 + later
        context = (F.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(1, token, -1)
        attended = F.linear(context, weights[f"{at}.self_attn.o_proj.weight"])
        tap(f"{at}.self_attn.o_proj", attended)
        x = x + attended
        normed = rms_norm(x, weights[f"{at}.post_attention_layernorm.weight"], config)
        tap(f"{at}.post_attention_layernorm", normed)
        gate = F.silu(F.linear(normed, weights[f"{at}.mlp.gate_proj.weight"]))
        up = F.linear(normed, weights[f"{at}.mlp.up_proj.weight"])
        x = x + F.linear(gate * up, weights[f"{at}.mlp.down_proj.weight"])
        tap(at, x)
    x = rms_norm(x, weights["model.norm.weight"], config)
    tap("model.norm", x)
    logits = F.linear(x, weights["lm_head.weight"])
    tap("lm_head", logits)
    return logits
"""
