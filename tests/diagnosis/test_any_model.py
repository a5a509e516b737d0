"""Formulas that are read off a trace, and the diagnosis of a model that the course does not have."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.any_model import world_of_any
from llm_rebuild.diagnosis.diagnose import diagnose
from llm_rebuild.verify import Capture, capture
from llm_rebuild.verify.question import open_copy
from tests.workbench import tiny_llama

IDS = [[5, 17, 3, 44, 9, 50, 2]]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return open_copy(tiny_llama.write(tmp_path_factory.mktemp("models") / "tiny-llama"))


@pytest.fixture(scope="module")
def truth(llama: LocalCopy) -> Capture:
    return capture(llama, token_ids=IDS)


def rebuilt(source: str, llama: LocalCopy, truth: Capture) -> dict[str, Tensor]:
    mine: dict[str, object] = {"__name__": "mine"}
    exec(compile(source, "mine.py", "exec"), mine)
    config = SimpleNamespace(**json.loads((llama.folder / "config.json").read_text(encoding="utf-8")))
    recorder = Recorder()
    with torch.no_grad():
        mine["forward"](truth.inputs.token_ids, truth.inputs.mask, llama.weights(), config, recorder.tap())  # type: ignore[operator]
    return recorder.tensors


def test_most_steps_have_a_formula(llama: LocalCopy, truth: Capture) -> None:
    world = world_of_any(truth, llama.config, llama.weights().peek())
    found = {name for name, formula in world.formulas.items() if formula.kind != "given" and name in truth}
    assert len(found) > 0.75 * len(truth)
    kinds = {world.formulas[name].kind for name in found}
    assert kinds >= {"lookup", "stretch", "linear", "product", "scale", "add mask", "softmax", "mix", "act"}


def test_the_right_rebuild_is_right(llama: LocalCopy, truth: Capture) -> None:
    shown = rebuilt(tiny_llama.REBUILD, llama, truth)
    seen = replace(truth, tensors={n: t for n, t in truth.tensors.items() if n in shown})
    assert diagnose(shown, seen, llama) == ()


# What is shown of this rebuild is about a sixth of the official tensors: the rest is computed from them.
MISTAKES = [
    ("* width**-0.5", "", "scale-missing"),
    ("* width**-0.5", "/ width", "scale-wrong or scale-extra"),  # the same number
    ("* width**-0.5 + later", "* width**-0.5", "mask-missing"),
    ("F.softmax(scores, dim=-1)", "F.softmax(scores, dim=-2)", "softmax-axis"),
    ("F.silu(", "F.gelu(", "activation-other"),
    ("F.silu(", "F.relu(", "activation-relu"),
    ("x = x + attended", "x = attended", "residual-missing"),
    ("config.rms_norm_eps", "1e-6", "norm-eps"),
    ("return weight * (x", "return (x", "norm-affine-missing"),
    ("x.pow(2).mean", "(x - x.mean(-1, keepdim=True)).pow(2).mean", "norm-mean-subtracted"),
    (
        'weights[f"{at}.mlp.up_proj.weight"]',
        'weights[f"{at}.mlp.gate_proj.weight"]',
        "wrong-weight or wrong-operand",
    ),  # neither branch is shown
    (".transpose(1, 2).reshape(1, token, -1)", ".reshape(1, token, -1)", "heads-merged"),
    ('weights["lm_head.weight"]', 'weights["model.embed_tokens.weight"]', "untied-head"),
]


@pytest.mark.parametrize(("before", "after", "cause"), MISTAKES)
def test_a_mistake_gets_its_name(
    before: str, after: str, cause: str, llama: LocalCopy, truth: Capture
) -> None:
    assert before in tiny_llama.REBUILD
    shown = rebuilt(tiny_llama.REBUILD.replace(before, after), llama, truth)
    assert diagnose(shown, truth, llama)[0].cause in cause.split(" or ")
