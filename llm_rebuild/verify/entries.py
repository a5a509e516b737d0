"""What a trace is made of: an entry for each floating-point tensor that the official model computed."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llm_rebuild.checkpoints import join
from llm_rebuild.errors import NoSuchNameError
from llm_rebuild.verify.find import Candidate, SearchResult, find

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


class Returned(NamedTuple):
    """A module that returned an entry.

    name       Its path; from its second call on with the call's number, `path[1]`.
    kind       Its class.
    at         How many entries there were by then.
    arguments  The entries that went into it.
    """

    name: str
    kind: str
    at: int
    arguments: tuple[int, ...]


@dataclass(slots=True)
class Entry:
    """One floating-point tensor of a trace.

    number      Its place in the order of computation.
    operation   What made it, by the name that programs use; `aten` is the dispatcher's.
    path        The module in which it was made.
    call        How many times this operation had been called in this module before.
    output      Which of the operation's results it is, if there are several.
    inputs      Numbers of the entries that went into the operation.
    view_of     The entry that it is a window on, if it is a view.
    numbers     The plain numbers among the operation's arguments: a factor, an epsilon.
    returned    The modules that returned it, innermost first.
    checkpoint  Its checkpoint's name, in a model of the course.
    """

    number: int
    operation: str
    aten: str
    path: str
    call: int
    output: int
    dtype: torch.dtype
    window: Window
    inputs: tuple[int, ...] = ()
    view_of: int | None = None
    numbers: tuple[float, ...] = ()
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


class Trace(Sequence[Entry]):
    """The entries of one forward pass, in order: `trace[0]`, `trace["h.0.attn.softmax[0]"]`.

    name         The model's.
    weights      Its weight file's tensors.
    checkpoints  Which entry a checkpoint is, by name, in a model of the course.
    memory       Where each computed entry's numbers are.
    """

    def __init__(self, name: str, weights: Mapping[str, Tensor]) -> None:
        self.name, self.weights = name, weights
        self.entries: list[Entry] = []
        self.checkpoints: dict[str, int] = {}
        self.memory: dict[int, Tensor] = {}

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

    def tensor(self, which: int | str | Entry) -> Tensor:
        """The numbers of an entry: a window on what the trace keeps, not to be written into."""
        entry = which if isinstance(which, Entry) else self[which]
        tensor = self.memory.get(entry.number)
        if tensor is not None and (tensor.shape, tensor.stride()) == entry.window[:2]:
            return tensor
        base = flat(self.memory[entry.base])
        return base.as_strided(entry.window.shape, entry.window.stride, entry.window.offset)

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

    def __repr__(self) -> str:
        size = sum(tensor.nbytes for tensor in self.memory.values())
        return (
            f"trace of {self.name}: {len(self.memory)} tensors computed ({size / 1e6:.0f} MB), "
            f"{len(self.entries) - len(self.memory)} views"
        )


def _view_in_words(entry: Entry, base: Entry) -> str:
    columns = base.shape[-1] if base.shape else 1
    first = entry.window.offset % columns
    if math.prod(entry.shape) == math.prod(base.shape):
        return f" (a view of {base.title})"
    return f" (a view of {base.title}, from its column {first} on)"


def flat(tensor: Tensor) -> Tensor:
    """A tensor's numbers in the order in which they lie in memory. [numbers]"""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
