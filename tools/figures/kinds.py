"""The kinds of picture that are drawn more than once: heat map, bars, plot, strip of verdicts, band of parts.

Each is drawn with the pen of drawing.py, at a place of the picture that is given in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from math import log10

from tools.figures.drawing import Drawing

Numbers = Sequence[Sequence[float | None]]


def heat(
    d: Drawing,
    x: float,
    y: float,
    numbers: Numbers,
    side: float,
    *,
    height: float | None = None,
    limit: float | None = None,
    kind: str = "accent",
) -> None:
    """Rows of squares: the more ink, the larger the number beside `limit`, or beside the largest of them.

    Numbers below zero are warm. None is a place that is hidden: a dot.
    """
    heats(d, [(x, y, numbers)], side, height=height, limit=limit, kind=kind)


def heats(
    d: Drawing,
    panels: Sequence[tuple[float, float, Numbers]],
    side: float,
    *,
    height: float | None = None,
    limit: float | None = None,
    kind: str = "accent",
) -> None:
    """Several heat maps with one limit: (x, y, numbers) of each. Squares of one shade are one path."""
    tall = height or side
    rows = [row for _, _, numbers in panels for row in numbers]
    most = limit or max(abs(number) for row in rows for number in row if number is not None) or 1.0
    gap = 2 if side > 12 else 1 if side > 4 else 0
    shades: dict[tuple[str, int], str] = {}  # kind and twentieths of ink -> the squares that have it
    for x, y, numbers in panels:
        for i, row in enumerate(numbers):
            for j, number in enumerate(row):
                left, top = round(x + j * side, 1), round(y + i * tall, 1)
                if number is None:
                    d.dot(left + side / 2 - 1, top + tall / 2 - 1, "line", 1.5)
                    continue
                shade = (kind if number >= 0 else "warm", round(min(abs(number) / most, 1.0) * 20))
                square = f"M{left:g} {top + (tall - gap) / 2:g}h{side - gap:g}"
                shades[shade] = shades.get(shade, "") + square
    for (ink, twentieths), path in shades.items():
        if twentieths:
            d.strokes(path, ink, twentieths / 20, tall - gap)
    for x, y, numbers in panels:
        d.frame(x - 3, y - 3, len(numbers[0]) * side + 4, len(numbers) * tall + 4)


def beside(d: Drawing, x: float, y: float, words: Iterable[str], pitch: float, *, mono: bool = True) -> None:
    """Labels of rows, ending at x; the first row's top is y."""
    for i, word in enumerate(words):
        d.text(x, y + i * pitch + pitch / 2 + 4, word, at="end", size=13, mono=mono)


def above(d: Drawing, x: float, y: float, words: Iterable[str], pitch: float) -> None:
    """Slanted labels of columns, with their feet at y; the first column begins at x."""
    for j, word in enumerate(words):
        d.slanted(x + j * pitch + pitch / 2 + 3, y, word)


def bars(
    d: Drawing,
    x: float,
    y: float,
    items: Iterable[tuple[str, float, str, str]],
    scale: float,
    *,
    pitch: float = 26,
    mono: bool = False,
) -> None:
    """Bars from left to right: (label, number, what is written at the end, kind), `scale` pixels for a 1.

    x is where zero is. The labels end before it. Numbers below zero go to the left, their words to the right.
    """
    for row, (label, number, words, kind) in enumerate(items):
        top, length = (
            y + row * pitch,
            round(abs(number) * scale),
        )  # so that no other processor's last bit is seen
        if label:
            d.text(x - 10, top + pitch / 2 + 3, label, at="end", size=13, mono=mono)
        d.cell(x if number >= 0 else x - length, top, max(length, 1), 0.6, kind, height=pitch - 7)
        d.text(
            x + (length if number > 0 else 0) + 8,
            top + pitch / 2 + 3,
            words,
            at="start",
            size=13,
            kind="muted",
        )


def band(
    d: Drawing, x: float, y: float, parts: Iterable[tuple[str, float, str]], width: float, height: float = 40
) -> None:
    """One bar cut into its parts: (label, size, kind), to scale. A label stands where it fits."""
    parts = list(parts)
    whole, before = sum(size for _, size, _ in parts), 0.0
    for label, size, kind in parts:
        left, before = round(width * before / whole), before + size  # whole pixels, as bars are
        w = round(width * before / whole) - left
        d.box(x + left, y, w, height, kind)
        if len(label) * 6.8 < w:
            d.text(x + left + w / 2, y + height / 2 + 5, label, size=13)


def strip(d: Drawing, x: float, y: float, verdicts: Sequence[str], width: float, height: float = 22) -> None:
    """Checkpoints from first to last: `good` low, `near` half as high, `bad` full, `` (not there) a line.

    The height says the same as the colour, for those who do not see colours and for paper.
    """
    one, at = width / len(verdicts), 0
    for kind, run in groupby(verdicts):
        count = len(list(run))
        share = {"good": 0.35, "near": 0.65, "bad": 1.0}.get(kind, 0.06)
        tall = height * share
        d.cell(x + at * one, y + height - tall, count * one, 0.75, kind or "muted", height=tall)
        at += count


class Plot:
    """Axes, and what is drawn between them. Either can be logarithmic."""

    def __init__(
        self,
        d: Drawing,
        frame: tuple[float, float, float, float],
        across: tuple[float, float],
        up: tuple[float, float],
        *,
        log: str = "",
    ) -> None:
        """frame: left, top, right, bottom in pixels. across, up: the first and the last number of each
        axis. log: "x", "y" or "xy"."""
        self.d, self.frame, self.log = d, frame, log
        self.across, self.up = across, up

    def _share(self, number: float, ends: tuple[float, float], axis: str) -> float:
        if axis in self.log:
            low, high = (log10(end) for end in ends)
            number = log10(max(number, ends[0]))
        else:
            low, high = ends
        return (number - low) / (high - low)

    def x(self, number: float) -> float:
        left, _, right, _ = self.frame
        return round(left + (right - left) * self._share(number, self.across, "x"), 1)

    def y(self, number: float) -> float:
        _, top, _, bottom = self.frame
        return round(bottom - (bottom - top) * self._share(number, self.up, "y"), 1)

    def rows(self, numbers: Iterable[float], words: Callable[[float], str] = "{:g}".format) -> None:
        """Lines from left to right, each with its number before it."""
        left, _, right, _ = self.frame
        for number in numbers:
            self.d.line(f"M{left:g} {self.y(number):g}H{right:g}", "line", arrow=False)
            self.d.text(left - 10, self.y(number) + 5, words(number), at="end", size=13, kind="muted")

    def columns(self, numbers: Iterable[float], words: Callable[[float], str] = "{:g}".format) -> None:
        """Numbers below the axis."""
        bottom = self.frame[3]
        for number in numbers:
            self.d.line(f"M{self.x(number):g} {bottom:g}v5", "muted", arrow=False)
            self.d.text(self.x(number), bottom + 22, words(number), size=13, kind="muted")

    def curve(
        self, points: Iterable[tuple[float, float]], kind: str, label: str = "", *, dashed: bool = False
    ) -> None:
        """Straight from point to point; the label stands behind the last one."""
        at = [(self.x(x), self.y(y)) for x, y in points]
        path = "M" + "L".join(f"{x:g} {y:g}" for x, y in at)
        self.d.line(path, kind, arrow=False, dashed=dashed)
        if label:
            self.d.text(at[-1][0] + 8, at[-1][1] + 5, label, at="start", size=13, kind=kind)

    def dot(self, x: float, y: float, kind: str, radius: float = 5) -> None:
        self.d.dot(self.x(x), self.y(y), kind, radius)

    def histogram(self, edges: Sequence[float], counts: Sequence[float], kind: str) -> None:
        """A column for each count, from edge to edge."""
        bottom = self.frame[3]
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            left, right, top = self.x(low), self.x(high), self.y(count)
            if count:
                self.d.cell(left, top, max(right - left - 1, 0.5), 0.55, kind, height=round(bottom - top, 1))
