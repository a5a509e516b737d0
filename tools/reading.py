"""How well a person's code is read: every mutant is run and read, and its line looked for among those shown.

    python -m tools.reading [SET …]             prints the counts of the sets as JSON; of blind ones, too
    python -m tools.reading others             the same of mistakes in models that the course does not rebuild
    python -m tools.reading --write [SET …]     puts them into docs/part-4/kill-matrix.json and on the page

A line counts as right where it is the changed one or within two of it: where a line was taken out, its
neighbour is all that is left to point at. A repair that was proved of another line counts as wrong; of one
that is proved, and of no line, there are only candidates.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import llm_rebuild
from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.diagnose import Account
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.diagnosis.graph import World
from llm_rebuild.diagnosis.mutants import Mutant, Scene
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.diagnosis.reading.read import OfficialRun, read
from llm_rebuild.diagnosis.reading.result import Line, Reading
from llm_rebuild.verify.capture import trace_of
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.proof import Proof
from llm_rebuild.verify.question import Question
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.run import judge
from tools import mutation, portable
from tools.mutants import READ
from tools.mutants.others import FILE, other, source_of

PACKAGE = Path(llm_rebuild.__file__).parent
NEAR = 2  # lines

Changed = set[tuple[str, int]]


@functools.cache
def stage(model: str, kind: str, run: str, attention: str) -> tuple[Scene, OfficialRun]:
    """A scene, and the official run beside which one reads."""
    copy, *how = mutation.played_on(model, kind, run, attention)
    official = Official(copy.folder, attention)
    scene = mutants.scene(copy, *how, official=official)
    traced = trace_of(scene.truth, copy, scene.prompt, official)
    return scene, OfficialRun.of(scene.truth, copy, scene.prompt, traced)


@functools.cache
def graph(model: str, kind: str, run: str, attention: str) -> World:
    """The graph of a scene's run."""
    scene, _ = stage(model, kind, run, attention)
    return world_of(scene.truth, scene.copy, scene.prompt)


def readings(made: Sequence[Mutant]) -> tuple[Reading, ...]:
    """What is read of a rebuild with these mistakes in it."""
    scene, official = stage(made[0].model, made[0].kind, made[0].run, made[0].attention)
    with mutants.mutated(made) as module:
        return read(lambda tap: scene.play(module, tap), official, lambda file: file.endswith(", changed>"))


def explained(made: Sequence[Mutant], found: Sequence[Reading]) -> Report:
    """What a person is told of a rebuild with these mistakes: by its tensors and what was read together."""
    where = made[0].model, made[0].kind, made[0].run, made[0].attention
    scene, _ = stage(*where)
    outcome = mutants.run(made, scene)
    question = Question(scene.copy, scene.truth.inputs, scene.truth.attention)
    proof = Proof(question, judge(outcome.tensors, scene.truth), scene.truth, outcome.tensors)
    account = Account(outcome.error, lambda: mutants.run(made, scene, seed=1).tensors)
    return explain(proof, world=partial(graph, *where), account=account, readings=found).report


def changed_lines(made: Sequence[Mutant], of: Mutant) -> Changed:
    """The lines of the changed file in which one of the mistakes stands."""
    source = (PACKAGE / "models" / f"{of.source}.py").read_text(encoding="utf-8")
    others = [mutant for mutant in made if mutant.source == of.source and mutant is not of]
    before = functools.reduce(mutants.changed, others, source)
    return between(before, mutants.changed(before, of), f"<{of.source}.py, changed>")


def between(before: str, after: str, file: str) -> Changed:
    """The lines in which two sources differ, as the second has them."""
    lines: Changed = set()
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    for tag, _, _, start, end in matcher.get_opcodes():
        if tag != "equal":
            lines |= {(file, n + 1) for n in range(start, max(end, start + 1))}
    return lines


def near(line: Line | None, changed: Changed) -> bool:
    """Whether a line is one of those, or as good as one."""
    return line is not None and any(
        line.file == file and abs(line.number - number) <= NEAR for file, number in changed
    )


def count(made: Sequence[Mutant]) -> Counter[str]:
    """What is read of one mutant, or of two at once: of these the one that shows first is to be named."""
    scene, _ = stage(made[0].model, made[0].kind, made[0].run, made[0].attention)
    made = sorted(made, key=lambda mutant: mutation.place(scene, mutant))
    found = readings(made)
    return counted(made, found, [changed_lines(made, m) for m in made], explained(made, found))


def count_other(mutant: Mutant) -> Counter[str]:
    """What is read of one in a model that the course does not rebuild."""
    stage, source = other(mutant.model), source_of(mutant.model, mutant)
    official = OfficialRun.of(stage.truth, stage.copy)
    found = read(lambda tap: stage.play(source, tap), official, lambda file: file == FILE)
    outcome = stage.run(source)
    truth = replace(stage.truth, tensors={n: t for n, t in stage.truth.tensors.items() if n in stage.tapped})
    question = Question(stage.copy, truth.inputs, truth.attention)
    proof = Proof(question, judge(outcome.tensors, truth), truth, outcome.tensors)
    report = explain(proof, account=Account(outcome.error), readings=found).report
    changed = between(source_of(mutant.model), source, FILE)
    return counted([mutant], found, [changed], report)


def counted(
    made: Sequence[Mutant], found: Sequence[Reading], changes: Sequence[Changed], report: Report
) -> Counter[str]:
    """How right it is, what was read and told of them."""
    everywhere = set().union(*changes)
    lines = found[0].lines if found else ()
    repairs = [repair for reading in found[:1] for repair in reading.repairs]
    claimed = [repair.line for reading in found for repair in reading.repairs if repair.line is not None]
    shown = [line for reading in found for line in reading.lines]
    told = [diagnosis.cause for diagnosis in report.mistakes or report.diagnosis]
    return Counter(
        {
            "mutants": 1,
            "with a cause": bool(made[0].causes),
            "named first with reading": told[:1] != [] and told[0] in made[0].causes,
            "read": bool(found),
            "first checkpoint": bool(found) and found[0].checkpoint in {mutant.first for mutant in made},
            "line among three": any(near(line, everywhere) for line in lines),
            "line first": bool(lines) and near(lines[0], everywhere),
            "repair proved": bool(repairs),
            "proved of a line": any(repair.line is not None for repair in repairs),
            "proved and wrong": any(not near(line, everywhere) for line in claimed),
            "written as a line": any(repair.after for repair in repairs),
            "both lines": all(any(near(line, lines) for line in shown) for lines in changes),
        }
    )


def rounding(mutant: Mutant) -> bool:
    """Whether a mutant is only another spelling, of which nothing is to be said."""
    return mutant.causes == ("rounding",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("sets", nargs="*", default=READ)
    parser.add_argument("--pairs", action="store_true", help="two mistakes at once of these sets, too")
    parser.add_argument("--harmless", action="store_true", help="what must not be reported")
    parser.add_argument("--write", action="store_true", help="into the figures of the page, which is written")
    options = parser.parse_args()
    portable.need("tools.reading")
    counts: dict[str, Counter[str]] = {}
    for name in options.sets:
        made = [mutant for mutant in mutation.mistakes(name) if not rounding(mutant)]
        one = count_other if name == "others" else lambda mutant: count([mutant])
        counts[name] = sum(map(one, made), Counter())
    if options.pairs:
        for name in options.sets:
            counts[f"{name}, pairs"] = sum((count(pair) for pair in mutation.pairs(name)), Counter())
    if options.harmless:
        everything = (*mutation.harmless(), *mutation.unmutated())
        reported = sum(bool(readings([mutant])) for mutant in everything)
        counts["harmless"] = Counter({"rebuilds": len(everything), "reported": reported})
    print(json.dumps(counts, indent=1))
    if options.write:
        figures = mutation.committed()
        figures["reading"] = {**figures.get("reading", {}), **counts}
        mutation.write(figures)


if __name__ == "__main__":
    main()
