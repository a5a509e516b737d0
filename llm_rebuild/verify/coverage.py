"""How much of the official forward pass do the checkpoints cover? Measured, not claimed.

Below torch's functions there is one more level: the dispatcher, through which every tensor that is
computed has to pass, also those inside composite operations. A mode that sits there sees them all. Each
floating tensor is then either equal, bit for bit, to some checkpoint, or set aside for a stated reason, or
uncovered.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question

# Second and later outputs of these operations are statistics for the backward pass; the answer is the first.
_STATISTICS = {
    "native_layer_norm": "mean and 1/standard deviation, kept for the backward pass",
    "_scaled_dot_product_flash_attention_for_cpu": "log-sum-exp, kept for the backward pass",
}
# These only bring numbers into another place or type.
_COPIES = {"clone", "_to_copy", "copy_", "contiguous"}
# These fill a tensor with one number, whatever the model is given.
_CONSTANTS = {"zeros", "new_zeros", "ones", "full"}
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


def measure(official: Official, question: Question, checkpoints: Mapping[str, Tensor]) -> Coverage:
    """Run the official model once more under the dispatcher's eyes."""
    known = {digest(tensor) for tensor in checkpoints.values()}
    uncovered = official.architecture.uncovered if official.architecture is not None else {}
    trace = _Trace(known, {"where": _FUSED_MASK, **uncovered})
    with trace:
        official.run(question)
    return trace.coverage


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, known: set[bytes], why: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coverage = Coverage(why=why)
        self._known = known
        self._seen: set[bytes] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        operation = function.overloadpacket.__name__
        if not function.is_view and operation != "_unsafe_view":
            outputs = result if isinstance(result, tuple | list) else (result,)
            for number, output in enumerate(outputs):
                if isinstance(output, Tensor) and output.is_floating_point():
                    self._count(operation, number, output)
        return result

    def _count(self, operation: str, number: int, output: Tensor) -> None:
        aside, found = self.coverage.aside, digest(output)
        if number > 0 and operation in _STATISTICS:
            aside[_STATISTICS[operation]] += 1
        elif operation in _COPIES:
            aside["plain copies"] += 1
        elif operation in _CONSTANTS:
            aside["filled with one number"] += 1
        elif output.dim() == 0:
            aside["single constants"] += 1
        elif found in self._known:
            self.coverage.covered += 1
        elif found in self._seen:
            aside["computed before, the same bits"] += 1
        else:
            self.coverage.uncovered[operation] += 1
        self._seen.add(found)


def digest(tensor: Tensor) -> bytes:
    """A fingerprint of the numbers in order, whatever the shape: [10, 384] and [2, 5, 384] agree."""
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    return hashlib.blake2b(flat.numpy().data, digest_size=16).digest()
