"""The way in and the only way out: whatever happens in a command, it ends in an exit code and at most a line.

Little is imported here before something listens for Ctrl+C. What the commands need comes after it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from llm_rebuild.errors import InputError
from llm_rebuild.printing import notice

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AT_FAULT, PIPE_CLOSED = 2, 141  # exit codes; the second is what other tools return


def command() -> None:
    """Run a command as the only thing that this process does."""
    ended: list[Any] = []
    atexit.register(_leave, ended)  # before all others, so that it comes after them
    try:
        main()
    except SystemExit as end:
        ended.append(end.code)
        raise


def main() -> None:
    """Run a command. Bad input ends in one line on stderr and exit code 2."""
    gc.set_threshold(10_000)  # the libraries make a million objects, none of them garbage
    with _listening() as stopped:
        try:
            _mend_streams()
            status = _run()
        except BaseException as error:
            # A library whose import is stopped may raise an error of its own.
            if not stopped and not isinstance(error, KeyboardInterrupt):
                raise
            status = 130
        if stopped:
            status = 128 + stopped[0]
    if status == 130 or stopped:
        notice("llm-rebuild: stopped")
    sys.exit(status)


def _leave(ended: list[Any]) -> None:
    """The end of a process: to take apart what was imported, as Python does, would take half a second."""
    with contextlib.suppress(OSError, ValueError):  # a stream that cannot be written to: Python says so
        sys.stdout.flush()
        sys.stderr.flush()
        if ended and isinstance(ended[0], int):
            os._exit(ended[0])


def _run() -> int:
    """A command's exit code."""
    from llm_rebuild.cli.app import TyperException, app, register

    register(sys.argv[1:])
    try:
        _check_folder()
        status = app(standalone_mode=False) or 0
        sys.stdout.flush()
    except (InputError, TyperException) as error:  # the second: an option that does not exist, and so on
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        return _at_fault(message)
    except BrokenPipeError:
        return _closed()
    except SystemExit as error:  # so typer and rich leave where a pipe is closed
        if isinstance(error.__context__, BrokenPipeError):
            return _closed()
        raise
    except OSError as error:
        if error.errno is None:  # a library's own
            raise
        _silence(sys.stdout)  # the disk behind it may be full
        what = error.filename or "the result cannot be written"
        return _at_fault(f"{what}: {(error.strerror or str(error)).lower()}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # so torch says it
            raise
        return _at_fault("this machine has not enough memory for it; try fewer or shorter texts")
    return int(status)


def _at_fault(message: str) -> int:
    notice(f"llm-rebuild: {message}")
    return AT_FAULT


def _closed() -> int:
    """`llm-rebuild map minilm | head`: the reader has seen enough. No word."""
    _silence(sys.stdout)
    return PIPE_CLOSED


@contextlib.contextmanager
def _listening() -> Iterator[list[int]]:
    """Let each signal that should stop a command do so as KeyboardInterrupt, so that what it has begun is
    tidied up; that may be stopped by Ctrl+C only. Gives the list in which the signal stands when it came."""
    stopped: list[int] = []
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        """The first signal: from now on only Ctrl+C is heard."""
        stopped.append(number)
        for other in STOPPING:
            signal.signal(other, signal.SIG_DFL if other == signal.SIGINT else signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    with contextlib.suppress(ValueError):  # in another thread than the first nobody can listen
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                before[number] = signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _mend_streams() -> None:
    """Streams that were closed take what is written and lose it; characters that they do not have are
    written as `\\xe9`."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: no file will get it
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=descriptor != number))
        elif name != "stdin" and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    if not os.environ.get("COLUMNS", "0").strip("0"):  # into none rich prints nothing
        os.environ.pop("COLUMNS", None)


def _check_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109 (pathlib is slow to import, and this comes early)
    except OSError:
        raise InputError("the folder that this runs in has been removed; change to another") from None


def _silence(stream: Any) -> None:
    """What is still to be written there goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
