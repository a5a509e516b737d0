"""How numbers lie: which reshape, transpose or split into heads leads from one tensor to another."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from llm_rebuild.verify.equality import difference, near

MOST_ORDERS = 6000  # ways to lay out the numbers of one tensor that are tried


def agree(one: Tensor, other: Tensor, tolerance: float = 0.0) -> bool:
    """As `near`, but that axes of size 1 do not count."""
    if one.shape != other.shape and [n for n in one.shape if n > 1] == [n for n in other.shape if n > 1]:
        other = other.reshape(one.shape)
    return near(one, other, tolerance)


def arrangement(tensor: Tensor, official: Tensor, tolerance: float = 0.0) -> tuple[str, float] | None:
    """How to get from the official tensor to this one by moving numbers: words that follow a name, and the
    largest difference that is left.

    The words are empty where nothing has to be moved. None where no way was found. With a tolerance (the
    largest difference allowed) for numbers that are nearly the same.
    """
    if agree(tensor, official, tolerance):
        return "", difference(tensor, official.reshape(tensor.shape))
    picked = [int(i) for i in torch.linspace(0, tensor.numel() - 1, 24)]
    values = tensor.reshape(-1)[torch.tensor(picked)]
    flat = official.reshape(-1)
    for dims, order, split in itertools.islice(_orders(tensor, official), MOST_ORDERS):
        places = torch.tensor([_source(i, dims, order) for i in picked])
        if not agree(values, flat[places], tolerance):
            continue
        moved = official.reshape(dims).permute(order).reshape(tensor.shape)
        if agree(tensor, moved, tolerance):
            return _in_words(tensor, official, dims, order, split), difference(tensor, moved)
    if tolerance == 0.0 and agree(tensor.flatten().sort().values, flat.sort().values):
        return ", its numbers in another order", 0.0
    return None


def _orders(
    tensor: Tensor, official: Tensor
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, int] | None]]:
    """Ways to lay numbers out: axes, their order, and which axis was split in two for it (where, heads)."""
    dims = tuple(n for n in official.shape if n > 1) or (1,)
    plain = tuple(range(len(dims)))
    yield dims, plain, None
    if len(dims) <= 5:
        orders = [order for order in itertools.permutations(plain) if order != plain]
        orders.sort(key=lambda order: sum(position != axis for position, axis in enumerate(order)))
        yield from ((dims, order, None) for order in orders)
    if len(dims) > 4:
        return
    for axis in reversed(plain):
        size = dims[axis]
        factors = [n for n in range(2, size) if size % n == 0]
        factors.sort(key=lambda n: (n not in tensor.shape, size // n not in tensor.shape))
        for heads in factors[:24]:
            split = (*dims[:axis], heads, size // heads, *dims[axis + 1 :])
            for order in itertools.permutations(range(len(split))):
                if any(a + 1 == b for a, b in itertools.pairwise(order) if a == axis):
                    continue  # the two halves stay together: no split
                yield split, order, (axis, heads)


def _source(position: int, dims: Sequence[int], order: Sequence[int]) -> int:
    """Where in `dims` the number lies that comes to `position` when the axes are put into `order`."""
    coordinates = [0] * len(dims)
    for axis in reversed(order):
        position, coordinates[axis] = divmod(position, dims[axis])
    flat = 0
    for size, coordinate in zip(dims, coordinates, strict=True):
        flat = flat * size + coordinate
    return flat


def _in_words(
    tensor: Tensor,
    official: Tensor,
    dims: tuple[int, ...],
    order: tuple[int, ...],
    split: tuple[int, int] | None,
) -> str:
    shape = [n for n in tensor.shape if n > 1]
    moved = [dims[axis] for axis in order]
    afterwards = "" if shape == moved else f", then reshaped to {list(tensor.shape)}"
    plain = tuple(range(len(dims)))
    if split is not None:
        axis, heads = split
        width = dims[axis + 1]
        swapped = [*plain]
        swapped[axis - 1], swapped[axis] = swapped[axis], swapped[axis - 1]
        if axis > 0 and order == tuple(swapped):
            return f", split into {heads} heads of {width}{afterwards}"
        cut = f"its axis of {heads * width} split into {heads} × {width}"
        return f", {cut}, axes in the order {order}{afterwards}"
    if order == plain:
        return f", reshaped to {list(tensor.shape)}"
    if order == (*plain[:-2], plain[-1], plain[-2]):
        return f", transposed in its last two axes{afterwards}"
    exchanged = [axis for position, axis in enumerate(order) if position != axis]
    if len(exchanged) == 2:
        names = [str(_real_axis(official, axis)) for axis in sorted(exchanged)]
        if afterwards and len(shape) == len(dims) - 1:
            return f", heads merged (axes {' and '.join(names)} swapped{afterwards})"
        return f", with axes {' and '.join(names)} swapped{afterwards}"
    return f", with its axes in the order {tuple(_real_axis(official, axis) for axis in order)}{afterwards}"


def _real_axis(official: Tensor, axis: int) -> int:
    """The number of an axis, those of size 1 counted."""
    return [number for number, size in enumerate(official.shape) if size > 1][axis]
