"""How a report looks: a table of verdicts, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_rebuild.checkpoints import part_of
from llm_rebuild.errors import counted, listed
from llm_rebuild.show.terminal import columns, indented, renderable
from llm_rebuild.verify.compare import BIT_IDENTICAL, Verdict
from llm_rebuild.verify.coverage import Coverage
from llm_rebuild.verify.divergence import Divergence, first_mistake
from llm_rebuild.verify.equality import SHORT
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.rounding import ROUNDING

if TYPE_CHECKING:
    from llm_rebuild.diagnosis.diagnose import Diagnosis

MOST_ALSO = 3  # further checkpoints with the same mistake


@renderable.register
def shown(report: Report, brief: bool = False) -> RenderableType:
    """A report; `brief`: with one line for each part of the model in which all is bit-identical."""
    notes = [Text(note, style="yellow") for note in report.notes]
    if report.tokenizer is not None:
        notes.append(Text(str(report.tokenizer), style="" if report.tokenizer.passes else "bold red"))
    return Group(*notes, _table(report, brief), *_closing(report))


def _table(report: Report, brief: bool) -> Table:
    table = columns()
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("worst", no_wrap=True, justify="right")
    in_ulp = report.device != "cpu" or report.dtype in SHORT
    for part, members in groupby(report.verdicts, key=lambda v: part_of(v.name)):
        verdicts = list(members)
        if brief and len(verdicts) > 1 and all(v.identical and not v.coupled for v in verdicts):
            table.add_row(Text(part, style="bold"), f"{len(verdicts)} tensors", in_colour(verdicts[0]), "0")
            continue
        table.add_row(Text(part, style="bold"))
        for v in verdicts:
            table.add_row(
                "  " + v.name.removeprefix(part + "."),
                "×".join(map(str, v.shape)),
                in_colour(v),
                _worst(v, in_ulp),
            )
    return table


def _worst(verdict: Verdict, in_ulp: bool) -> str:
    """The worst difference, in units in the last place where these say more."""
    if verdict.max_abs_diff is None or verdict.identical:
        return "–" if verdict.max_abs_diff is None else "0"
    return f"{verdict.max_ulp:,} ulp" if in_ulp else f"{verdict.max_abs_diff:.1e}"


def in_colour(verdict: Verdict) -> Text:
    """The verdict in its colour, and whether it rests on an official tensor."""
    good = verdict.identical and not verdict.coupled
    style = "green" if good else "yellow" if verdict.passes else "red"
    return Text(f"{verdict.verdict}, coupled" if verdict.coupled else verdict.verdict, style=style)


def _closing(report: Report) -> Iterator[RenderableType]:
    yield ""
    if report.coverage is not None:
        yield Text(_covered(report.coverage))
    if report.first_divergence is not None:
        yield from _first(report, report.first_divergence)
    for name in report.coupled:
        yield Text(f"coupled at {name}: later checkpoints start from an official tensor", style="yellow")
    for leak in report.leaks or ():
        yield Text(leak, style="red")
    if report.isolated:
        yield Text(
            "isolated: the rebuild ran in a process of its own, from files alone, where transformers "
            f"cannot be imported; {counted(len(report.leaks or ()), 'leak')}"
        )
    if report.device != "cpu":
        yield Text(
            f"the rebuild ran on {report.device}, the official model on the CPU: their kernels add in other "
            "orders, so equal bits are not expected"
        )
    if report.untried:
        yield Text(f"not tried in this run: {', '.join(report.untried)}")
    clean = report.exact and not report.coupled
    style = "bold green" if clean else "bold yellow" if report.passed else "bold red"
    count = f"{report.bit_identical} of {len(report.verdicts)} checkpoints {BIT_IDENTICAL}"
    if report.coupled:
        count += f", {sum(v.coupled for v in report.verdicts)} coupled"
    yield Text(f"{count} ({report.which})", style=style)


def _covered(coverage: Coverage) -> str:
    """The coverage in a sentence: of how many, what is not covered and why."""
    why: dict[str, list[str]] = {}
    for operation, reason in coverage.reasons().items():
        why.setdefault(reason, []).append(f"{coverage.uncovered[operation]} × {operation}")
    missing = "; ".join(f"{', '.join(operations)}: {reason}" for reason, operations in why.items())
    line = f"coverage {coverage.share:.1%}: {coverage.covered} of the {coverage.total} official tensors that "
    line += "count equal a checkpoint" + (f" (not: {missing})" if missing else "")
    aside = sum(coverage.aside.values())
    return f"{line}; {aside} copies and by-products are set aside" if aside else line


def _first(report: Report, first: Divergence) -> Iterator[RenderableType]:
    """Where the two runs part, which step is to blame, and which mistake it may be."""
    yield from parting(first.verdict, str(first), first.blame(report.rounding))
    if report.rounding is not None and report.rounding.kind(first.name) == ROUNDING:
        mistake = first_mistake(report.verdicts, report.rounding)
        if mistake is not None:
            yield indented(f"the first step with a mistake: {mistake.name}", "red")
    yield from all_diagnosed(report)
    if report.dtype != "float32" and not first.verdict.passes:
        yield indented(f"which mistake it may be is looked for in float32, and not in {report.dtype}")


def parting(verdict: Verdict, seen: str, blame: str) -> Iterator[RenderableType]:
    """Where two runs part, in words, and whose fault it is. Yellow where it passes."""
    style = "yellow" if verdict.passes else "red"
    headline, *worst = seen.splitlines()
    yield Text(f"first divergence: {headline}", style=style)
    for line in (*worst, blame) if blame else worst:
        yield indented(line.strip(), style)


def all_diagnosed(report: Report) -> Iterator[RenderableType]:
    """The mistakes, one by one; where there is none, what else explains the divergence."""
    for number, mistake in enumerate(report.mistakes or report.diagnosis[:1]):
        yield from diagnosed(mistake, "one more mistake" if number else "diagnosis")


def diagnosed(best: Diagnosis, title: str = "diagnosis") -> Iterator[RenderableType]:
    """Which mistake it may be: what was done, what is right, why it matters, how that is known, and where to
    read of it."""
    cause = "" if best.asked else f"{' or '.join([best.cause, *best.either])} "
    yield Text(f"{title}: {cause}at {best.checkpoint} ({best.degree})", style="bold")
    for line in best.lines[:1]:
        yield indented(f"{line.file}, line {line.number}, in {line.function}: {line.code}", "bold")
    if len(best.lines) > 1 and not (best.repairs and best.repairs[0].line == best.lines[0]):
        others = [f"line {line.number} ({line.code})" for line in best.lines[1:]]
        yield indented(f"or {', or '.join(others)}", "dim")
    yield indented(best.did)
    yield indented(f"right: {best.should}")
    yield indented(f"why: {best.why}")
    for number, repair in enumerate(best.repairs):
        proved = repair.degree
        if repair.line is None and len(best.lines) > 1:
            proved += "; on which of these lines, the run does not show"
        yield indented(f"{'or' if number else 'repair'}: {repair.words} ({proved})")
        if repair.after:
            yield indented(f"  - {repair.before}", "red")
            yield indented(f"  + {repair.after}", "green")
    if best.also:
        yield indented(f"so, too: {listed(best.also, MOST_ALSO)}")
    same = f" So it is with {' and with '.join(best.either)}." if best.either else ""
    yield indented(f"evidence: {best.evidence}{same}")
    yield indented(f"read: llm-rebuild explain {best.cause}")
