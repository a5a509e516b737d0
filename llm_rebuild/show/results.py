"""How each kind of result looks. `print`, a notebook and the command line all come here.

A report and a check have files of their own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_rebuild.anatomy import Anatomy, Piece
from llm_rebuild.checkpoints import block_of, part_of
from llm_rebuild.errors import counted
from llm_rebuild.proof.sweep import Sweep
from llm_rebuild.show import check
from llm_rebuild.show import report as report_look
from llm_rebuild.show.terminal import columns, html, renderable, text
from llm_rebuild.using.embedding import Embedded
from llm_rebuild.using.generate import Generated
from llm_rebuild.verify import matched
from llm_rebuild.verify.find import SearchResult
from llm_rebuild.verify.report import Report
from llm_rebuild.weights import template

__all__ = ["check", "html", "renderable", "report_look", "text"]

MANY = 12  # texts: of more than these not every pair is shown
SHOWN = 20  # texts: of more than these only the first are shown

# ----------------------------------------------------------------------------- what a model has made


@renderable.register
def _generated(result: Generated) -> RenderableType:
    lines: list[RenderableType] = []
    for number, written in enumerate(result.texts):
        if result.prompts:
            lines.append(Text(result.prompts[number], style="bold"))
        lines.append(Text(f"  {written}"))
    return Group(*lines)


@renderable.register
def _embedded(result: Embedded) -> RenderableType:
    """Of few texts how similar each is to those above it; of many the nearest of the first ones."""
    lines: list[RenderableType] = [Text(note, style="dim") for note in result.notes]
    count, width = result.embeddings.shape
    for number, sentence in enumerate(result.texts[:SHOWN]):
        first = " ".join(f"{x: .4f}" for x in result.embeddings[number, :6].tolist())
        lines += [Text(sentence, style="bold"), Text(f"  {first} … ({width} numbers)")]
        similar = result.similarities(number)
        others = list(range(number))
        if count > MANY:
            similar[number] = -math.inf
            others = [int(similar.argmax())]
        for other in others:
            word = "nearest: similarity" if count > MANY else "similarity"
            lines.append(Text(f"  {word} {similar[other]:.4f} to {result.texts[other]}"))
    if count > SHOWN:
        lines.append(Text(f"the first {SHOWN} of {count:,} texts; --json FILE writes every embedding"))
    return Group(*lines)


@renderable.register
def _found(result: SearchResult) -> RenderableType:
    lines = [Text(line) for line in str(result).splitlines()]
    if result.hits:
        lines[0 if result else 1].stylize("bold")
    return Group(*lines)


def step_by_step(reports: Sequence[Report]) -> RenderableType:
    """What `verify_steps` gives: the prompt, and each step after it."""
    lines: list[RenderableType] = []
    for number, report in enumerate(reports):
        what = f"step {number:<6}" if number else "the prompt "
        lines.append(f"{what} {report.bit_identical} of {len(report.verdicts)} checkpoints bit-identical")
        if report.first_divergence is not None:
            lines.append(Text(f"  first divergence: {report.first_divergence}", style="red"))
    first, steps = reports[0], len(reports) - 1
    identical = sum(report.bit_identical for report in reports)
    checkpoints = sum(len(report.verdicts) for report in reports)
    line = f"{identical} of {checkpoints} checkpoints bit-identical in {counted(steps, 'step')}"
    if first.untried:
        lines.append(Text(f"not tried in this run: {', '.join(first.untried)}"))
    lines.append(Text(f"{line} ({first.which})", style="bold"))
    return Group(*lines)


# --------------------------------------------------------------------------------------- a model


@renderable.register
def _anatomy(result: Anatomy) -> RenderableType:
    return Group(*_shown(result))


def _shown(anatomy: Anatomy) -> Iterator[RenderableType]:
    yield Text(
        f"{anatomy.name} ({anatomy.model_type}): {anatomy.parameters:,} parameters in "
        f"{counted(sum(len(p.shapes) for p in anatomy.parts), 'tensor')}",
        style="bold",
    )
    yield ""
    yield _parts_table(anatomy)
    yield ""
    if anatomy.rebuilt:
        yield Text("Departures from the textbook", style="bold")
        yield _list(anatomy.departures)
    for key, reason in {template(key): reason for key, reason in anatomy.unused.items()}.items():
        yield Text(f"  not read{'' if anatomy.rebuilt else ' under this name'}: {key} ({reason})")
    if not anatomy.rebuilt:
        yield from _shown_any(anatomy)
        return
    yield ""
    yield Text("Checkpoints, in the order they are computed (of equal blocks, the first)", style="bold")
    yield _checkpoint_table(anatomy)
    yield ""
    yield Text(f"matched so far: {anatomy.matched or matched.NOTHING.format(name=anatomy.name)}")


def _shown_any(anatomy: Anatomy) -> Iterator[RenderableType]:
    yield Text(f"{len(anatomy.checkpoints)} checkpoints are returned by modules", style="bold")
    counts = Counter(block_of(c.name) or c.name for c in anatomy.checkpoints)
    yield _list((part, str(count)) for part, count in counts.items())
    yield Text(
        f"There is no rebuild of {anatomy.model_type} here, and so no list of departures from the textbook. "
        "`llm-rebuild capture` keeps these checkpoints and what is computed between the modules; "
        "`llm-rebuild check` holds a rebuild of your own against them."
    )


def _list(rows: Iterable[tuple[str, str]]) -> Table:
    """A name in each row, and what there is to say of it."""
    table = columns(header=False)
    for name, words in rows:
        table.add_row(Text(f"  {name}"), Text(words))
    return table


def _parts_table(anatomy: Anatomy) -> Table:
    """The first of several equal blocks in full, the others in a line."""
    table = columns()
    table.add_column("part", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    before: Piece | None = None
    for part in anatomy.parts:
        table.add_row(Text(part.path, style="bold"), "", Text(f"{part.parameters:,}", style="bold"))
        if before is not None and part.shapes and part.shapes == before.shapes:
            table.add_row(Text(f"  as {before.path}", style="dim"), "", "")
        else:
            table.add_row(Text(f"  {part.purpose}", style="dim"), "", "")
            for key, shape in part.shapes.items():
                table.add_row(f"  {key}", "×".join(map(str, shape)), f"{math.prod(shape):,}")
            before = part
    return table


def _checkpoint_table(anatomy: Anatomy) -> Table:
    """Every checkpoint that is not in a block, and those of each stack's block 0."""
    table = columns()
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("shape in words")
    table.add_column("what it holds")
    for part, checkpoints in groupby(anatomy.checkpoints, key=lambda c: part_of(c.name)):
        number = part.rpartition(".")[2]
        if number.isdigit() and number != "0":
            continue
        table.add_row(Text(part, style="bold"))
        for checkpoint in checkpoints:
            name = checkpoint.name.removeprefix(part + ".")
            table.add_row("  " + name, Text(checkpoint.shape), checkpoint.meaning)
    return table


# ------------------------------------------------------------------------------------- many proofs


@renderable.register
def _swept(result: Sweep) -> RenderableType:
    table = columns()
    for title in ("model", "attention"):
        table.add_column(title)
    for title in ("texts", "checkpoints", "bit-identical", "rounding", "failed", "errors"):
        table.add_column(title, justify="right")
    lines, worst = result.summary(), list[RenderableType]()
    for line in lines:
        counts = (line[c] for c in ("texts", "checkpoints", "bit_identical", "rounding", "failed", "errors"))
        how = line["attention"] if line["dtype"] == "float32" else f"{line['attention']}, {line['dtype']}"
        table.add_row(line["model"], how, *(f"{count:,}" for count in counts))
        where = f"{line['model']}, {how}"
        if line["first_divergence"]:
            worst.append(Text(f"{where}: first at {line['first_divergence']} ({line['cause']})", "yellow"))
        styles = {"note": "yellow", "error": "red"}
        worst += [Text(f"{where}: {line[key]}", style) for key, style in styles.items() if line[key]]
    count = f"{counted(len(result.rows), 'proof')} in {result.file}"
    closing = f"{count}: {'every' if result.passed else 'not every'} checkpoint agrees"
    return Group(table, *worst, Text(closing, style="bold green" if result.passed else "bold red"))
