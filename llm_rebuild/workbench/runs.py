"""The ways to run a learner's `forward`, and the official side of each.

The official model runs in a process of its own: as long as the one that checks computes nothing, the
learner's can be copied from it. What was computed is kept in a file (`cached.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import expand
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.graph import World
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.diagnosis.reading.read import OfficialRun
from llm_rebuild.errors import InputError
from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.run import Process
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify import Capture, Question
from llm_rebuild.verify.capture import Part, read_capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.steps import likeliest
from llm_rebuild.verify.trace import observe
from llm_rebuild.workbench import cached
from llm_rebuild.workbench.steps import INPUTS


@dataclass(frozen=True)
class Run:
    """One way to run forward.

    way     What to call it.
    file    The official side's.
    names   Its checkpoints, in order.
    passes  What the model reads, one a pass; the last counts.
    """

    way: str
    file: Path
    names: tuple[str, ...]
    passes: tuple[Mapping[str, Tensor], ...]
    attention: str
    copy: LocalCopy

    @cached_property
    def truth(self) -> Capture:
        """The official tensors. They are read when they are asked for first: no process is to be copied from
        this one after that."""
        return Capture.load(self.file)

    @cached_property
    def world(self) -> World:
        """Its graph. Where there is a pass before, the tensors of that belong to it."""
        cache = len(self.passes) > 1
        prompt = replace(self.truth, tensors=cached.more(self.file, cached.PROMPT)[1]) if cache else None
        return world_of(self.truth, self.copy, prompt)

    @property
    def about(self) -> dict[str, Any]:
        """As a request has it."""
        count = len(self.passes)
        return {"passes": count, "cache": count > 1, "attention": self.attention}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What is read, by the number of the pass."""
        return {f"{n}/{name}": t for n, read in enumerate(self.passes) for name, t in read.items()}


@dataclass
class Officials:
    """The official sides of runs: from the store, or computed now, by one process for all of them, which is
    started when it is needed."""

    store: Path
    _process: Process | None = None

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.close()

    def run(self, way: str, question: Question, *, cache: bool = False) -> Run:
        """A run. `cache`: one token follows behind keys and values that are kept.

        Raises InputError where the official model cannot be run.
        """
        inputs = question.inputs
        read = {name: tensor.tolist() for name, tensor in inputs.tensors.items()}
        about = {"attention": question.attention, "dtype": question.dtype, "cache": cache, "read": read}
        about |= {"texts": inputs.texts, "tokens": inputs.tokens, "truncated": inputs.truncated}
        make = partial(self._make, {**about, "model": cached.reference(question.copy)})
        file = cached.find(question.copy, about, make, self.store)
        last, names = cached.contents(file)
        passes = [inputs.tensors, last] if cache else [inputs.tensors]
        named = tuple({INPUTS + name: tensor for name, tensor in one.items()} for one in passes)
        return Run(way, file, tuple(names), named, question.attention, question.copy)

    def _make(self, job: Mapping[str, Any], out: Path) -> None:
        """Have the official model run, and what it computed saved there."""
        if self._process is None or self._process.ended is not None:
            self._process = Process(official_side)
        end = next((message.about for message in self._process.ask({**job, "out": str(out)})), None)
        if end is None:
            ended = self._process.ended
            how, output = (ended.how, ended.output) if ended else ("", "")
            last = (output.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"the official model could not be run ({how or 'no result'}): {last[:300]}")
        if end["refused"]:
            raise InputError(end["refused"])


def official_side(channel: Channel) -> None:
    """In a process of its own: run the official model on one question after the other."""
    while (message := channel.receive()) is not None:
        refused = None
        try:
            save_official(message.about)
        except InputError as error:
            refused = str(error)
        channel.send({"end": "done", "refused": refused})


def save_official(job: Mapping[str, Any]) -> None:
    """Run the official model and save what it computed; with a cache, what it computed in the step behind the
    prompt. Raises InputError where it cannot be run."""
    parts: dict[str, Any] = {name: torch.tensor(rows) for name, rows in job["read"].items()}
    parts |= {"texts": tuple(job["texts"]), "truncated": tuple(job["truncated"])}
    inputs = Inputs(**parts, tokens=tuple(map(tuple, job["tokens"])))
    question = Question(
        cached.copy_of(job["model"]), inputs, job["attention"], job["cache"], dtype=job["dtype"]
    )
    official, prompt = Official(question.copy.folder, question.attention, question.dtype), None
    observer = observe(question, official)
    if job["cache"]:
        prompt = read_capture(question, observer)
        question = question.step(likeliest(prompt))
        observer = observe(question, official, before=observer.trace())
    truth = read_capture(question, observer)
    run = OfficialRun.of(truth, question.copy, prompt, observer.trace())
    more: dict[str, Part] = {cached.RECORD: run.store()}
    if prompt is not None:
        more[cached.PROMPT] = {}, prompt.tensors
    truth.save(job["out"], more)


def all_names(run: Run, question: Question) -> list[str]:
    """The checkpoints of this run, and those that the model has in another: padded, in other attention."""
    merged = dict.fromkeys(run.names)
    if question.copy.architecture is not None:
        rebuild = question.rebuild
        listed = [replace(c, only=frozenset()) for c in rebuild.architecture.checkpoints]
        merged |= dict.fromkeys(c.name for c in expand(listed, rebuild.depth, ()))
    return list(merged)


def other_text(read: Mapping[str, Tensor], longer: int) -> dict[str, Tensor]:
    """What the model reads in a pass, with other ids, and so many tokens more, none or one: what is computed
    from it has other numbers."""
    other = dict(read)
    for ids, mask in (("token_ids", "mask"), ("decoder_ids", "decoder_mask")):
        numbers, marks = (read.get(INPUTS + name) for name in (ids, mask))
        if numbers is not None and marks is not None:
            turned, whole = numbers.max() - numbers, numbers.shape == marks.shape  # behind a cache: one token
            other[INPUTS + ids] = torch.cat([turned, turned[:, : longer * whole]], dim=1)
            other[INPUTS + mask] = torch.cat([marks, torch.ones_like(marks[:, :longer])], dim=1)
    return other
