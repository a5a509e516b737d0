"""Byte-level BPE as models of today have it: everything in one tokenizer.json.

It is GPT-2's tokenizer with other rules around the merges: how a text is split into words, which tokens are
cut out of it first, what is put around it. Here the file is read and each rule is either known or refused by
the field's name. A pattern for splitting is never run because a file says so: it has to be one of those that
models were published with.

Sources  The file's format: the tokenizers library 0.23. Patterns: Radford et al. (2019), GPT-2; Grattafiori
         et al. (2024), Llama 3; Yang et al. (2024), Qwen2; Allal et al. (2025), SmolLM2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import regex

from llm_rebuild.errors import InputError
from llm_rebuild.files import read_json
from llm_rebuild.json_fields import OBJECT, Kind, check, shown, whole
from llm_rebuild.tokenizers import checks
from llm_rebuild.tokenizers.byte_bpe import BYTE_SYMBOLS, DIGIT, LETTER, SPLIT, ByteBPE, Rules

FILE = "tokenizer.json"
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The patterns that models were published with, each as its file has it.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = rf"{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
QWEN2 = rf"{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
# Beside the digits of `Split` those of Unicode 17, which the library has in `Digits`.
_DIGITS = rf"{DIGIT}\U00011DE0-\U00011DE9\U00016FF4-\U00016FF6"
EACH_DIGIT = regex.compile(rf"(?V1)[{_DIGITS}]|[^{_DIGITS}]+")


def compiled(pattern: str) -> regex.Pattern[str]:
    """A published pattern with the letters and digits of Unicode 16, which the official library has."""
    ours = pattern.replace(r"\p{L}", LETTER).replace(r"\p{N}", DIGIT)
    return regex.compile(f"(?V1){ours}")


SPLITS = {GPT2: SPLIT, LLAMA3: compiled(LLAMA3), QWEN2: compiled(QWEN2)}
# What the model's part of the file may say besides its vocabulary and its merges.
MODEL = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
}
TOKEN = Kind("a token", lambda value: isinstance(value, str) and value != "")
LIST = Kind("a list", lambda value: isinstance(value, list))


class ByteBPEJson(ByteBPE):
    """The tokenizer of Llama 3, SmolLM2, Qwen2 and others, from their tokenizer.json."""

    @classmethod
    def from_folder(cls, folder: str | Path) -> ByteBPEJson:
        """Read tokenizer.json; InputError says which of its fields asks for what is not supported."""
        path = Path(folder) / FILE
        file = read_json(path, checks.ANEW)
        model: Any = file.get("model")
        check(model, OBJECT, f"{path}: model")
        for field, value in MODEL.items():
            asked = model.get(field, value)
            checks.require(path, f"model.{field}", None if asked == "" else asked, value)
        added = _added(path, file.get("added_tokens") or [])
        contents = {token["content"]: token["id"] for token in added}
        table, merges = model.get("vocab"), model.get("merges")
        check(table, OBJECT, f"{path}: model.vocab")
        check(merges, LIST, f"{path}: model.merges")
        for content, token_id in contents.items():
            if table.get(content, token_id) != token_id:
                raise InputError(f"{path}: {content!r} has the ids {table[content]} and {token_id}")
        vocabulary = checks.check_vocabulary(path, {**table, **contents}, BYTE_SYMBOLS)
        ranks = checks.ranks_of(enumerate(merges), vocabulary, f"{path}: model.merges")
        before, after = _around(path, file.get("post_processor"), vocabulary)
        rules = Rules(
            splits=_splits(path, file.get("pre_tokenizer")),
            cut=tuple(token["content"] for token in added if not token.get("normalized")),
            cut_later=tuple(token["content"] for token in added if token.get("normalized")),
            special=frozenset(token["id"] for token in added if token.get("special")),
            composed=_composed(path, file.get("normalizer")),
            whole_words=model.get("ignore_merges") is True,
            before=before,
            after=after,
        )
        checks.require(path, "decoder.type", checks.inside(file, "decoder.type"), "ByteLevel")
        return cls(vocabulary, ranks, rules)


def _added(path: Path, tokens: Any) -> list[dict[str, Any]]:
    """Tokens that are cut out of a text before it is split."""
    check(tokens, [OBJECT], f"{path}: added_tokens")
    for number, token in enumerate(tokens):
        name = f"added_tokens[{number}]"
        check(token.get("content"), TOKEN, f"{path}: {name}.content")
        check(token.get("id"), whole(), f"{path}: {name}.id")
        for flag in ("single_word", "lstrip", "rstrip"):
            checks.require(path, f"{name}.{flag}", token.get(flag, False), False)
    added: list[dict[str, Any]] = tokens
    return added


def _steps(path: Path, field: str, value: Any, inside: str) -> list[dict[str, Any]]:
    """The steps of a part of the file: one, or those of a Sequence."""
    if value is None:
        return []
    sequence = isinstance(value, dict) and value.get("type") == "Sequence"
    steps: Any = value.get(inside) if sequence else [value]
    check(steps, [OBJECT], f"{path}: {field}")
    return list(steps)


def _splits(path: Path, value: Any) -> tuple[regex.Pattern[str], ...]:
    """The patterns that split a text into words, one after the other."""
    splits = []
    steps = _steps(path, "pre_tokenizer", value, "pretokenizers")
    for number, step in enumerate(steps):
        kind, last = step.get("type"), number == len(steps) - 1
        if kind == "ByteLevel" and last:
            checks.require(path, "pre_tokenizer: add_prefix_space", step.get("add_prefix_space"), False)
            splits += [SPLIT] if step.get("use_regex", True) else []
            return tuple(splits)
        if kind == "Digits" and step.get("individual_digits") is True:
            splits.append(EACH_DIGIT)
            continue
        words = checks.inside(step, "pattern.Regex")
        plain = (step.get("behavior"), step.get("invert")) == ("Isolated", False)
        if not (kind == "Split" and plain and isinstance(words, str) and words in SPLITS):
            raise InputError(
                f"{path}: pre_tokenizer has {shown(step)}, which no model here was published with"
            )
        splits.append(SPLITS[words])
    raise InputError(f"{path}: pre_tokenizer does not end in ByteLevel; only such is supported")


def _composed(path: Path, value: Any) -> bool:
    """Whether characters are composed first (NFC): an e and an accent become é."""
    steps = _steps(path, "normalizer", value, "normalizers")
    if not all(step == {"type": "NFC"} for step in steps):
        raise InputError(f"{path}: normalizer is {shown(value)}; only NFC and null are supported")
    return bool(steps)


def _around(path: Path, value: Any, vocabulary: Mapping[str, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The tokens that are put before a text and behind it."""
    around: tuple[list[str], list[str]] = ([], [])
    for step in _steps(path, "post_processor", value, "processors"):
        if step.get("type") == "ByteLevel":
            continue  # of offsets only
        single = step.get("single")
        if step.get("type") != "TemplateProcessing" or not isinstance(single, list):
            raise InputError(f"{path}: post_processor has {shown(step.get('type'))}, which is not supported")
        seen = 0
        for piece in single:
            token = checks.inside(piece, "SpecialToken.id")
            if isinstance(token, str) and token in vocabulary:
                around[seen].append(token)
            elif isinstance(piece, dict) and "Sequence" in piece and not seen:
                seen = 1
            else:
                raise InputError(f"{path}: post_processor.single has {shown(piece)}: download it again")
    return tuple(around[0]), tuple(around[1])
