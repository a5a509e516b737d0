"""The catalogue of mistakes: what can go wrong when a transformer is rebuilt, each with one name.

The name is the cause that a diagnosis gives, the anchor of its section on the page of mistakes, and the label
of the mutants that make the mistake on purpose. The words are data, `causes.json`, by group.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PAGE = "part-4/mistakes"
LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")
MARK = re.compile(r"\{ [.#][^}]*\}")  # a class behind a word: `missing`{ .wrong }
LIVE = "Break it: "  # links to live pages: nothing to read on a terminal


class Cause(NamedTuple):
    """A mistake in words.

    did     What was done: a clause that can stand behind "block 3: ".
    should  What is right, or what to do: a sentence.
    why     Why it matters: a sentence.
    """

    did: str
    should: str
    why: str


GROUPS: Mapping[str, Mapping[str, Cause]] = {
    group: {name: Cause(**words) for name, words in causes.items()}
    for group, causes in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")).items()
}
CAUSES: Mapping[str, Cause] = {name: cause for causes in GROUPS.values() for name, cause in causes.items()}


def chapter(cause: str) -> str:
    """Where the course explains it: a page's path and an anchor."""
    return f"{PAGE}/#{cause}"


def section(cause: str) -> list[str]:
    """Its section of that page: the title, then its paragraphs, without links and classes. Empty where the
    page is not there; it is in the project's folder, and a wheel has a copy."""
    module = Path(__file__)
    pages = module.with_name("mistakes.md"), module.parents[2] / "docs" / f"{PAGE}.md"
    page = next((page for page in pages if page.is_file()), None)
    if page is None:
        return []
    _, title, text = re.split(
        rf"^### (.*) \{{ #{re.escape(cause)} \}}$", page.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    text = re.split(r"^##", text, flags=re.MULTILINE)[0]
    paragraphs = MARK.sub("", LINK.sub(r"\1", text)).strip().split("\n\n")
    return [title, *(" ".join(words.split()) for words in paragraphs if not words.startswith(LIVE))]
