"""What programs wrote into docs/ is what they would write now: tables, reference pages, figures."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_rebuild.copies.local_copy import LocalCopy
from tools import compared
from tools.compared import Line, NotOnceError
from tools.figures.__main__ import SETS

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Do what `python -m tools.TOOL --check` does, in this process; what it says is the failure's message."""

    def checked(tool: str) -> None:
        monkeypatch.setattr(sys, "argv", [tool, "--check"])
        try:
            code = importlib.import_module(f"tools.{tool}").main()
        except SystemExit as ended:
            code = ended.code
        assert not code, f"{code}\n{capsys.readouterr().err}"

    return checked


def test_the_comparison_has_the_lines_of_the_source(check: Callable[[str], None]) -> None:
    check("compared")


def test_the_reference_has_the_checkpoints_of_the_models(check: Callable[[str], None]) -> None:
    check("reference")


def test_the_chapters_say_where_one_is_and_how_long_they_take(check: Callable[[str], None]) -> None:
    check("course")


def test_the_live_pages_know_the_checkpoints_of_the_models(check: Callable[[str], None]) -> None:
    check("live")


def test_the_kill_matrix_is_of_the_mutants_that_are_there(check: Callable[[str], None]) -> None:
    check("mutation")


@pytest.mark.parametrize("which", ["first", pytest.param("all", marks=pytest.mark.weekly)])
def test_the_figures_are_what_would_be_drawn(which: str, minilm: LocalCopy) -> None:
    """The first of each kind, or all of them; `minilm` skips where there is none."""
    firsts = [drawn[0].__name__.replace("_", "-") for drawn, _ in SETS]
    # In a process of its own, which takes the portable kernels.
    command = [sys.executable, "-m", "tools.figures", "--check", *(firsts if which == "first" else [])]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (Line("models/t5.py", "", "no such line"), "there 0 times"),
        (Line("models/t5.py", "eager_attention", "tap("), "times, not once"),
        (Line("models/t5.py", "no_such_function", "tap("), "no_such_function is defined 0 times"),
    ],
)
def test_a_line_that_is_not_there_once_is_an_error(line: Line, told: str) -> None:
    with pytest.raises(NotOnceError, match=told):
        compared.find(line)


def test_a_line_is_found_in_its_function_only() -> None:
    """The same words stand in `encode` and in `decode`; the function says which is meant."""
    words = "encoder.at(BIAS)"
    with pytest.raises(NotOnceError):
        compared.find(Line("models/t5.py", "", "at(BIAS)"))
    found = compared.find(Line("models/t5.py", "encode", words))
    source = (compared.PACKAGE / "models/t5.py").read_text(encoding="utf-8").splitlines()
    assert found.file.name == "t5.py"
    assert source[found.number - 1].strip().startswith(found.code)
    assert words in found.code


def test_a_page_with_an_old_line_is_not_what_would_be_written() -> None:
    page = compared.PAGE.read_text(encoding="utf-8")
    old = page.replace("`scaled = product * scale`", "`scaled = product / scale`")
    assert old != page
    assert compared.written(old) == page
