"""A learner's rebuild of GPT-2 without torch. The tests exchange `numpy` for another library of the same
functions, and put mistakes and official numbers in."""

import math

import numpy as xp


def forward(token_ids, mask, weights, config, tap):
    w = {key: xp.asarray(value.numpy()) for key, value in weights.items()}
    ids, real = xp.asarray(token_ids.numpy()), xp.asarray(mask.numpy())
    batch, token = ids.shape
    x = tap("wte", w["wte.weight"][ids]) + tap("wpe", w["wpe.weight"][xp.arange(token)][None])
    x = tap("embeddings", x)
    may_look = xp.tril(xp.ones((token, token), dtype=bool)) & (real[:, None, None, :] == 1)
    hide = tap("mask", xp.where(may_look, 0.0, xp.finfo(xp.float32).min).astype(xp.float32))
    for layer in range(config.n_layer):
        tell, part = under(tap, f"h.{layer}"), f"h.{layer}."
        normed = tell("ln_1", norm(x, w, part + "ln_1", config))
        wide = tell("attn.c_attn", linear(normed, w, part + "attn.c_attn"))
        query, key, value = (
            third.reshape(batch, token, config.n_head, -1).swapaxes(1, 2) for third in xp.split(wide, 3, -1)
        )
        product = tell("attn.product", query @ key.swapaxes(2, 3))
        scaled = tell("attn.scaled", product * query.shape[-1] ** -0.5)
        scores = tell("attn.scores", scaled + hide)
        e = xp.exp(scores - scores.max(-1, keepdims=True))
        probs = tell("attn.probs", e / e.sum(-1, keepdims=True))
        heads = tell("attn.head_context", probs @ value)
        context = tell("attn.context", heads.swapaxes(1, 2).reshape(batch, token, -1))
        x = tell("attn.residual", tell("attn.c_proj", linear(context, w, part + "attn.c_proj")) + x)
        normed = tell("ln_2", norm(x, w, part + "ln_2", config))
        up = tell("mlp.c_fc", linear(normed, w, part + "mlp.c_fc"))
        down = tell("mlp.c_proj", linear(gelu(up, tell), w, part + "mlp.c_proj"))
        x = tell("mlp.residual", x + down)
    x = tap("ln_f", norm(x, w, "ln_f", config))
    return tap("lm_head", x @ w["wte.weight"].T)


def under(tap, path):
    return lambda name, array: tap(f"{path}.{name}", array)


def linear(x, w, name):
    return x @ w[name + ".weight"] + w[name + ".bias"]


def norm(x, w, name, config):
    off = x - x.mean(-1, keepdims=True)
    spread = (off * off).mean(-1, keepdims=True)
    return off / xp.sqrt(spread + config.layer_norm_epsilon) * w[name + ".weight"] + w[name + ".bias"]


def gelu(x, tell):
    half, cube = tell("mlp.act.half", 0.5 * x), tell("mlp.act.cube", x**3)
    steeper = tell("mlp.act.steeper", x + tell("mlp.act.small_cube", 0.044715 * cube))
    tanh = tell("mlp.act.tanh", xp.tanh(tell("mlp.act.scaled", math.sqrt(2 / math.pi) * steeper)))
    return tell("mlp.act", half * tell("mlp.act.gate", 1 + tanh))
