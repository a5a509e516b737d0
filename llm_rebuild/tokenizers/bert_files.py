"""The files that describe a BERT tokenizer, read with every field checked. The lesson is wordpiece.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers.checks import read_text

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# What wordpiece.py does and no other: any other value would silently give other tokens.
SUPPORTED_TOKENIZER_JSON: dict[str, object] = {
    "normalizer.type": "BertNormalizer",
    "normalizer.clean_text": True,
    "pre_tokenizer.type": "BertPreTokenizer",
    "model.type": "WordPiece",
    "model.unk_token": "[UNK]",
    "model.continuing_subword_prefix": "##",
    "model.max_input_chars_per_word": 100,
    "decoder.type": "WordPiece",
    "decoder.prefix": "##",
    "decoder.cleanup": True,
    "post_processor.type": "TemplateProcessing",
    "post_processor.single": [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ],
}
SUPPORTED_CONFIG: dict[str, object] = {
    "do_basic_tokenize": True,
    "never_split": None,
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
ADDED_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class Settings:
    """The three choices that BERT models differ in. Without any file: those of the uncased BERT."""

    lower_case: bool = True
    strip_accents: bool | None = None  # None: strip where the text is lower-cased
    space_chinese: bool = True

    @property
    def strips_accents(self) -> bool:
        """What the text goes through, after all."""
        return self.lower_case if self.strip_accents is None else self.strip_accents


def read_vocabulary(path: Path) -> dict[str, int]:
    """vocab.txt: a token a line; the line's number, from 0, is its id."""
    lines = read_text(path).removesuffix("\n").split("\n")
    vocabulary: dict[str, int] = {}
    for number, token in enumerate(line.removesuffix("\r") for line in lines):
        if token in vocabulary:
            raise InputError(
                f"{path} lines {vocabulary[token] + 1} and {number + 1} are the same, {token!r}: "
                "its ids are ambiguous; download it again"
            )
        vocabulary[token] = number
    if list(vocabulary) == [""]:
        raise InputError(f"{path} is empty: download it again")
    for token in SPECIAL_TOKENS:
        if token not in vocabulary:
            raise InputError(f"{path} lacks {token}: it is not a BERT vocabulary")
    return vocabulary


def read_settings(folder: Path, vocabulary: dict[str, int]) -> Settings:
    """From tokenizer.json where there is one (the library reads nothing else), and tokenizer_config.json."""
    config = read_object(folder / "tokenizer_config.json")
    for field, value in SUPPORTED_CONFIG.items():
        found = config.get(field, value)
        if isinstance(found, dict):  # older files write {"content": "[CLS]", "lstrip": false, ...}
            found = found.get("content")
        require(found == value, folder / "tokenizer_config.json", field, found, value)
    configured = Settings(
        flag(config, "do_lower_case", True, folder / "tokenizer_config.json"),
        flag(config, "strip_accents", None, folder / "tokenizer_config.json"),
        flag(config, "tokenize_chinese_chars", True, folder / "tokenizer_config.json"),
    )
    path = folder / "tokenizer.json"
    if not path.is_file():
        return configured

    whole = read_object(path)
    for field, value in SUPPORTED_TOKENIZER_JSON.items():
        found = look_up(whole, field)
        require(found == value, path, field, found, value)
    if look_up(whole, "model.vocab") != vocabulary:
        raise InputError(f"{path} and vocab.txt hold different vocabularies: download both again")
    check_added_tokens(whole.get("added_tokens"), vocabulary, path)
    normalizer = whole["normalizer"]
    settings = Settings(
        flag(normalizer, "lowercase", True, path),
        flag(normalizer, "strip_accents", None, path),
        flag(normalizer, "handle_chinese_chars", True, path),
    )
    if config and settings != configured:
        raise InputError(
            f"{path} says {settings}, tokenizer_config.json says {configured}: correct the wrong one"
        )
    return settings


def check_added_tokens(added: Any, vocabulary: dict[str, int], path: Path) -> None:
    """Exactly the five special tokens, all of them found literally, wherever they stand."""
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise InputError(f"{path}: added_tokens is not a list of objects")
    for token in added:
        content = token.get("content")
        if content not in SPECIAL_TOKENS or token.get("id") != vocabulary[content]:
            raise InputError(f"{path}: added_tokens has {content!r}, which is not supported")
        for name in ADDED_TOKEN_FLAGS:
            found = token.get(name)
            require(found is False, path, f"added_tokens {content} {name}", found, False)
        require(token.get("special") is True, path, f"added_tokens {content} special", False, True)
    missing = set(SPECIAL_TOKENS) - {token["content"] for token in added}
    if missing:
        raise InputError(f"{path}: added_tokens lacks {min(missing)}, which is not supported")


def require(condition: bool, path: Path, field: str, found: object, supported: object) -> None:
    """InputError that names the field, unless the condition holds."""
    if not condition:
        raise InputError(f"{path}: {field} is {found!r}; only {supported!r} is supported")


def flag(values: dict[str, Any], field: str, default: bool | None, path: Path) -> Any:
    """A field that is true or false, or null where that is its default."""
    found = values.get(field, default)
    if not isinstance(found, bool) and (found is not None or default is not None):
        raise InputError(f"{path}: {field} is {found!r}; it must be true or false")
    return found


def look_up(values: Any, field: str) -> Any:
    """`look_up({"a": {"b": 1}}, "a.b")` is 1; None where the way there is missing."""
    for key in field.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): download it again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold one JSON object: download it again")
    return found
