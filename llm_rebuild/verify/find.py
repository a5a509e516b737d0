"""Which tensor is this? A tensor that somebody computed, looked for among all official ones.

    >>> truth.find(mine)
    the official h.3.attn.probs, transposed in its last two axes

In three rounds, each only if the one before has found nothing:

1.  The same numbers. A fingerprint that does not depend on their order picks the candidates; then the order
    is found: reshaped, transposed, heads split or merged. Or a part of more numbers: a slice.
2.  A known function of an official tensor: scaled, shifted, biased, masked, an activation, softmax, a norm.
3.  The nearest by value, with the difference.

Each test looks at a few numbers first and at all of them only where these agree.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm_rebuild.checkpoints import plain
from llm_rebuild.errors import InputError
from llm_rebuild.printing import Printable
from llm_rebuild.verify.equality import NEVER, ROUNDED, difference, largest
from llm_rebuild.verify.functions import Pair, explain, pair_of
from llm_rebuild.verify.layouts import agree, arrangement, moments

# How far away a tensor is still the nearest of something, and not just the least different.
NEAR = 0.05
_MOST_PLACES = 16  # places where a part may begin that are tried in one candidate


@dataclass(frozen=True)
class Hit:
    """One answer.

    name        The official tensor's name.
    kind        `same`, `rearranged`, `part`, `function`, `near` or `nearest` (the least different).
    words       The answer in words.
    shape       The official tensor's.
    difference  The largest, between the tensor and what the words say; 0 for the same numbers.
    """

    name: str
    kind: str
    words: str
    shape: tuple[int, ...]
    difference: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether every bit is the same."""
        return self.kind in ("same", "rearranged", "part")

    def __str__(self) -> str:
        if self.exact:
            return f"{self.words}: the same bits"
        return f"{self.words}: largest difference {self.difference:.1e}"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; a difference that is no number is null."""
        finite = self.difference if math.isfinite(self.difference) else None
        return {
            "name": self.name,
            "kind": self.kind,
            "words": self.words,
            "shape": list(self.shape),
            "max_abs_diff": finite,
        }


@dataclass(frozen=True)
class SearchResult(Printable):
    """The answers, best first. True where there is one better than `nearest`."""

    shape: tuple[int, ...]
    among: int
    hits: tuple[Hit, ...] = ()

    @property
    def best(self) -> Hit | None:
        """The first answer, if there is any."""
        return self.hits[0] if self.hits else None

    def __bool__(self) -> bool:
        return bool(self.hits) and self.hits[0].kind != "nearest"

    def __str__(self) -> str:
        if self.hits:
            heading = [] if self else ["nothing like it; the least different:"]
            return "\n".join([*heading, *map(str, self.hits)])
        return (
            f"none of the {self.among} official tensors has as many numbers as {list(self.shape)}, nor more "
            "with these among them; was it computed from the same input?"
        )

    __repr__ = __str__

    def to_json(self) -> dict[str, Any]:
        """What `find --json` writes."""
        return {
            "shape": list(self.shape),
            "among": self.among,
            "found": bool(self),
            "hits": [hit.to_json() for hit in self.hits],
        }


@dataclass(frozen=True)
class Candidate:
    """An official tensor to be held against.

    name    What to call it.
    base    The computed tensor whose numbers it shows; candidates that share it are one in the answer.
    named   Whether that is a checkpoint's or a module's name, and not an operation's.
    of      What it is a view of, in words, if it is one.
    whole   Whether it shows all of that.
    """

    name: str
    tensor: Tensor = field(repr=False)
    base: Any
    named: bool = True
    of: str = ""
    whole: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        """torch's."""
        return tuple(self.tensor.shape)

    @property
    def words(self) -> str:
        """What it is called in an answer."""
        return f"the official {self.name}{self.of}"


def find(
    tensor: Any, candidates: Sequence[Candidate], weights: Mapping[str, Tensor], limit: int = 5
) -> SearchResult:
    """Look for a tensor among candidates. Raises InputError for one that cannot be looked for."""
    tensor = usable(tensor)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the work is many small steps, for which threads wait longer than they work
    try:
        same_count = [
            c for c in candidates if c.tensor.numel() == tensor.numel() and c.tensor.dtype == tensor.dtype
        ]
        larger = [c for c in candidates if c.whole and c.tensor.numel() > tensor.numel()]
        hits = (
            _same_numbers(tensor, same_count)
            or _parts(tensor, larger)
            or _functions_and_neighbours(tensor, same_count, weights)
        )
    finally:
        torch.set_num_threads(threads)
    among = len({candidate.base for candidate in candidates})
    return SearchResult(tuple(tensor.shape), among, tuple(hits[:limit]))


Ranked = list[tuple[tuple[float, ...], Any, Hit]]  # rank (the smaller the better), base, answer


def _best(ranked: Ranked) -> list[Hit]:
    """The answers, best first, one for each base."""
    best: dict[Any, Hit] = {}
    for _, base, hit in sorted(ranked, key=lambda item: item[0]):
        best.setdefault(base, hit)
    return list(best.values())


def usable(value: Any) -> Tensor:
    """The tensor as it can be looked for. Raises InputError for one that cannot."""
    tensor = plain(value, "find was given")
    dtype = str(tensor.dtype).removeprefix("torch.")
    if not tensor.is_floating_point():
        raise InputError(f"find: the tensor is {dtype}; only floating-point tensors can be found")
    if tensor.numel() == 0:
        raise InputError(f"find: the tensor of shape {list(tensor.shape)} is empty")
    if tensor.dtype != torch.float32:
        raise InputError(f"find: the tensor is {dtype}, the official ones are float32; compute it in float32")
    first = tensor.flatten()[0]
    if tensor.numel() > 1 and bool((tensor == first).all()):
        raise InputError(f"find: every number of the tensor is {first:g}; too many others are like it")
    if bool(tensor.isnan().all()):
        raise InputError("find: the tensor is all NaN; go back to the step before the first NaN")
    return tensor


# --------------------------------------------------------------------------------- the same numbers


def fingerprint(tensor: Tensor) -> int:
    """A number that depends on which bits are there and how often, not on their order or the shape."""
    bits = tensor.contiguous().view(torch.int32)
    mixed = bits * -1640531535  # odd, about 2^32 divided by the golden ratio: neighbours part
    mixed ^= mixed >> 15
    mixed *= -2048144777
    mixed ^= bits >> 13
    return int(mixed.sum(dtype=torch.int64))


def _same_numbers(tensor: Tensor, candidates: Iterable[Candidate]) -> list[Hit]:
    """Those with the same bits in any order, the plainest first."""
    wanted = fingerprint(tensor)
    prints: dict[Any, int] = {}  # whole views have the numbers of what they show
    ranked: Ranked = []
    for order, candidate in enumerate(candidates):
        key = candidate.base if candidate.whole else (candidate.base, order)
        if key not in prints:
            prints[key] = fingerprint(candidate.tensor)
        arranged = arrangement(tensor, candidate.tensor) if prints[key] == wanted else None
        if arranged is None:
            continue
        how = arranged[0]
        rank = 0 if not how else 1 if how.startswith(", reshaped") else 2
        kind = "rearranged" if how else "same"
        hit = Hit(candidate.name, kind, candidate.words + how, candidate.shape)
        ranked.append(((rank, not candidate.named, bool(candidate.of), order), candidate.base, hit))
    return _best(ranked)


def _parts(tensor: Tensor, candidates: Iterable[Candidate]) -> list[Hit]:
    """Slices: tensors that hold these very numbers among more."""
    flat = tensor.reshape(-1)
    position = _telling(flat)
    if position is None:
        return []
    value = flat.view(torch.int32)[position]
    hits: list[Hit] = []
    seen: set[Any] = set()
    for candidate in candidates:
        if candidate.base in seen:
            continue
        official = candidate.tensor
        numbers = official.contiguous().view(torch.int32).reshape(-1)
        begins = (numbers == value).nonzero().flatten()[:_MOST_PLACES].tolist()
        for begin in begins:
            index = _slice(tensor, position, official, begin)
            if index is not None:
                words = f"{candidate.words}, its part {index}"
                hits.append(Hit(candidate.name, "part", words, candidate.shape))
                seen.add(candidate.base)
                break
    return hits


def _telling(flat: Tensor) -> int | None:
    """The position of a number that is not likely to be met by chance: neither 0 nor 1, and there once."""
    for position in np.linspace(0, len(flat) - 1, 32, dtype=int).tolist():
        number = float(flat[position])
        if math.isfinite(number) and number not in (0.0, 1.0, -1.0) and int((flat == number).sum()) == 1:
            return int(position)
    return None


def _slice(tensor: Tensor, position: int, official: Tensor, begin: int) -> str | None:
    """`[:, 3, 0:64]`, if the tensor is that part of the official one, whose number `begin` is its number
    `position`."""
    wanted = [(axis, n) for axis, n in enumerate(tensor.shape) if n > 1]
    at = list(map(int, np.unravel_index(position, tensor.shape)))
    where = list(map(int, np.unravel_index(begin, official.shape)))
    for axes in itertools.permutations(range(official.dim()), len(wanted)):
        index: list[slice] = [slice(c, c + 1) for c in where]
        for (own_axis, size), axis in zip(wanted, axes, strict=True):
            first = where[axis] - at[own_axis]
            index[axis] = slice(first, first + size)
        if any(s.start < 0 or s.stop > n for s, n in zip(index, official.shape, strict=True)):
            continue
        part = official[tuple(index)]
        others = [axis for axis in range(official.dim()) if axis not in axes]
        part = part.permute(*others, *axes).reshape(tensor.shape)
        if agree(tensor, part):
            ranges = ", ".join(_spelled(s, n) for s, n in zip(index, official.shape, strict=True))
            moved = "" if list(axes) == sorted(axes) else f", with its axes in the order {axes}"
            return f"[{ranges}]{moved}"
    return None


def _spelled(index: slice, size: int) -> str:
    if index.stop - index.start == size:
        return ":"
    return str(index.start) if index.stop == index.start + 1 else f"{index.start}:{index.stop}"


# -------------------------------------------------------------------------- functions and neighbours


def _functions_and_neighbours(
    tensor: Tensor, candidates: Sequence[Candidate], weights: Mapping[str, Tensor]
) -> list[Hit]:
    if tensor.numel() == 1:  # of any other number it is a function
        raise InputError(f"find: one number, {float(tensor):g}, tells too little; give more than one")
    size = max(largest(tensor), 1e-12)
    ranked: Ranked = []
    for order, candidate in enumerate(candidates):
        if [n for n in candidate.shape if n > 1] != [n for n in tensor.shape if n > 1]:
            continue
        kind, words, rank, apart = _judged(pair_of(tensor, candidate.tensor, size * ROUNDED, weights), size)
        hit = Hit(candidate.name, kind, words.format(candidate.words), candidate.shape, apart)
        base = candidate.base if candidate.whole else (candidate.base, candidate.name)
        ranked.append(((*rank, bool(candidate.of), order), base, hit))
    best = _best(ranked)
    close = [hit for hit in best if hit.kind != "nearest"]
    close = close or _nearly_rearranged(tensor, candidates, size)
    if close:
        return close
    numbers = {candidate.name: candidate.tensor for candidate in candidates}
    return [
        replace(hit, difference=difference(tensor, numbers[hit.name].reshape(tensor.shape)))
        for hit in best[:3]
    ]


def _judged(pair: Pair, size: float) -> tuple[str, str, tuple[float, ...], float]:
    """What one official tensor is to this one: kind, words, rank, difference."""
    apart = difference(pair.few, pair.official_few)
    if apart <= NEAR * size:
        apart = difference(pair.target, pair.official)
    if apart <= pair.rounding:
        return "near", "{}", (0, 0), apart
    if explained := explain(pair):
        number, words, off = explained
        return "function", words, (1, number, len(words), off), off  # of two the plainer one
    if apart <= NEAR * size:
        return "near", "{}", (2, apart), apart
    typical = float((pair.few - pair.official_few).nan_to_num(0.0, NEVER, -NEVER).abs().mean())
    return "nearest", "{}", (3, typical), math.nan  # measured of the few that are shown


def _nearly_rearranged(tensor: Tensor, candidates: Sequence[Candidate], size: float) -> list[Hit]:
    """Other layouts of nearly the same numbers. The sum, the squares and the extremes pick the candidates."""
    hits: dict[Any, Hit] = {}
    tolerance = size * 1e-3
    wanted = moments(tensor)
    for candidate in candidates:
        if not candidate.whole or difference(moments(candidate.tensor), wanted) > tolerance:
            continue
        arranged = arrangement(tensor, candidate.tensor, tolerance)
        if arranged is not None:
            hit = Hit(candidate.name, "near", candidate.words + arranged[0], candidate.shape, arranged[1])
            hits.setdefault(candidate.base, hit)
    return list(hits.values())
