"""The source on the site: what a page says of a line of code leads to that line."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from urllib.parse import urldefrag

from bs4 import BeautifulSoup

from tools import sources

REFERENCE = re.compile(r"\b[\w-]+\.(?:py|js):\d+\b")


@functools.cache
def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def every_file() -> list[Path]:
    return [file for group in sources.files().values() for file in group]


def test_every_reference_to_a_line_leads_to_it(built_site: Path) -> None:
    site = Path(built_site).resolve()
    texts = {sources.page_of(file): file.read_text("utf-8").splitlines() for file in every_file()}
    followed, bare = 0, []
    for page in sorted(site.rglob("index.html")):
        text = page.read_text(encoding="utf-8")
        if "#L" not in text and not REFERENCE.search(re.sub(r"<[^>]*>", "", text)):
            continue
        html = soup(page)
        for link in html.select('article a[href*="#L"]'):
            target, anchor = urldefrag(str(link["href"]))
            name = (page.parent / target).resolve().relative_to(site).as_posix() + ".md"
            number = int(link.get_text().rpartition(":")[2])
            assert anchor == f"L{number}"
            shown = soup(site / name.removesuffix(".md") / "index.html")
            assert shown.find(id=anchor).get_text() == texts[name][number - 1], f"{page}: {link}"
            followed += 1
        if (article := html.find("article")) and REFERENCE.search(article.get_text()):
            article = copy.copy(article)
            for part in article.select("a, pre, script"):
                part.decompose()
            bare += [f"{page}: {words}" for words in REFERENCE.findall(article.get_text())]
    assert bare == []
    assert followed > 40


def test_every_file_is_shown_whole(built_site: Path) -> None:
    for file in every_file():
        page = Path(built_site) / sources.page_of(file).removesuffix(".md") / "index.html"
        shown = soup(page).select_one(".language-source code").get_text()
        assert shown.rstrip("\n") == file.read_text(encoding="utf-8").rstrip("\n"), file


def test_a_model_leads_to_its_twin() -> None:
    for name in ("minilm", "gpt2", "t5", "llama", "rotary"):
        python = sources.PROJECT / "llm_rebuild" / "models" / f"{name}.py"
        script = sources.PROJECT / "docs" / "javascripts" / "rebuild" / f"{name}.js"
        assert sources.twin(python) == script
        assert sources.twin(script) == python
