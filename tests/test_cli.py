"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_rebuild import __version__
from llm_rebuild.cli import options, output
from llm_rebuild.copies.local_copy import MINIATURES
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.diagnosis.causes import CAUSES, GROUPS
from llm_rebuild.models import RECORDS
from llm_rebuild.models import minilm as model
from llm_rebuild.show.terminal import Terminal
from llm_rebuild.verify.capture import Capture
from llm_rebuild.workbench.new import SKELETONS
from tests import tiny_bert

Run = Callable[..., tuple[int, str, str]]
SENTENCE = ["--text", "a b c"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tiny_bert.write(tmp_path / "tiny")


def with_a_fault(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    pooler = model.pooler
    monkeypatch.setattr(model, "pooler", lambda x, part: pooler(x * (1 + by), part))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_verify_fits_80_columns_and_ends_in_the_count(run: Run, folder: Path, attention: str):
    code, out, err = run("verify", folder, *SENTENCE, "--attention", attention, "--exact")
    lines = out.splitlines()
    count = 47 if attention == "eager" else 39
    assert code == 0, err
    assert max(map(len, lines)) <= 80
    assert lines[-1] == f"{count} of {count} checkpoints bit-identical (tiny, {attention} attention)"
    assert "coverage" in out
    assert err == ""  # no progress bar where stderr is no terminal


def test_exit_codes(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    with_a_fault(monkeypatch, 1e-7)
    assert run("verify", folder, *SENTENCE)[0] == 0
    code, out, _ = run("verify", folder, *SENTENCE, "--exact")
    assert code == 1
    assert "first divergence: pooler.dense" in out
    with_a_fault(monkeypatch, 1e-3)
    code, out, _ = run("verify", folder, *SENTENCE, "--json", "-")
    assert code == 1
    assert json.loads(out)["first_divergence"]["name"] == "pooler.dense"


def test_json_to_stdout_is_nothing_but_json(run: Run, folder: Path):
    code, out, _ = run("verify", folder, *SENTENCE, "--json", "-")
    found = json.loads(out)
    assert code == 0
    assert found["summary"]["checkpoints"] == found["summary"]["bit_identical"] == 47
    assert found["inputs"] == {"texts": 1, "tokens": 5}


def test_json_to_a_file_beside_the_table(run: Run, folder: Path, tmp_path: Path):
    file = tmp_path / "report.json"
    file.write_text("old", encoding="utf-8")
    _, out, _ = run("verify", folder, *SENTENCE, "--json", file)
    assert "bit-identical" in out
    assert json.loads(file.read_text(encoding="utf-8"))["attention"] == "eager"
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_several_texts_make_one_padded_batch(run: Run, folder: Path, tmp_path: Path):
    by_flag = run("verify", folder, "--text", "a b c", "--text", "d", "--json", "-")[1]
    # U+2028 ends a line for str.splitlines, and no text here; the byte order mark is no character of the text
    (tmp_path / "texts").write_bytes("\ufeffa b\u2028c\r\nd\n".encode())
    by_file = run("verify", folder, "--texts", tmp_path / "texts", "--json", "-")[1]
    by_ids = run("verify", folder, "--token-ids", "2,5,6,7,3", "--token-ids", "2,8,3", "--json", "-")[1]
    assert json.loads(by_flag)["inputs"] == {"texts": 2, "tokens": 8}
    assert json.loads(by_flag)["checkpoints"] == json.loads(by_file)["checkpoints"]
    assert json.loads(by_flag)["checkpoints"] == json.loads(by_ids)["checkpoints"]


def test_a_text_that_is_cut_is_said(run: Run, folder: Path):
    code, out, _ = run("verify", folder, "--text", "a " * 20, "--exact")
    assert code == 0
    assert "text 1 was cut to the model's 12 tokens; 10 more did not fit" in out


def test_the_empty_string(run: Run, folder: Path):
    assert json.loads(run("verify", folder, "--text", "", "--json", "-")[1])["inputs"]["tokens"] == 2


def test_capture(run: Run, folder: Path, tmp_path: Path):
    code, out, _ = run("capture", folder, *SENTENCE, "--out", tmp_path / "c.safetensors")
    assert (code, out) == (0, f"47 checkpoints of tiny in {tmp_path / 'c.safetensors'}\n")
    assert len(Capture.load(tmp_path / "c.safetensors")) == 47


def test_map_fits_80_columns_and_remembers_what_was_matched(run: Run, folder: Path):
    _, before, _ = run("map", folder)
    assert "matched so far: nothing yet" in before
    assert max(map(len, before.splitlines())) <= 80
    run("verify", folder, *SENTENCE)
    assert "matched so far: 47 of 47 checkpoints bit-identical" in run("map", folder)[1]


def test_run(run: Run, folder: Path):
    code, out, _ = run("run", folder, "a b", "c", "--json", "-")
    found = json.loads(out)
    assert code == 0
    assert list(found) == ["model", "source", "texts", "token_ids", "truncated", "pipeline", "embeddings"]
    assert found["source"] == "folder"
    assert found["token_ids"] == [[2, 5, 6, 3], [2, 7, 3]]
    assert [len(row) for row in found["embeddings"]] == [16, 16]
    assert "similarity" in run("run", folder, "a b", "c")[1]


@pytest.mark.parametrize(
    "command",
    ["", "download", "map", "capture", "verify", "run", "find", "recheck", "new", "check", "explain"],
)
def test_help(run: Run, command: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    code, out, _ = run(*([command] if command else []), "--help")
    assert code == 0
    assert "Usage" in out
    assert max(map(len, out.splitlines())) <= 80


def test_explain(run: Run):
    code, out, _ = run("explain", "norm-eps")
    said, should, why, _, title, *_ = out.splitlines()
    assert code == 0
    assert said == f"norm-eps: {CAUSES['norm-eps'].did}"
    assert should == f"right: {CAUSES['norm-eps'].should}"
    assert why == f"why: {CAUSES['norm-eps'].why}"
    assert title == "The wrong epsilon"
    assert "1e-12 in MiniLM, 1e-5 in GPT-2" in out
    assert "read: part-4/mistakes/#norm-eps " in out
    assert run("explain", "norm-eps", "--list")[1] == run("explain")[1]
    code, out, _ = run("explain")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if re.match(r"  \S", line)] == list(CAUSES)
    assert [line for line in out.splitlines() if line.rstrip() in GROUPS] == list(GROUPS)
    assert max(map(len, out.splitlines())) <= 80
    code, _, err = run("explain", "norm-epps")
    assert (code, err.count("\n")) == (2, 1)
    assert "no cause is called 'norm-epps'; did you mean 'norm-eps'?" in err
    code, _, err = run("explain", "norm-" * 100_000)
    assert (code, err.count("\n")) == (2, 1)
    assert len(err) < 300


def test_without_a_command_it_helps(run: Run):
    assert "Usage" in run()[1]
    assert run("--version")[1] == f"llm-rebuild {__version__}\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_on_a_terminal_only(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Screen(Terminal):
        def __init__(self, **options) -> None:
            super().__init__(**options, force_terminal=terminal)

    monkeypatch.setattr("llm_rebuild.show.terminal.Terminal", Screen)
    with output.progress("work", 2) as done:
        done("one")
    assert ("work" in capsys.readouterr().err) is terminal


def test_stopping_it_leaves_no_traceback(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_rebuild.anatomy.describe", stop)
    assert run("map", folder) == (130, "", "llm-rebuild: stopped\n")


def test_a_pipe_that_closes_is_quiet(folder: Path):
    command = [sys.executable, "-m", "llm_rebuild", "map", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is printed: the reader has gone
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_the_models_of_the_course_are_the_same_everywhere() -> None:
    """Help must not wait for the records, which bring torch; so it has a list of its own."""
    assert tuple(record.published for record in RECORDS) == NAMES
    assert ", ".join(record.published for record in RECORDS if record.generates) == options.WRITERS
    assert {record.title for record in RECORDS if record.encoder_decoder} == {options.TWO_SIDED}
    assert set(SKELETONS) == {folder.name for folder in MINIATURES.iterdir()} == set(NAMES)
