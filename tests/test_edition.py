"""The edition without solutions, and the clean notebooks: every exercise is there, and no answer to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_rebuild.workbench.new import WITHOUT_SOLUTIONS
from tests import chapters
from tools import course, edition, notebooks, questions

DOCS = Path(__file__).resolve().parents[1] / "docs"
CHAPTERS = [chapter for chapter in chapters.CHAPTERS if chapter.exercises]

PAGE = """\
# A page

!!! exercise "Add"
    *Objective 1 · easy · 2 minutes*

    What is 1 + 1?

    ??? hint
        Count.

    ??? solution
        ```python
        print(1 + 1)
        ```

        Two.

!!! exercise "Choose"
    Which is even?

    ??? answer "A. 1"
        No.

    ??? answer "B. 2"
        Yes.

## Afterwards
"""


def test_what_stays_and_what_goes() -> None:
    text = edition.without_solutions(PAGE)
    assert "What is 1 + 1?" in text
    assert "Count." in text
    assert "- A. 1\n\n    - B. 2" in text
    assert "## Afterwards" in text
    for gone in ("solution", "print", "Two.", "No.", "Yes."):
        assert gone not in text


def test_an_empty_cell_stands_behind_each_exercise() -> None:
    text = edition.with_cells(edition.without_solutions(PAGE))
    assert text.count("# your answer") == 2
    assert text.index("Count.") < text.index("# your answer") < text.index("Choose")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.address)
def test_no_chapter_tells(chapter: course.Chapter) -> None:
    whole = chapter.file.read_text(encoding="utf-8")
    text = edition.without_solutions(whole)
    assert edition.CHAPTER.search(whole)
    assert "??? solution" not in text
    assert "??? answer" not in text
    assert text.count("!!! exercise") == len(chapter.exercises)
    assert text.count("??? hint") == whole.count("??? hint")


def test_a_clean_notebook_has_cells_to_fill_and_nothing_filled_in() -> None:
    chapter = next(chapter for chapter in CHAPTERS if chapter.address == "part-3/floats.md")
    filled = notebooks.chapter_notebook(chapter.file, DOCS)
    clean = notebooks.chapter_notebook(chapter.file, DOCS, clean=True)
    assert any(cell.outputs for cell in filled.cells if cell.cell_type == "code")
    assert not any(cell.outputs for cell in clean.cells if cell.cell_type == "code")
    sources = [cell.source for cell in clean.cells]
    assert sources.count("# your answer") == len(chapter.exercises)
    assert not any("def ulps" in source for source in sources)
    assert any("def ulps" in cell.source for cell in filled.cells)


def test_the_site_of_this_edition(monkeypatch: pytest.MonkeyPatch) -> None:
    chapter = CHAPTERS[0]
    page = type("Page", (), {"file": type("File", (), {"src_uri": chapter.address})})
    text = chapter.file.read_text(encoding="utf-8")
    whole = questions.on_page_markdown(text, page=page)
    assert "Open the answer" in whole
    assert edition.on_page_markdown(whole) == whole
    monkeypatch.setenv(WITHOUT_SOLUTIONS, "1")
    asked = edition.on_page_markdown(questions.on_page_markdown(text, page=page))
    assert "Open the answer" not in asked
    assert "Question 5" in asked
    assert "??? answer" not in asked
    assert edition.on_page_markdown("# x\n\n??? solution\n    kept: no chapter\n").count("kept") == 1
