"""Repairs: proved by a run of the person's own code, written as a line where they can be, never a paste."""

from __future__ import annotations

import json

import pytest
import torch

from llm_rebuild.diagnosis.mutants import Mutant, mutated
from llm_rebuild.diagnosis.reading.read import OfficialRun, read
from llm_rebuild.diagnosis.reading.result import Reading
from llm_rebuild.errors import InputError
from llm_rebuild.verify.operations import call
from tests.diagnosis.test_reading import MUTANTS, SCALED, minilm, own, read_mutants, stage
from tools import reading


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("minilm-embeddings-averaged", "x = (x + position) / 3", "x = x + position"),
        ("minilm-embedding-norm-eps", 'part.at("LayerNorm"), 1e-3)', 'part.at("LayerNorm"), 1e-12)'),
        ("gpt2-values-of-the-other-row", "return probs @ value.flip(0)", "return probs @ value"),
    ],
)
def test_a_repair_is_written_into_the_line(name: str, before: str, after: str):
    (repair,) = read_mutants(MUTANTS[name])[0].repairs
    assert repair.degree == "proved"
    assert repair.line is not None
    assert repair.before == repair.line.code
    assert before in repair.before
    assert after in repair.after


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("scaled = 3 * (product * query.shape[-1] ** -0.5)", SCALED),
        ("scaled = torch.where(product > 0, product, 0.5 * product) * query.shape[-1] ** -0.5", SCALED),
        ("scaled = (product * query.shape[-1] ** -0.5).where(product > -1, torch.zeros(()))", SCALED),
        ("scaled = torch.clamp(input=product * query.shape[-1] ** -0.5, max=0.5)", SCALED),
        (
            "scaled = torch.relu(product + 0) * query.shape[-1] ** -0.5",
            "scaled = (product + 0) * query.shape[-1] ** -0.5",
        ),
        ("größe = scaled = (product * query.shape[-1] ** -0.5) * 2", f"größe = {SCALED}"),
    ],
)
def test_a_line_is_written_as_it_has_run(wrong: str, right: str):
    """Which of a line's names holds the tensor that should stay, only a run tells."""
    (repair,) = read_mutants(minilm(wrong))[0].repairs
    assert repair.degree.startswith("proved")
    assert repair.after.partition("  #")[0] == right


def test_both_sides_of_a_repair_differ():
    """The same operation, given one tensor more: its shapes say which."""
    given = "(query, key, value, mask, is_causal=causal,"
    wrong = Mutant("gpt2-here", "gpt2", given, given.replace("mask, ", ""), "", "", attention="sdpa")
    (repair,) = reading.readings([wrong])[0].repairs
    right, instead = repair.words.removeprefix("use ").split(" instead of ")
    assert right.count("[") > instead.count("[") > 0


def test_a_none_that_is_spelled_out_has_its_line():
    wrong = Mutant(
        "gpt2-here", "gpt2", "self_attention(normed, mask,", "self_attention(normed, None,", "", ""
    )
    (first, *_) = read_mutants(wrong)
    assert any("self_attention(normed, None," in line.code for line in first.lines)


def test_a_constant_is_called_what_the_config_calls_it():
    first, *_ = read_mutants(MUTANTS["minilm-embedding-norm-eps"])
    assert "config.layer_norm_eps" in first.difference
    first, *_ = read_mutants(minilm("scaled = product * 0.125"))
    assert "1/√24" in first.difference


def test_two_mistakes_are_two_readings_each_with_its_line():
    eps, mish = MUTANTS["minilm-embedding-norm-eps"], MUTANTS["minilm-mish"]
    readings = read_mutants(eps, mish)
    assert [reading.checkpoint for reading in readings] == [eps.first, mish.first]
    assert all(reading.repairs[0].degree == "proved" for reading in readings)


def test_what_follows_from_a_mistake_is_no_other_mistake():
    (reading,) = read_mutants(minilm("scaled = product * 0.125"))
    assert "encoder.layer.2.attention.self.scaled" in reading.also


def test_a_checkpoint_that_is_missing_is_said_with_the_line_at_which_its_function_ended():
    first, *_ = read_mutants(MUTANTS["gpt2-cached-step-without-mask"])
    assert first.checkpoint == "mask"
    assert first.lines[0].function == "make_mask"


def test_a_tensor_that_cannot_be_computed_from_what_is_at_hand_is_not_pasted():
    first, *_ = read_mutants(minilm("scaled = torch.from_numpy(product.numpy() * 0.3)"))
    assert first.repairs == ()


def test_an_official_run_that_was_stored_reads_the_same():
    played, official = stage("minilm")
    about, tensors = official.store()
    text = json.loads(json.dumps(about))
    again = OfficialRun.load((text, tensors), official.tensors, official.sources, official.config)
    mutant = MUTANTS["minilm-mish"]
    with mutated([mutant]) as module:
        readings = read(lambda tap: played.play(module, tap), again, own)
    assert readings == read_mutants(mutant)
    assert [Reading.from_json(json.loads(json.dumps(r.to_json()))) for r in readings] == list(readings)


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"nodes": [["os.system.default", ["ls"], {}, 0, ""]], "tapped": {}},
        {"nodes": [["aten.mul.Tensor", [{"%node": 7}], {}, 0, ""]], "tapped": {}},
        {"nodes": [["", [], {}, 0, ""]], "tapped": {"a": 3}},
        {"nodes": [[["aten"], [], {}, 0, ""]], "tapped": {}},
    ],
)
def test_what_is_no_record_is_refused_in_a_line(stored: dict):
    with pytest.raises(InputError, match="no record of an official run"):
        OfficialRun.load((stored, {}), {}, {}, {})


def test_a_fused_kernel_is_not_asked_for_what_does_not_fit():
    """It trusts who calls it: with keys of another layout it divides by zero, and the process is gone."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    query, mask = torch.ones(1, 4, 10, 24), torch.zeros(1, 1, 10, 9)
    with pytest.raises(RuntimeError, match="make no attention"):
        call(kernel, (query, query.mT, query), {})
    with pytest.raises(RuntimeError, match="make no attention"):
        call(kernel, (query, query.transpose(1, 2), query.transpose(1, 2)), {})
    with pytest.raises(RuntimeError):
        call(kernel, (query, query, query), {"attn_mask": mask})
    assert call(kernel, (query, query, query), {"attn_mask": mask[..., :1]})[0].shape == query.shape
