"""MiniLM from token ids to a sentence embedding, rebuilt from its weight file.

Axes     batch   sentences that run together        head        one of 12 attention heads
         token   a position in the padded sentence  head width  32 = width / heads
         width   384 numbers that describe a token  wide        1536, inside the feed-forward
         query   a token that looks                 key         a token that is looked at
Sources  Wang et al. (2020), MiniLM; Devlin et al. (2019), BERT; Reimers and Gurevych (2019),
         Sentence-BERT. Weights: sentence-transformers/all-MiniLM-L6-v2. Order of operations as in
         transformers 5.23 models/bert/modeling_bert.py, because float addition does not associate.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.models.minilm_config import Config
from llm_rebuild.models.ops import (
    ACTIVATIONS,
    gelu_new_checkpoints,
    layer_norm,
    linear,
    merge_heads,
    split_heads,
)
from llm_rebuild.models.part import Batch, Part

BLOCK, SELF = "encoder.layer.{layer}", "encoder.layer.{layer}.attention.self"
VECTORS, WIDE, SENTENCE = "[batch, token, width]", "[batch, token, wide]", "[batch, width]"
SCORES, HEADS = "[batch, head, query, key]", "[batch, head, query, head width]"
EAGER, SDPA = frozenset({"eager"}), frozenset({"sdpa"})  # the fused kernel never shows its scores
PADDED = EAGER | {"padding"}  # without padding there is no mask
POOLER = frozenset({"pooler"})  # some files have none
# What the folder asks for around the network, see pipeline.py.
MEAN, MAX, UNIT, RAW = (frozenset({word}) for word in ("mean", "max", "normalize", "as it is"))
Mask = Tensor | None  # [batch, 1, query, key]; None: every token may look at every token

# Every interim tensor, in the order in which it comes to be.
CHECKPOINTS = (
    Checkpoint("embeddings.word_embeddings", VECTORS, "which token it is"),
    Checkpoint("embeddings.token_type_embeddings", VECTORS, "first or second sentence"),
    Checkpoint("embeddings.word_and_type", VECTORS, "the two added", "add[0]"),
    Checkpoint("embeddings.position_embeddings", "[1, token, width]", "where it stands"),
    Checkpoint("embeddings.sum", VECTORS, "all three added", "add[1]"),
    Checkpoint("embeddings.LayerNorm", VECTORS, "normalised: the input of block 0"),
    Checkpoint("mask", "[batch, 1, query, key]", "0, or the lowest float", "where[0]", PADDED),
    Checkpoint(f"{SELF}.query", VECTORS, "what each token looks for"),
    Checkpoint(f"{SELF}.key", VECTORS, "what each token has to offer"),
    Checkpoint(f"{SELF}.value", VECTORS, "what each token passes on"),
    Checkpoint(f"{SELF}.product", SCORES, "query times key", "matmul[0]", EAGER),
    Checkpoint(f"{SELF}.scaled", SCORES, "times 1/√(head width)", "mul[0]", EAGER),
    Checkpoint(f"{SELF}.scores", SCORES, "masked: what enters the softmax", "into softmax[0]", EAGER),
    Checkpoint(f"{SELF}.probs", SCORES, "how much each token looks where", "softmax[0]", EAGER),
    Checkpoint(f"{SELF}.head_context", HEADS, "values by these shares", "matmul[1]", EAGER),
    Checkpoint(f"{SELF}.head_context", HEADS, "values by attention", "sdpa[0]", SDPA),
    Checkpoint(f"{SELF}.context", VECTORS, "heads merged", "returned"),
    Checkpoint(f"{BLOCK}.attention.output.dense", VECTORS, "heads mixed"),
    Checkpoint(f"{BLOCK}.attention.output.residual", VECTORS, "plus the block's input", "add[0]"),
    Checkpoint(f"{BLOCK}.attention.output.LayerNorm", VECTORS, "normalised"),
    Checkpoint(f"{BLOCK}.intermediate.dense", WIDE, "widened"),
    *gelu_new_checkpoints(f"{BLOCK}.intermediate.intermediate_act_fn", WIDE),  # where config.json asks for it
    Checkpoint(f"{BLOCK}.intermediate.intermediate_act_fn", WIDE, "bent by GELU"),
    Checkpoint(f"{BLOCK}.output.dense", VECTORS, "narrowed"),
    Checkpoint(f"{BLOCK}.output.residual", VECTORS, "plus what was widened", "add[0]"),
    Checkpoint(f"{BLOCK}.output.LayerNorm", VECTORS, "normalised: the block's output"),
    Checkpoint("pooler.dense", SENTENCE, "from the first token", only=POOLER),
    Checkpoint("pooler.activation", SENTENCE, "bent by tanh", only=POOLER),
    Checkpoint("sentence.masked", VECTORS, "padding set to zero", "mul[0]", MEAN),
    Checkpoint("sentence.sum", SENTENCE, "over the tokens", "sum[0]", MEAN),
    Checkpoint("sentence.count", SENTENCE, "how many tokens", "clamp[0]", MEAN),
    Checkpoint("sentence.mean", SENTENCE, "the average token", "div[0]", MEAN),
    Checkpoint("sentence.masked", VECTORS, "padding set to minus infinity", "where[0]", MAX),
    Checkpoint("sentence.max", SENTENCE, "the largest of the tokens' numbers", "amax[0]", MAX),
    Checkpoint("sentence.embedding", SENTENCE, "at length 1: the answer", "returned", UNIT),
    Checkpoint("sentence.embedding", SENTENCE, "as it is: the answer", "returned", RAW),
)

# ---------------------------------------------------------------- from ids to the embedding


class Output(NamedTuple):
    last_hidden_state: Tensor  # [batch, token, width]
    pooler_output: Tensor | None  # [batch, width]; None where the file has no pooler
    sentence_embedding: Tensor  # [batch, width], of length 1


def forward(batch: Batch, model: Part[Config]) -> Output:
    """Each token as a vector, and each text as one."""
    x = embed(batch.token_ids, model.at("embeddings"))
    mask = make_mask(batch.mask, x, model)
    for i in range(model.config.num_hidden_layers):
        x = block(x, mask, model.at(f"encoder.layer.{i}"))
    has_pooler = "pooler.dense.weight" in model.weights
    pooled = pooler(x, model.at("pooler")) if has_pooler else None
    return Output(x, pooled, sentence(x, batch.mask, model.at("sentence")))


def embed(token_ids: Tensor, part: Part[Config]) -> Tensor:
    """[batch, token] -> [batch, token, width]: three looked-up rows for each token, added."""
    word = F.embedding(token_ids, part.weights["word_embeddings.weight"])  # [batch, token, width]
    part.tap("word_embeddings", word)
    # One sentence at a time, so every token is of type 0; BERT's second type is for sentence pairs.
    types = torch.zeros_like(token_ids)  # [batch, token]
    token_type = F.embedding(types, part.weights["token_type_embeddings.weight"])  # [batch, token, width]
    part.tap("token_type_embeddings", token_type)
    x = word + token_type  # the type before the position: in another order a third of the bits differ
    part.tap("word_and_type", x)
    positions = torch.arange(token_ids.shape[1]).unsqueeze(0)  # [1, token]
    position = F.embedding(positions, part.weights["position_embeddings.weight"])  # [1, token, width]
    part.tap("position_embeddings", position)
    x = x + position  # [batch, token, width]
    part.tap("sum", x)
    x = layer_norm(x, part.at("LayerNorm"), part.config.layer_norm_eps)
    part.tap("LayerNorm", x)
    return x


def make_mask(mask: Tensor, x: Tensor, model: Part[Config]) -> Mask:
    """[batch, token] -> [batch, 1, query, key]: who may look at whom, or None when all may.

    Eager attention adds it to the scores: 0, or the lowest float, after which the softmax has nothing
    left. The fused kernel wants True and False.
    """
    if bool(mask.all()):
        return None
    batch, token = mask.shape
    may_look = mask.bool()[:, None, None, :].expand(batch, 1, token, token)
    if model.attention == "sdpa":
        return may_look
    added = torch.where(may_look, torch.zeros((), dtype=x.dtype), torch.finfo(x.dtype).min)
    model.tap("mask", added)
    return added


# ------------------------------------------------------------------------------- one block


#   x ---+---> self_attention ---> dense --->(+)---> LayerNorm ---> x
#        |                                    ^
#        +------------------------------------+
#
#   x ---+---> intermediate -----> dense --->(+)---> LayerNorm ---> x
#        |                                    ^
#        +------------------------------------+


def block(x: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """[batch, token, width] -> the same. BERT normalises *after* adding the input back (post-LN)."""
    attended = self_attention(x, mask, part.at("attention.self"))  # [batch, token, width]
    x = add_and_norm(attended, x, part.at("attention.output"))  # [batch, token, width]
    wide = intermediate(x, part.at("intermediate"))  # [batch, token, wide]
    return add_and_norm(wide, x, part.at("output"))


def self_attention(x: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """Every token looks at every token. [batch, token, width] -> [batch, token, width]."""
    query = linear(x, part.at("query"))  # [batch, token, width]
    part.tap("query", query)
    key = linear(x, part.at("key"))  # [batch, token, width]
    part.tap("key", key)
    value = linear(x, part.at("value"))  # [batch, token, width]
    part.tap("value", value)

    heads = part.config.num_attention_heads
    query, key, value = (split_heads(t, heads) for t in (query, key, value))
    mix = {"eager": eager_attention, "sdpa": fused_attention}[part.attention]
    head_context = mix(query, key, value, mask, part)  # [batch, head, query, head width]
    part.tap("head_context", head_context)
    context = merge_heads(head_context)  # [batch, token, width]
    part.tap("context", context)
    return context


def eager_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """query, key, value [batch, head, token, head width] -> [batch, head, query, head width]."""
    product = query @ key.transpose(-1, -2)  # [batch, head, query, key]
    part.tap("product", product)
    # Multiplied, not divided: 32 ** -0.5 is not exact, and ÷ √32 gives other bits almost every second time.
    scaled = product * query.shape[-1] ** -0.5  # [batch, head, query, key]
    part.tap("scaled", scaled)
    scores = scaled if mask is None else scaled + mask  # [batch, head, query, key]
    part.tap("scores", scores)
    probs = F.softmax(scores, dim=-1)  # [batch, head, query, key]
    part.tap("probs", probs)
    return probs @ value


def fused_attention(query: Tensor, key: Tensor, value: Tensor, mask: Mask, part: Part[Config]) -> Tensor:
    """The same in one kernel, which never shows its scores; its sums run in another order."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=query.shape[-1] ** -0.5)


def intermediate(x: Tensor, part: Part[Config]) -> Tensor:
    """Widen to four times the width and bend. [batch, token, width] -> [batch, token, wide]."""
    wide = linear(x, part.at("dense"))  # [batch, token, wide]
    part.tap("dense", wide)
    act = ACTIVATIONS[part.config.hidden_act]
    bent = act(wide, part.tap.at("intermediate_act_fn"))  # [batch, token, wide]
    part.tap("intermediate_act_fn", bent)
    return bent


def add_and_norm(x: Tensor, residual: Tensor, part: Part[Config]) -> Tensor:
    """A linear layer, plus what the half-block was given, normalised. -> [batch, token, width]."""
    x = linear(x, part.at("dense"))  # [batch, token, width]
    part.tap("dense", x)
    x = x + residual  # [batch, token, width]
    part.tap("residual", x)
    x = layer_norm(x, part.at("LayerNorm"), part.config.layer_norm_eps)
    part.tap("LayerNorm", x)
    return x


# ------------------------------------------------------- from token vectors to one sentence


def pooler(x: Tensor, part: Part[Config]) -> Tensor:
    """[batch, token, width] -> [batch, width], from the first token. BERT's training head for pairs
    of sentences; it is in the file and the official model computes it, the sentence embedding does
    not use it."""
    dense = linear(x[:, 0], part.at("dense"))  # [batch, width]
    part.tap("dense", dense)
    pooled = torch.tanh(dense)  # [batch, width]
    part.tap("activation", pooled)
    return pooled


def sentence(x: Tensor, mask: Tensor, part: Part[Config]) -> Tensor:
    """[batch, token, width] -> [batch, width]: one vector for all tokens, as the folder asks for it. MiniLM's
    is the mean of the real tokens, at length 1."""
    if part.config.pooling == "cls":
        pooled = x[:, 0]  # [batch, width]
    elif part.config.pooling == "max":
        pooled = largest(x, mask, part)
    else:
        pooled = average(x, mask, part)
    embedding = pooled
    if part.config.normalize:
        length: Tensor = torch.linalg.vector_norm(pooled, dim=1, keepdim=True)  # [batch, 1]
        embedding = pooled / length.clamp_min(1e-12)  # [batch, width]
    part.tap("embedding", embedding)
    return embedding


def average(x: Tensor, mask: Tensor, part: Part[Config]) -> Tensor:
    """The mean over real tokens. [batch, token, width] -> [batch, width]."""
    real = mask.unsqueeze(-1).expand(x.shape).to(x.dtype)  # [batch, token, width], 1 or 0
    masked = x * real  # [batch, token, width]; without this, padding would be averaged in
    part.tap("masked", masked)
    total = masked.sum(dim=1)  # [batch, width]
    part.tap("sum", total)
    count = real.sum(dim=1).clamp(min=1e-9)  # [batch, width]
    part.tap("count", count)
    mean = total / count  # [batch, width]
    part.tap("mean", mean)
    return mean


def largest(x: Tensor, mask: Tensor, part: Part[Config]) -> Tensor:
    """Of each number the largest that a real token has. [batch, token, width] -> [batch, width]."""
    masked = x.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf)  # [batch, token, width]
    part.tap("masked", masked)
    most = masked.amax(dim=1)  # [batch, width]
    part.tap("max", most)
    return most
