"""The view of the weight file: a window, read-only in effect, that remembers what was read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.weights import Weights, template
from tests import tiny_bert


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tiny_bert.write(tmp_path / "tiny") / "model.safetensors"


def resident(kind: str) -> int:
    """Kilobytes of this process's memory of one kind: `RssAnon` is its own, `RssFile` is mapped files."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(kind):
            return int(line.split()[1])
    pytest.skip(f"this system does not tell {kind}")


def test_narrowing_by_path(file: Path):
    weights = Weights.open(file)
    whole = weights["encoder.layer.0.attention.self.query.weight"]
    assert weights.at("encoder.layer.0")["attention.self.query.weight"] is whole
    assert weights.at("encoder").at("layer.0").at("attention.self")["query.weight"] is whole
    assert torch.equal(whole, tiny_bert.weights()["encoder.layer.0.attention.self.query.weight"])


def test_a_part_lists_its_own_keys(file: Path):
    weights = Weights.open(file)
    assert set(weights.at("pooler")) == {"dense.weight", "dense.bias"}
    assert len(weights.at("pooler")) == 2
    assert len(weights.at("encoder.layer.1")) == 16
    assert list(weights.at("encoder.layer")) != []
    assert list(weights.at("encod")) == []
    assert len(weights) == len(tiny_bert.weights())
    assert "dense.bias" in weights.at("pooler")
    assert "dense.gain" not in weights.at("pooler")
    assert 7 not in weights


def test_what_was_read_is_remembered_across_views(file: Path):
    weights = Weights.open(file)
    assert weights.read == frozenset()
    weights.at("pooler")["dense.bias"]
    assert weights.read == weights.at("encoder").read == {"pooler.dense.bias"}
    assert "pooler.dense.bias" not in weights.unread()
    assert len(weights.unread()) == len(weights) - 1


def test_looking_is_not_reading(file: Path):
    weights = Weights.open(file)
    weights.peek()["pooler.dense.bias"].sum()
    assert "pooler.dense.bias" in weights
    assert weights.read == frozenset()


def test_an_unknown_key_names_the_file_and_the_key(file: Path):
    with pytest.raises(InputError, match=r"model\.safetensors has no tensor 'pooler\.dense\.gain'"):
        Weights.open(file).at("pooler")["dense.gain"]
    with pytest.raises(InputError, match="the weights has no tensor"):
        Weights({})["x"]


def test_writing_by_mistake_is_told_and_never_reaches_the_file(file: Path):
    before = file.read_bytes()
    weights = Weights.open(file)
    assert weights.written() == []
    weights["pooler.dense.bias"].zero_()
    assert weights.written() == ["pooler.dense.bias"]
    assert file.read_bytes() == before
    assert Weights.open(file)["pooler.dense.bias"].abs().sum() > 0


def test_opening_copies_nothing(minilm: LocalCopy, figure):
    """MiniLM has 91 MB of weights. Opened, they take no memory of the process's own."""
    before = resident("RssAnon")
    weights = minilm.weights()
    taken = (resident("RssAnon") - before) / 1024
    size = sum(math.prod(t.shape) * 4 for t in weights.peek().values()) / 2**20
    figure(f"opening MiniLM's weights ({size:.0f} MB) takes {taken:.1f} MB of memory")
    assert taken < 0.1 * size


def test_a_missing_file_says_so(tmp_path: Path):
    with pytest.raises(InputError, match=r"absent\.safetensors is missing"):
        Weights.open(tmp_path / "absent.safetensors")
    with pytest.raises(InputError):
        Weights.open(tmp_path)


def test_a_key_that_stands_twice_is_refused(file: Path):
    """The library takes the last of the two."""
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    first = next(iter(json.loads(content[8 : 8 + size])))
    twin = json.dumps({first: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})
    header = (twin[:-1] + "," + content[9 : 8 + size].decode()).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    with pytest.raises(InputError, match=f"model.safetensors has '{first}' twice; leave it there once"):
        Weights.open(file)


SHAPES = {"a.0.w": (2, 3), "b": (1,)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a.0.w": torch.zeros(2, 3)}, "lacks b"),
        ({"b": torch.zeros(1)}, "lacks a.0.w"),
        ({}, "lacks a.0.w, b"),
        ({"a.0.w": torch.zeros(2, 3), "b": torch.zeros(1), "c": torch.zeros(1)}, "holds c"),
        ({"a.0.w": torch.zeros(3, 2), "b": torch.zeros(1)}, r"a.0.w has shape \[3, 2\]"),
        ({"a.0.w": torch.zeros(2, 3), "b": torch.zeros(())}, r"b has shape \[\]"),
        ({"a.0.w": torch.zeros(2, 3), "b": torch.zeros(1).int()}, "b is int32"),
        ({"a.0.w": torch.zeros(2, 3), "b": torch.tensor([math.nan])}, "b has numbers that are not finite"),
        ({"a.0.w": torch.zeros(2, 3), "b": torch.tensor([-math.inf])}, "b has numbers that are not finite"),
    ],
    ids=range(9),
)
def test_check_refuses(tensors: dict[str, torch.Tensor], said: str):
    with pytest.raises(InputError, match=said) as refused:
        Weights(tensors).check(SHAPES, {})
    advice = ("take both files from the same model", "convert it and save it anew", "download it again")
    assert any(what_to_do in str(refused.value) for what_to_do in advice)


def test_check_accepts_what_fits_and_what_is_declared_unused():
    tensors = {"a.0.w": torch.zeros(2, 3), "b": torch.zeros(1), "a.5.ids": torch.zeros(9)}
    Weights(tensors).check(SHAPES, {"a.{layer}.ids": "not needed"})
    with pytest.raises(InputError, match=r"holds a\.5\.ids"):
        Weights(tensors).check(SHAPES, {"a.ids": "something else"})


def test_many_missing_keys_make_a_short_line():
    with pytest.raises(InputError, match="lacks k0, k1, k2 and 97 more"):
        Weights({}).check({f"k{i}": (1,) for i in range(100)}, {})


def test_template():
    assert template("encoder.layer.13.output") == "encoder.layer.{layer}.output"
    assert template("h2.b") == "h2.b"


def test_an_empty_file_of_tensors(tmp_path: Path):
    save_file({}, tmp_path / "none.safetensors")
    assert len(Weights.open(tmp_path / "none.safetensors")) == 0
