"""How well mistakes are found: every mutant is run, and counted what is seen and named.

    python -m tools.mutation              # runs all, writes docs/part-4/kill-matrix.json, the page, and
                                          # llm_rebuild/diagnosis/measured.json, which a diagnosis quotes
    python -m tools.mutation --page       # writes the page from the figures that are there
    python -m tools.mutation --check      # exit 1 if the page or the sets are no longer those of the figures
    python -m tools.reading --write       # measures how well code is read, for the same page
    python -m tools.mutation --others     # counts the mistakes in models that the course does not rebuild
    python -m tools.mutation --of llama   # counts those of one set, and nothing else; of a blind one, too

Everything runs on the miniatures, on the texts of `mutants.TEXTS`, in one thread, and with the kernels of
tools/portable.py, so that another processor gives the same figures. The second set is measured
and not shown: its figures are sums over groups of causes, so that nobody can adapt the diagnosis to a mutant
of it.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import platform
import random
import re
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import llm_rebuild
from llm_rebuild import diagnosis
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis import mutants
from llm_rebuild.diagnosis.case import DEGREES, Level
from llm_rebuild.diagnosis.causes import CAUSES
from llm_rebuild.diagnosis.diagnose import Account, diagnose
from llm_rebuild.diagnosis.mutants import TEXTS, Mutant, Mutated, Scene
from llm_rebuild.models import RECORDS
from llm_rebuild.verify.compare import compare
from llm_rebuild.verify.run import judge
from tools import portable
from tools.mutants import READ, SETS, read_set, small
from tools.mutants.others import MODELS, other, source_of

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "part-4" / "kill-matrix.md"
FIGURES = PAGE.with_suffix(".json")
MISTAKES = PAGE.with_name("mistakes.md")
MEASURED = Path(diagnosis.__file__).with_name("measured.json")
MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"

BLIND = "second"
OPEN = tuple(name for name in SETS if name != BLIND)
TITLES = {record.published: record.title for record in RECORDS}
PAIRS = 120  # of the first set, drawn with seed 1
COMPUTED = {Level.EXACT.words, Level.ROUNDED.words}  # the wrong tensor was computed again
PLACES = 3  # so many explanations are shown


# --------------------------------------------------------------------------------- one mutant


@dataclass(frozen=True)
class Result:
    """What became of one mutant, or of two at once.

    mutants   The mistakes that were made; in the order of the data flow where there are two.
    first     The checkpoint that differs first; empty where none does.
    named     The causes that the diagnosis gives, the likeliest first.
    degrees   How well each of them is known.
    """

    mutants: tuple[Mutant, ...]
    first: str
    named: tuple[str, ...]
    degrees: tuple[str, ...]

    @property
    def caught(self) -> bool:
        return bool(self.first)

    @property
    def first_right(self) -> bool:
        return self.first == self.mutants[0].first

    @property
    def right(self) -> bool:
        """Whether the cause named first is the one, or, of two mistakes, the earlier one."""
        return bool(self.named) and self.named[0] in self.mutants[0].causes

    @property
    def computed(self) -> bool:
        """Whether the cause named first computes the wrong tensor again."""
        return bool(self.degrees) and self.degrees[0] in COMPUTED

    @property
    def among_three(self) -> bool:
        return bool(set(self.named[:3]) & set(self.mutants[0].causes))

    @property
    def either(self) -> bool:
        """Whether the cause named first is that of one of two mistakes."""
        return bool(self.named) and any(self.named[0] in mutant.causes for mutant in self.mutants)


def measure(*made: Mutant) -> Result:
    """Run a mutant, or two at once, and diagnose it as a person's rebuild would be.

    Raises ValueError where two change the same piece of source.
    """
    stage = scene(made[0].model, made[0].run, made[0].attention, made[0].kind)
    outcome = mutants.run(made, stage)
    found = diagnose(
        outcome.tensors,
        stage.truth,
        stage.copy,
        prompt=stage.prompt,
        account=Account(outcome.error, lambda: mutants.run(made, stage, seed=1).tensors),
    )
    return Result(
        tuple(sorted(made, key=lambda mutant: place(stage, mutant))),
        first_divergence(outcome, stage),
        tuple(likely.cause for likely in found),
        tuple(likely.degree for likely in found),
    )


def first_divergence(outcome: Mutated, stage: Scene) -> str:
    """The first checkpoint that is missing or not bit-identical; empty where all are.

    What comes after it is not measured: that would take longer than all the rest.
    """
    kept = {}
    for name, official in stage.truth.items():
        if name not in outcome.tensors:
            break
        kept[name] = outcome.tensors[name]
        if not compare(kept[name], official):
            break
    first = judge(kept, stage.truth).first_divergence
    return "" if first is None else first.name


@functools.cache
def scene(model: str, run: str, attention: str, kind: str = "") -> Scene:
    """The official tensors of one run, made once."""
    return mutants.scene(*played_on(model, kind, run, attention))


def played_on(model: str, kind: str, run: str, attention: str) -> tuple[Any, ...]:
    """What a scene is made of: a miniature and its texts, or a small model of a kind and rows of ids."""
    if kind:
        return small.copy_of(kind), run, attention, None, small.ROWS
    return LocalCopy(model, MINIATURES / model, "miniature"), run, attention, TEXTS[model]


def place(stage: Scene, mutant: Mutant) -> int:
    """Where among the checkpoints a mutant shows first."""
    names = list(stage.truth)
    return names.index(mutant.first) if mutant.first in names else len(names)


# ------------------------------------------------------------------------------------ the sets


def mistakes(name: str) -> tuple[Mutant, ...]:
    """The mutants of a set that change a number."""
    return tuple(mutant for mutant in read_set(name).mutants if not mutant.equivalent)


def harmless() -> tuple[Mutant, ...]:
    """Everything that must not be reported: refactorings, and mutants that change no number."""
    everything = (m for name in SETS for m in (*read_set(name).mutants, *read_set(name).refactorings))
    return tuple(mutant for mutant in everything if mutant.equivalent)


def unmutated() -> tuple[Mutant, ...]:
    """The rebuilds as they are, in every run and attention."""
    same = "from typing import NamedTuple"
    return tuple(
        Mutant(
            "as it stands", model, same, same, "", "", run=run, attention=attention, equivalent="unchanged"
        )
        for model in TITLES
        for attention in ("eager", "sdpa")
        for run in ("padded", "single", "cached")
        if not (model == "minilm" and run == "cached")
    )


def pairs(name: str) -> tuple[tuple[Mutant, Mutant], ...]:
    """Two mistakes at once: as the set's file has them, or, where it has none, drawn by chance."""
    pool = mistakes(name)
    if written := read_set(name).pairs:
        by_name = {mutant.name: mutant for mutant in pool}
        return tuple((by_name[a], by_name[b]) for a, b in written)
    draw, drawn = random.Random(1), []
    while len(drawn) < PAIRS:
        a, b = draw.sample(pool, 2)
        alike = (a.model, a.run, a.attention) == (b.model, b.run, b.attention)
        if alike and a.first != b.first and _fit_together(a, b):
            drawn.append((a, b))
    return tuple(drawn)


def _fit_together(a: Mutant, b: Mutant) -> bool:
    """Whether both changes can be made to the same source."""
    if a.source != b.source:
        return True
    source = (PROJECT / "llm_rebuild" / "models" / f"{a.source}.py").read_text(encoding="utf-8")
    try:
        mutants.changed(mutants.changed(source, a), b)
    except ValueError:
        return False
    return True


def digest() -> str:
    """A fingerprint of all sets: other mutants, other figures."""
    everything = [part for name in SETS for part in (read_set(name).mutants, read_set(name).refactorings)]
    everything.append(pairs(BLIND))
    return hashlib.sha256(repr(everything).encode()).hexdigest()


def others() -> dict[str, dict[str, int]]:
    """Mistakes in models that the course does not rebuild: of each model how many, caught, first in place."""
    counted = {model: {"mutants": 0, "caught": 0, "first_right": 0} for model in MODELS}
    for mutant in mistakes("others"):
        stage, count = other(mutant.model), counted[mutant.model]
        first = stage.first_divergence(stage.run(source_of(mutant.model, mutant)))
        count["mutants"] += 1
        count["caught"] += bool(first)
        count["first_right"] += first == mutant.first
    return counted


def counts_of(name: str) -> dict[str, Any]:
    """How well the mistakes of a set are named, one and two at once, in sums alone."""
    results = [measure(mutant) for mutant in mistakes(name)]
    labelled = [result for result in results if result.mutants[0].causes]
    together = [measure(*pair) for pair in pairs(name)]
    return {
        "mutants": len(results),
        "caught": sum(result.caught for result in results),
        "first_right": sum(result.first_right for result in results),
        "with_a_cause": len(labelled),
        "named": sum(result.right for result in labelled),
        "among_three": sum(result.among_three for result in labelled),
        "pairs": _of_pairs(together),
    }


# --------------------------------------------------------------------------------- the figures


def figures() -> dict[str, Any]:
    """Run everything. JSON-ready."""
    results = {name: [measure(mutant) for mutant in mistakes(name)] for name in SETS}
    sets = {name: _of_set(name, of) for name, of in results.items()}
    return {
        "written_by": "python -m tools.mutation",
        "sets_sha256": digest(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__.partition("+")[0],
            "transformers": metadata.version("transformers"),
            "llm_rebuild": llm_rebuild.__version__,
        },
        "sets": sets,
        "degrees": _of_degrees(result for of in results.values() for result in of),
        "pairs": {name: _of_pairs([measure(*pair) for pair in pairs(name)]) for name in ("first", BLIND)},
        "harmless": {
            "equivalent": _reported(m for name in SETS for m in read_set(name).mutants if m.equivalent),
            "refactorings": _reported(m for name in SETS for m in read_set(name).refactorings),
            "unmutated": _reported(unmutated()),
        },
        "equivalent": [
            {"name": m.name, "reason": m.equivalent}
            for name in SETS
            for m in read_set(name).mutants
            if m.equivalent
        ],
    }


def _of_set(name: str, results: Sequence[Result]) -> dict[str, Any]:
    sure = [result for result in results if result.computed]
    counted = {
        "mutants": len(results),
        "caught": sum(result.caught for result in results),
        "first_right": sum(result.first_right for result in results),
        "named": sum(result.right for result in results),
        "among_three": sum(result.among_three for result in results),
        "sure": [sum(result.right for result in sure), len(sure)],
    }
    if name == BLIND:
        groups_of = {cause: group for group, causes in groups().items() for cause in causes}
        counted["groups"] = _counts((groups_of[r.mutants[0].causes[0]], r) for r in results)
        return counted
    counted["causes"] = {
        model: _counts((r.mutants[0].causes[0], r) for r in results if r.mutants[0].model == model)
        for model in TITLES
    }
    counted["otherwise"] = [
        {"name": r.mutants[0].name, "cause": r.mutants[0].causes[0], "named": list(r.named)}
        for r in results
        if not r.right
    ]
    return counted


def _of_degrees(results: Iterable[Result]) -> dict[str, list[list[int]]]:
    """Of each degree, in how many cases the cause in the first place was right, in the second, the third,
    and in how many there was one of this degree."""
    degrees = {words: [[0, 0] for _ in range(PLACES)] for words in DEGREES.values()}
    for result in results:
        for at, (cause, degree) in enumerate(zip(result.named, result.degrees, strict=True)):
            degrees[degree][at][0] += cause in result.mutants[0].causes
            degrees[degree][at][1] += 1
    return degrees


def _counts(results: Iterable[tuple[str, Result]]) -> dict[str, list[int]]:
    """How many were named and how many made, by whatever they are sorted by."""
    counts: dict[str, list[int]] = {}
    for key, result in results:
        count = counts.setdefault(key, [0, 0])
        count[0] += result.right
        count[1] += 1
    return counts


def _of_pairs(results: Sequence[Result]) -> dict[str, int]:
    return {
        "pairs": len(results),
        "first_right": sum(result.first_right for result in results),
        "named": sum(result.right for result in results),
        "either": sum(result.either for result in results),
    }


def _reported(kept: Iterable[Mutant]) -> list[int]:
    """How many of these are reported, though they change no number; and of how many."""
    results = [measure(mutant) for mutant in kept]
    return [sum(result.caught or bool(result.named) for result in results), len(results)]


# ------------------------------------------------------------------------------------ the page

HEAD = """\
# How well mistakes are found

A tool that claims to name mistakes has to be measured like any other. So {made} mistakes were made on
purpose, and for each it was asked: was it caught, was it first seen where it was made, and was its cause
named?
{{ .lead }}

A *mutant* is one of the three rebuilds with a mistake in its source: a line changed as a person would get
it wrong, not a switch that was built in for the purpose. It runs on the miniature of its model, is compared
with the official model, and goes through the same diagnosis as your own rebuild. The mistakes are those of
the [catalogue](mistakes.md).

## The figures

{figures}

*Caught* means that some checkpoint is not bit-identical. *First divergence right* means that the first one
which differs is the one that the mutant's label says. In the first set the labels were read off the source,
before any run; in the third they were found by running, so there this line says no more than that nothing has
changed since. *Cause named first* means that the diagnosis begins with the right one of {causes} causes;
where two of them describe the same numbers, either counts.

A diagnosis says how well it knows what it says. How often the cause named first was right, over all three
sets:

{degrees}

These shares are what a diagnosis gives as its `confidence`; no other number is behind it.

<figure markdown>
<div class="figure-scroll" markdown="0">
--8<-- "docs/figures/degrees.svg"
</div>
<figcaption markdown="span">The same table to scale. Most of what is said is proved; the red ends are what
was wrong.</figcaption>
</figure>

{reading}## Three sets, and why

The **first** set was written together with the catalogue: each mistake in every model in which it can be
made. The diagnosis was developed with it, so it says how far the diagnosis got, not how good it is.

The **second** set measures. It was written from the sources of the models and from what people report who
ported them, by someone who had not seen the tables of the diagnosis, and a good part of it are odd
forms: one block only, one row only, a right sum over a wrong count. Its mutants can be read in the source;
which of them fail, and what was said instead, is written nowhere. This page gives sums over groups of causes
and nothing else, and the diagnosis was never adapted to one of them. It is the figure to quote.

The **third** set comes from elsewhere: from other models, other libraries and half-made changes. It was
added late, to see what the first two had not thought of, and then used for development like the first.

## Two at once

A rebuild in progress has more than one mistake. Pairs of the first set were drawn by chance; those of the
second stand in its file. The diagnosis looks at the first divergence, so the cause that counts is the
earlier one in the order of the data.

{pairs}

## No false alarms

{harmless}

A refactoring is a change that keeps the numbers: renamed variables, independent steps in another order,
`einsum` for a product.

## Which mistakes, in which model

How many mutants of a cause were named, of how many that were made. In the columns of the models are the
first and the third set together; in the last column is the second set, over all models and by group only. A
mutant with two causes stands at the first of them. No number means that the mistake was not made there; in
most cases the model has nothing to make it with.

<figure markdown>
<div class="figure-scroll" markdown="0">
--8<-- "docs/figures/kill-groups.svg"
</div>
<figcaption markdown="span">The last column as squares, one for each mutant of the second set: green was
named first.</figcaption>
</figure>

<div class="kill-matrix" markdown>

{matrix}

</div>

## What was said instead

{otherwise}

## Mutants that change nothing

{equivalent} mutants look like mistakes and change no number, on these inputs or at all. They are not
counted above, and the tests make sure that they are not reported either.

| mutant | why nothing changes |
|---|---|
{equivalents}

## What the figures do not say

They are about miniatures: the same architectures, trained, but of three blocks and a width of less than a
hundred. They are about one input for each model, two short texts with padding. They are about single
changed lines in a good rebuild, while a first draft is wrong in many ways at once; the pairs go only a step
in that direction. And mutants are written by people who know the models well. A mistake that nobody here
has thought of is in no set. If you make one, [tell us](../contributing/index.md).

??? made-with "Made with"

    Python {python}, torch {torch}, transformers {transformers}, llm_rebuild {llm_rebuild}, one thread. The
    figures are in `docs/part-4/kill-matrix.json`; `python -m tools.mutation` measures them again and writes
    them and this page, and `python -m tools.reading --write` what is read.
"""


READING = """\
## The line

Where the code can be run, it is read, too: which line it is, and what puts it right. A line counts as right
where it is the changed one or stands within two of it, for where a line was taken out, its neighbour is
all that is left. A repair is proved where the code ran once more with it and the checkpoint was then right;
it is proved *of a line* where the value that was put right did not come to that line from elsewhere. Other
spellings, which only round, are not counted here.

{reading}

A row marked *blind* was counted before anybody who works on the reading had seen which mistakes of its set
are missed; the row without the word, after that.

The sets from the **fourth** on are in other people's handwriting: norms and softmaxes by hand, letters
of `einsum`, slips in place, a function that returns the wrong thing. They were written by somebody who had
seen neither the guesses nor how code is read, and opened when they had measured. Of the seventh and the
eighth both rows stand here, of the others only the later one. Of the **second** set, too, the missed lines
have been seen since, among those of all sets; no rule was made for any of them. What was missed of its
names has never been looked at.

"""


def page(found: dict[str, Any]) -> str:
    """The page, as Markdown."""
    sets = found["sets"]
    mutants_made = sum(sets[name]["mutants"] for name in SETS)
    return HEAD.format(
        made=mutants_made,
        causes=len(CAUSES),
        figures=_table_of_sets(sets),
        degrees=_table_of_degrees(found["degrees"]),
        reading=_reading(found.get("reading", {})),
        pairs=_table_of_pairs(found["pairs"]),
        harmless=_table_of_harmless(found["harmless"]),
        matrix=_matrix(sets),
        otherwise=_otherwise(sets),
        equivalent=len(found["equivalent"]),
        equivalents="\n".join(f"| `{e['name']}` | {e['reason']} |" for e in found["equivalent"]),
        **found["versions"],
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _of(part: int, whole: int) -> str:
    return f"{part} ({_share(part, whole)})"


def _table_of_sets(sets: dict[str, Any]) -> str:
    rows = (
        ("caught", "caught"),
        ("first divergence right", "first_right"),
        ("cause named first", "named"),
        ("cause among the first three", "among_three"),
    )
    lines = ["| of the mutants | first set | second set | third set |", "|---|---|---|---|"]
    lines.append(f"| mutants | {' | '.join(str(sets[name]['mutants']) for name in SETS)} |")
    for title, key in rows:
        cells = [_of(sets[name][key], sets[name]["mutants"]) for name in SETS]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table_of_degrees(degrees: dict[str, list[list[int]]]) -> str:
    lines = ["| degree | first explanations | right |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {d} | {of[0][1]} | {_of(*of[0])} |" for d, of in degrees.items())])


def _reading(counts: dict[str, dict[str, int]]) -> str:
    """The section about lines; empty where they were not measured."""
    return READING.format(reading=_table_of_reading(counts)) if counts else ""


def _table_of_reading(counts: dict[str, dict[str, int]]) -> str:
    columns = {
        "the line, shown first": "line first",
        "… among three": "line among three",
        "a repair proved": "repair proved",
        "… of a line": "proved of a line",
        "… of a wrong line": "proved and wrong",
    }
    titles = ["set", "mutants", *columns, "the cause named first, by code and tensors together"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name in (name for of in READ for name in (f"{of}, blind", of) if name in counts):
        of = counts[name]
        named = of.get("named first with reading")  # of those that the catalogue has a name for
        cells = [name, str(of["mutants"]), *(_of(of.get(key, 0), of["mutants"]) for key in columns.values())]
        lines.append(f"| {' | '.join(cells)} | {'–' if named is None else _of(named, of['with a cause'])} |")
    return "\n".join(lines)


def _table_of_pairs(found: dict[str, Any]) -> str:
    rows = (
        ("first divergence right", "first_right"),
        ("the earlier cause named first", "named"),
        ("one of the two causes named first", "either"),
    )
    lines = ["| of the pairs | pairs of the first set | pairs of the second set |", "|---|---|---|"]
    lines.append(f"| pairs | {' | '.join(str(found[name]['pairs']) for name in ('first', BLIND))} |")
    for title, key in rows:
        cells = [_of(found[name][key], found[name]["pairs"]) for name in ("first", BLIND)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table_of_harmless(found: dict[str, Any]) -> str:
    titles = {
        "unmutated": "rebuilds as they are, in every run and attention",
        "refactorings": "refactorings",
        "equivalent": "mutants that change nothing",
    }
    lines = ["| what was held against it | tried | reported |", "|---|---|---|"]
    lines += [f"| {title} | {found[key][1]} | {found[key][0]} |" for key, title in titles.items()]
    return "\n".join(lines)


def _matrix(sets: dict[str, Any]) -> str:
    models = [model for model in TITLES if any(sets[name]["causes"].get(model) for name in OPEN)]
    lines = [
        "| cause | " + " | ".join(TITLES[model] for model in models) + " | second set |",
        "|---" * (len(models) + 2) + "|",
    ]
    for group, causes in groups().items():
        rows = []
        for cause in causes:
            cells = [
                _cell(sets[name]["causes"][model].get(cause, [0, 0]) for name in OPEN) for model in models
            ]
            if any(cells):
                rows.append(f"| [{cause}](mistakes.md#{cause}) | {' | '.join(cells)} | |")
        if rows:
            of_group = [
                _cell(sets[name]["causes"][model].get(cause, [0, 0]) for name in OPEN for cause in causes)
                for model in models
            ]
            blind = _cell([sets[BLIND]["groups"].get(group, [0, 0])])
            lines += [f"| **{group}** | {' | '.join(of_group)} | {blind} |", *rows]
    return "\n".join(lines)


def _cell(counts: Iterable[Sequence[int]]) -> str:
    right, made = (sum(numbers) for numbers in zip(*counts, strict=True))
    if not made:
        return ""
    kind = "all" if right == made else "some" if right else "none"
    return f"<span class='{kind}'>{right}/{made}</span>"


def _otherwise(sets: dict[str, Any]) -> str:
    missed = [entry for name in OPEN for entry in sets[name]["otherwise"]]
    if not missed:
        return "In the first and the third set every cause was named first."
    count = "one mutant" if len(missed) == 1 else f"{len(missed)} mutants"
    lines = [
        f"In {count} of the first and the third set another cause came first. All that was named:",
        "",
        "| mutant | cause | named |",
        "|---|---|---|",
    ]
    for entry in missed:
        named = ", ".join(f"[{cause}](mistakes.md#{cause})" for cause in entry["named"]) or "nothing"
        lines.append(f"| `{entry['name']}` | [{entry['cause']}](mistakes.md#{entry['cause']}) | {named} |")
    return "\n".join(lines)


def groups() -> dict[str, list[str]]:
    """The causes by the headings of the page of mistakes."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in MISTAKES.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## (.*?)(?: \{.*\})?$", line):
            title = heading[1]
        elif (section := re.match(r"### .*\{ #([\w-]+) \}$", line)) and section[1] in CAUSES:
            found.setdefault(title, []).append(section[1])
    return found


# ---------------------------------------------------------------------------------------- main


def committed() -> dict[str, Any]:
    """The figures as they were last measured."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def write(found: dict[str, Any]) -> None:
    """The figures, and the page that they give."""
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")


def stale() -> list[str]:
    """What is wrong with the committed page and figures; empty where they belong together."""
    found = committed()
    wrong = []
    if found["sets_sha256"] != digest():
        wrong.append("the mutants are no longer those that were measured; run `python -m tools.mutation`")
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page(found):
        wrong.append(f"{PAGE.name} is not what the figures give; run `python -m tools.mutation --page`")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write the page from the figures that are there")
    parser.add_argument("--check", action="store_true", help="compare the page with the figures, run nothing")
    parser.add_argument("--others", action="store_true", help="count those in models without a rebuild")
    parser.add_argument("--of", metavar="SET", help="count those of one set, and print no names")
    given = parser.parse_args()
    if given.of:
        portable.need("tools.mutation")
        torch.set_num_threads(1)
        print(json.dumps(counts_of(given.of), indent=1))
        return 0
    if given.others:
        for model, of in others().items():
            print(f"{model}: of {of['mutants']} {of['caught']} caught, {of['first_right']} first in place")
        return 0
    if given.check:
        wrong = stale()
        print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
        return 1 if wrong else 0
    if not given.page:
        portable.need("tools.mutation")
        torch.set_num_threads(1)  # the miniatures are so small that a second thread costs more than it gives
        start = time.monotonic()
        measured = figures() | {"reading": committed().get("reading", {})}
        write(measured)
        quoted = {key: measured[key] for key in ("written_by", "sets_sha256", "degrees")}
        MEASURED.write_text(json.dumps(quoted, indent=1) + "\n", encoding="utf-8")
        print(f"measured in {time.monotonic() - start:.0f} s")
    found = committed()
    PAGE.write_text(page(found), encoding="utf-8")
    for name in SETS:
        of = found["sets"][name]
        print(
            f"{name}: of {of['mutants']} mutants {of['caught']} caught, {of['first_right']} first in place,"
        )
        print(f"  {_of(of['named'], of['mutants'])} named")
    return 0


if __name__ == "__main__":
    sys.exit(main())
