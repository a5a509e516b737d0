"""How much of a model is matched so far: what the last verification of these very weights found.

`llm-rebuild verify` leaves a note in the store, `llm-rebuild map` reads it. The note is filed under the
weight file's sha256, so it cannot speak for other weights. It is a convenience: losing it loses nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.files import write

if TYPE_CHECKING:
    from llm_rebuild.verify.report import Report

NOTHING = "matched so far: nothing yet; run `llm-rebuild verify {name}`"


@dataclass(frozen=True)
class Matched:
    """The result of one verification, in short."""

    attention: str
    checkpoints: int
    bit_identical: int
    coverage: float | None
    torch: str
    transformers: str
    date: str

    def line(self) -> str:
        """In a sentence."""
        share = "" if self.coverage is None else f", coverage {self.coverage:.1%}"
        return (
            f"matched so far: {self.bit_identical} of {self.checkpoints} checkpoints bit-identical{share} "
            f"({self.attention} attention, torch {self.torch}, transformers {self.transformers}, {self.date})"
        )


def remember(copy: LocalCopy, report: Report) -> None:
    """File a report's result. A store that cannot be written is no reason to fail a verification."""
    note = Matched(
        attention=report.attention,
        checkpoints=len(report.verdicts),
        bit_identical=report.bit_identical,
        coverage=report.coverage.share if report.coverage else None,
        torch=str(report.environment["torch"]),
        transformers=str(report.environment["transformers"]),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    )
    file = _file(copy)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, json.dumps(asdict(note)))


def last(copy: LocalCopy) -> Matched | None:
    """What the last verification of these weights found, if there was one."""
    try:
        return Matched(**json.loads(_file(copy).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _file(copy: LocalCopy) -> Path:
    sha256 = copy.sha256[copy.weights_file.name]
    return local_copy.store_folder() / ".matched" / f"{sha256}.json"
