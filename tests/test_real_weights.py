"""The numbers of the published models: a file where they are at hand, a table where the file is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from tools import real_weights

DOCS = Path(__file__).resolve().parents[1] / "docs"


@pytest.mark.parametrize("name", real_weights.MODELS)
def test_a_model_is_measured_and_shown(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A miniature stands in for the published model: how it is done does not depend on whose numbers."""
    copy = LocalCopy(name, local_copy.MINIATURES / name, "miniature")
    entry = real_weights.measured(copy)
    assert entry["published"] == entry["miniature"]
    assert len(entry["published"]) >= 4
    assert all(len(row) == real_weights.SHOWN for row in entry["published"].values())
    monkeypatch.setattr(real_weights, "FILE", tmp_path / "real.json")
    marked = f"# x\n\n<!-- real weights: {name} -->\n\n<!-- real weights: other -->\n"
    assert real_weights.on_page_markdown(marked) == marked
    real_weights.FILE.write_text(json.dumps({name: entry}), encoding="utf-8")
    shown = real_weights.on_page_markdown(marked)
    first = next(iter(entry["published"]))
    assert f"| `{first}` | {entry['published'][first][0]:.4f}, " in shown
    assert "<!-- real weights: other -->" in shown


def test_each_model_has_its_place_on_a_page():
    text = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.glob("part-*/*.md"))
    assert {mark["model"] for mark in real_weights.MARK.finditer(text)} == set(real_weights.MODELS)


def test_nothing_is_written_where_no_model_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path))
    monkeypatch.setattr(real_weights, "FILE", tmp_path / "real.json")
    assert real_weights.main() == 1
    assert "llm-rebuild download gpt2" in capsys.readouterr().err
    assert not real_weights.FILE.exists()
