"""The command `run`: a model used by its rebuild alone."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from llm_rebuild.cli import options, output
from llm_rebuild.cli.app import app
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError


def writing(text: str, metavar: str | None = "N", *names: str) -> Any:
    """An option that says how to write, and that a model which embeds refuses."""
    return options.option(text, metavar, *names, rich_help_panel=f"How to write ({options.WRITERS})")


Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT ...", help="What to embed, continue or translate. Several make a batch."),
]
Temperature = Annotated[float | None, writing("Draw the next token; below 1 bolder choices get rarer.", "X")]
TopP = Annotated[float | None, writing("Draw it from the likeliest that have probability P together.", "P")]
EarlyStopping = Annotated[bool, writing("With beams: stop at the first N texts.", None, "--early-stopping")]
RepetitionPenalty = Annotated[
    float | None, writing("Above 1 makes tokens less likely that were there before.", "X")
]

Fast = Annotated[
    bool, writing("The same tokens, sooner where a text repeats itself. One text, no draws.", None, "--fast")
]


@app.command()
def run(
    name: options.Name,
    texts: Texts = None,
    max_new_tokens: Annotated[int | None, writing("How many tokens to write at the most. Else 40.")] = None,
    temperature: Temperature = None,
    top_k: Annotated[int | None, writing("Draw it from the K likeliest only.", "K")] = None,
    top_p: TopP = None,
    seed: Annotated[int | None, writing("The same seed draws the same tokens.")] = None,
    beams: Annotated[int | None, writing("Search with so many beginnings side by side.")] = None,
    length_penalty: Annotated[float | None, writing("With beams: above 0 prefers longer texts.", "X")] = None,
    early_stopping: EarlyStopping = False,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram: Annotated[int | None, writing("Never write the same N tokens in a row twice.")] = None,
    fast: Fast = False,
    attention: options.Attention = "sdpa",
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    json_file: options.Json = None,
    strict: options.Strict = False,
) -> None:
    """Use a model by its rebuild alone: embed, continue or translate. The official model is not loaded.

    minilm makes 384 numbers of a text, gpt2 and llama go on with it, and
    t5-small does what the text begins with:

      llm-rebuild run minilm "They do." "So they do."
      llm-rebuild run gpt2 "Once upon a time" --temperature 0.8 --seed 1
      llm-rebuild run t5-small "translate English to German: They do."

    The likeliest token is taken each time, unless --temperature, --top-k or
    --top-p asks for a draw. One text appears on a terminal as it is written.
    """
    chosen = {
        "max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p,
        "seed": seed, "beams": beams, "length_penalty": length_penalty,
        "early_stopping": early_stopping or None, "repetition_penalty": repetition_penalty,
        "no_repeat_ngram": no_repeat_ngram,
    }  # fmt: skip
    settings = {option: value for option, value in chosen.items() if value is not None}
    output.check_writable("--json", json_file, name)
    copy = local_copy.get(name, strict=strict)
    from llm_rebuild.verify.question import or_default

    prompts = or_default(copy, {"texts": texts})["texts"]
    if copy.rebuild.architecture.embeds:
        if settings or fast:
            flags = ", ".join(map(options.flag, [*settings, *(["fast"] if fast else [])]))
            raise InputError(f"{copy.name} makes embeddings and writes no text; leave {flags} out")
        from llm_rebuild.using import embedding

        embedded = embedding.embed(copy, prompts, attention=attention, dtype=dtype, device=device)
        output.show(embedded, json_file)
        result = embedded.to_json()
    else:
        how = {"attention": attention, "fast": fast, "dtype": dtype, "device": device}
        result = _written(copy, prompts, settings, how, json_file == "-")
    # Which copy it was made with stands beside the model's name: a miniature is not the real one.
    output.write_json({"model": result["model"], "source": copy.source} | result, json_file)


def _written(
    copy: LocalCopy, prompts: list[str], settings: dict[str, Any], how: dict[str, Any], silent: bool
) -> dict[str, Any]:
    """Generate, print unless silent, and return the JSON. One text on a terminal is shown as it grows."""
    idle = [option for option in ("length_penalty", "early_stopping") if option in settings]
    if idle and settings.get("beams", 1) == 1:
        flags = " and ".join(map(options.flag, idle))
        raise InputError(f"without --beams there is nothing for {flags} to do; add --beams 4 or leave it out")
    from llm_rebuild.using import generate as generation
    from llm_rebuild.using.settings import SettingError, Settings

    out = output.console()
    live = out.is_terminal and len(prompts) == 1 and settings.get("beams", 1) == 1 and not silent
    begun = False

    def stream(row: int, piece: str) -> None:
        """Show a piece of the text as it comes."""
        nonlocal begun
        if not begun:  # only now: what is refused prints nothing
            out.print(prompts[0], style="bold", end="", soft_wrap=True)
            if copy.rebuild.architecture.encoder_decoder:  # a text of its own, no continuation
                out.print("\n  ", end="")
            begun = True
        out.print(piece, end="", soft_wrap=True)

    try:
        result = generation.generate(
            copy, prompts, Settings(**settings), stream=stream if live else None, **how
        )
    except SettingError as error:  # with the names that settings have on the command line
        message = str(error)
        for option in (*Settings.__dataclass_fields__, "fast"):
            message = re.sub(rf"\b{option}\b", options.flag(option), message)
        raise InputError(message) from None
    finally:
        if begun:
            out.print()
    if not begun and not silent:
        out.print(result, soft_wrap=not out.is_terminal)  # a pipe gets the text as it is
    return result.to_json()
