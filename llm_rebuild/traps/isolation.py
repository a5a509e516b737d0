"""Is the rebuild really a rebuild? Or does it lean on what it should explain?

Two leaks make a comparison worthless and leave every number right: an official interim tensor that is
carried into the rebuild, and weights that are taken from the official model's memory instead of the file.
Neither shows in the results. Both show in where the tensors come from.

So the rebuild runs under the dispatcher's eyes, through which every operation passes. A tensor that goes
into an operation is the rebuild's own if an operation of the rebuild made it, or if it is a window on the
weight file or on the input. Every other one came from outside, and is held against the official tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    return Isolated(recorder.tensors, tuple(watch.leaks.values()))


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
        if not tensor.is_floating_point() or tensor.numel() < 2:
            return
        name = next((n for n, t in self._truth.tensors.items() if _comes_from(tensor, t)), None)
        if name is not None:
            if name not in self._truth.coupled:
                self.leaks.setdefault(name, Leak("interim tensor", name, operation))
            return
        key = next((k for k, t in self._weights.peek().items() if _comes_from(tensor, t)), None)
        if key is not None:
            self.leaks.setdefault(key, Leak("live weight", key, operation))


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _comes_from(tensor: Tensor, official: Tensor) -> bool:
    """The same numbers in the same order, whatever the shape; or transposed; or some of its rows."""
    if tensor.dtype != official.dtype:
        return False
    if tensor.numel() == official.numel():
        if torch.equal(tensor.reshape(-1), official.reshape(-1)):
            return True
        if tensor.dim() == official.dim() >= 2 and torch.equal(tensor.mT.reshape(-1), official.reshape(-1)):
            return True
    return _has_rows_of(tensor, official)


def _has_rows_of(tensor: Tensor, official: Tensor) -> bool:
    """Whether every row of the one is a row of the other. Short and uniform rows say nothing."""
    width = tensor.shape[-1]
    if width < 8 or official.dim() < 1 or official.shape[-1] != width:
        return False
    rows, known = tensor.reshape(-1, width), official.reshape(-1, width)
    if bool((rows == rows[:, :1]).all()):
        return False
    return all(bool((known == row).all(dim=-1).any()) for row in rows)
