"""Which caller: whether a line is to blame, or one of those that waited for it.

A helper that is right for others is not at fault. Then the line is that of the caller from which on its calls
differ from right ones, or the one that made what it got.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from llm_rebuild.diagnosis.reading.repair import Patch, replay
from llm_rebuild.diagnosis.reading.slices import MOVES, Difference, Slice, word
from llm_rebuild.diagnosis.reading.ways import Ways
from llm_rebuild.verify.equality import equal
from llm_rebuild.verify.recording import Frame, Node, Ref


class Callers:
    """The calls of one person's functions."""

    def __init__(self, between: Slice, ways: Ways) -> None:
        self.slice, self.record, self.ways = between, between.person.record, ways

    def blamed(self, node: Node, edit: Difference | None = None) -> list[Frame]:
        """An operation's frames, first the one from which on its calls differ from right ones."""
        others = self.right(node, edit)
        if node.frames and " if " in node.frames[0].text:  # it chooses itself
            others = []
        return self.differing(node.frames, others)

    def differing(self, frames: Sequence[Frame], others: Sequence[Sequence[Frame]]) -> list[Frame]:
        """The same of a stack."""
        depth = 0
        for other in others:
            for at, (one, two) in enumerate(zip(frames, other, strict=False)):
                if one.line != two.line:
                    depth = max(depth, at)
                    break
        return from_depth(frames, depth)

    def right(self, node: Node, edit: Difference | None) -> list[Sequence[Frame]]:
        """The call stacks of the same operation on the same line where it came out right, and would not have
        with the edit. Without one it must be most of them: a tensor can be right by chance."""
        right: dict[Sequence[Frame], None] = {}
        wrong = 0
        for number in self.at_the_same_place(node.number) if node.operation not in MOVES else ():
            other = self.record[number]
            official = other.value is not None and self.slice.right(other.number)
            if not official or other.frames == node.frames:
                wrong += 1
            elif self.slice.person.print_of(other.number) in map(self.slice.person.print_of, other.inputs):
                continue  # it did nothing
            elif edit is None or self.tells(edit, other):
                right[other.frames] = None
        return list(right) if edit is not None or len(right) >= wrong else []

    def tells(self, edit: Difference, other: Node) -> bool:
        """Whether an edit would change another tensor. If not, that it is right shows nothing."""
        moved = replace(edit, node=other.number)
        try:
            if edit.kind == "insert" and edit.user >= 0:
                moved = replace(edit, user=other.number, node=other.inputs[edit.edge])
            elif edit.kind == "drop":
                moved = replace(moved, other=other.inputs[self.record[edit.node].inputs.index(edit.other)])
            changed = replay(self.record, [other.number], Patch(self.slice, (moved,)).corrections())
        except Exception:  # what does not fit there would have failed
            return True
        value = changed.get(other.number)
        return not (isinstance(value, Tensor) and equal(value, other.value))

    def of_helper(self, edits: Sequence[Difference]) -> list[Frame]:
        """Where all is of one call of a function that is right in others: the line that made what it got and
        what is nowhere official; or, of several edits, the line that called it. Operands have ways of their
        own."""
        stacks = [self.record[edit.node].frames for edit in edits]
        if all(edit.kind == "operand" for edit in edits):
            return []
        shared = set.intersection(*({frame.call for frame in stack} for stack in stacks))
        depth = next((at for stack in stacks[:1] for at, f in enumerate(stack) if f.call in shared), 0)
        if not shared or depth + 1 == len(stacks[0]) or not self._right_elsewhere(stacks[0][depth], edits):
            return []
        numbers = self.slice.operations(max(edit.node for edit in edits))
        helper, *callers = stacks[0][depth:]
        into = [self.record[n].frames for n in numbers if self.record[n].frames]
        apart = [frames for frames in into if helper.scope not in {frame.scope for frame in frames}]
        return [frames[0] for frames in apart[-1:]] or callers[: len(edits) > 1]

    def _right_elsewhere(self, frame: Frame, edits: Sequence[Difference]) -> bool:
        """Whether a function made and gave something official when it was called from another line, or in the
        same call of its caller, and what is edited was right then, too."""
        same = [self.record[n] for edit in edits for n in self.at_the_same_place(edit.node)]
        wrong = {f.call for node in same if not self.slice.right(node.number) for f in node.frames}
        own = {f for edit in edits for f in self.record[edit.node].frames if f.call == frame.call}
        if frame.call not in self.record.callers or any(" if " in f.text for f in own):  # it chooses itself
            return False
        callers, lines = self.record.callers, {f.line for f in own}
        for call in callers.keys() - {frame.call, *wrong}:
            steps = [self.record.steps[at] for at in self.ways.of_call.get(call, ())]
            if not steps or steps[0].frame.scope != frame.scope or not lines <= {s.frame.line for s in steps}:
                continue  # another function, or it went another way
            if callers[call] == callers[frame.call] or self._called_from(call) != self._called_from(
                frame.call
            ):
                values = [value for _, held in self.record.results.get(call, ()) for value in held]
                made = [value.node for value in values if type(value) is Ref and value.node >= steps[0].nodes]
                if any(map(self.slice.right, made)):
                    return True
        return False

    def _called_from(self, call: int) -> tuple[str, int] | None:
        """The line that made a call."""
        at = self.ways.caller(call)
        return None if at is None else self.record.steps[at].frame.line

    def of_function(self, frames: Sequence[Frame]) -> set[tuple[str, int]]:
        """The lines that call the function of the innermost frame."""
        stacks = [node.frames for node in self.record.nodes if len(node.frames) > 1]
        inner = frames[0].scope if frames else None
        return {stack[1].line for stack in stacks if stack[0].scope == inner}

    def at_the_same_place(self, number: int) -> Sequence[int]:
        """The nodes that an operation's line made in other calls, and itself."""
        return self._alike.get(self._place.get(number), ())

    def given_by(self, frame: Frame) -> list[int]:
        """What a line made last in each of its other calls, by whatever operation."""
        last = {n.frames[0]: n.number for n in self.record.nodes if n.function is not None and n.frames}
        return [n for of, n in last.items() if of.line == frame.line and of.call != frame.call]

    @cached_property
    def _place(self) -> dict[int, Any]:
        """Node -> its line, and which operation of its kind it is there."""
        count, places = Counter[Any](), dict[int, Any]()
        for node in self.record.nodes:
            if node.function is not None and node.frames:
                key = (node.frames[0], word(node), node.output)
                places[node.number] = (node.frames[0].line, word(node), node.output, count[key])
                count[key] += 1
        return places

    @cached_property
    def _alike(self) -> dict[Any, list[int]]:
        """The nodes of each such place: the same operation in other calls."""
        alike: dict[Any, list[int]] = {}
        for number, site in self._place.items():
            alike.setdefault(site, []).append(number)
        return alike


def from_depth(frames: Sequence[Frame], depth: int) -> list[Frame]:
    """A stack, from one of its frames on; then those inside it, the nearest first."""
    return [frames[depth], *frames[:depth][::-1], *frames[depth + 1 :]] if frames else []
