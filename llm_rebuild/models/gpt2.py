"""GPT-2 from token ids to the scores of the next token, rebuilt from its weight file.

Axes     batch   prompts that run together       head        one of 12 attention heads
         token   a position in the prompt        head width  64 = width / heads
         width   768 numbers that describe a token
         wide    3072, inside the feed-forward   vocabulary  50257 possible next tokens
         query   a token that looks              key         a token that is looked at
Sources  Radford et al. (2019), GPT-2. Weights: openai-community/gpt2. Order of operations as in
         transformers 5.23 models/gpt2/modeling_gpt2.py, because float addition does not associate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import NO_TAP, Checkpoint, Tap
from llm_rebuild.errors import InputError
from llm_rebuild.models.cache import Cache, KeysAndValues
from llm_rebuild.models.gpt2_config import Config
from llm_rebuild.models.ops import (
    ACTIVATIONS,
    below,
    gelu_new_checkpoints,
    layer_norm,
    merge_heads,
    split_heads,
)
from llm_rebuild.weights import Weights

BLOCK, ATTN, MLP = "h.{layer}", "h.{layer}.attn", "h.{layer}.mlp"
VECTORS, WIDE = "[batch, token, width]", "[batch, token, wide]"
SCORES, HEADS = "[batch, head, query, key]", "[batch, head, query, head width]"
KEYS = "[batch, head, key, head width]"
EAGER, SDPA = frozenset({"eager"}), frozenset({"sdpa"})  # the fused kernel never shows its scores
CACHE = frozenset({"cache"})  # keys and values are kept for the next step
Mask = Tensor | None  # [batch, 1, query, key]; None: the kernel knows by itself
Past = KeysAndValues | None  # what a block has seen before; None: nothing is kept

# Every interim tensor, in the order in which it comes to be.
CHECKPOINTS = (
    Checkpoint("wte", VECTORS, "which token it is"),
    Checkpoint("wpe", "[1, token, width]", "where it stands"),
    Checkpoint("embeddings", VECTORS, "the two added: the input of block 0", ": add[0]"),
    Checkpoint("mask", "[batch, 1, query, key]", "0, or the lowest float", "where[0]", EAGER),
    Checkpoint(f"{BLOCK}.ln_1", VECTORS, "normalised, before the attention"),
    Checkpoint(f"{ATTN}.c_attn", "[batch, token, 3 × width]", "query, key and value side by side"),
    Checkpoint(f"{ATTN}.key", KEYS, "keys of all tokens so far", "cat[0]", CACHE),
    Checkpoint(f"{ATTN}.value", KEYS, "values of all tokens so far", "cat[1]", CACHE),
    Checkpoint(f"{ATTN}.product", SCORES, "query times key", "matmul[0]", EAGER),
    Checkpoint(f"{ATTN}.scaled", SCORES, "times 1/√(head width)", "mul[0]", EAGER),
    Checkpoint(f"{ATTN}.scores", SCORES, "masked: what enters the softmax", "into softmax[0]", EAGER),
    Checkpoint(f"{ATTN}.probs", SCORES, "how much each token looks where", "softmax[0]", EAGER),
    Checkpoint(f"{ATTN}.head_context", HEADS, "values by these shares", "matmul[1]", EAGER),
    Checkpoint(f"{ATTN}.head_context", HEADS, "values by attention", "sdpa[0]", SDPA),
    Checkpoint(f"{ATTN}.context", VECTORS, "heads merged", "into c_proj"),
    Checkpoint(f"{ATTN}.c_proj", VECTORS, "heads mixed"),
    Checkpoint(f"{ATTN}.residual", VECTORS, "plus the block's input", f"{BLOCK}: add[0]"),
    Checkpoint(f"{BLOCK}.ln_2", VECTORS, "normalised, before the feed-forward"),
    Checkpoint(f"{MLP}.c_fc", WIDE, "widened"),
    *gelu_new_checkpoints(f"{MLP}.act", WIDE),
    Checkpoint(f"{MLP}.act", WIDE, "bent"),
    Checkpoint(f"{MLP}.c_proj", VECTORS, "narrowed"),
    Checkpoint(f"{MLP}.residual", VECTORS, "added back: the block's output", f"{BLOCK}: returned"),
    Checkpoint("ln_f", VECTORS, "normalised a last time"),
    Checkpoint("lm_head", "[batch, token, vocabulary]", "a score for every possible next token"),
)

# -------------------------------------------------------------------- from ids to scores


class Output(NamedTuple):
    logits: Tensor  # [batch, token, vocabulary]
    last_hidden_state: Tensor  # [batch, token, width]
    cache: Cache | None  # what the next step wants to be given


def forward(
    token_ids: Tensor,
    mask: Tensor,
    weights: Weights,
    config: Config,
    *,
    attention: str = "eager",
    tap: Tap = NO_TAP,
    cache: Cache | None = None,
    use_cache: bool = False,
    positions: Tensor | None = None,
    last_only: bool = False,
) -> Output:
    """Scores of the token that follows each token.

    token_ids  [batch, token]: the prompts, or, with a `cache`, what came after it.
    mask       [batch, key], 1 for a token and 0 for padding: those in the cache, then the new ones.
    cache      What an earlier call returned. With `use_cache` the first call returns one, too.
    positions  [batch, token]. If None 0, 1, 2, … from the row's start, padding counted, as the official
               forward has it; the official `generate` counts from the first real token instead.
    last_only  Score only the last token, all that generation needs of a prompt.

    Raises InputError for an empty prompt, and past the last position that the model has learned.
    """
    body = below("transformer", weights)  # the prefix that some files have and the hub's file has not
    cache = Cache.empty(config.n_layer) if use_cache and cache is None else cache
    x = embed(token_ids, mask, body, config, positions, tap)
    attention_mask = make_mask(mask, x, attention, tap)
    kept = []
    for i in range(config.n_layer):
        past, path = cache.blocks[i] if cache else None, f"h.{i}"
        x, seen = block(x, attention_mask, body.at(path), config, i, attention, past, tap.at(path))
        kept.append(seen)
    x = layer_norm(x, body.at("ln_f"), config.layer_norm_epsilon)
    tap("ln_f", x)
    # Tied: the table that turned ids into vectors turns vectors into scores, one dot product a token.
    head = weights["lm_head.weight"] if "lm_head.weight" in weights else body["wte.weight"]
    # Whole in memory: with a view of every row's last token, torch takes another product than officially.
    kept_tokens = x[:, -1:].contiguous() if last_only else x
    logits = F.linear(kept_tokens, head)  # [batch, token, vocabulary]
    tap("lm_head", logits)
    return Output(logits, x, Cache(tuple(seen for seen in kept if seen)) if cache else None)


def embed(
    token_ids: Tensor, mask: Tensor, weights: Weights, config: Config, positions: Tensor | None, tap: Tap
) -> Tensor:
    """[batch, token] -> [batch, token, width]: two looked-up rows for each token, added."""
    token, key = token_ids.shape[1], mask.shape[1]
    if token < 1:
        raise InputError("the prompt is empty; GPT-2 needs at least one token to continue")
    if key > config.n_positions:
        raise InputError(f"{key} tokens are more than the {config.n_positions} positions of this model")
    which = F.embedding(token_ids, weights["wte.weight"])  # [batch, token, width]
    tap("wte", which)
    if positions is None:
        positions = torch.arange(key - token, key).unsqueeze(0)  # [1, token], after those in the cache
    where = F.embedding(positions, weights["wpe.weight"])  # [1, token, width]
    tap("wpe", where)
    x = which + where  # [batch, token, width]
    tap("embeddings", x)
    return x


def make_mask(mask: Tensor, x: Tensor, attention: str, tap: Tap) -> Mask:
    """[batch, key] -> [batch, 1, query, key]: no token may look at a later one, nor at padding.

    Eager attention adds it to the scores: 0, or the lowest float, after which the softmax has nothing
    left. The fused kernel wants True and False, or None where it can hide the later ones by itself.
    """
    token, key = x.shape[1], mask.shape[1]
    if attention == "sdpa" and token in (1, key) and bool(mask.all()):
        return None
    order = torch.arange(key)
    not_later = order <= order[key - token :, None]  # [query, key]
    may_look = not_later & mask.bool()[:, None, None, :]  # [batch, 1, query, key]
    if attention == "sdpa":
        return may_look
    added = torch.where(may_look, torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)
    tap("mask", added)
    return added


# -------------------------------------------------------------------------------- one block


def block(
    x: Tensor, mask: Mask, weights: Weights, config: Config, layer: int, attention: str, past: Past, tap: Tap
) -> tuple[Tensor, Past]:
    """[batch, token, width] -> the same. GPT-2 normalises *before* each half and adds the untouched
    input afterwards (pre-LN)."""
    normed = layer_norm(x, weights.at("ln_1"), config.layer_norm_epsilon)  # [batch, token, width]
    tap("ln_1", normed)
    attended, seen = self_attention(
        normed, mask, weights.at("attn"), config, layer, attention, past, tap.at("attn")
    )
    x = attended + x  # [batch, token, width]
    tap("attn.residual", x)
    normed = layer_norm(x, weights.at("ln_2"), config.layer_norm_epsilon)  # [batch, token, width]
    tap("ln_2", normed)
    x = x + feed_forward(normed, weights.at("mlp"), config, tap.at("mlp"))  # [batch, token, width]
    tap("mlp.residual", x)
    return x, seen


def self_attention(
    x: Tensor, mask: Mask, weights: Weights, config: Config, layer: int, attention: str, past: Past, tap: Tap
) -> tuple[Tensor, Past]:
    """Every token looks at itself and at those before. [batch, token, width] -> [batch, token, width]."""
    qkv = conv1d(x, weights.at("c_attn"))  # [batch, token, 3 × width]: one product makes all three
    tap("c_attn", qkv)
    query, key, value = (split_heads(part, config.n_head) for part in qkv.chunk(3, dim=-1))

    seen = past.then(key, value) if past else None
    if seen:
        key, value = seen.key, seen.value  # [batch, head, key, head width], those in the cache first
        tap("key", key)
        tap("value", value)

    scale = query.shape[-1] ** -0.5 if config.scale_attn_weights else 1.0
    if config.scale_attn_by_inverse_layer_idx:
        scale /= layer + 1
    mix = {"eager": eager_attention, "sdpa": fused_attention}[attention]
    head_context = mix(query, key, value, mask, scale, tap)  # [batch, head, query, head width]
    tap("head_context", head_context)
    context = merge_heads(head_context)  # [batch, token, width]
    tap("context", context)
    output = conv1d(context, weights.at("c_proj"))  # [batch, token, width]
    tap("c_proj", output)
    return output, seen


def eager_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, tap: Tap) -> Tensor:
    """query, key, value [batch, head, token, head width] -> [batch, head, query, head width]."""
    product = query @ key.transpose(-1, -2)  # [batch, head, query, key]
    tap("product", product)
    scaled = product * scale  # multiplied, not divided: for some widths the bits differ
    tap("scaled", scaled)
    scores = scaled if mask is None else scaled + mask  # [batch, head, query, key]
    tap("scores", scores)
    probs = F.softmax(scores, dim=-1)  # [batch, head, query, key]
    tap("probs", probs)
    return probs @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float, tap: Tap) -> Tensor:
    """The same in one kernel, which never shows its scores; its sums run in another order."""
    causal = mask is None and query.shape[-2] > 1  # a single new token may look at all there is
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)


def feed_forward(x: Tensor, weights: Weights, config: Config, tap: Tap) -> Tensor:
    """Widen to four times the width, bend, narrow again. [batch, token, width] -> the same."""
    wide = conv1d(x, weights.at("c_fc"))  # [batch, token, wide]
    tap("c_fc", wide)
    bent = ACTIVATIONS[config.activation_function](wide, tap.at("act"))  # [batch, token, wide]
    tap("act", bent)
    output = conv1d(bent, weights.at("c_proj"))  # [batch, token, width]
    tap("c_proj", output)
    return output


def conv1d(x: Tensor, weights: Weights) -> Tensor:
    """x [..., in] -> [..., out]. A linear layer whose weight lies in the file as [in, out], the transpose of
    what torch's own has: a trap of GPT-2, for where both are 768 nothing complains."""
    weight = weights["weight"]  # [in, out]
    product = torch.addmm(weights["bias"], x.reshape(-1, x.shape[-1]), weight)  # [batch × token, out]
    return product.view(*x.shape[:-1], weight.shape[1])
