"""The fork server: a process that has torch loaded, computes nothing, and copies itself when it is asked to.

Loading torch takes a new Python seconds, and copying a process milliseconds. But what has computed something
cannot be copied, for torch's threads do not survive it. So there is one process that never does. It is a copy
of the first one, where that has not computed anything itself (`begin`), else a new Python.
On Linux; elsewhere each process of ours is a new Python.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import threading
from dataclasses import dataclass

from llm_rebuild.process.child import copied, streams, task_of
from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.limits import end_with

COPIES = sys.platform == "linux"
NUMBER = struct.Struct("i")  # a process's id, and then its exit code
LOCK = threading.Lock()


@dataclass
class Child:
    """A process that was started, by its id.

    told  The pipe by which its exit code is told, where it is not this process's own child.
    """

    pid: int
    told: int | None = None
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it runs."""
        if self.code is not None:
            return self.code
        if self.told is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
            return self.code
        with contextlib.suppress(BlockingIOError):
            number = os.read(self.told, NUMBER.size)
            self.code = NUMBER.unpack(number)[0] if number else -signal.SIGKILL
            os.close(self.told)
        return self.code


@dataclass
class _Server:
    """The process that is copied, and by what it is asked. A copy of its `owner` has one of its own."""

    pid: int
    asking: socket.socket
    owner: int


_servers: list[_Server] = []


def begin() -> None:
    """Take a copy of this process, which must not have computed anything with torch yet."""
    if COPIES:
        with LOCK:
            _server(copy=True)


def start(task: str, reading: int, writing: int, output: int) -> Child:
    """Have a process do a task, `module:function`, which reads, writes and prints there. A copy expects the
    environment first. Raises OSError where none can be started."""
    if not COPIES:
        command = f"from llm_rebuild.process.child import started; started({task!r}, {os.getpid()})"
        return Child(_new_python(command, reading, writing, output))
    folder = os.open(".", os.O_PATH)
    try:
        with LOCK:
            for _ in range(2):  # it may have been ended: by the system, or with the thread that started it
                told, telling = os.pipe()
                with contextlib.suppress(BrokenPipeError, ConnectionError):
                    passed = [reading, writing, output, telling, folder]
                    socket.send_fds(_server().asking, [task.encode()], passed)
                os.close(telling)
                if number := os.read(told, NUMBER.size):
                    os.set_blocking(told, False)
                    return Child(NUMBER.unpack(number)[0], told)
                os.close(told)
                _end(_servers.pop())
    finally:
        os.close(folder)
    raise OSError("no process could be started; is there enough memory?")


def _server(copy: bool = False) -> _Server:
    """The process that is copied; started now if there is none."""
    owner = os.getpid()
    if not _servers or _servers[-1].owner != owner:
        asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asked:
            if copy:
                sys.stdout.flush()
                sys.stderr.flush()
                pid = os.fork()
                if pid == 0:
                    serve(asked.fileno(), owner)
            else:
                command = f"from llm_rebuild.process.fork_server import serve; serve(0, {owner})"
                nothing = os.open(os.devnull, os.O_WRONLY)
                pid = _new_python(command, asked.fileno(), nothing, nothing)
                os.close(nothing)
        _servers[:] = [_Server(pid, asking, owner)]
    return _servers[-1]


def _new_python(code: str, *streams: int) -> int:
    """A new Python with this one's path, and these as its first streams: its id."""
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    actions = [(os.POSIX_SPAWN_DUP2, stream, at) for at, stream in enumerate(streams)]
    return os.posix_spawn(command[0], command, os.environ, file_actions=actions, setpgroup=0)


def _end(server: _Server) -> None:
    """End it, if it still runs."""
    server.asking.close()
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(server.pid, signal.SIGKILL)
        os.waitpid(server.pid, 0)


# ------------------------------------------------------------------------------------------- inside it


def serve(socket_: int, owner: int) -> None:
    """Copy this process whenever it is asked to, as long as its owner lives. Never returns."""
    try:
        with socket.socket(fileno=os.dup(socket_)) as asked:
            highest = os.sysconf("SC_OPEN_MAX")
            os.closerange(3, asked.fileno())  # what the first has open is no business of a learner's file
            os.closerange(asked.fileno() + 1, highest)
            with contextlib.suppress(PermissionError):  # a new Python has a group of its own already
                os.setsid()
            streams(os.open(os.devnull, os.O_WRONLY))
            end_with(owner)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
            here = os.getpid()
            while (message := socket.recv_fds(asked, 1000, 5))[1]:
                task, passed = message[0].decode(), message[1]
                with contextlib.suppress(ImportError):  # a copy says what it misses
                    task_of(task)
                if os.fork() == 0:
                    asked.close()
                    _tell(task, here, *passed)
                for descriptor in passed:
                    os.close(descriptor)
    finally:
        os._exit(0)


def _tell(task: str, server: int, reading: int, writing: int, output: int, telling: int, folder: int) -> None:
    """Have a copy do the task; tell which process it is, and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    end_with(server)
    os.fchdir(folder)
    here, pid = os.getpid(), os.fork()
    if pid == 0:
        for descriptor in (telling, folder):
            os.close(descriptor)
        copied(task, Channel(reading, writing), output, here)
    for descriptor in (reading, writing, output):
        os.close(descriptor)
    os.write(telling, NUMBER.pack(pid))
    os.write(telling, NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    os._exit(0)
