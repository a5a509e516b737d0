"""The first set of mutants: each mistake of the catalogue in every model in which it can be made.

They were written from the mistakes that people make and the sources of the rebuilds, not from what the tools
can find. `first` is the checkpoint that the source says must be the first to differ.

A mutant has several causes where two of the catalogue's sentences describe the same numbers; the comment
above it says why.
"""

from __future__ import annotations

from llm_rebuild.traps.mutants import Mutant

# A long piece of source that several mutants change.
_GPT2_SCORES = """    scores = scaled if mask is None else scaled + mask  # [batch, head, query, key]
    tap("scores", scores)
    probs = F.softmax(scores, dim=-1)"""
_GPT2_SCALED = """    scaled = product * scale  # multiplied, not divided: for some widths the bits differ
    tap("scaled", scaled)
    scores = scaled if mask is None else scaled + mask"""
_GPT2_BLOCK = "x, seen = block(x, attention_mask, body.at(path), config, i, attention, past, tap.at(path))"
_GPT2_SPLIT = "(split_heads(part, config.n_head) for part in qkv.chunk(3, dim=-1))"
_GPT2_WHERE = 'where = F.embedding(positions, weights["wpe.weight"])'
_GPT2_ACT = 'ACTIVATIONS[config.activation_function](wide, tap.at("act"))'
_FUSED_NORM = 'F.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], eps)'

GPT2 = (
    # --- embeddings
    Mutant(
        "gpt2-ids-shifted",
        "gpt2",
        'which = F.embedding(token_ids, weights["wte.weight"])',
        'which = F.embedding(token_ids.roll(1, dims=1), weights["wte.weight"])',
        "token-ids-wrong",
        "wte",
    ),
    Mutant(
        "gpt2-embedding-times-root-width",
        "gpt2",
        'which = F.embedding(token_ids, weights["wte.weight"])',
        'which = F.embedding(token_ids, weights["wte.weight"]) * config.n_embd**0.5',
        "embedding-scaled",
        "wte",
    ),
    Mutant(
        "gpt2-embedding-in-bfloat16",
        "gpt2",
        'which = F.embedding(token_ids, weights["wte.weight"])',
        'which = F.embedding(token_ids, weights["wte.weight"].bfloat16()).float()',
        "wrong-dtype",
        "wte",
    ),
    Mutant(
        "gpt2-positions-missing",
        "gpt2",
        "x = which + where  # [batch, token, width]",
        "x = which  # [batch, token, width]",
        "positions-missing",
        "embeddings",
    ),
    Mutant(
        "gpt2-positions-from-one",
        "gpt2",
        "torch.arange(key - token, key).unsqueeze(0)",
        "torch.arange(1, token + 1).unsqueeze(0)",
        "positions-shifted",
        "wpe",
    ),
    Mutant(
        "gpt2-positions-reversed",
        "gpt2",
        "torch.arange(key - token, key).unsqueeze(0)",
        "torch.arange(key - token, key).flip(0).unsqueeze(0)",
        "positions-wrong",
        "wpe",
    ),
    Mutant(
        "gpt2-positions-by-mask",
        "gpt2",
        "torch.arange(key - token, key).unsqueeze(0)",
        "(mask.cumsum(dim=1) - 1).masked_fill(mask == 0, 1)[:, -token:]",
        "positions-wrong",
        "wpe",
    ),
    Mutant(
        "gpt2-positions-sinusoidal",
        "gpt2",
        _GPT2_WHERE,
        "angles = positions[..., None] / 10000.0 ** (torch.arange(0, config.n_embd, 2) / config.n_embd)\n"
        "    where = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(start_dim=2)",
        "positions-sinusoidal",
        "wpe",
    ),
    Mutant(
        "gpt2-positions-from-token-table",
        "gpt2",
        _GPT2_WHERE,
        'where = F.embedding(positions, weights["wte.weight"])',
        "wrong-weight",
        "wpe",
    ),
    Mutant(
        "gpt2-embedding-dropout",
        "gpt2",
        "x = which + where  # [batch, token, width]",
        "x = F.dropout(which + where, 0.1, training=True)  # [batch, token, width]",
        "dropout",
        "embeddings",
    ),
    # --- mask
    Mutant(
        "gpt2-mask-missing",
        "gpt2",
        "scores = scaled if mask is None else scaled + mask",
        "scores = scaled",
        "mask-missing",
        "h.0.attn.scores",
    ),
    Mutant(
        "gpt2-mask-in-first-block-only",
        "gpt2",
        "block(x, attention_mask, body.at(path)",
        "block(x, attention_mask if i == 0 else None, body.at(path)",
        "mask-missing",
        "h.1.attn.scores",
    ),
    Mutant(
        "gpt2-mask-only-padding",
        "gpt2",
        "may_look = not_later & mask.bool()[:, None, None, :]",
        "may_look = mask.bool()[:, None, None, :].expand(-1, 1, token, key)",
        "mask-causal-missing",
        "mask",
    ),
    Mutant(
        "gpt2-mask-only-causal",
        "gpt2",
        "may_look = not_later & mask.bool()[:, None, None, :]",
        "may_look = not_later.expand(len(mask), 1, token, key)",
        "mask-padding-missing",
        "mask",
    ),
    Mutant(
        "gpt2-mask-inverted",
        "gpt2",
        "torch.where(may_look, torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)",
        "torch.where(may_look, torch.finfo(x.dtype).min, torch.zeros((), dtype=x.dtype))",
        "mask-inverted",
        "mask",
    ),
    Mutant(
        "gpt2-mask-hides-oneself",
        "gpt2",
        "not_later = order <= order[key - token :, None]",
        "not_later = order < order[key - token :, None]",
        "mask-off-by-one",
        "mask",
    ),
    Mutant(
        "gpt2-mask-shows-the-next",
        "gpt2",
        "not_later = order <= order[key - token :, None]",
        "not_later = torch.ones(token, key).tril(diagonal=1).bool()",
        "mask-off-by-one",
        "mask",
    ),
    Mutant(
        "gpt2-mask-upper-triangle",
        "gpt2",
        "not_later = order <= order[key - token :, None]",
        "not_later = torch.ones(token, key).triu().bool()",
        "mask-direction",
        "mask",
    ),
    Mutant(
        "gpt2-mask-padded-queries",
        "gpt2",
        "may_look = not_later & mask.bool()[:, None, None, :]",
        "may_look = not_later & mask.bool()[:, None, :, None]",
        "mask-direction",
        "mask",
    ),
    Mutant(
        "gpt2-mask-fill-ten-thousand",
        "gpt2",
        "torch.finfo(x.dtype).min)",
        "-10000.0)",
        "mask-fill",
        "mask",
    ),
    Mutant(
        "gpt2-mask-fill-infinity",
        "gpt2",
        "torch.finfo(x.dtype).min)",
        '-float("inf"))',
        "mask-fill",
        "mask",
    ),
    Mutant(
        "gpt2-mask-fill-tiny",
        "gpt2",
        "torch.finfo(x.dtype).min)",
        "torch.finfo(x.dtype).tiny)",
        "mask-fill",
        "mask",
    ),
    Mutant(
        "gpt2-mask-after-softmax",
        "gpt2",
        _GPT2_SCORES,
        """    scores = scaled
    tap("scores", scores)
    probs = F.softmax(scores, dim=-1) * (mask == 0)""",
        "mask-after-softmax",
        "h.0.attn.scores",
    ),
    Mutant(
        "gpt2-mask-on-shares",
        "gpt2",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(scaled, dim=-1) * (scores > -1e30)",
        "mask-after-softmax",
        "h.0.attn.probs",
    ),
    Mutant(
        "gpt2-fused-not-causal",
        "gpt2",
        "causal = mask is None and query.shape[-2] > 1",
        "causal = False",
        # One text without padding: to hide later tokens is all that the mask does.
        ("mask-causal-missing", "mask-missing"),
        "h.0.attn.head_context",
        attention="sdpa",
        run="single",
    ),
    Mutant(
        "gpt2-fused-padding-visible",
        "gpt2",
        'if attention == "sdpa" and token in (1, key) and bool(mask.all()):',
        'if attention == "sdpa":',
        "mask-padding-missing",
        "h.0.attn.head_context",
        attention="sdpa",
    ),
    # --- query, key, value, heads
    # The fused product's parts come as query, key, value; to name the first two the other way round is to
    # cut them in the wrong order.
    Mutant(
        "gpt2-query-key-swapped",
        "gpt2",
        "query, key, value = (split_heads",
        "key, query, value = (split_heads",
        ("query-key-swapped", "qkv-order"),
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-key-value-swapped",
        "gpt2",
        "query, key, value = (split_heads",
        "query, value, key = (split_heads",
        "qkv-order",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-value-first",
        "gpt2",
        "query, key, value = (split_heads",
        "value, query, key = (split_heads",
        "qkv-order",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-qkv-head-by-head",
        "gpt2",
        _GPT2_SPLIT,
        "qkv.view(*qkv.shape[:-1], config.n_head, 3, -1).transpose(1, 2).unbind(dim=-2)",
        "qkv-interleaved",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-qkv-every-third",
        "gpt2",
        _GPT2_SPLIT,
        "(split_heads(qkv[..., part::3].contiguous(), config.n_head) for part in range(3))",
        "qkv-interleaved",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-heads-reshaped",
        "gpt2",
        "split_heads(part, config.n_head) for part",
        "part.reshape(len(part), config.n_head, part.shape[1], -1) for part",
        "heads-split",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-heads-merged-without-transpose",
        "gpt2",
        "context = merge_heads(head_context)",
        "context = head_context.reshape(len(x), x.shape[1], -1)",
        "heads-merged",
        "h.0.attn.context",
    ),
    Mutant(
        "gpt2-heads-merged-number-by-number",
        "gpt2",
        "context = merge_heads(head_context)",
        "context = head_context.permute(0, 2, 3, 1).flatten(start_dim=2)",
        "heads-merged",
        "h.0.attn.context",
    ),
    Mutant(
        "gpt2-twice-the-heads",
        "gpt2",
        "split_heads(part, config.n_head) for part",
        "split_heads(part, config.n_head * 2) for part",
        "heads-count",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-one-head",
        "gpt2",
        "split_heads(part, config.n_head) for part",
        "split_heads(part, 1) for part",
        "heads-count",
        "h.0.attn.product",
    ),
    # --- scores
    Mutant(
        "gpt2-query-times-query",
        "gpt2",
        "product = query @ key.transpose(-1, -2)",
        "product = query @ query.transpose(-1, -2)",
        "wrong-operand",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-shares-of-keys",
        "gpt2",
        "return probs @ value",
        "return probs @ key",
        "wrong-operand",
        "h.0.attn.head_context",
    ),
    Mutant(
        "gpt2-shares-transposed",
        "gpt2",
        "return probs @ value",
        "return probs.transpose(-1, -2) @ value",
        "wrong-operand",
        "h.0.attn.head_context",
    ),
    Mutant(
        "gpt2-scale-missing",
        "gpt2",
        "scaled = product * scale",
        "scaled = product",
        "scale-missing",
        "h.0.attn.scaled",
    ),
    Mutant(
        "gpt2-scale-twice",
        "gpt2",
        "scaled = product * scale",
        "scaled = product * scale * scale",
        "scale-extra",
        "h.0.attn.scaled",
    ),
    Mutant(
        "gpt2-scale-by-width",
        "gpt2",
        "scale = query.shape[-1] ** -0.5 if",
        "scale = config.n_embd**-0.5 if",
        "scale-wrong",
        "h.0.attn.scaled",
    ),
    # 1 / 24 is 1 / √24 twice, the last bit aside.
    Mutant(
        "gpt2-scale-without-root",
        "gpt2",
        "scaled = product * scale",
        "scaled = product / query.shape[-1]",
        ("scale-wrong", "scale-extra"),
        "h.0.attn.scaled",
    ),
    Mutant(
        "gpt2-scale-by-block-number",
        "gpt2",
        "if config.scale_attn_by_inverse_layer_idx:",
        "if True:",
        "scale-wrong",
        "h.1.attn.scaled",
    ),
    Mutant(
        "gpt2-scale-after-mask",
        "gpt2",
        _GPT2_SCALED,
        """    scaled = product + mask
    tap("scaled", scaled)
    scores = scaled * scale""",
        "scale-order",
        "h.0.attn.scaled",
    ),
    Mutant(
        "gpt2-softmax-over-queries",
        "gpt2",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(scores, dim=-2)",
        "softmax-axis",
        "h.0.attn.probs",
    ),
    Mutant(
        "gpt2-softmax-over-heads",
        "gpt2",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(scores, dim=1)",
        "softmax-axis",
        "h.0.attn.probs",
    ),
    Mutant(
        "gpt2-softmax-missing",
        "gpt2",
        "probs = F.softmax(scores, dim=-1)",
        "probs = scores",
        "softmax-missing",
        "h.0.attn.probs",
    ),
    Mutant(
        "gpt2-softmax-with-one-more",
        "gpt2",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(F.pad(scores, (0, 1)), dim=-1)[..., :-1]",
        "softmax-changed",
        "h.0.attn.probs",
    ),
    Mutant(
        "gpt2-softmax-in-half",
        "gpt2",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(scores, dim=-1, dtype=torch.float16).float()",
        "wrong-dtype",
        "h.0.attn.probs",
    ),
    Mutant(
        "gpt2-dropout-on-shares",
        "gpt2",
        "return probs @ value",
        "return F.dropout(probs, 0.1, training=True) @ value",
        "dropout",
        "h.0.attn.head_context",
    ),
    Mutant(
        "gpt2-fused-dropout",
        "gpt2",
        "is_causal=causal, scale=scale",
        "dropout_p=0.1, is_causal=causal, scale=scale",
        "dropout",
        "h.0.attn.head_context",
        attention="sdpa",
    ),
    Mutant(
        "gpt2-fused-scale-missing",
        "gpt2",
        "is_causal=causal, scale=scale",
        "is_causal=causal, scale=1.0",
        "scale-missing",
        "h.0.attn.head_context",
        attention="sdpa",
        run="single",
    ),
    # --- linear layers
    Mutant(
        "gpt2-square-weight-transposed",
        "gpt2",
        'output = conv1d(context, weights.at("c_proj"))',
        'output = F.linear(context, weights["c_proj.weight"], weights["c_proj.bias"])',
        "weight-transposed",
        "h.0.attn.c_proj",
    ),
    Mutant(
        "gpt2-three-squares-transposed",
        "gpt2",
        'qkv = conv1d(x, weights.at("c_attn"))',
        'parts = zip(weights["c_attn.weight"].chunk(3, 1), weights["c_attn.bias"].chunk(3))\n'
        "    qkv = torch.cat([F.linear(x, *part) for part in parts], dim=-1)",
        "weight-transposed",
        "h.0.attn.c_attn",
    ),
    Mutant(
        "gpt2-bias-missing",
        "gpt2",
        'torch.addmm(weights["bias"], x.reshape(-1, x.shape[-1]), weight)',
        "x.reshape(-1, x.shape[-1]) @ weight",
        "bias-missing",
        "h.0.attn.c_attn",
    ),
    Mutant(
        "gpt2-bias-missing-at-the-end",
        "gpt2",
        'output = conv1d(bent, weights.at("c_proj"))',
        'output = bent @ weights["c_proj.weight"]',
        "bias-missing",
        "h.0.mlp.c_proj",
    ),
    Mutant(
        "gpt2-bias-subtracted",
        "gpt2",
        'torch.addmm(weights["bias"],',
        'torch.addmm(-weights["bias"],',
        "bias-wrong",
        "h.0.attn.c_attn",
    ),
    Mutant(
        "gpt2-bias-twice",
        "gpt2",
        'tap("c_fc", wide)',
        'wide = wide + weights["c_fc.bias"]\n    tap("c_fc", wide)',
        "bias-wrong",
        "h.0.mlp.c_fc",
    ),
    Mutant(
        "gpt2-linear-in-bfloat16",
        "gpt2",
        'torch.addmm(weights["bias"], x.reshape(-1, x.shape[-1]), weight)',
        '(x.reshape(-1, x.shape[-1]).bfloat16() @ weight.bfloat16()).float() + weights["bias"]',
        "wrong-dtype",
        "h.0.attn.c_attn",
    ),
    Mutant(
        "gpt2-product-in-two-halves",
        "gpt2",
        'output = conv1d(bent, weights.at("c_proj"))',
        'halves = zip(bent.chunk(2, dim=-1), weights["c_proj.weight"].chunk(2))\n'
        '    output = sum(x @ weight for x, weight in halves) + weights["c_proj.bias"]',
        "rounding",
        "h.0.mlp.c_proj",
    ),
    # --- feed-forward. With another formula none of the steps inside this one is ever shown, so the first of
    # them is the first to differ: it is missing.
    Mutant(
        "gpt2-gelu-exact",
        "gpt2",
        _GPT2_ACT,
        "F.gelu(wide)",
        "gelu-exact",
        "h.0.mlp.act.half",
    ),
    Mutant(
        "gpt2-gelu-exact-at-last",
        "gpt2",
        "return half * gate",
        "return F.gelu(x)",
        "gelu-exact",
        "h.0.mlp.act",
        file="ops",
    ),
    Mutant(
        "gpt2-gelu-sigmoid",
        "gpt2",
        _GPT2_ACT,
        "wide * torch.sigmoid(1.702 * wide)",
        "gelu-sigmoid",
        "h.0.mlp.act.half",
    ),
    Mutant(
        "gpt2-gelu-in-one-kernel",
        "gpt2",
        "return half * gate",
        'return F.gelu(x, approximate="tanh")',
        "rounding",
        "h.0.mlp.act",
        file="ops",
    ),
    Mutant(
        "gpt2-relu",
        "gpt2",
        _GPT2_ACT,
        "F.relu(wide)",
        "activation-relu",
        "h.0.mlp.act.half",
    ),
    Mutant(
        "gpt2-silu",
        "gpt2",
        _GPT2_ACT,
        "F.silu(wide)",
        "activation-other",
        "h.0.mlp.act.half",
    ),
    Mutant(
        "gpt2-activation-missing",
        "gpt2",
        _GPT2_ACT,
        "wide",
        "activation-missing",
        "h.0.mlp.act.half",
    ),
    Mutant(
        "gpt2-gelu-constant-digit",
        "gpt2",
        "small_cube = 0.044715 * cube",
        "small_cube = 0.044175 * cube",
        "gelu-constant",
        "h.0.mlp.act.small_cube",
        file="ops",
    ),
    Mutant(
        "gpt2-gelu-root-inverted",
        "gpt2",
        "scaled = math.sqrt(2.0 / math.pi) * steeper",
        "scaled = math.sqrt(math.pi / 2.0) * steeper",
        "gelu-constant",
        "h.0.mlp.act.scaled",
        file="ops",
    ),
    Mutant(
        "gpt2-gelu-square",
        "gpt2",
        "cube = torch.pow(x, 3.0)",
        "cube = torch.pow(x, 2.0)",
        "gelu-constant",
        "h.0.mlp.act.cube",
        file="ops",
    ),
    # --- norms
    Mutant(
        "gpt2-norm-eps",
        "gpt2",
        'normed = layer_norm(x, weights.at("ln_1"), config.layer_norm_epsilon)',
        'normed = layer_norm(x, weights.at("ln_1"), 1e-6)',
        "norm-eps",
        "h.0.ln_1",
    ),
    Mutant(
        "gpt2-norm-eps-outside-root",
        "gpt2",
        _FUSED_NORM,
        "((x - x.mean(-1, True)) / (x.var(-1, unbiased=False, keepdim=True).sqrt() + eps)"
        ' * weights["weight"] + weights["bias"])',
        "norm-eps-place",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-norm-affine-missing",
        "gpt2",
        _FUSED_NORM,
        "F.layer_norm(x, x.shape[-1:], None, None, eps)",
        "norm-affine-missing",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-norm-shift-missing",
        "gpt2",
        _FUSED_NORM,
        'F.layer_norm(x, x.shape[-1:], weights["weight"], None, eps)',
        "norm-affine-missing",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-norm-stretch-plus-one",
        "gpt2",
        _FUSED_NORM,
        'F.layer_norm(x, x.shape[-1:], weights["weight"] + 1, weights["bias"], eps)',
        "norm-affine-wrong",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-norm-root-mean-square",
        "gpt2",
        _FUSED_NORM,
        'F.rms_norm(x, x.shape[-1:], weights["weight"], eps) + weights["bias"]',
        "norm-mean-kept",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-norm-variance-of-a-sample",
        "gpt2",
        _FUSED_NORM,
        "((x - x.mean(-1, True)) / (x.var(-1, keepdim=True) + eps).sqrt()"
        ' * weights["weight"] + weights["bias"])',
        "norm-variance",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-norm-over-tokens",
        "gpt2",
        _FUSED_NORM,
        "(F.layer_norm(x.transpose(1, 2), x.shape[1:2], eps=eps).transpose(1, 2)"
        ' * weights["weight"] + weights["bias"])',
        "norm-axis",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-norm-by-hand",
        "gpt2",
        _FUSED_NORM,
        "((x - x.mean(-1, True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()"
        ' * weights["weight"] + weights["bias"])',
        "rounding",
        "h.0.ln_1",
        file="ops",
    ),
    Mutant(
        "gpt2-second-norm-missing",
        "gpt2",
        'normed = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)',
        "normed = x",
        "norm-missing",
        "h.0.ln_2",
    ),
    Mutant(
        "gpt2-last-norm-missing",
        "gpt2",
        '    x = layer_norm(x, body.at("ln_f"), config.layer_norm_epsilon)\n',
        "",
        "norm-missing",
        "ln_f",
    ),
    Mutant(
        "gpt2-last-norm-twice",
        "gpt2",
        '    tap("ln_f", x)\n',
        '    x = layer_norm(x, body.at("ln_f"), config.layer_norm_epsilon)\n    tap("ln_f", x)\n',
        "norm-twice",
        "ln_f",
    ),
    Mutant(
        "gpt2-second-norm-is-the-first",
        "gpt2",
        'layer_norm(x, weights.at("ln_2"),',
        'layer_norm(x, weights.at("ln_1"),',
        "wrong-weight",
        "h.0.ln_2",
    ),
    Mutant(
        "gpt2-norm-after-residual",
        "gpt2",
        """    normed = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)  # [batch, token, width]
    tap("ln_2", normed)
    x = x + feed_forward(normed, weights.at("mlp"), config, tap.at("mlp"))  # [batch, token, width]
    tap("mlp.residual", x)
""",
        """    x = x + feed_forward(x, weights.at("mlp"), config, tap.at("mlp"))  # [batch, token, width]
    tap("mlp.residual", x)
    x = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)  # [batch, token, width]
    tap("ln_2", x)
""",
        "norm-position",
        "h.0.ln_2",
    ),
    # --- residuals
    Mutant(
        "gpt2-residual-missing",
        "gpt2",
        "x = attended + x  # [batch, token, width]",
        "x = attended  # [batch, token, width]",
        "residual-missing",
        "h.0.attn.residual",
    ),
    Mutant(
        "gpt2-second-residual-missing",
        "gpt2",
        "x = x + feed_forward(",
        "x = feed_forward(",
        "residual-missing",
        "h.0.mlp.residual",
    ),
    Mutant(
        "gpt2-residual-from-the-norm",
        "gpt2",
        "x = attended + x  # [batch, token, width]",
        "x = attended + normed  # [batch, token, width]",
        "residual-wrong",
        "h.0.attn.residual",
    ),
    Mutant(
        "gpt2-residual-from-the-half-block",
        "gpt2",
        "x = x + feed_forward(",
        "x = attended + feed_forward(",
        "residual-wrong",
        "h.0.mlp.residual",
    ),
    Mutant(
        "gpt2-residual-subtracted",
        "gpt2",
        "x = x + feed_forward(",
        "x = x - feed_forward(",
        "residual-scaled",
        "h.0.mlp.residual",
    ),
    Mutant(
        "gpt2-residual-halved",
        "gpt2",
        "x = attended + x  # [batch, token, width]",
        "x = (attended + x) * 0.5**0.5  # [batch, token, width]",
        "residual-scaled",
        "h.0.attn.residual",
    ),
    Mutant(
        "gpt2-feed-forward-not-normed",
        "gpt2",
        'feed_forward(normed, weights.at("mlp")',
        'feed_forward(x, weights.at("mlp")',
        "wrong-input",
        "h.0.mlp.c_fc",
    ),
    # --- blocks
    # Named by their place, blocks with each other's weights are blocks in another order.
    Mutant(
        "gpt2-weights-of-the-next-block",
        "gpt2",
        "body.at(path), config",
        'body.at(f"h.{(i + 1) % config.n_layer}"), config',
        ("wrong-block-weights", "block-order"),
        "h.0.ln_1",
    ),
    # All three blocks are the first: it runs again in the others' place, with its own weights.
    Mutant(
        "gpt2-weights-of-the-first-block",
        "gpt2",
        "body.at(path), config",
        'body.at("h.0"), config',
        ("wrong-block-weights", "block-repeated"),
        "h.1.ln_1",
    ),
    Mutant(
        "gpt2-blocks-backwards",
        "gpt2",
        "for i in range(config.n_layer):",
        "for i in reversed(range(config.n_layer)):",
        "block-order",
        "h.0.ln_1",
    ),
    Mutant(
        "gpt2-blocks-one-and-two-exchanged",
        "gpt2",
        "for i in range(config.n_layer):",
        "for i in (0, 2, 1):",
        "block-order",
        "h.1.ln_1",
    ),
    Mutant(
        "gpt2-last-block-skipped",
        "gpt2",
        "for i in range(config.n_layer):",
        "for i in range(config.n_layer - 1):",
        "block-skipped",
        "h.2.ln_1",
    ),
    Mutant(
        "gpt2-block-one-without-effect",
        "gpt2",
        _GPT2_BLOCK,
        "y, seen = block(x, attention_mask, body.at(path), config, i, attention, past, tap.at(path))\n"
        "        x = x if i == 1 else y",
        "block-skipped",
        "h.2.ln_1",
    ),
    Mutant(
        "gpt2-block-one-twice",
        "gpt2",
        _GPT2_BLOCK,
        "if i == 1:\n"
        "            x, _ = block(x, attention_mask, body.at(path), config, i, attention, past, NO_TAP)\n"
        f"        {_GPT2_BLOCK}",
        "block-repeated",
        "h.1.ln_1",
    ),
    # --- head
    Mutant(
        "gpt2-head-fresh",
        "gpt2",
        'if "lm_head.weight" in weights else body["wte.weight"]',
        'if "lm_head.weight" in weights else torch.randn_like(body["wte.weight"]) * 0.02',
        "untied-head",
        "lm_head",
    ),
    # The table's numbers read along the wrong axis: a transposed weight, and not the table that it should be.
    Mutant(
        "gpt2-head-transposed",
        "gpt2",
        'if "lm_head.weight" in weights else body["wte.weight"]',
        'if "lm_head.weight" in weights else body["wte.weight"].T.reshape(config.vocab_size, -1)',
        ("untied-head", "weight-transposed"),
        "lm_head",
    ),
    # --- decoding
    Mutant(
        "gpt2-cached-position-zero",
        "gpt2",
        "torch.arange(key - token, key)",
        "torch.arange(token)",
        "positions-not-advanced",
        "wpe",
        run="cached",
    ),
    Mutant(
        "gpt2-cache-replaced",
        "gpt2",
        "past.then(key, value) if past",
        "KeysAndValues(key, value) if past",
        "cache-not-appended",
        "h.0.attn.key",
        run="cached",
    ),
    Mutant(
        "gpt2-cache-new-first",
        "gpt2",
        "torch.cat([self.key, key], dim=-2), torch.cat([self.value, value], dim=-2)",
        "torch.cat([key, self.key], dim=-2), torch.cat([value, self.value], dim=-2)",
        "cache-order",
        "h.0.attn.key",
        file="cache",
        run="cached",
    ),
    Mutant(
        "gpt2-cache-of-the-first-block",
        "gpt2",
        "cache.blocks[i] if cache",
        "cache.blocks[0] if cache",
        "cache-order",
        "h.1.attn.key",
        run="cached",
    ),
    Mutant(
        "gpt2-cache-key-value-swapped",
        "gpt2",
        "past.then(key, value) if past",
        "past.then(value, key) if past",
        "cache-mixed",
        "h.0.attn.key",
        run="cached",
    ),
    Mutant(
        "gpt2-cache-keys-as-values",
        "gpt2",
        "torch.cat([self.value, value], dim=-2)",
        "torch.cat([self.value, key], dim=-2)",
        "cache-mixed",
        "h.0.attn.value",
        file="cache",
        run="cached",
    ),
    Mutant(
        "gpt2-cached-mask-from-the-start",
        "gpt2",
        "order <= order[key - token :, None]",
        "order <= order[:token, None]",
        "mask-extra",
        "mask",
        run="cached",
    ),
    Mutant(
        "gpt2-cache-in-half",
        "gpt2",
        "past.then(key, value) if past",
        "past.then(key.half().float(), value.half().float()) if past",
        "wrong-dtype",
        "h.0.attn.key",
        run="cached",
    ),
)

_BERT_WORD = 'word = F.embedding(token_ids, weights["word_embeddings.weight"])'
_BERT_ACT = 'ACTIVATIONS[config.hidden_act](wide, tap.at("intermediate_act_fn"))'
_T5_ACT = 'ACTIVATIONS[config.activation](wide, inside.at("act"))'
_T5_KEY_VALUE = 'key, value = linear(source, part.at("k")), linear(source, part.at("v"))'
_T5_ENCODER_MASK = (
    "may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, token)"
)
_T5_CROSS_MASK = (
    "may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, -1)"
)
_T5_LATER = "not_later = (order <= order[key - query :, None])[None, None]"
_T5_ENCODED = 'return rms_norm(x, weights.at("final_layer_norm"), config, tap.at("final_layer_norm"))'
_T5_DECODED = 'x = rms_norm(x, body.at("final_layer_norm"), config, tap.at("final_layer_norm"))'
_T5_HEAD = (
    'logits = F.linear(scaled, weights["lm_head.weight" if "lm_head.weight" in weights else "shared.weight"])'
)
_T5_EMBEDDING = 'x = F.embedding(token_ids, weights[own if own in weights else "shared.weight"])'
_T5_FEED_FORWARD = 'x = feed_forward(x, w.at("1"), config, t.at("1"))'
_T5_FEED_FORWARD_NORM = """    normed = rms_norm(x, weights.at("layer_norm"), config, tap.at("layer_norm"))
"""
_T5_FEED_FORWARD_BODY = (
    _T5_FEED_FORWARD_NORM
    + """    dense, inside = weights.at("DenseReluDense"), tap.at("DenseReluDense")
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
    return x"""
)

MINILM = (
    # --- embeddings
    Mutant(
        "minilm-ids-shifted",
        "minilm",
        _BERT_WORD,
        'word = F.embedding(token_ids.roll(-1, dims=1), weights["word_embeddings.weight"])',
        "token-ids-wrong",
        "embeddings.word_embeddings",
    ),
    Mutant(
        "minilm-embedding-times-root-width",
        "minilm",
        _BERT_WORD,
        'word = F.embedding(token_ids, weights["word_embeddings.weight"]) * config.hidden_size**0.5',
        "embedding-scaled",
        "embeddings.word_embeddings",
    ),
    Mutant(
        "minilm-embedding-in-half",
        "minilm",
        _BERT_WORD,
        'word = F.embedding(token_ids, weights["word_embeddings.weight"]).half().float()',
        "wrong-dtype",
        "embeddings.word_embeddings",
    ),
    Mutant(
        "minilm-token-types-missing",
        "minilm",
        "x = word + token_type",
        "x = word",
        "token-types-missing",
        "embeddings.word_and_type",
    ),
    Mutant(
        "minilm-token-types-second",
        "minilm",
        "types = torch.zeros_like(token_ids)",
        "types = torch.ones_like(token_ids)",
        "token-types-wrong",
        "embeddings.token_type_embeddings",
    ),
    Mutant(
        "minilm-token-types-by-mask",
        "minilm",
        "types = torch.zeros_like(token_ids)",
        "types = (token_ids == 0).long()",
        "token-types-wrong",
        "embeddings.token_type_embeddings",
    ),
    Mutant(
        "minilm-token-types-from-positions",
        "minilm",
        'weights["token_type_embeddings.weight"]',
        'weights["position_embeddings.weight"]',
        "wrong-weight",
        "embeddings.token_type_embeddings",
    ),
    Mutant(
        "minilm-positions-missing",
        "minilm",
        "    x = x + position  # [batch, token, width]\n",
        "",
        "positions-missing",
        "embeddings.sum",
    ),
    Mutant(
        "minilm-positions-from-two",
        "minilm",
        "positions = torch.arange(token_ids.shape[1]).unsqueeze(0)",
        "positions = torch.arange(2, token_ids.shape[1] + 2).unsqueeze(0)",
        "positions-shifted",
        "embeddings.position_embeddings",
    ),
    Mutant(
        "minilm-positions-from-one",
        "minilm",
        "positions = torch.arange(token_ids.shape[1]).unsqueeze(0)",
        "positions = torch.arange(token_ids.shape[1]).unsqueeze(0) + 1",
        "positions-shifted",
        "embeddings.position_embeddings",
    ),
    Mutant(
        "minilm-positions-all-zero",
        "minilm",
        "positions = torch.arange(token_ids.shape[1]).unsqueeze(0)",
        "positions = torch.zeros(1, token_ids.shape[1], dtype=torch.int64)",
        "positions-wrong",
        "embeddings.position_embeddings",
    ),
    Mutant(
        "minilm-positions-sinusoidal",
        "minilm",
        'position = F.embedding(positions, weights["position_embeddings.weight"])',
        (
            "angles = positions[..., None] / 10000.0 ** (torch.arange(0, config.hidden_size, 2) "
            "/ config.hidden_size)\n"
            "    position = torch.cat([angles.sin(), angles.cos()], dim=-1)"
        ),
        "positions-sinusoidal",
        "embeddings.position_embeddings",
    ),
    Mutant(
        "minilm-position-before-type",
        "minilm",
        "    x = x + position  # [batch, token, width]\n",
        "    x = word + position + token_type\n",
        "rounding",
        "embeddings.sum",
    ),
    Mutant(
        "minilm-first-norm-missing",
        "minilm",
        '    tap("sum", x)\n    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n',
        '    tap("sum", x)\n',
        "norm-missing",
        "embeddings.LayerNorm",
    ),
    Mutant(
        "minilm-first-norm-twice",
        "minilm",
        '    tap("sum", x)\n    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n',
        (
            '    tap("sum", x)\n'
            '    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n'
            '    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n'
        ),
        "norm-twice",
        "embeddings.LayerNorm",
    ),
    Mutant(
        "minilm-embedding-dropout",
        "minilm",
        '    tap("sum", x)\n    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n',
        (
            '    tap("sum", x)\n'
            '    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n'
            "    x = F.dropout(x, 0.1, training=True)\n"
        ),
        "dropout",
        "embeddings.LayerNorm",
    ),
    # --- mask
    # To hide padding is all that this model's mask does.
    Mutant(
        "minilm-mask-missing",
        "minilm",
        "scores = scaled if mask is None else scaled + mask",
        "scores = scaled",
        ("mask-missing", "mask-padding-missing"),
        "encoder.layer.0.attention.self.scores",
    ),
    # To hide padding is all that this model's mask does.
    Mutant(
        "minilm-mask-never-made",
        "minilm",
        "if bool(mask.all()):",
        "if bool(mask.any()):",
        ("mask-padding-missing", "mask-missing"),
        "mask",
    ),
    # To hide padding is all that this model's mask does.
    Mutant(
        "minilm-mask-not-in-last-block",
        "minilm",
        "x = block(x, attention_mask, weights.at(path)",
        "x = block(x, attention_mask if i < 2 else None, weights.at(path)",
        ("mask-padding-missing", "mask-missing"),
        "encoder.layer.2.attention.self.scores",
    ),
    Mutant(
        "minilm-mask-inverted",
        "minilm",
        "torch.where(may_look, torch",
        "torch.where(~may_look, torch",
        "mask-inverted",
        "mask",
    ),
    Mutant(
        "minilm-mask-padded-queries",
        "minilm",
        "mask.bool()[:, None, None, :].expand",
        "mask.bool()[:, None, :, None].expand",
        "mask-direction",
        "mask",
    ),
    Mutant(
        "minilm-mask-causal",
        "minilm",
        "mask.bool()[:, None, None, :].expand(batch, 1, token, token)",
        "mask.bool()[:, None, None, :].expand(batch, 1, token, token).tril()",
        "mask-extra",
        "mask",
    ),
    Mutant(
        "minilm-fused-causal",
        "minilm",
        "attn_mask=mask, scale",
        "is_causal=True, scale",
        "mask-extra",
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
        run="single",
    ),
    Mutant(
        "minilm-mask-fill-ten-thousand",
        "minilm",
        "torch.finfo(x.dtype).min)",
        "-10000.0)",
        "mask-fill",
        "mask",
    ),
    Mutant(
        "minilm-mask-fill-one-billion",
        "minilm",
        "torch.finfo(x.dtype).min)",
        "-1e9)",
        "mask-fill",
        "mask",
    ),
    # Scores of 0 instead of the lowest float: padding is seen, at a score of 0.
    Mutant(
        "minilm-mask-multiplied",
        "minilm",
        "scores = scaled if mask is None else scaled + mask",
        "scores = scaled if mask is None else scaled * (mask == 0)",
        "mask-fill",
        "encoder.layer.0.attention.self.scores",
    ),
    Mutant(
        "minilm-mask-after-softmax",
        "minilm",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(scaled, dim=-1) if mask is None else F.softmax(scaled, dim=-1) * (mask == 0)",
        "mask-after-softmax",
        "encoder.layer.0.attention.self.probs",
    ),
    # --- query, key, value, heads
    # The first to differ is a product with the other part's weight.
    Mutant(
        "minilm-query-key-swapped",
        "minilm",
        (
            '    query = linear(x, weights.at("query"))  # [batch, token, width]\n'
            '    tap("query", query)\n'
            '    key = linear(x, weights.at("key"))  # [batch, token, width]\n'
        ),
        (
            '    query = linear(x, weights.at("key"))  # [batch, token, width]\n'
            '    tap("query", query)\n'
            '    key = linear(x, weights.at("query"))  # [batch, token, width]\n'
        ),
        ("query-key-swapped", "wrong-weight"),
        "encoder.layer.0.attention.self.query",
    ),
    Mutant(
        "minilm-query-is-key",
        "minilm",
        'query = linear(x, weights.at("query"))',
        'query = linear(x, weights.at("key"))',
        "wrong-weight",
        "encoder.layer.0.attention.self.query",
    ),
    Mutant(
        "minilm-value-from-key-weight",
        "minilm",
        'value = linear(x, weights.at("value"))',
        'value = linear(x, weights.at("key"))',
        "wrong-weight",
        "encoder.layer.0.attention.self.value",
    ),
    Mutant(
        "minilm-value-not-projected",
        "minilm",
        'value = linear(x, weights.at("value"))',
        'value = linear(key, weights.at("value"))',
        "wrong-input",
        "encoder.layer.0.attention.self.value",
    ),
    Mutant(
        "minilm-value-bias-missing",
        "minilm",
        'value = linear(x, weights.at("value"))',
        'value = F.linear(x, weights["value.weight"])',
        "bias-missing",
        "encoder.layer.0.attention.self.value",
    ),
    Mutant(
        "minilm-query-weight-transposed",
        "minilm",
        'query = linear(x, weights.at("query"))',
        'query = x @ weights["query.weight"] + weights["query.bias"]',
        "weight-transposed",
        "encoder.layer.0.attention.self.query",
    ),
    Mutant(
        "minilm-key-bias-from-query",
        "minilm",
        'key = linear(x, weights.at("key"))',
        'key = F.linear(x, weights["key.weight"], weights["query.bias"])',
        "bias-wrong",
        "encoder.layer.0.attention.self.key",
    ),
    Mutant(
        "minilm-product-transposed",
        "minilm",
        "product = query @ key.transpose(-1, -2)",
        "product = key @ query.transpose(-1, -2)",
        "query-key-swapped",
        "encoder.layer.0.attention.self.product",
    ),
    Mutant(
        "minilm-query-times-value",
        "minilm",
        "product = query @ key.transpose(-1, -2)",
        "product = query @ value.transpose(-1, -2)",
        "wrong-operand",
        "encoder.layer.0.attention.self.product",
    ),
    Mutant(
        "minilm-heads-reshaped",
        "minilm",
        "x.view(*x.shape[:-1], heads, -1).transpose(1, 2)",
        "x.reshape(x.shape[0], heads, x.shape[1], -1)",
        "heads-split",
        "encoder.layer.0.attention.self.product",
        file="ops",
    ),
    Mutant(
        "minilm-heads-interleaved",
        "minilm",
        "x.view(*x.shape[:-1], heads, -1).transpose(1, 2)",
        "x.view(*x.shape[:-1], -1, heads).permute(0, 3, 1, 2)",
        "heads-split",
        "encoder.layer.0.attention.self.product",
        file="ops",
    ),
    Mutant(
        "minilm-heads-merged-without-transpose",
        "minilm",
        "x.transpose(1, 2).flatten(start_dim=2)",
        "x.reshape(x.shape[0], x.shape[2], -1)",
        "heads-merged",
        "encoder.layer.0.attention.self.context",
        file="ops",
    ),
    Mutant(
        "minilm-heads-halved",
        "minilm",
        "heads = config.num_attention_heads",
        "heads = config.num_attention_heads // 2",
        "heads-count",
        "encoder.layer.0.attention.self.product",
    ),
    # --- scores
    Mutant(
        "minilm-scale-missing",
        "minilm",
        "scaled = product * query.shape[-1] ** -0.5",
        "scaled = product",
        "scale-missing",
        "encoder.layer.0.attention.self.scaled",
    ),
    Mutant(
        "minilm-scale-by-width",
        "minilm",
        "scaled = product * query.shape[-1] ** -0.5",
        "scaled = product * (query.shape[1] * query.shape[-1]) ** -0.5",
        "scale-wrong",
        "encoder.layer.0.attention.self.scaled",
    ),
    Mutant(
        "minilm-scale-as-product",
        "minilm",
        "scaled = product * query.shape[-1] ** -0.5",
        "scaled = product * query.shape[-1] ** 0.5",
        "scale-wrong",
        "encoder.layer.0.attention.self.scaled",
    ),
    # 1 / 24 is 1 / √24 twice, the last bit aside.
    Mutant(
        "minilm-scale-twice",
        "minilm",
        "scaled = product * query.shape[-1] ** -0.5",
        "scaled = product / query.shape[-1]",
        ("scale-extra", "scale-wrong"),
        "encoder.layer.0.attention.self.scaled",
    ),
    Mutant(
        "minilm-scale-divided",
        "minilm",
        "scaled = product * query.shape[-1] ** -0.5",
        "scaled = product / query.shape[-1] ** 0.5",
        "rounding",
        "encoder.layer.0.attention.self.scaled",
    ),
    Mutant(
        "minilm-fused-scale-missing",
        "minilm",
        "attn_mask=mask, scale=query.shape[-1] ** -0.5",
        "attn_mask=mask, scale=1.0",
        "scale-missing",
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
    ),
    Mutant(
        "minilm-scale-after-mask",
        "minilm",
        (
            "* query.shape[-1] ** -0.5  # [batch, head, query, key]\n"
            '    tap("scaled", scaled)\n'
            "    scores = scaled if mask is None else scaled + mask"
        ),
        (
            "+ (0.0 if mask is None else mask)  # [batch, head, query, key]\n"
            '    tap("scaled", scaled)\n'
            "    scores = scaled * query.shape[-1] ** -0.5"
        ),
        "scale-order",
        "encoder.layer.0.attention.self.scaled",
    ),
    Mutant(
        "minilm-softmax-over-queries",
        "minilm",
        "F.softmax(scores, dim=-1)",
        "F.softmax(scores, dim=2)",
        "softmax-axis",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-softmax-missing",
        "minilm",
        "F.softmax(scores, dim=-1)",
        "scores",
        "softmax-missing",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-softmax-is-sigmoid",
        "minilm",
        "F.softmax(scores, dim=-1)",
        "torch.sigmoid(scores)",
        "softmax-changed",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-softmax-in-bfloat16",
        "minilm",
        "F.softmax(scores, dim=-1)",
        "F.softmax(scores.bfloat16(), dim=-1).float()",
        "wrong-dtype",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-dropout-on-shares",
        "minilm",
        "F.softmax(scores, dim=-1)",
        "F.dropout(F.softmax(scores, dim=-1), 0.1, training=True)",
        "dropout",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-fused-by-hand",
        "minilm",
        (
            "return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, "
            "scale=query.shape[-1] ** -0.5)"
        ),
        "return F.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1) @ value",
        "rounding",
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
        run="single",
    ),
    # --- residuals, norms, feed-forward
    Mutant(
        "minilm-output-from-layer-input",
        "minilm",
        'x = add_and_norm(attended, x, weights.at("attention.output")',
        'x = add_and_norm(x, x, weights.at("attention.output")',
        "wrong-input",
        "encoder.layer.0.attention.output.dense",
    ),
    Mutant(
        "minilm-residual-missing",
        "minilm",
        "    x = x + residual  # [batch, token, width]\n",
        "",
        "residual-missing",
        "encoder.layer.0.attention.output.residual",
    ),
    Mutant(
        "minilm-residual-twice",
        "minilm",
        "x = x + residual",
        "x = x + 2 * residual",
        "residual-scaled",
        "encoder.layer.0.attention.output.residual",
    ),
    Mutant(
        "minilm-residual-from-the-attention",
        "minilm",
        "return add_and_norm(wide, x, weights",
        "return add_and_norm(wide, attended, weights",
        "residual-wrong",
        "encoder.layer.0.output.residual",
    ),
    Mutant(
        "minilm-norm-before-residual",
        "minilm",
        (
            "    x = x + residual  # [batch, token, width]\n"
            '    tap("residual", x)\n'
            '    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n'
            '    tap("LayerNorm", x)\n'
        ),
        (
            '    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n'
            '    tap("LayerNorm", x)\n'
            "    x = x + residual  # [batch, token, width]\n"
            '    tap("residual", x)\n'
        ),
        "norm-position",
        "encoder.layer.0.attention.output.residual",
    ),
    Mutant(
        "minilm-norm-eps",
        "minilm",
        _FUSED_NORM,
        'F.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], 1e-5)',
        "norm-eps",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-norm-stretch-missing",
        "minilm",
        _FUSED_NORM,
        'F.layer_norm(x, x.shape[-1:], None, weights["bias"], eps)',
        "norm-affine-missing",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-norm-stretch-and-shift-swapped",
        "minilm",
        _FUSED_NORM,
        'F.layer_norm(x, x.shape[-1:], weights["bias"], weights["weight"], eps)',
        "norm-affine-wrong",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-norm-root-mean-square",
        "minilm",
        _FUSED_NORM,
        'F.rms_norm(x, x.shape[-1:], weights["weight"], eps) + weights["bias"]',
        "norm-mean-kept",
        "embeddings.LayerNorm",
        file="ops",
    ),
    # As in The Annotated Transformer, whose `std` divides by n - 1.
    Mutant(
        "minilm-norm-by-deviation-of-a-sample",
        "minilm",
        _FUSED_NORM,
        '(weights["weight"] * (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + eps) + weights["bias"])',
        "norm-variance",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-norm-over-tokens",
        "minilm",
        _FUSED_NORM,
        (
            "((x - x.mean(1, True)) / (x.var(1, unbiased=False, keepdim=True) + eps).sqrt()\n"
            '        * weights["weight"] + weights["bias"])'
        ),
        "norm-axis",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-gelu-tanh",
        "minilm",
        _BERT_ACT,
        'F.gelu(wide, approximate="tanh")',
        "gelu-tanh",
        "encoder.layer.0.intermediate.intermediate_act_fn",
    ),
    Mutant(
        "minilm-gelu-sigmoid",
        "minilm",
        _BERT_ACT,
        "wide * torch.sigmoid(1.702 * wide)",
        "gelu-sigmoid",
        "encoder.layer.0.intermediate.intermediate_act_fn",
    ),
    Mutant(
        "minilm-gelu-constant",
        "minilm",
        _BERT_ACT,
        "wide * 0.5 * (1.0 + torch.erf(wide / 2.0))",
        "gelu-constant",
        "encoder.layer.0.intermediate.intermediate_act_fn",
    ),
    Mutant(
        "minilm-relu",
        "minilm",
        _BERT_ACT,
        "F.relu(wide)",
        "activation-relu",
        "encoder.layer.0.intermediate.intermediate_act_fn",
    ),
    Mutant(
        "minilm-silu",
        "minilm",
        _BERT_ACT,
        "F.silu(wide)",
        "activation-other",
        "encoder.layer.0.intermediate.intermediate_act_fn",
    ),
    Mutant(
        "minilm-activation-missing",
        "minilm",
        _BERT_ACT,
        "wide",
        "activation-missing",
        "encoder.layer.0.intermediate.intermediate_act_fn",
    ),
    Mutant(
        "minilm-gelu-by-hand",
        "minilm",
        _BERT_ACT,
        "wide * 0.5 * (1.0 + torch.erf(wide / 2.0**0.5))",
        "rounding",
        "encoder.layer.0.intermediate.intermediate_act_fn",
    ),
    # --- blocks
    # Named by their place: the first two blocks run in the place of the next.
    Mutant(
        "minilm-weights-of-the-block-before",
        "minilm",
        "weights.at(path), config, attention, tap.at(path)",
        'weights.at(f"encoder.layer.{max(i - 1, 0)}"), config, attention, tap.at(path)',
        ("wrong-block-weights", "block-repeated"),
        "encoder.layer.1.attention.self.query",
    ),
    # Named by its place: the first block runs again in the last one's.
    Mutant(
        "minilm-last-block-is-the-first",
        "minilm",
        "weights.at(path), config, attention, tap.at(path)",
        'weights.at(path if i < 2 else "encoder.layer.0"), config, attention, tap.at(path)',
        ("wrong-block-weights", "block-repeated"),
        "encoder.layer.2.attention.self.query",
    ),
    Mutant(
        "minilm-blocks-backwards",
        "minilm",
        "for i in range(config.num_hidden_layers):",
        "for i in reversed(range(config.num_hidden_layers)):",
        "block-order",
        "encoder.layer.0.attention.self.query",
    ),
    Mutant(
        "minilm-first-block-skipped",
        "minilm",
        "for i in range(config.num_hidden_layers):",
        "for i in range(1, config.num_hidden_layers):",
        "block-skipped",
        "encoder.layer.0.attention.self.query",
    ),
    Mutant(
        "minilm-block-one-twice",
        "minilm",
        "        x = block(x, attention_mask, weights.at(path), config, attention, tap.at(path))\n",
        (
            "        x = block(x, attention_mask, weights.at(path), config, attention, "
            "tap.at(path))\n"
            "        if i == 1:\n"
            "            x = block(x, attention_mask, weights.at(path), config, attention, "
            "NO_TAP)\n"
        ),
        "block-repeated",
        "encoder.layer.2.attention.self.query",
    ),
    # --- from tokens to the sentence
    Mutant(
        "minilm-pooler-last-token",
        "minilm",
        "dense = linear(x[:, 0], weights",
        "dense = linear(x[:, -1], weights",
        "pooler-token",
        "pooler.dense",
    ),
    Mutant(
        "minilm-pooler-mean",
        "minilm",
        "dense = linear(x[:, 0], weights",
        "dense = linear(x.mean(dim=1), weights",
        "pooler-token",
        "pooler.dense",
    ),
    Mutant(
        "minilm-pooler-relu",
        "minilm",
        "pooled = torch.tanh(dense)",
        "pooled = F.relu(dense)",
        "activation-relu",
        "pooler.activation",
    ),
    Mutant(
        "minilm-pooler-not-bent",
        "minilm",
        "pooled = torch.tanh(dense)",
        "pooled = dense",
        "activation-missing",
        "pooler.activation",
    ),
    Mutant(
        "minilm-pool-padding",
        "minilm",
        "masked = x * real",
        "masked = x",
        "pool-padding",
        "sentence.masked",
    ),
    Mutant(
        "minilm-pool-mean-of-all",
        "minilm",
        "mean = total / count",
        "mean = x.mean(dim=1)",
        "pool-padding",
        "sentence.mean",
    ),
    Mutant(
        "minilm-pool-cls",
        "minilm",
        "mean = total / count",
        "mean = x[:, 0]",
        "pool-cls",
        "sentence.mean",
    ),
    Mutant(
        "minilm-pool-largest",
        "minilm",
        "mean = total / count",
        "mean = x.masked_fill(real == 0, -1e9).amax(dim=1)",
        "pool-other",
        "sentence.mean",
    ),
    Mutant(
        "minilm-pool-sum",
        "minilm",
        "mean = total / count",
        "mean = total",
        "pool-other",
        "sentence.mean",
    ),
    Mutant(
        "minilm-pool-last",
        "minilm",
        "mean = total / count",
        "mean = x[torch.arange(len(x)), mask.sum(dim=1) - 1]",
        "pool-other",
        "sentence.mean",
    ),
    Mutant(
        "minilm-pool-count-all",
        "minilm",
        "count = real.sum(dim=1).clamp(min=1e-9)",
        "count = torch.full_like(total, x.shape[1])",
        "pool-other",
        "sentence.count",
    ),
    Mutant(
        "minilm-not-normalised",
        "minilm",
        "embedding = mean / length.clamp_min(1e-12)",
        "embedding = mean",
        "not-normalised",
        "sentence.embedding",
    ),
    Mutant(
        "minilm-normalised-sum-of-sizes",
        "minilm",
        "torch.linalg.vector_norm(mean, dim=1, keepdim=True)",
        "torch.linalg.vector_norm(mean, 1, dim=1, keepdim=True)",
        "normalised-wrong",
        "sentence.embedding",
    ),
    Mutant(
        "minilm-normalised-over-batch",
        "minilm",
        "torch.linalg.vector_norm(mean, dim=1, keepdim=True)",
        "torch.linalg.vector_norm(mean, dim=0, keepdim=True)",
        "normalised-wrong",
        "sentence.embedding",
    ),
    Mutant(
        "minilm-normalised-squared",
        "minilm",
        "embedding = mean / length.clamp_min(1e-12)",
        "embedding = mean / length**2",
        "normalised-wrong",
        "sentence.embedding",
    ),
)

T5 = (
    # --- embeddings
    Mutant(
        "t5-ids-reversed",
        "t5-small",
        'x = embed(token_ids, "encoder"',
        'x = embed(token_ids.flip(1), "encoder"',
        "token-ids-wrong",
        "encoder.embed_tokens",
    ),
    Mutant(
        "t5-decoder-ids-not-shifted",
        "t5-small",
        'x = embed(decoder_ids, "decoder"',
        'x = embed(decoder_ids.roll(-1, dims=1), "decoder"',
        "token-ids-wrong",
        "decoder.embed_tokens",
    ),
    Mutant(
        "t5-embedding-times-root-width",
        "t5-small",
        _T5_EMBEDDING,
        _T5_EMBEDDING + "\n    x = x * x.shape[-1] ** 0.5",
        "embedding-scaled",
        "encoder.embed_tokens",
    ),
    Mutant(
        "t5-embedding-dropout",
        "t5-small",
        _T5_EMBEDDING,
        _T5_EMBEDDING + "\n    x = F.dropout(x, 0.1, training=True)",
        "dropout",
        "encoder.embed_tokens",
    ),
    # --- position bias
    Mutant(
        "t5-encoder-buckets-one-way",
        "t5-small",
        "position_bias(token, token, True,",
        "position_bias(token, token, False,",
        "buckets-direction",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    Mutant(
        "t5-decoder-buckets-both-ways",
        "t5-small",
        "position_bias(token, key, False,",
        "position_bias(token, key, True,",
        "buckets-direction",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    Mutant(
        "t5-distance-opposite",
        "t5-small",
        "where - where[key - query :, None]",
        "where[key - query :, None] - where",
        "buckets-sign",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-after-is-before",
        "t5-small",
        "(distance > 0).long()",
        "(distance < 0).long()",
        "buckets-sign",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-decoder-distance-opposite",
        "t5-small",
        "-torch.clamp(distance, max=0)",
        "torch.clamp(distance, min=0)",
        "buckets-sign",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-buckets-all-exact",
        "t5-small",
        "exact = buckets // 2",
        "exact = buckets - 1",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-buckets-half-the-distance",
        "t5-small",
        "math.log(farthest / exact)",
        "math.log(farthest / 2 / exact)",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-buckets-log-of-distance",
        "t5-small",
        "torch.log(distance.float() / exact)",
        "torch.log(distance.float())",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-buckets-rounded",
        "t5-small",
        "exact + far.long()",
        "exact + far.round().long()",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-buckets-halved",
        "t5-small",
        "buckets, farthest = config.relative_attention_num_buckets,",
        "buckets, farthest = config.relative_attention_num_buckets // 2,",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-position-bias-missing",
        "t5-small",
        "biased = product + looks.bias",
        "biased = product",
        "position-bias-missing",
        "encoder.block.0.layer.0.SelfAttention.biased",
    ),
    Mutant(
        "t5-position-bias-in-first-block-only",
        "t5-small",
        'x, _ = attend(x, None, "SelfAttention", looks,',
        (
            "own = looks if i == 0 else looks._replace(bias=torch.zeros_like(looks.bias))\n"
            '        x, _ = attend(x, None, "SelfAttention", own,'
        ),
        "position-bias-missing",
        "encoder.block.1.layer.0.SelfAttention.biased",
    ),
    Mutant(
        "t5-decoder-bias-in-first-block-only",
        "t5-small",
        'x, own = attend(x, None, "SelfAttention", looks,',
        (
            "near = looks if i == 0 else looks._replace(bias=torch.zeros_like(looks.bias))\n"
            '        x, own = attend(x, None, "SelfAttention", near,'
        ),
        "position-bias-missing",
        "decoder.block.1.layer.0.SelfAttention.biased",
    ),
    Mutant(
        "t5-fused-bias-missing",
        "t5-small",
        "Looks(bias, bias.contiguous())",
        "Looks(bias, torch.zeros_like(bias))",
        "position-bias-missing",
        "encoder.block.0.layer.0.SelfAttention.head_context",
        attention="sdpa",
        run="single",
        file="t5_looks",
    ),
    Mutant(
        "t5-fused-mask-without-bias",
        "t5-small",
        "torch.where(may_look, bias, lowest)",
        "torch.where(may_look, torch.zeros_like(bias), lowest)",
        "position-bias-missing",
        "encoder.biased_mask",
        attention="sdpa",
        file="t5_looks",
    ),
    Mutant(
        "t5-decoder-bias-from-encoder",
        "t5-small",
        "body.at(BIAS), config",
        'weights.at(f"encoder.{BIAS}"), config',
        "position-bias-wrong",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    Mutant(
        "t5-position-bias-transposed",
        "t5-small",
        "table.permute(2, 0, 1)",
        "table.permute(2, 1, 0)",
        "position-bias-wrong",
        "encoder.block.0.layer.0.SelfAttention.biased",
        file="t5_looks",
    ),
    Mutant(
        "t5-position-bias-reshaped",
        "t5-small",
        "table.permute(2, 0, 1)",
        "table.reshape(-1, query, key)",
        "position-bias-wrong",
        "encoder.block.0.layer.0.SelfAttention.biased",
        file="t5_looks",
    ),
    Mutant(
        "t5-cross-attention-biased",
        "t5-small",
        "nearness = torch.zeros(1, config.num_heads, token, mask.shape[1])",
        "nearness = position_bias(token, mask.shape[1], True, body.at(BIAS), config, NO_TAP)",
        "position-bias-extra",
        "decoder.block.0.layer.1.EncDecAttention.biased",
    ),
    # --- mask
    # To hide padding is all that this mask does.
    Mutant(
        "t5-encoder-mask-missing",
        "t5-small",
        _T5_ENCODER_MASK,
        "may_look = None",
        ("mask-padding-missing", "mask-missing"),
        "encoder.mask",
    ),
    # To hide padding is all that this mask does.
    Mutant(
        "t5-cross-mask-missing",
        "t5-small",
        _T5_CROSS_MASK,
        "may_look = None",
        ("mask-padding-missing", "mask-missing"),
        "decoder.cross_mask",
    ),
    # In the encoder, where it is first seen, the mask hides padding and nothing else.
    Mutant(
        "t5-mask-missing",
        "t5-small",
        "scores = biased if looks.mask is None else biased + looks.mask",
        "scores = biased",
        ("mask-missing", "mask-padding-missing"),
        "encoder.block.0.layer.0.SelfAttention.scores",
    ),
    Mutant(
        "t5-decoder-not-causal",
        "t5-small",
        _T5_LATER,
        "not_later = torch.ones(1, 1, query, key, dtype=torch.bool)",
        "mask-causal-missing",
        "decoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-decoder-padding-visible",
        "t5-small",
        "not_later = not_later & mask.bool()[:, None, None, :]",
        "not_later = not_later.expand(batch, 1, query, key)",
        "mask-padding-missing",
        "decoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-encoder-causal",
        "t5-small",
        _T5_ENCODER_MASK,
        _T5_ENCODER_MASK + ".tril()",
        "mask-extra",
        "encoder.mask",
    ),
    Mutant(
        "t5-cross-attention-causal",
        "t5-small",
        _T5_CROSS_MASK,
        _T5_CROSS_MASK + ".tril()",
        "mask-extra",
        "decoder.cross_mask",
    ),
    Mutant(
        "t5-mask-inverted",
        "t5-small",
        "torch.where(may_look, torch.zeros((), dtype=bias.dtype), lowest)",
        "torch.where(~may_look, torch.zeros((), dtype=bias.dtype), lowest)",
        "mask-inverted",
        "encoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-decoder-mask-hides-oneself",
        "t5-small",
        _T5_LATER,
        "not_later = (order < order[key - query :, None])[None, None]",
        "mask-off-by-one",
        "decoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-decoder-mask-shows-the-next",
        "t5-small",
        _T5_LATER,
        "not_later = torch.ones(query, key).tril(key - query + 1).bool()[None, None]",
        "mask-off-by-one",
        "decoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-decoder-mask-upper-triangle",
        "t5-small",
        _T5_LATER,
        "not_later = (order >= order[key - query :, None])[None, None]",
        "mask-direction",
        "decoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-cross-mask-padded-queries",
        "t5-small",
        _T5_CROSS_MASK,
        "may_look = None if bool(mask.all()) else mask.bool()[:, None, :, None].expand(-1, 1, -1, token)",
        "mask-direction",
        "decoder.cross_mask",
    ),
    Mutant(
        "t5-mask-fill-one-billion",
        "t5-small",
        "lowest = torch.finfo(bias.dtype).min",
        "lowest = -1e9",
        "mask-fill",
        "encoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-mask-fill-of-half",
        "t5-small",
        "lowest = torch.finfo(bias.dtype).min",
        "lowest = torch.finfo(torch.float16).min",
        "mask-fill",
        "encoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-fused-mask-fill-infinity",
        "t5-small",
        "lowest = torch.finfo(bias.dtype).min",
        'lowest = -float("inf")',
        "mask-fill",
        "encoder.biased_mask",
        attention="sdpa",
        file="t5_looks",
    ),
    Mutant(
        "t5-mask-after-softmax",
        "t5-small",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(biased, dim=-1) * (0.0 if looks.mask is None else looks.mask == 0)",
        "mask-after-softmax",
        "encoder.block.0.layer.0.SelfAttention.probs",
    ),
    # --- scores
    Mutant(
        "t5-scaled",
        "t5-small",
        "product = query @ key.transpose(-1, -2)",
        "product = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5",
        "scale-extra",
        "encoder.block.0.layer.0.SelfAttention.product",
    ),
    Mutant(
        "t5-scaled-after-bias",
        "t5-small",
        "biased = product + looks.bias",
        "biased = (product + looks.bias) / query.shape[-1] ** 0.5",
        "scale-extra",
        "encoder.block.0.layer.0.SelfAttention.biased",
    ),
    Mutant(
        "t5-fused-scaled",
        "t5-small",
        "looks.mask, scale=1.0)",
        "looks.mask)",
        "scale-extra",
        "encoder.block.0.layer.0.SelfAttention.head_context",
        attention="sdpa",
    ),
    # The mask is added first and then the bias: the addition of both changed places.
    Mutant(
        "t5-bias-after-mask",
        "t5-small",
        (
            "    biased = product + looks.bias  # [batch, head, query, key]\n"
            '    tap("biased", biased)\n'
            "    scores = biased if looks.mask is None else biased + looks.mask"
        ),
        (
            "    biased = product if looks.mask is None else product + looks.mask  # [batch, "
            "head, query, key]\n"
            '    tap("biased", biased)\n'
            "    scores = biased + looks.bias"
        ),
        "scale-order",
        "encoder.block.0.layer.0.SelfAttention.biased",
    ),
    Mutant(
        "t5-softmax-over-queries",
        "t5-small",
        "F.softmax(scores, dim=-1)",
        "F.softmax(scores, dim=-2)",
        "softmax-axis",
        "encoder.block.0.layer.0.SelfAttention.probs",
    ),
    Mutant(
        "t5-softmax-over-heads",
        "t5-small",
        "F.softmax(scores, dim=-1)",
        "F.softmax(scores, dim=1)",
        "softmax-axis",
        "encoder.block.0.layer.0.SelfAttention.probs",
    ),
    Mutant(
        "t5-softmax-missing",
        "t5-small",
        "F.softmax(scores, dim=-1)",
        "scores",
        "softmax-missing",
        "encoder.block.0.layer.0.SelfAttention.probs",
    ),
    Mutant(
        "t5-softmax-of-half-the-scores",
        "t5-small",
        "F.softmax(scores, dim=-1)",
        "F.softmax(scores / 2, dim=-1)",
        "softmax-changed",
        "encoder.block.0.layer.0.SelfAttention.probs",
    ),
    Mutant(
        "t5-softmax-logarithm",
        "t5-small",
        "F.softmax(scores, dim=-1)",
        "F.log_softmax(scores, dim=-1)",
        "softmax-changed",
        "encoder.block.0.layer.0.SelfAttention.probs",
    ),
    Mutant(
        "t5-softmax-in-half",
        "t5-small",
        "F.softmax(scores, dim=-1)",
        "F.softmax(scores, dim=-1).half().float()",
        "wrong-dtype",
        "encoder.block.0.layer.0.SelfAttention.probs",
    ),
    Mutant(
        "t5-dropout-on-shares",
        "t5-small",
        "return probs @ value",
        "return F.dropout(probs, 0.1, training=True) @ value",
        "dropout",
        "encoder.block.0.layer.0.SelfAttention.head_context",
    ),
    Mutant(
        "t5-shares-of-queries",
        "t5-small",
        "return probs @ value",
        "return probs @ query",
        "wrong-operand",
        "encoder.block.0.layer.0.SelfAttention.head_context",
    ),
    Mutant(
        "t5-key-times-key",
        "t5-small",
        "product = query @ key.transpose(-1, -2)",
        "product = key @ key.transpose(-1, -2)",
        "wrong-operand",
        "encoder.block.0.layer.0.SelfAttention.product",
    ),
    Mutant(
        "t5-product-transposed",
        "t5-small",
        "product = query @ key.transpose(-1, -2)",
        "product = key @ query.transpose(-1, -2)",
        "query-key-swapped",
        "encoder.block.0.layer.0.SelfAttention.product",
    ),
    # --- query, key, value, heads
    Mutant(
        "t5-query-with-keys-weight",
        "t5-small",
        'query = linear(normed, part.at("q"))',
        'query = linear(normed, part.at("k"))',
        "wrong-weight",
        "encoder.block.0.layer.0.SelfAttention.q",
    ),
    Mutant(
        "t5-key-value-weights-swapped",
        "t5-small",
        _T5_KEY_VALUE,
        'key, value = linear(source, part.at("v")), linear(source, part.at("k"))',
        "wrong-weight",
        "encoder.block.0.layer.0.SelfAttention.k",
    ),
    Mutant(
        "t5-value-with-keys-weight",
        "t5-small",
        _T5_KEY_VALUE,
        'key, value = linear(source, part.at("k")), linear(source, part.at("k"))',
        "wrong-weight",
        "encoder.block.0.layer.0.SelfAttention.v",
    ),
    Mutant(
        "t5-query-not-normed",
        "t5-small",
        'query = linear(normed, part.at("q"))',
        'query = linear(x, part.at("q"))',
        "wrong-input",
        "encoder.block.0.layer.0.SelfAttention.q",
    ),
    Mutant(
        "t5-heads-reshaped",
        "t5-small",
        "x.view(*x.shape[:-1], heads, -1).transpose(1, 2)",
        "x.reshape(len(x), heads, x.shape[1], -1)",
        "heads-split",
        "encoder.block.0.layer.0.SelfAttention.product",
        file="ops",
    ),
    Mutant(
        "t5-heads-merged-without-transpose",
        "t5-small",
        "context = merge_heads(head_context)",
        "context = head_context.reshape(*query.shape[::2], -1)",
        "heads-merged",
        "encoder.block.0.layer.0.SelfAttention.context",
    ),
    Mutant(
        "t5-half-the-heads",
        "t5-small",
        "x.view(*x.shape[:-1], heads, -1)",
        "x.view(*x.shape[:-1], heads // 2, -1)",
        "heads-count",
        "encoder.block.0.layer.0.SelfAttention.product",
        file="ops",
    ),
    Mutant(
        "t5-head-width-is-width-by-heads",
        "t5-small",
        "x.view(*x.shape[:-1], heads, -1).transpose(1, 2)",
        "x.unflatten(-1, (-1, heads)).permute(0, 3, 1, 2)",
        "heads-split",
        "encoder.block.0.layer.0.SelfAttention.product",
        file="ops",
    ),
    # --- cross-attention, linear layers
    Mutant(
        "t5-cross-attention-sees-the-answer",
        "t5-small",
        "source = encoded if crossing and encoded is not None else normed",
        "source = normed",
        "cross-attention-source",
        "decoder.block.0.layer.1.EncDecAttention.k",
    ),
    Mutant(
        "t5-cross-attention-sees-encoder-backwards",
        "t5-small",
        "source = encoded if crossing and encoded is not None else normed",
        "source = encoded.flip(1) if crossing and encoded is not None else normed",
        "cross-attention-source",
        "decoder.block.0.layer.1.EncDecAttention.k",
    ),
    # What cross-attention is given is the wrong tensor, and the encoder's all the same.
    Mutant(
        "t5-cross-attention-before-last-norm",
        "t5-small",
        _T5_ENCODED,
        'rms_norm(x, weights.at("final_layer_norm"), config, tap.at("final_layer_norm"))\n    return x',
        ("cross-attention-source", "wrong-input"),
        "decoder.block.0.layer.1.EncDecAttention.k",
    ),
    # The values' product was given another tensor, and what it was given are the wrong tokens.
    Mutant(
        "t5-cross-values-of-the-answer",
        "t5-small",
        _T5_KEY_VALUE,
        'key, value = linear(source, part.at("k")), linear(normed, part.at("v"))',
        ("cross-attention-source", "wrong-input"),
        "decoder.block.0.layer.1.EncDecAttention.v",
    ),
    Mutant(
        "t5-output-weight-transposed",
        "t5-small",
        'output = linear(context, part.at("o"))',
        'output = F.linear(context, part["o.weight"].T.reshape(config.d_model, -1))',
        "weight-transposed",
        "encoder.block.0.layer.0.SelfAttention.o",
    ),
    Mutant(
        "t5-linear-in-bfloat16",
        "t5-small",
        'return F.linear(x, weights["weight"])',
        'return F.linear(x.bfloat16(), weights["weight"].bfloat16()).float()',
        "wrong-dtype",
        "encoder.block.0.layer.0.SelfAttention.q",
    ),
    # --- norms
    Mutant(
        "t5-norm-mean-subtracted",
        "t5-small",
        "square = x.pow(2)",
        "x = x - x.mean(-1, keepdim=True)\n    square = x.pow(2)",
        "norm-mean-subtracted",
        "encoder.block.0.layer.0.layer_norm.square",
    ),
    Mutant(
        "t5-norm-eps",
        "t5-small",
        "above_zero = mean_square + config.layer_norm_epsilon",
        "above_zero = mean_square + 1e-5",
        "norm-eps",
        "encoder.block.0.layer.0.layer_norm.above_zero",
    ),
    # No epsilon at all, or one of 0.
    Mutant(
        "t5-norm-eps-missing",
        "t5-small",
        "above_zero = mean_square + config.layer_norm_epsilon",
        "above_zero = mean_square",
        ("norm-eps-place", "norm-eps"),
        "encoder.block.0.layer.0.layer_norm.above_zero",
    ),
    Mutant(
        "t5-norm-eps-outside-root",
        "t5-small",
        "inverse_root = torch.rsqrt(above_zero)",
        "inverse_root = 1 / (mean_square.sqrt() + config.layer_norm_epsilon)",
        "norm-eps-place",
        "encoder.block.0.layer.0.layer_norm.inverse_root",
    ),
    Mutant(
        "t5-norm-stretch-missing",
        "t5-small",
        'stretched = weights["weight"] * normed',
        "stretched = normed",
        "norm-affine-missing",
        "encoder.block.0.layer.0.layer_norm",
    ),
    Mutant(
        "t5-norm-stretch-plus-one",
        "t5-small",
        'stretched = weights["weight"] * normed',
        'stretched = (1.0 + weights["weight"]) * normed',
        "norm-affine-wrong",
        "encoder.block.0.layer.0.layer_norm",
    ),
    Mutant(
        "t5-norm-stretch-added",
        "t5-small",
        'stretched = weights["weight"] * normed',
        'stretched = weights["weight"] + normed',
        "norm-affine-wrong",
        "encoder.block.0.layer.0.layer_norm",
    ),
    Mutant(
        "t5-norm-of-a-sample",
        "t5-small",
        "mean_square = square.mean(-1, keepdim=True)",
        "mean_square = square.sum(-1, keepdim=True) / (x.shape[-1] - 1)",
        "norm-variance",
        "encoder.block.0.layer.0.layer_norm.mean_square",
    ),
    Mutant(
        "t5-norm-by-square",
        "t5-small",
        "inverse_root = torch.rsqrt(above_zero)",
        "inverse_root = 1 / above_zero",
        "norm-variance",
        "encoder.block.0.layer.0.layer_norm.inverse_root",
    ),
    Mutant(
        "t5-norm-over-tokens",
        "t5-small",
        "square.mean(-1, keepdim=True)",
        "square.mean(1, keepdim=True)",
        "norm-axis",
        "encoder.block.0.layer.0.layer_norm.mean_square",
    ),
    Mutant(
        "t5-norm-over-everything",
        "t5-small",
        "square.mean(-1, keepdim=True)",
        "square.mean((1, 2), keepdim=True).expand(-1, x.shape[1], 1)",
        "norm-axis",
        "encoder.block.0.layer.0.layer_norm.mean_square",
    ),
    Mutant(
        "t5-norm-in-bfloat16",
        "t5-small",
        "square = x.pow(2)",
        "square = x.bfloat16().pow(2).float()",
        "wrong-dtype",
        "encoder.block.0.layer.0.layer_norm.square",
    ),
    Mutant(
        "t5-norm-root-then-inverse",
        "t5-small",
        "inverse_root = torch.rsqrt(above_zero)",
        "inverse_root = 1 / torch.sqrt(above_zero)",
        "rounding",
        "encoder.block.0.layer.0.layer_norm.inverse_root",
    ),
    Mutant(
        "t5-norm-divided",
        "t5-small",
        "normed = x * inverse_root",
        "normed = x / torch.sqrt(above_zero)",
        "rounding",
        "encoder.block.0.layer.0.layer_norm.normed",
    ),
    Mutant(
        "t5-norm-stretch-first",
        "t5-small",
        'stretched = weights["weight"] * normed',
        'stretched = x * (weights["weight"] * inverse_root)',
        "rounding",
        "encoder.block.0.layer.0.layer_norm",
    ),
    Mutant(
        "t5-encoder-last-norm-missing",
        "t5-small",
        _T5_ENCODED,
        "return x",
        "norm-missing",
        "encoder.final_layer_norm.square",
    ),
    Mutant(
        "t5-encoder-last-norm-from-a-block",
        "t5-small",
        _T5_ENCODED,
        'return rms_norm(x, weights.at("block.2.layer.1.layer_norm"), config, tap.at("final_layer_norm"))',
        "wrong-weight",
        "encoder.final_layer_norm",
    ),
    Mutant(
        "t5-decoder-last-norm-missing",
        "t5-small",
        '    x = rms_norm(x, body.at("final_layer_norm"), config, tap.at("final_layer_norm"))\n',
        "",
        "norm-missing",
        "decoder.final_layer_norm.square",
    ),
    Mutant(
        "t5-decoder-last-norm-twice",
        "t5-small",
        _T5_DECODED,
        'x = rms_norm(x, body.at("final_layer_norm"), config, NO_TAP)\n    ' + _T5_DECODED,
        "norm-twice",
        "decoder.final_layer_norm.square",
    ),
    Mutant(
        "t5-decoder-last-norm-from-encoder",
        "t5-small",
        _T5_DECODED,
        'x = rms_norm(x, weights.at("encoder.final_layer_norm"), config, tap.at("final_layer_norm"))',
        "wrong-weight",
        "decoder.final_layer_norm",
    ),
    Mutant(
        "t5-feed-forward-norm-missing",
        "t5-small",
        (
            '    normed = rms_norm(x, weights.at("layer_norm"), config, tap.at("layer_norm"))\n'
            "    dense, inside"
        ),
        "    normed = x\n    dense, inside",
        "norm-missing",
        "encoder.block.0.layer.1.layer_norm.square",
    ),
    Mutant(
        "t5-norm-after-residual",
        "t5-small",
        _T5_FEED_FORWARD_BODY,
        _T5_FEED_FORWARD_BODY.removeprefix(_T5_FEED_FORWARD_NORM)
        .replace("linear(normed", "linear(x")
        .replace("return x", _T5_FEED_FORWARD_NORM.replace("normed =", "x =").strip() + "\n    return x"),
        "norm-position",
        "encoder.block.0.layer.1.layer_norm.square",
    ),
    # --- feed-forward, residuals
    Mutant(
        "t5-feed-forward-not-normed",
        "t5-small",
        "wide = linear(normed, dense.at(first))",
        "wide = linear(x, dense.at(first))",
        "wrong-input",
        "encoder.block.0.layer.1.DenseReluDense.wi",
    ),
    Mutant(
        "t5-activation-missing",
        "t5-small",
        _T5_ACT,
        "wide",
        "activation-missing",
        "encoder.block.0.layer.1.DenseReluDense.act",
    ),
    Mutant(
        "t5-gelu",
        "t5-small",
        _T5_ACT,
        "F.gelu(wide)",
        "activation-other",
        "encoder.block.0.layer.1.DenseReluDense.act",
    ),
    Mutant(
        "t5-relu-squared",
        "t5-small",
        _T5_ACT,
        "F.relu(wide).square()",
        "activation-other",
        "encoder.block.0.layer.1.DenseReluDense.act",
    ),
    Mutant(
        "t5-leaky-relu",
        "t5-small",
        _T5_ACT,
        "F.leaky_relu(wide)",
        "activation-other",
        "encoder.block.0.layer.1.DenseReluDense.act",
    ),
    Mutant(
        "t5-feed-forward-dropout",
        "t5-small",
        _T5_ACT,
        "F.dropout(F.relu(wide), 0.1, training=True)",
        "dropout",
        "encoder.block.0.layer.1.DenseReluDense.act",
    ),
    Mutant(
        "t5-residual-missing",
        "t5-small",
        'inside("o", output)\n    x = x + output',
        'inside("o", output)\n    x = output',
        "residual-missing",
        "encoder.block.0.layer.0.residual",
    ),
    Mutant(
        "t5-residual-from-the-norm",
        "t5-small",
        'inside("o", output)\n    x = x + output',
        'inside("o", output)\n    x = normed + output',
        "residual-wrong",
        "encoder.block.0.layer.0.residual",
    ),
    Mutant(
        "t5-feed-forward-residual-missing",
        "t5-small",
        'inside("wo", output)\n    x = x + output',
        'inside("wo", output)\n    x = output',
        "residual-missing",
        "encoder.block.0.layer.1.residual",
    ),
    Mutant(
        "t5-feed-forward-residual-twice",
        "t5-small",
        'inside("wo", output)\n    x = x + output',
        'inside("wo", output)\n    x = x + x + output',
        "residual-scaled",
        "encoder.block.0.layer.1.residual",
    ),
    Mutant(
        "t5-residual-subtracted",
        "t5-small",
        'inside("o", output)\n    x = x + output',
        'inside("o", output)\n    x = x - output',
        "residual-scaled",
        "encoder.block.0.layer.0.residual",
    ),
    Mutant(
        "t5-cross-residual-from-encoder",
        "t5-small",
        'inside("o", output)\n    x = x + output',
        'inside("o", output)\n    x = (x if encoded is None else encoded) + output',
        "residual-wrong",
        "decoder.block.0.layer.1.residual",
    ),
    # --- blocks
    Mutant(
        "t5-encoder-feed-forward-of-first-block",
        "t5-small",
        'x = feed_forward(x, w.at("1"), config',
        'x = feed_forward(x, weights.at("block.0.layer.1"), config',
        "wrong-block-weights",
        "encoder.block.1.layer.1.layer_norm",
    ),
    Mutant(
        "t5-cross-attention-of-first-block",
        "t5-small",
        'across, w.at("1"), config',
        'across, body.at("block.0.layer.1"), config',
        "wrong-block-weights",
        "decoder.block.1.layer.1.layer_norm",
    ),
    Mutant(
        "t5-decoder-feed-forward-of-last-block",
        "t5-small",
        'x = feed_forward(x, w.at("2"), config',
        'x = feed_forward(x, body.at("block.2.layer.2"), config',
        "wrong-block-weights",
        "decoder.block.0.layer.2.layer_norm",
    ),
    # The part belongs to the encoder, and to another block.
    Mutant(
        "t5-decoder-self-attention-of-encoder",
        "t5-small",
        '"SelfAttention", looks, w.at("0"), config, attention, past',
        '"SelfAttention", looks, weights.at(f"encoder.block.{i}.layer.0"), config, attention, past',
        ("wrong-weight", "wrong-block-weights"),
        "decoder.block.0.layer.0.layer_norm",
    ),
    Mutant(
        "t5-encoder-backwards",
        "t5-small",
        "for i in range(config.num_layers):",
        "for i in reversed(range(config.num_layers)):",
        "block-order",
        "encoder.block.0.layer.0.layer_norm.square",
    ),
    Mutant(
        "t5-decoder-backwards",
        "t5-small",
        "for i in range(config.decoder_layers):",
        "for i in reversed(range(config.decoder_layers)):",
        "block-order",
        "decoder.block.0.layer.0.layer_norm.square",
    ),
    Mutant(
        "t5-encoder-last-block-skipped",
        "t5-small",
        "for i in range(config.num_layers):",
        "for i in range(config.num_layers - 1):",
        "block-skipped",
        "encoder.block.2.layer.0.layer_norm.square",
    ),
    Mutant(
        "t5-decoder-first-block-skipped",
        "t5-small",
        "for i in range(config.decoder_layers):",
        "for i in range(1, config.decoder_layers):",
        "block-skipped",
        "decoder.block.0.layer.0.layer_norm.square",
    ),
    # Half a block was left out: its feed-forward.
    Mutant(
        "t5-feed-forward-without-effect",
        "t5-small",
        _T5_FEED_FORWARD,
        'y = feed_forward(x, w.at("1"), config, t.at("1"))\n        x = x if i == 0 else y',
        "block-skipped",
        "encoder.block.1.layer.0.layer_norm.square",
    ),
    # Half a block ran twice: its feed-forward.
    Mutant(
        "t5-feed-forward-twice",
        "t5-small",
        _T5_FEED_FORWARD,
        (
            'x = feed_forward(x, w.at("1"), config, t.at("1"))\n'
            '        x = feed_forward(x, w.at("1"), config, NO_TAP) if i == 1 else x'
        ),
        "block-repeated",
        "encoder.block.2.layer.0.layer_norm.square",
    ),
    Mutant(
        "t5-encoder-block-twice",
        "t5-small",
        _T5_FEED_FORWARD,
        (
            'x = feed_forward(x, w.at("1"), config, t.at("1"))\n'
            "        if i == 0:\n"
            '            x, _ = attend(x, None, "SelfAttention", looks, w.at("0"), config, '
            "attention, None, NO_TAP)\n"
            '            x = feed_forward(x, w.at("1"), config, NO_TAP)'
        ),
        "block-repeated",
        "encoder.block.1.layer.0.layer_norm.square",
    ),
    # --- head
    Mutant(
        "t5-output-scale-missing",
        "t5-small",
        "scaled = x * config.d_model**-0.5",
        "scaled = x",
        "output-scale-missing",
        "decoder.scaled",
    ),
    Mutant(
        "t5-output-scale-by-head-width",
        "t5-small",
        "scaled = x * config.d_model**-0.5",
        "scaled = x * config.d_kv**-0.5",
        "output-scale-wrong",
        "decoder.scaled",
    ),
    Mutant(
        "t5-output-scale-without-root",
        "t5-small",
        "scaled = x * config.d_model**-0.5",
        "scaled = x / config.d_model",
        "output-scale-wrong",
        "decoder.scaled",
    ),
    Mutant(
        "t5-output-scale-times-root",
        "t5-small",
        "scaled = x * config.d_model**-0.5",
        "scaled = x * config.d_model**0.5",
        "output-scale-wrong",
        "decoder.scaled",
    ),
    Mutant(
        "t5-output-scale-divided",
        "t5-small",
        "scaled = x * config.d_model**-0.5",
        "scaled = x / config.d_model**0.5",
        "rounding",
        "decoder.scaled",
    ),
    Mutant(
        "t5-head-fresh",
        "t5-small",
        _T5_HEAD,
        'logits = F.linear(scaled, torch.randn_like(weights["shared.weight"]))',
        "untied-head",
        "lm_head",
    ),
    # The table's numbers read along the wrong axis: transposed, and not the table that it should be.
    Mutant(
        "t5-head-transposed",
        "t5-small",
        _T5_HEAD,
        'logits = F.linear(scaled, weights["shared.weight"].T.reshape(config.vocab_size, -1))',
        ("untied-head", "weight-transposed"),
        "lm_head",
    ),
    # The head was given what comes before the scaling: it reads unscaled output.
    Mutant(
        "t5-head-of-unscaled",
        "t5-small",
        _T5_HEAD,
        (
            'logits = F.linear(x, weights["lm_head.weight" if "lm_head.weight" in weights else '
            '"shared.weight"])'
        ),
        ("wrong-input", "output-scale-missing"),
        "lm_head",
    ),
    # --- decoding
    Mutant(
        "t5-cached-bias-from-the-start",
        "t5-small",
        "where[key - query :, None]",
        "where[:query, None]",
        "positions-not-advanced",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
        run="cached",
    ),
    Mutant(
        "t5-cached-mask-from-the-start",
        "t5-small",
        "order[key - query :, None]",
        "order[:query, None]",
        "mask-extra",
        "decoder.mask",
        file="t5_looks",
        run="cached",
    ),
    Mutant(
        "t5-cache-replaced",
        "t5-small",
        "past = past.then(key, value)",
        "past = KeysAndValues(key, value)",
        "cache-not-appended",
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    Mutant(
        "t5-cache-new-first",
        "t5-small",
        "torch.cat([self.key, key], dim=-2), torch.cat([self.value, value], dim=-2)",
        "torch.cat([key, self.key], dim=-2), torch.cat([value, self.value], dim=-2)",
        "cache-order",
        "decoder.block.0.layer.0.SelfAttention.key",
        file="cache",
        run="cached",
    ),
    Mutant(
        "t5-cache-blocks-backwards",
        "t5-small",
        "kept += [(own, cross)] if own and cross else []",
        "kept = [(own, cross), *kept] if own and cross else []",
        "cache-order",
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    Mutant(
        "t5-cache-key-value-swapped",
        "t5-small",
        "past = past.then(key, value)",
        "past = past.then(value, key)",
        "cache-mixed",
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    Mutant(
        "t5-cache-values-as-keys",
        "t5-small",
        "torch.cat([self.key, key], dim=-2)",
        "torch.cat([self.key, value], dim=-2)",
        "cache-mixed",
        "decoder.block.0.layer.0.SelfAttention.key",
        file="cache",
        run="cached",
    ),
    # Each attention finds the other one's keys and values: in the wrong place, and mixed up.
    Mutant(
        "t5-cache-own-and-encoders-swapped",
        "t5-small",
        "past, there = cache.blocks[i]",
        "there, past = cache.blocks[i]",
        ("cache-order", "cache-mixed"),
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    Mutant(
        "t5-cross-cache-key-value-swapped",
        "t5-small",
        "key, value = past.key, past.value  # the encoder's",
        "value, key = past.key, past.value  # the encoder's",
        "cache-mixed",
        "decoder.block.0.layer.1.EncDecAttention.product",
        run="cached",
    ),
    Mutant(
        "t5-cache-in-bfloat16",
        "t5-small",
        "past = past.then(key, value)",
        "past = past.then(key.bfloat16().float(), value.bfloat16().float())",
        "wrong-dtype",
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    Mutant(
        "t5-fused-by-hand",
        "t5-small",
        "return F.scaled_dot_product_attention(query, key, value, looks.mask, scale=1.0)",
        "return F.softmax(query @ key.mT + looks.mask, dim=-1) @ value",
        "rounding",
        "encoder.block.0.layer.0.SelfAttention.head_context",
        attention="sdpa",
    ),
)

# Edits that learners make and that change no number.
HARMLESS = (
    Mutant(
        "minilm-embedding-not-guarded",
        "minilm",
        "embedding = mean / length.clamp_min(1e-12)",
        "embedding = mean / length",
        "",
        "",
        equivalent="the mean of a text is never as short as 1e-12",
    ),
    Mutant(
        "minilm-dropout-off",
        "minilm",
        "    attention_mask = make_mask(",
        "    x = F.dropout(x, 0.1, training=False)\n    attention_mask = make_mask(",
        "",
        "",
        equivalent="dropout changes nothing outside training",
    ),
    Mutant(
        "gpt2-mask-of-one-prompt",
        "gpt2",
        'if attention == "sdpa" and token in (1, key) and bool(mask.all()):',
        'if bool(mask.all()) and attention == "sdpa" and token in (key, 1):',
        "",
        "",
        equivalent="the same three conditions in another order",
        attention="sdpa",
    ),
    Mutant(
        "gpt2-scale-off-switch",
        "gpt2",
        "scale = query.shape[-1] ** -0.5 if config.scale_attn_weights else 1.0",
        "scale = query.shape[-1] ** -0.5",
        "",
        "",
        equivalent="config.json does not switch the scale off",
    ),
    Mutant(
        "t5-bucket-at-the-border",
        "t5-small",
        "torch.where(distance < exact, distance, far)",
        "torch.where(distance <= exact, distance, far)",
        "",
        "",
        equivalent="at the border itself both formulas give the same bucket",
        file="t5_looks",
    ),
    Mutant(
        "t5-square-by-product",
        "t5-small",
        "square = x.pow(2)",
        "square = x * x",
        "",
        "",
        equivalent="a square is one product, rounded once",
    ),
)

FIRST: tuple[Mutant, ...] = (*MINILM, *GPT2, *T5, *HARMLESS)

# Rebuilds written in another way, with the same numbers.
REFACTORINGS: tuple[Mutant, ...] = (
    Mutant(
        "minilm-key-before-query",
        "minilm",
        (
            '    query = linear(x, weights.at("query"))  # [batch, token, width]\n'
            '    tap("query", query)\n'
            '    key = linear(x, weights.at("key"))  # [batch, token, width]\n'
            '    tap("key", key)\n'
        ),
        (
            '    key = linear(x, weights.at("key"))  # [batch, token, width]\n'
            '    tap("key", key)\n'
            '    query = linear(x, weights.at("query"))  # [batch, token, width]\n'
            '    tap("query", query)\n'
        ),
        "",
        "",
        equivalent="neither needs the other",
    ),
    Mutant(
        "minilm-query-key-value-in-a-loop",
        "minilm",
        (
            '    query = linear(x, weights.at("query"))  # [batch, token, width]\n'
            '    tap("query", query)\n'
            '    key = linear(x, weights.at("key"))  # [batch, token, width]\n'
            '    tap("key", key)\n'
            '    value = linear(x, weights.at("value"))  # [batch, token, width]\n'
            '    tap("value", value)\n'
        ),
        (
            '    query, key, value = (linear(x, weights.at(name)) for name in ("query", "key", '
            '"value"))\n'
            '    for name, part in (("value", value), ("key", key), ("query", query)):\n'
            "        tap(name, part)\n"
        ),
        "",
        "",
        equivalent="the same products, shown in another order",
    ),
    Mutant(
        "minilm-einsum-of-scores",
        "minilm",
        "query @ key.transpose(-1, -2)",
        'torch.einsum("bhqd,bhkd->bhqk", query, key)',
        "",
        "",
        equivalent="einsum makes the same batched product of it",
    ),
    Mutant(
        "minilm-positions-in-place",
        "minilm",
        "x = x + position  # [batch",
        "x += position  # [batch",
        "",
        "",
        equivalent="the sum is the same wherever it is written",
    ),
    Mutant(
        "minilm-mask-by-fill",
        "minilm",
        "torch.where(may_look, torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)",
        "torch.zeros(may_look.shape).masked_fill(~may_look, torch.finfo(x.dtype).min)",
        "",
        "",
        equivalent="the same two numbers in the same places",
    ),
    Mutant(
        "minilm-mask-by-comparison",
        "minilm",
        "mask.bool()[:, None, None, :]",
        "(mask == 1)[:, None, None, :]",
        "",
        "",
        equivalent="1 is the only number in the mask that is not 0",
    ),
    Mutant(
        "minilm-normalised-by-library",
        "minilm",
        (
            "    length: Tensor = torch.linalg.vector_norm(mean, dim=1, keepdim=True)  # [batch, "
            "1]\n"
            "    embedding = mean / length.clamp_min(1e-12)"
        ),
        "    embedding = F.normalize(mean, dim=1)",
        "",
        "",
        equivalent="the library's function does these two steps",
    ),
    Mutant(
        "minilm-sentence-before-pooler",
        "minilm",
        (
            '    pooled = pooler(x, weights.at("pooler"), tap.at("pooler")) if has_pooler else '
            "None\n"
            '    return Output(x, pooled, sentence(x, mask, tap.at("sentence")))'
        ),
        (
            '    embedding = sentence(x, mask, tap.at("sentence"))\n'
            '    pooled = pooler(x, weights.at("pooler"), tap.at("pooler")) if has_pooler else '
            "None\n"
            "    return Output(x, pooled, embedding)"
        ),
        "",
        "",
        equivalent="neither needs the other",
    ),
    Mutant(
        "minilm-heads-unflattened",
        "minilm",
        "x.view(*x.shape[:-1], heads, -1).transpose(1, 2)",
        "x.unflatten(-1, (heads, -1)).permute(0, 2, 1, 3)",
        "",
        "",
        equivalent="the same view in other words",
        file="ops",
    ),
    Mutant(
        "minilm-fused-softmax-renamed",
        "minilm",
        (
            "    head_context = mix(query, key, value, mask, tap)  # [batch, head, query, head "
            "width]\n"
            '    tap("head_context", head_context)\n'
            "    context = merge_heads(head_context)"
        ),
        (
            "    mixed = mix(query, key, value, mask, tap)  # [batch, head, query, head width]\n"
            '    tap("head_context", mixed)\n'
            "    context = merge_heads(mixed)"
        ),
        "",
        "",
        equivalent="a variable has another name",
        attention="sdpa",
    ),
    Mutant(
        "gpt2-product-renamed",
        "gpt2",
        (
            "    product = query @ key.transpose(-1, -2)  # [batch, head, query, key]\n"
            '    tap("product", product)\n'
            "    scaled = product * scale"
        ),
        (
            "    dots = query @ key.transpose(-1, -2)  # [batch, head, query, key]\n"
            '    tap("product", dots)\n'
            "    scaled = scale * dots"
        ),
        "",
        "",
        equivalent="a variable has another name, and factors change places",
    ),
    Mutant(
        "gpt2-split-for-chunk",
        "gpt2",
        "qkv.chunk(3, dim=-1)",
        "qkv.split(config.n_embd, dim=-1)",
        "",
        "",
        equivalent="three parts of the width are three equal parts",
    ),
    Mutant(
        "gpt2-matrix-transpose",
        "gpt2",
        "query @ key.transpose(-1, -2)",
        "torch.matmul(query, key.mT)",
        "",
        "",
        equivalent="the same product in other words",
    ),
    Mutant(
        "gpt2-softmax-method",
        "gpt2",
        "F.softmax(scores, dim=-1)",
        "scores.softmax(-1)",
        "",
        "",
        equivalent="the same softmax in other words",
    ),
    Mutant(
        "gpt2-residual-other-way-round",
        "gpt2",
        "x = attended + x",
        "x = x + attended",
        "",
        "",
        equivalent="a sum of two is rounded once, whichever comes first",
    ),
    Mutant(
        "gpt2-heads-merged-by-view",
        "gpt2",
        "x.transpose(1, 2).flatten(start_dim=2)",
        "x.transpose(1, 2).contiguous().view(x.shape[0], x.shape[2], -1)",
        "",
        "",
        equivalent="the same copy in other words",
        file="ops",
    ),
    Mutant(
        "gpt2-position-before-token",
        "gpt2",
        (
            '    which = F.embedding(token_ids, weights["wte.weight"])  # [batch, token, width]\n'
            '    tap("wte", which)\n'
            "    if positions is None:\n"
            "        positions = torch.arange(key - token, key).unsqueeze(0)  # [1, token], "
            "after those in the cache\n"
            '    where = F.embedding(positions, weights["wpe.weight"])  # [1, token, width]\n'
            '    tap("wpe", where)\n'
        ),
        (
            "    if positions is None:\n"
            "        positions = torch.arange(key)[None, key - token :]  # [1, token], after "
            "those in the cache\n"
            '    where = F.embedding(positions, weights["wpe.weight"])  # [1, token, width]\n'
            '    tap("wpe", where)\n'
            '    which = weights["wte.weight"][token_ids]  # [batch, token, width]\n'
            '    tap("wte", which)\n'
        ),
        "",
        "",
        equivalent="two tables, looked up in another order and by an index",
    ),
    Mutant(
        "gpt2-cached-mask-by-triangle",
        "gpt2",
        "not_later = order <= order[key - token :, None]",
        "not_later = torch.ones(key, key).tril().bool()[key - token :]",
        "",
        "",
        equivalent="the last rows of the whole triangle",
        run="cached",
    ),
    Mutant(
        "gpt2-cache-concatenated-on-axis-two",
        "gpt2",
        "torch.cat([self.key, key], dim=-2), torch.cat([self.value, value], dim=-2)",
        "torch.cat([self.key, key], dim=2), torch.cat([self.value, value], dim=2)",
        "",
        "",
        equivalent="of four axes the last but one is the third",
        run="cached",
        file="cache",
    ),
    Mutant(
        "gpt2-gelu-factors",
        "gpt2",
        "return half * gate",
        "return gate * half",
        "",
        "",
        equivalent="factors change places",
        file="ops",
    ),
    Mutant(
        "t5-value-before-key",
        "t5-small",
        _T5_KEY_VALUE,
        'value = linear(source, part.at("v"))\n        key = linear(source, part.at("k"))',
        "",
        "",
        equivalent="neither needs the other",
    ),
    Mutant(
        "t5-product-as-einsum",
        "t5-small",
        "query @ key.transpose(-1, -2)",
        'torch.einsum("bhqd,bhkd->bhqk", query, key)',
        "",
        "",
        equivalent="einsum makes the same batched product of it",
    ),
    Mutant(
        "t5-distances-by-index",
        "t5-small",
        "distance = where - where[key - query :, None]",
        "distance = where[None, :] - torch.arange(key - query, key)[:, None]",
        "",
        "",
        equivalent="the same distances",
        file="t5_looks",
    ),
    Mutant(
        "t5-mask-as-products",
        "t5-small",
        "looks.mask is None else biased + looks.mask",
        "looks.mask is None else looks.mask + biased",
        "",
        "",
        equivalent="a sum of two is rounded once, whichever comes first",
    ),
    Mutant(
        "t5-cached-cross-mask-first",
        "t5-small",
        (
            "    looks = make_looks(may_look_back(decoder_mask, batch, token, key, attention), "
            'bias, attention, tap, "")\n'
        ),
        (
            "    visible = may_look_back(decoder_mask, batch, token, key, attention)\n"
            '    looks = make_looks(visible, bias, attention, tap, "")\n'
        ),
        "",
        "",
        equivalent="an interim result has a name",
        run="cached",
    ),
    Mutant(
        "t5-fused-mask-without-copy",
        "t5-small",
        "Looks(bias, bias.contiguous())",
        "Looks(bias, bias.clone(memory_format=torch.contiguous_format))",
        "",
        "",
        equivalent="the same copy in other words",
        attention="sdpa",
        run="single",
        file="t5_looks",
    ),
)
