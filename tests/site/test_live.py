"""The live pages in a browser: they compute on one's own sentence, and everybody can use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.using.generate import Settings, generate
from tools.live import SENTENCES

from .conftest import PHONE, Reader, Site

PAGES = {"minilm": "minilm", "gpt2": "gpt2", "t5-small": "t5"}
CELLS = {"minilm": 64, "gpt2": 78, "t5-small": 244}
EVERY_BARRIER = """async (options) => {
  const found = await axe.run(document, {resultTypes: ["violations"], ...options});
  return found.violations.flatMap((violation) =>
    violation.nodes.map((node) => `${violation.id} (${violation.impact}): ${node.html.slice(0, 200)}`));
}"""


def opened(visitor: Reader, live: Site, name: str, hash: str = "") -> Page:
    """A live page that has answered its first sentence, every part of it brought to life."""
    page = visitor.open(f"{live.url}live/{PAGES[name]}/{hash}")
    for box in page.locator("[data-live]").all():
        box.scroll_into_view_if_needed()
        box.and_(page.locator("[data-started=done]")).wait_for(state="attached")
    answered(page, SENTENCES[name][0])
    return page


def answered(page: Page, text: str) -> None:
    page.wait_for_function(
        "text => [...document.querySelectorAll('[data-live]')].every((box) => box.dataset.answered === text)",
        arg=text,
    )


@pytest.mark.parametrize("name", PAGES)
def test_it_computes_every_checkpoint_and_says_how_near_to_the_official_ones(
    live: Site, reader: Any, name: str, figure: Callable[[str], None]
) -> None:
    visitor = reader()
    page = opened(visitor, live, name)
    assert page.locator("a.cell").count() == CELLS[name]
    page.get_by_label("how near to the official tensors").check()
    kinds = page.locator("a.cell").evaluate_all("(all) => all.map((cell) => cell.className.split(' ')[1])")
    assert set(kinds) == {"identical", "near"}
    figure(f"live {name}: {kinds.count('identical')} of {len(kinds)} bit-identical, the others rounding")
    assert visitor.outside == []
    assert visitor.errors == []


def test_the_likeliest_next_token_is_python_s(live: Site, reader: Any) -> None:
    page = opened(reader(), live, "gpt2")
    copy = LocalCopy("gpt2", MINIATURES / "gpt2", "miniature")
    for text in SENTENCES["gpt2"][1:]:
        page.get_by_label("Your sentence").fill(text)
        answered(page, text)
        page.wait_for_function("document.querySelector('.bars tbody code')")
        [whole] = generate(copy, text, Settings(max_new_tokens=1)).texts
        assert page.locator(".bars tbody code").first.text_content() == whole[len(text) :].replace(" ", "·")


def test_nothing_is_loaded_before_it_comes_into_view(live: Site, reader: Any) -> None:
    visitor = reader()
    page = visitor.open(live.url)
    page.wait_for_timeout(300)
    assert page.locator("[data-live]").text_content() == "as a picture"
    assert [url for url in visitor.requests if "/live/models/" in url or "/live/data/" in url] == []
    page.locator("[data-live]").scroll_into_view_if_needed()
    page.locator(".bars tbody tr").first.wait_for()
    assert len([url for url in visitor.requests if url.endswith("model.safetensors")]) == 1


def test_an_address_leads_to_a_checkpoint(live: Site, reader: Any) -> None:
    page = opened(reader(), live, "gpt2", "#h.1.attn.scores")
    assert page.locator(".tensor h3").text_content() == "h.1.attn.scores"
    page.locator(".tensor a", has_text="h.1.attn.scaled").click()
    page.wait_for_function("document.querySelector('.tensor h3').textContent === 'h.1.attn.scaled'")
    assert page.evaluate("location.hash") == "#h.1.attn.scaled"


@pytest.mark.parametrize("name", PAGES)
def test_there_is_no_barrier_of_any_kind(live: Site, reader: Any, name: str) -> None:
    visitor = reader(color_scheme="light")
    page = opened(visitor, live, name)
    page.locator(".tensor .numbers summary").click()
    page.locator(".tensor .numbers td").first.wait_for()
    page.evaluate(AXE_SCRIPT)
    assert page.evaluate(EVERY_BARRIER, {}) == []
    page.get_by_label("how near to the official tensors").check()
    assert page.evaluate(EVERY_BARRIER, {}) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.dataset.mdColorScheme === 'slate'")
    assert page.evaluate(EVERY_BARRIER, {}) == []
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(EVERY_BARRIER, {}) == []
    assert visitor.errors == []


def test_every_cell_and_every_control_is_reached_by_the_keyboard(live: Site, reader: Any) -> None:
    page = opened(reader(), live, "gpt2")
    assert page.locator('a.cell[tabindex="0"]').count() == 1
    page.locator('a.cell[tabindex="0"]').focus()
    page.keyboard.press("Home")
    seen = []
    for _ in range(CELLS["gpt2"]):
        seen.append(page.evaluate("document.activeElement.getAttribute('href').slice(1)"))
        page.keyboard.press("ArrowRight")
    assert len(set(seen)) == CELLS["gpt2"]
    assert seen[0] == "wte"
    assert seen[-1] == "lm_head"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.tensor h3').textContent.startsWith('h.2.')")
    page.evaluate("document.querySelector('.live input').focus()")
    stops = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        stops.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    controls = page.locator(".live :is(button, input, summary):visible:not(:disabled)").evaluate_all(
        "(all) => all.filter((one) => one.type !== 'radio' || one.checked)"
        ".map((one) => [...document.querySelectorAll('*')].indexOf(one))"
    )
    own = page.evaluate("[...document.querySelectorAll('*')].indexOf(document.querySelector('.live input'))")
    assert set(controls) - stops - {own} == set()
