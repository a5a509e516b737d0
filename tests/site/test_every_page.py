"""Every page of the built site, seen once with a browser, which asks all that is to be asked of each."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Site, Visit, barriers

# Bytes of everything that a first visit to one page fetches, before any compression in transit.
PAGE_WEIGHT = 1_100_000


def test_no_page_asks_for_anything_outside(visits: dict[str, Visit]) -> None:
    assert {url: visit.outside for url, visit in visits.items() if visit.outside} == {}


def test_no_script_is_in_trouble(visits: dict[str, Visit]) -> None:
    assert {url: visit.errors for url, visit in visits.items() if visit.errors} == {}


def test_all_mathematics_is_rendered(visits: dict[str, Visit]) -> None:
    assert {url: visit.unrendered for url, visit in visits.items() if visit.unrendered} == {}
    assert any(visit.formulas for visit in visits.values())


def test_nothing_is_wider_than_a_phone(visits: dict[str, Visit]) -> None:
    assert {url: visit.wider for url, visit in visits.items() if visit.wider} == {}


@pytest.mark.parametrize("sight", ["light", "dark", "phone"])
def test_axe_finds_no_barrier(visits: dict[str, Visit], sight: str) -> None:
    """For readers with a screen reader, with a keyboard only, or with weak sight."""
    assert {url: visit.barriers[sight] for url, visit in visits.items() if visit.barriers[sight]} == {}


def test_page_weight(visits: dict[str, Visit]) -> None:
    for url, visit in visits.items():
        assert visit.bytes > 100_000, f"{url}: nothing was weighed"
        assert visit.bytes < PAGE_WEIGHT, url


def test_what_cannot_be_read_is_found_on_a_page_whose_looks_are_known(sampler: Site, reader: Any) -> None:
    page = reader(color_scheme="light").open(f"{sampler.url}plain/")
    assert barriers(page, []) == []
    page.evaluate("document.querySelector('article p').style.color = '#bbb'")
    for _ in range(2):  # what was found is not taken for known
        assert [line.partition(" ")[0] for line in barriers(page, [])] == ["color-contrast"]
