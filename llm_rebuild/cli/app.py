"""The app that the commands belong to. To import a command's module registers it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from llm_rebuild import __version__
from llm_rebuild.cli.options import HELP
from llm_rebuild.errors import InputError

__all__ = ["TyperException", "app", "register"]

# The module of each, as they are listed: in the order of the course.
COMMANDS = {
    "download": "copies", "map": "copies", "capture": "find", "verify": "prove", "run": "run", "find": "find",
    "recheck": "prove", "new": "bench", "check": "bench", "compare": "compare", "dump": "compare",
    "mark": "bench", "sweep": "sweep", "explain": "find",
}  # fmt: skip
TEXTS = (None, "T", "TEXT ...", "SEED")  # what may be empty, by what help calls it


class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in this order."""
        return sorted(super().list_commands(ctx), key=list(COMMANDS).index)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Which one is meant. InputError where a name is empty: to pathlib it is the current folder."""
        meant: Any = super().resolve_command(ctx, args)
        command, rest = meant[1:]
        words = command.make_parser(command.context_class(command, parent=ctx)).parse_args(list(rest))[0]
        for parameter in [one for one in command.params if one.metavar not in TEXTS]:
            values = words.get(parameter.name)
            if "" in [str(one).strip() for one in (values if isinstance(values, list | tuple) else [values])]:
                name = parameter.opts[0]  # of an argument its own
                shown = name if name.startswith("-") else parameter.metavar or name.upper()
                raise InputError(f"'{shown}' is empty; give it a name or a value")
        return meant


app = typer.Typer(
    name="llm-rebuild",
    cls=_InOrder,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=HELP,
)


def register(arguments: Sequence[str]) -> None:
    """Make the commands known that a command line is about: the one that is named, else all. Each takes its
    time."""
    named = COMMANDS.get(arguments[0]) if arguments else None
    for module in {named} if named else set(COMMANDS.values()):
        importlib.import_module(f"llm_rebuild.cli.{module}")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"llm-rebuild {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
