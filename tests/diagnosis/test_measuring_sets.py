"""The sets of mutants that measure, and are shown here none of what is said of them: each one changes a
number, and first where its file says so."""

from __future__ import annotations

import pytest

from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.causes import CAUSES
from llm_rebuild.diagnosis.mutants import Mutant
from tools.mutants import SETS, read_set
from tools.mutation import first_divergence, scene

MEASURING = {
    name: read_set(name)
    for name in ("fourth", "llama", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh")
}


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(m, id=f"{name}-{m.name}", marks=pytest.mark.weekly if number % 4 else ())
        for name, of in MEASURING.items()
        for number, m in enumerate(sorted(of.mutants, key=lambda m: (m.model, m.run, m.attention)))
    ],
)
def test_it_differs_first_where_it_is_said_to(mutant: Mutant):
    stage = scene(mutant.model, mutant.run, mutant.attention, mutant.kind)
    assert first_divergence(mutants.run(mutant, stage), stage) == mutant.first


@pytest.mark.parametrize("name", MEASURING)
def test_names_are_its_own_and_causes_are_in_the_catalogue(name: str):
    names = [mutant.name for mutant in MEASURING[name].mutants]
    others = {mutant.name for other in SETS if other != name for mutant in read_set(other).mutants}
    assert len(set(names)) == len(names) >= 150
    assert not others & set(names)
    different = [mutant for mutant in MEASURING[name].mutants if not mutant.equivalent]
    assert all(mutant.first for mutant in different)
    assert {cause for mutant in different for cause in mutant.causes} <= set(CAUSES)


@pytest.mark.parametrize("name", MEASURING)
def test_pairs_are_of_mutants_that_run_alike_and_fit_together(name: str):
    by_name = {mutant.name: mutant for mutant in MEASURING[name].mutants}
    for first, second in MEASURING[name].pairs:
        a, b = by_name[first], by_name[second]
        assert (a.model, a.kind, a.run, a.attention) == (b.model, b.kind, b.run, b.attention)
        with mutants.mutated([a, b]):
            pass
