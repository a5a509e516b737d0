"""One way to write a file, and one way to read one that came from outside.

Whatever the package writes is there whole or not at all. Whatever it reads may be anything: a pipe that
nobody writes to, a terabyte of zeros, JSON nested so deeply that nobody can walk it. It is refused in a line.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from llm_rebuild.errors import InputError

PART = ".part"  # what a file is called while it is being written
LARGEST = 200_000_000  # bytes of a file that is read whole; the largest tokenizer's file has some 30 million
TENSORS = (".safetensors", ".npz", ".npy")  # how files of tensors end that are read from a folder
OF_MODELS = (  # how the other files of a model begin
    "config", "generation_config", "tokenizer", "vocab", "merges", "spiece", "special_tokens", "added_tokens",
    "modules", "sentence_", "model.safetensors", "pytorch_model", "provenance",
)  # fmt: skip
DEEPEST = 100  # levels of JSON; the deepest file of a published model has about 10


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to. When the block ends it is on the disk and called `file`; where it
    raises, `file` is what it was. A link is followed. Raises OSError.

    Only a regular file is replaced: a device, a pipe or a folder of that name stays what it is.
    """
    check_target(file)
    target = Path(os.path.realpath(file))
    part = target.with_name(f".{os.getpid()}.{secrets.token_hex(4)}{PART}")
    try:
        yield part
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, part)
        with part.open("rb+") as opened:
            os.fsync(opened.fileno())
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write(file: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all. Into a pipe or a terminal (/dev/stdout) it goes as it is; a disk's
    device is refused. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    if (descriptor := check_target(file, streams=True)) is None:
        with replacing(file) as part:
            part.write_bytes(data)
    else:
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)


def check_target(file: Path, streams: bool = False) -> int | None:
    """Refuse a place that is no regular file's; with `streams` it may be a pipe's or a terminal's, which is
    given back open. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        mode = file.stat().st_mode
        if streams and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return os.open(file, os.O_WRONLY | os.O_NONBLOCK)  # no reader is waited for
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is no regular file; choose another place", str(file))
    return None


def expanded(file: str | Path) -> Path:
    """A path whose `~` is somebody's home. InputError where nobody is called so."""
    try:
        return Path(file).expanduser()
    except RuntimeError as error:
        raise InputError(f"{file}: {reason(error)}") from None


def check_regular(file: Path, advice: str = "") -> None:
    """Refuse what is to be read and is no file. Raises InputError, which `advice` ends.

    For files that a library opens by name: one that is a pipe would be waited for without end.
    """
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise _refused(f"{file} is missing", advice) from None
    except (OSError, ValueError) as error:
        raise _refused(f"{file}: {reason(error)}", advice) from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise _refused(f"{file} is {what}, and should be a file", advice)


def read(file: Path, advice: str = "", largest: int = LARGEST, pipes: bool = False) -> bytes:
    """A file's content. InputError where there is none to be had, or more than `largest` bytes. With `pipes`
    it may come from a pipe, as far as somebody writes to it."""
    if not pipes:
        check_regular(file, advice)
    try:
        # Without waiting for a writer: a file may also have become a pipe since.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "rb") as opened:
            size = os.fstat(descriptor).st_size
            content = b"" if size > largest else opened.read(largest + 1)
    except FileNotFoundError:
        raise _refused(f"{file} is missing", advice) from None
    except (OSError, ValueError) as error:
        raise _refused(f"{file}: {reason(error)}", advice) from None
    if max(size, len(content)) > largest:
        raise _refused(f"{file} has more than {largest:,} bytes, the most that is read", advice)
    return content


def sha256_of(file: Path) -> str:
    """The sha256 of a file's bytes, as 64 hexadecimal digits. InputError where it is no regular file."""
    check_regular(file)
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def read_text(file: Path, advice: str = "", largest: int = LARGEST, pipes: bool = False) -> str:
    """A UTF-8 file's text. A byte order mark is a character of it."""
    try:
        return read(file, advice, largest, pipes).decode()
    except UnicodeDecodeError as error:
        message = f"{file} is not UTF-8 (byte {error.start}); save it as UTF-8"
        raise _refused(message, advice) from None


def read_json(
    file: Path, advice: str = "", largest: int = LARGEST, kind: type = dict, text: str | None = None
) -> Any:
    """What a file holds as JSON, or the `text` of it that is: one object, or one array if `kind` is list."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object, which says everything once: of two values it would be unsaid which one counts."""
        values = dict(pairs)
        if len(values) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise _refused(f"{file} has {twice[:60]!r} twice; leave it there once", advice)
        return values

    text = read_text(file, advice, largest) if text is None else text
    if text.startswith("\ufeff"):
        raise _refused(f"{file} begins with a byte order mark; save it as UTF-8 without one", advice)
    try:
        content = json.loads(text, object_pairs_hook=once)
    except RecursionError:
        raise _refused(f"{file} is nested too deeply", advice) from None
    except ValueError as error:
        raise _refused(f"{file} is not JSON ({error})", advice) from None
    if not isinstance(content, kind):
        what = "object" if kind is dict else "array"
        raise _refused(f"{file} holds no JSON {what}", advice)
    level: list[Any] = [content]
    for _ in range(DEEPEST):
        values = [value for one in level for value in (one.values() if isinstance(one, dict) else one)]
        level = [value for value in values if isinstance(value, (dict, list))]
        if not level:
            return content
    raise _refused(f"{file} is nested more than {DEEPEST} levels deep", advice)


def to_disk(file: IO[bytes]) -> None:
    """Return only when the file's bytes have left the operating system's buffers."""
    file.flush()
    os.fsync(file.fileno())


def reason(error: Exception) -> str:
    """Why a file cannot be had, as the system says it: `permission denied`."""
    nobody = "nobody reads from it" if getattr(error, "errno", None) == errno.ENXIO else ""
    return nobody or (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def _refused(message: str, advice: str) -> InputError:
    return InputError(f"{message}; {advice}" if advice else message)
