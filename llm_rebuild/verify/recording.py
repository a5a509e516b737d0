"""The entries of a trace, made from what an observer saw.

Whose numbers a tensor shows is told by where they lie in memory. What is computed is kept as it is, without a
copy; one is made before anything writes into it. A view (a transposition, a slice, a reshape) computes
nothing: its entry says which entry it is a window on, and is read through it.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from llm_rebuild.verify.entries import CONSTANTS, Entry, Returned, Trace, Window, flat

# The dispatcher's names of operations that have another one in everybody's programs.
_WORDS = {
    "bmm": "matmul",
    "mm": "matmul",
    "mv": "matmul",
    "dot": "matmul",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "native_batch_norm": "batch_norm",
    "native_dropout": "dropout",
    "_fused_rms_norm": "rms_norm",
    "_scaled_dot_product_flash_attention_for_cpu": "sdpa",
    "_scaled_dot_product_fused_attention_overrideable": "sdpa",
    "_unsafe_view": "view",
    "_reshape_alias": "view",
    "_to_copy": "to",
}
# These give memory with nothing in it yet: no numbers were computed.
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_SEVERAL = (tuple, list)


class Facts(NamedTuple):
    """What the dispatcher says of an operation: its name in programs, its own, which of its arguments it
    writes into, and whether what it gives may not stay as it is after the next operation."""

    operation: str
    aten: str
    written: tuple[int | str, ...]
    passing: bool


# An operation, its module (path and class), its arguments, what it gave, and the checkpoints that it shows;
# without facts, a module itself.
Note = tuple[Facts | None, tuple[str, str], tuple[Any, ...], Any, list[tuple[str, Tensor]]]


@functools.cache
def facts_of(function: Any) -> Facts:
    """What there is to know of one of the dispatcher's operations, looked up once."""
    own = function.overloadpacket.__name__
    word = _WORDS.get(own, own.removesuffix("_"))
    written = tuple(
        argument.name if argument.kwarg_only else position
        for position, argument in enumerate(function._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    return Facts(word, f"aten.{own}", written, bool(written) or word in CONSTANTS)


def written_by(facts: Facts, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes into."""
    which = facts.written
    return tensors_in(
        kwargs.get(w) if isinstance(w, str) else args[w] if w < len(args) else None for w in which
    )


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among some values, in lists and dicts inside them, too."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, _SEVERAL):
            tensors += tensors_in(value)
        elif isinstance(value, dict):
            tensors += tensors_in(value.values())
    return tensors


def numbers_in(arguments: Iterable[Any]) -> tuple[float, ...]:
    """The plain numbers among an operation's arguments, and then among those by name."""
    numbers: list[float] = []
    for value in arguments:
        if type(value) in (int, float):
            numbers.append(float(value))
        elif isinstance(value, dict):
            numbers += numbers_in(value.values())
    return tuple(numbers)


def answer_of(result: Any) -> Tensor | None:
    """Of what a module or an operation gave, the tensor that it is known by: the first with decimals."""
    if isinstance(result, Tensor):
        return result
    return next((tensor for tensor in tensors_in((result,)) if tensor.is_floating_point()), None)


class Recording:
    """Makes entries, one event after the other.

    traced   The trace that they go to.
    weights  Where the model's own numbers lie.
    cache    Whether the model keeps some of its tensors for a next step, in which it may write into them.
    """

    def __init__(self, traced: Trace, weights: frozenset[int], cache: bool = False) -> None:
        self._trace, self._entries, self._weights, self._cache = traced, traced.entries, weights, cache
        self._calls: dict[tuple[str, str], int] = defaultdict(int)
        self._returns: dict[str, int] = defaultdict(int)
        # Whose numbers lie at an address in memory. Every new tensor that takes the place of a dead one
        # passes here and overwrites what is said of it.
        self._at: dict[int, int] = {}
        self._views: dict[int, dict[Window, int]] = {}
        self._uncopied: dict[int, list[int]] = {}  # address -> entries that are kept without a copy
        self._checkpoints: dict[str, int] = {}

    def name(self, checkpoints: Iterable[str]) -> None:
        """Give the entries of the checkpoints their names, in this order."""
        for name in checkpoints:
            if name in self._checkpoints:
                number = self._trace.checkpoints[name] = self._checkpoints[name]
                self._entries[number].checkpoint = self._entries[number].checkpoint or name

    # ------------------------------------------------------------------------------------------ events

    def computed(self, facts: Facts, path: str, arguments: Sequence[Any], result: Any) -> None:
        """An operation: the path of the module in which it ran, and what went in and came out."""
        addresses = [tensor.untyped_storage().data_ptr() for tensor in tensors_in(arguments)]
        call = None
        for position, output in enumerate(result if isinstance(result, _SEVERAL) else (result,)):
            if not isinstance(output, Tensor):
                continue
            address = output.untyped_storage().data_ptr()
            view = not facts.written and address != 0 and address in addresses
            if not output.is_floating_point() or facts.operation in _EMPTY:  # no entry has numbers there now
                if not view:
                    self._at.pop(address, None)
                    self._views.pop(address, None)
                continue
            if view and address in self._weights and address not in self._at:
                continue
            if call is None:
                sources = self._sources(addresses)
                call = self._calls[path, facts.operation]
                self._calls[path, facts.operation] = call + 1
            entry = Entry(
                len(self._entries), facts.operation, facts.aten, path, call, position, output.dtype,
                Window(tuple(output.shape), output.stride()), sources, None, numbers_in(arguments),
            )  # fmt: skip
            self._add(entry, output, address, view)

    def returned(self, part: tuple[str, str], arguments: Sequence[Any], result: Any) -> None:
        """A module returned: what it had been given, and what it gave, of which the first tensor counts."""
        path, kind = part
        answer = answer_of(result)
        number = None if answer is None else self._number(answer)
        entries = {self._number(tensor) for tensor in tensors_in(arguments)}
        if number is None or number in entries:  # dropout in evaluation hands on what it was given
            return
        call = self._returns[path]
        self._returns[path] = call + 1
        inputs = tuple(sorted(number for number in entries if number is not None))
        event = Returned(f"{path}[{call}]" if call else path, kind, len(self._entries), inputs)
        self._entries[number].returned.append(event)

    def named(self, name: str, tensor: Tensor) -> None:
        """A checkpoint is this tensor, which was computed already. What is said last counts."""
        number = self._number(tensor)
        if number is not None:
            self._checkpoints[name] = number

    def before_writing(self, written: Iterable[Tensor]) -> None:
        """Copies of the entries in whose memory an operation is about to write."""
        for tensor in written:
            for number in self._uncopied.pop(tensor.untyped_storage().data_ptr(), ()):
                self._trace.memory[number] = flat(self._trace.memory[number]).clone()

    # ------------------------------------------------------------------------------------------ entries

    def _number(self, tensor: Tensor) -> int | None:
        """The entry of a tensor that is alive: the very window, or the whole where that is the window."""
        address = tensor.untyped_storage().data_ptr()
        windows = self._views.get(address)
        if windows is not None:
            window = Window(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
            if window in windows:
                return windows[window]
        return self._at.get(address)

    def _sources(self, addresses: list[int]) -> tuple[int, ...]:
        """The entries whose numbers lie at these addresses."""
        sources: dict[int, None] = {}
        for address in addresses:
            if address in self._at:
                sources[self._at[address]] = None
            elif address in self._views:
                sources[max(self._views[address].values())] = None
        return tuple(sources)

    def _add(self, entry: Entry, output: Tensor, address: int, view: bool) -> None:
        offset = int(output.storage_offset())
        base = self._at.get(address) if view else None
        if base is not None:
            entry.view_of = base
            if offset:
                entry.window = entry.window._replace(offset=offset)
            self._entries.append(entry)
            self._views.setdefault(address, {})[entry.window] = entry.number
            return
        window = entry.window
        everything = output.nbytes == output.untyped_storage().nbytes()
        dense = everything and offset == 0 and 0 not in window.stride
        if not dense and not output.is_contiguous():
            output = output.contiguous()
            entry.window = Window(window.shape, output.stride())
        self._keep(entry, output, address if dense and not view else 0)
        self._entries.append(entry)
        self._views.pop(address, None)
        if dense and not view:
            self._at[address] = entry.number
        else:  # a part of some memory: windows on the rest of it cannot be told by this entry
            self._at.pop(address, None)
            self._views[address] = {window._replace(offset=offset): entry.number}

    def _keep(self, entry: Entry, output: Tensor, address: int) -> None:
        """The numbers of an entry, before anything is written into the tensor.

        address  Where nothing but this tensor lies, so that it need not be copied yet; else 0.
        """
        # What the model keeps for a next step it may write into; torch.zeros returns another window on its
        # memory where somebody holds it already.
        free = address and address not in self._weights and not self._cache
        if free and entry.operation not in CONSTANTS:
            self._trace.memory[entry.number] = output
            self._uncopied.setdefault(address, []).append(entry.number)
        else:
            self._trace.memory[entry.number] = flat(output).clone()
