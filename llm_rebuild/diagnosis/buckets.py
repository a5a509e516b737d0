"""Distances between tokens as numbers of buckets, with the places for mistakes as fields."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Buckets:
    """How a relative position becomes the row of a table.

    both    Whether what comes after has buckets of its own.
    count   How many buckets there are.
    limit   The distance from which on all share the last one.
    sign    1: the key's place less the query's; -1 the other way; 0: the absolute distance.
    half    For which of them the second half is: `after`, `before`, `here and after`, `none`.
    exact   The share of the buckets that hold one distance each.
    whole   How the logarithm becomes a whole number: `floor`, `round`, `ceil`; `none`: no logarithm.
    base    What the logarithm is divided by the logarithm of; None: the largest ratio.
    closed  Whether the distance at which the logarithm begins still counts as near.
    cut     Whether far distances end in the last bucket.
    """

    both: bool
    count: int
    limit: int
    sign: int = 1
    half: str = "after"
    exact: float = 0.5
    whole: str = "floor"
    base: float | None = None
    closed: bool = False
    cut: bool = True

    def of(self, distance: Tensor) -> Tensor:
        """Distances [query, key], below 0 for what came before -> numbers of buckets."""
        distance = distance * self.sign if self.sign else -distance.abs()
        first, count = torch.zeros_like(distance), self.count
        if self.both:
            count //= 2
            second = {
                "after": distance > 0,
                "before": distance < 0,
                "here and after": distance >= 0,
                "none": torch.zeros_like(distance, dtype=torch.bool),
            }[self.half]
            first, distance = second.long() * count, distance.abs()
        else:
            distance = -torch.clamp(distance, max=0)
        near = max(1, int(count * self.exact))
        if near >= count or self.whole == "none":
            return first + torch.clamp(distance, max=count - 1)
        ratio = torch.log(distance.float() / near)
        far = ratio / math.log(self.base or self.limit / near) * (count - near)
        far = {"round": torch.round, "ceil": torch.ceil, "floor": torch.floor}[self.whole](far)
        far = near + torch.where(torch.isfinite(far), far, torch.zeros_like(far)).long()
        if self.cut:
            far = torch.clamp(far, max=count - 1)
        close = distance <= near if self.closed else distance < near
        return first + torch.where(close, distance, far)
