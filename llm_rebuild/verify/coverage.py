"""How much of the official forward pass do the checkpoints cover? Measured, not claimed.

A trace has every floating tensor that was computed. Each is either a checkpoint, or equal to one bit for
bit, or set aside for a stated reason, or uncovered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from llm_rebuild.verify.entries import Trace, aside
from llm_rebuild.verify.equality import same_bits

_FUSED_MASK = "the fused kernel turns the mask into 0 and -inf for itself"


@dataclass
class Coverage:
    """Counts over the floating tensors that one official forward pass computed.

    covered    Equal to a checkpoint, bit for bit and element for element.
    uncovered  Equal to none: operation -> how often.
    aside      Not counted: reason -> how often. Views are not computed and not even here.
    """

    covered: int = 0
    uncovered: Counter[str] = field(default_factory=Counter)
    aside: Counter[str] = field(default_factory=Counter)
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many tensors count."""
        return self.covered + sum(self.uncovered.values())

    @property
    def share(self) -> float:
        """The covered part of all that count, 0 to 1; 0 where nothing counts."""
        return self.covered / self.total if self.total else 0.0

    def reasons(self) -> dict[str, str]:
        """Why each uncovered operation has no checkpoint."""
        return {operation: self.why.get(operation, "no checkpoint") for operation in self.uncovered}

    def to_json(self) -> dict[str, Any]:
        """As it stands in a report. JSON-ready."""
        return {
            "share": self.share,
            "covered": self.covered,
            "total": self.total,
            "uncovered": {
                operation: {"count": n, "reason": self.reasons()[operation]}
                for operation, n in self.uncovered.items()
            },
            "set_aside": dict(self.aside),
        }


def measure(
    traced: Trace, checkpoints: Mapping[str, Tensor], why: Mapping[str, str] | None = None
) -> Coverage:
    """Hold everything that a trace has against the checkpoints of the same run.

    why  Operations whose results have no checkpoint, each with the reason.
    """
    coverage = Coverage(why={"where": _FUSED_MASK, **(why or {})})
    named = [traced.nodes[n] for name, n in traced.checkpoints.items() if name in checkpoints]
    whole = {entry.base for entry in named if traced.whole_of(entry)}

    for entry in traced.computed():
        if reason := aside(entry):
            coverage.aside[reason] += 1
        elif entry.number in whole or same_bits(entry.value, checkpoints.values()):
            coverage.covered += 1
        elif same_bits(entry.value, (e.value for e in traced.computed() if e.number < entry.number)):
            coverage.aside["computed before, the same bits"] += 1
        else:
            coverage.uncovered[entry.operation] += 1
    return coverage
