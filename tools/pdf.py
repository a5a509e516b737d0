"""The course as one PDF, from the built site and its print style, by the Chromium of this machine.

    python -m tools.pdf               # writes llm-rebuild.pdf from site/
    python -m tools.pdf --out FILE
    python -m tools.pdf part-3/floats.md  # this chapter alone

All chapters in the order of the menu, then the glossary. Links between them lead within the file; links to
other pages of the site keep their words. Pages that compute are left out: they are for a browser.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import posixpath
import sys
import threading
from pathlib import Path

from tools import course
from tools.browser import executable

PROJECT = Path(__file__).resolve().parents[1]
FOOT = """<div style="width: 100%; font: 8px sans-serif; color: #596467; text-align: center">
<span class="pageNumber"></span></div>"""
# In the page of the first chapter: the others' articles are put behind its own. An id gets its page's name in
# front, and so does a link to it; drawings keep theirs, which are unique.
BIND = """async ([site, addresses, title, description, licence]) => {
  const nameOf = (address) => address.replaceAll("/", "-");
  const names = new Map(addresses.map((address) => [new URL(address, site).href, nameOf(address)]));
  const book = document.createElement("article");
  book.className = "md-content__inner md-typeset";
  for (const [address, name] of names) {
    const page = new DOMParser().parseFromString(await (await fetch(address)).text(), "text/html");
    const article = page.querySelector("article");
    article.querySelectorAll("script, [data-live]").forEach((element) => element.remove());
    for (const element of article.querySelectorAll("[id]:not(svg [id])")) element.id = name + element.id;
    for (const link of article.querySelectorAll("a[href]")) {
      const target = new URL(link.getAttribute("href"), address);
      const { hash } = target;
      target.hash = "";
      if (names.has(target.href)) link.href = "#" + names.get(target.href) + hash.slice(1);
      else if (target.origin === location.origin) link.removeAttribute("href");
    }
    const chapter = Object.assign(document.createElement("section"), { id: name, className: "chapter" });
    chapter.append(...article.childNodes);
    book.append(chapter);
  }
  const cover = document.createElement("section");
  const list = document.createElement("ol");
  for (const chapter of book.children) {
    const link = Object.assign(document.createElement("a"), { href: "#" + chapter.id });
    link.textContent = chapter.querySelector("h1").firstChild.textContent;
    const item = document.createElement("li");
    item.append(link);
    list.append(item);
  }
  const heading = Object.assign(document.createElement("h1"), { textContent: title });
  const about = Object.assign(document.createElement("p"), { className: "lead", textContent: description });
  const terms = Object.assign(document.createElement("p"), { textContent: licence });
  cover.append(heading, about, list, terms);
  book.prepend(cover);
  document.body.replaceChildren(book);
  document.body.classList.add("book");
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  await document.fonts.ready;
}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads which files were asked for."""


def address(page: str) -> str:
    """`part-3/minilm.md` → `part-3/minilm/`"""
    return posixpath.join(posixpath.dirname(page), Path(page).stem) + "/"


def write(site: Path, out: Path, chapters: list[str]) -> int:
    """Print these chapters of the site into a file, all where none is named; return how many."""
    from playwright.sync_api import sync_playwright

    pages = chapters or [*(chapter.address for chapter in course.read()), "glossary.md"]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/"
    words = (
        "LLM Rebuild",
        "Take a real language model apart, build it again in plain PyTorch, and prove it right, bit by bit.",
        "Text and figures: CC BY-NC 4.0. Code: MIT. The LLM Rebuild developers.",
    )
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=executable(), args=flags)
        page = browser.new_page(color_scheme="light", reduced_motion="reduce")
        page.set_default_timeout(300_000)
        page.goto(url + address(pages[0]))
        page.evaluate(BIND, [url, [address(name) for name in pages], *words])
        page.emulate_media(media="print", color_scheme="light")
        page.pdf(
            path=out,
            prefer_css_page_size=True,
            print_background=True,
            outline=True,
            tagged=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
        )
        browser.close()
    server.shutdown()
    return len(pages)


def main() -> None:
    parser = argparse.ArgumentParser(description="The course as one PDF.")
    parser.add_argument("chapters", nargs="*", help="those to print; all where none is named")
    parser.add_argument("--site-dir", type=Path, default=PROJECT / "site", help="the built site")
    parser.add_argument("--out", type=Path, default=PROJECT / "llm-rebuild.pdf", help="the file to write")
    arguments = parser.parse_args()
    if not (arguments.site_dir / "index.html").is_file():
        sys.exit(f"{arguments.site_dir} has no site: build it first (make site)")
    count = write(arguments.site_dir, arguments.out, arguments.chapters)
    print(f"{arguments.out}: {count} chapters, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
