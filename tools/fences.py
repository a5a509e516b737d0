"""The code fences of a Markdown page, read the way the site renders them.

The tests run what `read_page` lists, the notebooks are made from it, and what it cannot read with certainty
it names as a problem: line, and what to write instead. So a block of code that a reader sees either runs, or
is reported; none passes in silence.

A page says in its front matter which models it is about, where that matters:

    needs: minilm             the real model: without it the page is skipped, by name
    numbers: gpt2 miniature   what it prints was made on this copy, and is compared on no other

On a page without front matter (README.md) the first line may be `<!-- needs: minilm -->` instead.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llm_rebuild.copies.pins import PINS

PYTHON = "python"
SHELLS = ("sh", "bash")
RUNNABLE = (PYTHON, *SHELLS)
OUTPUT = "text"

# What a page may call Python. The site highlights all of these as Python, so all of them run.
PYTHON_NAMES = {"python", "py", "python3", "py3"}

# Languages that are shown and never run.
SHOWN = {
    "bibtex", "console", "cpp", "css", "csv", "diff", "docker", "dockerfile", "html", "ini", "javascript",
    "json", "make", "makefile", "markdown", "math", "md", "mermaid", "rust", "svg", "text", "toml", "xml",
    "yaml",
}  # fmt: skip

# Languages that show Python, or a shell, in a spelling that nothing here runs.
INSTEAD = {
    "pycon": "write ```python, and behind it ```text with what it prints",
    "python-console": "write ```python, and behind it ```text with what it prints",
    "ipython": "write ```python: it runs in a notebook as well",
    "ipython3": "write ```python: it runs in a notebook as well",
    "shell": "write ```sh (it runs) or ```console (commands that are only shown)",
    "zsh": "write ```bash",
    "shell-session": "write ```console",
}

# The commands that a `console` fence may show without running them, and why each is not run.
SHOWN_COMMANDS = {
    "make": "it builds the environment that the page is tested in",
    "git": "it clones the project that is being tested",
    "pip": "it installs into the environment that the page is tested in",
    "python -m pip": "it installs into the environment that the page is tested in",
    "python -m venv": "it makes an environment",
    "python3 -m venv": "it makes an environment",
    "cd": "it goes with the commands above",
    "source": "it goes with the commands above",
    ".": "it goes with the commands above",
    "jupyter": "it waits for a browser",
    "mkdocs": "it serves until it is stopped",
    "python -m mkdocs": "it serves until it is stopped",
    "python -m http.server": "it serves until it is stopped",
    "python -m tools.notebooks": "it writes into the project",
    "python -m tools.site": "it writes into the project",
    "podman": "it needs an engine for containers",
    "pytest": "it runs this page",
    "python -m pytest": "it runs this page",
    "llm-rebuild download": "it needs the network, which is closed to the pages under test",
}

COURSE = ("part-*", "after")  # the folders of docs/ that hold chapters

OPENING = re.compile(r"^(?P<indent>[ \t>]*)(?P<ticks>`{3,}|~{3,})(?P<info>.*)$")
LISTED_OPENING = re.compile(r"^[ \t>]*(?:[-*+]|\d+[.)])[ \t]+(?:`{3,}|~{3,})[^`]*$")
INCLUDE = re.compile(r"^[ \t]*-+8<-+(?P<target>[ \t]+.*)?$")
INLINE_CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
TEST_COMMENT = re.compile(r"<!--.*?(pytest|code-?blocks?:|expected-?output|importorskip|skip-?file)", re.I)
MODELS_COMMENT = re.compile(r"<!--(?P<text>\s*(?:needs|numbers)\s*:.*?)-->")
# What a page's front matter may say to the site. Other keys are misspelt, and would be ignored in silence.
SITE_KEYS = {
    "date",
    "description",
    "hide",
    "icon",
    "search",
    "status",
    "subtitle",
    "tags",
    "template",
    "title",
}
SOURCES = ("miniature", "real")
CONTAINER = re.compile(r"^(!!!|\?\?\?|===|///|[-*+][ \t]|\d+[.)][ \t]|\[\^|:[ \t]|<|\*\[)")
OPTION = re.compile(r"""[A-Za-z_]\w*(?:=(?:"[^"]*"|'[^']*'))?(?:[ \t]+|$)""")


@dataclass
class Fence:
    """One fenced block of a page. Lines count from 1, and are those of the page."""

    first: int
    last: int
    indent: str
    ticks: str
    info: str
    language: str
    code: str
    hidden: bool = False
    """Inside an HTML comment: it runs, and the reader does not see it."""
    output: Fence | None = None
    """The `text` fence that shows what this fence prints."""
    source: str = ""
    """`code` with what it includes by `--8<--` in place. This is what runs."""

    @property
    def runs(self) -> bool:
        return self.language in RUNNABLE


@dataclass(frozen=True, order=True)
class Problem:
    """Something that a page says in a way that would escape the tests."""

    line: int
    message: str


@dataclass
class Page:
    """What `read_page` found."""

    lines: list[str]
    fences: list[Fence] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    """The models that must be the real ones."""
    numbers: list[tuple[str, str]] = field(default_factory=list)
    """Model and source ("miniature" or "real") that the page's outputs were made on."""

    @property
    def runnable(self) -> list[Fence]:
        return [fence for fence in self.fences if fence.runs]

    def problem(self, line: int, message: str) -> None:
        self.problems.append(Problem(line, message))


def read_page(path: Path, text: str | None = None) -> Page:
    """Read a page's fences, which of them run, and everything about it that would escape the tests. With
    `text`, that instead of what is in the file."""
    page = Page((path.read_text(encoding="utf-8") if text is None else text).splitlines())
    _read_models(page)
    _scan(page)
    for fence in page.fences:
        _check_language(page, fence)
    _join_outputs(page)
    _expand_includes(page, path)
    _check_python(page)
    page.problems.sort()
    return page


def is_chapter(path: Path) -> bool:
    """A chapter is a page in a folder of the course that has Python in it."""
    return any(path.parent.match(folder) for folder in COURSE) and any(
        fence.language == PYTHON for fence in read_page(path).fences
    )


def chapters(docs: Path) -> list[Path]:
    """The chapters of a course, in order."""
    return [path for folder in COURSE for path in sorted(docs.glob(f"{folder}/*.md")) if is_chapter(path)]


def front_matter_end(lines: list[str]) -> int:
    """The number of lines that a page's front matter takes up."""
    if lines and lines[0].rstrip() == "---":
        for number, line in enumerate(lines[1:], start=2):
            if line.rstrip() in ("---", "..."):
                return number
    return 0


def _read_models(page: Page) -> None:
    """Which models a page needs and where its numbers are from: its front matter, or the comment instead."""
    end = front_matter_end(page.lines)
    comment = None if end or not page.lines else MODELS_COMMENT.fullmatch(page.lines[0].strip())
    text = comment["text"].strip() if comment else "\n".join(page.lines[1 : max(end - 1, 1)])
    try:
        settings = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        page.problem(1, f"the front matter is not YAML: {' '.join(str(error).split())}")
        return
    if not isinstance(settings, dict):
        page.problem(1, "the front matter is no table of keys and values")
        return
    for key, value in settings.items():
        words = _listed(value)
        if key == "needs" and words and all(model in PINS for model in words):
            page.needs = words
        elif key == "needs":
            page.problem(1, f"needs: {value}: write one or more of {', '.join(PINS)}, with commas between")
        elif key == "numbers":
            pairs = [(model, source) for word in words for model, _, source in [word.partition(" ")]]
            if not pairs or not all(model in PINS and source in SOURCES for model, source in pairs):
                page.problem(
                    1, f"numbers: {value}: write a model and its source, `gpt2 miniature` or `… real`"
                )
            else:
                page.numbers = pairs
        elif key not in SITE_KEYS:
            known = ", ".join(sorted({"needs", "numbers", *SITE_KEYS}))
            page.problem(1, f"the front matter's key {key!r} is not known to the tests; there are {known}")


def _listed(value: Any) -> list[str]:
    """The items of a YAML list, or of a line with commas."""
    items = value if isinstance(value, list) else str(value).split(",")
    return [" ".join(str(item).split()) for item in items]


def _scan(page: Page) -> None:
    """Find the fences, and whatever looks like code and is no fence that the tests know."""
    opened: Fence | None = None
    body: list[str] = []
    in_comment = False
    container = False  # inside a list item, admonition, tab …, where indented text is no code
    after_blank = True
    start = front_matter_end(page.lines)
    for number, line in enumerate(page.lines[start:], start=start + 1):
        if opened is not None:
            if line.rstrip() == opened.indent + opened.ticks:
                opened.last = number
                opened.code = "".join(f"{text}\n" for text in body)
                page.fences.append(opened)
                opened = None
                after_blank = False
                continue
            if line.lstrip(" \t>").startswith(opened.ticks) and opened.ticks[0] == "`":
                page.problem(
                    number,
                    f"{opened.ticks} inside the fence that line {opened.first} opens: the site does not "
                    f"close it here; close it with the same ticks and indentation, or open it with more",
                )
            if line.strip() and not line.startswith(opened.indent):
                page.problem(number, f"indented less than its fence on line {opened.first}")
            body.append(line[len(opened.indent) :] if line.strip() else "")
            continue

        match = OPENING.match(line)
        if match and "`" not in match["info"]:
            opened = _open(page, number, match, in_comment)
            body = []
            continue
        _check_line(page, number, line)
        prose = INLINE_CODE.sub("", line)
        in_comment = _comment_open_after(prose, in_comment)
        if not line.strip():
            after_blank = True
            continue
        if not line[0].isspace():
            container = CONTAINER.match(line) is not None
        elif after_blank and not container and not in_comment and line.startswith(("    ", "\t")):
            page.problem(number, "code by indentation is not tested: write a ```python fence")
        after_blank = False
    if opened is not None:
        page.problem(opened.first, "this fence is never closed")


def _open(page: Page, number: int, match: re.Match[str], hidden: bool) -> Fence:
    indent, ticks, info = match["indent"], match["ticks"], match["info"].strip()
    if ticks.startswith("~"):
        page.problem(number, "a ~~~ fence is not tested: write ```")
    if ">" in indent:
        page.problem(number, "a fence in a quotation is not tested: use an admonition (!!! quote)")
    if "\t" in indent:
        page.problem(number, "a tab before a fence: indent with spaces")
    language = _language(info)
    if language is None:
        page.problem(number, f'the site does not read `{info}` as a fence: write ```python title="…"')
    return Fence(number, number, indent, ticks, info, language or "", "", hidden)


def _language(info: str) -> str | None:
    """The language that an info string names, in our spelling; None where the site would not see a fence."""
    braced = re.fullmatch(r"\{:?(?P<attributes>[^{}]*)\}", info)
    if braced:
        unquoted = re.sub(r"""(["']).*?\1""", "", braced["attributes"])
        classes = re.findall(r"(?<!\S)\.([\w#.+-]+)", unquoted)
        name = classes[0] if classes else ""
    else:
        match = re.match(r"\.?(?P<name>[\w#.+-]*)(?:[ \t]+|$)", info)
        if match is None:
            return None
        name, rest = match["name"], info[match.end() :]
        if not re.fullmatch(r"\{[^{}]*\}", rest.strip()) and OPTION.sub("", rest).strip():
            return None
    name = name.lower()
    return PYTHON if name in PYTHON_NAMES else name


def _comment_open_after(prose: str, in_comment: bool) -> bool:
    """Whether an HTML comment is open behind this line."""
    for mark in re.findall(r"<!--|-->", prose):
        in_comment = mark == "<!--"
    return in_comment


def _check_line(page: Page, number: int, line: str) -> None:
    """Problems of a line outside of every fence."""
    if OPENING.match(line):
        page.problem(
            number, "a line that begins with inline ```code``` misleads the tests: begin with a word"
        )
    if LISTED_OPENING.match(line):
        page.problem(number, "the site shows no fence right behind a list mark: give it an indented line")
    prose = INLINE_CODE.sub("", line)
    if TEST_COMMENT.search(prose):
        page.problem(
            number,
            "test comments do nothing here: every fence of a page runs, in one namespace, and the ```text "
            "fence behind it is its expected output",
        )
    if number > 1 and MODELS_COMMENT.search(prose):
        page.problem(number, "a comment with needs or numbers counts on the first line only: move it there")
    if re.search(r"<(pre|code|script)\b", prose, re.I):
        page.problem(number, "code in HTML is not tested: write a fence")
    if re.match(r"^\s*(:::|#!)\s*\w", line):
        page.problem(number, "a language mark for code by indentation: write a ```python fence")


def _check_language(page: Page, fence: Fence) -> None:
    language = fence.language
    if language in RUNNABLE:
        if not fence.code.strip():
            page.problem(fence.first, "an empty fence: there is nothing to run")
        if fence.hidden and "-->" in fence.code:
            page.problem(fence.first, "`-->` in a hidden fence ends the comment that hides it")
    elif language in INSTEAD:
        page.problem(fence.first, f"```{language} is not tested: {INSTEAD[language]}")
    elif not language:
        if not any(problem.line == fence.first for problem in page.problems):
            page.problem(fence.first, "a fence without a language: write ```python, ```sh or ```text")
    elif language not in SHOWN:
        page.problem(
            fence.first,
            f"```{language} is not known to the tests: it runs as ```python, ```sh or ```bash, and is only "
            f"shown as one of {', '.join(sorted(SHOWN))}",
        )
    if language == "console":
        _check_console(page, fence)


def _check_console(page: Page, fence: Fence) -> None:
    """A console fence is shown and never run, so it may hold nothing whose truth a test could check."""
    continued = False
    for number, line in enumerate(fence.code.splitlines(), start=fence.first + 1):
        text = line.strip()
        if continued or not text or text.startswith("#"):
            continued = continued and text.endswith("\\")
            continue
        continued = text.endswith("\\")
        if text.startswith((">>>", "... ", "In [")):
            page.problem(number, "Python in a console fence is not tested: write ```python")
        elif not text.startswith("$ "):
            page.problem(number, "only commands (`$ …`) in a console fence: outputs need ```sh and ```text")
        else:
            command = text[2:].split("#")[0].strip()
            if not any(f"{command} ".startswith(f"{shown} ") for shown in SHOWN_COMMANDS) or re.search(
                r"&&|\|\||[;|]", command
            ):
                page.problem(number, f"`{command}` is shown and not run: write it as ```sh, without the $")


def _join_outputs(page: Page) -> None:
    """Give each fence that runs the `text` fence right behind it."""
    for fence, following in zip(page.fences, page.fences[1:], strict=False):
        if not fence.runs or following.language != OUTPUT or following.hidden:
            continue
        between = [line.strip() for line in page.lines[fence.last : following.first - 1]]
        if any(text for text in between if not (fence.hidden and text == "-->")):
            continue
        if fence.indent != following.indent:
            page.problem(following.first, f"an output must be indented like its fence on line {fence.first}")
            continue
        fence.output = following


def _expand_includes(page: Page, path: Path) -> None:
    """Put what a fence includes in its place; a fence that an include brings along is a problem."""
    inside = {n: fence for fence in page.fences for n in range(fence.first, fence.last + 1)}
    for number, line in enumerate(page.lines, start=1):
        fence_here = inside.get(number)
        if not INCLUDE.match(line) or (fence_here and not fence_here.runs):
            continue
        try:
            included = include(line, path)
        except ValueError as reason:
            page.problem(number, str(reason))
            continue
        if number not in inside and any(OPENING.match(text) for text in included):
            page.problem(number, "this include brings a fence along: write the fence into the page itself")
    for fence in page.runnable:
        fence.source = fence.code
        if any(INCLUDE.match(line) for line in fence.code.splitlines()):
            try:
                fence.source = "".join(
                    f"{text}\n"
                    for line in fence.code.splitlines()
                    for text in (include(line, path) if INCLUDE.match(line) else [line])
                )
            except ValueError:
                continue  # named above


def include(line: str, page: Path) -> list[str]:
    """The lines that the site puts in the place of an include line of a page.

    Raises ValueError where the site would not find them.
    """
    match = INCLUDE.match(line)
    if match is None or not match["target"]:
        raise ValueError('an include must be one line: --8<-- "path"')
    import markdown
    from pymdownx.snippets import SnippetExtension, SnippetMissingError, SnippetPreprocessor

    settings = SnippetExtension().getConfigs() | {
        "base_path": [str(project_of(page))],
        "check_paths": True,
        "dedent_subsections": True,
    }
    reader = SnippetPreprocessor(settings, markdown.Markdown())
    reader.seen = set()
    try:
        return list(reader.parse_snippets([line]))
    except SnippetMissingError as reason:
        raise ValueError(f"{reason}; paths begin at the project's root") from None


@functools.cache
def project_of(page: Path) -> Path:
    """The folder that a page's includes begin at: the nearest one above it that has a mkdocs.yml."""
    for folder in page.resolve().parents:
        if (folder / "mkdocs.yml").exists():
            return folder
    return page.resolve().parent


def _check_python(page: Page) -> None:
    """Python that would be shown and not run: comments only, and functions that nothing calls."""
    trees: list[tuple[Fence, ast.Module]] = []
    for fence in page.fences:
        if fence.language != PYTHON:
            continue
        try:
            trees.append((fence, ast.parse(fence.source)))
        except (SyntaxError, ValueError):
            continue  # it fails when it runs, with the place
    used = {name for _, tree in trees for name in _names_used(tree)}
    for fence, tree in trees:
        if not tree.body and fence.code.strip():
            page.problem(fence.first, "a fence of comments: there is nothing to run")
        for node in tree.body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.decorator_list
                and node.name not in used
            ):
                page.problem(fence.first, f"nothing here calls {node.name}(): its lines would never run")


def _names_used(tree: ast.Module) -> Iterator[str]:
    """The names that a fence reads; a function that only calls itself does not use its name."""
    for statement in tree.body:
        own = statement.name if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) else None
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != own:
                yield node.id


def dedent(code: str) -> str:
    """Code in the one spelling in which two copies of it are compared."""
    return textwrap.dedent("\n".join(line.rstrip() for line in code.splitlines())).strip("\n")
