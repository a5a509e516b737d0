"""The anatomy adds up, and its note of what is matched speaks for these weights only."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_rebuild import anatomy, verify
from llm_rebuild.checkpoints import part_of
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.verify import matched
from tests import tiny_bert


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCopy:
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    return tiny_bert.copy(tiny_bert.write(tmp_path / "tiny"))


def test_minilm(minilm: LocalCopy):
    found = anatomy.describe(minilm)
    unused = sum(minilm.weights().peek()[key].numel() for key in found.unused)
    assert found.parameters == 22_713_216
    assert found.parameters + unused == sum(t.numel() for t in minilm.weights().peek().values())
    assert [p.path for p in found.parts][:2] == ["embeddings", "encoder.layer.0"]
    assert found.part("embeddings").parameters == 11_918_592
    assert found.part("encoder.layer.5").parameters == 1_774_464
    assert found.part("pooler").parameters == 147_840
    assert found.part("sentence").parameters == 0
    assert {title for title, _ in found.departures} >= {"positions are learned", "post-LN", "exact GELU"}
    assert len(found.checkpoints) == 116


def test_every_key_is_in_one_part_or_declared_unused(tiny: LocalCopy):
    found = anatomy.describe(tiny)
    keys = [f"{part.path}.{key}" for part in found.parts for key in part.shapes]
    assert sorted([*keys, *found.unused]) == sorted(tiny.weights())


def test_every_checkpoint_lives_in_a_part_or_is_the_mask(tiny: LocalCopy):
    found = anatomy.describe(tiny)
    paths = {part.path for part in found.parts}
    assert {part_of(c.name) for c in found.checkpoints} - paths == {"mask"}


def test_an_unknown_part(tiny: LocalCopy):
    with pytest.raises(InputError, match="has no part 'decoder'; it has embeddings, encoder"):
        anatomy.describe(tiny).part("decoder")


def test_what_is_matched(tiny: LocalCopy, tmp_path: Path):
    assert anatomy.describe(tiny).matched is None
    matched.remember(tiny, verify.verify(tiny, ["a b"], attention="sdpa"))
    note = anatomy.describe(tiny).matched
    assert note is not None
    assert note.startswith("39 of 39 checkpoints bit-identical, coverage ")
    assert "(sdpa attention, torch " in note
    other = tiny_bert.copy(tiny_bert.write(tmp_path / "other", tensors=tiny_bert.weights(seed=1)))
    assert anatomy.describe(other).matched is None


@pytest.mark.parametrize(
    "content", ["", "{", "1 of 1 checkpoints bit-identical \x1b[2J", "0" * 2000], ids=range(4)
)
def test_a_spoiled_note_is_no_note(tiny: LocalCopy, content: str):
    matched.remember(tiny, verify.verify(tiny, ["a b"], coverage=False))
    matched._file(tiny).write_text(content, encoding="utf-8")
    assert anatomy.describe(tiny).matched is None
