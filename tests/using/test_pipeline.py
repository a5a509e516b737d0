"""What sentence-transformers does around the network, read from the same files: held against that library."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models.pipeline import Pipeline
from llm_rebuild.using.embedding import embed
from llm_rebuild.verify import verify
from llm_rebuild.verify.capture import capture

MODULES = json.loads((MINIATURES / "minilm" / "modules.json").read_text(encoding="utf-8"))
NETWORK, POOLING = "sentence_bert_config.json", "1_Pooling/config.json"
ABOUT = "config_sentence_transformers.json"
WIDTH = {"embedding_dimension": 96}
Make = Callable[..., LocalCopy]

WORDS = ["the", "Cook", "gave", "a", "Sailor", "ÉTÉ", "naïve", "lamps", "OWLS", "of", ",", ".", "-"]
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=n)) for n in (0, 1, 7, 40, 127, 300, 1000)]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The miniature, with other files beside its config.json. None: without that file."""

    def make(files: dict[str, Any]) -> LocalCopy:
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(MINIATURES / "minilm", folder)
        for name, content in files.items():
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_text(json.dumps(content), encoding="utf-8")
        return LocalCopy("model", folder, "folder")

    return make


def cased() -> dict[str, Any]:
    """The tokenizer's files of a model that tells capital letters from small ones."""
    config = json.loads((MINIATURES / "minilm" / "tokenizer_config.json").read_text(encoding="utf-8"))
    whole = json.loads((MINIATURES / "minilm" / "tokenizer.json").read_text(encoding="utf-8"))
    whole["normalizer"]["lowercase"] = False
    return {"tokenizer_config.json": config | {"do_lower_case": False}, "tokenizer.json": whole}


PIPELINES: dict[str, dict[str, Any]] = {
    "as published": {},
    "max": {POOLING: WIDTH | {"pooling_mode": "max"}},
    "cls": {POOLING: WIDTH | {"pooling_mode": ["cls"]}},
    "cls, said as once": {
        POOLING: {
            "word_embedding_dimension": 96,
            "pooling_mode_cls_token": True,
            "pooling_mode_mean_tokens": False,
        }
    },
    "mean where nothing is said": {POOLING: {"word_embedding_dimension": 96}},
    "mean as it is": {"modules.json": MODULES[:2]},
    "max as it is": {"modules.json": MODULES[:2], POOLING: WIDTH | {"pooling_mode": "max"}},
    "cls as it is": {"modules.json": MODULES[:2], POOLING: WIDTH | {"pooling_mode": "cls"}},
    "no modules": {"modules.json": None},
    "shorter": {NETWORK: {"max_seq_length": 20}},
    "no length": {NETWORK: {"max_seq_length": None}},
    "a length in the tokenizer's file": {
        NETWORK: None,
        "tokenizer_config.json": cased()["tokenizer_config.json"]
        | {"do_lower_case": True, "model_max_length": 31},
    },
    "an older name": {NETWORK: {}, "sentence_distilbert_config.json": {"max_seq_length": 9}},
    "a prompt": {ABOUT: {"prompts": {"query": "the query: "}, "default_prompt_name": "query"}},
    "a prompt that nobody asks for": {ABOUT: {"prompts": {"query": "the query: "}}},
    "an empty prompt": {ABOUT: {"default_prompt_name": "document", "similarity_fn_name": "dot"}},
    "cased": cased(),
    "cased, but lower-cased first": cased() | {NETWORK: {"max_seq_length": 128, "do_lower_case": True}},
}


@pytest.mark.parametrize("name", PIPELINES)
def test_embeddings_are_those_of_sentence_transformers(name: str, make: Make) -> None:
    library = pytest.importorskip("sentence_transformers", exc_type=ImportError)
    copy = make(PIPELINES[name])
    theirs = library.SentenceTransformer(str(copy.folder), device="cpu", local_files_only=True)
    for text in TEXTS:
        assert torch.equal(embed(copy, text).embeddings, theirs.encode([text], convert_to_tensor=True)), text
    together = theirs.encode(TEXTS, convert_to_tensor=True)
    difference = embed(copy, TEXTS).embeddings - together  # batches differ, and sums in them
    assert difference.abs().max() <= 5e-7 * max(1.0, float(together.abs().max()))  # as it is: not of length 1


VERIFIED = ["as published", "max", "cls", "max as it is", "cls as it is", "shorter", "a prompt"]
VERIFIED += ["cased, but lower-cased first"]


@pytest.mark.parametrize("name", VERIFIED)
def test_the_official_side_of_a_verification_is_sentence_transformers(name: str, make: Make) -> None:
    """Our transcription of the last steps gives the library's numbers, also of texts that are cut."""
    library = pytest.importorskip("sentence_transformers", exc_type=ImportError)
    copy = make(PIPELINES[name])
    theirs = library.SentenceTransformer(str(copy.folder), device="cpu", local_files_only=True)
    for text in TEXTS:
        answer = capture(copy, text, attention="sdpa")["sentence.embedding"].tensor
        assert torch.equal(answer, theirs.encode([text], convert_to_tensor=True))
    report = verify(copy, TEXTS)
    assert report.exact, report.tokenizer


DENSE = {"name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
IN_A_FOLDER = {**MODULES[0], "path": "0_Transformer"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"modules.json": {}}, "modules.json holds no JSON array"),
    ({"modules.json": []}, "modules.json lists nothing; only Transformer, Pooling"),
    (
        {
            "modules.json": [
                *MODULES,
                {**MODULES[2], "name": "3", "type": "sentence_transformers.models.Dense"},
            ]
        },
        "Dense",
    ),
    ({"modules.json": [MODULES[0], MODULES[2], MODULES[1]]}, "lists Transformer, Normalize, Pooling"),
    ({"modules.json": [*MODULES[:2], {**MODULES[2], "name": "1"}]}, "two modules have the same name"),
    (
        {"modules.json": [IN_A_FOLDER, MODULES[1]]},
        "path of Transformer is '0_Transformer'",
    ),
    (
        {"modules.json": [{**MODULES[0], "type": "mine.Transformer"}, MODULES[1]]},
        "type is 'mine.Transformer'",
    ),
    ({"modules.json": [{**MODULES[0], "kwargs": ["task"]}, MODULES[1]]}, r"kwargs of a module is \['task'\]"),
    ({"modules.json": [1]}, "each module must have a name, a path and a type"),
    ({NETWORK: {"max_seq_length": 0}}, "max_seq_length is 0, expected a whole number from 2"),
    ({NETWORK: {"max_seq_length": 12.5}}, "max_seq_length is 12.5"),
    ({NETWORK: {"max_seq_length": True}}, "max_seq_length is True"),
    ({NETWORK: {"do_lower_case": 1}}, "do_lower_case is 1, expected true or false"),
    ({NETWORK: {"tokenizer_args": {"model_max_length": 8}}}, "tokenizer_args is"),
    ({NETWORK: {"query_length": 8}}, "query_length is 8, expected None, the only one that is supported"),
    ({NETWORK: {"something": 8}}, "something is 8; this field is not supported"),
    ({POOLING: None}, r"1_Pooling/config.json is missing"),
    (
        {POOLING: {"pooling_mode": "weightedmean"}},
        "pooling_mode asks for weightedmean; only one of cls, max, mean",
    ),
    ({POOLING: {"pooling_mode": ["mean", "max"]}}, "pooling_mode asks for mean and max"),
    ({POOLING: {"pooling_mode": 5}}, "pooling_mode asks for 5"),
    ({POOLING: {"pooling_mode_mean_sqrt_len_tokens": True}}, "pooling_mode_mean_sqrt_len_tokens asks for"),
    ({POOLING: {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}}, "max and mean"),
    (
        {POOLING: {"include_prompt": False}},
        "include_prompt is False, expected True, the only one that is supported",
    ),
    ({ABOUT: {"model_type": "SparseEncoder"}}, "model_type is 'SparseEncoder'"),
    (
        {ABOUT: {"default_prompt_name": "other"}},
        "default_prompt_name is 'other', which is not one of prompts",
    ),
    ({ABOUT: {"prompts": ["a"]}}, "prompts is"),
    ({ABOUT: {"prompts": {"a": 1}}}, "a is 1"),
    (
        {ABOUT: {"similarity_fn_name": "manhattan"}},
        "similarity_fn_name is 'manhattan', expected cosine or dot",
    ),
    ({ABOUT: {"truncate_dim": 64}}, "truncate_dim is 64; this field is not supported"),
]


@pytest.mark.parametrize(("files", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_is_not_done_is_refused_by_its_field(files: dict[str, Any], told: str, make: Make) -> None:
    with pytest.raises(InputError, match=told):
        embed(make(files), "the cook")


def test_what_a_person_should_know(make: Make) -> None:
    assert embed(make({}), "the cook").notes == []
    (plain,) = embed(make({"modules.json": None}), "the cook").notes
    assert "no modules.json" in plain
    short = embed(make(PIPELINES["shorter"]), ["the cook", "the cook " * 30])
    assert short.truncated == (0, len(short.token_ids[1]) and 62 - 20)
    assert short.notes == ["text 2 cut: the model reads 20 tokens and no more"]
    assert "'the query: '" in embed(make(PIPELINES["a prompt"]), "the cook").notes[0]


def test_ids_may_be_as_many_as_the_positions_though_texts_are_cut_before(make: Make) -> None:
    copy = make(PIPELINES["shorter"])
    assert verify(copy, token_ids=[[2, *[5] * 126, 3]]).exact
    with pytest.raises(InputError, match="129 token ids are more than the 128 that the model takes"):
        verify(copy, token_ids=[[5] * 129])


def test_the_published_pipeline(minilm: LocalCopy) -> None:
    assert minilm.pipeline == Pipeline(max_tokens=256, normalize=True, published=True)
