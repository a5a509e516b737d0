"""The widgets of the chapters: they ask, show, go back, say where they are, and are right."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page

from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from tools.widgets import DRAWN, beginning

from .conftest import DESKTOP, PATIENCE, REPOSITORY, Reader, Site, barriers

DOCS = REPOSITORY / "docs"
HOSTILE = "<img src=x onerror='window.hit=1'>"
SHOWN = """(figure, [state, patience]) => new Promise((done) => {
  const look = () => {
    const now = JSON.parse(figure.dataset.shown ?? "null");
    const is = now && Object.entries(state).every(([name, value]) => String(now[name]) === value);
    return is ? done(figure.querySelector(".said").textContent) : setTimeout(look, 10);
  };
  look();
  setTimeout(done, patience, null);
})"""
# What is changed of each, and a word of what it then says.
CHANGES: dict[str, tuple[dict[str, str], str]] = {
    "wordpiece": ({"word": "ж"}, "[UNK]"),
    "bpe": ({"ranks": "0"}, "With 0 of 767 merges"),
    "unigram": ({"without": "1"}, "together"),
    "masks": ({"kind": "decoder", "padding": "2", "side": "left"}, "10 of 36"),
    "heads": ({"step": "split", "way": "a reshape alone"}, "do not belong to"),
    "buckets": ({"distance": "-120"}, "bucket 15, as do those from beyond to"),
    "floats": ({"order": "from left to right"}, "the sum is 0; without rounding it is 1"),
    "file": ({"zoom": "one tensor", "at": "1"}, "shape ["),
    "depth": ({"broken": "no scaling of the scores"}, "checkpoints differ"),
    "catalogue": ({"model": "T5", "kind": "T5"}, "of 143 mistakes"),
}


def figure(page: Page, name: str) -> Locator:
    return page.locator(f"figure[data-widget={name}]")


def opened(visitor: Reader, live: Site, name: str, hash: str = "") -> Locator:
    """A widget that has come into view."""
    found = figure(visitor.open(f"{live.url}widgets/{hash}"), name)
    found.scroll_into_view_if_needed()
    found.and_(visitor.page.locator("[data-started=done]")).wait_for()
    return found


@pytest.fixture(scope="module")
def window(browser: Browser) -> Iterator[Reader]:
    """One for all widgets: a page that is opened in it again costs half."""
    visitor = Reader(browser, reduced_motion="reduce", bypass_csp=False)
    yield visitor
    visitor.context.close()


@pytest.fixture
def visitor(window: Reader) -> Reader:
    """The window, as if nobody had been there."""
    window.page.goto("about:blank")
    window.page.set_viewport_size(DESKTOP)
    window.page.emulate_media(color_scheme="light")
    return window


def shown(found: Locator, **state: str) -> str:
    """What it says, once it shows this state."""
    said = found.evaluate(SHOWN, [state, PATIENCE])
    assert said is not None, f"waited in vain for {state}"
    return str(said)


def test_each_widget_stands_in_a_chapter_with_a_picture_and_words() -> None:
    head = r'<figure data-widget="(\w+)" markdown>\n<div class="figure-scroll" markdown="0">\n'
    pattern = re.compile(head + r'--8<-- "(.*\.svg)"\n</div>\n<figcaption')
    text = "".join(page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("part-*/*.md")))
    assert sorted(name for name, _ in pattern.findall(text)) == sorted(CHANGES)
    assert text.count("data-widget") == len(CHANGES)


def test_the_picture_that_stands_there_is_the_widget_s_beginning(live: Site, reader: Any) -> None:
    page = reader().open(f"{live.url}widgets/")
    for name in DRAWN:
        file = DOCS / "figures" / f"widget-{name}.svg"
        assert beginning(page, live.url, name) == file.read_text(encoding="utf-8"), (
            "run `python -m tools.widgets`"
        )


def test_nothing_of_a_widget_is_loaded_before_it_is_seen_and_asked(live: Site, reader: Any) -> None:
    visitor = reader()
    visitor.open(f"{live.url}widgets/")
    visitor.page.locator("[data-widget=catalogue]").wait_for(state="attached")
    assert [url for url in visitor.requests if "/live/models/" in url or "catalogue.js" in url] == []
    figure(visitor.page, "file").scroll_into_view_if_needed()
    figure(visitor.page, "file").locator(".ask").wait_for()
    assert [url for url in visitor.requests if url.endswith(".safetensors")] == []


def test_on_paper_is_the_picture_and_what_was_changed_of_it(live: Site, reader: Any) -> None:
    still = opened(reader(), live, "masks")
    still.page.emulate_media(media="print")
    assert still.locator("svg").is_visible()
    assert still.locator(".widget").is_hidden()

    changed = opened(reader(), live, "masks", "#masks?kind=decoder&padding=2&side=left")
    shown(changed, kind="decoder")
    changed.page.emulate_media(media="print")
    assert changed.locator(".said").is_visible()
    assert changed.get_by_role("combobox", name="attention").is_visible()
    assert changed.locator(".widget button:visible").count() == 0


@pytest.mark.parametrize("name", CHANGES)
def test_it_asks_then_shows_goes_back_and_has_an_address(live: Site, visitor: Reader, name: str) -> None:
    found = opened(visitor, live, name)
    page = visitor.page
    assert found.locator(".controls").is_hidden()
    found.locator(".ask button").first.press("Enter")
    first = shown(found)
    assert found.locator(".ask").is_hidden()
    assert found.locator(".reply").text_content()
    assert page.evaluate("document.activeElement.closest('.controls') !== null"), "the focus was lost"
    state, words = CHANGES[name]
    for label, value in state.items():
        field = found.locator(".controls label :is(input, select)").nth(
            list(json.loads(found.get_attribute("data-shown"))).index(label)
        )
        if field.evaluate("(one) => one.localName") == "select":
            field.select_option(value)
        else:
            field.fill(value)
        shown(found, **{label: value})
    assert words in shown(found, **state)
    itself = f"figure[data-widget={name}]"
    assert barriers(page, within=itself) == []
    page.emulate_media(color_scheme="dark")
    visitor.wait("document.body.dataset.mdColorScheme === 'slate'")
    assert barriers(page, [], within=itself) == []
    assert visitor.on_a_phone() == []
    found.get_by_role("link", name="Link to this").click()
    address = page.evaluate("location.hash")
    found.get_by_role("button", name="Back to the beginning").click()
    said = f"document.querySelector('[data-widget={name}] .said').textContent"
    visitor.wait(f"{said} === {json.dumps(first)}")
    page.goto("about:blank")
    again = opened(visitor, live, name, address)
    assert words in shown(again, **state)
    assert visitor.errors == []
    assert visitor.outside == []


def test_an_address_at_fault_shows_the_beginning_or_what_is_possible(live: Site, reader: Any) -> None:
    visitor = reader()
    page = visitor.page
    for name, hash in (
        ("masks", f"#masks?kind={HOSTILE}&padding=1e99&side=%ud800"),
        ("bpe", f"#bpe?word={HOSTILE}&ranks=-7&other=3"),
        ("floats", "#floats?numbers=;alert(1)&order=%"),
        ("file", "#file?zoom=one%20tensor&at=99999"),
    ):
        page.goto("about:blank")
        assert shown(opened(visitor, live, name, hash))
        assert page.evaluate("window.hit === undefined")
    assert visitor.errors == []


def test_without_scripts_there_are_the_pictures(live: Site, reader: Any) -> None:
    page = reader(java_script_enabled=False).page
    page.goto(f"{live.url}widgets/")
    assert page.locator("figure[data-widget] svg:visible").count() == len(CHANGES)


def test_tokens_are_python_s(live: Site, reader: Any) -> None:
    visitor = reader()
    for name, model, words in (
        ("wordpiece", "minilm", ["Cafés", "unbelievable", "rocks"]),
        ("unigram", "t5-small", ["sieben", "lampe", "translate"]),
        ("bpe", "gpt2", [" sleeping", "lamp", " é"]),
    ):
        tokenizer = LocalCopy(model, MINIATURES / model, "miniature").tokenizer()
        found = opened(visitor, live, name)
        found.locator(".ask button").last.click()
        for word in words:
            found.get_by_label("a word of your own").fill(word)
            said = shown(found, word=word)
            tokens = [
                token for token in tokenizer.encode(word).tokens if token not in ("[CLS]", "[SEP]", "</s>")
            ]
            if name == "unigram":
                assert re.findall(r"(\S+) \(-", said) == tokens
            else:
                assert re.split(r" \| | ", said.rpartition(": ")[2]) == tokens


def test_a_float_is_taken_apart_as_in_python(live: Site, reader: Any) -> None:
    page = reader().open(f"{live.url}widgets/")
    numbers = [0.1, 1.0, -2.5, 1e8, 3.4e38, 1e-40, 0.0]
    script = """async ([address, numbers]) => {
      const { anatomy } = await import(address);
      return numbers.map((number) => anatomy(number));
    }"""
    for number, one in zip(
        numbers, page.evaluate(script, [f"{live.url}javascripts/widgets/floats.js", numbers]), strict=True
    ):
        (whole,) = struct.unpack(">I", struct.pack(">f", number))
        assert one["bits"] == f"{whole:032b}"
        if 1e-30 < abs(number) < 1e38:
            assert math.isclose(one["ulp"], 2.0 ** (math.frexp(number)[1] - 24))
