"""Captures are copies, and their files are whole or absent."""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.multiprocessing.reductions import StorageWeakRef

from llm_rebuild import verify
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.official import Official
from tests import tiny_bert


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return tiny_bert.copy(tiny_bert.write(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def truth(tiny: LocalCopy) -> Capture:
    return verify.capture(tiny, ["a b c d", "e"])


def test_a_file_gives_back_what_was_captured(truth: Capture, tmp_path: Path):
    truth.save(tmp_path / "capture.safetensors")
    loaded = Capture.load(tmp_path / "capture.safetensors")
    assert list(loaded) == list(truth)
    assert all(torch.equal(loaded[n].tensor, truth[n].tensor) for n in truth)
    assert loaded.inputs.texts == truth.inputs.texts
    assert loaded.inputs.tokens == truth.inputs.tokens
    assert torch.equal(loaded.inputs.token_ids, truth.inputs.token_ids)
    assert torch.equal(loaded.inputs.mask, truth.inputs.mask)
    assert (loaded.model, loaded.attention) == (truth.model, truth.attention)
    assert loaded.environment == truth.environment


def test_what_a_file_gives_back_begins_where_torch_would_have_it(truth: Capture, tmp_path: Path):
    """In the file no tensor begins at a multiple of 64 bytes behind one of a single number. A product of two
    rows has other bits there."""
    odd = {
        name: torch.randn(1) if at % 2 else tensor for at, (name, tensor) in enumerate(truth.tensors.items())
    }
    replace(truth, tensors=odd).save(tmp_path / "odd.safetensors")
    with safe_open(tmp_path / "odd.safetensors", framework="pt") as opened:
        assert any(opened.get_tensor(key).data_ptr() % 64 for key in opened.keys())  # noqa: SIM118
    loaded = Capture.load(tmp_path / "odd.safetensors")
    assert [name for name, tensor in loaded.tensors.items() if tensor.data_ptr() % 64] == []
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in odd.items())


def test_the_file_carries_the_fingerprint(truth: Capture, tmp_path: Path):
    truth.save(tmp_path / "capture.safetensors")
    with safe_open(tmp_path / "capture.safetensors", framework="pt") as opened:
        about = json.loads(opened.metadata()["llm_rebuild"])
    assert about["environment"]["torch"] == torch.__version__
    assert {"transformers", "threads", "cpu_capability", "dtype"} <= set(about["environment"])
    assert (about["attention"], len(about["model"]["sha256"])) == ("eager", 64)


def test_what_leaves_is_a_copy(truth: Capture):
    before = truth["embeddings.sum"].tensor
    truth["embeddings.sum"].tensor.zero_()
    truth["embeddings.sum"].tensor[:] = 7
    assert torch.equal(truth["embeddings.sum"].tensor, before)


def test_checkpoints_share_no_memory_with_each_other_or_the_weights(tiny: LocalCopy, truth: Capture):
    addresses = [tensor.untyped_storage().data_ptr() for tensor in truth.tensors.values()]
    assert len(set(addresses)) == len(addresses)
    assert not set(addresses) & {t.untyped_storage().data_ptr() for t in tiny.weights().peek().values()}


def test_watching_changes_nothing(tiny: LocalCopy):
    question = verify.ask(tiny, ["a b c d", "e"])
    official = Official(tiny.folder)
    before = official.run(question)
    watched = verify.capture(question)
    assert torch.equal(watched["sentence.embedding"].tensor, before["sentence_embedding"])
    again = verify.capture(question, official=official)
    assert all(torch.equal(again[name].tensor, watched[name].tensor) for name in watched)
    after = official.run(question)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for _, part in official.parts)


def test_a_capture_with_its_steps_lets_the_weights_go(tiny: LocalCopy):
    official = Official(tiny.folder)
    weights = [StorageWeakRef(weight.untyped_storage()) for weight in official.model.parameters()]
    truth = verify.capture(tiny, ["a b c d", "e"], official=official, steps=True)
    assert list(truth.steps) == list(truth)
    del official
    gc.collect()
    assert all(weight.expired() for weight in weights)


def test_unknown_names(truth: Capture):
    with pytest.raises(InputError, match=r"did you mean 'embeddings.sum'\?"):
        truth["embeddings.sums"]
    assert "embeddings.sums" not in truth
    assert "embeddings.sum" in truth


def test_judging_names_what_is_no_checkpoint(truth: Capture):
    with pytest.raises(InputError, match=r"names embeddings\.mine, which is no checkpoint of this run"):
        verify.judge({"embeddings.mine": torch.zeros(1)}, truth)


def test_judging_a_capture_against_itself_is_an_error(truth: Capture):
    with pytest.raises(InputError, match="itself"):
        verify.judge(truth.tensors, truth)


@pytest.mark.parametrize("content", [b"", b"x" * 9, b"\xff" * 64, b"PK\x03\x04"], ids=range(4))
def test_other_files_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="is not a capture file"):
        Capture.load(tmp_path / "file")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("", "is a folder"), ("pipe", "is a pipe or a device"), ("no", "is missing")):
        with pytest.raises(InputError, match=words):
            Capture.load(tmp_path / name)


@pytest.mark.parametrize("about", [None, "", "[]", "{}", '{"order": ["x"]}'], ids=range(5))
def test_safetensors_that_are_no_capture_are_refused(tmp_path: Path, about: str | None):
    save_file(
        {"x": torch.zeros(1)}, tmp_path / "f", metadata=None if about is None else {"llm_rebuild": about}
    )
    with pytest.raises(InputError, match="is not a capture file"):
        Capture.load(tmp_path / "f")


def test_where_it_cannot_be_written_nothing_is_left(truth: Capture, tmp_path: Path):
    with pytest.raises(InputError, match="cannot write"):
        truth.save(tmp_path / "absent" / "capture.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        truth.save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder"]


FULL_DISK = """
import resource, signal, sys
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.verify.capture import Capture
truth = Capture.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    truth.save(sys.argv[2])
except InputError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit to put on files here")
def test_a_disk_that_fills_up_leaves_the_old_file_as_it_was(truth: Capture, tmp_path: Path):
    truth.save(tmp_path / "whole")
    (tmp_path / "old").write_text("what was there", encoding="utf-8")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "whole"), str(tmp_path / "old")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("cannot write")
    assert result.stdout.count("\n") == 1
    assert (tmp_path / "old").read_text(encoding="utf-8") == "what was there"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "whole"]


def test_a_name_that_is_not_there_is_answered_as_by_any_mapping(tiny: LocalCopy, truth: Capture):
    assert truth.get("embeddings.sums") is None
    assert truth.get("embeddings.sums", 7) == 7
    weights = tiny.weights()
    assert weights.get("no.such.weight") is None
    assert weights.at("embeddings").get("no.such.weight", 7) == 7
    for mapping in (truth, weights):
        with pytest.raises(KeyError) as refused:
            mapping["embeddings.sums"]
        assert isinstance(refused.value, InputError)
        assert not str(refused.value).startswith("'")  # a sentence, and not KeyError's quotation of one


def test_one_proof_runs_the_official_model_once(tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch):
    runs, run = [], Official.run

    def counted(self: Official, *given, **options):
        runs.append(given)
        return run(self, *given, **options)

    monkeypatch.setattr(Official, "run", counted)
    report = verify.verify(tiny, ["a b c d", "e"])
    assert report.exact
    assert report.coverage is not None
    assert len(runs) == 1


def test_a_capture_says_what_its_checkpoints_are(truth: Capture, tmp_path: Path):
    truth.save(tmp_path / "capture.safetensors")
    loaded = Capture.load(tmp_path / "capture.safetensors")
    for capture in (truth, loaded):
        assert list(capture.checkpoints) == list(capture)
        scores = capture.checkpoints["encoder.layer.1.attention.self.scores"]
        assert (scores.shape, scores.source) == ("[batch, head, query, key]", "into softmax[0]")
        assert capture.model_type == "bert"


WINDOWS = {"itself": lambda t: t, "detached": lambda t: t.detach(), "a view": lambda t: t.view(t.shape)}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_an_official_copy_is_no_rebuilt_tensor(tiny: LocalCopy, window):
    truth = verify.capture(tiny, ["a b c d", "e"])
    name = "embeddings.sum"
    with pytest.raises(InputError, match=r"is a copy of the official embeddings\.sum, .* openly by bridge"):
        verify.judge({name: window(truth[name].tensor)}, truth)
    with pytest.raises(InputError, match=r"is a copy of the official embeddings\.sum, "):
        verify.compare(window(truth[name].tensor), truth[name])
    assert verify.judge({name: truth[name].tensor + 0}, truth).verdicts  # what is computed is nobody's copy
    other = verify.capture(tiny, ["a b c d", "e"])
    assert verify.compare(other[name].tensor, truth[name]).identical  # two runs may be compared
    report = verify.judge({name: window(truth.bridge(name))}, truth)
    assert report.coupled == (name,)


def test_a_bridge_survives_the_file(tiny: LocalCopy, tmp_path: Path):
    truth = verify.capture(tiny, ["a b c d", "e"])
    truth.bridge("embeddings.sum")
    truth.save(tmp_path / "capture.safetensors")
    loaded = Capture.load(tmp_path / "capture.safetensors")
    assert loaded.coupled == ["embeddings.sum"]
    rebuilt = {name: tensor.clone() for name, tensor in loaded.tensors.items()}
    assert verify.judge(rebuilt, loaded).coupled == ("embeddings.sum",)
