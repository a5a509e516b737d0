"""Is the rebuild really a rebuild? Or does it lean on what it should explain?

Two leaks make a comparison worthless and leave every number right: an official interim tensor that is
carried into the rebuild, and weights that are taken from the official model's memory instead of the file.
Neither shows in the results. Both show in where the tensors come from.

So the rebuild runs under the dispatcher's eyes, through which every operation passes. A tensor that goes
into an operation is the rebuild's own if an operation of the rebuild made it, or if it is a window on the
weight file or on the input. Every other one came from outside, and is held against the official tensors:
whole or a part of one, in whatever order the numbers lie. Fewer than 8 different numbers, as a mask of 0 and
1 has, are taken for a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llm_rebuild.checkpoints import Recorder, Tap
from llm_rebuild.verify.capture import Capture
from llm_rebuild.weights import Weights

Forward = Callable[[Tensor, Tensor, Weights, Tap], Any]

# So many different numbers do not agree by chance.
FEWEST = 8


@dataclass(frozen=True)
class Leak:
    """Something official that reached the rebuild.

    kind       `interim tensor` or `live weight`.
    name       Its checkpoint, or its key in the weight file.
    operation  The operation that it went into first.
    """

    kind: str
    name: str
    operation: str

    def __str__(self) -> str:
        if self.kind == "live weight":
            return (
                f"live weight: {self.name} did not come from the weight file (first used in {self.operation})"
            )
        return f"leak: the official {self.name} went into the rebuild (first used in {self.operation})"


@dataclass(frozen=True)
class Isolated:
    """What a watched run gave: the tapped tensors, and what leaked into them."""

    tensors: dict[str, Tensor]
    leaks: tuple[Leak, ...]


def run_watched(forward: Forward, weights: Weights, truth: Capture) -> Isolated:
    """Run `forward(token_ids, mask, weights, tap)` on the capture's inputs and name what leaks into it.

    Tensors that were taken openly, by `truth.bridge(name)`, are no leaks: reports call them coupled.
    """
    recorder = Recorder()
    inputs = (truth.inputs.token_ids.clone(), truth.inputs.mask.clone())
    watch = _Origins(weights, inputs, truth)
    with torch.no_grad(), watch:
        forward(*inputs, weights, recorder.tap())
    leaks = tuple(leak for leak in watch.leaks.values() if leak.name not in truth.coupled)
    return Isolated(recorder.tensors, leaks)


class _Origins(TorchDispatchMode):
    """Knows, by the storage's address, which tensors are the rebuild's own."""

    def __init__(self, weights: Weights, inputs: tuple[Tensor, ...], truth: Capture) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights, self._truth = weights, truth
        self._own = {_address(tensor) for tensor in (*weights.peek().values(), *inputs)}
        self._alive: list[Tensor] = []  # so that no address is given to a second tensor meanwhile
        self.leaks: dict[str, Leak] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            if _address(tensor) not in self._own:
                self._inspect(tensor, function.overloadpacket.__name__)
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if _address(tensor) not in self._own:
                self._own.add(_address(tensor))
                self._alive.append(tensor)
        return result

    def _inspect(self, tensor: Tensor, operation: str) -> None:
        """A tensor from outside: is it an official one?"""
        if not tensor.is_floating_point() or tensor.numel() < FEWEST:
            return
        names = _origins(tensor, self._truth.tensors)
        if names:
            if not any(name in self._truth.coupled for name in names):
                self.leaks.setdefault(names[0], Leak("interim tensor", names[0], operation))
            return
        keys = _origins(tensor, self._weights.peek())
        if keys:
            self.leaks.setdefault(keys[0], Leak("live weight", keys[0], operation))


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _origins(tensor: Tensor, among: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that this one may have been taken from: those that it equals, number by
    number; else those of its size that hold all its values; else the larger ones that do."""
    numbers = tensor.detach().flatten()
    if not _varied(numbers):
        return []
    equal = [n for n, t in among.items() if t.dtype == numbers.dtype and torch.equal(t.flatten(), numbers)]
    if equal:
        return equal
    larger = {n: t for n, t in among.items() if t.dtype == numbers.dtype and t.numel() >= numbers.numel()}
    holding = [n for n, t in larger.items() if _within(numbers, t)]
    return [n for n in holding if among[n].numel() == numbers.numel()] or holding


def _varied(numbers: Tensor) -> bool:
    """Whether there are enough different numbers to tell a tensor by. The first thousand nearly always do."""
    return any(len(torch.unique(part)) >= FEWEST for part in (numbers[:1000], numbers))


def _within(numbers: Tensor, tensor: Tensor) -> bool:
    """Whether each of these numbers occurs in the tensor. A few are tried first: usually one does not."""
    few = numbers[:: max(1, len(numbers) // FEWEST)]
    everything = tensor.detach().flatten()
    return bool(torch.isin(few, everything).all()) and bool(torch.isin(numbers, everything).all())
