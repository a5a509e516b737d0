"""Without any network and with an empty store, everything works on the miniatures, and says that it does.

Each command runs in a process of its own, where the system allows it in a network namespace with nothing in
it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_rebuild.cli import main as cli
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.copies.pins import NAMES, PINS
from llm_rebuild.errors import InputError
from llm_rebuild.show.terminal import Terminal
from llm_rebuild.using import generate
from llm_rebuild.using.settings import Settings
from llm_rebuild.verify.question import or_default
from tests import warm

PROJECT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


def _no_network() -> list[str]:
    """A command in front of another that takes the network away; empty where that is not allowed."""
    command = ["unshare", "--net", "--map-root-user"]
    if shutil.which("unshare") is None:
        return []
    return command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else []


@pytest.fixture(scope="module")
def cut_off() -> list[str]:
    return _no_network()


def unplugged(folder: Path) -> dict[str, str]:
    """An empty store and no network, as a machine has it that was set up and then unplugged."""
    left_out = ("HF_", "PIP_", "LLM_REBUILD_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    return kept | {
        "LLM_REBUILD_STORE": str(folder / "store"),
        "HF_HOME": str(folder / "hub-cache"),
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "COLUMNS": "80",
    }


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return unplugged(tmp_path)


@pytest.fixture
def run(environment: dict[str, str], cut_off: list[str]) -> Run:
    def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*cut_off, sys.executable, *arguments],
            cwd=PROJECT, env=environment | more, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    return command


@pytest.fixture(scope="module")
def served(cut_off: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose `llm-rebuild` runs in a copy of a process that imported everything without any
    network (`tests/warm.py`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", unplugged(tmp_path_factory.mktemp("unplugged")))
        return warm.environment(*cut_off)


@pytest.fixture
def quick(served: dict[str, str], tmp_path: Path) -> Run:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["llm-rebuild", *arguments],
            cwd=PROJECT, env=served | {"LLM_REBUILD_STORE": str(tmp_path / "store")},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    return command


# ------------------------------------------------------------------------------------- which copy


def test_the_miniature_stands_in_and_one_line_says_so(run: Run) -> None:
    get = "print([local_copy.get(name).source for name in NAMES])"
    code = f"from llm_rebuild.copies import local_copy; from llm_rebuild.copies.pins import NAMES; {get}"
    result = run("-c", code)
    assert result.stdout == f"{['miniature'] * len(NAMES)}\n", result.stderr
    for name in NAMES:
        (about,) = [line for line in result.stderr.splitlines() if line.startswith(f"{name}: ")]
        assert about.startswith(f"{name}: the miniature that ships with llm_rebuild, not the real model")
        pinned = f"`llm-rebuild download {name}`" if name in PINS else f"no files of {name} are pinned"
        assert pinned in about


@pytest.mark.parametrize("name", PINS)
def test_strict_refuses(quick: Run, name: str) -> None:
    result = quick("verify", name, "--strict")
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[-1].startswith(f"llm-rebuild: {name} is not in the store")
    assert f"`llm-rebuild download {name}`" in lines[-1]
    assert len(lines) == (2 if PINS[name].wheel else 1)  # minilm's first says that the registry is asked


def test_strict_refuses_a_model_that_is_a_miniature_alone(quick: Run) -> None:
    result = quick("verify", "llama", "--strict")
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert result.stderr.startswith("llm-rebuild: no files of llama are pinned; of Llama 3")


# ---------------------------------------------------------------------------------- what they do


def test_every_miniature_is_rebuilt_bit_for_bit(run: Run, figure: Callable[[str], None]) -> None:
    result = run("-m", "tools.models", "--verify")
    assert result.returncode == 0, result.stdout + result.stderr
    verdicts = [line for line in result.stdout.splitlines() if "checkpoints bit-identical" in line]
    assert len(verdicts) == 2 * len(NAMES)
    for line in verdicts:
        _, equal, _, all_of_them, *_ = line.split()
        assert equal == all_of_them
        assert int(equal) > 40
        assert "miniature" in line
        figure(f"offline:{line}")


@pytest.mark.parametrize("name", NAMES[1:])
def test_every_step_of_decoding_is_bit_identical(quick: Run, name: str) -> None:
    result = quick("verify", name, "--steps", "4", "--exact", "--json", "-")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert len(report["steps"]) == 5
    assert report["summary"]["steps"] == 4
    assert report["summary"]["bit_identical"] == report["summary"]["checkpoints"] > 200
    assert report["summary"]["failed"] == 0
    assert report["steps"][4]["model"]["source"] == "miniature"
    assert [step["untried"] for step in report["steps"]] == [["sdpa attention"]] * 5


@pytest.mark.parametrize(
    ("arguments", "result_key", "answer"),
    [
        (["minilm"], "embeddings", None),
        (["gpt2", "The baker of Oru lives by the", "--max-new-tokens", "2"], "generated", None),
        (["t5-small"], "generated", ["vierhundertsiebenundzwanzig"]),
        (["llama", "The baker of Oru lives by the", "--max-new-tokens", "2"], "generated", None),
    ],
)
def test_the_rebuild_alone_does_what_its_model_is_for(
    quick: Run, arguments: list[str], result_key: str, answer: list[str] | None
) -> None:
    result = quick("run", *arguments, "--json", "-")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert list(found)[:4] == ["model", "source", "texts", "token_ids"]
    assert result_key in found
    assert found["source"] == "miniature"
    assert found["model"] == arguments[0]
    assert len(found["texts"]) == len(found["token_ids"]) == len(found[result_key]) == 1
    if answer is not None:
        assert found[result_key] == answer
    if len(arguments) > 1:
        # Behind a start token, where there is one.
        assert "The baker of Oru lives by the " in found["generated"][0]


# ------------------------------------------------------- the command line, on the miniatures' folders


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))

    def run(name: str, model: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llm-rebuild", name, str(MINIATURES / model), *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return run


Command = Callable[..., tuple[int, str, str]]


def test_the_same_seed_writes_the_same_text(command: Command) -> None:
    options = ["The baker of Oru", "--temperature", "1.5", "--max-new-tokens", "12"]
    first, again, other = (command("run", "gpt2", *options, "--seed", seed)[1] for seed in ("1", "1", "2"))
    assert first == again != other
    assert first.startswith("The baker of Oru\n  The baker of Oru")


def test_every_way_to_write_reaches_the_settings(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def refuse(copy: object, prompts: object, settings: Settings, **others: object) -> None:
        asked.update({**vars(settings), **others})
        raise InputError("seen")

    monkeypatch.setattr(generate, "generate", refuse)
    flags = {
        "max_new_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 4, "beams": 2,
        "length_penalty": 2.0, "repetition_penalty": 1.5, "no_repeat_ngram": 3,
    }  # fmt: skip
    words = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
    command("run", "t5-small", "x", *words, "--early-stopping", "--attention", "eager")
    settings = vars(Settings(**flags, early_stopping=True))
    others = {"dtype": "float32", "device": "cpu", "fast": False, "stream": None}
    assert asked == {**settings, **others, "attention": "eager"}
    asked.clear()
    command("run", "t5-small", "x")
    assert asked == {**vars(Settings()), **others, "attention": "sdpa"}


@pytest.mark.parametrize(
    ("model", "text", "written"),
    [
        ("gpt2", "The baker of Oru is", "The baker of Oru is Melnis. "),
        ("t5-small", "translate English to German: seven", "translate English to German: seven\n  sieben\n"),
    ],
)
def test_one_text_appears_on_a_terminal_as_it_is_written(
    command: Command, monkeypatch: pytest.MonkeyPatch, model: str, text: str, written: str
) -> None:
    pieces: list[str] = []

    class Screen(Terminal):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"force_terminal": True})

        def print(self, *things: object, **options: Any) -> None:
            pieces.append("".join(t for t in things if isinstance(t, str)) + options.get("end", "\n"))

    monkeypatch.setattr("llm_rebuild.show.terminal.Terminal", Screen)
    assert command("run", model, text, "--max-new-tokens", "8")[0] == 0
    assert "".join(pieces).startswith(written)
    assert len(pieces) >= 4
    pieces.clear()
    assert command("run", model, text, text, "--max-new-tokens", "8")[0] == 0
    assert len(pieces) == 1  # a batch is shown when it is done


def test_without_a_text_each_model_gets_one_that_it_understands() -> None:
    for model, source in itertools.product(NAMES, ("miniature", "hub")):
        copy = LocalCopy(model, MINIATURES / model, source)
        (text,) = or_default(copy, {"texts": None})["texts"]
        assert copy.tokenizer().encode(text).ids
        assert text.startswith("translate English to German: ") == (model == "t5-small")
        if source == "miniature":  # it knows every word: nothing is spelt letter by letter, nothing unknown
            assert len(copy.tokenizer().encode(text).ids) <= 2 * len(text.split()) + 6
    assert or_default(copy, {"texts": ["mine"]}) == {"texts": ["mine"]}
    assert or_default(copy, {"token_ids": [[1]]}) == {"token_ids": [[1]]}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "minilm", "--beams", "2", "--top-k", "3"], "leave --top-k, --beams out"),
        (
            ["run", "gpt2", "--seed", "1"],
            "a --seed changes nothing without sampling; give a --temperature, 1.0 for none",
        ),
        (["run", "gpt2", "--temperature", "0"], ": --temperature is 0.0; it must be a number above 0"),
        (["run", "gpt2", "--top-p", "2"], ": --top-p is 2.0; it must be above 0"),
        (["run", "gpt2", "--no-repeat-ngram", "0"], ": --no-repeat-ngram is 0; "),
        (["run", "gpt2", "Hi", "--fast", "--top-k", "3"], ": --fast writes one text, of the likeliest"),
        (
            ["run", "gpt2", "--length-penalty", "2"],
            "without --beams there is nothing for --length-penalty to do",
        ),
        (
            ["run", "gpt2", "--early-stopping", "--beams", "1"],
            "nothing for --early-stopping to do; add --beams 4",
        ),
        (["run", "gpt2", "--max-new-tokens", "5000"], "do not fit the model's"),
        (["run", "gpt2", ""], "prompt 1 is empty"),
        (["verify", "minilm", "--cache"], "leave --cache out"),
        (["verify", "minilm", "--steps", "2"], "is an encoder"),
        (["verify", "gpt2", "--steps", "0"], "--steps"),
        (["verify", "gpt2", "--decoder-ids", "0"], "no decoder beside its encoder"),
        (["verify", "t5-small", "--decoder-ids", "5"], "must begin with the start token"),
        (["verify", "t5-small", "--decoder-ids", "a"], "--decoder-ids a: expected whole numbers"),
        (["verify", "t5-small", "--decoder-ids", "0", "--steps", "2"], "leave --decoder-ids out"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    command: Command, arguments: list[str], said: str
) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("llm-rebuild: ")
    assert said in err
    assert len(err.splitlines()) == 1


# --------------------------------------------------------------------- a network that says nothing


@dataclass
class SilentHub:
    """Where it is, and the connections that were made to it."""

    address: str
    connections: list[socket.socket]


@pytest.fixture
def silent_hub() -> Iterator[SilentHub]:
    """A hub that takes every connection and never answers: the worst that a network can do."""
    listener = socket.create_server(("127.0.0.1", 0))
    hub = SilentHub(f"http://127.0.0.1:{listener.getsockname()[1]}", [])

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed: the test is over
            while True:
                hub.connections.append(listener.accept()[0])

    threading.Thread(target=accept, daemon=True).start()
    yield hub
    listener.close()
    for connection in hub.connections:
        connection.close()


def test_a_silent_hub_is_asked_once_a_model(environment: dict[str, str], silent_hub: SilentHub) -> None:
    """Each question waits for some seconds, here for one: a question a model, and no file is asked
    for again."""
    impatient = "hub.READ_TIMEOUT = 1.0; models.main([])"
    code = f"from llm_rebuild.copies import hub; from tools import models; {impatient}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT, env=environment | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": silent_hub.address},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("the miniature that ships with llm_rebuild") == len(NAMES)
    assert len(silent_hub.connections) == len(PINS)
