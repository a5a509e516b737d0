"""What both sides are given: token ids and a mask, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from llm_rebuild.errors import InputError
from llm_rebuild.models.part import Batch
from llm_rebuild.tokenizers import Encoding, Tokenizer, pad


@dataclass(frozen=True)
class Inputs:
    """One padded batch.

    token_ids     [batch, token], int64
    mask          [batch, token], int64: 1 for a token, 0 for padding
    tokens        The tokens as text, per row without padding; empty when ids were given directly.
    truncated     How many tokens each text lost to the model's longest input.
    decoder_ids   [batch, decoder token], int64, and its mask: what the decoder reads, where there is one
                  beside an encoder.
    """

    token_ids: Tensor
    mask: Tensor
    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()
    truncated: tuple[int, ...] = field(default=())
    decoder_ids: Tensor | None = None
    decoder_mask: Tensor | None = None

    @property
    def batch(self) -> Batch:
        """What a rebuild's `forward` takes of it."""
        return Batch(self.token_ids, self.mask, self.decoder_ids, self.decoder_mask)

    @property
    def padded(self) -> bool:
        """Whether any row is shorter than the longest."""
        return not bool(self.mask.all())

    @property
    def count(self) -> int:
        """How many real tokens there are."""
        return int(self.mask.sum())

    @classmethod
    def from_texts(
        cls,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        positions: int | None,
        side: str = "right",
        cut: bool = True,
    ) -> Inputs:
        """Tokenise and pad to the longest.

        positions  The most tokens that the model can take; None if there is no limit.
        side       Where padding goes, `right` or `left`.
        cut        Cut longer texts, as sentence encoders do. Otherwise they are refused.
        """
        if not texts:
            raise InputError("no text was given")
        encodings = [tokenizer.encode(text, max_tokens=positions if cut else None) for text in texts]
        for number, encoding in enumerate(encodings, 1):
            if not encoding.ids:
                raise InputError(f"text {number} has no tokens; give the model something to start from")
            if positions is not None and len(encoding.ids) > positions:
                raise InputError(
                    f"text {number} has {len(encoding.ids)} tokens, more than the model's {positions} "
                    "positions; shorten it"
                )
        ids, mask = pad(encodings, tokenizer.pad_id or 0, side)
        return cls(
            torch.tensor(ids, dtype=torch.int64),
            torch.tensor(mask, dtype=torch.int64),
            tuple(texts),
            tuple(tuple(e.tokens) for e in encodings),
            tuple(e.truncated for e in encodings),
        )

    @classmethod
    def from_token_ids(
        cls, rows: Sequence[Sequence[int]], vocab_size: int, positions: int | None, side: str = "right"
    ) -> Inputs:
        """From ids as they are: no special tokens are added. Padded with 0 to the longest row."""
        if not rows or not all(rows):
            raise InputError("no token ids were given")
        for row in rows:
            _in_vocabulary(row, vocab_size)
            if positions is not None and len(row) > positions:
                raise InputError(f"{len(row)} token ids are more than the model's {positions} positions")
        return cls(*_padded(rows, side))

    def with_padding(self, side: str) -> Inputs:
        """The same rows with their padding on the `right` or on the `left`."""
        rows = [ids[real.bool()] for ids, real in zip(self.token_ids, self.mask, strict=True)]
        token_ids, mask = torch.zeros_like(self.token_ids), torch.zeros_like(self.mask)
        for number, row in enumerate(rows):
            places = slice(len(row)) if side == "right" else slice(mask.shape[1] - len(row), None)
            token_ids[number, places], mask[number, places] = row, 1
        padding = self.token_ids[self.mask == 0]  # the pad token's id, if there is any
        return replace(
            self,
            token_ids=token_ids.masked_fill(mask == 0, int(padding[0]) if len(padding) else 0),
            mask=mask,
        )

    def with_decoder(self, rows: Sequence[Sequence[int]] | None, start_id: int, vocab_size: int) -> Inputs:
        """The same, with what the decoder reads.

        rows  Ids, the start token first, one row for each text. If None: the start token and then the
              text's own tokens but the last, so that every part of the decoder has something to do.
        """
        if rows is None:
            kept = [ids[real.bool()].tolist() for ids, real in zip(self.token_ids, self.mask, strict=True)]
            rows = [[start_id, *row[:-1]] for row in kept]
        if len(rows) != len(self.token_ids):
            raise InputError(f"{len(rows)} rows of decoder ids do not fit {len(self.token_ids)} texts")
        for row in rows:
            if not row or row[0] != start_id:
                raise InputError(
                    f"decoder ids must begin with the start token {start_id}, not {list(row)[:1]}"
                )
            _in_vocabulary(row, vocab_size)
        ids, mask = _padded(rows, "right")
        return replace(self, decoder_ids=ids, decoder_mask=mask)


def _in_vocabulary(row: Sequence[int], vocab_size: int) -> None:
    wrong = [i for i in row if not 0 <= i < vocab_size]
    if wrong:
        raise InputError(f"token id {wrong[0]} is outside the vocabulary of 0 to {vocab_size - 1}")


def _padded(rows: Sequence[Sequence[int]], side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask [batch, token]."""
    encodings = [Encoding(list(row), [], []) for row in rows]
    ids, mask = pad(encodings, 0, side)
    return torch.tensor(ids, dtype=torch.int64), torch.tensor(mask, dtype=torch.int64)
