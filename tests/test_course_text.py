"""What the pages say: terms are in the glossary, sources in the bibliography, numbers come from a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.chapters import CHAPTERS
from tools import course, fences, terms
from tools.terms import prose_of

DOCS = Path(__file__).resolve().parents[1] / "docs"

# Numbers in prose that no run on their page prints, each with its reason.
REASONS = {
    "start.md": {"3.10": "a version", "10,000": "of an example that nobody ran"},
    "part-1/copies.md": {"2.6": "a version"},
    "part-2/gpt2.md": {"0.044715": "a constant of the formula"},
    "part-2/t5.md": {"60,506,624": "published", "32,100": "published"},
    "part-2/compared.md": {
        "1e-12": "a default of a config", "1e-5": "a default of a config",
        "-0.5": "an exponent of a formula",
    },
    "part-3/minilm.md": {"0.044715": "a constant of the formula"},
    "part-3/floats.md": {
        "1e-12": "a default of a config", "5e-4": "measured in the catalogue of mistakes",
        "0.125": "one eighth", "9.5e-7": "of an example", "3,456": "of an example",
        "3.0e-6": "of an example",
    },
    "part-3/gpt2.md": {"*": "published; tests/test_published_values.py has each"},
    "part-3/generation.md": {"50,257": "published"},
    "part-3/t5.md": {"-19.0845": "published", "32,128": "published"},
    "part-4/workbench.md": {"4,096": "a default of the command"},
    "part-4/traps.md": {
        "0.000005": "the bar", "600.00006": "the float behind 600",
        "3.5": "measured on the mutants, by three sets of kernels",
    },
    "part-4/close.md": {
        "0.0003": "of an example", "1,024": "the size of a vocabulary", "6e-5": "published",
        "7e-4": "published", "1e-4": "a tolerance of others", "4e-5": "of an example",
        "3,000": "of an example", "2.4e-4": "of an example",
    },
    "part-4/no-match.md": {"0.2": "of an example"},
    "after/items.md": {"0.7": "a customary bar"},
}  # fmt: skip

NUMBER = re.compile(
    r"(?<![\w.,/-])-?"
    r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+(?:e[+-]?\d+)?|\d+e[+-]?\d+|\d+(?= ?%))"
    r"(?!\w|[.,]\d)"
)
SHOWN = re.compile(r"-?\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def typed_numbers(page: fences.Page) -> list[str]:
    """Numbers in prose, those with decimals, exponents, thousands or per cent, that no fence of the page has:
    not even rounded, as a share for a percentage, or with the other sign."""
    texts = (text.replace(",", "") for fence in page.fences for text in SHOWN.findall(fence.code))
    shown = [abs(float(text)) for text in texts]
    typed = []
    for text in NUMBER.findall(prose_of(page)):
        number, _, exponent = text.replace(",", "").partition("e")
        half = 0.5001 * 10.0 ** (int(exponent or 0) - len(number.partition(".")[2]))
        value = abs(float(text.replace(",", "")))
        if not any(abs(value - one) <= half or abs(value - 100 * one) <= half for one in shown):
            typed.append(text)
    return typed


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.address)
def test_numbers_in_prose_come_from_a_run_of_the_page_or_have_a_reason(chapter: course.Chapter):
    reasons, typed = REASONS.get(chapter.address, {}), typed_numbers(chapter.page)
    assert [number for number in typed if number not in reasons and "*" not in reasons] == []
    assert [number for number in reasons if number != "*" and number not in typed] == [], (
        "a reason for nothing"
    )


def test_a_typed_number_is_found(tmp_path: Path):
    page = tmp_path / "page.md"
    text = "# x\n\nIt is 0.{}, 41 of 41, {}% of 1,234.\n\n"
    text += "```python\nprint(1)\n```\n\n```text\n0.4249 0.127 1234\n```\n"
    page.write_text(text.format("42", "13"), encoding="utf-8")
    assert typed_numbers(fences.read_page(page)) == []
    page.write_text(text.format("43", "14"), encoding="utf-8")
    assert typed_numbers(fences.read_page(page)) == ["0.43", "14"]


# One spelling for one thing, and no word that tells a reader how easy it is.
INSTEAD = {
    r"normaliz": "normalise", r"tokenis": "tokenize", r"colors?\b": "colour", r"summariz": "summarise",
    r"(?:pre|post)-?norm\b": "pre-LN, post-LN", r"(?:self|cross) attention": "self-attention",
    r"feed forward": "feed-forward", r"key-value cache": "KV cache", r"hyper-?parameter": "setting",
    r"\b(?:obviously|trivial|trivially|of course)\b": "nothing",
    r"\b(?:can|don|won|isn|doesn)'t\b": "both words",
    r"\bin order to\b": "to", r"\b(?:utili[sz]e|leverage)": "use",
}  # fmt: skip


@pytest.mark.parametrize(
    "page",
    [*(c.file for c in CHAPTERS), DOCS / "glossary.md", DOCS / "teaching.md"],
    ids=lambda page: page.relative_to(DOCS).as_posix(),
)
def test_one_spelling_for_one_thing(page: Path):
    prose = re.sub(r"`[^`]*`", "", prose_of(fences.read_page(page)))
    for word, instead in INSTEAD.items():
        assert re.search(word, prose, re.I) is None, f"write {instead}"


def test_every_term_that_a_chapter_uses_is_in_the_glossary():
    pages = [chapter.page for chapter in CHAPTERS]
    assert len(terms.used(pages)) > 70
    assert terms.undefined(pages) == []


def test_every_source_that_is_named_is_cited_and_every_entry_is_used():
    assert terms.uncited() == [], "named, and not linked to the bibliography"
    entries, cited = terms.entries(), terms.cited()
    assert entries - cited == set(), "in the bibliography, and cited nowhere"
    assert cited - entries == set()
