"""How much of the official forward pass do the checkpoints cover? Measured, not claimed.

A trace has every floating tensor that was computed. Each is either a checkpoint, or equal to one bit for
bit, or set aside for a stated reason, or uncovered.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.verify.entries import Trace

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
        return self.covered + sum(self.uncovered.values())

    @property
    def share(self) -> float:
        return self.covered / self.total if self.total else 0.0

    def reasons(self) -> dict[str, str]:
        """Why each uncovered operation has no checkpoint."""
        return {operation: self.why.get(operation, "no checkpoint") for operation in self.uncovered}

    def to_json(self) -> dict[str, Any]:
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
    named = [traced.entries[n] for name, n in traced.checkpoints.items() if name in checkpoints]
    whole = {entry.base for entry in named if traced.whole_of(entry)}

    @cache
    def known(numbers: int) -> set[bytes]:
        """The fingerprints of the checkpoints with so many numbers: only what has no name is looked up."""
        return {digest(tensor) for tensor in checkpoints.values() if tensor.numel() == numbers}

    @cache
    def print_of(number: int) -> bytes:
        return digest(traced.tensor(number))

    for entry in traced.computed():
        if reason := entry.aside():
            coverage.aside[reason] += 1
        elif entry.number in whole or print_of(entry.number) in known(math.prod(entry.shape)):
            coverage.covered += 1
        elif any(
            earlier.bytes == entry.bytes and print_of(earlier.number) == print_of(entry.number)
            for earlier in traced.entries[: entry.number]
            if earlier.view_of is None
        ):
            coverage.aside["computed before, the same bits"] += 1
        else:
            coverage.uncovered[entry.aten.removeprefix("aten.")] += 1
    return coverage


def digest(tensor: Tensor) -> bytes:
    """A fingerprint of the numbers in order, whatever the shape: [10, 384] and [2, 5, 384] agree."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(flat.numpy().data, digest_size=16).digest()
