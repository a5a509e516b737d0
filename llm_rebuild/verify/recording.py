"""A run, operation by operation: what made each tensor, of what, and which line of whose file wanted it.

Views, whole numbers, truth values and writing in place are operations like others. Whose numbers a tensor
shows is told by its window on memory, which holds where Python's objects change (under autograd, in a
detached copy).

What comes of it is a graph: a node for each tensor, and in its arguments the numbers of other nodes. So a
piece of it can be computed again, with one thing changed, without the code that made it. Where something was
made out of sight (numpy, another thread, compiled code), its node has no function, and nothing is said about
how it came to be.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from llm_rebuild.verify.equality import identical
from llm_rebuild.verify.operations import compute, facts_of, leaves, mapped, overwritten, written_by


class Ref(NamedTuple):
    """In arguments the place of a tensor: the node's number."""

    node: int


class Frame(NamedTuple):
    """A line of a person's own file, in one call of its function: `call` counts them all."""

    file: str
    number: int
    function: str
    call: int = 0

    @property
    def line(self) -> tuple[str, int]:
        """Which line it is, whoever called."""
        return self.file, self.number

    @property
    def scope(self) -> tuple[str, str]:
        """Which function it stands in, whichever call of it."""
        return self.file, self.function

    @property
    def text(self) -> str:
        """What stands on it."""
        return linecache.getline(self.file, self.number)


class Returned(NamedTuple):
    """A module that returned a tensor.

    name       Its path; from its second call on with the call's number, `path[1]`.
    kind       Its class.
    at         How many nodes there were by then.
    arguments  The nodes that went into it.
    """

    name: str
    kind: str
    at: int
    arguments: tuple[int, ...]


# An operation's name, where it was asked for (lines, or a module's path), and how often that had been before.
# Holds, too, in a run in which an operation before it was left out.
Call = tuple[str, Any, int]
NO_CALL: Call = ("", (), 0)


@dataclass(slots=True)
class Node:
    """A tensor of a run.

    function   What made it; None for what came from outside.
    arguments  Of the function, with `Ref` for tensors; `named` are those by name.
    output     Which of the results it is, if there are several.
    call       Which operation it is.
    frames     The lines that asked for it, innermost first.
    value      The tensor as it was then; None for an operation that failed.
    base       Whose numbers it shows: its own number, unless it is a view.
    name       Of what came from outside: the weight's key, `inputs.token_ids`, a checkpoint's name; of what
               an official model computed `h.0.attn.softmax[0]`; else empty.
    checkpoint On the official side: which it is.
    returned   On the official side: the modules that returned it, innermost first.
    inputs     The nodes that go in, in the order of the arguments.
    """

    number: int
    function: Any
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    output: int
    call: Call
    frames: tuple[Frame, ...]
    value: Any
    base: int = -1
    name: str = ""
    checkpoint: str = ""
    returned: list[Returned] = field(default_factory=list)
    inputs: list[int] = field(init=False)

    def __post_init__(self) -> None:
        leaf = leaves((self.arguments, self.named))
        self.inputs = [ref.node for ref in leaf if type(ref) is Ref]

    @property
    def operation(self) -> str:
        """The function's name: `mul`, `native_layer_norm`; empty for what came from outside."""
        return facts_of(self.function).name

    @property
    def numbers(self) -> tuple[float, ...]:
        """The plain numbers among the arguments: a factor, an epsilon."""
        values = (*self.arguments, *self.named.values())
        return tuple(float(value) for value in values if type(value) in (int, float))


def recompute(node: Node, put: Callable[[Any], Any]) -> Any:
    """A node's operation by itself, each leaf of its arguments as `put` gives it."""
    return compute(node.function, mapped(node.arguments, put), mapped(dict(node.named), put), node.output)


def again(node: Node, nodes: Sequence[Node]) -> Any:
    """A node's operation once more, on what went into it."""
    with torch.no_grad():
        return recompute(node, lambda leaf: nodes[leaf.node].value if type(leaf) is Ref else leaf)


Window = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass
class _Memory:
    """What is known of one piece of memory: the nodes that lie in it, and the last that was written."""

    nodes: list[int] = field(default_factory=list)
    written: int = -1
    window: Window | None = None


class Recording:
    """Makes nodes of what is seen of a run, one operation after the other.

    frames  Says which lines wait for what happens now.
    named   Says the name of what comes from outside.
    bytes   How much memory all that it keeps takes.
    """

    def __init__(
        self,
        frames: Callable[[], tuple[Frame, ...]] = tuple,
        named: Callable[[Tensor], str] = lambda tensor: "",
    ) -> None:
        self.nodes: list[Node] = []
        self.bytes = 0
        self._frames, self._named = frames, named
        self._at: dict[Window, int] = {}
        self._memory: dict[int, _Memory] = {}
        self._alive: list[Any] = []  # so that no address is given out twice

    def before(self, function: Any, args: Any, named: Any) -> tuple[Any, Any]:
        """The arguments of an operation with nodes for tensors, to be asked for before it writes into any.
        What lies there is kept as a copy from then on."""
        refs = mapped(args, self._ref), mapped(named, self._ref) if named else named
        for tensor in written_by(function, args, named) if facts_of(function).written else ():
            memory = self._memory.get(address_of(tensor))
            if memory is not None:
                with torch.no_grad():
                    for number in memory.nodes:
                        self.nodes[number].value = self.nodes[number].value.clone()
                memory.nodes.clear()
        return refs

    def add(
        self, function: Any, refs: tuple[Any, Any], outputs: Sequence[Any], call: Call, frames: Any = ()
    ) -> list[Node]:
        """The nodes of an operation's results. refs: as `before` gave them."""
        written, added = facts_of(function).written, list[Node]()
        for at, output in enumerate(outputs):
            if isinstance(output, Tensor):
                node, window = self.node(function, refs, at, call, frames), window_of(output)
                if not written and window[0] in self._memory:
                    node.base = self._base(refs, window[0], node.number)
                memory = self._place(node, output, window)
                if written:
                    memory.written, memory.window = node.number, window
                added.append(node)
        return added

    def node(self, function: Any, refs: tuple[Any, Any], at: int, call: Call, frames: Any) -> Node:
        """A node whose tensor is not there, or not yet."""
        number = len(self.nodes)
        node = Node(number, function, *refs, at, call, frames, None, number)
        self.nodes.append(node)
        return node

    def leaf(self, tensor: Tensor, name: str = "") -> int:
        """A node for what no operation made: a weight, an input, or something from elsewhere."""
        node = self.node(None, ((), {}), 0, NO_CALL, self._frames())
        node.name = name or self._named(tensor)
        self._place(node, tensor, window_of(tensor))
        return node.number

    def number(self, tensor: Tensor) -> int:
        """The node of a tensor as it is now."""
        window = window_of(tensor)
        number = self._at.get(window)
        if number is None:  # from outside; or another window on memory that is known, opened unseen
            return self.leaf(tensor)
        memory = self._memory.get(window[0])
        if memory is None or memory.written <= number or memory.window is None:
            return number
        part = memory.window
        refs = (Ref(number), Ref(memory.written), tuple(part[2]), part[3], part[1] - window[1])
        node = self.node(overwritten, (refs, {}), 0, NO_CALL, self.nodes[memory.written].frames)
        with torch.no_grad():
            node.value = tensor.detach().clone()
        self._at[window] = node.number
        return node.number

    def seen(self, tensor: Tensor) -> int | None:
        """The node of a tensor that went through an operation; None for any other."""
        return self._at.get(window_of(tensor)) if tensor.layout is torch.strided else None

    def holds(self, tensor: Tensor) -> bool:
        """Whether anything that was seen lies in the memory of a tensor."""
        return address_of(tensor) in self._memory

    def _ref(self, value: Any) -> Any:
        return Ref(self.number(value)) if isinstance(value, Tensor) else value

    def _base(self, refs: tuple[Any, Any], address: int, number: int) -> int:
        """Of an operation that wrote nothing: whose memory its result lies in."""
        nodes = self._memory[address].nodes
        inputs = (ref.node for ref in leaves(refs) if type(ref) is Ref and ref.node in nodes)
        source = next(inputs, None)
        return number if source is None else self.nodes[source].base

    def _place(self, node: Node, value: Tensor, window: Window) -> _Memory:
        node.value = value.detach() if value.requires_grad else value
        memory = self._memory.get(window[0])
        if memory is None:
            memory = self._memory[window[0]] = _Memory()
            self._alive.append(value.untyped_storage() if value.layout is torch.strided else value)
            self.bytes += value.untyped_storage().nbytes() if value.layout is torch.strided else 0
        memory.nodes.append(node.number)
        self._at[window] = node.number
        return memory


def name_among(sources: Mapping[str, Tensor]) -> Callable[[Tensor], str]:
    """What tells which of these a tensor is, by its numbers: a name; empty for any other."""
    alike: dict[tuple[Any, ...], dict[Any, list[tuple[str, Tensor]]]] = {}
    for name, tensor in sources.items():
        same = alike.setdefault((tensor.shape, tensor.dtype), {})
        same.setdefault(_first_of(tensor), []).append((name, tensor))

    def name_of(tensor: Tensor) -> str:
        """The name; empty for a tensor that is none of them."""
        with torch.no_grad():
            same = alike.get((tensor.shape, tensor.dtype))
            like = same.get(_first_of(tensor), ()) if same else ()
            return next((name for name, one in like if one is tensor or identical(one, tensor)), "")

    return name_of


def _first_of(tensor: Tensor) -> Any:
    """A tensor's first number. NaN has many bit patterns."""
    first = tensor[(0,) * tensor.dim()].item() if tensor.numel() else 0
    return first if first == first else "NaN"


def address_of(tensor: Tensor) -> int:
    """Where a tensor's memory begins."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def window_of(tensor: Tensor) -> Window:
    """Where a tensor's numbers lie."""
    return address_of(tensor), int(tensor.storage_offset()), tensor.shape, tensor.stride(), tensor.dtype


class Products(TorchFunctionMode):
    """Shows a batched product as one operation: below, it is six, of which five lay memory out.

    show  Is given the function and its arguments, and does it.
    also  Other functions of which the same holds.
    """

    def __init__(self, show: Callable[[Any, Any, Any], Any], also: frozenset[Any] = frozenset()) -> None:
        super().__init__()
        self._show, self._also = show, also

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in _MATMUL and not kwargs and len(args) == 2:
            args = args[::-1] if function is Tensor.__rmatmul__ else args
            if all(isinstance(a, Tensor) and a.dim() > 2 for a in args):
                return self._show(torch.matmul, args, {})
        if function in self._also:
            return self._show(function, args, kwargs or {})
        return function(*args, **(kwargs or {}))


_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__}
