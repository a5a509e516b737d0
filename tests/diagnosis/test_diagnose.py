"""Diagnosis: what it says, of whom, and that it never fails. How often it is right: test_gate.py."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import llm_rebuild
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.diagnosis.causes import CAUSES
from llm_rebuild.diagnosis.diagnose import Account, diagnose
from llm_rebuild.diagnosis.edits import on_a_step
from llm_rebuild.diagnosis.mutants import Mutant, Scene, run
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.diagnosis.wrong import mistakes
from tools import mutation

MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"
UNSCALED = Mutant(
    "", "gpt2", "scaled = product * scale", "scaled = product", "scale-missing", "h.0.attn.scaled"
)


@functools.cache
def copy_of(model: str) -> LocalCopy:
    return LocalCopy(model, MINIATURES / model, "miniature")


def stage(model: str, how: str = "padded", attention: str = "eager") -> Scene:
    return mutation.scene(model, how, attention)


def tensors(model: str, before: str, after: str, file: str | None = None) -> dict[str, Tensor]:
    return run(Mutant("", model, before, after, "", "", file=file), stage(model)).tensors


def test_it_says_what_happened_and_how_it_knows() -> None:
    rebuilt = run(UNSCALED, stage("gpt2")).tensors
    best = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert best.cause == "scale-missing"
    assert best.checkpoint == "h.0.attn.scaled"
    assert best.explanation.count(". ") == 1  # two sentences
    assert "to the bit" in best.evidence
    assert best.degree == "proved"
    assert best.chapter == "part-4/mistakes/#scale-missing"
    assert json.loads(json.dumps(best.to_json()))["cause"] == "scale-missing"


@pytest.mark.parametrize(
    ("model", "before", "after", "other", "half", "cause"),
    [
        ("gpt2", "h.0.mlp.c_fc", "h.0.mlp.act", "none", 1, "gelu-exact"),
        ("gpt2", "h.0.mlp.c_fc", "h.0.mlp.act", "none", 2, "gelu-constant"),
        (
            "minilm",
            "encoder.layer.0.intermediate.dense",
            "encoder.layer.0.intermediate.intermediate_act_fn",
            "tanh",
            1,
            "gelu-tanh",
        ),
    ],
)
def test_the_other_gelu_is_known_where_it_is_computed_less_exactly(
    model: str, before: str, after: str, other: str, half: int, cause: str
) -> None:
    truth = stage(model).truth
    names = list(truth)[: list(truth).index(after) + 1]
    shown = {name: truth.tensors[name] for name in names if not name.startswith(f"{after}.")}
    bent = torch.nn.functional.gelu(shown[before], approximate=other) * half
    off = 8e-6 * torch.rand(bent.shape, generator=torch.Generator().manual_seed(1))
    best = diagnose(shown | {after: bent * (1 + off)}, replace(truth, tensors=shown), copy_of(model))[0]
    assert (best.checkpoint, best.cause) == (after, cause)


def test_nothing_is_said_of_a_right_rebuild() -> None:
    played = stage("gpt2")
    assert diagnose(dict(played.truth.tensors), played.truth, copy_of("gpt2")) == ()


def test_few_checkpoints_are_enough() -> None:
    """Only the blocks' outputs are shown: the scores inside are computed from the last right one."""
    rebuilt = run(UNSCALED, stage("gpt2")).tensors
    shown = {name: tensor for name, tensor in rebuilt.items() if name.endswith(("residual", "embeddings"))}
    best = diagnose(shown, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert best.cause == "scale-missing"


def test_the_answer_alone_can_be_enough() -> None:
    rebuilt = run(UNSCALED, stage("gpt2")).tensors
    best = diagnose({"lm_head": rebuilt["lm_head"]}, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert best.cause == "scale-missing"


def test_a_constant_of_ones_own_is_found_too() -> None:
    """No table has this number: it is measured."""
    rebuilt = tensors("gpt2", "scaled = product * scale", "scaled = product * 0.3141")
    best = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert best.cause == "scale-wrong"
    rebuilt = tensors("gpt2", "x = attended + x", "x = attended + 0.77 * x")
    best = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert best.cause == "residual-scaled"
    assert "0.77 times embeddings" in best.explanation


def test_what_stands_in_one_head_only() -> None:
    rebuilt = tensors(
        "gpt2", "scaled = product * scale", "scaled = product * scale; scaled[:, 2] = product[:, 2]"
    )
    best = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert best.cause == "scale-missing"
    assert "only at head 2" in best.explanation


def test_chance_is_seen_by_a_second_run() -> None:
    mutant = Mutant("", "gpt2", "return probs @ value", "return F.dropout(probs, 0.1) @ value", "dropout", "")
    played = stage("gpt2")
    first = run(mutant, played).tensors
    assert diagnose(first, played.truth, copy_of("gpt2"))[0].cause != "dropout"
    best = diagnose(
        first,
        played.truth,
        copy_of("gpt2"),
        account=Account(again=lambda: run(mutant, played, seed=1).tensors),
    )[0]
    assert best.cause == "dropout"


def test_random_numbers_are_unknown_and_not_explained() -> None:
    played = stage("gpt2")
    names = list(played.truth)
    rebuilt = {n: played.truth.tensors[n] for n in names[: names.index("h.1.mlp.c_fc") + 1]}
    rebuilt["h.1.mlp.c_fc"] = torch.randn_like(rebuilt["h.1.mlp.c_fc"])
    best = diagnose(rebuilt, played.truth, copy_of("gpt2"))[0]
    assert best.degree == "a question"
    assert best.cause == "unknown"
    assert "numbers differ" in best.evidence


def test_a_run_that_stops_is_explained() -> None:
    mutant = Mutant(
        "", "gpt2", "torch.addmm(part.weights[\"bias\"], x.reshape(-1, x.shape[-1]), weight)",
        "torch.addmm(part.weights[\"bias\"], x.reshape(-1, x.shape[-1]), weight.T)", "", "",
    )  # fmt: skip
    stopped = run(mutant, stage("gpt2"))
    assert stopped.error is not None
    best = diagnose(stopped.tensors, stage("gpt2").truth, copy_of("gpt2"), account=Account(stopped.error))[0]
    assert best.cause == "weight-transposed"
    assert best.checkpoint == "h.0.attn.c_attn"


def test_what_was_never_shown() -> None:
    played = stage("minilm")
    shown = {name: t for name, t in played.truth.tensors.items() if ".1." not in name}
    best = diagnose(shown, played.truth, copy_of("minilm"))[0]
    assert best.cause == "block-skipped"  # all that is there is right, and nothing of the block is
    shown = dict(played.truth.tensors)
    del shown["sentence.mean"]
    assert diagnose(shown, played.truth, copy_of("minilm"))[0].cause == "missing"


def test_other_shapes_and_types_never_fail() -> None:
    played = stage("t5-small")
    name = "encoder.block.1.layer.1.DenseReluDense.wi"
    right = played.truth.tensors[name]
    for strange in (
        right.double(),
        right.bfloat16(),
        right.long(),
        right[0],
        right[:, :0],
        torch.tensor(3.0),
        torch.full_like(right, float("nan")),
        torch.full_like(right, float("inf")),
        torch.zeros_like(right),
        right.transpose(0, 1),
        right[..., :1],
        right > 0,
    ):
        rebuilt = dict(played.truth.tensors) | {name: strange}
        found = diagnose(rebuilt, played.truth, copy_of("t5-small"))
        assert found, strange.shape
        assert found[0].cause in CAUSES


@pytest.mark.parametrize("every", [22, pytest.param(11, marks=pytest.mark.weekly)])
@pytest.mark.parametrize("model", NAMES)
def test_no_checkpoint_makes_it_fail(model: str, every: int) -> None:
    """Checkpoints in turn a little off, or no numbers: something is said, nothing is raised."""
    played = stage(model)
    for number, (name, right) in enumerate(played.truth.tensors.items()):
        if number % every == 0 and right.numel() > 1:
            off, broken = right * 1.25, right.clone(memory_format=torch.contiguous_format)
            broken.view(-1)[0] = float("nan")
            for wrong in (off, broken):
                diagnoses = diagnose(dict(played.truth.tensors) | {name: wrong}, played.truth, copy_of(model))
                assert bool(diagnoses) != torch.equal(wrong, right), name


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_a_step_of_three_whose_formula_is_not_known_is_left_alone(model: str) -> None:
    world = world_of(stage(model).truth, copy_of(model))
    [key, *_] = [name for name, formula in world.formulas.items() if formula.facts.get("name") == "key"]
    less = replace(world, formulas={name: f for name, f in world.formulas.items() if name != key})
    query = less.formulas[key.removesuffix("key") + "query"]
    edits = list(mistakes(less, query))
    assert any(edit.cause == "heads-split" for edit in edits)
    assert all(key not in edit.changes for edit in edits)


@pytest.mark.parametrize("model", NAMES)
def test_every_cause_that_is_tried_is_in_the_catalogue(model: str) -> None:
    played = stage(model)
    world = world_of(played.truth, copy_of(model))
    tried = {
        e.cause
        for formula in world.formulas.values()
        for e in (*on_a_step(world, formula), *mistakes(world, formula))
    }
    assert tried <= set(CAUSES)
    assert len(tried) > 30


def test_a_mistake_behind_a_harmless_rounding_is_found() -> None:
    norm = Mutant(
        "", "gpt2",
        "return F.layer_norm(x, x.shape[-1:], part.weights[\"weight\"], part.weights[\"bias\"], eps)",
        "d = x - x.mean(-1, keepdim=True)\n    return d / (d.pow(2).mean(-1, keepdim=True) + eps).sqrt()"
        " * part.weights[\"weight\"] + part.weights[\"bias\"]", "", "", file="ops",
    )  # fmt: skip
    wrong = Mutant("", "gpt2", "x = x + feed_forward(normed,", "x = normed + feed_forward(normed,", "", "")
    rebuilt = run([norm, wrong], stage("gpt2")).tensors
    real, harmless, *_ = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))
    assert (real.cause, real.checkpoint) == ("residual-wrong", "h.0.mlp.residual")
    assert "your own inputs" in real.evidence
    assert (harmless.cause, harmless.checkpoint) == ("rounding", "h.0.ln_1")


def rounded(model: str, name: str) -> dict[str, Tensor]:
    """The official tensors, one of them in another rounding, behind which all mistakes are looked for."""
    official = stage(model).truth.tensors
    return {**official, name: torch.nextafter(official[name], torch.tensor(torch.inf))}


def test_a_mistake_without_a_name_behind_a_harmless_rounding_is_told() -> None:
    rebuilt = rounded("gpt2", "h.0.ln_1")
    rebuilt["lm_head"] = torch.randn_like(rebuilt["lm_head"])
    harmless, real = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))
    assert (real.checkpoint, real.asked) == ("lm_head", True)
    assert harmless.cause == "rounding"


def test_a_step_behind_what_was_not_shown_is_tried_with_other_weights() -> None:
    rebuilt, attn = rounded("llama", "model.layers.0.input_layernorm"), "model.layers.1.self_attn"
    keys = rebuilt[f"{attn}.k_proj"].unflatten(-1, (2, -1)).transpose(1, 2).repeat_interleave(2, dim=1)
    mixed = rebuilt[f"{attn}.probs"] @ keys
    rebuilt[f"{attn}.head_context"] = torch.nextafter(mixed, torch.tensor(torch.inf))
    del rebuilt[f"{attn}.v_proj"]
    real = diagnose(rebuilt, stage("llama").truth, copy_of("llama"))[0]
    assert "k_proj went in instead of model.layers.1.self_attn.v_proj" in real.explanation


def test_of_many_rows_those_are_named_that_are_wrong() -> None:
    counted = "counted = torch.arange(key - token, key).unsqueeze(0)"
    rebuilt = tensors("gpt2", counted, f"{counted}.where(torch.arange(token) < 9, 3)")
    best = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert "rows 3, 3, 3, 3, 3 of the table instead of 9, 10, 11, 12, 13" in best.explanation


def test_a_sum_of_what_is_not_finite_is_no_mixture() -> None:
    rebuilt, (added, total) = rounded("gpt2", "h.0.ln_1"), ("h.0.mlp.c_proj", "h.0.mlp.residual")
    rebuilt |= {added: torch.full_like(rebuilt[added], torch.nan), total: torch.randn_like(rebuilt[total])}
    best = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert (best.cause, best.checkpoint) == ("not-computed", added)


def test_a_wrong_tap_in_a_right_model_is_told_from_a_wrong_model() -> None:
    rebuilt = tensors("gpt2", 'tap("scaled", scaled)', 'tap("scaled", product)')
    best = diagnose(rebuilt, stage("gpt2").truth, copy_of("gpt2"))[0]
    assert best.cause == "another-checkpoint"
    assert "it is the official h.0.attn.product" in best.explanation


def test_the_sign_of_a_zero_is_no_mistake() -> None:
    played = stage("gpt2")
    rebuilt = dict(played.truth.tensors)
    rebuilt["mask"] = rebuilt["mask"] * 1.0
    rebuilt["mask"][rebuilt["mask"] == 0] = -0.0
    best = diagnose(rebuilt, played.truth, copy_of("gpt2"))[0]
    assert best.cause == "rounding"
    assert "-0 instead of 0" in best.explanation


def test_a_bias_that_is_added_after_the_product_is_rounding() -> None:
    played, weights = stage("gpt2"), copy_of("gpt2").weights().at("h.0.mlp.c_proj")
    rebuilt = dict(played.truth.tensors)
    rebuilt["h.0.mlp.c_proj"] = rebuilt["h.0.mlp.act"] @ weights["weight"] + weights["bias"]
    best = diagnose(rebuilt, played.truth, copy_of("gpt2"))[0]
    assert (best.cause, best.degree) == ("rounding", "proved")
    assert "then the bias" in best.says


def test_keys_that_were_kept_may_be_rounded() -> None:
    """Their step, old ones and new ones behind them, rounds nothing; the pass before did."""
    played = stage("gpt2", "cached")
    rebuilt = {name: tensor.clone() for name, tensor in played.truth.tensors.items()}
    kept = rebuilt["h.1.attn.key"][:, :, 1:-1]
    kept += torch.linspace(-2e-6, 2e-6, kept.numel()).reshape(kept.shape)
    (only,) = diagnose(rebuilt, played.truth, copy_of("gpt2"), prompt=played.prompt)
    assert only.cause == "rounding"


def test_a_sum_in_another_order_is_no_other_sum() -> None:
    """To the bit it is the mean of what was moved. So would the right one be."""
    truth = stage("t5-small").truth
    path = "encoder.block.0.layer.0.layer_norm"
    moved = truth.tensors[f"{path}.square"].roll(1, -1)
    mean = moved.mean(-1, keepdim=True)
    assert not torch.equal(mean, truth.tensors[f"{path}.mean_square"])
    root = torch.rsqrt(mean + 1e-6)
    rebuilt = {**truth.tensors, f"{path}.mean_square": mean, f"{path}.inverse_root": root}
    for shown in (rebuilt, {n: t for n, t in rebuilt.items() if n != f"{path}.mean_square"}):
        best = diagnose(shown, truth, copy_of("t5-small"))[0]
        assert best.cause == "rounding"


def test_one_infinity_is_no_rounding() -> None:
    played = stage("gpt2")
    rebuilt = {name: tensor.clone() for name, tensor in played.truth.tensors.items()}
    rebuilt["h.0.ln_1"].view(-1)[5] = float("inf")
    del rebuilt["h.0.attn.c_attn"]
    assert diagnose(rebuilt, played.truth, copy_of("gpt2"))[0].cause == "not-computed"
