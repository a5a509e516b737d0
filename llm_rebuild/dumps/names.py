"""Which official tensor is each tensor of a dump meant to be? By value, by what follows from it, and by name.

Whoever writes a dump has names of their own, `layers.0.attention.q`, and their own layouts. What has the
official numbers is at home. Most others are what official steps make of those that are known. Where a mistake
was made one is what it has to be for the steps to make what comes behind it. What is left goes by direction,
by the order of the dump and by words. What stands for one block stands for all.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import math
import operator
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
from llm_rebuild.json_fields import TEXT, WORD, Each, check, or_null, shown
from llm_rebuild.verify.equality import (
    BEYOND,
    FILLED,
    NEVER,
    ROUNDED,
    by_rounding,
    difference,
    identical,
    largest,
    usual,
)
from llm_rebuild.verify.layouts import Layout, layout_of, layouts, moments

NUMBER = re.compile(r"\d+")
SEVERAL = 6  # numbers of a name of which equal ones may both be the block's
FEW, TRIED = 512, 40  # numbers of a tensor that are looked at for where it points, and layouts of a wrong one
# How well one tensor fits another. What has the same bits, or nearly, is at home, whatever it is called.
SAME, NEAR, LIKE, NAMED = 4.0, 3.0, 2.0, 0.9
# By so much what lies otherwise is further from home, and what has other axes: the same numbers may be two
# checkpoints.
MOVED, CUT = 0.5, 0.1
NEARER = 0.5  # by this factor less far off another layout has to point, for a tensor to be taken to lie so
UNMASKED = 0.4  # how much of a fit is left where a mask was put into one of the two only
SHARP = 8  # power of a cosine: 0.99 is much nearer than 0.95, and 0.5 is no nearer than 0.3
HALF = 4  # units in the last place by which a step from numbers in half the precision may be off
SURE = 1000  # votes of a tensor that is right about how those of the other blocks lie
THIRDS = ("query", "key", "value")  # where one layer makes all of them
LONGEST = 100  # letters of a name that are read, the last
HOME = NEAR - MOVED - CUT  # what fits less is neither at home nor made by an official step
INSIDE = 0.5  # by so much the name of a step inside another checkpoint counts less, `norm.square`
ORDERED, IN_ORDER = 1.0, 0.9  # of a fit, for a place in the dump as in the model, if so many have theirs
MOST_LEFT, GUESSES, LOOKED = 16, 5, 5  # tensors tried, checkpoints for each, and steps without any behind
LEAST = 0.5  # to be taken for the other at all, if nothing better is


class Fit(NamedTuple):
    """How well a tensor of a dump fits a checkpoint, and how its numbers lie then."""

    score: float
    layout: Layout


Tensors: TypeAlias = Mapping[str, Tensor]
Names: TypeAlias = Mapping[str, str]  # of tensors and of checkpoints
NO_STEPS = functools.partial(World, {}, {}, {})
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

    def to_json(self) -> dict[str, Any]:
        """What `compare --json` has beside the report."""
        return {"names": dict(self.names), "layouts": dict(self.layouts), "unmatched": list(self.unmatched)}


def match(dump: Tensors, official: Tensors, graph: Callable[[], World] = NO_STEPS) -> Matched:
    """Find a checkpoint for each tensor of a dump, for no two the same. A third of one is called as it is,
    `h.0.attn.c_attn[2]`: queries, keys and values may come from one layer, and lie in the dump as three.

    graph  Gives the official run as a graph, whose steps give of the dump's tensors what is wrong for their
           sake. It is asked where something has no name by its numbers, for it computes the run again.
    """
    search = _Search(dump, official, graph)
    for fit, name, checkpoint in search.ranked():
        if fit.score < HOME:
            search.follow()
        # One number a token points where many do: what is inside a norm is known by the steps or not at all.
        if fit.score >= HOME or (fit.score > LEAST and checkpoint not in search.inside):
            search.take(name, checkpoint)
    search.follow()
    for name, checkpoint in search.left_over():
        search.take(name, checkpoint)
    search.sort_twins()
    search.drop_unused()
    return arranged(dump, official, {n: search.names[n] for n in dump if n in search.names}, search.fits)


class _Search:
    """Which names of a dump are known by now, and what the official steps make of their tensors: all others,
    but for those at which a mistake was made. These are known by what the steps make of them."""

    def __init__(self, dump: Tensors, official: Tensors, graph: Callable[[], World]) -> None:
        self.dump, self.official, self.graph = dump, official, functools.cache(graph)
        shapes = {tensor.shape for tensor in official.values()}  # also of what goes into a layer that is cut
        cut = {c: t for c, t in with_parts(official).items() if c in official or t.shape in shapes}
        counts = {tensor.numel() for tensor in cut.values()}
        self.numbers = {name: Numbers(tensor) for name, tensor in dump.items() if tensor.numel() in counts}
        self.order = {checkpoint: number for number, checkpoint in enumerate(cut)}
        self.inside = {name for name in official if name.rpartition(".")[0] in official}
        self.groups = {name: group for name, (_, group) in _groups(dump).items()}
        # The first number of a checkpoint's name is the block's.
        self.kinds = {c: next(_cut(c), ("", 0)) for c in cut}
        self.blocks = defaultdict[str, set[int]](set)
        for rest, block in self.kinds.values():
            self.blocks[rest].add(block)
        self.fits = self.fitting(cut)
        self.names, self.free = dict[str, str](), set(self.order)  # known; checkpoints that are not
        self.followed = -1  # how many there were when the official steps were last taken

    def own(self, names: Names) -> World:
        """The steps with the dump's tensors in them, as far as these have names, and no official ones."""
        inputs = {name: t for name, t in self.graph().tensors.items() if name not in self.official}
        tensors = arranged(self.dump, self.official, names, self.fits).tensors
        own = {name: tensor.to(self.official[name].dtype) for name, tensor in tensors.items()}
        return replace(self.graph(), tensors={**inputs, **own})

    def matched(self) -> set[str]:
        """Checkpoints that have a name, as one or in all their thirds."""
        counts = Counter(_whole(checkpoint, self.official) for checkpoint in self.names.values())
        return {whole for whole, count in counts.items() if count == len(THIRDS) or whole not in self.free}

    def wrong(self) -> list[str]:
        """Names of what has one, and was neither at home nor made by a step."""
        return [name for name, checkpoint in self.names.items() if self.fits[name][checkpoint].score < HOME]

    def ranked(self) -> list[tuple[Fit, str, str]]:
        """What may be what, the best first: what is at home, by how well all blocks are; then the rest."""

        def rank(fit: Fit, name: str, checkpoint: str) -> tuple[bool, float]:
            """Of what is at home, by the mean over all blocks; of the rest, by itself."""
            others = self.others(name, checkpoint) if fit.score >= HOME else {}
            scores = [self.fits[other][c].score for other, c in others.items() if c in self.fits[other]]
            return not others, -sum(scores) / len(others) if others else -fit.score

        every = [(fit, name, c) for name, fitting in self.fits.items() for c, fit in fitting.items()]
        return sorted(every, key=lambda one: rank(*one))

    def fitting(self, official: Tensors) -> Fits:
        """How well each tensor of the dump fits each checkpoint of its block that has as many numbers."""
        numbers, of_size, fits = {c: Numbers(t) for c, t in official.items()}, defaultdict(list), Fits()
        for checkpoint, tensor in official.items():
            of_size[tensor.numel()].append(checkpoint)
        for name, tensor in self.dump.items():
            able = [c for c in of_size[tensor.numel()] if self.others(name, c)]
            words = {c: _alike(name, c) - INSIDE * (c in self.inside) for c in able}
            every = ((c, _fit(self.numbers[name], numbers[c], words[c])) for c in able)
            fits[name] = {checkpoint: fit for checkpoint, fit in every if fit is not None}
        return fits

    def others(self, name: str, checkpoint: str) -> dict[str, str]:
        """A name and its checkpoint, and those of the other blocks; none where the name has another block's
        number."""
        numbers, (rest, block) = self.groups.get(name, {name: 0}), self.kinds[checkpoint]
        shift = block - numbers[name]
        if rest and all(number + shift in self.blocks[rest] for number in numbers.values()):
            return {other: rest.replace("#", str(number + shift)) for other, number in numbers.items()}
        return {} if rest and self.blocks[rest].issuperset(numbers.values()) else {name: checkpoint}

    def take(self, name: str, checkpoint: str) -> None:
        """Give a name its checkpoint if both are free; and so in the other blocks, but for what is at home
        elsewhere."""
        if name in self.names or checkpoint not in self.free:
            return
        for other, pair in self.others(name, checkpoint).items():
            fits = self.fits[other]
            if other in self.names or pair not in self.free or pair not in fits:
                continue
            homes = {c for c, fit in fits.items() if fit.score >= HOME and c in self.free}
            if other == name or pair in homes or not homes:
                self.names[other] = pair
                self.free.discard(pair)

    def follow(self) -> None:
        """Name what the steps make of tensors with names; and where they make none any more, the one of which
        they make most."""
        while self.followed < len(self.names) < len(self.dump):
            self.followed = len(self.names)
            for name, checkpoint in self.made() or self.leading():
                self.take(name, checkpoint)

    def made(self) -> list[tuple[str, str]]:
        """What the steps make of tensors with names, the best first; `fits` says how it lies."""
        own, left = self.own(self.names), self.dump.keys() - self.names
        sought = {_whole(c, self.official) for name in left for c in self.fits[name]} - self.matched()
        values = ((c, own.attempt(c)) for c in self.official if c in sought)
        made: list[tuple[float, str, str]] = []
        for checkpoint, tensor in with_parts({c: value for c, value in values if value is not None}).items():
            numbers = Numbers(tensor)
            for name in left:
                layout = _layout(self.numbers[name], numbers) if checkpoint in self.fits[name] else None
                if layout is not None:
                    further = _further(layout, self.numbers[name], numbers)
                    score = NEAR - further + NAMED * _alike(name, checkpoint)
                    self.fits[name][checkpoint] = Fit(score, layout)
                    made.append((-score, name, checkpoint))
        return [(name, checkpoint) for _, name, checkpoint in sorted(made)]

    def open(self) -> dict[str, dict[str, float]]:
        """What tensors without a name may be, and how well they are; better where their place in the dump is
        that of the checkpoint between two that are known, if these lie there in the order of computation."""
        places = [self.order[self.names[name]] for name in self.dump if name in self.names]
        ordered = sum(one < two for one, two in itertools.pairwise(places)) > IN_ORDER * (len(places) - 1)
        before, rest, closed = 0, [len(self.order), *reversed(places)], self.matched()
        scores: dict[str, dict[str, float]] = {}
        for name in self.dump:
            before = rest.pop() if name in self.names else before
            between = range(before, rest[-1]) if ordered else self.order.values()
            if name not in self.names:
                free = ((c, f) for c, f in self.fits[name].items() if _whole(c, self.official) not in closed)
                scores[name] = {c: fit.score + ORDERED * (self.order[c] in between) for c, fit in free}
        return scores

    def leading(self) -> list[tuple[str, str]]:
        """Of what no step makes the tensor, and the checkpoint that it has to be for the steps to make most
        others of it; also together with what these seem to be. Empty where they make none."""
        scores = self.open()
        first = sorted(scores, key=lambda name: self.groups.get(name, {}).get(name, 0))[:MOST_LEFT]
        wholes = ((name, c) for name in first for c in scores[name] if c in self.official)
        ranked = sorted(((scores[name][c], name, c) for name, c in wholes), reverse=True)
        early = sorted(ranked, key=lambda one: (one[2] in self.inside, self.order[one[2]]))
        few = [[one for one in of if one[1] == n][:GUESSES] for n in first for of in (ranked, early)]
        likely = {c: name for _, name, c in reversed(ranked)}  # each one's best
        guesses = {name: c for _, name, c in reversed(ranked) if likely[c] == name}
        for own in (self.own(self.names), self.own(self.names | guesses)):
            best = (0, 0.0, "", "")
            for score, name, checkpoint in {*itertools.chain.from_iterable(few)}:
                layout, official = self.fits[name][checkpoint].layout, self.official[checkpoint]
                lies = layout.undone(self.dump[name], official.shape)
                world = own.given({checkpoint: lies.to(official.dtype)})
                follow = self.makes(world, checkpoint, {*first, *self.wrong()} - {name})
                best = max(best, (follow, score, name, checkpoint))
            if best[0]:
                return [best[2:]]
        return []

    def makes(self, own: World, checkpoint: str, among: Iterable[str]) -> int:
        """How many of some tensors the steps make of a checkpoint, up to the next ones that are known."""
        count, looked, matched, reached = 0, 0, self.matched(), {checkpoint}
        start = own.tensors.get(checkpoint)
        for after, formula in own.formulas.items():
            if looked == LOOKED or reached.isdisjoint(formula.inputs):
                continue
            reached |= {after} - matched
            able = [n for n in among if self.names.get(n, after) == after and after in self.fits[n]]
            value = own.attempt(formula) if able else None
            if value is not None and not (start is not None and by_rounding(value, start)):
                numbers = Numbers(value)
                made = any(_layout(self.numbers[name], numbers) is not None for name in able)
                count, looked = count + made, 0 if made else looked + (after not in self.inside)
        return count

    def left_over(self) -> list[tuple[str, str]]:
        """What has a checkpoint's name, and what is the only one of its shape, axes of one aside, left on
        either side, between the same two if the dump lies in order; however wrong it is."""
        fitting = [
            (n, c)
            for n, scores in self.open().items()
            for c in scores.keys() & self.official.keys() - self.inside
            if scores[c] > self.fits[n][c].score
            and self.dump[n].squeeze().shape == self.official[c].squeeze().shape
        ]
        names, checkpoints = Counter(n for n, _ in fitting), Counter(c for _, c in fitting)
        called = [(name, name) for name in self.dump if name in self.fits[name]]
        return called + [(n, c) for n, c in fitting if names[n] == checkpoints[c] == 1]

    def sort_twins(self) -> None:
        """Of tensors with the very same numbers, as a residual that was left out makes them, the first in the
        dump is taken for what is computed first."""
        twins: dict[Any, list[str]] = defaultdict(list)
        for name in (name for name in self.dump if name in self.names):
            twins[self.dump[name].shape, bytes(memory_of(self.dump[name]).numpy())].append(name)
        for same in twins.values():
            checkpoints = sorted((self.names[name] for name in same), key=self.order.__getitem__)
            if all(c in self.fits[name] for name, c in zip(same, checkpoints, strict=True)):
                self.names |= zip(same, checkpoints, strict=True)

    def drop_unused(self) -> None:
        """Take the name from what is wrong and no checkpoint: the steps make more of the dump without it."""
        wrong = [name for name in self.wrong() if name != self.names[name]]
        own = self.own(self.names) if wrong else NO_STEPS()
        for name in wrong:
            checkpoint, names = self.names[name], list(self.names)
            without = replace(own, tensors={c: t for c, t in own.tensors.items() if c != checkpoint})
            if self.makes(without, checkpoint, names) > self.makes(own, checkpoint, names):
                del self.names[name]


def with_parts(official: Tensors) -> dict[str, Tensor]:
    """The official tensors, and the thirds of those that can be cut; of one name the tensor is meant."""
    parts = {
        f"{name}[{number}]": third
        for name, tensor in official.items()
        if tensor.dim() > 1 and tensor.shape[-1] % len(THIRDS) == 0
        for number, third in enumerate(tensor.chunk(len(THIRDS), dim=-1))
    }
    return parts | dict(official)


def _whole(name: str, official: Tensors) -> str:
    """The checkpoint that a name is, or is a third of. A model's own may end so, too: `softmax[0]`."""
    return name if name in official else name.rpartition("[")[0]


def arranged(dump: Tensors, official: Tensors, names: Names, fits: Fits | None = None) -> Matched:
    """The dump's tensors as the official ones lie. Of the same patterns of names most decide: a tensor that
    is wrong need not say it. No mistakes are minus infinity, or -1e9, where the official model hides a key by
    the lowest float; and float64, which is rounded.

    names  A dump's name -> its checkpoint. Raises InputError where the two cannot be the same tensor.
    """
    everything, patterns = with_parts(official), in_any_block(names)
    chosen: dict[str, Fit] = {}
    votes: dict[tuple[str, str], Counter[Layout]] = defaultdict(Counter)
    for name, checkpoint in names.items():
        tensor = everything[checkpoint]
        fit = fits[name][checkpoint] if fits else _fit(Numbers(dump[name]), Numbers(tensor), 1.0)
        if fit is None:
            raise InputError(
                f"{name} is {_kind_of(dump[name])} and cannot be {checkpoint}, which is {_kind_of(tensor)}"
            )
        chosen[name] = fit
        votes[patterns[name]][fit.layout] += SURE if fit.score >= NEAR else 1
    words, tensors = {}, {}
    for name, checkpoint in names.items():
        voted = (layout for layout, _ in votes[patterns[name]].most_common())
        fitting = (layout for layout in voted if math.prod(layout.dims) == dump[name].numel())
        layout = next(fitting, chosen[name].layout)
        tensor = everything[checkpoint]
        lies = layout.undone(dump[name], tensor.shape).contiguous()
        wider = tensor.is_floating_point() and lies.dtype == torch.float64 != tensor.dtype
        lies = lies.to(tensor.dtype) if wider else lies
        lies, filled = _as_hidden(lies, tensor)
        tensors[checkpoint] = lies
        done = ", rounded from float64" * wider + f", {filled:g} where a mask hides" * (filled < 0)
        words[name] = layout.in_words(dump[name].shape, tensor.shape) + done
    whole = {name: tensor for name, tensor in tensors.items() if name in official}
    for name in dict.fromkeys(_whole(checkpoint, official) for checkpoint in tensors):
        thirds = [tensors[part] for n in range(len(THIRDS)) if (part := f"{name}[{n}]") in tensors]
        if name not in whole and len(thirds) == len(THIRDS):
            whole[name] = torch.cat(thirds, dim=-1)
    unmatched = tuple(n for n in dump if n not in names or _whole(names[n], official) not in whole)
    return Matched(names, words, whole, unmatched)


def _as_hidden(lies: Tensor, official: Tensor) -> tuple[Tensor, float]:
    """A tensor with the official number where it hides a key, and with which number it does that; 0: with the
    same. Minus infinity hides always, another number where a query sees another key."""
    never = official < -NEVER
    if not (lies.is_floating_point() and bool(never.any())):
        return lies, 0.0
    sees = ~never.all(dim=-1, keepdim=True)
    hidden = (lies == -math.inf) | (sees & (lies > -NEVER) & (lies <= FILLED))
    lowest = official.where(never, official.min()).to(lies.dtype)
    return torch.where(hidden, lowest, lies), float(lies[hidden].max()) if bool(hidden.any()) else 0.0


def _kind_of(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def read_names(file: Path, dump: Tensors, official: Tensors) -> dict[str, str]:
    """What `compare --write-names` wrote, and somebody may have changed. Null leaves a tensor out.

    Raises InputError for a name that the dump or the official run has not, and for two of one checkpoint.
    """
    values = files.read_json(file, 'it maps a dump\'s names to checkpoints: {"layer0_q": "h.0.attn.query"}')
    check(values, Each(or_null(WORD), MOST, TEXT), f"{file}: ")
    names = {name: checkpoint for name, checkpoint in values.items() if checkpoint is not None}
    everything = with_parts(official)
    for name, checkpoint in names.items():
        if name not in dump:
            raise InputError(f"{file}: the dump has no tensor {shown(name)}{nearest(name, dump)}")
        if checkpoint not in everything:
            raise InputError(
                f"{file}: there is no checkpoint {checkpoint!r}{nearest(checkpoint, everything)}"
            )
    twice = [checkpoint for checkpoint, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise InputError(
            f"{file}: two tensors are said to be {twice[0]}; only one can be. Queries, keys and values that "
            "one layer makes are its thirds, with [0], [1] and [2] behind its name"
        )
    return names


# ------------------------------------------------------------------------------- one tensor and another


class Numbers:
    """A tensor, and what is asked of it again and again."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.float = tensor.is_floating_point()
        ones = tensor[_computed(tensor)].float() if self.float else torch.zeros(0)
        ones = ones if ones.numel() else torch.zeros(1)
        self.size = max(largest(ones), 1e-12) if self.float else 1.0
        self.masked = ones.numel() < tensor.numel()
        self.off = max(ROUNDED, HALF * torch.finfo(tensor.dtype).eps) if self.float else 0.0
        self.moments: list[float] = moments(ones).tolist()
        self.units: dict[tuple[int, ...] | None, Tensor] = {}

    def pointing(self, shape: tuple[int, ...] | None, places: Tensor) -> Tensor:
        """Where the computed numbers at the places [..., few] for a shape point: vectors of length 1."""
        if shape not in self.units:
            looked = self.tensor.reshape(-1)[places]
            ones = torch.where(_computed(looked), looked, 0.0).double()
            self.units[shape] = ones / ones.norm(dim=-1, keepdim=True).clamp_min(1e-150)
        return self.units[shape]

    def is_near(self, other: Numbers) -> bool:
        """Whether the moments leave it open that the numbers are the same but for rounding."""
        pairs = zip(self.moments, other.moments, strict=True)
        return all(one == two or abs(one - two) <= 50 * self.off * other.size for one, two in pairs)


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
        return Fit((SAME if same else NEAR) - _further(layout, one, other) + words, layout)
    ways, few, places = _ways(tuple(tensor.shape), tuple(official.shape))
    if not ways:
        return None
    cosines = other.pointing(tensor.shape, places) @ one.pointing(None, few)
    directions = cosines.clamp_min(0.0).round(decimals=9).tolist()  # equal ones stay equal
    best = directions.index(max(directions))
    if tensor.shape == official.shape and 1 - directions[best] > NEARER * (1 - directions[0]):
        best = 0  # nothing says that it lies otherwise: neighbouring rows of a table are alike, too
    alike = LIKE * directions[best] ** SHARP * (UNMASKED if one.masked != other.masked else 1.0)
    return Fit(alike - _further(ways[best], one, other) + words, ways[best])


def _further(layout: Layout, one: Numbers, other: Numbers) -> float:
    axes, official = ([n for n in numbers.tensor.shape if n > 1] for numbers in (one, other))
    return MOVED * (not layout.plain) + CUT * (len(axes) != len(official))


def _computed(tensor: Tensor) -> Tensor:
    """Where a tensor has numbers that no mask put there."""
    return usual(tensor, BEYOND) & (tensor > FILLED)


def _layout(one: Numbers, other: Numbers) -> Layout | None:
    """How one tensor lies in another where its numbers are the same but for rounding, and what hides."""
    if not one.is_near(other):
        return None
    own, rounded = (t.float().clamp_min(FILLED) for t in (one.tensor, other.tensor.to(one.tensor.dtype)))
    if difference(own.flatten().sort().values, rounded.flatten().sort().values) > one.off * other.size:
        return None  # no order of the same numbers
    return layout_of(own, rounded, one.off * other.size)


@functools.lru_cache(maxsize=1024)
def _ways(shape: tuple[int, ...], official: tuple[int, ...]) -> tuple[list[Layout], Tensor, Tensor]:
    """Layouts after which an official tensor has this shape's axes, or with neighbours of them made one; the
    few numbers that are looked at; and for each layout where in the official tensor these lie."""
    every, numbers = itertools.islice(layouts(shape, official), 2000), torch.arange(math.prod(shape))
    ways = list(itertools.islice((one for one in every if _becomes(one, shape)), TRIED))
    few = numbers[:: max(1, len(numbers) // FEW)]
    return ways, few, torch.stack([one.of(numbers, shape).reshape(-1)[few] for one in ways] or [few])


def _becomes(layout: Layout, shape: tuple[int, ...]) -> bool:
    """Whether axes as this layout has them become those of a shape by making neighbours one; or, where
    nothing moves, by cutting some."""
    moved = {*itertools.accumulate((layout.dims[axis] for axis in layout.order), operator.mul)}
    own = {*itertools.accumulate((n for n in shape if n > 1), operator.mul)}
    return own <= moved or (layout.plain and moved <= own)


# ------------------------------------------------------------------------------------- names and patterns


def _groups(names: Iterable[str]) -> dict[str, tuple[str, dict[str, int]]]:
    """Of each name that has numbers what is left without its block's, and the names of which the same is
    left, each with its block. The block's number is the one of which most names have the same choice, 0, 1
    and 2; and the first of such."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in names:
        for rest, number in _cut(name):
            numbers[rest].add(number)
    having = Counter(
        choice for name in names for choice in {frozenset(numbers[rest]) for rest, _ in _cut(name)}
    )

    def rank(cut: tuple[str, int]) -> tuple[int, int]:
        return -having[frozenset(numbers[cut[0]])], cut[0].index("#")

    kinds = {name: min(cuts, key=rank) for name in names if (cuts := list(_cut(name)))}
    groups: dict[str, dict[str, int]] = defaultdict(dict)
    for name, (rest, number) in kinds.items():
        groups[rest][name] = number
    return {name: (rest, groups[rest]) for name, (rest, _) in kinds.items()}


def _cut(name: str) -> Iterator[tuple[str, int]]:
    """A name without one of its numbers, and that number; for each of them, and for equal ones together, as
    in `layer0/layer0_ln_1`."""
    numbers = list(NUMBER.finditer(name))
    together = (some for size in (2, 3) for some in itertools.combinations(numbers[:SEVERAL], size))
    for some in ((number,) for number in numbers), together:
        for places in some:
            if len({place[0] for place in places}) == 1:
                rest = name
                for place in reversed(places):
                    rest = f"{rest[: place.start()]}#{rest[place.end() :]}"
                yield rest, int(places[0][0][:9])


def in_any_block(names: Names) -> dict[str, tuple[str, str]]:
    """Of each name and its checkpoint both with `#` for the block's number, if other blocks have it, too."""
    patterns = {name: (name, checkpoint) for name, checkpoint in names.items()}
    for name, (rest, group) in _groups(names).items():
        if len(group) > 1:
            patterns[name] = rest, next(_cut(names[name]), (names[name], 0))[0]
    return patterns


def _alike(name: str, checkpoint: str) -> float:
    """How alike two names are, from 0 to 1: half of it the checkpoint's last word, for what stands before it
    many have."""
    checkpoint = re.sub(r"\[([012])\]$", lambda third: f".{THIRDS[int(third[1])]}", checkpoint)
    name, last = name.lower()[-LONGEST:], re.split("[./]", checkpoint.lower())[-1]
    one, other = (re.sub(r"[^a-z0-9]+", " ", text).strip() for text in (name, checkpoint.lower()))
    best = max(_ratio(word, last) for word in {*re.split("[./]", name), *re.split("[^a-z]+", name)})
    return (_ratio(one, other) + best) / 2


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher[str](None, one, other, autojunk=False).ratio()
