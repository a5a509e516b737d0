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
from llm_rebuild.files import read_json, sha256_of, write
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
    about = {"name": target.name, **facts, "date": date, "llm_rebuild": __version__, "files": records}
    write(staging / PROVENANCE, json.dumps(about, indent=2) + "\n")
    replaced = staging.with_name(f"{target.name}.replaced")  # a copy that was no longer what was stored
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    staging.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    descriptor = os.open(target.parent, os.O_RDONLY)  # the new name is on disk when its folder is
    os.fsync(descriptor)
    os.close(descriptor)


def verified(folder: Path, thorough: bool, advice: str) -> dict[str, Any]:
    """What provenance.json says, and the files are as it recorded them: sizes always, sums where a time has
    changed. InputError, which ends in `advice`, where one is not."""
    about = provenance(folder, advice)
    for file, record in about["files"].items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"{path} is missing; {advice}")
        status = path.stat()
        hashed = thorough or status.st_mtime_ns != record.get("mtime_ns")
        if status.st_size != record.get("size") or (hashed and sha256_of(path) != record.get("sha256")):
            raise InputError(f"{path} is not what was stored: it was cut short or changed; {advice}")
    return about


def provenance(folder: Path, advice: str) -> dict[str, Any]:
    """What provenance.json says; of files nothing, where it does not say it as we write it."""
    about: dict[str, Any] = read_json(folder / PROVENANCE, advice)
    files = about.get("files")
    good = isinstance(files, dict) and all(isinstance(record, dict) for record in files.values())
    return {**about, "files": files if good else {}}
