"""Half of all combinations, such that each two choices still meet; the other half is for `make weekly`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest


def in_turn(*choices: Iterable[Any]) -> list[Any]:
    """The parameters of a test: one choice of each, in every combination.

    Of two combinations that differ by one step in one choice, one is run each time and the other weekly.
    """
    combined = []
    for chosen in product(*(enumerate(choice) for choice in choices)):
        places, values = zip(*chosen, strict=True)
        combined.append(pytest.param(*values, marks=pytest.mark.weekly if sum(places) % 2 else ()))
    return combined
