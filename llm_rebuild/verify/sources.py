"""Where the official model computes each checkpoint: what is looked for while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import Checkpoint, join, tensors_in
from llm_rebuild.verify.operations import answer_of

Named = list[tuple[str, Tensor]]  # checkpoints, by name


class Sources:
    """Tells which of a run's tensors are checkpoints. Where each is computed, its `source` says."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self.names: list[str] = []
        # What is looked for. Module -> operation -> call -> (name, whether what goes into it is meant).
        self._calls: dict[str, dict[str, dict[int, list[tuple[str, bool]]]]] = {}
        self._modules: dict[str, list[tuple[str, bool]]] = {}  # module -> (name, whether what it is given is)
        self._count: Counter[tuple[str, str]] = Counter()
        for checkpoint in checkpoints:
            self.names.append(checkpoint.name)
            path, event = source_of(checkpoint)
            if event in ("returned", "given"):
                self._modules.setdefault(path, []).append((checkpoint.name, event == "given"))
            else:
                operation, _, call = event.removeprefix("into ").rstrip("]").partition("[")
                calls = self._calls.setdefault(path, {}).setdefault(operation, {})
                calls.setdefault(int(call), []).append((checkpoint.name, event.startswith("into ")))

    def computed(self, operation: str, path: str, arguments: tuple[Any, ...], result: Any) -> Named:
        """The checkpoints that an operation shows: what it gave, or what went into it. To be asked of every
        operation of the module at that path, in order."""
        calls = self._calls.get(path, {}).get(operation)
        output = None if calls is None else answer_of(result)
        if calls is None or output is None or not output.is_floating_point():
            return []
        call = self._count[path, operation]
        self._count[path, operation] = call + 1
        return [(name, tensors_in(arguments)[0] if into else output) for name, into in calls.get(call, ())]

    def returned(self, path: str, arguments: tuple[Any, ...], result: Any) -> Named:
        """The checkpoints that a module shows: what it returned, or what it was given. The first time that it
        does more than hand on what it was given."""
        if path not in self._modules:
            return []
        inputs, answer = tensors_in(arguments), answer_of(result)
        if answer is None or any(answer is tensor for tensor in inputs):
            return []
        return [
            (name, next(t for t in inputs if t.is_floating_point()) if into else answer)
            for name, into in self._modules.pop(path)
        ]


def source_of(checkpoint: Checkpoint) -> tuple[str, str]:
    """Where to look for a checkpoint: the module's path and the event."""
    source = checkpoint.source
    if source == "output":  # the official module of this very name
        return checkpoint.name, "returned"
    parent, _, _ = checkpoint.name.rpartition(".")
    path, colon, event = source.partition(": ")
    if not colon:
        path, event = parent, source
    if event.startswith("into ") and "[" not in event:  # what a part was given
        return join(path, event.removeprefix("into ")), "given"
    return path, event
