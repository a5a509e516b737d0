"""What every tokenizer here takes and returns, and how texts of unequal length become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_rebuild.errors import InputError


@dataclass(frozen=True)
class Encoding:
    """One text as tokens. `ids`, `tokens` and `offsets` have the same length.

    `offsets[i]` is where token i stands in the original text, in characters, end not included; (0, 0) for
    tokens that were added, such as [CLS]. `truncated` counts the tokens cut off to fit `max_tokens`.
    """

    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    truncated: int = 0


class Tokenizer(Protocol):
    """What every tokenizer here can do."""

    @property
    def pad_id(self) -> int | None:
        """The id that fills a batch's short rows; None if the model has none (GPT-2)."""

    @property
    def vocabulary_size(self) -> int:
        """How many ids there are: 0 to `vocabulary_size` - 1."""

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        """The text's tokens, at most `max_tokens` of them, added ones included."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text that the ids stand for, as near as the tokenizer can restore it."""


def pad(
    encodings: Sequence[Encoding], pad_id: int | None, side: str = "right"
) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and mask of a batch, every row as long as the longest; the mask is 1 at tokens, 0 at padding.

    >>> pad([Encoding([5, 6], ["a", "b"], []), Encoding([7], ["c"], [])], pad_id=0)
    ([[5, 6], [7, 0]], [[1, 1], [1, 0]])
    """
    if side not in ("left", "right"):
        raise InputError(f"padding side is {side!r}; it must be 'left' or 'right'")
    longest = max((len(encoding.ids) for encoding in encodings), default=0)
    if pad_id is None and any(len(encoding.ids) < longest for encoding in encodings):
        raise InputError("texts of unequal length need padding, but this model has no padding token")
    ids, mask = [], []
    for encoding in encodings:
        length = len(encoding.ids)
        padding = [0 if pad_id is None else pad_id] * (longest - length)
        nothing = [0] * len(padding)
        ids.append(encoding.ids + padding if side == "right" else padding + encoding.ids)
        mask.append([1] * length + nothing if side == "right" else nothing + [1] * length)
    return ids, mask
