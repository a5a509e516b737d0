"""Is a difference rounding, or a mistake? Each step is computed once more in float64, from what went into it.

That is the true result, as far as these numbers go. The official tensor is off from it by the rounding of
float32, and so is every harmless spelling of the step, by about as much. A mistake is further away. What goes
into a step is the rebuild's own, so that a later step is not blamed for an earlier one.

`diagnosis/exact.py` computes the steps; here is what comes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ROUNDING = "rounding"
MISTAKE = "mistake"
INHERITED = "inherited"
UNCLEAR = "unclear"


@dataclass(frozen=True)
class Rounding:
    """What each step in float64 says of the tensors that differ.

    kinds     Checkpoint -> `rounding`: the step is right, and what goes into it differs by rounding at the
              most; `mistake`: the step is wrong; `inherited`: it is right, and what goes into it is wrong.
    off       Checkpoint -> the largest distance from the step in float64 on both sides, rebuilt and official,
              as shares of the tensor's largest number; infinite where the shapes differ or only one side is
              finite.
    problems  Why nothing can be said of a checkpoint.
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    off: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def kind(self, name: str) -> str:
        """`rounding`, `mistake`, `inherited` or, where it was not computed, `unclear`."""
        return self.kinds.get(name, UNCLEAR)

    def words(self, name: str) -> str:
        """How far both sides are from the step in float64. For a checkpoint of which this is known."""
        off, official = self.off[name]
        if not math.isfinite(off) or (off <= official and self.kind(name) == MISTAKE):  # -inf in a mask
            return "this step in float64 gives something else"
        away = f"the rebuilt tensor is {off:.0e} of its largest number away from this step in float64"
        return f"{away}, the official one {official:.0e}"

    def to_json(self, name: str) -> dict[str, Any]:
        """Of one checkpoint. JSON has no infinity: there the difference is null."""
        off, _ = self.off.get(name, (math.inf, math.inf))
        return {
            "kind": self.kind(name),
            "float64_difference": off if math.isfinite(off) else None,
            "problem": self.problems.get(name),
        }
