"""A trace holds everything that was computed, as it was when it was computed, and survives a crash."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild import verify
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.trace import trace
from tests.models import small

IDS = [[5, 17, 3, 44, 9], [11, 5, 8]]


@pytest.fixture(scope="module", params=["bert", "gpt2", "t5"])
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    config = {"bert": small.BERT, "gpt2": small.GPT2, "t5": small.T5}[request.param]
    return small.model(tmp_path_factory.mktemp("models") / request.param, config)


@pytest.fixture(scope="module")
def taken(copy: LocalCopy) -> Trace:
    return trace(copy, token_ids=IDS)


@pytest.fixture(scope="module")
def truth(copy: LocalCopy) -> Capture:
    return verify.capture(copy, token_ids=IDS)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return small.model(tmp_path_factory.mktemp("models") / "gpt2", small.GPT2)


class Counting(TorchDispatchMode):
    """An independent count of floating results that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[torch.Tensor] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if not function.is_view and name != "_unsafe_view" and not name.startswith(("empty", "new_empty")):
            outputs = result if isinstance(result, tuple | list) else (result,)
            self.results += [o.clone() for o in outputs if torch.is_tensor(o) and o.is_floating_point()]
        return result


def test_everything_that_is_computed_is_there_in_order(copy: LocalCopy, taken: Trace):
    question, official = verify.ask(copy, token_ids=IDS), Official(copy.folder)
    with Counting() as counting:
        official.run(question, copies=False)
    computed = [taken.tensor(entry) for entry in taken.computed()]
    assert len(computed) == len(counting.results) > 40
    assert all(torch.equal(a, b) for a, b in zip(computed, counting.results, strict=True))
    assert taken.whole
    assert taken.skipped["whole numbers or truth values"] > 0


def test_every_checkpoint_is_an_entry_with_its_numbers(truth: Capture, taken: Trace):
    names = taken.names()
    assert [name for name in truth if name not in names] == []
    assert all(torch.equal(taken.tensor(name), truth.tensors[name]) for name in truth)
    assert list(taken.checkpoints) == list(truth)
    marked = {entry.checkpoint for entry in taken if entry.checkpoint}
    assert marked <= set(truth)
    assert {taken[name].number for name in marked} == set(taken.checkpoints.values())


def test_names_say_where_and_how_often(gpt2: LocalCopy):
    taken = trace(gpt2, token_ids=IDS)
    probs = taken["h.1.attn.softmax[0]"]
    assert (probs.path, probs.module, probs.operation, probs.aten) == (
        "h.1.attn", "GPT2Attention", "softmax", "aten._softmax",
    )  # fmt: skip
    assert probs.checkpoint == "h.1.attn.probs"
    assert probs.shape == (2, 4, 5, 5)
    assert [taken.entries[n].checkpoint for n in probs.inputs] == ["h.1.attn.scores"]
    assert [taken[f"h.0.mlp.act.mul[{n}]"].call for n in range(4)] == [0, 1, 2, 3]
    assert [m.name for m in taken["h.0.mlp.c_proj"].returned] == ["h.0.mlp.c_proj", "h.0.mlp"]
    assert "h.0.attn.resid_dropout" not in taken.names()  # it hands on what it was given
    assert len({entry.name for entry in taken}) == len(taken)
    with pytest.raises(InputError, match=r"has no tensor 'h\.9'"):
        taken["h.9"]


def test_a_view_says_what_it_shows_and_is_not_copied(gpt2: LocalCopy):
    taken = trace(gpt2, token_ids=IDS)
    keys = taken["h.0.attn.split[0].1"]
    shown = taken.entries[keys.view_of]
    assert shown.name == "h.0.attn.c_attn.addmm[0]"
    assert torch.equal(taken.tensor(keys), taken.tensor("h.0.attn.c_attn")[..., 24:48])
    storages = {taken.tensor(e).untyped_storage().data_ptr() for e in (keys, shown)}
    assert len(storages) == 1


def test_the_model_is_left_as_it_was(gpt2: LocalCopy):
    question, official = verify.ask(gpt2, token_ids=IDS), Official(gpt2.folder)
    before = official.run(question)["logits"]
    taken = trace(question, official=official)
    assert torch.equal(taken.tensor("lm_head"), before)
    assert torch.equal(official.run(question)["logits"], before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in official.model.modules())


class InPlace(torch.nn.Module):
    """Writes into what it computed, whole and in part, and goes on with both."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled = x * 2
        doubled.add_(1)
        part = doubled[:, :2]
        part.mul_(10)
        turned = doubled.transpose(1, 2)
        filled = torch.empty_like(x)
        filled.copy_(turned.transpose(1, 2))
        torch._foreach_mul_([filled], 3)  # returns nothing, only writes
        return filled - x


def test_what_is_overwritten_later_is_kept_as_it_was(gpt2: LocalCopy, monkeypatch: pytest.MonkeyPatch):
    official = Official(gpt2.folder)
    official.model.transformer.ln_f = InPlace()
    seen: list[torch.Tensor] = []
    official.model.transformer.ln_f.register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    taken = trace(gpt2, token_ids=IDS, official=official)
    (x,) = seen
    assert torch.equal(taken.tensor("ln_f.mul[0]"), x * 2)
    assert torch.equal(taken.tensor("ln_f.add[0]"), x * 2 + 1)
    assert torch.equal(taken.tensor("ln_f.mul[1]"), (x * 2 + 1)[:, :2] * 10)
    assert taken["ln_f.add[0]"].in_place
    answer = x * 2 + 1
    answer[:, :2] *= 10
    assert torch.equal(taken.tensor("ln_f.transpose[0]"), answer.mT)
    assert torch.equal(taken.tensor("ln_f._foreach_mul[0]"), answer * 3)
    assert torch.equal(taken.tensor("ln_f.sub[0]"), answer * 3 - x)
    assert taken["ln_f.sub[0]"].inputs[0] == taken["ln_f._foreach_mul[0]"].number
    assert "ln_f.empty_like[0]" not in taken.names()
    assert taken.skipped["memory without numbers"] == 1


class Doubling(torch.nn.Module):
    """Writes into what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2) + 0


@pytest.mark.parametrize("use_cache", [False, True])
def test_a_checkpoint_that_is_overwritten_later_is_captured_as_it_was(gpt2: LocalCopy, use_cache: bool):
    question, official = verify.ask(gpt2, token_ids=IDS, use_cache=use_cache), Official(gpt2.folder)
    name = f"h.{small.GPT2['n_layer'] - 1}.mlp.residual"
    last = verify.capture(question, official=official)[name].tensor
    official = Official(gpt2.folder)
    official.model.transformer.ln_f = Doubling()
    truth = verify.capture(question, official=official)
    assert torch.equal(truth[name].tensor, last)
    assert torch.equal(truth["ln_f"].tensor, 2 * last)


# ------------------------------------------------------------------------------- memory and the file


def same(one: Trace, other: Trace) -> None:
    assert len(one) == len(other)
    assert one.names() == other.names()
    for entry, copy in zip(one, other, strict=True):
        assert entry.to_json() == copy.to_json()
        assert (entry.returned, entry.checkpoint) == (copy.returned, copy.checkpoint)
        assert torch.equal(one.tensor(entry), other.tensor(copy))


def test_a_file_gives_back_the_trace(copy: LocalCopy, taken: Trace, tmp_path: Path):
    written = trace(copy, token_ids=IDS, out=tmp_path / "t")
    loaded = Trace.load(tmp_path / "t")
    same(taken, written)
    same(taken, loaded)
    assert loaded.whole
    assert (loaded.model, loaded.attention) == (taken.model, taken.attention)
    assert loaded.skipped == taken.skipped
    assert torch.equal(loaded.inputs.token_ids, taken.inputs.token_ids)
    assert written.in_memory == 0


def test_what_does_not_fit_the_budget_goes_to_a_temporary_file(copy: LocalCopy, taken: Trace):
    part = trace(copy, token_ids=IDS, budget=20_000)
    assert 10_000 < part.in_memory <= 20_000
    assert part.file is not None
    same(taken, part)


def test_the_file_is_safetensors_after_safetensors(gpt2: LocalCopy, tmp_path: Path):
    taken = trace(gpt2, token_ids=IDS, out=tmp_path / "t")
    data, count = (tmp_path / "t").read_bytes(), 0
    while data:
        (header,) = struct.unpack("<Q", data[:8])
        tensors = [v for k, v in json.loads(data[8 : 8 + header]).items() if k != "__metadata__"]
        end = 8 + header + sum(tensor["data_offsets"][1] for tensor in tensors)
        count += len(load(data[:end]))
        data = data[end:]
    assert count == len(list(taken.computed()))


@pytest.mark.parametrize("share", [0.02, 0.31, 0.77, 0.999])
def test_a_file_that_was_cut_off_gives_what_is_whole_in_it(gpt2: LocalCopy, tmp_path: Path, share: float):
    taken = trace(gpt2, token_ids=IDS, out=tmp_path / "t")
    data = (tmp_path / "t").read_bytes()
    (tmp_path / "cut").write_bytes(data[: int(len(data) * share)])
    cut = Trace.load(tmp_path / "cut")
    assert not cut.whole
    assert "breaks off" in repr(cut)
    assert 0 < len(cut) <= len(taken)
    assert len(cut) >= share * len(taken) * 0.4
    assert all(torch.equal(cut.tensor(e), taken.tensor(e.number)) for e in cut)
    (tmp_path / "holes").write_bytes(data[: int(len(data) * share)] + b"\0" * 4096)
    assert len(Trace.load(tmp_path / "holes")) in (len(cut), len(cut) + 1)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify import trace as tracing, trace_file
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
append, count = trace_file.TensorFile.append, 0
def counted(self, *arguments):
    global count
    append(self, *arguments)
    count += 1
    if count == 30:
        os.kill(os.getpid(), signal.SIGKILL)
trace_file.TensorFile.append = counted
tracing.trace(LocalCopy("gpt2", folder, "folder"), token_ids=[[5, 17, 3, 44, 9], [11, 5, 8]], out=out)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_what_a_killed_process_wrote_is_read(gpt2: LocalCopy, tmp_path: Path):
    command = [sys.executable, "-c", KILLED, str(gpt2.folder), str(tmp_path / "t")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    cut, taken = Trace.load(tmp_path / "t"), trace(gpt2, token_ids=IDS)
    assert len(list(cut.computed())) == 30
    assert not cut.whole
    assert all(torch.equal(cut.tensor(e), taken.tensor(e.number)) for e in cut)


def frame(event: dict, tensor: dict | None = None, data: bytes = b"") -> bytes:
    header = {"__metadata__": {"llm_rebuild": json.dumps(event)}}
    text = json.dumps(header | ({"entry/0": tensor} if tensor else {})).encode()
    return struct.pack("<Q", len(text)) + text + data


FIRST = {
    "format": "llm_rebuild trace 1", "model": {"name": "x"}, "attention": "eager", "environment": {},
    "texts": [], "tokens": [], "truncated": [], "token_ids": [[1]], "mask": [[1]],
}  # fmt: skip
ENTRY = {
    "number": 0, "operation": "add", "aten": "aten.add", "path": "", "module": "M", "call": 0, "output": 0,
    "shape": [2], "stride": [1], "offset": 0, "inputs": [], "view_of": None, "in_place": False,
}  # fmt: skip
NUMBERS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def test_a_file_of_the_right_form_is_read(tmp_path: Path):
    (tmp_path / "t").write_bytes(
        frame(FIRST) + frame(ENTRY, NUMBERS, b"\0" * 8) + frame({"end": 1, "skipped": {}})
    )
    loaded = Trace.load(tmp_path / "t")
    assert loaded.whole
    assert loaded.tensor(0).tolist() == [0.0, 0.0]
    (tmp_path / "t").write_bytes(frame(FIRST) + frame({"end": 1, "skipped": {}}))
    assert not Trace.load(tmp_path / "t").whole  # an entry was cut out of the middle


LIES = {
    "empty": b"",
    "another file": b"x" * 100,
    "a header as long as memory": struct.pack("<Q", 1 << 62) + b"{}",
    "no metadata": struct.pack("<Q", 2) + b"{}",
    "another format": frame(FIRST | {"format": "other"}),
    "more numbers than it says": frame(FIRST) + frame(ENTRY, NUMBERS | {"shape": [1 << 40]}, b"\0" * 8),
    "a negative count": frame(FIRST) + frame(ENTRY, NUMBERS | {"shape": [-2]}, b"\0" * 8),
    "a window beyond its numbers": frame(FIRST) + frame(ENTRY | {"stride": [9]}, NUMBERS, b"\0" * 8),
    "a window before them": frame(FIRST) + frame(ENTRY | {"offset": -1}, NUMBERS, b"\0" * 8),
    "a view of what does not exist": frame(FIRST) + frame(ENTRY | {"view_of": 3}),
    "a view of itself": frame(FIRST) + frame(ENTRY | {"view_of": -1}),
    "a view of the last one, backwards": (
        frame(FIRST) + frame(ENTRY, NUMBERS, b"\0" * 8) + frame(ENTRY | {"number": 1, "view_of": -1})
    ),
    "a view of a view": (
        frame(FIRST)
        + frame(ENTRY, NUMBERS, b"\0" * 8)
        + frame(ENTRY | {"number": 1, "view_of": 0})
        + frame(ENTRY | {"number": 2, "view_of": 1})
    ),
    "made of what comes later": frame(FIRST) + frame(ENTRY | {"inputs": [7]}, NUMBERS, b"\0" * 8),
    "an entry out of order": frame(FIRST) + frame(ENTRY | {"number": 5}, NUMBERS, b"\0" * 8),
    "an unknown dtype": frame(FIRST) + frame(ENTRY, NUMBERS | {"dtype": "Q9"}, b"\0" * 8),
}


@pytest.mark.parametrize("lie", LIES)
def test_nothing_that_a_file_says_is_believed(tmp_path: Path, lie: str):
    (tmp_path / "t").write_bytes(LIES[lie])
    with pytest.raises(InputError, match="is not a trace file; ") as refused:
        Trace.load(tmp_path / "t")
    assert "\n" not in str(refused.value)


def test_a_later_header_as_long_as_memory_is_where_the_file_ends(tmp_path: Path):
    (tmp_path / "t").write_bytes(frame(FIRST) + struct.pack("<Q", 1 << 62) + b"{}")
    loaded = Trace.load(tmp_path / "t")
    assert (len(loaded), loaded.whole) == (0, False)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="is not a trace file"):
        Trace.load(tmp_path / "absent")


def test_a_place_that_cannot_be_written(gpt2: LocalCopy, tmp_path: Path):
    with pytest.raises(InputError, match="cannot be written"):
        trace(gpt2, token_ids=IDS, out=tmp_path / "absent" / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_in_the_trace_that_has_it(gpt2: LocalCopy):
    traced = trace(gpt2, token_ids=IDS)
    assert "h.0.attn.softmax[0]" in traced
    assert "h.0.attn.probs" in traced
    assert "h.0.attn.nonsense" not in traced
    assert traced[3] in traced
    with pytest.raises(KeyError):
        traced["h.0.attn.nonsense"]
