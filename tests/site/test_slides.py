"""Slides in a browser: keys turn them, nothing is cut off, and nothing is asked for."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser

from tools import slides

from .conftest import FONTS, PATIENCE

CUT_OFF = "[...document.querySelectorAll('section')].findIndex((slide) => slide.scrollHeight > 720)"
SEEN = "[...document.querySelectorAll('section')].findIndex((slide) => slide.style.visibility === 'visible')"


def test_slides_turn_and_fit(browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1024, "height": 768})
    page.set_default_timeout(PATIENCE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    for name in ("part-2/minilm", "part-2/gpt2", "part-4/traps"):
        file = tmp_path / "slides.html"
        file.write_text(slides.slides(slides.DOCS / f"{name}.md"), encoding="utf-8")
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-ready]", state="attached")
        assert page.evaluate(CUT_OFF) == -1, name
        assert page.evaluate(SEEN) == 0
        assert bool(page.evaluate(FONTS)) == (page.locator("math").count() > 0)
        for key, number in (("ArrowRight", 1), (" ", 2), ("ArrowLeft", 1), ("Home", 0), ("PageUp", 0)):
            page.keyboard.press(key)
            assert page.evaluate(SEEN) == number, key
        note = page.locator("section").first.locator("aside")
        assert not note.is_visible()
        page.keyboard.press("n")
        assert note.is_visible()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    page.close()
