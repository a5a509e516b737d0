"""A folder of submissions, marked: one row each, whatever is in it, and the run goes on."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.workbench import mark as marking
from llm_rebuild.workbench import new as writing
from tests.workbench.bench import Bench

GPT2 = local_copy.MINIATURES / "gpt2"
WHOLE = writing.source("gpt2", solved=True)
BROKEN = WHOLE.replace("0.044715 * cube", "0.044175 * cube")
FLAT = WHOLE.replace("arange(mask.shape[1]).unsqueeze(0)", "arange(mask.shape[1])")
KILLER = "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\n"
LOOP = "def forward(token_ids, mask, weights, config, tap):\n    while True:\n        pass\n"


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
    (folder / "loop.py").write_text(LOOP, encoding="utf-8")
    (folder / "flat.py").write_text(FLAT, encoding="utf-8")
    renamed = WHOLE.replace("attended", "looked").replace("may_look", "hidden")
    (folder / "renamed.py").write_text(renamed, encoding="utf-8")
    (folder / "report.docx").write_bytes(b"PK")
    (folder / "=cmd|' -C calc'!A0.py").write_text("def forward(:\n", encoding="utf-8")
    model = f"./{GPT2.name}"  # a folder, by its way from here
    said = bench.run("mark", folder, "--out", out, "--model", model, "--seconds", "20", folder=GPT2.parent)
    assert said.code == 1, said.err
    assert "12 submissions" in said.out
    assert len(said.err.splitlines()) == 12
    rows = {row["file"]: row for row in csv.DictReader(out.read_text(encoding="utf-8").splitlines())}
    assert len(rows) == 12
    bob = rows["bob.py"]
    assert (bob["result"], bob["first_divergence"]) == ("not passed", "h.0.mlp.act.small_cube")
    assert 0 < int(bob["right"]) < int(bob["all"])
    assert "0.044175 * cube" in bob["line"]
    assert bob["cause"]
    assert (bob["degree"], bob["reason"]) == ("proved", "")
    assert rows["flat.py"]["degree"], "a diagnosis that asks, or says"
    for row in rows.values():
        assert row["cause"] != "unknown"
        assert row["degree"] != "a question" or row["cause"].startswith("At "), "without a name a sentence"
    assert rows["anna/mine.py"] == {**bob, "file": "anna/mine.py", "reason": "the same as bob.py"}
    assert rows["copied.py"]["reason"] == marking.SOLVED
    assert rows["copied.py"]["result"] == "done"
    assert (rows["renamed.py"]["result"], rows["renamed.py"]["right"]) == ("done", "72")
    assert rows["renamed.py"]["reason"] == f"but for names {marking.SOLVED}"
    reasons = {
        "empty.py": "it is empty",
        "huge.py": "more than 5,000,000 bytes",
        "killer.py": "exit code",
        "link.py": "it is a link",
        "report.docx": "no .py file",
        "'=cmd|' -C calc'!A0.py": "line 1",
    }
    assert (rows["loop.py"]["result"], rows["loop.py"]["right"]) == ("not passed", "0")
    assert "stopped after 20 s" in rows["loop.py"]["reason"]
    for name, reason in reasons.items():
        assert rows[name]["result"] == "not run", name
        assert reason in rows[name]["reason"], name


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
