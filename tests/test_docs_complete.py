"""Every Python block that the built site shows is one that the tests, or the build itself, ran."""

# ruff: noqa: E501 — the pages are strings
from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup, Tag

from tests.chapters import NOTEBOOKS
from tools import fences, notebooks
from tools.fences import PYTHON

PROJECT = Path(__file__).resolve().parents[1]
DOCS = PROJECT / "docs"
PYTHON_NAMES = {*fences.PYTHON_NAMES, "ipython", "ipython3", "pycon", "sage", "pyi"}
PYTHON_CLASSES = {f"{prefix}-{name}" for name in PYTHON_NAMES for prefix in ("language", "hl")}

Blocks = Counter[tuple[str, str]]
"""How often a page (its path in docs/) has a block of Python (its code)."""


def page_address(page: str) -> str:
    """Where the site puts a page: `part-1/local-copy.md` → `part-1/local-copy/index.html`."""
    path = Path(page)
    if path.stem in ("index", "README"):
        return (path.parent / "index.html").as_posix()
    return (path.with_suffix("") / "index.html").as_posix()


def blocks_of_html(html: str) -> tuple[list[str], list[str]]:
    """The blocks of Python in a page of the site, and those of plain text or of no language."""
    soup = BeautifulSoup(html, "html.parser")
    python, plain = [], []
    for block in soup.find_all("pre"):
        if block.find_parent(class_="linenodiv"):
            continue
        for number in block.select(".linenos, .lineno"):
            number.decompose()
        code = block.find("code")
        text = fences.dedent((code if isinstance(code, Tag) else block).get_text())
        classes = set(block.get("class") or [])
        for around in [*([code] if isinstance(code, Tag) else []), *[block, *block.parents][:8]]:
            classes |= {name.lower() for name in around.get("class") or []}
        if classes & PYTHON_CLASSES:
            python.append(text)
        elif not any(
            name.startswith("language-") or name == "mermaid" for name in classes - {"language-text"}
        ):
            plain.append(text)
    return python, plain


def rendered_blocks(site: Path, docs: Path) -> tuple[Blocks, list[str]]:
    """The Python that the site shows, and what in it is code and no fence."""
    pages = {page_address(path.relative_to(docs).as_posix()): path for path in docs.rglob("*.md")}
    rendered: Blocks = Counter()
    unnamed = []
    for file in sorted(site.rglob("*.html")):
        address = file.relative_to(site).as_posix()
        if address.startswith("source/"):  # the package's own files
            continue
        python, plain = blocks_of_html(file.read_text(encoding="utf-8"))
        page, fenced = address, Counter[str]()
        if address in pages:
            page = pages[address].relative_to(docs).as_posix()
            fenced.update(fences.dedent(fence.code) for fence in fences.read_page(pages[address]).fences)
        rendered.update((page, code) for code in python)
        unnamed += [f"{page}: {code.splitlines()[0] if code else ''}" for code in Counter(plain) - fenced]
    return rendered, unnamed


def collected_blocks(docs: Path, root: Path) -> Blocks:
    """The visible Python fences of the pages that pytest collects, as pytest itself names them."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "--color=no", str(docs)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 5), result.stdout + result.stderr
    collected: Blocks = Counter()
    by_page: dict[str, list[int]] = {}
    for name, line in re.findall(r"^(.+\.md)::line (\d+)$", result.stdout, re.M):
        by_page.setdefault(name, []).append(int(line))
    for name, lines in by_page.items():
        path = root / name
        for fence in fences.read_page(path).fences:
            if fence.first in lines and fence.language == PYTHON and not fence.hidden:
                collected[path.relative_to(docs).as_posix(), fences.dedent(fence.source)] += 1
    return collected


def named(blocks: Blocks) -> list[str]:
    return [f"{page}: {code.splitlines()[0]} … ({count}×)" for (page, code), count in sorted(blocks.items())]


def mkdocs_settings() -> dict[str, object]:
    """mkdocs.yml, with its own tags read as plain values."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("", lambda loader, suffix, node: None)
    return dict(yaml.load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"), Loader))


def test_every_block_of_the_site_was_run(built_site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rendered, unnamed = rendered_blocks(built_site, DOCS)
    collected = collected_blocks(DOCS, PROJECT)
    escaped, unseen = rendered - collected, collected - rendered
    with capsys.disabled():
        print(
            f"\nPython blocks on the site: {rendered.total()} in pages, {(rendered & collected).total()} "
            f"run by the tests, {escaped.total()} escaped"
        )
    assert not named(escaped), "on the site, and not run"
    assert not named(unseen), "run, and not on the site: hide it in a comment, or show it"
    assert not unnamed, "code on the site that is no fence"


@pytest.mark.parametrize("chapter", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_chapter_offers_its_own_notebook(chapter: Path, built_site: Path) -> None:
    name = notebooks.notebook_name(chapter)
    links = re.findall(r"\]\((\S*notebooks/\S+\.ipynb)\)", chapter.read_text(encoding="utf-8"))
    assert links == [f"../notebooks/{name}"], f"a chapter links its notebook once: ](../notebooks/{name})"
    served = json.loads((built_site / "notebooks" / name).read_text(encoding="utf-8"))
    assert served == json.loads((DOCS / "notebooks" / name).read_text(encoding="utf-8"))
    html = (built_site / page_address(chapter.relative_to(DOCS).as_posix())).read_text(encoding="utf-8")
    assert f'href="../../notebooks/{name}"' in html


def test_the_site_shows_the_notebook_of_a_page(built_site: Path) -> None:
    extra = mkdocs_settings()["extra"]
    assert isinstance(extra, dict)
    pages = extra["notebooks"]
    assert pages
    for name in pages:
        html = (built_site / name.removesuffix(".md") / "index.html").read_text(encoding="utf-8")
        article = BeautifulSoup(html, "html.parser").article
        assert len(html) < 120_000, f"{name}: what Jupyter brings is left out"
        assert "<!--" not in str(article), f"{name}: that is the Markdown, not its notebook"
        shown = [part.get_text() for part in article.select(".language-text code")]
        fenced = [fence.output.code for fence in fences.read_page(DOCS / name).runnable if fence.output]
        assert [text.rstrip() for text in shown] == [text.rstrip() for text in fenced]
        for element in ("p.where", "p.lead", "a.md-button svg", "mark.bit-identical", "h2 .headerlink"):
            assert article.select(element), f"{name}: no {element}"
        assert ":material-" not in article.get_text()


def test_a_rendered_block_that_nothing_runs_is_named(tmp_path: Path) -> None:
    """The check itself: a small site with the fixture's kinds of fence, of which one is taken from the tests."""
    docs = tmp_path / "docs"
    docs.mkdir()
    extensions = mkdocs_settings()["markdown_extensions"]
    assert isinstance(extensions, list)
    highlight = next(
        entry for entry in extensions if isinstance(entry, dict) and "pymdownx.highlight" in entry
    )
    boxes = ["admonition", "attr_list", "md_in_html", "pymdownx.details", "pymdownx.superfences"]
    includes = {"pymdownx.snippets": {"base_path": ["."]}}
    tabs = {"pymdownx.tabbed": {"alternate_style": True}}
    (tmp_path / "mkdocs.yml").write_text(
        yaml.safe_dump(
            {
                "site_name": "x",
                "theme": {"name": "material", "font": False},
                "plugins": [],
                "markdown_extensions": [*boxes, highlight, includes, tabs],
            }
        )
    )
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.doc_plugin"]\n')
    (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = --codeblocks\npythonpath = {PROJECT}\n")
    (tmp_path / "part.py").write_text("included = 1\n")
    kinds = [
        "```python\nx = 1\n\ny = 2  # (1)!\n```",
        '```python title="a.py" hl_lines="2" linenums="1"\n@decorated\nx = "<&>"\n```',
        "``` { .python .annotate }\nx = 3\n```",
        "```py\nx = 4\n```",
        "```Python\nx = 5\n```",
        "!!! note\n\n    ```python\n    if x:\n        x = 6\n\n    ```",
        '=== "A"\n\n    ```python\n    x = 7\n    ```',
        "- item\n\n    ```python\n    x = 8\n    ```",
        '??? note "More"\n\n    ```python3\n    x = 9\n    ```',
        "<!--\n```python\nhidden = 1\n```\n-->",
        '```python\n--8<-- "part.py"\n```',
        "```python\nsame = 1\n```\n\n```python\nsame = 1\n```",
    ]
    (docs / "index.md").write_text("# x\n\n" + "\n\n".join(kinds) + "\n", encoding="utf-8")
    site = tmp_path / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(site)]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    rendered, unnamed = rendered_blocks(site, docs)
    collected = collected_blocks(docs, tmp_path)
    assert rendered == collected
    assert rendered.total() == 12
    assert not unnamed

    page = (docs / "index.md").read_text(encoding="utf-8")
    (docs / "index.md").write_text(page.replace("```python\nsame = 1\n```\n", "", 1), encoding="utf-8")
    assert named(rendered - collected_blocks(docs, tmp_path)) == ["index.md: same = 1 … (1×)"]

    more = (
        "\n\n    x = 10\n\n~~~python\nx = 11\n~~~\n\n> ```python\n> x = 12\n> ```\n\n```pycon\n>>> 13\n```\n"
    )
    (docs / "index.md").write_text(page + more, encoding="utf-8")
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    rendered, unnamed = rendered_blocks(site, docs)
    assert sorted(code for _, code in (rendered - collected)) == [">>> 13", "x = 11", "x = 12"]
    assert unnamed == ["index.md: x = 10"]


def test_an_exercise_with_a_grader_says_so_in_its_text() -> None:
    """Whoever looks for the grader's name does not have to open the solution."""
    graded = 0
    for page in sorted(DOCS.rglob("*.md")):
        for after in re.split(r"^!!! exercise", page.read_text(encoding="utf-8"), flags=re.M)[1:]:
            box = re.split(r"\n(?=\S)", after, maxsplit=1)[0]
            task, *rest = re.split(r"^    (?=\?\?\?)", box, flags=re.M)
            for name in set(re.findall(r'check\("([a-z0-9-]+)",', "".join(rest))):
                assert f'check("{name}"' in task, f"{page.name}: {name} is named in the solution only"
                graded += 1
    assert graded > 20
