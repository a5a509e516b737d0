"""The workbench's commands: `new`, `check` and `mark`."""

from __future__ import annotations

import difflib
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from llm_rebuild import files
from llm_rebuild.cli import options, output
from llm_rebuild.cli.app import app
from llm_rebuild.errors import InputError, counted
from llm_rebuild.printing import notice

if TYPE_CHECKING:
    from llm_rebuild.workbench.result import Check

THREADS_SLEEP = ("OMP_WAIT_POLICY", "PASSIVE")  # it changes no number; read when torch is imported
LOOK = 0.2  # seconds between two looks at whether the file was saved

Step = Annotated[
    str | None,
    options.option(
        "Only this step, fed with official numbers: `h.0.attn.scores`, or `h.{layer}.…` for all.",
        "CHECKPOINT",
    ),
]
Memory = Annotated[
    int, options.option("The most memory that it may use, in MB, on top of torch's (on Linux).", "MB", min=16)
]
Fix = Annotated[
    bool, options.switch("--fix", "Put proved repairs of one line into your file, after showing them.")
]


@app.command()
def new(
    model: Annotated[str, typer.Argument(help=f"{options.MODELS}.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="The file to write; it must not exist.")],
    solved: Annotated[bool, options.switch("--solved", "With every step filled in.")] = False,
    bare: Annotated[
        bool, options.switch("--bare", "With an empty `forward`, no steps, and the checkpoints' names.")
    ] = False,
    seed: Annotated[
        str | None,
        options.option("Filled in, with one hidden mistake to find; which, SEED says.", "SEED", "--break"),
    ] = None,
) -> None:
    """Part 4: write the skeleton of a rebuild, for you to fill in step by step.

    Its functions are the model's steps in the order of computation, each with
    its task in words and shapes. The first is filled in already.

      llm-rebuild new gpt2 my_gpt2.py
      llm-rebuild check my_gpt2.py --model gpt2

    With --bare the order, the norms and the residuals are yours, too. With
    --break you get a rebuild that runs and is wrong in one place: the same
    word gives the same mistake, on every machine.

    A file that is there already is never written over.
    """
    from llm_rebuild.workbench.new import new as write

    write(model, file, solved=solved, bare=bare, seed=seed)
    what = "write `forward`, and" if bare else "fill in its steps, and"
    if solved or seed is not None:
        what = "every step is filled in; to try it" if solved else "one mistake is hidden in it; to see it,"
    typer.echo(f"{file}: {what} run `llm-rebuild check {file} --model {model}`")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="Your rebuild: it defines `forward`.")],
    model: Annotated[str, options.option("A model's name, or a folder with its files.", "NAME|DIR")],
    text: options.Text = None,
    texts: options.TextsFile = None,
    token_ids: options.TokenIds = None,
    decoder_ids: options.DecoderIds = None,
    attention: options.Attention = "eager",
    dtype: options.Dtype = "float32",
    step: Step = None,
    exact: options.Exact = False,
    seconds: Annotated[float, options.option("The longest that your file may run.", "N", min=0.1)] = 60.0,
    memory: Memory = 4096,
    watch: Annotated[bool, options.switch("--watch", "Check again whenever the file is saved.")] = False,
    fix: Fix = False,
    yes: Annotated[bool, options.switch("--yes", "With --fix: do not ask.")] = False,
    html: options.Html = None,
    json_file: options.Json = None,
    strict: options.Strict = False,
) -> None:
    """Part 4: hold your own rebuild against the official model, checkpoint by checkpoint.

    Shows the map of the model: what is matched, what is next, where the two
    first part, and which mistake it may be. Each function marked @step is also
    tried alone, fed with official numbers, so that mistakes do not add up. If
    `forward` takes `attention` or `cache`, it is run in these ways, too.

      llm-rebuild check my_gpt2.py --model gpt2
      llm-rebuild check my_gpt2.py --model gpt2 --step h.0.attn.scores --watch

    Your file runs in a process of its own, with a limit to its time and its
    memory, and cannot import transformers. That protects from accidents, not
    from malice: run only what you, or somebody you trust, wrote.

    Without a text two of different length are run, as a padded batch. What was
    not tried is listed; *done* is said only where nothing is left.

    Exit code 0 when all that ran is right to five decimals (with --exact: to
    the last bit), every checkpoint, the answer, and each step by itself; 1 when
    something is not, or is not there yet; 2 when the file cannot be run to its
    end.
    """
    inputs = options.read_inputs(text, texts, token_ids, decoder_ids)
    options.check_files(json_file, file, model, texts, html=html)
    if watch and json_file == "-":
        raise InputError("--watch prints again and again, and --json - one document; name a file")
    if fix and (watch or json_file == "-"):
        raise InputError(f"--fix shows what it changes; leave {'--watch' if watch else '--json -'} out")
    os.environ.setdefault(*THREADS_SLEEP)

    def once() -> int:
        """One check. Its exit code; InputError where it did not run to its end."""
        from llm_rebuild.workbench.cached import copy_for
        from llm_rebuild.workbench.check import check_file
        from llm_rebuild.workbench.session import Limits

        question = options.question_of(copy_for(model, strict), inputs, attention, apart=True, dtype=dtype)
        with output.progress("official model, your rebuild, its steps", 3) as done:
            checked = check_file(file, question, step=step, limits=Limits(seconds, memory), progress=done)
        if html:
            output.write_page(checked.proof, html)
        output.show(checked, json_file)
        output.write_json(checked.to_json(), json_file)
        if fix:
            _fix(file, checked, yes)
        if checked.stopped:
            raise InputError(checked.stopped)
        return 0 if (checked.exact if exact else checked.passed) else 1

    raise typer.Exit(_watch(file, once) if watch else once())


@app.command()
def mark(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder with the submissions.")],
    out: Annotated[Path, options.option("The table to write.", "FILE.csv")],
    model: Annotated[
        str | None,
        options.option("What all are held against. Without it, what each skeleton says.", "NAME|DIR"),
    ] = None,
    text: options.Text = None,
    seconds: Annotated[float, options.option("The longest that one file may run.", "N", min=0.1)] = 60.0,
    memory: Annotated[int, options.option("The most memory that one may use, in MB.", "MB", min=16)] = 4096,
) -> None:
    """For teachers: check every file of a folder, and write a table with one row for each.

    A row has the file, the model, done, passed, not passed or not run, how many
    checkpoints are right, the first that is not, the line, the cause, how well
    that is known, and the reason where something else is to be said.

      llm-rebuild mark submissions --out marks.csv

    Each is checked on a copy that lies alone. One that is empty, too large, no
    Python, the same as another, never ends or brings its checker down has its
    row with the reason, and the next one follows. This runs code of others:
    do it in a container, or as a user who has nothing to lose.

    Exit code 0 when all pass, 1 when some do not, 2 when nothing can be marked.
    """
    os.environ.setdefault(*THREADS_SLEEP)
    from llm_rebuild.process import fork_server
    from llm_rebuild.workbench import mark as marking
    from llm_rebuild.workbench.session import Limits

    output.check_writable("--out", out, model)
    if out.suffix == ".py" or str(out) == "-":
        raise InputError(f"--out {out}: give the name of a table, such as marks.csv")
    if out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"--out {out}: choose a place outside of the folder that is marked")
    count, rows = len(list(marking.submissions(folder))), list[marking.Mark]()
    fork_server.begin()
    for row in marking.mark(folder, model, text or (), Limits(seconds, memory)):
        rows.append(row)
        notice(f"{len(rows)} of {count}  {row.file}: {row.result}{row.reason and f' ({row.reason})'}")
        output.write_text(marking.table(rows), out, "--out")
    results = Counter(row.result for row in rows)
    counts = ", ".join(f"{number} {result}" for result, number in results.items())
    typer.echo(f"{counted(len(rows), 'submission')}: {counts}; the table is {out}")
    raise typer.Exit(0 if results.keys() <= {marking.DONE, marking.PASSED} else 1)


def _fix(file: Path, checked: Check, yes: bool) -> None:
    """Put the proved repairs of one line into the file, after showing them; what it was stays beside it."""
    from llm_rebuild.workbench.fix import fixed

    source = files.read_text(file)
    reports = [checked.report, *(other.report for other in checked.others)]
    repaired = fixed(source, file.name, [mistake for report in reports for mistake in report.mistakes])
    if repaired == source:
        notice("--fix: no repair that is proved and can be written as one line")
        return
    sides = source.splitlines(), repaired.splitlines()
    for line in difflib.unified_diff(*sides, file.name, file.name, lineterm="", n=1):
        output.console().print(line, style={"-": "red", "+": "green"}.get(line[0], ""))
    if not yes and not sys.stdin.isatty():
        raise InputError("--fix asks before it writes; with --yes it does not")
    if yes or typer.confirm(f"write this to {file}?"):
        backup = file.with_name(f"{file.name}.bak")
        if backup.exists():
            files.check_regular(backup)
        output.write_text(source, backup, "--fix")
        output.write_text(repaired, file, "--fix")
        notice(f"{file} is written, and what it was is in {backup.name}; check it again")


def _watch(file: Path, once: Callable[[], int]) -> NoReturn:
    """Check now and after each save, until Ctrl+C."""
    while True:
        saved = _saved(file)
        if saved is None:
            notice(f"llm-rebuild: {file} is not there; waiting for it")
        else:
            if output.console().is_terminal:
                output.console().rule()
            try:
                once()
            except InputError as error:
                notice(f"llm-rebuild: {error}")
            except Exception:  # a fault of this program: seen, and the next save is checked all the same
                traceback.print_exc()
            notice(f"waiting for {file} to be saved; Ctrl+C ends it")
        while _saved(file) == saved:
            time.sleep(LOOK)


def _saved(file: Path) -> tuple[int, int] | None:
    """When the file was last saved, and its size; None where it is not there."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
