"""Whether a repair belongs on one line and on no other.

That a run is right with one thing put right proves the thing, and not the line. A tensor goes through names,
parameters and results before it is used, and each of the lines that hand it on may have been meant otherwise;
a function may be right, and the wrong one called. So a line is claimed only where the value did not travel:
where what is put right stands on it, in a function that came out right nowhere, under no condition that is
decided elsewhere. What cannot be claimed is said of the value, and its lines are candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_rebuild.diagnosis.reading.lines import SPAN, Lines, words_apart
from llm_rebuild.diagnosis.reading.slices import Difference, constants, word
from llm_rebuild.verify.recording import Frame, Node, Ref


class Claims:
    """What can be said of the lines of one person's repairs."""

    def __init__(self, lines: Lines) -> None:
        self.lines, self.slice, self.record, self.ways = lines, lines.slice, lines.record, lines.ways
        self.callers = lines.callers

    def holds(self, edits: Sequence[Difference], frame: Frame) -> bool:
        """Whether all these edits belong on a frame's line."""
        return all(self._belongs(edit, frame, len(edits) == 1) for edit in edits)

    def _belongs(self, edit: Difference, frame: Frame, alone: bool) -> bool:
        node = self.record[edit.user if edit.kind == "insert" and edit.user >= 0 else edit.node]
        if edit.kind == "insert":
            return self._between(edit, frame)
        if edit.kind == "operand" and self._of_outside(node, edit):
            return self._spelled(node, edit, frame)
        if edit.kind == "constant" and self._beside_wrong(node):
            return False
        if edit.kind == "constant" and self._passed(node, edit, frame):
            return True
        if not node.frames or node.frames[0].line != frame.line or self._elsewhere(node, edit, alone):
            return False
        if not self._began(edit, frame):
            return False
        if edit.kind == "value":  # of the same operation something else was made wrong
            theirs = self.slice.official.record[edit.other]
            return word(node) != word(theirs) or constants(node) != constants(theirs)
        if edit.kind == "constant":
            return self._own_number(node, edit)
        if self._decided(frame, frame.number, frame.number):
            return False
        if edit.kind == "operand":
            return self._chosen_here(node, edit)
        at = self.ways.step_of(node)
        others = [n for n in node.inputs if n != edit.other] if edit.kind == "drop" else []
        if at is None or self.ways.empty(at) or not self._numbers_here(node, at):
            return False
        return all(self._of_this_call(node, n) for n in others)

    def _began(self, edit: Difference, frame: Frame) -> bool:
        """Whether whole numbers went wrong on this line: they can be put right on all further down, too."""
        value = self.record[edit.node].value
        if value is None or value.is_floating_point():
            return True
        lines = {root.frames[0].line for root in self.lines.roots(edit.node) if root.frames}
        return lines == {frame.line} and self.lines.certain(edit)

    # -------------------------------------------------------------- the function in which it stands

    def _elsewhere(self, node: Node, edit: Difference, alone: bool) -> bool:
        """Whether a line is right in another call, or its function may be the wrong one to call."""
        alike = (*self.callers.at_the_same_place(node.number), *self.callers.given_by(node.frames[0]))
        if any(self.slice.right(n) for n in alike if n != node.number):
            return True
        call, taps = node.frames[0].call, self.record.taps.values()
        if any(tap and tap[0].call == call for tap in taps) or len(self.callers.of_function(node.frames)) > 1:
            return False
        file = self.ways.file_of(node.frames[0])
        return not ((alone and edit.kind != "replace") or file.decorated(node.frames[0].number))

    def _decided(self, frame: Frame, first: int, last: int) -> bool:
        """Whether lines stand under a condition, or hold one: then what it asks may be what is wrong."""
        file = self.ways.file_of(frame)
        return any(file.conditional(number) for number in range(first, last + 1))

    # ---------------------------------------------------------------------- which number, which tensor

    def _own_number(self, node: Node, edit: Difference) -> bool:
        """Whether a wrong number is spelled on the line that uses it, or came to be near it."""
        at, frame = self.ways.step_of(node), node.frames[0]
        wrong = self._wrong_numbers(node, edit)
        if wrong and all(self.ways.file_of(frame).spells(frame.number, value) for value in wrong):
            return True
        return at is None or self._near_behind(at, frame)

    def _beside_wrong(self, node: Node) -> bool:
        """Whether a line reads a wrong tensor that it does not compute with: of this it may take a length."""
        at = self.ways.step_of(node)
        if at is None:
            return False
        held = self.record.steps[at].names
        values = [value for name in self.ways.reads(at) for value in held.get(name, ())]
        tensors = {value.node for value in values if type(value) is Ref} - set(node.inputs)
        return not all(map(self.slice.right, tensors))

    def _passed(self, node: Node, edit: Difference, frame: Frame) -> bool:
        """Whether a wrong number came by names alone from a line that spells it, or made it in this call."""
        at, wrong = self.ways.step_of(node), self._wrong_numbers(node, edit)
        if at is None or not wrong or self._decided(frame, frame.number, frame.number):
            return False
        return all(type(value) is float and self._from(at, value, node, frame) for value in wrong)

    def _from(self, at: int, value: float, node: Node, frame: Frame) -> bool:
        first = self.ways.way(at, value)[-1]
        origin = self.record.steps[first].frame
        if origin.line != frame.line:
            return False
        if node.frames and origin.call == node.frames[0].call and self._near_behind(first, frame):
            return True
        return self.ways.file_of(frame).spells(frame.number, value)

    def _near_behind(self, at: int, frame: Frame) -> bool:
        """Whether what a step's numbers are made of stands next to a line, too."""
        behind = [self.record.steps[step].frame for step in self.ways.behind(at)]
        return all(f.file == frame.file and abs(f.number - frame.number) <= SPAN for f in behind)

    def _wrong_numbers(self, node: Node, edit: Difference) -> list[float]:
        right = constants(self.slice.official.record[edit.other])
        return [x for x in constants(node) if x not in right and type(x) in (int, float)]

    def _numbers_here(self, node: Node, at: int) -> bool:
        """Whether plain numbers came by no parameter: a caller may pass wrong ones to what is right."""
        numbers = [x for x in constants(node) if type(x) in (int, float) and self.ways.names(at, x)]
        made = [self.record.steps[self.ways.way(at, x)[-1]].frame.call for x in numbers]
        return set(made) <= {self.record.steps[at].frame.call}

    def _of_outside(self, node: Node, edit: Difference) -> bool:
        source = self.record[self.slice.person.chain(node.inputs[edit.at])[-1]]
        return source.function is None

    def _spelled(self, node: Node, edit: Difference, frame: Frame) -> bool:
        """Whether a line spells a weight's name, and nothing else takes what comes of it for what it is."""
        chain = self.slice.person.chain(node.inputs[edit.at])
        official = self.slice.official
        words = words_apart(self.record[chain[-1]].name, official.record[official.chain(edit.other)[-1]].name)
        if self._decided(frame, frame.number, frame.number) or not words:
            return False
        if not words & self.ways.file_of(frame).strings(frame.number):
            return False
        if not any(f.line == frame.line for f in node.frames):
            return False
        alike = self.slice.person.where.get(self.slice.person.print_of(node.number), ())
        others = [n for n in alike if n != node.number and self.slice.known(n)]
        return not self.slice.right(node.number) or bool(others)

    def _chosen_here(self, node: Node, edit: Difference) -> bool:
        """Whether the right tensor was at hand where the wrong one was taken, and nowhere before."""
        between, official = self.slice, self.slice.official
        chain, wanted = between.person.chain(node.inputs[edit.at]), official.chain(edit.other)
        prints = {official.print_of(other) for other in wanted}
        right = {Ref(n) for of in prints for n in between.person.where.get(of, ())}
        way, at = self.lines.way_of(node, chain), self.ways.step_of(node)
        steps = self.record.steps
        if at is None or len({steps[i].frame.call for i in way}) > 1:
            return False
        lines = {steps[i].frame.line for i in way}
        if lines == {steps[at].frame.line}:
            return True
        both = {steps[i].frame.line for i in way if self.ways.holds(i, right)}
        return both == {steps[at].frame.line} and len(lines) == 2 and between.known(chain[-1])

    def _of_this_call(self, node: Node, number: int) -> bool:
        """Whether a tensor was made, or is a weight that was read, in the call in which it is used."""
        chain = self.slice.person.chain(number)
        steps = [self.record.steps[at].frame.call for at in self.lines.way_of(node, chain)]
        return len(set(steps)) <= 1

    # -------------------------------------------------------------------------------- what is missing

    def _between(self, edit: Difference, frame: Frame) -> bool:
        """Whether something is missing in one place: what it belongs behind and what it belongs before stand
        in one call, on lines next to each other, and no helper between them is at fault."""
        if edit.user >= 0:
            user = self.record[edit.user].frames
        else:
            tapped = [name for name in self.record.wrong if self.record.tapped[name] == edit.node]
            user = self.record.taps.get(tapped[0], ()) if tapped else ()
        made = self.record[edit.node].frames
        calls = {f.call for f in user}
        a = next((at for at, f in enumerate(made) if f.call in calls), None)
        if a is None:
            return False
        b = next(at for at, f in enumerate(user) if f.call == made[a].call)
        first, last = made[a], user[b]
        near = frame.number - SPAN <= first.number <= last.number <= frame.number + SPAN
        if first.file != frame.file or not (near or self._handed_on(edit, last) == {frame.line}):
            return False
        helpers = [*made[:a][-1:], *user[:b][-1:]]
        if any(len(self.callers.of_function([helper])) < 2 for helper in helpers):
            return False
        return not self._decided(frame, first.number, last.number)

    def _handed_on(self, edit: Difference, last: Frame) -> set[tuple[str, int]]:
        """The lines that only bound a tensor to another name before it was used."""
        steps = [at for at in self.ways.of_call.get(last.call, []) if self.record.steps[at].frame == last]
        way = self.ways.way(steps[-1], Ref(edit.node)) if steps else []
        frames = [self.record.steps[at].frame for at in way]
        return {frame.line for frame in frames[1:-1]} if {f.call for f in frames} == {last.call} else set()
