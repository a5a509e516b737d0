"""GPT-2 as somebody might port it: written once for any library whose functions are called as NumPy's are, so
that NumPy, JAX, and torch on its way to ONNX run the same lines on kernels of their own.

It shows what it computes, heads behind tokens as its author likes them. Each of the ten `MISTAKES` can be
asked for by name; the port in JavaScript (javascript_port.js) makes the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Array = Any
Tap = Callable[[str, Array], None]


class Mistake(NamedTuple):
    """What is done; the checkpoints at which it is seen first, whichever of them a port shows; and what the
    diagnosis has to call it: one of these.

    Exchanged keys and values are two right tensors: the first wrong one is what is made of them.
    """

    words: str
    first: tuple[str, ...]
    causes: tuple[str, ...]


_SCORES = ("h.0.attn.scaled", "h.0.attn.scores")
MISTAKES = {
    "unscaled": Mistake("the scores are not scaled", _SCORES, ("scale-missing",)),
    "wrong-root": Mistake("they are scaled by the width and not by a head's", _SCORES, ("scale-wrong",)),
    "no-causal": Mistake(
        "every token sees every token", ("mask", "h.0.attn.scores"), ("mask-causal-missing",)
    ),
    "eps": Mistake("the norms add 1e-3", ("h.0.ln_1",), ("norm-eps",)),
    "erf-gelu": Mistake("GELU by its exact formula", ("h.0.mlp.act",), ("gelu-exact", "activation-other")),
    "no-residual": Mistake(
        "the MLP is not added to what went in", ("h.0.mlp.residual",), ("residual-missing",)
    ),
    "swapped-kv": Mistake(
        "keys and values are exchanged", ("h.0.attn.product", *_SCORES, "h.0.attn.probs"), ("qkv-order",)
    ),
    "positions": Mistake("positions begin at 1", ("wpe", "embeddings"), ("positions-shifted",)),
    "no-bias": Mistake("a projection lacks its bias", ("h.0.attn.c_proj",), ("bias-missing",)),
    "norm-late": Mistake("the MLP reads what was not normalised", ("h.0.ln_2",), ("norm-missing",)),
}


def run(xp: Any, read: tuple[Array, Array], model: Model, tap: Tap, mistake: str = "") -> None:
    """xp: the library. read: ids and mask [batch, token]. What is computed goes to `tap`."""
    (ids, mask), weights = read, model.weights
    batch, token = ids.shape
    positions = xp.arange(token) + (1 if mistake == "positions" else 0)
    x = weights["wte.weight"][ids] + weights["wpe.weight"][positions]
    tap("embedded", x)
    seen = mask[:, None, None, :] == 1
    if mistake != "no-causal":
        seen = (xp.arange(token)[:, None] >= xp.arange(token)[None, :]) & seen
    for n in range(model.blocks):
        w = {key.removeprefix(f"h.{n}."): value for key, value in weights.items() if f"h.{n}." in key}
        normed = _norm(xp, x, w["ln_1.weight"], w["ln_1.bias"], mistake)
        tap(f"block{n}/first_norm", normed)
        wide = normed @ w["attn.c_attn.weight"] + w["attn.c_attn.bias"]
        width = x.shape[-1]
        q, k, v = (
            xp.reshape(wide[..., at * width : (at + 1) * width], (batch, token, model.heads, -1))
            for at in range(3)
        )
        if mistake == "swapped-kv":
            k, v = v, k
        for name, heads in (("q", q), ("k", k), ("v", v)):
            tap(f"block{n}/{name}", heads)
        scores = xp.einsum("bqhd,bkhd->bhqk", q, k)
        if mistake != "unscaled":
            scores = scores / math.sqrt(width if mistake == "wrong-root" else q.shape[-1])
        scores = xp.where(seen, scores, -3.4028234663852886e38)
        tap(f"block{n}/scores", scores)
        probs = _softmax(xp, scores)
        tap(f"block{n}/weights", probs)
        context = xp.reshape(xp.einsum("bhqk,bkhd->bqhd", probs, v), (batch, token, -1))
        tap(f"block{n}/context", context)
        attended = context @ w["attn.c_proj.weight"]
        if mistake != "no-bias":
            attended = attended + w["attn.c_proj.bias"]
        tap(f"block{n}/attended", attended)
        x = x + attended
        tap(f"block{n}/middle", x)
        late = mistake == "norm-late"
        normed = x if late else _norm(xp, x, w["ln_2.weight"], w["ln_2.bias"], mistake)
        tap(f"block{n}/second_norm", normed)
        up = normed @ w["mlp.c_fc.weight"] + w["mlp.c_fc.bias"]
        tap(f"block{n}/up", up)
        bent = _gelu(xp, up, model.erf if mistake == "erf-gelu" else None)
        tap(f"block{n}/bent", bent)
        down = bent @ w["mlp.c_proj.weight"] + w["mlp.c_proj.bias"]
        tap(f"block{n}/down", down)
        x = down if mistake == "no-residual" else x + down
        tap(f"block{n}/out", x)
    x = _norm(xp, x, weights["ln_f.weight"], weights["ln_f.bias"], mistake)
    tap("last_norm", x)
    tap("logits", x @ weights["wte.weight"].T)


class Model(NamedTuple):
    """The weights, as the library's arrays; and the library's error function, for one of the mistakes."""

    weights: Mapping[str, Array]
    heads: int
    blocks: int
    erf: Callable[[Array], Array]


def _norm(xp: Any, x: Array, weight: Array, bias: Array, mistake: str) -> Array:
    mean = x.mean(-1, keepdims=True)
    spread = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / xp.sqrt(spread + (1e-3 if mistake == "eps" else 1e-5)) * weight + bias


def _softmax(xp: Any, x: Array) -> Array:
    e = xp.exp(x)
    return e / e.sum(-1, keepdims=True)


def _gelu(xp: Any, x: Array, erf: Callable[[Array], Array] | None) -> Array:
    if erf is not None:
        return x * 0.5 * (1 + erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
