"""Make the notebooks that readers download: one for each chapter, from the very fences that the tests run.

    python -m tools.notebooks               writes docs/notebooks/part-3-minilm.ipynb, …, and notebooks/clean/
    python -m tools.notebooks --run [PAGE]  runs them from an empty folder, with no environment activated, and
                                            says where they print something else than the page

The clean ones are to work in: no outputs, no solutions, and an empty cell behind each exercise.

A chapter's prose becomes Markdown cells (admonitions, tabs and figures in plain Markdown), each `python`
fence one code cell with exactly its source, each `sh` fence a shell cell, with the output that the page shows
and the tests compare. Hidden set-up fences become cells where they stand, since a notebook has to run from
the top as well. The same input always gives the same bytes.

The first code cell puts the commands of the kernel's environment within reach: Jupyter may have been started
from another. Where the project's repository is configured, it also brings the package where there is none.

A notebook is read far from the site. So a figure is an image with the light page's colours in it, and a link
to another page leads to the site's address, where that is configured; elsewhere its words stay, without it.
"""

from __future__ import annotations

import argparse
import base64
import functools
import os
import posixpath
import re
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import nbformat
from markdown import Markdown
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import edition, fences
from tools.fences import PYTHON, Fence

PROJECT = Path(__file__).resolve().parents[1]
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
ADMONITION = re.compile(r'^(?:!!!|\?\?\?\+?)[ \t]+(?P<kind>[\w-]+)[^"]*(?:"(?P<title>[^"]*)")?\s*$')
TAB = re.compile(r'^===[!+]*[ \t]+"(?P<title>[^"]*)"\s*$')
LINK = re.compile(
    r"(?P<before>!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()"
    r'(?P<target>[^)\s]+)(?P<after>(?:\s+"[^"]*")?\))'
)
ATTRIBUTES = re.compile(r"[ \t]*\{:?[ \t]*(?:[.#][^{}`]*|[\w-]+=[^{}`]*)\}")
CAPTION = re.compile(r"(?<=<figcaption>).+?(?=</figcaption>)", re.S)
ICON = re.compile(r":(?:material|octicons|fontawesome|simple|rebuild)-[\w-]+:(?:\{[^}]*\})?[ \t]*")


def notebook_name(chapter: Path) -> str:
    """`docs/part-1/local-copy.md` → `part-1-local-copy.ipynb`"""
    return f"{chapter.parent.name}-{chapter.stem}.ipynb"


def chapter_notebook(chapter: Path, docs: Path, clean: bool = False) -> nbformat.NotebookNode:
    """The notebook of a chapter, to be read far from the site; a `clean` one to be filled in."""
    text = chapter.read_text(encoding="utf-8")
    if clean or edition.asked_for():
        text = edition.without_solutions(text)
    page = fences.read_page(chapter, edition.with_cells(text) if clean else text)
    relative = chapter.relative_to(docs).as_posix()
    cells = plain_cells(page, chapter, docs)
    for cell in cells:
        if clean and cell.cell_type == "code":
            cell["outputs"] = []
    first = [new_markdown_cell(_first_cell(page, relative)), new_code_cell(first_code())]
    return _finished([*first, *cells])


def page_notebook(chapter: Path, docs: Path) -> nbformat.NotebookNode:
    """The notebook of a chapter that is itself a page of the site (tools/notebook_page.py)."""
    relative = chapter.relative_to(docs).as_posix()
    top = "/".join([".."] * len(Path(relative).parts))

    def linked(text: str) -> str:
        return LINK.sub(lambda link: _link(link, relative, top), text).strip()

    return _finished(_cells(fences.read_page(chapter), chapter, linked))


def plain_cells(page: fences.Page, chapter: Path, docs: Path) -> list[nbformat.NotebookNode]:
    """The cells of a chapter, its prose in the Markdown that everybody reads, its figures as images."""
    relative = chapter.relative_to(docs).as_posix()
    return _cells(page, chapter, lambda prose: _plain(prose, relative))


def _cells(page: fences.Page, chapter: Path, written: Callable[[str], str]) -> list[nbformat.NotebookNode]:
    """The cells of a chapter; `written` says how prose is."""
    cells: list[nbformat.NotebookNode] = []
    prose: list[str] = []

    def close_prose() -> None:
        text = written("\n".join(_dedented(prose)))
        prose.clear()
        if text:
            cells.append(new_markdown_cell(text))

    for part in _parts(page, chapter):
        if isinstance(part, str):
            prose.append(part)
            continue
        close_prose()
        source = part.source.rstrip("\n") if part.language == PYTHON else shell_cell(part)
        shown = [new_output("stream", name="stdout", text=part.output.code)] if part.output else []
        cells.append(new_code_cell(source, outputs=shown))
    close_prose()
    return cells


def shell_cell(fence: Fence) -> str:
    """A shell fence as a notebook cell. Not by `!`: there a command sees a terminal, and draws on it."""
    return f"%%{fence.language} -e\n{fence.source.rstrip()}"


def first_code() -> str:
    """The code cell in front of a chapter's own."""
    lines = ["import os", "import sysconfig", "import warnings", ""]
    if repository := os.environ.get("LLM_REBUILD_REPOSITORY_URL", "").rstrip("/"):
        lines.insert(3, "from importlib.util import find_spec")
        lines += [
            'if find_spec("llm_rebuild") is None:  # a hosted notebook, say',
            f"    %pip install -q -c {repository}/raw/HEAD/constraints.txt git+{repository}",
        ]
    lines += [
        "# The commands of this kernel's environment, whether it is activated or not:",
        'os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]',
        'os.environ.pop("FORCE_COLOR", None)  # they write plain text, as on the page',
        'warnings.filterwarnings("ignore", message="IProgress not found")  # of a progress bar',
    ]
    return "\n".join(lines)


def run(notebook: nbformat.NotebookNode, folder: Path) -> list[str]:
    """Run a notebook in a folder, with no environment activated. Where it fails, warns, or prints something
    that it did not come with: what, and in which cell."""
    expected = [_printed(cell) for cell in notebook.cells]
    own = sysconfig.get_path("scripts")
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != own)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    try:
        client.execute(env=os.environ | {"PATH": path})
    except CellExecutionError as error:
        return [f"{error.ename}: {error.evalue}"]
    wrong = []
    for number, (cell, shown) in enumerate(zip(notebook.cells, expected, strict=True)):
        if _printed(cell) != shown:
            wrong.append(f"cell {number} prints:\n{_printed(cell)}")
        if "Warning" in _printed(cell, "stderr"):
            wrong.append(f"cell {number} warns:\n{_printed(cell, 'stderr')}")
    return wrong


def _printed(cell: nbformat.NotebookNode, stream: str = "stdout") -> str:
    text = "".join(o.get("text", "") for o in cell.get("outputs", ()) if o.get("name") == stream)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def _finished(cells: list[nbformat.NotebookNode]) -> nbformat.NotebookNode:
    """A valid notebook of these cells, with ids that do not change from one run to the next."""
    for number, cell in enumerate(cells, start=1):
        cell["id"] = f"cell-{number:03d}"
        cell["metadata"] = {key: value for key, value in cell.metadata.items() if key == "tags"}
        if cell.cell_type == "code":
            cell["execution_count"] = None
    notebook = new_notebook(cells=cells, metadata=METADATA)
    nbformat.validate(notebook)
    return notebook


def _first_cell(page: fences.Page, relative: str) -> str:
    title = next((line[2:].strip() for line in page.lines if line.startswith("# ")), relative)
    title = _plain(title, relative)
    return (
        f"*LLM Rebuild* · this notebook is the page **{title}** (`docs/{relative}`). Its code cells are the "
        "snippets that the course's tests run; run them from the top.\n\n"
        "Text and figures: [CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/). "
        "Code: [MIT](https://opensource.org/license/mit).\n\n"
        "The package first, once, from a clone of the project: `pip install -c constraints.txt -e "
        "'.[jupyter]'`. It brings a Jupyter: `jupyter lab`."
    )


def _parts(page: fences.Page, chapter: Path) -> Iterator[str | Fence]:
    """A page's lines of prose, in plain Markdown, and between them the fences that run."""
    starts = {fence.first: fence for fence in page.fences}
    outputs = {fence.output.first for fence in page.runnable if fence.output}
    number = fences.front_matter_end(page.lines)
    boxes: list[tuple[int, str]] = []  # the containers that a line is in: its indentation, its quote marks
    in_comment = False
    while number < len(page.lines):
        number += 1
        line = page.lines[number - 1]
        if fence := starts.get(number):
            number = fence.last
            if fence.runs:
                yield fence
            elif not fence.hidden and fence.first not in outputs:
                yield from _boxed(_shown(fence), boxes, fence.indent)
            continue
        text, in_comment = _without_comments(line, in_comment)
        if not text.strip():
            if not line.strip():
                yield "".join(marks for _, marks in boxes).rstrip()
            continue
        indentation = len(text) - len(text.lstrip())
        while boxes and indentation < boxes[-1][0]:
            boxes.pop()
            yield ""
        if fences.INCLUDE.match(text):
            yield from _boxed(_included(text, chapter), boxes, text[:indentation])
        elif match := ADMONITION.match(text.strip()):
            yield ""
            boxes.append((indentation + 4, "> "))
            title = match["title"] if match["title"] is not None else match["kind"].capitalize()
            if title:
                yield from _boxed([f"**{title}**", ""], boxes, "")
        elif match := TAB.match(text.strip()):
            yield ""
            boxes.append((indentation + 4, ""))
            yield from _boxed([f"**{match['title']}**", ""], boxes, "")
        else:
            yield from _boxed([text], boxes, text[:indentation])


def _boxed(lines: list[str], boxes: list[tuple[int, str]], indent: str) -> Iterator[str]:
    """Lines of a container, quoted as deeply as it is, without the indentation that put them there."""
    marks = "".join(mark for _, mark in boxes)
    depth = boxes[-1][0] if boxes else 0
    for line in lines:
        body = line[len(indent) :] if line.startswith(indent) else line
        yield f"{marks}{indent[depth:]}{body}".rstrip()


def _shown(fence: Fence) -> list[str]:
    return [f"{fence.ticks}{fence.language}", *fence.code.splitlines(), fence.ticks]


def _included(line: str, chapter: Path) -> list[str]:
    """What an include brings: a figure as an image that the notebook carries, anything else as it is."""
    try:
        text = "\n".join(fences.include(line.strip(), chapter)).strip()
    except ValueError as reason:
        raise ValueError(f"{chapter.name}: {reason}") from None
    if not text.startswith(("<svg", "<?xml")):
        return text.splitlines()
    label = re.search(r'aria-label="([^"]*)"|<title[^>]*>(.*?)</title>', text, re.S)
    if not label:
        raise ValueError(f"{chapter.name}: a figure without `aria-label` or `<title>`: {line.strip()}")
    alternative = escape(re.sub(r"\s+", " ", unescape(label[1] or label[2])).strip(), quote=True)
    data = base64.b64encode(image(text).encode("utf-8")).decode("ascii")
    return [f'<img alt="{alternative}" src="data:image/svg+xml;base64,{data}">']


def image(svg: str) -> str:
    """A figure of the site as a file of its own: what it takes from the page it stands in, put in."""
    colours = _colours()

    def literal(variable: re.Match[str]) -> str:
        if variable[1] not in colours:
            raise ValueError(
                f"a figure asks for {variable[1]}, which docs/stylesheets/extra.css does not have"
            )
        return colours[variable[1]]

    svg = re.sub(r"var\((--[\w-]+)\)", literal, svg)
    start = f'<svg xmlns="http://www.w3.org/2000/svg" style="background:{colours["--fig-paper"]}" '
    start += r'font-family="sans-serif" width="\1" height="\2" viewBox="0 0 \1 \2"'
    return re.sub(r'<svg [^>]*?viewBox="0 0 (\S+) (\S+)"', start, svg, count=1)


@functools.cache
def _colours() -> dict[str, str]:
    """The style sheet's variables as they are on the light page."""
    sheet = (PROJECT / "docs" / "stylesheets" / "extra.css").read_text(encoding="utf-8")
    dark = sheet.index('[data-md-color-scheme="slate"] {')
    paper = sheet.index("@media print")
    light = sheet[:dark] + sheet[sheet.index("}", dark) : paper]
    values = dict(re.findall(r"(--(?:fig|rebuild|md-code-font)[\w-]*):\s*([^;]+);", light))
    while references := [name for name, value in values.items() if value.startswith("var(")]:
        for name in references:
            values[name] = values[values[name][4:-1]]
    return {name: re.sub(r"\s+", " ", value).replace('"', "'") for name, value in values.items()}


def _without_comments(line: str, in_comment: bool) -> tuple[str, bool]:
    """A line without its HTML comments, and whether one is open behind it."""
    kept = ""
    while line:
        if in_comment:
            _, mark, line = line.partition("-->")
            in_comment = not mark
            continue
        code = fences.INLINE_CODE.search(line)
        start = line.find("<!--")
        if start < 0 or (code and code.start() < start):
            end = code.end() if code and (start < 0 or code.start() < start) else len(line)
            kept, line = kept + line[:end], line[end:]
            continue
        kept, line, in_comment = kept + line[:start], line[start + 4 :], True
    return kept, in_comment


def _dedented(lines: list[str]) -> list[str]:
    """Prose behind a code cell of a list item would be code by indentation: bring it to the margin."""
    solid = [line for line in lines if line.strip()]
    margin = min((len(line) - len(line.lstrip(" ")) for line in solid), default=0)
    return [line[margin:] for line in lines]


def _plain(text: str, relative: str) -> str:
    """Markdown as notebooks read it: nothing that only the site understands, links that lead somewhere."""
    lines = []
    code = ""  # the ticks of the fence that a line is in
    for line in text.splitlines():
        fence = fences.OPENING.match(line)
        if code or fence:
            if fence and not code:
                code = fence["ticks"]
            elif line.lstrip("> ").rstrip() == code:
                code = ""
            lines.append(line)
            continue
        if "notebooks/" in line and ".ipynb" in line:
            continue  # the link to this very notebook
        if re.match(r"^\s*</?div\b[^>]*>\s*$", line) or re.match(r"^\*\[[^\]]+\]:", line):
            continue
        pieces = []
        position = 0
        for span in [*fences.INLINE_CODE.finditer(line), None]:
            end = span.start() if span else len(line)
            pieces.append(_plain_prose(line[position:end], relative))
            if span:
                pieces.append(span[0])
                position = span.end()
        lines.append("".join(pieces).rstrip())
    text = "\n".join(lines)
    blank = r"(?:[> ]*>)?[ ]*"
    # One blank line, not several; where a quotation ends, the one that ends it.
    text = re.sub(rf"(?m)^{blank}$(?:\n{blank}$)+", lambda lines: min(lines[0].split("\n"), key=len), text)
    text = CAPTION.sub(lambda words: _inline(words[0]), text)
    return re.sub(r"\A(?:[> ]*\n)+|(?:\n[> ]*)+\Z", "", text)


def _inline(words: str) -> str:
    """The words of a caption as HTML: inside a tag, notebooks show Markdown as it was written."""
    return Markdown().convert(words).removeprefix("<p>").removesuffix("</p>")


def _plain_prose(text: str, relative: str) -> str:
    text = ICON.sub("", text)
    text = ATTRIBUTES.sub("", text)
    text = re.sub(r"\s+markdown(?:=\"[^\"]*\")?(?=[\s>])", "", text) if "<" in text else text
    text = re.sub(r"\\[()]", "$", text)
    text = re.sub(r"\\[\[\]]", "$$", text)
    site = os.environ.get("LLM_REBUILD_SITE_URL", "")
    return LINK.sub(lambda link: _link(link, relative, site), text)


def _link(link: re.Match[str], relative: str, site: str) -> str:
    """A link of a page as a notebook has it: to where the site is, or its words alone."""
    if re.match(r"^[a-z][a-z0-9+.-]*:", link["target"], re.I):
        return link[0]
    if not site:
        return link["before"].removeprefix("!")[1:-2]
    path, mark, anchor = re.split(r"([?#]|$)", link["target"], maxsplit=1)
    absolute = posixpath.normpath(posixpath.join(posixpath.dirname(relative), path)) if path else relative
    page = re.sub(r"(?:(?<=/)|^)index\.md$", "", absolute)
    page = f"{page[:-3]}/" if page.endswith(".md") else page
    return f"{link['before']}{site.rstrip('/')}/{page}{mark}{anchor}{link['after']}"


def write_notebooks(docs: Path) -> list[Path]:
    """Write every notebook of a course, remove those of chapters that are gone; return the paths."""
    folder = docs / "notebooks"
    wanted: dict[Path, Any] = {
        folder / notebook_name(chapter): chapter_notebook(chapter, docs) for chapter in fences.chapters(docs)
    }
    for chapter in fences.chapters(docs):
        wanted[folder / "clean" / notebook_name(chapter)] = chapter_notebook(chapter, docs, clean=True)
    (folder / "clean").mkdir(parents=True, exist_ok=True)
    for stale in set(folder.rglob("*.ipynb")) - set(wanted):
        stale.unlink()
    for path, notebook in wanted.items():
        _write(path, notebook)
    return list(wanted)


def write_page(chapter: Path, docs: Path, folder: Path) -> Path:
    """Write the notebook of a chapter that is itself a page into this folder; return its path."""
    path = folder / notebook_name(chapter)
    folder.mkdir(parents=True, exist_ok=True)
    _write(path, page_notebook(chapter, docs))
    return path


def write_figures(docs: Path, folder: Path) -> list[Path]:
    """Write each figure as a file that needs no page around it; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in sorted((docs / "figures").glob("*.svg")):
        path = folder / figure.name
        path.write_text(image(figure.read_text(encoding="utf-8")), encoding="utf-8")
        written.append(path)
    return written


def run_all(docs: Path, pages: Sequence[str]) -> bool:
    """Run the notebooks of these pages, or of all, and print how each went. Whether all went well."""
    well = True
    for chapter in fences.chapters(docs):
        name = chapter.relative_to(docs).with_suffix("").as_posix()
        if pages and name not in pages:
            continue
        with tempfile.TemporaryDirectory() as folder:
            wrong = run(chapter_notebook(chapter, docs), Path(folder))
        print(f"{name}: {'as on the page' if not wrong else ''}", *wrong, sep="\n  " if wrong else "")
        well = well and not wrong
    return well


def _write(path: Path, notebook: nbformat.NotebookNode) -> None:
    text = nbformat.writes(notebook) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the chapters' notebooks from their Markdown.")
    parser.add_argument("--docs", type=Path, default=PROJECT / "docs", help="the folder with the chapters")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write the figures, as files, instead")
    parser.add_argument("--run", nargs="*", metavar="PAGE", help="run these, as part-3/minilm; without, all")
    arguments = parser.parse_args()
    docs = arguments.docs.resolve()
    if arguments.run is not None:
        sys.exit(0 if run_all(docs, arguments.run) else 1)
    try:
        written = write_figures(docs, arguments.figures) if arguments.figures else write_notebooks(docs)
    except ValueError as reason:
        sys.exit(f"no notebooks: {reason}")
    for path in written:
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
