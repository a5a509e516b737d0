"""Marking a folder of submissions: one row a file, whatever is in it.

Each is checked in a process of its own, on a copy that lies alone, and what that says becomes a row. So no
submission sees another, and one that takes the checker down with it costs one row.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import io
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from llm_rebuild.diagnosis.case import DEGREES, Level
from llm_rebuild.errors import LONGEST, InputError, counted, one_line
from llm_rebuild.files import read
from llm_rebuild.process import fork_server
from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.run import Process
from llm_rebuild.verify.question import ask, or_default
from llm_rebuild.workbench import cached
from llm_rebuild.workbench.check import check_file
from llm_rebuild.workbench.new import SKELETONS, source
from llm_rebuild.workbench.session import LARGEST_FILE, Limits

MOST = 2_000  # submissions in one folder
COMPARED = 300_000  # bytes of a file up to which it is parsed to see which others it is like
SHARES = 10  # of `seconds`: a check runs a file in several ways, and each may take that long
DONE, PASSED, FAILED, NOT_RUN = "done", "passed", "not passed", "not run"
SOLVED = "it is the filled-in skeleton that `new --solved` writes"
# What a spreadsheet takes for the beginning of a formula, the wide forms included.
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class Mark:
    """A row.

    result    `done`, `passed` (something was not tried), `not passed`, or `not run`.
    right     How many checkpoints agree, of `all`.
    line      Where the first mistake stands; degree is how well that and the cause are known.
    cause     Its name in the catalogue; where no name is sure, a sentence.
    reason    Why it was not run, what ended it, or what else a marker should know.
    """

    file: str
    model: str = ""
    result: str = NOT_RUN
    right: int | str = ""
    all: int | str = ""
    first_divergence: str = ""
    line: str = ""
    cause: str = ""
    degree: str = ""
    reason: str = ""


def mark(
    folder: Path, model: str | None = None, texts: Sequence[str] = (), limits: Limits | None = None
) -> Iterator[Mark]:
    """A row for each file of a folder and its folders, in the order of names, files before folders.

    model  What all are held against; None: what each says itself, in the line of its skeleton that has
           `--model`.

    Raises InputError where there is no such folder, or nothing, or too much in it.
    """
    files = list(submissions(folder))
    if not files:
        raise InputError(f"{folder} has no files to mark")
    if len(files) > MOST:
        raise InputError(f"{folder} has {len(files):,} files; {MOST:,} at most are marked at a time")
    if model and Path(model).exists():
        model = str(Path(model).absolute())  # checks run in another folder
    rows = dict[tuple[str, str], Mark]()  # by the model and what a file says, without comments and blanks
    same_as = dict[str, str]()  # by what a source says, with its names or without: what it is the same as
    for skeleton in SKELETONS:
        text = source(skeleton, solved=True).encode()
        same_as |= dict.fromkeys((_sameness(text), _sameness(text, names=False)), SOLVED)
    for file in files:
        shown = file.relative_to(folder).as_posix()
        try:
            content = _content(file)
            named = _named(content)
            name = model or named
            if not name:
                raise InputError("it does not say which model it rebuilds; give --model NAME")
        except InputError as problem:
            yield Mark(shown, reason=str(problem).replace(f"{file} ", "it ").replace(f"{file}: ", ""))
            continue
        same = _sameness(content)
        if (name, same) in rows:
            first = rows[name, same]
            yield replace(first, file=shown, reason=f"the same as {first.file}")
            continue
        row = _checked(Mark(shown, name), content, texts, limits or Limits())
        renamed = _sameness(content, names=False)
        twin = same_as.get(same) or (f"but for names {same_as[renamed]}" if renamed in same_as else "")
        row = replace(row, reason="; ".join(filter(None, (twin, row.reason))))
        if name in SKELETONS and named not in ("", name):
            row = replace(row, reason=f"its first lines say {named}{'; ' * bool(row.reason)}{row.reason}")
        rows[name, same] = row
        same_as.setdefault(renamed, f"the same as {shown}")
        yield row


def table(rows: Sequence[Mark]) -> str:
    """The rows as CSV, with the names of the columns on top. No cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Mark.__dataclass_fields__)
    writer.writerows([_cell(value) for value in vars(row).values()] for row in rows)
    return text.getvalue()


def submissions(folder: Path) -> Iterator[Path]:
    """Every file below a folder, hidden ones and Python's own aside; links to folders are not followed."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; mark takes the folder with the submissions")
    closed: list[Path] = []  # folders that may not be read: each has a row that says so
    for above, folders, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        yield from (Path(above, name) for name in sorted(files) if not name.startswith("."))
    yield from closed


def _content(file: Path) -> bytes:
    """What is in a submission. InputError for what is no Python file, or too large, or elsewhere."""
    if file.is_symlink():
        raise InputError("it is a link; hand in the file itself")
    if file.suffix.lower() != ".py" and not file.is_dir():
        raise InputError("it is no .py file; only these are run")
    content = read(file, largest=LARGEST_FILE)
    if not content.strip():
        raise InputError("it is empty")
    return content


def _named(content: bytes) -> str:
    """The model that a file names itself, as its skeleton does; empty where it names none."""
    named = re.search(rb"llm-rebuild check [^\n]{1,200} --model ([\w-]+)", content[:10_000])
    name = named[1].decode() if named else ""
    return name if name in SKELETONS else ""


def _sameness(content: bytes, names: bool = True) -> str:
    """What two files share that differ in comments and blanks only; without `names`, also in what their
    variables and functions are called."""
    text = content.decode("utf-8", "surrogateescape")
    if len(content) > COMPARED:
        return hashlib.sha256(content).hexdigest()
    with warnings.catch_warnings(), contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        warnings.simplefilter("ignore")  # of Python, about the submission
        tree = ast.parse(content)
        own = set[str]()
        for node in ast.walk(tree):
            if isinstance(node, ast.arg):
                own.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                own.add(getattr(node, "name", ""))
                if ast.get_docstring(node) is not None:  # a comment, too; in the file's its own name stands
                    del node.body[0]
        text = ast.dump(tree)
        if not names:  # the first of them is 0, the next 1, …
            numbers = dict[str, int]()
            text = re.sub(
                r"\b(id|arg|name)='(\w+)'",
                lambda m: m[1] + str(numbers.setdefault(m[2], len(numbers))) if m[2] in own else m[0],
                text,
            )
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _checked(row: Mark, content: bytes, texts: Sequence[str], limits: Limits) -> Mark:
    """The row, filled in by a check in a process of its own."""
    most = SHARES * limits.seconds + 60
    with (
        tempfile.TemporaryDirectory(prefix="llm-rebuild-mark-", ignore_cleanup_errors=True) as alone,
        Process(check_alone) as process,
    ):
        copy = Path(alone, "submission", Path(row.file).name)
        copy.parent.mkdir()
        copy.write_bytes(content)
        job = {"alone": alone, "file": str(copy), "model": row.model, "texts": texts}
        job["limits"] = astuple(limits)
        process.deadline = time.monotonic() + most
        answer = next(process.ask(job), None)
    if answer is None:
        how = process.ended.how if process.ended else ""
        stopped = f"whole check was stopped after {most:g} s"
        return replace(row, reason=f"the {stopped if how == 'time' else f'check itself was ended ({how})'}")
    row, result = replace(row, reason=answer.about["problem"]), answer.about["result"]
    return filled(row, result, passed=answer.about["passed"]) if result else row


def check_alone(channel: Channel) -> None:
    """Check one submission, as `llm-rebuild check` would. It runs in an empty folder, for Python looks for
    modules where it is started; what is temporary goes to the folder above."""
    message = channel.receive()
    if message is None:
        return
    job, result, passed = message.about, None, False
    empty = Path(job["alone"], "empty")
    empty.mkdir()
    os.chdir(empty)
    os.environ["TMPDIR"] = tempfile.tempdir = job["alone"]
    fork_server.begin()
    try:
        copy = cached.copy_for(job["model"])
        question = ask(copy, **or_default(copy, {"texts": job["texts"]}, padded=True))
        checked = check_file(job["file"], question, limits=Limits(*job["limits"]))
        problem, result, passed = checked.stopped, checked.to_json(), checked.passed
    except InputError as error:
        problem = str(error)
    channel.send({"end": "done", "problem": problem, "result": result, "passed": passed})


def filled(row: Mark, found: Mapping[str, Any], passed: bool) -> Mark:
    """The row with what a check's JSON says."""
    model, summary, leaks = found["model"], found["summary"], found["leaks"] or ()
    mistake: Mapping[str, Any] = next(iter(found["mistakes"]), {})
    line = mistake.get("line") or {}
    unfilled = sum(step["problem"] == "not filled in" for step in found["steps"])
    missing = f"{found['next']} was never tapped" if found["next"] and not mistake else ""
    missing = f"{counted(unfilled, 'step')} not filled in" if unfilled else missing
    return replace(
        row,
        model=f"{model['name']} (miniature)" if model["source"] == "miniature" else model["name"],
        result=FAILED if not passed else DONE if found["done"] else PASSED,
        right=summary["checkpoints"] - summary["failed"],
        all=summary["checkpoints"],
        first_divergence=found["next"] or "",
        line=f"{line['number']}: {mistake['code'] or ''}" if line else "",
        cause=_cause(mistake),
        degree=mistake.get("degree", ""),
        reason=row.reason or "; ".join(leaks) or missing,
    )


def _cause(mistake: Mapping[str, Any]) -> str:
    """The catalogue's name of a mistake; where it has none, or is not sure of it, a sentence."""
    named = mistake.get("cause", "unknown") != "unknown" and mistake["degree"] != DEGREES[Level.GUESSED]
    return str(mistake["cause"] if named else mistake.get("explanation", ""))


def _cell(value: object) -> str:
    text = one_line(value, LONGEST) if value != "" else ""
    return f"'{text}" if text.startswith(FORMULA) else text
