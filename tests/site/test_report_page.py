"""The page of `verify --html` in a browser: inert, quiet, readable by everybody, and its parts work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llm_rebuild
from llm_rebuild import verify
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.mutants import Mutant, mutated
from llm_rebuild.show.page import render

from .conftest import OF_A_PHONE, Site, barriers, served

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
        page = render(proof)
        Path(folder / f"{name}.html").write_text(page, encoding="utf-8")
    yield from served(folder)


@pytest.mark.parametrize("name", ["clean", "wrong"])
def test_it_is_inert_and_open_to_everybody(pages: Site, reader: Any, name: str) -> None:
    visitor = reader(color_scheme="light")
    page = visitor.page
    page.goto(f"{pages.url}{name}.html#{WORST}")
    page.evaluate("document.querySelectorAll('.finding details').forEach((fold) => (fold.open = true))")
    assert barriers(page) == []
    page.emulate_media(color_scheme="dark")
    assert barriers(page, []) == []
    assert visitor.on_a_phone() == []
    assert barriers(page, OF_A_PHONE, colours=False) == []
    assert page.evaluate("window.hit === undefined && document.images.length === 0")
    assert HOSTILE in page.locator(".texts bdi").first.text_content()
    assert visitor.outside == []
    assert visitor.errors == []


def test_a_cell_opens_its_checkpoint_and_draws_it(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}clean.html")
    assert page.locator(".tensor").is_hidden()
    page.goto(f"{pages.url}wrong.html")
    tensor = page.locator(".tensor")
    assert tensor.locator("h3").text_content() == WORST  # the first divergence is chosen
    page.click('a.cell[href="#wte"]')
    page.wait_for_function("document.querySelector('.tensor h3').textContent === 'wte'")
    page.click(f'a.cell[href="#{WORST}"]')
    page.wait_for_function("name => document.querySelector('.tensor h3').textContent === name", arg=WORST)
    assert page.evaluate("location.hash") == f"#{WORST}"
    assert tensor.locator("canvas[role=img]").count() == 3
    assert all(tensor.locator("canvas[role=img]").nth(n).evaluate(PAINTED) > 8 for n in range(3))
    assert tensor.locator("svg path").count() == 2  # the histogram, official and rebuilt
    tensor.locator("canvas[role=img]").first.hover()
    assert "official ≈" in tensor.locator(".readout").text_content()
    light = tensor.locator("canvas[role=img]").first.evaluate("(canvas) => canvas.toDataURL()")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "before => document.querySelector('.tensor canvas[role=img]').toDataURL() !== before", arg=light
    )


def test_every_picture_has_a_table_behind_it(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}wrong.html")
    page.click(".tensor .numbers summary")
    captions = page.locator(".tensor .numbers caption")
    captions.first.wait_for()
    assert captions.all_text_contents() == ["official", "rebuilt", "difference"]
    assert page.locator(".tensor .numbers td").nth(1).text_content().startswith(("≈", "masked"))


def test_another_head_can_be_chosen(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}clean.html#h.1.attn.probs")
    tensor = page.locator(".tensor")
    first = tensor.locator("canvas[role=img]").evaluate("(canvas) => canvas.toDataURL()")
    assert tensor.locator(".heads button").count() == 4
    tensor.locator(".heads button").nth(2).click()
    assert tensor.locator(".heads button").nth(2).get_attribute("aria-pressed") == "true"
    assert tensor.locator("canvas[role=img]").evaluate("(canvas) => canvas.toDataURL()") != first


def test_finding_by_name_and_by_verdict(pages: Site, reader: Any) -> None:
    page = reader().page
    page.goto(f"{pages.url}wrong.html")
    find, bright = page.locator(".filter input"), page.locator("a.cell:not(.dim)")
    find.fill("PROBS h.1")
    assert bright.count() == 1
    assert page.locator(".filter output").text_content() == "1 checkpoint"
    find.fill("nowhere")
    assert bright.count() == 0
    find.fill("")
    page.locator(".legend button", has_text="bit-identical").click()
    assert bright.count() == 7
    kinds = bright.evaluate_all("(all) => all.map((cell) => cell.classList.contains('identical'))")
    assert all(kinds)


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
    assert "h.1.attn.scores" in page.locator(".explorer > .readout").text_content()
    page.keyboard.press("Home")
    assert page.evaluate(here) == "#wte"
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.tensor h3').textContent === 'wte'")


def test_without_scripts_there_is_the_table(pages: Site, reader: Any) -> None:
    page = reader(java_script_enabled=False).page
    page.goto(f"{pages.url}wrong.html")
    page.click(".all summary")
    assert page.locator(".all tbody tr:visible").count() == 72
