"""Where results go: the terminal, a pipe, a file."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_rebuild import files
from llm_rebuild.copies import local_copy
from llm_rebuild.errors import UNPRINTABLE, InputError

if TYPE_CHECKING:
    from llm_rebuild.show.terminal import Terminal
    from llm_rebuild.verify import Proof


def console() -> Terminal:
    """Where results go. A pipe gets plain text, 80 columns wide at least as on a narrow terminal."""
    from llm_rebuild.show.terminal import Terminal

    return Terminal()


def show(result: object, json_file: str | None) -> None:
    """Print a result, unless its JSON goes to stdout."""
    if json_file != "-":
        console().print(result)


def check_writable(
    option: str, file: str | Path | None, *read: str | Path | None, streams: bool = True
) -> None:
    """Find out before the long work, not after it, that the result has no place to go.

    read     Files that the command reads, folders of tensors and of models. A result in the place of one, or
             among the stored models, would be the end of somebody's work.
    streams  Whether it may go into a pipe. That stays open: who reads it would take its end for the result's.
    """
    if file is None or str(file) == "-":
        return
    path = Path(file)
    try:
        if path.is_dir():
            raise InputError(f"{option} {path}: that is a folder; give the name of a file")
        target = Path(os.path.realpath(path))  # where a link leads
        if target.is_symlink():
            raise InputError(f"{option} {path}: that is a link to itself; choose another place")
        if not target.parent.is_dir():
            raise InputError(f"{option} {path}: there is no folder {target.parent}; make it first")
        files.check_target(path, streams)
        if not os.access(path if path.exists() else target.parent, os.W_OK):
            raise InputError(f"{option} {path}: cannot be written; choose another place")
        models = (local_copy.store_folder(), local_copy.MINIATURES)
        places = [Path(os.path.realpath(one)) for one in (*read, *models) if one is not None]
        theirs = target.suffix in files.TENSORS or target.name.startswith(files.OF_MODELS)
        if target in places or (theirs and target.exists() and any(map(target.is_relative_to, places))):
            raise InputError(f"{option} {path}: that is the file that is read; choose another place")
    except (OSError, ValueError) as error:
        raise InputError(f"{option} {path}: {files.reason(error)}") from None


def write_json(result: Mapping[str, Any], json_file: str | None, option: str = "--json") -> None:
    """To stdout, or to a file."""
    if json_file is None:
        return
    to_stdout = json_file == "-"
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    text = UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1], text)
    try:
        text.encode(sys.stdout.encoding if to_stdout else "utf-8")
    except UnicodeEncodeError:  # a terminal that has only some characters
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    if to_stdout:
        sys.stdout.write(text)
    else:
        write_text(text, Path(json_file), option)


def write_text(text: str, file: Path, option: str) -> None:
    """To a file: whole, or not at all and the file is what it was."""
    try:
        files.write(file, text)
    except OSError as error:
        raise InputError(f"{option} {file}: {files.reason(error)}") from None


def write_page(proof: Proof, file: Path) -> None:
    """The report as one HTML file."""
    from llm_rebuild.diagnosis.read_off import world_of
    from llm_rebuild.show.page import render

    world = world_of(proof.truth, proof.question.copy)
    write_text(render(proof, world.inputs_of), file, "--html")


@contextlib.contextmanager
def progress(title: str, count: int) -> Iterator[Any]:
    """A progress bar on stderr for work of a few long steps; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from llm_rebuild.show.terminal import Terminal

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    stderr = Terminal(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(title, total=count)
        yield lambda step: bar.advance(task)
