"""The second set of mutants, which only measures.

Written from the sources of the rebuilds and from mistakes that people reported who ported BERT, GPT-2 and T5,
without a look at the diagnosis and its hypotheses; and the diagnosis is never tuned on it. So a share of
causes named here says more than the same share of the first set.

A quarter are odd or double forms of a mistake: one block only, one row only, one weight only, a right sum
over a wrong count. Where a mutant has two causes, the numbers or the words of the catalogue allow both.
"""

from __future__ import annotations

from llm_rebuild.traps.mutants import Mutant

MINILM = (
    # The original embedding has another pad id: only the padded row changes.
    Mutant(
        "minilm-second-pad-id-one",
        "minilm",
        'word = F.embedding(token_ids, weights["word_embeddings.weight"])',
        'word = F.embedding(token_ids.masked_fill(token_ids == 0, 1), weights["word_embeddings.weight"])',
        "token-ids-wrong",
        "embeddings.word_embeddings",
    ),
    # Padding is taken for the second sentence.
    Mutant(
        "minilm-second-padding-is-type-one",
        "minilm",
        "types = torch.zeros_like(token_ids)",
        "types = (token_ids == 0).long()",
        "token-types-wrong",
        "embeddings.token_type_embeddings",
    ),
    # RoBERTa's way: positions start behind the padding's own, at 2.
    Mutant(
        "minilm-second-positions-from-two",
        "minilm",
        "positions = torch.arange(token_ids.shape[1]).unsqueeze(0)",
        "positions = torch.arange(2, 2 + token_ids.shape[1]).unsqueeze(0)",
        "positions-shifted",
        "embeddings.position_embeddings",
        run="single",
    ),
    # Also RoBERTa's: real tokens are counted from 1, padding stays at 0.
    Mutant(
        "minilm-second-positions-counted-by-mask",
        "minilm",
        "positions = torch.arange(token_ids.shape[1]).unsqueeze(0)",
        "positions = (token_ids != 0).long().cumsum(dim=1) * (token_ids != 0).long()",
        "positions-wrong",
        "embeddings.position_embeddings",
    ),
    Mutant(
        "minilm-second-type-and-position-first",
        "minilm",
        "    x = x + position  # [batch, token, width]",
        "    x = word + (token_type + position)  # [batch, token, width]",
        "rounding",
        "embeddings.sum",
    ),
    # The LayerNorm of the annotated transformer: Tensor.std divides by n - 1.
    Mutant(
        "minilm-second-annotated-layer-norm",
        "minilm",
        'return F.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], eps)',
        "mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)\n"
        '    return weights["weight"] * (x - mean) / (std + eps) + weights["bias"]',
        "norm-variance",
        "embeddings.LayerNorm",
        file="ops",
    ),
    # nn.LayerNorm([token, width]), as some tutorials have it.
    Mutant(
        "minilm-second-norm-over-tokens-too",
        "minilm",
        'return F.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], eps)',
        'return F.layer_norm(x, x.shape[1:], None, None, eps) * weights["weight"] + weights["bias"]',
        "norm-axis",
        "embeddings.LayerNorm",
        file="ops",
    ),
    # Old files call them gamma and beta; which was which?
    Mutant(
        "minilm-second-gamma-beta-swapped",
        "minilm",
        '    tap("sum", x)\n    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)',
        '    tap("sum", x)\n'
        '    gamma, beta = weights["LayerNorm.bias"], weights["LayerNorm.weight"]\n'
        "    x = F.layer_norm(x, x.shape[-1:], gamma, beta, config.layer_norm_eps)",
        "norm-affine-wrong",
        "embeddings.LayerNorm",
    ),
    # The embedding's norm has the right epsilon, those of the blocks torch's default.
    Mutant(
        "minilm-second-default-eps-in-blocks",
        "minilm",
        '    tap("residual", x)\n    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)',
        '    tap("residual", x)\n    x = layer_norm(x, weights.at("LayerNorm"), 1e-5)',
        "norm-eps",
        "encoder.layer.0.attention.output.LayerNorm",
    ),
    # The mask's numbers without the factor of -10000: padding gets one more instead of much less.
    Mutant(
        "minilm-second-mask-adds-one",
        "minilm",
        "added = torch.where(may_look, torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)",
        "added = 1.0 - may_look.to(x.dtype)",
        "mask-fill",
        "mask",
    ),
    Mutant(
        "minilm-second-queries-masked",
        "minilm",
        "may_look = mask.bool()[:, None, None, :].expand",
        "may_look = mask.bool()[:, None, :, None].expand",
        "mask-direction",
        "mask",
    ),
    # nn.MultiheadAttention's key_padding_mask is True for what is hidden, the kernel's mask for what is not.
    Mutant(
        "minilm-second-kernel-mask-other-meaning",
        "minilm",
        '    if attention == "sdpa":\n        return may_look',
        '    if attention == "sdpa":\n        return ~may_look',
        "mask-inverted",
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
    ),
    Mutant(
        "minilm-second-value-with-bias-of-key",
        "minilm",
        'value = linear(x, weights.at("value"))',
        'value = F.linear(x, weights["value.weight"], weights["key.bias"])',
        "bias-wrong",
        "encoder.layer.0.attention.self.value",
    ),
    Mutant(
        "minilm-second-key-weight-as-in-numpy",
        "minilm",
        'key = linear(x, weights.at("key"))',
        'key = x @ weights["key.weight"] + weights["key.bias"]',
        "weight-transposed",
        "encoder.layer.0.attention.self.key",
        run="single",
    ),
    # The number of heads of the model that everybody writes about.
    Mutant(
        "minilm-second-twelve-heads",
        "minilm",
        "heads = config.num_attention_heads",
        "heads = 12",
        "heads-count",
        "encoder.layer.0.attention.self.product",
    ),
    # Query and key are split as they should be, the value is not.
    Mutant(
        "minilm-second-only-value-split-wrongly",
        "minilm",
        "query, key, value = (split_heads(t, heads) for t in (query, key, value))",
        "query, key = split_heads(query, heads), split_heads(key, heads)\n"
        "    value = value.view(len(value), heads, value.shape[1], -1)",
        "heads-split",
        "encoder.layer.0.attention.self.head_context",
    ),
    # Written `k @ q.T`: rows and columns of the scores change places.
    Mutant(
        "minilm-second-key-times-query",
        "minilm",
        "product = query @ key.transpose(-1, -2)",
        "product = key @ query.transpose(-1, -2)",
        "query-key-swapped",
        "encoder.layer.0.attention.self.product",
    ),
    # shape[-2] is the number of tokens.
    Mutant(
        "minilm-second-scaled-by-tokens",
        "minilm",
        "scaled = product * query.shape[-1] ** -0.5",
        "scaled = product * query.shape[-2] ** -0.5",
        "scale-wrong",
        "encoder.layer.0.attention.self.scaled",
        run="single",
    ),
    # Hidden scores become 0, as if a product with the mask could hide anything from a softmax.
    Mutant(
        "minilm-second-scores-times-mask",
        "minilm",
        "scores = scaled if mask is None else scaled + mask",
        "scores = scaled if mask is None else scaled * (mask == 0)",
        "mask-fill",
        "encoder.layer.0.attention.self.scores",
    ),
    Mutant(
        "minilm-second-probs-masked-not-renormalised",
        "minilm",
        "scores = scaled if mask is None else scaled + mask  # [batch, head, query, key]\n"
        '    tap("scores", scores)\n'
        "    probs = F.softmax(scores, dim=-1)",
        "scores = scaled  # [batch, head, query, key]\n"
        '    tap("scores", scores)\n'
        "    probs = F.softmax(scores, dim=-1) * (1.0 if mask is None else (mask == 0))",
        "mask-after-softmax",
        "encoder.layer.0.attention.self.scores",
    ),
    Mutant(
        "minilm-second-softmax-in-bfloat16",
        "minilm",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(scores, dim=-1, dtype=torch.bfloat16).to(scores.dtype)",
        "wrong-dtype",
        "encoder.layer.0.attention.self.probs",
    ),
    # Dimension 1 is the token's only before the heads are split.
    Mutant(
        "minilm-second-softmax-over-heads",
        "minilm",
        "probs = F.softmax(scores, dim=-1)",
        "probs = F.softmax(scores, dim=1)",
        "softmax-axis",
        "encoder.layer.0.attention.self.probs",
        run="single",
    ),
    # All of this model's masks are of padding, so two entries fit.
    Mutant(
        "minilm-second-kernel-without-mask",
        "minilm",
        "attn_mask=mask, scale=query.shape[-1] ** -0.5)",
        "attn_mask=None, scale=query.shape[-1] ** -0.5)",
        ("mask-missing", "mask-padding-missing"),
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
    ),
    # shape[1] is the number of heads by now.
    Mutant(
        "minilm-second-kernel-scaled-by-heads",
        "minilm",
        "attn_mask=mask, scale=query.shape[-1] ** -0.5)",
        "attn_mask=mask, scale=query.shape[1] ** -0.5)",
        "scale-wrong",
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
    ),
    Mutant(
        "minilm-second-heads-merged-number-by-number",
        "minilm",
        "return x.transpose(1, 2).flatten(start_dim=2)",
        "return x.permute(0, 2, 3, 1).flatten(start_dim=2)",
        "heads-merged",
        "encoder.layer.0.attention.self.context",
        file="ops",
    ),
    # model.eval() was forgotten.
    Mutant(
        "minilm-second-dropout-behind-dense",
        "minilm",
        '    x = linear(x, weights.at("dense"))  # [batch, token, width]\n',
        '    x = F.dropout(linear(x, weights.at("dense")), 0.1)  # [batch, token, width]\n',
        "dropout",
        "encoder.layer.0.attention.output.dense",
    ),
    # Normalised before the addition: half a step towards pre-LN.
    Mutant(
        "minilm-second-norm-before-addition",
        "minilm",
        "    x = x + residual  # [batch, token, width]\n"
        '    tap("residual", x)\n'
        '    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n'
        '    tap("LayerNorm", x)\n',
        '    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)\n'
        '    tap("LayerNorm", x)\n'
        "    x = x + residual  # [batch, token, width]\n"
        '    tap("residual", x)\n',
        "norm-position",
        "encoder.layer.0.attention.output.residual",
    ),
    # The second residual comes from the block's input, past the attention.
    Mutant(
        "minilm-second-residual-from-block-input",
        "minilm",
        'x = add_and_norm(attended, x, weights.at("attention.output"), config, tap.at("attention.output"))\n'
        '    wide = intermediate(x, weights.at("intermediate"), config, tap.at("intermediate"))',
        'y = add_and_norm(attended, x, weights.at("attention.output"), config, tap.at("attention.output"))\n'
        '    wide = intermediate(y, weights.at("intermediate"), config, tap.at("intermediate"))',
        "residual-wrong",
        "encoder.layer.0.output.residual",
    ),
    # Attention and feed-forward side by side: the feed-forward never sees what the attention found.
    Mutant(
        "minilm-second-feed-forward-reads-block-input",
        "minilm",
        'x = add_and_norm(attended, x, weights.at("attention.output"), config, tap.at("attention.output"))\n'
        '    wide = intermediate(x, weights.at("intermediate"), config, tap.at("intermediate"))',
        'wide = intermediate(x, weights.at("intermediate"), config, tap.at("intermediate"))\n'
        '    path = "attention.output"\n'
        "    x = add_and_norm(attended, x, weights.at(path), config, tap.at(path))",
        "wrong-input",
        "encoder.layer.0.intermediate.dense",
    ),
    # √2 to five decimals.
    Mutant(
        "minilm-second-root-of-two-short",
        "minilm",
        '"gelu": lambda x, tap: F.gelu(x),',
        '"gelu": lambda x, tap: x * 0.5 * (1.0 + torch.erf(x / 1.41421)),',
        "gelu-constant",
        "encoder.layer.0.intermediate.intermediate_act_fn",
        file="ops",
    ),
    # CLIP's "quick GELU".
    Mutant(
        "minilm-second-quick-gelu",
        "minilm",
        '"gelu": lambda x, tap: F.gelu(x),',
        '"gelu": lambda x, tap: x * torch.sigmoid(1.702 * x),',
        "gelu-sigmoid",
        "encoder.layer.0.intermediate.intermediate_act_fn",
        file="ops",
        run="single",
    ),
    # A slip in a table of names: one bias of block 1 is block 0's.
    Mutant(
        "minilm-second-one-bias-of-the-block-before",
        "minilm",
        'weights = below("bert", weights)  #',
        'weights = below("bert", weights)\n'
        '    bias = weights["encoder.layer.0.intermediate.dense.bias"]\n'
        '    weights = Weights({**weights.peek(), "encoder.layer.1.intermediate.dense.bias": bias})  #',
        "wrong-block-weights",
        "encoder.layer.1.intermediate.dense",
    ),
    # Read as "the hidden states, of which the last is not a block's".
    Mutant(
        "minilm-second-last-block-left-out",
        "minilm",
        "for i in range(config.num_hidden_layers):",
        "for i in range(config.num_hidden_layers - 1):",
        "block-skipped",
        "encoder.layer.2.attention.self.query",
    ),
    # The pooler was given the mean of all tokens.
    Mutant(
        "minilm-second-pooler-reads-mean",
        "minilm",
        'dense = linear(x[:, 0], weights.at("dense"))',
        'dense = linear(x.mean(dim=1), weights.at("dense"))',
        "pooler-token",
        "pooler.dense",
    ),
    Mutant(
        "minilm-second-pooler-without-tanh",
        "minilm",
        "pooled = torch.tanh(dense)",
        "pooled = dense",
        "activation-missing",
        "pooler.activation",
    ),
    # Padding is summed in, but only real tokens are counted.
    Mutant(
        "minilm-second-padding-summed-not-counted",
        "minilm",
        "masked = x * real  #",
        "masked = x  #",
        "pool-padding",
        "sentence.masked",
    ),
    # Two of them are [CLS] and [SEP], which are no words; but they are in the sum.
    Mutant(
        "minilm-second-special-tokens-not-counted",
        "minilm",
        "count = real.sum(dim=1).clamp(min=1e-9)",
        "count = (real.sum(dim=1) - 2).clamp(min=1e-9)",
        "pool-other",
        "sentence.count",
    ),
    # A mean over the padded length of what was masked.
    Mutant(
        "minilm-second-divided-by-padded-length",
        "minilm",
        "mean = total / count",
        "mean = total / x.shape[1]",
        "pool-other",
        "sentence.mean",
    ),
    # Along the batch: every number by its neighbours in the other sentences.
    Mutant(
        "minilm-second-length-over-batch",
        "minilm",
        "torch.linalg.vector_norm(mean, dim=1, keepdim=True)",
        "torch.linalg.vector_norm(mean, dim=0, keepdim=True)",
        "normalised-wrong",
        "sentence.embedding",
    ),
    # The root was forgotten.
    Mutant(
        "minilm-second-divided-by-squared-length",
        "minilm",
        "torch.linalg.vector_norm(mean, dim=1, keepdim=True)",
        "mean.pow(2).sum(dim=1, keepdim=True)",
        "normalised-wrong",
        "sentence.embedding",
        run="single",
    ),
)

GPT2 = (
    # Ids shifted right, as the labels of training are.
    Mutant(
        "gpt2-second-ids-shifted-right",
        "gpt2",
        'which = F.embedding(token_ids, weights["wte.weight"])',
        'which = F.embedding(token_ids.roll(1, dims=1), weights["wte.weight"])',
        "token-ids-wrong",
        "wte",
    ),
    # The way of `generate`, which the forward pass itself does not go: a row starts at its first real token.
    Mutant(
        "gpt2-second-positions-without-padding",
        "gpt2",
        "positions = torch.arange(key - token, key).unsqueeze(0)",
        "positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, key - token :]",
        "positions-wrong",
        "wpe",
        run="cached",
    ),
    # The cache counts the tokens before the last one.
    Mutant(
        "gpt2-second-position-of-the-last-token-again",
        "gpt2",
        "positions = torch.arange(key - token, key).unsqueeze(0)",
        "positions = torch.arange(max(key - token - 1, 0), max(key - 1, token)).unsqueeze(0)",
        "positions-not-advanced",
        "wpe",
        run="cached",
    ),
    Mutant(
        "gpt2-second-tokens-scaled-positions-not",
        "gpt2",
        "x = which + where",
        "x = which * config.n_embd**0.5 + where",
        "embedding-scaled",
        "embeddings",
    ),
    # The padding mask is shifted by one: the padded row's last real token is hidden, no other row changes.
    # Two causes: the catalogue's off-by-one speaks of the causal mask; a token too many is hidden either way.
    Mutant(
        "gpt2-second-padding-starts-too-early",
        "gpt2",
        "may_look = not_later & mask.bool()[:, None, None, :]",
        "may_look = not_later & mask.roll(-1, dims=1).bool()[:, None, None, :]",
        ("mask-off-by-one", "mask-extra"),
        "mask",
    ),
    # The first row's mask for all rows.
    Mutant(
        "gpt2-second-mask-of-the-first-row",
        "gpt2",
        "may_look = not_later & mask.bool()[:, None, None, :]",
        "may_look = not_later & mask[:1].bool()[:, None, None, :]",
        "mask-padding-missing",
        "mask",
    ),
    # torch.tril without its `diagonal`: with a cache the new token gets the first one's row, and one key.
    Mutant(
        "gpt2-second-causal-mask-from-the-top-left",
        "gpt2",
        "not_later = order <= order[key - token :, None]",
        "not_later = order <= order[:token, None]",
        "mask-extra",
        "mask",
        run="cached",
    ),
    # A famous slip of the sign: 1e-9 for -1e9.
    Mutant(
        "gpt2-second-mask-adds-next-to-nothing",
        "gpt2",
        "torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)",
        "torch.zeros((), dtype=x.dtype), 1e-9)",
        "mask-fill",
        "mask",
    ),
    # With the fused kernel "causal" seemed enough.
    Mutant(
        "gpt2-second-kernel-without-padding-mask",
        "gpt2",
        '    if attention == "sdpa":\n        return may_look',
        '    if attention == "sdpa":\n        return None',
        "mask-padding-missing",
        "h.0.attn.head_context",
        attention="sdpa",
        run="cached",
    ),
    # `is_causal` is False if nobody sets it.
    Mutant(
        "gpt2-second-kernel-not-told-causal",
        "gpt2",
        "mask, is_causal=causal, scale=scale)",
        "mask, scale=scale)",
        "mask-causal-missing",
        "h.0.attn.head_context",
        attention="sdpa",
        run="single",
    ),
    # GPT-1's side of the norm, in the second half only.
    Mutant(
        "gpt2-second-sum-normalised-for-good",
        "gpt2",
        "    x = attended + x  # [batch, token, width]\n"
        '    tap("attn.residual", x)\n'
        '    normed = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)  # [batch, token, width]',
        "    x = attended + x  # [batch, token, width]\n"
        '    tap("attn.residual", x)\n'
        '    x = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)\n'
        "    normed = x  # [batch, token, width]",
        # The feed-forward reads what it should; what is added back is what was normalised.
        ("norm-position", "residual-wrong"),
        "h.0.mlp.residual",
    ),
    Mutant(
        "gpt2-second-norm-of-the-other-half",
        "gpt2",
        'normed = layer_norm(x, weights.at("ln_1"), config.layer_norm_epsilon)',
        'normed = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)',
        "wrong-weight",
        "h.0.ln_1",
    ),
    # A habit from Llama, though the shift is still added.
    Mutant(
        "gpt2-second-root-mean-square-norm",
        "gpt2",
        'return F.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], eps)',
        'return F.rms_norm(x, x.shape[-1:], weights["weight"], eps) + weights["bias"]',
        "norm-mean-kept",
        "h.0.ln_1",
        file="ops",
    ),
    # Megatron's and GPT-NeoX's layout.
    Mutant(
        "gpt2-second-fused-product-by-heads",
        "gpt2",
        "query, key, value = (split_heads(part, config.n_head) for part in qkv.chunk(3, dim=-1))",
        "query, key, value = split_heads(qkv, config.n_head).chunk(3, dim=-1)",
        "qkv-interleaved",
        "h.0.attn.head_context",
        attention="sdpa",
        run="single",
    ),
    Mutant(
        "gpt2-second-value-before-key",
        "gpt2",
        "query, key, value = (split_heads(part",
        "query, value, key = (split_heads(part",
        "qkv-order",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-second-divided-by-head-width",
        "gpt2",
        "scale = query.shape[-1] ** -0.5 if config.scale_attn_weights",
        "scale = 1.0 / query.shape[-1] if config.scale_attn_weights",
        "scale-wrong",
        "h.0.attn.scaled",
    ),
    # A switch for other models, on. Two causes: a factor too many is also a wrong factor.
    Mutant(
        "gpt2-second-scaled-by-depth",
        "gpt2",
        "    if config.scale_attn_by_inverse_layer_idx:\n",
        "    if config.scale_attn_weights:\n",
        ("scale-wrong", "scale-extra"),
        "h.1.attn.scaled",
    ),
    Mutant(
        "gpt2-second-query-scaled-already",
        "gpt2",
        "product = query @ key.transpose(-1, -2)",
        "product = (query * scale) @ key.transpose(-1, -2)",
        "scale-extra",
        "h.0.attn.product",
    ),
    Mutant(
        "gpt2-second-divided-by-root",
        "gpt2",
        "scaled = product * scale",
        "scaled = product / query.shape[-1] ** 0.5",
        "rounding",
        "h.0.attn.scaled",
        run="single",
    ),
    Mutant(
        "gpt2-second-masked-then-scaled",
        "gpt2",
        "scores = scaled if mask is None else scaled + mask",
        "scores = scaled if mask is None else (product + mask) * scale",
        "scale-order",
        "h.0.attn.scores",
    ),
    # As the official code had it for years.
    Mutant(
        "gpt2-second-filled-with-minus-ten-thousand",
        "gpt2",
        "scores = scaled if mask is None else scaled + mask",
        "scores = scaled if mask is None else torch.where(mask == 0, scaled, -1e4)",
        "mask-fill",
        "h.0.attn.scores",
    ),
    # "Attention is off by one": a softmax that may look at nothing.
    Mutant(
        "gpt2-second-softmax-plus-one",
        "gpt2",
        "probs = F.softmax(scores, dim=-1)",
        "probs = scores.exp() / (1.0 + scores.exp().sum(dim=-1, keepdim=True))",
        "softmax-changed",
        "h.0.attn.probs",
    ),
    Mutant(
        "gpt2-second-shares-of-keys",
        "gpt2",
        "return probs @ value",
        "return probs @ key",
        "wrong-operand",
        "h.0.attn.head_context",
        run="single",
    ),
    Mutant(
        "gpt2-second-heads-not-moved-back",
        "gpt2",
        "return x.transpose(1, 2).flatten(start_dim=2)",
        "return x.reshape(x.shape[0], x.shape[2], -1)",
        "heads-merged",
        "h.0.attn.context",
        file="ops",
        attention="sdpa",
    ),
    # Three of the four kinds of Conv1D stood in the list of weights to transpose; this one is square.
    Mutant(
        "gpt2-second-square-weight-not-transposed",
        "gpt2",
        'output = conv1d(context, weights.at("c_proj"))',
        'output = F.linear(context, weights["c_proj.weight"], weights["c_proj.bias"])',
        "weight-transposed",
        "h.0.attn.c_proj",
    ),
    # The paper scales these weights at initialisation, once, and not in every pass.
    Mutant(
        "gpt2-second-residual-scaled-by-depth",
        "gpt2",
        "x = attended + x",
        "x = attended * (2 * config.n_layer) ** -0.5 + x",
        "residual-scaled",
        "h.0.attn.residual",
    ),
    # GPT-J's block: both halves read the same input.
    Mutant(
        "gpt2-second-halves-side-by-side",
        "gpt2",
        '    x = attended + x  # [batch, token, width]\n    tap("attn.residual", x)\n'
        '    normed = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)',
        '    before, x = x, attended + x  # [batch, token, width]\n    tap("attn.residual", x)\n'
        '    normed = layer_norm(before, weights.at("ln_2"), config.layer_norm_epsilon)',
        "wrong-input",
        "h.0.ln_2",
    ),
    Mutant(
        "gpt2-second-last-block-without-second-norm",
        "gpt2",
        'normed = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)',
        "last = layer == config.n_layer - 1\n"
        '    normed = x if last else layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)',
        "norm-missing",
        "h.2.ln_2",
    ),
    # One zero too few.
    Mutant(
        "gpt2-second-cube-ten-times-too-strong",
        "gpt2",
        "small_cube = 0.044715 * cube",
        "small_cube = 0.44715 * cube",
        "gelu-constant",
        "h.0.mlp.act.small_cube",
        file="ops",
    ),
    # A bracket in the wrong place: √2 / π.
    Mutant(
        "gpt2-second-root-of-two-over-pi",
        "gpt2",
        "scaled = math.sqrt(2.0 / math.pi) * steeper",
        "scaled = math.sqrt(2.0) / math.pi * steeper",
        "gelu-constant",
        "h.0.mlp.act.scaled",
        file="ops",
        run="single",
    ),
    # nn.GELU() without `approximate`; its steps are then never shown.
    Mutant(
        "gpt2-second-torch-gelu",
        "gpt2",
        '"gelu_new": gelu_new,',
        '"gelu_new": lambda x, tap: F.gelu(x),',
        "gelu-exact",
        "h.0.mlp.act.half",
        file="ops",
    ),
    # The right formula in torch's own kernel.
    Mutant(
        "gpt2-second-torch-tanh-gelu",
        "gpt2",
        '"gelu_new": gelu_new,',
        '"gelu_new": lambda x, tap: F.gelu(x, approximate="tanh"),',
        "rounding",
        "h.0.mlp.act.half",
        file="ops",
        run="single",
    ),
    Mutant(
        "gpt2-second-narrowed-without-bias",
        "gpt2",
        'output = conv1d(bent, weights.at("c_proj"))',
        'output = bent @ weights["c_proj.weight"]',
        "bias-missing",
        "h.0.mlp.c_proj",
    ),
    Mutant(
        "gpt2-second-normed-input-added-back",
        "gpt2",
        'x = x + feed_forward(normed, weights.at("mlp"), config, tap.at("mlp"))',
        'x = normed + feed_forward(normed, weights.at("mlp"), config, tap.at("mlp"))',
        "residual-wrong",
        "h.0.mlp.residual",
        run="cached",
    ),
    Mutant(
        "gpt2-second-last-residual-forgotten",
        "gpt2",
        'x = x + feed_forward(normed, weights.at("mlp"), config, tap.at("mlp"))',
        "kept = x if layer < config.n_layer - 1 else 0.0\n"
        '    x = kept + feed_forward(normed, weights.at("mlp"), config, tap.at("mlp"))',
        "residual-missing",
        "h.2.mlp.residual",
    ),
    # The last block runs once more; only its second run is watched.
    Mutant(
        "gpt2-second-last-block-twice",
        "gpt2",
        "        x, seen = block(x, attention_mask",
        "        if i == config.n_layer - 1:\n"
        "            x, _ = block(x, attention_mask, body.at(path), config, i, attention, past, NO_TAP)\n"
        "        x, seen = block(x, attention_mask",
        "block-repeated",
        "h.2.ln_1",
    ),
    Mutant(
        "gpt2-second-outer-blocks-exchanged",
        "gpt2",
        "    for i in range(config.n_layer):\n        past, path",
        "    for i in (2, 1, 0):\n        past, path",
        "block-order",
        "h.0.ln_1",
        run="single",
    ),
    # Keys come before the older ones, values after them.
    Mutant(
        "gpt2-second-new-key-in-front",
        "gpt2",
        "torch.cat([self.key, key], dim=-2)",
        "torch.cat([key, self.key], dim=-2)",
        "cache-order",
        "h.0.attn.key",
        file="cache",
        run="cached",
    ),
    Mutant(
        "gpt2-second-key-kept-as-value",
        "gpt2",
        "seen = past.then(key, value) if past else None",
        "seen = past.then(key, key) if past else None",
        "cache-mixed",
        "h.0.attn.value",
        run="cached",
    ),
    # Every block goes on from block 0's keys and values.
    Mutant(
        "gpt2-second-cache-of-block-zero",
        "gpt2",
        "past, path = cache.blocks[i] if cache else None",
        "past, path = cache.blocks[0] if cache else None",
        "cache-order",
        "h.1.attn.key",
        run="cached",
    ),
    Mutant(
        "gpt2-second-cache-in-half",
        "gpt2",
        "seen = past.then(key, value) if past else None",
        "seen = past.then(key.half().float(), value.half().float()) if past else None",
        "wrong-dtype",
        "h.0.attn.key",
        run="cached",
    ),
    # BERT's epsilon, in the one norm that stands outside the blocks.
    Mutant(
        "gpt2-second-final-norm-eps",
        "gpt2",
        'x = layer_norm(x, body.at("ln_f"), config.layer_norm_epsilon)',
        'x = layer_norm(x, body.at("ln_f"), 1e-12)',
        "norm-eps",
        "ln_f",
    ),
    # The last hidden state is normalised already.
    Mutant(
        "gpt2-second-final-norm-again",
        "gpt2",
        "    logits = F.linear(kept_tokens, head)",
        '    kept_tokens = layer_norm(kept_tokens, body.at("ln_f"), config.layer_norm_epsilon)\n'
        "    logits = F.linear(kept_tokens, head)",
        "norm-twice",
        "lm_head",
    ),
    # A head of its own, as initialised.
    Mutant(
        "gpt2-second-head-never-tied",
        "gpt2",
        "    logits = F.linear(kept_tokens, head)",
        "    logits = F.linear(kept_tokens, torch.randn_like(head) * 0.02)",
        "untied-head",
        "lm_head",
        run="single",
    ),
    Mutant(
        "gpt2-second-head-in-half",
        "gpt2",
        "    logits = F.linear(kept_tokens, head)",
        "    logits = F.linear(kept_tokens.half(), head.half()).float()",
        "wrong-dtype",
        "lm_head",
    ),
)

T5 = (
    # Marian multiplies, T5 does not; here one side does.
    Mutant(
        "t5-second-answer-scaled-text-not",
        "t5-small",
        '    tap(f"{side}.embed_tokens", x)',
        '    x = x * x.shape[-1] ** 0.5 if side == "decoder" else x\n    tap(f"{side}.embed_tokens", x)',
        "embedding-scaled",
        "decoder.embed_tokens",
    ),
    # The answer was not shifted right: every token is asked for itself.
    Mutant(
        "t5-second-answer-not-shifted",
        "t5-small",
        'x = embed(decoder_ids, "decoder", weights, tap)',
        'x = embed(decoder_ids.roll(-1, dims=1), "decoder", weights, tap)',
        "token-ids-wrong",
        "decoder.embed_tokens",
    ),
    # The encoder's kind of buckets for both.
    Mutant(
        "t5-second-decoder-looks-both-ways",
        "t5-small",
        "bias = position_bias(token, key, False, body.at(BIAS)",
        "bias = position_bias(token, key, True, body.at(BIAS)",
        "buckets-direction",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    Mutant(
        "t5-second-encoder-half-for-what-came-before",
        "t5-small",
        "(distance > 0).long() * buckets",
        "(distance < 0).long() * buckets",
        "buckets-sign",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    # Only the decoder's sign: everything that came before falls into bucket 0.
    Mutant(
        "t5-second-decoder-distances-clamped-away",
        "t5-small",
        "distance = -torch.clamp(distance, max=0)",
        "distance = torch.clamp(distance, min=0)",
        "buckets-sign",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
        run="single",
    ),
    # Both directions share the first half.
    Mutant(
        "t5-second-half-the-buckets-never-used",
        "t5-small",
        "first, distance = (distance > 0).long() * buckets, distance.abs()",
        "distance = distance.abs()",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    Mutant(
        "t5-second-logarithm-of-the-whole-limit",
        "t5-small",
        "/ math.log(farthest / exact) *",
        "/ math.log(farthest) *",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
        run="single",
    ),
    # Shaw's clipped distances: no logarithm at all.
    Mutant(
        "t5-second-far-distances-clipped",
        "t5-small",
        "far = torch.clamp(exact + far.long(), max=buckets - 1)",
        "far = torch.clamp(distance, max=buckets - 1)",
        "buckets-count",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
    ),
    # With a cache the new token is taken for the first one.
    Mutant(
        "t5-second-distance-from-the-start",
        "t5-small",
        "distance = where - where[key - query :, None]",
        "distance = where - where[:query, None]",
        "positions-not-advanced",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
        file="t5_looks",
        run="cached",
    ),
    Mutant(
        "t5-second-bias-axes-exchanged",
        "t5-small",
        "return table.permute(2, 0, 1).unsqueeze(0)",
        "return table.permute(2, 1, 0).unsqueeze(0)",
        "position-bias-wrong",
        "encoder.block.0.layer.0.SelfAttention.biased",
        file="t5_looks",
    ),
    # A reshape where a permutation belongs.
    Mutant(
        "t5-second-bias-reshaped",
        "t5-small",
        "return table.permute(2, 0, 1).unsqueeze(0)",
        "return table.reshape(1, -1, query, key)",
        "position-bias-wrong",
        "encoder.biased_mask",
        file="t5_looks",
        attention="sdpa",
    ),
    Mutant(
        "t5-second-decoder-has-the-encoders-table",
        "t5-small",
        "bias = position_bias(token, key, False, body.at(BIAS)",
        'bias = position_bias(token, key, False, weights.at("encoder").at(BIAS)',
        "position-bias-wrong",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    ),
    # The table stands in block 0 of the file, so only block 0 of the decoder uses it.
    Mutant(
        "t5-second-bias-in-block-zero-only",
        "t5-small",
        'x, own = attend(x, None, "SelfAttention", looks, w.at("0")',
        "seen = looks if i == 0 else looks._replace(bias=torch.zeros_like(bias))\n"
        '        x, own = attend(x, None, "SelfAttention", seen, w.at("0")',
        "position-bias-missing",
        "decoder.block.1.layer.0.SelfAttention.biased",
    ),
    # As the official code had it until 2020.
    Mutant(
        "t5-second-cross-attention-knows-distances",
        "t5-small",
        "nearness = torch.zeros(1, config.num_heads, token, mask.shape[1])",
        "nearness = position_bias(token, mask.shape[1], True, body.at(BIAS), config, NO_TAP)",
        "position-bias-extra",
        "decoder.block.0.layer.1.EncDecAttention.biased",
        run="single",
    ),
    # After which the softmax has nothing left either; but the numbers are others.
    Mutant(
        "t5-second-mask-of-minus-infinity",
        "t5-small",
        "lowest = torch.finfo(bias.dtype).min",
        'lowest = float("-inf")',
        "mask-fill",
        "encoder.mask",
        file="t5_looks",
    ),
    Mutant(
        "t5-second-one-minus-mask",
        "t5-small",
        "may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, token)",
        "may_look = None if bool(mask.all()) else (mask < 1)[:, None, None, :].expand(-1, 1, token, token)",
        "mask-inverted",
        "encoder.mask",
    ),
    # A decoder's mask for the encoder.
    Mutant(
        "t5-second-encoder-reads-from-left-to-right",
        "t5-small",
        "may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, token)",
        "may_look = may_look_back(mask, len(mask), token, token, attention)",
        "mask-extra",
        "encoder.mask",
    ),
    Mutant(
        "t5-second-decoder-sees-what-comes",
        "t5-small",
        "not_later = (order <= order[key - query :, None])[None, None]",
        "not_later = (order >= order[key - query :, None])[None, None]",
        "mask-direction",
        "decoder.mask",
        file="t5_looks",
        run="single",
    ),
    Mutant(
        "t5-second-kernel-decoder-sees-all",
        "t5-small",
        "not_later = (order <= order[key - query :, None])[None, None]",
        "not_later = (order <= key)[None, None, None].expand(1, 1, query, key)",
        "mask-causal-missing",
        "decoder.biased_mask",
        file="t5_looks",
        attention="sdpa",
    ),
    # The text's padding is masked in the first pass, and forgotten in the steps after it.
    Mutant(
        "t5-second-cross-mask-in-the-first-pass-only",
        "t5-small",
        "may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :].expand(-1, 1, token, -1)",
        "may_look = None\n"
        "    if not cache and not bool(mask.all()):\n"
        "        may_look = mask.bool()[:, None, None, :].expand(-1, 1, token, -1)",
        "mask-padding-missing",
        "decoder.cross_mask",
        run="cached",
    ),
    # LayerNorm's variance under an RMS norm: the mean counts no longer, but is not subtracted.
    Mutant(
        "t5-second-variance-for-mean-square",
        "t5-small",
        "mean_square = square.mean(-1, keepdim=True)",
        "mean_square = x.var(-1, keepdim=True, unbiased=False)",
        "norm-variance",
        "encoder.block.0.layer.0.layer_norm.mean_square",
    ),
    Mutant(
        "t5-second-norm-over-tokens",
        "t5-small",
        "mean_square = square.mean(-1, keepdim=True)",
        "mean_square = square.mean(1, keepdim=True)",
        "norm-axis",
        "encoder.block.0.layer.0.layer_norm.mean_square",
        run="single",
    ),
    Mutant(
        "t5-second-eps-of-bert",
        "t5-small",
        "above_zero = mean_square + config.layer_norm_epsilon",
        "above_zero = mean_square + 1e-12",
        "norm-eps",
        "encoder.block.0.layer.0.layer_norm.above_zero",
    ),
    # Added to the root instead of below it.
    Mutant(
        "t5-second-eps-behind-the-root",
        "t5-small",
        "    above_zero = mean_square + config.layer_norm_epsilon  # [batch, token, 1]\n"
        '    tap("above_zero", above_zero)\n'
        "    inverse_root = torch.rsqrt(above_zero)",
        "    above_zero = mean_square  # [batch, token, 1]\n"
        '    tap("above_zero", above_zero)\n'
        "    inverse_root = 1.0 / (torch.sqrt(above_zero) + config.layer_norm_epsilon)",
        "norm-eps-place",
        "encoder.block.0.layer.0.layer_norm.above_zero",
    ),
    Mutant(
        "t5-second-one-over-root",
        "t5-small",
        "inverse_root = torch.rsqrt(above_zero)",
        "inverse_root = 1.0 / torch.sqrt(above_zero)",
        "rounding",
        "encoder.block.0.layer.0.layer_norm.inverse_root",
    ),
    # Back to half precision behind the norm, in a model that runs in float32.
    Mutant(
        "t5-second-norm-leaves-in-half",
        "t5-small",
        "normed = x * inverse_root",
        "normed = (x * inverse_root).half().float()",
        "wrong-dtype",
        "encoder.block.0.layer.0.layer_norm.normed",
    ),
    # Gemma's way: 1 plus the weight.
    Mutant(
        "t5-second-stretched-by-one-more",
        "t5-small",
        'stretched = weights["weight"] * normed',
        'stretched = (1.0 + weights["weight"]) * normed',
        "norm-affine-wrong",
        "encoder.block.0.layer.0.layer_norm",
    ),
    Mutant(
        "t5-second-query-before-the-norm",
        "t5-small",
        'query = linear(normed, part.at("q"))',
        'query = linear(x, part.at("q"))',
        "wrong-input",
        "encoder.block.0.layer.0.SelfAttention.q",
    ),
    # Keys and values made by each other's weights.
    Mutant(
        "t5-second-key-and-value-weights-exchanged",
        "t5-small",
        'key, value = linear(source, part.at("k")), linear(source, part.at("v"))',
        'key, value = linear(source, part.at("v")), linear(source, part.at("k"))',
        "wrong-weight",
        "encoder.block.0.layer.0.SelfAttention.k",
    ),
    # Keys of the text, values of the answer.
    Mutant(
        "t5-second-cross-values-of-the-answer",
        "t5-small",
        'key, value = linear(source, part.at("k")), linear(source, part.at("v"))',
        'key, value = linear(source, part.at("k")), linear(normed, part.at("v"))',
        "cross-attention-source",
        "decoder.block.0.layer.1.EncDecAttention.v",
    ),
    # The decoder is handed what the encoder's last norm was given. The norm is there, but nobody reads it.
    # Two causes: it is what cross-attention reads, and it is another tensor than the one that belongs there.
    Mutant(
        "t5-second-encoder-handed-over-unnormalised",
        "t5-small",
        'return rms_norm(x, weights.at("final_layer_norm"), config, tap.at("final_layer_norm"))',
        'rms_norm(x, weights.at("final_layer_norm"), config, tap.at("final_layer_norm"))\n    return x',
        ("wrong-input", "cross-attention-source"),
        "decoder.block.0.layer.1.EncDecAttention.k",
    ),
    Mutant(
        "t5-second-twice-the-heads",
        "t5-small",
        "return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)",
        "return x.view(*x.shape[:-1], heads * 2, -1).transpose(1, 2)",
        "heads-count",
        "encoder.block.0.layer.0.SelfAttention.product",
        file="ops",
        run="single",
    ),
    # The kernel scales by itself when it is not told not to.
    Mutant(
        "t5-second-kernel-scales",
        "t5-small",
        "looks.mask, scale=1.0)",
        "looks.mask)",
        "scale-extra",
        "encoder.block.0.layer.0.SelfAttention.head_context",
        attention="sdpa",
    ),
    # The kernel takes one tensor for mask and bias; without a mask it was given none.
    Mutant(
        "t5-second-kernel-without-bias",
        "t5-small",
        "return Looks(bias, bias.contiguous())",
        "return Looks(bias, None)",
        "position-bias-missing",
        "encoder.block.0.layer.0.SelfAttention.head_context",
        file="t5_looks",
        attention="sdpa",
        run="single",
    ),
    # The paper's "unscaled" read as "multiplied out later".
    Mutant(
        "t5-second-bias-scaled-along",
        "t5-small",
        "biased = product + looks.bias",
        "biased = (product + looks.bias) * query.shape[-1] ** -0.5",
        "scale-extra",
        "encoder.block.0.layer.0.SelfAttention.biased",
    ),
    # A reshape to the wanted shape where a transpose belongs: it is not square, so something had to be done.
    Mutant(
        "t5-second-output-weight-reshaped",
        "t5-small",
        'output = linear(context, part.at("o"))',
        'output = context @ part["o.weight"].reshape(context.shape[-1], -1)',
        "weight-transposed",
        "encoder.block.0.layer.0.SelfAttention.o",
    ),
    Mutant(
        "t5-second-cross-attention-without-residual",
        "t5-small",
        '    inside("o", output)\n    x = x + output',
        '    inside("o", output)\n    x = output if crossing else x + output',
        "residual-missing",
        "decoder.block.0.layer.1.residual",
    ),
    Mutant(
        "t5-second-normed-input-added-back",
        "t5-small",
        '    inside("wo", output)\n    x = x + output',
        '    inside("wo", output)\n    x = normed + output',
        "residual-wrong",
        "encoder.block.0.layer.1.residual",
    ),
    # T5 1.1's activation, without its second branch.
    Mutant(
        "t5-second-activation-of-the-successor",
        "t5-small",
        '"relu": lambda x, tap: F.relu(x),',
        '"relu": lambda x, tap: F.gelu(x, approximate="tanh"),',
        "activation-other",
        "encoder.block.0.layer.1.DenseReluDense.act",
        file="ops",
    ),
    Mutant(
        "t5-second-dropout-inside",
        "t5-small",
        'output = linear(bent, dense.at("wo"))',
        'output = linear(F.dropout(bent, 0.1), dense.at("wo"))',
        "dropout",
        "encoder.block.0.layer.1.DenseReluDense.wo",
    ),
    # Numbered from the wrong end of a list: the feed-forward is the next block's, the attention its own.
    Mutant(
        "t5-second-feed-forward-of-the-next-block",
        "t5-small",
        '        x = feed_forward(x, w.at("1"), config, t.at("1"))',
        "        after = (i + 1) % config.num_layers\n"
        '        x = feed_forward(x, weights.at(f"block.{after}.layer.1"), config, t.at("1"))',
        "wrong-block-weights",
        "encoder.block.0.layer.1.layer_norm",
    ),
    # One weight of one block is its neighbour's.
    Mutant(
        "t5-second-one-weight-of-the-next-block",
        "t5-small",
        "    encoded = None if cache else encode(",
        '    wo = "decoder.block.{}.layer.2.DenseReluDense.wo.weight"\n'
        "    weights = Weights({**weights.peek(), wo.format(1): weights[wo.format(2)]})\n"
        "    encoded = None if cache else encode(",
        "wrong-block-weights",
        "decoder.block.1.layer.2.DenseReluDense.wo",
    ),
    Mutant(
        "t5-second-encoder-starts-at-block-one",
        "t5-small",
        "for i in range(config.num_layers):",
        "for i in range(1, config.num_layers):",
        "block-skipped",
        "encoder.block.0.layer.0.layer_norm.square",
        run="single",
    ),
    Mutant(
        "t5-second-decoder-from-the-top",
        "t5-small",
        "for i in range(config.decoder_layers):",
        "for i in reversed(range(config.decoder_layers)):",
        "block-order",
        "decoder.block.0.layer.0.layer_norm.square",
    ),
    # The encoder's keys for values and its values for keys, once they come from the cache.
    Mutant(
        "t5-second-cross-cache-exchanged",
        "t5-small",
        "            past = past.then(key, value)\n            key, value = past.key, past.value",
        "            past = past.then(value, key) if crossing else past.then(key, value)\n"
        "            key, value = (past.value, past.key) if crossing else (past.key, past.value)",
        "cache-mixed",
        "decoder.block.0.layer.1.EncDecAttention.product",
        run="cached",
    ),
    # A block reads what the block before it kept, and block 0 what the last one did.
    Mutant(
        "t5-second-cache-of-the-block-before",
        "t5-small",
        "past, there = cache.blocks[i] if cache",
        "past, there = cache.blocks[i - 1] if cache",
        "cache-order",
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    Mutant(
        "t5-second-cache-overwritten",
        "t5-small",
        "past = past.then(key, value)",
        "past = KeysAndValues(key, value)",
        "cache-not-appended",
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    # The answer's and the text's keys and values change drawers.
    Mutant(
        "t5-second-cache-drawers-exchanged",
        "t5-small",
        "kept += [(own, cross)] if own",
        "kept += [(cross, own)] if own",
        "cache-order",
        "decoder.block.0.layer.0.SelfAttention.key",
        run="cached",
    ),
    # The encoder's last norm stands for both.
    Mutant(
        "t5-second-final-norm-of-the-encoder",
        "t5-small",
        'x = rms_norm(x, body.at("final_layer_norm"), config, tap.at("final_layer_norm"))',
        'x = rms_norm(x, weights.at("encoder.final_layer_norm"), config, tap.at("final_layer_norm"))',
        "wrong-weight",
        "decoder.final_layer_norm",
    ),
    Mutant(
        "t5-second-decoder-without-final-norm",
        "t5-small",
        '    x = rms_norm(x, body.at("final_layer_norm"), config, tap.at("final_layer_norm"))\n',
        "",
        "norm-missing",
        "decoder.final_layer_norm.square",
        run="single",
    ),
    # The head's width for the model's.
    Mutant(
        "t5-second-output-scaled-by-head-width",
        "t5-small",
        "scaled = x * config.d_model**-0.5",
        "scaled = x * config.d_kv**-0.5",
        "output-scale-wrong",
        "decoder.scaled",
    ),
    # Multiplied by the root instead of divided.
    Mutant(
        "t5-second-output-scaled-up",
        "t5-small",
        "scaled = x * config.d_model**-0.5",
        "scaled = x * config.d_model**0.5",
        "output-scale-wrong",
        "decoder.scaled",
        run="cached",
    ),
    # The scaled output is there, and the head reads the one before.
    Mutant(
        "t5-second-head-reads-the-unscaled",
        "t5-small",
        "logits = F.linear(scaled, weights[",
        "logits = F.linear(x, weights[",
        "output-scale-missing",
        "lm_head",
    ),
)

SECOND: tuple[Mutant, ...] = MINILM + GPT2 + T5

# Two mistakes at once, the first by data flow first.
SECOND_PAIRS: tuple[tuple[str, str], ...] = (
    ("minilm-second-norm-over-tokens-too", "minilm-second-dropout-behind-dense"),
    ("minilm-second-type-and-position-first", "minilm-second-heads-merged-number-by-number"),
    ("minilm-second-gamma-beta-swapped", "minilm-second-last-block-left-out"),
    ("minilm-second-twelve-heads", "minilm-second-only-value-split-wrongly"),
    ("minilm-second-scores-times-mask", "minilm-second-default-eps-in-blocks"),
    ("minilm-second-feed-forward-reads-block-input", "minilm-second-length-over-batch"),
    ("minilm-second-pad-id-one", "minilm-second-probs-masked-not-renormalised"),
    ("minilm-second-annotated-layer-norm", "minilm-second-mask-adds-one"),
    ("minilm-second-key-times-query", "minilm-second-pooler-reads-mean"),
    ("minilm-second-positions-counted-by-mask", "minilm-second-root-of-two-short"),
    ("minilm-second-padding-is-type-one", "minilm-second-padding-summed-not-counted"),
    ("minilm-second-queries-masked", "minilm-second-one-bias-of-the-block-before"),
    ("minilm-second-key-weight-as-in-numpy", "minilm-second-softmax-over-heads"),
    ("minilm-second-scaled-by-tokens", "minilm-second-divided-by-squared-length"),
    ("minilm-second-positions-from-two", "minilm-second-quick-gelu"),
    ("gpt2-second-narrowed-without-bias", "gpt2-second-last-block-without-second-norm"),
    ("gpt2-second-halves-side-by-side", "gpt2-second-torch-gelu"),
    ("gpt2-second-query-scaled-already", "gpt2-second-softmax-plus-one"),
    ("gpt2-second-tokens-scaled-positions-not", "gpt2-second-root-mean-square-norm"),
    ("gpt2-second-filled-with-minus-ten-thousand", "gpt2-second-last-residual-forgotten"),
    ("gpt2-second-final-norm-eps", "gpt2-second-final-norm-again"),
    ("gpt2-second-mask-of-the-first-row", "gpt2-second-residual-scaled-by-depth"),
    ("gpt2-second-norm-of-the-other-half", "gpt2-second-divided-by-head-width"),
    ("gpt2-second-square-weight-not-transposed", "gpt2-second-scaled-by-depth"),
    ("gpt2-second-masked-then-scaled", "gpt2-second-cube-ten-times-too-strong"),
    ("gpt2-second-mask-adds-next-to-nothing", "gpt2-second-head-in-half"),
    ("gpt2-second-position-of-the-last-token-again", "gpt2-second-cache-of-block-zero"),
    ("gpt2-second-positions-without-padding", "gpt2-second-key-kept-as-value"),
    ("gpt2-second-new-key-in-front", "gpt2-second-normed-input-added-back"),
    ("gpt2-second-causal-mask-from-the-top-left", "gpt2-second-cache-in-half"),
    ("gpt2-second-divided-by-root", "gpt2-second-shares-of-keys"),
    ("gpt2-second-torch-tanh-gelu", "gpt2-second-head-never-tied"),
    ("gpt2-second-outer-blocks-exchanged", "gpt2-second-head-never-tied"),
    ("t5-second-key-and-value-weights-exchanged", "t5-second-answer-scaled-text-not"),
    ("t5-second-eps-of-bert", "t5-second-bias-scaled-along"),
    ("t5-second-bias-axes-exchanged", "t5-second-cross-values-of-the-answer"),
    ("t5-second-bias-in-block-zero-only", "t5-second-head-reads-the-unscaled"),
    ("t5-second-half-the-buckets-never-used", "t5-second-answer-not-shifted"),
    ("t5-second-eps-behind-the-root", "t5-second-norm-leaves-in-half"),
    ("t5-second-far-distances-clipped", "t5-second-one-weight-of-the-next-block"),
    ("t5-second-encoder-reads-from-left-to-right", "t5-second-encoder-handed-over-unnormalised"),
    ("t5-second-query-before-the-norm", "t5-second-decoder-looks-both-ways"),
    ("t5-second-one-over-root", "t5-second-cross-attention-without-residual"),
    ("t5-second-normed-input-added-back", "t5-second-decoder-has-the-encoders-table"),
    ("t5-second-stretched-by-one-more", "t5-second-output-scaled-by-head-width"),
    ("t5-second-decoder-sees-what-comes", "t5-second-cross-attention-knows-distances"),
    ("t5-second-logarithm-of-the-whole-limit", "t5-second-norm-over-tokens"),
    ("t5-second-encoder-starts-at-block-one", "t5-second-decoder-without-final-norm"),
    ("t5-second-cache-drawers-exchanged", "t5-second-output-scaled-up"),
    ("t5-second-cross-mask-in-the-first-pass-only", "t5-second-cache-of-the-block-before"),
    ("t5-second-distance-from-the-start", "t5-second-cross-cache-exchanged"),
    ("t5-second-bias-reshaped", "t5-second-kernel-decoder-sees-all"),
)
