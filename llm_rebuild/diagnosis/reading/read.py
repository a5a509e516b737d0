"""Read a person's code: run it, see where it leaves the official run, say how, try what puts it right."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Tap, plain
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.reading.claims import Claims
from llm_rebuild.diagnosis.reading.lines import SHOWN, Lines, line_of, once
from llm_rebuild.diagnosis.reading.record import Correction, Record, Recorder
from llm_rebuild.diagnosis.reading.repair import Patch, narrower, replay, same_function
from llm_rebuild.diagnosis.reading.result import ROUNDED, TO_THE_BIT, Reading, Repair
from llm_rebuild.diagnosis.reading.rewriting import functions_of, in_place, rewritings
from llm_rebuild.diagnosis.reading.slices import Difference, Side, Slice, word
from llm_rebuild.diagnosis.reading.stored import load, store
from llm_rebuild.diagnosis.reading.traits import traits
from llm_rebuild.diagnosis.reading.unseen import unseen
from llm_rebuild.diagnosis.reading.words import Words
from llm_rebuild.errors import one_line
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.any_model import checkpoints_of
from llm_rebuild.verify.capture import Capture, trace_of
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.equality import by_rounding, equal, identical
from llm_rebuild.verify.operations import facts_of, overwritten
from llm_rebuild.verify.recording import Call, Frame, name_among

MISTAKES = 8  # that are told apart in one run

Own = Callable[[str], bool]


@dataclass(frozen=True)
class OfficialRun:
    """The official run that a person's is read beside.

    side     Its record, operation by operation.
    tensors  Its checkpoints by name, in order.
    sources  What both sides read, by name: weights, and `inputs.token_ids`.
    config   What config.json holds.
    """

    side: Side
    tensors: Mapping[str, Tensor]
    sources: Mapping[str, Tensor]
    config: Mapping[str, Any]

    @classmethod
    def of(
        cls, truth: Capture, copy: LocalCopy, prompt: Capture | None = None, traced: Trace | None = None
    ) -> OfficialRun:
        """Of a capture.

        prompt  The capture of the pass before, where `truth` is of a step that goes on from it.
        traced  What else was seen when it was made. Without it the official model runs again.
        """
        record, traced = Record(), traced or trace_of(truth, copy, prompt)
        sources = sources_of(copy, truth.inputs if prompt is None else prompt.inputs)
        sources |= sources_of(copy, truth.inputs)
        record.nodes, name_of = traced.nodes, name_among(sources)
        for node in record.nodes:
            if node.function is None:
                node.name = name_of(node.value)
        for name, entry in checkpoints_of(traced)[0].items():
            if name in truth:
                record.tapped[name], entry.checkpoint = entry.number, entry.checkpoint or name
        return cls(Side(record), truth.tensors, sources, copy.config)

    def store(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Its record as JSON, and the few tensors that are neither a source nor can be computed again."""
        return store(self.side.record, self.sources)

    @classmethod
    def load(
        cls,
        stored: tuple[Mapping[str, Any], Mapping[str, Tensor]],
        tensors: Mapping[str, Tensor],
        sources: Mapping[str, Tensor],
        config: Mapping[str, Any],
    ) -> OfficialRun:
        """From what `store` gave. InputError for anything else."""
        return cls(Side(load(*stored, sources)), tensors, sources, config)


def sources_of(copy: LocalCopy, inputs: Inputs) -> dict[str, Tensor]:
    """What both sides read, by name."""
    read = {"token_ids": inputs.token_ids, "mask": inputs.mask, "decoder_ids": inputs.decoder_ids}
    named = {f"inputs.{name}": tensor for name, tensor in read.items() if tensor is not None}
    return {**copy.weights().peek(), **named}


def observe(
    run: Callable[[Tap], Any],
    official: OfficialRun,
    own: Own,
    corrections: Mapping[Call, Correction] | None = None,
    until: Collection[str] | None = None,
) -> Record:
    """Run a person's code and record it. From each tap on, the run goes on with the official tensor. With
    `until` it ran before: until these are tapped, or to the end, only what is tapped is noted."""
    recorder = Recorder(own, official.sources, corrections, until is not None)

    def tap(name: str, tensor: Tensor) -> None:
        """Compare, and go on with the official tensor where the two differ."""
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            own = plain(tensor, "tap")
            # Tapped before, by another name; but where a step is put in, it is behind both names.
            numbers = own if corrections else recorder.swapped(own)
            recorder.tapped(name, numbers)
            right = official.tensors.get(name)
            if right is not None and not identical(numbers, right):
                recorder.record.wrong.add(name)
                recorder.instead(own, right.clone(), name)
        if until and recorder.record.tapped.keys() >= set(until):
            recorder.paused = True

    torch.manual_seed(0)
    try:
        with torch.no_grad(), recorder:
            run(Tap(tap))
    except Exception as error:  # what a person's mistake raises can be anything
        recorder.record.error = error
    return recorder.record


def read(run: Callable[[Tap], Any], official: OfficialRun, own: Own, first: str = "") -> tuple[Reading, ...]:
    """What a person's code does otherwise than the official model, one reading for each mistake, in the order
    of the data. Empty where nothing differs, or differs by rounding. Where a run was too long to be read and
    nothing was found in what was, one of no checkpoint says so.

    run    Runs the code once and calls a tap. It is called a few times.
    own    Says of a file's name whether it is the person's.
    first  The checkpoint at which it was seen to differ. Where it now differs at another, nothing is read.
    """
    record = observe(run, official, own)
    problem = record.error and f"this code ended with {one_line(repr(record.error), 200)}"
    if not record.traced:  # Python, too, takes it away: at the end of an endless recursion
        tracing = "this code takes sys.settrace for itself, which shows its lines"
        return (_only(f"not read: {problem or tracing}"),)
    if first and first != next((name for name in official.tensors if name in record.wrong), ""):
        return (_only(f"not read: run once more, {problem or f'it differs elsewhere than at {first}'}"),)
    between = Slice(record, official.side)
    rerun = partial(observe, run, official, own, until=())
    session = _Session(between, official.tensors, Words(between, official.config), rerun)
    mistakes = session.mistakes()
    if not mistakes and record.full:
        return (_only(f"not read to its end: {record.full}"),)
    if not mistakes:
        return (session.stopped(),) if record.error is not None else ()
    again = rerun(until=[mistake.target for mistake in mistakes])
    if any(not session.repeated(again, mistake.target) for mistake in mistakes):
        extent = "two runs of this code differ, so nothing was tried out: look for random numbers"
        return tuple(session.reading(mistake, extent) for mistake in mistakes[:1])

    done: dict[Call, Correction] = {}
    after, apart = record, list[_Mistake]()
    for at, mistake in enumerate(mistakes):
        if done and mistake.how_well(after, official.tensors):  # it came of those before it
            apart[-1].also += [mistake.target, *mistake.also]
            continue
        apart.append(mistake)
        for patch in mistake.patches:
            corrections = done | Patch(between, patch).corrections()
            put_right = rerun(corrections, until=[later.target for later in mistakes[at:]])
            mistake.degree = mistake.how_well(put_right, official.tensors)
            if mistake.degree:
                mistake.patches, done, after = [patch], corrections, put_right
                break
    return tuple(session.reading(mistake) for mistake in apart)


def _only(extent: str) -> Reading:
    return Reading("", (), "", (), extent)


@dataclass
class _Mistake:
    """A checkpoint that differs, and what might put it right.

    checkpoint  What it is said of; `target` is the tensor that was looked at: where a checkpoint is missing,
                the next.
    patches     Edits that put it right on the record, the fewest first.
    degree      How well the first of them is proved.
    extent      What was in the way of reading it.
    """

    checkpoint: str
    target: str
    edits: tuple[Difference, ...] = ()
    patches: list[tuple[Difference, ...]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    words: str = ""
    degree: str = ""
    also: list[str] = field(default_factory=list)
    extent: str = ""

    @property
    def likeliest(self) -> tuple[Difference, ...]:
        """The edits that put it right, else all that differs."""
        return self.patches[0] if self.patches and self.patches[0][0].kind != "whole" else self.edits

    def how_well(self, run: Record, official: Mapping[str, Tensor]) -> str:
        """The degree to which a run has the target as it is officially; empty where it has not."""
        number, right = run.tapped.get(self.target), official[self.target]
        value = None if number is None else run[number].value
        if value is None or value.shape != right.shape:
            return ""
        return TO_THE_BIT if equal(value, right) else ROUNDED if by_rounding(value, right) else ""


class _Session:
    """One record beside the official one. `rerun` runs the person's code once more."""

    def __init__(
        self, between: Slice, tensors: Mapping[str, Tensor], words: Words, rerun: Callable[..., Record]
    ) -> None:
        self.slice, self.tensors, self.words, self.rerun = between, tensors, words, rerun
        self.lines = Lines(between)
        self.claims = Claims(self.lines)
        self.record, self.official = between.person.record, between.official.record

    def mistakes(self) -> list[_Mistake]:
        """The mistakes in the order of computation; what follows from one, or repeats it, is added to it."""
        mistakes: dict[Any, _Mistake] = {}
        by_place: dict[Any, _Mistake] = {}
        missing = ""
        for name, right in self.tensors.items():
            number = self.record.tapped.get(name)
            if number is None:
                missing = missing or name
                continue
            if name not in self.record.wrong or name not in self.official.tapped:
                continue
            if equal(self.record[number].value, right):
                continue
            site = (re.sub(r"\.\d+\.", ".{}.", name), tuple(f.line for f in self.record[number].frames[:2]))
            if site in by_place:
                by_place[site].also.append(name)
                continue
            other = self.official.tapped[name]
            extent, frames = unseen(self.slice, number)
            if extent and (mistakes or by_rounding(self.record[number].value, right)):
                continue  # what is not seen may come of those before it, or be another kernel's rounding
            if not extent and same_function(self.slice, number, other):
                continue
            edits = tuple(map(self._in_place, self.slice.differences(number, other)))
            mistake, before = _Mistake(missing or name, name, edits, extent=extent), missing
            missing = ""
            mistake.words = self.words.difference(edits)
            mistake.patches = list(self._patches(edits, number, other))
            mistake.frames = self.lines.of(mistake.likeliest, name, number, before, edits)
            if extent:
                mistake.words, mistake.patches = extent, []
                mistake.frames = once((*frames, *mistake.frames))
            key = (tuple(f.line for f in mistake.frames[:1]), mistake.likeliest[-1].kind)
            earlier = mistakes.get(key) or self._consequence(number, edits, mistakes.values())
            if earlier is not None:
                earlier.also.append(name)
                by_place[site] = earlier
                continue
            if len(mistakes) == MISTAKES:
                break
            mistakes[key] = by_place[site] = mistake
        self._of_helpers(list(mistakes.values()))
        return list(mistakes.values())

    def _of_helpers(self, mistakes: Sequence[_Mistake]) -> None:
        """Where several callers of a function would have to put the same thing right, it is the function."""
        alike: dict[Any, list[_Mistake]] = {}
        for mistake in mistakes:
            alike.setdefault(tuple(map(self._what, mistake.likeliest)), []).append(mistake)
        for same in alike.values():
            if len({mistake.frames[0].line for mistake in same if mistake.frames}) > 1:
                line = self.lines.shared([m.likeliest[-1] for m in same], [m.target for m in same])
                for mistake in same:
                    if line is not None:
                        mistake.frames = [line, *(f for f in mistake.frames if f.line != line.line)]

    def _what(self, edit: Difference) -> tuple[str, Any]:
        """The kind of an edit, and the line at which it is made; of what is missing behind, what that is."""
        node = self.record[edit.user if edit.user >= 0 else edit.node]
        missing = edit.kind == "insert" and edit.user < 0 and word(self.official[edit.other])
        return edit.kind, missing or tuple(frame.line for frame in node.frames[:1])

    def _in_place(self, edit: Difference) -> Difference:
        """Where the operand is wrong because somebody wrote into it, that is what is wrong."""
        if edit.kind == "operand":
            record = self.record
            source = record[edit.node].inputs[edit.at]
            if record[source].function is overwritten:
                source = record[source].inputs[1]
            if facts_of(record[source].function).written:
                return replace(edit, kind="in place", node=source)
        return edit

    def _consequence(
        self, number: int, edits: Sequence[Difference], mistakes: Iterable[_Mistake]
    ) -> _Mistake | None:
        """The earlier mistake that a tensor was computed through, or with what was put in its place."""
        through, record = set(self.slice.operations(number)), self.record
        operands = [record[edit.node].inputs[edit.at] for edit in edits if edit.kind == "operand"]
        names = {record[i].name for source in operands for i in self.slice.person.chain(source)}
        for mistake in mistakes:
            if names & {mistake.target, *mistake.also} or any(edit.node in through for edit in mistake.edits):
                return mistake
        return None

    def _patches(
        self, edits: tuple[Difference, ...], number: int, other: int
    ) -> Iterator[tuple[Difference, ...]]:
        """The edits that put a checkpoint right on the record: single ones; all that differs; and what
        computes it as officially from what is right, first where all that differs is on several lines."""
        single = [(edit,) for edit in edits if len(edits) > 1]
        lines = {frame.line for edit in edits for frame in self.record[edit.node].frames[:1]}
        together = [(Difference("whole", number, other),), edits] if len(lines) > 1 else [edits]
        together += [] if len(lines) > 1 else [(Difference("whole", number, other),)]
        right = self.official[other].value
        for patch in (*single, *narrower(self.slice, edits, number, other), *together):
            if any(edit.kind == "in place" for edit in patch):  # only a run can show it
                yield patch
                continue
            try:
                corrections = Patch(self.slice, patch).corrections()
                first = min(n.number for n in self.record.nodes if n.call in corrections)
                value = replay(self.record, range(first, number + 1), corrections).get(number)
            except Exception:  # an edit that does not fit
                continue
            if isinstance(value, Tensor) and value.shape == right.shape and by_rounding(value, right):
                yield patch

    def repeated(self, again: Record, name: str) -> bool:
        """Whether another run made the same of a checkpoint, to the bit."""
        number = again.tapped.get(name)
        value = None if number is None else again[number].value
        return value is not None and identical(value, self.record[self.record.tapped[name]].value)

    def stopped(self) -> Reading:
        """Where a run ended with an error, all before being right: the line, and what did not fit there."""
        missing = next((name for name in self.tensors if name not in self.record.tapped), "")
        frames = self.lines.waiting()
        words = f"this code ended here with {one_line(repr(self.record.error), 200)}"
        failed = self.record.nodes[-1] if self.record.nodes else None
        if failed is not None and failed.value is None and failed.function is not None:
            words = f"{self.words.unfitting(failed, missing)}: {words}"
            frames = [*failed.frames, *frames]
        return Reading(missing, tuple(map(line_of, once(frames)[:SHOWN])), words)

    def _written(self, mistake: _Mistake, frame: Frame) -> tuple[str, str]:
        """A line as it is and as it would be right: the first way to write the edit with which a run came out
        right as well as by the edit, and nothing wrong that was right. Both empty where there is none."""
        ways = rewritings(self.words, mistake.patches[0], frame)
        functions = functions_of(frame.file) if ways else []
        for after in ways:
            try:
                with in_place(frame, after, functions):
                    run = self.rerun()
            except (SyntaxError, ValueError):
                continue
            spoilt = (run.wrong & self.record.tapped.keys()) - self.record.wrong
            if not spoilt and mistake.how_well(run, self.tensors) in (TO_THE_BIT, mistake.degree):
                return frame.text.strip(), after
        return "", ""

    def reading(self, mistake: _Mistake, extent: str = "") -> Reading:
        """A mistake as the report has it, with its first repair where that is proved."""
        lines = tuple(line_of(frame) for frame in mistake.frames[:SHOWN])
        repairs: tuple[Repair, ...] = ()
        if mistake.degree and not extent:
            patch = mistake.patches[0]
            places = {f.line for e in patch for f in self.record[e.node].frames[:1]}
            frame = mistake.frames[0] if mistake.frames else None
            computing = [edit for edit in patch if not self.words.moves(edit)] or patch
            last = computing[-1]
            one = len(places) == 1 and last.kind != "whole"
            claimed = frame is not None and one and self.claims.holds(patch, frame)
            before, after = self._written(mistake, frame) if claimed and frame else ("", "")
            kinds = {edit.kind for edit in patch}
            innermost = computing[0] if kinds == {"drop"} else last  # what they leave
            official = last.kind in ("insert", "whole")
            edited = self.official[last.other] if official else self.record[last.node]
            at = self.official.tapped[mistake.target]
            moves = len(patch) > 1 and kinds != {"constant"} and all(map(self.words.moves, patch))
            what = (
                "layout" if moves else last.kind,
                edited.operation,
                *self.words.names(innermost),
                len(computing),
                traits(self.slice, last, self.record.tapped[mistake.target], at),
            )
            line = lines[0] if claimed else None
            repairs = (Repair(self.words.repair(patch), line, before, after, mistake.degree, *what),)
        extent = extent or mistake.extent or self.record.full
        return Reading(mistake.checkpoint, lines, mistake.words, repairs, extent, tuple(mistake.also))
