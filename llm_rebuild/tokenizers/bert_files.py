"""The files that describe a BERT tokenizer, read with every field checked. The lesson is wordpiece.py."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from llm_rebuild.errors import InputError
from llm_rebuild.files import read_text
from llm_rebuild.json_fields import FLAG, OBJECT, check, or_null, shown
from llm_rebuild.tokenizers.checks import ANEW, CONFIG, LIBRARY, inside, read_config, require

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
    "padding_side": "right",
    "truncation_side": "right",
}
ADDED_TOKEN_FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {
    "special": True
}


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
    lines = read_text(path, ANEW).removesuffix("\n").split("\n")
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
    path, whole_path = folder / CONFIG, folder / LIBRARY
    config, whole = read_config(folder, SUPPORTED_CONFIG, "BertTokenizer", SPECIAL_TOKENS)
    configured = settings_of(config, ("do_lower_case", "strip_accents", "tokenize_chinese_chars"), path)
    if not whole_path.exists():
        return configured

    for field, value in SUPPORTED_TOKENIZER_JSON.items():
        require(whole_path, field, inside(whole, field), value)
    if inside(whole, "model.vocab") != vocabulary:
        raise InputError(f"{whole_path} and vocab.txt hold different vocabularies: download both again")
    check_added_tokens(whole.get("added_tokens"), vocabulary, whole_path)
    fields = ("lowercase", "strip_accents", "handle_chinese_chars")
    settings = settings_of(whole["normalizer"], fields, whole_path)
    if config and settings != configured:
        raise InputError(
            f"{whole_path} says {settings}, {path.name} says {configured}: correct the wrong one"
        )
    return settings


def check_added_tokens(added: Any, vocabulary: dict[str, int], path: Path) -> None:
    """Exactly the five special tokens, all of them found literally, wherever they stand."""
    check(added, [OBJECT], f"{path}: added_tokens")
    for token in added:
        content = token.get("content")
        if content not in SPECIAL_TOKENS or token.get("id") != vocabulary[content]:
            raise InputError(f"{path}: added_tokens has {shown(content)}, which is not supported")
        for name, value in ADDED_TOKEN_FLAGS.items():
            require(path, f"added_tokens {content} {name}", token.get(name), value)
    missing = set(SPECIAL_TOKENS) - {token["content"] for token in added}
    if missing:
        raise InputError(f"{path}: added_tokens lacks {min(missing)}, which is not supported")


def settings_of(values: dict[str, Any], fields: tuple[str, str, str], path: Path) -> Settings:
    """The three choices, as a file calls them. Each is true or false, the second may be null."""
    asked = [values.get(field, default) for field, default in zip(fields, astuple(Settings()), strict=True)]
    for field, value, kind in zip(fields, asked, (FLAG, or_null(FLAG), FLAG), strict=True):
        check(value, kind, f"{path}: {field}")
    return Settings(*asked)
