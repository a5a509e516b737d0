"""The page of mistakes has a section for each cause of a diagnosis, and its figures are measured."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

import llm_rebuild
from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.causes import CAUSES, chapter
from llm_rebuild.diagnosis.mutants import Mutant
from tools.mutants import read_set
from tools.mutation import scene

PAGE = Path(__file__).resolve().parents[2] / "docs" / "part-4" / "mistakes.md"
MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"
HEADING = re.compile(r"^(#{2,3}) .*?(?:\{ #([\w-]+) \})?$", re.MULTILINE)
ANSWER = {"minilm": "sentence.embedding", "gpt2": "lm_head", "t5-small": "lm_head"}

# What the page says about a mutant. `first`, `answer`: the largest difference at the first checkpoint that
# differs, or in the answer. `next`: the share of next tokens that stay. `cosine`: the smallest of the texts'.
# `largest`: the largest official number at the first checkpoint. `shape`, `right shape`: there, too.
SAID = (
    ("weight-transposed", "gpt2-square-weight-transposed", "first"),
    ("weight-transposed", "gpt2-square-weight-transposed", "largest"),
    ("wrong-weight", "t5-encoder-last-norm-from-a-block", "next"),
    ("bias-wrong", "minilm-key-bias-from-query", "first"),
    ("untied-head", "gpt2-head-fresh", "next"),
    ("embedding-scaled", "minilm-embedding-times-root-width", "cosine"),
    ("positions-missing", "gpt2-positions-missing", "next"),
    ("positions-shifted", "gpt2-positions-from-one", "next"),
    ("positions-sinusoidal", "minilm-positions-sinusoidal", "cosine"),
    ("positions-sinusoidal", "minilm-positions-sinusoidal", "largest"),
    ("positions-wrong", "gpt2-positions-by-mask", "shape"),
    ("positions-wrong", "gpt2-positions-by-mask", "right shape"),
    ("token-types-missing", "minilm-token-types-missing", "cosine"),
    ("token-types-wrong", "minilm-token-types-second", "cosine"),
    ("qkv-order", "gpt2-key-value-swapped", "next"),
    ("qkv-order", "gpt2-query-key-swapped", "next"),
    ("heads-count", "gpt2-twice-the-heads", "next"),
    ("scale-missing", "gpt2-scale-missing", "first"),
    ("scale-missing", "gpt2-scale-missing", "next"),
    ("scale-extra", "t5-scaled", "next"),
    ("mask-missing", "gpt2-mask-missing", "next"),
    ("mask-padding-missing", "minilm-mask-missing", "cosine"),
    ("mask-inverted", "gpt2-mask-inverted", "next"),
    ("mask-extra", "minilm-mask-causal", "cosine"),
    ("softmax-axis", "gpt2-softmax-over-queries", "next"),
    ("softmax-axis", "gpt2-softmax-over-heads", "next"),
    ("softmax-changed", "t5-softmax-of-half-the-scores", "next"),
    ("gelu-exact", "gpt2-gelu-exact-at-last", "first"),
    ("gelu-exact", "gpt2-gelu-exact-at-last", "answer"),
    ("gelu-exact", "gpt2-gelu-exact-at-last", "next"),
    ("gelu-tanh", "minilm-gelu-tanh", "first"),
    ("gelu-tanh", "minilm-gelu-tanh", "answer"),
    ("gelu-sigmoid", "minilm-gelu-sigmoid", "first"),
    ("gelu-sigmoid", "gpt2-gelu-sigmoid", "answer"),
    ("gelu-constant", "gpt2-gelu-constant-digit", "answer"),
    ("activation-relu", "gpt2-relu", "next"),
    ("activation-relu", "minilm-relu", "cosine"),
    ("activation-other", "t5-leaky-relu", "next"),
    ("activation-missing", "gpt2-activation-missing", "next"),
    ("norm-eps", "minilm-norm-eps", "first"),
    ("norm-eps", "t5-norm-eps", "first"),
    ("norm-eps-place", "gpt2-norm-eps-outside-root", "first"),
    ("norm-affine-missing", "gpt2-norm-affine-missing", "next"),
    ("norm-affine-missing", "gpt2-norm-shift-missing", "next"),
    ("norm-mean-kept", "gpt2-norm-root-mean-square", "first"),
    ("norm-mean-kept", "gpt2-norm-root-mean-square", "answer"),
    ("norm-mean-kept", "gpt2-norm-root-mean-square", "next"),
    ("norm-mean-subtracted", "t5-norm-mean-subtracted", "first"),
    ("norm-mean-subtracted", "t5-norm-mean-subtracted", "next"),
    ("norm-variance", "gpt2-norm-variance-of-a-sample", "first"),
    ("norm-axis", "t5-norm-over-tokens", "shape"),
    ("norm-axis", "t5-norm-over-tokens", "right shape"),
    ("norm-missing", "gpt2-last-norm-missing", "next"),
    ("norm-twice", "minilm-first-norm-twice", "cosine"),
    ("norm-twice", "t5-decoder-last-norm-twice", "answer"),
    ("residual-missing", "gpt2-residual-missing", "next"),
    ("residual-missing", "t5-residual-missing", "next"),
    ("residual-wrong", "gpt2-residual-from-the-norm", "next"),
    ("residual-scaled", "gpt2-residual-halved", "next"),
    ("block-order", "gpt2-blocks-one-and-two-exchanged", "next"),
    ("block-skipped", "gpt2-block-one-without-effect", "next"),
    ("buckets-direction", "t5-decoder-buckets-both-ways", "answer"),
    ("buckets-direction", "t5-decoder-buckets-both-ways", "next"),
    ("buckets-count", "t5-buckets-half-the-distance", "answer"),
    ("buckets-count", "t5-buckets-half-the-distance", "next"),
    ("position-bias-missing", "t5-position-bias-in-first-block-only", "next"),
    ("cross-attention-source", "t5-cross-attention-sees-the-answer", "next"),
    ("output-scale-missing", "t5-output-scale-missing", "next"),
    ("pool-padding", "minilm-pool-padding", "cosine"),
    ("pool-cls", "minilm-pool-cls", "cosine"),
    ("not-normalised", "minilm-not-normalised", "cosine"),
    ("cache-not-appended", "gpt2-cache-replaced", "shape"),
    ("cache-not-appended", "gpt2-cache-replaced", "right shape"),
    ("cache-order", "t5-cache-new-first", "answer"),
    ("wrong-dtype", "gpt2-linear-in-bfloat16", "first"),
)


@functools.cache
def sections() -> dict[str, str]:
    """The text under each heading of the third level, without line breaks, by its anchor."""
    text = PAGE.read_text(encoding="utf-8")
    found = list(HEADING.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return {
        match[2] or match[0]: " ".join(text[match.end() : end].split())
        for match, end in zip(found, ends, strict=True)
        if match[1] == "###"
    }


@functools.cache
def results(mutant: Mutant) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the mutant computes, and what is right."""
    stage = scene(mutant.model, mutant.run, mutant.attention)
    return mutants.run(mutant, stage).tensors, dict(stage.truth.tensors)


def measured(mutant: Mutant, what: str) -> str:
    """A figure, as the page writes it."""
    mine, right = results(mutant)
    answer = ANSWER[mutant.model]
    if what == "next":
        same = mine[answer].argmax(dim=-1) == right[answer].argmax(dim=-1)
        return f"{same.float().mean():.0%}"
    if what == "cosine":
        return f"{torch.cosine_similarity(mine[answer], right[answer], dim=-1).min():.3f}"
    name = answer if what == "answer" else mutant.first
    if what.endswith("shape"):
        return str(list((mine if what == "shape" else right)[name].shape))
    if what == "largest":
        return f"{float(right[name].abs().max()):.2g}"
    return f"{float((mine[name] - right[name]).abs().max()):.2g}"


def test_every_cause_has_its_section_and_every_section_its_cause() -> None:
    assert list(sections()) == list(CAUSES), "the sections are not the causes of causes.py, in order"


def test_a_diagnosis_leads_to_the_page() -> None:
    for cause in CAUSES:
        assert chapter(cause) == f"part-4/{PAGE.stem}/#{cause}"


def test_every_section_says_something_of_its_own() -> None:
    short = [slug for slug, text in sections().items() if len(text.split()) < 30]
    assert not short, f"a few words are no section: {short}"
    sentences = Counter(
        sentence for text in sections().values() for sentence in re.split(r"(?<=[.?!]) ", text) if sentence
    )
    assert [sentence for sentence, count in sentences.items() if count > 1] == []


@pytest.mark.parametrize(("slug", "name", "what"), SAID)
def test_a_figure_is_what_is_measured(slug: str, name: str, what: str) -> None:
    mutant = next(mutant for mutant in read_set("first").mutants if mutant.name == name)
    assert slug in mutant.causes
    figure = measured(mutant, what)
    assert re.search(rf"(?<![\w.]){re.escape(figure)}(?![\w%])", sections()[slug]), f"measured {figure}"


def test_the_figures_that_are_rounding_only() -> None:
    """Their last digits are another processor's business, so the page gives bounds."""
    by_name = {mutant.name: mutant for mutant in read_set("first").mutants}
    assert float(measured(by_name["minilm-key-bias-from-query"], "answer")) < 1e-6
    assert float(measured(by_name["t5-norm-eps-outside-root"], "first")) < 1e-6
    assert float(measured(by_name["minilm-pool-sum"], "answer")) < 1e-6
    assert 5e-6 < float(measured(by_name["gpt2-product-in-two-halves"], "answer")) < 5e-5


def test_the_answer_stays_the_same_where_the_page_says_so() -> None:
    by_name = {mutant.name: mutant for mutant in read_set("first").mutants}
    for name in (
        "minilm-scale-after-mask",
        "gpt2-scale-after-mask",
        "t5-bias-after-mask",
        "minilm-mask-fill-ten-thousand",
        "gpt2-mask-fill-infinity",
        "t5-mask-fill-one-billion",
        "minilm-token-types-by-mask",
        "minilm-pooler-last-token",
        "minilm-pooler-not-bent",
    ):
        mutant = by_name[name]
        mine, right = results(mutant)
        assert torch.equal(mine[ANSWER[mutant.model]], right[ANSWER[mutant.model]]), name
