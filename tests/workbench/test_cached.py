"""Captures that are kept: found for the same and for nothing else, whole or made again, never too many."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.files import sha256_of
from llm_rebuild.workbench import cached


@pytest.fixture
def copy() -> LocalCopy:
    return LocalCopy("gpt2", local_copy.MINIATURES / "gpt2", "miniature")


def save(file: Path) -> None:
    """The smallest capture."""
    save_file({"inputs/token_ids": torch.arange(3)}, file, metadata={"llm_rebuild": '{"order": ["a"]}'})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, copy: LocalCopy):
    """Ask for a capture; how often one was made so far."""
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    count = [0]

    def make(file: Path) -> None:
        count[0] += 1
        save(file)

    def ask(texts: str = "a", attention: str = "eager") -> int:
        with cached.writable() as folder:
            file = cached.find(copy, {"texts": [texts], "attention": attention}, make, folder)
            read, names = cached.contents(file)
        assert (read["token_ids"].tolist(), names) == ([0, 1, 2], ["a"])
        return count[0]

    return ask


def test_the_same_is_found_and_another_is_made(made, monkeypatch: pytest.MonkeyPatch):
    assert [made(), made(), made("b"), made("a", "sdpa"), made("b")] == [1, 1, 2, 3, 3]
    monkeypatch.setattr(cached, "environment", lambda: {"torch": "another"})
    assert made() == 4


@pytest.mark.parametrize(
    "variable", ["ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_NUM_THREADS", "ONEDNN_MAX_CPU_ISA"]
)
def test_other_kernels_have_other_bits(made, monkeypatch: pytest.MonkeyPatch, variable: str):
    monkeypatch.setenv(variable, "one")
    assert [made(), made()] == [1, 1]
    monkeypatch.setenv(variable, "another")
    assert made() == 2
    monkeypatch.delenv(variable)
    assert made() == 3


def test_another_machine_has_other_bits(made, monkeypatch: pytest.MonkeyPatch):
    """A folder that two computers share: their processors may be of two makers."""
    assert [made(), made()] == [1, 1]
    monkeypatch.setattr("platform.node", lambda: "another")
    assert made() == 2


def test_other_weights_are_another_model_and_no_check_reads_them(
    made, monkeypatch: pytest.MonkeyPatch, copy: LocalCopy, tmp_path: Path
):
    folder = tmp_path / "model"
    shutil.copytree(copy.folder, folder)
    monkeypatch.setitem(copy.__dict__, "folder", folder)
    monkeypatch.setattr(local_copy, "sha256_of", lambda file: pytest.fail(f"{file} was read"))
    assert [made(), made()] == [1, 1]
    file = folder / "model.safetensors"
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing had happened
    assert made() == 2


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def poisoned(file: Path) -> None:
    """Named by its own sum, and no capture."""
    other = file.with_name("other")
    save_file({"x": torch.zeros(3)}, other)
    file.unlink()
    other.rename(file.with_name(f"{file.name.split('.')[0]}.{sha256_of(other)[:32]}.safetensors"))


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def sparse(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(2**40)


@pytest.mark.parametrize("harm", [lambda f: f.write_bytes(b""), cut, flipped, poisoned, pipe, sparse])
def test_a_broken_one_is_made_again(made, harm):
    assert made() == 1
    (file,) = cached.folder().iterdir()
    harm(file)
    assert [made(), made()] == [2, 2]
    assert len(list(cached.folder().iterdir())) == 1


def test_what_was_not_used_for_long_goes_first(made, monkeypatch: pytest.MonkeyPatch):
    for number, text in enumerate("abc"):
        made(text)
        for file in cached.folder().iterdir():
            if file.stat().st_mtime > 1000:
                os.utime(file, (number + 1, number + 1))
    made("a")  # used again: now `b` is the oldest
    size = next(cached.folder().iterdir()).stat().st_size
    monkeypatch.setattr(cached, "MOST", 3 * size + 1)
    assert made("d") == 4
    assert [made("a"), made("c"), made("d")] == [4, 4, 4]
    assert made("b") == 5


def test_one_that_was_not_finished_is_no_capture(made, copy: LocalCopy):
    def stopped(file: Path) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with cached.writable() as folder, pytest.raises(KeyboardInterrupt):
        cached.find(copy, {"texts": ["a"]}, stopped, folder)
    assert list(cached.folder().iterdir()) == []
    assert made() == 1


def test_a_store_that_cannot_be_written_is_no_reason_to_fail(
    made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / "store").write_text("a file")
    assert [made(), made()] == [1, 2]
    assert list(temporary.iterdir()) == []


def test_what_somebody_left_half_written_is_removed(made):
    cached.folder().mkdir(parents=True)
    left, new = cached.folder() / ".1.abc.part", cached.folder() / ".2.abc.part"
    for part in (left, new):
        part.touch()
    os.utime(left, (0, 0))
    made()
    assert (left.exists(), new.exists()) == (False, True)


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
    assert "could not be had 1 min ago; `llm-rebuild download gpt2` tries again" in capsys.readouterr().err
    cached.copy_for("gpt2", strict=True)
    assert len(asked) == 2
    long_ago = (cached.folder() / "gpt2.asked").stat().st_mtime - cached.ASK_AGAIN
    os.utime(cached.folder() / "gpt2.asked", (long_ago, long_ago))
    cached.copy_for("gpt2")
    assert len(asked) == 3
    (tmp_path / "store" / "gpt2").mkdir()  # it has come
    cached.copy_for("gpt2")
    assert len(asked) == 4
