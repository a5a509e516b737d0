"""The edition without solutions: what a teacher may hand out where everybody can open a folded box.

    LLM_REBUILD_WITHOUT_SOLUTIONS=1 python -m tools.site       or  python -m tools.site --without-solutions

Pages and notebooks have every exercise, with its hints. A solution is left out, and of answers to choose from
the words stay and the replies go. In the same environment `llm-rebuild new --solved` writes nothing.
"""

from __future__ import annotations

import os
import re
from typing import Any

from llm_rebuild.workbench.new import WITHOUT_SOLUTIONS

CHAPTER = re.compile(r"^<!-- course: \w+ -->$", re.M)
EXERCISE = re.compile(r"^!!! exercise\b")
CELL = ["```python", "# your answer", "```", ""]
FOLDED = re.compile(r'^(?P<indent> *)\?\?\?\+? (?P<kind>solution|answer)\b(?: "(?P<title>.*)")?\s*$')


def asked_for() -> bool:
    """Whether the environment asks for this edition."""
    return bool(os.environ.get(WITHOUT_SOLUTIONS))


def without_solutions(text: str) -> str:
    """A page's Markdown without what it must not tell."""
    lines: list[str] = []
    left_out: int | None = None  # how far the box is indented that is being left out
    for line in text.split("\n"):
        indented = len(line) - len(line.lstrip(" "))
        if left_out is not None and (not line.strip() or indented > left_out):
            continue
        left_out = None
        box = FOLDED.match(line)
        if not box:
            lines.append(line)
            continue
        left_out = len(box["indent"])
        if box["kind"] == "answer":
            lines += [f"{box['indent']}- {box['title']}", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def with_cells(text: str) -> str:
    """A page's Markdown with an empty snippet behind each exercise, to write the answer in."""
    lines: list[str] = []
    within = False
    for line in text.split("\n"):
        if within and line and not line.startswith(" "):
            within, lines = False, [*lines, *CELL]
        within = within or bool(EXERCISE.match(line))
        lines.append(line)
    return "\n".join([*lines, "", *CELL] if within else lines)


def on_page_markdown(markdown: str, **more: Any) -> str:
    """The site's pages in this edition (mkdocs.yml has this file as a hook)."""
    return without_solutions(markdown) if asked_for() and CHAPTER.search(markdown) else markdown
