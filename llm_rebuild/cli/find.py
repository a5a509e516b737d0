"""The commands `capture`, `find` and `explain`: what the official model computes, which of it a tensor is,
and what a mistake is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_rebuild.cli import options, output
from llm_rebuild.cli.app import app
from llm_rebuild.errors import InputError, listed, nearest
from llm_rebuild.json_fields import shown

if TYPE_CHECKING:
    from torch import Tensor


@app.command()
def capture(
    name: options.Name,
    out: Annotated[Path, options.option("The capture file to write.", "FILE.safetensors")],
    text: options.Text = None,
    texts: options.TextsFile = None,
    token_ids: options.TokenIds = None,
    decoder_ids: options.DecoderIds = None,
    cache: options.Cache = False,
    attention: options.Attention = "eager",
    dtype: options.Dtype = "float32",
    strict: options.Strict = False,
) -> None:
    """Part 3: run the official model once and keep every checkpoint in a safetensors file."""
    inputs = options.read_inputs(text, texts, token_ids, decoder_ids)
    output.check_writable("--out", out, texts, name, streams=False)
    question = options.question_of(name, inputs, attention, cache, strict, dtype=dtype)
    from llm_rebuild import verify

    with output.progress("the official model runs", 1):
        captured = verify.capture(question)
    captured.save(out)
    typer.echo(f"{len(captured)} checkpoints of {captured.model['name']} in {out}")


@app.command()
def find(
    file: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="A file with your tensor.")],
    model: Annotated[str, options.option("The model that it may be of; any text model.", "NAME|DIR")],
    key: Annotated[str | None, options.option("Which tensor of the file, if it has several.")] = None,
    text: options.Text = None,
    texts: options.TextsFile = None,
    token_ids: options.TokenIds = None,
    decoder_ids: options.DecoderIds = None,
    attention: options.Attention = "eager",
    json_file: options.Json = None,
    strict: options.Strict = False,
) -> None:
    """Part 4: which official tensor is this? Looks for yours among everything the model computes.

    Transposed, reshaped, heads split or merged, or a slice: it is found all the
    same, and so are scaled, biased, masked and normalised ones. Give the text
    that your tensor was computed from:

      llm-rebuild find mine.safetensors --model gpt2 --text "They do."

    In Python: torch tensors are saved by safetensors.torch.save_file, and
    `verify.capture(...).find(tensor)` needs no file.

    Exit code 0 when it was found, 1 when nothing is like it.
    """
    inputs = options.read_inputs(text, texts, token_ids, decoder_ids)
    output.check_writable("--json", json_file, file, model, texts)
    tensor = _tensor(file, key)
    from llm_rebuild.verify.find import usable
    from llm_rebuild.verify.trace import trace

    usable(tensor)  # before the model is loaded
    question = options.question_of(model, inputs, attention, strict=strict)
    with output.progress("the official model runs, the tensor is looked for", 2) as done:
        traced = trace(question)
        done("traced")
        answer = traced.find(tensor)
    output.show(answer, json_file)
    output.write_json(answer.to_json(), json_file)
    raise typer.Exit(0 if answer else 1)


def _tensor(file: Path, key: str | None) -> Tensor:
    """One tensor of a safetensors file. Raises InputError where it is not clear which, or there is none."""
    from llm_rebuild.weights import Weights

    tensors = Weights.open(file, "save it anew")
    keys = list(tensors)
    if not keys:
        raise InputError(f"{file} holds no tensors")
    shown = listed(keys, 5)
    if key is None and len(keys) > 1:
        raise InputError(f"{file} holds {len(keys)} tensors; say which with --key: {shown}")
    key = keys[0] if key is None else key
    if key not in tensors:
        raise InputError(f"{file} has no tensor {key!r}; it has {shown}")
    return tensors[key]


@app.command()
def explain(
    cause: Annotated[
        str | None,
        typer.Argument(metavar="CAUSE", help="A name that a report gave. Without it, all are listed."),
    ] = None,
    listed: Annotated[bool, options.switch("--list", "List all names, whatever CAUSE is.")] = False,
) -> None:
    """Part 4: a mistake from the catalogue. What was done, what is right, why, and its section.

    The names are in the reports of verify and check:

      llm-rebuild explain norm-eps

    Exit code 0, and 2 for a name that is not in the catalogue.
    """
    from llm_rebuild.diagnosis.causes import CAUSES, GROUPS, chapter, section
    from llm_rebuild.show.terminal import catalogue

    out = output.console()
    if listed or cause is None:
        out.print(catalogue(GROUPS))
        return
    if cause not in CAUSES:
        near = nearest(cause, CAUSES) or "; `llm-rebuild explain` lists them all"
        raise InputError(f"no cause is called {shown(cause)}{near}")
    words = CAUSES[cause]
    out.print(f"{cause}: {words.did}")
    out.print(f"right: {words.should}")
    out.print(f"why: {words.why}")
    for paragraph in section(cause):
        out.print(f"\n{paragraph}")
    out.print("")
    out.print(f"read: {chapter(cause)} on the course's site, docs/part-4/mistakes.md in its source")
