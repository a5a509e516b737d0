"""A learner's process, and what it can be asked."""

from __future__ import annotations

import ast
import io
import time
import tokenize
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.diagnosis.reading.result import Reading
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.files import expanded, read
from llm_rebuild.process.exchange import Message
from llm_rebuild.process.run import Outcome, Process
from llm_rebuild.verify.equality import identical
from llm_rebuild.workbench import cached, child
from llm_rebuild.workbench.runs import Run
from llm_rebuild.workbench.steps import INPUTS, Trial

LARGEST_FILE = 5_000_000  # bytes of source


@dataclass(frozen=True)
class Limits:
    """What a rebuild may use.

    seconds  The longest that a forward pass may take, and all steps by themselves.
    memory   In MB, on top of what torch needs. On Linux; elsewhere a check says that it does not hold.
    """

    seconds: float = 60.0
    memory: int = 4096


@dataclass(frozen=True)
class Learner:
    """A learner's file, or a notebook's function, packed.

    parameters  What forward asks for.
    """

    name: str
    file: Path
    source: bytes
    parameters: set[str]
    notebook: bool = False


def learner_of(file: str | Path) -> Learner:
    """A learner's file, read. Raises InputError, before anything is run, for what is no Python file."""
    file = expanded(file).absolute()
    source, name = read(file, largest=LARGEST_FILE), file.name
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        tree = ast.parse(source.decode(encoding))  # of bytes it would take any that stand in a comment
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about the file
            compile(source, name, "exec", dont_inherit=True)  # what a tree may have and a program may not
    except UnicodeDecodeError as error:
        wanted = error.encoding.upper()
        raise InputError(f"{name} is not {wanted} (byte {error.start}); save it as UTF-8") from None
    except SyntaxError as error:
        if error.lineno is None:
            raise InputError(f"{name} is no Python file ({error.msg})") from None
        line = (error.text or "").strip()
        shown = f" (the line is `{line[:100]}`)" if line else ""
        raise InputError(f"{name}, line {error.lineno}, column {error.offset}: {error.msg}{shown}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{name} is no Python file ({one_line(error)})") from None
    functions = [n.args for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "forward"]
    parameters = {a.arg for f in functions[-1:] for a in (*f.posonlyargs, *f.args, *f.kwonlyargs)}
    return Learner(name, file, source, parameters)


class Session(Process):
    """A learner's process, and what it can be asked. Leaving the `with` ends it."""

    def __init__(self, learner: Learner, setting: Mapping[str, Any], limits: Limits) -> None:
        """`setting`: the local `model`, the `names` of checkpoints that there are, and the folders that are
        `hidden` from it, as `child.learner` has them."""
        super().__init__(child.learner)
        self._learner, self._limits, self._sent = learner, limits, set[str]()
        self.allow()
        job = {"file": str(learner.file), "notebook": learner.notebook, "memory": limits.memory, **setting}
        source = bytearray(learner.source or b"\n")  # torch makes no tensor of nothing
        self.send(job, {"source": torch.frombuffer(source, dtype=torch.uint8)})
        self.loaded = self.outcome({"do": "load"})

    def forward(self, run: Run, seed: int = 0) -> Outcome:
        """Run forward in one way."""
        return self.outcome({"do": "forward", "seed": seed, **run.about}, run.tensors)

    def call(self, arguments: Sequence[Any]) -> Outcome:
        """Call a function that is no rebuild; its `end` has the `value` of what is no tensor."""
        tensors = {str(n): value for n, value in enumerate(arguments) if isinstance(value, Tensor)}
        plain = [None if isinstance(value, Tensor) else value for value in arguments]
        return self.outcome({"do": "call", "arguments": plain}, tensors)

    def step(self, trial: Trial, truth: Mapping[str, Tensor], attention: str) -> Outcome:
        """Try a step by itself. Of the official tensors only those are sent that it is computed from."""
        needed = {*trial.inputs, *(name for name in truth if name.startswith(INPUTS))} - self._sent - {None}
        tensors = {name: truth[name] for name in needed if name is not None}
        self._sent |= set(tensors)
        return self.outcome({"do": "step", **vars(trial), "attention": attention}, tensors)

    def read(
        self, run: Run, outcome: Outcome, trial: Trial | None = None
    ) -> Callable[[], tuple[Reading, ...]]:
        """Have it read what forward does otherwise, where it does, run in one way; or what a step does by
        itself; in another type than float32 nothing. To be asked last: all official tensors come in. It reads
        while something else is done here; the function that comes back waits for it."""
        truth = run.truth
        shown = [name for name in truth if name in outcome.tapped]
        wrong = [name for name in shown if not identical(outcome.tapped[name], truth.tensors[name])]
        failed = outcome.end.get("end") == "error"
        if self.ended or not (wrong or failed) or outcome is self.loaded:
            return tuple
        if truth.dtype != "float32":  # what gives the same bits there may be another formula
            return tuple
        words, record = cached.more(run.file, cached.RECORD)
        about = {"do": "read", "record": words, "first": wrong[0] if wrong else "", **run.about}
        about["trial"] = None if trial is None else {**vars(trial), "attention": run.attention}
        tensors = run.tensors | {
            f"truth/{name}": truth.tensors[name] for name in (truth if failed else shown)
        }
        tensors |= {f"record/{name}": tensor for name, tensor in record.items()}
        self.allow()
        return partial(self._readings, self.ask(about, tensors))

    def _readings(self, answers: Iterator[Message]) -> tuple[Reading, ...]:
        self.allow()  # what was done here meanwhile is not counted
        read = Outcome.of_answers(answers)
        if not read.finished:
            return (Reading("", (), "", (), f"not read: {self.problem(read) or 'its process ended'}"),)
        try:
            return tuple(map(Reading.from_json, read.end.get("readings", ())))
        except (KeyError, TypeError):  # what comes from there is the learner's
            return ()

    def allow(self) -> None:
        """As much time as there is, from now on."""
        self.deadline = time.monotonic() + self._limits.seconds

    def problem(self, outcome: Outcome) -> str | None:
        """What ended a run before its end, in one line."""
        name, end, ended = self._learner.name, outcome.end, self.ended
        option = "" if self._learner.notebook else " (--{})"
        refused, raised = str(end.get("refused") or ""), str(end.get("problem") or "")
        if refused:
            return raised if refused in raised else f"{name}: {refused}"
        if end.get("end") == "error":
            return raised
        if end or ended is None:
            return None
        if ended.how == "time":
            limit = f"{self._limits.seconds:g} s{option.format('seconds')}"
            return f"{name}: it was stopped after {limit}; does a loop never end?"
        if "bad_alloc" in ended.output or ended.how in ("signal SIGKILL", "signal SIGXFSZ"):
            limit = f"{self._limits.memory} MB{option.format('memory')}"
            return f"{name}: it asked for too much memory, more than the limit of {limit}"
        if ended.how == "garbage":
            return f"{name}: it closed the pipe to the checker, or wrote something else into it"
        if ended.how.startswith("signal"):
            return f"{name}: it crashed ({ended.how})"
        how = ended.how or "exit 0"
        return f"{name}: its process ended with {how} before it was done; does it call exit?"
