"""Contracts of the house: one name for a checkpoint, imports point one way, `--help` is quick."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llm_rebuild import verify
from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import minilm as minilm_model
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.run import rebuild_run
from tests import tiny_bert

PACKAGE = Path(verify.__file__).parents[1]
PADDED, PLAIN = ["a b c d", "e"], ["a b c d"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return tiny_bert.copy(tiny_bert.write(tmp_path_factory.mktemp("models") / "tiny"))


# --------------------------------------------------------------- contract 1: a checkpoint has one name


def assert_contract_1(copy: LocalCopy, attention: str, texts: list[str], folder: Path) -> None:
    """The list = names tapped, in order = names captured = names in the capture file."""
    question = verify.ask(copy, texts, attention=attention)
    truth = verify.capture(question)
    listed = [checkpoint.name for checkpoint in question.checkpoints]
    assert len(set(listed)) == len(listed)
    assert list(rebuild_run(question)) == listed
    assert list(truth) == listed
    truth.save(folder / "capture.safetensors")
    assert list(Capture.load(folder / "capture.safetensors")) == listed


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("texts", [PLAIN, PADDED], ids=["plain", "padded"])
def test_list_equals_tapped_equals_captured_equals_file(
    tiny: LocalCopy, attention: str, texts: list[str], tmp_path: Path
):
    assert_contract_1(tiny, attention, texts, tmp_path)


def test_the_real_model_keeps_the_contract(minilm: LocalCopy, tmp_path: Path):
    assert_contract_1(minilm, "eager", ["A first text of some words.", "Another."], tmp_path)


def test_a_model_without_its_pooler_keeps_the_contract(tmp_path: Path):
    tensors = {k: t for k, t in tiny_bert.weights().items() if not k.startswith("pooler")}
    copy = tiny_bert.copy(tiny_bert.write(tmp_path / "without", tensors=tensors))
    assert_contract_1(copy, "eager", PADDED, tmp_path)


def with_checkpoints(monkeypatch: pytest.MonkeyPatch, change) -> None:
    monkeypatch.setattr(minilm_model, "CHECKPOINTS", tuple(change(list(minilm_model.CHECKPOINTS))))


@pytest.mark.parametrize(
    "name", ["embeddings.sum", "encoder.layer.{layer}.attention.self.probs", "sentence.mean"]
)
def test_a_name_missing_from_the_list_fails(
    tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
):
    with_checkpoints(monkeypatch, lambda listed: [c for c in listed if c.name != name])
    with pytest.raises(AssertionError):
        assert_contract_1(tiny, "eager", PLAIN, tmp_path)
    with pytest.raises(InputError, match="no checkpoint of this run"):
        verify.verify(tiny, PLAIN, coverage=False)


def test_a_name_that_is_computed_officially_but_never_tapped_fails(
    tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    extra = Checkpoint("sentence.again", "[batch, token, width]", "under a second name", "mul[0]")
    with_checkpoints(monkeypatch, lambda listed: [*listed, extra])
    with pytest.raises(AssertionError):
        assert_contract_1(tiny, "eager", PLAIN, tmp_path)
    report = verify.verify(tiny, PLAIN, coverage=False)
    assert not report.passed
    assert report.verdicts[-1].verdict == "missing"
    assert report.first_divergence is not None
    assert report.first_divergence.verdict is report.verdicts[-1]


def test_a_name_that_never_fires_officially_fails(tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch):
    extra = Checkpoint("encoder.layer.{layer}.attention.self.never", "[]", "nothing", "matmul[2]")
    with_checkpoints(monkeypatch, lambda listed: [*listed, extra])
    with pytest.raises(InputError, match=r"never computed encoder.layer.0.attention.self.never"):
        verify.capture(tiny, PLAIN)


def test_names_in_another_order_fail(tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with_checkpoints(monkeypatch, lambda listed: [listed[1], listed[0], *listed[2:]])
    with pytest.raises(AssertionError):
        assert_contract_1(tiny, "eager", PLAIN, tmp_path)


def test_names_are_key_paths_of_the_weight_file(tiny: LocalCopy):
    """`encoder.layer.0.attention.self.query` is named so because `….query.weight` is its weight."""
    keys = set(tiny.weights())
    truth = verify.capture(tiny, PLAIN)
    for key in keys:
        path = key.rpartition(".")[0]
        assert path in truth, key


# -------------------------------------------------------------- contract 3: arrows point one way


def imported(file: Path) -> set[str]:
    """Every module that a file imports anywhere, by full name; `from a import b` gives a and a.b."""
    package = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts[:-1])
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def reached(start: Path) -> dict[str, str]:
    """Every module that a file reaches through the package's own modules -> the file that imports it."""
    files, modules = [start], {}
    seen = {start}
    while files:
        file = files.pop()
        for module in imported(file):
            modules.setdefault(module, file.name)
            path = PACKAGE.parent.joinpath(*module.split("."))
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if module.startswith("llm_rebuild") and candidate.is_file() and candidate not in seen:
                    seen.add(candidate)
                    files.append(candidate)
    return modules


REBUILDS = sorted([*(PACKAGE / "models").glob("*.py"), *(PACKAGE / "tokenizers").glob("*.py")])
FORBIDDEN = ("llm_rebuild.verify", "llm_rebuild.diagnosis", "llm_rebuild.proof", "transformers", "tokenizers")
ALLOWED = {*sys.stdlib_module_names, "torch", "regex", "llm_rebuild"}
# `weights.py` and what finds the files may read them with the usual libraries.
# A checkpoint may be an array of NumPy's, or of whatever else shows its numbers.
ALLOWED_BELOW = ALLOWED | {"safetensors", "huggingface_hub", "filelock", "tqdm", "numpy"}


def forbidden(module: str) -> bool:
    return any(module == f or module.startswith(f"{f}.") for f in FORBIDDEN)


@pytest.mark.parametrize("file", REBUILDS, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_rebuilds_reach_nothing_official(file: Path):
    assert {m: by for m, by in reached(file).items() if forbidden(m)} == {}
    assert {m for m in imported(file) if m.partition(".")[0] not in ALLOWED} == set()
    assert {m: by for m, by in reached(file).items() if m.partition(".")[0] not in ALLOWED_BELOW} == {}


def test_the_import_walk_sees_what_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "llm_rebuild"
    (package / "models").mkdir(parents=True)
    (package / "models" / "one.py").write_text("def f():\n    from ..middle import g\n", encoding="utf-8")
    (package / "middle.py").write_text("import llm_rebuild.verify as v\n", encoding="utf-8")
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    assert forbidden("llm_rebuild.verify")
    assert reached(package / "models" / "one.py")["llm_rebuild.verify"] == "middle.py"


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "tokenizers", "sentence_transformers"):
            raise ImportError(f"{name} is refused here")

sys.meta_path.insert(0, Refuse())
import torch
from llm_rebuild.using import embedding
from llm_rebuild.copies import local_copy
result = embedding.embed(local_copy.get(sys.argv[1] if len(sys.argv) > 1 else FOLDER), ["a b c", "d"])
torch.save(result.embeddings, OUT)
assert "transformers" not in sys.modules
try:
    import transformers
except ImportError:
    print("ran without")
"""


def test_the_rebuild_runs_where_importing_transformers_fails(tiny: LocalCopy, tmp_path: Path):
    out = tmp_path / "embeddings.pt"
    code = WITHOUT.replace("FOLDER", repr(str(tiny.folder))).replace("OUT", repr(str(out)))
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("ran without\n")
    truth = verify.capture(tiny, ["a b c", "d"], attention="sdpa")
    assert torch.allclose(torch.load(out, weights_only=True), truth["sentence.embedding"].tensor, atol=1e-6)


# ------------------------------------------------------------------------- contract 4: quick help


COMMAND = """
import sys
before = set(sys.modules)
from llm_rebuild.cli import main as cli
sys.argv = ["llm-rebuild", *{arguments!r}]
try:
    cli.main()
except SystemExit as stop:
    assert (stop.code or 0) == {code}, stop.code
modules = {{name for name in sys.modules if name not in before}}
rooms = {{name.split(".")[1] for name in modules if name.startswith("llm_rebuild.")}}
assert rooms <= {{"cli", "copies", "errors", "files", "json_fields", "printing"}}, rooms
heavy = {{"torch", "transformers", "tokenizers", "numpy", "safetensors", "jinja2"}} & modules
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "command", ["", "download", "map", "capture", "verify", "run", "find", "recheck", "new", "check"]
)
def test_help_imports_nothing_heavy(command: str):
    arguments = [command, "--help"] if command else ["--help"]
    result = run_python(COMMAND.format(arguments=arguments, code=0))
    assert result.returncode == 0, result.stderr
    assert "Usage:" in result.stdout


@pytest.mark.parametrize("command", ["verify {}", "map {}", "run {} hello", "capture {} --out x.safetensors"])
def test_a_model_that_is_not_there_is_refused_before_anything_heavy(command: str):
    result = run_python(COMMAND.format(arguments=command.format("nowhere").split(), code=2))
    assert result.returncode == 0, result.stderr
    assert "unknown model 'nowhere'" in result.stderr
