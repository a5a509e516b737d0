"""Formulas as MathML, which browsers draw without any script. mkdocs.yml has this as a hook.

Markdown leaves a formula's TeX in an element of the class `arithmatex`. Its letters are those of
docs/assets/fonts/, a part of Latin Modern Math; how it was cut out stands in THIRD-PARTY.md.
"""

from __future__ import annotations

import re
from html import escape, unescape
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'(<(?P<tag>span|div) class="arithmatex">)\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.S)
# A function's name, a large bracket and a stroke need no room on both sides, as an operator does.
NAME = re.compile(r"<mo>([A-Za-z]{2,})</mo>")
CLOSE = re.compile(r"<mo(?= minsize|>&#x0002F;)")


def on_page_content(html: str, **more: Any) -> str:
    """A page's HTML with its formulas drawn; called by MkDocs."""
    return drawn(html)


def drawn(html: str) -> str:
    """HTML with MathML where TeX stood. Raises ValueError for a word that means nothing in it."""
    return FORMULA.sub(_drawn, html)


def _drawn(formula: re.Match[str]) -> str:
    tex = unescape(formula["tex"]).strip()
    display = "block" if formula["tag"] == "div" else "inline"
    mathml = CLOSE.sub('<mo lspace="0" rspace="0"', NAME.sub(r"<mi>\1</mi>", convert(tex, display=display)))
    if "\\" in mathml:
        raise ValueError(f"no formula: {tex}")
    _, _, inside = mathml.partition(">")
    return f'{formula[1]}<math display="{display}" alttext="{escape(tex)}">{inside}</{formula["tag"]}>'
