"""A diagnosis says no more than it knows: shape before values, rounding before a mistake, no clock, no
percentage that nobody measured."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

import llm_rebuild
from llm_rebuild import diagnosis
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.diagnosis import search
from llm_rebuild.diagnosis.case import Case, case_of
from llm_rebuild.diagnosis.diagnose import Diagnosis, diagnose
from llm_rebuild.diagnosis.mutants import Mutant, Scene, run
from llm_rebuild.diagnosis.read_off import world_of
from tools import mutation

MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"
MEASURED = Path(diagnosis.__file__).with_name("measured.json")


def stage(model: str) -> Scene:
    return mutation.scene(model, "padded", "eager")


def of(model: str, **tensors: Tensor) -> tuple[Diagnosis, ...]:
    """The diagnosis of a rebuild that is right but for these tensors; `__` in a name is a dot."""
    played = stage(model)
    wrong = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return diagnose({**played.truth.tensors, **wrong}, played.truth, played.copy)


def test_right_numbers_in_another_shape_are_no_wrong_numbers() -> None:
    mask = stage("minilm").truth.tensors["mask"]
    narrow = mask[:, :, :1]
    assert torch.equal(narrow.expand_as(mask), mask)
    best, *others = of("minilm", mask=narrow)
    assert best.cause == "wrong-shape"
    assert "not expanded" in best.explanation
    assert all(other.cause != "mask-fill" for other in others)


@pytest.mark.parametrize("model", NAMES)
def test_of_another_shape_only_the_shape_is_said(model: str) -> None:
    """Or where its numbers come from; never that numbers are off by so much."""
    for name, right in list(stage(model).truth.tensors.items())[::17]:
        if right.dim() > 2 and right.is_floating_point():
            found = of(model, **{name.replace(".", "__"): right[..., :-1] * 1.25})
            assert {d.cause for d in found} <= {
                "wrong-shape",
                "unknown",
                "mask-fill",
                "another-checkpoint",
            }, name


@pytest.mark.parametrize("name", ["h.0.mlp.act", "h.0.ln_1", "h.1.attn.scaled", "h.2.mlp.c_proj"])
def test_one_number_off_by_a_hair_is_rounding(name: str) -> None:
    truth = stage("gpt2").truth.tensors
    names, right = list(truth), truth[name]
    off = right.clone()
    place = right.abs().argmax()
    off.view(-1)[place] = torch.nextafter(off.view(-1)[place], torch.tensor(torch.inf))
    before = {n: truth[n] for n in names[: names.index(name)]}
    for shown in ({**truth, name: off}, {**before, name: off}):  # beside all others, or as the last
        found = diagnose(shown, stage("gpt2").truth, stage("gpt2").copy)
        assert [d.cause for d in found] == ["rounding"]
        assert "Nothing is wrong" in found[0].explanation


BY_HAND = {
    "mean, variance, root": "d = x - x.mean(-1, keepdim=True)\n"
    "    y = d / (d.pow(2).mean(-1, keepdim=True) + eps).sqrt()\n",
    "var": "y = (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + eps)\n",
    "rsqrt": "y = (x - x.mean(-1, True)) * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + eps)\n",
    "mean of squares": "m = x.mean(-1, keepdim=True)\n"
    "    y = (x - m) / (x.pow(2).mean(-1, keepdim=True) - m.pow(2) + eps).sqrt()\n",
}


@pytest.mark.parametrize("model", ["minilm", "gpt2"])
@pytest.mark.parametrize("spelling", BY_HAND)
def test_a_right_norm_by_hand_is_rounding(model: str, spelling: str) -> None:
    before = 'return F.layer_norm(x, x.shape[-1:], part.weights["weight"], part.weights["bias"], eps)'
    after = BY_HAND[spelling] + '    return y * part.weights["weight"] + part.weights["bias"]'
    played = stage(model)
    rebuilt = run(Mutant("", model, before, after, "", "", file="ops"), played).tensors
    assert {d.cause for d in diagnose(rebuilt, played.truth, played.copy)} == {"rounding"}


def test_the_clock_has_no_part_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine on which every look at the clock takes an hour, the answer is the same. The mistake stands
    one step before the first that was shown, where another block's weights went in."""
    played = stage("gpt2")
    truth, weights = played.truth.tensors, played.copy.weights().peek()
    context, path = truth["h.1.attn.context"], "h.0.attn.c_proj"
    flat = torch.addmm(weights[f"{path}.bias"], context.flatten(0, 1), weights[f"{path}.weight"])
    names = list(truth)
    shown = {n: truth[n] for n in names[: names.index("h.1.attn.c_proj")]}
    shown["h.1.attn.residual"] = flat.view_as(context) + truth["h.0.mlp.residual"]
    answer = diagnose(shown, played.truth, played.copy)
    assert answer[0].cause == "wrong-block-weights"
    hours = itertools.count(0, 3600)
    for clock in ("monotonic", "perf_counter", "time", "process_time"):
        monkeypatch.setattr(time, clock, lambda: next(hours))
    assert diagnose(shown, played.truth, played.copy) == answer


def test_the_confidence_is_what_was_measured() -> None:
    degrees = json.loads(MEASURED.read_text(encoding="utf-8"))["degrees"]
    found = of("gpt2", h__0__attn__scaled=stage("gpt2").truth.tensors["h.0.attn.product"])
    right, made = degrees[found[0].degree][0]
    assert found[0].confidence == round(right / made, 2)
    for shares in degrees.values():
        assert all(0 <= right <= made for right, made in shares)


def test_the_search_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the answer alone, and that random, nothing is found; the work for it is bounded."""
    monkeypatch.setattr(search, "PATIENCE", 300_000_000)
    played = stage("gpt2")
    torch.manual_seed(0)
    world = world_of(played.truth, played.copy)
    case = case_of({"lm_head": torch.randn_like(played.truth.tensors["lm_head"])}, played.truth, world)
    assert isinstance(case, Case)
    assert case.world is not None
    assert list(search.computed(case, case.world)) == []
    assert 0 < case.world.run.work.spent < 6 * search.PATIENCE
