"""Everything that an official model computes in one forward pass, in order.

Checkpoints are a chosen list. A trace is all there is: below torch's functions stands the dispatcher, through
which every tensor that is computed has to pass, also those inside composite operations. A mode that sits
there is shown each result, and hooks on the modules tell where in the model it was made.

Each result is copied when it is made, because later operations may write into it. A view (a transposition, a
slice, a reshape) computes nothing: its entry says which entry it is a window on, and is read through it.

Tensors are kept in memory, or, where they do not fit, in a file to which each is appended as it is made. The
file is nothing but safetensors, one after the other, each with one tensor and a note of what it is. What was
appended before a crash can be read: `Trace.load` goes as far as the last whole tensor.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import mmap
import os
import struct
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.checkpoints import join
from llm_rebuild.errors import InputError
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.find import Candidate, Found, find
from llm_rebuild.verify.official import Official, Watcher, places
from llm_rebuild.verify.question import Model, Options, Question, ask, describe, has_rebuild

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
# These give memory with nothing in it yet: no numbers were computed.
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
# The dtypes that a file can hold, by their safetensors names.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 1 << 24  # bytes; the first one holds the texts and ids


@dataclass(frozen=True)
class Window:
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


@dataclass
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
    skipped  What has no entry: reason -> how often.
    whole    False where the run or the file broke off before its end.
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
        self.skipped: Counter[str] = Counter()
        self.whole = False
        self._memory: dict[int, Tensor] = {}  # entry -> its numbers in storage order
        self._file: _TensorFile | None = None

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
            raise InputError(f"the trace has no tensor {which!r}")
        return self.entries[number]

    def names(self) -> dict[str, int]:
        """Every name and the entry it stands for."""
        found: dict[str, int] = {}
        for entry in self.entries:
            for name in (entry.checkpoint, *(module.name for module in entry.returned), entry.name):
                if name is not None:
                    found.setdefault(name, entry.number)
        return found

    def tensor(self, which: int | str | Entry) -> Tensor:
        """The numbers of an entry: a window on what the trace keeps, not to be written into."""
        entry = which if isinstance(which, Entry) else self[which]
        base = self.numbers(entry.number if entry.view_of is None else entry.view_of)
        return base.as_strided(entry.window.shape, entry.window.stride, entry.window.offset)

    def numbers(self, number: int) -> Tensor:
        """All numbers of a computed entry, in the order in which they lay in memory. [numbers]"""
        kept = self._memory.get(number)
        if kept is not None:
            return kept
        assert self._file is not None  # what is not in memory was written
        return self._file.read(number)

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
            base = entry.number if entry.view_of is None else entry.view_of
            named = entry.checkpoint is not None or bool(entry.returned)
            if base not in best or (named and self._whole(entry) and best[base].title == best[base].name):
                best[base] = entry
        found: list[Candidate] = []
        seen: set[tuple[int, Window]] = set()
        for entry in [*best.values(), *self]:
            base = entry.number if entry.view_of is None else entry.view_of
            if (base, entry.window) in seen:
                continue
            seen.add((base, entry.window))
            if entry is not best[base] and entry.shape == best[base].shape and not entry.returned:
                continue
            of = "" if entry is best[base] or entry.view_of is None else _view_in_words(entry, best[base])
            read = functools.partial(self.tensor, entry)
            named = entry.title != entry.name
            found.append(Candidate(entry.title, entry.shape, read, base, named, of, self._whole(entry)))
        return found

    def _whole(self, entry: Entry) -> bool:
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
    taken = Trace(describe(copy), question.attention, question.inputs, environment(), copy.weights().peek())
    wanted = places(question.checkpoints()) if has_rebuild(copy) else {}
    with _Recorder(taken, official, budget, None if out is None else Path(out)) as recorder:

        def found(path: str, event: str, value: Any) -> None:
            for name in wanted.get((path, event), ()):
                recorder.is_checkpoint(value[0] if isinstance(value, tuple) else value, name)

        with Watcher(dict(official.parts()), found, wanted.keys()) if wanted else contextlib.nullcontext():
            official.run(question, copies=False)
    return taken


# ------------------------------------------------------------------------------------- recording


class _Recorder(TorchDispatchMode):
    """Fills a trace while the official model runs. It is shown every operation and changes none."""

    def __init__(self, taken: Trace, official: Official, budget: int | None, out: Path | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._trace, self._official = taken, official
        self._kept, self._budget, self._out = 0, budget, out
        self._hooks: list[Any] = []
        self._inside: list[tuple[str, str]] = [("", type(official.model).__name__)]
        self._given: list[set[int]] = []
        self._calls: Counter[tuple[str, str]] = Counter()
        self._returns: Counter[str] = Counter()
        self._facts: dict[Any, tuple[str, str, tuple[Any, ...]]] = {}
        # Whose numbers lie at an address in memory. Every new tensor that takes the place of a dead one
        # passes here and overwrites what is said of it.
        self._at: dict[int, int] = {}
        self._views: dict[int, dict[tuple[Any, ...], int]] = {}
        numbers = (*official.model.parameters(), *official.model.buffers())
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in numbers}

    def __enter__(self) -> _Recorder:
        if self._out is not None:
            self._trace._file = _TensorFile.new(self._out, self._about())
        for path, part in self._official.parts():
            self._hooks.append(part.register_forward_pre_hook(self._entering(path), with_kwargs=True))
            self._hooks.append(part.register_forward_hook(self._leaving(path)))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: Any, *problem: Any) -> None:
        super().__exit__(kind, *problem)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()
        self._trace.whole = kind is None
        if self._trace._file is not None:
            if kind is None:
                self._trace._file.note({"end": len(self._trace), "skipped": dict(self._trace.skipped)})
            self._trace._file.close(safely=kind is None)

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

    def _entering(self, path: str) -> Any:
        def hook(module: nn.Module, arguments: Any, named: Any) -> None:
            self._inside.append((path, type(module).__name__))
            given = (self._number(t) for t in _tensors((*arguments, *named.values())))
            self._given.append({number for number in given if number is not None})

        return hook

    def _leaving(self, path: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            self._inside.pop()
            given = self._given.pop()
            answer = next((t for t in _tensors((output,)) if t.is_floating_point()), None)
            if answer is None or not path:
                return
            number = self._number(answer)
            if number is None or number in given:  # dropout in evaluation hands on what it was given
                return
            call = self._returns[path]
            self._returns[path] += 1
            name = f"{path}[{call}]" if call else path
            event = Returned(name, type(module).__name__, len(self._trace), tuple(sorted(given)))
            self._trace.entries[number].returned.append(event)
            self._note({"entry": number, "returned": event._asdict()})

        return hook

    def is_checkpoint(self, tensor: Tensor, name: str) -> None:
        """Say that a tensor which is alive right now is a checkpoint."""
        number = self._number(tensor)
        if number is not None and self._trace.entries[number].checkpoint is None:
            self._trace.entries[number].checkpoint = name
            self._note({"checkpoint": name, "entry": number})

    def _number(self, tensor: Tensor) -> int | None:
        """The entry of a tensor that is alive: the very window, or the whole where that is the window."""
        address = tensor.untyped_storage().data_ptr()
        where = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        return self._views.get(address, {}).get(where, self._at.get(address))

    # ------------------------------------------------------------------------------- what is computed

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **kwargs) if kwargs else function(*args)
        facts = self._facts.get(function)
        if facts is None:
            facts = self._facts[function] = _facts(function)
        operation, aten, written = facts
        given = list(_tensors((*args, *kwargs.values()) if kwargs else args))
        addresses = [tensor.untyped_storage().data_ptr() for tensor in given]
        if written:
            outputs: Iterable[Any] = _written(written, args, kwargs or {})
        else:
            outputs = result if isinstance(result, tuple | list) else (result,)
        sources: tuple[int, ...] | None = None
        path, module = self._inside[-1]
        call = None
        for position, output in enumerate(outputs):
            if not isinstance(output, Tensor):
                continue
            address = output.untyped_storage().data_ptr()
            view = not written and address != 0 and address in addresses
            if not output.is_floating_point():
                self._trace.skipped["whole numbers or truth values"] += 1
                if not view:
                    self._at.pop(address, None)
                    self._views.pop(address, None)
                continue
            if view and address in self._weights and address not in self._at:
                self._trace.skipped["views of a weight"] += 1
                continue
            if operation in _EMPTY:
                self._trace.skipped["memory without numbers"] += 1
                self._at.pop(address, None)
                self._views.pop(address, None)
                continue
            if sources is None:
                sources = self._sources(addresses)
            if call is None:
                call = self._calls[path, operation]
                self._calls[path, operation] += 1
            entry = Entry(
                len(self._trace), operation, aten, path, module, call, position, output.dtype,
                Window(tuple(output.shape), output.stride()), sources, in_place=bool(written),
            )  # fmt: skip
            self._add(entry, output, address, view)
        return result

    def _sources(self, addresses: list[int]) -> tuple[int, ...]:
        """The entries whose numbers lie at these addresses."""
        found: dict[int, None] = {}
        for address in addresses:
            if address in self._at:
                found[self._at[address]] = None
            elif address in self._views:
                found[max(self._views[address].values())] = None
        return tuple(found)

    def _add(self, entry: Entry, output: Tensor, address: int, view: bool) -> None:
        offset = int(output.storage_offset())
        base = self._at.get(address) if view else None
        if base is not None:
            entry.view_of, entry.window = base, Window(entry.window.shape, entry.window.stride, offset)
            self._trace.entries.append(entry)
            self._note(entry.to_json())
            self._views.setdefault(address, {})[offset, entry.shape, entry.window.stride] = entry.number
            return
        everything = output.numel() * output.dtype.itemsize == output.untyped_storage().nbytes()
        dense = everything and offset == 0 and 0 not in output.stride()
        if not dense and not output.is_contiguous():
            output = output.contiguous()
            entry.window = Window(entry.shape, output.stride())
        self._keep(entry, output)
        self._trace.entries.append(entry)
        self._views.pop(address, None)
        if dense and not view:
            self._at[address] = entry.number
        else:  # a part of some memory: windows on the rest of it cannot be told by this entry
            self._at.pop(address, None)
            self._views[address] = {(offset, entry.shape, entry.window.stride): entry.number}

    def _keep(self, entry: Entry, output: Tensor) -> None:
        """A copy in memory or in the file: now, before anything is written into the tensor."""
        numbers = output.as_strided((output.numel(),), (1,), output.storage_offset())
        size = entry.bytes
        if self._out is None and (self._budget is None or self._kept + size <= self._budget):
            self._trace._memory[entry.number] = numbers.clone()
            self._kept += size
            return
        if self._trace._file is None:
            self._trace._file = _TensorFile.new(None, self._about())
        self._trace._file.append(entry.number, numbers, entry.to_json())

    def _note(self, event: dict[str, Any]) -> None:
        if self._out is not None and self._trace._file is not None:
            self._trace._file.note(event)


def _facts(function: Any) -> tuple[str, str, tuple[Any, ...]]:
    """An operation's name in programs, its own, and which of its arguments it writes into."""
    own = function.overloadpacket.__name__
    word = _WORDS.get(own, own.removesuffix("_"))
    arguments = function._schema.arguments
    written = tuple(
        argument.name if argument.kwarg_only else position
        for position, argument in enumerate(arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    return word, f"aten.{own}", written


def _written(which: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    chosen = [kwargs.get(w) if isinstance(w, str) else args[w] if w < len(args) else None for w in which]
    return list(_tensors(chosen))


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among some values, in lists and dicts inside them, too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


# ---------------------------------------------------------------------------------------- the file


class _TensorFile:
    """Tensors appended to a file, each a safetensors file of its own, and read from it.

    A safetensors file is: eight bytes, the length of the header; the header, JSON; the numbers. What is
    noted stands in the header's `__metadata__`, with or without a tensor behind it.
    """

    def __init__(self, file: IO[bytes], path: Path | None) -> None:
        self._file, self.path = file, path
        self._end = 0
        self._where: dict[int, tuple[int, int, torch.dtype]] = {}  # entry -> position, count, dtype
        self._map: mmap.mmap | None = None

    @classmethod
    def new(cls, path: Path | None, about: dict[str, Any]) -> _TensorFile:
        """An empty file, a temporary one without a path, that begins with a note."""
        try:
            if path is None:
                file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # open as long as the trace
            else:
                file = path.open("w+b", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from None
        made = cls(file, path)
        made.note(about)
        return made

    def note(self, event: dict[str, Any]) -> None:
        self._write(_header({}, event, self._end))

    def append(self, number: int, numbers: Tensor, event: dict[str, Any]) -> None:
        """numbers [count], contiguous."""
        if numbers.dtype not in _DTYPE_NAMES:
            raise InputError(f"a file cannot hold numbers of {numbers.dtype}; trace into memory instead")
        size = numbers.numel() * numbers.dtype.itemsize
        tensor = {
            f"entry/{number}": {
                "dtype": _DTYPE_NAMES[numbers.dtype],
                "shape": [numbers.numel()],
                "data_offsets": [0, size],
            }
        }
        self._write(_header(tensor, event, self._end))
        self._where[number] = (self._end, numbers.numel(), numbers.dtype)
        if size:
            self._write(numbers.view(torch.uint8).numpy().data)

    def _write(self, data: Any) -> None:
        left = memoryview(data)
        try:
            while left:
                done = self._file.write(left)
                left = left[done:]
                self._end += done
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def close(self, safely: bool) -> None:
        """No more is appended. `safely`: and it is on the disk, not on its way there."""
        if safely and self.path is not None:
            os.fsync(self._file.fileno())
        if self.path is not None:
            self._file.close()

    def read(self, number: int) -> Tensor:
        """A window on the file's pages. [count]"""
        position, count, dtype = self._where[number]
        if count == 0:
            return torch.empty(0, dtype=dtype)
        if self._map is None:
            self._map = self._mapped()
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=position)

    def _mapped(self) -> mmap.mmap:
        try:
            if self.path is None:
                return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
            with self.path.open("rb") as opened:
                return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} cannot be read ({' '.join(str(error).split())})") from None


def _header(tensor: dict[str, Any], event: dict[str, Any], position: int) -> bytes:
    """Length and header, padded so that the numbers behind it lie at a multiple of eight bytes."""
    text = json.dumps({"__metadata__": {"llm_rebuild": json.dumps(event)}, **tensor}).encode()
    text += b" " * (-(position + 8 + len(text)) % 8)
    return struct.pack("<Q", len(text)) + text


def _unwritable(path: Path | None, error: OSError) -> InputError:
    place = "the temporary file" if path is None else str(path)
    return InputError(f"{place} cannot be written ({' '.join(str(error).split())}); choose another place")


def _read(file: Path) -> Trace:
    """The events of a file, lived through again."""
    no_trace = InputError(f"{file} is not a trace file; `trace(..., out=FILE)` makes one")
    try:
        with file.open("rb") as opened:
            length = os.fstat(opened.fileno()).st_size
            events = _events(opened, length, no_trace)
            first = next(events, None)
            if first is None or first[0].get("format") != FORMAT:
                raise no_trace
            taken = _begun(first[0])
            stored = taken._file = _TensorFile(opened, file)
            for event, place in events:
                if place is not None:
                    stored._where[len(taken)] = place
                _relive(taken, event, place)
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError):
        raise no_trace from None
    return taken


def _events(
    opened: IO[bytes], length: int, no_trace: InputError
) -> Iterator[tuple[dict[str, Any], tuple[int, int, torch.dtype] | None]]:
    """Each whole event, and where its numbers are. Ends where the file does, or where it was cut off."""
    position = 0
    while position + 8 <= length:
        opened.seek(position)
        (size,) = struct.unpack("<Q", opened.read(8))
        if size == 0 or (position == 0 and size > _LONGEST_HEADER):
            if position == 0:
                raise no_trace
            return  # pages that the system had not filled yet when it stopped
        if size > min(_LONGEST_HEADER, length - position - 8):
            return
        try:
            header = json.loads(opened.read(size))
        except ValueError:
            if position == 0:
                raise no_trace from None
            return
        position += 8 + size
        event = json.loads(header["__metadata__"]["llm_rebuild"])
        tensors = [value for key, value in header.items() if key != "__metadata__"]
        if not tensors:
            yield event, None
            continue
        (tensor,) = tensors
        dtype, (count,), (start, end) = _DTYPES[tensor["dtype"]], tensor["shape"], tensor["data_offsets"]
        if start != 0 or type(count) is not int or count < 0 or end != count * dtype.itemsize:
            raise no_trace
        if end > length - position:
            return
        yield event, (position, count, dtype)
        position += end


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


def _relive(taken: Trace, event: dict[str, Any], place: tuple[int, int, torch.dtype] | None) -> None:
    """One event. ValueError for what cannot have happened."""
    if "end" in event:
        taken.skipped.update(event["skipped"])
        taken.whole = event["end"] == len(taken)
    elif "returned" in event:
        module = event["returned"]
        given = tuple(int(number) for number in module["given"])
        returned = Returned(str(module["name"]), str(module["kind"]), int(module["at"]), given)
        taken.entries[event["entry"]].returned.append(returned)
    elif "checkpoint" in event:
        taken.entries[event["entry"]].checkpoint = str(event["checkpoint"])
    else:
        taken.entries.append(_entry(taken, event, place))


def _entry(taken: Trace, event: dict[str, Any], place: tuple[int, int, torch.dtype] | None) -> Entry:
    window = Window(tuple(event["shape"]), tuple(event["stride"]), event["offset"])
    view_of, number = event["view_of"], len(taken)
    if place is None:
        base = taken.entries[view_of]
        if base.number != view_of or base.view_of is not None:
            raise ValueError("a view of a view")
        count, dtype = math.prod(base.shape), base.dtype
    else:
        _, count, dtype = place
    if event["number"] != number or (view_of is None) != (place is not None) or not window.fits(count):
        raise ValueError("an entry that is none")
    if any(type(i) is not int or not 0 <= i < number for i in event["inputs"]):
        raise ValueError("made of what does not exist")
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
