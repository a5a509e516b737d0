"""The app that the commands belong to. Their modules are imported, and so registered, by `main.py`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from llm_rebuild import __version__
from llm_rebuild.cli.options import HELP
from llm_rebuild.errors import InputError

__all__ = ["TyperException", "app"]

# As they are listed: in the order of the course.
COMMANDS = (
    "download", "map", "capture", "verify", "run", "find", "recheck", "new", "check", "compare", "dump",
    "mark", "sweep", "explain",
)  # fmt: skip
TEXTS = (None, "T", "TEXT ...", "SEED")  # what may be empty, by what help calls it


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in this order."""
        return sorted(super().list_commands(ctx), key=COMMANDS.index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Which one is meant. InputError where a name is empty: to pathlib it is the current folder."""
        meant: Any = super().resolve_command(ctx, args)
        command, rest = meant[1:]
        words = command.make_parser(command.context_class(command, parent=ctx)).parse_args(list(rest))[0]
        for parameter in [one for one in command.params if one.metavar not in TEXTS]:
            values = words.get(parameter.name)
            if "" in [str(one).strip() for one in (values if isinstance(values, list | tuple) else [values])]:
                raise InputError(f"{parameter.get_error_hint()} is empty; give it a name or a value")
        return meant


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
