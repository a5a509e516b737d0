"""What depends on where the site and the project are: shown where that is configured, and nowhere else."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from .conftest import small_site

SITE, REPOSITORY = "https://example.org/course/", "https://example.org/repository"
COLAB = "https://colab.example.org/github/a/b/blob/main"
NOTEBOOK = "[:material-download: This chapter as a notebook](../notebooks/part-3-gpt2.ipynb){ .md-button }"
PAGES = {
    "index.md": "# Home\n\nOf *models*.\n",
    "a.md": "---\ndescription: Of A.\n---\n\n# A page\n\n" + NOTEBOOK,
}


@pytest.fixture(scope="module")
def addressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    addresses = {"LLM_REBUILD_SITE_URL": SITE, "LLM_REBUILD_REPOSITORY_URL": REPOSITORY}
    addresses["LLM_REBUILD_COLAB_URL"] = COLAB + "/"
    return small_site(tmp_path_factory.mktemp("addressed"), PAGES, strict=False, **addresses)


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def named(page: BeautifulSoup) -> dict[str, str]:
    tags = page.find_all("meta")
    return {str(tag.get("property") or tag.get("name")): str(tag.get("content")) for tag in tags}


def test_a_link_to_a_page_shows_what_it_is(addressed: Path) -> None:
    page = soup(addressed / "a" / "index.html")
    tags = named(page)
    assert tags["og:title"] == "A page"
    assert tags["og:description"] == "Of A."
    assert tags["og:url"] == f"{SITE}a/"
    assert tags["og:image"] == f"{SITE}assets/social.png"
    assert page.find("link", rel="canonical")["href"] == f"{SITE}a/"
    assert f"<loc>{SITE}a/</loc>" in (addressed / "sitemap.xml").read_text(encoding="utf-8")
    picture = (addressed / "assets" / "social.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (1200, 630)


def test_the_home_page_says_that_it_is_a_course(addressed: Path) -> None:
    home = soup(addressed / "index.html")
    assert home.title.get_text() == "LLM Rebuild"
    course = json.loads(home.find("script", type="application/ld+json").get_text())
    assert (course["@type"], course["url"]) == ("Course", SITE)
    assert named(home)["og:title"] == "LLM Rebuild"
    assert home.find("a", href=REPOSITORY) is not None


def test_without_an_address_nothing_claims_one(built_site: Path) -> None:
    for name in ("index.html", "part-3/gpt2/index.html"):
        page = soup(Path(built_site) / name)
        assert not {"og:url", "og:image"} & set(named(page))
        assert page.find("link", rel="canonical") is None
        assert page.find("script", type="application/ld+json") is None
        assert "repository" not in page.find(class_="md-copyright").get_text()


def test_a_hosted_notebook_is_linked_where_there_is_one(addressed: Path, built_site: Path) -> None:
    download, colab = soup(addressed / "a" / "index.html").select("article a.md-button")
    assert str(download["href"]).endswith("notebooks/part-3-gpt2.ipynb")
    assert (colab["href"], colab.get_text()) == (f"{COLAB}/part-3-gpt2.ipynb", "Open in Colab")
    for name in ("part-3/gpt2", "part-3/gpt2-rebuilt"):
        page = soup(Path(built_site) / name / "index.html")
        assert len(page.select("article a.md-button")) == 1
        assert "Colab" not in page.get_text()


def test_an_unknown_address_leads_on(built_site: Path) -> None:
    page = soup(Path(built_site) / "404.html").find("article")
    assert page.find("label", attrs={"for": "__search"}) is not None
    links = [str(link["href"]) for link in page.find_all("a")]
    assert len(links) > 3
    assert all((Path(built_site) / link.strip("/") / "index.html").is_file() for link in links)
