"""Right rebuilds in other handwritings (`handwriting` in tools/mutants/, and those of the sixth set, the
seventh and the eighth): never a mistake."""

from __future__ import annotations

import pytest

from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.diagnosis.mutants import TEXTS, Mutant
from llm_rebuild.verify import Proof, Report, ask, judge
from tools import portable
from tools.mutants import read_set
from tools.mutation import scene

EVERY = 3  # of so many ways one is run each time, all are once a week
WAYS = (
    *read_set("handwriting").mutants,
    *(way for name in ("sixth", "seventh", "eighth") for way in read_set(name).refactorings),
)


def report_of(way: Mutant) -> Report:
    stage = scene(way.model, way.run, way.attention)
    rebuilt = mutants.run(way, stage)
    assert rebuilt.error is None
    texts = TEXTS[way.model][:1] if way.run == "single" else TEXTS[way.model]
    question = ask(stage.copy, texts, attention=way.attention)
    proof = Proof(question, judge(rebuilt.tensors, stage.truth), stage.truth, rebuilt.tensors)
    return explain(proof).report


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(
            way,
            id=way.name,
            marks=[pytest.mark.weekly] if number % EVERY else [],
        )
        for number, way in enumerate(WAYS)
    ],
)
def test_it_is_right_and_at_most_rounded(way: Mutant):
    report = report_of(way)
    if portable.in_force():
        assert report.exact == (way.equivalent == "identical")
    if report.exact:
        assert report.diagnosis == ()
        return
    assert report.passed
    assert {diagnosis.cause for diagnosis in report.diagnosis} <= {"rounding"}
    assert report.rounding is None or set(report.rounding.kinds.values()) <= {"rounding"}


@pytest.mark.parametrize(
    ("piece", "ways"), [("norm", 10), ("softmax", 10), ("attention", 10), ("gelu", 10), ("pool", 8)]
)
def test_there_are_many_ways(piece: str, ways: int):
    of_model = [len([w for w in WAYS if w.name.startswith(f"{m}-right-{piece}")]) for m in ("minilm", "gpt2")]
    assert max(of_model) >= ways
    assert {way.equivalent for way in WAYS} == {"identical", "rounding"}
