"""A folder's own tokenizer, run by transformers, and whether the rebuilt one gives the same token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.models.pipeline import Pipeline
from llm_rebuild.tokenizers import Encoding
from llm_rebuild.using.inputs import Inputs

SAME, OTHER, NOT_COMPARED = "same ids", "other ids", "not compared"

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
    load.

    lower_case  Whether texts are lower-cased first, as sentence-transformers does for some folders.
    """

    def __init__(self, copy: LocalCopy, lower_case: bool = False) -> None:
        import transformers
        from tokenizers import normalizers

        ask = f"give --token-ids, for {copy.folder} has no tokenizer that transformers can read"
        if not any((copy.folder / file).is_file() for file in FILES):
            raise InputError(ask)
        try:
            self._official = transformers.AutoTokenizer.from_pretrained(
                copy.folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # each tokenizer class refuses in its own way
            raise InputError(f"{ask} ({one_line(error)})") from error
        if lower_case:
            backend = self._official.backend_tokenizer
            backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), backend.normalizer])
        self.pad_id: int | None = self._official.pad_token_id
        self.vocabulary_size = len(self._official)

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        """As the package's own tokenizers do, but without offsets, and what is cut off is not counted."""
        cut = {} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
        ids = list(self._official(text, **cut)["input_ids"])
        tokens = [str(token) for token in self._official.convert_ids_to_tokens(ids)]
        return Encoding(ids, tokens, [(0, 0)] * len(ids))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text that ids stand for."""
        return str(self._official.decode(list(ids), skip_special_tokens=skip_special_tokens))


@dataclass(frozen=True)
class TokenVerdict:
    """The first thing that is compared: the token ids.

    verdict  `same ids`, `other ids` or `not compared`.
    words    Where they part, or why nothing was compared.
    """

    verdict: str
    words: str = ""

    @property
    def passes(self) -> bool:
        """Nothing was seen to differ. Where nothing was compared, the verdict says so."""
        return self.verdict != OTHER

    def __str__(self) -> str:
        return f"token ids: {self.verdict}" + (f", {self.words}" if self.words else "")


@lru_cache(maxsize=4)
def _official(
    copy: LocalCopy, lower_case: bool, stamps: tuple[tuple[str, int, int], ...]
) -> OfficialTokenizer:
    """The tokenizer of these very files: loading it takes longer than what it is asked for."""
    return OfficialTokenizer(copy, lower_case)


def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Which of the files are there, when each was written, and its size."""
    stats = [(file, (folder / file).stat()) for file in FILES if (folder / file).is_file()]
    return tuple((file, status.st_mtime_ns, status.st_size) for file, status in stats)


def compare_tokens(copy: LocalCopy, inputs: Inputs) -> TokenVerdict:
    """Hold the ids that the rebuilt tokenizer made of the texts against the official tokenizer's."""
    if not inputs.texts:
        return TokenVerdict(NOT_COMPARED, "for they were given")
    if copy.architecture is None:
        return TokenVerdict(NOT_COMPARED, "for the official tokenizer made them: there is no other")
    around = copy.pipeline or Pipeline()
    try:
        official = _official(copy, around.lower_case, _stamps(copy.folder))
    except InputError:
        return TokenVerdict(NOT_COMPARED, "for the folder has no tokenizer that transformers can read")
    for number, (text, ids, real) in enumerate(zip(inputs.texts, inputs.token_ids, inputs.mask, strict=True)):
        cut = len(inputs.truncated) > number and inputs.truncated[number] > 0
        rebuilt = ids[real.bool()].tolist()
        expected = official.encode(around.prompt + text, len(rebuilt) if cut else None).ids
        if rebuilt == expected:
            continue
        where = f"text {number + 1}: " if len(inputs.texts) > 1 else ""
        if len(rebuilt) != len(expected):
            where += f"{len(expected)} official ones, {len(rebuilt)} rebuilt; "
        at = next((i for i, (a, b) in enumerate(zip(expected, rebuilt, strict=False)) if a != b), None)
        if at is None:
            return TokenVerdict(OTHER, f"{where}the others come after them")
        return TokenVerdict(OTHER, f"{where}token {at} is {expected[at]} officially, {rebuilt[at]} rebuilt")
    return TokenVerdict(SAME, "as the official tokenizer has them")
