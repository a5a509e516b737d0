"""Keys and values of earlier tokens: a value that a step is given and gives back, never a hidden state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeysAndValues:
    """What one attention of one block has seen so far.

    key, value  [batch, head, token, head width], whole in memory and no view of a larger product: so the
                official cache keeps them, and a product with a view sums in another order.
    """

    key: Tensor
    value: Tensor

    @classmethod
    def empty(cls) -> KeysAndValues:
        """Nothing seen yet."""
        return cls(torch.empty(0), torch.empty(0))

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return self.key.shape[-2] if self.key.dim() > 1 else 0

    def extended(self, key: Tensor, value: Tensor) -> KeysAndValues:
        """These tokens and new ones after them, copied together."""
        if self.key.dtype != key.dtype:  # what is empty has no type of its own
            return KeysAndValues(self.key.to(key.dtype), self.value.to(value.dtype)).extended(key, value)
        return KeysAndValues(torch.cat([self.key, key], dim=-2), torch.cat([self.value, value], dim=-2))

    def cut(self, tokens: int) -> KeysAndValues:
        """The first so many tokens of it."""
        return KeysAndValues(self.key[:, :, :tokens], self.value[:, :, :tokens])

    def reorder(self, rows: Tensor) -> KeysAndValues:
        """Other rows of the batch, or the same in another order. rows [batch], int64."""
        return KeysAndValues(self.key.index_select(0, rows), self.value.index_select(0, rows))


@dataclass(frozen=True)
class Cache:
    """What a decoder's self-attention has seen so far, one entry a block. `Cache()` has seen nothing."""

    blocks: tuple[KeysAndValues, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return self.blocks[0].tokens if self.blocks else 0

    def block(self, layer: int) -> KeysAndValues:
        """What one block has seen."""
        return self.blocks[layer] if self.blocks else KeysAndValues.empty()

    def cut(self, tokens: int) -> Cache:
        """The first so many tokens of it."""
        return Cache(tuple(block.cut(tokens) for block in self.blocks))

    def reorder(self, rows: Tensor) -> Cache:
        """The cache of other rows of the batch, as beam search needs it. rows [batch], int64."""
        return Cache(tuple(block.reorder(rows) for block in self.blocks))


@dataclass(frozen=True)
class EncoderDecoderCache:
    """What a decoder beside an encoder has seen so far: for each block the answer's own tokens, which grow,
    and the encoder's, which stay what they are."""

    blocks: tuple[tuple[KeysAndValues, KeysAndValues], ...] = ()

    @property
    def tokens(self) -> int:
        """How many of the answer's tokens it holds."""
        return self.blocks[0][0].tokens if self.blocks else 0

    def block(self, layer: int) -> tuple[KeysAndValues, KeysAndValues]:
        """What one block has seen: of the answer, and of the encoder's tokens."""
        return self.blocks[layer] if self.blocks else (KeysAndValues.empty(), KeysAndValues.empty())

    def cut(self, tokens: int) -> EncoderDecoderCache:
        """The first so many of the answer's tokens, and all of the encoder's."""
        return EncoderDecoderCache(tuple((own.cut(tokens), far) for own, far in self.blocks))

    def reorder(self, rows: Tensor) -> EncoderDecoderCache:
        """The cache of other rows of the batch, as beam search needs it. rows [batch], int64."""
        return EncoderDecoderCache(tuple((own.reorder(rows), far.reorder(rows)) for own, far in self.blocks))
