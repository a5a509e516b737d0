"""Text into token ids and back, from the vocabulary files alone.

One module an algorithm: `wordpiece` (MiniLM and its relatives), `byte_bpe` (GPT-2), `unigram` (T5). They
share what is here: the encoding they return, `load`, which picks one by the files in a folder, and `pad`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llm_rebuild.errors import InputError

__all__ = ["Encoding", "Tokenizer", "load", "pad"]


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

    def decode(self, ids: Sequence[int]) -> str:
        """The text that the ids stand for, as near as the tokenizer can restore it."""


def load(folder: Path) -> Tokenizer:
    """The tokenizer of the model in `folder`, by its config.json's model_type and its files.

    Raises InputError if there is no tokenizer here that we can rebuild.
    """
    folder = Path(folder)
    model_type = _model_type(folder)
    if model_type == "bert" or (model_type is None and (folder / "vocab.txt").is_file()):
        from llm_rebuild.tokenizers.wordpiece import WordPiece

        return WordPiece.from_folder(folder)
    if model_type == "gpt2" or (model_type is None and (folder / "merges.txt").is_file()):
        from llm_rebuild.tokenizers.byte_bpe import ByteBPE

        return ByteBPE.from_folder(folder)
    if model_type == "t5" or (model_type is None and (folder / "spiece.model").is_file()):
        from llm_rebuild.tokenizers.unigram import Unigram

        return Unigram.from_folder(folder)
    raise InputError(
        f"{folder} has no tokenizer that can be rebuilt: need vocab.txt (bert), "
        f"vocab.json and merges.txt (gpt2) or spiece.model (t5); its model_type is {model_type!r}"
    )


def _model_type(folder: Path) -> str | None:
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not readable as JSON: {error}; download it again") from error
    model_type = config.get("model_type") if isinstance(config, dict) else None
    return model_type if isinstance(model_type, str) else None


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
