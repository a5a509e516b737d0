"""What several rooms of the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_rebuild import local_copy
from llm_rebuild.errors import InputError
from llm_rebuild.local_copy import LocalCopy

PROJECT = Path(__file__).resolve().parents[1]
collect_ignore = ["fixtures"]  # pages with faults in them, on purpose


FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line now (captured) and again in the terminal summary: what a test measured."""

    def say(line: str) -> None:
        print(line)
        request.config.stash.setdefault(FIGURES, []).append(line)

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("figures")
    for line in lines:
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def minilm() -> LocalCopy:
    """The real MiniLM, from the store or fetched into it now. Skips with the reason where there is none."""
    try:
        return local_copy.get("minilm", strict=True)
    except InputError as reason:
        pytest.skip(f"no real MiniLM: {reason}")


@pytest.fixture(scope="session")
def built_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once, strictly, with its notebooks made first, as `make site` does."""
    site = tmp_path_factory.mktemp("site")
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    for command in (["tools.notebooks"], ["mkdocs", "build", "--strict", "--site-dir", str(site)]):
        result = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=PROJECT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            lines = f"{result.stdout}{result.stderr}".splitlines()
            told = [line for line in lines if line.startswith(("WARNING", "ERROR", "  - "))] + lines[-3:]
            pytest.fail(f"{' '.join(command)} failed:\n" + "\n".join(told), pytrace=False)
    return site
