"""Pages show their code with few elements, and every character of it."""

from __future__ import annotations

import re

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from tools.light_code import on_page_content

TAGS = re.compile("<[^>]*>")
CODE = 'scores = (query @ key.transpose(-1, -2)) / math.sqrt(width)  # as "published" <here>\n'


def test_every_character_stays_with_fewer_elements() -> None:
    full = highlight(CODE, PythonLexer(), HtmlFormatter())
    light = on_page_content(full)
    assert TAGS.sub("", light) == TAGS.sub("", full)
    assert light.count("<span") < 0.4 * full.count("<span")


def test_what_has_a_colour_of_its_own_keeps_it() -> None:
    light = on_page_content(highlight(CODE, PythonLexer(), HtmlFormatter()))
    assert '<span class="c1"># as "published" &lt;here&gt;</span>' in light
    assert '<span class="mi">1</span>' in light
    assert "scores = (query @ key.transpose(-" in light
