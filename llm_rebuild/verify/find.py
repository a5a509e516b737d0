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

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.errors import InputError
from llm_rebuild.verify.equality import FILLED, NEVER, ROUNDED, difference, largest
from llm_rebuild.verify.layouts import agree, arrangement
from llm_rebuild.verify.transforms import ACTIVATIONS, Function, layer_norm, rms_norm, spelled, to_length_one

# How far away a tensor is still the nearest of something, and not just the least different.
NEAR = 0.05
_SAMPLES = 512  # numbers that are looked at first
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
class SearchResult:
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

    def __repr__(self) -> str:
        return str(self)

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
    named   Whether that is a checkpoint's or a module's name, and not an operation's.
    of      What it is a view of, in words, if it is one.
    base    The computed tensor whose numbers it shows; candidates that share it are one in the answer.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor] = field(repr=False)
    base: Any
    named: bool = True
    of: str = ""
    whole: bool = True

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @cached_property
    def tensor(self) -> Tensor:
        """Its numbers, read when they are first asked for."""
        return self.read()

    @cached_property
    def fingerprint(self) -> int:
        """See `fingerprint`."""
        return fingerprint(self.tensor)

    @property
    def words(self) -> str:
        """What it is called in an answer."""
        return f"the official {self.name}{self.of}"


def find(
    tensor: Tensor, candidates: Sequence[Candidate], weights: Mapping[str, Tensor], limit: int = 5
) -> SearchResult:
    """Look for a tensor among candidates. Raises InputError for one that cannot be looked for."""
    tensor = usable(tensor)
    with _one_thread():  # the work is many small steps, for which threads wait longer than they work
        return _find(tensor, candidates, weights, limit)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _find(
    tensor: Tensor, candidates: Sequence[Candidate], weights: Mapping[str, Tensor], limit: int
) -> SearchResult:
    among = len({candidate.base for candidate in candidates})
    same_count = [c for c in candidates if c.count == tensor.numel() and c.tensor.dtype == tensor.dtype]
    hits = [*_same_numbers(tensor, same_count)]
    if not hits:
        hits = [*_parts(tensor, [c for c in candidates if c.whole and c.count > tensor.numel()])]
    if not hits:
        hits = _functions_and_neighbours(tensor, same_count, weights)
    return SearchResult(tuple(tensor.shape), among, tuple(hits[:limit]))


def usable(tensor: Any) -> Tensor:
    """The tensor as it can be looked for. Raises InputError for one that cannot."""
    if not isinstance(tensor, Tensor):
        raise InputError(f"find: expected a tensor, got {type(tensor).__name__}")
    if not tensor.is_floating_point():
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"find: the tensor is {dtype}; only floating-point tensors can be found")
    if tensor.numel() == 0:
        raise InputError(f"find: the tensor of shape {list(tensor.shape)} is empty")
    if tensor.dtype != torch.float32:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"find: the tensor is {dtype}, the official ones are float32; compute it in float32")
    if tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
        raise InputError(
            f"find: every number of the tensor is {float(tensor.flatten()[0]):g}; too many others are like it"
        )
    if bool(tensor.isnan().all()):
        raise InputError("find: the tensor is all NaN; go back to the step before the first NaN")
    return tensor.detach().cpu()


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
    hits: list[tuple[tuple[int, ...], Any, Hit]] = []
    for order, candidate in enumerate(candidates):
        if candidate.whole:
            if candidate.base not in prints:
                prints[candidate.base] = candidate.fingerprint
            numbers = prints[candidate.base]
        else:
            numbers = candidate.fingerprint
        if numbers != wanted:
            continue
        arranged = arrangement(tensor, candidate.tensor)
        if arranged is None:
            continue
        how = arranged[0]
        kind, rank = ("rearranged", 2) if how else ("same", 0)
        if how.startswith(", reshaped"):
            rank = 1
        hit = Hit(candidate.name, kind, candidate.words + how, candidate.shape)
        hits.append(((rank, not candidate.named, bool(candidate.of), order), candidate.base, hit))
    best: dict[Any, Hit] = {}
    for _, base, hit in sorted(hits, key=lambda item: item[0]):
        best.setdefault(base, hit)
    return list(best.values())


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
    for position in torch.linspace(0, len(flat) - 1, 32).long().tolist():
        number = float(flat[position])
        if math.isfinite(number) and number not in (0.0, 1.0, -1.0) and int((flat == number).sum()) == 1:
            return int(position)
    return None


def _slice(tensor: Tensor, position: int, official: Tensor, begin: int) -> str | None:
    """`[:, 3, 0:64]`, if the tensor is that part of the official one, whose number `begin` is its number
    `position`."""
    wanted = [(axis, n) for axis, n in enumerate(tensor.shape) if n > 1]
    at = [int(i) for i in torch.unravel_index(torch.tensor(position), tensor.shape)]
    where = [int(i) for i in torch.unravel_index(torch.tensor(begin), official.shape)]
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


@dataclass(frozen=True)
class _Pair:
    """The tensor and an official one in the same shape, [rows, width], and some numbers of both."""

    target: Tensor
    official: Tensor
    few: Tensor
    official_few: Tensor
    allowed: float  # the difference that counts as rounding
    weights: Mapping[str, Tensor]


def _functions_and_neighbours(
    tensor: Tensor, candidates: Sequence[Candidate], weights: Mapping[str, Tensor]
) -> list[Hit]:
    size = max(largest(tensor), 1e-12)
    width = tensor.shape[-1] if tensor.dim() else 1
    target = tensor.reshape(-1, width)
    picked = torch.linspace(0, tensor.numel() - 1, min(_SAMPLES, tensor.numel())).long()
    positions = (picked // width, picked % width)
    vectors = {k: w for k, w in weights.items() if w.dim() == 1 and len(w) == width}
    traits = _traits(target)
    ranked: list[tuple[tuple[float, ...], Any, Hit]] = []
    for order, candidate in enumerate(candidates):
        if [n for n in candidate.shape if n > 1] != [n for n in tensor.shape if n > 1]:
            continue
        official = candidate.tensor.reshape(target.shape)
        pair = _Pair(target, official, target[positions], official[positions], size * ROUNDED, vectors)
        kind, words, rank, apart = _judged(pair, traits, size)
        hit = Hit(candidate.name, kind, words.format(candidate.words), candidate.shape, apart)
        base = candidate.base if candidate.whole else (candidate.base, candidate.name)
        ranked.append(((*rank, bool(candidate.of), order), base, hit))
    ranked.sort(key=lambda item: item[0])
    best: dict[Any, Hit] = {}
    for _, base, hit in ranked:
        best.setdefault(base, hit)
    close = [hit for hit in best.values() if hit.kind != "nearest"]
    close = close or _nearly_rearranged(tensor, candidates, size)
    if close:
        return close
    numbers = {candidate.name: candidate.tensor for candidate in candidates}
    return [
        replace(hit, difference=difference(tensor, numbers[hit.name].reshape(tensor.shape)))
        for hit in list(best.values())[:3]
    ]


def _judged(pair: _Pair, traits: _Traits, size: float) -> tuple[str, str, tuple[float, ...], float]:
    """What one official tensor is to this one: kind, words, rank (the smaller the better), difference."""
    apart = difference(pair.few, pair.official_few)
    if apart <= NEAR * size:
        apart = difference(pair.target, pair.official)
    if apart <= pair.allowed:
        return "near", "{}", (0, 0), apart
    for number, test in enumerate(_TESTS):
        answer = test(pair, traits)
        if answer is not None:
            return "function", answer[0], (1, number, answer[1]), answer[1]
    if apart <= NEAR * size:
        return "near", "{}", (2, apart), apart
    typical = float((pair.few - pair.official_few).nan_to_num(0.0, NEVER, -NEVER).abs().mean())
    return "nearest", "{}", (3, typical), math.nan  # measured of the few that are shown


def _nearly_rearranged(tensor: Tensor, candidates: Sequence[Candidate], size: float) -> list[Hit]:
    """Other layouts of nearly the same numbers. The sum, the squares and the extremes pick the candidates."""
    hits: dict[Any, Hit] = {}
    tolerance = size * 1e-3
    wanted = _moments(tensor)
    for candidate in candidates:
        if not candidate.whole or difference(_moments(candidate.tensor), wanted) > tolerance:
            continue
        arranged = arrangement(tensor, candidate.tensor, tolerance)
        if arranged is not None and candidate.base not in hits:
            how, apart = arranged
            hit = Hit(candidate.name, "near", candidate.words + how, candidate.shape, apart)
            hits[candidate.base] = hit
    return list(hits.values())


def _moments(tensor: Tensor) -> Tensor:
    return torch.stack([tensor.mean(), tensor.square().mean().sqrt(), tensor.min(), tensor.max()])


@dataclass(frozen=True)
class _Traits:
    """What can be told from the tensor alone.

    probabilities  Whether each row is non-negative and sums to 1.
    softmax        The tensor's own softmax over its last axis, should it be what enters one.
    """

    probabilities: bool
    logarithms: bool
    softmax: Tensor


def _traits(target: Tensor) -> _Traits:
    sums = target.sum(dim=-1)
    ones = torch.ones_like(sums)
    probabilities = bool((target >= 0).all()) and difference(sums, ones) < 1e-3
    logarithms = bool((target <= 0).all()) and difference(target.exp().sum(dim=-1), ones) < 1e-3
    return _Traits(probabilities, logarithms, target[:4].softmax(dim=-1))


Answer = tuple[str, float] | None


def _checked(words: str, pair: _Pair, result: Tensor, allowed: float | None = None) -> Answer:
    """The answer, if the function's result is the whole tensor but for rounding."""
    off = difference(pair.target, result)
    return (words, off) if off <= (pair.allowed if allowed is None else allowed) else None


def _scaled(pair: _Pair, traits: _Traits) -> Answer:
    at = int(torch.where(pair.official_few.isfinite(), pair.official_few.abs(), 0.0).argmax())
    largest = float(pair.official_few[at])
    if largest == 0.0:
        return None
    factor = float(pair.few[at]) / largest
    if not 1e-6 < abs(factor) < 1e6 or abs(factor - 1.0) < 1e-4:
        return None
    if difference(pair.few, pair.official_few * factor) > pair.allowed:
        return None
    return _checked(f"{{}}, scaled by {spelled(factor)}", pair, pair.official * factor)


def _shifted(pair: _Pair, traits: _Traits) -> Answer:
    by = float((pair.few - pair.official_few).nan_to_num(0.0, 0.0, 0.0).median())
    if by == 0.0 or difference(pair.few, pair.official_few + by) > pair.allowed:
        return None
    return _checked(f"{{}}, shifted by {by:.6g}", pair, pair.official + by)


def _biased(pair: _Pair, traits: _Traits) -> Answer:
    """The same numbers added to every row."""
    rows = len(pair.target)
    if rows < 2:
        return None
    some = torch.linspace(0, rows - 1, min(rows, 4)).long()
    apart = pair.target[some] - pair.official[some]
    if difference(apart, apart[:1].expand_as(apart)) > 2 * pair.allowed:
        return None
    bias = (pair.target - pair.official).mean(dim=0)
    answer = _checked("", pair, pair.official + bias, 2 * pair.allowed)
    if answer is None:
        return None
    for sign, word in ((1.0, "plus"), (-1.0, "without")):
        for key, weight in pair.weights.items():
            if difference(bias * sign, weight) <= 2 * pair.allowed:
                return f"{{}}, {word} {key}", answer[1]
    return "{}, plus the same numbers in every row (a bias that is no tensor of the weight file)", answer[1]


def _masked(pair: _Pair, traits: _Traits) -> Answer:
    """Equal where it is not filled, and filled with one value: on either side."""
    same = pair.target == pair.official
    share = float(same.float().mean())
    if not 0.02 < share < 0.9999:
        return None
    filled, official_filled = pair.target[~same], pair.official[~same]
    for values, words in (
        (filled, "{{}}, masked: {} of {} numbers are {}{}"),
        (official_filled, "{{}}, without its mask: there {} of {} numbers are {}{}"),
    ):
        value = float(values[0])
        low = bool((values <= FILLED).all())
        if not bool((values == value).all()) and not low:
            continue
        if value == 0.0 or low:
            fill = f"{value:.4g}" if bool((values == value).all()) else "below -9000"
            text = words.format(len(values), same.numel(), fill, _pattern(~same))
            return text, 0.0
    return None


def _pattern(filled: Tensor) -> str:
    """Where a mask lies, if in every square it is what is above the diagonal, or below. [rows, width]"""
    width = filled.shape[-1]
    if width < 2 or len(filled) % width:
        return ""
    squares = filled.reshape(-1, width, width)
    one = torch.ones(width, width, dtype=torch.bool)
    for mask, words in ((one.triu(1), "above the diagonal"), (one.triu(), "on and above the diagonal")):
        if bool((squares == mask).all()):
            return f", {words}"
    return ", below the diagonal" if bool((squares == one.tril(-1)).all()) else ""


def _activated(pair: _Pair, traits: _Traits) -> Answer:
    for word, function in _ACTIVATIONS.items():
        if difference(pair.few, function(pair.official_few)) <= pair.allowed:
            answer = _checked(f"{word} of {{}}", pair, function(pair.official))
            if answer is not None:
                return answer
    return None


_ACTIVATIONS: dict[str, Function] = {
    "exact GELU": ACTIVATIONS["gelu"],
    "tanh GELU": ACTIVATIONS["gelu_pytorch_tanh"],
    "sigmoid GELU": ACTIVATIONS["quick_gelu"],
    "ReLU": ACTIVATIONS["relu"],
    "SiLU": ACTIVATIONS["silu"],
    **{name: ACTIVATIONS[name] for name in ("tanh", "sigmoid")},
    "exp": torch.exp,
    "the square": torch.square,
}


def _softmaxed(pair: _Pair, traits: _Traits) -> Answer:
    some = pair.official[:4]
    if traits.probabilities and difference(pair.target[:4], some.softmax(dim=-1)) <= pair.allowed:
        return _checked("softmax of {} over its last axis", pair, pair.official.softmax(dim=-1))
    if traits.logarithms and difference(pair.target[:4], some.log_softmax(dim=-1)) <= pair.allowed:
        return _checked("log-softmax of {} over its last axis", pair, pair.official.log_softmax(dim=-1))
    if pair.target.shape[-1] > 1 and difference(traits.softmax, some) <= ROUNDED:
        return _checked("what becomes {} by a softmax", pair, pair.target) and (
            "what becomes {} by a softmax over its last axis",
            difference(pair.target.softmax(dim=-1), pair.official),
        )
    return None


def _softmaxed_elsewhere(pair: _Pair, traits: _Traits) -> Answer:
    """Softmax over the last axis but one, where blocks of rows are as long as rows: attention's mistake."""
    width = pair.target.shape[-1]
    if len(pair.target) % width or width < 2:
        return None
    squares = pair.target.reshape(-1, width, width)
    if not bool((squares[:1] >= 0).all()) or difference(squares[0].sum(dim=0), torch.ones(width)) > 1e-3:
        return None
    result = pair.official.reshape(squares.shape).softmax(dim=-2)
    return _checked("softmax of {} over its last axis but one", pair, result.reshape(pair.target.shape))


def _normalised(pair: _Pair, traits: _Traits) -> Answer:
    """Each row brought to mean 0 and variance 1, to mean square 1 or to length 1; then perhaps stretched and
    moved, by the same numbers in every row."""
    if pair.target.shape[-1] < 2 or not bool(torch.isfinite(pair.official).all()):
        return None
    for words, function in _NORMS.items():
        if difference(pair.target[:2], function(pair.official[:2])) <= 50 * pair.allowed:
            answer = _checked(f"{words} of {{}}", pair, function(pair.official), 50 * pair.allowed)
            if answer is not None:
                return answer
    if len(pair.target) < 4:
        return None
    for words, function in (("LayerNorm", layer_norm), ("RMSNorm", rms_norm)):
        normed = function(pair.official)
        some = torch.linspace(0, normed.shape[-1] - 1, min(64, normed.shape[-1])).long()
        if _stretched(pair.target[:, some], normed[:, some], 50 * pair.allowed) is None:
            continue
        fit = _stretched(pair.target, normed, 50 * pair.allowed)
        if fit is None:
            continue
        stretch, move, off = fit
        names = [
            key
            for numbers in (stretch, move)
            for key, weight in pair.weights.items()
            if difference(numbers, weight) <= 1e-2 * float(weight.abs().max())
        ]
        of = " and ".join(dict.fromkeys(names)) or "numbers that are not in the weight file"
        return f"{words} of {{}}, with {of}", off
    return None


def _stretched(target: Tensor, normed: Tensor, allowed: float) -> tuple[Tensor, Tensor, float] | None:
    """The stretch and the move of each column that make `target` of `normed`, if there are any."""
    centred, mean = normed - normed.mean(dim=0), target.mean(dim=0)
    spread = centred.square().sum(dim=0)
    if bool((spread < 1e-8).any()):
        return None
    stretch = (centred * (target - mean)).sum(dim=0) / spread
    move = mean - stretch * normed.mean(dim=0)
    off = difference(target, normed * stretch + move)
    return (stretch, move, off) if off <= allowed else None


_NORMS: dict[str, Function] = {
    "LayerNorm without weight and bias": layer_norm,
    "RMSNorm without weight": rms_norm,
    "each row brought to length 1": to_length_one,
}

_TESTS: tuple[Callable[[_Pair, _Traits], Answer], ...] = (
    _scaled,
    _shifted,
    _biased,
    _activated,
    _masked,
    _softmaxed,
    _softmaxed_elsewhere,
    _normalised,
)
