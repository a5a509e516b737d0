"""A folder of submissions, marked: one row each, whatever is in it, and the run goes on."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.workbench import mark as marking
from llm_rebuild.workbench import new as writing
from tests.workbench.bench import Bench

GPT2 = local_copy.MINIATURES / "gpt2"
WHOLE = writing.source("gpt2", solved=True)
BROKEN = WHOLE.replace("0.044715 * cube", "0.044175 * cube")
KILLER = """
import os, signal
stat = open(f"/proc/{os.getppid()}/stat").read()  # of the fork server, whose own parent is the checker
os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
"""
LOOP = """
import time
def forward(token_ids, mask, weights, config, tap):
    while True:
        time.sleep(1)
"""


def test_a_class_is_marked_one_row_each(bench: Bench, tmp_path: Path):
    folder, out = tmp_path / "class", tmp_path / "marks.csv"
    folder.mkdir()
    (folder / "anna").mkdir()
    (folder / "anna" / "mine.py").write_text(BROKEN, encoding="utf-8")
    (folder / "bob.py").write_text(BROKEN.replace("by you", "by me") + "\n# mine\n", encoding="utf-8")
    (folder / "copied.py").write_text(WHOLE, encoding="utf-8")
    (folder / "empty.py").write_text(" \n", encoding="utf-8")
    (folder / "huge.py").write_bytes(b"#" * (marking.LARGEST_FILE + 1))
    (folder / "killer.py").write_text(KILLER, encoding="utf-8")
    (folder / "link.py").symlink_to(folder / "bob.py")
    renamed = WHOLE.replace("attended", "looked").replace("may_look", "hidden")
    (folder / "renamed.py").write_text(renamed, encoding="utf-8")
    (folder / "report.docx").write_bytes(b"PK")
    (folder / "=cmd|' -C calc'!A0.py").write_text("def forward(:\n", encoding="utf-8")
    model = f"./{GPT2.name}"  # a folder, by its way from here
    said = bench.run("mark", folder, "--out", out, "--model", model, folder=GPT2.parent)
    assert said.code == 1, said.err
    assert "10 submissions" in said.out
    assert len(said.err.splitlines()) == 10
    rows = {row["file"]: row for row in csv.DictReader(out.read_text(encoding="utf-8").splitlines())}
    assert len(rows) == 10
    bob = rows["bob.py"]
    assert (bob["result"], bob["first_divergence"]) == ("not passed", "h.0.mlp.act.small_cube")
    assert 0 < int(bob["right"]) < int(bob["all"])
    assert "0.044175 * cube" in bob["line"]
    assert bob["cause"]
    assert (bob["degree"], bob["reason"]) == ("proved", "")
    assert rows["anna/mine.py"] == {**bob, "file": "anna/mine.py", "reason": "the same as bob.py"}
    assert rows["copied.py"]["reason"] == marking.SOLVED
    assert rows["copied.py"]["result"] == "done"
    assert (rows["renamed.py"]["result"], rows["renamed.py"]["right"]) == ("done", "72")
    assert rows["renamed.py"]["reason"] == f"but for names {marking.SOLVED}"
    reasons = {
        "empty.py": "it is empty",
        "huge.py": "more than 5,000,000 bytes",
        "killer.py": "the check itself was ended (signal SIGKILL)",
        "link.py": "it is a link",
        "report.docx": "no .py file",
        "'=cmd|' -C calc'!A0.py": "line 1",
    }
    for name, reason in reasons.items():
        assert rows[name]["result"] == "not run", name
        assert reason in rows[name]["reason"], name


def test_what_never_ends_is_a_row_and_the_next_one_follows(bench: Bench, tmp_path: Path):
    """In a class of its own: no other submission has to be done in that time."""
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "loop.py").write_text(LOOP, encoding="utf-8")
    (tmp_path / "class" / "report.docx").write_bytes(b"PK")
    bench.run("mark", "class", "--out", "marks.csv", "--model", GPT2, "--seconds", "1", folder=tmp_path)
    loop, report = csv.DictReader((tmp_path / "marks.csv").read_text(encoding="utf-8").splitlines())
    assert (loop["result"], loop["right"]) == ("not passed", "0")
    assert "stopped after 1 s" in loop["reason"]
    assert report["reason"].startswith("it is no .py file")


@pytest.mark.parametrize(
    ("cause", "degree", "cell"),
    [
        ("scale-wrong", "proved", "scale-wrong"),
        ("scale-wrong", "a question", "At x: could it be?"),
        ("unknown", "proved", "At x: could it be?"),
    ],
)
def test_where_no_name_is_sure_the_cell_has_a_sentence(cause: str, degree: str, cell: str):
    mistake = {"cause": cause, "degree": degree, "explanation": "At x: could it be?", "line": None}
    found = {
        "model": {"name": "gpt2", "source": "miniature"},
        "summary": {"checkpoints": 2, "failed": 1},
        "leaks": [],
        "mistakes": [mistake],
        "steps": [],
        "done": False,
        "next": "x",
    }
    row = marking.filled(marking.Mark("a.py"), found, passed=False)
    assert (row.cause, row.degree) == (cell, degree)


def test_no_cell_is_a_formula():
    rows = [marking.Mark(start + "1+1", reason="\t=2\n,3") for start in ("=", "+", "-", "@", "\t=", "＝")]
    read = list(csv.reader(marking.table(rows).splitlines()))
    assert read[0][:3] == ["file", "model", "result"]
    assert len(read) == 7
    for row in read[1:]:
        assert row[0].startswith("'")
        assert row[-1] == "'=2 ,3"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--out", "marks.csv"], "no folder"),
        (["class", "--out", "class/marks.csv"], "outside of the folder"),
        (["class", "--out", "marks.py"], "the name of a table"),
        (["class", "--out", "marks.csv"], "no files to mark"),
    ],
)
def test_what_cannot_be_marked_is_said_in_a_line(
    bench: Bench, tmp_path: Path, arguments: list[str], said: str
):
    (tmp_path / "class").mkdir()
    result = bench.run("mark", *arguments, folder=tmp_path)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert said in result.err


def test_the_model_is_the_one_that_a_file_names(tmp_path: Path):
    (tmp_path / "mine.py").write_text("x = 1\n", encoding="utf-8")
    (row,) = marking.mark(tmp_path)
    assert (row.result, row.model) == ("not run", "")
    assert "give --model" in row.reason


FORGER = """
import json, pathlib
above = pathlib.Path(__file__).parent.parent
report = {"model": {"name": "gpt2", "source": "file"}, "summary": {"checkpoints": 72, "failed": 0}}
report |= {"leaks": [], "mistakes": [], "steps": [], "done": True, "next": None}
for folder in (above, above / "empty", pathlib.Path.cwd()):
    (folder / "result").write_text(json.dumps(report))
print(json.dumps(report))
"""
REMOVER = "import pathlib, shutil\nshutil.rmtree(pathlib.Path(__file__).parent.parent)\n"


def test_nothing_that_a_submission_writes_is_taken_for_its_mark(tmp_path: Path) -> None:
    for name, text in (("forger", FORGER), ("remover", REMOVER), ("whole", WHOLE)):
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    rows = {row.file: row for row in marking.mark(tmp_path, str(GPT2))}
    assert [row.result for row in rows.values()] == ["not passed", "not passed", "done"]
    assert all(row.reason for row in (rows["forger.py"], rows["remover.py"]))


def test_a_file_is_the_twin_of_one_that_is_held_against_the_same_model(tmp_path: Path) -> None:
    """Somebody names another model in the file's comment, and is held against that."""
    (tmp_path / "a.py").write_text(WHOLE.replace("--model gpt2", "--model minilm"), encoding="utf-8")
    (tmp_path / "b.py").write_text(WHOLE, encoding="utf-8")
    other, own = marking.mark(tmp_path)
    assert other.result == "not passed"
    assert (own.result, own.reason) == ("done", marking.SOLVED)


def test_why_it_was_not_run_is_said_of_a_copy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that the system ended: it is no answer that the file is the filled-in skeleton."""
    monkeypatch.setattr(marking, "_checked", lambda row, *_: replace(row, reason="ended (signal 9)"))
    (tmp_path / "whole.py").write_text(WHOLE, encoding="utf-8")
    (tmp_path / "zz.py").write_text(WHOLE.replace("attended", "looked"), encoding="utf-8")
    whole, renamed = marking.mark(tmp_path, str(GPT2))
    assert (whole.result, whole.reason) == ("not run", f"{marking.SOLVED}; ended (signal 9)")
    assert renamed.reason == f"but for names {marking.SOLVED}; ended (signal 9)"


VANDAL = "import contextlib, os, shutil\nwith contextlib.suppress(OSError):\n    shutil.rmtree({!r})\n"


def test_what_lies_around_a_submission_stays_as_it_is(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work", encoding="utf-8")
    (tmp_path / "class").mkdir()
    first, rest = WHOLE.split("import math\n", 1)
    text = f"{first}import math\n{VANDAL.format(str(thesis))}{rest}"
    (tmp_path / "class" / "vandal.py").write_text(text, encoding="utf-8")
    (row,) = marking.mark(tmp_path / "class", str(GPT2))
    assert (thesis / "chapter.txt").read_text(encoding="utf-8") == "years of work"
    assert row.result == "not passed"
    assert "it changes chapter.txt" in row.reason


def test_a_file_of_another_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(WHOLE.replace("--model gpt2", "--model minilm"), encoding="utf-8")
    (row,) = marking.mark(tmp_path, "gpt2")
    assert row.reason.startswith("its first lines say minilm; ")


def test_what_is_no_program_is_not_run_whatever_is_wrong_with_it(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(f"x = 1\n{WHOLE}", encoding="utf-8")
    (row,) = marking.mark(tmp_path, str(GPT2))
    assert row.result == "not run"
    assert row.reason.startswith("late.py, line ")
    assert "from __future__ imports must occur at the beginning" in row.reason


def test_a_forward_that_shows_nothing_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text("def forward(token_ids):\n    pass\n", encoding="utf-8")
    (row,) = marking.mark(tmp_path, str(GPT2))
    assert (row.result, row.right, row.reason) == ("not passed", 0, "wte was never tapped")


def test_a_long_reason_is_whole() -> None:
    """The longest of the checker's own sentences, and the line of code behind it."""
    reason = (
        f"a rebuild cannot import transformers: {'it is held against it, ' * 10}(the line is `{'m' * 99}`)"
    )
    assert reason in marking.table([marking.Mark("a.py", reason=reason)])
