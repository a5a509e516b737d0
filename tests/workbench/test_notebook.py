"""`check` as a notebook calls it: a function, which is sent to a process of its own."""

from __future__ import annotations

import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import llm_rebuild
from llm_rebuild import InputError, check, verify
from llm_rebuild.copies import local_copy
from llm_rebuild.workbench import new as writing
from llm_rebuild.workbench import step


@pytest.fixture(scope="module", autouse=True)
def store(captures: Path) -> Iterator[None]:
    """Official results that are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_REBUILD_STORE", str(captures))
        yield


MODEL = local_copy.MINIATURES / "gpt2"
TEXT = "The baker of Oru"


def forward_of(source: str):
    found = {"__name__": "notebook"}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), found)
    return found["forward"]


@pytest.fixture(scope="module")
def solved():
    return forward_of(writing.source("gpt2", solved=True))


def test_a_whole_rebuild(solved):
    found = check(solved, model=MODEL, texts=[TEXT, "The"])
    assert found.passed
    assert found.exact
    assert bool(found)
    assert found.report.bit_identical == len(found.report.verdicts) == 72
    assert str(found).splitlines()[-1] == "72 of 72 checkpoints bit-identical (gpt2, eager attention): done"
    html = found._repr_html_()
    assert html.startswith("<pre")
    assert "matched" in html
    assert "color" in html
    assert found.to_json()["next"] is None
    assert "72 of 72" in repr(found)


def test_a_long_word_beside_a_name_does_not_break_it():
    def forward(token_ids, weights, tap):
        tap("wte", weights["wte.weight"][token_ids].view(*[1] * 20, -1))

    lines = str(check(forward, model=MODEL, texts=TEXT)).splitlines()
    assert any(line.startswith("embeddings  ") for line in lines)


def test_half_a_rebuild_and_an_empty_step():
    @step("wpe", "inputs.token_ids")
    def where(token_ids): ...

    def forward(token_ids, mask, weights, config, tap):
        tap("wte", weights["wte.weight"][token_ids])
        tap("wpe", where(token_ids))

    found = check(forward, model=MODEL, texts=TEXT)
    assert not found.passed
    assert found.next == "wpe"
    assert "next: wpe" in str(found)


def test_what_it_changes_does_not_reach_this_process():
    """A13: a normalisation, the precision of products, autocast, the default device, dtype, threads, seed."""
    before = verify.capture(MODEL, TEXT)
    normalise, adding = torch.nn.LayerNorm.forward, torch.add
    threads, random = torch.get_num_threads(), torch.get_rng_state()

    def forward(token_ids, mask, weights, config, tap):
        tap("wte", weights["wte.weight"][token_ids])
        torch.nn.LayerNorm.forward = lambda self, x: x
        torch.set_float32_matmul_precision("medium")
        torch.set_autocast_enabled("cpu", True)
        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(threads + 1)
        torch.manual_seed(5)
        torch.add = lambda *a, **k: torch.zeros(())
        tap("wpe", weights["wpe.weight"][:4][None])

    found = check(forward, model=MODEL, texts=TEXT)
    try:
        assert found.report.bit_identical == 2
        assert torch.nn.LayerNorm.forward is normalise
        assert torch.add is adding
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.is_autocast_enabled("cpu")
        assert torch.get_default_device() == torch.device("cpu")
        assert torch.get_default_dtype() == torch.float32
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.get_rng_state(), random)
        after = verify.capture(MODEL, TEXT)
        assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before)
    finally:  # so that a failure here is not everybody's
        torch.nn.LayerNorm.forward, torch.add = normalise, adding
        torch.set_float32_matmul_precision("highest")
        torch.set_autocast_enabled("cpu", False)
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)


def test_an_exception_is_said_with_its_place_and_what_was_right_before_counts():
    forward = forward_of("""
def helper(x):
    return x @ x

def forward(token_ids, weights, tap):
    tap("wte", weights["wte.weight"][token_ids])
    print("hello")
    helper(weights["wpe.weight"])
""")
    found = check(forward, model=MODEL, texts=TEXT)
    assert found.error.startswith("the notebook, line 3, in helper: RuntimeError: ")
    assert found.error in found.notes
    assert found.output == "hello\n"
    assert (found.passed, found.report.bit_identical) == (False, 1)


SCRIPT = """
import torch
from torch.nn import functional as F

def shifted(token_ids):
    return torch.arange(1, token_ids.shape[1] + 1)[None]

def forward(token_ids, weights, tap):
    tap("wte", F.embedding(token_ids, weights["wte.weight"]))
    tap("wpe", F.embedding(shifted(token_ids), weights["wpe.weight"]))
    raise ValueError("enough")
"""


def test_a_function_of_a_script_is_said_by_the_script_s_name(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(SCRIPT, encoding="utf-8")
    found = check(runpy.run_path(str(file))["forward"], model=MODEL, texts=TEXT)
    assert found.error.startswith("mine.py, line 11, in forward: ValueError: enough")
    assert "mine.py, line 6, in shifted: return torch.arange(1" in " ".join(str(found).split())
    assert "notebook" not in str(found)


def test_what_jupyter_s_debugger_wrote_is_still_the_notebook(tmp_path: Path):
    file = tmp_path / "ipykernel_1" / "2.py"
    file.parent.mkdir()
    file.write_text(SCRIPT, encoding="utf-8")
    found = check(runpy.run_path(str(file))["forward"], model=MODEL, texts=TEXT)
    assert found.error.startswith("the notebook, line 11, in forward: ValueError: enough")


def test_what_a_function_uses_goes_with_it():
    forward = forward_of("""
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from llm_rebuild.workbench import step

TWO = torch.tensor(2.0)

class Pair(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor = TWO

@dataclass
class Twice:
    factor: float
    def __call__(self, x):
        return x * self.factor * len(fields(self))

class Table(nn.Module):
    rows = 4
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(self.rows))
    @property
    def size(self):
        return len(self.weight)
    def forward(self, weights, token_ids):
        return F.embedding(token_ids, weights["wte.weight"])[:, : self.size]

table, halved = Table(), Twice(0.5)

def count(n):
    return 0 if n == 0 else 1 + count(n - 1)

@step("wpe", "inputs.token_ids")
def where(token_ids, weights):
    positions = torch.arange(count(token_ids.shape[1]))
    return Pair(halved(weights["wpe.weight"][positions])).one[None] * TWO

def make(name):
    def forward(token_ids, weights, tap, *, other="wpe"):
        tap(name, table(weights, token_ids))
        tap(other, where(token_ids, weights))
    return forward

forward = make("wte")
""")
    found = check(forward, model=MODEL, texts=TEXT)
    assert found.error is None
    assert found.report.bit_identical == 2
    assert found.steps["wpe"].right  # a step that it calls is tried by itself as well


def test_what_cannot_be_sent_is_said():
    truth = verify.capture(MODEL, TEXT)
    with pytest.raises(InputError, match="uses an official capture, with which it would be compared"):
        check(lambda token_ids, tap: tap("wte", truth["wte"].tensor), model=MODEL, texts=TEXT)
    lock = threading.Lock()
    with pytest.raises(
        InputError, match=r"cannot be sent to a process of its own .* write your rebuild into a"
    ):
        check(lambda token_ids, tap: lock.acquire(), model=MODEL, texts=TEXT)


def test_a_forward_that_imports_the_official_model_is_refused():
    def forward(token_ids, tap):
        import transformers

        return transformers

    assert "a rebuild cannot import transformers" in check(forward, model=MODEL, texts=TEXT).error


def test_weights_that_are_written_are_said():
    def forward(token_ids, mask, weights, config, tap):
        weights["wte.weight"].mul_(2)
        tap("wte", weights["wte.weight"][token_ids])

    found = check(forward, model=MODEL, texts=TEXT)
    assert "your file wrote into the weights in memory: wte.weight" in found.notes
    assert not found.passed


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda a, b: None, "forward has to be forward"),
        (lambda token_ids, tap: tap("wte", 3), "was given a int"),
        (lambda token_ids, tap: tap("wtf", torch.zeros(1)), "did you mean 'wte'"),
        (lambda token_ids, tap: "done", "returned a str"),
        (lambda token_ids, tap: 3.5, "returned a float"),
        (lambda token_ids, tap: (torch.ones(1), 2), "returned a tuple"),
    ],
    ids=["arguments", "no tensor", "name", "answer", "number", "tuple"],
)
def test_what_cannot_be_checked(forward, said: str):
    found = check(forward, model=MODEL, texts=TEXT)
    assert said in found.error
    assert not found.passed
    with pytest.raises(InputError, match="takes your function forward, not a int"):
        check(3, model=MODEL, texts=TEXT)


def test_who_has_no_command_line_is_told_of_no_option():
    def forward(token_ids, tap):
        return torch.ones(10**11)

    said = check(forward, model=MODEL, texts=TEXT).error
    assert "too much memory, more than the limit of 4096 MB (the line is" in said


def test_the_package_itself_stays_light():
    code = "import sys, llm_rebuild; import llm_rebuild.workbench; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'chek'"):
        llm_rebuild.chek  # noqa: B018
