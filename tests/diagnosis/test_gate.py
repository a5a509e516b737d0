"""The gate: every mistake is caught, first seen where it was made, and nearly always named.

`python -m tools.mutation` runs all mutants and writes their figures; here a share of them runs each time. The
sets themselves are in `tools/mutants/`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from llm_rebuild.diagnosis.mutants import Mutant
from tools import mutation
from tools.mutants import SETS, read_set
from tools.mutation import Result, measure

EVERY = [6, pytest.param(3, marks=pytest.mark.weekly)]  # one of so many mutants is run here, and of pairs …
EVERY_PAIR = 4
NAMED = 0.9  # the share of a set whose cause is named first
NAMED_OF_PAIRS = 0.7  # of two mistakes the earlier one
CHANCE = 2  # so many mutants fewer may be named in a sample


def sample(name: str, every: int) -> list[Mutant]:
    """A share of a set that has every model, run and attention in it as often as the set has."""
    made = sorted(mutation.mistakes(name), key=lambda mutant: (mutant.model, mutant.run, mutant.attention))
    return made[random.Random(len(made)).randrange(every) :: every]


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("name", SETS)
def test_mistakes_are_caught_where_they_are_made_and_named(
    name: str, every: int, figure: Callable[[str], None]
) -> None:
    results = [measure(mutant) for mutant in sample(name, every)]
    assert len(results) > 20
    assert [r.mutants[0].name for r in results if not r.caught] == []
    assert [r.mutants[0].name for r in results if not r.first_right] == []
    figure(f"{name} set: {share(results):.0%} of {len(results)} mutants named (a sample)")
    assert sum(result.right for result in results) + CHANCE >= NAMED * len(results)


@pytest.mark.parametrize("name", ["first", mutation.BLIND])
def test_of_two_mistakes_the_earlier_one_is_named(name: str, figure: Callable[[str], None]) -> None:
    drawn = mutation.pairs(name)[::EVERY_PAIR]
    results = [measure(*pair) for pair in drawn]
    assert len(results) > 10
    assert all(result.caught for result in results)
    figure(f"{name} set: the earlier of two mistakes named in {share(results):.0%} of {len(results)} pairs")
    assert share(results) >= NAMED_OF_PAIRS


# Of Llama's set one of each kind that was not named while it measured.
LEARNED = (
    "llama3-no-slope",
    "yarn-betas-exchanged",
    "yarn-lengthened-twice",
    "llama-turns-by-two-pi",
    "llama-positions-all-the-same",
    "llama-embedding-with-sines-like-the-first-transformer",
    "llama-mask-start-of-the-text-hidden",
    "llama-turned-and-thrown-away",
    "llama-cosines-of-the-last-token",
    "llama-cache-turned-again",
    "llama-groups-in-reverse",
    "llama-context-summed-over-kv-heads",
    "llama-context-of-keys",
    "llama-scores-unscaled-masked",
    "llama-scores-with-slopes-of-alibi",
    "llama-silu-minus-forgotten",
    "llama-parallel-feed-forward",
    "qwen3-norms-forgotten",
    "qwen3-norm-over-all-heads-at-once",
    "qwen3-norm-across-heads",
)


def test_what_llamas_mistakes_taught_is_known() -> None:
    by_name = {mutant.name: mutant for mutant in mutation.mistakes("llama")}
    results = {name: measure(by_name[name]) for name in LEARNED}
    assert {name: result.named for name, result in results.items() if not result.right} == {}


def test_what_keeps_the_numbers_is_not_reported() -> None:
    kept = (*mutation.harmless(), *mutation.unmutated())
    assert len(kept) > 30
    reported = [(m.name, r.first, r.named) for m in kept if (r := measure(m)).caught or r.named]
    assert reported == []


def test_the_committed_figures_pass_the_gate() -> None:
    """All mutants, as they were measured when the page was written."""
    found = mutation.committed()
    for name in SETS:
        of = found["sets"][name]
        assert of["mutants"] == len(mutation.mistakes(name)), name
        assert of["caught"] == of["first_right"] == of["mutants"], name
        assert of["named"] / of["mutants"] >= NAMED, name
    for name, of in found["pairs"].items():
        assert of["named"] / of["pairs"] >= NAMED_OF_PAIRS, name
    assert [reported for reported, _ in found["harmless"].values()] == [0, 0, 0]


def test_the_second_set_is_shown_in_sums_only() -> None:
    """Neither its mutants nor what was said about them may be read off the figures."""
    names = [mutant.name for mutant in read_set(mutation.BLIND).mutants]
    for file in (mutation.FIGURES, mutation.PAGE):
        text = file.read_text(encoding="utf-8")
        assert [name for name in names if name in text] == []
    found = mutation.committed()["sets"][mutation.BLIND]
    assert set(found["groups"]) <= set(mutation.groups())
    assert not {"causes", "otherwise"} & set(found)


def share(results: list[Result]) -> float:
    return sum(result.right for result in results) / len(results)
