"""How numbers lie: which reshape, transpose or split into heads leads from one tensor to another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llm_rebuild.verify.equality import difference, identical

MOST_ORDERS = 6000  # ways to lay out the numbers of one tensor that are tried


def agree(one: Tensor, other: Tensor, tolerance: float = 0.0) -> bool:
    """The same shape, axes of size 1 aside, and no number further off than the tolerance (0: to the bit)."""
    if [n for n in one.shape if n > 1] != [n for n in other.shape if n > 1]:
        return False
    other = other.reshape(one.shape)
    return identical(one, other) if tolerance == 0.0 else difference(one, other) <= tolerance


def moments(tensor: Tensor) -> Tensor:
    """What stays where numbers are moved: their mean, root mean square, smallest and largest. [4]"""
    return torch.stack([tensor.mean(), tensor.square().mean().sqrt(), tensor.min(), tensor.max()])


@dataclass(frozen=True)
class Layout:
    """How one tensor's numbers lie in another: its axes, those of size 1 aside, cut into `dims` and put into
    an order, then reshaped.

    split  Which axis was cut in two for it, and into how many heads; None where none was.
    """

    dims: tuple[int, ...]
    order: tuple[int, ...]
    split: tuple[int, int] | None = None

    @property
    def plain(self) -> bool:
        """Whether every number stays in its place."""
        return self.order == tuple(range(len(self.dims)))

    def of(self, official: Tensor, shape: Sequence[int]) -> Tensor:
        """The official numbers as they lie in a tensor of this shape."""
        return official.reshape(self.dims).permute(self.order).reshape(tuple(shape))

    def undone(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """A tensor's numbers as they lie in the official one, which has this shape."""
        moved = tensor.reshape([self.dims[axis] for axis in self.order])
        return moved.permute([self.order.index(axis) for axis in range(len(self.order))]).reshape(
            tuple(shape)
        )

    def in_words(self, shape: Sequence[int], official: Sequence[int]) -> str:
        """What follows the official name: `, transposed in its last two axes`; empty where nothing moves.

        shape, official  Those of the tensor and of the official one.
        """
        sizes, moved = [n for n in shape if n > 1], [self.dims[axis] for axis in self.order]
        if self.plain and sizes == [n for n in official if n > 1]:
            return ""
        afterwards = "" if sizes == moved else f", then reshaped to {list(shape)}"
        plain = tuple(range(len(self.dims)))
        if self.split is not None:
            axis, heads = self.split
            width = self.dims[axis + 1]
            swapped = [*plain]
            swapped[axis - 1], swapped[axis] = swapped[axis], swapped[axis - 1]
            if axis > 0 and self.order == tuple(swapped):
                return f", split into {heads} heads of {width}{afterwards}"
            cut = f"its axis of {heads * width} split into {heads} × {width}"
            return f", {cut}, axes in the order {self.order}{afterwards}"
        if self.plain:
            return f", reshaped to {list(shape)}"
        if self.order == (*plain[:-2], plain[-1], plain[-2]):
            return f", transposed in its last two axes{afterwards}"
        real = [number for number, size in enumerate(official) if size > 1]  # with axes of size 1 counted
        exchanged = [axis for position, axis in enumerate(self.order) if position != axis]
        if len(exchanged) == 2:
            names = " and ".join(str(real[axis]) for axis in sorted(exchanged))
            if afterwards and len(sizes) == len(self.dims) - 1:
                return f", heads merged (axes {names} swapped{afterwards})"
            return f", with axes {names} swapped{afterwards}"
        return f", with its axes in the order {tuple(real[axis] for axis in self.order)}{afterwards}"


def layout_of(tensor: Tensor, official: Tensor, tolerance: float = 0.0) -> Layout | None:
    """How to get from the official tensor to this one by moving numbers; None where no way is known.

    tolerance  The largest difference allowed, for numbers that are nearly the same.
    """
    picked = np.linspace(0, tensor.numel() - 1, 24, dtype=int)  # torch's may end behind the last
    values, official = tensor.reshape(-1)[picked], official.contiguous()
    for layout in itertools.islice(layouts(tensor.shape, official.shape), MOST_ORDERS):
        moved = official.view(layout.dims).permute(layout.order)
        few = moved[np.unravel_index(picked, moved.shape)]
        if agree(values, few, tolerance) and agree(tensor, layout.of(official, tensor.shape), tolerance):
            return layout
    return None


def arrangement(tensor: Tensor, official: Tensor, tolerance: float = 0.0) -> tuple[str, float] | None:
    """As `layout_of`, in words that follow a name, and the largest difference that is left. Without a
    tolerance also where the numbers lie in no order that is known."""
    layout = layout_of(tensor, official, tolerance)
    if layout is not None:
        left = difference(tensor, layout.of(official, tensor.shape))
        return layout.in_words(tensor.shape, official.shape), left
    if tolerance == 0.0 and agree(tensor.flatten().sort().values, official.flatten().sort().values):
        return ", its numbers in another order", 0.0
    return None


def layouts(shape: Sequence[int], official: Sequence[int]) -> Iterator[Layout]:
    """The ways in which an official tensor's numbers may lie in one of another shape, the plainest first; a
    split by a number that is one of its axes before others."""
    dims = tuple(n for n in official if n > 1) or (1,)
    plain = tuple(range(len(dims)))
    yield Layout(dims, plain)
    if len(dims) <= 5:
        orders = [order for order in itertools.permutations(plain) if order != plain]
        orders.sort(key=lambda order: sum(position != axis for position, axis in enumerate(order)))
        yield from (Layout(dims, order) for order in orders)
    if len(dims) > 4:
        return
    for axis in reversed(plain):
        size = dims[axis]
        factors = [n for n in range(2, size) if size % n == 0]
        factors.sort(key=lambda n: (n not in shape, size // n not in shape))
        for heads in factors[:24]:
            split = (*dims[:axis], heads, size // heads, *dims[axis + 1 :])
            for order in itertools.permutations(range(len(split))):
                if any(a + 1 == b for a, b in itertools.pairwise(order) if a == axis):
                    continue  # the two halves stay together: no split
                yield Layout(split, order, (axis, heads))
