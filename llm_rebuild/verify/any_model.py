"""What a trace says of each checkpoint: how it came to be. And any Hugging Face text model in a folder.

The course's models have a list of checkpoints, made by hand. For another model the list is what its official
code does: what each module returns, under the module's path, and what happens between modules, under the
path of the module in which it happens, `model.layers.0.self_attn.softmax[0]`. It is read off a trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, listed, one_line
from llm_rebuild.verify.entries import Trace, aside
from llm_rebuild.verify.loading import official_config, text_class
from llm_rebuild.verify.operations import facts_of
from llm_rebuild.verify.question import check
from llm_rebuild.verify.recording import Node


@dataclass(frozen=True)
class Step:
    """How a checkpoint came to be.

    kind       The class of the module that returned it, `Linear`, or the operation that made it, `matmul`.
    path       The module that returned it, or in which it was made.
    inputs     The checkpoints that went into the operation.
    arguments  The checkpoints that the module was called with.
    same_as    The checkpoint whose very numbers it has, where a module hands on what a part of it returned.
    numbers    The plain numbers among the operation's arguments.
    """

    kind: str
    path: str
    inputs: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    same_as: str | None = None
    numbers: tuple[float, ...] = ()


def checkpoints_of(traced: Trace) -> tuple[dict[str, Node], dict[str, Step]]:
    """The checkpoints of a trace by name, in the order in which they came to be, and how each was made."""
    entries: dict[str, Node] = {}
    steps: dict[str, Step] = {}
    named: dict[int, list[str]] = {}  # computed entry -> its names so far
    for _, name, entry, module in _events(traced):
        base = entry.base
        names = named.get(base, [])
        inputs = _names(traced, traced.nodes[base].inputs, named)
        arguments: tuple[str, ...] = ()
        if module is not None:
            arguments = tuple(n for n in _names(traced, module.arguments, named) if n != name)
        steps[name] = Step(
            kind=module.kind if module else facts_of(traced.nodes[base].function).word,
            path=entry.call[1] if module is None else name.partition("[")[0],
            inputs=(names[-1],) if names else inputs,
            arguments=arguments,
            same_as=names[0] if names and traced.whole_of(entry) else None,
            numbers=traced.nodes[base].numbers,
        )
        named[base] = [*names, name]
        entries[name] = entry
    return entries, steps


def _events(traced: Trace) -> list[tuple[int, str, Node, Any]]:
    """Every checkpoint: since which entry, its name, where its numbers are, who returned it."""
    events: list[tuple[int, str, Node, Any]] = []
    if traced.checkpoints:
        for name, number in traced.checkpoints.items():
            node = traced.nodes[number]
            module = next((module for module in node.returned if module.name == name), None)
            events.append((number, name, node, module))
        return sorted(events, key=lambda event: event[0])
    returned = {entry.base for entry in traced if entry.returned and traced.whole_of(entry)}
    for entry in traced:
        events += [(module.at, module.name, entry, module) for module in entry.returned]
        if entry.base == entry.number and entry.number not in returned and not aside(entry):
            events.append((entry.number + 1, entry.name, entry, None))
    return sorted(events, key=lambda event: event[0])


def _names(traced: Trace, numbers: Sequence[int], named: dict[int, list[str]]) -> tuple[str, ...]:
    """The checkpoints that these entries are, or were made of where they are none themselves."""
    names: dict[str, None] = {}
    seen: set[int] = set()
    left = list(reversed(numbers))
    while left:
        base = traced.nodes[left.pop()].base
        if base in named:
            names[named[base][-1]] = None
        elif base not in seen:
            seen.add(base)
            left += reversed(traced.nodes[base].inputs)
    return tuple(names)


# ---------------------------------------------------------------------------------------- anatomy


def skeleton(copy: LocalCopy) -> nn.Module:
    """The official model's modules with shapes and no numbers."""
    check(copy, copy.weights())
    config = official_config(copy.folder)
    official = text_class(config)
    try:
        with torch.device("meta"):
            model: nn.Module = official(config)
    except Exception as error:  # each model class refuses in its own way
        raise InputError(f"config.json: transformers builds no model of it ({one_line(error)})") from error
    return model


def fitting(copy: LocalCopy, model: nn.Module) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The weight file's keys that the model uses, with their shapes, and those that it does not.

    Raises InputError where a key is missing or has another shape.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    needed = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {})
    shapes = {key: tuple(tensor.shape) for key, tensor in copy.weights().peek().items()}
    names = {  # where there are several, the last counts
        key: name
        for key in shapes
        for name in (prefix + key, key.removeprefix(prefix), key)
        if name in needed
    }
    used = {key: shapes[key] for key in names}
    unused = [key for key in shapes if key not in names]
    for key, shape in used.items():
        if shape != needed[names[key]]:
            raise InputError(
                f"{copy.weights_file.name}: {key} has shape {list(shape)}, its config.json says "
                f"{list(needed[names[key]])}"
            )
    missing = sorted(needed.keys() - names.values() - tied)
    if missing and unused:  # transformers makes the ones from the others, as it does for Mixtral's experts
        return used | {key: shapes[key] for key in unused}, []
    if missing:
        raise InputError(
            f"{copy.weights_file.name} lacks {listed(missing, 1)}; it does not fit its config.json"
        )
    return used, unused
