"""Files of tensors under somebody's own names: safetensors, npz, npy, or what transformers' debugger wrote.

Whatever framework a port is written in, it can write one of these. Nothing in them is believed: no size, no
name, and nothing is ever unpickled.
"""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from llm_rebuild import files
from llm_rebuild.checkpoints import plain
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.weights import DTYPES, Weights

MOST = 10_000  # tensors of a dump; GPT-2's every checkpoint for one text are some 300
LARGEST = 4 * 2**30  # bytes of its numbers
AXES = 32  # of one of them
# What numpy ends with where a header is none; a memory error is the parser's.
NO_ARRAY = (ValueError, TypeError, EOFError, SyntaxError, MemoryError, RecursionError)
ENDINGS = (*files.TENSORS, ".json")


def read_dump(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of all files of a folder, by name.

    A tensor of a folder's npy file is called as the file is, `layers/0/query`; a debugger's as its module.
    Raises InputError for what is no such file, is cut short, holds objects, or more than can be meant.
    """
    named: dict[str, Tensor] = {}
    size = 0
    for name, tensor in _tensors(path):
        if name in named:
            raise InputError(f"{path}: two tensors are called {name[:100]!r}; give each a name of its own")
        size += tensor.nbytes
        if len(named) == MOST or size > LARGEST:
            raise _too_much(path)
        named[name] = tensor
    if not named:
        raise InputError(f"{path} holds no tensors; {_wanted()}")
    return named


def check_ending(path: Path) -> None:
    """Refuse a name that says no format that can be written. Raises InputError."""
    if path.suffix.lower() not in (".safetensors", ".npz"):
        raise InputError(f"{path}: a dump's name ends in .safetensors or .npz")


def write_dump(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors under their names as `.safetensors` or `.npz`, whole or not at all. Raises InputError."""
    check_ending(path)
    try:
        with files.replacing(path) as part:
            if path.suffix.lower() == ".npz":
                with part.open("wb") as opened:
                    np.savez(opened, **{name: tensor.numpy() for name, tensor in tensors.items()})  # type: ignore[arg-type]
            else:
                save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {path}: {files.reason(error)}") from None


def _too_much(path: Path) -> InputError:
    return InputError(
        f"{path} holds more than {MOST:,} tensors or {LARGEST // 2**30} GiB, the most that is read"
    )


def _wanted() -> str:
    return f"a dump is a file, or a folder of files, whose names end in {', '.join(ENDINGS)}"


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    if not path.is_dir():
        files.check_regular(path, _wanted())
        yield from _reader(path)(path, path.stem)
        return
    listed = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
    reports = [file for file in listed if file.name.endswith("_FULL_TENSORS.json")]
    for file in reports or [file for file in listed if file.suffix.lower() != ".json"]:
        yield from _reader(file)(file, file.relative_to(path).with_suffix("").as_posix())


def _reader(file: Path) -> Callable[[Path, str], Iterator[tuple[str, Tensor]]]:
    readers = dict(zip(ENDINGS, (_safetensors, _npz, _npy, _debugger), strict=True))
    if file.suffix.lower() not in readers:
        raise InputError(f"{file}: {_wanted()}")
    return readers[file.suffix.lower()]


def _safetensors(file: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in Weights.open(file, "save it anew", dtype="auto").peek().items():
        decimals = tensor.is_floating_point() or tensor.is_complex()
        if decimals and tensor.dtype not in DTYPES.values():
            raise InputError(f"{file}: {key[:100]} is {tensor.dtype}; save it in {', '.join(DTYPES)}")
        yield key, tensor


def _npz(file: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > MOST or sum(entry.file_size for entry in entries) > LARGEST:
                raise _too_much(file)  # before anything is unpacked
            for entry in entries:
                key = entry.filename.removesuffix(".npy")
                with archive.open(entry) as opened:
                    yield key, _array(opened, entry.file_size, f"{file}: {key[:100]}")
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"{file} is not a whole npz file ({one_line(error)})") from None


def _npy(file: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    files.check_regular(file)
    with file.open("rb") as opened:
        yield name, _array(opened, file.stat().st_size, str(file))


def _array(opened: IO[bytes], size: int, name: str) -> Tensor:
    """One array in numpy's format. `size` is how many bytes there are; a header may say anything."""
    try:
        version = npy.read_magic(opened)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns_first, dtype = read(opened)
        if dtype.hasobject or dtype.fields or dtype.kind not in "fiub" or dtype.itemsize > 8:
            raise InputError(f"{name} holds {dtype}; save it in float32 (nothing is unpickled)")
        count = math.prod(shape)
        if len(shape) > AXES:
            raise InputError(f"{name} has {len(shape)} axes; {AXES} are the most")
        if count * dtype.itemsize > min(size, LARGEST):
            raise InputError(
                f"{name} says that its shape is {str(shape)[:60]}, which is more than the file holds"
            )
        data = opened.read(count * dtype.itemsize)
        array = np.frombuffer(data, dtype=dtype, count=count)
        array = array.reshape(shape, order="F" if columns_first else "C")
        native = array.astype(dtype.newbyteorder("="), order="C")
    except (*NO_ARRAY, tokenize.TokenError) as error:
        raise InputError(f"{name} is not a whole numpy array ({one_line(error)})") from None
    return plain(native, f"{name} is")


def _debugger(file: Path, name: str) -> Iterator[tuple[str, Tensor]]:
    """What transformers' `model_addition_debugger_context` wrote: a tree of modules. Numbers are in files
    beside it where it was run with `use_repr=False`; else the file has printed tensors, which lack most of
    their numbers."""
    tree = files.read_json(file, _wanted())
    printed = False
    stack: list[Any] = [tree]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict):
            continue
        children = node.get("children")
        stack += reversed(children) if isinstance(children, list) else []
        outputs, path = node.get("outputs"), str(node.get("module_path", ""))
        for number, value in enumerate(outputs if isinstance(outputs, list) else [outputs]):
            saved = value.get("value") if isinstance(value, dict) else None
            printed |= isinstance(saved, list)
            if isinstance(saved, str) and saved.endswith(".safetensors"):
                saved_as = file.with_name(Path(saved).name)  # never anywhere else, whatever it says
                tensors = dict(_safetensors(saved_as, ""))
                if set(tensors) != {"data"}:
                    raise InputError(f"{saved_as} is not what the debugger writes: one tensor called data")
                yield path if number == 0 else f"{path}[{number}]", tensors["data"]
    if printed:
        raise InputError(
            f"{file} holds printed tensors, which lack most of their numbers; run "
            "model_addition_debugger_context(..., use_repr=False)"
        )
