"""What is known before anything is tried, and what is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property

from torch import Tensor

from llm_rebuild.diagnosis.exact import in_full, keeps
from llm_rebuild.diagnosis.graph import MINE, Edit, World
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.equality import ONE_SUM, apart, as_exact, by_rounding, equal, reproduces, usual


class Level(IntEnum):
    """How well something is known. What is only seen, but to the bit, comes before what was rounded."""

    GUESSED = 0
    SEEN = 1
    ROUNDED = 2
    SHOWN = 3
    EXACT = 4

    @property
    def words(self) -> str:
        """As a person reads it."""
        return DEGREES[self]


DEGREES = {
    Level.EXACT: "proved",
    Level.ROUNDED: "proved but for rounding",
    Level.SHOWN: "seen in the numbers",
    Level.SEEN: "seen in the numbers",
    Level.GUESSED: "a question",
}


@dataclass(frozen=True)
class Finding:
    """Something that fits.

    cause  Its name in the catalogue.
    says   What exactly was done, or seen.
    site   The step at which it was done, where that is not the one at which it is seen.
    edit   What was computed. None for what is seen in the numbers.
    """

    cause: str
    says: str
    level: Level
    site: str = ""
    edit: Edit | None = None


@dataclass(frozen=True)
class NothingToExplain:
    """All that was shown is right: the rest is missing.

    first  The first checkpoint that was not shown.
    """

    world: World
    rebuilt: Mapping[str, Tensor]
    first: str


@dataclass(frozen=True)
class Case:
    """A checkpoint that is there and differs, and what is known of it.

    world   The official run as a graph.
    target  The first checkpoint that is there and differs: what has to be explained.
    same    The checkpoints that are right.
    part    The axis and the slices to which the question is narrowed, where others are right.
    own     Whether guesses are computed from the person's own tensors.
    """

    world: World
    rebuilt: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    target: str
    same: frozenset[str]
    part: tuple[int, Tensor] | None = None
    own: bool = False

    @property
    def mine(self) -> Tensor:
        """The person's tensor, or the part of it that is in question."""
        return self.narrowed(self.rebuilt[self.target])

    @property
    def official(self) -> Tensor:
        """The official one, likewise."""
        return self.narrowed(self.truth[self.target])

    def narrowed(self, tensor: Tensor) -> Tensor:
        """The part of the target, or of a guess at it, that is in question."""
        if self.part is None or tensor.shape != self.truth[self.target].shape:
            return tensor
        axis, places = self.part
        return tensor.index_select(axis, places)

    def level(self, guess: Tensor | None) -> Level | None:
        """How well a guess gives the tensor at hand; None if it does not."""
        fit = 0 if guess is None else reproduces(self.narrowed(guess), self.mine, self.official)
        return {2: Level.EXACT, 1: Level.ROUNDED}.get(fit)

    @cached_property
    def rounding(self) -> bool:
        """Whether the difference is rounding: as small as another order of operations makes it and, where the
        step has a formula, no further from its result in float64 than the official tensor is. What a mask
        puts there is computed by nobody, so it does not round."""
        rebuilt, official = self.rebuilt[self.target], self.truth[self.target]
        if not by_rounding(rebuilt, official) or bool((apart(rebuilt, official) & ~usual(official)).any()):
            return False
        step = in_full(self.world, self.target)
        if step is None:
            return by_rounding(rebuilt, official, ONE_SUM)
        return keeps(self.world, self.target) or as_exact(rebuilt, step, official, step)


def case_of(rebuilt: Mapping[str, Tensor], truth: Capture, world: World) -> Case | NothingToExplain | None:
    """What has to be explained first; None where everything is right. `world`: as `world_for` gives it."""
    same = frozenset(n for n, t in truth.tensors.items() if n in rebuilt and equal(rebuilt[n], t))
    different = [n for n in truth.tensors if n not in same]
    if not different:
        return None
    target = next((n for n in different if n in rebuilt), None)
    if target is None:
        return NothingToExplain(world, rebuilt, different[0])
    world = world.given({f"{MINE}{n}": t for n, t in rebuilt.items() if n not in same})
    return Case(world, rebuilt, truth.tensors, target, same)


def own_case(rebuilt: Mapping[str, Tensor], truth: Capture, world: World, target: str) -> Case | None:
    """A checkpoint held against its step, computed from the person's own tensors: what an earlier mistake has
    made wrong is right here. None where the step cannot be computed from them, or gives just this tensor."""
    names = list(truth.tensors)
    before = {n: rebuilt[n] for n in names[: names.index(target)] if n in rebuilt}
    facts = {n: t for n, t in world.tensors.items() if n not in truth.tensors} | before
    later = {f"{MINE}{n}": t for n, t in rebuilt.items() if n not in before}
    own = replace(world, tensors={**facts, **later})
    official = own.attempt(target)
    if official is None or equal(official, rebuilt[target]):
        return None
    return Case(own, rebuilt, {**before, target: official}, target, frozenset(before), own=True)
