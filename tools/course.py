"""The course in figures, from its pages: chapters, words, minutes, figures, exercises, solutions, objectives.

    python -m tools.course            writes the line below each chapter's title (where one is, how long it
                                      takes) and the table of objectives and exercises; prints the figures
    python -m tools.course --check    says what is out of date

A chapter says which part of the strategy it is: `<!-- course: build -->`. The menu says which model it is
about. An exercise begins with a line `*Objectives 1, 3 · medium · 15 minutes*`: the numbers are those of the
page's list of objectives. Minutes are reckoned: 100 words a minute, one minute a snippet, and what the
exercises say.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tools import fences, questions, terms
from tools.fences import is_chapter
from tools.notebooks import notebook_name

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
TABLE = DOCS / "reference" / "course.md"
PARTS = {"download": "download", "understand": "understand", "build": "build and verify", "traps": "traps"}
WORDS_A_MINUTE = 100
WIDTHS = (6, 8, 7, 9, 6, 8, 7)  # of the printed columns

MARK = re.compile(r"<!-- course: (?P<part>\w+) -->\n(?:.*\n)*?<!-- end -->", re.M)
BOX = re.compile(r'^(?P<indent> *)(?:!!!|\?\?\?\+?) (?P<kind>[\w-]+)(?: "(?P<title>.*)")?\s*$')
ABOUT = re.compile(
    r"^\*Objectives? (?P<numbers>[\d, ]+) · (?P<level>easy|medium|hard) · (?P<minutes>\d+) minutes?\*$"
)
CHECKED = re.compile(r'\b(?:check|grade)\("[\w-]+",|llm-rebuild check')


@dataclass
class Exercise:
    """One box `!!! exercise`. `graded`: a program checks its answer, or each of its answers replies."""

    title: str
    objectives: tuple[int, ...] = ()
    level: str = ""
    minutes: int = 0
    answers: int = 0
    solutions: int = 0
    checked: bool = False
    runs: bool = False  # code in its solution, which the tests run

    @property
    def tested(self) -> bool:
        """Whether what it gives as the answer is more than words: it runs, or each answer replies."""
        return self.runs or self.answers > 0

    @property
    def graded(self) -> bool:
        return self.checked or self.answers > 0


@dataclass
class Chapter:
    """One page of the course: its file, its section in the menu, and its part of the strategy."""

    file: Path
    section: str
    objectives: list[str] = field(default_factory=list)
    exercises: list[Exercise] = field(default_factory=list)

    @cached_property
    def page(self) -> fences.Page:
        return fences.read_page(self.file)

    @property
    def address(self) -> str:
        return self.file.relative_to(DOCS).as_posix()

    @property
    def title(self) -> str:
        return next(line[2:].strip() for line in self.page.lines if line.startswith("# "))

    @property
    def part(self) -> str | None:
        match = MARK.search("\n".join(self.page.lines))
        return match["part"] if match else None

    @property
    def snippets(self) -> int:
        return sum(not fence.hidden for fence in self.page.runnable)

    @property
    def figures(self) -> int:
        return sum(line.startswith("<figure") for line in self.page.lines)

    @property
    def widgets(self) -> int:
        """The figures that a reader can change."""
        return sum(line.startswith("<figure data-widget=") for line in self.page.lines)

    @property
    def words(self) -> int:
        """Of prose: without code, outputs, comments, addresses of links."""
        in_fences = {n for f in self.page.fences for n in range(f.first, f.last + 1)}
        prose = [line for n, line in enumerate(self.page.lines, start=1) if n not in in_fences]
        text = "\n".join(prose[fences.front_matter_end(self.page.lines) :])
        text = re.sub(r"<!--.*?-->|\]\([^)]*\)|<[^>]*>|\{[^}]*\}", "", text, flags=re.S)
        return len(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Words, snippets, figures, exercises, those that are graded, those with an answer, minutes."""
        graded = sum(exercise.graded for exercise in self.exercises)
        solved = sum(bool(exercise.solutions or exercise.answers) for exercise in self.exercises)
        return self.words, self.snippets, self.figures, len(self.exercises), graded, solved, self.minutes

    @property
    def minutes(self) -> int:
        """In steps of five."""
        reading = self.words / WORDS_A_MINUTE + self.snippets
        return max(5, 5 * round((reading + sum(exercise.minutes for exercise in self.exercises)) / 5))

    @property
    def unmet(self) -> list[str]:
        """The objectives that no exercise tests."""
        met = {number for exercise in self.exercises for number in exercise.objectives}
        return [text for number, text in enumerate(self.objectives, start=1) if number not in met]


def read(docs: Path = DOCS) -> list[Chapter]:
    """The chapters in the order of the menu: every page of it that says which part of the strategy it is."""
    pages = [(section, docs / page) for section, page in _menu(docs.parent) if page.endswith(".md")]
    chapters = [
        Chapter(page, section) for section, page in pages if page.is_file()
    ]  # some are made by the build
    chapters = [chapter for chapter in chapters if chapter.part]
    for chapter in chapters:
        _read_boxes(chapter)
    return chapters


def _menu(project: Path) -> list[tuple[str, str]]:
    """(section, page) of mkdocs.yml's menu."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("", lambda loader, suffix, node: None)
    entries: list[Any] = yaml.load((project / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"]
    pages = []
    for entry in entries:
        for section, content in entry.items():
            within = (
                [page for item in content for page in item.values()]
                if isinstance(content, list)
                else [content]
            )
            pages += [(section, page) for page in within]
    return pages


def _read_boxes(chapter: Chapter) -> None:
    in_fences = {n for f in chapter.page.fences for n in range(f.first, f.last + 1)}
    runnable = {f.first: f.source for f in chapter.page.runnable}
    exercise: Exercise | None = None
    objectives = False
    for number, line in enumerate(chapter.page.lines, start=1):
        if number in in_fences:
            if exercise and number in runnable and line.startswith("    "):
                exercise.runs = exercise.runs or exercise.solutions > 0
                exercise.checked = exercise.checked or bool(CHECKED.search(runnable[number]))
            continue
        if line and not line.startswith(" "):
            exercise, objectives = None, False
        box = BOX.match(line)
        if box and not box["indent"]:
            objectives = box["kind"] == "objectives"
            exercise = Exercise(box["title"] or "") if box["kind"] == "exercise" else None
            if exercise:
                chapter.exercises.append(exercise)
        elif box and exercise:
            exercise.answers += box["kind"] == "answer"
            exercise.solutions += box["kind"] == "solution"
        elif objectives and line.strip():
            if line.startswith("    - "):
                chapter.objectives.append(line[6:].strip())
            else:
                chapter.objectives[-1] += " " + line.strip()
        elif exercise and (about := ABOUT.match(line.strip())):
            exercise.objectives = tuple(int(n) for n in about["numbers"].replace(" ", "").split(","))
            exercise.level, exercise.minutes = about["level"], int(about["minutes"])


def where(chapter: Chapter, chapters: list[Chapter]) -> str:
    """The line below a chapter's title: the model, the four parts with the one that this is, the minutes."""
    words = []
    for part, name in PARTS.items():
        same = [c for c in chapters if c.part == part]
        page = next((c for c in same if c.section == chapter.section), same[0] if same else chapter)
        target = posixpath.relpath(page.address, posixpath.dirname(chapter.address) or ".")
        words.append(f"**{name}**" if part == chapter.part else f"[{name}]({target})")
    return f"*{chapter.section}* · {' → '.join(words)} · about {chapter.minutes} minutes"


def with_line(chapter: Chapter, chapters: list[Chapter]) -> str:
    """The chapter's text with that line as it should be."""
    text = chapter.file.read_text(encoding="utf-8")
    new = f"<!-- course: {chapter.part} -->\n{where(chapter, chapters)}\n{{ .where }}\n<!-- end -->"
    return MARK.sub(lambda match: new, text, count=1)


def table(chapters: list[Chapter]) -> list[tuple[str, tuple[int, ...]]]:
    """Each chapter with its sizes, and the sums."""
    rows = [(chapter.address, chapter.sizes) for chapter in chapters]
    return [*rows, (f"all {len(rows)}", tuple(map(sum, zip(*(sizes for _, sizes in rows), strict=True))))]


def with_table(text: str, chapters: list[Chapter]) -> str:
    """The page of objectives and exercises with its tables as they should be."""
    links = [f"[{c.title}]({posixpath.relpath(c.address, 'reference')})" for c in chapters]
    head = "chapter | minutes | figures | exercises | of these graded | notebook"
    tables = {"sizes": [head, "--- | --- | --- | --- | --- | ---"]}
    files = [notebook_name(c.file) if is_chapter(c.file) else "" for c in chapters]
    for name, file, (_, sizes) in zip([*links, "all"], [*files, ""], table(chapters), strict=True):
        _, _, figures, exercises, graded, _, minutes = sizes
        both = f"[filled](../notebooks/{file}), [clean](../notebooks/clean/{file})" if file else ""
        tables["sizes"].append(f"{name} | {minutes:,} | {figures} | {exercises} | {graded} | {both}")
    tables["objectives"] = ["chapter | you will be able to | exercises", "--- | --- | ---"]
    for link, chapter in zip(links, chapters, strict=True):
        for number, objective in enumerate(chapter.objectives, start=1):
            testing = [e for e in chapter.exercises if number in e.objectives]
            shown = "; ".join(f"{e.title} ({e.level}, {e.minutes} min)" for e in testing)
            tables["objectives"].append(f"{link} | {objective} | {shown}")
    for name, lines in tables.items():
        rows = "\n".join(f"| {line} |" for line in lines)
        begin, end = f"<!-- figures: {name} -->\n", "<!-- end -->"
        before, _, after = text.partition(begin)
        text = before + begin + f"\n{rows}\n\n" + end + after.partition(end)[2]
    return text


def problems(chapters: list[Chapter]) -> list[str]:
    """Objectives without an exercise, and exercises that do not say what they are or have no answer."""
    wrong = []
    for chapter in chapters:
        wrong += [f"{chapter.address}: no exercise tests the objective: {text}" for text in chapter.unmet]
        for exercise in chapter.exercises:
            name = f"{chapter.address}: exercise {exercise.title!r}"
            if not exercise.objectives:
                wrong.append(f"{name}: begin it with a line `*Objectives 1, 2 · easy · 5 minutes*`")
            elif max(exercise.objectives) > len(chapter.objectives):
                wrong.append(f"{name}: the page has no objective {max(exercise.objectives)}")
            if not exercise.solutions and not exercise.answers:
                wrong.append(f"{name}: it has neither a solution nor answers that reply")
            elif not exercise.tested:
                wrong.append(f"{name}: nothing in its solution runs")
    return wrong


def stale(chapters: list[Chapter]) -> dict[Path, str]:
    """The files that are not as they should be, and what they should be."""
    wanted = {chapter.file: with_line(chapter, chapters) for chapter in chapters}
    if TABLE.exists():
        wanted[TABLE] = with_table(TABLE.read_text(encoding="utf-8"), chapters)
    return {file: text for file, text in wanted.items() if file.read_text(encoding="utf-8") != text}


def main() -> None:
    parser = argparse.ArgumentParser(description="The course in figures.")
    parser.add_argument("--check", action="store_true", help="write nothing; say what is out of date")
    chapters = read()
    if parser.parse_args().check:
        wrong = [f"{file.relative_to(PROJECT)}: run `python -m tools.course`" for file in stale(chapters)]
        sys.exit("\n".join(wrong) or 0)
    for file, text in stale(chapters).items():
        file.write_text(text, encoding="utf-8")
        print("wrote", file.relative_to(PROJECT))
    print(f"\n{'chapter':38}  words snippets figures exercises graded answered minutes")
    for name, sizes in table(chapters):
        print(f"{name:38}", *(f"{size:{width},}" for size, width in zip(sizes, WIDTHS, strict=True)))
    counted = [
        (sum(len(c.objectives) for c in chapters), "objectives", "without an exercise"),
        (sum(len(c.exercises) for c in chapters), "exercises", "without a tested solution"),
        (len(terms.used(c.page for c in chapters)), "terms used", "not defined"),
        (len(terms.entries()), "sources", "named and not cited"),
        (sum(map(len, questions.read().values())), "questions", "chapters with fewer than five"),
    ]
    missing = (
        sum(len(c.unmet) for c in chapters),
        sum(not exercise.tested for c in chapters for exercise in c.exercises),
        len(terms.undefined(c.page for c in chapters)),
        len(terms.uncited()),
        sum(len(questions.read().get(c.address, ())) < 5 for c in chapters),
    )
    print()
    for (count, what, lack), number in zip(counted, missing, strict=True):
        print(f"{count:4} {what:10}  {number} {lack}")
    parts = [chapter for chapter in chapters if chapter.address.startswith("part-")]
    figures, widgets, words = (
        sum(getattr(c, what) for c in parts) for what in ("figures", "widgets", "words")
    )
    print(f"parts 1 to 4: {figures} figures, {widgets} of them widgets; {words // figures} words a figure")


if __name__ == "__main__":
    main()
