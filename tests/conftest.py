"""What several rooms of the tests share."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from llm_rebuild.cli import main as cli
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError

PROJECT = Path(__file__).resolve().parents[1]

# Whoever runs the tests in the background of a shell, or under nohup, hands down that Ctrl+C or a closed
# terminal is ignored; the processes that are tested with it would ignore it, too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

gc.set_threshold(10_000)  # as cli/main.py has it

collect_ignore = ["fixtures"]  # pages with faults in them, on purpose


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line now (captured) and again in the terminal summary: what a test measured."""

    def say(line: str) -> None:
        print(line)
        request.node.user_properties.append(("figure", line))  # a worker process sends these home

    return say


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llm-rebuild", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return command


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for group in terminalreporter.stats.values() for report in group]
    calls = [report for report in reports if getattr(report, "when", None) == "call"]
    lines = [line for report in calls for kind, line in report.user_properties if kind == "figure"]
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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes which run the tests have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def once(shared: Path) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make something in a folder that all processes which run the tests have in common: the first that asks
    makes it, for all. -> the folder"""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = shared / name, shared / f"{name}-is-whole"
        with filelock.FileLock(shared / f"{name}.lock"):
            if not whole.exists():
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def built_site(once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The site, built once, strictly, with its notebooks made first, as `make site` does. BUILT_SITE in the
    environment names one that has just been built."""
    if built := os.environ.get("BUILT_SITE"):
        return Path(built).resolve()
    return once("site", _build)


def _build(site: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tools.site", "--site-dir", str(site)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = f"{result.stdout}{result.stderr}".splitlines()
        told = [line for line in lines if line.startswith(("WARNING", "ERROR", "  - "))] + lines[-3:]
        pytest.fail("tools.site failed:\n" + "\n".join(told), pytrace=False)
