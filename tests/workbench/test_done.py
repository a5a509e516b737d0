"""Done means tried: what `check` says of a rebuild that is right as far as it was run, and no farther."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.workbench import new as writing
from tests.workbench.bench import Bench

GPT2, MINILM, T5, LLAMA = "gpt2", "minilm", "t5-small", "llama"
Checked = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def checked(bench: Bench, tmp_path: Path) -> Checked:
    """Check a file on a miniature: exit code, JSON, and what a person sees."""

    def run(model: str | Path, source: str, *options: object) -> tuple[int, dict[str, Any], str]:
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        command = ["check", "mine.py", "--model", local_copy.MINIATURES / model, "--json", "found.json"]
        result = bench.run(*command, *options, folder=tmp_path)
        return result.code, json.loads((tmp_path / "found.json").read_text(encoding="utf-8")), result.out

    return run


BEND = writing.source(MINILM, solved=True).partition('@step("pooler.activation", "pooler.dense")')[2]
BEND = '@step("pooler.activation", "pooler.dense")' + BEND.partition("\n\n\n")[0]
BARE = 'bend = step("pooler.activation", "pooler.dense")'
WRAPPED = """import functools
def shown(function):
    @functools.wraps(function)
    def around(*arguments, **named):
        return function(*arguments, **named)
    return around


@shown
"""
ALL_THERE = """class Anything:
    def __getattr__(self, name):
        return self
    def __iter__(self):
        return iter([self])
    def __call__(self, *arguments):
        return self
    name, inputs = "pooler.activation", []


anything = Anything()


"""


@pytest.mark.parametrize(
    "bend",
    [
        f"{BARE}(lambda dense: torch.tanh(dense))",
        f"{BARE}(torch.nn.Tanh())",
        f"{BARE}(torch.tanh)",
        BEND.replace("dense: Tensor", "*dense").replace("tanh(dense)", "tanh(*dense)"),
        BEND.replace("dense: Tensor", "dense: Tensor, /"),
        WRAPPED + BEND,
        ALL_THERE + BEND,
    ],
    ids=["lambda", "module", "of C", "any number", "by place", "wrapped", "beside what has all"],
)
def test_a_step_may_be_anything_that_is_called(checked: Checked, bend: str):
    code, found, _ = checked(MINILM, writing.source(MINILM, solved=True).replace(BEND, bend))
    assert (code, found["untried"], found["done"]) == (0, [], True)
    assert "pooler.activation" in [step["name"] for step in found["steps"]]


def emptied(model: str, name: str) -> str:
    """The solved skeleton with one function that is not filled in."""
    source = writing.source(model, solved=True)
    start = source.index(f"def {name}(")
    head, body = source[:start], source[start:]
    end = body.index('"""', body.index('"""') + 3) + 3
    rest = body[end:].partition("\n\n\n")[2]
    return f"{head}{body[:end]}\n    raise NotImplementedError\n\n\n{rest}"


@pytest.mark.parametrize(("model", "step"), [(MINILM, "attention_mask"), (T5, "padding_mask")])
def test_without_a_text_a_padded_pair_is_run(checked: Checked, model: str, step: str):
    code, found, shown = checked(model, emptied(model, step))
    assert found["inputs"]["texts"] == 2
    assert (code, found["done"]) == (1, False)
    assert found["next"].endswith("mask")
    assert f"in {step}" in shown


@pytest.mark.parametrize(("model", "step"), [(MINILM, "attention_mask"), (T5, "padding_mask")])
def test_a_step_that_is_empty_is_not_passed_though_nothing_called_it(checked: Checked, model: str, step: str):
    code, found, shown = checked(model, emptied(model, step), "--token-ids", "3,5,9")
    assert found["summary"]["failed"] == 0
    assert (code, found["done"]) == (1, False)
    # T5's other texts are padded, and call it.
    assert (f"step {step}" in found["untried"]) == (model == MINILM)
    assert any(f"in {step}, which is not filled in" in word for word in found["untried"])
    assert "not filled in, and nothing called it: mine.py, line " in shown


def test_a_step_that_is_never_called_is_untried(checked: Checked):
    code, found, shown = checked(MINILM, writing.source(MINILM, solved=True), "--token-ids", "3,5,9")
    assert (code, found["done"]) == (0, False)
    assert "padding" in found["untried"]
    assert "step attention_mask" in found["untried"]
    assert "step attention_mask (nothing calls it)" in shown
    assert "padding (give two texts of different length)" in shown


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("torch.clamp(exact + far.long(), max=buckets - 1)", "exact + far.long()"),
        ("max=buckets - 1)", "max=buckets - 2)"),
    ],
    ids=["past the last bucket", "into the last bucket"],
)
def test_what_only_tokens_far_apart_show_is_not_done(checked: Checked, line: str, other: str):
    code, found, _ = checked(T5, writing.source(T5, solved=True).replace(line, other))
    (run,) = [run for run in found["others"] if run["way"] == "sdpa attention"]
    assert (code, found["done"], found["summary"]["failed"]) == (1, False, 0)
    assert run["bit_identical"] < run["checkpoints"]


SOFTMAX = "F.softmax(scores, dim=-1)"
BY_LOGARITHM = "F.log_softmax(scores, dim=-1).exp()"
BY_LOGARITHM_OF_SUM = "torch.exp(scores - torch.logsumexp(scores, dim=-1, keepdim=True))"
LINEAR = 'F.linear(x, weights[f"{name}.weight"])'
IN_FLOAT64 = 'F.linear(x.double(), weights[f"{name}.weight"].double()).float()'
PRODUCT = "split_heads(query, config) @ split_heads(key, config).transpose(-1, -2)"
BY_SUMS = "(split_heads(query, config)[..., None, :] * split_heads(key, config)[:, :, None]).sum(-1)"


@pytest.mark.parametrize(
    ("model", "line", "spelled"),
    [
        (T5, LINEAR, IN_FLOAT64),
        (T5, PRODUCT, BY_SUMS),
        (MINILM, SOFTMAX, BY_LOGARITHM),
        (MINILM, SOFTMAX, BY_LOGARITHM_OF_SUM),
    ],
    ids=["in float64", "by sums", "by its logarithm", "by the logarithm of its sum"],
)
def test_another_spelling_is_rounding_in_every_run(checked: Checked, model: str, line: str, spelled: str):
    code, found, _ = checked(model, writing.source(model, solved=True).replace(line, spelled))
    runs = [found["diagnosis"], found["mistakes"], *(run["mistakes"] for run in found["others"])]
    assert (code, found["done"]) == (0, True)
    assert {mistake["cause"] for run in runs for mistake in run} == {"rounding"}


@pytest.mark.parametrize("spelled", [BY_LOGARITHM, BY_LOGARITHM_OF_SUM])
def test_a_spelling_that_rounds_more_than_the_official_one_is_rounding_too(
    checked: Checked, minilm: LocalCopy, spelled: str
):
    """With real weights, whose scores are large, it leaves five decimals behind it."""
    source = writing.source(MINILM, solved=True).replace(SOFTMAX, spelled)
    code, found, _ = checked(minilm.folder, source)
    assert (code, found["done"], found["summary"]["rounding"] > 0) == (0, True, True)
    assert [mistake["cause"] for mistake in found["diagnosis"]] == ["rounding"]


def plain(source: str) -> str:
    """MiniLM's rebuild without the other attention, as files were before there was one."""
    return source.replace('tap: Tap, attention: str = "eager"\n', "tap: Tap\n").replace(
        "    word = tap(", '    attention = "eager"\n    word = tap('
    )


def test_what_forward_does_not_offer_is_untried(checked: Checked):
    code, found, shown = checked(MINILM, plain(writing.source(MINILM, solved=True)))
    assert (code, found["done"], found["others"]) == (0, False, [])
    assert found["untried"] == ["sdpa attention", "step all_in_one"]
    assert "sdpa attention (let `forward` take `attention`)" in shown
    assert not shown.splitlines()[-1].endswith(": done")


WAYS = {
    MINILM: ["sdpa attention"],
    GPT2: ["sdpa attention", "cached step"],
    T5: ["sdpa attention", "cached step"],
}


@pytest.mark.parametrize("model", WAYS)
def test_nothing_left_is_done(checked: Checked, model: str):
    """The solved skeleton: checkpoints, answer, the other attention and a cached step, to the bit."""
    code, found, shown = checked(model, writing.source(model, solved=True), "--exact")
    assert (code, found["done"], found["untried"]) == (0, True, [])
    assert [run["way"] for run in found["others"]] == WAYS[model]
    assert all(run["bit_identical"] == run["checkpoints"] > 10 for run in found["others"])
    assert all(run["answer"]["verdict"] == "bit-identical" for run in found["others"])
    assert shown.splitlines()[-1].endswith(": done")


@pytest.mark.parametrize(
    ("function", "way"),
    [("all_in_one", "sdpa attention"), ("remember", "cached step")],
    ids=["sdpa", "cache"],
)
def test_another_way_that_is_not_filled_in_is_not_passed(checked: Checked, function: str, way: str):
    code, found, shown = checked(GPT2, emptied(GPT2, function))
    assert found["summary"]["failed"] == 0
    assert (code, found["done"]) == (1, False)
    (run,) = [run for run in found["others"] if run["way"] == way]
    assert f"in {function}: not filled in" in run["error"]
    assert f"in {function}: not filled in" in shown


def test_a_cache_in_which_nothing_is_left_is_said(checked: Checked):
    source = writing.source(GPT2, solved=True).replace(
        "    token = token_ids", "    cache = None\n    token = token_ids"
    )
    code, found, shown = checked(GPT2, source)
    assert (code, found["done"]) == (1, False)
    assert [run["error"] for run in found["others"]] == [
        None,
        "mine.py: forward left no keys and values in `cache`",
    ]
    assert "forward left no keys and values in `cache`" in shown


def test_what_is_drawn_in_another_way_is_named(checked: Checked):
    fused = "F.scaled_dot_product_attention(query, key, value, may_look"
    source = writing.source(MINILM, solved=True).replace(fused, f"{fused}, dropout_p=0.1")
    code, found, _ = checked(MINILM, source)
    (run,) = found["others"]
    assert (code, [mistake["cause"] for mistake in run["mistakes"]]) == (1, ["dropout"])


@pytest.mark.parametrize(
    ("model", "before", "after"),
    [
        (MINILM, "x.view(*x.shape[:-1],", "x.view(2, x.shape[1],"),
        (MINILM, "torch.arange(token_ids.shape[1])", "torch.arange(16)"),
        (MINILM, "return x * mask.unsqueeze(-1)", "return MEMO.setdefault('once', x * mask.unsqueeze(-1))"),
        (GPT2, "torch.arange(mask.shape[1]).unsqueeze(0)", "(mask[:1].cumsum(-1) - 1).clamp(min=0)"),
    ],
    ids=["so many texts", "so long ones", "numbers that were kept", "the first is the longest"],
)
def test_what_holds_for_these_texts_alone_is_not_done(checked: Checked, model: str, before: str, after: str):
    """The other attention runs on other ones, more of them and longer."""
    source = writing.source(model, solved=True)
    assert before in source
    wrong = source.replace(before, after).replace("\n\n\n@step", "\n\n\nMEMO = {}\n\n\n@step", 1)
    code, found, said = checked(model, wrong)
    other = found["others"][0]
    assert (code, found["done"], other["way"]) == (1, False, "sdpa attention")
    assert other["failed"] or other["error"]
    assert all(checkpoint["verdict"] == "bit-identical" for checkpoint in found["checkpoints"])
    assert "sdpa attention, on other texts: " in said


def test_another_way_that_is_wrong_is_not_passed(checked: Checked):
    source = writing.source(GPT2, solved=True)
    wrong = source.replace(
        "position_embedding(mask, weights)[:, -token:]",
        "position_embedding(mask, weights)[:, :token]",
    )
    assert wrong != source
    code, found, shown = checked(GPT2, wrong)
    assert found["summary"]["failed"] == 0
    assert (code, found["done"]) == (1, False)
    assert {run["way"]: run["first_divergence"] for run in found["others"]} == {
        "sdpa attention": None,
        "cached step": "wpe",
    }
    assert "cached step: " in shown


LAYER_NORM = "return F.layer_norm(x, x.shape[-1:], weight, bias, config.layer_norm_epsilon)"
BY_HAND = {  # model, what stands there, what somebody else writes
    "a norm": (
        GPT2,
        LAYER_NORM,
        "x = x - x.mean(-1, keepdim=True)\n"
        "    square = x.pow(2).mean(-1, keepdim=True)\n"
        "    return x / torch.sqrt(square + config.layer_norm_epsilon) * weight + bias",
    ),
    "a norm by the squares": (
        GPT2,
        LAYER_NORM,
        "mean = x.sum(-1, keepdim=True) / x.shape[-1]\n"
        "    variance = (x * x).sum(-1, keepdim=True) / x.shape[-1] - mean * mean\n"
        "    return (x - mean) * torch.rsqrt(variance + config.layer_norm_epsilon) * weight + bias",
    ),
    "a tanh": (GPT2, "torch.tanh(scaled)", "1 - 2 / (torch.exp(2 * scaled) + 1)"),
    "a norm, one of its steps": (T5, "torch.rsqrt(above_zero)", "above_zero.sqrt().reciprocal()"),
    "a norm that shows its steps": (
        LLAMA,
        "square.mean(-1, keepdim=True)",
        "torch.linalg.vector_norm(x, dim=-1, keepdim=True) ** 2 / x.shape[-1]",
    ),
}


@pytest.mark.parametrize(("model", "before", "after"), BY_HAND.values(), ids=BY_HAND)
def test_a_step_by_hand_is_done(checked: Checked, model: str, before: str, after: str):
    """What it rounds otherwise is kept with keys and values; later numbers are larger, and off by more."""
    source = writing.source(model, solved=True)
    by_hand = source.replace(before, after)
    assert by_hand != source
    code, found, _ = checked(model, by_hand)
    assert [(run["way"], run["failed"]) for run in found["others"]] == [
        ("sdpa attention", 0),
        ("cached step", 0),
    ]
    assert [step["name"] for step in found["steps"] if not step["right"]] == []
    assert (code, found["done"]) == (0, True)


LAST = '    return tap("lm_head", head(x, weights))\n'
LAST_TAP = LAST.replace("return", "logits =")
ANSWERS = {
    "nothing": ("return None", "`forward` returned nothing; it has to return lm_head [2, 15, 1024]"),
    "the hidden state": ("return x", "differs (wrong shape"),
    "the best token": ("return logits.argmax(dim=-1)", "differs (wrong shape"),
    "another token's": ("return logits.roll(1, dims=1)", "differs (wrong values)"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_forward_returns_is_compared(checked: Checked, answer: str):
    """A12b: every checkpoint may be right, and the answer another."""
    statement, words = ANSWERS[answer]
    source = writing.source(GPT2, solved=True)
    assert source.count(LAST) == 1
    code, found, shown = checked(GPT2, source.replace(LAST, f"{LAST_TAP}    {statement}\n"))
    assert found["summary"]["failed"] == 0
    assert (code, found["done"]) == (1, False)
    assert found["answer"]["name"] == "lm_head"
    assert words in " ".join(shown.split())


def test_a_right_answer_is_bit_identical(checked: Checked):
    code, found, _ = checked(GPT2, writing.source(GPT2, solved=True))
    assert (code, found["answer"]["verdict"]) == (0, "bit-identical")


@pytest.mark.parametrize(
    ("answer", "word"), [("3.5", "a float"), ("(logits, 1)", "a tuple"), ("7", "an int")]
)
def test_what_is_no_tensor_is_refused_by_its_name(checked: Checked, answer: str, word: str):
    source = writing.source(GPT2, solved=True).replace(LAST, f"{LAST_TAP}    return {answer}\n")
    code, found, _ = checked(GPT2, source)
    assert code == 2
    assert f"forward returned {word}; it has to return the model's answer, a tensor" in found["error"]


def test_a_tap_that_is_kept_shows_nothing_of_the_steps(checked: Checked):
    """A2: a forward that computes nothing, and a step that taps what it is fed."""
    source = writing.source(GPT2, solved=True)
    start, end = source.index("    which = tap("), source.index(LAST)
    source = source[:start] + "    global TAP\n    TAP = tap\n    return None\n" + source[end + len(LAST) :]
    source = source.replace("def head(x: Tensor", "def head(x: Tensor", 1)
    body = '    return F.linear(x, weights["wte.weight"])\n'
    assert source.count(body) == 1
    source = source.replace(body, f'    TAP("ln_f", x)\n{body}')
    code, found, _ = checked(GPT2, source)
    assert (code, found["summary"]["bit_identical"]) == (1, 0)


def test_a_step_that_fails_alone_is_not_passed(checked: Checked):
    """Right in forward, wrong when it is fed with official numbers: no green beside red."""
    source = writing.source(GPT2, solved=True)
    wrong = source.replace(
        "    return scaled + may_look\n", "    return scaled + may_look * globals().get('ONE', 2)\n"
    ).replace(LAST, f"{LAST_TAP}    globals()['ONE'] = 2\n    return logits\n")
    wrong = wrong.replace("    which = tap(", "    globals()['ONE'] = 1\n    which = tap(")
    code, found, shown = checked(GPT2, wrong)
    assert found["summary"]["failed"] == 0
    assert not all(step["right"] for step in found["steps"])
    assert code == 1
    assert "h.0.attn.scores: " in shown


def test_fill_in_names_the_step_that_is_next(checked: Checked):
    """E: not the first empty function that forward came to."""
    source = writing.source(GPT2, solved=True)
    tapped = 'tap("wpe", position_embedding(mask, weights)[:, -token:])'
    assert source.count(tapped) == 1
    early = emptied(GPT2, "attention_mask").replace(tapped, tapped[len('tap("wpe", ') : -1])
    _, found, shown = checked(GPT2, early)
    assert found["next"] == "wpe"
    assert "fill in" not in shown
    assert "its step is filled in and right alone; `forward` does not tap it" in shown
    _, found, shown = checked(GPT2, emptied(GPT2, "layer_norm"))
    assert found["next"] == "h.0.ln_1"
    assert "in layer_norm" in shown
