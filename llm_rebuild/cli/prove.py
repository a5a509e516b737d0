"""The commands `verify` and `recheck`: the rebuild held against the official model, now and again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_rebuild.cli import options, output
from llm_rebuild.cli.app import app
from llm_rebuild.errors import InputError

if TYPE_CHECKING:
    from llm_rebuild.verify import Question

Steps = Annotated[
    int | None,
    options.option(
        "Then write N tokens, each from the keys and values kept so far, and compare every step.", "N", min=1
    ),
]
Isolated = Annotated[
    bool,
    options.switch(
        "--isolated", "Run the rebuild in a process of its own, where nothing official can be imported."
    ),
]
Certificate = Annotated[
    Path | None,
    options.option("Write down what was proved, for `llm-rebuild recheck` to run it again.", "FILE"),
]
EveryRow = Annotated[
    bool, options.switch("--all", "Show every checkpoint, also where a whole part is bit-identical.")
]
COLOURS = {"same": "green", "other": "yellow", "better": "green", "worse": "red"}


@app.command()
def verify(
    name: options.Name,
    text: options.Text = None,
    texts: options.TextsFile = None,
    token_ids: options.TokenIds = None,
    decoder_ids: options.DecoderIds = None,
    cache: options.Cache = False,
    steps: Steps = None,
    attention: options.Attention = "eager",
    dtype: options.Dtype = "float32",
    device: options.Device = "cpu",
    exact: options.Exact = False,
    isolated: Isolated = False,
    certificate: Certificate = None,
    html: options.Html = None,
    every_row: EveryRow = False,
    json_file: options.Json = None,
    strict: options.Strict = False,
) -> None:
    """Part 3: compare every checkpoint of the rebuild with the official model's, on the same input.

    Without a text, two that the model understands are used. Several texts make
    one padded batch:

      llm-rebuild verify gpt2 --text "The dog" --text "They do." --exact
      llm-rebuild verify t5-small --steps 32 --attention sdpa
      llm-rebuild verify llama --dtype bfloat16

    Exit code 0 when every checkpoint agrees to five decimals, in bfloat16 and
    float16 to a unit in the last place (with --exact: to the last bit), 1 when
    one does not.
    """
    inputs = options.read_inputs(text, texts, token_ids, decoder_ids)
    once = {"--cache": cache, "--isolated": isolated, "--certificate": certificate, "--html": html}
    if steps and decoder_ids:
        raise InputError("--steps lets the decoder begin with its start token; leave --decoder-ids out")
    if steps and any(once.values()):
        option = next(option for option, chosen in once.items() if chosen)
        raise InputError(f"{option} serves a single pass; leave --steps out")
    if device != "cpu" and (isolated or certificate):
        option = "--isolated" if isolated else "--certificate"
        raise InputError(f"{option} is for bits, which another device does not keep; leave --device out")
    options.check_files(json_file, name, texts, certificate=certificate, html=html)
    asked = options.question_of(name, inputs, attention, cache, strict, isolated, dtype=dtype, device=device)
    if steps:
        raise typer.Exit(_verify_steps(asked, steps, exact, json_file))
    from llm_rebuild import verify as verification
    from llm_rebuild.proof import isolation
    from llm_rebuild.show.report import shown
    from llm_rebuild.verify import matched

    with output.progress("official model, rebuild, comparison, coverage", 4) as done:
        prove = isolation.prove_isolated if isolated else verification.prove
        proof = prove(asked, progress=done)
    if not proof.report.exact:
        from llm_rebuild.diagnosis.explain import explain, read_rebuild

        proof = explain(proof, readings=read_rebuild(proof))
    report = proof.report
    matched.remember(asked.copy, report)
    output.show(shown(report, brief=not every_row), json_file)
    output.write_json(report.to_json(), json_file)
    if html:
        output.write_page(proof, html)
    if certificate:
        from llm_rebuild.proof.certificate import certify

        output.write_json(certify(proof), str(certificate), "--certificate")
    raise typer.Exit(0 if (report.exact if exact else report.passed) else 1)


def _verify_steps(question: Question, steps: int, exact: bool, json_file: str | None) -> int:
    """Verify the prompt and N steps after it, a line each. Returns the exit code."""
    from llm_rebuild.show.results import step_by_step
    from llm_rebuild.verify.steps import to_json, verify_steps

    with output.progress("the prompt, then step by step", steps + 1) as done:
        reports = verify_steps(question, steps=steps, progress=done)
    output.show(step_by_step(reports), json_file)
    output.write_json(to_json(reports), json_file)
    return 0 if all(report.exact if exact else report.passed for report in reports) else 1


@app.command()
def recheck(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `verify --certificate FILE` wrote.")],
    model: Annotated[
        str | None,
        options.option("Where the model is, for a certificate about a folder: it holds no path.", "NAME|DIR"),
    ] = None,
    store: options.Store = None,
    json_file: options.Json = None,
) -> None:
    """Part 4: run a certificate's verification again, and say what has changed since.

    The certificate is not believed: every file is hashed, and both sides run
    anew on the same input with the same options.

      llm-rebuild verify minilm --isolated --certificate proof.json
      llm-rebuild recheck proof.json

    Exit code 0 when all is as it was, or only the environment differs and no
    verdict is worse. 1 when something is worse, or has other bits in the same
    environment.
    """
    output.check_writable("--json", json_file, file, model)
    from llm_rebuild.process import fork_server
    from llm_rebuild.proof import certificate, recheck

    written = certificate.read(file)
    fork_server.begin()  # before transformers is loaded
    with output.progress("official model, rebuild, comparison, coverage", 4) as done:
        rechecked = recheck.recheck(written, model, store=store, progress=done)
    if json_file != "-":
        out = output.console()
        dtype = written["environment"]["dtype"]
        how = f"{written['options']['attention']} attention{'' if dtype == 'float32' else f', {dtype}'}"
        out.print(f"certificate of {written['model']['name']}, {how}, {written['made']}")
        for change in rechecked.changes:
            out.print(f"{change.kind:<7}", style=COLOURS[change.kind], end="")
            out.print(str(change))
        out.print(rechecked.closing(), style="bold green" if rechecked.holds else "bold red")
    output.write_json(rechecked.to_json(), json_file)
    raise typer.Exit(0 if rechecked.holds else 1)
