"""What people see of a result, without its knowing of terminals.

A result says what it is, in numbers and names. How that is laid out and coloured is said in `show/`, which
stands above everything that makes results; the package's `__init__` brings the two together.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, Protocol

from llm_rebuild.errors import LONGEST, one_line


class Look(Protocol):
    """How results look: `show/results.py`."""

    def text(self, result: object) -> str:
        """As `print` shows it."""

    def html(self, result: object) -> str:
        """As a notebook shows it."""

    def renderable(self, result: object) -> Any:
        """As rich lays it out."""


_look: list[Callable[[], Look]] = []


def look_from(load: Callable[[], Look]) -> None:
    """Say where the look of results comes from. `load` is called when the first of them is shown."""
    _look[:] = [load]


class Printable:
    """A result that `print` shows as text, a notebook and rich in colour."""

    def __str__(self) -> str:
        return _look[0]().text(self)

    def __rich__(self) -> Any:
        return _look[0]().renderable(self)

    def _repr_html_(self) -> str:
        return _look[0]().html(self)


def notice(line: object) -> None:
    """Print one line on stderr, so that stdout stays for results. Where it cannot be printed it is lost."""
    with contextlib.suppress(OSError, ValueError):
        print(one_line(line, LONGEST), file=sys.stderr, flush=True)
