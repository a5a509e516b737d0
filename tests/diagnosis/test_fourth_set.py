"""The fourth set of mutants measures, so nothing here is diagnosed: each one changes a number, and first
where its file says so."""

from __future__ import annotations

import pytest

from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.causes import CAUSES
from llm_rebuild.diagnosis.mutants import Mutant
from tools.mutants import SETS, read_set
from tools.mutation import first_divergence, scene

SET = read_set("fourth")


@pytest.mark.parametrize("mutant", SET.mutants, ids=lambda mutant: mutant.name)
def test_it_differs_first_where_it_is_said_to(mutant: Mutant):
    stage = scene(mutant.model, mutant.run, mutant.attention)
    assert first_divergence(mutants.run(mutant, stage), stage) == mutant.first


def test_names_are_its_own_and_causes_are_in_the_catalogue():
    names = [mutant.name for mutant in SET.mutants]
    others = {mutant.name for name in SETS if name != "fourth" for mutant in read_set(name).mutants}
    assert len(set(names)) == len(names) >= 150
    assert not others & set(names)
    assert {cause for mutant in SET.mutants if mutant.first for cause in mutant.causes} <= set(CAUSES)
    assert {name for pair in SET.pairs for name in pair} <= set(names)
