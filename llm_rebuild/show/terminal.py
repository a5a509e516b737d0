"""The terminal: a console that never prints what is not printable, and what all results are laid out with."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from llm_rebuild.errors import escaped

WIDTH = 80  # of a result as text
WIDEST = 10_000  # columns of a line that nothing may break


class Terminal(Console):
    """rich's console. Names come from files that anybody wrote: control characters in them are shown, not
    obeyed, wherever they stand in a table or a line. And names are copied from here into a shell: one that
    does not fit is not broken, its line gets longer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Whatever is laid out here, escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)

    def print(self, *objects: Any, **options: Any) -> None:
        """One result with lines as long as its longest name needs; anything else as rich does."""
        if len(objects) != 1 or options:
            super().print(*objects, **options)
        elif isinstance(objects[0], Group):
            for part in objects[0].renderables:
                self.print(part)
        else:
            wide = Measurement.get(self, self.options.update(max_width=WIDEST), objects[0]).minimum
            super().print(_Wide(objects[0], wide) if wide > self.width else objects[0], crop=False)


@dataclass(frozen=True)
class _Wide:
    """Something laid out in more columns than the console has."""

    inside: RenderableType
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.inside, options.update(width=self.width))


@singledispatch
def renderable(result: object) -> RenderableType:
    """A result as rich lays it out. Each kind of result registers how it looks; `results.py` has them all."""
    raise TypeError(f"there is no look for {type(result).__name__}")


def text(result: object) -> str:
    """A result as `print` shows it: 80 columns, no colour."""
    plain = {"no_color": True, "force_terminal": False, "force_jupyter": False, "legacy_windows": False}
    console = Terminal(width=WIDTH, **plain)
    with console.capture() as captured:
        console.print(renderable(result))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def html(result: object) -> str:
    """A result as a notebook shows it: 100 columns, in colour."""
    return _recorded(result).export_html(
        inline_styles=True, code_format='<pre style="line-height:1.35">{code}</pre>'
    )


def page(result: object) -> str:
    """A result as a page of its own."""
    return _recorded(result).export_html(inline_styles=True)


def _recorded(result: object) -> Terminal:
    console = Terminal(width=100, record=True, file=io.StringIO(), force_jupyter=False)
    console.print(renderable(result))
    return console


class _Columns(Table):
    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """A row whose cells are as wide as what is shown of them. Where nothing is broken, nothing is cut."""
        escaped_cells = [_shown(cell) for cell in cells]
        super().add_row(*escaped_cells, **options)
        for column, cell in zip(self.columns, escaped_cells, strict=False):
            if column.no_wrap and isinstance(cell, str | Text):
                column.min_width = max(column.min_width or 0, cell_len(str(cell)))


def _shown(cell: RenderableType | None) -> RenderableType | None:
    if isinstance(cell, Text):
        return Text(escaped(cell.plain), style=cell.style)
    return escaped(cell) if isinstance(cell, str) else cell


def columns(*, header: bool = True) -> Table:
    """A table without lines."""
    return _Columns(box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0))


def indented(line: str, style: str = "") -> Padding:
    """A line below another; where it is broken, its parts stay below."""
    return Padding(Text(escaped(line), style=style), (0, 0, 0, 2), expand=False)


def catalogue(groups: Mapping[str, Mapping[str, Sequence[str]]]) -> RenderableType:
    """Names by group, each with the first of what there is to say about it."""
    widest = max(len(name) for names in groups.values() for name in names)
    parts: list[RenderableType] = []
    for group, names in groups.items():
        table = columns(header=False)
        table.add_column(no_wrap=True, min_width=widest + 2)
        table.add_column()
        for name, (words, *_) in names.items():
            table.add_row(f"  {name}", words)
        parts += [Text(group, style="bold"), table]
    return Group(*parts)
