"""The pictures that stand in a page where a widget is: what each shows at its beginning, as a figure.

    python -m tools.widgets     # writes docs/figures/widget-NAME.svg

The widgets' own code draws them, in Chromium, so that a page without JavaScript, a print and a notebook show
what the widget begins with. `tests/site/test_widgets.py` says when one is out of date.
"""

from __future__ import annotations

import functools
import http.server
import sys
import threading
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tools.browser import executable
from tools.package_files import PACKAGE, PLACES

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
DRAWN = (
    "wordpiece",
    "unigram",
    "masks",
    "heads",
    "floats",
)  # the others begin with a figure of tools/figures/
BEGINNING = """async (address) => {
  const { controls, load, draw } = await import(address);
  const state = Object.fromEntries(controls.map(({ name, value }) => [name, value]));
  const { picture } = await draw(state, await load?.());
  return picture.outerHTML;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        """Files that the site takes from the package are served from there."""
        for source, place in PLACES.items():
            if path.startswith(f"/{place}"):
                return f"{PACKAGE / source}{path[len(place) + 1 :]}"
        return super().translate_path(path)

    def log_message(self, format: str, *args: object) -> None:
        """What is served is of no interest."""


def beginning(page: Page, address: str, name: str) -> str:
    """What a widget begins with, as the text of its file. `address`: that of docs/ or of the built site."""
    picture = str(page.evaluate(BEGINNING, f"{address}javascripts/widgets/{name}.js"))
    return picture.replace("><", ">\n<") + "\n"


def main() -> int:
    handler = functools.partial(Quiet, directory=str(DOCS))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{address}live/data/gpt2.json")  # any page of this address may import its modules
        for name in DRAWN:
            file = DOCS / "figures" / f"widget-{name}.svg"
            file.write_text(beginning(page, address, name), encoding="utf-8")
            print("wrote", file.relative_to(PROJECT))
        browser.close()
    server.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
