"""The command `run`: a model used by its rebuild alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_rebuild.cli.app import app
from llm_rebuild.cli.options import Attention, JsonOption, Name, Strict, check_attention, flag, or_default
from llm_rebuild.cli.output import check_writable, console, show, write_json
from llm_rebuild.errors import InputError

if TYPE_CHECKING:
    from llm_rebuild.copies.local_copy import LocalCopy

WRITING: dict[str, Any] = {"rich_help_panel": "How to write (gpt2, t5-small)"}


@app.command()
def run(
    name: Name,
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT ...", help="What to embed, continue or translate. Several make a batch."
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="How many tokens to write at the most. Else 40.", metavar="N", **WRITING),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(help="Draw the next token; below 1 bolder choices get rarer.", metavar="X", **WRITING),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw it from the K likeliest only.", metavar="K", **WRITING)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Draw it from the likeliest that have probability P together.", metavar="P", **WRITING
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed draws the same tokens.", metavar="N", **WRITING)
    ] = None,
    beams: Annotated[
        int | None,
        typer.Option(help="Search with so many beginnings side by side.", metavar="N", **WRITING),
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="With beams: above 0 prefers longer texts.", metavar="X", **WRITING)
    ] = None,
    early_stopping: Annotated[
        bool, typer.Option("--early-stopping", help="With beams: stop at the first N texts.", **WRITING)
    ] = False,
    repetition_penalty: Annotated[
        float | None,
        typer.Option(help="Above 1 makes tokens less likely that were there before.", metavar="X", **WRITING),
    ] = None,
    no_repeat_ngram: Annotated[
        int | None, typer.Option(help="Never write the same N tokens in a row twice.", metavar="N", **WRITING)
    ] = None,
    attention: Attention = "sdpa",
    json_file: JsonOption = None,
    strict: Strict = False,
) -> None:
    """Use a model by its rebuild alone: embed, continue or translate. The official model is not loaded.

    minilm makes 384 numbers of a text, gpt2 goes on with it, and t5-small does
    what the text begins with:

      llm-rebuild run minilm "They do." "So they do."
      llm-rebuild run gpt2 "Once upon a time" --temperature 0.8 --seed 1
      llm-rebuild run t5-small "translate English to German: They do."

    The likeliest token is taken each time, unless --temperature, --top-k or
    --top-p asks for a draw. One text appears on a terminal as it is written.
    """
    options = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "seed": seed, "beams": beams, "length_penalty": length_penalty,
        "early_stopping": early_stopping or None, "repetition_penalty": repetition_penalty,
        "no_repeat_ngram": no_repeat_ngram,
    }  # fmt: skip
    settings = {option: value for option, value in options.items() if value is not None}
    check_attention(attention)
    check_writable("--json", json_file)
    from llm_rebuild.copies import local_copy
    from llm_rebuild.models import rebuild_for

    copy = local_copy.get(name, strict=strict)
    prompts = or_default(copy, {"texts": texts})["texts"]
    if rebuild_for(copy.config).architecture.embeds:
        if settings:
            flags = ", ".join(map(flag, settings))
            raise InputError(f"{copy.name} makes embeddings and writes no text; leave {flags} out")
        from llm_rebuild.using import embedding

        embedded = embedding.embed(copy, prompts, attention=attention)
        show(embedded, json_file)
        result = embedded.to_json()
    else:
        idle = [option for option in ("length_penalty", "early_stopping") if option in settings]
        if idle and settings.get("beams", 1) == 1:
            flags = " and ".join(map(flag, idle))
            raise InputError(
                f"without --beams there is nothing for {flags} to do; add --beams 4 or leave it out"
            )
        result = _written(copy, prompts, settings, attention, json_file == "-")
    # Which copy it was made with stands beside the model's name: a miniature is not the real one.
    write_json({"model": result["model"], "source": copy.source} | result, json_file)


def _written(
    copy: LocalCopy, prompts: list[str], settings: dict[str, Any], attention: str, silent: bool
) -> dict[str, Any]:
    """Generate, print unless silent, and return the JSON. One text on a terminal is shown as it grows."""
    from llm_rebuild.models import rebuild_for
    from llm_rebuild.using import generate as generation
    from llm_rebuild.using.decoding import SettingError, Settings

    out = console()
    live = out.is_terminal and len(prompts) == 1 and settings.get("beams", 1) == 1 and not silent
    begun = False

    def stream(row: int, piece: str) -> None:
        nonlocal begun
        if not begun:  # only now: what is refused prints nothing
            out.print(prompts[0], style="bold", end="", soft_wrap=True)
            if rebuild_for(copy.config).architecture.encoder_decoder:  # a text of its own, no continuation
                out.print("\n  ", end="")
            begun = True
        out.print(piece, end="", soft_wrap=True)

    try:
        result = generation.generate(
            copy,
            prompts,
            Settings(**settings),
            stream=stream if live else None,
            attention=attention,
        )
    except SettingError as error:
        raise InputError(_with_flags(str(error), Settings.__dataclass_fields__)) from None
    if begun:
        out.print()
    elif not silent:
        out.print(result, soft_wrap=not out.is_terminal)  # a pipe gets the text as it is
    return result.to_json()


def _with_flags(message: str, options: Iterable[str]) -> str:
    """A message about settings, with the names that they have on the command line."""
    for option in options:
        message = re.sub(rf"\b{option}\b", flag(option), message)
    return message
