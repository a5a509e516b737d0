"""Llama and its relatives from token ids to the scores of the next token, rebuilt from the weight file.

Axes     batch   prompts that run together       head        one of 9 attention heads (in SmolLM2-135M)
         token   a position in the prompt        kv head     one of 3, each of which serves 3 heads
         width   576 numbers that describe a     head width  64
                 token                           pair        32, half of it: what is turned by one angle
         wide    1536, inside the feed-forward   vocabulary  49152 possible next tokens
         query   a token that looks              key         a token that is looked at
Sources  Touvron et al. (2023), LLaMA; Su et al. (2021), rotary positions; Ainslie et al. (2023), grouped
         keys and values; Shazeer (2020), SwiGLU. Order of operations as in transformers 5.23
         models/llama/modeling_llama.py and those of mistral, qwen2 and qwen3, because float addition does not
         associate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.errors import InputError
from llm_rebuild.models.cache import Cache, KeysAndValues
from llm_rebuild.models.llama_config import Config
from llm_rebuild.models.ops import (
    ACTIVATIONS,
    gelu_new_checkpoints,
    merge_heads,
    rms_norm_checkpoints,
)
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.models.rotary import frequencies

BLOCK, NORM = "model.layers.{layer}", "input_layernorm"
ATTN, MLP, ROTARY = f"{BLOCK}.self_attn", f"{BLOCK}.mlp", "model.rotary_emb"
VECTORS, WIDE = "[batch, token, width]", "[batch, token, wide]"
QUERIES, PAIRS = "[batch, token, heads × head width]", "[batch, token, kv heads × head width]"
SCORES, HEADS = "[batch, head, query, key]", "[batch, head, query, head width]"
KEYS, ANGLES = "[batch, kv head, key, head width]", "[batch, token, head width]"
EAGER, SDPA = frozenset({"eager"}), frozenset({"sdpa"})  # the fused kernel never shows its scores
CACHE = frozenset({"cache"})  # keys and values are kept for the next step
YARN, NORMED = frozenset({"yarn"}), frozenset({"norms of query and key"})
Mask = Tensor | None  # [batch, 1, query, key]; None: the kernel knows by itself
Past = KeysAndValues | None  # what a block has seen before; None: nothing is kept


def _turned(name: str, kind: str, number: int) -> tuple[Checkpoint, ...]:
    """The steps of one rotation; `number` counts the rotations of a block."""
    shape, half = f"[batch, {kind}, token, head width]", f"[batch, {kind}, token, pair]"
    path, two = f"{ATTN}.{name}", 2 * number
    return (
        Checkpoint(f"{path}.by_cos", shape, "times the cosines", f"{ATTN}: mul[{two}]"),
        Checkpoint(f"{path}.minus", half, "its second half, negated", f"{ATTN}: neg[{number}]"),
        Checkpoint(f"{path}.swapped", shape, "and the first behind it", f"{ATTN}: cat[{number}]"),
        Checkpoint(f"{path}.by_sin", shape, "that times the sines", f"{ATTN}: mul[{two + 1}]"),
        Checkpoint(path, shape, "turned by its position", f"add[{number}]"),
    )


# Every interim tensor, in the order in which it comes to be.
CHECKPOINTS = (
    Checkpoint("model.embed_tokens", VECTORS, "which token it is: the input of block 0"),
    Checkpoint("model.mask", "[batch, 1, query, key]", "0, or the lowest float", "where[0]", EAGER),
    Checkpoint(f"{ROTARY}.turns", "[batch, token, pair]", "position times frequency", "into cat[0]"),
    Checkpoint(f"{ROTARY}.angles", ANGLES, "the same for both halves", "cat[0]"),
    Checkpoint(f"{ROTARY}.cos", ANGLES, "their cosines", "cos[0]"),
    Checkpoint(f"{ROTARY}.sin", ANGLES, "their sines", "sin[0]"),
    Checkpoint(f"{ROTARY}.longer_cos", ANGLES, "times YaRN's factor", "mul[1]", YARN),
    Checkpoint(f"{ROTARY}.longer_sin", ANGLES, "times YaRN's factor", "mul[2]", YARN),
    *rms_norm_checkpoints(f"{BLOCK}.{NORM}", VECTORS),
    Checkpoint(f"{ATTN}.q_proj", QUERIES, "what each token looks for"),
    *rms_norm_checkpoints(f"{ATTN}.q_norm", "[batch, token, head, head width]", NORMED),
    Checkpoint(f"{ATTN}.k_proj", PAIRS, "what each token has to offer"),
    *rms_norm_checkpoints(f"{ATTN}.k_norm", "[batch, token, kv head, head width]", NORMED),
    Checkpoint(f"{ATTN}.v_proj", PAIRS, "what each token passes on"),
    *_turned("query", "head", 0),
    *_turned("key", "kv head", 1),
    Checkpoint(f"{ATTN}.keys", KEYS, "keys of all tokens so far", "cat[2]", CACHE),
    Checkpoint(f"{ATTN}.values", KEYS, "values of all tokens so far", "cat[3]", CACHE),
    Checkpoint(f"{ATTN}.product", SCORES, "query times key", "matmul[0]", EAGER),
    Checkpoint(f"{ATTN}.scaled", SCORES, "times 1/√(head width)", "mul[4]", EAGER),
    Checkpoint(f"{ATTN}.scores", SCORES, "masked: what enters the softmax", "add[2]", EAGER),
    Checkpoint(f"{ATTN}.probs", SCORES, "how much each token looks where", "softmax[0]", EAGER),
    Checkpoint(f"{ATTN}.head_context", HEADS, "values by these shares", "matmul[1]", EAGER),
    Checkpoint(f"{ATTN}.head_context", HEADS, "values by attention", "sdpa[0]", SDPA),
    Checkpoint(f"{ATTN}.context", QUERIES, "heads merged", "into o_proj"),
    Checkpoint(f"{ATTN}.o_proj", VECTORS, "heads mixed"),
    Checkpoint(f"{ATTN}.residual", VECTORS, "plus the block's input", f"{BLOCK}: add[0]"),
    *rms_norm_checkpoints(f"{BLOCK}.post_attention_layernorm", VECTORS),
    Checkpoint(f"{MLP}.gate_proj", WIDE, "widened: the gate"),
    *gelu_new_checkpoints(f"{MLP}.act_fn", WIDE),
    Checkpoint(f"{MLP}.act_fn", WIDE, "bent: how far the gate is open"),
    Checkpoint(f"{MLP}.up_proj", WIDE, "widened: what goes through it"),
    Checkpoint(f"{MLP}.gated", WIDE, "one times the other", "mul[0]"),
    Checkpoint(f"{MLP}.down_proj", VECTORS, "narrowed"),
    Checkpoint(f"{MLP}.residual", VECTORS, "added back: the block's output", f"{BLOCK}: returned"),
    *rms_norm_checkpoints("model.norm", VECTORS),
    Checkpoint("lm_head", "[batch, token, vocabulary]", "a score for every possible next token"),
)

# -------------------------------------------------------------------- from ids to scores


class Output(NamedTuple):
    logits: Tensor  # [batch, token, vocabulary]
    last_hidden_state: Tensor  # [batch, token, width]
    cache: Cache | None  # what the next step wants to be given


class Turn(NamedTuple):
    """By which angles queries and keys are turned."""

    cos: Tensor  # [batch or 1, token, head width]
    sin: Tensor  # [batch or 1, token, head width]


def forward(batch: Batch, model: Part[Config], cache: Cache | None = None) -> Output:
    """Scores of the token that follows each token.

    cache  What an earlier call returned, or `Cache()` to begin with: then keys and values are kept. The batch
           has the new tokens, and a mask for those in the cache and then the new ones.

    Raises InputError for an empty prompt, and for one that reaches as far as a sliding window.
    """
    x, cache = body(batch, model, cache)
    return Output(head(x, model), x, cache)


def body(batch: Batch, model: Part[Config], cache: Cache | None) -> tuple[Tensor, Cache | None]:
    """The model without its head -> [batch, token, width]. Arguments as in `forward`."""
    x = embed(batch, model)
    mask = make_mask(batch.mask, x, model.at("model"))
    turn = make_turn(batch, model.at(ROTARY))
    turn = Turn(turn.cos.to(x.dtype), turn.sin.to(x.dtype))  # angles are float32 whatever the type
    blocks: list[KeysAndValues] = []
    for i in range(model.config.num_hidden_layers):
        past = None if cache is None else cache.block(i)
        x, seen = block(x, mask, turn, model.at(f"model.layers.{i}"), past)
        blocks += [] if seen is None else [seen]
    x = rms_norm(x, model.at("model.norm"))  # [batch, token, width]
    model.tap("model.norm", x)
    return x, None if cache is None else Cache(tuple(blocks))


def head(x: Tensor, model: Part[Config]) -> Tensor:
    """[batch, token, width] -> [batch, token, vocabulary]. In small models tied: the table that turned ids
    into vectors turns vectors into scores. Large ones have a table of their own."""
    own = "lm_head.weight" in model.weights
    table = model.weights["lm_head.weight" if own else "model.embed_tokens.weight"]
    # Whole in memory: with a view of every row's last token, torch takes another product than officially.
    logits = F.linear(x.contiguous(), table)  # [batch, token, vocabulary]
    model.tap("lm_head", logits)
    return logits


def embed(batch: Batch, model: Part[Config]) -> Tensor:
    """[batch, token] -> [batch, token, width]: a looked-up row for each token, and no position."""
    token, key, limit = batch.token_ids.shape[1], batch.mask.shape[1], model.config.positions
    if token < 1:
        raise InputError("the prompt is empty; the model needs at least one token to continue")
    if limit is not None and key > limit:
        raise InputError(f"{key} tokens reach as far as sliding_window, {limit + 1}; give at most {limit}")
    x = F.embedding(batch.token_ids, model.weights["model.embed_tokens.weight"])  # [batch, token, width]
    model.tap("model.embed_tokens", x)
    return x


def make_mask(mask: Tensor, x: Tensor, part: Part[Config]) -> Mask:
    """[batch, key] -> [batch, 1, query, key]: no token may look at a later one, nor at padding.

    Eager attention adds it to the scores: 0, or the lowest float, after which the softmax has nothing
    left. The fused kernel wants True and False, or None where it can hide the later ones by itself.
    """
    token, key = x.shape[1], mask.shape[1]
    if part.attention == "sdpa" and token in (1, key) and bool(mask.all()):
        return None
    order = torch.arange(key)
    not_later = order <= order[key - token :, None]  # [query, key]
    may_look = not_later & mask.bool()[:, None, None, :]  # [batch, 1, query, key]
    if part.attention == "sdpa":
        return may_look
    added = torch.where(may_look, torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)
    part.tap("mask", added)
    return added


# ------------------------------------------- where a token stands: an angle for each pair of numbers


def make_turn(batch: Batch, part: Part[Config]) -> Turn:
    """Cosines and sines of the angles by which the numbers of a query or a key are turned, pair by pair.

    Positions are 0, 1, 2, … from the row's start, padding counted, as the official forward has it; the
    official `generate` counts from the first real token instead, and so gives its own.
    """
    token, key = batch.token_ids.shape[1], batch.mask.shape[1]
    counted = torch.arange(key - token, key).unsqueeze(0)  # [1, token], after those in the cache
    positions = counted if batch.positions is None else batch.positions
    per_position = frequencies(positions, part.config.head_width, part.config.rope)  # [pair]
    turns = positions[..., None].float() * per_position  # [batch, token, pair]
    part.tap("turns", turns)
    angles = torch.cat((turns, turns), dim=-1)  # [batch, token, head width]: number i pairs with i + pairs
    part.tap("angles", angles)
    cos, sin = angles.cos(), angles.sin()
    part.tap("cos", cos)
    part.tap("sin", sin)
    if part.config.rope.rope_type == "yarn":
        cos, sin = cos * part.config.rope.lengthened, sin * part.config.rope.lengthened
        part.tap("longer_cos", cos)
        part.tap("longer_sin", sin)
    return Turn(cos, sin)


# -------------------------------------------------------------------------------- one block


#   x ---+---> input_layernorm ---------> self_attn --->(+)---> x
#        |                                               ^
#        +-----------------------------------------------+
#
#   x ---+---> post_attention_layernorm ---> mlp ------>(+)---> x
#        |                                               ^
#        +-----------------------------------------------+


def block(x: Tensor, mask: Mask, turn: Turn, part: Part[Config], past: Past) -> tuple[Tensor, Past]:
    """[batch, token, width] -> the same. Normalised *before* each half; the untouched input is added
    afterwards (pre-LN)."""
    normed = rms_norm(x, part.at(NORM))  # [batch, token, width]
    part.tap(NORM, normed)
    attended, seen = self_attention(normed, mask, turn, part.at("self_attn"), past)
    x = x + attended  # [batch, token, width]
    part.tap("self_attn.residual", x)
    normed = rms_norm(x, part.at("post_attention_layernorm"))  # [batch, token, width]
    part.tap("post_attention_layernorm", normed)
    x = x + feed_forward(normed, part.at("mlp"))  # [batch, token, width]
    part.tap("mlp.residual", x)
    return x, seen


def self_attention(x: Tensor, mask: Mask, turn: Turn, part: Part[Config], past: Past) -> tuple[Tensor, Past]:
    """Every token looks at itself and at those before. [batch, token, width] -> [batch, token, width]."""
    query, key, value = projected(x, "q", part), projected(x, "k", part), projected(x, "v", part)
    query, key = rotate(query, turn, part, "query"), rotate(key, turn, part, "key")

    seen = past.extended(key, value) if past else None
    if seen:
        key, value = seen.key, seen.value  # [batch, kv head, key, head width], those in the cache first
        part.tap("keys", key)
        part.tap("values", value)

    mix = {"eager": eager_attention, "sdpa": fused_attention}[part.attention]
    head_context = mix(query, key, value, mask, part)  # [batch, head, query, head width]
    context = merge_heads(head_context)  # [batch, token, heads × head width]
    part.tap("context", context)
    output = linear(context, part.at("o_proj"))  # [batch, token, width]
    part.tap("o_proj", output)
    return output, seen


def projected(x: Tensor, letter: str, part: Part[Config]) -> Tensor:
    """Query, key or value. [batch, token, width] -> [batch, head or kv head, token, head width]."""
    flat = linear(x, part.at(f"{letter}_proj"))  # [batch, token, heads × head width]
    part.tap(f"{letter}_proj", flat)
    heads = flat.view(*flat.shape[:-1], -1, part.config.head_width)  # [batch, token, head, head width]
    if part.config.norms_query_and_key and letter != "v":  # Qwen 3: each head's numbers by themselves
        heads = rms_norm(heads, part.at(f"{letter}_norm"))
        part.tap(f"{letter}_norm", heads)
    return heads.transpose(1, 2)


def rotate(x: Tensor, turn: Turn, part: Part[Config], name: str) -> Tensor:
    """Turn each pair of numbers by its angle. x [batch, head, token, head width] -> the same.

    Number i pairs with number i + head width / 2, and (a, b) becomes (a cos - b sin, b cos + a sin). The
    paper, and the original Llama files, pair neighbours instead; files in this layout have their rows moved.
    """
    part = part.at(name)
    by_cos = x * turn.cos.unsqueeze(1)
    part.tap("by_cos", by_cos)
    first, second = x.chunk(2, dim=-1)  # twice [batch, head, token, pair]
    minus = -second
    part.tap("minus", minus)
    swapped = torch.cat((minus, first), dim=-1)
    part.tap("swapped", swapped)
    by_sin = swapped * turn.sin.unsqueeze(1)
    part.tap("by_sin", by_sin)
    turned = by_cos + by_sin
    part.tap("", turned)
    return turned


def repeat(x: Tensor, part: Part[Config]) -> Tensor:
    """Each kv head as often as it is needed, side by side: head h reads kv head h // group.
    [batch, kv head, key, head width] -> [batch, head, key, head width]. A single one is only looked at as
    often, and not copied: for some sizes torch then takes another product."""
    return x[:, :, None].expand(-1, -1, part.config.group, -1, -1).flatten(1, 2)


def eager_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """query [batch, head, query, head width], key and value [batch, kv head, key, head width] -> as query."""
    product = query @ repeat(key, part).transpose(-1, -2)  # [batch, head, query, key]
    part.tap("product", product)
    scaled = product * query.shape[-1] ** -0.5  # multiplied, not divided: for some widths the bits differ
    part.tap("scaled", scaled)
    scores = scaled if mask is None else scaled + mask  # [batch, head, query, key]
    part.tap("scores", scores)
    scores = scores.float()  # exp and its sum are float32 whatever the type
    probs = F.softmax(scores, dim=-1)  # [batch, head, query, key]
    part.tap("probs", probs)
    probs = probs.to(value.dtype)
    head_context = probs @ repeat(value, part)  # [batch, head, query, head width]
    part.tap("head_context", head_context)
    return head_context


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """The same in one kernel, which never shows its scores; its sums run in another order.

    It takes grouped keys as they are, but not with a mask. Then a single new token's heads stand as if they
    were the tokens of their kv head, and otherwise keys and values are repeated, all as officially.
    """
    shape, scale, group = query.shape, query.shape[-1] ** -0.5, part.config.group
    grouped = group > 1 and mask is None and shape[-1] <= 256
    if group > 1 and not grouped and shape[-2] == 1:
        query = query.reshape(shape[0], -1, group, shape[-1])  # [batch, kv head, head of it, head width]
    elif not grouped:
        key, value = repeat(key, part), repeat(value, part)
    causal = mask is None and shape[-2] > 1  # a single new token may look at all there is
    head_context = F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=causal, scale=scale, enable_gqa=grouped
    )
    part.tap("head_context", head_context)
    return head_context.reshape(shape)


def feed_forward(x: Tensor, part: Part[Config]) -> Tensor:
    """Widen twice, one side bent and then the gate of the other, and narrow again ("SwiGLU").
    [batch, token, width] -> the same."""
    gate = linear(x, part.at("gate_proj"))  # [batch, token, wide]
    part.tap("gate_proj", gate)
    bent = ACTIVATIONS[part.config.hidden_act](gate, part.tap.at("act_fn"))  # [batch, token, wide]
    part.tap("act_fn", bent)
    up = linear(x, part.at("up_proj"))  # [batch, token, wide]
    part.tap("up_proj", up)
    gated = bent * up  # [batch, token, wide]
    part.tap("gated", gated)
    output = linear(gated, part.at("down_proj"))  # [batch, token, width]
    part.tap("down_proj", output)
    return output


def linear(x: Tensor, part: Part[Config]) -> Tensor:
    """x [..., in] -> [..., out]. Few of these models have biases; Qwen 2 has them for query, key, value."""
    biased = part.path.rpartition(".")[2] in part.config.biases
    return F.linear(x, part.weights["weight"], part.weights["bias"] if biased else None)


def rms_norm(x: Tensor, part: Part[Config]) -> Tensor:
    """Each token's numbers scaled to mean square 1, then stretched; never shifted. Shape as before. All but
    the stretching is float32 whatever the type: shorter ones add badly."""
    dtype, x = x.dtype, x.float()
    square = x.pow(2)  # [..., width]
    part.tap("square", square)
    mean_square = square.mean(-1, keepdim=True)  # [..., 1]
    part.tap("mean_square", mean_square)
    above_zero = mean_square + part.config.rms_norm_eps  # [..., 1]: epsilon is inside the root
    part.tap("above_zero", above_zero)
    inverse_root = torch.rsqrt(above_zero)  # [..., 1]
    part.tap("inverse_root", inverse_root)
    normed = x * inverse_root  # [..., width]
    part.tap("normed", normed)
    normed = normed.to(dtype)
    return part.weights["weight"] * normed  # [..., width]: stretched
