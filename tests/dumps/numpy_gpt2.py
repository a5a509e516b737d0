"""GPT-2 in NumPy: a port as somebody might write one, with names, layouts and an order of its own.

It shows what it computes, heads behind tokens as its author likes them. Each `mistakes` entry is one that can
be asked for by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = Any

MISTAKES = {
    "unscaled": "the scores are not scaled",
    "wrong-root": "the scores are scaled by the width and not by a head's",
    "no-causal": "every token sees every token",
    "eps": "the norms add 1e-3",
    "erf-gelu": "GELU by its exact formula",
    "no-residual": "the MLP is not added to what went in",
    "swapped-kv": "keys and values are exchanged",
    "positions": "positions begin at 1",
    "no-bias": "a projection lacks its bias",
    "norm-late": "the MLP reads what was not normalised",
}


def run(
    ids: Array, mask: Array, weights: Mapping[str, Array], heads: int, blocks: int, mistake: str = ""
) -> dict[str, Array]:
    """ids, mask [batch, token] -> what was computed, by name."""
    kept: dict[str, Array] = {}
    batch, token = ids.shape
    places = np.arange(token) + (mistake == "positions")
    x = weights["wte.weight"][ids] + weights["wpe.weight"][places]
    kept["embedded"] = x
    may_look = np.tril(np.ones((token, token), dtype=bool)) & (mask[:, None, None, :] == 1)
    if mistake == "no-causal":
        may_look = np.broadcast_to(mask[:, None, None, :] == 1, may_look.shape)
    for n in range(blocks):
        w = {
            key.removeprefix(f"h.{n}."): value for key, value in weights.items() if key.startswith(f"h.{n}.")
        }
        normed = _norm(x, w["ln_1.weight"], w["ln_1.bias"], mistake)
        kept[f"block{n}/first_norm"] = normed
        wide = normed @ w["attn.c_attn.weight"] + w["attn.c_attn.bias"]
        q, k, v = (part.reshape(batch, token, heads, -1) for part in np.split(wide, 3, axis=-1))
        if mistake == "swapped-kv":
            k, v = v, k
        kept |= {f"block{n}/q": q, f"block{n}/k": k, f"block{n}/v": v}
        scores = np.einsum("bqhd,bkhd->bhqk", q, k)
        if mistake != "unscaled":
            scores = scores / np.float32(math.sqrt(x.shape[-1] if mistake == "wrong-root" else q.shape[-1]))
        scores = np.where(may_look, scores, np.finfo(np.float32).min)
        kept[f"block{n}/scores"] = scores
        probs = _softmax(scores)
        kept[f"block{n}/weights"] = probs
        context = np.einsum("bhqk,bkhd->bqhd", probs, v).reshape(batch, token, -1)
        kept[f"block{n}/context"] = context
        attended = context @ w["attn.c_proj.weight"]
        if mistake != "no-bias":
            attended = attended + w["attn.c_proj.bias"]
        kept[f"block{n}/attended"] = attended
        x = x + attended
        kept[f"block{n}/middle"] = x
        normed = x if mistake == "norm-late" else _norm(x, w["ln_2.weight"], w["ln_2.bias"], mistake)
        kept[f"block{n}/second_norm"] = normed
        up = normed @ w["mlp.c_fc.weight"] + w["mlp.c_fc.bias"]
        kept[f"block{n}/up"] = up
        bent = _gelu(up, exact=mistake == "erf-gelu")
        kept[f"block{n}/bent"] = bent
        down = bent @ w["mlp.c_proj.weight"] + w["mlp.c_proj.bias"]
        kept[f"block{n}/down"] = down
        x = down if mistake == "no-residual" else x + down
        kept[f"block{n}/out"] = x
    x = _norm(x, weights["ln_f.weight"], weights["ln_f.bias"], mistake)
    kept["last_norm"] = x
    kept["logits"] = x @ weights["wte.weight"].T
    return {name: np.ascontiguousarray(array.astype(np.float32)) for name, array in kept.items()}


def _norm(x: Array, weight: Array, bias: Array, mistake: str) -> Array:
    mean = x.mean(-1, keepdims=True)
    spread = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(spread + np.float32(1e-3 if mistake == "eps" else 1e-5)) * weight + bias


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _gelu(x: Array, exact: bool) -> Array:
    if exact:
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))).astype(np.float32)
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)
    return np.float32(0.5) * x * (1 + np.tanh(inner))
