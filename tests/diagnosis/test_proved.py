"""A cause is said as proved only where the numbers, or what put the code right, tell it: not where another
mistake gives the same, nor where they tell no more than that a step is wrong."""

from __future__ import annotations

import functools

import pytest
import torch

from llm_rebuild.diagnosis.diagnose import Diagnosis
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.diagnosis.mutants import Mutant
from llm_rebuild.verify import Proof, Question, judge
from tools import mutation, reading
from tools.mutants import read_set

KERNEL = "return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, scale=scale)"
FUSED = functools.partial(Mutant, cause="", first="", attention="sdpa")
ROUNDED = "wrong-dtype", "or rounded"
EAGER = functools.partial(Mutant, cause="", first="")
MINILM = functools.partial(Mutant, "minilm-here", "minilm", cause="", first="", file="ops")


def attention(arguments: str, run: str = "padded") -> Mutant:
    """GPT-2's fused kernel with other arguments."""
    wrong = f"return F.scaled_dot_product_attention({arguments}, scale=scale)"
    return FUSED("gpt2-here", "gpt2", KERNEL, wrong, run=run)


def eager(before: str, after: str) -> Mutant:
    return EAGER("gpt2-here", "gpt2", before, after)


def relu(after: str) -> Mutant:
    return EAGER("t5-here", "t5-small", "lambda x, tap: F.relu(x)", f"lambda x, tap: {after}", file="ops")


def gelu(before: str, after: str) -> Mutant:
    return EAGER("gpt2-here", "gpt2", before, after, file="ops")


def t5(before: str, after: str) -> Mutant:
    return EAGER("t5-here", "t5-small", before, after)


def told(mutant: Mutant) -> Diagnosis:
    """What a person is told first, by tensors and code together."""
    return reading.explained([mutant], reading.readings([mutant])).mistakes[0]


def proved(diagnosis: Diagnosis) -> bool:
    return diagnosis.degree.startswith("proved")


@pytest.mark.parametrize(
    ("of", "name"),
    [
        ("fourth", "t5-hand-relu-step"),  # a comparison, and no mask
        ("fourth", "gpt2-scores-tril-zeroed"),  # a triangle of scores, and no mask
        ("fifth", "gpt2-kernel-newest-alone"),  # one key is left, and not by a mask
        ("llama", "llama-query-scaled-before"),  # a product was scaled before it was cut into heads
        ("llama", "llama-product-with-the-value"),  # an operand, of which is known only that it is another
    ],
)
def test_no_other_cause_is_proved(of: str, name: str) -> None:
    mutant = next(m for m in read_set(of).mutants if m.name == name)
    found = told(mutant)
    assert found.cause in mutant.causes or not proved(found)
    named = mutation.measure(mutant)
    assert named.right or not named.computed


@pytest.mark.parametrize("places", [":1", "-1:"])
def test_of_one_key_no_mask_is_proved(places: str) -> None:
    """Whether the others were hidden or cut off, the numbers are the same."""
    one_key = f"query, key[..., {places}, :], value[..., {places}, :]"
    found = told(attention(one_key, run="cached"))
    assert "to the bit" in found.evidence
    assert not proved(found)


@pytest.mark.parametrize(
    "mask", ["mask.mT", "mask.flip(-1)", "mask & mask.mT"], ids=["transposed", "in reverse", "hides more"]
)
def test_of_what_a_kernel_was_given_the_repair_tells_no_name(mask: str) -> None:
    """A wrong mask is put right wherever it first went wrong, and is no operand of the product."""
    found = told(attention(f"query, key, value, {mask}"))
    assert found.repairs[0].degree == "proved"
    assert found.cause != "wrong-operand"
    assert not proved(found)


@pytest.mark.parametrize(
    ("mutant", "wrong"),
    [
        (eager("scaled + mask", "torch.minimum(scaled, mask)"), "mask-fill"),
        (eager("scaled = product * scale", "scaled = product.clamp(max=0.5) * scale"), "scale-extra"),
        (eager("scaled = product * scale", "scaled = torch.relu(product) * scale"), "activation-relu"),
        (relu("x.tril()"), "mask-off-by-one"),
        (eager("x = attended + x", "x = attended + x.clamp(-0.5, 0.5)"), "residual-wrong"),
        (t5("keys_and_values(encoded,", "keys_and_values(encoded * 1.1,"), "cross-attention-source"),
        (eager("return probs @ value", 'return torch.einsum("bhqk,bhkd->bhqd", probs, key)'), "heads-split"),
    ],
    ids=[
        "no fill",
        "no scale",
        "no activation there",
        "no mask",
        "the same residual",
        "same text",
        "no value",
    ],
)
def test_where_the_step_alone_has_the_name_it_is_not_proved(mutant: Mutant, wrong: str) -> None:
    found = told(mutant)
    assert found.repairs[0].degree == "proved"
    assert found.cause != wrong or not proved(found)


@pytest.mark.parametrize("number", [0.0, 3.0, float("nan")])
def test_one_number_everywhere_proves_nothing(number: float) -> None:
    """As a dump of zeros is. Whatever is computed from it is one number, too, in whatever way."""
    scene = mutation.scene("gpt2", "padded", "eager")
    rebuilt = {name: torch.full_like(tensor, number) for name, tensor in scene.truth.tensors.items()}
    proof = Proof(Question(scene.copy, scene.truth.inputs), judge(rebuilt, scene.truth), scene.truth, rebuilt)
    report = explain(proof).report
    assert report.mistakes
    assert [m.cause for m in report.mistakes if proved(m) and not m.cause.startswith("mask")] == []


@pytest.mark.parametrize(
    ("mutant", "cause", "words"),
    [
        (
            eager("x = word + position", "x = word * position"),
            "unknown",
            "`mul`, where the official model has",
        ),
        (
            eager("x = attended + x", "x = attended.maximum(x)"),
            "unknown",
            "`maximum`, where the official model",
        ),
        (gelu("return half * gate", "return half + gate"), "activation-other", "another activation"),
        (gelu("return half * gate", "return half.minimum(gate)"), "activation-other", "another activation"),
        (gelu("cube = torch.pow(x, 3.0)", "cube = x * x"), "gelu-constant", "constant"),
        (MINILM("F.gelu(x),", "x * 0.5 * (1 + torch.erf(x)),"), "gelu-constant", "without the root of two"),
        (
            eager("x = word + position", "x = torch.add(word, position, alpha=0.37)"),
            "embedding-scaled",
            "part of",
        ),
        (eager("scaled = product * scale", "scaled = torch.round(product * scale, decimals=2)"), *ROUNDED),
    ],
    ids=["product", "maximum", "sum", "minimum", "square", "root of two", "a part of a sum", "rounded"],
)
def test_another_operation_is_called_nothing_that_it_is_not(mutant: Mutant, cause: str, words: str) -> None:
    found = told(mutant)
    assert found.cause == cause
    assert words in found.did


@pytest.mark.parametrize(
    ("mutant", "cause"),
    [
        (relu("torch.sign(x)"), "activation-other"),
        (eager("F.softmax(scores, dim=-1)", "F.softmax(scores * 0.5, dim=-1)"), "softmax-changed"),
        (eager("return probs @ value", "return probs @ value.roll(1, 1)"), "wrong-operand"),
    ],
    ids=["any other activation", "anything but a plain softmax", "another tensor"],
)
def test_what_says_no_more_than_is_known_is_proved(mutant: Mutant, cause: str) -> None:
    found = told(mutant)
    assert found.cause == cause
    assert proved(found)


@pytest.mark.parametrize(
    "name", ["minilm-mask-of-the-first-row", "gpt2-cached-padding-forgotten", "t5-fused-bias-twice"]
)
def test_of_names_that_give_the_same_the_one_that_says_more_comes_first(name: str) -> None:
    """A mask that shows all is missing where nothing else was forgotten; a bias twice is no scaled sum."""
    mutant = next(m for m in read_set("third").mutants if m.name == name)
    assert mutation.measure(mutant).named[0] == mutant.cause
