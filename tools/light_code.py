"""Code on pages with fewer elements: a page restyles each of them several times while it opens.

Pygments wraps every token. Names and spaces have the colour of code anyway and need no element; neighbours
among operators and punctuation, which share one colour, need one together.
"""

from __future__ import annotations

import re
from typing import Any

PLAIN = re.compile(r'<span class="(?:n|w)">([^<]*)</span>')
NEIGHBOURS = re.compile(r'<span class="[op]">[^<]*</span>(?: *<span class="[op]">[^<]*</span>)+')
TAGS = re.compile(r"<[^>]*>")


def on_page_content(html: str, **more: Any) -> str:
    """A page's HTML that shows the same with less; called by MkDocs."""
    return NEIGHBOURS.sub(
        lambda tokens: f'<span class="p">{TAGS.sub("", tokens[0])}</span>', PLAIN.sub(r"\1", html)
    )
