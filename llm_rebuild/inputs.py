"""What both sides are given: token ids and a mask, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers import Tokenizer, pad


@dataclass(frozen=True)
class Inputs:
    """One padded batch.

    token_ids  [batch, token], int64
    mask       [batch, token], int64: 1 for a token, 0 for padding
    tokens     The tokens as text, per row without padding; empty when ids were given directly.
    truncated  How many tokens each text lost to the model's longest input.
    """

    token_ids: Tensor
    mask: Tensor
    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()
    truncated: tuple[int, ...] = field(default=())

    @property
    def padded(self) -> bool:
        """Whether any row is shorter than the longest."""
        return not bool(self.mask.all())

    @property
    def count(self) -> int:
        """How many real tokens there are."""
        return int(self.mask.sum())

    @classmethod
    def from_texts(cls, tokenizer: Tokenizer, texts: Sequence[str], positions: int) -> Inputs:
        """Tokenise, cut to `positions` tokens, pad to the longest."""
        if not texts:
            raise InputError("no text was given")
        encodings = [tokenizer.encode(text, max_tokens=positions) for text in texts]
        ids, mask = pad(encodings, tokenizer.pad_id or 0)
        return cls(
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor(mask, dtype=torch.int64),
            tuple(texts),
            tuple(tuple(e.tokens) for e in encodings),
            tuple(e.truncated for e in encodings),
        )

    @classmethod
    def from_token_ids(cls, rows: Sequence[Sequence[int]], vocab_size: int, positions: int) -> Inputs:
        """From ids as they are: no special tokens are added. Padded with 0 to the longest row."""
        if not rows or not all(rows):
            raise InputError("no token ids were given")
        for row in rows:
            wrong = [i for i in row if not 0 <= i < vocab_size]
            if wrong:
                raise InputError(f"token id {wrong[0]} is outside the vocabulary of 0 to {vocab_size - 1}")
            if len(row) > positions:
                raise InputError(f"{len(row)} token ids are more than the model's {positions} positions")
        width = max(len(row) for row in rows)
        return cls(
            torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.int64),
            torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], dtype=torch.int64),
        )
