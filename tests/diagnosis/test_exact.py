"""Rounding is told from mistakes by each step in float64: a harmless spelling is as near to it as the
official tensor, a mistake is further away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import llm_rebuild
from llm_rebuild import verify
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.exact import exact
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.diagnosis.mutants import Mutant, mutated
from llm_rebuild.diagnosis.numbers import where
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.models import rebuild_for
from llm_rebuild.models.part import Part
from llm_rebuild.verify import Proof
from llm_rebuild.verify.capture import capture
from llm_rebuild.verify.question import ask
from llm_rebuild.verify.rounding import INHERITED, MISTAKE, ROUNDING, UNCLEAR

TEXTS = {
    "minilm": ["The cook gave the sailor a lamp.", "The cook."],
    "gpt2": ["The baker of Oru lives by the", "The cook"],
    "t5-small": ["translate English to German: four hundred", "translate English to German: nine"],
}
SCALED = "scaled = product * query.shape[-1] ** -0.5"
DIVIDED = "scaled = product / query.shape[-1] ** 0.5"


def miniature(name: str) -> LocalCopy:
    return LocalCopy(name, MINIATURES / name, "miniature")


def proved(before: str, after: str) -> Proof:
    """MiniLM with a line of its source changed."""
    with mutated([Mutant("changed", "minilm", before, after, "", "")]):
        return llm_rebuild.prove(miniature("minilm"), TEXTS["minilm"], coverage=False)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (SCALED, DIVIDED, ROUNDING),
        (SCALED, "scaled = product", MISTAKE),
        (SCALED, "scaled = product * 0.2041241", MISTAKE),  # 1/√24
        ("x = word + token_type  #", "x = (word.half() + token_type.half()).to(word.dtype)  #", MISTAKE),
    ],
    ids=["divided", "not scaled", "seven digits", "half precision"],
)
def test_a_spelling_is_rounding_and_a_mistake_is_not(before: str, after: str, kind: str):
    report = proved(before, after).report
    first = report.first_divergence
    assert first is not None
    assert report.rounding is not None
    assert report.rounding.kind(first.name) == kind
    assert report.to_json()["first_divergence"]["rounding"]["kind"] == kind
    different = {report.rounding.kind(v.name) for v in report.verdicts if not v.identical}
    assert different == ({ROUNDING} if kind == ROUNDING else {MISTAKE, INHERITED})


def test_rounding_beyond_five_decimals_is_no_wrong_value():
    """Scores of 20 have no five decimals to lose in float32: the verdict is rounding, and it passes."""
    report = proved(SCALED, DIVIDED).report
    beyond = [v for v in report.verdicts if v.verdict == "rounding"]
    assert beyond
    assert all(v.max_abs_diff is not None and v.max_abs_diff >= 5e-6 for v in beyond)
    assert not any(v.five_decimals for v in beyond)
    assert all(v.passes for v in report.verdicts)
    assert (report.passed, report.exact) == (True, False)
    summary = report.to_json()["summary"]
    assert (summary["rounding"], summary["failed"]) == (len(beyond), 0)
    assert summary["five_decimals"] == len(report.verdicts) - len(beyond)
    assert "wrong values" not in str(report)
    assert ": rounding, no mistake" in " ".join(str(report).split())


@pytest.mark.parametrize("name", ["minilm", "gpt2"])
def test_a_norm_by_hand_passes_and_is_accused_of_nothing(name: str, monkeypatch: pytest.MonkeyPatch):
    """Mean, variance, the right epsilon, in every norm of the model."""

    def by_hand(x: Tensor, part: Part[Any], eps: float) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + eps) * part.weights["weight"] + part.weights["bias"]

    copy = miniature(name)
    monkeypatch.setattr(rebuild_for(copy.config).module, "layer_norm", by_hand)
    report = llm_rebuild.prove(copy, TEXTS[name], coverage=False).report
    assert (report.passed, report.exact) == (True, False)
    assert {d.cause for d in report.diagnosis} == {"rounding"}
    assert {v.verdict.split()[-1] for v in report.verdicts} <= {
        "bit-identical", "ulp", "decimals", "rounding"
    }  # fmt: skip


def test_a_small_mistake_is_not_called_rounding():
    """1/√24 to seven digits is off by little, and in float64 by five times what the official step is."""
    report = proved(SCALED, "scaled = product * 0.2041241").report
    assert report.diagnosis
    assert "rounding" not in {d.cause for d in report.diagnosis}
    assert "the mistake is made here" in " ".join(str(report).split())


def test_what_was_not_shown_stays_wrong():
    """The comparison alone cannot tell, and does not."""
    with mutated([Mutant("changed", "minilm", SCALED, DIVIDED, "", "")]):
        report = verify.verify(miniature("minilm"), TEXTS["minilm"], coverage=False)
    assert report.rounding is None
    assert {v.verdict for v in report.verdicts} >= {"wrong values"}
    assert not report.passed


def test_a_mistake_behind_a_rounding_is_found():
    """Whose own step is wrong is told from what it inherits, also where something was harmless before it."""
    harmless = Mutant("divided", "minilm", SCALED, DIVIDED, "", "")
    with mutated([harmless]):
        proof = llm_rebuild.prove(miniature("minilm"), TEXTS["minilm"], coverage=False)
    rebuilt = {name: tensor.clone() for name, tensor in proof.rebuilt.items()}
    rebuilt["encoder.layer.2.output.dense"] += 1e-3
    report = explain(replace(proof, rebuilt=rebuilt, report=verify.judge(rebuilt, proof.truth))).report
    assert report.rounding is not None
    kinds = report.rounding.kind
    assert kinds("encoder.layer.0.attention.self.scaled") == ROUNDING
    assert kinds("encoder.layer.2.output.dense") == MISTAKE
    assert kinds("encoder.layer.2.output.residual") == MISTAKE  # it does not follow from the changed one
    assert "the first step with a mistake: encoder.layer.2.output.dense" in " ".join(str(report).split())
    assert not report.passed


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", list(TEXTS))
def test_every_step_can_be_computed_in_float64(name: str, attention: str, figure):
    """Each official tensor is moved by a unit in its last place; none of the steps is unclear."""
    copy = miniature(name)
    truth = capture(copy, TEXTS[name], attention=attention)
    world = world_of(truth, copy)
    assert world is not None
    moved = {
        n: torch.where(t.abs() < 1e30, torch.nextafter(t, torch.zeros(())), t) if t.is_floating_point() else t
        for n, t in truth.tensors.items()
    }
    seen = exact(world, moved, truth, fed=True)
    assert set(seen.problems.values()) == set()
    worst = max(official for _, official in seen.off.values())
    figure(f"{name}, {attention}: an official tensor is at most {worst:.0e} of its largest number off")
    assert worst < 1e-5


def test_a_checkpoint_that_was_not_shown_is_computed_from_what_was():
    """Without its inputs, a step is judged from what goes into those."""
    copy = miniature("gpt2")
    truth = capture(copy, TEXTS["gpt2"])
    world = world_of(truth, copy)
    assert world is not None
    rebuilt = {n: t.clone() for n, t in truth.tensors.items() if ".mlp." not in n or n.endswith("c_proj")}
    rebuilt["h.0.mlp.c_proj"] = torch.nextafter(rebuilt["h.0.mlp.c_proj"], torch.ones(()))
    assert exact(world, rebuilt, truth).kind("h.0.mlp.c_proj") == ROUNDING
    rebuilt["h.0.mlp.c_proj"] += 1e-3
    assert exact(world, rebuilt, truth).kind("h.0.mlp.c_proj") == MISTAKE


def test_another_shape_or_dtype_is_a_mistake_and_an_unknown_step_unclear():
    copy = miniature("gpt2")
    truth = capture(copy, TEXTS["gpt2"])
    world = world_of(truth, copy)
    assert world is not None
    rebuilt = {n: t.clone() for n, t in truth.tensors.items()}
    rebuilt["wte"] = rebuilt["wte"].double()
    rebuilt["wpe"] = rebuilt["wpe"][:, :1]
    seen = exact(world, rebuilt, truth)
    assert (seen.kind("wte"), seen.kind("wpe")) == (MISTAKE, MISTAKE)
    rebuilt = {n: t * 2 for n, t in truth.tensors.items()}
    nothing = exact(replace(world, formulas={}), rebuilt, truth)
    assert {nothing.kind(n) for n in truth} == {UNCLEAR}


def changed_at(name: str, change: Callable[[Tensor], Tensor]) -> Proof:
    """MiniLM's own tensors with one of them changed, explained."""
    question = ask(miniature("minilm"), TEXTS["minilm"])
    truth = capture(question)
    rebuilt = {n: t.clone() for n, t in truth.tensors.items()}
    rebuilt[name] = change(rebuilt[name])
    return explain(Proof(question, verify.judge(rebuilt, truth), truth, rebuilt))


@pytest.mark.parametrize("name", ["embeddings.word_and_type", "mask", "sentence.embedding"])
def test_right_numbers_in_float64_are_a_dtype_and_no_accident(name: str):
    report = changed_at(name, Tensor.double).report
    assert next(v for v in report.verdicts if v.name == name).verdict == "wrong dtype"
    assert report.diagnosis[0].cause == "wrong-dtype"
    assert "0.0e+00" not in str(report)


def test_places_are_named_where_they_are_few():
    """Only at some places, everywhere but at some, or how many: never the first six of all."""

    official = torch.rand(2, 3, 96)

    def words(places: slice) -> str:
        mine = official.clone()
        mine[..., places] += 1
        return where(mine, official)

    assert words(slice(3, 5)) == "12 of 576 numbers differ, only at width 3, 4"
    assert words(slice(2, None)) == "564 of 576 numbers differ, everywhere but at width 0, 1"
    assert words(slice(10, 60)) == "300 of 576 numbers differ, at 50 of 96 places along the width"
    assert words(slice(None)) == "576 of 576 numbers differ"


def test_nothing_is_computed_where_everything_is_identical(monkeypatch: pytest.MonkeyPatch):
    import llm_rebuild.diagnosis.explain as explaining

    monkeypatch.setattr(explaining, "exact", lambda *a, **k: pytest.fail("float64 was not needed"))
    report = llm_rebuild.prove(miniature("minilm"), "The cook.", coverage=False).report
    assert (report.rounding, report.diagnosis) == (None, ())


# ------------------------------------------------------------------------------------- the public door


def test_python_gives_what_the_command_line_gives():
    """Which step is to blame, the rounding and the diagnosis; `verify` alone measures."""
    report = proved(SCALED, "scaled = product").report
    assert report.diagnosis[0].cause == "scale-missing"
    assert report.first_divergence is not None
    assert report.first_divergence.inputs == ("encoder.layer.0.attention.self.product",)
    assert report.to_json()["first_divergence"]["inputs_identical"] is True
    assert report.to_json()["diagnosis"][0]["cause"] == "scale-missing"
