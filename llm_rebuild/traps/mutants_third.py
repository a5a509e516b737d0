"""The third set of mutants: mistakes that come from elsewhere. From other models (OPT, RoBERTa, LLaMA, Gemma,
GPT-J, GPT-NeoX, ALiBi, ALBERT, BART, Whisper), other libraries (TensorFlow, Keras, Mesh), blog posts, wrong
slices, wrong rows, half-made changes, operations in place and additions for safety's sake.

`first` was found by running. A mutant has several causes where two of the catalogue's sentences describe the
same numbers; the comment above it says why.
"""

from __future__ import annotations

from llm_rebuild.traps.mutants import Mutant

# Pieces of source that several mutants change.
_BERT_LOOK = "may_look = mask.bool()[:, None, None, :].expand(batch, 1, token, token)"
_BERT_REAL = "real = mask.unsqueeze(-1).expand(x.shape).to(x.dtype)"
_BERT_SCORES = "scores = scaled if mask is None else scaled + mask"
_BERT_BLOCK = "x = block(x, attention_mask, weights.at(path), config, attention, tap.at(path))"
_BERT_END = f"""        {_BERT_BLOCK}
    has_pooler = "pooler.dense.weight" in weights
    pooled = pooler(x, weights.at("pooler"), tap.at("pooler")) if has_pooler else None
    return Output(x, pooled, sentence(x, mask, tap.at("sentence")))"""
_BERT_POOLER = 'has_pooler = "pooler.dense.weight" in weights'
_BERT_LENGTH = "length: Tensor = torch.linalg.vector_norm(mean, dim=1, keepdim=True)"
_BERT_PRODUCT = "product = query @ key.transpose(-1, -2)"
_BERT_FUSED = (
    "F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=query.shape[-1] ** -0.5)"
)
_NORM = 'return F.layer_norm(x, x.shape[-1:], weights["weight"], weights["bias"], eps)'
_SOFTMAX = "probs = F.softmax(scores, dim=-1)"

MINILM = (
    # --- embeddings
    # The type of the ids is too narrow, so that other ids are looked up.
    Mutant(
        "minilm-ids-in-a-byte",
        "minilm",
        "word = F.embedding(token_ids,",
        "word = F.embedding(token_ids.to(torch.uint8).long(),",
        ("token-ids-wrong", "wrong-dtype"),
        "embeddings.word_embeddings",
    ),
    Mutant(
        "minilm-types-one-after-cls",
        "minilm",
        "types = torch.zeros_like(token_ids)",
        "types = torch.ones_like(token_ids).index_fill(1, torch.tensor([0]), 0)",
        "token-types-wrong",
        "embeddings.token_type_embeddings",
    ),
    Mutant(
        "minilm-types-averaged",
        "minilm",
        'token_type = F.embedding(types, weights["token_type_embeddings.weight"])',
        'token_type = weights["token_type_embeddings.weight"].mean(dim=0).expand_as(word)',
        "token-types-wrong",
        "embeddings.token_type_embeddings",
    ),
    # RoBERTa counts what is no padding, from its padding id plus 1: another start, and another way.
    Mutant(
        "minilm-positions-like-roberta",
        "minilm",
        "positions = torch.arange(token_ids.shape[1]).unsqueeze(0)",
        "positions = (token_ids != 0).long().cumsum(dim=1) * (token_ids != 0)",
        ("positions-shifted", "positions-wrong"),
        "embeddings.position_embeddings",
    ),
    Mutant(
        "minilm-embeddings-averaged",
        "minilm",
        "x = x + position  #",
        "x = (x + position) / 3  #",
        "embedding-scaled",
        "embeddings.sum",
    ),
    Mutant(
        "minilm-normed-before-positions",
        "minilm",
        "x = x + position  #",
        'x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps) + position  #',
        "norm-twice",
        "embeddings.sum",
    ),
    Mutant(
        "minilm-embedding-norm-eps",
        "minilm",
        'tap("sum", x)\n    x = layer_norm(x, weights.at("LayerNorm"), config.layer_norm_eps)',
        'tap("sum", x)\n    x = layer_norm(x, weights.at("LayerNorm"), 1e-3)',
        "norm-eps",
        "embeddings.LayerNorm",
    ),
    # --- norms
    Mutant(
        "minilm-norm-shift-then-stretch",
        "minilm",
        _NORM,
        'return (F.layer_norm(x, x.shape[-1:], eps=eps) + weights["bias"]) * weights["weight"]',
        "norm-affine-wrong",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-norm-stretch-like-gemma",
        "minilm",
        _NORM,
        'return F.layer_norm(x, x.shape[-1:], 1 + weights["weight"], weights["bias"], eps)',
        "norm-affine-wrong",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-norm-over-the-batch",
        "minilm",
        _NORM,
        'return (x - x.mean(dim=0)) / (x.var(dim=0) + eps).sqrt() * weights["weight"] + weights["bias"]',
        "norm-axis",
        "embeddings.LayerNorm",
        file="ops",
    ),
    Mutant(
        "minilm-normed-once-more-at-the-end",
        "minilm",
        _BERT_POOLER,
        _BERT_POOLER
        + '\n    last = weights.at("encoder.layer.2.output.LayerNorm")'
        + "\n    x = layer_norm(x, last, config.layer_norm_eps)",
        "norm-twice",
        "pooler.dense",
    ),
    # --- masks
    Mutant(
        "minilm-mask-of-the-first-row",
        "minilm",
        _BERT_LOOK,
        _BERT_LOOK.replace("mask.bool()[:,", "mask.bool()[:1,"),
        "mask-padding-missing",
        "mask",
    ),
    # Nothing here is causal, but the mask lies one token too far to the left.
    Mutant(
        "minilm-mask-one-token-early",
        "minilm",
        _BERT_LOOK,
        _BERT_LOOK.replace("mask.bool()", "F.pad(mask[:, 1:], (0, 1)).bool()"),
        ("mask-extra", "mask-off-by-one"),
        "mask",
    ),
    Mutant(
        "minilm-mask-hides-oneself",
        "minilm",
        _BERT_LOOK,
        _BERT_LOOK + " & ~torch.eye(token).bool()",
        "mask-extra",
        "mask",
    ),
    Mutant(
        "minilm-mask-window",
        "minilm",
        _BERT_LOOK,
        _BERT_LOOK + " & torch.ones(token, token).bool().triu(-2).tril(2)",
        "mask-extra",
        "mask",
    ),
    # Keys are masked as they should be, and queries besides.
    Mutant(
        "minilm-mask-both-sides",
        "minilm",
        _BERT_LOOK,
        _BERT_LOOK + " & mask.bool()[:, None, :, None]",
        ("mask-extra", "mask-direction"),
        "mask",
    ),
    Mutant(
        "minilm-mask-fill-of-half",
        "minilm",
        "torch.finfo(x.dtype).min)",
        "torch.finfo(torch.float16).min)",
        "mask-fill",
        "mask",
    ),
    Mutant(
        "minilm-mask-twice",
        "minilm",
        _BERT_SCORES,
        _BERT_SCORES + " + mask",
        "mask-fill",
        "encoder.layer.0.attention.self.scores",
    ),
    Mutant(
        "minilm-scores-clamped",
        "minilm",
        _BERT_SCORES,
        "scores = scaled if mask is None else (scaled + mask).clamp(min=-50.0)",
        "mask-fill",
        "encoder.layer.0.attention.self.scores",
    ),
    # In three of four heads nothing is masked, and padding is all that this model's mask hides.
    Mutant(
        "minilm-mask-on-one-head",
        "minilm",
        _BERT_SCORES,
        "scores = scaled if mask is None else torch.cat([scaled[:, :1] + mask, scaled[:, 1:]], dim=1)",
        ("mask-padding-missing", "mask-missing"),
        "encoder.layer.0.attention.self.scores",
    ),
    # The mask hides padding only, so a missing mask is missing padding.
    Mutant(
        "minilm-mask-not-in-block-one",
        "minilm",
        _BERT_BLOCK,
        _BERT_BLOCK.replace("attention_mask", "None if i == 1 else attention_mask"),
        ("mask-padding-missing", "mask-missing"),
        "encoder.layer.1.attention.self.scores",
    ),
    # --- attention
    Mutant(
        "minilm-key-without-bias",
        "minilm",
        'key = linear(x, weights.at("key"))',
        'key = F.linear(x, weights.at("key")["weight"])',
        "bias-missing",
        "encoder.layer.0.attention.self.key",
    ),
    Mutant(
        "minilm-query-bias-cut-short",
        "minilm",
        'query = linear(x, weights.at("query"))',
        'query = F.linear(x, weights.at("query")["weight"], F.pad(weights.at("query")["bias"][:-1], (0, 1)))',
        "bias-missing",
        "encoder.layer.0.attention.self.query",
    ),
    Mutant(
        "minilm-bias-again-with-residual",
        "minilm",
        "x = x + residual",
        'x = x + weights.at("dense")["bias"] + residual',
        "bias-wrong",
        "encoder.layer.0.attention.output.residual",
    ),
    Mutant(
        "minilm-attention-biased-by-distance",
        "minilm",
        _BERT_SCORES,
        "where = torch.arange(scaled.shape[-1])\n"
        + "    scaled = scaled - (where - where[:, None]).abs() * 0.5\n    "
        + _BERT_SCORES,
        "position-bias-extra",
        "encoder.layer.0.attention.self.scores",
    ),
    Mutant(
        "minilm-scale-by-number-of-heads",
        "minilm",
        "product * query.shape[-1] ** -0.5",
        "product * query.shape[1] ** -0.5",
        "scale-wrong",
        "encoder.layer.0.attention.self.scaled",
    ),
    Mutant(
        "minilm-keys-of-two-heads",
        "minilm",
        _BERT_PRODUCT,
        "product = query @ key[:, :2].repeat(1, 2, 1, 1).transpose(-1, -2)",
        "wrong-operand",
        "encoder.layer.0.attention.self.product",
    ),
    Mutant(
        "minilm-keys-normalised",
        "minilm",
        _BERT_PRODUCT,
        "product = query @ F.normalize(key, dim=-1).transpose(-1, -2)",
        "wrong-operand",
        "encoder.layer.0.attention.self.product",
    ),
    Mutant(
        "minilm-values-of-one-head",
        "minilm",
        "return probs @ value",
        "return probs @ value[:, :1]",
        "wrong-operand",
        "encoder.layer.0.attention.self.head_context",
    ),
    Mutant(
        "minilm-softmax-temperature",
        "minilm",
        _SOFTMAX,
        "probs = F.softmax(scores / 0.7, dim=-1)",
        "softmax-changed",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-softmax-over-batch",
        "minilm",
        _SOFTMAX,
        "probs = F.softmax(scores, dim=0)",
        "softmax-axis",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-softmax-in-double",
        "minilm",
        _SOFTMAX,
        "probs = F.softmax(scores.double(), dim=-1).float()",
        "rounding",
        "encoder.layer.0.attention.self.probs",
    ),
    Mutant(
        "minilm-fused-dropout",
        "minilm",
        _BERT_FUSED,
        _BERT_FUSED.replace("attn_mask=mask", "attn_mask=mask, dropout_p=0.1"),
        "dropout",
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
    ),
    # 1 and 0 are added, where True and False would have been: hardly anything is hidden.
    Mutant(
        "minilm-fused-mask-as-float",
        "minilm",
        _BERT_FUSED,
        _BERT_FUSED.replace("attn_mask=mask", "attn_mask=None if mask is None else mask.to(query.dtype)"),
        ("mask-fill", "mask-padding-missing"),
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
    ),
    Mutant(
        "minilm-fused-mask-true-is-hidden",
        "minilm",
        _BERT_FUSED,
        _BERT_FUSED.replace("attn_mask=mask", "attn_mask=None if mask is None else ~mask"),
        "mask-inverted",
        "encoder.layer.0.attention.self.head_context",
        attention="sdpa",
    ),
    # --- feed-forward, residuals, blocks
    Mutant(
        "minilm-gelu-sigmoid-rounded",
        "minilm",
        '"gelu": lambda x, tap: F.gelu(x),',
        '"gelu": lambda x, tap: x * torch.sigmoid(1.7 * x),',
        "gelu-sigmoid",
        "encoder.layer.0.intermediate.intermediate_act_fn",
        file="ops",
    ),
    # The tanh formula by hand, and with too few digits.
    Mutant(
        "minilm-gelu-from-memory",
        "minilm",
        '"gelu": lambda x, tap: F.gelu(x),',
        '"gelu": lambda x, tap: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.044 * x**3))),',
        ("gelu-tanh", "gelu-constant"),
        "encoder.layer.0.intermediate.intermediate_act_fn",
        file="ops",
    ),
    Mutant(
        "minilm-mish",
        "minilm",
        '"gelu": lambda x, tap: F.gelu(x),',
        '"gelu": lambda x, tap: F.mish(x),',
        "activation-other",
        "encoder.layer.0.intermediate.intermediate_act_fn",
        file="ops",
    ),
    Mutant(
        "minilm-residual-in-bfloat16",
        "minilm",
        "x = x + residual",
        "x = (x.bfloat16() + residual.bfloat16()).float()",
        "wrong-dtype",
        "encoder.layer.0.attention.output.residual",
    ),
    Mutant(
        "minilm-feed-forward-before-output-layer",
        "minilm",
        'wide = intermediate(x, weights.at("intermediate"), config, tap.at("intermediate"))',
        'wide = intermediate(attended, weights.at("intermediate"), config, tap.at("intermediate"))',
        "wrong-input",
        "encoder.layer.0.intermediate.dense",
    ),
    Mutant(
        "minilm-blocks-shared-like-albert",
        "minilm",
        _BERT_BLOCK,
        _BERT_BLOCK.replace("weights.at(path)", 'weights.at("encoder.layer.0")'),
        "wrong-block-weights",
        "encoder.layer.1.attention.self.query",
    ),
    # --- pooler and sentence
    Mutant(
        "minilm-pooler-second-token",
        "minilm",
        "dense = linear(x[:, 0],",
        "dense = linear(x[:, 1],",
        "pooler-token",
        "pooler.dense",
    ),
    Mutant(
        "minilm-pooler-gelu-like-electra",
        "minilm",
        "pooled = torch.tanh(dense)",
        "pooled = F.gelu(dense)",
        "activation-other",
        "pooler.activation",
    ),
    Mutant(
        "minilm-pool-mask-of-the-first-row",
        "minilm",
        _BERT_REAL,
        _BERT_REAL.replace("mask.", "mask[:1]."),
        "pool-padding",
        "sentence.masked",
    ),
    Mutant(
        "minilm-pool-without-cls",
        "minilm",
        _BERT_REAL,
        _BERT_REAL + ".index_fill(1, torch.tensor([0]), 0.0)",
        "pool-other",
        "sentence.masked",
    ),
    Mutant(
        "minilm-pool-weighted-by-position",
        "minilm",
        "masked = x * real",
        "masked = x * real * torch.arange(1, x.shape[1] + 1)[None, :, None]",
        "pool-other",
        "sentence.masked",
    ),
    Mutant(
        "minilm-pool-count-plus-one",
        "minilm",
        "count = real.sum(dim=1).clamp(min=1e-9)",
        "count = real.sum(dim=1) + 1",
        "pool-other",
        "sentence.count",
    ),
    Mutant(
        "minilm-pool-root-of-count",
        "minilm",
        "mean = total / count",
        "mean = total / count.sqrt()",
        "pool-other",
        "sentence.mean",
    ),
    Mutant(
        "minilm-pool-mean-and-cls",
        "minilm",
        "mean = total / count",
        "mean = (total / count + x[:, 0]) / 2",
        "pool-other",
        "sentence.mean",
    ),
    # Tokens at length 1 before the mean: another pooling, and another place to normalise.
    Mutant(
        "minilm-tokens-normalised",
        "minilm",
        "masked = x * real",
        "masked = F.normalize(x, dim=-1) * real",
        ("pool-other", "normalised-wrong"),
        "sentence.masked",
    ),
    Mutant(
        "minilm-pool-block-before-last",
        "minilm",
        _BERT_END,
        _BERT_END.replace("x = block", "before, x = x, block").replace("sentence(x", "sentence(before"),
        "wrong-input",
        "sentence.masked",
    ),
    Mutant(
        "minilm-normalised-by-largest",
        "minilm",
        _BERT_LENGTH,
        _BERT_LENGTH.replace("mean,", 'mean, ord=float("inf"),'),
        "normalised-wrong",
        "sentence.embedding",
    ),
    Mutant(
        "minilm-normalised-by-whole-batch",
        "minilm",
        _BERT_LENGTH,
        "length: Tensor = torch.linalg.vector_norm(mean)",
        "normalised-wrong",
        "sentence.embedding",
    ),
    Mutant(
        "minilm-normalised-by-deviation",
        "minilm",
        "embedding = mean / length.clamp_min(1e-12)",
        "embedding = (mean - mean.mean(dim=1, keepdim=True)) / mean.std(dim=1, keepdim=True)",
        "normalised-wrong",
        "sentence.embedding",
    ),
    Mutant(
        "minilm-normalised-by-softmax",
        "minilm",
        "embedding = mean / length.clamp_min(1e-12)",
        "embedding = mean.softmax(dim=1)",
        "normalised-wrong",
        "sentence.embedding",
    ),
    Mutant(
        "minilm-embedding-kept-in-half",
        "minilm",
        "embedding = mean / length.clamp_min(1e-12)",
        "embedding = (mean / length.clamp_min(1e-12)).half().float()",
        "wrong-dtype",
        "sentence.embedding",
    ),
)

THIRD: tuple[Mutant, ...] = (*MINILM,)
