"""A folder's own tokenizer, run by transformers."""

from __future__ import annotations

from collections.abc import Sequence

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.tokenizers import Encoding

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)


class OfficialTokenizer:
    """What transformers makes of a folder's tokenizer files. InputError where it has none or they do not
    load."""

    def __init__(self, copy: LocalCopy) -> None:
        import transformers

        ask = f"give --token-ids, for {copy.folder} has no tokenizer that transformers can read"
        if not any((copy.folder / file).is_file() for file in FILES):
            raise InputError(ask)
        try:
            self._official = transformers.AutoTokenizer.from_pretrained(
                copy.folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # each tokenizer class refuses in its own way
            raise InputError(f"{ask} ({one_line(error)})") from error

    @property
    def pad_id(self) -> int | None:
        number: int | None = self._official.pad_token_id
        return number

    @property
    def vocabulary_size(self) -> int:
        return len(self._official)

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        ids = list(self._official(text)["input_ids"])
        kept = ids if max_tokens is None else ids[:max_tokens]
        tokens = [str(token) for token in self._official.convert_ids_to_tokens(kept)]
        return Encoding(kept, tokens, [(0, 0)] * len(kept), len(ids) - len(kept))

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._official.decode(list(ids))
        return text
