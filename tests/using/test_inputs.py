"""What both sides are given, and what is refused before either of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers import Encoding
from llm_rebuild.using import inputs
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import Capture, capture
from llm_rebuild.verify.question import ask
from tests.models import small


class Letters:
    """A tokenizer of letters: a is 1, b is 2, …"""

    pad_id = None
    vocabulary_size = 30

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        kept = text[:max_tokens]
        ids = [ord(letter) - 96 for letter in kept]
        return Encoding(ids, list(kept), [(i, i + 1) for i in range(len(ids))], len(text) - len(kept))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(chr(96 + i) for i in ids)


@pytest.fixture
def letters(monkeypatch: pytest.MonkeyPatch) -> type[Letters]:
    monkeypatch.setattr(LocalCopy, "tokenizer", lambda copy: Letters())
    return Letters


def refused(match: str) -> pytest.RaisesExc[InputError]:
    return pytest.raises(InputError, match=match)


def test_a_prompt_longer_than_the_positions_is_refused(tmp_path: Path, letters: type[Letters]):
    copy = small.model(tmp_path / "gpt2", small.GPT2)
    assert ask(copy, "x" * 24).inputs.token_ids.shape == (1, 24)
    with refused("text 2 has 25 tokens, more than the 24 that the model takes"):
        ask(copy, ["a", "x" * 25])
    with refused("25 token ids are more than the 24 that the model takes"):
        ask(copy, token_ids=[[1] * 25])


def test_a_sentence_encoder_cuts_and_says_so(tmp_path: Path, letters: type[Letters]):
    batch = ask(small.model(tmp_path / "bert", small.BERT), "x" * 30).inputs
    assert batch.token_ids.shape == (1, 24)
    assert batch.truncated == (6,)


def test_t5_takes_any_length(tmp_path: Path, letters: type[Letters]):
    assert ask(small.model(tmp_path / "t5", small.T5), "x" * 3000).inputs.token_ids.shape == (1, 3000)


@pytest.mark.parametrize("config", [small.GPT2, small.T5], ids=["gpt2", "t5"])
def test_a_text_without_tokens_is_refused(tmp_path: Path, letters: type[Letters], config: dict):
    copy = small.model(tmp_path / "model", config)
    with refused("text 2 has no tokens"):
        ask(copy, ["a", ""])
    with refused("no text was given"):
        ask(copy, [])
    with refused("no token ids were given"):
        ask(copy, token_ids=[[1], []])


def test_a_tokenizer_of_another_model_is_refused(
    tmp_path: Path, letters: type[Letters], monkeypatch: pytest.MonkeyPatch
):
    copy = small.model(tmp_path / "model", small.GPT2)
    monkeypatch.setattr(letters, "vocabulary_size", 62)
    with refused("has 62 ids, config.json's vocab_size is 61"):
        ask(copy, "abc")


@pytest.mark.parametrize("row", [[61], [-1], [5, 100000]])
def test_ids_outside_the_vocabulary_are_refused(tmp_path: Path, row: list[int]):
    copy = small.model(tmp_path / "t5", small.T5)
    with refused("outside the vocabulary of 0 to 60"):
        ask(copy, token_ids=[row])
    with refused("outside the vocabulary of 0 to 60"):
        ask(copy, token_ids=[[1]], decoder_ids=[[0, *row]])


@pytest.mark.parametrize("wrong", [5.9, 5.0, True, "5", None, pytest.param(10**5000, id="long")])
def test_ids_that_are_no_whole_numbers_are_refused(tmp_path: Path, wrong: Any):
    copy = small.model(tmp_path / "t5", small.T5)
    with refused("is no whole number|no list of rows of token ids|outside the vocabulary"):
        ask(copy, token_ids=[[4, wrong]])
    with refused("is no whole number|no list of rows of token ids|outside the vocabulary"):
        ask(copy, token_ids=[[4]], decoder_ids=[[0, wrong]])


@pytest.mark.parametrize("rows", [5, [5, 6], b"ab", [["a"]], None])
def test_what_are_no_rows_is_refused(tmp_path: Path, rows: Any):
    with refused("no list of rows of token ids|is no whole number"):
        inputs.read(small.model(tmp_path / "t5", small.T5), rows)


def test_a_mixture_of_texts_and_ids_is_refused(tmp_path: Path):
    with refused("either all texts or all rows"):
        inputs.read(small.model(tmp_path / "t5", small.T5), ["a", [5]])  # type: ignore[list-item]


def test_arrays_and_tensors_of_ids_are_read(tmp_path: Path):
    copy = small.model(tmp_path / "t5", small.T5)
    wanted = inputs.read(copy, [[5, 6], [7, 8]]).token_ids
    for rows in (torch.tensor([[5, 6], [7, 8]]), torch.tensor([[5, 6], [7, 8]]).numpy()):
        assert torch.equal(inputs.read(copy, rows).token_ids, wanted)
    with refused("5.5 is no whole number"):
        inputs.read(copy, torch.tensor([[5.5]]))  # type: ignore[arg-type]


def test_decoder_ids(tmp_path: Path):
    copy = small.model(tmp_path / "t5", small.T5)
    batch = ask(copy, token_ids=[[5, 6, 7], [8]]).inputs
    assert batch.decoder_ids is not None
    assert batch.decoder_mask is not None
    assert batch.decoder_ids.tolist() == [[0, 5, 6], [0, 0, 0]]  # the start token, then the text itself
    assert batch.decoder_mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    given = ask(copy, token_ids=[[5], [8]], decoder_ids=[[0, 4], [0, 9]]).inputs
    assert given.decoder_ids is not None
    assert given.decoder_ids.tolist() == [[0, 4], [0, 9]]


@pytest.mark.parametrize("rows", [[[4, 0]], [[]]])
def test_decoder_ids_without_the_start_token_are_refused(tmp_path: Path, rows: list[list[int]]):
    with refused("must begin with the start token 0"):
        ask(small.model(tmp_path / "t5", small.T5), token_ids=[[5]], decoder_ids=rows)


def test_decoder_ids_that_do_not_fit_are_refused(tmp_path: Path):
    with refused("decoder ids for 1 text, of 2"):
        ask(small.model(tmp_path / "t5", small.T5), token_ids=[[5], [6]], decoder_ids=[[0]])
    with refused("has no decoder beside its encoder"):
        ask(small.model(tmp_path / "gpt2", small.GPT2), token_ids=[[5]], decoder_ids=[[0]])


def test_padding_sides():
    left = Inputs.from_token_ids([[1, 2, 3], [4]], 9, None).with_padding("left")
    assert left.token_ids.tolist() == [[1, 2, 3], [0, 0, 4]]
    assert left.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    right = Inputs.from_token_ids([[1, 2, 3], [4]], 9, None)
    assert right.token_ids.tolist() == [[1, 2, 3], [4, 0, 0]]


def test_a_capture_file_keeps_the_decoder_ids(tmp_path: Path):
    first = capture(small.model(tmp_path / "t5", small.T5), token_ids=small.ROWS, attention="sdpa")
    first.save(tmp_path / "capture.safetensors")
    again = Capture.load(tmp_path / "capture.safetensors")
    assert first.inputs.decoder_ids is not None
    assert again.inputs.decoder_ids is not None
    assert again.inputs.decoder_ids.tolist() == first.inputs.decoder_ids.tolist()
    assert list(again) == list(first)


def test_padding_moves_from_one_side_to_the_other(tmp_path: Path):
    inputs = ask(small.model(tmp_path / "gpt2", small.GPT2), token_ids=[[5, 6, 7], [8]]).inputs
    left = inputs.with_padding("left")
    assert left.token_ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    back = left.with_padding("right")
    assert (back.token_ids.tolist(), back.mask.tolist()) == (inputs.token_ids.tolist(), inputs.mask.tolist())


def test_a_model_that_keeps_nothing_is_not_asked_to(tmp_path: Path):
    with pytest.raises(InputError, match="keeps no keys and values"):
        capture(small.model(tmp_path / "bert", small.BERT), token_ids=[[5, 6]], use_cache=True)
