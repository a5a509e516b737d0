"""Messages between two processes: a JSON object, and tensors as their bytes.

They go through pipes. Nothing is unpickled, and nothing lies on the disk that a process which ends too early
would leave behind, or that somebody else could read.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import memory_of, plain

HEAD = struct.Struct(">4sQQ")  # a mark, the length of the JSON, the length of the tensors' bytes
MARK = b"llmr"
LARGEST_JSON, LARGEST = 2**26, 2**36  # bytes of one message; a pipe that holds garbage asks for more
PIPE = 2**16  # bytes that a pipe holds: so many are read at once
PIECES = 64  # of memory that are written at once
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not str(dtype).startswith(("torch.q", "torch.bits"))
}


class NoMessageError(Exception):
    """What came through the pipe is no message of this kind."""


@dataclass(frozen=True)
class Message:
    about: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class _End(io.FileIO):
    """The end of a pipe that is read from, by its descriptor; before anything is read it is waited for."""

    def __init__(self, descriptor: int, wait: Callable[[], None]) -> None:
        super().__init__(descriptor)
        self._wait = wait

    def readinto(self, into: Any) -> int | None:
        """As of any file."""
        self._wait()
        return super().readinto(into)


class Channel:
    """Two pipes, one for each direction, by their file descriptors. Several threads may send.

    wait   Is called before anything is read.
    """

    def __init__(self, reading: int, writing: int, wait: Callable[[], None] = lambda: None) -> None:
        self._reading = io.BufferedReader(_End(reading, wait), PIPE)
        self._writing = open(writing, "wb", buffering=0)  # noqa: SIM115
        self._sending = threading.Lock()

    def send(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send one message, and before it what was printed. InputError for a tensor that has no plain
        numbers, OSError where nobody reads."""
        pieces = deque(pack(about, tensors or {}))
        sys.stdout.flush()
        with self._sending:
            while pieces:
                write(self._writing.fileno(), pieces)

    def receive(self) -> Message | None:
        """The next message, waited for. None where the other side is gone; NoMessageError for garbage."""
        head = bytearray(HEAD.size)
        if not self._read(memoryview(head)):
            return None
        mark, length, size = HEAD.unpack(head)
        if mark != MARK or length > LARGEST_JSON or size > LARGEST:
            raise NoMessageError
        words = bytearray(length)
        if not self._read(memoryview(words)):
            return None
        try:
            about, listed = json.loads(words)
            message = Message(dict(about), {str(name): _empty(word, shape) for name, word, shape in listed})
            if sum(tensor.nbytes for tensor in message.tensors.values()) != size:
                raise ValueError(size)
        except (ValueError, TypeError, KeyError, RecursionError, RuntimeError):
            raise NoMessageError from None
        whole = all(self._read(_bytes(tensor)) for tensor in message.tensors.values())
        return message if whole else None

    def _read(self, into: memoryview) -> bool:
        """Fill a buffer. False where the other side is gone before it is full."""
        return not into or self._reading.readinto(into) == len(into)

    def close(self) -> None:
        """Close this end of the pipe."""
        for pipe in (self._reading, self._writing):
            with contextlib.suppress(OSError):
                pipe.close()


def write(descriptor: int, pieces: deque[memoryview]) -> None:
    """Write what the pipe takes of these pieces of memory, and take it off them."""
    count = os.writev(descriptor, list(itertools.islice(pieces, PIECES)))
    while pieces and count >= len(pieces[0]):
        count -= len(pieces.popleft())
    if count:
        pieces[0] = pieces[0][count:]


def pack(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[memoryview]:
    """A message as the pieces of memory to be sent. InputError for a tensor that has no plain numbers."""
    parts = {name: plain(tensor, f"{name} is").contiguous() for name, tensor in tensors.items()}
    listed = [[name, str(t.dtype).removeprefix("torch."), list(t.shape)] for name, t in parts.items()]
    words = json.dumps([dict(about), listed]).encode()
    head = HEAD.pack(MARK, len(words), sum(tensor.nbytes for tensor in parts.values()))
    return [memoryview(head + words), *(_bytes(tensor) for tensor in parts.values())]


def _bytes(tensor: Tensor) -> memoryview:
    """A plain tensor's memory."""
    return memory_of(tensor).numpy().data if tensor.numel() else memoryview(b"")


def _empty(word: str, shape: list[int]) -> Tensor:
    """Room for a tensor, where torch itself would put it in memory: bits can depend on where numbers lie."""
    if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) > LARGEST:
        raise ValueError(shape)
    return torch.empty(shape, dtype=DTYPES[word], device="cpu")
