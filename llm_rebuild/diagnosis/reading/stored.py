"""A record as JSON and tensors, so that it can be kept beside a capture and sent to another process.

A function is stored by the dispatcher's name of it and looked up again, and nothing else is. A tensor is
stored only where it came from outside or cannot be computed again to the bit from what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.diagnosis.reading.record import Record
from llm_rebuild.errors import InputError
from llm_rebuild.verify.equality import identical
from llm_rebuild.verify.operations import overwritten
from llm_rebuild.verify.recording import NO_CALL, Node, Ref, again

_FUNCTIONS = {"matmul": torch.matmul, "overwritten": overwritten}


def store(record: Record, named: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A record as JSON, and the tensors that belong to it; not those of `named`, which the other side has."""
    tensors: dict[str, Tensor] = {}
    nodes = []
    for node in record.nodes:
        if node.name not in named and not _the_same(record, node):
            tensors[str(node.number)] = node.value.clone().contiguous()
        nodes.append(
            [_name(node.function), _plain(node.arguments), _plain(node.named), node.output, node.name]
        )
    return {"nodes": nodes, "tapped": record.tapped}, tensors


def load(stored: Mapping[str, Any], tensors: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> Record:
    """What `store` gave. Raises InputError for anything else."""
    record = Record()
    try:
        for number, (name, arguments, by_name, output, source) in enumerate(stored["nodes"]):
            function = _function(name) if name else None
            args, options = tuple(_live(arguments)), _live(by_name)
            node = Node(number, function, args, options, output, NO_CALL, (), None, name=source)
            value = tensors.get(str(number), named.get(source))
            node.value = again(node, record.nodes) if value is None else value
            record.nodes.append(node)
        for checkpoint, number in stored["tapped"].items():
            record.tapped[checkpoint] = number
            record.nodes[number].checkpoint = record.nodes[number].checkpoint or checkpoint
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError):
        raise InputError("this is no record of an official run; make it again") from None
    return record


def _the_same(record: Record, node: Node) -> bool:
    """Whether a tensor comes out of what it was made of once more, to the bit and laid out alike."""
    try:
        value = again(node, record.nodes)
        return identical(value, node.value) and bool(value.stride() == node.value.stride())
    except Exception:  # from outside, or by chance
        return False


def _name(function: Any) -> str:
    plain = next((name for name, listed in _FUNCTIONS.items() if listed is function), "")
    return plain or ("" if function is None else str(function))


def _function(name: str) -> Any:
    """`aten.mul.Tensor`, and no other program."""
    if name in _FUNCTIONS:
        return _FUNCTIONS[name]
    space, operation, overload = name.split(".")
    function = getattr(getattr(getattr(torch.ops, space), operation), overload)
    if space != "aten" or not isinstance(function, torch._ops.OpOverload):
        raise ValueError(name)
    return function


def _plain(values: Any) -> Any:
    """Arguments as JSON: `{"%node": 3}` is a tensor, `{"%torch": "float32"}` one of torch's own words."""
    if type(values) is Ref:
        return {"%node": values.node}
    if type(values) in (list, tuple):
        return [_plain(value) for value in values]
    if type(values) is dict:
        return {key: _plain(value) for key, value in values.items()}
    if values is None or type(values) in (bool, int, float, str):
        return values
    return {"%torch": str(values).removeprefix("torch.")}


def _live(values: Any) -> Any:
    """The inverse."""
    if type(values) is list:
        return [_live(value) for value in values]
    if type(values) is not dict:
        return values
    if "%node" in values:
        return Ref(int(values["%node"]))
    if "%torch" in values:
        word = getattr(torch, values["%torch"], None)
        plain = isinstance(word, (torch.dtype, torch.layout, torch.memory_format))
        return word if plain else torch.device(values["%torch"])
    return {key: _live(value) for key, value in values.items()}
