"""Slides for a class, from the chapters themselves: nothing is written twice.

    python -m tools.slides                          writes slides/part-2-minilm.html, … one file a chapter
    python -m tools.slides --out DIR part-2/minilm  some of them, elsewhere

A section's heading, its figures with their captions, its formulas, its short snippets with what they print,
and the exercises without their solutions are a slide each. The section's prose is the speaker's notes. A file
asks for nothing from elsewhere: figures, and where there are formulas their letters, are in it.
"""

from __future__ import annotations

import argparse
import base64
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from markdown import Markdown
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from tools import course, edition, fences, formulas, notebooks

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
LETTERS = DOCS / "assets" / "fonts" / "rebuild-math.woff2"
LONGEST = 18  # lines of a snippet that a slide shows, and of what it prints
LICENCE = "LLM Rebuild · text and figures CC BY-NC 4.0, code MIT"
PIECE = re.compile(
    r"(?P<heading>^#{1,3} .+$)|(?P<figure><figure[\s\S]*?</figure>)|(?P<formula>^\$\$[\s\S]+?\$\$$)"
    r"|(?P<box>(?:^>.*\n?)+)|(?P<table>(?:^\|.*\n?)+)|(?P<prose>(?:^(?![#>|<]|\$\$).+\n?)+)",
    re.M,
)
STYLE = """
* { box-sizing: border-box }
body { margin: 0; background: #333; overflow: hidden }
section { width: 1280px; height: 720px; padding: 48px 64px; overflow: hidden; background: #fff;
  color: #1d2426; font: 26px/1.4 system-ui, sans-serif; position: absolute; transform-origin: 0 0 }
h1 { font-size: 2em; margin: 3.5em 0 .5em }
h2 { font-size: 1.35em; margin: 0 0 .6em; color: #17606d }
p, ul, ol, table { margin: 0 0 .6em }
li { margin-bottom: .3em }
figure { margin: 0; text-align: center }
img { max-width: 100%; height: 500px; object-fit: contain }
figcaption { font-size: .7em; text-align: left }
pre { background: #f3f5f5; padding: .6em .8em; margin: 0 0 .5em; white-space: pre-wrap; line-height: 1.3 }
pre, code { font-family: ui-monospace, monospace; font-size: .85em }
pre code { font-size: 1em }
td, th { text-align: left; padding: .15em .8em .15em 0; border-bottom: 1px solid #ccd }
aside { display: none; position: absolute; inset: auto 0 0; max-height: 50%; overflow: auto;
  padding: 1em 2em; background: #fffbe6; border-top: 2px solid #b5842b; font-size: 18px }
.notes aside { display: block }
footer { position: absolute; bottom: 14px; right: 64px; font-size: 13px; color: #596467 }
@page { size: 1280px 720px; margin: 0 }
@media print {
  body { overflow: visible; background: none }
  aside { display: none !important }
  section { position: relative; visibility: visible !important; transform: none !important;
    break-after: page }
}
"""
SCRIPT = """
const slides = [...document.querySelectorAll("section")];
let at = Math.max(0, (parseInt(location.hash.slice(1)) || 1) - 1);
const show = (number) => {
  at = Math.min(Math.max(number, 0), slides.length - 1);
  const scale = Math.min(innerWidth / 1280, innerHeight / 720);
  slides.forEach((slide, number) => {
    slide.style.visibility = number === at ? "visible" : "hidden";
    slide.style.transform = `translate(${(innerWidth - 1280 * scale) / 2}px) scale(${scale})`;
  });
  history.replaceState(null, "", `#${at + 1}`);
};
const fit = (slide) => {  // letters get smaller where there are many, and a picture where there is no room
  const picture = slide.querySelector("img");
  for (let size = 26, height = 500; slide.scrollHeight > 720 && (size > 12 || height > 200); ) {
    if (picture && height > 320) picture.style.height = `${(height -= 20)}px`;
    else if (size > 12) slide.style.fontSize = `${(size -= 1)}px`;
    else picture ? (picture.style.height = `${(height -= 20)}px`) : (height = 0);
  }
};
addEventListener("keydown", ({ key }) => {
  const steps = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1, Home: -1e6, End: 1e6 };
  if (key in steps) show(at + steps[key]);
  if (key === "n") document.body.classList.toggle("notes");
});
addEventListener("resize", () => show(at));
addEventListener("load", () => {
  slides.forEach(fit);
  show(at);
  document.body.dataset.ready = "";
});
"""


@dataclass
class Section:
    """A section of a chapter: its heading, its prose, and what is to be shown of it, as HTML."""

    heading: str
    prose: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)


def slides(chapter: Path, docs: Path = DOCS) -> str:
    """The slides of a chapter as one file of HTML."""
    text = edition.without_solutions(chapter.read_text(encoding="utf-8"))
    text = text.partition("\n??? made-with")[0]
    sections = _sections(fences.read_page(chapter, text), chapter, docs)
    pages = [page for number, section in enumerate(sections) for page in _pages(section, first=number == 0)]
    foot = f"<footer>{escape(LICENCE)}</footer>"
    body = "\n".join(f"<section>{page}{foot}</section>" for page in pages)
    style = (_letters() if "<math" in body else "") + STYLE
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{escape(sections[0].heading)}</title>\n<style>{style}</style>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n"
    )


def _sections(page: fences.Page, chapter: Path, docs: Path) -> list[Section]:
    sections: list[Section] = []
    for cell in notebooks.plain_cells(page, chapter, docs):
        if cell.cell_type == "code":
            shown = "".join(output.text for output in cell.outputs)
            sections[-1].shown += _snippet(cell.source, shown)
            continue
        for piece in PIECE.finditer(cell.source):
            kind, text = str(piece.lastgroup), piece[0].strip()
            if kind == "heading":
                sections.append(Section(text.lstrip("# ")))
            elif kind == "prose":
                sections[-1].prose.append(text)
            elif kind == "box":
                sections += _box(text)
            else:
                sections[-1].shown.append(_html(text))
    return sections


def _box(text: str) -> Iterator[Section]:
    """An exercise, a trap, the objectives: a section of its own. Hints are left out."""
    text = "\n".join(line.removeprefix(">").removeprefix(" ") for line in text.splitlines()).strip()
    title = re.match(r"\*\*(.+)\*\*$", text, re.M)  # a hint is a box in a box, and begins otherwise
    if title:
        yield Section(title[1], shown=[_html(text[title.end() :].strip())])


def _snippet(code: str, printed: str) -> Iterator[str]:
    """A snippet and what it prints, where they are short enough for a slide: for one, or for one each."""
    if code.count("\n") < LONGEST:
        language = "sh" if code.startswith("%%") else "python"
        code = code.removeprefix("%%sh -e\n").removeprefix("%%bash -e\n")
        made = HtmlFormatter(nowrap=True, noclasses=True)
        lines = printed.rstrip().splitlines()
        if len(lines) > LONGEST:
            lines = [*lines[: LONGEST - 1], "…"]
        output = f"<pre>{escape(chr(10).join(lines))}</pre>" if lines else ""
        snippet = f"<pre>{highlight(code, get_lexer_by_name(language), made)}</pre>"
        together = code.count("\n") + len(lines) < 1.3 * LONGEST
        yield from [snippet + output] if together else [snippet, output]


def _pages(section: Section, first: bool) -> Iterator[str]:
    """The slides of a section. The first paragraph is on the first of them, all of the prose in the notes."""
    level = 1 if first else 2
    words = [text for text in section.prose if not (first and text.startswith("*"))]
    heading = f"<h{level}>{_html(section.heading, inline=True)}</h{level}>"
    notes = f"<aside>{_html(chr(10).join(f'{text}{chr(10)}' for text in words))}</aside>" if words else ""
    listed = len(words) > 1 and words[1].startswith(("- ", "1."))  # what the first paragraph ends in
    lead = _html("\n\n".join(words[: 1 + listed]))
    if first or not section.shown:
        yield heading + lead + notes
        lead = ""
    for shown in section.shown:
        yield heading + lead + shown + notes
        lead = notes = ""


def _html(text: str, inline: bool = False) -> str:
    """Markdown as HTML, formulas as MathML."""
    made = Markdown(extensions=["tables", "sane_lists", "pymdownx.arithmatex"],
                    extension_configs={"pymdownx.arithmatex": {"generic": True}}).convert(text)  # fmt: skip
    html = formulas.drawn(made)
    return html.removeprefix("<p>").removesuffix("</p>") if inline else html


def _letters() -> str:
    """The letters of formulas, in the file."""
    data = base64.b64encode(LETTERS.read_bytes()).decode("ascii")
    return (
        f'@font-face {{ font-family: "Rebuild Math"; src: url("data:font/woff2;base64,{data}") }}\n'
        'math { font-family: "Rebuild Math", math }\nmtd { text-align: left }\n'
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Make slides from the chapters.")
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="these, as part-2/minilm; without, all")
    parser.add_argument("--out", type=Path, default=PROJECT / "slides", metavar="DIR", help="where to")
    arguments = parser.parse_args()
    known = {chapter.address.removesuffix(".md"): chapter.file for chapter in course.read()}
    if unknown := [page for page in arguments.pages if page not in known]:
        sys.exit(f"no slides: there is no chapter {unknown[0]}; there are {', '.join(known)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for page in arguments.pages or known:
        path = arguments.out / f"{page.replace('/', '-')}.html"
        path.write_text(slides(known[page]), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
