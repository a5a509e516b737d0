"""Options that several commands share, and what they mean."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_rebuild import files
from llm_rebuild.cli import output
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from llm_rebuild.verify import Question
    from llm_rebuild.weights import Numbers


def either(names: Collection[str]) -> str:
    """`a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}"


# The models that help speaks of. It waits for no record of theirs: these bring torch with them.
MODELS, WRITERS, TWO_SIDED = either(NAMES), ", ".join(NAMES[1:]), "T5"

HELP = f"""Take a real language model apart, build it again in plain PyTorch, and prove it right.

A first round:

  llm-rebuild download minilm
  llm-rebuild map minilm
  llm-rebuild verify minilm --text "Open-source LLMs rock."
  llm-rebuild run gpt2 "Once upon a time"

NAME is a model ({", ".join(NAMES)}), or a folder of one of these
families with config.json and model.safetensors; map, capture, find and
check take any Hugging Face text model's folder. Where a model is not on
this disk and cannot be fetched, a miniature that ships with the package
stands in, and a line says so.

Exit code 0: all is well. 1: some checkpoints do not match. 2: the input is
at fault; one line says what to do.
"""


def option(text: str, metavar: str | None = None, *names: str, **more: Any) -> Any:
    """An option, by what its help says of it. Without a name it is called as its parameter is."""
    return typer.Option(*names, help=text, metavar=metavar, **more)


def switch(name: str, text: str) -> Any:
    """An option that is on or off, by its name and what its help says of it."""
    return typer.Option(name, help=text)


def one_attention(value: str) -> str:
    """`eager` or `sdpa`. Raises InputError for anything else."""
    if value not in ("eager", "sdpa"):
        raise InputError(f"--attention {value}: it is either eager or sdpa")
    return value


Name = Annotated[str, typer.Argument(metavar="NAME|DIR", help="A model's name, or a folder with its files.")]
Text = Annotated[list[str] | None, option("A text. Repeat it for a padded batch.", "T")]
TextsFile = Annotated[Path | None, option("A UTF-8 file with one text a line.", "FILE")]
TokenIds = Annotated[
    list[str] | None, option("Ids instead of a text, `101,2330,102`; may be repeated.", "IDS")
]
DecoderIds = Annotated[
    list[str] | None,
    option(
        f"{TWO_SIDED}: what the decoder reads, the start token first; one for each text. Without it, "
        "the text.",
        "IDS",
    ),
]
Cache = Annotated[
    bool, switch("--cache", f"Keep keys and values for a next step, as generation does ({WRITERS}).")
]
Attention = Annotated[
    str, option("`eager` shows scores and probabilities; `sdpa` is the fused kernel.", callback=one_attention)
]
Dtype = Annotated[
    str,
    option(
        "The type to compute in: `float32`, `bfloat16`, `float16`, `float64`, or `auto`, the file's own.",
        "TYPE",
    ),
]
Device = Annotated[str, option("Where the rebuild computes: `cpu`, or what torch calls another.", "DEVICE")]
Exact = Annotated[bool, switch("--exact", "Ask for identical bits, not five decimals.")]
Json = Annotated[str | None, option("Write the result as JSON to FILE, or - for stdout.", "FILE|-", "--json")]
Html = Annotated[Path | None, option("Write the report as one page to look at and send around.", "FILE")]
Store = Annotated[
    str | None,  # an empty Path would be the current folder
    option("Where models are kept. Else $LLM_REBUILD_STORE, else the user's cache folder.", "<path>"),
]
Strict = Annotated[bool, switch("--strict", "Never fall back to a miniature.")]


def flag(option: str) -> str:
    """An option's name as it is typed: `--top-k`."""
    return f"--{option.replace('_', '-')}"


def check_files(json_file: str | None, *read: str | Path | None, **files: Path | None) -> None:
    """Find out before the long work that results have a place to go, each its own and none that of what is
    read; stdout is one for JSON only."""
    owners: dict[str, str] = {}  # a file -> the option that writes it
    for option, file in {**files, "json": json_file}.items():
        if file is None or (str(file) == "-" and option == "json"):
            continue
        if str(file) == "-":
            raise InputError(f"{flag(option)} -: give the name of a file")
        output.check_writable(flag(option), file, *read)
        owner = owners.setdefault(os.path.realpath(file), flag(option))
        if owner != flag(option):
            raise InputError(f"{flag(option)} {file}: {owner} writes that file; choose another place")


def read_inputs(
    text: list[str] | None, texts: Path | None, token_ids: list[str] | None, decoder_ids: list[str] | None
) -> dict[str, Any]:
    """The three ways to give input, of which one is used, and what the decoder reads."""
    ways = [name for name, way in (("--text", text), ("--texts", texts), ("--token-ids", token_ids)) if way]
    if len(ways) > 1:
        raise InputError(f"{' and '.join(ways)} were given; one of them is enough")
    inputs: dict[str, Any] = {"texts": text}
    if token_ids:
        inputs = {"token_ids": [_ids(row, "--token-ids") for row in token_ids]}
    elif texts:
        inputs = {"texts": lines(texts)}
    if decoder_ids:
        inputs["decoder_ids"] = [_ids(row, "--decoder-ids") for row in decoder_ids]
    return inputs


def question_of(
    model: str | local_copy.LocalCopy,
    inputs: dict[str, Any],
    attention: str,
    cache: bool = False,
    strict: bool = False,
    apart: bool = False,
    **numbers: Unpack[Numbers],
) -> Question:
    """What is asked of a model: these inputs, else texts that it understands. `apart`: in other processes."""
    copy = local_copy.get(model, strict=strict) if isinstance(model, str) else model
    from llm_rebuild.process import fork_server  # with torch: after what may end in a line
    from llm_rebuild.verify.question import ask, or_default

    if apart:
        fork_server.begin()  # before transformers is loaded: for some models' configs right here
    if cache and copy.architecture and not copy.architecture.generates:
        raise InputError(f"{copy.name} writes no text and keeps no keys and values; leave --cache out")
    return ask(copy, **or_default(copy, inputs, padded=True), attention=attention, use_cache=cache, **numbers)


def _ids(row: str, option: str) -> list[int]:
    try:
        return [int(word) for word in row.split(",")]
    except ValueError:
        raise InputError(f"{option} {row[:60]}: expected whole numbers with commas between them") from None


def lines(file: Path) -> list[str]:
    """The lines of a text file. Raises InputError where it has none."""
    content = files.read_text(file, pipes=True).removeprefix("\ufeff")  # with or without a byte order mark
    if not content:
        raise InputError(f"{file} has no lines")
    content = content.replace("\r\n", "\n").replace("\r", "\n")
    return content.removesuffix("\n").split("\n")  # at no other character: a text may hold U+2028
