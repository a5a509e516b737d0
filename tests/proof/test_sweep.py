"""A sweep: its rows, what counts as done, what a killed worker and a broken file do to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from benchmarks.sweep_kills import workers
from llm_rebuild.copies import local_copy
from llm_rebuild.errors import InputError
from llm_rebuild.proof import sweep as sweeping
from llm_rebuild.proof.sweep import Results, Task, prove_task, sweep, tasks
from tests import warm

parquet = pytest.importorskip("pyarrow.parquet")
MINIATURE = str(local_copy.MINIATURES / "gpt2")
TEXTS = ["The baker of Oru lives by the river.", "The cook", "One more."]


def here(waiting, address):
    """In the place of Ray: one task after the other, in this process."""
    for task in waiting:
        yield prove_task(task)


@pytest.fixture
def asked() -> list[Task]:
    return list(tasks([MINIATURE], TEXTS, ["eager", "sdpa"], batch=2))


def test_every_text_is_in_one_task_of_each_attention(asked: list[Task]):
    assert [(t.attention, t.first_text, len(t.texts)) for t in asked] == [
        ("eager", 0, 2), ("eager", 2, 1), ("sdpa", 0, 2), ("sdpa", 2, 1),
    ]  # fmt: skip
    assert len({task.key for task in asked}) == 4


def test_a_row_has_the_verdicts(asked: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweeping, "_rows", here)
    result = sweep(asked, tmp_path / "out.parquet")
    assert result.passed
    assert [row["bit_identical"] for row in result.rows] == [72, 72, 59, 59]
    line = result.summary()[0]
    assert (line["texts"], line["checkpoints"], line["bit_identical"], line["errors"]) == (3, 144, 144, 0)
    assert "every checkpoint agrees" in " ".join(str(result).split())
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]


def test_what_is_done_is_not_done_again(asked: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counted: list[Task] = []

    def stops_after_two(waiting, address):
        for number, row in enumerate(here(waiting, address)):
            if number == 2:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(sweeping, "_rows", stops_after_two)
    with pytest.raises(KeyboardInterrupt):
        sweep(asked, tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 2
    monkeypatch.setattr(sweeping, "_rows", lambda w, a: (counted.extend(w), here(w, a))[1])
    result = sweep(asked, tmp_path / "out.parquet")
    assert counted == asked[2:]
    assert [row["key"] for row in result.rows] == [task.key for task in asked]


def test_an_error_is_a_row_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweeping, "_rows", here)
    good = next(tasks([MINIATURE], TEXTS[:1], ["eager"]))
    bad = replace(good, model=str(tmp_path))
    assert bad.key == good.key
    assert "has no config.json" in sweep([bad], tmp_path / "out.parquet").rows[0]["error"]
    result = sweep([good], tmp_path / "out.parquet")
    assert [row["error"] for row in result.rows] == [None]
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 1


def test_nan_that_proves_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweeping, "_rows", here)
    folder = tmp_path / "large"
    shutil.copytree(MINIATURE, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["h.0.attn.c_attn.weight"] *= 1e30
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    result = sweep(list(tasks([str(folder)], TEXTS[:1], ["eager"])), tmp_path / "out.parquet")
    shown = " ".join(str(result).split())
    assert "large, eager: the official h.0.attn.product holds NaN; there and behind it NaN is right" in shown
    assert " 1 proof in " in shown


def test_a_file_that_ray_s_workers_would_import_is_named(
    asked: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torch.py").touch()
    with pytest.raises(InputError, match=r"torch\.py in this folder is what Ray's workers would import"):
        sweep(asked, tmp_path / "out.parquet")


def test_another_type_of_number_is_another_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweeping, "_rows", here)
    file, lines = tmp_path / "out.parquet", []
    for dtype in ("float32", "bfloat16", "auto"):
        result = sweep(list(tasks([MINIATURE], TEXTS[:1], ["eager"], dtype=dtype)), file)
        lines += [(line["dtype"], line["rows"], line["failed"]) for line in result.summary()]
    assert lines == [("float32", 1, 0), ("bfloat16", 1, 0), ("float32", 1, 0)]
    rows = parquet.read_table(file).to_pylist()
    assert [row["dtype"] for row in rows] == ["float32", "bfloat16"]
    assert rows[1]["bit_identical"] == rows[1]["checkpoints"]


def test_parts_that_a_killed_sweep_left_are_read(asked: list[Task], tmp_path: Path):
    results = Results(tmp_path / "out.parquet")
    results.parts.mkdir()
    for task in asked[:2]:
        results.add(prove_task(task))
        results.flush()
    (results.parts / ".7.abc.part").write_bytes(b"PAR1 half of a part")
    again = Results(tmp_path / "out.parquet")
    assert again.done() == {task.key for task in asked[:2]}
    again.merge()
    assert Results(tmp_path / "out.parquet").done() == again.done()


@pytest.mark.parametrize("content", [b"", b"no Parquet", b"PAR1" + bytes(100)])
def test_a_file_that_is_no_sweep_is_refused_and_kept(content: bytes, asked: list[Task], tmp_path: Path):
    file = tmp_path / "mine.parquet"
    file.write_bytes(content)
    with pytest.raises(InputError, match="is no file of a sweep"):
        sweep(asked, file)
    assert file.read_bytes() == content


def test_a_parquet_file_of_other_columns_is_refused_and_kept(asked: list[Task], tmp_path: Path):
    import pyarrow

    file = tmp_path / "mine.parquet"
    parquet.write_table(pyarrow.table({"key": [1, 2]}), file)
    with pytest.raises(InputError, match="is no file of a sweep"):
        sweep(asked, file)
    assert parquet.read_table(file)["key"].to_pylist() == [1, 2]


def test_a_file_of_before_there_were_notes_goes_on(asked: list[Task], tmp_path: Path):
    results = Results(tmp_path / "out.parquet")
    results.parts.mkdir()
    results.add(asked[0].row())
    results.merge()
    parquet.write_table(parquet.read_table(results.file).drop_columns("note"), results.file)
    assert Results(results.file).done() == {asked[0].key}


def test_two_sweeps_do_not_write_one_file(asked: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def meanwhile(waiting, address):
        with pytest.raises(InputError, match="another sweep writes to"):
            sweep(asked, tmp_path / "out.parquet")
        yield from here(waiting, address)

    monkeypatch.setattr(sweeping, "_rows", meanwhile)
    assert sweep(asked[:1], tmp_path / "out.parquet").passed


def test_only_what_the_sweep_wrote_goes_with_its_parts(asked: list[Task], tmp_path: Path):
    results = Results(tmp_path / "out.parquet")
    results.parts.mkdir()
    (results.parts / "notes.txt").write_text("somebody's", encoding="utf-8")
    results.add(asked[0].row())
    results.merge()
    assert [file.name for file in results.parts.iterdir()] == ["notes.txt"]
    assert parquet.read_table(results.file).num_rows == 1


def test_no_part_takes_the_place_of_another(asked: list[Task], tmp_path: Path):
    """Rows that mend errors are as many as before, and the next part is a new one all the same."""
    file = tmp_path / "out.parquet"
    for error in ("no memory", "no memory", None, "another"):
        results = Results(file)
        results.parts.mkdir(exist_ok=True)
        results.add(asked[0].row() | {"error": error})
        results.flush()  # and then it is killed
    assert len(list(results.parts.glob("*.parquet"))) == 4
    assert Results(file).table["error"].to_pylist() == ["another"]


@pytest.mark.parametrize(
    "answers",
    [
        lambda there: there.close(),
        lambda there: (there.sendall(b"HTTP/1.1 200 OK\r\n\r\n"), there.close()),
        lambda there: there.settimeout(None),
    ],
    ids=["hangs up", "speaks HTTP/1", "is silent"],
)
def test_who_is_no_cluster_gets_one_line_and_no_minutes(
    answers: Callable[[socket.socket], object],
    asked: list[Task],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("ray")
    monkeypatch.setattr(sweeping, "REACH", 2)
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held.append(server.accept()[0])
            answers(held[0])

        threading.Thread(target=serve, daemon=True).start()
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=rf"Ray does not start at 127\.0\.0\.1:{port} "):
            sweep(asked, tmp_path / "out.parquet", address=f"127.0.0.1:{port}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", " "], "'--address' is empty; give it a name or a value"),
        (["--out", "loop"], "--out loop: that is a link to itself"),
        (["--out", "astray"], "--out astray: there is no folder"),
    ],
)
def test_refused_before_the_work(
    run: Callable[..., tuple[int, str, str]],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("The cook\n", encoding="utf-8")
    Path("loop").symlink_to("loop")
    Path("astray").symlink_to("nowhere/out.parquet")
    code, _, err = run("sweep", MINIATURE, "--texts", "texts.txt", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_cluster_that_is_not_there_gets_one_line(asked: list[Task], tmp_path: Path):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match=r"Ray does not start at 127\.0\.0\.1:9 "):
        sweep(asked, tmp_path / "out.parquet", address="127.0.0.1:9")
    assert not list(tmp_path.iterdir())


HEAD = """
import ray
cluster = ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
print(cluster.address_info["gcs_address"], flush=True)
input()
"""
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
PLAIN = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """A Ray cluster with room for one worker: its address, and the process that began it."""
    pytest.importorskip("ray")
    with subprocess.Popen([sys.executable, "-c", HEAD], env=os.environ | PLAIN, **PIPES) as head:
        yield head.stdout.readline().strip(), head.pid
        head.communicate("\n")


def begun(folder: Path, texts: int, address: str) -> tuple[subprocess.Popen[str], Path]:
    """A sweep of so many proofs on a cluster, and the file that it writes."""
    (folder / "texts.txt").write_text("\n".join(f"The cook has {n} lamps." for n in range(texts)), "utf-8")
    command = ["llm-rebuild", "sweep", MINIATURE, "--texts", str(folder / "texts.txt")]
    command += ["--batch", "1", "--attention", "eager", "--out", str(folder / "out.parquet")]
    process = subprocess.Popen([*command, "--address", address], env=warm.environment(**PLAIN), **PIPES)
    return process, folder / "out.parquet"


@pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")
def test_a_killed_worker_loses_and_doubles_nothing(cluster: tuple[str, int], tmp_path: Path):
    process, file = begun(tmp_path, 12, cluster[0])
    killed = False
    while process.poll() is None:
        running = workers(cluster[1]) if not killed else []
        if running:
            os.kill(running[0], signal.SIGKILL)
            killed = True
        time.sleep(0.05)
    assert "12 proofs" in process.communicate()[0]
    keys = parquet.read_table(file)["key"].to_pylist()
    assert (process.returncode, len(keys), len(set(keys)), killed) == (0, 12, 12, True)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are found in /proc")
def test_the_workers_of_another_cluster_are_left_alone():
    named = "import sys, time; print(flush=True); time.sleep(60)"  # called as a worker is
    worker = ["-c", f"exec -a ray::prove_task {sys.executable} -c '{named}'"]
    between = [sys.executable, "-c", f"import subprocess; subprocess.run({['bash', *worker]!r})"]
    with (
        subprocess.Popen(between, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(["bash", *worker], stdout=subprocess.PIPE) as others,
    ):
        assert ours.stdout is not None
        assert others.stdout is not None
        ours.stdout.readline(), others.stdout.readline()
        working, elsewhere = workers(ours.pid), workers(others.pid)
        for number in {*working, *elsewhere, others.pid}:
            os.kill(number, signal.SIGKILL)
    assert (len(working), elsewhere) == (1, [others.pid])
    assert working[0] not in (ours.pid, others.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the head is found in /proc")
def test_a_cluster_that_loses_its_head_gets_one_line_and_keeps_what_is_done(
    cluster: tuple[str, int], tmp_path: Path
):
    """The last test of the cluster."""
    process, file = begun(tmp_path, 200, cluster[0])
    parts = file.with_name(f"{file.name}.parts")
    while process.poll() is None and not list(parts.glob("*.parquet")):
        time.sleep(0.1)
    os.kill(server_of(cluster[1]), signal.SIGKILL)
    _, err = process.communicate()
    assert (process.returncode, err.count("\n")) == (2, 1), err
    assert "the Ray cluster is lost" in err
    assert 0 < len(Results(file).done()) < 200


def server_of(head: int) -> int:
    """The process through which a cluster that was begun by this process is held together."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, status = (folder / "cmdline").read_bytes(), (folder / "status").read_text()
        except OSError:
            continue  # it ended meanwhile
        if b"gcs_server" in words.partition(b"\0")[0] and f"PPid:\t{head}\n" in status:
            return int(folder.name)
    raise AssertionError(head)
