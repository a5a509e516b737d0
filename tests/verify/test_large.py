"""A file that is larger than memory: the official model's parameters are windows on it, and pages go back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llm_rebuild import weights
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify import ask, verify
from llm_rebuild.verify.official import Official
from llm_rebuild.weights import Weights

MODELS = sorted(folder for folder in local_copy.MINIATURES.iterdir() if (folder / "config.json").exists())


@pytest.fixture(params=MODELS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_bit_is_the_same(folder: Path, attention: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(weights, "LARGE", 1)
    monkeypatch.setattr(weights, "AT_ONCE", 10_000)
    report = verify(str(folder), ["The cook gave the sailor a lamp.", "The cook."], attention=attention)
    assert report.exact


def test_the_official_model_gives_its_pages_back_after_each_block(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    given_back = []
    monkeypatch.setattr(weights.Pages, "give_back", lambda pages: given_back.append(pages))
    copy = LocalCopy(folder.name, folder, "miniature")
    question = ask(copy, copy.rebuild.architecture.default_texts("miniature"))
    Official(folder).run(question)
    assert given_back == []
    monkeypatch.setattr(weights, "LARGE", 1)
    Official(folder).run(question)
    assert len(given_back) >= 1 + sum(copy.rebuild.depth.values())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages stay until the system wants them")
def test_pages_go_back_and_what_was_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    size = 25_000_000  # numbers
    save_file({"a": torch.ones(size), "b": torch.zeros(1000)}, tmp_path / "model.safetensors")

    def resident() -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    opened = Weights.open(tmp_path / "model.safetensors")
    opened["b"].add_(2.0)
    before = resident()
    assert float(opened["a"].sum()) == size
    assert resident() - before > 3 * size
    monkeypatch.setattr(weights, "LARGE", 1)
    opened["b"]  # before the next is read
    assert resident() - before < size
    assert float(opened["b"].sum()) == 2000.0
    assert float(opened["a"].sum()) == size
