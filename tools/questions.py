"""The question bank, from docs/questions.txt: choice questions at the end of each chapter of the site.

Each answer is a box that replies when it is opened, as in the exercises. docs/javascripts/progress.js notes
in the reader's browser which was opened first.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown import Markdown

from tools import edition

FILE = Path(__file__).resolve().parents[1] / "docs" / "questions.txt"
LETTERS = "ABCDEF"
BEFORE = "??? made-with"  # the box at a page's end
TITLE = "## Five questions { data-search-exclude }"
HELP = (
    "Open the answer that you would give. Which one you opened first is noted in this browser, and nowhere "
    'else.\n\n<p class="progress" data-progress></p>'
)


@dataclass
class Question:
    """One question: its words, and each answer with its reply and whether it is right."""

    text: str
    answers: list[tuple[str, str, bool]] = field(default_factory=list)


@functools.cache
def read(file: Path = FILE) -> dict[str, list[Question]]:
    """The questions by page. ValueError for a line that means nothing."""
    pages: dict[str, list[Question]] = {}
    questions: list[Question] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        mark, _, text = line.partition(" ")
        answer, divided, reply = text.partition(" | ")
        if not line or mark == "#":
            continue
        if mark == "==":
            questions = pages.setdefault(text, [])
        elif mark == "?":
            questions.append(Question(text))
        elif mark in ("+", "-") and divided and questions:
            questions[-1].answers.append((answer, reply, mark == "+"))
        else:
            raise ValueError(
                f"{file.name}, line {number}: begin it with `==`, `?`, `+` or `-`, and give each "
                "answer a reply behind ` | `"
            )
    return pages


def section(page: str) -> str:
    """The questions of a page as Markdown; empty where it has none."""
    lines = []
    for number, question in enumerate(read().get(page, ()), start=1):
        lines += [f'!!! exercise "Question {number}"', "", f"    {question.text}", ""]
        for letter, (answer, reply, right) in zip(LETTERS, question.answers, strict=False):
            word = "Yes. " if right else "No. "
            lines += [f'    ??? answer "{letter}. {answer}"', "", f"        {word}{reply}", ""]
    about = [] if edition.asked_for() else [HELP, ""]
    return "\n".join([TITLE, "", *about, *lines]) if lines else ""


def on_page_content(html: str, page: Any, config: Any, **more: Any) -> str:
    """The questions of a page that is a notebook: it has no Markdown when it comes to the other hook."""
    text = section(page.file.src_uri)
    if not text or not page.file.abs_src_path.endswith(".ipynb"):
        return html
    if edition.asked_for():
        text = edition.without_solutions(text)
    markdown = Markdown(extensions=config.markdown_extensions, extension_configs=config.mdx_configs)
    return f"{html}\n{markdown.convert(text)}"


def on_page_markdown(markdown: str, page: Any, **more: Any) -> str:
    """A chapter of the site with its questions (mkdocs.yml has this file as a hook)."""
    questions = section(page.file.src_uri)
    if not questions:
        return markdown
    before, box, after = markdown.rpartition(f"\n{BEFORE}")
    return f"{before}\n{questions}{box}{after}" if box else f"{markdown}\n{questions}"
