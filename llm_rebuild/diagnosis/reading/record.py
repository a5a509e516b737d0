"""A run, operation by operation, with the line of source that asked for each.

Below torch's functions stands the dispatcher. A mode that sits there is shown every operation: what it is,
what goes in, what comes out; and the call stack says which line of whose file wanted it. Views, whole
numbers, truth values and writing in place are operations like others. What a tensor is made of is told by its
window on memory, which holds where Python's objects change (under autograd, in a detached copy).

A record is a graph: a node for each tensor, and in its arguments the numbers of other nodes. So a piece of it
can be computed again, with one thing changed, without the code that made it. Where something was made out of
sight (numpy, another thread, compiled code), its node has no function, and nothing is said about how it came
to be.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.verify.equality import identical

OPERATIONS = 200_000  # of a run; a rebuild of a large model has some thousands
BYTES = 2 * 2**30  # of the tensors that are kept; a learner's process may have twice as many by default
STEPS = 100_000  # lines that ran, each with what its names held
PARTS = 1000  # of a list or a dict that is looked into
SHALLOW = 3  # frames that tell an operation from others of its name
FRAMES = 12  # of a person's own, for one operation


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
    def text(self) -> str:
        """What stands on it."""
        return linecache.getline(self.file, self.number)


class Step(NamedTuple):
    """A line that began to run.

    nodes  How many tensors there were by then.
    names  What its function's variables held: of tensors the numbers of nodes, of numbers these, None; of a
           tuple, a list, a dict or a dataclass what is in it. `looks.mask` is the field of a tuple.
    """

    frame: Frame
    nodes: int
    names: Mapping[str, frozenset[Any]]

    @property
    def empty(self) -> set[str]:
        """The names that were None."""
        return {name for name, held in self.names.items() if held == {None}}


# Holds, too, in a run in which an operation before it was left out.
Call = tuple[str, tuple[tuple[str, int], ...], int]


class Ref(NamedTuple):
    """In arguments the place of a tensor: the node's number."""

    node: int


@dataclass(slots=True)
class Node:
    """A tensor of a run.

    function   What made it; None for what came from outside.
    arguments  Of the function, with `Ref` for tensors; `named` are those by name.
    output     Which of the results it is, if there are several.
    call       Which operation it is: its name, the lines that asked for it, and how often that had been
               before.
    frames     The lines that asked for it, innermost first.
    value      The tensor as it was then; None for an operation that failed.
    name       Of what came from outside: the weight's key, `inputs.token_ids`, a checkpoint's name; else
               empty.
    checkpoint On the official side: which it is.
    """

    number: int
    function: Any
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]
    output: int
    call: Call
    frames: tuple[Frame, ...]
    value: Any
    name: str = ""
    checkpoint: str = ""

    @property
    def operation(self) -> str:
        """The function's name: `mul`, `native_layer_norm`; empty for what came from outside."""
        return operation_of(self.function)

    @property
    def inputs(self) -> list[int]:
        """The nodes that go in, in the order of the arguments."""
        return [ref.node for ref in leaves((self.arguments, tuple(self.named.values()))) if type(ref) is Ref]


def operation_of(function: Any) -> str:
    """`aten.mul.Tensor` -> `mul`; what writes in place loses the mark of it: `mul_` is `mul`."""
    if function is None:
        return ""
    name = str(getattr(function, "__name__", function)).partition(".")[0]
    return name if name.startswith("_") or not name.endswith("_") else name.rstrip("_")


def leaves(values: Any) -> Iterator[Any]:
    """Everything in nested lists and tuples. A `Ref` is one thing."""
    for value in values:
        if type(value) in (list, tuple):
            yield from leaves(value)
        else:
            yield value


def mapped(values: Any, change: Callable[[Any], Any]) -> Any:
    """The same nest with each leaf changed."""
    if type(values) in (list, tuple):
        return type(values)(mapped(value, change) for value in values)
    return {k: mapped(v, change) for k, v in values.items()} if type(values) is dict else change(values)


class Record:
    """The nodes of a run, in order, and which node was tapped under which name.

    taps     The call stacks of the taps.
    steps    Each line of theirs that ran, in order.
    callers  Of each call of a function of theirs: which call it was made in; 0 where it was none of theirs.
    results  What a call gave back, and how many lines had run by then; a generator does so several times.
    wrong    What was tapped and was not the official tensor.
    traced   Whether its lines were seen to the end: code may take `sys.settrace` for itself.
    full     Why the run was not read to its end; empty where it was.
    error    What ended it.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tapped: dict[str, int] = {}
        self.taps: dict[str, tuple[Frame, ...]] = {}
        self.steps: list[Step] = []
        self.callers: dict[int, int] = {}
        self.results: dict[int, list[tuple[int, frozenset[Any]]]] = {}
        self.wrong: set[str] = set()
        self.traced = True
        self.full = ""
        self.error: Exception | None = None

    def name(self, checkpoints: Mapping[str, Tensor]) -> None:
        """Say which nodes the checkpoints are: the first that has a tensor's numbers, after the last
        one's."""
        start = 0
        for name, tensor in checkpoints.items():
            at = self._first(tensor, start)
            at = self._first(tensor, 0) if at is None else at
            if at is not None:
                self.tapped[name], start = at, at
                self.nodes[at].checkpoint = self.nodes[at].checkpoint or name

    def _first(self, tensor: Tensor, start: int) -> int | None:
        for node in self.nodes[start:]:
            value = node.value
            if value is not None and identical(value, tensor):
                return node.number
        return None

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    def __len__(self) -> int:
        return len(self.nodes)


def compute(function: Any, arguments: Sequence[Any], named: Mapping[str, Any], output: int) -> Any:
    """One operation by itself. What it writes into is a copy."""
    written = written_by(function)
    if written:
        arguments = [_copy(a) if at in written else a for at, a in enumerate(arguments)]
    result = call(function, arguments, named)
    if written and not isinstance(result, Tensor):
        return arguments[written[0]]
    return result[output] if isinstance(result, (list, tuple)) else result


def recompute(node: Node, put: Callable[[Any], Any]) -> Any:
    """A node's operation by itself, each leaf of its arguments as `put` gives it."""
    return compute(node.function, mapped(node.arguments, put), mapped(dict(node.named), put), node.output)


def call(function: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The same in the open. A view becomes a reshape: what it is a view of may be laid out otherwise now."""
    if operation_of(function) in ("view", "_unsafe_view") and not isinstance(arguments[1], torch.dtype):
        return arguments[0].reshape(arguments[1])
    if operation_of(function).startswith("_scaled_dot_product"):
        query, key, value = (tensor.shape for tensor in arguments[:3])
        _fitting(query, key, value, named.get("attn_mask"))
    return function(*arguments, **named)


def _fitting(query: torch.Size, key: torch.Size, value: torch.Size, mask: Tensor | None) -> None:
    """Raises RuntimeError for shapes that do not fit. The kernel trusts who calls it: it would end the
    process, or read what lies beside the tensors."""
    scores = (*query[:-1], key[-2])
    if not (
        len(query) == len(key) == len(value) == 4
        and (query[0], query[-1]) == (key[0], key[-1])
        and key[:-1] == value[:-1]
        and 0 not in scores
        and query[1] % key[1] == 0
        and (mask is None or mask.expand(scores).shape == scores)
    ):
        raise RuntimeError(f"query {query}, key {key} and value {value} make no attention")


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def overwritten(whole: Tensor, part: Tensor, shape: Any, stride: Any, offset: int) -> Tensor:
    """A tensor after something was written through a window on it."""
    result = whole.clone()
    if result.stride() != whole.stride():
        raise ValueError("the memory cannot be laid out again")
    result.as_strided(shape, stride, offset).copy_(part)
    return result


_WRITTEN: dict[Any, tuple[int, ...]] = {}


def written_by(function: Any) -> tuple[int, ...]:
    """The places of the arguments that a function writes into."""
    if function not in _WRITTEN:
        schema = getattr(function, "_schema", None)
        places = () if schema is None else enumerate(schema.arguments)
        _WRITTEN[function] = tuple(
            at for at, argument in places if argument.alias_info is not None and argument.alias_info.is_write
        )
    return _WRITTEN[function]


# What an operation gives in place of what it would: of the function, its arguments, and those by name.
Correction = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
Window = tuple[int, int, tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass
class _Memory:
    """What is known of one piece of memory: the nodes that lie in it, and the last that was written."""

    nodes: list[int] = field(default_factory=list)
    written: int = -1
    window: Window | None = None


class _Products(TorchFunctionMode):
    """Shows a recorder a batched product as one operation: below, it is six, of which five lay memory out."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, tensors = kwargs or {}, [a for a in args if isinstance(a, Tensor)]
        batched = function in _MATMUL and len(tensors) == 2 and min(t.dim() for t in tensors) > 2
        if batched and not kwargs and not self._recorder.paused:
            args = args[::-1] if function is Tensor.__rmatmul__ else args
            return self._recorder.show(torch.matmul, args, {})
        return function(*args, **kwargs)


_MATMUL = {torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__}


class Recorder(TorchDispatchMode):
    """Fills a record while code runs.

    own          Says of a file's name whether it is the person's.
    corrections  Operation's place in the run -> what to do there otherwise.
    named        Whether it notes what the names held at each line; a run takes longer with it.
    """

    def __init__(
        self,
        own: Callable[[str], bool],
        known: Mapping[str, Tensor] | None = None,
        corrections: Mapping[Call, Correction] | None = None,
        named: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = Record()
        self.paused = False  # while something is computed that is not the person's
        self._own, self._files = own, dict[str, bool]()
        self._corrections, self._named = corrections or {}, named
        self._calls = self._bytes = 0
        self._operation: Call = ("", (), 0)
        self._times: dict[Any, int] = {}
        self._at: dict[Window, int] = {}
        self._memory: dict[int, _Memory] = {}
        self._alive: list[Any] = []  # so that no address is given out twice
        self._instead: dict[Window, Tensor] = {}
        self._entered: dict[int, int] = {}  # a running function's frame -> which call it is
        self._count = 0
        self._traced: Any = None
        self._products = _Products(self)
        self._known: dict[tuple[Any, ...], list[tuple[str, Tensor]]] = {}
        for name, tensor in (known or {}).items():
            self._known.setdefault((tuple(tensor.shape), tensor.dtype), []).append((name, tensor))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __enter__(self) -> Recorder:
        self._traced = sys.gettrace()
        super().__enter__()  # type: ignore[no-untyped-call]
        self._products.__enter__()  # type: ignore[no-untyped-call]
        sys.settrace(self._call)
        return self

    def __exit__(self, kind: Any, *problem: Any) -> None:
        self.record.traced = sys.gettrace() == self._call
        sys.settrace(self._traced)
        self._products.__exit__(kind, *problem)  # type: ignore[no-untyped-call]
        super().__exit__(kind, *problem)  # type: ignore[no-untyped-call]

    # ---------------------------------------------------------------------- which line is running

    def _is_own(self, frame: FrameType) -> bool:
        """Whether it is the person's. What dataclasses write has no file, and may be of this module."""
        file = frame.f_code.co_filename
        own = self._files.get(file)
        if own is None:
            own = self._files[file] = self._own(file)
        return own and frame.f_globals is not globals()

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not self._is_own(frame):
            return None
        self._count += 1
        self._entered[id(frame)] = self._count
        outer = frame.f_back
        while outer is not None and id(outer) not in self._entered:
            outer = outer.f_back
        self.record.callers[self._count] = self._entered[id(outer)] if outer is not None else 0
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        steps, paused = self.record.steps, self.paused
        self.paused = True
        if event == "line" and len(steps) < STEPS:
            line, nodes = self._frame(frame), len(self.record.nodes)
            steps.append(Step(line, nodes, self._names(frame.f_locals) if self._named else {}))
        elif event == "line":
            self.record.full = f"the run has more than {STEPS:,} lines"
        elif event == "return":
            call = self._entered.pop(id(frame), 0)
            if self._named:
                self.record.results.setdefault(call, []).append((len(steps), self._held(argument)))
        self.paused = paused
        return self._line

    def _names(self, variables: Mapping[str, Any]) -> dict[str, frozenset[Any]]:
        """What each name holds, and, of a tuple with names, each of these: `looks.mask`."""
        held = {name: self._held(value) for name, value in variables.items()}
        for name, value in variables.items():
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                held |= {f"{name}.{f}": self._held(v, 0) for f, v in zip(value._fields, value, strict=False)}
        return held

    def _held(self, value: Any, depth: int = 4) -> frozenset[Any]:
        """What a variable holds: see `Step`."""
        if isinstance(value, Tensor):
            window = _window(value) if value.layout is torch.strided else None
            number = self._at.get(window) if window else None
            if window and number is None and window[0] and window[0] not in self._memory:
                number = self._leaf(value)
            return frozenset() if number is None else frozenset([Ref(number)])
        if value is None or type(value) in (int, float):
            return frozenset([value])
        parts: list[Any] = []
        if depth and isinstance(value, (tuple, list)):
            parts = [part for part in value[:PARTS] if part is not None or hasattr(value, "_fields")]
        elif depth and type(value) is dict:
            parts = [part for part in list(value.values())[:PARTS] if part is not None]
        elif depth and is_dataclass(value) and not isinstance(value, type):
            parts = [getattr(value, each.name, None) for each in fields(value)]
            parts = [part for part in parts if part is not None and type(part) not in (int, float)]
        return frozenset().union(*(self._held(part, depth - 1) for part in parts)) if parts else frozenset()

    def _frame(self, frame: FrameType) -> Frame:
        code = frame.f_code
        return Frame(code.co_filename, frame.f_lineno, code.co_name, self._entered.get(id(frame), 0))

    def _frames(self) -> tuple[Frame, ...]:
        """The lines of theirs that wait for what happens now, innermost first."""
        frames: list[Frame] = []
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and len(frames) < FRAMES:
            if self._is_own(frame):
                frames.append(self._frame(frame))
            frame = frame.f_back
        return tuple(frames)

    # ----------------------------------------------------------------- what the tap and the end say

    def tapped(self, name: str, tensor: Tensor) -> int:
        """Note which node a tensor is that was tapped, and where."""
        number = self.number(tensor)
        self.record.tapped.setdefault(name, number)
        self.record.taps.setdefault(name, self._frames())
        return number

    def instead(self, tensor: Tensor, other: Tensor, name: str) -> None:
        """From now on, where this tensor goes in, let another go in."""
        self._instead[_window(tensor)] = other
        self._leaf(other, name)

    # ------------------------------------------------------------------------------ each operation

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self.show(function, args, kwargs or {})

    def show(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note an operation, and do it."""
        if self.paused or self.record.full:
            return function(*args, **kwargs)
        if self._instead:
            args, kwargs = mapped(args, self._swapped), mapped(kwargs, self._swapped)
        frames = self._frames()
        if not frames:  # no line of theirs asked for it: what comes of it is from outside
            return function(*args, **kwargs)
        self._calls += 1
        operation = (operation_of(function), tuple(frame.line for frame in frames[:SHALLOW]))
        self._operation = (*operation, self._times.get(operation, 0))
        self._times[operation] = self._operation[2] + 1
        if self._calls > OPERATIONS:
            self.record.full = f"the run has more than {OPERATIONS:,} operations"
        refs, named = mapped(args, self._ref), mapped(kwargs, self._ref)
        written = written_by(function)
        for at in written:
            if at < len(args) and isinstance(args[at], Tensor):
                self._copy_before(args[at])
        self.paused = True  # what it consists of is not looked at
        try:
            if self._operation in self._corrections:
                result = self._corrections[self._operation](function, args, kwargs)
            else:
                result = function(*args, **kwargs)
        except Exception:
            self._add(function, refs, named, 0, frames, None)
            raise
        finally:
            self.paused = False
        outputs = result if isinstance(result, (list, tuple)) else (result,)
        if written and not any(isinstance(output, Tensor) for output in outputs):
            outputs = tuple(args[at] for at in written)
        for at, output in enumerate(outputs):
            if isinstance(output, Tensor):
                node = self._add(function, refs, named, at, frames, output)
                if written:
                    memory = self._memory[_address(output)]
                    memory.written, memory.window = node.number, _window(output)
        return result

    def _swapped(self, value: Any) -> Any:
        return self._instead.get(_window(value), value) if isinstance(value, Tensor) else value

    def _ref(self, value: Any) -> Any:
        return Ref(self.number(value)) if isinstance(value, Tensor) else value

    def _add(
        self,
        function: Any,
        refs: tuple[Any, ...],
        named: dict[str, Any],
        output: int,
        frames: Any,
        value: Any,
    ) -> Node:
        nodes = self.record.nodes
        node = Node(len(nodes), function, refs, named, output, self._operation, frames, value)
        nodes.append(node)
        if value is not None:
            self._place(node, value)
        return node

    def _place(self, node: Node, value: Tensor) -> None:
        node.value = value.detach() if value.requires_grad else value
        address = _address(value)
        memory = self._memory.get(address)
        if memory is None:
            memory = self._memory[address] = _Memory()
            self._alive.append(value.untyped_storage() if value.layout is torch.strided else value)
            self._bytes += value.untyped_storage().nbytes() if value.layout is torch.strided else 0
            if self._bytes > BYTES:
                self.record.full = f"its tensors take more than {BYTES / 1e9:.0f} GB"
        memory.nodes.append(node.number)
        self._at[_window(value)] = node.number

    def number(self, tensor: Tensor) -> int:
        """The node of a tensor as it is now."""
        window = _window(tensor)
        number = self._at.get(window)
        memory = self._memory.get(window[0])
        if number is None and (memory is None or window[0] == 0):
            return self._leaf(tensor)
        if number is None:  # another window on memory that is known, opened where nobody looked
            number = self._leaf(tensor)
        elif memory is not None and memory.written > number and memory.window is not None:
            part = memory.window
            refs = (Ref(number), Ref(memory.written), part[2], part[3], part[1] - window[1])
            with torch.no_grad():
                value = tensor.detach().clone()
            frames = self.record.nodes[memory.written].frames
            node = Node(len(self.record.nodes), overwritten, refs, {}, 0, self._operation, frames, value)
            self.record.nodes.append(node)
            self._at[window] = number = node.number
        return number

    def _leaf(self, tensor: Tensor, name: str = "") -> int:
        """A node for what no operation made: a weight, an input, or something from elsewhere."""
        number = len(self.record.nodes)
        node = Node(
            number, None, (), {}, 0, self._operation, self._frames(), None, name or self._name(tensor)
        )
        self.record.nodes.append(node)
        self._place(node, tensor)
        return number

    def _name(self, tensor: Tensor) -> str:
        with torch.no_grad():
            for name, known in self._known.get((tuple(tensor.shape), tensor.dtype), ()):
                if known is tensor or torch.equal(known, tensor):
                    return name
        return ""

    def _copy_before(self, tensor: Tensor) -> None:
        """Something is about to be written here: what was kept of it is kept as a copy from now on."""
        memory = self._memory.get(_address(tensor))
        if memory is not None:
            with torch.no_grad():
                for number in memory.nodes:
                    node = self.record.nodes[number]
                    node.value = node.value.clone()
            memory.nodes.clear()


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _window(tensor: Tensor) -> Window:
    shape, stride = tuple(tensor.shape), tensor.stride()
    return _address(tensor), int(tensor.storage_offset()), shape, stride, tensor.dtype
