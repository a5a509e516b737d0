"""Which official tensor is each tensor of a dump meant to be? By value, by name and by number of the block.

Whoever writes a dump has names of their own, `layers.0.attention.q`, and their own layouts. Names
are matched as patterns: what stands for one block stands for all. A pattern fits the better the nearer its
tensors are to the official ones, to the bit or only in their direction, for a tensor that is wrong is still
meant to be one; of two that fit alike, the one whose words are more alike. `find` looks for one tensor; this
is for all of them at once, and has a place for wrong ones, too.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from llm_rebuild import files
from llm_rebuild.checkpoints import memory_of
from llm_rebuild.diagnosis.graph import World
from llm_rebuild.dumps.files import MOST
from llm_rebuild.errors import InputError, nearest
from llm_rebuild.json_fields import WORD, Each, check, or_null
from llm_rebuild.verify.equality import NEVER, ROUNDED, identical, largest, usual
from llm_rebuild.verify.layouts import Layout, layout_of, layouts, moments

NUMBER = re.compile(r"\d+")
FEW = 512  # numbers of a tensor that are looked at to see how nearly it points where another does
TRIED = 40  # layouts of a wrong tensor that are tried
# How well one tensor fits another. What has the same bits, or nearly, is at home, whatever it is called.
SAME, NEAR, LIKE, NAMED = 4.0, 3.0, 2.0, 0.9
MOVED = 0.5  # by so much what lies otherwise is further from home: the same numbers may be two checkpoints
PLAINER = 0.05  # by so much another layout has to point better than the plainest
SEEN = 0.5  # how nearly a tensor has to point where another layout does to be taken to lie so
UNMASKED = 0.7  # how much of a fit is left where a mask was put into one of the two only
SURELY = 2 * NEAR  # what a pattern comes to that is at home in all blocks
SIZE = 0.05  # how much of a fit is that the numbers are as large
SHARP = 8  # power of a cosine: 0.99 is much nearer than 0.95, and 0.5 is no nearer than 0.3
SURE = 1000  # votes of a tensor that is right about how those of the other blocks lie
PARTS = 3  # that queries, keys and values are, where one layer makes all of them
LEAST = 0.8  # of LIKE and NAMED together, to be taken for the other at all


class Fit(NamedTuple):
    """How well a tensor of a dump fits a checkpoint, and how its numbers lie then.

    likely  Whether it may be taken for that at all, if nothing fits it better.
    """

    score: float
    layout: Layout
    likely: bool = True


Tensors: TypeAlias = Mapping[str, Tensor]
Names: TypeAlias = Mapping[str, str]  # of tensors and of checkpoints
Fits: TypeAlias = dict[str, dict[str, Fit]]  # how well each tensor fits each checkpoint


@dataclass(frozen=True)
class Matched:
    """A dump's tensors as the checkpoints that they are meant to be.

    names       A dump's name -> the checkpoint.
    layouts     A dump's name -> how its numbers lie, in words that follow the checkpoint; empty: as there.
    tensors     Checkpoint -> the dump's numbers, as the official ones lie.
    unmatched   Names of the dump that are no checkpoint.
    """

    names: Mapping[str, str]
    layouts: Mapping[str, str]
    tensors: Mapping[str, Tensor] = field(repr=False)
    unmatched: tuple[str, ...] = ()

    def to_names(self) -> dict[str, str | None]:
        """Each name of the dump with its checkpoint, or with None."""
        return {**self.names, **dict.fromkeys(self.unmatched)}

    def to_json(self) -> dict[str, Any]:
        """What `compare --json` has beside the report."""
        return {"names": dict(self.names), "layouts": dict(self.layouts), "unmatched": list(self.unmatched)}


def match(dump: Tensors, official: Tensors, graph: Callable[[], World] | None = None) -> Matched:
    """Find a checkpoint for each tensor of a dump, for no two the same. A third of one is called as it is,
    `h.0.attn.c_attn[2]`: queries, keys and values may come from one layer, and lie in the dump as three.

    graph  Gives the official run as a graph, whose steps give of the dump's tensors what is wrong for their
           sake. It is asked where something has no name by its numbers, for it computes the run again.
    """
    fits = _fits(dump, with_parts(official))
    names: dict[str, str] = {}
    free = {checkpoint for fitting in fits.values() for checkpoint in fitting}
    world, followed = None, -1  # how many had names when the official steps were last taken

    def take(pairs: Names) -> None:
        """Give names their checkpoints, as far as both are free."""
        for name, checkpoint in pairs.items():
            if name not in names and checkpoint in free and checkpoint in fits[name]:
                names[name] = checkpoint
                free.discard(checkpoint)

    for score, pairs in _pairs(fits):
        if graph is not None and score < SURELY and followed < len(names) < len(dump):
            world, followed = world or graph(), len(names)
            for made in _made(dump, official, world, names, fits):
                take(made)
        take(pairs)
    names |= {n: c for n, c in _left_over(dump, official, names).items() if c in fits[n]}
    names |= _in_order(dump, official, names)
    return arranged(dump, official, {name: names[name] for name in dump if name in names}, fits)


def _made(dump: Tensors, official: Tensors, world: World, names: Names, fits: Fits) -> list[Names]:
    """What official steps make of tensors with names, by name, the best first; `fits` says how it lies."""
    inputs = {name: tensor for name, tensor in world.tensors.items() if name not in official}
    own = replace(world, tensors={**inputs, **arranged(dump, official, names, fits).tensors})
    left = {name: Numbers(dump[name]) for name in dump if name not in names}
    sought = {_whole(checkpoint, official) for name in left for checkpoint in fits[name]}
    sought -= {_whole(checkpoint, official) for checkpoint in names.values()}
    made: list[tuple[float, Names]] = []
    values = ((checkpoint, own.attempt(checkpoint)) for checkpoint in official if checkpoint in sought)
    for checkpoint, tensor in with_parts({c: value for c, value in values if value is not None}).items():
        numbers = Numbers(tensor)
        for name, one in left.items():
            layout = _layout(one, numbers) if checkpoint in fits[name] else None
            if layout is not None:
                score = NEAR - MOVED * (not layout.plain) + NAMED * _alike(name, checkpoint)
                fits[name][checkpoint] = Fit(score, layout)
                made.append((score, {name: checkpoint}))
    return [pairs for _, pairs in sorted(made, key=lambda one: -one[0])]


def _left_over(dump: Tensors, official: Tensors, names: Names) -> dict[str, str]:
    """What is the only one of its shape, axes of one aside, that is left on either side, however wrong."""
    used = {_whole(checkpoint, official) for checkpoint in names.values()}
    left, free = defaultdict[Any, list[str]](list), defaultdict[Any, list[str]](list)
    for by_shape, tensors, matched in ((left, dump, set(names)), (free, official, used)):
        for name in tensors.keys() - matched:
            by_shape[tuple(n for n in tensors[name].shape if n > 1)].append(name)
    return {own[0]: free[shape][0] for shape, own in left.items() if len(own) == len(free[shape]) == 1}


def _in_order(dump: Tensors, official: Tensors, names: Names) -> dict[str, str]:
    """Of tensors with the very same numbers, as a residual that was left out makes them, the first in the
    dump is taken for what is computed first."""
    order = {checkpoint: number for number, checkpoint in enumerate(with_parts(official))}
    twins: dict[Any, list[str]] = defaultdict(list)
    for name in (name for name in dump if name in names):
        twins[dump[name].shape, bytes(memory_of(dump[name]).numpy())].append(name)
    sorted_names: dict[str, str] = {}
    for same in twins.values():
        sorted_names |= zip(same, sorted((names[name] for name in same), key=order.__getitem__), strict=True)
    return sorted_names


def with_parts(official: Tensors) -> dict[str, Tensor]:
    """The official tensors, and the thirds of those that can be cut; of one name the tensor is meant."""
    parts = {
        part: third
        for name, tensor in official.items()
        if tensor.dim() > 1 and tensor.shape[-1] % PARTS == 0
        for part, third in zip(_parts(name), tensor.chunk(PARTS, dim=-1), strict=True)
    }
    return parts | dict(official)


def _parts(name: str) -> list[str]:
    return [f"{name}[{number}]" for number in range(PARTS)]


def _whole(name: str, official: Tensors) -> str:
    """The checkpoint that a name is, or is a third of. A model's own may end so, too: `softmax[0]`."""
    return name if name in official else name.rpartition("[")[0]


def arranged(dump: Tensors, official: Tensors, names: Names, fits: Fits | None = None) -> Matched:
    """The dump's tensors as the official ones lie. Of the same patterns of names most decide: a tensor that
    is wrong need not say it. Where a port hides a key by minus infinity, it means what the official model
    means by the lowest float; and what it computed in float64 is rounded, for that is no mistake.

    names  A dump's name -> its checkpoint. Raises InputError where the shapes cannot be of the same tensor.
    """
    everything = with_parts(official)
    chosen: dict[str, Fit] = {}
    votes: dict[tuple[str, str], Counter[Layout]] = defaultdict(Counter)
    for name, checkpoint in names.items():
        tensor = everything[checkpoint]
        fit = fits[name][checkpoint] if fits else _fit(Numbers(dump[name]), Numbers(tensor), 1.0)
        if fit is None:
            raise InputError(
                f"{name} has shape {list(dump[name].shape)} and cannot be {checkpoint}, which has "
                f"{list(tensor.shape)}"
            )
        chosen[name] = fit
        votes[in_any_block(name, checkpoint)][fit.layout] += SURE if fit.score >= NEAR else 1
    words, tensors = {}, {}
    for name, checkpoint in names.items():
        voted = (layout for layout, _ in votes[in_any_block(name, checkpoint)].most_common())
        fitting = (layout for layout in voted if math.prod(layout.dims) == dump[name].numel())
        layout = next(fitting, chosen[name].layout)
        tensor = everything[checkpoint]
        lies = layout.undone(dump[name], tensor.shape).contiguous()
        wider = tensor.is_floating_point() and lies.dtype == torch.float64 != tensor.dtype
        lies = lies.to(tensor.dtype) if wider else lies
        hidden = (lies == -math.inf) & (tensor.min() < -NEVER)  # also a key that should be seen
        lowest = tensor.where(tensor < -NEVER, tensor.min()).to(lies.dtype)
        tensors[checkpoint] = torch.where(hidden, lowest, lies)
        done = ", rounded from float64" * wider + ", -inf where a mask hides" * bool(hidden.any())
        words[name] = layout.in_words(dump[name].shape, tensor.shape) + done
    whole = {name: tensor for name, tensor in tensors.items() if name in official}
    for name in dict.fromkeys(_whole(checkpoint, official) for checkpoint in tensors):
        if name not in whole and all(part in tensors for part in _parts(name)):
            whole[name] = torch.cat([tensors[part] for part in _parts(name)], dim=-1)
    unmatched = tuple(n for n in dump if n not in names or _whole(names[n], official) not in whole)
    return Matched(names, words, whole, unmatched)


def read_names(file: Path, dump: Tensors, official: Tensors) -> dict[str, str]:
    """What `Matched.to_names` gave, and somebody may have changed. Null leaves a tensor out.

    Raises InputError for a name that the dump or the official run has not, and for two of one checkpoint.
    """
    values = files.read_json(file, 'it maps a dump\'s names to checkpoints: {"layer0_q": "h.0.attn.query"}')
    check(values, Each(or_null(WORD), most=MOST), f"{file}: ")
    names = {name: checkpoint for name, checkpoint in values.items() if checkpoint is not None}
    everything = with_parts(official)
    for name, checkpoint in names.items():
        if name not in dump:
            raise InputError(f"{file}: the dump has no tensor {name!r}{nearest(name, dump)}")
        if checkpoint not in everything:
            raise InputError(
                f"{file}: there is no checkpoint {checkpoint!r}{nearest(checkpoint, everything)}"
            )
    twice = [checkpoint for checkpoint, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise InputError(f"{file}: two tensors are said to be {twice[0]}; only one can be")
    return names


# ------------------------------------------------------------------------------- one tensor and another


class Numbers:
    """A tensor, and what is asked of it again and again."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.float = tensor.is_floating_point()
        self.size = max(largest(tensor), 1e-12) if self.float else 1.0
        ones = tensor[usual(tensor)].float() if self.float else torch.zeros(0)
        ones = ones if ones.numel() else torch.zeros(1)
        self.masked = ones.numel() < tensor.numel()
        self.moments: list[float] = moments(ones).tolist()
        self.typical = max(self.moments[1], 1e-12)
        self._few: dict[Any, tuple[Tensor, Tensor]] = {}

    def is_near(self, other: Numbers) -> bool:
        """Whether the moments leave it open that the numbers are the same but for rounding."""
        pairs = zip(self.moments, other.moments, strict=True)
        return all(one == two or abs(one - two) <= 1e-3 * other.size for one, two in pairs)

    def few(self, places: Tensor, key: Any = None) -> tuple[Tensor, Tensor]:
        """The numbers at these places, 0 for one that was not computed; and 1 for each that was. Kept by key:
        a tensor is held against many of one shape."""
        if key not in self._few:
            numbers = self.tensor.reshape(-1)[places]
            computed = usual(numbers)
            self._few[key] = torch.where(computed, numbers, 0.0).double(), computed.double()
        return self._few[key]


def _fits(dump: Tensors, official: Tensors) -> Fits:
    """How well each tensor of a dump fits each checkpoint that has as many numbers."""
    numbers = {checkpoint: Numbers(tensor) for checkpoint, tensor in official.items()}
    by_count = defaultdict(list)
    for checkpoint, tensor in official.items():
        by_count[tensor.numel()].append(checkpoint)
    fits: Fits = {}
    for name, tensor in dump.items():
        own = Numbers(tensor)
        every = ((c, _fit(own, numbers[c], _alike(name, c))) for c in by_count[tensor.numel()])
        fits[name] = {checkpoint: fit for checkpoint, fit in every if fit is not None}
    return fits


def _fit(one: Numbers, other: Numbers, alike: float) -> Fit | None:
    """How well one tensor fits the official one whose name is so much alike. None where it cannot be that, by
    the shapes."""
    tensor, official = one.tensor, other.tensor
    if tensor.numel() != official.numel() or not tensor.numel():
        return None
    words = NAMED * alike
    if one.is_near(other) and tensor.shape == official.shape and identical(tensor, official):
        return Fit(SAME + words, next(layouts(tensor.shape, official.shape)))
    if not (one.float and other.float):
        return None
    layout = _layout(one, other)
    if layout is not None:
        same = identical(tensor, layout.of(official, tensor.shape))
        return Fit((SAME if same else NEAR) - MOVED * (not layout.plain) + words, layout)
    ways, places = _ways(tuple(tensor.shape), tuple(official.shape))
    if not ways:
        return None
    directions = _directions(one.few(_spread(tensor.numel())), other.few(places, tensor.shape))
    directions[1:] -= PLAINER
    best = int(directions.argmax())
    if directions[best] < SEEN and tensor.shape == official.shape:
        best = 0  # nothing says that it lies otherwise
    direction = float(directions[best])
    if one.masked != other.masked:
        direction *= UNMASKED
    direction *= 1 - SIZE + SIZE * min(one.typical, other.typical) / max(one.typical, other.typical)
    moved = MOVED * (not ways[best].plain)
    return Fit(LIKE * direction**SHARP - moved + words, ways[best], LIKE * direction + words >= LEAST)


def _layout(one: Numbers, other: Numbers) -> Layout | None:
    """How one tensor lies in another where its numbers are the same but for rounding."""
    if not one.is_near(other):
        return None
    return layout_of(one.tensor.float(), other.tensor.to(one.tensor.dtype).float(), ROUNDED * other.size)


@functools.lru_cache(maxsize=1024)
def _ways(shape: tuple[int, ...], official: tuple[int, ...]) -> tuple[list[Layout], Tensor]:
    """Layouts after which an official tensor has this shape's axes, or with neighbours of them made one; and
    for each of them where in it the few numbers lie that are looked at."""
    sizes, count = [n for n in shape if n > 1], math.prod(shape)
    every = itertools.islice(layouts(shape, official), 2000)
    fitting = (one for one in every if _becomes(one, sizes))
    ways, numbers = list(itertools.islice(fitting, TRIED)), torch.arange(count)
    places = [one.of(numbers, shape).reshape(-1)[_spread(count)] for one in ways]
    return ways, torch.stack(places) if places else numbers


@functools.lru_cache(maxsize=1024)
def _spread(count: int) -> Tensor:
    """Which numbers of so many are looked at."""
    return torch.arange(0, count, max(1, count // FEW))


def _becomes(layout: Layout, sizes: list[int]) -> bool:
    """Whether axes as this layout has them become axes of these sizes by making neighbours one; or, where
    nothing moves, by cutting some."""
    moved = [layout.dims[axis] for axis in layout.order]
    return _merges(moved, sizes) or (layout.plain and _merges(sizes, moved))


def _merges(dims: list[int], sizes: list[int]) -> bool:
    rest = iter(dims)
    for size in sizes:
        whole = 1
        while whole < size:
            whole *= next(rest, size + 1)
        if whole != size:
            return False
    return next(rest, None) is None


def _directions(one: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> Tensor:
    """How nearly a row of numbers and each of several point the same way: the cosine, 0 at least. Of what
    masks put there it counts only whether it is in the same places. Arguments as `Numbers.few` has them."""
    (numbers, computed), (rows, computed_rows) = one, others
    differ = computed.sum() + computed_rows.sum(-1) - 2 * (computed_rows @ computed)
    squares = (computed_rows @ numbers.square()) * (rows.square() @ computed)  # where both were computed
    cosines: Tensor = (rows @ numbers) / squares.sqrt().clamp_min(1e-300)
    return (cosines.clamp_min(0.0) * (1 - differ / len(numbers))).round(decimals=9)  # equal ones stay equal


# ------------------------------------------------------------------------------------- names and patterns


def _pairs(fits: Fits) -> list[tuple[float, Names]]:
    """Which tensors may be which checkpoints, name by name, and how well: of one pattern in all blocks, or
    one of one. The best come first."""
    blocks: dict[str, dict[int, str]] = defaultdict(dict)  # a pattern of checkpoints -> block -> checkpoint
    for checkpoint in dict.fromkeys(c for fitting in fits.values() for c in fitting):
        for rest, number in itertools.islice(_cut(checkpoint), 1):  # the first is the block's
            blocks[rest][number] = checkpoint
    groups = _groups(fits)
    in_blocks = {name for names in groups.values() if len(names) > 1 for name in names.values()}
    scored: list[tuple[float, Names]] = [
        (2 * fit.score, {name: checkpoint})
        for name, fitting in fits.items()
        for checkpoint, fit in fitting.items()
        if (fit.score >= NEAR if name in in_blocks else fit.likely)  # a block's has its pattern for that
    ]
    for names in groups.values():
        for checkpoints in blocks.values():
            for shift in {0, min(checkpoints) - min(names)}:
                both = {name: checkpoints[n + shift] for n, name in names.items() if n + shift in checkpoints}
                fitting = [fits[n].get(c) for n, c in both.items()]
                scores = [fit.score if fit else 0.0 for fit in fitting]
                # Of a wrong one perhaps only the first is like the official one: the best says what it is.
                if any(fit and fit.likely for fit in fitting):
                    scored.append((max(scores) + sum(scores) / len(names), both))
    return sorted(scored, key=lambda one: -one[0])


def _groups(names: Iterable[str]) -> dict[str, dict[int, str]]:
    """Names that are alike but for the number of their block, by what is alike and that number. Of several
    numbers the block's is the one that changes most often, and the first of such."""
    every: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        for rest, number in _cut(name):
            every[rest][number] = name
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        for rest, number in sorted(_cut(name), key=lambda cut: -len(every[cut[0]]))[:1]:
            groups[rest][number] = name
    return groups


def _cut(name: str) -> Iterator[tuple[str, int]]:
    """A name without one of its numbers, and that number; for each of them."""
    for number in NUMBER.finditer(name):
        yield f"{name[: number.start()]}#{name[number.end() :]}", int(number[0][:9])


def in_any_block(name: str, checkpoint: str) -> tuple[str, str]:
    """Both names with `#` for the block's number."""
    block = NUMBER.search(checkpoint)
    same = (rest for rest, number in _cut(name) if block and number == int(block[0]))
    first = (rest for rest, _ in _cut(name))
    return next(same, next(first, name)), next((rest for rest, _ in _cut(checkpoint)), checkpoint)


def _alike(name: str, checkpoint: str) -> float:
    """How alike two names are, from 0 to 1: half of it the checkpoint's last word, for what stands before it
    many have."""
    one, other = (re.sub(r"[^a-z0-9]+", " ", text.lower()).strip() for text in (name, checkpoint))
    last = re.split("[./]", checkpoint.lower())[-1]
    both = functools.partial(difflib.SequenceMatcher[str], None, autojunk=False)
    best = max(both(word, last).ratio() for word in re.split("[./]", name.lower()))
    return (both(one, other).ratio() + best) / 2
