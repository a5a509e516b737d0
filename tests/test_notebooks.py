"""The notebooks that readers download, and a page that is one, have exactly the code that the tests run."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup
from mkdocs_jupyter.convert import nb2html
from nbformat.v4 import new_output

from tests.chapters import NOTEBOOKS
from tools import fences, notebook_page, notebooks
from tools.fences import PYTHON

DOCS = Path(__file__).resolve().parents[1] / "docs"

CHAPTER = """\
---
title: A chapter
---
# A *small* chapter { #top }

[:material-download: This chapter as a notebook](../notebooks/part-1-small.ipynb){ .md-button }

<!--
```python
hidden = 20
```
-->

The product \\(a b\\) and `{ .kept }`, see [the map](../part-2/map.md#x), [above](#top), [next](other.md) and
[a site](https://example.org/a.md). <!-- not for readers -->

--8<-- "figure.svg"

``` { .python .annotate title="a.py" }
x = hidden + 1  # (1)!
print(x)
```

```text
21
```

!!! warning "The trap"
    It *looks* right.

    ```python
    if x:
        y = x * 2

    print(y)
    ```

    ```text
    42
    ```

    And goes on.

=== "One"

    In a tab.

    ```sh
    echo one
    ```

    ```text
    one
    ```

- item

    ```python
    z = 3
    ```

    still the item

```sh
echo "$x {y}" \\
  two
```

```text
 {y} two
```

```console
$ make course
```

```text title="A tree"
a
└── b
```
"""


@pytest.fixture
def course(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "part-1").mkdir(parents=True)
    (docs / "part-1" / "small.md").write_text(CHAPTER, encoding="utf-8")
    (docs / "part-1" / "index.md").write_text("# No code here\n")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\n")
    (tmp_path / "figure.svg").write_text(
        '<svg viewBox="0 0 9 9"><title>A "figure"</title><path fill="var(--fig-accent)"/></svg>\n'
    )
    return docs


def code_cells(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def expected_cells(chapter: Path) -> list[str]:
    return [notebooks.first_code()] + [
        fence.source.rstrip("\n") if fence.language == PYTHON else notebooks.shell_cell(fence)
        for fence in fences.read_page(chapter).runnable
    ]


@pytest.mark.parametrize("chapter", NOTEBOOKS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_cells_of_a_chapter_are_its_tested_fences(chapter: Path) -> None:
    notebook = notebooks.chapter_notebook(chapter, DOCS)
    assert code_cells(notebook) == expected_cells(chapter)
    shown = [fence.output.code if fence.output else "" for fence in fences.read_page(chapter).runnable]
    assert [printed(cell) for cell in notebook.cells if cell.cell_type == "code"] == ["", *shown]
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for leftover in ("--8<--", "<!--", "!!!", "???", "\n===", "{ .md-button", ":material-"):
        assert leftover not in prose


def test_a_chapter_becomes_cells(course: Path) -> None:
    chapter = course / "part-1" / "small.md"
    notebook = notebooks.chapter_notebook(chapter, course)
    assert code_cells(notebook) == expected_cells(chapter)
    assert code_cells(notebook)[1:] == [
        "hidden = 20",
        "x = hidden + 1  # (1)!\nprint(x)",
        "if x:\n    y = x * 2\n\nprint(y)",
        "%%sh -e\necho one",
        "z = 3",
        '%%sh -e\necho "$x {y}" \\\n  two',
    ]
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert "A *small* chapter" in prose[0]
    for words in ("part-1/small.md", "CC BY-NC 4.0", "MIT", "pip install -c constraints.txt -e"):
        assert words in prose[0]
    assert prose[1] == "# A *small* chapter"
    image = '<img alt="A &quot;figure&quot;" src="data:image/svg+xml;base64,'
    assert prose[2].startswith(
        "The product $a b$ and `{ .kept }`, see the map, above, next and\n"
        "[a site](https://example.org/a.md).\n\n" + image
    )
    figure = re.search(r"base64,([^\"]+)", prose[2])
    assert figure
    assert b'fill="#17606d"' in base64.b64decode(figure[1]), "the colours are those of the light page"
    assert prose[3] == "> **The trap**\n>\n> It *looks* right."
    assert prose[4] == "> And goes on.\n\n**One**\n\nIn a tab."
    assert prose[5] == "- item"
    assert prose[6] == "still the item"
    assert prose[7] == "```console\n$ make course\n```\n\n```text\na\n└── b\n```"
    assert len(prose) == 8


def test_a_caption_is_no_markdown_any_more(course: Path) -> None:
    chapter = course / "part-1" / "captioned.md"
    words = '<figcaption markdown="span">*Rock*, in\n`a_b` and [there](x.md).</figcaption>'
    chapter.write_text(f"# x\n\n<figure markdown>\n{words}\n</figure>\n", encoding="utf-8")
    cell = notebooks.chapter_notebook(chapter, course).cells[-1]
    assert "<figcaption><em>Rock</em>, in\n<code>a_b</code> and there.</figcaption>" in cell.source


def test_the_same_chapter_gives_the_same_bytes(course: Path) -> None:
    stale = course / "notebooks" / "part-1-gone.ipynb"
    stale.parent.mkdir()
    stale.write_text("{}")
    written = notebooks.write_notebooks(course)
    folder = course / "notebooks"
    assert written == [folder / "part-1-small.ipynb", folder / "clean" / "part-1-small.ipynb"]
    assert not stale.exists()
    first = [path.read_bytes() for path in written]
    for path in written:
        path.unlink()
    assert [path.read_bytes() for path in notebooks.write_notebooks(course)] == first


def test_links_lead_to_the_site_where_its_address_is_known(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_REBUILD_SITE_URL", "https://example.org/course")
    notebook = notebooks.chapter_notebook(course / "part-1" / "small.md", course)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "[the map](https://example.org/course/part-2/map/#x)" in prose
    assert "[above](https://example.org/course/part-1/small/#top)" in prose


def test_a_notebook_runs_from_a_plain_folder(course: Path, tmp_path: Path) -> None:
    """What the page shows is what the notebook's reader gets, though no environment is activated."""
    chapter = course / "part-1" / "small.md"
    text = chapter.read_text(encoding="utf-8")
    text += "\n```sh\nllm-rebuild --version | cut -c 1-11\nls; echo $FORCE_COLOR\n```\n"
    text += "\n```text\nllm-rebuild\n```\n"
    chapter.write_text(text, encoding="utf-8")
    (tmp_path / "plain").mkdir()
    notebook = notebooks.chapter_notebook(chapter, course)
    assert notebooks.run(notebook, tmp_path / "plain") == []
    notebook = notebooks.chapter_notebook(chapter, course)
    notebook.cells[-1].outputs[0].text = "something else"
    (wrong,) = notebooks.run(notebook, tmp_path / "plain")
    assert wrong.endswith("prints:\nllm-rebuild")


def test_a_warning_and_an_error_are_said(course: Path, tmp_path: Path) -> None:
    chapter = course / "part-1" / "warns.md"
    chapter.write_text("# x\n\n```python\nimport warnings\n\nwarnings.warn('old')\n```\n", encoding="utf-8")
    (said,) = notebooks.run(notebooks.chapter_notebook(chapter, course), tmp_path)
    assert "warns" in said
    assert "old" in said
    chapter.write_text("# x\n\n```python\n1 / 0\n```\n", encoding="utf-8")
    (said,) = notebooks.run(notebooks.chapter_notebook(chapter, course), tmp_path)
    assert said.startswith("ZeroDivisionError")


def test_where_a_repository_is_configured_a_hosted_notebook_brings_the_package(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "pip" not in notebooks.first_code()
    monkeypatch.setenv("LLM_REBUILD_REPOSITORY_URL", "https://example.org/course/")
    notebook = notebooks.chapter_notebook(course / "part-1" / "small.md", course)
    assert "git+https://example.org/course\n" in code_cells(notebook)[0]


PAGE = """\
---
needs: minilm
---

# A page

<!-- course: build -->
*MiniLM* · [the map](../part-2/map.md#x)
{ .where }
<!-- end -->

[:material-download: This chapter as a notebook](../notebooks/part-1-page.ipynb){ .md-button }

```python
print("a  1×2  bit-identical  0 <")
```

```text
a  1×2  bit-identical  0 <
```

## A second part, of it
"""


@pytest.fixture
def rendered(course: Path, tmp_path: Path) -> Path:
    """The notebook of a page, before mkdocs-jupyter renders it."""
    chapter = course / "part-1" / "page.md"
    chapter.write_text(PAGE, encoding="utf-8")
    return notebooks.write_page(chapter, course, tmp_path / "pages")


def test_a_page_that_is_a_notebook_has_the_elements_of_the_others(rendered: Path) -> None:
    html = notebook_page.as_a_page(nb2html(str(rendered)))
    assert len(html) < 2000, "what Jupyter brings is left out"
    assert "jp-" not in html
    page = BeautifulSoup(html, "html.parser")
    assert not page.select("style, script, clipboard-copy")
    assert [part["href"] for part in page.select("h1#a-page > .headerlink")] == ["#a-page"]
    assert page.select_one("h2#a-second-part-of-it")
    assert page.select_one("p.where > a")["href"] == "../../part-2/map/#x"
    button = page.select_one("a.md-button")
    assert button["href"] == "../../notebooks/part-1-page.ipynb"
    assert "{" not in button.parent.get_text()
    code = page.select_one("div.language-python.highlight > pre > code")
    assert code.get_text() == 'print("a  1×2  bit-identical  0 <")\n'
    assert code.select("span.nb")
    output = page.select_one("div.language-text.no-copy > pre > code")
    assert output.get_text() == "a  1×2  bit-identical  0 <\n"
    assert output.select_one("mark.bit-identical")


@pytest.mark.parametrize("address", ["https://colab.example.org/x/", ""])
def test_a_page_that_is_a_notebook_is_linked_to_its_hosted_one_where_there_is_one(
    rendered: Path, address: str
) -> None:
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(rendered)))
    icons = SimpleNamespace(get_template=lambda name: SimpleNamespace(render=lambda: "<svg></svg>"))
    config = SimpleNamespace(extra={"colab": address}, theme=SimpleNamespace(get_env=lambda: icons))
    html = notebook_page.on_page_content(nb2html(str(rendered)), page, config)
    download, *colab = (link["href"] for link in BeautifulSoup(html, "html.parser").select("a.md-button"))
    assert download == "../../notebooks/part-1-page.ipynb"
    assert colab == ([f"{address}part-1-page.ipynb"] if address else [])


def test_a_warning_is_no_output_of_a_page(rendered: Path) -> None:
    notebook = nbformat.read(rendered, as_version=4)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs.append(new_output("stream", name="stderr", text="/home/x/auto.py:21: Warning: none\n"))
    nbformat.write(notebook, rendered)
    with pytest.raises(ValueError, match=r"shows what was printed, and not: /home/x/auto\.py:21"):
        notebook_page.as_a_page(nb2html(str(rendered)))
