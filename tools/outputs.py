"""What a fence printed, as the site shows it: with the verdicts in their colours.

mkdocs.yml names `shown` as the format of `text` fences, which hold outputs (docs/contributing). Nobody copies
an output, so it has no copy button.
"""

from __future__ import annotations

import re
from html import escape
from typing import Any

# A verdict as a report or `compare` prints it. Words that are plain English, too, must stand in a column.
VERDICT = re.compile(
    r"(?<![\w-])(?:(?P<identical>bit-identical)|(?P<ulp>\d+ ulp)|(?P<decimals>\d+ decimals?)"
    r"|(?P<wrong>wrong (?:values|shape|dtype)|(?<=  )missing(?=$|  ))"
    r"|(?P<rounding>(?<=  )rounding(?=$|  )))(?![\w-])",
    re.M,
)
CLASSES = {"identical": "bit-identical"}


def verdicts_marked(text: str) -> str:
    """The text as HTML, each verdict a `<mark>` with the verdict's class."""
    pieces, position = [], 0
    for verdict in VERDICT.finditer(text):
        name = CLASSES.get(verdict.lastgroup or "", verdict.lastgroup)
        pieces.append(escape(text[position : verdict.start()], quote=False))
        pieces.append(f'<mark class="{name}">{verdict[0]}</mark>')
        position = verdict.end()
    return "".join(pieces) + escape(text[position:], quote=False)


def shown(source: str, language: str, class_name: str, options: Any, md: Any, **more: Any) -> str:
    """A fence as HTML, called by pymdownx.superfences."""
    title = more["attrs"].get("title")
    heading = f'<span class="filename">{escape(title)}</span>' if title else ""
    return (
        f'<div class="language-text highlight no-copy">{heading}'
        f"<pre><span></span><code>{verdicts_marked(source.rstrip())}\n</code></pre></div>"
    )
