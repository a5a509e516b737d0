"""GPT-2, rebuilt by you.

    llm-rebuild check FILE --model gpt2

Axes     batch   texts that run together            head        one of n_head attention heads
         token   a position in the padded text      head width  width / n_head
         width   numbers that describe a token      wide        4 × width, inside the feed-forward
         query   a token that looks                 key         a token that is looked at
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.workbench import step

Weights = Mapping[str, Tensor]  # the weight file: weights["h.0.ln_1.weight"]
Tap = Callable[[str, Tensor], Tensor]  # tap(name, tensor) shows a tensor to the checker, and returns it
ATTN = "h.{layer}.attn"


def forward(
    token_ids: Tensor,
    mask: Tensor,
    weights: Weights,
    config: Any,
    tap: Tap,
    attention: str = "eager",
    cache: dict[str, Tensor] | None = None,
) -> Tensor:
    """token_ids, mask [batch, token], mask 1 for a token and 0 for padding -> [batch, token, vocabulary].

    config is config.json: config.n_layer, config.n_head, config.layer_norm_epsilon.
    attention is `eager`, step by step, or `sdpa`, all in one.
    cache is a dictionary of yours, empty at first. Leave keys and values there: the next time token_ids has
    the new token only, and mask all of them. None: nothing is kept.
    """
    token = token_ids.shape[1]
    which = tap("wte", token_embedding(token_ids, weights))
    where = tap("wpe", position_embedding(mask, weights)[:, -token:])
    x = tap("embeddings", embeddings(which, where))
    may_look = attention_mask(mask)[:, :, -token:]
    if attention == "eager":
        tap("mask", may_look)

    for layer in range(config.n_layer):
        # First half of the block: every token looks at itself and at those before.
        normed = tap(f"h.{layer}.ln_1", layer_norm(x, f"h.{layer}.ln_1", weights, config))
        qkv = tap(f"h.{layer}.attn.c_attn", conv1d(normed, f"h.{layer}.attn.c_attn", weights))
        key = value = None
        if cache is not None:
            key, value = (split_heads(part, config) for part in qkv.chunk(3, dim=-1)[1:])
            key = tap(f"h.{layer}.attn.key", remember(key, f"h.{layer}.attn.key", cache))
            value = tap(f"h.{layer}.attn.value", remember(value, f"h.{layer}.attn.value", cache))
        if attention == "eager":
            product = tap(f"h.{layer}.attn.product", query_times_key(qkv, key, config))
            scaled = tap(f"h.{layer}.attn.scaled", scale(product, config))
            scores = tap(f"h.{layer}.attn.scores", add_mask(scaled, may_look))
            probs = tap(f"h.{layer}.attn.probs", probabilities(scores))
            head_context = mix_values(probs, qkv, value, config)
        else:
            head_context = all_in_one(qkv, mask, key, value, config)
        tap(f"h.{layer}.attn.head_context", head_context)
        context = tap(f"h.{layer}.attn.context", merge_heads(head_context))
        attended = tap(f"h.{layer}.attn.c_proj", conv1d(context, f"h.{layer}.attn.c_proj", weights))
        x = tap(f"h.{layer}.attn.residual", add(attended, x))

        # Second half: each token by itself, widened, bent and narrowed again.
        normed = tap(f"h.{layer}.ln_2", layer_norm(x, f"h.{layer}.ln_2", weights, config))
        wide = tap(f"h.{layer}.mlp.c_fc", conv1d(normed, f"h.{layer}.mlp.c_fc", weights))
        bent = tap(f"h.{layer}.mlp.act", gelu(wide, f"h.{layer}.mlp.act", tap))
        narrow = tap(f"h.{layer}.mlp.c_proj", conv1d(bent, f"h.{layer}.mlp.c_proj", weights))
        x = tap(f"h.{layer}.mlp.residual", add(x, narrow))

    x = tap("ln_f", layer_norm(x, "ln_f", weights, config))
    return tap("lm_head", head(x, weights))


# ------------------------------------------------------------------------------------ before the blocks


@step("wte", "inputs.token_ids")
def token_embedding(token_ids: Tensor, weights: Weights) -> Tensor:  # given
    """Which token it is. [batch, token] -> [batch, token, width]: the token's row of the table wte.weight."""
    return F.embedding(token_ids, weights["wte.weight"])


@step("wpe", "inputs.mask")
def position_embedding(mask: Tensor, weights: Weights) -> Tensor:
    """Where it stands. [batch, token] -> [1, token, width]: row 0, 1, 2, … of the table wpe.weight.

    The first axis has length 1: it is the same for every text of the batch.
    """
    positions = torch.arange(mask.shape[1]).unsqueeze(0)  # [1, token]
    return F.embedding(positions, weights["wpe.weight"])


@step("embeddings", "wte", "wpe")
def embeddings(which: Tensor, where: Tensor) -> Tensor:
    """The two added. -> [batch, token, width]"""
    return which + where


@step("mask", "inputs.mask")
def attention_mask(mask: Tensor) -> Tensor:
    """Who may look at whom. [batch, token] of 1 and 0 -> [batch, 1, query, key], to be added to the scores.

    0 where a token may look: at itself and at earlier tokens, unless they are padding. The lowest float32
    there is (torch.finfo) where it may not.
    """
    order = torch.arange(mask.shape[1])
    not_later = order <= order[:, None]  # [query, key]
    may_look = not_later & mask.bool()[:, None, None, :]  # [batch, 1, query, key]
    return torch.where(may_look, torch.zeros(()), torch.finfo(torch.float32).min)


# --------------------------------------------------------------------------------- parts of every block


@step("h.{layer}.ln_1", "h.{layer-1}.mlp.residual or embeddings")
@step("h.{layer}.ln_2", "h.{layer}.attn.residual")
@step("ln_f", "h.{last}.mlp.residual")
def layer_norm(x: Tensor, name: str, weights: Weights, config: Any) -> Tensor:
    """Each token's numbers at mean 0 and variance 1, then stretched and moved.

    [batch, token, width] -> the same. Uses {name}.weight, {name}.bias and config.layer_norm_epsilon.
    torch has it in one function; the formula written out rounds differently.
    """
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.layer_norm(x, x.shape[-1:], weight, bias, config.layer_norm_epsilon)


@step("h.{layer}.attn.c_attn", "h.{layer}.ln_1")
@step("h.{layer}.attn.c_proj", "h.{layer}.attn.context")
@step("h.{layer}.mlp.c_fc", "h.{layer}.ln_2")
@step("h.{layer}.mlp.c_proj", "h.{layer}.mlp.act")
def conv1d(x: Tensor, name: str, weights: Weights) -> Tensor:
    """A linear layer. [batch, token, in] -> [batch, token, out], with {name}.weight and {name}.bias.

    The weight lies in GPT-2's file as [in, out]; torch's own linear layer has it as [out, in]. For the last
    bit, bias and product have to come from one operation (torch.addmm, or F.linear with the weight turned).
    """
    return F.linear(x, weights[f"{name}.weight"].T, weights[f"{name}.bias"])


@step(f"{ATTN}.product", f"{ATTN}.c_attn", f"{ATTN}.key?")
def query_times_key(qkv: Tensor, key: Tensor | None, config: Any) -> Tensor:
    """[batch, token, 3 × width] -> [batch, head, query, key]: every query times every key, head by head.

    Query, key and value lie side by side in qkv. Take the first two, split each into heads with
    `split_heads`, and multiply. Where keys are kept, all of them come as `key`, split already, else None.
    """
    query, new, _ = (split_heads(part, config) for part in qkv.chunk(3, dim=-1))
    return query @ (new if key is None else key).transpose(-1, -2)


def split_heads(x: Tensor, config: Any) -> Tensor:  # yours
    """[batch, token, width] -> [batch, head, token, head width].

    Head 0 has the first numbers of the width, head 1 the next, and so on. It is no step by itself.
    Two of them use it.
    """
    return x.view(*x.shape[:-1], config.n_head, -1).transpose(1, 2)


def remember(new: Tensor, name: str, cache: dict[str, Tensor]) -> Tensor:  # yours
    """Keys or values [batch, head, token, head width] of all tokens so far, those in cache[name] first. They
    are kept there, whole in memory (`contiguous`), as torch.cat leaves them.
    """
    cache[name] = torch.cat([cache[name], new], dim=-2) if name in cache else new.contiguous()
    return cache[name]


@step("h.{layer}.attn.scaled", "h.{layer}.attn.product")
def scale(product: Tensor, config: Any) -> Tensor:
    """Times 1/√(head width). [batch, head, query, key] -> the same. The head width is n_embd / n_head.

    For the last bit, multiply by the power -0.5; a division by the root rounds differently for some widths.
    """
    power: float = (config.n_embd // config.n_head) ** -0.5
    return product * power


@step("h.{layer}.attn.scores", "h.{layer}.attn.scaled", "mask")
def add_mask(scaled: Tensor, may_look: Tensor) -> Tensor:
    """What enters the softmax. [batch, head, query, key] -> the same"""
    return scaled + may_look


@step("h.{layer}.attn.probs", "h.{layer}.attn.scores")
def probabilities(scores: Tensor) -> Tensor:
    """How much each token looks where. [batch, head, query, key] -> the same; each query's sum is 1."""
    return F.softmax(scores, dim=-1)


@step(f"{ATTN}.head_context", f"{ATTN}.probs", f"{ATTN}.c_attn", f"{ATTN}.value?")
def mix_values(probs: Tensor, qkv: Tensor, value: Tensor | None, config: Any) -> Tensor:
    """The values by these shares. -> [batch, head, query, head width]. The value is the last third of qkv;
    where values are kept, all of them come as `value`, split already, else None."""
    return probs @ (split_heads(qkv.chunk(3, dim=-1)[2], config) if value is None else value)


@step(f"{ATTN}.head_context", f"{ATTN}.c_attn", "inputs.mask", f"{ATTN}.key?", f"{ATTN}.value?")
def all_in_one(qkv: Tensor, mask: Tensor, key: Tensor | None, value: Tensor | None, config: Any) -> Tensor:
    """From `query_times_key` to `mix_values` at once, by torch's scaled_dot_product_attention.

    -> [batch, head, query, head width]. It scales by itself, and takes who may look at whom as True and
    False: where `attention_mask` has its 0. Of that, the last rows: as many as there are queries.
    """
    query, new_key, new_value = (split_heads(part, config) for part in qkv.chunk(3, dim=-1))
    may_look = attention_mask(mask)[:, :, -query.shape[-2] :] == 0
    key, value = new_key if key is None else key, new_value if value is None else value
    return F.scaled_dot_product_attention(query, key, value, may_look)


@step("h.{layer}.attn.context", "h.{layer}.attn.head_context")
def merge_heads(head_context: Tensor) -> Tensor:
    """The heads side by side again. [batch, head, token, head width] -> [batch, token, width]"""
    return head_context.transpose(1, 2).flatten(start_dim=2)


@step("h.{layer}.attn.residual", "h.{layer}.attn.c_proj", "h.{layer-1}.mlp.residual or embeddings")
@step("h.{layer}.mlp.residual", "h.{layer}.attn.residual", "h.{layer}.mlp.c_proj")
def add(one: Tensor, other: Tensor) -> Tensor:
    """What a half of the block made, plus what it was given. [batch, token, width]"""
    return one + other


@step("h.{layer}.mlp.act", "h.{layer}.mlp.c_fc")
def gelu(x: Tensor, name: str, tap: Tap) -> Tensor:
    """0.5 x · (1 + tanh(√(2/π) · (x + 0.044715 x³))), in the steps in which it was first written down.

    [batch, token, wide] -> the same. The official model shows what is between: tap each under
    {name}.half (0.5 x), .cube (x³), .small_cube (0.044715 x³), .steeper (x + that), .scaled (√(2/π) times
    that), .tanh, and .gate (1 + that), in this order.
    """
    half = tap(f"{name}.half", 0.5 * x)
    cube = tap(f"{name}.cube", torch.pow(x, 3.0))
    small_cube = tap(f"{name}.small_cube", 0.044715 * cube)
    steeper = tap(f"{name}.steeper", x + small_cube)
    scaled = tap(f"{name}.scaled", math.sqrt(2.0 / math.pi) * steeper)
    tanh = tap(f"{name}.tanh", torch.tanh(scaled))
    gate = tap(f"{name}.gate", 1.0 + tanh)
    return half * gate


# ------------------------------------------------------------------------------------- after the blocks


@step("lm_head", "ln_f")
def head(x: Tensor, weights: Weights) -> Tensor:
    """A score for every possible next token. [batch, token, width] -> [batch, token, vocabulary]

    The head has no weight of its own: it is the table of tokens, wte.weight, once more.
    """
    return F.linear(x, weights["wte.weight"])
