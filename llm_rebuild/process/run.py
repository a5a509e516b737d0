"""Starting a process of ours, speaking with it, and seeing to it that it ends.

What goes in is JSON and tensors; what comes back, too. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from llm_rebuild.process import fork_server
from llm_rebuild.process.child import Task
from llm_rebuild.process.exchange import Channel, Message, NoMessageError, pack, write

SHOWN = 4000  # characters of what is printed there
ENDING = 1.0  # seconds that a process has to end in when its pipe is closed
HOUR = 3600.0  # seconds of one wait: for as many as a limit may have the system has no number


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    how     Empty: by itself, with code 0. `time`: it was stopped. `exit 3`; `signal SIGSEGV`; `garbage`: it
            closed its pipe, or wrote something else than messages into it.
    output  What it printed, of which `lost` characters are left out.
    """

    how: str
    output: str
    lost: int


@dataclass
class Outcome:
    """What came of a request to a rebuild's process.

    tapped   The tensors that it tapped; `foreign` those that came from elsewhere, with what they went into.
    answer   What it returned.
    end      How it ended; empty where the process did.
    """

    tapped: dict[str, Tensor] = field(default_factory=dict)
    foreign: list[tuple[str, Tensor]] = field(default_factory=list)
    answer: Tensor | None = None
    end: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it came to its end."""
        return self.end.get("end") == "done"

    @classmethod
    def of_answers(cls, answers: Iterator[Message]) -> Outcome:
        """What is tapped twice is what it was first."""
        outcome = cls()
        for message in answers:
            if "tapped" in message.about:
                for name, tensor in message.tensors.items():
                    outcome.tapped.setdefault(name, tensor)
            elif "foreign" in message.about:
                outcome.foreign += [(str(message.about["foreign"]), t) for t in message.tensors.values()]
            elif "end" in message.about:
                outcome.end, outcome.answer = message.about, message.tensors.get("answer")
        return outcome

    def of(self, names: Container[str]) -> dict[str, Tensor]:
        """What was tapped of these checkpoints."""
        return {name: tensor for name, tensor in self.tapped.items() if name in names}


P = TypeVar("P", bound="Process")


class Process:
    """A task in a process of its own. Leaving the `with` ends it, and whatever it has started.

    task   A function of a module, `(channel)`, which answers requests until there are no more.
    """

    def __init__(self, task: Task) -> None:
        self.ended: Ended | None = None
        self.deadline = math.inf  # of the next answer, by time.monotonic
        self._pid, self._reading, self._writing, self._output = _start(task)
        self._code: int | None = None
        self._watched = [self._reading, self._output]
        os.set_blocking(self._writing, False)
        os.set_blocking(self._output, False)
        self._channel = Channel(self._reading, self._writing, self._wait)
        self._unsent: deque[memoryview] = deque()
        self._printed, self._lost = bytearray(), 0
        if fork_server.COPIES:
            self.send({"environment": dict(os.environ), "path": sys.path})

    def ask(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Iterator[Message]:
        """Send a request, and yield what is answered; the process works even before that is asked for. The
        last answer has the key `end`; where none comes before the `deadline`, the process is ended, and
        `ended` says how."""
        self.send(about, tensors)
        with contextlib.suppress(TimeoutError):
            self._wait(sending=True)
        return self._answers()

    def _answers(self) -> Iterator[Message]:
        while (message := self._next()) is not None:
            yield message
            if "end" in message.about:
                return

    def outcome(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Outcome:
        """Send a request to a process that runs a rebuild, and collect what is answered."""
        return Outcome.of_answers(self.ask(about, tensors))

    def send(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send what is not answered. It goes out while answers are waited for: the process may not be
        listening yet."""
        self._unsent += pack(about, tensors or {})

    def _next(self) -> Message | None:
        """The next answer. None where the process has ended, or is ended for what it did."""
        if self.ended is not None:
            return None
        patience = ENDING
        try:
            if (message := self._channel.receive()) is not None:
                return message
        except TimeoutError:
            self._finish("time")
            return None
        except NoMessageError:
            patience = 0.0
        except (OSError, MemoryError):
            pass
        end = time.monotonic() + patience  # its pipe is closed: it is ending
        while self._poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        self._finish("garbage" if self._poll() is None else None)
        return None

    def _wait(self, sending: bool = False) -> None:
        """Until there is something to read, or, if it is about `sending`, nothing more to send. Meanwhile
        what waits to be sent is sent, and what is printed taken. Raises TimeoutError at the deadline."""
        while self.ended is None and (remaining := self.deadline - time.monotonic()) > 0:
            unsent = [self._writing] if self._unsent else []
            readable, writable, _ = select.select(self._watched, unsent, [], min(remaining, HOUR))
            if writable:
                self._write()
            if self._output in readable:
                self._take_printed()
            if self._reading in readable or (sending and not self._unsent):
                return
        raise TimeoutError

    def _write(self) -> None:
        try:
            write(self._writing, self._unsent)
        except OSError:  # it has ended: whoever reads says how
            self._unsent.clear()

    def _take_printed(self) -> bool:
        """Read what it has printed: the first characters are kept, the others counted. Whether there may be
        more."""
        piece = b""
        with contextlib.suppress(BlockingIOError):
            piece = os.read(self._output, 65536)
            self._watched = self._watched if piece else [self._reading]  # it is closed
        room = max(0, SHOWN - len(self._printed))
        self._printed += piece[:room]
        self._lost += len(piece[room:])
        return bool(piece)

    def _poll(self) -> int | None:
        """Its exit code, if it has ended."""
        if self._code is None:
            self._code = fork_server.poll(self._pid)
        return self._code

    def _finish(self, how: str | None = None) -> None:
        """End it, and all of its group. `how` it ended; None: as its exit code says."""
        if self.ended is not None:
            return
        code = self._poll()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has no group of its own yet
            os.killpg(self._pid, signal.SIGKILL)
        if self._poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        while self._poll() is None:
            time.sleep(0.001)
        while self._take_printed():
            pass
        os.close(self._output)
        self._channel.close()
        text = bytes(self._printed).decode("utf-8", errors="replace")
        self.ended = Ended(_how(code) if how is None else how, text, self._lost)

    def close(self) -> None:
        """End it, and all of its group."""
        self._finish("")

    def __enter__(self: P) -> P:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def _how(code: int | None) -> str:
    if not code:
        return ""
    if code > 0:
        return f"exit {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _start(task: Task) -> tuple[int, int, int, int]:
    """A process that does a task: its id, and the ends of pipes to read from, to write to, and to read from
    what it prints."""
    (asked, asking), (answers, answering), (output, printing) = os.pipe(), os.pipe(), os.pipe()
    pid = fork_server.start(f"{task.__module__}:{task.__qualname__}", asked, answering, printing)
    for descriptor in (asked, answering, printing):
        os.close(descriptor)
    return pid, answers, asking, output
