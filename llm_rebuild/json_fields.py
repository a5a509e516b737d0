"""Values of a JSON file from outside, checked against what is wanted of them, and refused by their path.

What is wanted is written down in the form of the file itself:

>>> check({"name": "a", "sizes": [3, 0]}, {"name": WORD, "sizes": [whole(1)]}, "some.json: ")
Traceback (most recent call last):
llm_rebuild.errors.InputError: some.json: sizes[1] is 0, expected a whole number from 1
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llm_rebuild.errors import InputError


@dataclass(frozen=True)
class Kind:
    """A value that is accepted by a test, and that in words: `a whole number from 1`."""

    words: str
    accepts: Callable[[Any], bool]


def whole(least: int = 0) -> Kind:
    """A whole number from `least` that fits in 64 bits. JSON's true is none."""
    return Kind(f"a whole number from {least}", lambda v: type(v) is int and least <= v < 2**63)


def one_of(*values: str) -> Kind:
    """One of these words."""
    return Kind(" or ".join(values), lambda v: isinstance(v, str) and v in values)


def or_null(kind: Kind) -> Kind:
    """A value of this kind, or null."""
    return Kind(f"{kind.words} or null", lambda v: v is None or kind.accepts(v))


TEXT = Kind("a text", lambda v: isinstance(v, str))
WORD = Kind("a short text", lambda v: isinstance(v, str) and 0 < len(v) <= 300 and v.isprintable())
SHA256 = Kind("a sha256", lambda v: isinstance(v, str) and len(v) == 64 and set(v) <= set("0123456789abcdef"))
OBJECT = Kind("an object", lambda v: isinstance(v, dict))
FLAG = Kind("true or false", lambda v: type(v) is bool)
NUMBER = Kind("a finite number from 0", lambda v: type(v) in (int, float) and 0 <= v <= sys.float_info.max)


@dataclass(frozen=True)
class Each:
    """An object of at most `most` keys of a kind, each of whose values is like this."""

    value: Any
    most: int = 1000
    keys: Kind = WORD


def check(value: Any, wanted: Any, path: str = "") -> None:
    """Refuse a value that is not as wanted. Raises InputError: where, what it is, what it should be.

    wanted  A `Kind`; a list of one, for a list of any length; `Each`, for an object of any keys; a mapping,
            for an object of these keys, all of them and no other.
    path    Where the value stands, as the message begins: `config.json: n_head`.
    """
    if isinstance(wanted, Kind):
        if not wanted.accepts(value):
            raise InputError(f"{path} is {shown(value)}, expected {wanted.words}")
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            raise InputError(f"{path} is {shown(value)}, expected a list")
        for number, item in enumerate(value):
            check(item, wanted[0], f"{path}[{number}]")
    elif not isinstance(value, dict):
        raise InputError(f"{path.rstrip(': ') or 'the file'} is {shown(value)}, expected an object")
    elif isinstance(wanted, Each):
        if len(value) > wanted.most:
            raise InputError(f"{path.rstrip(': ')} has {len(value):,} keys, and {wanted.most:,} at the most")
        if not all(map(wanted.keys.accepts, value)):
            raise InputError(f"{path.rstrip(': ')} has keys that it cannot have")
        for key, item in value.items():
            check(item, wanted.value, below(path, key))
    else:
        for key, inner in wanted.items():
            if key not in value:
                raise InputError(f"{below(path, key)} is missing")
            check(value[key], inner, below(path, key))
        if more := [key for key in value if key not in wanted]:
            raise InputError(f"{below(path, shown(more[0]))} is a key that nothing here has")


def below(path: str, key: str) -> str:
    """`inputs` and `texts` make `inputs.texts`; a path that ends in a blank is followed at once."""
    return f"{path}.{key}" if path and not path.endswith(" ") else f"{path}{key}"


def shown(value: Any) -> str:
    """A value for a message, cut where it is long. Of a number with too many digits to print, only that."""
    try:
        text = repr(value)
    except ValueError:
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:59]}…"
