"""The source on the site: each file that the course speaks of as a page, with an address for every line.

    python -m tools.sources        # writes docs/source/

`llm_rebuild/models/gpt2.py` is at `source/llm_rebuild/models/gpt2/`, and its line 12 at `#L12`. A Python file
and its twin in JavaScript lead to each other. The pages are not searched: the names in them would hide the
chapters that explain these.
"""

from __future__ import annotations

import posixpath
import shutil
import sys
from html import escape
from pathlib import Path

from pygments import lex
from pygments.lexers import JavascriptLexer, PythonLexer
from pygments.token import STANDARD_TYPES, Token

PROJECT = Path(__file__).resolve().parents[1]
FOLDER = PROJECT / "docs" / "source"
GROUPS = {
    "The models": ("llm_rebuild/models/*.py",),
    "The tokenizers": ("llm_rebuild/tokenizers/*.py",),
    "What they stand on": ("llm_rebuild/checkpoints.py", "llm_rebuild/weights.py", "llm_rebuild/using/*.py"),
    "The same in JavaScript": (
        "docs/javascripts/rebuild/*.js",
        "docs/javascripts/rebuild/tokenizers/*.js",
    ),
}
HEAD = """---
title: {name}
hide: [toc]
search:
  exclude: true
---

# `{name}` {{ .source-title }}

{words}

"""


def files() -> dict[str, list[Path]]:
    """The files with a page, by group."""
    found = {
        group: [file for pattern in patterns for file in sorted(PROJECT.glob(pattern))]
        for group, patterns in GROUPS.items()
    }
    return {
        group: [file for file in files if file.read_text("utf-8").strip()] for group, files in found.items()
    }


def page_of(file: Path) -> str:
    """Where a file's page is in docs/: `source/llm_rebuild/models/gpt2.md`."""
    path = file.relative_to(PROJECT).as_posix().removeprefix("docs/")
    name = path.rpartition(".")[0]
    return f"source/{name}.md"


def address(file: Path, line: int, page: str) -> str:
    """A link to a line of a file, from a page of docs/ (`part-2/compared.md`)."""
    return f"{posixpath.relpath(page_of(file), posixpath.dirname(page) or '.')}#L{line}"


def twin(file: Path) -> Path | None:
    """The file that says the same in the other language."""
    name = f"{file.stem}.{'js' if file.suffix == '.py' else 'py'}"
    for other in (file for group in files().values() for file in group):
        if other.name == name and other.parent.name in (file.parent.name, "rebuild", "models"):
            return other
    return None


def lines_of(text: str, suffix: str) -> list[str]:
    """A file's lines as HTML. A backtick would begin a fence, so it is written as a reference."""
    lexer = (PythonLexer if suffix == ".py" else JavascriptLexer)(stripnl=False)
    lines = [""]
    for kind, value in lex(text, lexer):
        name = STANDARD_TYPES.get(kind, "") if kind is not Token.Text else ""
        for number, piece in enumerate(value.split("\n")):
            if number:
                lines.append("")
            if piece:
                html = escape(piece, quote=False).replace("`", "&#96;")
                lines[-1] += f'<span class="{name}">{html}</span>' if name and name != "w" else html
    return lines[:-1] if not lines[-1] else lines


def page(file: Path) -> str:
    """The page of a file, as Markdown around one block of HTML."""
    name = file.relative_to(PROJECT).as_posix()
    folder = posixpath.dirname(page_of(file))
    words = f"[All files]({posixpath.relpath('source/index.md', folder)})"
    if other := twin(file):
        target = posixpath.relpath(page_of(other), folder)
        language = "JavaScript" if file.suffix == ".py" else "Python"
        words += f" · the same in {language}: [{other.name}]({target})"
    lines = lines_of(file.read_text(encoding="utf-8"), file.suffix)
    shown = "\n".join(f'<span id="L{n}">{line}</span>' for n, line in enumerate(lines, start=1))
    head = HEAD.format(name=name, words=words)
    return (
        f'{head}<div class="highlight language-source" markdown="0"><pre><code>{shown}\n</code></pre></div>\n'
    )


def index() -> str:
    lines = [
        "---",
        "search:",
        "  exclude: true",
        "---",
        "",
        "# The source",
        "",
        "What the chapters build, as it stands in the package: a model is one file, read in one sitting.",
        "{ .lead }",
        "",
    ]
    for group, members in files().items():
        lines += [f"## {group}", "", "| file | lines | what it is |", "|---|---|---|"]
        for file in members:
            text = file.read_text(encoding="utf-8")
            target = page_of(file).removeprefix("source/")
            name = file.relative_to(PROJECT).as_posix()
            lines.append(f"| [`{name}`]({target}) | {len(text.splitlines())} | {_about(text)} |")
        lines.append("")
    return "\n".join(lines)


def _about(text: str) -> str:
    """The first sentence that a file says of itself."""
    words: list[str] = []
    for line in text.splitlines():
        line = line.lstrip("/").strip(' "')
        if not line:
            break
        words.append(line)
    sentence = " ".join(words).split(". ")[0].rstrip(".")
    return sentence.replace("|", "&#124;").replace("<", "&lt;")


def write() -> None:
    """Write all pages anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    pages = {page_of(file): page(file) for group in files().values() for file in group}
    for name, text in {"source/index.md": index(), **pages}.items():
        file = PROJECT / "docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
