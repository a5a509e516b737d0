"""What lies between: the person's operations since their tensors were last right, beside the official ones.

A person's tensor is right where the official run has one of the same shape, dtype and bits. From a checkpoint
that differs one goes back on both sides at once, and asks of each pair of operations what the smallest
difference is: the same operation on something else, with another constant, one operation more, one less, one
in another's place. That is the distance between two trees, with one edit counting one. What is right ends the
way back.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import memory_of
from llm_rebuild.diagnosis.reading.record import Record
from llm_rebuild.verify.operations import facts_of, leaves
from llm_rebuild.verify.recording import Node, Ref, recompute

# Operations that hand their tensor on, number for number and in the same shape.
SAME = {"detach", "alias", "clone", "lift_fresh", "contiguous", "lift", "_to_copy", "to", "dropout"}
# Those that only lay it out otherwise.
VIEWS = {
    "view", "_unsafe_view", "reshape", "transpose", "permute", "t", "unsqueeze", "squeeze", "expand",
    "unflatten", "flatten", "_reshape_alias", "movedim", "numpy_T", "as_strided", *SAME,
}  # fmt: skip
REPEATS = {"repeat", "repeat_interleave", "tile"}  # they compute nothing, and make more of it
MOVES = VIEWS | {"split", "chunk", "split_with_sizes", "unbind", "select", "slice"}  # none of them computes
COMMUTES = {"add", "mul", "eq", "ne", "maximum", "minimum", "bitwise_and", "bitwise_or", "logical_and"}
# The same operation under several names.
_ALIKE = {
    "reshape": "view", "t": "transpose", "permute": "transpose", "bitwise_and": "and", "logical_and": "and",
    "true_divide": "div", "masked_fill": "where", "split_with_sizes": "split", "chunk": "split",
    "index": "embedding",
}  # fmt: skip
_NO_MATTER = {"device", "pin_memory", "layout", "memory_format", "non_blocking"}
LARGE = 4 * 2**20  # numbers; such a tensor is known by how it was made
PAIRS = 3000  # of operations that are held against each other for one checkpoint
EXCHANGED = 3.0  # to take an operation out and to put the same one in
UNLIKE = 50.0  # farther apart than this there is nothing to say


def word(node: Node) -> str:
    """What programs call a node's operation: `matmul`, `softmax`, `view`."""
    word = facts_of(node.function).word
    return _ALIKE.get(word, word)


def fingerprint(tensor: Tensor) -> bytes:
    """Of shape, dtype and numbers; a zero's sign does not count."""
    with torch.no_grad():
        tensor = tensor.detach()
        if tensor.is_floating_point():
            tensor = tensor + 0.0
        raw = memory_of(tensor).numpy().data
    head = f"{tuple(tensor.shape)} {tensor.dtype}".encode()
    return hashlib.blake2b(raw, digest_size=16, person=hashlib.blake2b(head, digest_size=8).digest()).digest()


class Side:
    """A record and what its tensors are known by.

    strict  Whether an operation that happens to change nothing counts as one: on the person's side it may
            have been meant to change something.
    """

    def __init__(self, record: Record, strict: bool = False) -> None:
        self.record, self.strict = record, strict
        self._prints: dict[int, Any] = {}

    def print_of(self, number: int) -> Any:
        """The fingerprint of a node's tensor; None where the operation failed."""
        if number not in self._prints:
            self._prints[number] = self._made(self.record[number])
        return self._prints[number]

    @cached_property
    def prints(self) -> frozenset[Any]:
        """Of all its tensors but single numbers, of which too many are alike."""
        several = (n for n in self.record.nodes if n.value is not None and n.value.numel() > 1)
        return frozenset(self.print_of(node.number) for node in several)

    @cached_property
    def where(self) -> dict[Any, list[int]]:
        """Fingerprint -> the nodes that have it."""
        where: dict[Any, list[int]] = {}
        for node in self.record.nodes:
            if node.value is not None:
                where.setdefault(self.print_of(node.number), []).append(node.number)
        return where

    def _made(self, node: Node) -> Any:
        if node.value is None:
            return None
        if node.value.numel() <= LARGE:
            return fingerprint(node.value)
        if node.function is None:
            return node.name or fingerprint(node.value)
        rest = [x for x in leaves((node.arguments, tuple(node.named.values()))) if type(x) is not Ref]
        return (node.operation, str(rest), tuple(self.print_of(i) for i in node.inputs), node.output)

    def chain(self, number: int) -> list[int]:
        """What a tensor is only laid out from, or repeated, and what that is."""
        chain = [number]
        while self.record[number].operation in VIEWS | REPEATS and self.record[number].inputs:
            number = self.record[number].inputs[0]
            chain.append(number)
        return chain

    def through(self, number: int) -> int:
        """Back through what hands a tensor on; officially, and of whole numbers, whatever it is called."""
        while True:
            node = self.record[number]
            computed = node.value is not None and node.value.is_floating_point()
            if self.strict and computed and node.operation not in SAME:
                return number
            of = self.print_of(number)
            source = next((i for i in node.inputs if i != number and self.print_of(i) == of), None)
            if source is None or of is None or facts_of(node.function).written:
                return number
            number = source


@dataclass(frozen=True)
class Difference:
    """One edit.

    kind   `constant`, `operand`, `drop` (an operation too many), `insert` (one is missing), `replace`,
           `layout`, `value` (whole numbers or truth values that should be others), `whole` (all that lies
           between what is right and `node` computed as officially), or `other`, where the two sides have
           nothing in common.
    node   The person's node at which it is made. Of `insert`: behind which the operation is missing.
    other  The official node: what should stand there.
    at     Of `operand`: which input of `node` it is. Of `insert`: as which input of `other` the node goes in.
    user   Of `insert`: the person's operation in front of which it is missing; -1: behind `node`, whoever
           uses it.
    edge   Of `insert`: which input of `user` it is.
    """

    kind: str
    node: int
    other: int
    at: int = -1
    user: int = -1
    edge: int = -1


class Slice:
    """The two sides, and what they have in common."""

    def __init__(self, person: Record, official: Side) -> None:
        self.person, self.official = Side(person, strict=True), official
        self._known: dict[tuple[int, int], tuple[float, tuple[Difference, ...]]] = {}
        self._open: set[tuple[int, int]] = set()
        self._target = (-1, -1)
        tapped = {name: number for name, number in person.tapped.items() if name in official.record.tapped}
        right = [number for name, number in tapped.items() if self.same(number, official.record.tapped[name])]
        self._uses = Counter(source for node in person.nodes for source in set(node.inputs))
        self._checkpoints = {n for number in right for n in self.person.chain(number)}

    def right(self, number: int) -> bool:
        """Whether a person's tensor is an official one. Of a single number that shows nothing."""
        node = self.person.record[number]
        if node.function is None and node.name:
            return True
        return node.value is not None and self.person.print_of(number) in self.official.prints

    def known(self, number: int) -> bool:
        """Whether a person's tensor was shown as a checkpoint, and was right."""
        return number in self._checkpoints

    def another(self, number: int) -> bool:
        """Whether a person's tensor is right, and was shown as a checkpoint, or is a view of one that was."""
        return self.right(number) and any(map(self.known, self.person.chain(number)))

    def same(self, number: int, other: int) -> bool:
        """Whether a person's tensor and an official one are the same."""
        return bool(self.person.print_of(number) == self.official.print_of(other))

    def operations(self, target: int) -> list[int]:
        """The person's nodes from the last right ones to this, in order. Whole numbers and truth values are
        followed to where they come from: too many of them are alike."""
        record = self.person.record
        ends = lambda n: record[n].function is None or (record[n].value is not None and self.right(n))  # noqa: E731
        return _back(record, target, ends)

    def official_operations(self, target: int, before: int = -1) -> list[int]:
        """The official nodes from what the person's run has, too, to this, in order. before: has by then."""
        record = self.official.record

        def at_hand(n: int) -> bool:
            """Whether a node is where the way ends: it came from outside, or the person's run has it."""
            if record[n].function is None or not self.has(n):
                return record[n].function is None
            return before < 0 or self.person.where[self.official.print_of(n)][0] < before

        return _back(record, target, at_hand)

    def has(self, other: int) -> bool:
        """Whether the person's run has an official tensor anywhere."""
        return self.official.print_of(other) in self.person.prints

    # ------------------------------------------------------------------------ the smallest difference

    def differences(self, number: int, other: int) -> tuple[Difference, ...]:
        """The fewest edits that make the official tree of the person's."""
        self._known.clear()
        self._open.clear()
        self._target = (self.person.through(number), self.official.through(other))
        edits, behind = self._apart(number, other)[1], self._target[0]
        # What is missing behind all is missing behind the tensor itself, however often it was handed on.
        last = [e.kind == "insert" and e.user < 0 and e.node == behind for e in edits]
        edits = tuple(replace(e, node=number) if at else e for e, at in zip(edits, last, strict=True))
        ways = {"insert": self._there, "operand": self._alike_in_shape}
        edits = tuple(ways[edit.kind](edit) if edit.kind in ways else edit for edit in edits)
        return tuple(edit for edit in edits if not self._laid_out_alike(edit, edits))

    def _laid_out_alike(self, edit: Difference, edits: Sequence[Difference]) -> bool:
        """Whether an operation that only lays out would be right once what goes in is."""
        own = self.person.record[edit.node]
        put_right = {e.at: e.other for e in edits if e.kind == "operand" and e.node == edit.node}
        if edit.kind != "replace" or own.operation not in {*MOVES, *REPEATS} or not put_right:
            return False
        records, inputs = (self.person.record, self.official.record), enumerate(own.inputs)
        values = (records[at in put_right][put_right.get(at, source)].value for at, source in inputs)
        try:
            made = recompute(own, lambda x: next(values) if type(x) is Ref else x)
        except Exception:  # what is not made for another shape
            return False
        return isinstance(made, Tensor) and fingerprint(made) == self.official.print_of(edit.other)

    def _alike_in_shape(self, edit: Difference) -> Difference:
        """The tensor that should go in, laid out as the one that goes in."""
        official, person = self.official.record, self.person.record
        shape = person[person[edit.node].inputs[edit.at]].value.shape
        alike = (o for o in self.official.chain(edit.other) if official[o].value.shape == shape)
        return replace(edit, other=next(alike, edit.other))

    def _there(self, edit: Difference) -> Difference:
        """What is missing behind one of its kind that changed nothing is there: its operand is another."""
        own, theirs = self.person.record[edit.node], self.official.record[edit.other]
        if word(own) == word(theirs) and len(own.inputs) == len(theirs.inputs) == 2:
            for at, source in enumerate(own.inputs):
                if self.person.print_of(source) == self.person.print_of(own.number):
                    return Difference("operand", own.number, theirs.inputs[1 - edit.at], 1 - at)
        return edit

    def _apart(self, p: int, o: int) -> tuple[float, tuple[Difference, ...]]:
        p, o = self.person.through(p), self.official.through(o)
        if self.same(p, o):
            return 0.0, ()
        if (p, o) in self._known:
            return self._known[p, o]
        if (p, o) in self._open or len(self._known) + len(self._open) > PAIRS:
            return UNLIKE, (Difference("other", p, o),)
        self._open.add((p, o))
        best = min(self._ways(p, o), key=lambda way: way[0])
        self._open.discard((p, o))
        self._known[p, o] = best
        return best

    def _ways(self, p: int, o: int) -> list[tuple[float, tuple[Difference, ...]]]:
        own, theirs = self.person.record[p], self.official.record[o]
        ways: list[tuple[float, tuple[Difference, ...]]] = [(UNLIKE, (Difference("other", p, o),))]
        if own.function is not None and ((p, o) == self._target or not self.right(p)):
            for x in own.inputs:
                cost, more = self._apart(x, o)
                again = word(own) == word(theirs) and any(e.kind == "insert" and e.other == o for e in more)
                cost += self._price(own) + EXCHANGED * again
                more = tuple(replace(e, node=p) if e.kind == "insert" and e.user < 0 else e for e in more)
                ways.append((cost, (*more, Difference("drop", p, x))))
        # Below what is right on a side there is nothing to be found on it.
        if (
            own.function is not None
            and theirs.function is not None
            and ((p, o) == self._target or own.operation in MOVES or not (self.right(p) and self.has(o)))
        ):
            ways.append(self._in_place(p, o))
        if theirs.function is not None and not (own.function is None and own.name):
            for at, y in enumerate(theirs.inputs):
                if self.has(o) and not self.same(p, y):
                    continue
                cost, more = self._apart(p, y)
                again = word(own) == word(theirs) and any(e.kind == "drop" and e.node == p for e in more)
                cost += self._price(theirs) + EXCHANGED * again
                ways.append((cost, (*more, Difference("insert", p, o, at))))
        return ways

    def _price(self, node: Node) -> float:
        """What an operation more or less costs: a change of layout is little."""
        return 0.4 if node.operation in VIEWS else 1.0

    def _in_place(self, p: int, o: int) -> tuple[float, tuple[Difference, ...]]:
        """One operation in the place of the other: with other constants, other operands, or another."""
        own, theirs = self.person.record[p], self.official.record[o]
        same_word = word(own) == word(theirs)
        cost, edits = 0.0, list[Difference]()
        for at, source in enumerate(self.order(p, o)):
            if source < 0:
                cost += 0.2
            else:
                more, of_operand = self._operand(own.inputs[source], theirs.inputs[at], p, source)
                cost += more
                edits += of_operand
        if not same_word or len(own.inputs) != len(theirs.inputs):
            cost += 1.0 + 0.2 * max(0, len(own.inputs) - len(theirs.inputs))
            return cost, (*edits, Difference("replace", p, o))
        if not self.alike(own, theirs):
            return cost + 1.0, (*edits, Difference("constant", p, o))
        return (cost, tuple(edits)) if edits else (1.5, (Difference("layout", p, o),))

    def order(self, p: int, o: int) -> list[int]:
        """For each input of an official operation, which of the person's takes its place; -1: none does."""
        own, theirs = self.person.record[p], self.official.record[o]
        left = list(range(len(own.inputs)))
        order = [-1] * len(theirs.inputs)
        if word(own) != word(theirs) or len(left) != len(order) or word(own) in COMMUTES:
            for at, source in enumerate(theirs.inputs):
                match = next((i for i in left if self.same(own.inputs[i], source)), None)
                if match is not None:
                    order[at] = match
                    left.remove(match)
        for at in range(len(order)):
            if order[at] < 0 and left:
                order[at] = left.pop(0)
        return order

    def _operand(self, x: int, y: int, user: int, at: int) -> tuple[float, tuple[Difference, ...]]:
        """The difference of two operands: how they were made, or that another tensor was instead."""
        cost, edits = self._apart(x, y)
        instead = Difference("operand", user, y, at)
        edits = tuple(
            replace(e, user=user, edge=at) if e.kind == "insert" and e.user < 0 else e for e in edits
        )
        p, o = self.person.through(x), self.official.through(y)
        theirs = self.official.record
        ends = [theirs[self.official.chain(e.other)[-1]] for e in edits if e.kind == "operand"]
        weights = bool(edits) and len(ends) == len(edits) and all(end.function is None for end in ends)
        chosen = any(n in self._checkpoints or self._uses.get(n, 0) > 1 for n in self.person.chain(p))
        if self.right(p) and weights and not chosen:  # made with other weights, and not taken for another
            return 1.0, edits
        if cost > 1.0 and (self.right(p) or theirs[o].function is None):
            return 1.0, (instead,)
        if cost == 1.0 and self.right(p) and chosen:
            return 1.0, (instead,)
        value = self.official.record[o].value
        if cost > 3.0 and value is not None and not value.is_floating_point():
            return 3.0, (instead,)
        return cost, edits

    def alike(self, own: Node, theirs: Node) -> bool:
        """Whether two nodes of the same operation have the same constants, or such as make no difference."""
        if own.output != theirs.output:
            return False
        if constants(own) == constants(theirs):
            return True
        try:
            order = iter(
                [self.person.record[own.inputs[i]].value for i in self.order(own.number, theirs.number)]
            )
            put = lambda x: next(order) if type(x) is Ref else x  # noqa: E731
            return bool(fingerprint(recompute(theirs, put)) == self.person.print_of(own.number))
        except Exception:  # what the official constants are not made for
            return False


def _back(record: Record, target: int, ends: Callable[[int], bool]) -> list[int]:
    """A node and those that it was computed from, in order; not those at which the way back ends."""
    seen: set[int] = set()
    stack = [target]
    while stack:
        number = stack.pop()
        if number not in seen:
            seen.add(number)
            stack += [source for source in record[number].inputs if not ends(source)]
    return sorted(seen)


def constants(node: Node) -> list[Any]:
    """What an operation is given that is no tensor, without what does not change a number."""
    named: Mapping[str, Any] = {k: v for k, v in node.named.items() if k not in _NO_MATTER}
    return [value for value in leaves((node.arguments, tuple(named.values()))) if type(value) is not Ref]
