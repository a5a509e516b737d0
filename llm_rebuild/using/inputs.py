"""What a model is given: token ids and a mask, and nothing else.

One reading for all who ask a model something: embedding, generation, verification, capture, check. A string
is one text everywhere, ids are whole numbers of the vocabulary, and what does not fit the model is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, counted
from llm_rebuild.json_fields import shown
from llm_rebuild.models.part import Batch
from llm_rebuild.tokenizers import Tokenizer

# One text, several texts, or several rows of token ids.
Prompts: TypeAlias = str | Sequence[str] | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Inputs:
    """One padded batch.

    token_ids     [batch, token], int64
    mask          [batch, token], int64: 1 for a token, 0 for padding
    texts         The texts, as they were given; empty when ids were.
    tokens        The tokens as text, per row without padding; empty when ids were given.
    truncated     How many tokens each text lost, because the model reads no more.
    decoder_ids   [batch, decoder token], int64, and its mask: what the decoder reads, where there is one
                  beside an encoder.
    """

    token_ids: Tensor
    mask: Tensor
    texts: tuple[str, ...] = ()
    tokens: tuple[tuple[str, ...], ...] = ()
    truncated: tuple[int, ...] = ()
    decoder_ids: Tensor | None = None
    decoder_mask: Tensor | None = None

    @property
    def batch(self) -> Batch:
        """What a rebuild's `forward` takes of it."""
        return Batch(**self.tensors)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What the model reads, by name; without what there is not."""
        names = ("token_ids", "mask", "decoder_ids", "decoder_mask")
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    @property
    def padded(self) -> bool:
        """Whether any row is shorter than the longest."""
        return not bool(self.mask.all())

    @property
    def count(self) -> int:
        """How many real tokens there are."""
        return int(self.mask.sum())

    @property
    def rows(self) -> list[list[int]]:
        """The ids of each text, without padding."""
        return [ids[real.bool()].tolist() for ids, real in zip(self.token_ids, self.mask, strict=True)]

    @classmethod
    def from_texts(
        cls,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        positions: int | None,
        side: str = "right",
        limit: int | None = None,
        prompt: str = "",
    ) -> Inputs:
        """Tokenise and pad to the longest.

        positions  The most tokens that the model can take; longer texts are refused. None: there is no limit.
        side       Where padding goes, `right` or `left`.
        limit      Texts are cut to so many tokens, as sentence encoders do. None: not at all.
        prompt     What is put before every text.
        """
        if not texts:
            raise InputError("no text was given")
        encodings = [tokenizer.encode(prompt + text, max_tokens=limit) for text in texts]
        for number, encoding in enumerate(encodings, 1):
            if not encoding.ids:
                raise InputError(f"text {number} has no tokens; give the model something to start from")
            if positions is not None and len(encoding.ids) > positions:
                raise InputError(
                    f"text {number} has {len(encoding.ids)} tokens, more than the {positions} that the "
                    "model takes; shorten it"
                )
        return cls(
            *_padded([encoding.ids for encoding in encodings], side, tokenizer.pad_id or 0),
            tuple(texts),
            tuple(tuple(e.tokens) for e in encodings),
            tuple(e.truncated for e in encodings),
        )

    @classmethod
    def from_token_ids(cls, rows: Sequence[Sequence[int]], vocab_size: int, positions: int | None) -> Inputs:
        """From ids as they are: no special tokens are added. Padded with 0 to the longest row."""
        checked = [_ids(row, vocab_size) for row in _listed(rows)]
        if not checked or not all(checked):
            raise InputError("no token ids were given")
        longest = max(map(len, checked))
        if positions is not None and longest > positions:
            raise InputError(f"{longest} token ids are more than the {positions} that the model takes")
        return cls(*_padded(checked, "right"))

    def with_padding(self, side: str, fill: int | None = None) -> Inputs:
        """The same rows with their padding on the `right` or on the `left`. `fill`: another id for it."""
        padding = self.token_ids[self.mask == 0].tolist() if fill is None else [fill]
        token_ids, mask = _padded(self.rows, side, *padding[:1])
        return replace(self, token_ids=token_ids, mask=mask)

    def others(self, least: int, most: int | None) -> Inputs:
        """Other texts, by their ids: these from their ends, each a token longer, the last one first and once
        more at the end, there over and over until it has `least` tokens. None has more than `most`, if
        that is not None. What holds only for these texts, or for so many of them and so long ones, is wrong
        of those. They are padded where these are."""
        rows = [[*row[::-1], *row[:1]][:most] for row in reversed(self.rows)]
        again = rows[0] * (1 + least // len(rows[0]))
        rows.append(again[: max(least, len(rows[0]))][:most])
        others = Inputs(*_padded(rows, "right", *self.token_ids[self.mask == 0].tolist()[:1]))
        start = None if self.decoder_ids is None else int(self.decoder_ids[0, 0])
        return others.with_decoder(None, start, max(start or 0, int(self.token_ids.max())) + 1)

    def with_decoder(
        self, rows: Sequence[Sequence[int]] | None, start_id: int | None, vocab_size: int
    ) -> Inputs:
        """The same, with what the decoder beside the encoder reads; the same as it is, where there is none.

        rows      Ids, the start token first, one row for each text. If None: the start token and then the
                  text's own tokens but the last, so that every part of the decoder has something to do.
        start_id  The start token's; None for a model without such a decoder.
        """
        if start_id is None:
            if rows is not None:
                raise InputError("the model has no decoder beside its encoder; leave the decoder ids out")
            return self
        if rows is None:
            rows = [[start_id, *row[:-1]] for row in self.rows]
        checked = [_ids(row, vocab_size) for row in _listed(rows)]
        if len(checked) != len(self.token_ids):
            raise InputError(f"decoder ids for {counted(len(checked), 'text')}, of {len(self.token_ids)}")
        for row in checked:
            if row[:1] != [start_id]:
                raise InputError(f"decoder ids must begin with the start token {start_id}, not {row[:1]}")
        ids, mask = _padded(checked, "right")
        return replace(self, decoder_ids=ids, decoder_mask=mask)


def read(copy: LocalCopy, prompts: Prompts, decoder_ids: Sequence[Sequence[int]] | None = None) -> Inputs:
    """Texts or rows of ids as one padded batch that fits a model that there is a rebuild of.

    decoder_ids  What a decoder beside an encoder reads, see `Inputs.with_decoder`.

    Texts go the way of the model's pipeline: its prompt before them, cut where it cuts.
    """
    config = copy.rebuild.config
    texts = texts_of(prompts)
    if texts is None:
        rows = cast("Sequence[Sequence[int]]", prompts)
        inputs = Inputs.from_token_ids(rows, config.vocab_size, config.positions)
    else:
        tokenizer = copy.tokenizer()
        if tokenizer.vocabulary_size > config.vocab_size:
            raise InputError(
                f"the tokenizer of {copy.name} has {tokenizer.vocabulary_size} ids, config.json's vocab_size "
                f"is {config.vocab_size}; they belong to different models"
            )
        prompt, limit = copy.pipeline.prompt if copy.pipeline else "", config.text_limit
        inputs = Inputs.from_texts(tokenizer, texts, config.positions, limit=limit, prompt=prompt)
    return inputs.with_decoder(decoder_ids, config.start_token, config.vocab_size)


def texts_of(prompts: Prompts) -> list[str] | None:
    """The texts; None for rows of token ids. Raises InputError for none, what is neither, or a mixture."""
    if isinstance(prompts, str):
        return [prompts]
    listed = _listed(prompts)
    if not listed:
        raise InputError("no text was given")
    if all(isinstance(prompt, str) for prompt in listed):
        return listed
    if any(isinstance(prompt, str) for prompt in listed):
        raise InputError("prompts are either all texts or all rows of token ids")
    return None


def _listed(values: Any) -> list[Any]:
    """A sequence, an array or a tensor as a list. InputError for what cannot be gone through."""
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise InputError(f"{shown(values)} is no text, no list of texts and no list of rows of token ids")
    return list(values)


def _ids(row: Any, vocab_size: int) -> list[int]:
    """A row of token ids as plain integers. Raises InputError for what is none of the vocabulary."""
    ids = _listed(row)
    for token in ids:
        if type(token) is bool or not isinstance(token, Integral):
            raise InputError(f"token id {shown(token)} is no whole number")
        if not 0 <= int(token) < vocab_size:
            raise InputError(f"token id {shown(token)} is outside the vocabulary of 0 to {vocab_size - 1}")
    return [int(token) for token in ids]


def _padded(rows: Sequence[Sequence[int]], side: str, fill: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask [batch, token], every row as long as the longest; the mask is 0 at padding."""
    if side not in ("left", "right"):
        raise InputError(f"padding side is {side!r}; it must be 'left' or 'right'")
    pad = partial(pad_sequence, batch_first=True, padding_side=side)
    ids = pad([torch.tensor(row, dtype=torch.int64) for row in rows], padding_value=fill)
    return ids, pad([torch.ones(len(row), dtype=torch.int64) for row in rows])
