"""The command `sweep`: many proofs, on as many processors or machines as there are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llm_rebuild.cli import options, output
from llm_rebuild.cli.app import app
from llm_rebuild.errors import InputError, counted


@app.command()
def sweep(
    models: Annotated[list[str], typer.Argument(metavar="MODELS…", help="Models' names, or folders.")],
    texts: options.TextsFile = None,
    attention: Annotated[
        str, options.option("`eager`, `sdpa`, or both with a comma between them.")
    ] = "eager,sdpa",
    dtype: options.Dtype = "float32",
    batch: Annotated[int, options.option("Texts in a padded batch.", "N", min=1, max=1024)] = 8,
    address: Annotated[
        str | None, options.option("A Ray cluster. Without it, the processors of this machine.", "HOST:PORT")
    ] = None,
    out: Annotated[Path, options.option("The Parquet file of verdicts.", "FILE")] = Path("sweep.parquet"),
    html: options.Html = None,
    json_file: options.Json = None,
) -> None:
    """Prove many models on many texts: a row of verdicts for each batch, in one Parquet file.

      llm-rebuild sweep minilm gpt2 --texts corpus.txt --out rows.parquet

    It needs Ray, the extra `sweep` of this package. Where a worker dies, another
    one does its task; where the sweep itself is stopped, the same command goes
    on from the file. Models lie under the same names on every machine.

    Exit code 0 when every checkpoint of every row agrees to five decimals, in
    bfloat16 and float16 to a unit in the last place, 1 when one does not or a
    row ended in an error.
    """
    if texts is None:
        raise InputError("--texts FILE: give a file with one text a line")
    attentions = [options.one_attention(word.strip()) for word in attention.split(",")]
    options.check_files(json_file, texts, *models, out=out, html=html)
    lines = options.lines(texts)

    from llm_rebuild.proof import sweep as sweeping

    models, attentions = list(dict.fromkeys(models)), list(dict.fromkeys(attentions))
    asked = list(sweeping.tasks(models, lines, attentions, batch, dtype))
    with output.progress(counted(len(asked), "proof"), len(asked)) as done:
        result = sweeping.sweep(asked, out, address, done)
    output.show(result, json_file)
    if html:
        from llm_rebuild.show.terminal import page

        output.write_text(page(result), html, "--html")
    output.write_json(result.to_json(), json_file)
    raise typer.Exit(0 if result.passed else 1)
