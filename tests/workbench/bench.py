"""A learner's command line, quickly: all is imported once, each command runs in a copy of that process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CODE = """
import json, os, sys
from llm_rebuild.cli import main as cli
from tests.warm import load
load()
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.chdir(job["folder"])
            for stream in (1, 2):
                os.dup2(os.open(job["out"][stream - 1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            sys.argv = ["llm-rebuild", *job["arguments"]]
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


class Bench:
    """Runs `llm-rebuild …` in a folder, with a store of the tests' own."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.store = store
        environment = os.environ | {
            "LLM_REBUILD_STORE": str(self.store),
            "COLUMNS": "100",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )

    def run(self, *arguments: object, folder: Path | None = None) -> Said:
        """One command, run to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out = [self.folder / "stdout", self.folder / "stderr"]
        job = {
            "arguments": list(map(str, arguments)),
            "folder": str(folder or self.folder),
            "out": list(map(str, out)),
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return Said(code, *(file.read_text(encoding="utf-8") for file in out))

    def close(self) -> None:
        self._process.communicate()
