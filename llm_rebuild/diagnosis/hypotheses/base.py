"""What all hypotheses share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch

from llm_rebuild.diagnosis.formulas import Value, World

Make: TypeAlias = Callable[[World], Value]
# A cause, what exactly would have been done, and how: of this step, or of several by name.
Tries: TypeAlias = Iterator[tuple[str, str, Make | dict[str, Make]]]

LOWEST = torch.finfo(torch.float32).min
# What people add instead of it.
FILLS = (-math.inf, -1e4, -1e9, -1e5, -1e3, -100.0, -10.0, -1.0, 1.0, -1e8, -1e10, -1e6, -1e30, -1e38)


def cached(world: World) -> bool:
    """Whether the run goes on from keys and values of an earlier one."""
    return any(name.startswith("#past.") for name in world.known)
