"""Is the rebuilt tensor the official one? The answer is one of eight verdicts.

Shape first, then dtype, then values: a difference between tensors of different shapes means nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm_rebuild.checkpoints import plain
from llm_rebuild.errors import InputError
from llm_rebuild.verify.capture import Interim
from llm_rebuild.verify.equality import FEW_ULP, FIVE_DECIMALS, SHORT, SHORT_ULP, identical, ulp_distance
from llm_rebuild.verify.rounding import ROUNDING

BIT_IDENTICAL = "bit-identical"
WRONG_VALUES = "wrong values"
WRONG_SHAPE = "wrong shape"
WRONG_DTYPE = "wrong dtype"
MISSING = "missing"
DECIMALS = 323  # of the smallest float64


@dataclass(frozen=True)
class Verdict:
    """How a rebuilt tensor compares with the official one of the same name.

    verdict       `bit-identical`, `3 ulp`, `6 decimals`, `rounding`, `wrong values`, `wrong shape`, `wrong
                  dtype` or `missing`. Two tensors cannot show that it is rounding; `diagnosis/exact.py` can.
    max_abs_diff  The worst difference; NaN where one side is NaN and the other is not.
    max_ulp       The worst difference in units in the last place of this dtype.
    decimals      How many decimals agree everywhere; None for bit-identical (all of them).
    coordinate    Where the worst difference is, with both values there.
    coupled       Whether an official tensor was taken over openly, by `bridge`, at this checkpoint or
                  before it.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    verdict: str
    max_abs_diff: float | None = None
    max_ulp: int | None = None
    decimals: int | None = None
    coordinate: tuple[int, ...] | None = None
    official: float | None = None
    rebuilt: float | None = None
    note: str = ""
    coupled: bool = False

    @property
    def identical(self) -> bool:
        """Whether every bit is the same."""
        return self.verdict == BIT_IDENTICAL

    @property
    def five_decimals(self) -> bool:
        """Every difference is below half a unit of the fifth decimal."""
        return self.identical or (
            self.max_abs_diff is not None and self.max_abs_diff < FIVE_DECIMALS  # never true of NaN
        )

    @property
    def rounding(self) -> bool:
        """Larger than the bar allows, and shown to be rounding even so."""
        return self.verdict == ROUNDING

    @property
    def passes(self) -> bool:
        """The bar: five decimals everywhere; in a type that has none, neighbours. Where the numbers are so
        large that float32 itself has no five decimals, what was shown to be rounding."""
        return self.five_decimals or self.rounding or self.verdict == f"{SHORT_ULP} ulp"

    def __str__(self) -> str:
        return self.in_words()

    def in_words(self, where: str = "") -> str:
        """What `str` gives. `where` says the coordinate in other words."""
        line = f"{self.name}  {list(self.shape)}  {self.verdict}"
        if self.note:
            line += f"  {self.note}"
        if self.coordinate is not None and self.max_abs_diff is not None:
            line += (
                f"\n  worst at {where or list(self.coordinate)}: official {self.official:.9g}, "
                f"rebuilt {self.rebuilt:.9g}, off by {self.max_abs_diff:.1e}"
            )
        return line

    __repr__ = __str__

    def __bool__(self) -> bool:
        """`assert compare(mine, truth)` holds only for bit-identical."""
        return self.identical

    def to_json(self) -> dict[str, Any]:
        """As docs/reference/json.md has it. JSON has no NaN, so a NaN difference is null."""
        worst = self.max_abs_diff
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "verdict": self.verdict,
            "max_abs_diff": worst if worst is not None and math.isfinite(worst) else None,
            "max_ulp": self.max_ulp,
            "decimals": self.decimals,
            "coupled": self.coupled,
        }


def compare(rebuilt: Any, official: Any, name: str = "") -> Verdict:
    """Hold a rebuilt tensor against the official one.

    rebuilt   The tensor that you computed.
    official  `capture[...]`, which knows its name, or a plain tensor.

    NaN equals NaN and an infinity equals an infinity of the same sign; neither hides a mismatch elsewhere.
    Raises InputError if both are the same tensor, or share their storage: that comparison would prove
    nothing.
    """
    if isinstance(rebuilt, Interim):
        raise InputError(f"{rebuilt.name}: the first argument is official too; nothing was rebuilt")
    if isinstance(official, Interim):
        if source := official.copies.source_of(plain(rebuilt, f"{official.name}: the rebuilt one is")):
            raise InputError(
                f"the rebuilt {official.name} is a copy of the official {source}, as `.tensor` gives it: "
                "nothing was computed; compute it, or take it openly by bridge()"
            )
        name, official = name or official.name, official._tensor
    same = rebuilt is official
    rebuilt, official = (plain(t, f"{name or 'compare'}: one side is") for t in (rebuilt, official))
    (start, end), (other_start, other_end) = memory_of(rebuilt), memory_of(official)
    if same or max(start, other_start) < min(end, other_end):  # through one storage, or through numpy
        raise InputError(f"{name or 'compare'}: a tensor is compared with itself; that proves nothing")
    return judge(name, rebuilt, official)


def memory_of(tensor: Tensor) -> tuple[int, int]:
    """From where to where in memory the storage lies that a tensor is a window on."""
    storage = tensor.untyped_storage()
    start = storage.data_ptr()
    return start, start + storage.nbytes() if start else start


def judge(name: str, rebuilt: Tensor, official: Tensor) -> Verdict:
    """The verdict itself, without the question where the tensors come from."""
    shape, dtype = tuple(official.shape), str(official.dtype).removeprefix("torch.")
    if tuple(rebuilt.shape) != shape:
        note = f"rebuilt {list(rebuilt.shape)}, official {list(shape)}"
        return Verdict(name, tuple(rebuilt.shape), dtype, WRONG_SHAPE, note=note)
    if rebuilt.dtype != official.dtype:
        note = f"rebuilt {str(rebuilt.dtype).removeprefix('torch.')}, official {dtype}"
        return Verdict(name, shape, dtype, WRONG_DTYPE, note=note)
    if official.is_complex():
        raise InputError(f"{name or 'compare'}: complex numbers; compare torch.view_as_real of both")
    if identical(rebuilt, official):
        return Verdict(name, shape, dtype, BIT_IDENTICAL, max_abs_diff=0.0, max_ulp=0)
    return _measure(name, rebuilt, official, shape, dtype)


def _measure(name: str, rebuilt: Tensor, official: Tensor, shape: tuple[int, ...], dtype: str) -> Verdict:
    """Where and by how much they differ worst."""
    both_nan = rebuilt.isnan() & official.isnan()
    equal = (rebuilt == official) | both_nan
    difference = (rebuilt.double() - official.double()).abs()
    difference = torch.where(equal, torch.zeros_like(difference), difference)
    # NaN against a number is worse than any number: it must be what is shown.
    rank = torch.where(difference.isnan(), torch.full_like(difference, math.inf), difference)
    ulp = torch.where(both_nan, 0, ulp_distance(rebuilt, official))
    worst = int(rank.argmax()) if bool((rank > 0).any()) else int(ulp.argmax())
    at = tuple(map(int, np.unravel_index(worst, shape)))  # torch's own loads sympy first, most of a second
    max_abs, max_ulp = float(difference.flatten()[worst]), int(ulp.max())
    finite = math.isfinite(max_abs)
    decimals = decimals_of(max_abs) if finite else 0
    neighbours = dtype in SHORT and max_ulp <= SHORT_ULP
    if not finite or (max_abs >= FIVE_DECIMALS and not neighbours):
        verdict = WRONG_VALUES
    elif max_ulp <= FEW_ULP:
        verdict = f"{max_ulp} ulp"
    else:
        verdict = f"{decimals} decimals"
    return Verdict(
        name,
        shape,
        dtype,
        verdict,
        max_abs_diff=max_abs,
        max_ulp=max_ulp,
        decimals=decimals,
        coordinate=at,
        official=float(official[at]),
        rebuilt=float(rebuilt[at]),
    )


def decimals_of(difference: float) -> int:
    """How many decimals agree: the largest n with difference < 0.5 × 10⁻ⁿ. 5e-6 itself gives 4."""
    if difference == 0:
        return 17  # more than any float64 holds; only differing zeros get here
    return next((n for n in range(DECIMALS, 0, -1) if difference < 0.5 * 10.0**-n), 0)


def finite(number: float | None) -> float | str | None:
    """A number as JSON can hold it: NaN and the infinities as words."""
    return number if number is None or math.isfinite(number) else str(number)
