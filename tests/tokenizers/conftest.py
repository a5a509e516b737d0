"""Figures that the tokenizer tests measured, said once more below pytest's other summaries."""

from __future__ import annotations

from collections.abc import Callable

import pytest

FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line now (captured) and again in the terminal summary."""

    def say(line: str) -> None:
        print(line)
        request.config.stash.setdefault(FIGURES, []).append(line)

    return say


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("tokenizers against the official library")
    for line in lines:
        terminalreporter.line(line)
