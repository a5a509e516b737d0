"""Where the official model computes each checkpoint: what is looked for while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import Checkpoint, join
from llm_rebuild.verify.recording import Note, answer_of, tensors_in


class Sources:
    """Tells which of a run's tensors are checkpoints. Where each is computed, its `source` says."""

    def __init__(self, checkpoints: Iterable[Checkpoint]) -> None:
        self.names: list[str] = []
        # What is looked for. Module -> operation -> call -> (name, whether what goes into it is meant).
        self._calls: dict[str, dict[str, dict[int, list[tuple[str, bool]]]]] = {}
        self._modules: dict[str, list[tuple[str, bool]]] = {}  # module -> (name, whether what it is given is)
        self._count: Counter[tuple[str, str]] = Counter()
        self._last: tuple[str, Tensor] | None = None
        for checkpoint in checkpoints:
            self.names.append(checkpoint.name)
            path, event = source_of(checkpoint)
            if event in ("returned", "given"):
                self._modules.setdefault(path, []).append((checkpoint.name, event == "given"))
            else:
                operation, _, call = event.removeprefix("into ").rstrip("]").partition("[")
                calls = self._calls.setdefault(path, {}).setdefault(operation, {})
                calls.setdefault(int(call), []).append((checkpoint.name, event.startswith("into ")))

    def among(self, notes: Iterable[Note]) -> Iterator[tuple[int, str, Tensor]]:
        """The checkpoints that some notes show: which note, the name, the tensor. Each note is to be shown
        once, and in order."""
        for number, (facts, (path, _), inputs, named, result) in enumerate(notes):
            if facts is None:
                if path in self._modules:
                    for name, tensor in self._returned(path, tensors_in((inputs, named)), result):
                        yield number, name, tensor
            elif path in self._calls:
                operations = self._calls[path]
                if facts.operation in operations:
                    output = answer_of(result)
                    if output is None or not output.is_floating_point():
                        continue
                    call = self._count[path, facts.operation]
                    self._count[path, facts.operation] = call + 1
                    for name, into in operations[facts.operation].get(call, ()):
                        self._last = (name, tensors_in(inputs)[0] if into else output)
                        yield number, *self._last
                elif facts.aten == "aten._unsafe_view" and self._last and inputs[0] is self._last[1]:
                    yield number, self._last[0], result  # a product gets its final shape

    def _returned(self, path: str, inputs: list[Tensor], result: Any) -> Iterator[tuple[str, Tensor]]:
        answer = answer_of(result)
        if answer is not None and not any(answer is tensor for tensor in inputs):
            for name, into in self._modules.pop(path):
                yield name, next(t for t in inputs if t.is_floating_point()) if into else answer


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
