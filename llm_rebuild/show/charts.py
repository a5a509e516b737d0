"""The pictures of the page as data: histograms and heat maps of a tensor, small enough to be sent around."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.verify import equality
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import Verdict
from llm_rebuild.verify.divergence import axes_in_words, axes_of, token_labels

BARS = 40
MOST_CELLS = 48  # along each side of a heat map
ALL_HEADS = 12_288  # bytes: where the heads of a checkpoint need no more, all of them are shown
MASKED, NOT_A_NUMBER, FIRST_SHADE, LAST_SHADE = 0, 1, 2, 255
Labels = dict[tuple[str, ...], int]  # lists of labels, each with the number by which checkpoints refer to it


def usual(tensor: Tensor) -> Tensor:
    """The numbers of a tensor, flat, without NaN, infinities and what a mask put there."""
    flat = tensor.detach().flatten()
    flat = flat if flat.dtype in (torch.float32, torch.float64) else flat.float()
    usual = equality.usual(flat)
    return flat if bool(usual.all()) else flat[usual]


def charts(
    verdict: Verdict,
    sides: Mapping[str, Tensor],
    numbers: Mapping[str, Tensor],
    truth: Capture,
    tokens: Labels,
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
    filled = [numbers for numbers in sides.values() if numbers.numel()]
    if not filled:
        return None
    low = min(float(numbers.min()) for numbers in filled)
    high = max(float(numbers.max()) for numbers in filled)
    if low == high:
        around = 0.5 + abs(low) / 2
        low, high = low - around, high + around
    counts = {side: torch.histc(numbers, BARS, low, high) for side, numbers in sides.items()}
    most = max(float(count.max()) for count in counts.values())
    bars = {
        side: _bytes((255 * torch.log1p(count) / math.log1p(most)).round()) for side, count in counts.items()
    }
    return {"low": low, "high": high, **bars}


def _heat(
    verdict: Verdict, official: Tensor, rebuilt: Tensor | None, truth: Capture, tokens: Labels
) -> dict[str, Any] | None:
    """One slice of the tensor as a picture: of scores the worst head, query by key, both sides and their
    difference; of other tensors, where they differ, the difference, token by number."""
    axes = axes_of(verdict.name, truth)
    if axes is None or len(axes) != official.dim():
        axes = [f"axis {number}" for number in range(official.dim())]
    sides, attention = _sides(axes), "query" in axes and "key" in axes
    if sides is None or (rebuilt is None and not attention):
        return None
    at = list(verdict.coordinate or [0] * official.dim())
    heads = [at[axes.index("head")]] if "head" in axes else [0]
    if "head" in axes and rebuilt is None:
        every = official.shape[axes.index("head")]
        cells = math.prod(min(official.shape[side], MOST_CELLS) for side in sides)
        heads = list(range(every)) if every * cells <= ALL_HEADS else [0]
    fixed = [
        0 if n in sides or (axis == "head" and len(heads) > 1) else i
        for n, (axis, i) in enumerate(zip(axes, at, strict=True))
    ]
    heat: dict[str, Any] = {
        "at": _fixed_in_words(verdict.name, axes, fixed, sides, len(heads) > 1, truth),
        "heads": len(heads),
        "axes": [{"batch": "text", "1": "number"}.get(axes[n], axes[n]) for n in sides],
        "size": [official.shape[n] for n in sides],
        "labels": [
            tokens.setdefault(_axis_labels(verdict.name, axes, n, official, at, truth), len(tokens))
            for n in sides
        ],
    }

    def slices(tensor: Tensor) -> Tensor:
        """[head, row, column]"""
        parts = [
            tensor[tuple(slice(None) if n in sides else head if axes[n] == "head" else i
                         for n, i in enumerate(at))]
            for head in heads
        ]  # fmt: skip
        whole = torch.stack(parts).detach().double()
        return whole if sides[0] < sides[1] else whole.mT

    maps = _maps(slices(official), None if rebuilt is None else slices(rebuilt), attention)
    rows, columns = (min(size, MOST_CELLS) for size in heat["size"])
    heat |= {"rows": rows, "columns": columns}
    if rebuilt is not None:
        places = zip(sides, (rows, columns), strict=True)
        heat["worst"] = [at[n] * count // official.shape[n] for n, count in places]
    return heat | {"maps": maps}


def _maps(shown: Tensor, other: Tensor | None, attention: bool) -> list[dict[str, Any]]:
    """The slices of one side, or how far both are apart; of attention both sides as well, in one scale."""
    if other is None:
        return [shades("official", pooled(shown))]
    difference = torch.where(equality.apart(shown, other), (other - shown).abs(), torch.zeros_like(shown))
    maps = [shades("difference", pooled(difference, worst=True), 0.0)]
    if attention:
        both = [pooled(shown), pooled(other)]
        finite = usual(torch.stack(both))
        low, high = (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 1.0)
        maps = [shades("official", both[0], low, high), shades("rebuilt", both[1], low, high), *maps]
    return maps


def _sides(axes: list[str]) -> tuple[int, int] | None:
    """Which axis goes down and which across."""
    if len(axes) < 2:
        return None
    if "query" in axes and "key" in axes:
        return axes.index("query"), axes.index("key")
    down = next((axes.index(word) for word in ("token", "query", "key") if word in axes), len(axes) - 2)
    return (down, len(axes) - 1) if down != len(axes) - 1 else None


def _axis_labels(
    name: str, axes: list[str], number: int, tensor: Tensor, at: list[int], truth: Capture
) -> tuple[str, ...]:
    """A label for each place along an axis, where tokens stand there; else none."""
    if axes[number] not in ("token", "query", "key"):
        return ()
    row = at[axes.index("batch")] if "batch" in axes else 0 if len(truth.inputs.token_ids) == 1 else None
    labels = token_labels(name, axes[number], truth, row, tensor.shape[number])
    return tuple(labels) if any(labels) else ()


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


def pooled(cells: Tensor, worst: bool = False) -> Tensor:
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


def shades(name: str, cells: Tensor, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """Cells as shades from `low` to `high`, the smallest and largest of them where not given."""
    finite = usual(cells)
    if low is None:
        low = float(finite.min()) if finite.numel() else 0.0
    if high is None:
        high = float(finite.max()) if finite.numel() else low
    span = high - low or 1.0
    steps = LAST_SHADE - FIRST_SHADE
    shades = (FIRST_SHADE + ((cells - low) / span * steps).round()).clamp(FIRST_SHADE, LAST_SHADE)
    shades = torch.where(cells < -equality.NEVER, torch.full_like(shades, MASKED), shades)
    shades = torch.where(cells.isnan(), torch.full_like(shades, NOT_A_NUMBER), shades)
    return {"name": name, "low": low, "high": high, "cells": _bytes(shades)}


def _bytes(numbers: Tensor) -> str:
    return base64.b64encode(bytes(numbers.flatten().to(torch.uint8).tolist())).decode("ascii")
