"""MiniLM, rebuilt by you.

    llm-rebuild check FILE --model minilm

Axes     batch   sentences that run together        head        one of num_attention_heads
         token   a position in the padded sentence  head width  width / heads
         width   numbers that describe a token      wide        intermediate_size, inside the feed-forward
         query   a token that looks                 key         a token that is looked at
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.workbench import step

Weights = Mapping[str, Tensor]  # the weight file: weights["embeddings.LayerNorm.weight"]
Tap = Callable[[str, Tensor], Tensor]  # tap(name, tensor) shows a tensor to the checker, and returns it
BLOCK, SELF = "encoder.layer.{layer}", "encoder.layer.{layer}.attention.self"
BEFORE = "encoder.layer.{layer-1}.output.LayerNorm or embeddings.LayerNorm"  # what goes into a block


def forward(
    token_ids: Tensor, mask: Tensor, weights: Weights, config: Any, tap: Tap, attention: str = "eager"
) -> Tensor:
    """token_ids, mask [batch, token], mask 1 for a token and 0 for padding -> [batch, width].

    config is config.json: config.num_hidden_layers, config.num_attention_heads, config.layer_norm_eps.
    attention is `eager`, step by step, or `sdpa`, all in one.
    """
    word = tap("embeddings.word_embeddings", word_embedding(token_ids, weights))
    kind = tap("embeddings.token_type_embeddings", type_embedding(token_ids, weights))
    x = tap("embeddings.word_and_type", add(word, kind))
    where = tap("embeddings.position_embeddings", position_embedding(token_ids, weights))
    x = tap("embeddings.sum", add(x, where))
    x = tap("embeddings.LayerNorm", layer_norm(x, "embeddings.LayerNorm", weights, config))
    may_look = None  # without padding every token may look everywhere
    if attention == "eager" and not bool(mask.all()):
        may_look = tap("mask", attention_mask(mask))

    for layer in range(config.num_hidden_layers):
        block = f"encoder.layer.{layer}"
        # First half of the block: every token looks at every token.
        query = tap(f"{block}.attention.self.query", linear(x, f"{block}.attention.self.query", weights))
        key = tap(f"{block}.attention.self.key", linear(x, f"{block}.attention.self.key", weights))
        value = tap(f"{block}.attention.self.value", linear(x, f"{block}.attention.self.value", weights))
        if attention == "eager":
            product = tap(f"{block}.attention.self.product", query_times_key(query, key, config))
            scaled = tap(f"{block}.attention.self.scaled", scale(product, config))
            scores = tap(f"{block}.attention.self.scores", add_mask(scaled, may_look))
            probs = tap(f"{block}.attention.self.probs", probabilities(scores))
            head_context = mix_values(probs, value, config)
        else:
            head_context = all_in_one(query, key, value, mask, config)
        tap(f"{block}.attention.self.head_context", head_context)
        context = tap(f"{block}.attention.self.context", merge_heads(head_context))
        attended = linear(context, f"{block}.attention.output.dense", weights)
        tap(f"{block}.attention.output.dense", attended)
        x = tap(f"{block}.attention.output.residual", add(attended, x))
        x = layer_norm(x, f"{block}.attention.output.LayerNorm", weights, config)
        tap(f"{block}.attention.output.LayerNorm", x)

        # Second half: each token by itself, widened, bent and narrowed again.
        wide = tap(f"{block}.intermediate.dense", linear(x, f"{block}.intermediate.dense", weights))
        bent = tap(f"{block}.intermediate.intermediate_act_fn", gelu(wide))
        narrow = tap(f"{block}.output.dense", linear(bent, f"{block}.output.dense", weights))
        x = tap(f"{block}.output.residual", add(narrow, x))
        x = tap(f"{block}.output.LayerNorm", layer_norm(x, f"{block}.output.LayerNorm", weights, config))

    if "pooler.dense.weight" in weights:  # BERT's head for pairs of sentences; the embedding does not use it
        dense = tap("pooler.dense", first_token(x, weights))
        tap("pooler.activation", bend(dense))

    masked = tap("sentence.masked", without_padding(x, mask))
    total = tap("sentence.sum", sum_of_tokens(masked))
    count = tap("sentence.count", number_of_tokens(mask, x))
    mean = tap("sentence.mean", divide(total, count))
    return tap("sentence.embedding", at_length_one(mean))


# ------------------------------------------------------------------------------------ before the blocks


@step("embeddings.word_embeddings", "inputs.token_ids")
def word_embedding(token_ids: Tensor, weights: Weights) -> Tensor:  # given
    """Which token it is. [batch, token] -> [batch, token, width]: the token's row of the table."""
    return F.embedding(token_ids, weights["embeddings.word_embeddings.weight"])


@step("embeddings.token_type_embeddings", "inputs.token_ids")
def type_embedding(token_ids: Tensor, weights: Weights) -> Tensor:
    """First or second sentence. [batch, token] -> [batch, token, width].

    There is one sentence at a time, so it is row 0 of embeddings.token_type_embeddings.weight for each token.
    """
    return F.embedding(torch.zeros_like(token_ids), weights["embeddings.token_type_embeddings.weight"])


@step("embeddings.position_embeddings", "inputs.token_ids")
def position_embedding(token_ids: Tensor, weights: Weights) -> Tensor:
    """Where it stands. [batch, token] -> [1, token, width]: row 0, 1, 2, … of
    embeddings.position_embeddings.weight. The first axis has length 1: it is the same for every sentence.
    """
    positions = torch.arange(token_ids.shape[1]).unsqueeze(0)  # [1, token]
    return F.embedding(positions, weights["embeddings.position_embeddings.weight"])


@step("embeddings.word_and_type", "embeddings.word_embeddings", "embeddings.token_type_embeddings")
@step("embeddings.sum", "embeddings.word_and_type", "embeddings.position_embeddings")
@step(f"{BLOCK}.attention.output.residual", f"{BLOCK}.attention.output.dense", BEFORE)
@step(f"{BLOCK}.output.residual", f"{BLOCK}.output.dense", f"{BLOCK}.attention.output.LayerNorm")
def add(one: Tensor, other: Tensor) -> Tensor:
    """One plus the other. [batch, token, width]. Of two, the order does not matter; of the three that make
    `embeddings.sum` it does: which two are added first decides how the sum is rounded."""
    return one + other


@step("mask", "inputs.mask")
def attention_mask(mask: Tensor) -> Tensor:
    """Who may look at whom. [batch, token] of 1 and 0 -> [batch, 1, query, key], to be added to the scores.

    0 where the key is a token, the lowest float32 there is (torch.finfo) where it is padding; the same for
    every query.
    """
    batch, token = mask.shape
    may_look = mask.bool()[:, None, None, :].expand(batch, 1, token, token)
    return torch.where(may_look, torch.zeros(()), torch.finfo(torch.float32).min)


# --------------------------------------------------------------------------------- parts of every block


@step("embeddings.LayerNorm", "embeddings.sum")
@step(f"{BLOCK}.attention.output.LayerNorm", f"{BLOCK}.attention.output.residual")
@step(f"{BLOCK}.output.LayerNorm", f"{BLOCK}.output.residual")
def layer_norm(x: Tensor, name: str, weights: Weights, config: Any) -> Tensor:
    """Each token's numbers at mean 0 and variance 1, then stretched and moved.

    [batch, token, width] -> the same. Uses {name}.weight, {name}.bias and config.layer_norm_eps.
    torch has it in one function; the formula written out rounds differently.
    """
    return F.layer_norm(
        x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], config.layer_norm_eps
    )


@step(SELF + ".{which:query|key|value}", BEFORE)
@step(f"{BLOCK}.attention.output.dense", f"{SELF}.context")
@step(f"{BLOCK}.intermediate.dense", f"{BLOCK}.attention.output.LayerNorm")
@step(f"{BLOCK}.output.dense", f"{BLOCK}.intermediate.intermediate_act_fn")
def linear(x: Tensor, name: str, weights: Weights) -> Tensor:
    """A linear layer. [batch, token, in] -> [batch, token, out], with {name}.weight and {name}.bias.

    The weight lies in the file as [out, in], as torch's own linear function wants it.
    """
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


@step(f"{SELF}.product", f"{SELF}.query", f"{SELF}.key")
def query_times_key(query: Tensor, key: Tensor, config: Any) -> Tensor:
    """Every query times every key, head by head. Twice [batch, token, width] -> [batch, head, query, key].

    Split each into heads with `split_heads` first.
    """
    return split_heads(query, config) @ split_heads(key, config).transpose(-1, -2)


def split_heads(x: Tensor, config: Any) -> Tensor:  # yours
    """[batch, token, width] -> [batch, head, token, head width].

    Head 0 has the first numbers of the width, head 1 the next, and so on. It is no step by itself.
    Two of them use it.
    """
    return x.view(*x.shape[:-1], config.num_attention_heads, -1).transpose(1, 2)


@step(f"{SELF}.scaled", f"{SELF}.product")
def scale(product: Tensor, config: Any) -> Tensor:
    """Times 1/√(head width). [batch, head, query, key] -> the same. The head width is hidden_size / heads.

    For the last bit, multiply by the power -0.5; a division by the root rounds differently almost every
    second time.
    """
    power: float = (config.hidden_size // config.num_attention_heads) ** -0.5
    return product * power


@step(f"{SELF}.scores", f"{SELF}.scaled", "mask?")
def add_mask(scaled: Tensor, may_look: Tensor | None) -> Tensor:
    """What enters the softmax. [batch, head, query, key] -> the same. None: there is no padding."""
    return scaled if may_look is None else scaled + may_look


@step(f"{SELF}.probs", f"{SELF}.scores")
def probabilities(scores: Tensor) -> Tensor:
    """How much each token looks where. [batch, head, query, key] -> the same; each query's sum is 1."""
    return F.softmax(scores, dim=-1)


@step(f"{SELF}.head_context", f"{SELF}.probs", f"{SELF}.value")
def mix_values(probs: Tensor, value: Tensor, config: Any) -> Tensor:
    """The values by these shares. -> [batch, head, query, head width]. Split the value into heads first."""
    return probs @ split_heads(value, config)


@step(f"{SELF}.head_context", f"{SELF}.query", f"{SELF}.key", f"{SELF}.value", "inputs.mask")
def all_in_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, config: Any) -> Tensor:
    """From `query_times_key` to `mix_values` at once, by torch's scaled_dot_product_attention.

    Three times [batch, token, width] -> [batch, head, query, head width]. It scales by itself, and takes who
    may look at whom as True and False: the mask [batch, token] as [batch, 1, 1, key]; None without padding.
    """
    may_look = None if bool(mask.all()) else mask.bool()[:, None, None, :]
    query, key, value = (split_heads(x, config) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, may_look)


@step(f"{SELF}.context", f"{SELF}.head_context")
def merge_heads(head_context: Tensor) -> Tensor:
    """The heads side by side again. [batch, head, token, head width] -> [batch, token, width]"""
    return head_context.transpose(1, 2).flatten(start_dim=2)


@step(f"{BLOCK}.intermediate.intermediate_act_fn", f"{BLOCK}.intermediate.dense")
def gelu(x: Tensor) -> Tensor:
    """x · Φ(x), exact, by the error function. [batch, token, wide] -> the same. torch has it."""
    return F.gelu(x)


# ------------------------------------------------------------------- from token vectors to one sentence


@step("pooler.dense", "encoder.layer.{last}.output.LayerNorm")
def first_token(x: Tensor, weights: Weights) -> Tensor:
    """The first token through pooler.dense.weight and .bias. [batch, token, width] -> [batch, width]"""
    return F.linear(x[:, 0], weights["pooler.dense.weight"], weights["pooler.dense.bias"])


@step("pooler.activation", "pooler.dense")
def bend(dense: Tensor) -> Tensor:
    """Its tanh. [batch, width] -> the same"""
    return torch.tanh(dense)


@step("sentence.masked", "encoder.layer.{last}.output.LayerNorm", "inputs.mask")
def without_padding(x: Tensor, mask: Tensor) -> Tensor:
    """Vectors of padding set to zero. [batch, token, width] and [batch, token] -> [batch, token, width]"""
    return x * mask.unsqueeze(-1).to(x.dtype)


@step("sentence.sum", "sentence.masked")
def sum_of_tokens(masked: Tensor) -> Tensor:
    """[batch, token, width] -> [batch, width]"""
    return masked.sum(dim=1)


@step("sentence.count", "inputs.mask", "encoder.layer.{last}.output.LayerNorm")
def number_of_tokens(mask: Tensor, x: Tensor) -> Tensor:
    """How many real tokens a sentence has, as a float: the same number for each of the width, at least 1e-9.

    [batch, token] -> [batch, width], as many numbers as x [batch, token, width] has.
    """
    return mask.unsqueeze(-1).expand(x.shape).to(x.dtype).sum(dim=1).clamp(min=1e-9)


@step("sentence.mean", "sentence.sum", "sentence.count")
def divide(total: Tensor, count: Tensor) -> Tensor:
    """The average token. [batch, width]"""
    return total / count


@step("sentence.embedding", "sentence.mean")
def at_length_one(mean: Tensor) -> Tensor:
    """The same direction at length 1: the answer. [batch, width]"""
    return F.normalize(mean, p=2, dim=1)
