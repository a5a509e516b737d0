"""What every tokenizer here takes and returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


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
