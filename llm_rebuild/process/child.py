"""The inside of a process of ours: it becomes one, does its task, and ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pkgutil import resolve_name

from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.limits import end_with

Task = Callable[[Channel], None]


def started(task: str, parent: int) -> None:
    """A new Python does a task, `module:function`. It is spoken to through its first two streams; what is
    printed goes to the third."""
    channel = Channel(os.dup(0), os.dup(1))
    streams(2)
    end_with(parent)
    resolve_name(task)(channel)


def copied(task: str, channel: Channel, output: int, parent: int) -> None:
    """A copy of a process does a task, and never returns: what the first has still to do is not done here.
    The first message has the environment and the path of whoever asked for it."""
    code = 1
    try:
        os.setsid()
        streams(output)
        end_with(parent)
        if (message := channel.receive()) is not None:
            os.environ.clear()
            os.environ.update(message.about["environment"])
            sys.path[:] = message.about["path"]
            resolve_name(task)(channel)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def streams(output: int) -> None:
    """Nothing to read, and one place for all that is printed."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((output, 2), (output, 1), (nothing, 0)):
        os.dup2(source, target)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115


def silence() -> None:
    """What is printed from now on is of no interest to anybody."""
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
