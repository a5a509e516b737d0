"""Rounding is told from mistakes by float64: what vanishes there was rounding, what stays was not."""

from __future__ import annotations

import math

import pytest
import torch

from llm_rebuild import verify
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.mutants import Mutant, mutated
from llm_rebuild.models import rebuild_for
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.verify import proof
from llm_rebuild.verify.capture import capture
from llm_rebuild.verify.equality import relative_difference
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import ask
from llm_rebuild.verify.rounding import (
    MISTAKE,
    ROUNDING,
    UNCLEAR,
    Rounding,
    in_float64,
    separate,
)

TEXTS = {
    "minilm": ["The cook gave the sailor a lamp.", "The cook."],
    "gpt2": ["The baker of Oru lives by the", "The cook"],
    "t5-small": ["translate English to German: four hundred", "translate English to German: nine"],
}


def miniature(name: str) -> LocalCopy:
    return LocalCopy(name, MINIATURES / name, "miniature")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", list(TEXTS))
def test_the_rebuilds_are_clean_in_float64(name: str, attention: str, figure):
    copy = miniature(name)
    found = separate(ask(copy, TEXTS[name], attention=attention))
    assert list(found.differences) == list(capture(copy, TEXTS[name], attention=attention))
    worst = max(found.differences.values())
    figure(f"{name} in float64, {attention}: worst relative difference {worst:.0e}")
    assert worst < 1e-10
    assert found.problem == ""
    assert found.narrow == frozenset()


def test_it_is_float64_that_is_compared():
    """T5's official norm and softmax say float32; nine digits would be lost if they were let."""
    copy = miniature("t5-small")
    question = ask(copy, TEXTS["t5-small"])
    inputs = question.inputs
    with in_float64():
        found = Official(copy.folder, "eager", torch.float64).run(question)
    narrow = Official(copy.folder, "eager").run(question)
    assert found["logits"].dtype == torch.float64
    assert 0 < relative_difference(narrow["logits"], found["logits"]) < 1e-4
    with in_float64(), torch.no_grad():
        rebuild = rebuild_for(copy.config)
        mine = rebuild.run(inputs.batch, rebuild.part(copy.weights().converted(lambda t: t.double())))
    assert relative_difference(mine.logits, found["logits"]) < 1e-13


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("scaled = product * query.shape[-1] ** -0.5", "scaled = product / query.shape[-1] ** 0.5", ROUNDING),
        ("scaled = product * query.shape[-1] ** -0.5", "scaled = product", MISTAKE),
        ("scaled = product * query.shape[-1] ** -0.5", "scaled = product * 0.2041241", MISTAKE),  # 1/√24
        ("x = word + token_type  #", "x = (word.half() + token_type.half()).to(word.dtype)  #", MISTAKE),
    ],
    ids=["divided", "not scaled", "seven digits", "half precision"],
)
def test_a_spelling_is_rounding_and_a_mistake_is_not(before: str, after: str, kind: str):
    with mutated([Mutant("changed", "minilm", before, after, "", "")]):
        report = verify.verify(miniature("minilm"), TEXTS["minilm"], coverage=False)
    first = report.first_divergence
    assert first is not None
    assert report.rounding is not None
    assert report.rounding.kind(first.name) == kind
    assert report.to_json()["first_divergence"]["rounding"]["kind"] == kind
    different = {report.rounding.kind(v.name) for v in report.verdicts if not v.identical}
    assert different == {kind}


def test_nothing_runs_twice_where_everything_is_identical(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proof, "separate", lambda *a, **k: pytest.fail("float64 was not needed"))
    assert verify.verify(miniature("minilm"), "The cook.", coverage=False).rounding is None


# ------------------------------------------------------------------------------- a learner's own forward


def test_any_forward_can_be_held_against_the_official_model():
    copy = miniature("gpt2")
    question = ask(copy, TEXTS["gpt2"])
    real = rebuild_for(copy.config).module.forward

    def mine(token_ids, mask, weights, config, tap):
        assert weights["wte.weight"].dtype == torch.float64
        return real(Batch(token_ids, mask), Part(weights, config, tap))

    def shifted(token_ids, mask, weights, config, tap):
        batch = Batch(token_ids, mask, positions=torch.ones_like(token_ids))
        return real(batch, Part(weights, config, tap))

    assert max(separate(question, forward=mine).differences.values()) == 0
    found = separate(question, forward=shifted)
    assert found.kind("wpe") == MISTAKE
    assert found.kind("wte") == ROUNDING


@pytest.mark.parametrize(
    ("stop", "said"),
    [
        (lambda x: x @ torch.ones(x.shape[-1], 3, dtype=torch.float32), "RuntimeError: expected"),
        (lambda x: exit("no"), "SystemExit: no"),
        (lambda x: 1 / 0, "ZeroDivisionError: division"),
    ],
    ids=["float32 inside", "exit", "error"],
)
def test_a_forward_that_cannot_run_in_float64_is_said_in_one_line(stop, said: str):
    copy = miniature("gpt2")

    def mine(token_ids, mask, weights, config, tap):
        which = torch.nn.functional.embedding(token_ids, weights["wte.weight"])
        tap("wte", which)
        stop(which)

    found = separate(ask(copy, TEXTS["gpt2"]), forward=mine)
    assert said in found.problem
    assert "\n" not in found.problem
    assert found.kind("wte") == ROUNDING  # what came before it is known
    assert found.kind("lm_head") == UNCLEAR
    assert torch.get_default_dtype() == torch.float32
    assert torch.ones(1).double().float().dtype == torch.float32  # and nothing stays wide afterwards


def test_what_a_learner_never_computes_is_a_mistake():
    assert Rounding({"a": 0.0}).kind("b") == MISTAKE


def test_what_is_float32_even_so_is_unclear():
    found = Rounding({"a": 1e-7, "b": 1e-7, "c": 0.1}, frozenset({"a", "c"}))
    assert [found.kind(name) for name in "abc"] == [UNCLEAR, MISTAKE, MISTAKE]


def test_in_float64_whole_numbers_become_what_they_are_told():
    wide, whole = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.int64)
    with in_float64():
        assert torch.zeros(1).dtype == torch.float64
        kept = (wide.float(), wide.to(torch.float32), wide.to(dtype=torch.float32))
        assert {t.dtype for t in kept} == {torch.float64}
        assert torch.softmax(wide, -1, dtype=torch.float32).dtype == torch.float64
        assert whole.float().dtype == torch.float32
        assert wide.to(torch.bfloat16).dtype == torch.bfloat16  # that would be a mistake, and stays one


@pytest.mark.parametrize(
    ("rebuilt", "official", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([1.0, -3.4e38], [1.0, -1.7e308], 0.0),  # both say "never", each in its dtype
        ([1.0, -1e9], [1.0, -1.7e308], math.inf),
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([0.5, 0.0], [0.0, 0.0], 0.5),
        ([1.0], [1.0, 2.0], math.inf),
    ],
)
def test_relative_difference(rebuilt: list[float], official: list[float], expected: float):
    one = torch.tensor(rebuilt, dtype=torch.float64)
    found = relative_difference(one, torch.tensor(official, dtype=torch.float64))
    assert found == expected or (math.isinf(expected) and found > 1e300)
