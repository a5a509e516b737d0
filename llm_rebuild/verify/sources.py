"""Where the official model computes each checkpoint, read off a trace."""

from __future__ import annotations

from collections.abc import Iterable

from llm_rebuild.checkpoints import Checkpoint, join
from llm_rebuild.verify.entries import Entry, Returned, Trace


def locate(traced: Trace, checkpoints: Iterable[Checkpoint]) -> dict[str, Entry]:
    """The entries that are these checkpoints, by name: where the official model computes each, its `source`
    says. A checkpoint that was not computed is left out."""
    final: dict[int, Entry] = {}  # computed entry -> the view that is the product in its final shape
    made: dict[tuple[str, str], list[Entry]] = {}  # path and operation -> what it made there, call by call
    returned: dict[str, tuple[Entry, Returned]] = {}  # module -> its first answer
    entry: Entry | None
    for entry in traced.entries:
        if entry.view_of is None:
            made.setdefault((entry.path, entry.operation), []).append(entry)
        elif entry.aten == "aten._unsafe_view":
            final.setdefault(entry.view_of, entry)
        for module in entry.returned:
            returned.setdefault(module.name, (entry, module))
    entries: dict[str, Entry] = {}
    for checkpoint in checkpoints:
        path, event = source_of(checkpoint)
        entry = None
        if path in returned and event in ("returned", "given"):
            answer, module = returned[path]
            entry = answer if event == "returned" else traced.entries[module.given[0]]
        elif "[" in event:
            operation, _, call = event.removeprefix("into ").rstrip("]").partition("[")
            candidates = made.get((path, operation), ())
            if int(call) < len(candidates):
                entry = candidates[int(call)]
                if event.startswith("into "):
                    entry = traced.entries[entry.inputs[0]]
                entry = final.get(entry.number, entry)
        if entry is not None:
            entries[checkpoint.name] = entry
    return entries


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
