"""The built site, seen with a browser: what it asks for, what it shows, and to whom."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from .conftest import DESKTOP, FONTS, PHONE, Site

NEXT_PAGE = "a.md-footer__link--next"


def test_every_page_is_reached_by_going_on(course: Site) -> None:
    url, reached = course.url, []
    while url not in reached:
        reached.append(url)
        page = (course.root / url.removeprefix(course.url) / "index.html").read_text("utf-8")
        following = re.search(r'<a href="([^"]*)" class="md-footer__link md-footer__link--next"', page)
        url = urljoin(url, following[1]) if following else url
    assert sorted(reached) == sorted(course.pages())


@pytest.mark.parametrize("most", [8, pytest.param(1000, marks=pytest.mark.weekly)])
def test_instant_navigation_and_dark_ask_for_nothing_outside(course: Site, reader: Any, most: int) -> None:
    """Through the course by its `next` links, in the dark, without one full page load."""
    visitor = reader(color_scheme="light")
    page = visitor.open(course.url)
    for _ in range(2):  # from the system's choice to light, from light to dark
        page.click("label.md-header__button[for^=__palette]:not([hidden])")
    assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
    visited = 1
    while visited < most and page.locator(NEXT_PAGE).count():
        visitor.follow(NEXT_PAGE)
        visited += 1
    assert visited == min(most, len(course.pages())), "some page cannot be reached by going on"
    assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
    assert visitor.outside == []
    assert visitor.errors == []


def test_what_a_page_names_is_fetched_once(course: Site, reader: Any) -> None:
    visitor = reader()
    page = visitor.open(course.url)
    page.locator("[data-part=hero][data-answered]").wait_for()
    visitor.follow(NEXT_PAGE)
    own = [url for url in visitor.requests if url.endswith((".js", ".css"))]
    assert len(own) > 30
    assert [url for url in own if own.count(url) > 1] == []


REACHED_AT_ONCE = """() => {
  scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
  const box = document.querySelector("a.md-footer__link--next").getBoundingClientRect();
  const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return hit.closest("a")?.className ?? hit.className;
}"""


@pytest.mark.parametrize("address", ["part-3/floats/", "part-4/mistakes/"])
def test_whoever_goes_to_the_end_and_clicks_at_once_goes_on(course: Site, reader: Any, address: str) -> None:
    """Before the theme has fitted its sidebars to the end of the page: they must not lie on its links."""
    page = reader().open(course.url + address)
    assert "md-footer__link--next" in page.evaluate(REACHED_AT_ONCE)


def test_the_letters_of_formulas_are_loaded_where_there_is_one(sampler: Site, reader: Any) -> None:
    page = reader().open(f"{sampler.url}plain/")
    assert page.evaluate(FONTS) == []
    page = reader().open(sampler.url)
    assert page.locator("math").count() == 2
    assert page.evaluate(FONTS) == ["Rebuild Math"]


def test_the_figures_of_a_notebook_are_seen(built_site: Path, reader: Any) -> None:
    """Each in a page of its own, without the site around it, as in a notebook."""
    page, seen = reader().page, 0
    for notebook in sorted((built_site / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        images = re.findall(r"<img [^>]*>", "\n".join("".join(cell["source"]) for cell in cells))
        page.set_content("".join(images), wait_until="load")
        assert page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0, (
            notebook.name
        )
        for image in images:
            drawn = base64.b64decode(re.search(r"base64,([^\"]+)", image)[1]).decode("utf-8")
            assert "var(--" not in drawn, f"{notebook.name}: a colour that only the site has"
        seen += len(images)
    assert seen > 10


def test_a_figure_says_on_a_phone_that_it_goes_on(course: Site, reader: Any) -> None:
    visitor = reader(viewport=PHONE)
    page = visitor.open(f"{course.url}part-3/minilm/")
    frame = page.locator("figure .figure-scroll").first
    said = "(frame) => getComputedStyle(frame.parentElement.querySelector('figcaption'), '::before').content"
    more = "(frame) => ['left', 'right'].filter((side) => frame.hasAttribute(`data-more-${side}`))"
    assert frame.evaluate(more) == ["right"]
    assert "goes on" in frame.evaluate(said)
    frame.evaluate("(frame) => (frame.scrollLeft = frame.scrollWidth)")
    page.wait_for_selector(".figure-scroll[data-more-left]:not([data-more-right])")
    page.set_viewport_size(DESKTOP)
    page.wait_for_selector(".figure-scroll:not([data-more-left], [data-more-right])")
    assert "goes on" not in frame.evaluate(said)


def test_a_verdict_in_an_output_has_its_colour(course: Site, reader: Any) -> None:
    page = reader().open(f"{course.url}part-3/minilm/")
    colours = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('pre mark')]"
        ".map((mark) => [mark.className, getComputedStyle(mark).color]))"
    )
    assert {"bit-identical", "decimals", "ulp", "wrong"} <= set(colours)
    assert len({colours["bit-identical"], colours["ulp"], colours["wrong"]}) == 3


READ = ".md-nav--primary a.md-nav__link.read"
HREFS = "(all) => all.map((link) => link.href)"


def test_what_is_read_is_remembered_in_this_browser_alone(course: Site, reader: Any) -> None:
    visitor = reader()
    page = visitor.open(f"{course.url}part-3/floats/")
    assert page.locator(READ).count() == 0
    page.locator(".read-mark").scroll_into_view_if_needed()
    page.wait_for_selector(READ, state="attached")
    visitor.wait("location.hash !== ''")  # the theme is still writing down where one is
    visitor.follow(NEXT_PAGE)
    assert [link.rstrip("/").endswith("floats") for link in page.locator(READ).evaluate_all(HREFS)] == [True]
    page.go_back()
    visitor.settle()
    page.locator(".read-mark").click()
    assert page.locator(READ).count() == 0
    page.reload()
    visitor.settle()
    assert page.locator(READ).count() == 0
    assert visitor.outside == []
    assert visitor.errors == []


def test_where_storage_is_forbidden_the_page_works_and_remembers_nothing(course: Site, reader: Any) -> None:
    visitor = reader(color_scheme="light")
    visitor.page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, "
        "{ configurable: true, get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    page = visitor.open(f"{course.url}part-3/floats/")
    page.locator(".read-mark").scroll_into_view_if_needed()
    page.wait_for_selector(READ, state="attached")
    visitor.wait("location.hash !== ''")  # the theme is still writing down where one is
    visitor.follow(NEXT_PAGE)
    assert page.locator(READ).count() == 0
    page.click("label.md-header__button[for^=__palette]:not([hidden])")
    assert visitor.errors == []


def test_print_cuts_nothing_and_shows_no_button(course: Site, reader: Any) -> None:
    """At the width of A4 between its margins, also for whoever reads in the dark."""
    visitor = reader(viewport={"width": 672, "height": 980}, color_scheme="dark")
    for address in ("part-3/minilm/", "part-4/traps/", "part-3/t5/"):
        page = visitor.open(course.url + address)
        page.emulate_media(media="print")
        cut = (
            "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerHTML)"
        )
        assert page.locator(".figure-scroll").count() > 0
        assert page.locator(".figure-scroll, .highlight pre > code").evaluate_all(cut) == []
        assert page.locator(".md-code__nav:visible, article .md-button:visible").count() == 0
        assert page.evaluate("getComputedStyle(document.body).getPropertyValue('--rebuild-ink')") == "#1c2426"
        page.emulate_media(media="screen")


@pytest.mark.parametrize(
    ("chapters", "least"),
    [(["part-3/floats.md", "part-4/no-match.md"], 10), pytest.param([], 100, marks=pytest.mark.weekly)],
    ids=["two chapters", "all"],
)
def test_the_course_becomes_one_pdf(
    built_site: Path, browser: Any, tmp_path: Path, chapters: list[str], least: int
) -> None:
    """Made in a process of its own: Playwright runs once in each. `browser` says whether there is one."""
    out = tmp_path / "course.pdf"
    command = [sys.executable, "-m", "tools.pdf", *chapters, "--site-dir", str(built_site), "--out", str(out)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)
    pdf = out.read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") > least
    assert b"/Outlines" in pdf


@pytest.mark.parametrize(("address", "most"), [("part-3/t5/", 1.05), ("part-4/mistakes/", 0.8)])
def test_a_page_is_styled_once_and_its_menu_when_it_is_opened(
    course: Site, reader: Any, address: str, most: float
) -> None:
    """What restyles all of a page while it opens is most of what a slow phone waits for. A busy machine
    styles in more steps: then the page is opened again."""
    assert any(0.5 < _styled(reader, course.url + address) < most for _ in range(3))


def test_the_menu_of_a_phone_opens(course: Site, reader: Any) -> None:
    visitor = reader(viewport=PHONE)
    page = visitor.open(f"{course.url}part-3/t5/")
    link = page.locator(".md-sidebar--primary a.md-nav__link", has_text="Take T5 apart")
    assert not link.evaluate("(link) => link.checkVisibility()")
    page.click("label.md-header__button[for=__drawer]")
    link.click()
    visitor.wait("location.pathname.endsWith('/live/t5/')")


def _styled(reader: Any, url: str) -> float:
    """How many times an element of the page is styled while it opens, in the mean."""
    visitor = reader(viewport=PHONE)
    network = visitor.context.new_cdp_session(visitor.page)
    events: list[dict[str, Any]] = []
    network.on("Tracing.dataCollected", lambda data: events.extend(data["value"]))
    whole: list[Any] = []
    network.on("Tracing.tracingComplete", lambda end: whole.append(end))
    categories = {"includedCategories": ["devtools.timeline"]}
    network.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": categories})
    page = visitor.open(url)
    size = page.locator("*").count()
    network.send("Tracing.end")
    while not whole:
        page.wait_for_timeout(50)
    styled = [event["args"].get("elementCount", 0) for event in events if event["name"] == "UpdateLayoutTree"]
    return sum(styled) / size


def test_search_finds_it_and_explains_a_word_of_the_field_first(course: Site, reader: Any) -> None:
    """What is searched is loaded when somebody searches."""
    visitor = reader()
    page = visitor.open(course.url)

    def loaded() -> list[str]:
        return [url for url in visitor.requests if "/search_index.json" in url or "/workers/search." in url]

    field = page.locator(".md-search__input")

    def search(words: str, found: str) -> list[str]:
        field.fill(words[:-1])
        field.press(words[-1])  # at a key it is searched
        page.wait_for_function(found)
        return list(page.locator(".md-search-result__item").all_text_contents())

    assert loaded() == []
    page.keyboard.press("/")
    nothing = "document.querySelector('.md-search-result__meta').textContent.includes('No matching')"
    for words in ("checkpoint", "bit-identical", "ulp"):
        assert search("zyxwvutsrq", nothing) == []
        found = search(words, "document.querySelector('.md-search-result__item a')")
        needle = words.replace("-", "")
        assert any(needle in text.replace("-", "").lower() for text in found)
    for words in (
        "attention", "softmax", "embedding", "logits", "residual stream", "causal mask", "KV cache"
    ):  # fmt: skip
        assert search("zyxwvutsrq", nothing) == []
        search(words, "document.querySelector('.md-search-result__item a')?.href.includes('/glossary/')")
    assert len(loaded()) == 2
    assert visitor.outside == []


def test_every_fence_can_be_copied(sampler: Site, reader: Any) -> None:
    visitor = reader(permissions=["clipboard-read", "clipboard-write"])
    page = visitor.open(sampler.url)
    assert page.locator(".language-text button[data-md-type=copy]").count() == 0, "nobody copies an output"
    fences = page.locator(".md-typeset .highlight:not(.language-text):visible")
    assert fences.count() >= 3
    copied = {}
    for index in range(fences.count()):
        fence = fences.nth(index)
        fence.scroll_into_view_if_needed()
        fence.hover()
        fence.locator("button[data-md-type=copy], .md-clipboard").first.click()
        copied[fence.get_attribute("class")] = page.evaluate("navigator.clipboard.readText()")
    console = next(text for fence, text in copied.items() if "console" in fence)
    assert console.startswith("llm-rebuild verify"), "the prompt was copied with the command"
    python = next(text for fence, text in copied.items() if "python" in fence)
    assert "def forward(hidden: torch.Tensor" in python
    assert "\n    return" in python
