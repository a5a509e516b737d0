"""Skeletons: a whole rebuild with its steps emptied, for a learner to fill in."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from pathlib import Path

from llm_rebuild.errors import InputError

FOLDER = Path(__file__).parent / "skeletons"
# The model's name -> its skeleton.
SKELETONS = {
    file.stem.replace("_", "-"): file for file in sorted(FOLDER.glob("*.py")) if file.stem != "__init__"
}
EMPTY = "raise NotImplementedError"
# Set by a teacher; the site and the notebooks read it, too.
WITHOUT_SOLUTIONS = "LLM_REBUILD_WITHOUT_SOLUTIONS"

STEPS = """Fill in one step after another, from the top to the bottom, and after each one ask

{check}

It compares what you `tap` with what the official model computed, tries every step alone as well, fed with
official numbers, and says what is next. `forward` is written already: it calls the steps in the order in
which the model computes, and shows each result to the checker. The first step is done, too.
"""
BARE = """Write `forward`: which steps there are, and in which order, is yours to say. Begin with a few; ask

{check}

It compares what you show it by `tap(name, tensor)` with what the official model computed, and says what is
next. These are the names, by the alphabet, and not in the order in which the model computes them; what it
computes in some runs only, or with another config.json only, has its condition behind it.

{names}

Conditions
{conditions}
         any other: what config.json says, or what the weight file has
"""
CONDITIONS = {
    "eager": "`attention` is that: step by step",
    "sdpa": "`attention` is that: F.scaled_dot_product_attention",
    "padding": "the texts are of different length",
    "cache": "keys and values are kept",
    "start": "the first step of an answer, and any run without a cache",
    "decoder mask": "the decoder is given several tokens at once, or padding",
}
BROKEN = """One mistake is hidden in this file, and every other line is right. Find it, mend it, and say in
your own words what it does to the numbers and why the model runs all the same.

{check}
"""


def new(
    model: str, file: str | Path, *, solved: bool = False, bare: bool = False, seed: str | None = None
) -> Path:
    """Write the skeleton of a model's rebuild to `file`, which must not exist yet.

    solved  Filled in.
    bare    With an empty `forward`, no steps, and the names of the checkpoints.
    seed    Filled in, with one mistake in it; the same word gives the same mistake.

    Raises InputError for a model that there is no skeleton of, for more than one of the three, and where the
    file cannot be made.
    """
    if model not in SKELETONS:
        raise InputError(f"there is no skeleton of {model!r}; there is one of {', '.join(SKELETONS)}")
    if solved + bare + (seed is not None) > 1:
        raise InputError("--solved, --bare and --break are three different files; ask for one of them")
    if solved and os.environ.get(WITHOUT_SOLUTIONS):
        raise InputError(f"--solved: this is the edition without solutions ({WITHOUT_SOLUTIONS} is set)")
    file = Path(file)
    name = file.name if re.fullmatch(r"[\w.-]+", file.name) else "FILE"  # others would need quotes, at least
    text = source(model, solved=solved) if seed is None else broken_source(model, seed)
    text = bare_source(model) if bare else text
    text = text.replace("check FILE", f"check {name}")
    try:
        with file.open("x", encoding="utf-8") as opened:  # never over a file that is there
            opened.write(text)
    except FileExistsError:
        raise InputError(f"{file} exists already; it stays as it is. Give another name") from None
    except OSError as error:
        if error.filename is None:  # it was opened, and is not whole
            file.unlink()
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
            heading, first, last = lines[function.lineno - 1], function.body[1], function.body[-1]
            if "# given" not in heading and (function.decorator_list or "# yours" in heading):
                lines[first.lineno - 1 : last.end_lineno] = [f"    {EMPTY}"]
    text = "\n".join(line.removesuffix("  # given").removesuffix("  # yours") for line in lines) + "\n"
    return _introduced(text, STEPS)


def bare_source(model: str) -> str:
    """The skeleton with nothing in it but `forward`, which is empty, and the names of the checkpoints."""
    from llm_rebuild.models import RECORDS  # with torch, which the others do not need

    text = source(model, solved=True)
    lines = text.splitlines()
    nodes = ast.parse(text).body
    forward = next(node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == "forward")
    last = next(n for n in nodes if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "Tap")
    above = "\n".join(lines[: last.end_lineno]).replace("from llm_rebuild.workbench import step\n\n", "")
    head = lines[forward.lineno - 1 : forward.body[0].end_lineno]
    architecture = next(record for record in RECORDS if record.published == model)
    names: dict[str, list[str]] = {}
    used = set[str]().union(*(checkpoint.only for checkpoint in architecture.checkpoints))
    conditions = "\n".join(f"         {name}: {says}" for name, says in CONDITIONS.items() if name in used)
    for checkpoint in architecture.checkpoints:
        only = " and ".join(sorted(checkpoint.only))
        names.setdefault(f"    {checkpoint.name}  {checkpoint.shape}", []).append(only)
    listed = [f"{name}  ({' or '.join(only)})" if all(only) else name for name, only in names.items()]
    bare = "\n".join([above, "", "", *head, f"    {EMPTY}"]) + "\n"
    return _introduced(bare, BARE, names="\n".join(sorted(listed)), conditions=conditions)


def broken_source(model: str, seed: str) -> str:
    """The whole rebuild with one mistake in it: which, the seed says."""
    text = source(model, solved=True)
    mistakes = mistakes_in(text)
    number = int.from_bytes(hashlib.sha256(f"{model} {seed}".encode()).digest(), "big")
    before, after = mistakes[number % len(mistakes)]
    return _introduced(text.replace(before, after), BROKEN)


def mistakes_in(text: str) -> list[tuple[str, str]]:
    """The mistakes that can be made in a rebuild: pieces of it that stand there once, and what is put in
    their place."""
    listed = json.loads((FOLDER / "mistakes.json").read_text(encoding="utf-8"))
    return [(before, after) for before, after in listed if text.count(before) == 1]


def _introduced(text: str, introduction: str, **words: str) -> str:
    """The text with another introduction, in place of what stands between its title and its axes."""
    title, _, rest = text.partition("\n\n")
    before, axes, after = rest.partition("Axes  ")
    check = next(line for line in before.splitlines() if "llm-rebuild check" in line)
    return f"{title}\n\n{introduction.format(check=check, **words)}\n{axes}{after}"
