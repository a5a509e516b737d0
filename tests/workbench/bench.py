"""A learner's command line, quickly (`tests/warm.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests import warm


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Bench:
    """Runs `llm-rebuild …` in a folder, with a store of the tests' own."""

    folder: Path
    store: Path

    def run(self, *arguments: object, folder: Path | None = None) -> Said:
        """One command, run to its end."""
        variables = {"LLM_REBUILD_STORE": str(self.store), "COLUMNS": "100"}
        ended = warm.run(*arguments, folder=folder or self.folder, **variables)
        return Said(ended.returncode, ended.stdout, ended.stderr)
