"""The board of drift: what moved between two releases, where it began, and when that is worth an issue."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from tools.drift.__main__ import NUMBERS, PAGE, environments, pinned
from tools.drift.board import board, issue, moved, page
from tools.drift.probe import probed

MADE = {
    "a": {"of": [], "by": ["embedding"]},
    "b": {"of": ["a"], "by": ["view", "mul", "add"]},
    "c": {"of": ["b"], "by": ["add"]},
}


def tensors() -> dict[str, torch.Tensor]:
    """Three checkpoints, each made of the one before."""
    return {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([2.0, 1e-9]), "c": torch.tensor([3.0, -3.4e38])}


def test_moved_says_which_how_far_and_where_it_began() -> None:
    old, new = tensors(), tensors()
    new["b"] = torch.tensor([2.0 + 2**-22, 2e-9])  # one step of a float, and far more of them near 0
    new["c"] = torch.tensor([3.0 + 2**-21, -1e30])  # two steps, and another number where a mask hides
    new["d"] = torch.ones(1)
    run = moved(old, new, MADE, {**MADE, "b": {"of": ["a"], "by": ["view", "addmm"]}, "d": MADE["a"]})
    assert {name: far["ulp"] for name, far in run["moved"].items()} == {"b": 1, "c": 2}
    assert run["began"] == {"b": [{"of": ["a"], "by": ["mul", "add"]}, {"of": ["a"], "by": ["addmm"]}]}
    assert (run["gone"], run["new"], run["checkpoints"]) == ([], ["d"], 3)


def probe_files(folder: Path, transformers: str, torch_release: str, values: dict[str, torch.Tensor]) -> Path:
    """What a probe leaves behind."""
    from safetensors.torch import save_file

    folder.mkdir()
    save_file(values, folder / "tiny-eager")
    held = {"identical": 3, "rounding": 0, "other": 0}
    runs = {"tiny-eager": {"source": "miniature", "missing": [], "made": MADE, "rebuild": held}}
    versions = {"transformers": transformers, "torch": torch_release}
    (folder / "probe.json").write_text(json.dumps({"versions": versions, "runs": runs}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("release", "asked"), [("5.9.0", False), ("5.30.0", True)])
def test_an_issue_is_asked_for_where_a_newer_release_moved_something(
    tmp_path: Path, release: str, asked: bool
) -> None:
    other = {**tensors(), "b": torch.tensor([2.0 + 2**-22, 1e-9])}
    folders = [
        probe_files(tmp_path / "oldest", "5.1.0", "2.13.0", tensors()),
        probe_files(tmp_path / "pinned", "5.23.0", "2.13.0", tensors()),
        probe_files(tmp_path / "other", release, "2.13.0", other),
        probe_files(tmp_path / "elsewhere", "5.2.0", "2.12.0", other),  # beside another torch: no neighbour
    ]
    numbers = board(folders, {"transformers": "5.23.0", "torch": "2.13.0"})
    line = ["5.1.0", *sorted(("5.23.0", release), key=lambda r: int(r.split(".")[1]))]
    assert [(step["from"], step["to"]) for step in numbers["steps"]] == [*pairwise(line)]
    assert ("`b`, by 1 ulp at the most" in issue(numbers)) == asked
    assert "| 5.23.0 | 2.13.0 | 3 of 3 |" in page(numbers)


def test_the_page_is_what_the_numbers_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(json.loads(NUMBERS.read_text(encoding="utf-8")))


def test_the_board_is_of_the_pinned_releases() -> None:
    assert json.loads(NUMBERS.read_text(encoding="utf-8"))["pinned"] == pinned()


def test_the_probe_finds_the_rebuild_bit_identical_here(tmp_path: Path) -> None:
    miniature = LocalCopy("gpt2", local_copy.MINIATURES / "gpt2", "miniature")
    run = probed(miniature, "eager", tmp_path)
    assert run["missing"] == []
    assert run["rebuild"] == {"identical": len(run["made"]), "rounding": 0, "other": 0}
    assert run["made"]["h.0.attn.scores"]["of"] == ["mask", "h.0.attn.scaled"]


@pytest.mark.parametrize("word", ["numpy==2.0", "transformers", "torch==../x", "torch==2.13.0;rm"])
def test_what_is_no_release_is_refused(word: str) -> None:
    with pytest.raises(SystemExit, match="is no release; write transformers=="):
        environments([word])
