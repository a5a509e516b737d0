"""Which line: of the lines that waited for an operation, the one at which somebody would put it right.

The operation itself stands on the innermost one. But a helper that is right for others is not at fault: then
the line is that of the caller, or of the loop, from which on things went otherwise. And where nothing was
done, nothing is on a stack: then it is the line that ran last before the tap.
"""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from llm_rebuild.diagnosis.reading.record import Frame, Node, Record
from llm_rebuild.diagnosis.reading.result import Line
from llm_rebuild.diagnosis.reading.slices import MOVES, VIEWS, Difference, Slice, constants, word

SHOWN = 3  # lines of one mistake
NEAR = 3  # so far before a tap stands what it taps


def line_of(frame: Frame) -> Line:
    """A frame as a line with its text."""
    code = linecache.getline(frame.file, frame.number).strip()
    return Line(Path(frame.file).name or frame.file, frame.number, frame.function, code)


def lines_of(
    between: Slice, edits: Sequence[Difference], checkpoint: str, target: int, missing: str = ""
) -> list[Frame]:
    """The lines of a mistake, the likeliest first, at most three."""
    frames: list[Frame] = list(_left_early(between.person.record, missing)) if missing else []
    for edit in sorted(edits, key=lambda edit: (edit.kind in ("insert", "operand"), edit.node)):
        frames += _of_edit(between, edit, checkpoint)
    frames += between.person.record[target].frames[:2]
    different: dict[tuple[str, int], Frame] = {}
    for frame in frames:
        different.setdefault(frame.line, frame)
    return list(different.values())[:SHOWN]


def _of_edit(between: Slice, edit: Difference, checkpoint: str) -> Iterator[Frame]:
    record = between.person.record
    node = record[edit.node]
    if edit.kind == "constant":
        yield from _of_constant(record, node, constants(between.official.record[edit.other]))
        yield from node.frames
    elif edit.kind == "operand":
        source = between.person.through(node.inputs[edit.at])
        made = record[source]
        if made.function is not None and (_filled(between, source) or not between.right(source)):
            yield from made.frames[:1]
        yield from passed(between, node, source, edit.other)
        if made.function is not None:
            yield from blamed(between, made)[:1]
        yield from node.frames[:1]
    elif edit.kind == "insert" and edit.user < 0:
        yield from _before_the_tap(between, checkpoint, node)
        yield from node.frames[:1]
    elif edit.kind == "insert":
        yield from passed(between, record[edit.user], edit.node, edit.other)
        yield from node.frames[:1]
    elif edit.kind == "drop":
        yield from blamed(between, node)
    else:
        yield from node.frames


def _filled(between: Slice, number: int) -> bool:
    """Whether a tensor was made of no other: a person filled it with numbers."""
    made = between.person.record[between.person.chain(number)[-1]]
    return made.function is not None and not made.inputs


def passed(between: Slice, node: Node, source: int, other: int) -> list[Frame]:
    """The frames of an operation whose operand is another's: first the one that did not get it as a
    parameter, or that had the right one. Where nobody passed it (a weight), the one from which on its calls
    differ from those that came out right."""
    record, frames, depth = between.person.record, node.frames, 0
    same = {source, *between.person.chain(source)}
    right = between.person.where.get(between.official.print_of(other), ())
    made_in = {frame.call for number in right for frame in record[number].frames}
    while depth + 1 < len(frames) and same & record.calls.get(frames[depth].call, ((), frozenset()))[1]:
        passed_in = record.calls[frames[depth].call][1]
        if frames[depth].call in made_in or passed_in & set(right):
            break
        depth += 1
    first, wanted = record[between.person.chain(source)[-1]], between.official.chain(other)[-1]
    if not depth and first.function is None and first.name not in record.tapped:
        named = _named(frames, first.name, between.official.record[wanted].name)
        depth = min((_shared(frames, stack) for stack in _right(between, node, most=False)), default=0)
        callers = {
            n.frames[1].line for n in record.nodes if len(n.frames) > 1 and _inside(n.frames[0], frames[0])
        }
        depth = depth or int(len(callers) > 1)  # a helper that several call, each with weights of its own
        depth = depth if named is None else named
    made = record[between.person.through(source)]
    if not depth and len(frames) > 1 and node.operation in VIEWS and made.frames[:1] == frames[:1]:
        depth = int(between.right(made.number))  # what the helper computed is official: of another part
    return [frames[depth], *frames[:depth][::-1], *frames[depth + 1 :]] if frames else []


def _named(frames: Sequence[Frame], name: str, right: str) -> int | None:
    """How far up a line spells what tells a weight's name from the right one: `q` where `k` should be."""
    words = {word for word in set(name.split(".")) - set(right.split(".")) if not word.isdigit()}
    for depth, frame in enumerate(frames):
        texts = re.findall(r"""["']([^"']*)["']""", linecache.getline(frame.file, frame.number))
        if words & {word for text in texts for word in text.split(".")}:
            return depth
    return None


def _inside(one: Frame, other: Frame) -> bool:
    return (one.file, one.function) == (other.file, other.function)


def blamed(between: Slice, node: Node) -> list[Frame]:
    """The frames of an operation, first the one from which on its calls differ from those that came out
    right."""
    others = _right(between, node)
    if node.frames and " if " in linecache.getline(*node.frames[0].line):  # it chooses itself
        others = []
    return _blamed(node.frames, others, between.person.record)


def _blamed(frames: Sequence[Frame], others: Sequence[Sequence[Frame]], record: Record) -> list[Frame]:
    """The same of a stack. Of two calls from the same line, the caller is to blame where it passed None
    once."""
    depth = 0
    for other in others:
        for at, (one, two) in enumerate(zip(frames, other, strict=False)):
            if one.line != two.line:
                depth = max(depth, at)
                break
            empty, other_empty = record.calls.get(one.call, ("",))[0], record.calls.get(two.call, ("",))[0]
            if empty != other_empty and at + 1 < len(frames):
                depth = max(depth, at + 1)
    return [frames[depth], *frames[:depth][::-1], *frames[depth + 1 :]] if frames else []


def _right(between: Slice, node: Node, most: bool = True) -> list[Sequence[Frame]]:
    """The call stacks of the same operation on the same line where it came out right; with `most` none unless
    that is most of them: a tensor can be right by chance."""
    right: dict[Sequence[Frame], None] = {}
    wrong = 0
    for other in between.person.record.nodes if node.operation not in MOVES else ():
        alike = other.function is not None and other.frames and node.frames and other.output == node.output
        if not alike or other.frames[0].line != node.frames[0].line or word(other) != word(node):
            continue
        if other.value is not None and between.right(other.number) and other.frames != node.frames:
            right[other.frames] = None
        else:
            wrong += 1
    return list(right) if len(right) > wrong or not most else []


def _shared(frames: Sequence[Frame], other: Sequence[Frame]) -> int:
    """How far up the innermost call stands that is in both stacks: its line is what tells them apart."""
    calls = {frame.call for frame in other}
    return next((depth for depth, frame in enumerate(frames) if frame.call in calls), 0)


def _of_constant(record: Record, node: Node, right: Sequence[object]) -> Iterator[Frame]:
    """Where a number came from that stood in a variable: the line that set it, or, of a parameter, the
    caller's."""
    frames = list(node.frames)
    names = {name for name, value in node.variables if value not in right}
    while frames and names:
        inner = frames[0]
        text = linecache.getline(inner.file, inner.number)
        name = next((n for n in sorted(names) if n in _names(text)), None)
        if name is None:
            return
        origin = _assigned(record, inner, name, node.number)
        if origin is not None:
            yield from _returned(record, origin, node.number)
            yield origin
            return
        frames.pop(0)  # a parameter
        if frames:
            caller = linecache.getline(frames[0].file, frames[0].number)
            names = _names(caller)
            yield frames[0]
            return


def _names(text: str) -> set[str]:
    try:
        tree = ast.parse(
            text.strip().rstrip(":") if not text.strip().startswith("return") else text.strip()[6:].strip()
        )
    except SyntaxError:
        return set()
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}


def _sets(text: str, name: str) -> bool:
    """Whether a line begins by setting a variable."""
    left, equals, _ = text.partition("=")
    target = left.rstrip("+-*/@ ").partition(":")[0].strip()
    return bool(equals) and name in [part.strip() for part in target.split(",")]


def _assigned(record: Record, inner: Frame, name: str, before: int) -> Frame | None:
    """The last line of the same call that set a variable."""
    for frame, nodes in reversed(record.steps):
        if (
            frame.call == inner.call
            and nodes <= before
            and _sets(linecache.getline(frame.file, frame.number), name)
        ):
            return frame
    return None


def _returned(record: Record, line: Frame, before: int) -> Iterator[Frame]:
    """What a function of theirs did that was called on a line: how it came to what it returned."""
    steps = [frame for frame, nodes in record.steps if nodes <= before]
    at = max((i for i, frame in enumerate(steps) if frame[:4] == line[:4]), default=None)
    if at is None:
        return
    inside: list[Frame] = []
    for frame in steps[at + 1 :]:
        if frame.call == line.call:
            break
        inside.append(frame)
    called = [frame for frame in inside if inside and frame.call == inside[0].call]
    if called and "return" in linecache.getline(called[-1].file, called[-1].number):
        names = _names(linecache.getline(called[-1].file, called[-1].number).strip())
        for name in sorted(names):
            origin = _assigned(record, called[-1], name, before)
            if origin is not None:
                yield origin
        yield called[-1]


def _before_the_tap(between: Slice, checkpoint: str, node: Node) -> Iterator[Frame]:
    """What ran last before a tap, in the function that taps; then the tap. First of all a caller, where its
    siblings in other blocks are right and were called otherwise."""
    record = between.person.record
    taps = record.taps.get(checkpoint, ())
    if not taps:
        return
    pattern = _pattern(checkpoint)
    others = [f for n, f in record.taps.items() if n != checkpoint and _pattern(n) == pattern]
    others = [f for n, f in record.taps.items() if f in others and between.right(record.tapped[n])]
    blame = _blamed(taps, others, record)[0]
    if blame != taps[0]:
        yield blame
    tap = taps[0]
    before = [frame for frame, nodes in record.steps if frame.call == tap.call and nodes >= node.number]
    at = next((i for i, frame in enumerate(before) if frame.line == tap.line), 0)
    near = at and 0 < abs(before[at - 1].number - tap.number) <= NEAR
    if near and "tap(" not in linecache.getline(*before[at - 1].line):
        yield before[at - 1]
    yield tap


def _left_early(record: Record, missing: str) -> Iterator[Frame]:
    """Where a function ended before the tap of a checkpoint that is missing."""
    for file in {frame.file for frame, _ in record.steps}:
        for number, text in enumerate(linecache.getlines(file), 1):
            tapped = re.search(r"""tap\(\s*["']([^"']+)["']""", text)
            if tapped is None or not f".{missing}".endswith(f".{tapped[1]}"):
                continue
            inside = next((f for f in _functions(file) if f.lineno <= number <= (f.end_lineno or 0)), None)
            if inside is None:
                continue
            body = range(inside.lineno + 1, (inside.end_lineno or 0) + 1)
            calls: dict[int, list[int]] = {}
            for at, (frame, _) in enumerate(record.steps):
                if frame.file == file and frame.number in body:
                    calls.setdefault(frame.call, []).append(at)
            for call, steps in calls.items():
                if not any(record.steps[at][0].number == number for at in steps):
                    ended = [record.steps[steps[-1]][0], *(f for f, _ in record.steps[: steps[0]][-1:])]
                    yield from ended[::-1] if record.calls.get(call, ("",))[0] else ended


def _functions(file: str) -> list[ast.FunctionDef]:
    tree = ast.parse("".join(linecache.getlines(file)))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _pattern(checkpoint: str) -> str:
    """A checkpoint's name without the block's number."""
    return ".".join("{}" if part.isdigit() else part for part in checkpoint.split("."))
