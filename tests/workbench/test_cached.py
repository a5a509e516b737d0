"""Captures that are kept: found for the same and for nothing else, whole or made again, never too many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.workbench import cached


@pytest.fixture
def copy() -> LocalCopy:
    return LocalCopy("gpt2", local_copy.MINIATURES / "gpt2", "miniature")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, copy: LocalCopy):
    """Ask for a capture; how often one was made so far."""
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    count = [0]

    def make(file: Path) -> None:
        count[0] += 1
        file.write_bytes(b"capture" * 100)

    def ask(texts: str = "a", attention: str = "eager") -> int:
        file = cached.find(copy, {"texts": [texts]}, attention, make, tmp_path)
        assert file.read_bytes() == b"capture" * 100
        return count[0]

    return ask


def test_the_same_is_found_and_another_is_made(made, monkeypatch: pytest.MonkeyPatch):
    assert [made(), made(), made("b"), made("a", "sdpa"), made("b")] == [1, 1, 2, 3, 3]
    monkeypatch.setattr(cached, "environment", lambda: {"torch": "another"})
    assert made() == 4


def test_other_weights_are_another_model(made, monkeypatch: pytest.MonkeyPatch, copy: LocalCopy):
    assert made() == 1
    monkeypatch.setitem(copy.__dict__, "sha256", {**copy.sha256, "model.safetensors": "0" * 64})
    assert made() == 2


@pytest.mark.parametrize(
    "broken", [b"", b"capture" * 99, b"Xapture" + b"capture" * 99], ids=["empty", "cut", "bit"]
)
def test_a_broken_one_is_made_again(made, broken: bytes):
    assert made() == 1
    (file,) = cached.folder().iterdir()
    file.write_bytes(broken)
    assert [made(), made()] == [2, 2]
    assert len(list(cached.folder().iterdir())) == 1


def test_what_was_not_used_for_long_goes_first(made, monkeypatch: pytest.MonkeyPatch):
    for number, text in enumerate("abc"):
        made(text)
        for file in cached.folder().iterdir():
            if file.stat().st_mtime > 1000:
                os.utime(file, (number + 1, number + 1))
    made("a")  # used again: now `b` is the oldest
    monkeypatch.setattr(cached, "MOST", 2200)  # three of 700 bytes
    assert made("d") == 4
    assert [made("a"), made("c"), made("d")] == [4, 4, 4]
    assert made("b") == 5


def test_one_that_was_not_finished_is_no_capture(
    made, monkeypatch: pytest.MonkeyPatch, copy: LocalCopy, tmp_path
):
    def stopped(file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    with pytest.raises(KeyboardInterrupt):
        cached.find(copy, {"texts": ["a"]}, "eager", stopped, tmp_path)
    assert list(cached.folder().iterdir()) == []
    assert made() == 1


def test_a_store_that_cannot_be_written_is_no_reason_to_fail(made, tmp_path: Path):
    (tmp_path / "store").write_text("a file")
    assert [made(), made()] == [1, 2]


def test_a_hub_that_did_not_answer_is_not_asked_at_every_save(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, copy: LocalCopy, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    asked = []

    def get(name: str, strict: bool) -> LocalCopy:
        asked.append(name)
        return copy

    monkeypatch.setattr(local_copy, "get", get)
    assert cached.copy_for("gpt2").source == "miniature"
    assert cached.copy_for("gpt2").folder == copy.folder
    assert asked == ["gpt2"]
    assert "could not be had 0 min ago; `llm-rebuild download gpt2` tries again" in capsys.readouterr().err
    cached.copy_for("gpt2", strict=True)
    assert len(asked) == 2
    long_ago = (cached.folder() / "gpt2.asked").stat().st_mtime - cached.ASK_AGAIN
    os.utime(cached.folder() / "gpt2.asked", (long_ago, long_ago))
    cached.copy_for("gpt2")
    assert len(asked) == 3
    (tmp_path / "store" / "gpt2").mkdir()  # it has come
    cached.copy_for("gpt2")
    assert len(asked) == 4
