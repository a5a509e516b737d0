"""What `prove` and `verify` say of the rebuild's own code, and how several mistakes are told apart."""

from __future__ import annotations

from pathlib import Path

import pytest

import llm_rebuild
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.diagnosis.mutants import TEXTS, Mutant, Scene, mutated, run
from llm_rebuild.verify import Proof, Question, Report, judge
from tools import mutation, reading
from tools.mutants import read_set

MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"
SCALE = Mutant("", "gpt2", "scaled = product * scale", "scaled = product", "", "")
SUM = Mutant("", "gpt2", "x = x + feed_forward(normed,", "x = normed + feed_forward(normed,", "", "")
NORM = Mutant(
    "", "gpt2",
    "return F.layer_norm(x, x.shape[-1:], part.weights[\"weight\"], part.weights[\"bias\"], eps)",
    "d = x - x.mean(-1, keepdim=True)\n    return d / (d.pow(2).mean(-1, keepdim=True) + eps).sqrt()"
    " * part.weights[\"weight\"] + part.weights[\"bias\"]", "", "", file="ops",
)  # fmt: skip


def gpt2() -> LocalCopy:
    return LocalCopy("gpt2", MINIATURES / "gpt2", "miniature")


def stage() -> Scene:
    return mutation.scene("gpt2", "padded", "eager")


def reported(*mutants: Mutant) -> Report:
    """Without a look at the code."""
    rebuilt, truth = run(mutants, stage()).tensors, stage().truth
    question = Question(gpt2(), truth.inputs)
    return explain(Proof(question, judge(rebuilt, truth), truth, rebuilt)).report


def test_the_rebuilds_own_line_is_named() -> None:
    with mutated([SCALE]):
        report = llm_rebuild.prove(gpt2(), TEXTS["gpt2"], coverage=False).report
    (mistake,) = report.mistakes
    assert mistake.lines[0].file == "<gpt2.py, changed>"
    assert mistake.lines[0].code.startswith("scaled = product  #")
    assert mistake.repairs[0].degree == "proved"
    assert report.to_json()["mistakes"][0]["line"]["number"] == mistake.lines[0].number


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        ("F.softmax(scores, dim=-1)", "F.softmax(scores * 0.5, dim=-1)", "softmax-changed"),
        (
            'x, seen = block(x, mask, model.at(f"h.{i}"), past)',
            'made, seen = block(x, mask, model.at(f"h.{i}"), past)\n        x = x if i == 1 else made',
            "wrong-input",
        ),
        (
            "F.softmax(scores, dim=-1)",
            "scores.exp() / (scores.exp().sum((1, 2), keepdim=True) + 1e-3)",
            "softmax-axis",
        ),
        (
            'layer_norm(x, part.at("ln_1"), part.config.layer_norm_epsilon)',
            "(x - x.mean((0, 2), keepdim=True)) / (x.var((0, 2), keepdim=True) + 0.5).sqrt()",
            "norm-axis",
        ),
        (
            'layer_norm(x, part.at("ln_1"), part.config.layer_norm_epsilon)',
            "2 * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, unbiased=False) + 1e-3)",
            "norm-eps-place",
        ),
        (
            "product = query @ key.transpose(-1, -2)",
            "product = (query * 4).round() / 4 @ key.transpose(-1, -2)",
            "wrong-dtype",
        ),
        (
            "query, key, value = (split_heads(third, part.config.n_head) for third in qkv.chunk(3, dim=-1))",
            "query, key, value = (\n        t.reshape(len(t), part.config.n_head, -1, t.shape[1]).mT"
            ".roll(1, -1)\n        for t in qkv.chunk(3, dim=-1)\n    )",
            "heads-split",
        ),
        ("x = attended + x", "x = attended + F.layer_norm(x, x.shape[-1:])", "residual-wrong"),
        ("scaled + mask", "scaled * 3 + mask", "scale-extra"),
    ],
    ids=[
        "no guess has a name",
        "a block whose result was there was not left out",
        "a softmax by hand over other places",
        "a norm by hand over other places",
        "a norm by hand with its epsilon outside",
        "numbers that were rounded",
        "heads that were only laid out otherwise",
        "a residual that was normalised",
        "scores that were scaled once more",
    ],
)
def test_what_was_read_has_a_name(before: str, after: str, cause: str) -> None:
    with mutated([Mutant("", "gpt2", before, after, "", "")]):
        report = llm_rebuild.prove(gpt2(), TEXTS["gpt2"], coverage=False).report
    assert report.diagnosis[0].cause == report.mistakes[0].cause == cause
    assert report.mistakes[0].degree in ("proved", "proved but for rounding")


def test_each_mistake_is_listed_and_no_consequence() -> None:
    report = reported(SCALE, SUM)
    assert [(m.cause, m.checkpoint) for m in report.mistakes] == [
        ("scale-missing", "h.0.attn.scaled"),
        ("residual-wrong", "h.0.mlp.residual"),
    ]
    assert report.mistakes[0] == report.diagnosis[0]


def test_what_rounds_is_no_mistake() -> None:
    assert reported(NORM).mistakes == ()


def test_behind_what_rounds_a_mistake_is_listed_alone() -> None:
    report = reported(NORM, SUM)
    assert [m.cause for m in report.mistakes] == ["residual-wrong"]
    assert [d.cause for d in report.diagnosis][:2] == ["residual-wrong", "rounding"]


def told(mutant: Mutant) -> Report:
    """What a person is told: by tensors and code together."""
    return reading.explained([mutant], reading.readings([mutant]))


FOURTH = {mutant.name: mutant for mutant in read_set("fourth").mutants}


@pytest.mark.parametrize(
    "name",
    [
        "minilm-last-block-left-behind",  # its input is no checkpoint, and what went in instead is one
        "gpt2-hand-norm-bias-stretches",  # two weights of one norm exchanged
        "gpt2-one-hot-minus-one",  # the table moved by one row: other ids
        "t5-hand-attention-without-mask",  # of a mask with the bias in it the bias alone
        "t5-buckets-abs-before-the-sign",
        "t5-encoder-loop-too-short",  # what is missing, and what differs first because of it
    ],
)
def test_code_and_tensors_together_have_the_name(name: str) -> None:
    report = told(FOURTH[name])
    assert report.mistakes[0].cause in FOURTH[name].causes
    assert not report.mistakes[0].asked


NONSENSE = (
    "d = x - x.mean(-1, keepdim=True)\n"
    '    return torch.cos(d) * part.weights["weight"].exp() + part.weights["bias"]'
)


def test_a_repair_that_computes_a_step_anew_proves_no_name() -> None:
    (mistake, *_) = told(Mutant("", "gpt2", NORM.before, NONSENSE, "", "", file="ops")).mistakes
    assert mistake.repairs[0].degree == "proved"
    assert mistake.asked
    assert mistake.did.endswith("?")


def test_of_a_step_that_was_right_before_something_was_done_to_it_no_name_is_proved() -> None:
    merge = "return x.transpose(1, 2).contiguous().flatten(start_dim=2)"
    wrong = Mutant("", "gpt2", merge, f"{merge} \\\n        .mul(7).sin()", "", "", file="ops")
    (mistake, *_) = told(wrong).mistakes
    assert mistake.cause == "unknown"
    assert "`sin`" in mistake.did
    assert mistake.repairs[0].degree == "proved"


BENDS_THE_PRODUCT = next(m for m in read_set("eleventh").mutants if m.name == "qwen2-bends-the-product")


@pytest.mark.parametrize(
    "wrong",
    [
        BENDS_THE_PRODUCT,
        Mutant("", "gpt2", "x = attended + x", "x = attended * x + x", "", ""),
        Mutant("", "gpt2", "scaled + mask", "scaled.reciprocal() + mask", "", ""),
        Mutant("", "gpt2", "scaled + mask", "torch.tensor(2.0) / scaled + mask", "", ""),
    ],
    ids=["a gate by its other branch", "a residual", "one over scores", "a number by scores"],
)
def test_a_product_with_a_whole_tensor_is_no_factor(wrong: Mutant) -> None:
    (mistake, *_) = told(wrong).mistakes
    assert mistake.degree == "proved"
    assert mistake.cause in ("wrong-input", "wrong-operand")


def test_a_step_that_any_product_spoils_is_called_so() -> None:
    by_its_largest = "(p := F.softmax(scores, dim=-1)) / p.amax(-1, keepdim=True)"
    (mistake, *_) = told(Mutant("", "gpt2", "F.softmax(scores, dim=-1)", by_its_largest, "", "")).mistakes
    assert (mistake.cause, mistake.degree) == ("softmax-changed", "proved")


def test_nan_proves_nothing() -> None:
    wrong = Mutant("", "gpt2", NORM.before, "return x * float('nan')", "", "", file="ops")
    assert {d.cause for d in reported(wrong).diagnosis} == {"not-computed"}
