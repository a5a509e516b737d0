"""What a trace is made of: an entry for each floating-point tensor that the official model computed."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llm_rebuild.checkpoints import join
from llm_rebuild.errors import InputError, NoSuchNameError
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.find import Candidate, SearchResult, find
from llm_rebuild.verify.trace_file import Place, TensorFile, events

FORMAT = "llm_rebuild trace 1"
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
        """torch's shape."""
        return self.window.shape

    @property
    def bytes(self) -> int:
        """How much memory its numbers take, by themselves."""
        return math.prod(self.window.shape) * self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """What a trace file says of it, numbers aside. JSON-ready."""
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
            return flat(tensor)
        assert self.file is not None  # what is not in memory was written
        return self.file.read(number)

    @property
    def in_memory(self) -> int:
        """How many bytes of its numbers are in memory, and not in a file."""
        return sum(self.entries[number].bytes for number in self.memory)

    def computed(self) -> Iterator[Entry]:
        """The entries that are no views."""
        return (entry for entry in self.entries if entry.view_of is None)

    def find(self, tensor: Tensor, limit: int = 5) -> SearchResult:
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
        candidates: list[Candidate] = []
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
            candidates.append(
                Candidate(entry.title, entry.shape, read, base, named, of, self.whole_of(entry))
            )
        return candidates

    def whole_of(self, entry: Entry) -> bool:
        """Whether an entry shows as many numbers as were computed, and not a slice of them."""
        return entry.view_of is None or math.prod(entry.shape) == math.prod(self.entries[entry.view_of].shape)

    def about(self) -> dict[str, Any]:
        """What a file of it begins with. JSON-ready."""
        inputs = self.inputs
        decoder = {}
        if inputs.decoder_ids is not None and inputs.decoder_mask is not None:
            decoder = {
                "decoder_ids": inputs.decoder_ids.tolist(),
                "decoder_mask": inputs.decoder_mask.tolist(),
            }
        return {
            "format": FORMAT,
            "model": dict(self.model),
            "attention": self.attention,
            "environment": dict(self.environment),
            "texts": inputs.texts,
            "tokens": inputs.tokens,
            "truncated": inputs.truncated,
            "token_ids": inputs.token_ids.tolist(),
            "mask": inputs.mask.tolist(),
            **decoder,
        }

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
            traced = _begun(first[0])
            traced.file = TensorFile(opened, file)
            for event, numbers in stored:
                if numbers is not None:
                    traced.file.places[len(traced)] = numbers
                _replay(traced, event, numbers)
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError):
        raise no_trace from None
    return traced


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


def _replay(traced: Trace, event: dict[str, Any], numbers: Place | None) -> None:
    """One event. Raises ValueError for what no run can have written."""
    if "end" in event:
        traced.skipped.update(event["skipped"])
        traced.whole = event["end"] == len(traced)
    elif "returned" in event:
        module = event["returned"]
        arguments = tuple(int(number) for number in module["given"])
        returned = Returned(str(module["name"]), str(module["kind"]), int(module["at"]), arguments)
        traced.entries[event["entry"]].returned.append(returned)
    elif "checkpoint" in event:
        traced.is_checkpoint(str(event["checkpoint"]), traced.entries[event["entry"]])
    else:
        traced.entries.append(_entry(traced, event, numbers))


def _entry(traced: Trace, event: dict[str, Any], numbers: Place | None) -> Entry:
    window = Window(tuple(event["shape"]), tuple(event["stride"]), event["offset"])
    view_of, number = event["view_of"], len(traced)
    if numbers is None:
        base = traced.entries[view_of]
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


def flat(tensor: Tensor) -> Tensor:
    """A tensor's numbers in the order in which they lie in memory. [numbers]"""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
