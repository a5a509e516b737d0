"""Keys and values of earlier tokens: a value that a step is given and gives back, never a hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeysAndValues:
    """What one attention of one block has seen so far.

    key, value  [batch, head, token, head width], whole in memory: the official cache makes them so, and
                a product with a transposed view sums in another order.
    """

    key: Tensor
    value: Tensor

    @classmethod
    def kept(cls, key: Tensor, value: Tensor) -> KeysAndValues:
        """The first tokens. Copied, for `key` and `value` are views of a larger product."""
        whole = torch.contiguous_format
        return cls(key.clone(memory_format=whole), value.clone(memory_format=whole))

    def then(self, key: Tensor, value: Tensor) -> KeysAndValues:
        """These tokens and new ones after them."""
        return KeysAndValues(torch.cat([self.key, key], dim=-2), torch.cat([self.value, value], dim=-2))

    def reordered(self, rows: Tensor) -> KeysAndValues:
        """Other rows of the batch, or the same in another order. rows [batch], int64."""
        return KeysAndValues(self.key.index_select(0, rows), self.value.index_select(0, rows))


@dataclass(frozen=True)
class Cache:
    """What a decoder's self-attention has seen so far, one entry a block."""

    blocks: tuple[KeysAndValues, ...]

    @property
    def tokens(self) -> int:
        """How many tokens it has seen."""
        return self.blocks[0].key.shape[-2]

    def reorder(self, rows: Tensor) -> Cache:
        """The cache of other rows of the batch, as beam search needs it. rows [batch], int64."""
        return Cache(tuple(block.reordered(rows) for block in self.blocks))
