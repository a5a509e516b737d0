"""A repair: the same code with one thing put right, first on the recorded slice, then in a run of the code
itself.

What is put right is read off the official slice: its constant, its operand, its operation, one more or one
less. An official tensor is never put in the place of what it should be computed as: what goes in are weights,
inputs, and tensors that the person's run had already made itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.diagnosis.reading.record import Correction, Record
from llm_rebuild.diagnosis.reading.slices import MOVES, Difference, Side, Slice
from llm_rebuild.verify.equality import ONE_SUM, apart, equal, relative_difference, usual
from llm_rebuild.verify.operations import call, copied, facts_of, leaves, mapped, written_by
from llm_rebuild.verify.recording import Call, Ref, recompute

LISTS = {"split", "split_with_sizes", "chunk", "unbind", "tensor_split"}
SEVERAL = 6  # official operations that stand for what a person wrote by hand
MADE = 3  # official operations in a row that may be put in front of another
SAME_FUNCTION = 1e-7  # of the largest number, in float64: two spellings of one function stay far below


class NotPossibleError(Exception):
    """An edit that cannot be made."""


@dataclass(frozen=True)
class Patch:
    """Edits that are made together: what each operation of the person's gives then."""

    slice: Slice
    edits: tuple[Difference, ...]

    def corrections(self) -> dict[Call, Correction]:
        """By the operation, for `Recorder`. NotPossibleError where there is no operation to correct."""
        nodes = self.slice.person.record.nodes
        calls: dict[Call, list[Difference]] = {}
        for edit in self.edits:
            node = edit.user if edit.kind == "insert" and edit.user >= 0 else edit.node
            if nodes[node].function is None:
                raise NotPossibleError
            calls.setdefault(nodes[node].call, []).append(edit)
        return {at: partial(self._corrected, edits) for at, edits in calls.items()}

    def _corrected(self, edits: Sequence[Difference], function: Any, args: Any, named: Any) -> Any:
        """What an operation gives with these edits; in the form in which it gives its results."""
        operands = [x for x in leaves((args, tuple(named.values()))) if isinstance(x, Tensor)]
        for edit in edits:
            if edit.kind == "operand":
                operands[edit.at] = self.official(edit.other)
            elif edit.kind == "insert" and edit.user >= 0:
                operands[edit.edge] = self._inserted(edit, operands[edit.edge])
            elif edit.kind == "in place":
                operands[0] = operands[0].clone()
        left = iter(operands)
        put = lambda x: next(left) if isinstance(x, Tensor) else x  # noqa: E731
        instead: dict[int, Any] = {}
        for edit in edits:
            node = self.slice.person.record[edit.node]
            if edit.kind == "drop":
                instead[node.output] = operands[node.inputs.index(edit.other)].clone()
            elif edit.kind == "value":
                instead[node.output] = self.official(edit.other).reshape(node.value.shape)
            elif edit.kind in ("constant", "replace", "layout"):
                instead[node.output] = self._replaced(edit, operands)
            elif edit.kind == "whole":
                instead[node.output] = self._as_officially(edit)
        several = len(getattr(getattr(function, "_schema", None), "returns", ())) > 1
        result: Any = None
        if not instead or several or max(instead) or facts_of(function).name in LISTS:
            result = call(function, mapped(args, put), mapped(named, put))
        elif instead:
            result = instead[0]
        for edit in edits:
            if edit.kind == "insert" and edit.user < 0:
                at = self.slice.person.record[edit.node].output
                plain = result[at] if isinstance(result, (list, tuple)) else result
                instead[at] = self._inserted(edit, instead.get(at, plain))
        if isinstance(result, (list, tuple)):
            return type(result)(instead.get(at, value) for at, value in enumerate(result))
        written = written_by(function, args, named)
        if written and 0 in instead:  # who wrote in place goes on with what was written into
            return written[0].copy_(instead[0])
        return instead.get(0, result)

    def _as_officially(self, edit: Difference) -> Any:
        """An official tensor, made by a few official operations of what the person's run had by then."""
        record, new = self.slice.official.record, dict[int, Any]()

        def put(x: Any) -> Any:
            """What was made anew, else what the official run had."""
            return (new[x.node] if x.node in new else record[x.node].value.clone()) if type(x) is Ref else x

        numbers = self.slice.official_operations(edit.other, edit.node)
        computed = [n for n in numbers if record[n].operation not in MOVES and record[n].inputs]
        if sum(record[n].value.is_floating_point() for n in computed) > SEVERAL:
            raise NotPossibleError
        for number in numbers:
            new[number] = recompute(record[number], put)
        return new[edit.other]

    def _inserted(self, edit: Difference, value: Any) -> Any:
        """What the missing operation makes of a person's tensor."""
        sources = self.slice.official.record[edit.other].inputs
        others = [value if at == edit.at else self.official(source) for at, source in enumerate(sources)]
        return self._called(edit.other, others)

    def _replaced(self, edit: Difference, operands: Sequence[Tensor]) -> Any:
        """The official operation on the person's operands; what it has more is official."""
        sources = self.slice.official.record[edit.other].inputs
        order = self.slice.order(edit.node, edit.other)
        put = [operands[i] if i >= 0 else self.official(sources[at]) for at, i in enumerate(order)]
        return self._called(edit.other, put)

    def _called(self, other: int, operands: Sequence[Any]) -> Any:
        node, left = self.slice.official.record[other], iter(operands)
        put = lambda x: next(left) if type(x) is Ref else x  # noqa: E731
        return recompute(node, put)

    def official(self, number: int, left: int = MADE) -> Tensor:
        """An official tensor that a person has at hand: a weight, an input, what their run has made, or a few
        operations on these; of whole numbers as many as it takes. NotPossibleError for any other."""
        side = self.slice.official
        node = side.record[side.through(number)]
        if node.function is None or self.slice.has(node.number):
            value: Tensor = node.value.clone()
            return value
        if not left:
            raise NotPossibleError
        left = left - 1 if node.value.is_floating_point() else 10 * MADE
        values = [self.official(source, left) for source in node.inputs]
        made: Tensor = self._called(node.number, values)
        return made


def replay(record: Record, nodes: Iterable[int], corrections: dict[Call, Correction]) -> dict[int, Any]:
    """Compute these nodes again, in order, with corrections: those that come out otherwise, by number.

    Raises what the operations raise.
    """
    new: dict[int, Any] = {}
    for number in nodes:
        node = record[number]
        correction = corrections.get(node.call)
        if node.function is None or (correction is None and not any(i in new for i in node.inputs)):
            continue
        put = lambda x: new.get(x.node, record[x.node].value) if type(x) is Ref else x  # noqa: E731
        if correction is None:
            new[number] = recompute(node, put)
        else:
            args, named = mapped(node.arguments, put), mapped(dict(node.named), put)
            if facts_of(node.function).written:
                args, named = mapped(args, copied), mapped(named, copied)
            result = correction(node.function, args, named)
            new[number] = result[node.output] if isinstance(result, (list, tuple)) else result
    return new


def narrower(
    between: Slice, edits: Sequence[Difference], target: int, other: int
) -> Iterable[tuple[Difference, ...]]:
    """Of whole numbers and truth values that should be others: the earliest that need to, one at a time."""
    person, official = between.person.record, between.official.record
    others = [(person if edit.kind == "drop" else official)[edit.other] for edit in edits]
    values = [node.value for node in (*others, *(person[edit.node] for edit in edits))]
    if all(value is None or value.is_floating_point() for value in values):
        return
    if len(edits) == 1 and edits[0].kind == "operand":
        target, other = person[edits[0].node].inputs[edits[0].at], edits[0].other
    numbers = {i for n in between.official_operations(other) for i in (n, *official[n].inputs)}
    theirs = [official[i] for i in sorted(numbers) if not official[i].value.is_floating_point()]
    for node in (person[number] for number in between.operations(target)):
        if node.function is None or node.value is None or node.value.is_floating_point():
            continue
        for right in theirs:
            if right.value.numel() == node.value.numel() and right.value.dtype == node.value.dtype:
                yield (Difference("value", node.number, right.number),)


def in_float64(record: Record, nodes: Sequence[int]) -> Tensor | None:
    """The last of these nodes, computed in float64 from what goes into them all; None where it cannot be."""
    inside, new = set(nodes), dict[int, Any]()

    def wide(x: Any) -> Any:
        """A value as float64 has it."""
        if type(x) is Ref:
            if x.node in inside:
                return new[x.node]
            value = record[x.node].value
            return value.double() if value.dtype is torch.float32 else value
        return torch.float64 if x is torch.float32 else x

    try:
        with torch.no_grad():
            for number in nodes:
                node = record[number]
                if node.function is None:
                    new[number] = wide(Ref(-1)) if node.value is None else node.value.double()
                    continue
                new[number] = recompute(node, wide)
    except Exception:  # an operation that has no float64, or does not fit together so
        return None
    return new[nodes[-1]] if isinstance(new[nodes[-1]], Tensor) else None


def same_function(between: Slice, target: int, other: int) -> bool:
    """Whether both slices compute the same: in float64 rounding is too small to hide it where they begin with
    the same tensors. What one begins with and the other computes was rounded once."""
    own, theirs = between.operations(target), between.official_operations(other)
    one, two = in_float64(between.person.record, own), in_float64(between.official.record, theirs)
    if one is None or two is None or one.shape != two.shape:
        return False
    masked = apart(one, two) & ~usual(two)  # which does not round
    if not one.is_floating_point() or bool(masked.any()):
        return equal(one, two)
    alike = _begins(between.person, own) == _begins(between.official, theirs)
    return relative_difference(one, two) <= (SAME_FUNCTION if alike else ONE_SUM)


def _begins(side: Side, operations: Sequence[int]) -> set[Any]:
    """The fingerprints of the tensors that operations begin with."""
    into = {i for n in operations for i in side.record[n].inputs} - set(operations)
    several = {i for i in into if (value := side.record[i].value) is not None and value.numel() > 1}
    return {side.print_of(side.chain(i)[-1]) for i in several}
