"""What `new` hands out: its names are the model's, filled in it is bit-identical, its first step passes."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from llm_rebuild import verify
from llm_rebuild.checkpoints import NO_TAP, Recorder
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.workbench import new as writing
from llm_rebuild.workbench.steps import INPUTS, READS, trials
from tests import warm
from tests.workbench.bench import Bench
from tools import full_size

TEXTS = {
    "gpt2": ["The baker of Oru", "The"],
    "minilm": ["The cook gave the sailor a lamp.", "A lamp."],
    "t5-small": ["translate English to German: four hundred", "four"],
    "llama": ["The baker of Oru", "The"],
}
MODELS = sorted(TEXTS)


def miniature(name: str) -> LocalCopy:
    return LocalCopy(name, local_copy.MINIATURES / name, "miniature")


def module_of(name: str, *, solved: bool) -> dict:
    return executed(writing.source(name, solved=solved))


def executed(source: str) -> dict:
    found = {"__name__": "rebuild"}
    exec(compile(source, "rebuild.py", "exec"), found)
    return found


def tapped_by(module: dict, copy: LocalCopy, truth: verify.Capture) -> dict[str, torch.Tensor]:
    """What a learner's module taps on the same input."""
    recorder = Recorder()
    given = {word: value for word in READS if (value := getattr(truth.inputs, word)) is not None}
    config = rebuild_for(copy.config).config
    with torch.no_grad():
        module["forward"](weights=copy.weights(), config=config, tap=recorder.tap(), **given)
    return recorder.tensors


def places_of(module: dict) -> list:
    return [f.places for f in {id(f): f for f in module.values() if hasattr(f, "places")}.values()]


@pytest.mark.parametrize("rows", [1, 2], ids=["plain", "padded"])
@pytest.mark.parametrize("name", MODELS)
def test_filled_in_it_is_bit_identical_at_every_checkpoint_in_order(name: str, rows: int):
    copy = miniature(name)
    truth = verify.capture(copy, TEXTS[name][:rows])
    tapped = tapped_by(module_of(name, solved=True), copy, truth)
    assert list(tapped) == list(truth)
    assert verify.judge(tapped, truth).exact


@pytest.mark.parametrize("name", full_size.CONFIGS)
def test_at_its_full_width_it_is_bit_identical_in_every_run(bench: Bench, tmp_path: Path, name: str):
    """Products of heads of 64 numbers have other bits where these lie otherwise in memory."""
    config = full_size.CONFIGS[name]
    small = {field: 1 for field in ("num_layers", "n_layer", "num_hidden_layers") if field in config}
    full_size.make(tmp_path / "wide", {**config, **small, "vocab_size": 100})
    skeleton = {"smollm2-135m": "llama"}.get(name, name)
    (tmp_path / "mine.py").write_text(writing.source(skeleton, solved=True), encoding="utf-8")
    ids = ["--token-ids", "5,6,7,8,9,10,11", "--token-ids", "9,8,7"]
    bench.run("check", "mine.py", "--model", tmp_path / "wide", *ids, "--json", "o.json", folder=tmp_path)
    result = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))
    assert result["done"]
    assert result["summary"]["bit_identical"] == result["summary"]["checkpoints"]
    assert all(run["bit_identical"] == run["checkpoints"] for run in result["others"])


def test_an_encoder_that_runs_once_keeps_nothing():
    """What is kept lies otherwise in memory; at full size its products have other bits."""
    copy, cache = miniature("t5-small"), dict[str, torch.Tensor]()
    truth = verify.capture(copy, TEXTS["t5-small"])
    given = {word: value for word in READS if (value := getattr(truth.inputs, word)) is not None}
    with torch.no_grad():
        forward = module_of("t5-small", solved=True)["forward"]
        forward(
            weights=copy.weights(), config=rebuild_for(copy.config).config, tap=NO_TAP, cache=cache, **given
        )
    assert [name for name in cache if name.startswith("encoder.block")] == []
    assert [name for name in cache if name.startswith("decoder.block")] != []


@pytest.mark.parametrize("name", MODELS)
def test_its_steps_reach_every_checkpoint_from_checkpoints(name: str):
    """Each is computed by a step, or tapped by one on its way; and each step is one of the model's."""
    truth = verify.capture(miniature(name), TEXTS[name])
    places = places_of(module_of(name, solved=True))
    tried = {trial.name for trial in trials(places, list(truth))}
    inside = {checkpoint for checkpoint in truth if checkpoint.rpartition(".")[0] in tried}
    assert tried | inside == set(truth)
    for function in places:
        for place in function:
            assert any(place.values(checkpoint) is not None for checkpoint in truth), place


@pytest.mark.parametrize("name", MODELS)
def test_every_name_in_it_is_the_models(name: str):
    """Names without braces, in the code and in the tasks: checkpoints, or keys of the weight file. Those with
    braces are resolved where the steps are."""
    rebuild = rebuild_for(miniature(name).config)
    known = {c.name for c in rebuild.module.CHECKPOINTS}
    known |= {*rebuild.architecture.weights, *rebuild.architecture.optional}
    known |= {key.replace("{layer}", "0") for key in known}
    known |= {f"{INPUTS}{i}" for i in READS}
    tree = ast.parse(writing.source(name, solved=True))
    pieces = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    words = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in pieces
    ]
    code = [w for w in words if isinstance(w, str) and re.fullmatch(r"\w+(\.\w+)+\??", w)]
    tasks = re.findall(r"[\w.]*\w\.(?:weight|bias)\b", " ".join(w for w in words if isinstance(w, str)))
    assert len(code) > 5
    assert tasks
    assert [word for word in (*code, *tasks) if word.rstrip("?") not in known] == []


def calls(source: str) -> int:
    """How often torch's functions for networks are called."""
    attributes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return sum(isinstance(node.value, ast.Name) and node.value.id == "F" for node in attributes)


@pytest.mark.parametrize("name", MODELS)
def test_emptied_it_has_tasks_and_nothing_of_the_solution(name: str):
    empty, whole = writing.source(name), writing.source(name, solved=True)
    functions = {n.name: n for n in ast.parse(empty).body if isinstance(n, ast.FunctionDef)}
    emptied = [
        f
        for f in functions.values()
        if ast.unparse(f.body[1] if len(f.body) > 1 else f.body[0]) == writing.EMPTY
    ]
    steps = [f for f in functions.values() if f.decorator_list]
    assert len(emptied) >= len(steps) - 1
    assert len(emptied) > 10
    assert all(ast.get_docstring(f) for f in functions.values())
    assert "# given" not in empty
    assert "# yours" not in empty
    assert calls(empty) == 1  # the first step, which is done
    assert calls(whole) > 3
    assert max(map(len, empty.splitlines())) <= 110


@pytest.mark.parametrize("name", MODELS)
def test_new_and_check(bench: Bench, tmp_path: Path, name: str):
    """As a learner does it: new, check, the first step passes, the second is next; filled in, all passes."""
    said = bench.run("new", name, "mine.py", folder=tmp_path)
    assert said.code == 0
    assert "llm-rebuild check mine.py" in said.out
    assert "check mine.py --model" in (tmp_path / "mine.py").read_text(encoding="utf-8")
    model = local_copy.MINIATURES / name
    said = bench.run("check", "mine.py", "--model", model, "--json", "-", folder=tmp_path)
    found = json.loads(said.out)
    assert (said.code, said.err) == (1, "")
    names = [c["name"] for c in found["checkpoints"]]
    assert found["summary"]["bit_identical"] == 1
    assert found["next"] == names[1]
    assert found["error"] is None
    assert {s["problem"] for s in found["steps"] if not s["right"]} == {"not filled in"}

    said = bench.run("new", name, "solved.py", "--solved", folder=tmp_path)
    assert "every step is filled in" in said.out
    said = bench.run(
        "check", "solved.py", "--model", model, "--exact", "--json", "found.json", folder=tmp_path
    )
    assert said.code == 0, said.out + said.err
    steps = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["steps"]
    assert [step["name"] for step in steps] == names
    assert all(step["right"] for step in steps)  # also each alone
    assert said.out.splitlines()[-1].startswith(f"{len(names)} of {len(names)} checkpoints bit-identical")
    assert len(said.out.splitlines()) < 20  # whole blocks are one line


def test_new_writes_over_nothing(bench: Bench, tmp_path: Path):
    (tmp_path / "mine.py").write_text("x = 1\n", encoding="utf-8")
    said = bench.run("new", "gpt2", "mine.py", folder=tmp_path)
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "exists already" in said.err
    assert (tmp_path / "mine.py").read_text(encoding="utf-8") == "x = 1\n"


@pytest.mark.parametrize("name", ["\udcff.py", 'a""" + b.py', "two\nlines.py"])
def test_a_file_of_any_name_gets_a_skeleton_that_can_be_read(bench: Bench, tmp_path: Path, name: str):
    said = bench.run("new", "gpt2", name, folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert "check FILE --model" in ast.get_docstring(ast.parse((tmp_path / name).read_bytes()))


@pytest.mark.skipif(sys.platform != "linux", reason="a limit to files as on Linux")
def test_new_leaves_nothing_where_the_disk_is_full(tmp_path: Path):
    """Half a skeleton would be one, and `new` never writes over a file."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    ended = warm.run("new", "gpt2", tmp_path / "mine.py", **{warm.ARRANGED: limited})
    assert (ended.returncode, ended.stderr) == (2, f"llm-rebuild: {tmp_path}/mine.py: file too large\n")
    assert not list(tmp_path.iterdir())


def test_new_refuses_what_it_cannot_do(tmp_path: Path):
    with pytest.raises(InputError, match="there is one of gpt2, llama, minilm, t5-small"):
        writing.new("bert", tmp_path / "x.py")
    with pytest.raises(InputError, match="no such file or directory"):
        writing.new("gpt2", tmp_path / "nowhere" / "x.py")
    with pytest.raises(InputError, match="ask for one of them"):
        writing.new("gpt2", tmp_path / "x.py", solved=True, bare=True)
    with pytest.raises(InputError, match="ask for one of them"):
        writing.new("gpt2", tmp_path / "x.py", bare=True, seed="7")


@pytest.mark.parametrize("name", MODELS)
def test_bare_it_has_the_names_and_says_nothing_of_their_order(name: str):
    text = writing.bare_source(name)
    module = executed(text)
    with pytest.raises(NotImplementedError):
        module["forward"](**dict.fromkeys(inspect.signature(module["forward"]).parameters))
    assert places_of(module) == []
    said = [
        line.split()[0] for line in (ast.get_docstring(ast.parse(text)) or "").splitlines() if "  [" in line
    ]
    assert set(said) == {
        checkpoint.name for checkpoint in rebuild_for(miniature(name).config).module.CHECKPOINTS
    }
    assert said == sorted(set(said))
    assert "Axes " in text
    assert "import step" not in text  # there are none


@pytest.mark.parametrize("name", MODELS)
def test_bare_it_says_what_the_condition_of_a_name_means(name: str):
    listed, _, meanings = writing.bare_source(name).partition("\nConditions\n")
    behind = " ".join(re.findall(r"\]  \((.*)\)$", listed, re.MULTILINE))
    for condition in ("eager", "sdpa", "padding", "cache", "start", "decoder mask"):
        assert (condition in behind) == (f"\n         {condition}: " in f"\n{meanings}"), condition


@pytest.mark.parametrize("name", MODELS)
def test_a_hidden_mistake_runs_to_the_end_and_shows(name: str):
    copy, whole = miniature(name), writing.source(name, solved=True)
    truth = verify.capture(copy, TEXTS[name])
    mistakes = writing.mistakes_in(whole)
    assert len(mistakes) > 10
    for before, after in mistakes:
        tapped = tapped_by(executed(whole.replace(before, after)), copy, truth)
        assert list(tapped) == list(truth), after
        assert not verify.judge(tapped, truth).passed, after


def test_every_mistake_of_the_list_can_be_made_somewhere():
    listed = json.loads((writing.FOLDER / "mistakes.json").read_text(encoding="utf-8"))
    made = {pair for name in MODELS for pair in writing.mistakes_in(writing.source(name, solved=True))}
    assert made == set(map(tuple, listed))


def test_the_same_seed_hides_the_same_mistake_and_others_hide_others(bench: Bench, tmp_path: Path):
    whole = writing.source("gpt2", solved=True).partition("Axes")[2].splitlines()
    texts = {seed: writing.broken_source("gpt2", seed) for seed in map(str, range(40))}
    assert texts["7"] == writing.broken_source("gpt2", "7")
    assert len(set(texts.values())) > 10
    for text in texts.values():
        lines = text.partition("Axes")[2].splitlines()
        assert sum(one != other for one, other in zip(lines, whole, strict=True)) == 1
    said = bench.run("new", "gpt2", "broken.py", "--break", "7", folder=tmp_path)
    assert (said.code, said.err) == (0, "")
    model = local_copy.MINIATURES / "gpt2"
    said = bench.run("check", "broken.py", "--model", model, folder=tmp_path)
    assert said.code == 1
    assert "mistakes.json" not in said.out


def test_the_edition_without_solutions_writes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(writing.WITHOUT_SOLUTIONS, "1")
    with pytest.raises(InputError, match="the edition without solutions"):
        writing.new("gpt2", tmp_path / "x.py", solved=True)
    assert writing.new("gpt2", tmp_path / "x.py").exists()
