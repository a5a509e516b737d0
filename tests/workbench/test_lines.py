"""A check says which line it is, what would put it right, and can put it there."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from llm_rebuild import check
from llm_rebuild.copies import local_copy
from llm_rebuild.workbench import new as writing
from tests.workbench.bench import Bench, Said

SOLVED = writing.source("gpt2", solved=True)
MODEL = local_copy.MINIATURES / "gpt2"
RIGHT_CONSTANT = 'small_cube = tap(f"{name}.small_cube", 0.044715 * cube)'
WRONG_CONSTANT = RIGHT_CONSTANT.replace("0.044715", "0.04471")
RIGHT_SUM = 'x = tap(f"h.{layer}.attn.residual", add(attended, x))'
WRONG_SUM = RIGHT_SUM.replace("add(attended, x)", "add(attended, normed)")


def changed(before: str, after: str, source: str = SOLVED) -> str:
    assert source.count(before) == 1
    return source.replace(before, after)


def line_of(piece: str, source: str) -> int:
    return next(n for n, line in enumerate(source.splitlines(), 1) if piece in line)


@pytest.fixture
def checked(bench: Bench, tmp_path: Path) -> Callable[..., Said]:
    def run(source: str, *options: str) -> Said:
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        return bench.run("check", "mine.py", "--model", MODEL, *options, folder=tmp_path)

    return run


def found(said: Said) -> Any:
    return json.loads(said.out)


def test_two_mistakes_each_with_its_line_and_its_repair(checked: Callable[..., Said]) -> None:
    source = changed(RIGHT_CONSTANT, WRONG_CONSTANT, changed(RIGHT_SUM, WRONG_SUM))
    wiring, constant = found(checked(source, "--json", "-"))["mistakes"]
    assert wiring["line"] == {
        "file": "mine.py",
        "number": line_of(WRONG_SUM, source),
        "function": "forward",
    }
    assert (wiring["code"], wiring["cause"], wiring["degree"]) == (WRONG_SUM, "residual-wrong", "proved")
    assert constant["line"]["number"] == line_of(WRONG_CONSTANT, source)
    assert constant["repair"]["before"] == WRONG_CONSTANT
    assert constant["repair"]["after"] == RIGHT_CONSTANT
    assert constant["repair"]["degree"] == constant["degree"] == "proved"
    shown = checked(source).out
    assert f"mine.py, line {line_of(WRONG_SUM, source)}, in forward: {WRONG_SUM}" in shown
    assert f"+ {RIGHT_CONSTANT}" in shown


def test_rows_of_a_table_are_shown_from_where_they_differ(checked: Callable[..., Said]) -> None:
    source = changed(
        "torch.arange(mask.shape[1]).unsqueeze(0)", "torch.arange(mask.shape[1])[None].clamp(max=4)"
    )
    mistake = found(checked(source, "--json", "-"))["mistakes"][0]
    assert "(rows 4, 4, " in mistake["did"]
    assert " of the table instead of 5, 6, " in mistake["did"]


def test_a_right_rebuild_has_no_lines(checked: Callable[..., Said]) -> None:
    said = found(checked(SOLVED, "--json", "-"))
    assert said["mistakes"] == said["diagnosis"] == []


def test_a_cached_step_has_its_line(checked: Callable[..., Said]) -> None:
    right = "torch.cat([cache[name], new], dim=-2)"
    source = changed(right, "torch.cat([new, cache[name]], dim=-2)")
    step = next(run for run in found(checked(source, "--json", "-"))["others"] if run["way"] == "cached step")
    mistake = step["mistakes"][0]
    assert mistake["cause"] == "cache-order"
    assert line_of("torch.cat([new, cache[name]]", source) in [line["number"] for line in mistake["lines"]]


def test_a_step_that_forward_does_not_reach_has_its_line(checked: Callable[..., Said]) -> None:
    source = changed("    return one + other\n", "    raise NotImplementedError\n")
    source = changed(RIGHT_CONSTANT, WRONG_CONSTANT, source)
    mistakes = found(checked(source, "--json", "-"))["mistakes"]
    assert [m["line"]["number"] for m in mistakes] == [line_of(WRONG_CONSTANT, source)]


def test_one_step_has_its_line(checked: Callable[..., Said]) -> None:
    source = changed("return product * power", "return product / power")
    mistakes = found(checked(source, "--step", "h.{layer}.attn.scaled", "--json", "-"))["mistakes"]
    assert [m["code"] for m in mistakes] == ["return product / power"]


def test_a_notebook_has_lines_too() -> None:
    cell, source = {"__name__": "notebook"}, changed(RIGHT_SUM, WRONG_SUM)
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(keepends=True), "<cell>")  # as IPython
    exec(compile(source, "<cell>", "exec", dont_inherit=True), cell)
    result = check(cell["forward"], model=MODEL, texts=["The baker of Oru", "The"])
    line = result.report.mistakes[0].lines[0]
    assert (line.file, line.number) == ("the notebook", line_of(RIGHT_SUM, SOLVED))


# ---------------------------------------------------------------------------------------- --fix


def test_a_proved_line_is_put_right(checked: Callable[..., Said], tmp_path: Path) -> None:
    source = changed(RIGHT_CONSTANT, WRONG_CONSTANT)
    said = checked(source, "--fix", "--yes")
    assert said.code == 1  # what was checked was wrong
    assert f"-    {WRONG_CONSTANT}" in said.out
    assert f"+    {RIGHT_CONSTANT}" in said.out
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == SOLVED
    assert (tmp_path / "mine.py.bak").read_text(encoding="utf-8") == source
    assert checked(SOLVED).code == 0


def test_nobody_is_asked_where_nobody_is(checked: Callable[..., Said], tmp_path: Path) -> None:
    source = changed(RIGHT_CONSTANT, WRONG_CONSTANT)
    said = checked(source, "--fix")
    assert said.code == 2
    assert "with --yes it does not" in said.err
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == source
    assert not (tmp_path / "mine.py.bak").exists()


def test_what_cannot_be_written_as_a_line_stays(checked: Callable[..., Said], tmp_path: Path) -> None:
    source = changed("return one + other", "return one * 0.5 + 0.5 * other")
    said = checked(source, "--fix", "--yes")
    assert said.code == 1
    assert "no repair" in said.err
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == source


@pytest.mark.parametrize("options", [("--fix", "--watch"), ("--fix", "--json", "-")])
def test_fix_goes_with_a_single_check_that_is_shown(
    checked: Callable[..., Said], options: tuple[str, ...]
) -> None:
    said = checked(SOLVED, *options)
    assert (said.code, said.err.count("\n")) == (2, 1)


def test_a_backup_is_a_file(checked: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "mine.py.bak").mkdir()
    source = changed(RIGHT_CONSTANT, WRONG_CONSTANT)
    said = checked(source, "--fix", "--yes")
    assert said.code == 2
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == source


def test_the_page_has_the_line(checked: Callable[..., Said], tmp_path: Path) -> None:
    source = changed(RIGHT_CONSTANT, WRONG_CONSTANT)
    assert checked(source, "--html", "page.html").code == 1
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"mine.py, line {line_of(WRONG_CONSTANT, source)}" in page
    assert str(escape(f"+ {RIGHT_CONSTANT}")) in page
