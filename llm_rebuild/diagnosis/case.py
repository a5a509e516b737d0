"""What is known before any hypothesis is tried, and what is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.formulas import World, world_of
from llm_rebuild.diagnosis.formulas.any_model import world_of_any
from llm_rebuild.diagnosis.hypotheses import Hypothesis
from llm_rebuild.models import architecture_for
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.equality import by_rounding, equal

MINE = "#mine."  # followed by a checkpoint: the tensor that the person has there


def world_for(truth: Capture, copy: LocalCopy, prompt: Capture | None = None) -> World | None:
    """The graph of a captured run: written down for the course's models, read off a trace for others."""
    if architecture_for(copy.config) is not None:
        return world_of(truth, copy, prompt)
    return world_of_any(truth, copy.config, copy.weights().peek()) if truth.steps else None


@dataclass(frozen=True)
class Case:
    """What is known before any hypothesis is tried.

    world   The official run as a graph. For other architectures there is none.
    first   The first checkpoint that is missing or differs.
    target  The first that is there and differs: what has to be explained.
    same    The checkpoints that are bit-identical.
    part    The axis and the slices to which the question is narrowed, where others are right.
    own     Whether guesses are computed from the person's own tensors, which are right but for rounding.
    """

    world: World | None
    rebuilt: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    first: str
    target: str | None
    same: frozenset[str]
    part: tuple[int, Tensor] | None = None
    own: bool = False

    @classmethod
    def of(
        cls,
        rebuilt: Mapping[str, Tensor],
        truth: Capture,
        copy: LocalCopy,
        prompt: Capture | None,
        near: bool = False,
    ) -> Case | None:
        """None where all that is there is right. `near`: what differs by rounding counts as right, too, and
        later steps are computed from the person's own tensors."""
        right = by_rounding if near else equal
        same = frozenset(n for n, t in truth.tensors.items() if n in rebuilt and right(rebuilt[n], t))
        different = [n for n in truth.tensors if n not in same]
        if not different:
            return None
        target = next((n for n in different if n in rebuilt), None)
        world = world_for(truth, copy, prompt)
        if world is not None:
            more = {f"{MINE}{n}": t for n, t in rebuilt.items() if n not in same}
            more |= {n: rebuilt[n] for n in same} if near else {}
            world = world.given(more)
        return cls(world, rebuilt, truth.tensors, different[0], target, same, own=near)

    @property
    def mine(self) -> Tensor:
        assert self.target is not None
        return self.narrowed(self.rebuilt[self.target])

    @property
    def official(self) -> Tensor:
        assert self.target is not None
        return self.narrowed(self.truth[self.target])

    def narrowed(self, tensor: Tensor) -> Tensor:
        """The part of the target, or of a guess at it, that is in question."""
        assert self.target is not None
        if self.part is None or tensor.shape != self.truth[self.target].shape:
            return tensor
        axis, places = self.part
        return tensor.index_select(axis, places)


@dataclass(frozen=True)
class Found:
    """What fits. level 2: to the bit; 1: but for rounding; 0: a description and no computation."""

    cause: str
    says: str
    level: int
    confidence: float
    site: str = ""
    hypothesis: Hypothesis | None = None


def block_output(world: World, name: str) -> int | None:
    """The number of the block whose output this is; -1 for what goes into the first block."""
    for words in (".output.LayerNorm", ".mlp.residual", ".layer.1.residual", ".layer.2.residual"):
        if (
            name.endswith(words)
            and name in world.formulas
            and not name.endswith("attention.output.LayerNorm")
        ):
            if name.startswith("decoder") and words == ".layer.1.residual":
                continue
            return next((int(word) for word in name.split(".") if word.isdigit()), None)
    last = name.rpartition(".")[2]
    if last.isdigit():
        return int(last)  # a whole block, as a module
    first = (
        "embeddings",
        "embeddings.LayerNorm",
        "encoder.embed_tokens",
        "decoder.embed_tokens",
        "model.embed_tokens",
    )
    return -1 if name in first else None
