"""Sentence embeddings by the rebuild: in the order given, the same alone as in a batch, of length 1."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.using import embedding
from tests import tiny_bert

TEXTS = ["a b c d e f g", "h", "", "i j k", "a b c d e f g", "l m"]


@pytest.fixture
def tiny(tmp_path: Path) -> LocalCopy:
    return tiny_bert.copy(tiny_bert.write(tmp_path / "tiny"))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 32])
def test_the_order_and_the_batch_do_not_matter(tiny: LocalCopy, batch_size: int):
    together = embedding.embed(tiny, TEXTS, batch_size=batch_size)
    for number, text in enumerate(TEXTS):
        alone = embedding.embed(tiny, [text])
        assert alone.token_ids[0] == together.token_ids[number]
        torch.testing.assert_close(together.embeddings[number], alone.embeddings[0], atol=1e-6, rtol=0)
    assert not torch.allclose(together.embeddings[0], together.embeddings[1], atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 3, 32, 1000])
def test_batches_hold_every_text_once_and_not_too_many_tokens(batch_size: int):
    for lengths in ([], [3], [2] * 700, [512, 513, 2000], [*range(1, 300)], [1] * 40 + [256] * 5):
        batches = [lengths[part] for part in embedding.batches(lengths, batch_size)]
        assert [tokens for batch in batches for tokens in batch] == lengths
        for batch in batches:
            assert 1 <= len(batch) <= batch_size
            assert len(batch) == 1 or len(batch) * batch[-1] <= embedding.TOKENS
        for batch, after in pairwise(batches):  # as many as fit
            assert len(batch) == batch_size or (len(batch) + 1) * after[0] > embedding.TOKENS


def test_each_has_length_1_where_the_folder_says_so(tiny: LocalCopy, minilm: LocalCopy):
    lengths = embedding.embed(minilm, TEXTS).embeddings.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(len(TEXTS)))
    assert (embedding.embed(tiny, TEXTS).embeddings.norm(dim=1) > 1.1).all()  # no modules.json


def test_numbers_that_are_not_finite_are_no_embedding(tmp_path: Path):
    file = tiny_bert.write(tmp_path / "tiny") / "model.safetensors"
    tensors = load_file(file)
    tensors["embeddings.LayerNorm.weight"] *= 1e38
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match="tiny makes NaN or infinity of it; try another type than float32"):
        embedding.embed(tiny_bert.copy(file.parent), TEXTS)


def test_similarities_are_cosines(tiny: LocalCopy):
    embedded = embedding.embed(tiny, TEXTS)
    similar = torch.stack([embedded.similarities(number) for number in range(len(TEXTS))])
    torch.testing.assert_close(similar.diagonal(), torch.ones(len(TEXTS)))
    assert torch.allclose(similar, similar.T)


def test_json(tiny: LocalCopy):
    json = embedding.embed(tiny, ["a", "b c"]).to_json()
    assert list(json) == ["model", "texts", "token_ids", "truncated", "pipeline", "embeddings"]
    assert (json["model"], json["texts"]) == ("tiny", ["a", "b c"])
    assert json["token_ids"] == [[2, 5, 3], [2, 6, 7, 3]]
    assert json["pipeline"]["pooling"] == "mean"


def test_a_string_is_one_text(tiny: LocalCopy):
    one = embedding.embed(tiny, "a b")
    assert one.texts == ("a b",)
    assert torch.equal(one.embeddings, embedding.embed(tiny, ["a b"]).embeddings)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_a_batch_of_nothing_is_refused(tiny: LocalCopy, batch_size: Any):
    with pytest.raises(InputError, match=f"batch_size is {batch_size}; it must be a whole number from 1"):
        embedding.embed(tiny, "a", batch_size=batch_size)


def test_another_attention_is_refused(tiny: LocalCopy):
    with pytest.raises(InputError, match="attention is 'flash'; it is either eager or sdpa"):
        embedding.embed(tiny, "a", attention="flash")


def test_nothing_to_embed(tiny: LocalCopy):
    with pytest.raises(InputError, match="no text"):
        embedding.embed(tiny, [])
    with pytest.raises(InputError, match="embeddings are of texts"):
        embedding.embed(tiny, [[2, 5, 3]])  # type: ignore[list-item]


def test_near_meanings_are_near(minilm: LocalCopy):
    cat, kitten, tax = embedding.embed(
        minilm, ["A cat sleeps.", "A kitten is napping.", "Taxes are due in April."]
    ).embeddings
    assert cat @ kitten > 0.6
    assert cat @ tax < 0.2
