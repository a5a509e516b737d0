"""Checkpoints, taps and recorders by themselves."""

from __future__ import annotations

import pytest
import torch

from llm_rebuild.checkpoints import NO_TAP, Checkpoint, Recorder, Tap, expand, join, part_of

LIST = (
    Checkpoint("first", "[token]", "before"),
    Checkpoint("block.{layer}.a", "[token]", "inside", "block.{layer}.x: add[0]"),
    Checkpoint("block.{layer}.b", "[token]", "inside, eager only", only=frozenset({"eager"})),
    Checkpoint("other.{layer}.a", "[token]", "another stack"),
    Checkpoint("last", "[token]", "after", only=frozenset({"eager", "padding"})),
)
DEPTH = {"block": 2, "other": 1}


def test_expand_goes_block_by_block_in_order():
    names = [c.name for c in expand(LIST, DEPTH, {"eager"})]
    assert names == ["first", "block.0.a", "block.0.b", "block.1.a", "block.1.b", "other.0.a"]


def test_expand_asks_for_every_condition():
    assert "last" in [c.name for c in expand(LIST, DEPTH, {"eager", "padding", "more"})]
    assert [c.name for c in expand(LIST, DEPTH, {"sdpa"})] == ["first", "block.0.a", "block.1.a", "other.0.a"]


def test_sources_are_numbered_too():
    assert [c.source for c in expand(LIST, DEPTH, ()) if c.name == "block.1.a"] == ["block.1.x: add[0]"]


def test_a_tap_narrows_as_weights_do():
    seen: list[str] = []
    tap = Tap(lambda name, tensor: seen.append(name))
    tap.at("encoder.layer.0").at("output")("dense", torch.zeros(1))
    tap.at("encoder").at("")("", torch.zeros(1))
    assert seen == ["encoder.layer.0.output.dense", "encoder"]


def test_a_tap_returns_what_it_was_shown():
    x = torch.zeros(1)
    assert Recorder().tap()("x", x) is x
    assert NO_TAP("x", x) is x


def test_a_recorder_keeps_what_was_true_at_the_time():
    recorder = Recorder()
    x = torch.zeros(3, requires_grad=True)
    with torch.no_grad():
        recorder.tap()("x", x)
        x.add_(1)
    assert recorder.tensors["x"].tolist() == [0, 0, 0]
    assert not recorder.tensors["x"].requires_grad


def test_a_name_tapped_twice_is_an_error():
    tap = Recorder().tap()
    tap("x", torch.zeros(1))
    with pytest.raises(ValueError, match="'x' was tapped twice"):
        tap("x", torch.zeros(1))


@pytest.mark.parametrize(
    ("path", "name", "joined"), [("a", "b", "a.b"), ("", "b", "b"), ("a", "", "a"), ("", "", "")]
)
def test_join(path: str, name: str, joined: str):
    assert join(path, name) == joined


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.layer.0.output.dense", "encoder.layer.0"),
        ("encoder.block.11.layer.1.x", "encoder.block.11"),
        ("h.3", "h.3"),
        ("embeddings.sum", "embeddings"),
        ("mask", "mask"),
    ],
)
def test_part_of(name: str, part: str):
    assert part_of(name) == part
