"""A page that is a notebook, in the look of the other pages. mkdocs.yml has this as a hook.

The Markdown of a page that mkdocs.yml lists under `extra: notebooks` stays what the tests run and what other
pages link to. What mkdocs-jupyter renders in its place, at its address, is the notebook that tools.notebooks
makes of it, with the outputs that the tests compare; nothing is executed.

Where `extra: colab` says at which address hosted notebooks are opened, each page that offers its notebook
links to that, too.

mkdocs-jupyter brings Jupyter's styles, scripts and copy buttons, 600 kB of them. Of what it renders, the
prose, the code and the outputs are taken, in the elements that the site's own styles and scripts know.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag

from tools import notebooks
from tools.outputs import shown

PROSE, CODE, OUTPUT = ".jp-MarkdownOutput", ".highlight-ipynb", ".jp-OutputArea-output"
ICON = re.compile(r":material-(?P<name>[\w-]+):")
BUTTON = re.compile(r'<a class="md-button" href="[^"]*/notebooks/(?P<name>[\w-]+\.ipynb)">.*?</a>', re.S)
ATTRIBUTES = re.compile(r"\s*\{ \.(?P<name>[\w-]+) \}$")


def on_files(files: Any, config: Any) -> Any:
    """Put a page's notebook in the place of its Markdown."""
    docs, folder = Path(config.docs_dir), Path(config.config_file_path).parent / "build" / "pages"
    for name in config.extra["notebooks"]:
        if file := files.get_file_from_path(name):
            file.abs_src_path = str(notebooks.write_page(docs / name, docs, folder))
    return files


def on_page_content(html: str, page: Any, config: Any, **more: Any) -> str:
    """A page with a link to its hosted notebook; one that mkdocs-jupyter made, as the site shows one."""
    if not page.file.abs_src_path.endswith(".ipynb"):
        return hosted(html, config.extra["colab"])
    icons = config.theme.get_env()

    def drawn(icon: re.Match[str]) -> str:
        svg = icons.get_template(f".icons/material/{icon['name']}.svg").render()
        return f'<span class="twemoji">{svg}</span>'

    return hosted(ICON.sub(drawn, as_a_page(html)), config.extra["colab"])


def hosted(html: str, address: str) -> str:
    """A page's HTML with a second button, where there is such an address."""

    def both(button: re.Match[str]) -> str:
        there = escape(f"{address.rstrip('/')}/{button['name']}")
        return f'{button[0]} <a class="md-button" href="{there}">Open in Colab</a>'

    return BUTTON.sub(both, html) if address else html


def as_a_page(html: str) -> str:
    """What mkdocs-jupyter renders -> the same prose, code and outputs in the site's own elements.

    Raises ValueError for an output that is not what was printed: a warning, an error, a picture."""
    soup = BeautifulSoup(html, "html.parser")
    return "\n".join(_part(part) for part in soup.select(f"{PROSE}, {CODE}, {OUTPUT}:not({PROSE})"))


def _part(part: Tag) -> str:
    if part.css.match(PROSE):
        _mend_prose(part)
        return part.decode_contents().strip()
    lines = part.pre
    if lines is None or "stderr" in str(part.get("data-mime-type")):
        raise ValueError(f"a notebook's page shows what was printed, and not: {part.get_text().strip()[:80]}")
    if part.css.match(OUTPUT):
        return shown(lines.get_text(), "text", "", {}, None, attrs={})
    code = lines.decode_contents().removeprefix("<span></span>")
    return f'<div class="language-python highlight"><pre><span></span><code>{code}</code></pre></div>'


def _mend_prose(prose: Tag) -> None:
    """Classes are given as on the other pages, `{ .lead }`, which Jupyter's Markdown shows as words."""
    for link in prose.select("a.anchor-link"):
        link["class"], link["title"] = "headerlink", "Link to this section"
    for words in prose.find_all(string=ATTRIBUTES):
        attributes = ATTRIBUTES.search(words)
        directly = words.startswith("{")  # behind a link; on a line of its own it is the paragraph's
        owner = words.previous_sibling if directly else words.parent
        owner["class"] = attributes["name"]
        words.replace_with(words[: attributes.start()])
