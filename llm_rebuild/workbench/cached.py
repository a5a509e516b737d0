"""Captures that are kept, so that the official model runs once for the same inputs.

A capture's file is named by what it depends on (the weights, the inputs, the attention, the versions, the
environment that bits depend on) and by its own sha256. So it is whole or it is not there, one that is broken
is made again, and one that was made for anything else is not found. Their folder does not grow for ever: what
was not used for the longest time goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.copies.pins import PINS
from llm_rebuild.errors import InputError
from llm_rebuild.files import PART, sha256_of
from llm_rebuild.printing import notice
from llm_rebuild.verify.capture import FORMAT
from llm_rebuild.verify.environment import environment

FOLDER = ".captures"
# What else a capture's file holds: what was done in the run, as `diagnosis/reading/stored.py` says it, and
# the tensors of the pass before it.
RECORD, PROMPT = "record", "prompt"
FORMATS = [FORMAT, "record 2", "prompt 1"]
MOST = 2_000_000_000  # bytes, of all captures together
LEFT = 3600  # seconds after which what is half-written was left by somebody who is gone
ASK_AGAIN = 600  # seconds after which the hub is asked once more for a model that it did not give


def folder() -> Path:
    """Where captures are kept."""
    return local_copy.store_folder() / FOLDER


def copy_for(model: str, strict: bool = False) -> LocalCopy:
    """The local copy to check against, as `local_copy.get` has it.

    A check runs at every save. Where a model could not be had a moment ago and its miniature stood in, the
    hub is not asked each time: for ten minutes the miniature is taken at once.
    """
    asked, now = folder() / f"{model}.asked", time.time()
    published = model in PINS and not Path(model).exists()
    if published and not strict and not (local_copy.store_folder() / model).exists():
        with contextlib.suppress(OSError):
            ago = now - asked.stat().st_mtime
            if 0 <= ago < ASK_AGAIN:
                notice(
                    f"{model}: the miniature that ships with llm_rebuild, not the real model, which could "
                    f"not be had {ago // 60 + 1:.0f} min ago; `llm-rebuild download {model}` tries again"
                )
                return LocalCopy(model, local_copy.MINIATURES / model, "miniature")
    copy = local_copy.get(model, strict=strict)
    if published and copy.source == "miniature":
        with contextlib.suppress(OSError):
            asked.parent.mkdir(parents=True, exist_ok=True)
            asked.touch()
    return copy


@contextlib.contextmanager
def writable() -> Iterator[Path]:
    """The folder of the captures, made if it is not there; where it cannot be written, one that lasts only
    for a while."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder()):
            pass
    except OSError:
        with tempfile.TemporaryDirectory(prefix="llm-rebuild-") as temporary:
            yield Path(temporary)
        return
    yield folder()


def find(copy: LocalCopy, about: Mapping[str, Any], make: Callable[[Path], None], store: Path) -> Path:
    """The file of a capture, made if it is not there.

    about  What was run: what the model reads, the attention.
    make   Writes the capture to the path that it is given.
    store  The folder to keep it in.
    """
    key = key_of(copy, about)
    for file in sorted(store.glob(f"{key}.*.safetensors")):
        if file.is_file() and _whole(file):
            with contextlib.suppress(OSError):
                os.utime(file)  # used just now
            return file
        with contextlib.suppress(OSError):
            file.unlink()
    part = store / f".{os.getpid()}.{key}{PART}"
    try:
        make(part)
        file = store / f"{key}.{sha256_of(part)[:32]}.safetensors"
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    tidy(store, file)
    return file


def _whole(file: Path) -> bool:
    """Whether a file is a capture, and the one that its name says, to the bit."""
    try:
        contents(file)
        return file.name.split(".")[1] == sha256_of(file)[:32]
    except (SafetensorError, KeyError, ValueError, TypeError, InputError, OSError):
        return False


def contents(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Of a capture what the model read, and the names: the official tensors stay on the disk."""
    about, read = more(file, "llm_rebuild", "inputs")
    return read, list(about["order"])


def more(file: Path, name: str, prefix: str = "") -> tuple[Any, dict[str, Tensor]]:
    """What stands there under a name, and the tensors of this prefix, else of this name. They are copies: a
    tensor of this library is a window on the whole file."""
    start = f"{prefix or name}/"
    with safe_open(file, framework="pt") as opened:
        words = json.loads(opened.metadata()[name])
        keys = [key for key in opened.keys() if key.startswith(start)]  # noqa: SIM118
        tensors = {key.removeprefix(start): opened.get_tensor(key).clone() for key in keys}
    return words, tensors


def key_of(copy: LocalCopy, about: Mapping[str, Any]) -> str:
    """32 hexadecimal digits that are others where anything is that the capture depends on."""
    checkpoints = copy.architecture.checkpoints if copy.architecture else ()
    everything = {
        "format": FORMATS,
        "files": states(copy),
        "config": copy.config,
        "model": [copy.name, copy.source, copy.revision],
        "about": dict(about),
        "environment": [environment(), platform.node()],
        "checkpoints": [[c.name, c.source, sorted(c.only)] for c in checkpoints],  # a set has no order
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]


def states(copy: LocalCopy) -> Any:
    """What tells that a model's files are others, without reading them, as a check runs at every save. A file
    that is written gets another `ctime`, always."""
    files = [file for pattern in ("*", "*/*.json") for file in sorted(copy.folder.glob(pattern))]
    stats = [(str(f.relative_to(copy.folder)), f.stat()) for f in files if f.is_file()]
    return [[name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats]


def tidy(store: Path, keep: Path) -> None:
    """Bring the folder below its limit, and remove what was left half-written. `keep` stays whatever its
    size."""
    for part in store.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > LEFT:
                part.unlink()
    others = []
    for file in store.glob("*.safetensors"):
        with contextlib.suppress(OSError):
            status = file.stat()
            if file != keep:
                others.append((status.st_mtime, status.st_size, file))
    room = MOST - keep.stat().st_size
    for _, size, file in sorted(others, reverse=True):
        room -= size
        if room < 0:
            with contextlib.suppress(OSError):
                file.unlink()


def reference(copy: LocalCopy) -> dict[str, Any]:
    """A local copy as JSON, for another process."""
    return {"name": copy.name, "folder": str(copy.folder), "source": copy.source, "revision": copy.revision}


def copy_of(reference: Mapping[str, Any]) -> LocalCopy:
    """The local copy that `reference` made."""
    return LocalCopy(reference["name"], Path(reference["folder"]), reference["source"], reference["revision"])
