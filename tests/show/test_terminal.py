"""The terminal: names are neither obeyed nor broken, and results know nothing of it."""

from __future__ import annotations

import builtins
import io

import pytest
import torch
from rich.console import Group
from rich.text import Text

from llm_rebuild.show import terminal
from llm_rebuild.show.results import step_by_step
from llm_rebuild.verify.compare import compare
from llm_rebuild.verify.divergence import Divergence
from llm_rebuild.verify.report import Report

LONG = "model.layers.0." + "self_attention." * 9 + "projection"  # 160 characters


def shown(thing: object, **options: object) -> str:
    console = terminal.Terminal(file=io.StringIO(), width=80, **options)
    console.print(thing)
    return console.file.getvalue()


@pytest.mark.parametrize("color", [None, "truecolor"])
def test_control_characters_are_shown_wherever_they_stand(color: str | None):
    table = terminal.columns()
    table.add_column("name", no_wrap=True)
    table.add_column("size")
    table.add_row("\x1b[2Ja", Text("\u202e1\x07"))
    out = shown(Group(table, "[bold]\x1b]0;title\x07", terminal.indented("b\x9b1m", "red")),
                force_terminal=bool(color), color_system=color)  # fmt: skip
    for word in ("\\x1b[2Ja", "\\u202e1", "[bold]\\x1b]0;title", "b\\x9b1m"):
        assert word in out
    assert "\x1b[2J" not in out
    assert "\x1b]0" not in out
    if color is None:
        assert "\x1b" not in out
        lines = out.splitlines()
        assert lines[0].index("size") == lines[1].index("\\u202e")  # columns are as wide as what is shown


def test_a_name_that_does_not_fit_is_not_broken():
    table = terminal.columns()
    table.add_column("checkpoint", no_wrap=True)
    table.add_column("meaning")
    table.add_row(LONG, "what it holds")
    assert f"{LONG}  " in shown(table)
    assert f"{LONG}:" in shown(Text(f"first divergence at {LONG}: wrong values at number 3"))
    assert max(map(len, shown(Text("many short words " * 20)).splitlines())) <= 80


def test_print_in_a_notebook_has_no_codes_of_a_terminal(monkeypatch: pytest.MonkeyPatch):
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)  # as in a Jupyter kernel
    right = torch.zeros(2, 3)
    report = Report({"name": "a", "source": "folder"}, {}, "eager", 1, 1, (compare(right.clone(), right),))
    assert "\x1b" not in str(report)


def test_print_shows_a_result_as_the_terminal_does():
    right = torch.zeros(2, 3)
    verdict = compare(right + 1, right, LONG)
    first = Divergence(verdict)
    report = Report(
        {"name": "a\x1bb", "source": "folder"}, {}, "eager", 1, 1, (verdict,), first_divergence=first
    )
    printed = str(report)
    assert LONG.removeprefix("model.layers.0.") in printed
    assert printed.splitlines()[-1].endswith("(a\\x1bb, eager attention)")
    assert "\x1b" not in printed
    assert "color: #800000" in report._repr_html_()


def test_steps_say_what_was_not_tried_and_that_a_miniature_stands_in():
    right = torch.zeros(2, 3)
    model = {"name": "gpt2", "source": "miniature"}
    report = Report(model, {}, "eager", 1, 1, (compare(right.clone(), right),), untried=("sdpa attention",))
    lines = shown(step_by_step([report, report])).splitlines()
    assert "not tried in this run: sdpa attention" in lines
    assert " ".join(map(str.strip, lines)).endswith("in 1 step (the miniature of gpt2, eager attention)")


def test_what_is_not_broken_is_not_cut_either() -> None:
    """A column of two words is as narrow as one of them for rich, and the last column then loses its end."""
    table = terminal.columns()
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_row("decoder." * 9 + "wi", "wrong values")
    table.add_row("", "2.2e-05")
    assert "wrong values" in shown(table)
