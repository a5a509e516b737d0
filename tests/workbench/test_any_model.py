"""`check` on a learner's rebuild of a model that the course does not have: a tiny SmolLM3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.workbench import tiny_smollm3
from tests.workbench.bench import Bench, Said

IDS = ["--token-ids", "5,17,3,44"]


@pytest.fixture(scope="module")
def smollm3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_smollm3.write(tmp_path_factory.mktemp("models") / "tiny-smollm3")


@pytest.fixture
def checked(bench: Bench, tmp_path: Path, smollm3: Path):
    def run(source: str, *options: str) -> Said:
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        return bench.run("check", "mine.py", "--model", smollm3, *IDS, *options, folder=tmp_path)

    return run


@pytest.fixture
def both(checked, tmp_path: Path):
    """What a person sees, and the JSON."""

    def run(source: str) -> tuple[Said, dict[str, Any]]:
        said = checked(source, "--json", "found.json")
        return said, json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))

    return run


def test_what_is_tapped_is_judged_and_the_rest_is_not_asked_for(both):
    said, found = both(tiny_smollm3.REBUILD)
    assert (said.code, said.err) == (0, "")
    assert {c["name"] for c in found["checkpoints"]} >= {"model.embed_tokens", "model.layers.1", "lm_head"}
    assert found["summary"]["failed"] == 0
    assert found["not_tapped"]
    assert not {c["name"] for c in found["checkpoints"]} & set(found["not_tapped"])
    assert [step["right"] for step in found["steps"]] == [True] * 6
    assert "not tapped" in said.out.splitlines()[-1]


def test_a_mistake_is_seen_where_it_is(both):
    wrong = tiny_smollm3.REBUILD.replace("* width**-0.5", "")
    assert wrong != tiny_smollm3.REBUILD
    said, found = both(wrong)
    assert said.code == 1
    assert found["first_divergence"]["name"] == "model.layers.0.self_attn.o_proj"
    assert "first divergence: model.layers.0.self_attn.o_proj" in said.out


def test_a_name_that_does_not_exist_gets_the_nearest(checked):
    said = checked(tiny_smollm3.REBUILD.replace('tap("model.norm", x)', 'tap("model.nrm", x)'))
    assert said.code == 2
    assert "no checkpoint of this name; did you mean 'model.norm'?" in said.err


def test_nothing_tapped_proves_nothing(checked):
    said = checked("def forward(token_ids, mask, weights, config, tap): pass\n")
    assert said.code == 2
    assert "forward tapped nothing" in said.err
