"""Token ids are the first thing that is compared: the rebuilt tokenizer may not feed both sides unseen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_rebuild import verify
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.tokenizers import Encoding
from llm_rebuild.verify.tokens import NOT_COMPARED, OTHER, SAME, compare_tokens

TEXTS = {
    "minilm": ["The cook gave the sailor a lamp.", "The cook.", "Ça coûte 3 €!\n"],
    "gpt2": ["The baker of Oru lives", " two  spaces\n\n", "naïve 漢字"],
    "llama": ["The baker of Oru lives", " two  spaces\n\n", "naïve 漢字 1234567"],
    "t5-small": ["translate English to German: four hundred", "  nine. "],
}


def miniature(name: str) -> LocalCopy:
    return LocalCopy(name, MINIATURES / name, "miniature")


@pytest.mark.parametrize("name", TEXTS)
def test_the_rebuilt_tokenizers_agree(name: str):
    copy = miniature(name)
    assert compare_tokens(copy, verify.ask(copy, TEXTS[name]).inputs).verdict == SAME


def test_a_text_that_is_cut_is_cut_alike():
    copy = miniature("minilm")
    inputs = verify.ask(copy, ["the cook " * 400, "The cook."]).inputs
    assert inputs.truncated[0] > 0
    assert compare_tokens(copy, inputs).verdict == SAME


def wrong_tokenizer(copy: LocalCopy, change) -> type:
    tokenizer = copy.tokenizer()

    class Wrong:
        pad_id, vocabulary_size = tokenizer.pad_id, tokenizer.vocabulary_size

        def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
            encoding = tokenizer.encode(text, max_tokens=max_tokens)
            ids = change(list(encoding.ids))
            return Encoding(ids, [*encoding.tokens, ""][: len(ids)], [(0, 0)] * len(ids), 0)

    return Wrong


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ids: [ids[0], ids[1] + 1, *ids[2:]], "token 1 is "),
        (lambda ids: ids[:-1], " official ones, "),
    ],
    ids=["another id", "one fewer"],
)
def test_another_tokenizer_fails_the_report_although_every_checkpoint_agrees(
    monkeypatch: pytest.MonkeyPatch, change, words: str
):
    copy = miniature("minilm")
    wrong = wrong_tokenizer(copy, change)
    monkeypatch.setattr(LocalCopy, "tokenizer", lambda self: wrong())
    report = verify.verify(copy, ["The cook gave the sailor a lamp.", "The cook."], coverage=False)
    assert all(verdict.identical for verdict in report.verdicts)
    assert report.tokenizer is not None
    assert (report.tokenizer.verdict, words in report.tokenizer.words) == (OTHER, True)
    assert not report.passed
    assert not report.exact
    assert report.to_json()["tokenizer"]["verdict"] == OTHER
    assert "token ids: other ids, text 1: " in str(report)


def test_where_nothing_can_be_compared_the_report_says_so(tmp_path: Path):
    copy = miniature("gpt2")
    report = verify.verify(copy, token_ids=[[5, 6]], coverage=False)
    assert report.to_json()["tokenizer"] == {"verdict": NOT_COMPARED, "words": "for they were given"}
    assert report.passed
    shutil.copytree(copy.folder, tmp_path / "gpt2")
    (tmp_path / "gpt2" / "tokenizer.json").write_text("{}", encoding="utf-8")
    for file in ("tokenizer_config.json", "provenance.json"):
        (tmp_path / "gpt2" / file).unlink()
    config = json.loads((tmp_path / "gpt2" / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "gpt2"
    broken = LocalCopy("gpt2", tmp_path / "gpt2", "folder")
    said = compare_tokens(broken, verify.ask(broken, "The baker").inputs)
    assert (said.verdict, "no tokenizer that transformers can read" in said.words) == (NOT_COMPARED, True)


def test_a_report_says_what_was_not_tried():
    copy = miniature("gpt2")
    alone = verify.verify(copy, "The baker", coverage=False)
    assert alone.untried == ("padding", "sdpa attention", "cached step")
    texts = ["The baker of Oru", "The baker"]
    padded = verify.verify(copy, texts, attention="sdpa", use_cache=True, coverage=False)
    assert padded.untried == ("eager attention",)
    assert padded.to_json()["untried"] == ["eager attention"]
    assert "not tried in this run: eager attention" in str(padded)


def test_a_captures_file_keeps_what_was_said_of_its_tokens(tmp_path: Path):
    truth = verify.capture(miniature("gpt2"), "The baker of Oru")
    truth.save(tmp_path / "capture")
    loaded = verify.Capture.load(tmp_path / "capture")
    assert loaded.tokenizer == truth.tokenizer
    assert truth.tokenizer is not None
    assert truth.tokenizer.verdict == SAME


def test_files_that_change_are_read_again(tmp_path: Path):
    shutil.copytree(MINIATURES / "gpt2", tmp_path / "gpt2")
    copy = LocalCopy("gpt2", tmp_path / "gpt2", "folder")
    inputs = verify.ask(copy, "The baker of Oru").inputs
    assert compare_tokens(copy, inputs).verdict == SAME
    whole = json.loads((MINIATURES / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))
    one, other = list(whole["model"]["vocab"])[:2]
    inputs = verify.ask(copy, f"{one}{other}").inputs
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "gpt2" / file).unlink(missing_ok=True)
    vocabulary = whole["model"]["vocab"]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (tmp_path / "gpt2" / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    assert compare_tokens(copy, inputs).verdict in (OTHER, NOT_COMPARED)
