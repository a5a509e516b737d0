"""The one exception that means: the input is at fault, not the program."""

from __future__ import annotations


class InputError(Exception):
    """Something that came from outside cannot be used.

    The message is one line. It says what is wrong and, where there is something to do about it, what
    to do. The command line prints it on stderr and exits with 2; it never shows a traceback for it.
    """


def one_line(error: object) -> str:
    """Another library's error as part of a message: its text on one line, not too long."""
    return " ".join(str(error).split())[:200] or type(error).__name__
