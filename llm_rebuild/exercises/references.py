"""What the functions of the exercises have to compute. Written to be read after one's own attempt."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax(x: Tensor) -> Tensor:
    """[…, n] -> shares along the last axis; the largest is taken away first, so that nothing overflows."""
    powers = (x - x.max(dim=-1, keepdim=True).values).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """[…, width] -> the same: mean 0 and variance 1 along the last axis, stretched and moved."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[…, width] -> the same: divided by its root mean square, stretched."""
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))


def gelu(x: Tensor) -> Tensor:
    """x · Φ(x), by the error function."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, token, width] -> [batch, head, token, head width]"""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[batch, head, token, head width] -> [batch, token, width]"""
    return x.transpose(1, 2).flatten(start_dim=2)


def causal_mask(tokens: int) -> Tensor:
    """[token, token]: 0 where a token may look, the lowest float where it may not."""
    order = torch.arange(tokens)
    return torch.where(order <= order[:, None], 0.0, torch.finfo(torch.float32).min)


def mean_pooling(x: Tensor, mask: Tensor) -> Tensor:
    """[batch, token, width], [batch, token] -> [batch, width]: the mean over real tokens."""
    real = mask[..., None].to(x.dtype)
    return (x * real).sum(dim=1) / real.sum(dim=1)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """[width], [width] -> []"""
    return F.cosine_similarity(one, other, dim=0)


def ulps(one: float, other: float) -> int:
    """How many steps from one float32 to the other, of the same sign."""
    bits = torch.tensor([one, other]).view(torch.int32)
    return int((bits[0] - bits[1]).abs())


def longest_pieces(word: str, vocabulary: list[str]) -> list[str]:
    """WordPiece: the longest piece that is in the vocabulary, and again from what is left."""
    pieces: list[str] = []
    start = 0
    while start < len(word):
        mark = "##" if start else ""
        ends = (end for end in range(len(word), start, -1) if mark + word[start:end] in vocabulary)
        end = next(ends, None)
        if end is None:
            return ["[UNK]"]
        pieces.append(mark + word[start:end])
        start = end
    return pieces


def merge(symbols: list[str], merges: list[list[str]]) -> list[str]:
    """Byte pair encoding: join the neighbours that stand highest in the list, until none does."""
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
    symbols = list(symbols)
    while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
        best = min(pairs, key=ranks.__getitem__)
        joined: list[str] = []
        for symbol in symbols:
            if joined and (joined[-1], symbol) == best:
                joined[-1] += symbol
            else:
                joined.append(symbol)
        symbols = joined
    return symbols


def best_cut(word: str, scores: dict[str, float]) -> list[str]:
    """Unigram: of all ways to cut a word into pieces with a score, the one with the largest sum of scores."""
    best: list[tuple[float, list[str]] | None] = [(0.0, [])]
    for end in range(1, len(word) + 1):
        ways = [
            (before[0] + scores[word[start:end]], [*before[1], word[start:end]])
            for start, before in enumerate(best)
            if before is not None and word[start:end] in scores
        ]
        best.append(max(ways, key=lambda way: way[0], default=None))
    return best[-1][1] if best[-1] else []


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Rotary positions, the halves paired: [token, width], [token, width / 2] -> [token, width]"""
    first, second = x.chunk(2, dim=-1)
    angle = torch.cat((angle, angle), dim=-1)
    return x * angle.cos() + torch.cat((-second, first), dim=-1) * angle.sin()


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """[vocabulary] -> the same; all but the k best are minus infinity."""
    return scores.masked_fill(scores < scores.topk(k).values[-1], -torch.inf)
