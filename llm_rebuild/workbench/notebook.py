"""A notebook's function, sent to a process of its own.

A file can be run anew; a notebook's function has only its code and what it stands among. So these are sent:
the code, the globals that it names (functions and classes of the notebook likewise, modules by their names)
and what it closes over. They lie in a pickle, which goes from the learner's process to the learner's
process; what comes back is never pickled.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import importlib
import io
import linecache
import marshal
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from llm_rebuild.errors import InputError, one_line

SOURCE, VALUE = "source", "value"
OFFICIAL = "llm_rebuild.verify"  # captures and traces
_namespaces: dict[int, dict[str, Any]] = {}  # the globals that functions made here share, by their number


def pack(function: Callable[..., Any]) -> bytes:
    """A function and everything that it uses. Raises InputError for what cannot be sent."""
    file = io.BytesIO()
    packer = _Packer(file)
    try:
        packer.dump(function)
    except InputError:
        raise
    except Exception as error:  # what cannot be pickled says so in many ways
        raise InputError(
            f"forward uses something that cannot be sent to a process of its own ({one_line(error)}); write "
            "your rebuild into a file, and `llm-rebuild check FILE`"
        ) from None
    return pickle.dumps({VALUE: file.getvalue(), SOURCE: packer.sources})


def unpack(packed: bytes) -> tuple[Callable[..., Any], set[str]]:
    """What `pack` packed, and the names of the notebook's cells, which tracebacks then show."""
    parts = pickle.loads(packed)
    for name, lines in parts[SOURCE].items():
        linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    function: Callable[..., Any] = _Unpacker(io.BytesIO(parts[VALUE])).load()
    return function, set(parts[SOURCE])


class _Packer(pickle.Pickler):
    """Writes functions and classes that no module has by what they are made of."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.sources: dict[str, list[str]] = {}

    def reducer_override(self, value: Any) -> Any:
        """How a value is made again; NotImplemented: as pickle does it."""
        if type(value).__module__.startswith(OFFICIAL):
            raise InputError(
                f"forward uses an official {type(value).__name__.lower()}, with which it would be compared; "
                "compute it instead"
            )
        if isinstance(value, types.ModuleType):
            return importlib.import_module, (value.__name__,)
        if isinstance(value, types.FunctionType) and not _importable(value):
            name = value.__code__.co_filename
            self.sources[name] = linecache.getlines(name)
            cells = value.__closure__ or ()
            make = (marshal.dumps(value.__code__), value.__name__, id(value.__globals__), len(cells))
            return _function, make, _state(value), None, None, _fill_function
        if isinstance(value, type) and not _importable(value):
            hidden = ("__dict__", "__weakref__")
            members = {name: member for name, member in vars(value).items() if name not in hidden}
            return type(value), (value.__name__, value.__bases__, {}), members, None, None, _fill_class
        if isinstance(value, (staticmethod, classmethod)):
            return type(value), (value.__func__,)
        if isinstance(value, property):
            return property, (value.fget, value.fset, value.fdel)
        if isinstance(value, types.MappingProxyType):
            return _read_only, (dict(value),)
        if type(value).__module__ == "dataclasses":  # what a dataclass knows its fields by is there once
            return next((n for n, single in vars(dataclasses).items() if single is value), NotImplemented)
        return NotImplemented


class _Unpacker(pickle.Unpickler):
    """Finds what this module makes functions with here: by then a rebuild may not import it."""

    def find_class(self, module: str, name: str) -> Any:
        """A class or function that the pickle names."""
        return globals()[name] if module == __name__ else super().find_class(module, name)


def _importable(value: Any) -> bool:
    """Whether another process gets the same by an import, or has it anyway."""
    if value.__module__ == "builtins":
        return True
    module = sys.modules.get(value.__module__ or "")
    if module is None or module.__name__ == "__main__" or getattr(module, "__spec__", None) is None:
        return False
    for name in value.__qualname__.split("."):
        module = getattr(module, name, None)
    return module is value


def _state(function: types.FunctionType) -> dict[str, Any]:
    named = {name for name in _global_names(function.__code__) if name in function.__globals__}
    return {
        "globals": {name: function.__globals__[name] for name in sorted(named)},
        "cells": [_content(cell) for cell in function.__closure__ or ()],
        "attributes": dict(vars(function)),
        "defaults": (function.__defaults__, function.__kwdefaults__),
    }


def _global_names(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _content(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # an empty cell
        return ()


# -------------------------------------------------------------------------------- on the other side


def _function(code: bytes, name: str, namespace: int, cells: int) -> types.FunctionType:
    among = _namespaces.setdefault(namespace, {"__builtins__": builtins, "__name__": "rebuild"})
    closure = tuple(types.CellType() for _ in range(cells))
    return types.FunctionType(marshal.loads(code), among, name, None, closure)


def _read_only(items: dict[Any, Any]) -> types.MappingProxyType[Any, Any]:
    return types.MappingProxyType(items)


def _fill_function(function: types.FunctionType, state: dict[str, Any]) -> None:
    function.__globals__.update(state["globals"])
    function.__defaults__, function.__kwdefaults__ = state["defaults"]
    vars(function).update(state["attributes"])
    for cell, content in zip(function.__closure__ or (), state["cells"], strict=True):
        if content:
            cell.cell_contents = content[0]


def _fill_class(made: type, members: dict[str, Any]) -> None:
    for name, member in members.items():
        setattr(made, name, member)
