"""The command `find`. Registered on the app at the end of `cli.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_rebuild.cli.main import (
    Attention,
    DecoderIds,
    JsonOption,
    Strict,
    TextOption,
    TextsFile,
    TokenIds,
    _attention,
    _decoder_inputs,
    _inputs,
    _or_default,
    _writable,
    _write_json,
    app,
    console,
    progress,
)
from llm_rebuild.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@app.command()
def find(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.safetensors", help="A safetensors file with your tensor.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|DIR", help="The model that it may be of; any text model.")
    ],
    key: Annotated[str | None, typer.Option(help="Which tensor of the file, if it has several.")] = None,
    text: TextOption = None,
    texts: TextsFile = None,
    token_ids: TokenIds = None,
    decoder_ids: DecoderIds = None,
    attention: Attention = "eager",
    json_file: JsonOption = None,
    strict: Strict = False,
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
    _attention(attention)
    inputs = _inputs(text, texts, token_ids) | _decoder_inputs(decoder_ids)
    _writable("--json", json_file)
    tensor = _tensor(file, key)
    from llm_rebuild.copies import local_copy
    from llm_rebuild.show.results import renderable
    from llm_rebuild.verify.find import usable
    from llm_rebuild.verify.trace import trace

    usable(tensor)  # before the model is loaded
    copy = local_copy.get(model, strict=strict)
    with progress("the official model runs, the tensor is looked for", 2) as done:
        taken = trace(copy, attention=attention, **_or_default(copy, inputs))
        done("traced")
        found = taken.find(tensor)
        done("found")
    if json_file != "-":
        console().print(renderable(found))
    _write_json(found.to_json(), json_file)
    raise typer.Exit(0 if found else 1)


def _tensor(file: Path, key: str | None) -> Tensor:
    """One tensor of a safetensors file. Raises InputError where it is not clear which, or there is none."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
            if key is None and len(keys) == 1:
                key = keys[0]
            if key in keys:
                tensor: Tensor = opened.get_tensor(key)
                return tensor
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is not a whole safetensors file ({reason})") from None
    if not keys:
        raise InputError(f"{file} holds no tensors")
    shown = ", ".join(keys[:5]) + ("" if len(keys) <= 5 else f" and {len(keys) - 5} more")
    if key is None:
        raise InputError(f"{file} holds {len(keys)} tensors; say which with --key: {shown}")
    raise InputError(f"{file} has no tensor {key!r}; it has {shown}")
