"""What a check found: for people as a map of the model, for programs as JSON."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_rebuild.checkpoints import part_of
from llm_rebuild.verify.compare import BIT_IDENTICAL, MISSING, Verdict
from llm_rebuild.verify.report import Report
from llm_rebuild.weights import template

ROWS = 10  # checkpoints of one part that are shown one by one
LINES = 12  # lines of what the file printed
UNFILLED = "not filled in"


@dataclass(frozen=True)
class Alone:
    """A step by itself, fed with official tensors.

    verdict  How what it returned compares; None where it returned nothing that could be compared.
    problem  Why: `not filled in`, or what it raised.
    """

    name: str
    verdict: Verdict | None
    problem: str | None = None

    @property
    def right(self) -> bool:
        return self.verdict is not None and self.verdict.passes

    @property
    def word(self) -> str:
        """Right or wrong, in a few words."""
        if self.verdict is None:
            return UNFILLED if self.problem == UNFILLED else "fails alone"
        if self.verdict.identical:
            return "right alone"
        return f"{self.verdict.verdict} alone" if self.right else "wrong itself"

    def to_json(self) -> dict[str, Any]:
        found = self.verdict.to_json() if self.verdict else {"name": self.name, "verdict": None}
        return {**found, "right": self.right, "problem": self.problem}


@dataclass(frozen=True)
class Check:
    """A learner's rebuild, checked.

    report    A verdict for every checkpoint, in order.
    alone     The steps by themselves, by checkpoint.
    error     What ended the run before its end, in one line.
    unfilled  Where the run stopped because a step has no body yet: `my_gpt2.py, line 40, in scale`.
    meanings  What a checkpoint holds, in a few words, where that is known.
    output    What the file printed; `lost` more characters are left out.
    notes     What else a person should know.
    untapped  Checkpoints of a model that is none of the course's, which nobody asked for.
    """

    file: str
    report: Report
    alone: Mapping[str, Alone]
    error: str | None = None
    unfilled: str | None = None
    meanings: Mapping[str, str] | None = None
    output: str = ""
    lost: int = 0
    notes: tuple[str, ...] = ()
    untapped: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Every checkpoint agrees to five decimals, and the run came to its end."""
        return self.error is None and bool(self.report.verdicts) and self.report.passed

    @property
    def exact(self) -> bool:
        """Every checkpoint is bit-identical, and the run came to its end."""
        return self.passed and self.report.exact

    @property
    def next(self) -> str | None:
        """The first checkpoint, in the order of computation, that is not there or does not agree."""
        return next((v.name for v in self.report.verdicts if not v.passes), None)

    @property
    def differs(self) -> Verdict | None:
        """The first checkpoint that is there and not bit-identical."""
        return next((v for v in self.report.verdicts if v.verdict != MISSING and not v.identical), None)

    @property
    def last_passed(self) -> str | None:
        """The last checkpoint before the first that does not agree."""
        names = [v.name for v in self.report.verdicts]
        before = names[: names.index(self.next)] if self.next else names
        return before[-1] if before else None

    def __bool__(self) -> bool:
        return self.passed

    def to_json(self) -> dict[str, Any]:
        """As `verify --json`, and what only a check has."""
        return {
            **self.report.to_json(),
            "file": self.file,
            "next": self.next,
            "error": self.error,
            "steps": [alone.to_json() for alone in self.alone.values()],
            "not_tapped": list(self.untapped),
            "output": self.output,
            "output_lost": self.lost,
            "notes": list(self.notes),
        }

    def __rich__(self) -> RenderableType:
        return Group(*self._shown())

    def __str__(self) -> str:
        console = Console(width=80, no_color=True, force_terminal=False, legacy_windows=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def __repr__(self) -> str:
        return f"<check of {self.file}: {self._count()}>"

    def _repr_html_(self) -> str:
        """In a notebook: the same, in its colours."""
        console = Console(width=100, record=True, file=io.StringIO(), force_jupyter=False)
        console.print(self)
        return console.export_html(
            inline_styles=True, code_format='<pre style="line-height:1.35">{code}</pre>'
        )

    # ------------------------------------------------------------------------------- for people

    def _shown(self) -> Iterator[RenderableType]:
        if self.output:
            yield from self._printed()
        for note in (*self.report.notes, *self.notes):
            yield Text(note, style="yellow")
        if self.report.verdicts:
            yield self._map()
            yield ""
            yield from self._first()
            yield from self._wrong_alone()
            yield from self._what_next()
            yield Text(self._count(), style=self._style())

    def _printed(self) -> Iterator[RenderableType]:
        lines = self.output.rstrip("\n").split("\n")
        yield Text("your file printed", style="dim")
        for line in lines[:LINES]:
            yield Padding(Text("".join(c if c.isprintable() else " " for c in line)[:200]), (0, 0, 0, 2))
        left = sum(len(line) + 1 for line in lines[LINES:]) + self.lost
        if left:
            yield Padding(Text(f"… {left:,} more characters are left out", style="dim"), (0, 0, 0, 2))

    def _map(self) -> Table:
        """The model's parts in order; what is whole in a line, what comes next in full."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(overflow="fold")
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        parts: dict[str, list[Verdict]] = {}
        for verdict in self.report.verdicts:
            parts.setdefault(part_of(verdict.name), []).append(verdict)
        first = self.next or (self.differs.name if self.differs else None)
        for several in _together(list(parts.items()), first):
            verdicts = [v for _, of_part in several for v in of_part]
            name = several[0][0] if len(several) == 1 else f"{several[0][0]} … {several[-1][0]}"
            if all(v.identical for v in verdicts):
                words = f"{len(verdicts)} of {len(verdicts)} matched"
                table.add_row(Text(name, style="bold"), Text(words, style="green"))
            elif first in [v.name for v in verdicts]:
                self._rows(table, name, verdicts)
            else:
                table.add_row(Text(name, style="bold"), *self._in_a_line(verdicts))
        return table

    def _rows(self, table: Table, part: str, verdicts: list[Verdict]) -> None:
        """The part where the work is: what comes first and what is wrong itself, one by one."""
        matched = sum(v.identical for v in verdicts)
        table.add_row(Text(part, style="bold"), Text(f"{matched} of {len(verdicts)} matched"))
        open_ones = [v for v in verdicts if not v.identical]
        chosen = [v for v in open_ones if v is open_ones[0] or self._calls_for_a_look(v)][:ROWS]
        for v in chosen:
            name = v.name.removeprefix(part + ".") if v.name != part else v.name
            word = v.verdict if v.max_abs_diff is None else f"off by {v.max_abs_diff:.1e}"
            style = "yellow" if v.passes else "red"
            if v.note:
                word = f"{v.verdict}: {v.note}"
            if v.verdict == MISSING:
                word, style = ("next", "bold") if v.name == self.next else ("not yet", "dim")
            alone = self.alone.get(v.name)
            how = Text("")
            if alone is not None:
                how = Text(alone.word, style="green" if alone.right else "red")
            if alone is not None and alone.problem == UNFILLED:
                how = Text(alone.word, style="dim")
            table.add_row("  " + name, Text(word, style=style), how)
        left = [v for v in open_ones if v not in chosen]
        if left:
            table.add_row(Text("  after it", style="dim"), *self._in_a_line(left))

    def _calls_for_a_look(self, v: Verdict) -> bool:
        """Whether a checkpoint differs for a reason of its own, or is what comes next."""
        alone = self.alone.get(v.name)
        wrong_itself = alone is not None and not alone.right and alone.problem != UNFILLED
        return v.name == self.next or wrong_itself

    def _in_a_line(self, verdicts: list[Verdict]) -> tuple[Text, Text]:
        """What comes later, counted."""
        matched = sum(v.identical for v in verdicts)
        close = sum(v.passes and not v.identical for v in verdicts)
        missing = sum(v.verdict == MISSING for v in verdicts)
        wrong = len(verdicts) - matched - close - missing
        counts = ((matched, "matched"), (close, "to rounding"), (wrong, "differ"), (missing, "not yet"))
        words = ", ".join(f"{count} {word}" for count, word in counts if count)
        alone = [self.alone[v.name] for v in verdicts if v.name in self.alone and not v.identical]
        right = sum(a.right for a in alone)
        style = "red" if wrong else "yellow" if close else "dim"
        return Text(words, style=style), Text(f"{right} right alone" if right else "", style="green")

    def _first(self) -> Iterator[RenderableType]:
        """Where the two runs part, whose fault it is, and which mistake it may be."""
        first = self.differs
        if first is None:
            return
        divergence = self.report.divergence
        where = divergence.words if divergence and divergence.name == first.name else ""
        seen, *worst = first.in_words(where).splitlines()
        yield Text(f"first divergence: {seen}", style="red")
        for line in worst:
            yield Padding(Text(line.strip(), style="red"), (0, 0, 0, 2))
        blame = self._blame(first)
        if blame:
            yield Padding(Text(blame, style="red"), (0, 0, 0, 2))
        for best in self.report.diagnosis[:1]:
            yield Text(
                f"diagnosis: {best.cause} at {best.checkpoint} ({best.confidence:.0%} sure)", style="bold"
            )
            for line in (best.explanation, f"evidence: {best.evidence}", f"read: {best.chapter}"):
                yield Padding(Text(line), (0, 0, 0, 2))

    def _blame(self, first: Verdict) -> str:
        alone = self.alone.get(first.name)
        if alone is None or alone.problem is not None:
            return ""
        if not alone.right or (alone.verdict is not None and not alone.verdict.identical):
            return "its step is wrong itself: fed with official numbers it differs as well"
        return "its step is right alone, but in `forward` it is fed by something else than it should be"

    def _wrong_alone(self) -> Iterator[RenderableType]:
        """The steps that fail by themselves and that the map has not shown to do so already."""
        if not self.alone:
            return
        right = sum(a.right for a in self.alone.values())
        unfilled = sum(a.problem == UNFILLED for a in self.alone.values())
        words = f"steps fed with official numbers: {right} of {len(self.alone)} right"
        if unfilled:
            words += f", {unfilled} not filled in"
        yield Text(words)
        alike: dict[str, list[Alone]] = {}
        for a in self.alone.values():
            if not a.right and a.problem != UNFILLED:
                alike.setdefault(template(a.name), []).append(a)
        for first, *others in list(alike.values())[:3]:
            why = first.problem or (first.verdict.verdict if first.verdict is not None else "")
            more = f" (and {len(others)} more like it)" if others else ""
            yield Padding(Text(f"{first.name}: {why}{more}", style="red"), (0, 0, 0, 2))
        if len(alike) > 3:
            yield Padding(Text(f"and {len(alike) - 3} more"), (0, 0, 0, 2))

    def _what_next(self) -> Iterator[RenderableType]:
        name = self.next
        if name is None or self.error:
            return
        verdict = next(v for v in self.report.verdicts if v.name == name)
        meaning = (self.meanings or {}).get(name)
        what = f"{name} {list(verdict.shape)}" + (f", {meaning}" if meaning else "")
        if verdict.verdict == MISSING:
            yield Text(f"next: {what}", style="bold")
            if self.unfilled:
                yield Padding(Text(f"fill in {self.unfilled}"), (0, 0, 0, 2))

    def _count(self) -> str:
        r = self.report
        count = f"{r.bit_identical} of {len(r.verdicts)} checkpoints {BIT_IDENTICAL}"
        if self.untapped:
            count += f", {len(self.untapped)} not tapped"
        which = f"{r.model['name']}, {r.attention} attention"
        if r.model["source"] == "miniature":
            which = f"the miniature of {which}"
        return f"{count} ({which})"

    def _style(self) -> str:
        return "bold green" if self.exact else "bold yellow" if self.passed else "bold red"


Part = tuple[str, list[Verdict]]


def _together(parts: list[Part], first: str | None) -> list[list[Part]]:
    """Neighbouring blocks of one stack that are matched wholly, or that all come later, in one."""
    groups: list[list[Part]] = []
    kinds: list[tuple[str, bool]] = []
    for part, verdicts in parts:
        stack, _, number = part.rpartition(".")
        kind = (stack, all(v.identical for v in verdicts))
        here = first in [v.name for v in verdicts]
        if groups and number.isdigit() and kinds[-1] == kind and not here:
            groups[-1].append((part, verdicts))
        else:
            groups.append([(part, verdicts)])
            kinds.append(("", False) if here or not number.isdigit() else kind)
    return groups
