"""A report as one HTML file that can be sent around: the model as a map, and every checkpoint in pictures.

The file holds everything it shows and asks for nothing outside: styles, script, numbers. Tensors are drawn
from samples: a histogram of 40 bars, heat maps of at most 48 × 48 cells in 254 shades. What comes from texts,
tokens or names of tensors is escaped, and the content security policy lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import torch
from markupsafe import Markup
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import part_of
from llm_rebuild.models import ARCHITECTURES
from llm_rebuild.verify import equality
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import MISSING, Verdict
from llm_rebuild.verify.divergence import (
    InputsOf,
    axes_in_words,
    axes_of,
    in_words,
    place,
    token_labels,
)
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.rounding import INHERITED, MISTAKE, ROUNDING, UNCLEAR

HERE = Path(__file__).parent
BARS = 40
MOST_CELLS = 48  # along each side of a heat map
ALL_HEADS = 12_288  # bytes: where the heads of a checkpoint need no more, all of them are shown
MASKED, NOT_A_NUMBER, FIRST_SHADE, LAST_SHADE = 0, 1, 2, 255
MOST_TEXTS, MOST_TOKENS = 8, 80
ROOMY, TIGHT = 26, 36  # cells in the longest row of the map: up to here large ones fit, from here only small

# Verdicts as the page groups and draws them: class -> symbol, and what it is called there.
KINDS = {
    "identical": ("=", "bit-identical"),
    "near": ("≈", "five decimals or rounding"),
    "wrong": ("≠", "wrong"),
    "missing": ("∅", "missing"),
}


def render(
    report: Report,
    truth: Capture,
    rebuilt: Mapping[str, Tensor],
    *,
    files: Mapping[str, str] | None = None,
    inputs_of: InputsOf | None = None,
) -> str:
    """The page.

    truth, rebuilt  The tensors that the report is about.
    files           sha256 of the model's files by name.
    inputs_of       Which checkpoints a checkpoint is computed from, for the links between them.
    """
    tokens = _Labels()
    entries = [_entry(v, report, truth, rebuilt, inputs_of, tokens) for v in report.verdicts]
    stacks = list(_stacks(entries, truth))
    widest = max(sum(len(group) for _, group in row.groups) for stack in stacks for row in stack)
    data = {"charts": [entry.charts for entry in entries], "labels": tokens.lists}
    # A `<` inside a script could end it; inside a JSON string it may as well be written so.
    numbers = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    style, script = (_read(f"page.{kind}") for kind in ("css", "js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["number"] = lambda x: "–" if x is None else f"{x:.6g}"
    return environment.get_template("page.html").render(
        report=report,
        entries=entries,
        stacks=stacks,
        size="roomy" if widest <= ROOMY else "tight" if widest > TIGHT else "",
        kinds=KINDS,
        only_rounding=only_rounding(report),
        counts=Counter(entry.kind for entry in entries),
        texts=list(_texts(truth)),
        more_texts=max(0, report.texts - MOST_TEXTS),
        files=dict(files or {}),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        # Marked as safe: written by this module's own files, or by json.dumps above.
        style=Markup(style),
        script=Markup(script),
        numbers=Markup(numbers),
        policy=f"default-src 'none'; img-src data:; style-src {_source(style)}; "
        f"script-src {_source(script)}; base-uri 'none'; form-action 'none'",
    )


def _read(file: str) -> str:
    return (HERE / file).read_text(encoding="utf-8").strip()


def _source(content: str) -> str:
    """What a content security policy calls this very script or style, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# ------------------------------------------------------------------------------------ one checkpoint


@dataclass(frozen=True)
class Entry:
    """What the page says of one checkpoint. `charts` is for the script that draws them."""

    name: str
    part: str
    short: str  # the name without its part
    kind: str  # a key of KINDS
    verdict: Verdict
    axes: str
    meaning: str
    where: str
    float64: str
    inputs: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    charts: dict[str, Any]

    @property
    def symbol(self) -> str:
        return KINDS[self.kind][0]

    @property
    def spoken(self) -> str:
        return f"{self.name}: {self.verdict.verdict}" + (", coupled" if self.verdict.coupled else "")


def _entry(
    verdict: Verdict,
    report: Report,
    truth: Capture,
    rebuilt: Mapping[str, Tensor],
    inputs_of: InputsOf | None,
    tokens: _Labels,
) -> Entry:
    name = verdict.name
    part, known = part_of(name), truth.checkpoints.get(name)
    sides = {"official": truth.tensors[name]}
    mine = rebuilt.get(name)
    if mine is not None and not verdict.identical:
        sides["rebuilt"] = mine
    numbers = {side: _usual(tensor) for side, tensor in sides.items() if tensor.is_floating_point()}
    return Entry(
        name=name,
        part=part,
        short=name.removeprefix(part + "."),
        kind=kind_of(verdict),
        verdict=verdict,
        axes=known.shape if known else "",
        meaning=known.meaning if known else "",
        where=in_words(verdict, truth),
        float64=_float64(verdict, report),
        inputs=tuple(n for n in inputs_of(name) if n in truth) if inputs_of else (),
        facts=tuple(_facts(sides, numbers)),
        charts=_charts(verdict, sides, numbers, truth, tokens),
    )


def kind_of(verdict: Verdict) -> str:
    if verdict.verdict == MISSING:
        return "missing"
    return "identical" if verdict.identical else "near" if verdict.passes else "wrong"


def only_rounding(report: Report) -> bool:
    """Whether there are differences, and none of them stays in float64."""
    different = [v.name for v in report.verdicts if not v.identical]
    rounding = report.rounding
    return bool(different) and rounding is not None and all(rounding.kind(n) == ROUNDING for n in different)


def _float64(verdict: Verdict, report: Report) -> str:
    """What became of the difference in float64."""
    if verdict.identical or report.rounding is None:
        return ""
    kind = report.rounding.kind(verdict.name)
    if kind == UNCLEAR:
        return report.rounding.problems.get(verdict.name, "")
    means = {ROUNDING: "rounding", MISTAKE: "a mistake", INHERITED: "right, but what goes into it is not"}
    return f"{report.rounding.words(verdict.name)}: {means[kind]}"


def _facts(sides: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Smallest, largest, mean and spread of the numbers that are numbers."""
    for side, usual in numbers.items():
        line = "no finite numbers"
        if usual.numel():
            spread = float(usual.std(correction=0))
            line = f"{usual.min():.4g} to {usual.max():.4g}, mean {usual.mean():.4g}, spread {spread:.4g}"
        odd = sides[side].numel() - usual.numel()
        masked = int((sides[side] < -equality.NEVER).sum()) if odd else 0
        line += f"; {masked:,} masked" if masked else ""
        line += f"; {odd - masked:,} not finite" if odd > masked else ""
        yield side, line


def _usual(tensor: Tensor) -> Tensor:
    """The numbers of a tensor, flat, without NaN, infinities and what a mask put there."""
    flat = tensor.detach().flatten()
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    usual = equality.usual(flat)
    return flat if bool(usual.all()) else flat[usual]


# ------------------------------------------------------------------------------------------- the map


@dataclass(frozen=True)
class Row:
    """A row of the map: a block, or what lies before, between and after the blocks."""

    label: str
    part: str  # `encoder.layer.3`; empty where there are several
    groups: list[tuple[str, list[Entry]]]

    @property
    def stack(self) -> str:
        """Rows of one stack are drawn under each other."""
        return self.part.rpartition(".")[0]

    @property
    def entries(self) -> list[Entry]:
        return [entry for _, members in self.groups for entry in members]


def _stacks(entries: Sequence[Entry], truth: Capture) -> Iterator[list[Row]]:
    """Rows that stand under each other, cell under cell: blocks with the same checkpoints."""
    rows_of = _rows(entries, truth)
    for alike, rows in groupby(rows_of, key=lambda row: (row.stack, [len(g) for _, g in row.groups])):
        together = list(rows)
        if alike[0]:
            yield together
        else:
            yield from ([row] for row in together)


def _rows(entries: Sequence[Entry], truth: Capture) -> Iterator[Row]:
    architecture = ARCHITECTURES.get(truth.model_type)
    runs = [(part, list(those)) for part, those in groupby(entries, key=lambda e: e.part)]
    loose: list[Entry] = []
    for number, (part, those) in enumerate(runs):
        again = any(part == later for later, _ in runs[number + 1 :])  # some of block 0 is made beforehand
        if not part.rpartition(".")[2].isdigit() or again:
            loose += those
            continue
        if loose:
            yield _loose(loose)
            loose = []
        stack = architecture.stack_of(those[0].name) if architecture else None
        groups = _groups(those, f"{stack.inside}." if stack and stack.inside else "")
        yield Row(", ".join(place(part, truth)), part, list(groups))
    if loose:
        yield _loose(loose)


def _loose(entries: list[Entry]) -> Row:
    names = list(dict.fromkeys(entry.name.partition(".")[0] for entry in entries))
    return Row(", ".join(names), "", list(_groups(entries)))


def _caption(path: str, members: list[Entry], inside: str) -> str:
    """A part of a block, as there is room for it: without what stands inside every block. Of a single cell
    its own name, or `+`."""
    if len(members) == 1:
        last = members[0].name.rpartition(".")[2]
        return "+" if last == "residual" else last
    return path.removeprefix(inside)


def _groups(entries: list[Entry], inside: str = "") -> Iterator[tuple[str, list[Entry]]]:
    """Neighbours that live in one part of the block. A part's own output goes with what is inside it."""
    current = ""
    members: list[Entry] = []
    for entry in entries:
        path = entry.short.rpartition(".")[0] or entry.short
        if members and path != current and entry.short != current:
            yield _caption(current, members, inside), members
            members = []
        if not members:
            current = path
        members.append(entry)
    yield _caption(current, members, inside), members


def _texts(truth: Capture) -> Iterator[dict[str, Any]]:
    """The input, row by row: the text where one was given, and its tokens or ids."""
    inputs = truth.inputs
    for row in range(min(len(inputs.token_ids), MOST_TEXTS)):
        real = inputs.mask[row, -inputs.token_ids.shape[1] :].bool()
        ids = inputs.token_ids[row][real].tolist()
        tokens = list(inputs.tokens[row]) if row < len(inputs.tokens) else [str(i) for i in ids]
        yield {
            "text": inputs.texts[row] if row < len(inputs.texts) else None,
            "tokens": tokens[:MOST_TOKENS],
            "more": max(0, len(tokens) - MOST_TOKENS),
        }


# ------------------------------------------------------------------------------------------- charts


class _Labels:
    """Lists of labels, each kept once: the checkpoints refer to them by number."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = []

    def number(self, labels: list[str]) -> int:
        if labels not in self.lists:
            self.lists.append(labels)
        return self.lists.index(labels)


def _charts(
    verdict: Verdict,
    sides: Mapping[str, Tensor],
    numbers: Mapping[str, Tensor],
    truth: Capture,
    tokens: _Labels,
) -> dict[str, Any]:
    """What the script draws of one checkpoint."""
    official, rebuilt = sides["official"], sides.get("rebuilt")
    if "official" not in numbers or not official.numel():
        return {}
    if rebuilt is not None and (rebuilt.shape != official.shape or "rebuilt" not in numbers):
        rebuilt = None
    heat = _heat(verdict, official, rebuilt, truth, tokens)
    return {"histogram": _histogram(numbers)} | ({"heat": heat} if heat else {})


def _histogram(sides: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Bars for both sides over one range. Heights are logarithms of counts: tails are what one looks for."""
    there = [numbers for numbers in sides.values() if numbers.numel()]
    if not there:
        return None
    low = min(float(numbers.min()) for numbers in there)
    high = max(float(numbers.max()) for numbers in there)
    if low == high:
        beside = 0.5 + abs(low) / 2
        low, high = low - beside, high + beside
    counts = {side: torch.histc(numbers, BARS, low, high) for side, numbers in sides.items()}
    most = max(float(count.max()) for count in counts.values())
    bars = {
        side: _bytes((255 * torch.log1p(count) / math.log1p(most)).round()) for side, count in counts.items()
    }
    return {"low": low, "high": high, "most": int(most), **bars}


def _heat(
    verdict: Verdict, official: Tensor, rebuilt: Tensor | None, truth: Capture, tokens: _Labels
) -> dict[str, Any] | None:
    """One slice of the tensor as a picture: of scores the worst head, query by key, both sides and their
    difference; of other tensors, where they differ, the difference, token by number."""
    axes = axes_of(verdict.name, truth)
    if axes is None or len(axes) != official.dim():
        axes = [f"axis {number}" for number in range(official.dim())]
    sides = _sides(axes)
    if sides is None:
        return None
    row_axis, column_axis = sides
    attention = "query" in axes and "key" in axes
    if rebuilt is None and not attention:
        return None
    at = list(verdict.coordinate or [0] * official.dim())
    heads = [at[axes.index("head")]] if "head" in axes else [0]
    if attention and "head" in axes and rebuilt is None:
        every = official.shape[axes.index("head")]
        cells = min(official.shape[row_axis], MOST_CELLS) * min(official.shape[column_axis], MOST_CELLS)
        heads = list(range(every)) if every * cells <= ALL_HEADS else [0]

    def slices(tensor: Tensor) -> Tensor:
        """[head, row, column]"""
        found = []
        for head in heads:
            index: list[Any] = [head if axis == "head" else at[n] for n, axis in enumerate(axes)]
            index[row_axis], index[column_axis] = slice(None), slice(None)
            part = tensor[tuple(index)].detach().double()
            found.append(part if row_axis < column_axis else part.T)
        return torch.stack(found)

    shown = slices(official)
    fixed = [
        0 if n in sides or (axis == "head" and len(heads) > 1) else i
        for n, (axis, i) in enumerate(zip(axes, at, strict=True))
    ]
    heat: dict[str, Any] = {
        "at": _fixed_in_words(verdict.name, axes, fixed, sides, len(heads) > 1, truth),
        "heads": len(heads),
        "axes": [_axis_word(axes[row_axis]), _axis_word(axes[column_axis])],
        "size": [official.shape[row_axis], official.shape[column_axis]],
        "labels": [tokens.number(_axis_labels(verdict.name, axes, n, official, at, truth)) for n in sides],
    }
    if rebuilt is None:
        small = _pooled(shown)
        heat |= {"rows": small.shape[1], "columns": small.shape[2], "maps": [_map("official", small)]}
        return heat
    mine = slices(rebuilt)
    difference = torch.where(equality.apart(shown, mine), (mine - shown).abs(), torch.zeros_like(shown))
    differences = _pooled(difference, worst=True)
    heat |= {"rows": differences.shape[1], "columns": differences.shape[2]}
    heat["worst"] = [
        at[n] * heat[count] // official.shape[n] for n, count in zip(sides, ("rows", "columns"), strict=True)
    ]
    maps = [_map("difference", differences, 0.0)]
    if attention:
        both = [_pooled(shown), _pooled(mine)]
        usual = _usual(torch.stack(both))
        low, high = (float(usual.min()), float(usual.max())) if usual.numel() else (0.0, 1.0)
        maps = [_map("official", both[0], low, high), _map("rebuilt", both[1], low, high), *maps]
    return heat | {"maps": maps}


def _sides(axes: list[str]) -> tuple[int, int] | None:
    """Which axis goes down and which across."""
    if len(axes) < 2:
        return None
    if "query" in axes and "key" in axes:
        return axes.index("query"), axes.index("key")
    down = next((axes.index(word) for word in ("token", "query", "key") if word in axes), len(axes) - 2)
    return (down, len(axes) - 1) if down != len(axes) - 1 else None


def _axis_word(axis: str) -> str:
    return {"batch": "text", "1": "number"}.get(axis, axis)


def _axis_labels(
    name: str, axes: list[str], number: int, tensor: Tensor, at: list[int], truth: Capture
) -> list[str]:
    """A label for each place along an axis, where tokens stand there; else none."""
    if axes[number] not in ("token", "query", "key"):
        return []
    row = at[axes.index("batch")] if "batch" in axes else 0 if len(truth.inputs.token_ids) == 1 else None
    labels = token_labels(name, axes[number], truth, row, tensor.shape[number])
    return labels if any(labels) else []


def _fixed_in_words(
    name: str, axes: list[str], fixed: list[int], sides: tuple[int, int], every_head: bool, truth: Capture
) -> str:
    """Which slice is shown: `text 1 of 2, head 7`."""
    if axes[0].startswith("axis"):
        return ", ".join(f"{axis} at {i}" for n, (axis, i) in enumerate(zip(axes, fixed, strict=True))
                         if n not in sides)  # fmt: skip
    words = axes_in_words(name, fixed, truth)
    left_out = ("token", "query", "key", "number") + (("head",) if every_head else ())
    return ", ".join(word for word in words if not word.startswith(left_out))


def _pooled(cells: Tensor, worst: bool = False) -> Tensor:
    """[head, row, column], made smaller: means, or the largest. Masked places stay -inf where a cell has
    no other, and NaN stays NaN."""
    size = (min(cells.shape[1], MOST_CELLS), min(cells.shape[2], MOST_CELLS))
    if size == tuple(cells.shape[1:]):
        return cells
    if worst:
        return F.adaptive_max_pool2d(cells, size)
    usual = equality.usual(cells) | cells.isnan()
    share = F.adaptive_avg_pool2d(usual.double(), size)
    mean = F.adaptive_avg_pool2d(torch.where(usual, cells, torch.zeros_like(cells)), size) / share
    return torch.where(share > 0, mean, torch.full_like(mean, -math.inf))


def _map(name: str, cells: Tensor, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """Cells as shades from `low` to `high`, the smallest and largest of them where not given."""
    usual = _usual(cells)
    if low is None:
        low = float(usual.min()) if usual.numel() else 0.0
    if high is None:
        high = float(usual.max()) if usual.numel() else low
    span = high - low or 1.0
    steps = LAST_SHADE - FIRST_SHADE
    shades = (FIRST_SHADE + ((cells - low) / span * steps).round()).clamp(FIRST_SHADE, LAST_SHADE)
    shades = torch.where(cells < -equality.NEVER, torch.full_like(shades, MASKED), shades)
    shades = torch.where(cells.isnan(), torch.full_like(shades, NOT_A_NUMBER), shades)
    return {"name": name, "low": low, "high": high, "cells": _bytes(shades)}


def _bytes(numbers: Tensor) -> str:
    return base64.b64encode(bytes(numbers.flatten().to(torch.uint8).tolist())).decode("ascii")
