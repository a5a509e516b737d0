"""The picture that a chat shows beside a link to the site: the home page's drawing and first sentence.

    python -m tools.social        # writes docs/assets/social.png

It is 1200 × 630, taken by the Chromium of this machine, and made anew only when the drawing has changed.
"""

from __future__ import annotations

from pathlib import Path

from tools.browser import executable
from tools.notebooks import image

ASSETS = Path(__file__).resolve().parents[1] / "docs" / "assets"
PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; width: 1200px; height: 630px; display: flex; align-items: center; background: #fdfcfa;
  color: #1c2426; font: 26px/1.4 "Liberation Sans", Arial, sans-serif }}
div {{ width: 560px; padding: 0 0 0 70px }} h1 {{ font-size: 54px; line-height: 1.1; margin: 0 0 28px }}
p {{ color: #596467; margin: 0 }} b {{ color: #17606d }} svg {{ width: 540px; height: auto }}
</style><div><h1>Take a language model apart. Build it again. Know that it is right.</h1>
<p><b>LLM Rebuild</b>: MiniLM, GPT-2 and T5 in plain PyTorch, equal to the official models bit for bit.</p>
</div>{drawing}"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    drawing = image((ASSETS / "hero.svg").read_text(encoding="utf-8"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 630}, reduced_motion="reduce")
        page.set_content(PAGE.format(drawing=drawing))
        page.screenshot(path=ASSETS / "social.png")
        browser.close()


if __name__ == "__main__":
    main()
