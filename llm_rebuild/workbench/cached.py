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
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.copies.pins import PINS
from llm_rebuild.files import sha256_of
from llm_rebuild.models import architecture_for
from llm_rebuild.printing import notice
from llm_rebuild.verify.environment import environment

FOLDER = ".captures"
MOST = 2_000_000_000  # bytes, of all captures together
ABANDONED = 86_400  # seconds after which a half-written file is somebody's who is gone

ASK_AGAIN = 600  # seconds after which the hub is asked once more for a model that it did not give

Make = Callable[[Path], None]


def folder() -> Path:
    """Where captures are kept."""
    return local_copy.store_folder() / FOLDER


def copy_for(model: str, strict: bool = False) -> LocalCopy:
    """The local copy to check against, as `local_copy.get` has it.

    A check runs at every save. Where a model could not be had a moment ago and its miniature stood in, the
    hub is not asked each time: for ten minutes the miniature is taken at once.
    """
    asked, now = folder() / f"{model}.asked", time.time()
    known = model in PINS and not Path(model).exists()
    if known and not strict and not (local_copy.store_folder() / model).exists():
        with contextlib.suppress(OSError):
            ago = now - asked.stat().st_mtime
            if 0 <= ago < ASK_AGAIN:
                notice(
                    f"{model}: the miniature that ships with llm_rebuild, not the real model, which could "
                    f"not be had {ago / 60:.0f} min ago; `llm-rebuild download {model}` tries again"
                )
                return LocalCopy(model, local_copy.MINIATURES / model, "miniature")
    copy = local_copy.get(model, strict=strict)
    if known and copy.source == "miniature":
        with contextlib.suppress(OSError):
            asked.parent.mkdir(parents=True, exist_ok=True)
            asked.touch()
    return copy


def find(copy: LocalCopy, inputs: Mapping[str, Any], attention: str, make: Make, otherwise: Path) -> Path:
    """The file of a capture, made if it is not there.

    inputs     As for `capture`: texts or ids.
    make       Writes the capture to the path that it is given.
    otherwise  A folder to make it in where the store cannot be written.
    """
    key = key_of(copy, inputs, attention)
    place = folder()
    for file in sorted(place.glob(f"{key}.*.safetensors")):
        if file.name.split(".")[1] == sha256_of(file)[:32]:
            with contextlib.suppress(OSError):
                os.utime(file)  # used just now
            return file
        with contextlib.suppress(OSError):
            file.unlink()
    try:
        place.mkdir(parents=True, exist_ok=True)
        beside = place / f"{key}.{os.getpid()}.part"
        beside.touch()
    except OSError:
        file = otherwise / "capture.safetensors"
        make(file)
        return file
    try:
        make(beside)
        file = place / f"{key}.{sha256_of(beside)[:32]}.safetensors"
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
    tidy(place, file)
    return file


def key_of(copy: LocalCopy, inputs: Mapping[str, Any], attention: str) -> str:
    """32 hexadecimal digits that are others where anything is that the capture depends on."""
    listed: list[Any] = []
    if architecture := architecture_for(copy.config):
        all_of_them = architecture.checkpoints
        listed = [[c.name, c.source, sorted(c.only)] for c in all_of_them]  # a set has no order of its own
    about = {
        "files": dict(copy.sha256),
        "weights": sha256_of_weights(copy),
        "config": copy.config,
        "model": [copy.name, copy.source, copy.revision],
        "inputs": dict(inputs),
        "attention": attention,
        "environment": environment(),
        "checkpoints": listed,
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def sha256_of_weights(copy: LocalCopy) -> str:
    """The weight file's sum, as the local copy knows it."""
    return copy.sha256[copy.weights_file.name]


def tidy(place: Path, keep: Path) -> None:
    """Bring the folder below its limit. `keep` stays whatever its size."""
    there = []
    for file in place.iterdir():
        with contextlib.suppress(OSError):
            status = file.stat()
            if file.suffix == ".part" and time.time() - status.st_mtime > ABANDONED:
                file.unlink()
            elif file.suffix == ".safetensors" and file != keep:
                there.append((status.st_mtime, status.st_size, file))
    room = MOST - keep.stat().st_size
    for _, size, file in sorted(there, reverse=True):
        room -= size
        if room < 0:
            with contextlib.suppress(OSError):
                file.unlink()


def told(copy: LocalCopy) -> dict[str, Any]:
    """A local copy as JSON, for another process."""
    return {"name": copy.name, "folder": str(copy.folder), "source": copy.source, "revision": copy.revision}


def copy_of(told: Mapping[str, Any]) -> LocalCopy:
    """The local copy that `told` told."""
    return LocalCopy(told["name"], Path(told["folder"]), told["source"], told["revision"])
