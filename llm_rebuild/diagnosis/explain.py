"""A proof explained: which step is to blame, whether that is rounding, and which mistake it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import aligned, plain
from llm_rebuild.diagnosis.diagnose import PLAIN, Account, of_first, of_others, with_readings
from llm_rebuild.diagnosis.exact import exact
from llm_rebuild.diagnosis.graph import World
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.diagnosis.reading.read import OfficialRun, read
from llm_rebuild.diagnosis.reading.result import Reading
from llm_rebuild.verify import proof as verification
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import MISSING, WRONG_VALUES, Verdict
from llm_rebuild.verify.divergence import describe
from llm_rebuild.verify.proof import Proof
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.rounding import ROUNDING, Rounding
from llm_rebuild.verify.run import judge, run_rebuild


def prove(*question: Any, **options: Any) -> Proof:
    """As `llm-rebuild verify`: the official model and the rebuild on the same input, every checkpoint
    compared, and where they part, which step is to blame and which mistake it may be.

    The arguments are those of `llm_rebuild.verify.prove`. The answer's `report` is what the command line
    prints; `truth` and `rebuilt` are the tensors of both sides. Raises InputError for input that cannot be
    used.
    """
    proof = verification.prove(*question, **options)
    return explain(proof, readings=read_rebuild(proof))


def read_rebuild(proof: Proof) -> tuple[Reading, ...]:
    """What the course's rebuild does otherwise than the official model, by its lines; empty where nothing
    differs, and in another type than float32. It is run a few times more in this process."""
    question = proof.question
    if proof.report.exact or question.goes_on or (question.dtype, question.device) != ("float32", "cpu"):
        return ()
    folder = Path(str(question.rebuild.module.__file__)).parent
    official = OfficialRun.of(proof.truth, question.copy)

    def own(file: str) -> bool:
        """The models' files, and what has none: a function from a prompt, a mutant."""
        return Path(file).parent == folder or (file[:1] == "<" and not file.startswith("<frozen"))

    try:
        return read(lambda tap: run_rebuild(question, tap), official, own)
    except Exception:  # a report does without the lines of what cannot be read
        return ()


def explain(
    proof: Proof,
    *,
    world: Callable[[], World] | None = None,
    account: Account = PLAIN,
    unfinished: bool = False,
    readings: Sequence[Reading] = (),
) -> Proof:
    """The same proof; where the two sides part, its report has the blame, the rounding and, in float32, the
    diagnosis.

    world       The graph of the run, where it is not to be read off, or goes on from keys and values.
    account     What is known of the person's run beside its tensors.
    unfinished  Whether checkpoints that are not there are still to come, and no divergence.
    readings    What was read of the person's code.
    """
    report, truth, copy = proof.report, proof.truth, proof.question.copy
    counted = [v for v in report.verdicts if not (unfinished and v.verdict == MISSING)]
    if all(verdict.identical for verdict in counted):
        return proof
    tensors = proof.rebuilt.items()
    rebuilt = {name: aligned(plain(tensor, f"the rebuilt {name} is")) for name, tensor in tensors}
    if account.fed:  # what single steps were given is official
        rebuilt = {**truth.tensors, **rebuilt}
    graph = world() if world else world_of(truth, copy)
    rounding = report.rounding or exact(graph, rebuilt, truth, fed=account.fed)
    asked = {verdict.name for verdict in counted}  # of a dump, or an unfinished rebuild, what it has
    known = {n: t for n, t in graph.tensors.items() if n in asked or n not in truth.tensors}
    inputs_of = replace(graph, tensors=known).inputs_of if graph.formulas else None
    diagnoses = of_first(rebuilt, truth, graph, account) if truth.dtype == "float32" else ()
    others = of_others(rebuilt, truth, graph, rounding, diagnoses[0], readings) if diagnoses else ()
    harmless = bool(diagnoses) and diagnoses[0].cause == "rounding"
    mistakes = with_readings(others if harmless else (*diagnoses[:1], *others), readings, graph)
    first = [mistake for mistake in mistakes if diagnoses and mistake.seen == diagnoses[0].seen]
    shown = (*mistakes[:1], *diagnoses) if harmless else (*first[:1], *diagnoses[len(first[:1]) :])
    report = replace(
        report,
        verdicts=with_rounding(report.verdicts, rounding),
        first_divergence=describe(with_rounding(counted, rounding), truth, inputs_of),
        rounding=rounding,
        diagnosis=shown[:3],
        mistakes=mistakes,
    )
    return replace(proof, report=report)


def judge_steps(
    rebuilt: Mapping[str, Tensor],
    truth: Capture,
    world: Callable[[], World],
    *,
    fed: bool = False,
) -> Report:
    """As `verify.judge`, and what is rounding is shown to be it. There is no diagnosis.

    world  The graph of the run. It is asked for where something differs.
    fed    Whether each tensor was computed from official ones, and not from the person's others.
    """
    report = judge(rebuilt, truth)
    if all(verdict.verdict != WRONG_VALUES for verdict in report.verdicts):
        return report
    rounding = exact(world(), rebuilt, truth, fed=fed)
    return replace(report, verdicts=with_rounding(report.verdicts, rounding), rounding=rounding)


def with_rounding(verdicts: Sequence[Verdict], rounding: Rounding) -> tuple[Verdict, ...]:
    """The verdict `rounding` where a difference that is too large for five decimals was shown to be it."""
    return tuple(
        replace(v, verdict=ROUNDING) if v.verdict == WRONG_VALUES and rounding.kind(v.name) == ROUNDING else v
        for v in verdicts
    )
