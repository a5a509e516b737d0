"""No report contradicts itself: what is said of the place, of the numbers and of the cause fits together."""

from __future__ import annotations

from functools import partial

import pytest

from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.diagnose import Account
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.diagnosis.mutants import Mutant
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.show.results import text
from llm_rebuild.verify import Proof, Question, Report, judge
from tools import mutation

BLIND = (mutation.BLIND,)

# Never in one report.
RIVALS = (
    ("rounding, no mistake", "the mistake is made here"),
    ("its inputs are right", "differs already"),
    ("its inputs are right", "went in instead of"),
    ("what belongs into it differs already", "bit-identical: the difference arises here"),
    ("could it be that", "(proved"),
    ("Nothing is wrong.", "the mistake is made here"),
)


def contradictions(report: Report) -> list[str]:
    """What does not fit together in a report."""
    found = []
    shown = " ".join(text(report).split())
    found += [f"{one!r} beside {other!r}" for one, other in RIVALS if one in shown and other in shown]
    for said in report.mistakes:
        proved = said.degree.startswith("proved")
        found += ["a proof without a computation"] if proved and "Computed" not in said.evidence else []
        to_the_bit = said.degree == "proved"
        rounded = "but for rounding" in said.evidence.partition("is yours")[2]
        found += ["to the bit, but for rounding"] if proved and to_the_bit == rounded else []
        asks = "?" in said.did or said.cause == "unknown"
        found += ["a question that is said"] if said.asked and not asks else []
        found += ["itself, too"] if said.checkpoint in said.also else []
    first = report.first_divergence
    assert first is not None
    missing = {verdict.name for verdict in report.verdicts if verdict.verdict == "missing"}
    found += ["what is missing differs"] if missing & set(first.differing) else []
    harmless = report.rounding is not None and report.rounding.kind(first.name) == "rounding"
    accused = [said.seen for said in report.mistakes] if harmless else []
    found += ["a mistake where there is rounding"] if first.name in accused else []
    causes = [said.cause for said in report.mistakes]
    found += ["one mistake as two"] if len(causes) != len(set(causes)) else []
    return found


def reported(mutant: Mutant) -> Report:
    """What `verify` says of a rebuild with this mistake."""
    stage = mutation.scene(mutant.model, mutant.run, mutant.attention)
    outcome = mutants.run(mutant, stage)
    question = Question(stage.copy, stage.truth.inputs, mutant.attention)
    proof = Proof(question, judge(outcome.tensors, stage.truth), stage.truth, outcome.tensors)
    world = partial(world_of, stage.truth, stage.copy, stage.prompt)
    return explain(proof, world=world, account=Account(outcome.error)).report


@pytest.mark.parametrize("every", [25, pytest.param(5, marks=pytest.mark.weekly)])  # one of so many is run
@pytest.mark.parametrize("name", [name for name in mutation.SETS if name not in BLIND])
def test_no_report_contradicts_itself(name: str, every: int) -> None:
    made = mutation.mistakes(name)[::every]
    found = {mutant.name: said for mutant in made if (said := contradictions(reported(mutant)))}
    assert len(made) > 150 // every
    assert found == {}
