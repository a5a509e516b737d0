"""What a folder says of its special tokens, in whichever file, is done as it says, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_rebuild import tokenizers
from llm_rebuild.copies.local_copy import MINIATURES
from llm_rebuild.errors import InputError

OWN = {"minilm": "BertTokenizer", "gpt2": "GPT2Tokenizer", "t5-small": "T5Tokenizer"}
ADDED = {"content": "<|user|>", "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def folder_of(name: str, tmp_path: Path, file: str, fields: dict[str, Any]) -> Path:
    """A miniature's files with some fields of one file changed."""
    folder = shutil.copytree(MINIATURES / name, tmp_path / name)
    before = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(before | fields))
    return folder


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        (
            "tokenizer_config.json",
            {"additional_special_tokens": ["<|user|>"]},
            "additional_special_tokens",
        ),
        ("tokenizer_config.json", {"extra_special_tokens": ["<|user|>"]}, "extra_special_tokens has"),
        ("tokenizer_config.json", {"extra_special_tokens": {"user": "<|user|>"}}, "extra_special_tokens has"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": ADDED}}, "added_tokens_decoder has"),
        ("tokenizer_config.json", {"extra_special_tokens": [["<|user|>"]]}, "extra_special_tokens has"),
        ("tokenizer_config.json", {"user_token": "<|user|>"}, "user_token has"),
        ("tokenizer_config.json", {"split_special_tokens": True}, "split_special_tokens is True"),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "RobertaTokenizer"},
            "class is 'RobertaTokenizer'",
        ),
        ("tokenizer_config.json", {"tokenizer_class": 3}, "tokenizer_class is 3"),
        ("special_tokens_map.json", {"mask_token": ADDED}, "mask_token has '<|user|>'"),
        ("added_tokens.json", {"<|user|>": 9}, "has '<|user|>'"),
        ("tokenizer.json", {"added_tokens": [{"id": 9, **ADDED}]}, "added_tokens has '<|user|>'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", OWN)
def test_a_token_that_would_be_cut_out_of_texts_is_refused(
    name: str, file: str, fields: dict[str, Any], told: str, tmp_path: Path
) -> None:
    folder = folder_of(name, tmp_path, file, fields)
    with pytest.raises(InputError) as refusal:
        tokenizers.load(folder)
    assert file in str(refusal.value)
    assert told in str(refusal.value)


@pytest.mark.parametrize("name", OWN)
def test_what_changes_nothing_is_no_reason_to_refuse(name: str, tmp_path: Path) -> None:
    own = json.loads((MINIATURES / name / "tokenizer_config.json").read_text())
    end = {"minilm": "[SEP]", "gpt2": "<|endoftext|>", "t5-small": "</s>"}[name]
    fields = {
        "tokenizer_class": f"{OWN[name]}Fast",
        "additional_special_tokens": None,
        "added_tokens_decoder": {"0": {"content": end}},
        "sep_token": {"content": end},
        "split_special_tokens": False,
    }
    folder = folder_of(name, tmp_path, "tokenizer_config.json", own | fields)
    assert tokenizers.load(folder).encode("a lamp") == tokenizers.load(MINIATURES / name).encode("a lamp")


@pytest.mark.parametrize(("name", "field"), [("gpt2", "vocab"), ("gpt2", "merges"), ("t5-small", "vocab")])
def test_two_files_that_hold_different_tokens(name: str, field: str, tmp_path: Path) -> None:
    """The library reads tokenizer.json, and the rebuilt tokenizer the file beside it."""
    whole = json.loads((MINIATURES / name / "tokenizer.json").read_text())
    entries = whole["model"][field]
    if isinstance(entries, dict):
        entries["h"], entries["i"] = entries["i"], entries["h"]
    else:
        entries[29], entries[30] = entries[30], entries[29]
    folder = folder_of(name, tmp_path, "tokenizer.json", whole)
    with pytest.raises(InputError, match=r"tokenizer.json and .* hold different tokens or merges"):
        tokenizers.load(folder)


def test_a_score_that_is_another(tmp_path: Path) -> None:
    whole = json.loads((MINIATURES / "t5-small" / "tokenizer.json").read_text())
    whole["model"]["vocab"][29][1] -= 1e-14
    tokenizers.load(folder_of("t5-small", tmp_path / "rounded", "tokenizer.json", whole))
    whole["model"]["vocab"][29][1] -= 0.5
    with pytest.raises(InputError, match=r"tokenizer.json and spiece.model hold different tokens"):
        tokenizers.load(folder_of("t5-small", tmp_path / "other", "tokenizer.json", whole))


@pytest.mark.parametrize("normalizer", [None, {"type": "Lowercase"}, {"type": "Precompiled"}])
def test_a_normalizer_that_is_not_the_character_map(normalizer: object, tmp_path: Path) -> None:
    whole = json.loads((MINIATURES / "t5-small" / "tokenizer.json").read_text())
    folder = folder_of("t5-small", tmp_path, "tokenizer.json", whole | {"normalizer": normalizer})
    with pytest.raises(InputError, match=r"tokenizer.json: its normalizer is not that of spiece.model"):
        tokenizers.load(folder)


def test_merges_in_the_older_spelling_are_the_same(tmp_path: Path) -> None:
    whole = json.loads((MINIATURES / "gpt2" / "tokenizer.json").read_text())
    whole["model"]["merges"] = [" ".join(pair) for pair in whole["model"]["merges"]]
    tokenizers.load(folder_of("gpt2", tmp_path, "tokenizer.json", whole))
