"""Where does each tensor come from that goes into a computation?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.checkpoints import tensors_in

Storage: Any = StorageWeakRef  # knows whether a storage still lives, and does not keep it alive
FEWEST = 8  # so many different numbers do not agree by chance; below that nobody looks


class Origins(TorchDispatchMode):
    """Watches every operation. A tensor is its own where one of these operations made it, or where it is a
    window on one of `own`. Every other one of `FEWEST` numbers or more came from elsewhere: `outside` gets
    it, once, and the operation that it went into.

    What it cannot see: numbers that are written into a tensor's memory past torch, and what the operations
    of other threads make.
    """

    def __init__(self, own: Iterable[Tensor], outside: Callable[[Tensor, str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._outside, self._looking = outside, True
        self._own: dict[int, Any] = {}  # by address, as long as the storage lives
        self._reported: dict[tuple[Any, ...], Any] = {}
        for tensor in own:
            self.own(tensor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and asking for it would import the compiler, a second

    def begin(self) -> None:
        """A new run: what came in during an earlier one is reported again."""
        self._reported.clear()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """While the block runs, nobody looks: for what is done here with a tensor that was looked at."""
        self._looking = False
        try:
            yield
        finally:
            self._looking = True

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor was made here, or from what it was given. One that lies nowhere counts as such."""
        address = _address(tensor)
        storage = self._own.get(address)
        return not address or (storage is not None and not storage.expired())

    def look(self, tensor: Tensor, operation: str) -> None:
        """Report a tensor that comes from elsewhere; one of integers, too: it may be another's bits."""
        if tensor.is_complex() or tensor.dtype is torch.bool:
            return
        if tensor.numel() < FEWEST or self.owns(tensor):
            return
        storage = Storage(tensor.untyped_storage())
        address = (storage.cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor._version)
        if address not in self._reported:
            self._reported[address] = storage  # which keeps its number from being given to another
            self._outside(tensor, operation)

    def own(self, tensor: Tensor) -> None:
        """From now on this tensor is one that it was given."""
        if address := _address(tensor):
            self._own[address] = Storage(tensor.untyped_storage())

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not self._looking:
            return function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name == "from_file":
            raise PermissionError("it maps a file into a tensor; a rebuild gets its weights as `weights`")
        foreign = set()
        for tensor in tensors_in((args, kwargs)):
            if not self.owns(tensor):
                foreign.add(_address(tensor))
                self.look(tensor, name)
        result = function(*args, **(kwargs or {}))
        if name != "set_":  # which makes a window on memory that something else has filled
            for tensor in tensors_in((result,)):
                if _address(tensor) not in foreign and not self.owns(tensor):  # no view of a foreign one
                    self.own(tensor)
        return result


def _address(tensor: Tensor) -> int:
    """Where its memory begins; 0 for a tensor that has none of the plain kind."""
    if tensor.layout is not torch.strided or tensor.is_meta:
        return 0
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # a wrapper's
        return 0
