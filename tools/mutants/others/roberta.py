"""RoBERTa as a person rebuilt it: BERT whose positions begin behind the padding's id, and another head."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def forward(token_ids, mask, weights, config, tap):
    x = embed(token_ids, weights, config, tap)
    hidden = hide(mask)
    tap("roberta.where[0]", hidden)
    for number in range(config.num_hidden_layers):
        x = layer(x, hidden, f"roberta.encoder.layer.{number}", weights, config, tap)
        tap(f"roberta.encoder.layer.{number}", x)
    return head(x, weights, config, tap)


def dense(x, name, weights):
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def normalise(x, name, weights, config):
    return F.layer_norm(
        x, (x.shape[-1],), weights[f"{name}.weight"], weights[f"{name}.bias"], config.layer_norm_eps
    )


def embed(token_ids, weights, config, tap):
    at = "roberta.embeddings"
    words = F.embedding(token_ids, weights[f"{at}.word_embeddings.weight"])
    tap(f"{at}.word_embeddings", words)
    types = F.embedding(torch.zeros_like(token_ids), weights[f"{at}.token_type_embeddings.weight"])
    tap(f"{at}.token_type_embeddings", types)
    x = words + types
    tap(f"{at}.add[0]", x)
    real = (token_ids != config.pad_token_id).long()
    places = torch.cumsum(real, dim=1) * real + config.pad_token_id
    positions = F.embedding(places, weights[f"{at}.position_embeddings.weight"])
    tap(f"{at}.position_embeddings", positions)
    x = x + positions
    tap(f"{at}.add[1]", x)
    x = normalise(x, f"{at}.LayerNorm", weights, config)
    tap(f"{at}.LayerNorm", x)
    return x


def hide(mask):
    may_look = mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
    return torch.zeros(may_look.shape).masked_fill(~may_look, torch.finfo(torch.float32).min)


def layer(x, hidden, at, weights, config, tap):
    mixed = look(x, hidden, f"{at}.attention.self", weights, config, tap)
    mixed = dense(mixed, f"{at}.attention.output.dense", weights)
    tap(f"{at}.attention.output.dense", mixed)
    x = mixed + x
    tap(f"{at}.attention.output.add[0]", x)
    x = normalise(x, f"{at}.attention.output.LayerNorm", weights, config)
    tap(f"{at}.attention.output.LayerNorm", x)
    wide = dense(x, f"{at}.intermediate.dense", weights)
    tap(f"{at}.intermediate.dense", wide)
    wide = F.gelu(wide)
    tap(f"{at}.intermediate.intermediate_act_fn", wide)
    narrow = dense(wide, f"{at}.output.dense", weights)
    tap(f"{at}.output.dense", narrow)
    x = narrow + x
    tap(f"{at}.output.add[0]", x)
    x = normalise(x, f"{at}.output.LayerNorm", weights, config)
    tap(f"{at}.output.LayerNorm", x)
    return x


def look(x, hidden, at, weights, config, tap):
    heads = config.num_attention_heads
    parts = []
    for which in ("query", "key", "value"):
        part = dense(x, f"{at}.{which}", weights)
        tap(f"{at}.{which}", part)
        parts.append(part.view(*part.shape[:2], heads, -1).transpose(1, 2))
    query, key, value = parts
    scores = torch.matmul(query, key.transpose(2, 3))
    tap(f"{at}.matmul[0]", scores)
    scores = scores * (config.hidden_size // heads) ** -0.5
    tap(f"{at}.mul[0]", scores)
    scores = scores + hidden
    tap(f"{at}.add[0]", scores)
    probs = F.softmax(scores, dim=-1)
    tap(f"{at}.softmax[0]", probs)
    context = torch.matmul(probs, value)
    tap(f"{at}.matmul[1]", context)
    context = context.transpose(1, 2).flatten(2)
    tap(at, context)
    return context


def head(x, weights, config, tap):
    x = dense(x, "lm_head.dense", weights)
    tap("lm_head.dense", x)
    x = F.gelu(x)
    tap("lm_head.gelu[0]", x)
    x = normalise(x, "lm_head.layer_norm", weights, config)
    tap("lm_head.layer_norm", x)
    scores = F.linear(x, weights["roberta.embeddings.word_embeddings.weight"], weights["lm_head.bias"])
    tap("lm_head", scores)
    return scores
