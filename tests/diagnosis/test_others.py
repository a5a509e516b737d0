"""Models that the course does not rebuild, as persons rebuilt them (tools/mutants/others): right to the bit,
and each mistake changes a number, first where it is said to. They measure, so nothing is diagnosed here."""

from __future__ import annotations

import pytest

from llm_rebuild.diagnosis.causes import CAUSES
from llm_rebuild.diagnosis.mutants import Mutant
from tools import reading
from tools.mutants import read_set
from tools.mutants.others import MODELS, other, source_of

MUTANTS = read_set("others").mutants


@pytest.mark.parametrize("model", MODELS)
def test_the_right_file_is_right_to_the_bit(model: str):
    stage = other(model)
    outcome = stage.run(source_of(model))
    assert outcome.error is None
    assert stage.first_divergence(outcome) == ""
    assert len(outcome.tensors) > 60
    assert list(outcome.tensors)[-1] == list(stage.truth)[-1]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_differs_first_where_it_is_said_to(mutant: Mutant):
    stage = other(mutant.model)
    assert stage.first_divergence(stage.run(source_of(mutant.model, mutant))) == mutant.first


def test_there_are_twelve_of_each_and_their_causes_are_in_the_catalogue():
    named = [mutant for mutant in MUTANTS if mutant.first]
    assert all(sum(mutant.model == model for mutant in named) >= 12 for model in MODELS)
    assert {cause for mutant in named for cause in mutant.causes} <= set(CAUSES)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_how_well_one_is_read_is_counted():
    counts = reading.count_other(next(mutant for mutant in MUTANTS if mutant.first))
    assert counts["mutants"] == counts["read"] == counts["line among three"] == 1


@pytest.mark.parametrize(
    "name", ["bart-cross-attention-of-the-first-text", "bart-encoder-hands-on-its-first-token"]
)
def test_a_helper_that_is_right_for_others_is_claimed_for_nothing_that_it_got(name: str):
    counts = reading.count_other(next(mutant for mutant in MUTANTS if mutant.name == name))
    assert counts["line first"] == 1
    assert counts["proved and wrong"] == 0
