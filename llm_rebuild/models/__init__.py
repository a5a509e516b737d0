"""The rebuilds, one file an architecture, and beside each what its files hold. They import torch, the ground
below them, and each other's neighbours here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from llm_rebuild.checkpoints import NO_TAP, Checkpoint, Tap, expand
from llm_rebuild.errors import InputError
from llm_rebuild.json_fields import shown
from llm_rebuild.models import gpt2_config, llama_config, minilm_config, t5_config
from llm_rebuild.models.architecture import Architecture
from llm_rebuild.models.config import shapes
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.weights import SAME, Weights

RECORDS: tuple[Architecture, ...] = tuple(
    module.ARCHITECTURE for module in (minilm_config, gpt2_config, t5_config, llama_config)
)
# config.json's model_type -> the record of the architecture
ARCHITECTURES: Mapping[str, Architecture] = {
    model_type: record for record in RECORDS for model_type in (record.model_type, *record.relatives)
}


def architecture_for(config: Mapping[str, Any]) -> Architecture | None:
    """The record of the architecture that a config.json names; None for one that there is no rebuild of.

    Raises InputError where config.json names none.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise InputError(
            f"config.json: model_type is {shown(model_type)}; it has to name the model's architecture"
        )
    return ARCHITECTURES.get(model_type)


def rebuild_for(config: Mapping[str, Any]) -> Rebuild:
    """The rebuild that a config.json asks for. Raises InputError for other architectures."""
    architecture = architecture_for(config)
    if architecture is None:
        raise InputError(
            f"config.json: model_type is {shown(config['model_type'])}; there is a rebuild for "
            f"{', '.join(ARCHITECTURES)} only, while `map`, `capture` and `check` work on any text model"
        )
    return Rebuild(architecture, architecture.config.read(config))


@dataclass(frozen=True)
class Rebuild:
    """One architecture at one size: its record, and what its config says."""

    architecture: Architecture
    config: Any

    @property
    def module(self) -> ModuleType:
        """The module to run: its `forward`."""
        return self.architecture.module

    @property
    def depth(self) -> dict[str, int]:
        """How many blocks stand under which path."""
        return {stack.path: getattr(self.config, stack.blocks) for stack in self.architecture.stacks}

    def checkpoints(self, conditions: Collection[str]) -> list[Checkpoint]:
        """Every checkpoint of a run under these conditions, in order."""
        listed = self.architecture.checkpoints
        return expand(listed, self.depth, {*conditions, *self.config.conditions})

    def conditions(self, weights: Weights) -> set[str]:
        """What the weight file adds to the conditions of a run: the optional parts that it has."""
        return {k.partition(".")[0] for k in self.architecture.optional if k in self.renamed(weights)}

    def shapes(self, weights: Weights | None = None) -> dict[str, tuple[int, ...]]:
        """The keys that the weight file must have, and their shapes; with `weights` also those of the
        optional parts that it has."""
        present = self.renamed(weights) if weights is not None else {}
        needed = self.config.needed
        optional = {k: w for k, w in self.architecture.optional.items() if k in present or k in needed}
        return shapes({**self.architecture.weights, **optional}, self.config, self.depth)

    def renamed(self, weights: Weights) -> Weights:
        """The weights under the names that checkpoints have: without the prefix that a file has where it was
        saved with a head, or with that which it lacks where it was saved without, and with today's names for
        older ones. Raises InputError for a name twice."""
        body = self.architecture.body
        before = "" if any(key.startswith(body) for key in weights.peek()) else body
        tensors = {before + self._name(key): tensor for key, tensor in weights.peek().items()}
        if tensors.keys() == weights.peek().keys():
            return weights
        if len(tensors) < len(weights.peek()):
            file = weights.file.name if weights.file else "the weights"
            raise InputError(f"{file} holds tensors twice, under older and newer names; {SAME}")
        return Weights(tensors, weights.file)

    def _name(self, key: str) -> str:
        name = key.removeprefix(self.architecture.prefix)
        for older, newer in self.architecture.older_names.items():
            name = name.replace(older, newer)
        return name

    def part(self, weights: Weights, tap: Tap = NO_TAP, attention: str = "eager") -> Part[Any]:
        """The model as its functions want to have it."""
        return Part(self.renamed(weights), self.config, tap, attention)

    def run(self, batch: Batch, part: Part[Any], cache: Any = None) -> Any:
        """One pass: the module's `Output`. A model that does not generate keeps no `cache`."""
        with_cache = (cache,) if self.architecture.generates else ()
        return self.module.forward(batch, part, *with_cache)

    def check(self, weights: Weights) -> None:
        """Refuse weights that do not fit the config. Raises InputError."""
        for stack, blocks in self.depth.items():
            if blocks > len(weights):  # before a list of that many keys is made
                raise InputError(f"config.json: {blocks} blocks in {stack}; the weight file has fewer keys")
        self.renamed(weights).check(self.shapes(weights), self.architecture.unused)
