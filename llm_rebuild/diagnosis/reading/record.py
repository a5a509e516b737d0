"""A person's run, operation by operation (`verify/recording.py`), with the line of source that asked for
each, and what the names held at each line.

Below torch's functions stands the dispatcher. A mode that sits there is shown every operation; the call stack
says which line of whose file wanted it. What no line of theirs asked for comes from outside.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llm_rebuild.verify.operations import Operations, facts_of, mapped, outputs_of, written_by
from llm_rebuild.verify.recording import Call, Frame, Node, Products, Recording, Ref, name_among, window_of

# Inside, torch relies on the rank of what it has just made: put right there, it writes beside its memory.
REPEATS = frozenset({torch.repeat_interleave, Tensor.repeat_interleave})
OPERATIONS = 200_000  # of a run; a rebuild of a large model has some thousands
BYTES = 2 * 2**30  # of the tensors that are kept; a learner's process may have twice as many by default
STEPS = 100_000  # lines that ran, each with what its names held
PARTS = 1000  # of a list or a dict that is looked into
SHALLOW = 3  # frames that tell an operation from others of its name
FRAMES = 12  # of a person's own, for one operation


class Step(NamedTuple):
    """A line that began to run.

    nodes  How many tensors there were by then.
    names  What its function's variables held: of tensors the numbers of nodes, of numbers these, None; of a
           tuple, a list, a dict or a dataclass what is in it. `looks.mask` is a field.
    """

    frame: Frame
    nodes: int
    names: Mapping[str, frozenset[Any]]

    @property
    def empty(self) -> set[str]:
        """The names that were None."""
        return {name for name, held in self.names.items() if held == {None}}


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

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]


# What an operation gives in place of what it would: of the function, its arguments, and those by name.
Correction = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class Recorder:
    """Fills a record while code runs.

    own          Says of a file's name whether it is the person's.
    sources      What comes from outside, by name.
    corrections  Operation's place in the run -> what to do there otherwise.
    again        Whether the run was recorded before: then nothing is noted but what is tapped.
    """

    def __init__(
        self,
        own: Callable[[str], bool],
        sources: Mapping[str, Tensor] | None = None,
        corrections: Mapping[Call, Correction] | None = None,
        again: bool = False,
    ) -> None:
        self._recording = Recording(self._frames, name_among({} if again else sources or {}))
        self.record = Record()
        self.record.nodes = self._recording.nodes
        self.paused = False  # while something is computed that is not the person's
        self._own = functools.cache(own)
        self._others = {__file__}  # of modules that are none of the person's
        self._corrections, self._again = corrections or {}, again
        self._corrected = {operation for operation, _, _ in self._corrections}
        self._calls = 0
        self._times: dict[Any, int] = {}
        self._instead: dict[Any, Tensor] = {}
        self._entered: dict[FrameType, Frame] = {}  # the functions that run, and their calls
        self._count = 0
        self._traced: Any = None
        self._outside: FrameType | None = None  # of what waits for the run: none of its lines
        self._modes = Operations(self.show), Products(self.show, REPEATS)

    def __enter__(self) -> Recorder:
        self._traced, self._outside = sys.gettrace(), sys._getframe(1).f_back
        for mode in self._modes:
            mode.__enter__()  # type: ignore[no-untyped-call]
        if not self._again:
            sys.settrace(self._call)
        return self

    def __exit__(self, kind: Any, *problem: Any) -> None:
        self.record.traced = sys.gettrace() == self._call
        sys.settrace(self._traced)
        self._outside = None
        self._entered.clear()
        for mode in self._modes[::-1]:
            mode.__exit__(kind, *problem)  # type: ignore[no-untyped-call]

    # ---------------------------------------------------------------------- which line is running

    def _is_own(self, frame: FrameType) -> bool:
        """Whether it is the person's. What dataclasses write has no file, and may be of another module. A
        guard hears of who looks at a frame's code, which takes time."""
        module = frame.f_globals.get("__file__")
        if module in self._others:
            return False
        file = frame.f_code.co_filename
        if not self._own(file) and module == file:
            self._others.add(file)
        return self._own(file)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_globals.get("__file__") in self._others or not self._is_own(frame):
            return None  # it is asked of every call of any function
        self._count += 1
        self._entered[frame] = Frame(frame.f_code.co_filename, 0, frame.f_code.co_name, self._count)
        outer = frame.f_back
        while outer is not None and outer not in self._entered:
            outer = outer.f_back
        self.record.callers[self._count] = self._entered[outer].call if outer is not None else 0
        return self._line

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        steps, paused = self.record.steps, self.paused
        self.paused = True
        if event == "line" and len(steps) < STEPS:
            line, nodes = self._frame(frame), len(self.record.nodes)
            steps.append(Step(line, nodes, self._names(frame.f_locals)))
        elif event == "line":
            self.record.full = f"the run has more than {STEPS:,} lines"
        elif event == "return":
            entered = self._entered.pop(frame, Frame("", 0, ""))
            self.record.results.setdefault(entered.call, []).append((len(steps), self._held(argument)))
        self.paused = paused
        return self._line

    def _names(self, variables: Mapping[str, Any]) -> dict[str, frozenset[Any]]:
        """What each name holds, and, of a dataclass or a tuple with names, each of these: `looks.mask`."""
        held = {name: self._held(value) for name, value in variables.items()}
        for name, value in variables.items():
            parts = dict[str, Any]()
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                parts = dict(zip(value._fields, value, strict=False))
            elif is_dataclass(value) and not isinstance(value, type):  # of a config's numbers nobody asks
                parts = {each.name: getattr(value, each.name, None) for each in fields(value)}
                parts = {of: part for of, part in parts.items() if isinstance(part, Tensor)}
            held |= {f"{name}.{of}": self._held(part, 0) for of, part in parts.items()}
        return held

    def _held(self, value: Any, depth: int = 4) -> frozenset[Any]:
        """What a variable holds: see `Step`."""
        if isinstance(value, Tensor):
            number = self._recording.seen(value)
            if number is None and value.layout is torch.strided and not self._recording.holds(value):
                number = self._recording.leaf(value)
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
        known = self._entered.get(frame) or Frame(frame.f_code.co_filename, 0, frame.f_code.co_name)
        return Frame(known.file, frame.f_lineno, known.function, known.call)

    def _frames(self) -> tuple[Frame, ...]:
        """The lines of theirs that wait for what happens now, innermost first."""
        frames: list[Frame] = []
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame is not self._outside and len(frames) < FRAMES:
            if frame in self._entered or self._is_own(frame):
                frames.append(self._frame(frame))
            frame = frame.f_back
        return tuple(frames)

    # ----------------------------------------------------------------- what the tap and the end say

    def tapped(self, name: str, tensor: Tensor) -> int:
        """Note which node a tensor is that was tapped, and where."""
        if self._again:  # what is written into it later is not seen
            number = self._recording.leaf(tensor, name)
            self.record[number].value = tensor.clone()
        else:
            number = self._recording.number(tensor)
            self.record.taps.setdefault(name, self._frames())
        self.record.tapped.setdefault(name, number)
        return number

    def instead(self, tensor: Tensor, other: Tensor, name: str) -> None:
        """From now on, where this tensor goes in, let another go in."""
        self._instead[window_of(tensor)] = other
        self._recording.leaf(other, name)

    # ------------------------------------------------------------------------------ each operation

    def show(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note an operation, and do it."""
        if self.paused:
            return function(*args, **kwargs)
        if self._instead:
            args, kwargs = mapped(args, self.swapped), mapped(kwargs, self.swapped)
        if self._again:
            frames = self._frames() if facts_of(function).name in self._corrected else ()
            correction = self._corrections.get(self._call_of(function, frames)) if frames else None
            return self._do(correction, function, args, kwargs)
        frames = self._frames()
        if self.record.full or not frames:  # no line of theirs asked for it: what comes of it is from outside
            return function(*args, **kwargs)
        recording, call = self._recording, self._call_of(function, frames)
        refs = recording.before(function, args, kwargs)
        try:
            result = self._do(None, function, args, kwargs)
        except Exception:
            recording.node(function, refs, 0, call, frames)
            raise
        recording.add(function, refs, outputs_of(result, written_by(function, args, kwargs)), call, frames)
        if recording.bytes > BYTES:
            self.record.full = f"its tensors take more than {BYTES / 1e9:.0f} GB"
        return result

    def _do(self, correction: Correction | None, function: Any, args: Any, kwargs: Any) -> Any:
        """Do an operation, or what is to be done in its place. What it consists of is not looked at."""
        self.paused = True
        try:
            return correction(function, args, kwargs) if correction else function(*args, **kwargs)
        finally:
            self.paused = False

    def _call_of(self, function: Any, frames: tuple[Frame, ...]) -> Call:
        """Which operation it is."""
        self._calls += 1
        if self._calls > OPERATIONS:
            self.record.full = f"the run has more than {OPERATIONS:,} operations"
        operation = (facts_of(function).name, tuple(frame.line for frame in frames[:SHALLOW]))
        times = self._times[operation] = self._times.get(operation, -1) + 1
        return (*operation, times)

    def swapped(self, value: Any) -> Any:
        """What goes in where this does."""
        return self._instead.get(window_of(value), value) if isinstance(value, Tensor) else value
