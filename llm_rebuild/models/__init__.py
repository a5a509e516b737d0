"""The rebuilds, one file an architecture. They import torch and each other's neighbours, nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from llm_rebuild.checkpoints import Checkpoint, expand
from llm_rebuild.errors import InputError
from llm_rebuild.models.config import shapes
from llm_rebuild.weights import Weights

# config.json's model_type -> the file that rebuilds it
FAMILIES = {"bert": "minilm", "gpt2": "gpt2", "t5": "t5"}


@dataclass(frozen=True)
class Rebuild:
    """One architecture at one size: the module to run, and what its config says.

    module  `llm_rebuild.models.minilm` or a sibling: `forward` and `CHECKPOINTS`.
    layout  The module beside it that knows the files: `Config`, `WEIGHTS`, `UNUSED`.
    """

    module: ModuleType
    layout: ModuleType
    config: Any

    @property
    def decodes(self) -> bool:
        """Whether the model writes a text token by token, and takes a cache of keys and values for it."""
        return hasattr(self.module, "Cache")

    def checkpoints(self, conditions: Collection[str]) -> list[Checkpoint]:
        """Every checkpoint of a run under these conditions, in order."""
        return expand(self.module.CHECKPOINTS, self.config.depth, {*conditions, *self.config.conditions})

    def conditions(self, weights: Weights) -> set[str]:
        """What the weight file adds to the conditions of a run: the optional parts that it has."""
        return {key.partition(".")[0] for key in self.layout.OPTIONAL if key in self.renamed(weights)}

    def shapes(self, weights: Weights | None = None) -> dict[str, tuple[int, ...]]:
        """The keys that the weight file must have, and their shapes; with `weights` also those of the
        optional parts that it has."""
        there = self.renamed(weights) if weights is not None else {}
        optional = {k: w for k, w in self.layout.OPTIONAL.items() if k in there or k in self.config.needed}
        return shapes(self.layout.WEIGHTS | optional, self.config, self.config.depth)

    def renamed(self, weights: Weights) -> Weights:
        """The weights under the names that checkpoints have: without the prefix that some files add."""
        prefix = self.layout.PREFIX + "."
        return Weights({key.removeprefix(prefix): t for key, t in weights.peek().items()}, weights.file)

    def check(self, weights: Weights) -> None:
        """Refuse weights that do not fit the config. Raises InputError."""
        for stack, blocks in self.config.depth.items():
            if blocks > len(weights):  # before a list of that many keys is made
                raise InputError(f"config.json: {blocks} blocks in {stack}; the weight file has fewer keys")
        self.renamed(weights).check(self.shapes(weights), self.layout.UNUSED)


def rebuild_for(config: Mapping[str, Any]) -> Rebuild:
    """The rebuild that a config.json asks for. Raises InputError for other architectures."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InputError(
            f"config.json: model_type is {model_type!r}; there is a rebuild for {known} only, while `map`, "
            "`capture` and `check` work on any text model"
        )
    name = FAMILIES[model_type]
    module = importlib.import_module(f"llm_rebuild.models.{name}")
    layout = importlib.import_module(f"llm_rebuild.models.{name}_layout")
    return Rebuild(module, layout, layout.Config.read(config))
