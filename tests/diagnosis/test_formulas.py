"""Every formula gives the official tensor, from the official tensors before it, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import llm_rebuild
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.diagnosis.mutants import scene
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.verify.compare import judge
from tests.models import small

MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"
RUNS = [
    ("padded", "eager"),
    ("single", "eager"),
    ("cached", "eager"),
    ("padded", "sdpa"),
    ("single", "sdpa"),
    ("cached", "sdpa"),
]


@pytest.mark.parametrize(("run", "attention"), RUNS)
@pytest.mark.parametrize("name", NAMES)
def test_of_the_miniatures(name: str, run: str, attention: str) -> None:
    if (name, run) == ("minilm", "cached"):
        pytest.skip("an encoder keeps nothing")
    hold(
        LocalCopy(name, MINIATURES / name, "miniature"),
        run,
        attention,
        [[5, 17, 3, 44, 9, 60, 2], [11, 5, 8]],
    )


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (small.GPT2, {"activation_function": "relu", "scale_attn_by_inverse_layer_idx": True}),
        (small.GPT2, {"tie_word_embeddings": False}),
        (small.T5, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
        (small.BERT, {"hidden_act": "gelu_new"}),
    ],
)
def test_of_relatives(tmp_path: Path, config: dict[str, object], changes: dict[str, object]) -> None:
    optional = (
        small.POOLER
        if config is small.BERT
        else ("lm_head.weight",)
        if "tie_word_embeddings" in changes
        else ()
    )
    hold(small.model(tmp_path / "model", config, optional, **changes), "padded", "eager", small.ROWS)


@pytest.mark.parametrize("run", ["padded", "cached"])
def test_a_capture_that_does_not_say_how_has_the_official_model_run_again(run: str) -> None:
    played = scene(
        LocalCopy("gpt2", MINIATURES / "gpt2", "miniature"), run, token_ids=[[5, 17, 3, 44], [11, 5, 8]]
    )
    kinds = [
        {name: formula.kind for name, formula in world_of(truth, played.copy, played.prompt).formulas.items()}
        for truth in (played.truth, replace(played.truth, steps={}))
    ]
    assert kinds[0] == kinds[1]


def hold(copy: LocalCopy, run: str, attention: str, rows: list[list[int]]) -> None:
    played = scene(copy, run, attention, token_ids=rows)
    world = world_of(played.truth, copy, played.prompt)
    names = [n for n, formula in world.formulas.items() if n in played.truth and formula.kind != "given"]
    fused = {n for n in played.truth if n.endswith("head_context")} if attention == "sdpa" else set()
    assert set(played.truth) - set(names) == set(), "a checkpoint without a formula"
    for name in names:
        verdict = judge(name, world.compute(world.formulas[name]), played.truth.tensors[name])
        assert verdict.identical or (name in fused and verdict.passes), verdict
