"""Everything that an official model computes in one forward pass, in order: the one way to watch it.

Checkpoints are a chosen list. A trace is all there is: below torch's functions stands the dispatcher, through
which every tensor that is computed has to pass, also those inside composite operations. A mode that sits
there is shown each result, and what runs around each module's `forward` tells where in the model it was made.
What else is to be known of a run (its checkpoints, the coverage, which tensor somebody has found) is read off
its trace. torch has such an observer of its own, `torch.utils._debug_mode.DebugMode`; it is private.

What is computed is kept as it is, without a copy; one is made before anything writes into it. A view (a
transposition, a slice, a reshape) computes nothing: its entry says which entry it is a window on, and is read
through it.

Tensors are kept in memory, or, where they do not fit, in a file to which each is appended as it is made. The
file is nothing but safetensors, one after the other, each with one tensor and a note of what it is. What was
appended before a crash can be read: `Trace.load` goes as far as the last whole tensor.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.verify.entries import CONSTANTS, Entry, Returned, Trace, Window, flat
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Model, Options, Question, ask, describe, has_rebuild
from llm_rebuild.verify.sources import locate
from llm_rebuild.verify.trace_file import TensorFile

if TYPE_CHECKING:
    from typing_extensions import Unpack

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
_SEVERAL = (tuple, list)
# These give memory with nothing in it yet: no numbers were computed.
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


def trace(
    model: Model | Question,
    texts: str | Sequence[str] | None = None,
    *,
    official: Official | None = None,
    budget: int | None = None,
    out: str | Path | None = None,
    **options: Unpack[Options],
) -> Trace:
    """Run the official model once and keep every floating-point tensor that it computes.

    model     As in `capture`, with texts and options: any Hugging Face text model's folder, or a question.
    official  The model, where it is loaded already.
    budget    How many bytes may be kept in memory; what does not fit goes to a temporary file.
    out       A file for all of it. Then memory keeps nothing: a tensor is written as soon as it is made.

    Raises InputError for input that cannot be used and for a place that cannot be written.
    """
    question = ask(model, texts, **options)
    copy = question.copy
    if official is None:
        question.check()
        official = Official(copy.folder, question.attention)
    traced = Trace(
        describe(copy), question.attention, question.inputs, environment(), question.weights.peek()
    )
    with Observer(traced, official, question.cache, budget, None if out is None else Path(out)) as observer:
        official.run(question, copies=False)
        if has_rebuild(copy):
            observer.name(question.checkpoints)
    return traced


class _Facts(NamedTuple):
    """What the dispatcher says of an operation: its name in programs, its own, and which of its arguments it
    writes into."""

    operation: str
    aten: str
    written: tuple[int | str, ...]


class Observer(TorchDispatchMode):
    """Fills a trace while the official model runs. It is shown every operation and changes none.

    cache   Whether the model keeps some of its tensors for a next step, in which it may write into them.
    budget  How many bytes to keep in memory, `out` a file for everything.
    """

    def __init__(
        self, traced: Trace, official: Official, cache: bool, budget: int | None, out: Path | None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace, self._entries, self._parts = traced, traced.entries, tuple(official.parts())
        self._budget, self._out, self._bytes = budget, out, 0
        self._cache = cache
        self._inside: list[tuple[str, str]] = [("", type(official.model).__name__)]
        self._calls: dict[tuple[str, str], int] = defaultdict(int)
        self._returns: dict[str, int] = defaultdict(int)
        # Whose numbers lie at an address in memory. Every new tensor that takes the place of a dead one
        # passes here and overwrites what is said of it.
        self._at: dict[int, int] = {}
        self._views: dict[int, dict[Window, int]] = {}
        self._uncopied: dict[int, list[int]] = {}  # address -> entries that are kept without a copy
        numbers = (*official.model.parameters(), *official.model.buffers())
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in numbers}

    def __enter__(self) -> Observer:
        if self._out is not None:
            self._trace.file = TensorFile.new(self._out, self._trace.about())
        for path, part in self._parts:  # quicker than hooks, and past the check of what a module is given
            vars(part)["forward"] = self._watched(path, part)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: Any, *problem: Any) -> None:
        super().__exit__(kind, *problem)  # type: ignore[no-untyped-call]
        for _, part in self._parts:
            del vars(part)["forward"]
        traced = self._trace
        traced.whole = kind is None
        if traced.file is not None:
            if kind is None:
                traced.file.note({"end": len(traced), "skipped": dict(traced.skipped)})
            traced.file.close(safely=kind is None)

    def name(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Find the checkpoints among what was computed."""
        for name, entry in locate(self._trace, checkpoints).items():
            self._trace.is_checkpoint(name, entry)
            self._note({"checkpoint": name, "entry": entry.number})

    # -------------------------------------------------------------------------- where in the model

    def _watched(self, path: str, part: nn.Module) -> Callable[..., Any]:
        """A module's `forward` with a look at what it is given and what it returns."""
        forward, kind, inside = part.forward, type(part).__name__, self._inside

        def watched(*arguments: Any, **named: Any) -> Any:
            numbers = {self._number(tensor) for tensor in _tensors(arguments)}
            if named:
                numbers.update(self._number(tensor) for tensor in _tensors(named.values()))
            inside.append((path, kind))
            try:
                output = forward(*arguments, **named)
            finally:
                inside.pop()
            if path:
                self._returned(path, kind, numbers, output)
            return output

        watched.__wrapped__ = forward  # type: ignore[attr-defined]  # for those who ask for its signature
        return watched

    def _returned(self, path: str, kind: str, given: set[int | None], output: Any) -> None:
        answer = output
        if not isinstance(output, Tensor):
            answer = next((tensor for tensor in _tensors((output,)) if tensor.is_floating_point()), None)
        number = None if answer is None else self._number(answer)
        if number is None or number in given:  # dropout in evaluation hands on what it was given
            return
        call = self._returns[path]
        self._returns[path] = call + 1
        entries = tuple(sorted(number for number in given if number is not None))
        event = Returned(f"{path}[{call}]" if call else path, kind, len(self._entries), entries)
        self._entries[number].returned.append(event)
        if self._out is not None:
            self._note({"entry": number, "returned": event._asdict()})

    def _number(self, tensor: Tensor) -> int | None:
        """The entry of a tensor that is alive: the very window, or the whole where that is the window."""
        address = tensor.untyped_storage().data_ptr()
        windows = self._views.get(address)
        if windows is not None:
            window = Window(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
            if window in windows:
                return windows[window]
        return self._at.get(address)

    # ------------------------------------------------------------------------------- what is computed

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and torch's guard costs as much as all of this

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        facts = _facts(function)
        if facts.written:
            outputs: Any = _written(facts.written, args, kwargs or {})
            self._copy_before(outputs)
            result = function(*args, **(kwargs or {}))
        else:
            result = function(*args, **kwargs) if kwargs else function(*args)
            outputs = (result,) if isinstance(result, Tensor) else result
            if not isinstance(outputs, _SEVERAL):
                return result
        addresses = [tensor.untyped_storage().data_ptr() for tensor in _tensors(args)]
        if kwargs:
            addresses += [tensor.untyped_storage().data_ptr() for tensor in _tensors(kwargs.values())]
        call = None
        for position, output in enumerate(outputs):
            if not isinstance(output, Tensor):
                continue
            address = output.untyped_storage().data_ptr()
            view = not facts.written and address != 0 and address in addresses
            if not output.is_floating_point():
                self._skip("whole numbers or truth values", None if view else address)
                continue
            if view and address in self._weights and address not in self._at:
                self._skip("views of a weight", None)
                continue
            if facts.operation in _EMPTY:
                self._skip("memory without numbers", address)
                continue
            path, module = self._inside[-1]
            if call is None:
                sources = self._sources(addresses)
                call = self._calls[path, facts.operation]
                self._calls[path, facts.operation] = call + 1
            entry = Entry(
                len(self._entries), facts.operation, facts.aten, path, module, call, position, output.dtype,
                Window(tuple(output.shape), output.stride()), sources, None, facts.written != (),
            )  # fmt: skip
            self._add(entry, output, address, view)
        return result

    def _skip(self, reason: str, address: int | None) -> None:
        """A result without an entry, and the address that holds nothing of an entry any more."""
        self._trace.skipped[reason] += 1
        if address is not None:
            self._at.pop(address, None)
            self._views.pop(address, None)

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
            self._note(entry)
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
        """In memory, or in the file, now, before anything is written into the tensor.

        address  Where nothing but this tensor lies, so that it need not be copied yet; else 0.
        """
        traced = self._trace
        if self._out is not None or (self._budget is not None and self._bytes + entry.bytes > self._budget):
            if traced.file is None:
                traced.file = TensorFile.new(None, self._trace.about())
            traced.file.append(entry.number, flat(output), entry.to_json())
            return
        if self._budget is not None:
            self._bytes += entry.bytes
        # What the model keeps for a next step it may write into; torch.zeros returns another window on its
        # memory where somebody holds it already.
        free = address and address not in self._weights and not self._cache
        if free and entry.operation not in CONSTANTS:
            traced.memory[entry.number] = output
            self._uncopied.setdefault(address, []).append(entry.number)
        else:
            traced.memory[entry.number] = flat(output).clone()

    def _copy_before(self, written: Iterable[Tensor]) -> None:
        """Copies of the entries in whose memory an operation is about to write."""
        for tensor in written:
            for number in self._uncopied.pop(tensor.untyped_storage().data_ptr(), ()):
                self._trace.memory[number] = flat(self._trace.memory[number]).clone()

    def _note(self, event: Entry | dict[str, Any]) -> None:
        if self._out is not None and self._trace.file is not None:
            self._trace.file.note(event.to_json() if isinstance(event, Entry) else event)


@functools.cache
def _facts(function: Any) -> _Facts:
    own = function.overloadpacket.__name__
    word = _WORDS.get(own, own.removesuffix("_"))
    written = tuple(
        argument.name if argument.kwarg_only else position
        for position, argument in enumerate(function._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    return _Facts(word, f"aten.{own}", written)


def _written(which: tuple[int | str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    chosen = [kwargs.get(w) if isinstance(w, str) else args[w] if w < len(args) else None for w in which]
    return _tensors(chosen)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among some values, in lists and dicts inside them, too."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, _SEVERAL):
            tensors += _tensors(value)
        elif isinstance(value, dict):
            tensors += _tensors(value.values())
    return tensors
