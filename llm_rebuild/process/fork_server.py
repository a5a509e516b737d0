"""The fork server: a process that has torch loaded, computes nothing, and copies itself when it is asked to.

Loading torch takes a new Python seconds, and copying a process milliseconds. But what has computed something
cannot be copied, for torch's threads do not survive it. So there is one process that never does. It is a copy
of the first one, where that has not computed anything itself (`begin`), else a new Python.
On Linux; elsewhere each process of ours is a new Python.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pkgutil import resolve_name
from typing import Any, NamedTuple

from llm_rebuild.process.child import copied, streams
from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.limits import end_with

COPIES = sys.platform == "linux"
RUNNING, KILLED = "running", f"{-signal.SIGKILL}"
LOCK = threading.Lock()


class _Server(NamedTuple):
    """The fork server, and the socket by which it is asked. A copy of its `owner` has one of its own."""

    pid: int
    asking: socket.socket
    owner: int


_servers: list[_Server] = []


def begin() -> None:
    """Take a copy of this process, which has computed nothing with torch; none if it has transformers."""
    if COPIES and "transformers" not in sys.modules:
        with LOCK:
            _server(copy=True)


def start(task: str, reading: int, writing: int, output: int) -> int:
    """Have a process do a task, `module:function`, which reads, writes and prints there: its id. A copy
    expects the environment first. Raises OSError where none can be started."""
    if not COPIES:
        command = f"from llm_rebuild.process.child import started; started({task!r}, {os.getpid()})"
        return _new_python(command, reading, writing, output)
    folder = os.open(".", os.O_PATH)
    try:
        for _ in range(2):  # it may have been ended: by the system, or with the thread that started it
            if (pid := _answer(task, (reading, writing, output, folder))) != KILLED:
                return int(pid)
    finally:
        os.close(folder)
    raise OSError("no process could be started; is there enough memory?")


def poll(pid: int) -> int | None:
    """The exit code of what was started, or minus the number of the signal that ended it; None while it
    runs. Once it was told it is forgotten."""
    if not COPIES:
        return _exit_code(pid)
    answer = _answer(str(pid))
    return None if answer == RUNNING else int(answer)


def _exit_code(pid: int) -> int | None:
    """Of a child of this process, as `poll` has it; what another server had started was killed with it."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -signal.SIGKILL
    return os.waitstatus_to_exitcode(status) if ended else None


def _answer(question: str, passed: Sequence[int] = ()) -> str:
    """What the fork server says. Where it has ended, all that it had started was killed."""
    with LOCK:
        server, answer = _server(), b""
        try:
            socket.send_fds(server.asking, [question.encode()], passed)
            answer = server.asking.recv(100)
        except OSError:
            pass
        finally:
            if not answer:  # it has ended, or Ctrl+C came before the answer
                _servers.clear()
                server.asking.close()
                with contextlib.suppress(ProcessLookupError, ChildProcessError):
                    os.kill(server.pid, signal.SIGKILL)
                    os.waitpid(server.pid, 0)
        return answer.decode() or KILLED


def _server(copy: bool = False) -> _Server:
    """The fork server of this process; started now if there is none."""
    owner = os.getpid()
    if not _servers or _servers[0].owner != owner:
        asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:
            command = f"from llm_rebuild.process.fork_server import serve; serve(0, {owner})"
            pid = os.fork() if copy else _new_python(command, asked.fileno())
            if pid == 0:
                LOCK.release()
                serve(asked.fileno(), owner)
        _servers[:] = [_Server(pid, asking, owner)]
    return _servers[0]


def _new_python(code: str, *files: int) -> int:
    """A new Python with this one's path, and these as its first streams: its id."""
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_DUP2, file, at) for at, file in enumerate(files)]
    actions += [(os.POSIX_SPAWN_OPEN, at, os.devnull, os.O_WRONLY, 0) for at in range(len(files), 3)]
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions, setpgroup=0)


# ------------------------------------------------------------------------------------------- inside it


def serve(socket_: int, owner: int) -> None:
    """Copy this process whenever it is asked to, as long as its owner lives. Never returns."""
    try:
        with contextlib.suppress(PermissionError):  # a new Python has a group of its own
            os.setsid()
        asked = socket.socket(fileno=os.dup(socket_))
        os.closerange(3, asked.fileno())  # what its owner has open is no business of a learner's file
        os.closerange(asked.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        streams(os.open(os.devnull, os.O_WRONLY))
        end_with(owner)
        server = os.getpid()
        while (message := socket.recv_fds(asked, 1000, 4))[0]:
            question, passed = message[0].decode(), message[1]
            if not passed:
                code = _exit_code(int(question))
                asked.send((RUNNING if code is None else str(code)).encode())
                continue
            with contextlib.suppress(ImportError):  # a copy says what it misses
                resolve_name(question)
            gc.freeze()  # no copy searches through what is the server's
            pid = os.fork()
            if pid == 0:
                asked.close()
                os.fchdir(passed[3])
                os.close(passed[3])
                copied(question, Channel(passed[0], passed[1]), passed[2], server)
            asked.send(str(pid).encode())
            for descriptor in passed:
                os.close(descriptor)
    finally:
        os._exit(0)
