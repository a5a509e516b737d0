"""The app that the commands belong to. Their modules are imported, and so registered, by `main.py`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from llm_rebuild import __version__
from llm_rebuild.cli.options import HELP

__all__ = ["TyperException", "app"]

# As they are listed: in the order of the course.
COMMANDS = (
    "download", "map", "capture", "verify", "run", "find", "recheck", "new", "check", "compare", "dump",
    "mark", "sweep", "explain",
)  # fmt: skip


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in this order."""
        return sorted(super().list_commands(ctx), key=COMMANDS.index)


app = typer.Typer(
    name="llm-rebuild",
    cls=_InOrder,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=HELP,
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"llm-rebuild {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
