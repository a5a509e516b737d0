"""Formulas are drawn when the site is built."""

from __future__ import annotations

import re

import pytest
from latex2mathml.exceptions import ExtraLeftOrMissingRightError, MissingSuperScriptOrSubscriptError
from markdown import Markdown

from tools.formulas import drawn

MATH = re.compile(r"<math.*?</math>", re.S)


def html_of(text: str) -> str:
    generic = {"pymdownx.arithmatex": {"generic": True}}
    return drawn(Markdown(extensions=["pymdownx.arithmatex"], extension_configs=generic).convert(text))


def test_a_formula_in_a_line_and_one_of_its_own() -> None:
    line, own = MATH.findall(html_of("With \\(a < b\\):\n\n$$\n\\frac{a}{\\operatorname{var}(b)}\n$$\n"))
    assert line.startswith('<math display="inline" alttext="a &lt; b">')
    assert own.startswith('<math display="block"')
    assert "<mfrac>" in own
    assert "<mi>var</mi>" in own, "a function's name stands close to what it is of"
    [stroke] = MATH.findall(html_of("\\(1/a\\)"))
    assert '<mo lspace="0" rspace="0">&#x0002F;</mo>' in stroke


@pytest.mark.parametrize("tex", [r"\foo{a}", r"\left( a", "a_"])
def test_a_formula_that_is_none_stops_the_build(tex: str) -> None:
    with pytest.raises((ValueError, ExtraLeftOrMissingRightError, MissingSuperScriptOrSubscriptError)):
        html_of(f"\\({tex}\\)")
