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
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.checkpoints import Checkpoint, join
from llm_rebuild.errors import InputError, NoSuchNameError
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.find import Candidate, Found, find
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Model, Options, Question, ask, describe, has_rebuild
from llm_rebuild.verify.trace_file import Place, TensorFile, events

if TYPE_CHECKING:
    from typing_extensions import Unpack

FORMAT = "llm_rebuild trace 1"
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
# What computes nothing of the model's: numbers brought into another place or type, and constants.
COPIES = {"clone", "copy", "to", "contiguous", "lift_fresh", "detach", "alias", "dropout"}
CONSTANTS = {"zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "scalar_tensor", "arange", "eye"}
CONSTANTS |= {"zeros_like", "ones_like", "full_like", "fill", "zero"}
# Second and later results of these are statistics for the backward pass; the answer is the first.
STATISTICS = {
    "layer_norm": "mean and 1/standard deviation, kept for the backward pass",
    "sdpa": "log-sum-exp, kept for the backward pass",
    "rms_norm": "1/root of the mean square, kept for the backward pass",
    "group_norm": "mean and 1/standard deviation, kept for the backward pass",
    "batch_norm": "mean and 1/standard deviation, kept for the backward pass",
}


class Window(NamedTuple):
    """Where a tensor's numbers lie among those of an entry: torch's shape, strides and offset."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0

    def fits(self, numbers: int) -> bool:
        """Whether it stays within so many numbers. To be asked of everything that a file says."""
        if len(self.shape) != len(self.stride) or self.offset < 0:
            return False
        if any(n < 0 for n in (*self.shape, *self.stride)):
            return False
        if 0 in self.shape:
            return True
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        return last < numbers


class Returned(NamedTuple):
    """A module that returned an entry.

    name   Its path; from its second call on with the call's number, `path[1]`.
    kind   Its class.
    at     How many entries there were by then.
    given  The entries that it had been given.
    """

    name: str
    kind: str
    at: int
    given: tuple[int, ...]


@dataclass(slots=True)
class Entry:
    """One floating-point tensor of a trace.

    number      Its place in the order of computation.
    operation   What made it, by the name that programs use; `aten` is the dispatcher's.
    path        The module in which it was made, and `module`, that module's class.
    call        How many times this operation had been called in this module before.
    output      Which of the operation's results it is, if there are several.
    inputs      Numbers of the entries that went into the operation.
    view_of     The entry that it is a window on, if it is a view.
    in_place    Whether it was written into memory that held an earlier entry.
    returned    The modules that returned it, innermost first.
    checkpoint  Its checkpoint's name, in a model of the course.
    """

    number: int
    operation: str
    aten: str
    path: str
    module: str
    call: int
    output: int
    dtype: torch.dtype
    window: Window
    inputs: tuple[int, ...] = ()
    view_of: int | None = None
    in_place: bool = False
    returned: list[Returned] = field(default_factory=list)
    checkpoint: str | None = None

    @property
    def name(self) -> str:
        """`encoder.layer.0.attention.self.matmul[0]`; later results of one operation get `.1`, `.2`."""
        last = f".{self.output}" if self.output else ""
        return f"{join(self.path, self.operation)}[{self.call}]{last}"

    @property
    def title(self) -> str:
        """The name by which to speak of it: the checkpoint's, the module's that returned it, its own."""
        return self.checkpoint or (self.returned[0].name if self.returned else self.name)

    @property
    def base(self) -> int:
        """The computed entry whose numbers it shows: itself, unless it is a view."""
        return self.number if self.view_of is None else self.view_of

    def aside(self) -> str:
        """Why it is nothing that the model computed: a copy, a constant, a statistic. Empty where it is."""
        if self.output and self.operation in STATISTICS:
            return STATISTICS[self.operation]
        if self.operation in COPIES:
            return "plain copies"
        if self.operation in CONSTANTS:
            return "filled with one number"
        return "" if self.window.shape else "single constants"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.window.shape

    @property
    def bytes(self) -> int:
        """How much memory its numbers take, by themselves."""
        return math.prod(self.window.shape) * self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "name": self.name,
            "operation": self.operation,
            "aten": self.aten,
            "path": self.path,
            "module": self.module,
            "call": self.call,
            "output": self.output,
            "shape": list(self.window.shape),
            "stride": list(self.window.stride),
            "offset": self.window.offset,
            "dtype": str(self.dtype).removeprefix("torch."),
            "inputs": list(self.inputs),
            "view_of": self.view_of,
            "in_place": self.in_place,
        }


class Trace(Sequence[Entry]):
    """The entries of one forward pass, in order: `trace[0]`, `trace["h.0.attn.softmax[0]"]`.

    model, attention, inputs, environment  As in a capture.
    checkpoints  Which entry a checkpoint is, by name, in a model of the course.
    skipped      What has no entry: reason -> how often.
    whole        False where the run or the file broke off before its end.
    """

    def __init__(
        self,
        model: Mapping[str, Any],
        attention: str,
        inputs: Inputs,
        environment: Mapping[str, Any],
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model, self.attention, self.inputs, self.environment = model, attention, inputs, environment
        self.weights: Mapping[str, Tensor] = weights or {}
        self.entries: list[Entry] = []
        self.checkpoints: dict[str, int] = {}
        self.skipped: Counter[str] = Counter()
        self.whole = False
        self.memory: dict[int, Tensor] = {}  # entry -> a tensor with its numbers
        self.file: TensorFile | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __getitem__(self, which: Any) -> Any:
        """An entry by number or by name: its own, a checkpoint's, or that of a module that returned it."""
        if isinstance(which, int | slice):
            return self.entries[which]
        number = self.names().get(which)
        if number is None:
            raise NoSuchNameError(f"the trace has no tensor {which!r}")
        return self.entries[number]

    def __contains__(self, which: object) -> bool:
        """Whether there is such an entry, or an entry of such a name."""
        return which in self.names() if isinstance(which, str) else which in self.entries

    def names(self) -> dict[str, int]:
        """Every name and the entry it stands for."""
        names = dict(self.checkpoints)
        for entry in self.entries:
            for name in (*(module.name for module in entry.returned), entry.name):
                names.setdefault(name, entry.number)
        return names

    def is_checkpoint(self, name: str, entry: Entry) -> None:
        """Say which entry a checkpoint is. The first name that an entry gets is its title."""
        self.checkpoints[name] = entry.number
        if entry.checkpoint is None:
            entry.checkpoint = name

    def tensor(self, which: int | str | Entry) -> Tensor:
        """The numbers of an entry: a window on what the trace keeps, not to be written into."""
        entry = which if isinstance(which, Entry) else self[which]
        tensor = self.memory.get(entry.number)
        if tensor is not None and (tensor.shape, tensor.stride()) == entry.window[:2]:
            return tensor
        base = self.numbers(entry.base)
        return base.as_strided(entry.window.shape, entry.window.stride, entry.window.offset)

    def numbers(self, number: int) -> Tensor:
        """All numbers of a computed entry, in the order in which they lay in memory. [numbers]"""
        tensor = self.memory.get(number)
        if tensor is not None:
            return _flat(tensor)
        assert self.file is not None  # what is not in memory was written
        return self.file.read(number)

    @property
    def in_memory(self) -> int:
        """How many bytes of its numbers are in memory, and not in a file."""
        return sum(self.entries[number].bytes for number in self.memory)

    def computed(self) -> Iterator[Entry]:
        """The entries that are no views."""
        return (entry for entry in self.entries if entry.view_of is None)

    def find(self, tensor: Tensor, limit: int = 5) -> Found:
        """Which official tensor is this? See `llm_rebuild.verify.find`."""
        return find(tensor, self._candidates(), self.weights, limit)

    def _candidates(self) -> list[Candidate]:
        """What was computed, under the best name that it has, and every different view."""
        best: dict[int, Entry] = {}
        for entry in self:
            base = entry.base
            named = entry.checkpoint is not None or bool(entry.returned)
            if base not in best or (named and self.whole_of(entry) and best[base].title == best[base].name):
                best[base] = entry
        found: list[Candidate] = []
        seen: set[tuple[int, Window]] = set()
        for entry in [*best.values(), *self]:
            base = entry.base
            if (base, entry.window) in seen:
                continue
            seen.add((base, entry.window))
            if entry is not best[base] and entry.shape == best[base].shape and not entry.returned:
                continue
            of = "" if entry is best[base] or entry.view_of is None else _view_in_words(entry, best[base])
            read = functools.partial(self.tensor, entry)
            named = entry.title != entry.name
            found.append(Candidate(entry.title, entry.shape, read, base, named, of, self.whole_of(entry)))
        return found

    def whole_of(self, entry: Entry) -> bool:
        """Whether an entry shows as many numbers as were computed, and not a slice of them."""
        return entry.view_of is None or math.prod(entry.shape) == math.prod(self.entries[entry.view_of].shape)

    def __repr__(self) -> str:
        size = sum(entry.bytes for entry in self.computed())
        views = sum(entry.view_of is not None for entry in self.entries)
        broken = "" if self.whole else "; it breaks off before the end of the run"
        return (
            f"trace of {self.model.get('name')}: {len(self.entries) - views} tensors computed "
            f"({size / 1e6:.0f} MB), {views} views{broken}"
        )

    @classmethod
    def load(cls, file: str | Path) -> Trace:
        """Read a file that `trace(..., out=file)` wrote, or began to write.

        A file that was cut off gives what is whole in it, and `whole` is False. Nothing is read until it is
        asked for, and nothing that the file says of sizes is believed. InputError for other files.
        """
        return _read(Path(file))


def _view_in_words(entry: Entry, base: Entry) -> str:
    columns = base.shape[-1] if base.shape else 1
    first = entry.window.offset % columns
    if math.prod(entry.shape) == math.prod(base.shape):
        return f" (a view of {base.title})"
    return f" (a view of {base.title}, from its column {first} on)"


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
    taken = Trace(describe(copy), question.attention, question.inputs, environment(), question.weights.peek())
    with Observer(taken, official, question.cache, budget, None if out is None else Path(out)) as observer:
        official.run(question, copies=False)
        if has_rebuild(copy):
            observer.name(question.checkpoints)
    return taken


# ------------------------------------------------------------------------------------- recording


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
        self, taken: Trace, official: Official, cache: bool, budget: int | None, out: Path | None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace, self._entries, self._parts = taken, taken.entries, tuple(official.parts())
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
            self._trace.file = TensorFile.new(self._out, self._about())
        for path, part in self._parts:  # quicker than hooks, and past the check of what a module is given
            vars(part)["forward"] = self._watched(path, part)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: Any, *problem: Any) -> None:
        super().__exit__(kind, *problem)  # type: ignore[no-untyped-call]
        for _, part in self._parts:
            del vars(part)["forward"]
        taken = self._trace
        taken.whole = kind is None
        if taken.file is not None:
            if kind is None:
                taken.file.note({"end": len(taken), "skipped": dict(taken.skipped)})
            taken.file.close(safely=kind is None)

    def name(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Find the checkpoints among what was computed."""
        for name, entry in read(self._trace, checkpoints).items():
            self._trace.is_checkpoint(name, entry)
            self._note({"checkpoint": name, "entry": entry.number})

    def _about(self) -> dict[str, Any]:
        taken, inputs = self._trace, self._trace.inputs
        decoder = {}
        if inputs.decoder_ids is not None and inputs.decoder_mask is not None:
            decoder = {
                "decoder_ids": inputs.decoder_ids.tolist(),
                "decoder_mask": inputs.decoder_mask.tolist(),
            }
        return {
            "format": FORMAT,
            "model": dict(taken.model),
            "attention": taken.attention,
            "environment": dict(taken.environment),
            "texts": inputs.texts,
            "tokens": inputs.tokens,
            "truncated": inputs.truncated,
            "token_ids": inputs.token_ids.tolist(),
            "mask": inputs.mask.tolist(),
            **decoder,
        }

    # -------------------------------------------------------------------------- where in the model

    def _watched(self, path: str, part: nn.Module) -> Callable[..., Any]:
        """A module's `forward` with a look at what it is given and what it returns."""
        forward, kind, inside = part.forward, type(part).__name__, self._inside

        def watched(*arguments: Any, **named: Any) -> Any:
            given = {self._number(tensor) for tensor in _tensors(arguments)}
            if named:
                given.update(self._number(tensor) for tensor in _tensors(named.values()))
            inside.append((path, kind))
            try:
                output = forward(*arguments, **named)
            finally:
                inside.pop()
            if path:
                self._returned(path, kind, given, output)
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
        taken = self._trace
        if self._out is not None or (self._budget is not None and self._bytes + entry.bytes > self._budget):
            if taken.file is None:
                taken.file = TensorFile.new(None, self._about())
            taken.file.append(entry.number, _flat(output), entry.to_json())
            return
        if self._budget is not None:
            self._bytes += entry.bytes
        # What the model keeps for a next step it may write into; torch.zeros returns another window on its
        # memory where somebody holds it already.
        free = address and address not in self._weights and not self._cache
        if free and entry.operation not in CONSTANTS:
            taken.memory[entry.number] = output
            self._uncopied.setdefault(address, []).append(entry.number)
        else:
            taken.memory[entry.number] = _flat(output).clone()

    def _copy_before(self, written: Iterable[Tensor]) -> None:
        """Copies of the entries in whose memory an operation is about to write."""
        for tensor in written:
            for number in self._uncopied.pop(tensor.untyped_storage().data_ptr(), ()):
                self._trace.memory[number] = _flat(self._trace.memory[number]).clone()

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


def _flat(tensor: Tensor) -> Tensor:
    """A tensor's numbers in the order in which they lie in memory. [numbers]"""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())


# ------------------------------------------------------------------------------------- checkpoints


def read(taken: Trace, checkpoints: Iterable[Checkpoint]) -> dict[str, Entry]:
    """The entries that are these checkpoints, by name: where the official model computes each, its `source`
    says. A checkpoint that was not computed is left out."""
    final: dict[int, Entry] = {}  # computed entry -> the view that is the product in its final shape
    made: dict[tuple[str, str], list[Entry]] = {}  # path and operation -> what it made there, call by call
    returned: dict[str, tuple[Entry, Returned]] = {}  # module -> its first answer
    entry: Entry | None
    for entry in taken.entries:
        if entry.view_of is None:
            made.setdefault((entry.path, entry.operation), []).append(entry)
        elif entry.aten == "aten._unsafe_view":
            final.setdefault(entry.view_of, entry)
        for module in entry.returned:
            returned.setdefault(module.name, (entry, module))
    entries: dict[str, Entry] = {}
    for checkpoint in checkpoints:
        path, event = source_of(checkpoint)
        entry = None
        if path in returned and event in ("returned", "given"):
            answer, module = returned[path]
            entry = answer if event == "returned" else taken.entries[module.given[0]]
        elif "[" in event:
            operation, _, call = event.removeprefix("into ").rstrip("]").partition("[")
            candidates = made.get((path, operation), ())
            if int(call) < len(candidates):
                entry = candidates[int(call)]
                if event.startswith("into "):
                    entry = taken.entries[entry.inputs[0]]
                entry = final.get(entry.number, entry)
        if entry is not None:
            entries[checkpoint.name] = entry
    return entries


def source_of(checkpoint: Checkpoint) -> tuple[str, str]:
    """Where to look for a checkpoint: the module's path and the event."""
    source = checkpoint.source
    if source == "output":  # the official module of this very name
        return checkpoint.name, "returned"
    parent, _, _ = checkpoint.name.rpartition(".")
    path, colon, event = source.partition(": ")
    if not colon:
        path, event = parent, source
    if event.startswith("into ") and "[" not in event:  # what a part was given
        return join(path, event.removeprefix("into ")), "given"
    return path, event


# ------------------------------------------------------------------------------------- reading a file


def _read(file: Path) -> Trace:
    """The trace that the events of a file make, one after the other."""
    no_trace = InputError(f"{file} is not a trace file; `trace(..., out=FILE)` makes one")
    try:
        with file.open("rb") as opened:
            stored = events(opened)
            first = next(stored, None)
            if first is None or first[0].get("format") != FORMAT:
                raise no_trace
            taken = _begun(first[0])
            taken.file = TensorFile(opened, file)
            for event, numbers in stored:
                if numbers is not None:
                    taken.file.places[len(taken)] = numbers
                _replay(taken, event, numbers)
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError):
        raise no_trace from None
    return taken


def _begun(about: dict[str, Any]) -> Trace:
    decoder = {key: torch.tensor(about[key]) for key in ("decoder_ids", "decoder_mask") if key in about}
    inputs = Inputs(
        torch.tensor(about["token_ids"]),
        torch.tensor(about["mask"]),
        tuple(about["texts"]),
        tuple(tuple(row) for row in about["tokens"]),
        tuple(about["truncated"]),
        **decoder,
    )
    return Trace(about["model"], about["attention"], inputs, about["environment"])


def _replay(taken: Trace, event: dict[str, Any], numbers: Place | None) -> None:
    """One event. Raises ValueError for what no run can have written."""
    if "end" in event:
        taken.skipped.update(event["skipped"])
        taken.whole = event["end"] == len(taken)
    elif "returned" in event:
        module = event["returned"]
        given = tuple(int(number) for number in module["given"])
        returned = Returned(str(module["name"]), str(module["kind"]), int(module["at"]), given)
        taken.entries[event["entry"]].returned.append(returned)
    elif "checkpoint" in event:
        taken.is_checkpoint(str(event["checkpoint"]), taken.entries[event["entry"]])
    else:
        taken.entries.append(_entry(taken, event, numbers))


def _entry(taken: Trace, event: dict[str, Any], numbers: Place | None) -> Entry:
    window = Window(tuple(event["shape"]), tuple(event["stride"]), event["offset"])
    view_of, number = event["view_of"], len(taken)
    if numbers is None:
        base = taken.entries[view_of]
        if base.number != view_of or base.view_of is not None:
            raise ValueError("a view of a view")
        count, dtype = math.prod(base.shape), base.dtype
    else:
        _, count, dtype = numbers
    if event["number"] != number or (view_of is None) != (numbers is not None) or not window.fits(count):
        raise ValueError("no entry")
    if any(type(i) is not int or not 0 <= i < number for i in event["inputs"]):
        raise ValueError("made of an entry that comes later")
    return Entry(
        number=number,
        operation=str(event["operation"]),
        aten=str(event["aten"]),
        path=str(event["path"]),
        module=str(event["module"]),
        call=int(event["call"]),
        output=int(event["output"]),
        dtype=dtype,
        window=window,
        inputs=tuple(event["inputs"]),
        view_of=view_of,
        in_place=bool(event["in_place"]),
    )
