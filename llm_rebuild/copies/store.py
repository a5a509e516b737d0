"""Part 1: files put together beside the store, then renamed into it, so that a model is whole or absent."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_rebuild import __version__
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.files import sha256_of, to_disk
from llm_rebuild.printing import notice

PROVENANCE = "provenance.json"


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """The folder where `target` is put together, for one process at a time. A crash leaves it behind, and
    the next run takes from it what is right."""
    from filelock import FileLock, Timeout

    store, staging = target.parent, target.parent / ".staging" / target.name
    advice = "set LLM_REBUILD_STORE to another folder"
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(staging.with_name(f"{target.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notice(f"{target.name}: waiting for another process that is fetching it")
            lock.acquire()
        try:
            staging.mkdir(exist_ok=True)
            yield staging
        finally:
            lock.release()
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            shutil.rmtree(staging, ignore_errors=True)
            raise InputError(
                f"the disk is full: {target.name} was not stored in {store}; make room or {advice}"
            ) from error
        raise InputError(
            f"{target.name} cannot be stored in {store} ({one_line(error)}); {advice}"
        ) from error


def publish(staging: Path, target: Path, files: Iterable[str], facts: Mapping[str, str | None]) -> None:
    """Write provenance.json, and rename the staging folder into place with nothing else in it."""
    wanted = {staging / file for file in files}
    for path in sorted(staging.rglob("*"), reverse=True):  # a folder comes after what lies in it
        if not path.is_dir() and path not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    records = {
        file: {
            "sha256": sha256_of(staging / file),
            "size": (staging / file).stat().st_size,
            "mtime_ns": (staging / file).stat().st_mtime_ns,
        }
        for file in files
    }
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    provenance = {"name": target.name, **facts, "date": date, "llm_rebuild": __version__, "files": records}
    with (staging / PROVENANCE).open("wb") as file:
        file.write(json.dumps(provenance, indent=2).encode() + b"\n")
        to_disk(file)
    replaced = staging.with_name(f"{target.name}.replaced")  # a copy that was no longer what was stored
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    descriptor = os.open(target.parent, os.O_RDONLY)  # the new name is on disk when its folder is
    os.fsync(descriptor)
    os.close(descriptor)


def verify(folder: Path, records: Mapping[str, dict[str, Any]], thorough: bool, advice: str) -> None:
    """Compare files with what provenance.json recorded: sizes always, sums where a time has changed."""
    for file, record in records.items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"{path} is missing; {advice}")
        status = path.stat()
        hashed = thorough or status.st_mtime_ns != record.get("mtime_ns")
        if status.st_size != record.get("size") or (hashed and sha256_of(path) != record.get("sha256")):
            raise InputError(f"{path} is not what was stored: it was cut short or changed; {advice}")


def records(provenance: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What provenance.json says of each file; nothing where it does not say it as we write it."""
    files = provenance.get("files")
    good = isinstance(files, dict) and all(isinstance(record, dict) for record in files.values())
    return files if good and isinstance(files, dict) else {}
