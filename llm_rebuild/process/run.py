"""Starting a process of ours, speaking with it, and seeing to it that it ends.

On Linux it can be forked from this one, which has torch loaded already. Elsewhere, and where this process has
computed something (threads do not survive a fork), it is a new Python. What goes in is JSON and tensors; what
comes back, too. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from llm_rebuild.process.child import Task, forked
from llm_rebuild.process.exchange import Channel, Message, NoMessageError, Packed, pack

SHOWN = 4000  # characters of what is printed there
POLL = 0.05  # seconds between two looks at whether a silent process has ended
WAITING = 8  # messages that may wait to be read


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

    def of(self, names: Container[str]) -> dict[str, Tensor]:
        """What was tapped of these checkpoints."""
        return {name: tensor for name, tensor in self.tapped.items() if name in names}


P = TypeVar("P", bound="Process")


class Process:
    """A task in a process of its own. Leaving the `with` ends it, and whatever it has started.

    task   A function of a module, `(channel)`, which answers requests until there are no more.
    fork   Copy this process, which must not have computed anything with torch's threads yet.
    """

    def __init__(self, task: Task, fork: bool = False) -> None:
        self.ended: Ended | None = None
        self.deadline = math.inf  # of what `outcome` asks for, by time.monotonic
        self._messages: queue.Queue[Message | NoMessageError | None] = queue.Queue(WAITING)
        self._closing = threading.Event()
        start = _fork if fork and hasattr(os, "fork") else _start
        self._pid, self._poll, self._channel, output = start(task)
        self._printed = _Printed(output)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._letters: queue.Queue[Packed | None] = queue.Queue()
        threading.Thread(target=self._write, daemon=True).start()

    def ask(
        self,
        about: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        deadline: float = math.inf,
    ) -> Iterator[Message]:
        """Send a request, and yield what is answered. The last answer has the key `end`; where none comes
        before the deadline (by time.monotonic), the process is ended, and `ended` says how."""
        self.send(about, tensors)
        while (message := self._next(deadline)) is not None:
            yield message
            if "end" in message.about:
                return

    def outcome(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> Outcome:
        """Send a request to a process that runs a rebuild, and collect what is answered. What is tapped twice
        is what it was first."""
        outcome = Outcome()
        for message in self.ask(about, tensors, self.deadline):
            if "tapped" in message.about:
                for name, tensor in message.tensors.items():
                    outcome.tapped.setdefault(name, tensor)
            elif "foreign" in message.about:
                outcome.foreign += [(str(message.about["foreign"]), t) for t in message.tensors.values()]
            elif "end" in message.about:
                outcome.end, outcome.answer = message.about, message.tensors.get("answer")
        return outcome

    def send(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send what is not answered. It is not waited for: the process may not be listening."""
        self._letters.put(pack(about, tensors or {}))

    def _write(self) -> None:
        while (packed := self._letters.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # it has ended: `_next` says how
                self._channel.write(packed)

    def _next(self, deadline: float) -> Message | None:
        while self.ended is None:
            remaining = deadline - time.monotonic()
            try:
                message = self._messages.get(timeout=max(0.0, min(POLL, remaining)))
            except queue.Empty:
                if remaining <= 0:
                    self._finish("time")
                elif self._poll() is not None and not self._reader.is_alive():
                    self._finish()
                continue
            if isinstance(message, Message):
                return message
            end = time.monotonic() + (1.0 if message is None else 0.0)  # its pipe is closed: it is ending
            while self._poll() is None and time.monotonic() < end:
                time.sleep(0.002)
            self._finish("garbage" if self._poll() is None else None)
        return None

    def _read(self) -> None:
        message: Message | NoMessageError | None = None
        while not self._closing.is_set():
            try:
                message = self._channel.receive()
            except NoMessageError as error:
                message = error
            except (OSError, ValueError, MemoryError):
                message = None
            while not self._closing.is_set():
                with contextlib.suppress(queue.Full):
                    self._messages.put(message, timeout=POLL)
                    break
            if not isinstance(message, Message):
                return

    def _finish(self, how: str | None = None) -> None:
        code = self._poll()
        self._kill()
        if self.ended is None:
            self.ended = Ended(_how(code) if how is None else how, *self._printed.text())

    def close(self) -> None:
        """End it, and all of its group."""
        self._finish("")

    def _kill(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._letters.put(None)
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has no group of its own yet
                os.killpg(self._pid, signal.SIGKILL)
        if self._poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        while self._poll() is None:
            time.sleep(0.001)
        self._printed.close()
        self._reader.join(timeout=1.0)
        self._channel.close()

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


Started = tuple[
    int, Callable[[], "int | None"], Channel, int
]  # id, exit code if it has ended, channel, output


def _start(task: Task) -> Started:
    """A new Python, with this one's path."""
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from llm_rebuild.process.child import started; "
        f"started('{task.__module__}:{task.__qualname__}', {os.getpid()})"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    reading, writing, output = (os.dup(s.fileno()) for s in (process.stdout, process.stdin, process.stderr))
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()
    return process.pid, process.poll, Channel(reading, writing), output


def _fork(task: Task) -> Started:
    """A copy of this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    (asked, asking), (answers, answering), (output, printing) = os.pipe(), os.pipe(), os.pipe()
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        for descriptor in (asking, answers, output):
            os.close(descriptor)
        forked(task, Channel(asked, answering), printing, parent)
    for descriptor in (asked, answering, printing):
        os.close(descriptor)
    code: list[int] = []

    def poll() -> int | None:
        """Its exit code, once it has ended."""
        if not code:
            ended, status = os.waitpid(pid, os.WNOHANG)
            code.extend([os.waitstatus_to_exitcode(status)] if ended else [])
        return code[0] if code else None

    return pid, poll, Channel(answers, asking), output


class _Printed:
    """What a process prints: the first characters are kept, the others counted, none waits to be read."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._shown = bytearray()
        self._lost = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(self._pipe, 65536):
                room = max(0, SHOWN - len(self._shown))
                self._shown += piece[:room]
                self._lost += len(piece[room:])

    def close(self) -> None:
        """Wait for what is still in the pipe, and close it."""
        self._thread.join(timeout=1.0)
        with contextlib.suppress(OSError):
            os.close(self._pipe)

    def text(self) -> tuple[str, int]:
        """What was printed first, and how many more characters were."""
        return bytes(self._shown).decode("utf-8", errors="replace"), self._lost
