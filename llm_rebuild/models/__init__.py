"""The rebuilds, one file an architecture. They import torch and each other's neighbours, nothing else."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from llm_rebuild.checkpoints import Checkpoint, expand
from llm_rebuild.errors import InputError
from llm_rebuild.models.config import shapes
from llm_rebuild.weights import Weights

# config.json's model_type -> the file that rebuilds it
FAMILIES = {"bert": "minilm"}


@dataclass(frozen=True)
class Rebuild:
    """One architecture at one size: the module to run, and what its config says.

    module  `llm_rebuild.models.minilm` or a sibling: `forward` and `CHECKPOINTS`.
    layout  The module beside it that knows the files: `Config`, `WEIGHTS`, `UNUSED`.
    """

    module: ModuleType
    layout: ModuleType
    config: Any

    def checkpoints(self, conditions: set[str]) -> list[Checkpoint]:
        """Every checkpoint of a run under these conditions, in order."""
        return expand(self.module.CHECKPOINTS, self.config.depth, conditions)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The keys that the weight file must have, and their shapes."""
        return shapes(self.layout.WEIGHTS, self.config, self.config.depth)

    def check(self, weights: Weights) -> None:
        """Refuse weights that do not fit the config. Raises InputError."""
        weights.check(self.shapes(), self.layout.UNUSED)


def rebuild_for(config: Mapping[str, Any]) -> Rebuild:
    """The rebuild that a config.json asks for. Raises InputError for other architectures."""
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise InputError(f"config.json: model_type is {model_type!r}; there is a rebuild for {known}")
    name = FAMILIES[model_type]
    module = importlib.import_module(f"llm_rebuild.models.{name}")
    layout = importlib.import_module(f"llm_rebuild.models.{name}_layout")
    return Rebuild(module, layout, layout.Config.read(config))
