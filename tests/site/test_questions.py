"""The question bank: enough of it, each question with one right answer; and what the browser keeps of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

from tools import course, edition, questions

from .conftest import Site

ANSWERS = "details.answer > summary"


def test_each_chapter_has_five_questions_with_one_right_answer() -> None:
    bank = questions.read()
    assert set(bank) == {chapter.address for chapter in course.read()}
    for page, asked in bank.items():
        assert len(asked) >= 5, page
        assert len({question.text for question in asked}) == len(asked), page
        for question in asked:
            assert len(question.answers) >= 3, question.text
            assert sum(right for _, _, right in question.answers) == 1, question.text
            assert all(reply for _, reply, _ in question.answers), question.text
            assert not any('"' in answer for answer, _, _ in question.answers), question.text


def test_a_page_that_is_a_notebook_has_its_questions(built_site: Path) -> None:
    for name in ("part-2/gpt2", "part-3/gpt2-rebuilt"):
        page = BeautifulSoup((Path(built_site) / name / "index.html").read_text("utf-8"), "html.parser")
        asked = page.select("h2#five-questions ~ .exercise")
        assert len(asked) == 5, name
        assert all(len(question.select("details.answer")) == 3 for question in asked)
        assert page.select_one("h2#five-questions ~ [data-progress]")


def test_a_line_that_means_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "questions.txt").write_text("== start.md\n? Why?\n+ Because.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 3"):
        questions.read(tmp_path / "questions.txt")


def test_the_edition_without_solutions_asks_and_does_not_reply() -> None:
    text = edition.without_solutions(questions.section("start.md"))
    assert "- A. Its answers, and enough of them." in text
    assert "Answers show what it does" not in text


def test_the_first_answer_is_kept_and_counted(live: Site, reader: Any) -> None:
    page = reader().open(live.url + "part-4/close/")
    said = page.locator("[data-progress] [role=status]")
    assert "Here: 0 of 5 answered" in said.inner_text()
    first, second = (page.locator("[data-progress] ~ .exercise").nth(n).locator(ANSWERS) for n in (0, 1))
    first.nth(1).click()  # B, which is right
    first.nth(0).click()
    answers = questions.read()["part-4/close.md"][1].answers
    wrong = next(number for number, (_, _, right) in enumerate(answers) if not right)
    second.nth(wrong).click()
    page.wait_for_function("document.querySelector('[data-progress]').textContent.includes('2 of 5')")
    assert "1 right at the first try" in said.inner_text()
    page.goto(live.url + "start/")
    page.wait_for_selector("[data-progress] [role=status]")
    assert "Here: 0 of 5" in page.locator("[data-progress] [role=status]").inner_text()
    assert "In all: 2 answered, 1 right" in page.locator("[data-progress] [role=status]").inner_text()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save to a file").click()
    kept = json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))
    assert kept["answers"] == {"part-4/close/#1": "B+", "part-4/close/#2": f"{questions.LETTERS[wrong]}-"}


@pytest.mark.parametrize(
    "text",
    ["no JSON", "[]", '{"course": "another", "version": 1, "answers": {}, "read": []}', '{"a": 1}'],
)
def test_a_foreign_file_changes_nothing_and_is_said(live: Site, reader: Any, text: str) -> None:
    page = reader().open(live.url + "start/")
    page.set_input_files("[data-progress] input", {"name": "x.json", "mimeType": "", "buffer": text.encode()})
    page.wait_for_function(
        "document.querySelector('[data-progress]').textContent.includes('nothing was changed')"
    )
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('answers')).length") == 0


def test_of_a_file_and_of_what_was_kept_only_answers_are_taken(live: Site, reader: Any) -> None:
    page = reader().open(live.url + "start/")
    answers = {
        "start/#1": "B+",
        "start/#2": "<img src=x onerror=alert(1)>",
        "__proto__": "A+",
        "x" * 999: "A+",
        "start/#3": {"toString": 1},
        "start/#4": ["A+"],
    }
    mine = {"course": "LLM Rebuild", "version": 1, "answers": answers, "read": ["start/", 7, "<b>"]}
    file = {"name": "x.json", "mimeType": "", "buffer": json.dumps(mine).encode()}
    page.set_input_files("[data-progress] input", file)
    page.wait_for_function("document.querySelector('[data-progress]').textContent.includes('1 of 5')")
    page.evaluate("__md_set('answers', [1, 2], localStorage, ROOT)")
    page.reload()
    page.wait_for_function(
        "document.querySelector('[data-progress]').textContent.includes('could not be read')"
    )
    assert "Here: 0 of 5" in page.locator("[data-progress]").inner_text()


def test_what_others_have_kept_under_our_names_is_nothing_to_us(live: Site, reader: Any) -> None:
    visitor = reader()
    page = visitor.open(live.url + "part-4/close/")
    for rubbish in ("5", '{"a": 1}', '{"start/#1": {"toString": 1}}', "no JSON", "null", "[[]]", '"read"'):
        keep = "text => ['read', 'answers'].forEach(n => localStorage.setItem(ROOT.pathname + '.' + n, text))"
        page.evaluate(keep, rubbish)
        page.reload()
        visitor.settle()
        assert page.get_by_role("button", name="Mark as read").is_visible(), rubbish
        assert "Here: 0 of 5" in page.locator("[data-progress]").inner_text(), rubbish
    assert visitor.errors == []
