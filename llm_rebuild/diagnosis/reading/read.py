"""Read a person's code: run it, see where it leaves the official run, say what differs, try what puts it
right."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Tap, plain
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.reading.lines import SHOWN, line_of, lines_of
from llm_rebuild.diagnosis.reading.record import (
    Call,
    Correction,
    Frame,
    Record,
    Recorder,
    overwritten,
    written_by,
)
from llm_rebuild.diagnosis.reading.repair import Patch, narrower, replay, same_function
from llm_rebuild.diagnosis.reading.result import ROUNDED, TO_THE_BIT, TOGETHER, Reading, Repair
from llm_rebuild.diagnosis.reading.slices import Difference, Side, Slice
from llm_rebuild.diagnosis.reading.words import Words, written
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.equality import by_rounding, equal, identical
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question

MISTAKES = 8  # that are told apart in one run

Own = Callable[[str], bool]


def record_official(
    truth: Capture, copy: LocalCopy, prompt: Capture | None = None, official: Official | None = None
) -> Side:
    """The official run that a capture is of, operation by operation."""
    model = official or Official(copy.folder, truth.attention)
    first = prompt or truth
    question = Question(copy, first.inputs, truth.attention, prompt is not None)
    recorder = Recorder(
        lambda file: "transformers" in file or file.endswith("verify/official.py"), known(copy, truth)
    )
    with recorder:
        model.run(question, copies=False)
        if prompt is not None:
            model.run(replace(question, inputs=truth.inputs, goes_on=True), copies=False)
    recorder.record.name(truth.tensors)
    return Side(recorder.record)


def known(copy: LocalCopy, truth: Capture) -> dict[str, Tensor]:
    """What both sides read, by name."""
    inputs = truth.inputs
    named = {"token_ids": inputs.token_ids, "mask": inputs.mask}
    named |= {} if inputs.decoder_ids is None else {"decoder_ids": inputs.decoder_ids}
    return {**copy.weights().peek(), **{f"inputs.{name}": tensor for name, tensor in named.items()}}


def observe(
    run: Callable[[Tap], Any],
    own: Own,
    sources: Mapping[str, Tensor],
    right: Mapping[str, Tensor],
    corrections: Mapping[Call, Correction] | None = None,
) -> Record:
    """Run a person's code and record it. From each tap on, the run goes on with the tensor in `right`."""
    recorder = Recorder(own, sources, corrections)

    def tap(name: str, tensor: Tensor) -> None:
        recorder.paused = True
        try:
            numbers = plain(tensor, "tap")
            recorder.tapped(name, numbers)
            official = right.get(name)
            if official is not None and not identical(numbers, official):
                recorder.instead(numbers, official.clone(), name)
        finally:
            recorder.paused = False

    torch.manual_seed(0)
    try:
        with torch.no_grad(), recorder:
            run(Tap(tap))
    except Exception as error:  # what a person's mistake raises can be anything
        recorder.record.error = error
    return recorder.record


def read(
    run: Callable[[Tap], Any], truth: Capture, official: Side, own: Own, copy: LocalCopy, most: int = MISTAKES
) -> tuple[Reading, ...]:
    """What a person's code does otherwise than the official model, one reading for each mistake, in the order
    of the data. Empty where nothing differs, or differs by rounding.

    run       Runs the code once and calls a tap. It is called a few times.
    truth     The official tensors of the run, and `official` its record, by `record_official`.
    own       Says of a file's name whether it is the person's.
    """
    sources = known(copy, truth)
    record = observe(run, own, sources, truth.tensors)
    session = _Session(Slice(record, official), truth, Words(Slice(record, official), copy.config))
    mistakes = session.mistakes(most)
    if not mistakes:
        return ()
    again = observe(run, own, sources, truth.tensors)
    if any(not session.repeated(again, mistake.target) for mistake in mistakes):
        extent = "two runs of this code differ, so nothing was tried out: look for random numbers"
        return tuple(session.reading(mistake, extent=extent) for mistake in mistakes[:1])

    def proved(chosen: Sequence[_Mistake]) -> None:
        corrections: dict[Call, Correction] = {}
        for mistake in chosen:
            corrections |= mistake.corrections(session.slice)
        after = observe(run, own, sources, truth.tensors, corrections)
        for mistake in chosen:
            mistake.judge(after, truth.tensors[mistake.target])

    tried = [mistake for mistake in mistakes if mistake.patches]
    if tried:
        proved(tried)
    for mistake in tried:
        while not mistake.degree and len(mistake.patches) > 1:
            mistake.patches.pop(0)
            proved([mistake])
    return tuple(session.reading(mistake) for mistake in mistakes)


@dataclass
class _Mistake:
    """A checkpoint that differs, and what might put it right.

    checkpoint  What it is said of; `target` is the tensor that was looked at: where a checkpoint is missing,
                the next. patches     Edits that put it right on the record, the fewest first. degree      How
                well the first of them is proved.
    """

    checkpoint: str
    target: str
    edits: tuple[Difference, ...] = ()
    patches: list[tuple[Difference, ...]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    words: str = ""
    degree: str = ""
    also: list[str] = field(default_factory=list)

    def corrections(self, between: Slice) -> dict[Call, Correction]:
        return Patch(between, self.patches[0]).corrections()

    def judge(self, after: Record, official: Tensor) -> None:
        number = after.tapped.get(self.target)
        value = None if number is None else after[number].value
        if value is None or value.shape != official.shape:
            return
        self.degree = (
            TO_THE_BIT if equal(value, official) else ROUNDED if by_rounding(value, official) else ""
        )


class _Session:
    """One record beside the official one."""

    def __init__(self, between: Slice, truth: Capture, words: Words) -> None:
        self.slice, self.truth, self.words = between, truth, words
        self.record, self.official = between.person.record, between.official.record

    def mistakes(self, most: int) -> list[_Mistake]:
        mistakes: dict[Any, _Mistake] = {}
        by_place: dict[Any, _Mistake] = {}
        missing = ""
        for name, right in self.truth.tensors.items():
            number = self.record.tapped.get(name)
            if number is None:
                missing = missing or name
                continue
            if equal(self.record[number].value, right) or name not in self.official.tapped:
                continue
            place = (re.sub(r"\.\d+\.", ".{}.", name), tuple(f.line for f in self.record[number].frames[:2]))
            if place in by_place:
                by_place[place].also.append(name)
                continue
            other = self.official.tapped[name]
            edits = tuple(map(self._in_place, self.slice.differences(number, other)))
            if same_function(self.slice, number, other):
                continue
            mistake, before = _Mistake(missing or name, name, edits), missing
            missing = ""
            mistake.words = self.words.difference(edits)
            mistake.patches = list(self._patches(edits, number, right))
            chosen = mistake.patches[0] if mistake.patches else edits
            mistake.frames = lines_of(self.slice, chosen, name, number, before)
            key = (tuple(f.line for f in mistake.frames[:1]), chosen[-1].kind)
            earlier = mistakes.get(key) or self._consequence(number, mistakes.values())
            if earlier is not None:
                earlier.also.append(name)
                by_place[place] = earlier
                continue
            if len(mistakes) == most:
                break
            mistakes[key] = by_place[place] = mistake
        return list(mistakes.values())

    def _in_place(self, edit: Difference) -> Difference:
        """Where the operand is wrong because somebody wrote into it, that is what is wrong."""
        if edit.kind == "operand":
            record = self.record
            source = record[edit.node].inputs[edit.at]
            if record[source].function is overwritten:
                source = record[source].inputs[1]
            if written_by(record[source].function):
                return replace(edit, kind="in place", node=source)
        return edit

    def _consequence(self, number: int, mistakes: Any) -> _Mistake | None:
        """The earlier mistake that a tensor was computed through."""
        through = set(self.slice.operations(number))
        for mistake in mistakes:
            if any(edit.node in through for edit in mistake.edits):
                return mistake  # type: ignore[no-any-return]
        return None

    def _patches(
        self, edits: tuple[Difference, ...], number: int, right: Tensor
    ) -> Iterator[tuple[Difference, ...]]:
        """The edits that put a checkpoint right on the record."""
        for patch in (*narrower(self.slice, edits, number), edits):
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
        number = again.tapped.get(name)
        value = None if number is None else again[number].value
        return value is not None and identical(value, self.record[self.record.tapped[name]].value)

    def reading(self, mistake: _Mistake, extent: str = "") -> Reading:
        lines = tuple(line_of(frame) for frame in mistake.frames[:SHOWN])
        repairs: tuple[Repair, ...] = ()
        if mistake.degree and not extent:
            patch = mistake.patches[0]
            places = {f.line for e in patch for f in self.record[e.node].frames[:1]}
            frame = mistake.frames[0] if mistake.frames else None
            before, after = written(self.words, patch, frame)
            kind = patch[-1].kind
            operation = self.record[patch[-1].node].operation
            degree = mistake.degree if len(places) == 1 else TOGETHER
            line = lines[0] if lines else None
            repairs = (Repair(self.words.repair(patch), line, before, after, degree, kind, operation),)
        extent = extent or self.record.full
        return Reading(mistake.checkpoint, lines, mistake.words, repairs, extent, tuple(mistake.also))
