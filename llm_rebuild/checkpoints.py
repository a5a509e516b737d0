"""A checkpoint has one name.

A *checkpoint* is an interim tensor: a place in a model where the official value and the rebuilt value
can be held against each other. Its name is the same string everywhere: in the weight file's key path
(`encoder.layer.0.attention.self.query.weight` belongs to `encoder.layer.0.attention.self.query`), in
the official module path, in the rebuild's `tap(...)`, in a capture file, in a report, on a page.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from llm_rebuild.errors import InputError, one_line

ALIGNMENT = 64  # bytes: torch's own, on a processor


@dataclass(frozen=True)
class Checkpoint:
    """One interim tensor of one architecture.

    name     Where it lives. `{layer}` stands for the number of the block.
    shape    Its axes in words, `[batch, head, query, key]`.
    meaning  What it holds, in a few words.
    source   Where the official model computes it; `verify/sources.py` reads it. `output` is what the
             official module of this name returns. For what no such module returns it is an event:
             `matmul[0]` (the first product inside the module that the name's other words name),
             `into softmax[0]` (what that was given), `into c_proj` (what that part was given),
             `returned`, or the same after another module's path: `h.{layer}: add[0]`.
    only     The conditions under which the official model computes it at all. Empty: always.
    """

    name: str
    shape: str
    meaning: str
    source: str = "output"
    only: frozenset[str] = frozenset()

    def numbered(self, layer: int) -> Checkpoint:
        """The same checkpoint in one block."""
        return replace(
            self,
            name=self.name.replace("{layer}", str(layer)),
            source=self.source.replace("{layer}", str(layer)),
        )


def expand(
    checkpoints: Iterable[Checkpoint], depth: Mapping[str, int], conditions: Collection[str]
) -> list[Checkpoint]:
    """Every checkpoint of a run, in the order in which the model computes them.

    depth       How many blocks stand under a path: `{"encoder.layer": 6}`.
    conditions  What holds in this run: `{"eager"}`, `{"sdpa", "padding"}`, …

    Neighbours in the list that live in the same stack of blocks are repeated together: first all
    of block 0, then all of block 1.
    """
    happening = [c for c in checkpoints if c.only <= set(conditions)]
    run: list[Checkpoint] = []
    for stack, members in groupby(happening, key=_stack):
        if stack is None:
            run.extend(members)
        else:
            block = list(members)
            run.extend(c.numbered(layer) for layer in range(depth[stack]) for c in block)
    return run


def _stack(checkpoint: Checkpoint) -> str | None:
    """`encoder.layer.{layer}.output` stands in the stack `encoder.layer`."""
    path, layer, _ = checkpoint.name.partition(".{layer}")
    return path if layer else None


class Tap:
    """Shows interim tensors to an observer. It returns the tensor that it was given, and changes nothing.

    `tap.at("encoder.layer.0")` narrows to a part of the model just as `weights.at(...)` does, so a
    function that gets both never spells a full name.
    """

    def __init__(self, observe: Callable[[str, Tensor], None], path: str = "") -> None:
        self._observe = observe
        self._path = path

    def at(self, part: str) -> Tap:
        """A tap for one part of the model."""
        return Tap(self._observe, join(self._path, part))

    def __call__(self, name: str, tensor: Tensor) -> Tensor:
        """Show `tensor` under `name`, and return it. An empty name is the part itself: its output."""
        self._observe(join(self._path, name), tensor)
        return tensor


NO_TAP = Tap(lambda name, tensor: None)  # of a run that nobody watches


class Recorder:
    """Keeps a copy of every tensor that is tapped, in the order in which they come.

    Copies, because later steps may write into a tensor in place, and what was true at the checkpoint
    has to stay true in the record.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def tap(self) -> Tap:
        """A tap that records."""
        return Tap(self._keep)

    def _keep(self, name: str, tensor: Tensor) -> None:
        if name in self.tensors:
            raise ValueError(f"checkpoint {name!r} was tapped twice in one run")
        self.tensors[name] = plain(tensor, f"tap({name!r}, …) was given").clone()


def plain(tensor: object, words: str) -> Tensor:
    """A tensor as numbers in memory: without its gradient, and without what a subclass makes of it, of whose
    code nothing runs. It is a window on the same memory where that lies on the processor.

    Whatever shows its numbers by `__dlpack__` or `__array__` is taken: NumPy's arrays, JAX's, MLX's, CuPy's.
    Raises InputError, which begins with `words`, for what has no such numbers: no tensor, objects, texts,
    a sparse or a quantised one, one of nothing but a shape, one on a device that torch does not have.
    """
    if not isinstance(tensor, Tensor):
        tensor = _imported(tensor, words)
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:  # its numbers are what its code says
        raise InputError(f"{words} a {type(tensor).__name__}; it takes a plain tensor")
    with torch._C.DisableTorchFunctionSubclass():
        numbers = tensor.detach() if type(tensor) is Tensor else tensor.detach().as_subclass(Tensor)
        odd = numbers.layout is not torch.strided or numbers.is_quantized or numbers.is_nested
        if odd or numbers.is_meta:
            kind = "quantised" if numbers.is_quantized else "nested" if numbers.is_nested else ""
            kind = kind or str(numbers.layout).removeprefix("torch.")
            where = numbers.device.type
            raise InputError(f"{words} a {kind} tensor on {where}; it takes a plain one on the CPU")
        return numbers.cpu().resolve_conj().resolve_neg()


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor, or shows its numbers as other libraries' do."""
    protocols = ("__dlpack__", "__array__")
    return isinstance(value, Tensor) or any(callable(getattr(type(value), p, None)) for p in protocols)


def _imported(value: Any, words: str) -> Tensor:
    """What another library holds, by the protocol that it has; NumPy's comes second: it has no bfloat16."""
    kind, reason = type(value).__name__, ""
    if not is_tensor(value):
        raise InputError(f"{words} a {kind}; it takes a tensor")
    if not isinstance(value, np.ndarray | np.generic) and hasattr(value, "__dlpack__"):
        try:
            return from_dlpack(value)
        except Exception as error:  # each library refuses in its own way
            reason = one_line(error, 120)
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" and not reason:
            raise InputError(f"{words} a {kind} of {str(array.dtype)[:60]}; it takes one of real numbers")
        array = array.astype(array.dtype.newbyteorder("="), copy=min((0, *array.strides)) < 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nobody here writes into what may not be written
            return torch.from_numpy(array)
    except InputError:
        raise
    except Exception as error:
        reason = reason or one_line(error, 120)
    raise InputError(f"{words} a {kind} whose numbers cannot be had here ({reason}); give a copy on the CPU")


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among some values, in what is made of lists, tuples and dicts, too."""
    tensors: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            tensors += tensors_in(value)
        elif isinstance(value, dict):
            tensors += tensors_in(value.values())
    return tensors


def join(path: str, name: str) -> str:
    """`join("encoder.layer.0", "output")` is `encoder.layer.0.output`; either may be empty."""
    return f"{path}.{name}" if path and name else path or name


def aligned(tensor: Tensor) -> Tensor:
    """A tensor that begins where torch itself would have it begin, and not where a file does: a product of
    few rows takes its numbers in another order elsewhere, and has other bits."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def memory_of(tensor: Tensor) -> Tensor:
    """A tensor's numbers in order, as bytes: uint8 [nbytes], a window where they lie so."""
    # Of one number any stride counts as contiguous, and as bytes only 1 will do: flatten() would leave it.
    return tensor.detach().contiguous().as_strided((tensor.numel(),), (1,)).view(torch.uint8)


def part_of(name: str) -> str:
    """The part of the model that a checkpoint lives in: its numbered block, or its first word.

    `encoder.layer.0.output.dense` lives in `encoder.layer.0`, `embeddings.sum` in `embeddings`.
    """
    return block_of(name) or name.partition(".")[0]


def block_of(name: str) -> str:
    """The numbered block that a name or a path lies in, `encoder.layer.0`; empty where it is in none."""
    words = name.split(".")
    return ".".join(words[: next((number for number, word in enumerate(words, 1) if word.isdigit()), 0)])
