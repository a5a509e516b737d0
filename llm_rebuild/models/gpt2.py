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

from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.errors import InputError
from llm_rebuild.models.cache import Cache, KeysAndValues
from llm_rebuild.models.gpt2_config import Config
from llm_rebuild.models.ops import (
    ACTIVATIONS,
    gelu_new_checkpoints,
    layer_norm,
    merge_heads,
    split_heads,
)
from llm_rebuild.models.part import Batch, Part

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


def forward(batch: Batch, model: Part[Config], cache: Cache | None = None) -> Output:
    """Scores of the token that follows each token.

    cache  What an earlier call returned, or `Cache()` to begin with: then keys and values are kept. The batch
           has the new tokens, and a mask for those in the cache and then the new ones.

    Raises InputError for an empty prompt, and past the last position that the model has learned.
    """
    x, cache = body(batch, model, cache)
    return Output(head(x, model), x, cache)


def body(batch: Batch, model: Part[Config], cache: Cache | None) -> tuple[Tensor, Cache | None]:
    """The model without its head -> [batch, token, width]. Arguments as in `forward`."""
    x = embed(batch, model)
    mask = make_mask(batch.mask, x, model)
    blocks: list[KeysAndValues] = []
    for i in range(model.config.n_layer):
        past = None if cache is None else cache.block(i)
        x, seen = block(x, mask, model.at(f"h.{i}"), past)
        blocks += [] if seen is None else [seen]
    x = layer_norm(x, model.at("ln_f"), model.config.layer_norm_epsilon)  # [batch, token, width]
    model.tap("ln_f", x)
    return x, None if cache is None else Cache(tuple(blocks))


def head(x: Tensor, model: Part[Config]) -> Tensor:
    """[batch, token, width] -> [batch, token, vocabulary]. Tied: the table that turned ids into vectors turns
    vectors into scores, one dot product a token."""
    table = model.weights["lm_head.weight" if "lm_head.weight" in model.weights else "wte.weight"]
    # Whole in memory: with a view of every row's last token, torch takes another product than officially.
    logits = F.linear(x.contiguous(), table)  # [batch, token, vocabulary]
    model.tap("lm_head", logits)
    return logits


def embed(batch: Batch, model: Part[Config]) -> Tensor:
    """[batch, token] -> [batch, token, width]: two looked-up rows for each token, added.

    Positions are 0, 1, 2, … from the row's start, padding counted, as the official forward has it; the
    official `generate` counts from the first real token instead, and so gives its own.
    """
    token, key = batch.token_ids.shape[1], batch.mask.shape[1]
    if token < 1:
        raise InputError("the prompt is empty; GPT-2 needs at least one token to continue")
    if key > model.config.n_positions:
        limit = model.config.n_positions
        raise InputError(f"{key} tokens are more than the {limit} positions of this model")
    word = F.embedding(batch.token_ids, model.weights["wte.weight"])  # [batch, token, width]
    model.tap("wte", word)
    counted = torch.arange(key - token, key).unsqueeze(0)  # [1, token], after those in the cache
    positions = counted if batch.positions is None else batch.positions
    position = F.embedding(positions, model.weights["wpe.weight"])  # [1, token, width]
    model.tap("wpe", position)
    x = word + position  # [batch, token, width]
    model.tap("embeddings", x)
    return x


def make_mask(mask: Tensor, x: Tensor, model: Part[Config]) -> Mask:
    """[batch, key] -> [batch, 1, query, key]: no token may look at a later one, nor at padding.

    Eager attention adds it to the scores: 0, or the lowest float, after which the softmax has nothing
    left. The fused kernel wants True and False, or None where it can hide the later ones by itself.
    """
    token, key = x.shape[1], mask.shape[1]
    if model.attention == "sdpa" and token in (1, key) and bool(mask.all()):
        return None
    order = torch.arange(key)
    not_later = order <= order[key - token :, None]  # [query, key]
    may_look = not_later & mask.bool()[:, None, None, :]  # [batch, 1, query, key]
    if model.attention == "sdpa":
        return may_look
    added = torch.where(may_look, torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)
    model.tap("mask", added)
    return added


# -------------------------------------------------------------------------------- one block


#   x ---+---> ln_1 ---> attn --->(+)---> x
#        |                         ^
#        +-------------------------+
#
#   x ---+---> ln_2 ---> mlp ---->(+)---> x
#        |                         ^
#        +-------------------------+


def block(x: Tensor, mask: Mask, part: Part[Config], past: Past) -> tuple[Tensor, Past]:
    """[batch, token, width] -> the same. GPT-2 normalises *before* each half and adds the untouched
    input afterwards (pre-LN)."""
    normed = layer_norm(x, part.at("ln_1"), part.config.layer_norm_epsilon)  # [batch, token, width]
    part.tap("ln_1", normed)
    attended, seen = self_attention(normed, mask, part.at("attn"), past)
    x = attended + x  # [batch, token, width]
    part.tap("attn.residual", x)
    normed = layer_norm(x, part.at("ln_2"), part.config.layer_norm_epsilon)  # [batch, token, width]
    part.tap("ln_2", normed)
    x = x + feed_forward(normed, part.at("mlp"))  # [batch, token, width]
    part.tap("mlp.residual", x)
    return x, seen


def self_attention(x: Tensor, mask: Mask, part: Part[Config], past: Past) -> tuple[Tensor, Past]:
    """Every token looks at itself and at those before. [batch, token, width] -> [batch, token, width]."""
    qkv = conv1d(x, part.at("c_attn"))  # [batch, token, 3 × width]: one product makes all three
    part.tap("c_attn", qkv)
    query, key, value = (split_heads(third, part.config.n_head) for third in qkv.chunk(3, dim=-1))

    seen = past.extended(key, value) if past else None
    if seen:
        key, value = seen.key, seen.value  # [batch, head, key, head width], those in the cache first
        part.tap("key", key)
        part.tap("value", value)

    mix = {"eager": eager_attention, "sdpa": fused_attention}[part.attention]
    head_context = mix(query, key, value, mask, part)  # [batch, head, query, head width]
    part.tap("head_context", head_context)
    context = merge_heads(head_context)  # [batch, token, width]
    part.tap("context", context)
    output = conv1d(context, part.at("c_proj"))  # [batch, token, width]
    part.tap("c_proj", output)
    return output, seen


def scale_of(query: Tensor, part: Part[Config]) -> float:
    """1/√(head width), and where config.json asks for it, divided by the block's number from 1."""
    scale = query.shape[-1] ** -0.5 if part.config.scale_attn_weights else 1.0
    if part.config.scale_attn_by_inverse_layer_idx:
        scale /= part.layer + 1
    return scale


def eager_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """query, key, value [batch, head, token, head width] -> [batch, head, query, head width]."""
    product = query @ key.transpose(-1, -2)  # [batch, head, query, key]
    part.tap("product", product)
    scale = scale_of(query, part)
    scaled = product * scale  # multiplied, not divided: for some widths the bits differ
    part.tap("scaled", scaled)
    scores = scaled if mask is None else scaled + mask  # [batch, head, query, key]
    part.tap("scores", scores)
    probs = F.softmax(scores, dim=-1)  # [batch, head, query, key]
    part.tap("probs", probs)
    return probs @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """The same in one kernel, which never shows its scores; its sums run in another order."""
    causal = mask is None and query.shape[-2] > 1  # a single new token may look at all there is
    scale = scale_of(query, part)
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)


def feed_forward(x: Tensor, part: Part[Config]) -> Tensor:
    """Widen to four times the width, bend, narrow again. [batch, token, width] -> the same."""
    wide = conv1d(x, part.at("c_fc"))  # [batch, token, wide]
    part.tap("c_fc", wide)
    bent = ACTIVATIONS[part.config.activation_function](wide, part.tap.at("act"))  # [batch, token, wide]
    part.tap("act", bent)
    output = conv1d(bent, part.at("c_proj"))  # [batch, token, width]
    part.tap("c_proj", output)
    return output


def conv1d(x: Tensor, part: Part[Config]) -> Tensor:
    """x [..., in] -> [..., out]. A linear layer whose weight lies in the file as [in, out], the transpose of
    what torch's own has: a trap of GPT-2, for where both are 768 nothing complains."""
    weight = part.weights["weight"]  # [in, out]
    product = torch.addmm(part.weights["bias"], x.reshape(-1, x.shape[-1]), weight)  # [batch × token, out]
    return product.view(*x.shape[:-1], weight.shape[1])
