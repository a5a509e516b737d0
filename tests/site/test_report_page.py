"""The page of `verify --html` in a browser: inert, quiet, readable by everybody, and its parts work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT

import llm_rebuild
from llm_rebuild import verify
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.mutants import Mutant, mutated
from llm_rebuild.show.page import render

from .conftest import BARRIERS, PHONE, Site, served

HOSTILE = "</script><img src=x onerror='window.hit=1'><svg onload='window.hit=1'>"
WORST = "h.0.attn.scaled"
PAINTED = """(canvas) => new Set(new Uint32Array(
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`clean.html` and `wrong.html`, of texts that would like to be markup."""
    folder = tmp_path_factory.mktemp("pages")
    copy = LocalCopy("gpt2", MINIATURES / "gpt2", "miniature")
    texts = [f"The baker {HOSTILE}", "The cook"]
    clean = verify.prove(copy, texts)
    with mutated([Mutant("m", "gpt2", "scaled = product * scale", "scaled = product", "", "")]):
        wrong = llm_rebuild.prove(copy, texts)
    for name, proof in (("clean", clean), ("wrong", wrong)):
        page = render(proof.report, proof.truth, proof.rebuilt, files=copy.sha256)
        Path(folder / f"{name}.html").write_text(page, encoding="utf-8")
    yield from served(folder)


@pytest.mark.parametrize("name", ["clean", "wrong"])
def test_it_is_inert_and_open_to_everybody(pages: Site, reader: Any, name: str) -> None:
    visitor = reader(color_scheme="light")
    page = visitor.page
    page.goto(f"{pages.url}{name}.html#{WORST}")
    page.evaluate("document.querySelectorAll('.finding details').forEach((fold) => (fold.open = true))")
    page.evaluate(AXE_SCRIPT)
    assert page.evaluate(BARRIERS, {}) == []
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(BARRIERS, {"runOnly": ["color-contrast"]}) == []
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(BARRIERS, {"rules": {"color-contrast": {"enabled": False}}}) == []
    assert page.evaluate("window.hit === undefined && document.images.length === 0")
    assert HOSTILE in page.locator(".texts bdi").first.text_content()
    assert visitor.outside == []
    assert visitor.errors == []


def test_a_cell_opens_its_checkpoint_and_draws_it(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}wrong.html")
    assert page.locator(".entry[open]").count() == 0
    page.click(f'a.cell[href="#{WORST}"]')
    entry = page.locator(f'[id="{WORST}"]')
    entry.locator("canvas[role=img]").nth(2).wait_for()
    assert entry.get_attribute("open") is not None
    assert entry.locator("canvas[role=img]").count() == 3
    assert all(entry.locator("canvas[role=img]").nth(n).evaluate(PAINTED) > 8 for n in range(3))
    assert entry.locator("svg path").count() == 2  # the histogram, official and rebuilt
    entry.locator("canvas[role=img]").first.hover()
    assert "official ≈" in entry.locator(".readout").text_content()
    light = entry.locator("canvas[role=img]").first.evaluate("(canvas) => canvas.toDataURL()")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => document.querySelector('.entry[open] canvas[role=img]').toDataURL() !== before",
        arg=light,
    )


def test_another_head_can_be_chosen(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}clean.html#h.1.attn.probs")
    entry = page.locator('[id="h.1.attn.probs"]')
    first = entry.locator("canvas[role=img]").evaluate("(canvas) => canvas.toDataURL()")
    assert entry.locator(".heads button").count() == 4
    entry.locator(".heads button").nth(2).click()
    assert entry.locator(".heads button").nth(2).get_attribute("aria-pressed") == "true"
    assert entry.locator("canvas[role=img]").evaluate("(canvas) => canvas.toDataURL()") != first


def test_finding_by_name_and_by_verdict(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}wrong.html")
    page.fill("#page-find", "PROBS h.1")
    assert page.locator(".entry:visible").count() == 1
    assert page.locator("#page-found").text_content() == "1 checkpoint"
    page.fill("#page-find", "nowhere")
    assert page.locator(".entry:visible").count() == 0
    assert page.locator(".nothing").is_visible()
    page.fill("#page-find", "")
    page.click("button[data-kind=identical]")
    kinds = page.locator(".entry:visible").evaluate_all("(all) => all.map((entry) => entry.dataset.kind)")
    assert len(kinds) == 7
    assert set(kinds) == {"identical"}
    page.click(f'a.cell[href="#{WORST}"]')  # hidden by the filter: which makes room
    assert page.locator(f'[id="{WORST}"]').is_visible()


def test_the_map_is_one_stop_for_the_tab_key_and_arrows_move_in_it(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}wrong.html")
    assert page.locator('a.cell[tabindex="0"]').count() == 1
    page.focus("a.cell.here")
    here = "document.activeElement.getAttribute('href')"
    assert page.evaluate(here) == f"#{WORST}"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(here) == "#h.0.attn.scores"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(here) == "#h.1.attn.scores"
    assert "h.1.attn.scores" in page.locator("#page-reading").text_content()
    page.keyboard.press("Home")
    assert page.evaluate(here) == "#wte"
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('wte').open")
