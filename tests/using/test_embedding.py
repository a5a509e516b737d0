"""Sentence embeddings by the rebuild: in the order given, the same alone as in a batch, of length 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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


def test_each_has_length_1(tiny: LocalCopy):
    lengths = embedding.embed(tiny, TEXTS).embeddings.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(len(TEXTS)))


def test_json(tiny: LocalCopy):
    found = embedding.embed(tiny, ["a", "b c"]).to_json()
    assert list(found) == ["model", "texts", "token_ids", "embeddings"]
    assert (found["model"], found["texts"]) == ("tiny", ["a", "b c"])
    assert found["token_ids"] == [[2, 5, 3], [2, 6, 7, 3]]


def test_nothing_to_embed(tiny: LocalCopy):
    with pytest.raises(InputError, match="no text"):
        embedding.embed(tiny, [])


def test_near_meanings_are_near(minilm: LocalCopy):
    cat, kitten, tax = embedding.embed(
        minilm, ["A cat sleeps.", "A kitten is napping.", "Taxes are due in April."]
    ).embeddings
    assert cat @ kitten > 0.6
    assert cat @ tax < 0.2
