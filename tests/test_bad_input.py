"""Bad input through the command line: exit 2, one line on stderr, no traceback, nothing lost or written."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import resource
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file

from llm_rebuild.cli import app
from llm_rebuild.cli import main as cli
from llm_rebuild.workbench.new import source as skeleton
from tests import tiny_bert, warm
from tests.workbench import tiny_smollm3

Refused = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path / "tiny")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Run a command that must be refused; its one line."""
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))

    def run(*arguments: object) -> str:
        before = listing(tmp_path)
        monkeypatch.setattr(sys, "argv", ["llm-rebuild", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        assert stop.value.code == 2, out + err
        assert out == ""
        assert err.startswith("llm-rebuild: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        assert len(err) < 600
        assert listing(tmp_path) == before
        return err

    return run


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def with_config(folder: Path, **changes: Any) -> Path:
    config = tiny_bert.CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    tensors = tiny_bert.weights()
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


# ------------------------------------------------------------------------------- which model


@pytest.mark.parametrize("name", ["minilmm", "bert", "no/such", "./nowhere"])
@pytest.mark.parametrize("command", ["map", "verify"])
def test_unknown_model(refused: Refused, command: str, name: str):
    line = refused(command, name)
    assert "minilm" in line


def test_a_folder_that_is_no_model(refused: Refused, tmp_path: Path):
    assert "config.json" in refused("verify", tmp_path)


# ------------------------------------------------------------------------------- weights

QUERY = "encoder.layer.1.attention.self.query.weight"
BIAS = "encoder.layer.0.output.dense.bias"
COMMANDS = [("map",), ("verify", "--text", "a b"), ("run", "a b"), ("capture", "--out", "OUT")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_every_command_refuses_weights_that_do_not_fit(refused: Refused, folder: Path, command):
    with_weights(folder, lambda t: t.pop(QUERY))
    name, *rest = command
    rest = [str(folder / "out.safetensors") if word == "OUT" else word for word in rest]
    assert f"lacks {QUERY}" in refused(name, folder, *rest)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(QUERY), f"lacks {QUERY}"),
        (lambda t: t.pop("pooler.dense.bias"), "pooler.dense"),
        (lambda t: t.update(extra=torch.zeros(1)), "holds extra"),
        (lambda t: t.update({"encoder.layer.2.output.dense.bias": torch.zeros(16)}), "encoder.layer.2"),
        (lambda t: t.update({BIAS: torch.zeros(17)}), f"{BIAS} has shape [17], its config.json says [16]"),
        (lambda t: t.update({QUERY: torch.zeros(16, 16, 1)}), f"{QUERY} has shape [16, 16, 1]"),
        (lambda t: t.update({QUERY: t[QUERY].to(torch.complex64)}), f"{QUERY} is complex64"),
        (lambda t: t.update({QUERY: t[QUERY].to(torch.float8_e4m3fn)}), f"{QUERY} is float8_e4m3fn"),
        (lambda t: t.update({QUERY: t[QUERY].to(torch.int32)}), f"{QUERY} is int32"),
        (lambda t: t[BIAS].fill_(float("nan")), f"{BIAS} has numbers that are not finite"),
        (lambda t: t[QUERY].view(-1)[3:4].fill_(float("inf")), f"{QUERY} has numbers that are not finite"),
    ],
    ids=[
        "missing",
        "half a pooler",
        "extra",
        "extra block",
        "shape",
        "axes",
        "half",
        "a quarter",
        "whole numbers",
        "NaN",
        "infinite",
    ],
)
def test_weights_that_do_not_fit(refused: Refused, folder: Path, change, said: str):
    assert said in refused("verify", with_weights(folder, change), "--text", "a b")


@pytest.mark.parametrize("command", ["map", "verify", "capture", "dump", "find", "run", "check"])
def test_no_command_takes_numbers_that_are_not_finite(
    refused: Refused, folder: Path, tmp_path: Path, command: str
):
    """The official model and the rebuild would both have NaN, which is the same."""
    with_weights(folder, lambda t: t[BIAS].fill_(float("nan")))
    _every_command_refuses(refused, command, folder, skeleton("minilm", solved=True), tmp_path)


@pytest.mark.parametrize("command", ["map", "capture", "dump", "find", "check"])
def test_nor_those_of_a_model_without_a_rebuild(refused: Refused, tmp_path: Path, command: str):
    folder = tiny_smollm3.write(tmp_path / "smollm3")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = float("inf")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _every_command_refuses(refused, command, folder, tiny_smollm3.REBUILD, tmp_path, "--token-ids", "5,17")


def _every_command_refuses(refused, command, folder, source, tmp_path, *ids):
    tensor, mine = tmp_path / "x.safetensors", tmp_path / "mine.py"
    save_file({"x": torch.rand(1, 3, 16)}, tensor)
    mine.write_text(source, encoding="utf-8")
    commands = {
        "find": ["find", tensor, "--model", folder, *ids],
        "check": ["check", mine, "--model", folder, *ids],
        "capture": ["capture", folder, "--out", tmp_path / "o.safetensors", *ids],
        "dump": ["dump", folder, "--out", tmp_path / "o.npz", *ids],
    }
    assert "has numbers that are not finite" in refused(*commands.get(command, [command, folder]))


def test_sums_that_overflow_are_no_infinite_numbers(folder: Path):
    """The sum of huge numbers is infinite; each of them is finite. They are not refused for it."""
    from llm_rebuild.models import rebuild_for

    with_weights(folder, lambda t: t[QUERY].fill_(3e38))
    rebuild_for(tiny_bert.CONFIG).check(tiny_bert.copy(folder).weights())


def whole_file(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: b"",
        lambda whole: whole[:4],
        lambda whole: whole[:100],
        lambda whole: whole[:-1],
        lambda whole: whole + b"\0",
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda whole: (2**40).to_bytes(8, "little") + whole[8:],
        lambda whole: pickle.dumps({"weights": 1}),
        lambda whole: b"<html>not found</html>" * 10,
        lambda whole: whole.replace(b'"F32"', b'"F99"', 1),
    ],
    ids=["empty", "4", "100", "one less", "one more", "length", "2^40", "pickled", "page", "dtype"],
)
def test_files_that_are_no_safetensors(refused: Refused, folder: Path, content):
    (folder / "model.safetensors").write_bytes(content(whole_file(folder)))
    assert "is not a whole safetensors file" in refused("verify", folder, "--text", "a b")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("pickle-was-run"),))


def test_a_pickled_weight_file_is_not_run(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path.parent / f"{tmp_path.name}-store"))
    refused("map", folder)
    assert not (tmp_path / "pickle-was-run").exists()


def test_a_pickle_that_torch_did_not_write_is_one_line(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}, protocol=4))
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path.parent / f"{tmp_path.name}-store"))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        refused("map", folder)
    assert not warned


def test_no_weight_file(refused: Refused, folder: Path):
    (folder / "model.safetensors").unlink()
    assert "safetensors" in refused("verify", folder)


# ------------------------------------------------------------------------------- config.json


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '"bert"', "{'a': 1}", "[" * 5000, "\x00"], ids=range(8)
)
def test_config_that_is_no_json_object(refused: Refused, folder: Path, text: str):
    (folder / "config.json").write_text(text, encoding="utf-8")
    assert "config.json" in refused("verify", folder, "--text", "a")


def test_config_that_is_not_utf_8(refused: Refused, folder: Path):
    (folder / "config.json").write_bytes(b'{"model_type": "\xff"}')
    assert "config.json" in refused("verify", folder, "--text", "a")


SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
WRONG = [0, -1, True, False, 1.5, "16", None, [16], {}, 10**12, 10**400, 17]


@pytest.mark.parametrize("field", SIZES)
def test_sizes_that_cannot_be(refused: Refused, folder: Path, field: str):
    """Each by the field's name, or by the first tensor that it makes impossible; nothing is allocated."""
    for value in WRONG:
        line = refused("map", with_config(folder, **{field: value}))
        assert field in line or "model.safetensors" in line or "blocks" in line, (value, line)
        if value in (0, -1) or not isinstance(value, int) or isinstance(value, bool):
            assert f"config.json: {field} is " in line, (value, line)


@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "num_hidden_layers"])
def test_huge_sizes_never_reach_the_official_model(refused: Refused, folder: Path, field: str):
    refused("verify", with_config(folder, **{field: 10**12}), "--token-ids", "1,2")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "roberta"),
        ("model_type", None),
        ("model_type", ["bert"]),
        ("model_type", 7),
        ("hidden_act", "gelu_fast"),
        ("hidden_act", None),
        ("hidden_act", ["gelu"]),
        ("layer_norm_eps", "small"),
        ("layer_norm_eps", -1e-12),
        ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", float("inf")),
        ("layer_norm_eps", 10**400),
        ("layer_norm_eps", True),
        ("num_attention_heads", 3),
        ("num_attention_heads", 32),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("is_encoder_decoder", True),
        ("position_embedding_type", "relative_key"),
    ],
    ids=str,
)
def test_values_that_the_rebuild_does_not_support(refused: Refused, folder: Path, field: str, value: object):
    line = refused("verify", with_config(folder, **{field: value}), "--text", "a")
    assert f"config.json: {field} is " in line


# ------------------------------------------------------------------------------- texts and ids


@pytest.mark.parametrize(
    "ids", ["32", "-1", "1,2,99", "1,,2", "", "a", "1.5", "1;2", "1\n2x", "9" * 5000, "1," * 12 + "1"]
)
def test_ids_that_cannot_be(refused: Refused, folder: Path, ids: str):
    refused("verify", folder, f"--token-ids={ids}")


def test_ids_out_of_range_are_named(refused: Refused, folder: Path):
    assert "token id 32 is outside the vocabulary of 0 to 31" in refused("verify", folder, "--token-ids=1,32")


@pytest.mark.parametrize("command", ["verify", "capture"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a b\n\xff\xfe\n", "is not UTF-8 (byte 4); save it as UTF-8"), (b"", "has no lines")],
    ids=["not UTF-8", "empty"],
)
def test_texts_files_that_cannot_be_read(
    refused: Refused, folder: Path, command: str, content: bytes, said: str
):
    (folder / "texts").write_bytes(content)
    out = ["--out", folder / "out"] if command == "capture" else []
    assert said in refused(command, folder, "--texts", folder / "texts", *out)


def test_texts_files_that_are_none(refused: Refused, folder: Path):
    assert "is missing" in refused("verify", folder, "--texts", folder / "absent")
    assert "is a directory" in refused("verify", folder, "--texts", folder)


def test_lone_surrogates(refused: Refused, folder: Path):
    assert "lone surrogate (U+D800)" in refused("verify", folder, "--text", "a \ud800")
    assert "lone surrogate (U+DCFF)" in refused("run", folder, "a \udcff")


def test_no_tokenizer(refused: Refused, folder: Path):
    (folder / "vocab.txt").unlink()
    assert "vocab.txt" in refused("verify", folder, "--text", "a")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_files_that_are_no_files(refused: Refused, tmp_path: Path, folder: Path):
    """A pipe that nobody writes to, a device without an end, a folder: nothing is waited for."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for file in (tmp_path / "pipe", Path("/dev/zero"), tmp_path / "folder"):
        for command in (
            ["recheck", file],
            ["find", file, "--model", folder],
            ["check", file, "--model", folder],
        ):
            assert re.search("is a (folder|pipe or a device), and should be a file", refused(*command))
    assert "has no lines" in refused("verify", folder, "--texts", tmp_path / "pipe")


def test_homes_of_nobody(refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert "~nosuchuser" in refused("verify", "~nosuchuser/model")
    assert "~nosuchuser" in refused("check", "~nosuchuser/mine.py", "--model", folder)
    assert "~nosuchuser" in refused("download", "minilm", "--store", "~nosuchuser/store")
    monkeypatch.setenv("LLM_REBUILD_STORE", "~nosuchuser/store")
    assert "~nosuchuser" in refused("map", "minilm")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_models_file_that_is_a_pipe(refused: Refused, folder: Path, file: str):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    for command in ("map", "run") if file != "vocab.txt" else ("run",):
        assert file in refused(command, folder)


# ------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "a", "--token-ids", "1"], "--text and --token-ids were given; one of them is enough"),
        (["--text", "a", "--texts", "f"], "--text and --texts were given"),
        (["--texts", "f", "--token-ids", "1"], "--texts and --token-ids were given"),
        (["--steps", "2", "--cache"], "--cache serves a single pass; leave --steps out"),
        (["--steps", "2", "--html", "f"], "--html serves a single pass; leave --steps out"),
        (["--json", "f", "--html", "./f"], "--json f: --html writes that file; choose another place"),
        (["--attention", "flash"], "--attention flash: it is either eager or sdpa"),
        (["--exactly"], "--exactly"),
        (["--json"], "--json"),
        (["too", "many"], "unexpected extra argument"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together(refused: Refused, folder: Path, options: list[str], said: str):
    assert said in refused("verify", folder, *options)


def parameters() -> list[tuple[str, Any]]:
    """Every command's every parameter that takes a word, but for texts, seeds and the names of tensors."""
    for module in ("bench", "compare", "copies", "find", "prove", "run", "sweep"):
        importlib.import_module(f"llm_rebuild.cli.{module}")
    return [
        (name, parameter)
        for name, command in typer.main.get_command(app.app).commands.items()
        for parameter in command.params
        if not getattr(parameter, "is_flag", False)
        and parameter.name not in ("text", "seed", "key")
        and parameter.metavar != "TEXT ..."
    ]


@pytest.mark.parametrize(("command", "parameter"), parameters(), ids=lambda v: getattr(v, "name", v))
def test_an_empty_name_is_none(
    refused: Refused, command: str, parameter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is not the current folder, as pathlib has it."""
    monkeypatch.chdir(tmp_path)
    before = ["gpt2"] if (command, parameter.name) == ("new", "file") else []
    before += [parameter.opts[0]] if parameter.param_type_name == "option" else []
    line = refused(command, *before, "")
    own = "expected|it is either|unknown model ''|no skeleton of ''|Missing argument"
    assert re.search(f"is empty; give it|{own}", line)


def test_unknown_commands(refused: Refused):
    assert "No such command" in refused("verfy")
    assert "Missing argument" in refused("verify")


# ------------------------------------------------------------------------------- places to write


@pytest.mark.parametrize("place", ["absent/out.json", ".", "file/out.json"])
@pytest.mark.parametrize("command", ["verify", "run", "capture"])
def test_places_that_cannot_be_written(refused: Refused, folder: Path, command: str, place: str):
    (folder / "file").write_text("here before", encoding="utf-8")
    option = "--out" if command == "capture" else "--json"
    text = ["a b"] if command == "run" else ["--text", "a b"]
    line = refused(command, folder, *text, option, folder / place)
    assert option in line or "cannot write" in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("verify", option) for option in ("--json", "--html", "--certificate")),
        *(("compare", option) for option in ("--json", "--html", "--write-names")),
        ("run", "--json"), ("find", "--json"), ("capture", "--out"), ("dump", "--out"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_refused_before_the_work(
    refused: Refused, folder: Path, tmp_path: Path, command: str, option: str, monkeypatch: pytest.MonkeyPatch
):
    """A pipe that nobody reads, a device of a disk or a socket: the model is not even asked for."""
    monkeypatch.setattr("llm_rebuild.copies.local_copy.get", None)
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        words = {"compare": ["x.npz", "--model", folder], "find": ["x.safetensors", "--model", folder]}
        for place, said in (("pipe", "nobody reads|is no regular file"), ("socket", "is no regular file")):
            line = refused(command, *words.get(command, [folder]), option, place)
            assert re.search(f"{option} {place}: ({said})", line)


@pytest.mark.parametrize("command", ["verify", "run", "find", "compare", "check", "capture", "mark", "sweep"])
@pytest.mark.parametrize("file", ["config.json", "vocab.txt", "model.safetensors"])
def test_no_result_takes_the_place_of_a_models_file(
    refused: Refused, folder: Path, tmp_path: Path, command: str, file: str
):
    words = {
        "find": ["x.safetensors", "--model", folder],
        "compare": ["x.npz", "--model", folder],
        "check": ["mine.py", "--model", folder],
        "mark": [tmp_path, "--model", folder],
        "sweep": [folder, "--texts", "x.txt"],
    }
    option = "--out" if command in ("capture", "mark") else "--json"
    (tmp_path / "link").symlink_to(folder / file)
    for place in (folder / file, tmp_path / "link"):
        line = refused(command, *words.get(command, [folder]), option, place)
        assert f"{option} {place}: that is the file that is read; choose another place" in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_that_somebody_reads_gets_the_result_once(folder: Path, tmp_path: Path):
    """Who reads is not told of an end before the work."""
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        ended = warm.run("verify", folder, "--text", "a b", "--json", tmp_path / "pipe")
        content = reader.communicate(timeout=60)[0]
    assert ended.returncode == 0, ended.stderr
    assert json.loads(content)["summary"]["failed"] == 0


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
from llm_rebuild.cli import main as cli
sys.argv = ["llm-rebuild", *sys.argv[1:]]
cli.main()
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit to put on files here")
def test_a_disk_that_fills_up_while_json_is_written(folder: Path):
    (folder / "old.json").write_text("what was there", encoding="utf-8")
    before = listing(folder)
    command = [sys.executable, "-c", FULL, "run", str(folder), "a b", "--json", str(folder / "old.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1
    assert "file too large" in result.stderr
    assert listing(folder) == before


def test_an_unwritable_store_spoils_no_verification(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "store").write_text("a file where the store should be", encoding="utf-8")
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(sys, "argv", ["llm-rebuild", "verify", str(folder), "--text", "a b"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0, capsys.readouterr().err
