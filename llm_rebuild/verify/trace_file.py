"""Tensors appended to a file as they are made, and read from it, also where it was cut off."""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from llm_rebuild.errors import InputError, one_line

# Position in the file, how many numbers, their dtype.
Place = tuple[int, int, torch.dtype]

# The dtypes that a file can hold, by their safetensors names.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER = 1 << 24  # bytes; the first one holds the texts and ids


class TensorFile:
    """Tensors appended to a file, each a safetensors file of its own, and read from it.

    A safetensors file is: eight bytes, the length of the header; the header, JSON; the numbers. What is
    noted stands in the header's `__metadata__`, with or without a tensor behind it.
    """

    def __init__(self, file: IO[bytes], path: Path | None) -> None:
        self._file, self.path = file, path
        self._end = 0
        self.places: dict[int, Place] = {}  # entry -> where its numbers are
        self._map: mmap.mmap | None = None

    @classmethod
    def new(cls, path: Path | None, about: dict[str, Any]) -> TensorFile:
        """An empty file, a temporary one without a path, that begins with a note."""
        try:
            if path is None:
                file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # open as long as the trace
            else:
                file = path.open("w+b", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from None
        made = cls(file, path)
        made.note(about)
        return made

    def note(self, event: dict[str, Any]) -> None:
        """Append an event without a tensor."""
        self._write(_header({}, event, self._end))

    def append(self, number: int, numbers: Tensor, event: dict[str, Any]) -> None:
        """numbers [count], contiguous."""
        if numbers.dtype not in _DTYPE_NAMES:
            raise InputError(f"a file cannot hold numbers of {numbers.dtype}; trace into memory instead")
        size = numbers.numel() * numbers.dtype.itemsize
        tensor = {
            f"entry/{number}": {
                "dtype": _DTYPE_NAMES[numbers.dtype],
                "shape": [numbers.numel()],
                "data_offsets": [0, size],
            }
        }
        self._write(_header(tensor, event, self._end))
        self.places[number] = (self._end, numbers.numel(), numbers.dtype)
        if size:
            self._write(numbers.view(torch.uint8).numpy().data)

    def _write(self, data: Any) -> None:
        left = memoryview(data)
        try:
            while left:
                done = self._file.write(left)
                left = left[done:]
                self._end += done
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def close(self, safely: bool) -> None:
        """No more is appended. `safely`: and it is on the disk, not on its way there."""
        if safely and self.path is not None:
            os.fsync(self._file.fileno())
        if self.path is not None:
            self._file.close()

    def read(self, number: int) -> Tensor:
        """A window on the file's pages. [count]"""
        position, count, dtype = self.places[number]
        if count == 0:
            return torch.empty(0, dtype=dtype)
        if self._map is None:
            self._map = self._mapped()
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=position)

    def _mapped(self) -> mmap.mmap:
        try:
            if self.path is None:
                return mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_COPY)
            with self.path.open("rb") as opened:
                return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} cannot be read ({one_line(error)})") from None


def _header(tensor: dict[str, Any], event: dict[str, Any], position: int) -> bytes:
    """Length and header, padded so that the numbers behind it lie at a multiple of eight bytes."""
    text = json.dumps({"__metadata__": {"llm_rebuild": json.dumps(event)}, **tensor}).encode()
    text += b" " * (-(position + 8 + len(text)) % 8)
    return struct.pack("<Q", len(text)) + text


def _unwritable(path: Path | None, error: OSError) -> InputError:
    name = "the temporary file" if path is None else str(path)
    return InputError(f"{name} cannot be written ({one_line(error)}); choose another place")


def events(opened: IO[bytes]) -> Iterator[tuple[dict[str, Any], Place | None]]:
    """Each whole event, and where its numbers are. Ends where the file does, or where it was cut off.

    Raises ValueError for what is no such file.
    """
    length, position = os.fstat(opened.fileno()).st_size, 0
    while position + 8 <= length:
        opened.seek(position)
        (size,) = struct.unpack("<Q", opened.read(8))
        if size == 0 or (position == 0 and size > _LONGEST_HEADER):
            if position == 0:
                raise ValueError("no trace file")
            return  # pages that the system had not filled yet when it stopped
        if size > min(_LONGEST_HEADER, length - position - 8):
            return
        try:
            header = json.loads(opened.read(size))
        except ValueError:
            if position == 0:
                raise ValueError("no trace file") from None
            return
        position += 8 + size
        event = json.loads(header["__metadata__"]["llm_rebuild"])
        tensors = [value for key, value in header.items() if key != "__metadata__"]
        if not tensors:
            yield event, None
            continue
        (tensor,) = tensors
        dtype, (count,), (start, end) = _DTYPES[tensor["dtype"]], tensor["shape"], tensor["data_offsets"]
        if start != 0 or type(count) is not int or count < 0 or end != count * dtype.itemsize:
            raise ValueError("no trace file")
        if end > length - position:
            return
        yield event, (position, count, dtype)
        position += end
