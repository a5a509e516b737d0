"""What was read, in words: numbers with the names that a config has for them, tensors with checkpoints'."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llm_rebuild.diagnosis.reading.record import Record
from llm_rebuild.diagnosis.reading.slices import MOVES, Difference, Side, Slice, constants, word
from llm_rebuild.errors import listed
from llm_rebuild.verify.recording import Node

PRODUCTS = {"matmul", "addmm", "baddbmm"}  # with a bias or without
SPOKEN = 9  # so many operations are listed at the most


class Words:
    """Sentences about the edits of one slice. `config` is what config.json holds."""

    def __init__(self, between: Slice, config: Mapping[str, Any]) -> None:
        self.slice, self.config = between, config

    def difference(self, edits: Sequence[Difference]) -> str:
        """What the code does, and what the official model does."""
        return "; ".join(dict.fromkeys(self._said(edit)[0] for edit in edits))

    def repair(self, edits: Sequence[Difference]) -> str:
        """What to do."""
        return ", and ".join(dict.fromkeys(self._said(edit)[1] for edit in edits))

    def _said(self, edit: Difference) -> tuple[str, str]:
        """What the code does, and what to do."""
        own, theirs = self.sides(edit)
        one, other = f"`{word(own)}`", f"`{word(theirs)}`"
        if edit.kind == "constant":
            wrong, right = self._constants(own, theirs)
            seen = f"{one} with {wrong}; the official model has {right}"
            return seen, f"give {one} {right} instead of {wrong}"
        if edit.kind == "operand":
            wrong, right = self._person(own.inputs[edit.at]), self._official(edit.other)
            return f"{one} takes {wrong}, officially {right}", f"use {right} instead of {wrong}"
        if edit.kind == "in place":
            seen = f"{one} writes into {self._person(own.inputs[0])}, which is still needed as it was"
            return seen, f"let {one} make a new tensor"
        if edit.kind == "drop":
            wrong = f"{one}{self._with(own)}"
            return f"{wrong} is one operation too many", f"leave out {wrong}"
        if edit.kind == "insert":
            operands = made = self._with(theirs, edit.at)
            if not operands and len(theirs.inputs) > 1 and theirs.value is not None:
                made = f", which gives {list(theirs.value.shape)}"  # of what has no name
            return f"{other}{operands} is missing", f"add {other}{made}"
        if edit.kind == "value":
            right = self._official(edit.other)
            return f"{one} gives other numbers than officially {right}", f"make it {right}"
        wrong, right = f"{one}{self._with(own)}", f"{other}{self._with(theirs)}"
        if wrong == right:  # of other tensors, or of more
            wrong = f"{one} of {_shapes(self.slice.person.record, own)}"
            right = f"{one} of {_shapes(self.slice.official.record, theirs)}"
        if edit.kind == "layout":
            return f"{one} of what lies in memory in another way", f"lay out what {one} takes as officially"
        use = f"use {right} instead of {wrong if one == other else one}"
        if edit.kind == "replace":
            return f"{wrong}, where the official model has {right}", use
        if one == other and edit.kind == "other":
            return f"{one} of something else than officially", f"give {one} what it takes officially"
        instead = self._as_officially(edit) if edit.kind == "whole" else use
        return f"`{word(own) or 'a tensor from elsewhere'}`, where the official model has {other}", instead

    def _as_officially(self, edit: Difference) -> str:
        """The official operations between what is right and a tensor, each with what goes into it."""
        side = self.slice.official
        numbers = self.slice.official_operations(edit.other, edit.node)
        nodes = [side.record[number] for number in numbers if side.record[number].function is not None]
        names = [f"`{word(node)}`{self._with(node, len(node.inputs))}" for node in nodes]
        if len(names) > SPOKEN:  # nobody reads so long a list
            inputs = {f"`{plain_name(side, i)[0]}`" for node in nodes for i in node.inputs} - {"``"}
            return f"compute it as the official model does, from {listed(sorted(inputs)) or 'numbers alone'}"
        return f"compute it by {listed(names, SPOKEN)}"

    def unfitting(self, failed: Node, missing: str) -> str:
        """What went into an operation that failed, and what goes into the official one of this kind that
        comes next before a checkpoint."""
        official = self.slice.official.record
        last = official.tapped.get(missing, -1)
        like = (n for n in self.slice.official_operations(last) if last >= 0)
        kinds = PRODUCTS if word(failed) in PRODUCTS else {word(failed)}
        theirs = next((official[n] for n in like if word(official[n]) in kinds), None)
        right = f", officially {_shapes(official, theirs)}" if theirs is not None else ""
        return f"`{word(failed)}` of {_shapes(self.slice.person.record, failed)}{right}"

    def moves(self, edit: Difference) -> bool:
        """Whether an edit changes no number, but where they stand."""
        own, theirs = self.sides(edit)
        nodes = (theirs,) if edit.kind == "insert" else (own, theirs)
        return edit.kind != "operand" and all(node.operation in MOVES for node in nodes)

    def names(self, edit: Difference) -> tuple[str, str]:
        """The checkpoint or weight that belongs there, or at which the edit is made, and that which was taken
        instead, or went into an operation too many; empty where they have no name."""
        own, official = self.slice.person.record[edit.node], self.slice.official
        if edit.kind == "operand":
            wrong = self._plain(own.inputs[edit.at])
            return plain_name(official, edit.other)[0], wrong
        if edit.kind == "drop":
            others = [number for number in own.inputs if number != edit.other]
            return self._plain(edit.other), self._plain(others[0]) if others else ""
        if edit.kind == "insert":
            return self._plain(edit.node), ""
        return plain_name(official, edit.other)[0], ""

    def _plain(self, number: int) -> str:
        """The official name of a person's tensor, or of what it is only a view of."""
        side, official = self.slice.person, self.slice.official
        for at in side.chain(number):
            if side.record[at].function is None and side.record[at].name:
                return side.record[at].name
            alike = official.where.get(side.print_of(at), ())
            named = [official.record[i].checkpoint for i in alike if official.record[i].checkpoint]
            if named:
                return named[0]
        return ""

    def sides(self, edit: Difference) -> tuple[Node, Node]:
        """The person's node of an edit, and the official one where there is one."""
        own = self.slice.person.record[edit.node]
        return own, own if edit.kind == "drop" else self.slice.official.record[edit.other]

    # --------------------------------------------------------------------------------- names of things

    def _official(self, number: int) -> str:
        node = self.slice.official.record[number]
        made = f"what `{word(node)}` gives" if node.function is not None else "numbers made before the run"
        return name_of(self.slice.official, number) or made

    def _person(self, number: int) -> str:
        side, official = self.slice.person, self.slice.official
        alike = (name_of(official, i) for i in official.where.get(side.print_of(number), ()))
        if name := name_of(side, number) or next(filter(None, alike), ""):
            return name
        node = side.record[number]
        if node.function is None:
            return "a tensor from elsewhere"
        line = f" in line {node.frames[0].number}" if node.frames else ""
        return f"what `{word(node)}` gives{line}"

    def _with(self, node: Node, but: int = -1) -> str:
        """An operation's constants and its other operands, in brackets."""
        if word(node) == "view" and node.value is not None:
            return f" {list(node.value.shape)}"
        side = self.slice.official if but >= 0 else self.slice.person
        parts = [self.number(x) for x in constants(node) if type(x) in (int, float)]
        if but >= 0:
            names = [name_of(side, i) for at, i in enumerate(node.inputs) if at != but]
            parts += [name for name in names if name]
        return f" ({', '.join(parts[:4])})" if parts else ""

    def _constants(self, own: Node, theirs: Node) -> tuple[str, str]:
        if word(own) in ("view", "expand"):
            return str(list(own.value.shape)), str(list(theirs.value.shape))
        if own.output != theirs.output:  # one of several results
            return f"part {own.output}", f"part {theirs.output}"
        a, b = constants(own), constants(theirs)
        if len(a) == len(b):
            pairs = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
            a, b = [x for x, _ in pairs], [y for _, y in pairs]
        return ", ".join(map(self.number, a)) or "nothing", ", ".join(map(self.number, b)) or "nothing"

    def number(self, value: Any) -> str:
        """A number, and what it is called."""
        if type(value) is bool or not isinstance(value, (int, float)) or abs(value) > 1e15:
            return str(value).removeprefix("torch.")
        name = self.name_of_number(value)
        return f"{value:.9g} ({name})" if name else f"{value:.9g}"

    def name_of_number(self, value: float) -> str:
        """What a config calls it, or which root it is; empty where that is not known."""
        if type(value) is int or not math.isfinite(value) or round(value, 3) == value:
            return ""
        for key, of in self.config.items():
            if type(of) is float and of == value:
                return f"config.{key}"
        for root, words in ((value**-2, "1/√{}"), (value**2, "√{}")):
            whole = round(root) if 1 < root < 1e6 else 0
            if whole and abs(root - whole) < 1e-6 * whole and value != int(value):
                return words.format(whole)
        return ""


def _shapes(record: Record, node: Node) -> str:
    """The shapes of what goes into an operation."""
    values = (record[number].value for number in node.inputs)
    return " and ".join(str(list(value.shape)) for value in values if value is not None)


def name_of(side: Side, number: int) -> str:
    """A tensor's name: the checkpoint's, the weight's, or that of what it is a view of; or empty."""
    name, views = plain_name(side, number)
    return f"`{name}`{' (laid out otherwise)' if views else ''}" if name else ""


def plain_name(side: Side, number: int) -> tuple[str, int]:
    """The same without marks, and through how many views."""
    for views, at in enumerate(side.chain(number)):
        node = side.record[at]
        name = node.checkpoint or (node.name if node.function is None else "")
        if name:
            return name, views
    return "", 0
