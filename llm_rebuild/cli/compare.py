"""The commands `compare` and `dump`: tensors from anywhere, and official ones for whoever writes a port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_rebuild.cli import options, output
from llm_rebuild.cli.app import app

Names = Annotated[
    Path | None, options.option("Which tensor is which checkpoint, as --write-names wrote it.", "FILE.json")
]
WriteNames = Annotated[
    Path | None, options.option("Write down which tensor was taken for which, to be changed.", "FILE.json")
]


@app.command()
def compare(
    dump: Annotated[
        Path,
        typer.Argument(metavar="DUMP", help="A file or a folder: safetensors, npz, npy, a debugger's JSON."),
    ],
    model: Annotated[str, options.option("The model that it is a port of; any text model.", "NAME|DIR")],
    text: options.Text = None,
    texts: options.TextsFile = None,
    token_ids: options.TokenIds = None,
    decoder_ids: options.DecoderIds = None,
    attention: options.Attention = "eager",
    names: Names = None,
    write_names: WriteNames = None,
    exact: options.Exact = False,
    html: options.Html = None,
    json_file: options.Json = None,
    strict: options.Strict = False,
) -> None:
    """Part 4: hold the tensors of a port in any language against the official model's.

    Whatever they are called and however they lie, they are matched by their
    numbers, their names and their order of blocks. Give the text or the ids that
    they were computed from; without them, the ids are those that `dump` writes:

      llm-rebuild compare tensors.npz --model gpt2 --token-ids 464,3290
      llm-rebuild compare tensors.npz --model gpt2 --token-ids 464,3290 --write-names names.json

    What was taken for the wrong one is put right in names.json, and read from
    there with --names. `llm-rebuild dump` writes the official tensors.

    Exit code 0 when every tensor that is a checkpoint agrees to five decimals
    (with --exact: to the last bit), 1 when one does not, or none is one.
    """
    inputs = options.read_inputs(text, texts, token_ids, decoder_ids)
    options.check_files(json_file, dump, model, texts, names, html=html, write_names=write_names)
    from llm_rebuild import verify
    from llm_rebuild.diagnosis.read_off import world_of
    from llm_rebuild.dumps import names as naming
    from llm_rebuild.dumps.compare import proof_of
    from llm_rebuild.dumps.files import read_dump
    from llm_rebuild.show.dump import compared

    tensors = read_dump(dump)
    question = options.question_of(model, inputs, attention, strict=strict)
    with output.progress("the official model runs, names are matched, tensors compared", 3) as done:
        truth = verify.capture(question, steps=True)
        done("captured")
        if names is None:
            matched = naming.match(tensors, truth.tensors, lambda: world_of(truth, question.copy))
        else:
            listed = naming.read_names(names, tensors, truth.tensors)
            matched = naming.arranged(tensors, truth.tensors, listed)
        done("matched")
        proof = proof_of(question, truth, matched)
    report = proof.report
    output.show(compared(report, matched), json_file)
    output.write_json({**report.to_json(), **matched.to_json()}, json_file)
    if write_names:
        every = {**matched.names, **dict.fromkeys(matched.unmatched)}
        output.write_json(every, str(write_names), "--write-names")
    if html:
        output.write_page(proof, html)
    right = bool(report.verdicts) and (report.exact if exact else report.passed)
    raise typer.Exit(0 if right else 1)


@app.command()
def dump(
    name: options.Name,
    out: Annotated[Path, options.option("The file to write.", "FILE.npz|FILE.safetensors")],
    text: options.Text = None,
    texts: options.TextsFile = None,
    token_ids: options.TokenIds = None,
    decoder_ids: options.DecoderIds = None,
    attention: options.Attention = "eager",
    strict: options.Strict = False,
) -> None:
    """Part 4: write the official tensors, and the ids they are of, for a port in any language to read.

    The names are the checkpoints'; `inputs.token_ids` and `inputs.mask` are what
    the model reads, without a text two of our own, the shorter one padded.

      llm-rebuild dump gpt2 --text "They do." --out official.npz
    """
    inputs = options.read_inputs(text, texts, token_ids, decoder_ids)
    output.check_writable("--out", out, texts, name, streams=False)
    from llm_rebuild import verify
    from llm_rebuild.dumps.files import check_ending, write_dump

    check_ending(out)
    question = options.question_of(name, inputs, attention, strict=strict)
    with output.progress("the official model runs", 1):
        captured = verify.capture(question)
    read = {f"inputs.{key}": tensor for key, tensor in captured.inputs.tensors.items()}
    write_dump({**read, **captured.tensors}, out)
    typer.echo(f"{len(captured)} checkpoints of {captured.model['name']} and its inputs in {out}")
