"""A tensor is found whatever was done to it, said in words, and nothing is found where there is nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild import verify
from llm_rebuild.cli import main as cli
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.find import Candidate, find, fingerprint
from llm_rebuild.verify.layouts import arrangement
from llm_rebuild.verify.trace import trace
from tests.models import small

IDS = [[5, 17, 3, 44, 9, 60, 2], [11, 5, 8, 1, 7, 7, 30]]
BATCH, TOKENS, WIDTH, HEADS = 2, 7, 24, 4


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return small.model(tmp_path_factory.mktemp("models") / "gpt2", small.GPT2)


@pytest.fixture(scope="module")
def taken(gpt2: LocalCopy) -> Trace:
    return trace(gpt2, token_ids=IDS)


def noise(like: Tensor, size: float) -> Tensor:
    return size * torch.randn(like.shape, generator=torch.Generator().manual_seed(0))


# what was done to an official tensor -> which, how, and what must be said
Moved = tuple[str, Callable[[Tensor], Tensor], str, str]
MOVED: dict[str, Moved] = {
    "nothing": ("h.1.attn.probs", lambda t: t.clone(), "same", "the official h.1.attn.probs"),
    "transposed": (
        "h.1.attn.probs", lambda t: t.mT.contiguous(), "rearranged",
        "the official h.1.attn.probs, transposed in its last two axes",
    ),
    "flat": ("h.1.ln_1", lambda t: t.flatten(), "rearranged", "the official h.1.ln_1, reshaped to [336]"),
    "axes of size 1": ("h.1.ln_1", lambda t: t[:, None].clone(), "same", "the official h.1.ln_1"),
    "heads and tokens swapped": (
        "h.2.attn.scores", lambda t: t.transpose(1, 2).contiguous(), "rearranged",
        "the official h.2.attn.scores, with axes 1 and 2 swapped",
    ),
    "heads split": (
        "h.1.ln_2", lambda t: t.view(BATCH, TOKENS, HEADS, 6).transpose(1, 2).contiguous(), "rearranged",
        "the official h.1.ln_2, split into 4 heads of 6",
    ),
    "heads split by a reshape alone": (
        "h.1.ln_2", lambda t: t.reshape(BATCH, HEADS, TOKENS, 6).contiguous(), "rearranged",
        "the official h.1.ln_2, reshaped to [2, 4, 7, 6]",
    ),
    "heads merged": (
        "h.1.attn.head_context", lambda t: t.transpose(1, 2).reshape(BATCH, TOKENS, WIDTH), "same",
        "the official h.1.attn.context",
    ),
    "all axes": (
        "h.0.attn.probs", lambda t: t.permute(3, 1, 0, 2).contiguous(), "rearranged",
        "the official h.0.attn.probs, with its axes in the order (3, 1, 0, 2)",
    ),
    "shuffled": (
        "h.1.ln_1", lambda t: t[:, [3, 0, 6, 1, 5, 2, 4]].clone(), "rearranged",
        "the official h.1.ln_1, its numbers in another order",
    ),
    "one head": (
        "h.1.attn.product", lambda t: t[1, 2].clone(), "part",
        "the official h.1.attn.product, its part [1, 2, :, :]",
    ),
    "columns": (
        "h.2.mlp.c_fc", lambda t: t[:, :, 10:20].clone(), "part",
        "the official h.2.mlp.c_fc, its part [:, :, 10:20]",
    ),
    "columns, transposed": (
        "h.2.mlp.c_fc", lambda t: t[0, :, 10:20].T.contiguous(), "part",
        "the official h.2.mlp.c_fc, its part [0, :, 10:20], with its axes in the order (2, 1)",
    ),
    "last token": (
        "lm_head", lambda t: t[:, -1].clone(), "part", "the official lm_head, its part [:, 6, :]",
    ),
    "the keys of fused weights": (
        "h.1.attn.c_attn",
        lambda t: t[..., 24:48].reshape(BATCH, TOKENS, HEADS, 6).transpose(1, 2).contiguous(), "same",
        "the official h.1.attn.transpose[0] (a view of h.1.attn.c_attn, from its column 24 on)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVED)
def test_the_same_numbers_are_found_wherever_they_were_moved(taken: Trace, name: str):
    official, change, kind, words = MOVED[name]
    found = taken.find(change(taken[official].value))
    assert found.best is not None
    assert (found.best.kind, found.best.words) == (kind, words)
    assert found.best.exact
    assert found


def test_one_bit_is_not_overlooked(taken: Trace):
    probs = taken["h.1.attn.probs"].value.clone()
    probs.view(torch.int32)[1, 2, 6, 3] ^= 1
    best = taken.find(probs).best
    assert (best.kind, best.name) == ("near", "h.1.attn.probs")
    assert 0 < best.difference < 1e-6


def test_a_fingerprint_depends_on_the_bits_alone():
    numbers = torch.arange(600.0).reshape(20, 30)
    assert fingerprint(numbers) == fingerprint(numbers.T) == fingerprint(numbers.flip(0).flatten())
    other = numbers.clone()
    other[3, 4] = 5.0
    assert fingerprint(other) != fingerprint(numbers)
    assert fingerprint(torch.tensor([0.0, 1.0])) != fingerprint(torch.tensor([-0.0, 1.0]))


def test_a_tensor_of_more_numbers_than_float32_can_count():
    """336 tokens' scores of GPT-2 are as many: some of their places are no float32."""
    rows = torch.zeros(2, 2**24 + 4)
    rows[0, -1] = 3.0  # what tells it from others stands last
    assert arrangement(rows[0], rows[0]) == ("", 0.0)
    answer = find(rows[0], [Candidate("scores", rows, "scores")], {})
    assert str(answer) == "the official scores, its part [0, :]: the same bits"


def test_the_order_is_told_by_bits_and_not_by_nearness():
    numbers = noise(torch.zeros(6, 6), 1.0)
    assert arrangement(numbers.T.contiguous(), numbers) == (", transposed in its last two axes", 0.0)
    other = numbers.clone()
    other.view(torch.int32)[2, 3] ^= 1
    assert arrangement(numbers.T.contiguous(), other) is None
    assert arrangement(numbers.T.contiguous(), other, 1e-6) is not None


Done = tuple[str, Callable[[Tensor, Trace], Tensor], str]
DONE: dict[str, Done] = {
    "scaled": ("h.1.attn.product", lambda t, _: t / 3, "{}, scaled by 1/3"),
    "scaled by a root": ("h.1.attn.product", lambda t, _: t / 7**0.5, "{}, scaled by 1/√7"),
    "negated": ("h.1.ln_1", lambda t, _: -t, "{}, scaled by -1"),
    "shifted": ("h.1.ln_1", lambda t, _: t + 1.5, "{}, shifted by 1.5"),
    "bias missing": (
        "h.2.mlp.c_fc", lambda t, taken: t - taken.weights["h.2.mlp.c_fc.bias"],
        "{}, without h.2.mlp.c_fc.bias",
    ),
    "a bias too many": (
        "h.2.ln_2", lambda t, taken: t + taken.weights["h.2.mlp.c_proj.bias"],
        "{}, plus h.2.mlp.c_proj.bias",
    ),
    "a bias of one's own": ("h.2.ln_2", lambda t, _: t + noise(t[0, 0], 1.0), "{}, plus the same numbers in"),
    "masked": (
        "h.1.attn.scaled", lambda t, _: t.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf),
        "{}, masked: 168 of 392 numbers are -inf, above the diagonal",
    ),
    "masked one too far": (
        "h.1.attn.scaled", lambda t, _: t.masked_fill(torch.ones(7, 7).triu().bool(), -1e9),
        "{}, masked: 224 of 392 numbers are -1e+09, on and above the diagonal",
    ),
    "mask of zeros": ("h.1.attn.scaled", lambda t, _: t.tril(), "{}, masked: 168 of 392 numbers are 0"),
    "softmax without a mask": (
        "h.1.attn.scaled", lambda t, _: t.softmax(-1), "softmax of {} over its last axis",
    ),
    "softmax of the wrong axis": (
        "h.1.attn.scores", lambda t, _: t.softmax(-2), "softmax of {} over its last axis but one",
    ),
    "exact GELU": ("h.2.mlp.c_fc", lambda t, _: F.gelu(t), "exact GELU of {}"),
    "ReLU": ("h.2.mlp.c_fc", lambda t, _: F.relu(t), "ReLU of {}"),
    "SiLU": ("h.2.mlp.c_fc", lambda t, _: F.silu(t), "SiLU of {}"),
    "norm without weights": (
        "h.1.mlp.residual", lambda t, _: F.layer_norm(t, (24,)), "LayerNorm without weight and bias of {}",
    ),
    "norm with another's weights": (
        "h.0.attn.residual",
        lambda t, taken: F.layer_norm(t, (24,), taken.weights["ln_f.weight"], taken.weights["ln_f.bias"]),
        "LayerNorm of {}, with ln_f.weight and ln_f.bias",
    ),
    "mean not subtracted": (
        "h.1.mlp.residual",
        lambda t, taken: F.rms_norm(t, (24,), taken.weights["ln_f.weight"]),
        "RMSNorm of {}, with ln_f.weight",
    ),
    "unit length": (
        "h.1.mlp.residual", lambda t, _: F.normalize(t, dim=-1), "each row brought to length 1 of {}",
    ),
    "rounded": ("h.1.mlp.residual", lambda t, _: t + noise(t, 1e-7), "{}"),
    "nearly": ("h.1.mlp.residual", lambda t, _: t + noise(t, 1e-3), "{}"),
    "nearly, and transposed": (
        "h.1.attn.probs", lambda t, _: t.mT + noise(t, 1e-7), "{}, transposed in its last two axes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DONE)
def test_a_known_function_of_an_official_tensor_is_named(taken: Trace, name: str):
    official, change, words = DONE[name]
    found = taken.find(change(taken[official].value, taken))
    assert found.best is not None
    assert found.best.words.startswith(words.format(f"the official {official}")), str(found)
    assert found.best.name == official
    assert not found.best.exact
    assert found.best.difference < (1e-2 if name == "nearly" else 1e-4)


def test_what_is_like_nothing_is_not_found(taken: Trace):
    found = taken.find(noise(torch.zeros(BATCH, TOKENS, WIDTH), 1.0))
    assert not found
    assert {hit.kind for hit in found.hits} == {"nearest"}
    assert str(found).startswith("nothing like it; the least different:\n")
    alone = taken.find(torch.rand(5, 11))
    assert not alone
    assert alone.hits == ()
    assert "was it computed from the same input?" in str(alone)


def test_in_a_capture(gpt2: LocalCopy):
    truth = verify.capture(gpt2, token_ids=IDS)
    best = truth.find(truth["h.1.attn.probs"].tensor.mT.contiguous()).best
    assert str(best) == "the official h.1.attn.probs, transposed in its last two axes: the same bits"


def test_every_entry_of_a_trace_is_found(taken: Trace):
    """Under its own name or that of the same numbers computed before."""
    for entry in taken:
        if not bool(entry.value.isnan().all()):
            best = taken.find(entry.value.clone(), limit=1).best
            assert best is not None, entry.name
            assert best.exact, entry.name


REFUSED = {
    "no tensor": ([1.0], "find was given a list; it takes a tensor"),
    "integers": (torch.arange(3), "the tensor is int64; only floating-point tensors can be found"),
    "empty": (torch.zeros(0, 4), r"the tensor of shape \[0, 4\] is empty"),
    "another dtype": (torch.zeros(3, dtype=torch.float64), "is float64, the official ones are float32"),
    "one number": (torch.tensor([123.5]), r"one number, 123\.5, tells too little; give more than one"),
    "all NaN": (torch.full((3,), torch.nan), "is all NaN; go back to the step before the first NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_looked_for(taken: Trace, name: str):
    tensor, words = REFUSED[name]
    with pytest.raises(InputError, match=words):
        taken.find(tensor)


# -------------------------------------------------------------------------------------- command line


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llm-rebuild", "find", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return command


def ids() -> list[str]:
    return [word for row in IDS for word in ("--token-ids", ",".join(map(str, row)))]


def test_the_command(run, gpt2: LocalCopy, taken: Trace, tmp_path: Path):
    save_file({"mine": taken["h.1.attn.probs"].value.mT.contiguous()}, tmp_path / "f")
    code, out, err = run(tmp_path / "f", "--model", gpt2.folder, *ids())
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    assert said == "the official h.1.attn.probs, transposed in its last two axes: the same bits"
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = run(tmp_path / "f", "--model", gpt2.folder, *ids(), "--json", "-")
    (hit,) = json.loads(out)["hits"]
    assert (code, hit["name"], hit["kind"]) == (0, "h.1.attn.probs", "rearranged")


def test_the_command_finds_nothing(run, gpt2: LocalCopy, tmp_path: Path):
    save_file({"a": torch.rand(5, 11), "b": noise(torch.zeros(2, 7, 24), 1.0)}, tmp_path / "f")
    assert run(tmp_path / "f", "--model", gpt2.folder, *ids(), "--key", "a")[0] == 1
    code, out, _ = run(tmp_path / "f", "--model", gpt2.folder, *ids(), "--key", "b")
    assert (code, out.splitlines()[0]) == (1, "nothing like it; the least different:")


def test_files_that_are_refused(run, gpt2: LocalCopy, tmp_path: Path):
    (tmp_path / "text").write_text("x" * 40, encoding="utf-8")
    save_file({"a": torch.rand(2), "b": torch.rand(2)}, tmp_path / "two")
    save_file({}, tmp_path / "none")
    save_file({"a": torch.arange(3)}, tmp_path / "whole")
    for arguments, words in (
        (["absent"], "is missing"),
        (["text"], "is not a whole safetensors file"),
        (["two"], "holds 2 tensors; say which with --key: a, b"),
        (["two", "--key", "c"], "has no tensor 'c'; it has a, b"),
        (["none"], "holds no tensors"),
        (["whole"], "only floating-point tensors can be found"),
    ):
        name, *more = arguments
        code, out, err = run(tmp_path / name, "--model", gpt2.folder, *ids(), *more)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
