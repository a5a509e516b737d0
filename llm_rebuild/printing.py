"""What people see of a result, without its knowing of terminals.

A result says what it is, in numbers and names. How that is laid out and coloured is said in `show/`, which
stands above everything that makes results; the package's `__init__` brings the two together.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from llm_rebuild.errors import LONGEST, one_line

_look: list[Callable[[], Any]] = []


def look_from(load: Callable[[], Any]) -> None:
    """Say where the look of results comes from: `load` gives `show/results.py`, when one is shown. Its
    `text` is what `print` shows of a result, its `html` what a notebook does, `renderable` what rich does."""
    _look[:] = [load]


class Printable:
    """A result that `print` shows as text, a notebook and rich in colour."""

    def __str__(self) -> str:
        return str(_look[0]().text(self))

    def __rich__(self) -> Any:
        return _look[0]().renderable(self)

    def _repr_html_(self) -> str:
        return str(_look[0]().html(self))


def notice(line: object) -> None:
    """Print one line on stderr, so that stdout stays for results. Where it cannot be printed it is lost."""
    with contextlib.suppress(OSError, ValueError):
        print(one_line(line, LONGEST), file=sys.stderr, flush=True)
