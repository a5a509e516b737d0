"""Every mistake that is made on purpose is caught, first seen where the source says it must be; and what
changes no number is not reported."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.causes import CAUSES
from llm_rebuild.diagnosis.mutants import SOURCES, Mutant
from tools import mutation
from tools.mutants import SETS as MEASURED
from tools.mutants import read_set

SETS = (*MEASURED, "today")

# What a diagnosis can say where no mistake fits is no mistake that anybody makes.
NO_MISTAKES = {
    "scaled",
    "shifted",
    "permuted",
    "another-checkpoint",
    "not-computed",
    "wrong-shape",
    "missing",
    "unknown",
}


def divergence(mutant: Mutant) -> str:
    """The first checkpoint that is not bit-identical; empty where all are."""
    stage = mutation.scene(mutant.model, mutant.run, mutant.attention)
    outcome = mutants.run(mutant, stage)
    assert set(outcome.tensors) <= set(stage.truth), f"{mutant.name} shows what is no checkpoint of this run"
    return mutation.first_divergence(outcome, stage)


@pytest.mark.parametrize("model", SOURCES)
@pytest.mark.parametrize("name", SETS)
def test_every_mistake_is_first_seen_where_it_was_made(name: str, model: str) -> None:
    wrong = [
        f"{mutant.name}: first at {seen or 'none'}, not at {mutant.first or 'none'}"
        for mutant in read_set(name).mutants
        if mutant.model == model and (seen := divergence(mutant)) != mutant.first
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("model", SOURCES)
@pytest.mark.parametrize("name", SETS)
def test_what_keeps_the_numbers_is_no_divergence(name: str, model: str) -> None:
    wrong = [
        f"{mutant.name}: {seen}"
        for mutant in read_set(name).refactorings
        if mutant.model == model and (seen := divergence(mutant))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("same", mutation.unmutated(), ids=lambda m: f"{m.model}-{m.run}-{m.attention}")
def test_the_source_as_it_stands_is_bit_identical(same: Mutant) -> None:
    """Otherwise the machinery, and not the mistake, might be what is seen."""
    assert not divergence(same)


@pytest.mark.parametrize("name", SETS)
def test_every_mutant_is_whole(name: str) -> None:
    everything = (*read_set(name).mutants, *read_set(name).refactorings)
    assert [n for n, count in Counter(mutant.name for mutant in everything).items() if count > 1] == []
    for mutant in everything:
        file = Path(mutants.__file__).parents[1] / "models" / f"{mutant.source}.py"
        source = file.read_text(encoding="utf-8")
        assert source.count(mutant.before) == 1, mutant.name
        assert mutants.changed(source, mutant) != source, mutant.name
        assert mutant.source in SOURCES[mutant.model], mutant.name
        if mutant.equivalent:
            assert (mutant.cause, mutant.first) == ("", ""), mutant.name
        else:
            assert mutant.first, mutant.name
            assert set(mutant.causes) <= set(CAUSES) - NO_MISTAKES, mutant.name
    assert all(mutant.equivalent for mutant in read_set(name).refactorings)


@pytest.mark.parametrize("name", mutation.OPEN)
def test_a_mistake_is_named_or_not_as_the_page_says(name: str) -> None:
    otherwise = {each["name"]: each["named"] for each in mutation.committed()["sets"][name]["otherwise"]}
    for mutant in mutation.mistakes(name)[::20]:
        result = mutation.measure(mutant)
        assert otherwise.get(mutant.name) == (None if result.right else list(result.named)), mutant.name


@pytest.mark.weekly
def test_the_figures_of_the_page_are_those_of_this_code() -> None:
    measured, committed = json.loads(json.dumps(mutation.figures())), mutation.committed()
    for part in ("sets", "degrees", "pairs", "harmless"):
        assert measured[part] == committed[part], part


def test_the_first_set_makes_every_mistake_of_the_catalogue() -> None:
    mutants = [m for name in ("first", "today") for m in read_set(name).mutants if not m.equivalent]
    made = {cause for mutant in mutants for cause in mutant.causes}
    assert set(CAUSES) - NO_MISTAKES - made == set()


def test_there_are_enough() -> None:
    assert sum(not mutant.equivalent for mutant in read_set("first").mutants) >= 120
    assert len(read_set("first").refactorings) >= 12
