"""How much of a model is matched so far: what the last verification of these very weights found.

`llm-rebuild verify` leaves a note in the store, `llm-rebuild map` reads it. The note is filed under the
weight file's sha256, so it cannot speak for other weights. It is a convenience: losing it loses nothing.
"""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.files import read_text, write
from llm_rebuild.verify.report import Report

NOTHING = "nothing yet; run `llm-rebuild verify {name}`"
BITS = "checkpoints bit-identical"
LONGEST = 1000  # bytes of a note


def remember(copy: LocalCopy, report: Report) -> None:
    """File a report's result. A store that cannot be written is no reason to fail a verification."""
    dtype = "" if report.dtype == "float32" else f", {report.dtype}"
    share = f", coverage {report.coverage.share:.1%}" if report.coverage else ""
    file, today = _file(copy), datetime.datetime.now(datetime.timezone.utc).date()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write(
            file,
            f"{report.bit_identical} of {len(report.verdicts)} {BITS}{share} "
            f"({report.attention} attention{dtype}, torch {report.environment['torch']}, transformers "
            f"{report.environment['transformers']}, {today.isoformat()})",
        )


def last(copy: LocalCopy) -> str | None:
    """What the last verification of these weights found, in words, if there was one."""
    try:
        note = read_text(_file(copy), largest=LONGEST)
    except InputError:
        return None
    return note if BITS in note and note.isprintable() else None


def _file(copy: LocalCopy) -> Path:
    sha256 = copy.sha256[copy.weights_file.name]
    return local_copy.store_folder() / ".matched" / f"{sha256}.txt"
