"""What comes from outside, checked: texts, ids, limits, and the files that vocabularies come in.

The lessons are next door, in byte_bpe.py and unigram.py; they call these and stay short.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from llm_rebuild.errors import InputError
from llm_rebuild.files import read_json, read_text
from llm_rebuild.json_fields import shown
from llm_rebuild.tokenizers.encoding import Encoding

CACHE_SIZE = 2**16  # entries of each cache
CACHED_LENGTH = 256  # characters; a longer word is computed again whenever it comes
Value = TypeVar("Value")


def refuse_lone_surrogates(text: str) -> None:
    """Half of a UTF-16 pair (from a broken JSON file, say) is no character and has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text has a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}: it is not valid Unicode; remove it or read the text again"
        ) from None


def check_ids(ids: Sequence[int], vocabulary_size: int) -> None:
    """Refuse ids that stand for no token: Python would take -1 for the last one."""
    for token_id in ids:
        if not 0 <= token_id < vocabulary_size:
            raise InputError(
                f"token id {token_id} is out of range: the tokens of this vocabulary are 0 to "
                f"{vocabulary_size - 1}"
            )


def look_up(token: str, vocabulary: Mapping[str, int]) -> int:
    """A token's id. InputError where it has none."""
    if token not in vocabulary:
        raise InputError(f"{token!r} is no token of this vocabulary")
    return vocabulary[token]


class Remembered(dict[str, Value]):
    """What `make` makes of a text, kept for the next time, unless the text is long. One that is full starts
    again, so memory stays bounded."""

    def __init__(self, make: Callable[[str], Value], longest: int = CACHED_LENGTH) -> None:
        super().__init__()
        self._make, self._longest = make, longest

    def __missing__(self, text: str) -> Value:
        value = self._make(text)
        if len(text) <= self._longest:
            if len(self) >= CACHE_SIZE:
                self.clear()
            self[text] = value
        return value


def truncate(encoding: Encoding, max_tokens: int | None, closing: int = 0) -> Encoding:
    """Keep max_tokens tokens, the last `closing` of them the closing ones, and count the others."""
    ids, tokens, offsets = encoding.ids, encoding.tokens, encoding.offsets
    if max_tokens is None or len(ids) <= max_tokens:
        return encoding
    if max_tokens <= closing:
        raise InputError(f"max_tokens is {max_tokens}; it must be at least {closing + 1}")
    cut = slice(max_tokens - closing, len(ids) - closing)
    for values in (ids, tokens, offsets):
        del values[cut]
    return Encoding(ids, tokens, offsets, cut.stop - cut.start)


ANEW, CONFIG, LIBRARY = "download it again", "tokenizer_config.json", "tokenizer.json"
# What other files of a folder say of special tokens; the library reads them all.
SPECIAL_FILES = ("special_tokens_map.json", "added_tokens.json")
ADDING = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "added_tokens")
ANY_LIBRARY_CLASS = ("PreTrainedTokenizer", "TokenizersBackend")  # those that do what tokenizer.json says


def read_config(
    folder: Path, supported: Mapping[str, object], library_class: str, special: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer_config.json and tokenizer.json, as far as they are there. InputError where a field of the
    first asks for something else than what is `supported`, for another class than the library's, or where a
    file of the folder has a special token that is not one of `special`: it would be cut out of every text."""
    names = [name for name in (CONFIG, LIBRARY, *SPECIAL_FILES) if (folder / name).exists()]
    files = {name: read_json(folder / name, ANEW) for name in names}
    config = files.get(CONFIG, {})
    for field, value in {**supported, "split_special_tokens": False}.items():
        asked = config.get(field, value)
        if isinstance(asked, dict):  # older files write {"content": "[CLS]", "lstrip": false, ...}
            asked = asked.get("content")
        require(folder / CONFIG, field, asked, value)
    asked = config.get("tokenizer_class")
    if asked is not None and str(asked).removesuffix("Fast") not in (library_class, *ANY_LIBRARY_CLASS):
        require(folder / CONFIG, "tokenizer_class", asked, library_class)
    for name, fields in files.items():
        for field, token in _special_tokens(name, fields):
            if not (isinstance(token, str) and token in special):
                raise InputError(f"{folder / name}: {field} has {shown(token)}, which is not supported")
    return config, files.get(LIBRARY, {})


def _special_tokens(file: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each special token that a file names, and the field that does."""
    for field, value in fields.items():
        if file == "added_tokens.json":
            values: list[Any] = [field]  # the file is one table of tokens and their ids
        elif field in ADDING:
            several = list(value.values()) if isinstance(value, dict) else value
            values = several if isinstance(several, list) else [several]
        else:
            values = [value] if field.endswith("_token") and not isinstance(value, bool) else []
        for token in values:
            content = token.get("content") if isinstance(token, dict) else token
            if content is not None:
                yield field, content


def check_same(folder: Path, whole: Mapping[str, Any], field: str, tokens: object, own: str) -> None:
    """InputError where tokenizer.json, which the library reads if it is there, has other tokens or merges in
    its model's `field`, `vocab` or `merges`, than the file that is read here, `own`."""
    theirs = inside(whole, f"model.{field}")
    if theirs is not None and _plain(theirs) != _plain(tokens):
        raise InputError(f"{folder / LIBRARY} and {own} hold different tokens or merges: download both again")


def _plain(tokens: Any) -> Any:
    """Older files write a merge as "h e" for ["h", "e"]; the library loses a score's last bits."""
    if not isinstance(tokens, list):
        return tokens
    entries = [entry.split(" ") if isinstance(entry, str) else entry for entry in tokens]
    return [
        [f"{v:.7g}" if isinstance(v, float) else v for v in entry]
        if isinstance(entry, list | tuple)
        else entry
        for entry in entries
    ]


def inside(values: Any, field: str) -> Any:
    """`inside({"a": {"b": 1}}, "a.b")` is 1; None where the way there is missing."""
    for key in field.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def require(path: Path, field: str, asked: object, supported: object) -> None:
    """InputError that names the field, unless it asks for what is supported. 1 is not true."""
    if asked != supported or (isinstance(supported, bool) and asked is not supported):
        raise InputError(f"{path}: {field} is {shown(asked)}; only {supported!r} is supported")


def read_vocabulary(path: Path, needed: Iterable[str]) -> dict[str, int]:
    """vocab.json: one object {token: id}, whose ids are 0, 1, 2, ... each once."""
    return check_vocabulary(path, read_json(path, ANEW), needed)


def check_vocabulary(path: Path, vocabulary: dict[str, int], needed: Iterable[str]) -> dict[str, int]:
    """The same object, of whichever file."""
    token_of: dict[int, str] = {}
    for token, token_id in vocabulary.items():
        if type(token_id) is not int:  # JSON's true would pass isinstance
            raise InputError(
                f"{path}: the id of {token!r} is {token_id!r}, not an integer: download it again"
            )
        if token_id in token_of:
            raise InputError(
                f"{path}: {token_of[token_id]!r} and {token!r} share id {token_id}: download it again"
            )
        if not 0 <= token_id < len(vocabulary):
            raise InputError(
                f"{path}: {token!r} has id {token_id}, but {len(vocabulary)} tokens need the ids 0 "
                f"to {len(vocabulary) - 1}: download it again"
            )
        token_of[token_id] = token
    for token in needed:
        if token not in vocabulary:
            raise InputError(f"{path} lacks {token!r}, which this tokenizer needs: download it again")
    return vocabulary


def read_merges(path: Path, vocabulary: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """merges.txt: after a "#version" line, one "left right" a line, the best first."""
    lines = read_text(path, ANEW).removesuffix("\n").split("\n")
    numbered = enumerate((line.removesuffix("\r") for line in lines), start=1)
    merges = ((number, line) for number, line in numbered if not line.startswith("#version"))
    return ranks_of(merges, vocabulary, f"{path} line")


def ranks_of(
    merges: Iterable[tuple[int, Any]], vocabulary: Mapping[str, int], where: str
) -> dict[tuple[str, str], int]:
    """The ranks of pairs of tokens: each rank, and "left right", or ["left", "right"] in newer files."""
    ranks: dict[tuple[str, str], int] = {}
    for number, entry in merges:
        match entry.split(" ") if isinstance(entry, str) else entry:
            case [str(left), str(right)] if left and right:
                for token in (left, right, left + right):
                    if token not in vocabulary:
                        raise InputError(f"{where} {number}: {shown(token)} is no token: {ANEW}")
                ranks[left, right] = number  # a repeated pair counts where it stands last
            case _:
                raise InputError(f"{where} {number} is broken: {shown(entry)} is not two tokens: {ANEW}")
    return ranks
