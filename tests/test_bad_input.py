"""Bad input through the command line: exit 2, one line on stderr, no traceback, nothing lost or written."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llm_rebuild.cli import main as cli
from tests import tiny_bert

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
