"""How a dump that was compared looks: which of its tensors was taken for which, then the report."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from llm_rebuild.dumps.names import Matched, in_any_block
from llm_rebuild.errors import listed, one_line
from llm_rebuild.show.report import shown
from llm_rebuild.show.terminal import columns
from llm_rebuild.verify.report import Report

MOST_NAMES = 8  # names without a counterpart that are listed


def compared(report: Report, matched: Matched) -> RenderableType:
    """A line for each pattern of names, what has no counterpart, and the report."""
    table = columns()
    table.add_column("in the dump", no_wrap=True)
    table.add_column("taken for", no_wrap=True)
    table.add_column("how it lies", no_wrap=True)
    rows = dict.fromkeys(
        (one_line(own), checkpoint, matched.layouts[name].removeprefix(", "))
        for name, (own, checkpoint) in in_any_block(matched.names).items()
    )
    for row in rows:
        table.add_row(*map(Text, row))
    lines: list[RenderableType] = [table]
    if matched.unmatched:
        names = listed([*map(one_line, matched.unmatched)], MOST_NAMES)
        lines.append(Text(f"no checkpoint: {names}", "yellow"))
    if not report.verdicts:
        question = "are the text and the model the same?"
        lines.append(Text(f"nothing in the dump is a checkpoint of this run: {question}", "bold red"))
        return Group(*lines)
    passed = Text("passed: nothing is wrong, though not all bits are equal", "green")
    return Group(*lines, "", shown(report, brief=True), *([passed] * (report.passed and not report.exact)))
