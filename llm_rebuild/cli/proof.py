"""The command `recheck`: a certificate's verification, run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_rebuild.cli.main import JsonOption, Store, _writable, _write_json, app, console, progress

COLOURS = {"same": "green", "other": "yellow", "better": "green", "worse": "red"}


@app.command()
def recheck(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `verify --certificate FILE` wrote.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Where the model is, for a certificate about a folder: it holds no path.",
            metavar="NAME|DIR",
        ),
    ] = None,
    store: Store = None,
    json_file: JsonOption = None,
) -> None:
    """Part 4: run a certificate's verification again, and say what has changed since.

    The certificate is not believed: every file is hashed, and both sides run
    anew on the same input with the same options.

      llm-rebuild verify minilm --isolated --certificate proof.json
      llm-rebuild recheck proof.json

    Exit code 0 when all is as it was, or only the environment differs and no
    verdict is worse. 1 when something is worse, or has other bits in the same
    environment.
    """
    _writable("--json", json_file)
    from llm_rebuild.proof import certificate

    written = certificate.read(file)
    with progress("official model, rebuild, comparison, coverage", 4) as done:
        found = certificate.recheck(written, model, store=store, progress=done)
    if json_file != "-":
        out = console()
        made = f"{written['model']['name']}, {written['options']['attention']} attention, {written['made']}"
        out.print(f"certificate of {made}", markup=False)
        for change in found.changes:
            out.print(f"{change.kind:<7}", style=COLOURS[change.kind], end="")
            out.print(str(change), markup=False)
        out.print(found.closing(), style="bold green" if found.holds else "bold red", markup=False)
    _write_json(found.to_json(), json_file)
    raise typer.Exit(0 if found.holds else 1)
