"""What an official model computed in one forward pass: an entry for each tensor of numbers with decimals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from llm_rebuild.errors import NoSuchNameError
from llm_rebuild.verify.find import Candidate, SearchResult, find
from llm_rebuild.verify.operations import facts_of
from llm_rebuild.verify.recording import Node, Recording

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
# These give memory with nothing in it yet: no numbers were computed.
_EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


def is_entry(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether a tensor counts: it has decimals, an operation made it, and it is no view of a weight."""
    floating = node.value is not None and node.value.is_floating_point()
    outside = nodes[node.base].function is None
    return floating and not outside and facts_of(node.function).name not in _EMPTY


def title(node: Node) -> str:
    """The name by which to speak of it: the checkpoint's, the module's that returned it, its own."""
    return node.checkpoint or (node.returned[0].name if node.returned else node.name)


def aside(node: Node) -> str:
    """Why it is nothing that the model computed: a copy, a constant, a statistic. Empty where it is."""
    word = facts_of(node.function).word
    if node.output and word in STATISTICS:
        return STATISTICS[word]
    if word in COPIES:
        return "plain copies"
    if word in CONSTANTS:
        return "filled with one number"
    return "" if node.value.shape else "single constants"


@dataclass(frozen=True)
class Trace:
    """The entries of one forward pass: `trace["h.0.attn.softmax[0]"]`. Iterating gives them in order.

    model        The model's name.
    weights      Its weight file's tensors.
    recording    Everything that was seen: the entries, and what else they are made of.
    checkpoints  Which node a checkpoint is, by name, in a model of the course.
    own          The numbers of the nodes of this pass: those before it are of others, from whose keys and
                 values it goes on.
    """

    model: str
    weights: Mapping[str, Tensor]
    recording: Recording
    checkpoints: Mapping[str, int]
    own: range

    @property
    def nodes(self) -> list[Node]:
        """Every tensor of the run, by its number."""
        return self.recording.nodes

    def __iter__(self) -> Iterator[Node]:
        nodes = map(self.nodes.__getitem__, self.own)
        return (node for node in nodes if node.function is not None and node.name)

    def __getitem__(self, name: str) -> Node:
        """An entry by name: its own, a checkpoint's, or that of a module that returned it."""
        number = self.names().get(name)
        if number is None:
            raise NoSuchNameError(f"the trace has no tensor {name!r}")
        return self.nodes[number]

    def names(self) -> dict[str, int]:
        """Every name and the node it stands for."""
        names = dict(self.checkpoints)
        for entry in self:
            for name in (*(module.name for module in entry.returned), entry.name):
                names.setdefault(name, entry.number)
        return names

    def computed(self) -> Iterator[Node]:
        """The entries that are no views."""
        return (entry for entry in self if entry.base == entry.number)

    def find(self, tensor: Any, limit: int = 5) -> SearchResult:
        """Which official tensor is this? See `llm_rebuild.verify.find`."""
        return find(tensor, self._candidates(), self.weights, limit)

    def _candidates(self) -> list[Candidate]:
        """What was computed, under the best name that it has, and every different view."""
        best: dict[int, Node] = {}
        for entry in self:
            base = entry.base
            named = bool(entry.checkpoint or entry.returned)
            if base not in best or (named and self.whole_of(entry) and title(best[base]) == best[base].name):
                best[base] = entry
        candidates: list[Candidate] = []
        seen: set[tuple[Any, ...]] = set()
        for entry in [*best.values(), *self]:
            base, value = entry.base, entry.value
            window = (base, value.shape, value.stride(), value.storage_offset())
            if window in seen:
                continue
            seen.add(window)
            if entry is not best[base] and value.shape == best[base].value.shape and not entry.returned:
                continue
            of = "" if entry is best[base] or base == entry.number else _view_in_words(entry, best[base])
            name, named = title(entry), title(entry) != entry.name
            whole = self.whole_of(entry)
            candidates.append(Candidate(name, value, base, named, of, whole))
        return candidates

    def whole_of(self, entry: Node) -> bool:
        """Whether an entry shows as many numbers as were computed, and not a slice of them."""
        return bool(entry.value.numel() == self.nodes[entry.base].value.numel())

    def __repr__(self) -> str:
        computed = [entry.value for entry in self.computed()]
        size = sum(tensor.nbytes for tensor in computed)
        views = len(list(self)) - len(computed)
        return f"trace of {self.model}: {len(computed)} tensors computed ({size / 1e6:.0f} MB), {views} views"


def _view_in_words(entry: Node, base: Node) -> str:
    shape = base.value.shape
    first = (entry.value.storage_offset() - base.value.storage_offset()) % (shape[-1] if shape else 1)
    if entry.value.numel() == math.prod(shape):
        return f" (a view of {title(base)})"
    return f" (a view of {title(base)}, from its column {first} on)"
