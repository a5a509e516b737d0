"""The way of a value through a person's code: from the line that uses it back through names, parameters and
results to the line that made it.

A line takes a value from a name. The name holds it since a statement bound it, in this call or, where it is a
parameter, in that of a caller; there it came from another name, or from a function that returned it, or was
made. All this is seen in a record: what each name held whenever a line began.
"""

from __future__ import annotations

import ast
import linecache
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from llm_rebuild.diagnosis.reading.record import Record
from llm_rebuild.verify.recording import Frame, Node, Ref

LONG = 200  # stations of a way


class Ways:
    """The ways of one record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._files: dict[str, SourceFile] = {}

    @cached_property
    def of_call(self) -> dict[int, list[int]]:
        """Call -> its steps."""
        calls: dict[int, list[int]] = {}
        for at, step in enumerate(self.record.steps):
            calls.setdefault(step.frame.call, []).append(at)
        return calls

    @cached_property
    def inside(self) -> dict[int, list[int]]:
        """Call -> the calls that were made in it."""
        inside: dict[int, list[int]] = {}
        for call, caller in self.record.callers.items():
            inside.setdefault(caller, []).append(call)
        return inside

    def step_of(self, node: Node, depth: int = 0) -> int | None:
        """Which step made a tensor, or, further up, waited for it."""
        if len(node.frames) <= depth:
            return None
        steps = self.of_call.get(node.frames[depth].call, [])
        at = bisect_right(steps, node.number, key=lambda at: self.record.steps[at].nodes)
        return steps[at - 1] if at else None

    def file_of(self, frame: Frame) -> SourceFile:
        """The file in which a frame's line stands."""
        if frame.file not in self._files:
            self._files[frame.file] = SourceFile("".join(linecache.getlines(frame.file)))
        return self._files[frame.file]

    def _file(self, at: int) -> SourceFile:
        return self.file_of(self.record.steps[at].frame)

    def reads(self, at: int) -> list[str]:
        """The names that the statement of a step reads, in their order."""
        return self._file(at).reads(self.record.steps[at].frame.number)

    def names(self, at: int, value: Any) -> list[str]:
        """Those names in a step's statement that hold a value; first those that hold nothing else."""
        held = self.record.steps[at].names
        names = [name for name in self.reads(at) if value in held.get(name, ())]
        return sorted(names, key=lambda name: len(held[name]) > 1)

    def empty(self, at: int) -> list[str]:
        """Those names in a step's statement that are None."""
        empty = self.record.steps[at].empty
        return [name for name in self.reads(at) if name in empty]

    def holds(self, at: int, values: set[Any]) -> bool:
        """Whether a name that is at hand holds one of these values."""
        return any(values & held for held in self.record.steps[at].names.values())

    def way(self, at: int, value: Any) -> list[int]:
        """The steps that hand a value on, from the one that uses it back to the one that made it."""
        way, bound, spelled = [at], False, False  # whether a name was bound there; or a value stands there
        calls, among = set[int](), list[str]()  # the steps whose calls were looked into; what was passed
        while len(way) < LONG and not spelled:
            names = [name for name in self.names(at, value) if name in among or not among]
            among, source = [], None
            if at not in calls and (bound or not names):  # what went in may come out, and be bound again
                source = self._returned(at, value)
                calls.add(at)
            bound = False
            if source is None and names:
                source = self._bound(at, names[0], value)
                bound = source is not None
                if source is None and (source := self.caller(self.record.steps[at].frame.call)) is not None:
                    passed = self._passed(source, at, names[0])
                    among, spelled = passed or [], passed == []
            if source is None or (source in way and source not in calls):
                break
            way += [] if source in way else [source]
            at = source
        return way

    def _passed(self, caller: int, at: int, name: str) -> list[str] | None:
        """The names in what a caller passed for a parameter; None where that cannot be told."""
        frame = self.record.steps[at].frame
        parameters = self._file(at).parameters(frame.function, frame.number)
        return self._file(caller).passed(
            self.record.steps[caller].frame.number, frame.function, name.partition(".")[0], parameters
        )

    def caller(self, call: int) -> int | None:
        """The step in which a call was made."""
        first = self.of_call[call][0]
        before = [at for at in self.of_call.get(self.record.callers.get(call, 0), []) if at < first]
        return before[-1] if before else None

    def above(self, call: int) -> list[int]:
        """The calls that wait for a call, the outermost last."""
        above = list[int]()
        while call := self.record.callers.get(call, 0):
            above.append(call)
        return above

    def feeding(self, frames: Sequence[Frame]) -> Iterator[Frame]:
        """The lines that bound what some lines read, in their calls, the latest first: of the innermost call,
        then of the first frame's, and of the last line before the others."""
        order = lambda f: (len(self.above(f.call)), f.call == frames[0].call, f.number)  # noqa: E731
        for frame in sorted(frames, key=order, reverse=True):
            file, calls = self.file_of(frame), [frame.call, *self.above(frame.call)]
            runs = ([self.record.steps[at].frame for at in self.of_call.get(call, ())] for call in calls)
            ran = next((run for run in runs if run and not run[0].function.startswith("<")), [])
            last = max((i for i, f in enumerate(ran) if f.line == frame.line), default=0)
            reads = set(file.reads(frame.number))
            for step in reversed(ran[:last]):
                if (file.binds(step.number) | file.decides(step.number)) & reads:
                    reads |= set(file.reads(step.number))
                    yield step

    def _bound(self, at: int, name: str, value: Any) -> int | None:
        """The last step of a call that bound a name, or before which it held another; None of a parameter."""
        steps = self.record.steps
        own = self.of_call[steps[at].frame.call]
        binds = self._file(at).binds
        for i in range(bisect_left(own, at) - 1, -1, -1):
            frame = steps[own[i]].frame
            if value not in steps[own[i]].names.get(name, ()) or name in binds(frame.number):
                return own[i]
        return None

    def _returned(self, at: int, value: Any) -> int | None:
        """The last step of a function that was called in a step and returned a value."""
        call = self.record.steps[at].frame.call
        end = next((i for i in self.of_call[call] if i > at), len(self.record.steps))
        for inner in reversed(self.inside.get(call, [])):
            if self.of_call.get(inner, [-1])[0] in range(at + 1, end):
                for steps, source in reversed(self.record.results.get(inner, [])):
                    if value in source:
                        return max((i for i in self.of_call[inner] if i < steps), default=None)
        return None

    def behind(self, at: int) -> Iterator[int]:
        """A step and those that bound the numbers it reads, and so on back."""
        open_steps, seen = [at], set[int]()
        while open_steps:
            step = open_steps.pop()
            if step in seen:
                continue
            seen.add(step)
            yield step
            names = self.record.steps[step].names
            for name in self.reads(step):
                for value in names.get(name, ()):
                    if type(value) is not Ref and value is not None:
                        bound = self._bound(step, name, value)
                        source = self.caller(self.record.steps[step].frame.call) if bound is None else bound
                        inner = None if bound is None else self._returned(bound, value)
                        open_steps += [s for s in (source, inner) if s is not None]


class SourceFile:
    """The statements of a file."""

    def __init__(self, text: str) -> None:
        self._statements: dict[int, ast.stmt] = {}
        self._names: dict[int, list[str]] = {}
        try:
            self._nodes = list(ast.walk(ast.parse(text)))
        except SyntaxError:
            self._nodes = []
        for node in self._nodes:
            if isinstance(node, ast.stmt):
                body = getattr(node, "body", None)
                end = (
                    body[0].lineno - 1 if isinstance(body, list) and body else node.end_lineno or node.lineno
                )
                for number in range(node.lineno, max(node.lineno, end) + 1):
                    self._statements[number] = node

    def reads(self, number: int) -> list[str]:
        """The names that the statement of a line reads; of a statement that holds others, its head."""
        if number not in self._names:
            statement = self._statements.get(number)
            self._names[number] = [] if statement is None else _read(statement)
        return self._names[number]

    def binds(self, number: int) -> set[str]:
        """The names that the statement of a line binds."""
        return {
            n.id for n in self._inside(number) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }

    def decides(self, number: int) -> set[str]:
        """The names that are bound, or not, as the condition on a line has it."""
        head = self._statements.get(number)
        body = head.body if isinstance(head, ast.If) else []
        return {name for statement in body for name in self.binds(statement.lineno)}

    def spells(self, number: int, value: float) -> bool:
        """Whether a number stands in the statement of a line."""
        numbers = (n.value for n in self._inside(number) if isinstance(n, ast.Constant))
        return any(isinstance(x, (int, float)) and abs(x) == abs(value) for x in numbers)

    def strings(self, number: int) -> set[str]:
        """The words of the texts in the statement of a line."""
        texts = (n.value for n in self._inside(number) if isinstance(n, ast.Constant))
        return {word for text in texts if isinstance(text, str) for word in words_of(text)}

    def conditional(self, number: int) -> bool:
        """Whether a condition decides if a line, or which part of it, is run."""
        return bool(self._within(number, ast.If, ast.IfExp))

    def loop(self, number: int) -> int:
        """The head of the innermost loop in which a line stands; 0 where it stands in none."""
        return max(self._within(number, ast.For, ast.While, ast.ListComp, ast.GeneratorExp), default=0)

    def _within(self, number: int, *kinds: type[ast.stmt | ast.expr]) -> list[int]:
        nodes = (n for n in self._nodes if isinstance(n, kinds))
        return [n.lineno for n in nodes if n.lineno <= number <= (n.end_lineno or n.lineno)]

    def decorated(self, number: int) -> bool:
        """Whether the function in which a line stands is decorated: then who calls it is not the person."""
        functions = (n for n in self._nodes if isinstance(n, ast.FunctionDef) and n.decorator_list)
        return any(n.lineno <= number <= (n.end_lineno or n.lineno) for n in functions)

    def _inside(self, number: int) -> Iterator[ast.AST]:
        statement = self._statements.get(number)
        return _heads(statement) if statement is not None else iter(())

    def parameters(self, function: str, number: int) -> list[str]:
        """Those of the function of this name in which a line stands."""
        for node in (n for n in self._nodes if isinstance(n, ast.FunctionDef) and n.name == function):
            if node.lineno <= number <= (node.end_lineno or node.lineno):
                return [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
        return []

    def passed(self, number: int, function: str, name: str, parameters: Sequence[str]) -> list[str] | None:
        """The names that stand in an argument of the only call of a function in a line's statement."""
        statement = self._statements.get(number)
        calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)] if statement is not None else []
        named = [n for n in calls if ast.unparse(n.func).rpartition(".")[2] == function]
        calls = named if len(calls) > 1 else calls  # the only one may call it by another name
        starred = any(isinstance(a, ast.Starred) for call in calls for a in call.args)
        if len(calls) != 1 or name not in parameters or starred:
            return None
        if name == "self" == parameters[0]:
            called = calls[0].func
            return _read(ast.Expr(called.value)) if isinstance(called, ast.Attribute) else None
        by_name = {keyword.arg: keyword.value for keyword in calls[0].keywords}
        at = parameters.index(name) - (parameters[0] == "self")
        value = by_name.get(name) or (calls[0].args[at] if at < len(calls[0].args) else None)
        return None if value is None else _read(ast.Expr(value))


def words_of(name: str) -> set[str]:
    """What stands between the dots of a name, and between the underscores of that."""
    parts = name.split(".")
    return {*parts, *(word for part in parts for word in part.split("_"))}


def _read(statement: ast.stmt) -> list[str]:
    """The names that a statement, or its head, reads, in their order: `x`, and `looks.mask` of a tuple."""
    names = [n for n in _heads(statement) if isinstance(n, (ast.Name, ast.Attribute))]
    reads = [n for n in names if isinstance(n.ctx, ast.Load) or isinstance(statement, ast.AugAssign)]
    in_order = sorted(reads, key=lambda n: (n.lineno, n.col_offset))
    return list(dict.fromkeys(ast.unparse(n) for n in in_order))


def _heads(statement: ast.stmt) -> Iterator[ast.AST]:
    """What stands in a statement; of one that holds others, in its head."""
    heads = {"body", "orelse", "handlers", "finalbody", "decorator_list"}
    parts = [value for key, value in ast.iter_fields(statement) if key not in heads]
    return (n for part in parts for p in (part if isinstance(part, list) else [part]) for n in _nodes(p))


def _nodes(part: Any) -> Iterator[ast.AST]:
    if isinstance(part, ast.AST):
        yield from ast.walk(part)
