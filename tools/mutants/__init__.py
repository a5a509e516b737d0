"""The sets of mutants, as data: a piece of source once (`-`), below it the mistakes made in it (`+`).

    @@ gpt2 gpt2.py                                  the model, and the source file that is changed
    - x = which + where                              what stands there, exactly once
    ## gpt2-positions-missing: positions-missing @ embeddings
    + x = which                                      what a person wrote instead

Behind a mutant's name may stand how it is run (`[cached]`, `[single]`), in which attention (`[sdpa]`), and in
which of Llama's relatives it can be made, one of small.KINDS (`[qwen3]`; the set `llama` in that one);
behind the colon the causes that may be named (`a | b`, where two of the catalogue's sentences describe the
same numbers; `-`, where none of them does), and the checkpoint that must be the first to differ. Where a
change alters no number, `= reason` stands there. `%% refactorings` begins those changes that nobody should
hear of, `%% pairs` the mistakes made two at once. A line that begins with a single `#` is for readers.

`handwriting` is a set, too, but not of mistakes: its reasons are `identical` and `rounding`, as are those of
the refactorings of the sixth set, the seventh and the eighth. `others` changes no rebuild of the course, but
the files in others/.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path

from llm_rebuild.diagnosis.mutants import SOURCES, Mutant
from tools.mutants.small import KINDS

SETS = ("first", "second", "third")
# These are read as code, too.
READ = (*SETS, "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh")

_HEAD = re.compile(r"## (?P<name>[\w-]+)(?P<how>(?: \[\w+\])*): (?P<what>.+)")
_RUNS = ("single", "cached")


@dataclass(frozen=True)
class MutantSet:
    """One file: its mutants, the refactorings, and the names of mutants that are made two at once."""

    mutants: tuple[Mutant, ...]
    refactorings: tuple[Mutant, ...]
    pairs: tuple[tuple[str, str], ...]


@functools.cache
def read_set(name: str) -> MutantSet:
    """A set by its name: `first`. Raises ValueError for a line that means nothing."""
    sections: dict[str, list[Mutant]] = {"mutants": [], "refactorings": []}
    pairs: list[tuple[str, str]] = []
    section, model, file, kind = "mutants", "", "", name if name in KINDS else ""
    before: list[str] = []
    after: list[str] = []
    head: re.Match[str] | None = None

    def finish() -> None:
        nonlocal head
        if head:
            made = _mutant(head, model, file, "\n".join(before), "\n".join(after))
            sections[section].append(replace(made, kind=made.kind or kind))
        head = None

    previous = ""
    lines = Path(__file__).with_name(f"{name}.diff").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if section == "pairs" and line:
            first, _, second = line.partition(" + ")
            pairs.append((first, second))
        elif line.startswith("%% "):
            finish()
            section = re.split(r"[ :]", line)[1]
        elif line.startswith("@@ "):
            finish()
            model, file = line.removeprefix("@@ ").removesuffix(".py").split()
        elif line.startswith("## ") and (match := _HEAD.fullmatch(line)):
            finish()
            head, after = match, []
        elif line == "-" or line.startswith("- "):
            finish()
            before = [*before, line[2:]] if previous.startswith("-") else [line[2:]]
        elif head and (line == "+" or line.startswith("+ ")):
            after.append(line[2:])
        elif line and line != "#" and not line.startswith("# "):
            raise ValueError(f"{name}.diff, line {number}: {line!r} is nothing that a set holds")
        previous = line
    finish()
    return MutantSet(tuple(sections["mutants"]), tuple(sections["refactorings"]), tuple(pairs))


def _mutant(head: re.Match[str], model: str, file: str, before: str, after: str) -> Mutant:
    """One entry as a mutant. A file that is the model's own is not named."""
    how = re.findall(r"\w+", head["how"])
    same, _, reason = head["what"].partition("= ")
    causes, _, first = ("", "", "") if reason and not same else head["what"].partition(" @ ")
    several = () if causes == "-" else tuple(causes.split(" | "))
    own = SOURCES.get(model, ())[-1:] == (file,)
    return Mutant(
        head["name"],
        model,
        before,
        after,
        several if len(several) != 1 else causes,
        first,
        None if own else file,
        attention="sdpa" if "sdpa" in how else "eager",
        kind=next((word for word in how if word in KINDS), ""),
        run=next((run for run in _RUNS if run in how), "padded"),
        equivalent=reason if not same else "",
    )
