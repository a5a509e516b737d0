"""A read-only, memory-mapped view of a safetensors file that remembers what was read.

Nothing is copied: a tensor is a window on the file's pages, which the operating system brings in
when a number is first used. Only numbers of another type than the one that is asked for are copied: they
become that type, as the official model has them when it computes in it. The mapping is private (copy on
write), so even a program that writes into a weight by mistake changes its own memory and never the
file; `written()` tells. The pages of a large file are given back while it is read, so that a model need
not fit into memory.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm_rebuild.checkpoints import join
from llm_rebuild.errors import InputError, NoSuchNameError, listed, one_line
from llm_rebuild.files import check_regular, read_json
from llm_rebuild.json_fields import shown

# What to do where a weight file and a config.json contradict each other.
SAME = "take both files from the same model"
# The types of number that a file may have, and a model may compute in.
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

# Of a file of so many bytes the pages are given back, each time that so many of its bytes were handed out.
LARGE, AT_ONCE = 1_000_000_000, 32_000_000
PAGE, PAGE_OUT = 4096, 21  # Linux: the smallest page, and the advice that pages are not needed for now


class Numbers(TypedDict, total=False):
    """What a model computes with: the type of number, one of DTYPES or `auto`, that of the weight file; and
    the device, as torch calls it. Where nothing is said, `float32` on the `cpu`."""

    dtype: str
    device: str


class Pages:
    """The memory that a file's tensors are windows on: neighbours as one span."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.spans: list[tuple[int, int]] = []
        for start, end in sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors):
            if self.spans and start <= self.spans[-1][1] + PAGE:
                start, end = self.spans[-1][0], max(end, self.spans.pop()[1])
            self.spans.append((start, end))
        self._handed_out = 0

    @property
    def large(self) -> bool:
        """Whether it is so much that pages are given back."""
        return sum(end - start for start, end in self.spans) >= LARGE

    def use(self, tensor: Tensor) -> None:
        """Note that a tensor is about to be read. Of a large file, pages that were read before go."""
        self._handed_out += tensor.nbytes
        if self._handed_out >= AT_ONCE and self.large:
            self.give_back()

    def give_back(self) -> None:
        """Let the system take the pages; a number that is used again brings its page in again. What a program
        has written into one is kept."""
        self._handed_out = 0
        for start, end in self.spans if sys.platform == "linux" else ():
            first = -(-start // PAGE) * PAGE
            if first < end:
                ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), PAGE_OUT)


class Weights(Mapping[str, Tensor]):
    """The tensors of a weight file by key, or of the part of it under a path.

    `weights.at("encoder.layer.0")["attention.self.query.weight"]` is
    `weights["encoder.layer.0.attention.self.query.weight"]`.
    """

    def __init__(self, tensors: Mapping[str, Tensor], file: Path | None = None) -> None:
        """From tensors at hand. `Weights.open` is the usual way."""
        self.file = file
        self._tensors = dict(tensors)
        self.pages = Pages(self._tensors.values())
        self._path = ""
        self._read: set[str] = set()

    @classmethod
    def open(
        cls,
        file: str | Path,
        advice: str = "download it again",
        dtype: str = "float32",
        device: str = "cpu",
        wide: Collection[str] = (),
    ) -> Weights:
        """Map a safetensors file. The library checks the header against the file's real length.

        dtype   What numbers with decimals become, one of DTYPES; `auto` leaves them as they are.
        device  Where they are wanted: `cpu`, or what torch calls another.
        wide    Words of keys whose numbers stay float32 where the others become float16.
        Raises InputError, which ends in `advice`, where it is no such file, or cut short.
        """

        def placed(key: str, tensor: Tensor) -> Tensor:
            """A tensor of the file, in its type and at its place."""
            wanted = "float32" if dtype == "float16" and is_wide(key, wide) else dtype
            decimals = tensor.dtype in DTYPES.values()
            return tensor.to(device, DTYPES.get(wanted) if decimals else None)

        file = Path(file)
        check_regular(file)  # a pipe would be waited for
        try:
            with safe_open(file, framework="pt") as opened:
                tensors = {key: placed(key, opened.get_tensor(key)) for key in opened.keys()}  # noqa: SIM118
            with file.open("rb") as header:  # of a key that stands twice the library takes the last
                read_json(file, advice, text=header.read(int.from_bytes(header.read(8), "little")).decode())
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{file} is not a whole safetensors file ({one_line(error)}); {advice}"
            ) from None
        return cls(tensors, file)

    def at(self, part: str) -> Weights:
        """The view of one part of the model. It shares the record of what was read."""
        view = copy.copy(self)
        view._path = join(self._path, part)
        return view

    def __getitem__(self, key: str) -> Tensor:
        full = join(self._path, key)
        try:
            tensor = self._tensors[full]
        except KeyError:
            where = self.file.name if self.file else "the weights"
            raise NoSuchNameError(f"{where} has no tensor {full!r}") from None
        self._read.add(full)
        self.pages.use(tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        """Keys below this path, in the file's order."""
        if not self._path:
            return iter(self._tensors)
        prefix = self._path + "."
        return (key[len(prefix) :] for key in self._tensors if key.startswith(prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and join(self._path, key) in self._tensors

    @property
    def read(self) -> frozenset[str]:
        """Full keys that were read so far, by this view or any other of the same file."""
        return frozenset(self._read)

    def unread(self) -> list[str]:
        """Full keys that nothing has read yet."""
        return [key for key in self._tensors if key not in self._read]

    def written(self) -> list[str]:
        """Full keys whose numbers were changed in memory. A rebuild must leave this empty."""
        return [key for key, tensor in self._tensors.items() if tensor._version > 0]

    def peek(self) -> Mapping[str, Tensor]:
        """All tensors of the file by full key, without counting them as read: for those who watch."""
        return self._tensors

    def check(self, shapes: Mapping[str, tuple[int, ...]], unused: Mapping[str, str]) -> None:
        """Refuse a file that is not what the config promises, before any number is used.

        shapes  The shape that every needed key must have.
        unused  Patterns of keys that a file may hold and the rebuild does not read, each with the reason;
                see `reason`.
        Raises InputError for missing or unknown keys, other shapes, a dtype that no weight has, and for
        numbers that are not finite.
        """
        name = self.file.name if self.file else "the weights"
        missing = [key for key in shapes if key not in self._tensors]
        if missing:
            raise InputError(f"{name} lacks {listed(missing)}; it does not fit its config.json: {SAME}")
        extra = [k for k in self._tensors if k not in shapes and reason(k, unused) is None]
        if extra:
            raise InputError(f"{name} holds {listed(extra)}, which its config.json does not explain; {SAME}")
        for key, shape in shapes.items():
            tensor = self._tensors[key]
            self.pages.use(tensor)
            if tuple(tensor.shape) != shape:
                raise InputError(
                    f"{name}: {key} has shape {list(tensor.shape)}, its config.json says {list(shape)}; "
                    f"{SAME}"
                )
            if tensor.dtype not in DTYPES.values():
                dtype = str(tensor.dtype).removeprefix("torch.")
                raise InputError(
                    f"{name}: {key} is {dtype}; weights are of {', '.join(DTYPES)}: convert it and save it "
                    "anew"
                )
            if not bool(torch.isfinite(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
                ends = tensor.dtype == torch.float16
                raise InputError(
                    f"{name}: {key} has numbers that are not finite (NaN or infinity)"
                    f"{', or beyond 65504, where float16 ends' if ends else ''}; download it again, or "
                    f"{'take another type' if ends else 'save it before they arise'}"
                )


def is_wide(key: str, wide: Collection[str]) -> bool:
    """Whether one of these words stands in a key's path."""
    return any(word in wide for word in key.split("."))


def computing_on(device: str) -> contextlib.AbstractContextManager[Any]:
    """While the block runs, new tensors are made there."""
    return contextlib.nullcontext() if device == "cpu" else torch.device(device)


def check_numbers(dtype: str, device: str) -> None:
    """Refuse a type that there is none of, a device that is not there, or one that does not compute in that
    type. Raises InputError."""
    if dtype not in DTYPES:
        raise InputError(f"dtype is {shown(dtype)}; it is one of {', '.join(DTYPES)}, or auto")
    others = [torch.accelerator.current_accelerator()] if torch.accelerator.is_available() else []
    devices = " and ".join(["cpu", *map(str, others)])
    try:
        one = torch.ones(1, 1, device=device)
    except (RuntimeError, AssertionError, ImportError, TypeError) as error:
        reason = one_line(error, 80)
        raise InputError(
            f"device {shown(device)} cannot be had ({reason}); this machine has {devices}"
        ) from None
    if one.is_meta:
        raise InputError(f"device {shown(device)} holds shapes and no numbers; this machine has {devices}")
    if one.device.type == "cpu" and device != "cpu":  # torch takes any number of one
        raise InputError(f"device {shown(device)} is no other than cpu; this machine has {devices}")
    try:
        one.to(DTYPES[dtype]) @ one.to(DTYPES[dtype])
    except (RuntimeError, TypeError, NotImplementedError) as error:
        reason = one_line(error, 80)
        raise InputError(f"{device} does not compute in {dtype} ({reason}); take another type") from None


def reason(key: str, patterns: Mapping[str, str]) -> str | None:
    """What is said of the pattern that a key fits: `{layer}` in a pattern is any number, `*` at its end is
    whatever follows. None where it fits none."""
    for pattern, why in patterns.items():
        if template(key) == pattern or (pattern.endswith("*") and key.startswith(pattern[:-1])):
            return why
    return None


def template(key: str) -> str:
    """`encoder.layer.3.output` becomes `encoder.layer.{layer}.output`."""
    return ".".join("{layer}" if part.isdigit() else part for part in key.split("."))
