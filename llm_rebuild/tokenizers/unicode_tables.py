"""Tables of characters, frozen in `unicode.json`, as sets of characters and as classes of a pattern.

The official libraries are compiled with tables of certain versions of Unicode, and Python's follow the
interpreter: who has to equal the former asks these. Ranges are hexadecimal code points, both ends included.
"""

from __future__ import annotations

import json
from pathlib import Path

TABLES = json.loads(Path(__file__).with_name("unicode.json").read_text(encoding="utf-8"))


def characters(ranges: str) -> frozenset[str]:
    """The characters in a table of ranges.

    >>> sorted(characters("41-43 5A"))
    ['A', 'B', 'C', 'Z']
    """
    ends = (entry.split("-") for entry in ranges.split())
    return frozenset(chr(n) for e in ends for n in range(int(e[0], 16), int(e[-1], 16) + 1))


def members(*tables: str) -> str:
    """Tables of ranges as the inside of a character class.

    >>> members("41-43 5A")
    'A-CZ'
    """
    entries = " ".join(tables).split()
    return "".join("-".join(chr(int(end, 16)) for end in entry.split("-")) for entry in entries)
