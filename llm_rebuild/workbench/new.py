"""Skeletons: a whole rebuild with its steps emptied, for a learner to fill in."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from llm_rebuild.errors import InputError

FOLDER = Path(__file__).parent / "skeletons"
# The model's name -> its skeleton.
SKELETONS = {
    file.stem.replace("_", "-"): file for file in sorted(FOLDER.glob("*.py")) if file.stem != "__init__"
}
EMPTY = "raise NotImplementedError"


def new(model: str, file: str | Path, *, solved: bool = False) -> Path:
    """Write the skeleton of a model's rebuild to `file`, which must not exist yet. With `solved`, filled in.

    Raises InputError for a model that there is no skeleton of, and where the file cannot be made.
    """
    if model not in SKELETONS:
        raise InputError(f"there is no skeleton of {model!r}; there is one of {', '.join(SKELETONS)}")
    file = Path(file)
    name = file.name if re.fullmatch(r"[\w.-]+", file.name) else "FILE"  # others would need quotes, at least
    text = source(model, solved=solved).replace("check FILE", f"check {name}")
    try:
        with file.open("x", encoding="utf-8") as opened:  # never over a file that is there
            opened.write(text)
    except FileExistsError:
        raise InputError(f"{file} exists already; it stays as it is. Give another name") from None
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or 'cannot be written').lower()}") from None
    return file


def source(model: str, *, solved: bool = False) -> str:
    """The skeleton's text, or the whole rebuild that it is made from.

    A function is emptied if it is a step, or marked `# yours`, unless it is marked `# given`. Its docstring
    stays: it is the task.
    """
    text = SKELETONS[model].read_text(encoding="utf-8")
    lines = text.splitlines()
    if not solved:
        functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        for function in reversed(functions):  # from the end, so that the lines before stay where they are
            if not _emptied(function, lines):
                continue
            first, last = function.body[1], function.body[-1]
            lines[first.lineno - 1 : last.end_lineno] = [f"    {EMPTY}"]
    marks = ("  # given", "  # yours")
    return "\n".join(_without(line, marks) for line in lines) + "\n"


def _emptied(function: ast.FunctionDef, lines: list[str]) -> bool:
    heading = lines[function.lineno - 1]
    return "# given" not in heading and (bool(function.decorator_list) or "# yours" in heading)


def _without(line: str, ends: tuple[str, ...]) -> str:
    for end in ends:
        line = line.removesuffix(end)
    return line
