"""Part 1: bring a model's files to this disk, from the hub, from a wheel or from a folder.

`local_copy` decides what is fetched, from where, and stores it; this module moves the bytes. Nothing that
arrives is believed: no byte more is written than the pin allows, no path from an archive is used, and a
file whose size or sha256 is not the pinned one is deleted and refused by its name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from llm_rebuild import __version__
from llm_rebuild.errors import InputError, one_line

if TYPE_CHECKING:
    from torch import Tensor

Say = Callable[[str], None]

CHUNK = 2**20  # bytes read at once
LIMIT_WITHOUT_SIZE = 2**26  # bytes that a file may have whose size nobody published
FIRST_ANSWER = 10.0  # seconds in which the hub has to answer at all, a hanging name look-up included
READ_TIMEOUT = 5.0  # seconds without a byte after which one connection is given up
STALL = 12.0  # seconds without a new byte, over all connections, after which the hub is given up
SLOW, REMEMBERED = 2.0, 60.0  # a hub silent for so long is not asked again for so long (seconds)
silent_until: dict[str, float] = {}  # by the hub's address, in seconds of time.monotonic()


class NotReachableError(InputError):
    """The place to fetch from does not answer, or not as it should: another place may."""


class Pin(NamedTuple):
    """What a file must be: its sha256, and its size in bytes (None where nobody published it)."""

    sha256: str
    size: int | None


class PinnedWheel(NamedTuple):
    """A package on the registry that carries a model's files in the folder `inside`."""

    requirement: str
    inside: str
    pin: Pin


class PinnedModel(NamedTuple):
    """One revision of one repository on the Hugging Face hub, file by file."""

    repository: str
    revision: str
    files: Mapping[str, Pin]
    wheel: PinnedWheel | None = None


# ----------------------------------------------------------------------------- written and checked


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def matches(path: Path, pin: Pin) -> bool:
    """Whether the file is there and is the pinned one. The size is looked at first: it costs nothing."""
    if not path.is_file() or pin.size not in (None, path.stat().st_size):
        return False
    return sha256_of(path) == pin.sha256


def check(path: Path, pin: Pin, origin: str) -> None:
    """Delete a fetched file that is not the pinned one, and refuse it by its name."""
    if matches(path, pin):
        return
    size = path.stat().st_size
    if pin.size not in (None, size):
        difference = f"{size} bytes or more, not {pin.size}"
    else:
        difference = f"sha256 {sha256_of(path)[:12]}…, not {pin.sha256[:12]}…"
    path.unlink()
    raise InputError(f"{origin} is not the pinned file ({difference}); nothing was stored")


def to_disk(file: IO[bytes]) -> None:
    """Return only when the file's bytes have left the operating system's buffers."""
    file.flush()
    os.fsync(file.fileno())


def limit_of(pin: Pin) -> int:
    """How many bytes a file may have at the most."""
    return LIMIT_WITHOUT_SIZE if pin.size is None else pin.size


def write_checked(stream: IO[bytes], target: Path, pin: Pin, origin: str) -> None:
    """Write a stream to `target`, one byte over its limit at the most, and compare it with its pin."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = limit_of(pin) + 1
    with target.open("wb") as file:
        while chunk := stream.read(min(CHUNK, left)):
            left -= file.write(chunk)
        to_disk(file)
    check(target, pin, origin)


# --------------------------------------------------------------------------- a folder, or a wheel


def from_folder(model: PinnedModel, staging: Path, folder: Path) -> None:
    """Copy the files of a folder. Symbolic links are followed: what counts is what they lead to."""
    missing = [file for file in model.files if not (folder / file).is_file()]
    if missing:
        raise InputError(f"{folder} lacks {', '.join(missing)}; it needs every file of {model.repository}")
    for file, pin in model.files.items():
        with (folder / file).open("rb") as stream:
            write_checked(stream, staging / file, pin, str(folder / file))


def from_wheel(model: PinnedModel, staging: Path, path: Path) -> None:
    """Read the files out of a wheel, which is a zip, by their exact names: no path in it is used."""
    if model.wheel is None:
        raise InputError(f"no wheel carries {model.repository}; use --from with a folder of its files")
    try:
        with zipfile.ZipFile(path) as archive:
            for file, pin in model.files.items():
                with archive.open(model.wheel.inside + file) as stream:
                    write_checked(stream, staging / file, pin, f"{file} in {path.name}")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; use --from with a folder or a wheel") from None
    except KeyError as error:
        raise InputError(f"{path} lacks {file}; the wheel meant is {model.wheel.requirement}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is not a whole wheel (a zip file): {one_line(error)}") from error


def wheel_from_registry(wheel: PinnedWheel, folder: Path) -> Path:
    """Have pip fetch one pinned wheel: without its dependencies, and without installing anything."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = ["--no-deps", "--only-binary", ":all:", "--timeout", "15", "--retries", "2"]
    command = [*pip, "download", *options, "--dest", str(folder), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not found:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        if "No module named pip" in reason:
            reason = f"pip is missing; `{sys.executable} -m ensurepip` installs it"
        raise NotReachableError(
            f"the package registry did not give {wheel.requirement} either ({one_line(reason)})"
        )
    check(found[0], wheel.pin, found[0].name)
    return found[0]


# ---------------------------------------------------------------------------------------- the hub


def from_hub(model: PinnedModel, staging: Path, say: Say, progress: bool) -> None:
    """Fetch every file of the pinned revision through huggingface_hub's session.

    Not through its `hf_hub_download`, which throws a partial file away when it is interrupted, tries a
    hub that does not answer for minutes, and tells the hub what is installed here. A file that lies in
    that library's own cache already is copied from there.
    """
    import huggingface_hub as hub
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    for file, pin in model.files.items():
        cached = hub.try_to_load_from_cache(model.repository, file, revision=model.revision)
        if isinstance(cached, str) and not matches(staging / file, pin) and matches(Path(cached), pin):
            with Path(cached).open("rb") as stream:
                write_checked(stream, staging / file, pin, cached)
    missing = [file for file, pin in model.files.items() if not matches(staging / file, pin)]
    if not missing:
        return

    if hub.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise NotReachableError("the hub is switched off (HF_HUB_OFFLINE)")
    endpoint = os.environ.get("HF_ENDPOINT", hub.constants.ENDPOINT).rstrip("/")
    urls = {
        file: hub.hf_hub_url(model.repository, file, revision=model.revision, endpoint=endpoint)
        for file in missing
    }
    knock(urls[missing[0]], endpoint, model.revision)
    total = sum(model.files[file].size or 0 for file in missing)
    say(f"fetching {model.repository} from {endpoint}: {total / 1e6:,.1f} MB")

    console = Console(stderr=True)
    columns = "{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn()
    hidden = not progress or not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:

        def report(size: int) -> None:
            bar.update(bar.task_ids[-1], completed=size)

        for file in missing:
            pin, target = model.files[file], staging / file
            bar.add_task(file, total=pin.size)
            target.parent.mkdir(parents=True, exist_ok=True)
            left_over = target.exists()
            fetch(urls[file], target, pin, report)
            if left_over and not matches(target, pin):  # it was not this file's beginning: all anew
                target.unlink()
                fetch(urls[file], target, pin, report)
            check(target, pin, f"{file} from {endpoint}")


def headers(start: int = 0) -> dict[str, str]:
    """No token (the models are public), no list of what is installed here, and no compression."""
    plain = {"user-agent": f"llm_rebuild/{__version__}", "accept-encoding": "identity"}
    return plain | {"range": f"bytes={start}-"} if start else plain


def knock(url: str, endpoint: str, revision: str) -> None:
    """Raise NotReachableError unless the hub answers in time, and as a hub that has this revision."""
    from huggingface_hub import get_session

    answers: list[str] = []

    def ask() -> None:
        try:
            answer = get_session().head(url, headers=headers(), timeout=READ_TIMEOUT, follow_redirects=True)
            commits = [step.headers.get("x-repo-commit") for step in [*answer.history, answer]]
            if answer.status_code != 200:
                answers.append(f"answers HTTP {answer.status_code}")
            else:
                answers.append("" if revision in commits else "does not answer as a hub does")
        except Exception as error:  # whatever the transport raises: the hub is not to be had
            answers.append(f"does not answer ({one_line(error)})")

    begun = time.monotonic()
    if begun < silent_until.get(endpoint, 0.0):
        raise NotReachableError(f"the hub at {endpoint} does not answer (asked a moment ago)")
    # In a thread, because none of the transport's timeouts covers looking up the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(FIRST_ANSWER)
    answer = answers[0] if answers else f"does not answer within {FIRST_ANSWER:.0f} s"
    if answer:
        if time.monotonic() - begun > SLOW:
            silent_until[endpoint] = time.monotonic() + REMEMBERED
        raise NotReachableError(f"the hub at {endpoint} {answer}")


def fetch(url: str, target: Path, pin: Pin, report: Callable[[int], object]) -> None:
    """Fetch one file, from the bytes on that are there, over as many connections as it takes."""
    import httpx2  # the transport of huggingface_hub's session
    from huggingface_hub import get_session, hf_raise_for_status

    most, last_byte = 0, time.monotonic()
    while True:
        start = target.stat().st_size if target.exists() else 0
        try:
            stream = get_session().stream(
                "GET", url, headers=headers(start), timeout=READ_TIMEOUT, follow_redirects=True
            )
            with target.open("ab") as file, stream as answer:
                if answer.status_code == 416:  # as many bytes are here as it has, but not the right ones
                    file.truncate(0)
                hf_raise_for_status(answer)
                if answer.status_code != 206:  # the whole file comes, whatever was asked for
                    file.truncate(0)
                    file.seek(0)
                for chunk in answer.iter_bytes():
                    if file.tell() + len(chunk) > limit_of(pin):
                        file.truncate(0)
                        raise InputError(f"{url} is longer than its pin allows; nothing was stored")
                    file.write(chunk)
                    report(file.tell())
                    if file.tell() > most:
                        most, last_byte = file.tell(), time.monotonic()
                to_disk(file)
                return
        except httpx2.HTTPError as error:
            answer_was = getattr(error, "response", None)
            refused = answer_was is not None and answer_was.status_code in (401, 403, 404, 410)
            if refused or time.monotonic() - last_byte > STALL:
                raise NotReachableError(
                    f"the hub stopped at {target.name} ({one_line(error)}); what came is kept for a later try"
                ) from error
            time.sleep(0.5)


# -------------------------------------------------------------- weights in other forms than one file


def one_weight_file(folder: Path, target: Path) -> None:
    """Write the weights of a folder that has them pickled, or in shards, as one safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    index = folder / "model.safetensors.index.json"
    tensors = _sharded(index) if index.is_file() else _unpickled(folder / "pytorch_model.bin")
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()  # safetensors stores no two names for one tensor
        own[key] = tensor.clone().contiguous() if storage in storages else tensor.contiguous()
        storages.add(storage)
    try:
        save_file(own, target, metadata={"format": "pt"})
    except SafetensorError as error:  # which is how it tells of a full disk
        full = "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, one_line(error)) from error
    with target.open("rb+") as file:
        to_disk(file)


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled file, by torch's safe loader: tensors and plain containers, no code."""
    import pickle

    import torch

    try:
        # Files of before 2020 are no zip and cannot be mapped; the loader is the safe one all the same.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is refused by the safe loader: {first_sentence(error)}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no table of tensors; give the model's own weights")
    for key, tensor in content.items():
        dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not isinstance(key, str) or not dense or tensor.nbytes > path.stat().st_size:
            raise InputError(f"{path} holds {key!r}, which is no plain tensor of its size")
    return content


def _sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of a sharded safetensors file, by its index: {"weight_map": {key: shard}}."""
    import json

    from safetensors import SafetensorError, safe_open

    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is no index of shards ({one_line(error)})") from error
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        path = index.parent / str(shard)
        if Path(str(shard)).name != shard or not path.is_file():
            raise InputError(f"{index.name} names {shard!r}, which is not in {index.parent}; put it there")
        try:
            with safe_open(path, framework="pt") as opened:
                for key in (key for key, name in weight_map.items() if name == shard):
                    tensors[key] = opened.get_tensor(key)
        except SafetensorError as error:
            raise InputError(f"{path} is not what {index.name} says ({one_line(error)})") from error
    return tensors


def first_sentence(error: object) -> str:
    """The first sentence of a long explanation."""
    return one_line(error).split(". ")[0]
