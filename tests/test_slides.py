"""Slides: what a chapter has to show is on one, no solution is, and a file needs nothing but itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from tests.chapters import CHAPTERS
from tools import course, slides

PROJECT = Path(__file__).resolve().parents[1]
PAGE = """\
# A chapter

<!-- course: build -->
*MiniLM* · **build**
{ .where }
<!-- end -->

What it is about.
{ .lead }

!!! objectives "What you will be able to do"

    - See `this`.

## A first *part*

It says something. And more.

The second paragraph.

```python
print("1 <b>")
```

```text
1 <b>
```

$$
a_b < c
$$

| a | b |
|---|---|
| 1 | 2 |

!!! exercise "Try it"
    *Objective 1 · easy · 3 minutes*

    What is it?

    ??? hint
        A hint.

    ??? solution
        The solution.

        ```python
        print("The solution")
        ```

## What you have now

An end.

??? made-with "Made with"

    Secret.
"""


def test_a_chapter_becomes_slides(tmp_path: Path):
    page = tmp_path / "part-1" / "page.md"
    page.parent.mkdir()
    page.write_text(PAGE, encoding="utf-8")
    made = BeautifulSoup(slides.slides(page, tmp_path), "html.parser").select("section")
    heads = [slide.find(re.compile("h[12]")).get_text() for slide in made]
    first = "A first part"
    assert heads == ["A chapter", "What you will be able to do", *[first] * 3, "Try it", "What you have now"]
    assert made[0].p.get_text() == "What it is about."
    assert made[1].li.decode_contents() == "See <code>this</code>."
    assert [p.get_text() for p in made[2].find_all("p", recursive=False)] == ["It says something. And more."]
    assert [pre.get_text().strip() for pre in made[2].select("pre")] == ['print("1 <b>")', "1 <b>"]
    assert " ".join(made[2].aside.stripped_strings) == "It says something. And more. The second paragraph."
    formula = made[3].select_one(".arithmatex > math")
    assert (formula["alttext"], formula.get_text()) == ("a_b < c", "ab<c")
    assert made[4].td.get_text() == "1"
    assert not [words for slide in made[3:5] for words in slide.find_all("p", string=re.compile("It says"))]
    assert "What is it?" in made[5].get_text()
    shown = " ".join(slide.get_text() for slide in made)
    assert not any(word in shown for word in ("A hint", "The solution", "Secret"))


def test_a_list_goes_with_the_paragraph_before_it_and_what_is_long_has_two_slides(tmp_path: Path):
    page = tmp_path / "page.md"
    code, printed = "x = 1\n" * 14, "line\n" * 14
    prose = "# x\n\n## y\n\nThere are\n\n- these,\n\n- those.\n\nMore."
    page.write_text(f"{prose}\n\n```python\n{code}```\n\n```text\n{printed}```\n", encoding="utf-8")
    _, first, second = BeautifulSoup(slides.slides(page, tmp_path), "html.parser").select("section")
    assert first.li.get_text(strip=True) == "these,"
    assert "More" not in " ".join(p.get_text() for p in first.find_all("p", recursive=False))
    assert [len(slide.select("pre")) for slide in (first, second)] == [1, 1]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.address)
def test_each_chapter_has_slides_with_all_of_its_figures(chapter: course.Chapter):
    made = BeautifulSoup(slides.slides(chapter.file), "html.parser")
    pictures = made.select("section > figure > img")
    assert len(pictures) == chapter.figures
    assert all(picture["alt"] and picture["src"].startswith("data:") for picture in pictures)
    assert not made.select("link, iframe, [srcset], script[src]")
    assert not re.search(r"url\((?![\"']?data:)", str(made.style))
    shown = [slide.find(re.compile("h[12]")).get_text() for slide in made.select("section")]
    missing = [exercise.title for exercise in chapter.exercises if exercise.title not in shown]
    assert missing == []


def test_the_command_names_what_there_is(tmp_path: Path):
    command = [sys.executable, "-m", "tools.slides", "--out", str(tmp_path / "out")]
    run = subprocess.run([*command, "part-3/hooks"], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(tmp_path / "out" / "part-3-hooks.html")
    assert Path(run.stdout.strip()).is_file()
    run = subprocess.run([*command, "part-9/x"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("no slides: there is no chapter part-9/x; there are start, ")
