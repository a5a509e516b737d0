"""`check` as a notebook calls it, in the same process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import llm_rebuild
from llm_rebuild import InputError, check
from llm_rebuild.copies import local_copy
from llm_rebuild.workbench import new as writing
from llm_rebuild.workbench import step

MODEL = local_copy.MINIATURES / "gpt2"
TEXT = "The baker of Oru"


def forward_of(source: str):
    found = {"__name__": "notebook"}
    exec(compile(source, "<cell>", "exec"), found)
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
    assert str(found).splitlines()[-1] == "72 of 72 checkpoints bit-identical (gpt2, eager attention)"
    html = found._repr_html_()
    assert html.startswith("<pre")
    assert "matched" in html
    assert "color" in html
    assert found.to_json()["next"] is None
    assert "72 of 72" in repr(found)


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


def test_what_it_changes_is_put_back_and_said():
    adding, dtype = torch.add, torch.get_default_dtype()
    threads, random = torch.get_num_threads(), torch.get_rng_state()

    def forward(token_ids, mask, weights, config, tap):
        tap("wte", weights["wte.weight"][token_ids])
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(threads + 1)
        torch.set_grad_enabled(True)
        torch.manual_seed(5)
        torch.add = lambda *a, **k: torch.zeros(())

    found = check(forward, model=MODEL, texts=TEXT)
    assert torch.add is adding
    assert torch.get_default_dtype() == dtype
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    said = " ".join(found.notes)
    for what in ("the default dtype", "the number of threads", "whether gradients", "torch.add"):
        assert f"your forward changed {what}" in said
    assert found.report.bit_identical == 1


def test_what_it_changes_is_put_back_when_it_raises():
    def forward(token_ids, mask, weights, config, tap):
        torch.set_default_dtype(torch.float64)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        check(forward, model=MODEL, texts=TEXT)
    assert torch.get_default_dtype() == torch.float32


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
        (3, "takes your function forward, not a int"),
        (lambda a, b: None, "forward has to be forward"),
        (lambda token_ids, tap: tap("wte", 3), "was given a int"),
        (lambda token_ids, tap: tap("wtf", torch.zeros(1)), "did you mean 'wte'"),
        (lambda token_ids, tap: "done", "returned a str"),
    ],
    ids=["no function", "arguments", "no tensor", "name", "answer"],
)
def test_what_cannot_be_checked(forward, said: str):
    with pytest.raises(InputError, match=said):
        check(forward, model=MODEL, texts=TEXT)


def test_the_package_itself_stays_light():
    code = "import sys, llm_rebuild; import llm_rebuild.workbench; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'chek'"):
        llm_rebuild.chek  # noqa: B018
