"""Which line: of the lines that waited for an operation, the one at which somebody would put it right.

The operation itself stands on the innermost one. But a helper that is right for others is not at fault: then
the line is that of the caller, or of the loop, from which on things went otherwise. And where nothing was
done, nothing is on a stack: then it is the line that ran last before the tap.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from pathlib import Path

from llm_rebuild.diagnosis.reading.callers import Callers, from_depth
from llm_rebuild.diagnosis.reading.result import Line
from llm_rebuild.diagnosis.reading.slices import MOVES, Difference, Slice, constants, word
from llm_rebuild.diagnosis.reading.traits import telling
from llm_rebuild.diagnosis.reading.ways import Ways, words_of
from llm_rebuild.verify.recording import Frame, Node, Ref
from llm_rebuild.weights import template

SHOWN = 3  # lines of one mistake
NEAR = 3  # so far before a tap stands what it taps
SPAN = 2  # so near to each other one sees both
# What they make has none of the numbers that go in.
FILLS = {"zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "fill"}


def line_of(frame: Frame) -> Line:
    """A frame as a line with its text."""
    return Line(Path(frame.file).name or frame.file, frame.number, frame.function, frame.text.strip())


class Lines:
    """The lines of one person's mistakes."""

    def __init__(self, between: Slice) -> None:
        self.slice, self.record = between, between.person.record
        self.ways = Ways(self.record)
        self.callers = Callers(between, self.ways)

    def of(
        self,
        edits: Sequence[Difference],
        checkpoint: str,
        target: int,
        missing: str,
        all_edits: Sequence[Difference],
    ) -> list[Frame]:
        """The lines of a mistake, the likeliest first, at most three. Edits that could also be it have every
        second of them."""
        frames = list(self._loop(missing or checkpoint))
        if self._another(target) and [edit.kind for edit in edits] != ["insert"]:
            frames += self._taken_for(checkpoint, target)
        others = [edit for edit in all_edits if edit not in edits]
        frames += _in_turn([self._of_edits(edits, checkpoint), self._of_edits(others, checkpoint)])
        if len(edits) > 1 and not others:
            frames = [*self._telling(checkpoint, target), *frames]
        stacks = [self.record[edit.node].frames for edit in all_edits]
        computing, waiting = {f for s in stacks for f in s[:1]}, {f for s in stacks for f in s[1:]}
        inside = once(frame for frame in frames if frame in frames[:1] or frame not in waiting)
        feeding = [frame for frame in self.ways.feeding(inside) if frame not in inside]
        callers = [frame for frame in frames if frame not in inside]
        next_to = _in_turn([feeding, [frame for frame in callers if frame in computing]])
        return once([*inside, *next_to, *callers, *self.record[target].frames[:2]])[:SHOWN]

    def _telling(self, checkpoint: str, target: int) -> list[Frame]:
        """The lines of those operations that say by themselves what is wrong, however the rest is spelled."""
        shown = telling(self.slice, target, self.slice.official.record.tapped[checkpoint]).values()
        wrong = [node for nodes in shown for node in nodes if not self.callers.right(node, None)]
        return [frame for node in wrong for frame in node.frames[:1]]

    def _of_edits(self, edits: Sequence[Difference], checkpoint: str) -> list[Frame]:
        frames = self.callers.of_helper(edits)
        for _, alike in groupby(sorted(edits, key=self._order), lambda edit: (edit.kind, edit.node)):
            latest_first = sorted(alike, key=self._origin, reverse=True)
            frames += _in_turn([list(self._of_edit(edit, checkpoint)) for edit in latest_first])
        return frames

    def _origin(self, edit: Difference) -> int:
        """Of an operand that should be another: the node that made it. The pass before may have made one with
        the same mistake."""
        if edit.kind != "operand":
            return 0
        return self.slice.person.chain(self.record[edit.node].inputs[edit.at])[-1]

    def _taken_for(self, checkpoint: str, target: int) -> Iterator[Frame]:
        """Where what is shown is right, and another checkpoint: what bound it to the name that is shown, and
        the tap."""
        at = self._tapped(checkpoint)
        way = self.ways.way(at, Ref(target)) if at is not None else []
        steps = [step for step in way if at is not None and self._call(step) == self._call(at)]
        yield from self._frames((*steps[1:2], *steps[:1]))

    def _another(self, target: int) -> bool:
        """Whether a person's tensor is another checkpoint, in the place of which a wrong one may be shown."""
        official = self.slice.official
        tapped = official.record.tapped.items()
        exchanged = {official.print_of(number) for name, number in tapped if name in self.record.wrong}
        return self.slice.another(target) or self.slice.person.print_of(target) in exchanged

    def _loop(self, checkpoint: str) -> Iterator[Frame]:
        """The head of the loop over the blocks, where they run in another order, or that of a checkpoint
        does not run at all."""
        blocks: dict[str, list[str]] = {}
        for name in self.record.taps:
            blocks.setdefault(_of_any_block(name), []).append(name)
        alike = blocks.get(_of_any_block(checkpoint), [])
        if checkpoint in alike:
            apart = alike != [name for name in self.slice.official.record.tapped if name in alike]
        else:
            several = [name for names in blocks.values() if len(names) > 1 for name in names]
            block = re.match(r".*?\.\d+\.|$", checkpoint)
            apart = block is not None and not any(name.startswith(block[0]) for name in several)
        for frame in self.record.taps[alike[0]] if alike and apart else ():
            head = self.ways.file_of(frame).loop(frame.number)
            steps = self._frames(self.ways.of_call.get(frame.call, ()))
            at_head = next((step for step in steps if step.number == head), None)
            if at_head is not None:
                yield at_head
                return

    def _order(self, edit: Difference) -> tuple[bool, bool, bool, int]:
        """First what is wrong itself: that a right tensor is another kind of operation, or one that changes
        nothing, says nothing. The pass before may have made the same mistake, and comes last."""
        print_of = self.slice.person.print_of
        idle = print_of(edit.node) in map(print_of, self.record[edit.node].inputs)
        right = edit.kind not in ("insert", "drop") and (idle or self.slice.known(edit.node))
        before = self._pass(edit.node) != self._pass(len(self.record.nodes) - 1)
        return before, right, edit.kind in ("insert", "operand"), edit.node

    def _pass(self, number: int) -> int:
        """The outermost call in which a tensor was made."""
        call = next((frame.call for frame in self.record[number].frames), 0)
        return [call, *self.ways.above(call)][-1]

    def shared(self, edits: Sequence[Difference], checkpoints: Sequence[str]) -> Frame | None:
        """The line at which one thing would put right what several edits alike do: the operation's, where it
        came out right nowhere; of what is missing before a tap, one through which all the tapped went."""
        edit = edits[0]
        if edit.kind == "insert" and edit.user < 0:
            taps = [self._tapped(name) for name in checkpoints]
            ways = [self.ways.way(at, Ref(e.node)) if at else [] for at, e in zip(taps, edits, strict=True)]
            lines = [[self.record.steps[at].frame.line for at in way] for way in ways]
            common = [at for at in ways[0] if all(self.record.steps[at].frame.line in of for of in lines)]
            return next(self._frames(common), None)
        node = self.record[edit.user if edit.user >= 0 else edit.node]
        return None if self.callers.right(node, edit) else next(iter(node.frames), None)

    def _of_edit(self, edit: Difference, checkpoint: str) -> Iterator[Frame]:
        node, record = self.record[edit.node], self.record
        if edit.kind == "constant":
            blamed = self.callers.blamed(node, edit)
            yield from self._of_constant(node, self.slice.official.record[edit.other])
            behind = self._numbers_behind(node) if blamed[:1] == list(node.frames[:1]) else []
            yield from (*blamed[:1], *behind, *blamed[1:])
        elif edit.kind == "operand":
            yield from self._of_operand(node, edit)
            yield from node.frames[:1]
        elif edit.kind == "insert" and edit.user < 0:
            yield from self._before_the_tap(checkpoint, edit)
            yield from node.frames[:1]
        elif edit.kind == "insert":
            yield from self.callers.blamed(record[edit.user], edit)
            yield from node.frames[:1]
        elif edit.kind == "drop":
            yield from self._one_too_many(node, edit)
        elif edit.kind == "value":
            yield from self._of_roots(edit.node)
            yield from self.callers.blamed(node)
        else:
            theirs = self.slice.official.record[edit.other]
            # None, or a plain number, in the place of a tensor
            if 0 < len(node.inputs) < len(theirs.inputs) and node.operation not in MOVES:
                yield from self._of_none(self.ways.step_of(node))
                yield from self._of_constant(node, theirs)
            yield from self.callers.blamed(node, edit)

    def waiting(self) -> list[Frame]:
        """The lines that ran when a run ended, innermost first."""
        at, frames = len(self.record.steps) - 1 if self.record.steps else None, list[Frame]()
        while at is not None:
            frames.append(self.record.steps[at].frame)
            at = self.ways.caller(frames[-1].call)
        return frames

    def _frames(self, steps: Iterable[int | None]) -> Iterator[Frame]:
        yield from (self.record.steps[at].frame for at in steps if at is not None)

    def _call(self, at: int) -> int:
        return self.record.steps[at].frame.call

    # ------------------------------------------------------------------ which tensor goes in

    def _of_operand(self, node: Node, edit: Difference) -> Iterator[Frame]:
        """Of an operand that should be another: the line at which both changed names, or at which the right
        one was at hand and was not taken. Where it was at hand nowhere, the line that made it and dropped it,
        or that made the wrong one, or, where that is right for others, that on which it came to where it is
        used."""
        between, record = self.slice, self.record
        chain = between.person.chain(node.inputs[edit.at])
        first, wanted = record[chain[-1]], between.official.chain(edit.other)
        if first.function is None and first.name not in record.tapped and first.name:
            official = between.official.record[wanted[-1]].name
            if first.name == official:  # the right one, laid out otherwise
                laid_out = (*chain[:-1], node.number)
                yield from (frame for number in laid_out for frame in record[number].frames[:1])
            yield from self._of_weight(node, first.name, official)
            yield from self._frames(reversed(self.way_of(node, chain)))
            return
        prints, wrong = {between.official.print_of(other) for other in wanted}, {Ref(n) for n in chain}
        right = {Ref(n) for of in prints for n in between.person.where.get(of, ())}
        way = self.way_of(node, chain)
        calls = [frame.call for frame in node.frames]
        made = [record[ref.node].frames for ref in right]
        inside = {frame.call for frames in made for frame in frames} - set(calls)
        at_hand = [at for at in way if self.ways.holds(at, right) or self._call(at) in inside]
        chosen = at_hand[:1]
        if chosen and not self.ways.holds(chosen[0], right):  # it has no name: in the function that made it
            innermost = {frames[0].call for frames in made if frames} & inside
            chosen = [at for at in at_hand if self._call(at) in innermost][:1] or chosen
        choices = [at for at in at_hand if self._call(at) == self._call(chosen[0])]
        both = [at for at in choices if self._chosen_from(at, wrong, right)]
        if choices:
            exchanged = self._exchanged(way, wrong, right)
            chooser = {self._call(at) for at in both[-1:]}
            called = [at for at in way if self.record.callers.get(self._call(at), 0) in chooser]
            inner = [at for at in called if self._chosen_from(at, wrong, right)]
            yield from self._frames((*exchanged, *both[-1:], *inner[:1], *choices, *way))
            return
        on_the_way = {self._call(at) for at in way}
        early = [record[ref.node].frames for ref in sorted(right) if ref.node < node.number]
        yield from [f for frames in early for f in frames if f.call in on_the_way][:1]
        source = record[between.person.through(chain[0])]
        theirs = between.official.record[wanted[-1]]
        if theirs.function is None and not theirs.name:  # officially it was made before the run
            yield from self._spread(source.number, way)
        if source.function is None or _filled(between, source.number) or not between.right(source.number):
            yield from self._of_roots(source.number)
            yield from self.callers.blamed(source) if source.function is not None else ()
            yield from self._frames(reversed(way))
            return
        waits = [at for at in way if self._call(at) in calls]
        came = [at for at in waits if self._call(at) == self._call(waits[-1])]
        later = right and min(right).node > node.number
        if any(later or frames[0].line == node.frames[0].line for frames in made if frames):
            yield node.frames[0]  # another call gave it
        yield from self._frames((*(came if later else came[::-1]), *reversed(way)))

    def _spread(self, number: int, way: Sequence[int]) -> list[Frame]:
        """Of the lines that made a tensor and its plain numbers, those beside which most others stand, for
        which is wrong cannot be seen. To few, those are added that handed it on in the same file."""
        nodes = [self.record[n] for n in self.slice.operations(number) if self.record[n].frames]
        files = {node.frames[0].file for node in nodes}
        made = [frame for node in nodes for frame in (node.frames[0], *self._numbers_behind(node))]
        if len({frame.line for frame in made}) <= SHOWN:
            made += self._frames(reversed(way))
        return _densest([frame for frame in made if frame.file in files])

    def way_of(self, node: Node, chain: Sequence[int]) -> list[int]:
        """The steps through which an operand went, back to the one that made what it is a view of."""
        way: list[int] = []
        at = self.ways.step_of(node)
        for number in chain:
            if at is None:
                break
            way += [step for step in self.ways.way(at, Ref(number)) if step not in way]
            at = self.ways.step_of(self.record[number])
        return way

    def _exchanged(self, way: Sequence[int], wrong: set[Ref], right: set[Ref]) -> list[int]:
        """The last step on a wrong tensor's way at which it had the name of the right one at its use."""

        def names(at: int, values: set[Ref]) -> set[str]:
            """The last words of the names that hold one of these: variables, and fields that are read."""
            held, reads = self.record.steps[at].names, self.ways.reads(at)
            names = [name for name in held if "." not in name or name in reads]
            return {name.rpartition(".")[2] for name in names if held[name] & values}

        wanted = names(way[0], right) - names(way[0], wrong)
        return [at for at in way if names(at, wrong) & wanted][:1]

    def _chosen_from(self, at: int, wrong: set[Ref], right: set[Ref]) -> bool:
        """Whether a name in the statement holds both: a list of which one item was taken."""
        held = self.record.steps[at].names
        names = {name for value in wrong for name in self.ways.names(at, value)}
        return any(right & held[name] for name in names)

    def _of_weight(self, node: Node, name: str, right: str) -> list[Frame]:
        """The frames of an operation that reads a wrong weight: first the one that spells what tells it from
        the right one, or the line in its call that did before; else, of the weight of another block, that in
        the loop; else that of the caller, where the function has several."""
        frames, apart = node.frames, words_apart(name, right)
        words = apart or _before_the_number(name, right)
        for depth, frame in enumerate(frames):
            strings = self.ways.file_of(frame).strings
            if words & strings(frame.number):
                return from_depth(frames, depth)
            steps = [self.record.steps[at] for at in self.ways.of_call.get(frame.call, ())]
            ran = [step.frame for step in steps if step.nodes <= node.number]
            spelled = [f for f in ran if apart & strings(f.number)]
            if spelled:
                return [spelled[-1], *frames]
        of_block = frames if template(name) == template(right) else ()
        looped = (at for at, f in enumerate(of_block) if self.ways.file_of(f).loop(f.number))
        depth = next(looped, 0) or int(len(self.callers.of_function(frames)) > 1)
        return from_depth(frames, depth)

    # -------------------------------------------------------- where whole numbers went wrong

    def roots(self, number: int) -> list[Node]:
        """Of those that a tensor was computed from: the wrong ones that were made of nothing wrong."""
        between, record = self.slice, self.record
        wrong = [n for n in between.operations(number) if not self._fine(n)]
        return [record[n] for n in wrong if all(map(self._fine, record[n].inputs))]

    def _fine(self, number: int) -> bool:
        """Whether a tensor is official, or only laid out from one that is."""
        node = self.record[number]
        moved = node.operation in MOVES and all(map(self._fine, node.inputs))
        return moved or node.function is None or self.slice.right(number)

    def certain(self, edit: Difference) -> bool:
        """Whether it is clear on which line an edit belongs. Whole numbers and truth values are put right
        wherever they go wrong and below: then it is, where they went wrong on one line only."""
        node = self.record[edit.node]
        number = node.inputs[edit.at] if edit.kind == "operand" else edit.node
        value = self.record[number].value
        if value is None or value.is_floating_point() or self.record[number].function is None:
            return True
        roots = self.roots(number)
        lines = {root.frames[0].line for root in roots if root.frames}
        return len(lines) == 1 and not any(self.callers.right(root, None) for root in roots)

    def _of_roots(self, number: int) -> Iterator[Frame]:
        """The line of the only root; of several, the last line from which all their numbers come."""
        roots = self.roots(number)
        if len({root.frames[:1] for root in roots}) == 1:
            blamed = self.callers.blamed(roots[0])
            yield from blamed
        elif not roots:  # it is only laid out otherwise
            chain = self.slice.person.chain(number)[::-1]
            made = self.record[next((n for n in chain if not self.slice.right(n)), chain[0])]
            yield from made.frames[:1]
        else:
            steps = [self.ways.step_of(root) for root in roots]
            behind = [set(self.ways.behind(at)) for at in steps if at is not None]
            yield from self._frames(sorted(set.intersection(*behind))[-1:] if behind else ())

    # ------------------------------------------------------- what is done too often, or not at all

    def _one_too_many(self, node: Node, edit: Difference) -> Iterator[Frame]:
        """An operation too many: its line, or that of the caller where its function does nothing else; or,
        where that is right in other calls, the line from which on what goes in beside came to it."""
        frames = self.callers.blamed(node, edit)
        if frames and frames[0] == node.frames[0] and len(frames) > 1 and self._only(node):
            frames = from_depth(node.frames, 1)
        others = [n for n in node.inputs if n != edit.other and self.record[n].function is not None]
        if frames and frames[0] != node.frames[0] and others:
            calls = [frame.call for frame in node.frames[node.frames.index(frames[0]) :]]
            way = self.way_of(node, self.slice.person.chain(others[0]))
            yield from self._frames([at for at in way if self._call(at) in calls][-1:])
        yield from frames

    def _only(self, node: Node) -> bool:
        """Whether the function that did an operation does only this. One that lays out is there for that."""
        if node.operation in MOVES:
            return False
        call = node.frames[0].call
        computed = (n for n in self.record.nodes if n.function is not None)
        inside = [n for n in computed if call in {f.call for f in n.frames}]
        return {word(n) for n in inside if n.operation not in MOVES} <= {word(node)}

    def _of_none(self, at: int | None) -> Iterator[Frame]:
        """Where a name of a statement is None that could hold a tensor: where that came from."""
        if at is not None and self.ways.empty(at):
            way = self.ways.way(at, None)
            yield from self._frames((way[-1], way[0]) if len(way) > 1 else ())

    # ---------------------------------------------------------------------- which number

    def _of_constant(self, node: Node, theirs: Node) -> Iterator[Frame]:
        """Where a number in a variable came from; one read off a shape, or right elsewhere, was mistaken."""
        at, values = self.ways.step_of(node), constants(node)
        right = constants(theirs)
        if word(node) in ("view", "expand"):
            values, right = list(node.value.shape), list(theirs.value.shape)
        if at is None or Counter(map(str, values)) == Counter(map(str, right)):  # in another order
            return
        if len(values) == len(right):
            numbers = [x for x, y in zip(values, right, strict=True) if x != y]
        else:
            numbers = [x for x in values if x not in right]
        for value in numbers:
            way = self.ways.way(at, value) if type(value) in (int, float) else []
            if len(way) > 1:
                origin = self.record.steps[way[-1]].frame
                text = origin.text.partition("#")[0]
                only_read = re.search(r"\.shape|\.size\(|len\(", text) and not re.search(r"[-+*/]", text)
                only_read = only_read and not self.ways.file_of(origin).spells(origin.number, value)
                yield from self._frames(way if only_read else reversed(way))

    def _numbers_behind(self, node: Node) -> list[Frame]:
        """The lines that made an operation's numbers where its own spells none, the nearest first."""
        at, frame = self.ways.step_of(node), node.frames[0]
        numbers = [x for x in constants(node) if type(x) in (int, float)]
        if at is None or any(self.ways.file_of(frame).spells(frame.number, x) for x in numbers):
            return []
        behind = [f for f in self._frames(self.ways.behind(at)) if f.file == frame.file]
        return behind[1:]

    # ------------------------------------------------------------------------- before a tap

    def _tapped(self, checkpoint: str) -> int | None:
        """The step of a tap."""
        tap = next(iter(self.record.taps.get(checkpoint, ())), None)
        steps = self.ways.of_call.get(tap.call, []) if tap is not None else []
        return next((at for at in steps if tap and self.record.steps[at].frame.line == tap.line), None)

    def _before_the_tap(self, checkpoint: str, edit: Difference) -> Iterator[Frame]:
        """What ran last before a tap, in the function that taps; then the tap. First of all a caller, where
        its siblings in other blocks are right and were called otherwise."""
        record, at = self.record, self._tapped(checkpoint)
        taps = record.taps.get(checkpoint, ())
        if at is None:
            return
        if len(self.slice.official.record[edit.other].inputs) > 1:
            for step in self.ways.way(at, Ref(edit.node))[:2]:  # the tap, and what bound what it shows
                yield from self._of_none(step)
        alike = [n for n in record.taps if n != checkpoint and template(n) == template(checkpoint)]
        right = [name for name in alike if self.slice.right(record.tapped[name])]
        others = [record.taps[n] for n in right if self.callers.tells(edit, record[record.tapped[n]])]
        blame = self.callers.differing(taps, others)[0]
        if blame != taps[0]:
            yield blame
        before = [i for i in self.ways.of_call[taps[0].call] if i < at][-1:]
        for frame in self._frames(before):
            near = record.steps[before[0]].nodes >= edit.node and abs(frame.number - taps[0].number) <= NEAR
            if near and "tap(" not in frame.text:
                yield frame
        yield taps[0]


def _of_any_block(name: str) -> str:
    """`h.0.attn.key` becomes `h.{}.attn.key`."""
    return re.sub(r"\.\d+\.", ".{}.", name, count=1)


def _in_turn(lists: Sequence[Sequence[Frame]]) -> list[Frame]:
    """The first of each, then the second of each, and so on."""
    return [frame for row in zip_longest(*lists) for frame in row if frame is not None]


def once(frames: Iterable[Frame]) -> list[Frame]:
    """The first frame of each line."""
    different: dict[tuple[str, int], Frame] = {}
    for frame in frames:
        different.setdefault(frame.line, frame)
    return list(different.values())


def _beside(one: Frame, other: Frame) -> bool:
    """Whether one sees both lines."""
    return one.file == other.file and abs(one.number - other.number) <= SPAN


def _densest(frames: Sequence[Frame]) -> list[Frame]:
    """The lines beside which most others stand."""
    left, chosen = once(frames), list[Frame]()
    while left and len(chosen) < SHOWN:
        chosen.append(max(left, key=lambda one: sum(_beside(one, other) for other in left)))
        left = [frame for frame in left if not _beside(chosen[-1], frame)]
    return chosen


def _filled(between: Slice, number: int) -> bool:
    """Whether a tensor was made of no other's numbers: a person filled it."""
    made = between.person.record[between.person.chain(number)[-1]]
    return made.function is not None and (not made.inputs or made.operation in FILLS)


def words_apart(name: str, right: str) -> set[str]:
    """The words of a weight's name that the right one lacks, numbers aside: `q` where `k` should be."""
    return {word for word in words_of(name) - words_of(right) if not word.isdigit()}


def _before_the_number(name: str, right: str) -> set[str]:
    """What stands before the number that tells a weight's name from the right one: `layer`."""
    one, two = name.split("."), right.split(".")
    return {before for before, x, y in zip(one, one[1:], two[1:], strict=False) if x != y}
