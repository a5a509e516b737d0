"""The one door out of the command line: whatever happens, an exit code and at most a line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_rebuild.cli import main as cli
from tests import tiny_bert, warm

Run = Callable[..., subprocess.CompletedProcess[str]]

linux = pytest.mark.skipif(sys.platform != "linux", reason="devices and streams as on Linux")

# A command in a process of its own, after something has been arranged there.
SCRIPT = """
import sys
from llm_rebuild.cli import main as cli
{arranged}
sys.argv = ["llm-rebuild", *sys.argv[1:]]
cli.main()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    return tiny_bert.write(tmp_path / "tiny")


@pytest.fixture
def shell(tmp_path: Path, folder: Path) -> Run:
    """Run a line of shell in which `llm-rebuild` is this program and `tiny` a model."""

    def run(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        program = f'llm-rebuild() {{ "{sys.executable}" -m llm_rebuild "$@"; }}\n'
        environment = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2]), **variables}
        return subprocess.run(
            ["bash", "-c", program + line],
            capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip

    return run


def in_process(arranged: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a new Python, from its first import on."""
    command = [sys.executable, "-c", SCRIPT.format(arranged=arranged), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def in_a_copy(arranged: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a copy of a Python that has imported everything; where none is made, in a new one."""
    if sys.platform != "linux":
        return in_process(arranged, *arguments)
    return warm.run(*arguments, **{warm.ARRANGED: arranged})


# --------------------------------------------------------------------------- streams and folders


@linux
@pytest.mark.parametrize("command", ["map tiny", "run tiny 'a b' --json -", "verify tiny --json /dev/stdout"])
def test_a_disk_that_is_full_behind_stdout(folder: Path, command: str):
    line = ["bash", "-c", f"llm-rebuild {command} > /dev/full"]
    environment = warm.environment()
    ended = subprocess.run(
        line, capture_output=True, text=True, check=False, cwd=folder.parent, env=environment
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("llm-rebuild: ")
    assert ended.stderr.endswith("no space left on device\n")
    assert ended.stderr.count("\n") == 1


@linux
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("llm-rebuild map tiny >&-", 0),
        ("llm-rebuild run tiny 'a b' --json - >&- 2>&- <&-", 0),
        ("llm-rebuild map nowhere 2>&-", 2),
        ("llm-rebuild map nowhere 2>/dev/full", 2),
    ],
)
def test_streams_that_are_closed_or_full(shell: Run, line: str, code: int):
    ended = shell(line)
    assert (ended.returncode, ended.stderr) == (code, "")


@linux
def test_a_file_does_not_get_the_place_of_a_stream_that_was_closed(shell: Run, tmp_path: Path):
    assert shell("llm-rebuild verify tiny --json out.json >&- 2>&- <&-").returncode == 0
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["summary"]["failed"] == 0


def test_a_terminal_that_has_only_some_characters(folder: Path):
    arranged = "sys.stdout.reconfigure(encoding='ascii')"
    shown = in_a_copy(arranged, "run", folder, "é 日", "b")
    assert shown.returncode == 0, shown.stderr
    assert "\\xe9 \\u65e5" in shown.stdout
    printed = in_a_copy(arranged, "run", folder, "é 日", "b", "--json", "-")
    assert json.loads(printed.stdout)["texts"] == ["é 日", "b"]


@linux
def test_a_folder_that_was_removed(shell: Run):
    line = f'"{sys.executable}" -c "from llm_rebuild.cli.main import main; main()" map tiny'
    ended = shell(f"mkdir gone; cd gone; rmdir ../gone; {line}")
    assert ended.returncode == 2
    assert ended.stderr == "llm-rebuild: the folder that this runs in has been removed; change to another\n"


# ----------------------------------------------------------------------------------------- signals

STOPS_AT_IMPORT = """
import importlib.abc, os, signal

class Stop(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Stop())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as on Unix")
@pytest.mark.parametrize(
    ("module", "name"), [("typer", "SIGINT"), ("torch", "SIGINT"), ("torch", "SIGTERM"), ("rich", "SIGHUP")]
)
def test_a_signal_ends_it_in_a_line(folder: Path, module: str, name: str):
    ended = in_process(STOPS_AT_IMPORT.format(module=module, signal=name), "map", folder)
    assert ended.returncode == 128 + getattr(signal, name), ended.stderr
    assert ended.stderr == "llm-rebuild: stopped\n"


@pytest.mark.skipif(os.name != "posix", reason="signals as on Unix")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_no_folder_behind(folder: Path, tmp_path: Path, name: str):
    """Nor a process: the rebuild's own is about to be started."""
    (tmp_path / "temporary").mkdir()
    arranged = f"""
import os, signal, subprocess, tempfile
tempfile.tempdir = {str(tmp_path / "temporary")!r}
def stop(*arguments, **named):
    os.kill(os.getpid(), signal.{name})
os.fork = os.posix_spawn = subprocess.run = subprocess.Popen.__init__ = stop
"""
    ended = in_a_copy(arranged, "verify", folder, "--text", "a b", "--isolated")
    assert ended.returncode == 128 + getattr(signal, name), ended.stderr
    assert ended.stderr == "llm-rebuild: stopped\n"
    left = [path.name for path in (tmp_path / "temporary").iterdir()]
    assert [name for name in left if not name.startswith("torchinductor")] == []  # torch's own, for ever


@pytest.mark.skipif(os.name != "posix", reason="signals as on Unix")
def test_nohup_is_obeyed(folder: Path):
    arranged = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from llm_rebuild.copies import local_copy
get = local_copy.get
def hang_up(*arguments, **named):
    os.kill(os.getpid(), signal.SIGHUP)
    return get(*arguments, **named)
local_copy.get = hang_up
"""
    assert in_a_copy(arranged, "map", folder).returncode == 0


# --------------------------------------------------------------------------------- what leaves it


def test_only_a_closed_pipe_is_taken_for_one(folder: Path):
    arranged = """
from llm_rebuild.copies import local_copy
def leave(*arguments, **named):
    sys.exit("{why}")
local_copy.get = leave
"""
    ended = in_a_copy(arranged.format(why="something else"), "map", folder)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "something else\n")


@pytest.mark.parametrize("error", ["MemoryError()", "torch.empty(2**60)"])
def test_more_than_the_memory_is_a_line(folder: Path, error: str):
    """A text of a million characters needs terabytes where a model has no end of positions."""
    arranged = f"import torch\ndef get(*a, **n):\n    raise {error}\n"
    arranged += "from llm_rebuild.copies import local_copy\nlocal_copy.get = get"
    ended = in_a_copy(arranged, "map", folder)
    assert ended.returncode == 2
    assert ended.stderr.startswith("llm-rebuild: this machine has not enough memory for it")
    assert ended.stderr.count("\n") == 1


def test_a_fault_of_the_program_shows_where_it_is(folder: Path):
    arranged = "from llm_rebuild.copies import local_copy\nlocal_copy.get = lambda *a, **n: 1 / 0"
    ended = in_a_copy(arranged, "map", folder)
    assert ended.returncode == 1
    assert ended.stderr.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[bold]", "[bold]"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb", "a\\nb"),
        ("a" * 3000, f"{'a' * 50}"),
        ("\u202eback", "\\u202eback"),
    ],
    ids=["markup", "escape", "two lines", "long", "turned round"],
)
@pytest.mark.parametrize("command", ["map", "verify", "check"])
def test_names_are_printed_and_not_obeyed(
    name: str, shown: str, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    where = ["learner.py", "--model", name] if command == "check" else [name]
    monkeypatch.setattr(sys, "argv", ["llm-rebuild", command, *where, "--strict"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert shown in err
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert len(err) < 600


def test_a_tensor_with_a_name_that_colours_the_terminal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Whatever a file holds, in a table as in a message."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "\x1b[2Jwiped": tensors["pooler.dense.bias"].clone()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}), encoding="utf-8")
    for command in ("map", "verify"):
        monkeypatch.setattr(
            sys, "argv", ["llm-rebuild", command, str(folder), "--text", "a"][: 3 if command == "map" else 5]
        )
        with pytest.raises(SystemExit):
            cli.main()
        out, err = capsys.readouterr()
        assert "\x1b" not in out + err
        if command == "map":
            assert "\\x1b[2Jwiped" in out


@linux
def test_a_device_is_not_replaced(folder: Path, tmp_path: Path):
    """As root, `--out /dev/null` would have left a file there. A pipe is no file either."""
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path(os.devnull)):
        ended = in_a_copy("", "capture", folder, "--text", "a", "--out", place)
        assert ended.returncode == 2
        assert "is no regular file; choose another place" in ended.stderr
        assert place.exists()
        assert not place.is_file()


def test_many_texts_are_shown_by_their_nearest(folder: Path):
    """In memory that grows with the texts and not with their pairs."""
    texts = [f"{'abcdefg'[n % 7]} {'abcdefg'[n // 7 % 7]} {'abcdefg'[n // 49 % 7]}" for n in range(300)]
    ended = in_a_copy("", "run", folder, *texts)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert sum(line.startswith("  nearest: similarity ") for line in lines) == 20
    assert lines[-1] == "the first 20 of 300 texts; --json FILE writes every embedding"


@linux
def test_watching_hides_no_fault(folder: Path, tmp_path: Path):
    """What goes wrong in a check is seen, and the next save is checked all the same."""
    (tmp_path / "mine.py").write_text("", encoding="utf-8")
    arranged = """
import time
from llm_rebuild.workbench import cached
def stop(seconds):
    raise KeyboardInterrupt
time.sleep = stop
cached.copy_for = lambda *arguments: 1 / 0
"""
    ended = in_a_copy(arranged, "check", tmp_path / "mine.py", "--model", folder, "--watch")
    assert "ZeroDivisionError: division by zero" in ended.stderr
    assert ended.returncode == 130


def test_a_folder_with_a_name_that_is_markup(tmp_path: Path):
    folder = tmp_path / "[bold]\x1b[31m"
    folder.mkdir()
    assert "[bold]\\x1b[31m has no config.json" in in_a_copy("", "map", folder).stderr
    tiny = tiny_bert.write(tmp_path / "[red]")
    assert in_a_copy("", "map", tiny).stdout.startswith("[red] (bert): ")


@pytest.mark.parametrize("columns", ["0", "00", "-5", "wide"])
def test_a_terminal_of_odd_width_gets_the_result(shell: Run, columns: str):
    for command in ("map tiny", "--help"):
        said = shell(f"COLUMNS={columns} llm-rebuild {command}")
        assert (said.returncode, said.stderr) == (0, "")
        assert len(said.stdout.split()) > 20
