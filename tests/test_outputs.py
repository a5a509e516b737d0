"""The verdicts of an output have their colours, and nothing else has."""

from __future__ import annotations

import pytest

from tools.outputs import shown, verdicts_marked


@pytest.mark.parametrize(
    ("line", "marked"),
    [
        ("wte  [1, 7]  bit-identical", 'wte  [1, 7]  <mark class="bit-identical">bit-identical</mark>'),
        ("a  [1]  12 ulp", 'a  [1]  <mark class="ulp">12 ulp</mark>'),
        ("a  [1]  5 decimals", 'a  [1]  <mark class="decimals">5 decimals</mark>'),
        ("a  [1]  rounding", 'a  [1]  <mark class="rounding">rounding</mark>'),
        ("a  [1]  wrong shape", 'a  [1]  <mark class="wrong">wrong shape</mark>'),
        ("a  [1]  missing", 'a  [1]  <mark class="wrong">missing</mark>'),
    ],
)
def test_a_verdict_is_marked(line: str, marked: str) -> None:
    assert verdicts_marked(line) == marked


@pytest.mark.parametrize(
    "line", ["cause: scale-missing (proved)", "far above rounding.", "the file is missing"]
)
def test_the_same_words_in_a_sentence_are_not(line: str) -> None:
    assert verdicts_marked(line) == line


def test_an_output_stays_text() -> None:
    html = shown('<b>&"', "text", "language-text", {}, None, attrs={"title": "<i>"}, classes=[])
    assert '<code>&lt;b&gt;&amp;"\n</code>' in html
    assert '<span class="filename">&lt;i&gt;</span>' in html
