"""A process of its own for a learner's file, with a limit to its time, its memory and what it may print.

It protects from accidents, not from malice: the file runs with its owner's rights, on its owner's machine.

On Linux the process is forked from this one, which has torch loaded already, so that torch is imported once a
check. Elsewhere, and where this process has computed something (threads do not survive a fork), it is started
anew. What goes in is JSON and a safetensors file; what comes back, too. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SHOWN = 4000  # characters of what the file prints
ENFORCED = sys.platform == "linux"  # whether the limit to memory holds
POLL = 0.004  # seconds between two looks at whether the process has ended


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    how     Empty: by itself, with code 0. `time`: it was stopped. `exit 3`; `signal SIGSEGV`.
    output  What it printed, of which `lost` characters are left out.
    """

    how: str
    output: str
    lost: int


class Running:
    """A job of `child.py` in a process. Leaving the `with` ends it, and whatever it has started.

    folder  Where the job and what it gives back lie.
    fork    Fork it from this process, which must not have computed anything with torch yet.
    """

    def __init__(self, job: Mapping[str, Any], folder: Path, fork: bool) -> None:
        (folder / "job.json").write_text(json.dumps(dict(job)), encoding="utf-8")
        self._process = _Forked(folder) if fork and hasattr(os, "fork") else _Started(folder)
        self._output = _Output(self._process.pipe)

    def wait(self, seconds: float | None, until: Path | None = None) -> Ended | None:
        """Wait for its end, which is after so many seconds at the latest. None: `until` is there before."""
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        while (code := self._process.poll()) is None and time.monotonic() < deadline:
            if until is not None and until.exists():
                return None
            time.sleep(POLL)
        self.close()
        return Ended(_how(code), *self._output.text())

    def close(self) -> None:
        """End it, and all of its group."""
        self._process.kill()
        self._output.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def run(job: Mapping[str, Any], folder: Path, seconds: float | None, fork: bool) -> Ended:
    """Run a job and wait for its end."""
    with Running(job, folder, fork) as running:
        ended = running.wait(seconds)
    assert ended is not None
    return ended


def _how(code: int | None) -> str:
    if code is None:
        return "time"
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit {code}" if code else ""


class _Started:
    """A new Python."""

    def __init__(self, folder: Path) -> None:
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from llm_rebuild.workbench.child import main; "
            f"main({str(folder)!r})"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._killed = False
        assert self._process.stdout is not None
        self.pipe: IO[bytes] = self._process.stdout

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        if not self._killed:
            self._killed = True
            _kill_group(self._process.pid)  # also what it has started and left behind
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()


class _Forked:
    """A copy of this process."""

    def __init__(self, folder: Path) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        reading, writing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _become_child(folder, writing)
        os.close(writing)
        self.pipe: IO[bytes] = os.fdopen(reading, "rb", buffering=0)
        self._code: int | None = None
        self._killed = False

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def kill(self) -> None:
        if self._killed:
            return
        self._killed = True
        _kill_group(self._pid)  # also what it has started and left behind
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # before it had a group of its own
            _, status = os.waitpid(self._pid, 0)
            self._code = os.waitstatus_to_exitcode(status)


def _become_child(folder: Path, writing: int) -> None:
    """The rest of a forked process's life. It never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (writing, 1), (writing, 2)):
            os.dup2(source, target)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        from llm_rebuild.workbench import child

        child.main(str(folder))
        code = 0
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)  # nothing of what the first process has still to do is done here


def _kill_group(pid: int) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


class _Output:
    """What a process prints: the first characters are kept, the others counted, none waits to be read."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = bytearray()
        self._lost = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(self._pipe.fileno(), 65536):
                room = max(0, SHOWN - len(self._kept))
                self._kept += piece[:room]
                self._lost += len(piece[room:])

    def close(self) -> None:
        self._thread.join(timeout=1.0)
        with contextlib.suppress(OSError):
            self._pipe.close()

    def text(self) -> tuple[str, int]:
        return bytes(self._kept).decode("utf-8", errors="replace"), self._lost
