"""Putting a proved repair into a learner's file: one line for one line, and only where that was tried out."""

from __future__ import annotations

import io
from collections.abc import Sequence

from llm_rebuild.diagnosis.diagnose import Diagnosis
from llm_rebuild.diagnosis.reading.result import ROUNDED, TO_THE_BIT


def fixed(source: str, name: str, mistakes: Sequence[Diagnosis]) -> str:
    """The source of the file `name` with each mistake's repair, where that is proved, can be written as one
    line and stands in this file. Of several repairs of one mistake the first is taken. A line that is no
    longer what it was when it was read stays as it is."""
    lines = list(io.StringIO(source, newline=""))  # as Python counts them
    for repair in (repair for mistake in mistakes for repair in mistake.repairs[:1]):
        line, proved = repair.line, repair.degree in (TO_THE_BIT, ROUNDED)
        if line is None or line.file != name or not proved or not repair.after:
            continue
        if line.number <= len(lines) and lines[line.number - 1].strip() == repair.before:
            lines[line.number - 1] = lines[line.number - 1].replace(repair.before, repair.after, 1)
    return "".join(lines)
