"""The one exception that means: the input is at fault, not the program. And what its message is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

LONGEST_NAME = 200  # characters; of longer names none is near
LONGEST_WORD = 160  # characters of a name, a path or a number in a message
LONGEST = 500  # characters of a message

# What moves a terminal's cursor, colours it, turns its text round, or cannot be written at all.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class InputError(Exception):
    """Something that came from outside cannot be used.

    The message is one line. It says what is wrong and, where there is something to do about it, what
    to do. The command line prints it on stderr and exits with 2; it never shows a traceback for it.
    """


class NoSuchNameError(InputError, KeyError):
    """A name that a mapping of ours does not have: `capture.get(name)` is None, as of any other mapping."""

    __str__ = Exception.__str__  # KeyError's puts the message in quotes


def escaped(text: str) -> str:
    r"""Text as a terminal may get it: what is not printable as Python writes it, `\x1b`. Lines stay lines."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing where nothing is near."""
    import difflib  # for a name that is wrong; nobody else waits for it

    close = difflib.get_close_matches(name, list(names), n=1) if len(name) <= LONGEST_NAME else []
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(names: Sequence[str], most: int = 3) -> str:
    """`a, b, c and 2 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def counted(number: int, what: str) -> str:
    """`1 proof`, `2 proofs`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def one_line(message: object, longest: int = 200) -> str:
    """A message, or another library's error, as a line that a terminal may get: not too long, nor any word
    of it, and nothing in it that is not printable."""
    line = re.sub(r"\s*[\r\n]\s*", " ", str(message).strip())
    line = re.sub(r"\S+", lambda word: _shortened(word[0], LONGEST_WORD), escaped(line))
    return _shortened(line, longest) or type(message).__name__


def _shortened(text: str, most: int) -> str:
    """Text of at most that many characters: its middle is left out."""
    head = most * 2 // 3
    return text if len(text) <= most else f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"
