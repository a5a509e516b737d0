"""The plots of the page on speed, drawn from its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from math import inf
from typing import Any

from benchmarks.board import case, is_whole
from tools.figures.drawing import Drawing
from tools.figures.kinds import Plot, bars
from tools.figures.runs import DOCS

KINDS = ("accent", "warm", "good", "query")
LONGEST = 8.0  # times a bare pass, where the bars end


@cache
def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a benchmark that was measured to its end, as docs/reference/speed.json has them."""
    part = json.loads((DOCS / "reference" / "speed.json").read_text(encoding="utf-8")).get(name)
    return [row for row in part["rows"] if "missing" not in row] if part and is_whole(part) else []


def speed_forward() -> str:
    """Ratio by tokens, a curve for each model; one text, and sixteen."""
    d = Drawing(720, 330, "The rebuild's time divided by the official model's, by tokens, for four models.")
    rows = [row for row in rows_of("forward") if row["case"]["attention"] == "sdpa"]
    tokens = sorted({row["case"]["tokens"] for row in rows})
    low = min(0.8, *(row["ratio"] for row in rows))
    high = max(1.05, *(row["ratio"] for row in rows))
    for panel, texts in enumerate((1, 16)):
        left = 60 + 340 * panel
        plot = Plot(d, (left, 40, left + 270, 250), (tokens[0], tokens[-1]), (low, high), log="x")
        d.text(left + 135, 24, f"{texts} text{'s' * (texts > 1)}", bold=True)
        plot.rows([n / 10 for n in range(int(low * 10) + 1, int(high * 10 + 1e-9) + 1)], "{:.1f}".format)
        plot.curve([(tokens[0], 1.0), (tokens[-1], 1.0)], "muted", dashed=True)
        plot.columns(tokens)
        for kind, model in zip(KINDS, _in_order(row["case"]["model"] for row in rows), strict=False):
            points = [
                (row["case"]["tokens"], row["ratio"])
                for row in rows
                if row["case"]["model"] == model and row["case"]["texts"] == texts
            ]
            plot.curve(sorted(points), kind)
            for x, y in points:
                plot.dot(x, y, kind, 4)
    x = 60.0
    for kind, model in zip(KINDS, _in_order(row["case"]["model"] for row in rows), strict=False):
        d.dot(x, 308, kind)
        d.text(x + 12, 313, model, at="start", size=13)
        x += 40 + 8 * len(model)
    d.text(660, 294, "tokens", at="end", size=13, kind="muted")
    return d.svg()


def _in_order(words: Iterable[str]) -> list[str]:
    """Each once, in the order in which it came first."""
    return list(dict.fromkeys(words))


def _bars(name: str, title: str, value: str, unit: str = "", longest: float = inf) -> str:
    """A bar for each row of a benchmark, cases one below the other; no bar is longer than for `longest`."""
    rows = rows_of(name)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(case(row), []).append(row)
    d = Drawing(720, sum(44 + 26 * len(group) for group in groups.values()) + 10, title)
    most = min(longest, max(row[value] for row in rows))
    scale, y = 330 / most, 20.0
    for words, group in groups.items():
        d.text(20, y + 8, words, at="start", bold=True)
        items = [
            (_short(r["what"]), min(r[value], most), f"{r[value]:.2f}{unit}", _kind(r["what"])) for r in group
        ]
        bars(d, 270, y + 16, items, scale)
        y += 44 + 26 * len(group)
    return d.svg()


def _short(what: str) -> str:
    return what.removeprefix("llm-rebuild ")


def _kind(what: str) -> str:
    """Ours in one colour, what others made in another."""
    return "warm" if what in ("plain hooks", "torchlens", "nnsight", "onnxruntime") else "good"


def speed_watching() -> str:
    """How many times as long a pass takes that is watched."""
    words = "How many times as long as the bare forward pass it takes to watch one."
    return _bars("watching", words, "ratio", longest=LONGEST)


def speed_encode() -> str:
    """Embeddings of many texts, beside sentence-transformers."""
    return _bars("encode", "The time to embed texts, divided by that of sentence-transformers.", "ratio")


def speed_start() -> str:
    """Seconds from the shell to the answer."""
    return _bars("start", "Seconds from the shell to the answer, by command.", "seconds", " s")


def speed_growth() -> str:
    """Time beside that of the smallest size."""
    rows = rows_of("growth")
    d = Drawing(720, 330, "How time grows with the number of texts, tokens and blocks.")
    grown = [
        [
            (size / row["sizes"][0], s / row["seconds"][0])
            for size, s in zip(row["sizes"], row["seconds"], strict=True)
        ]
        for row in rows
    ]
    most = max(x for points in grown for x, _ in points)
    top = max(most, *(y for points in grown for _, y in points))
    plot = Plot(
        d, (60, 20, 420, 270), (1, most), (min(1.0, *(y for p in grown for _, y in p)), top), log="xy"
    )
    ticks = [2**n for n in range(12)]
    plot.rows([n for n in ticks if n <= top])
    plot.columns([n for n in ticks if n <= most])
    plot.curve([(1, 1), (most, most)], "muted", dashed=True)
    for place, (row, points, kind) in enumerate(zip(rows, grown, KINDS, strict=False)):
        plot.curve(points, kind)
        for x, y in points:
            plot.dot(x, y, kind, 4)
        d.dot(450, 60 + 56 * place, kind)
        d.text(464, 65 + 56 * place, _wrapped(row["case"]["what"])[0], at="start", size=13)
        d.text(464, 82 + 56 * place, _wrapped(row["case"]["what"])[1], at="start", size=13)
    d.text(60, 318, "size and time beside those of the smallest; dashed: in proportion", at="start", size=13)
    return d.svg()


def _wrapped(words: str) -> tuple[str, str]:
    """A label on two lines."""
    split = words.rfind(" ", 0, 34) if len(words) > 34 else len(words)
    return words[:split], words[split:].strip()


# Of what was measured.
DRAWN = (speed_forward, speed_watching, speed_encode, speed_start, speed_growth)
FIGURES = tuple(draw for draw in DRAWN if rows_of(draw.__name__.removeprefix("speed_")))
OF = {None: FIGURES}
