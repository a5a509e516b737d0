"""Mistakes that people make with this family, each made in the rebuild: the first checkpoint that differs is
where the mistake is, and the diagnosis names it."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.diagnose import diagnose
from llm_rebuild.models import llama
from llm_rebuild.verify import Capture, ask, capture, compare
from tests.models import small

ATTN, ROTARY, MLP = "model.layers.0.self_attn", "model.rotary_emb", "model.layers.0.mlp"
SOURCE = Path(str(llama.__file__)).read_text(encoding="utf-8")
# A piece of the source, what stands there instead, the first checkpoint that differs, the causes that say it.
MISTAKES = {
    "pairs of neighbours": (
        "    first, second = x.chunk(2, dim=-1)  # twice [batch, head, token, pair]\n",
        "    first, second = x[..., 0::2], x[..., 1::2]\n",
        f"{ATTN}.query.minus",
        "",
    ),
    "turned the other way": (
        "minus = -second",
        "minus = second",
        f"{ATTN}.query.minus",
        "",
    ),
    "sine and cosine swapped": (
        "cos, sin = angles.cos(), angles.sin()",
        "sin, cos = angles.cos(), angles.sin()",
        f"{ROTARY}.cos",
        "",
    ),
    "angles side by side": (
        "torch.cat((turns, turns), dim=-1)",
        "turns.repeat_interleave(2, dim=-1)",
        f"{ROTARY}.angles",
        "",
    ),
    "positions from one": (
        "torch.arange(key - token, key)",
        "torch.arange(key - token + 1, key + 1)",
        f"{ROTARY}.turns",
        "positions-shifted shifted",
    ),
    "padding takes no position": (
        "counted = torch.arange(key - token, key).unsqueeze(0)",
        "counted = (batch.mask.cumsum(1) - 1).clamp(min=0)",
        f"{ROTARY}.turns",
        "",
    ),
    "kv heads tiled": (
        "x.repeat_interleave(part.config.group, dim=1)",
        "x.repeat(1, part.config.group, 1, 1)",
        f"{ATTN}.product",
        "heads-shared-wrong",
    ),
    "scale of the whole width": (
        "product * query.shape[-1] ** -0.5",
        "product * part.config.hidden_size ** -0.5",
        f"{ATTN}.scaled",
        "scale-wrong",
    ),
    "no scale": ("product * query.shape[-1] ** -0.5", "product", f"{ATTN}.scaled", "scale-missing"),
    "gate and up swapped": (
        'bent = ACTIVATIONS[part.config.hidden_act](gate, part.tap.at("act_fn"))',
        'bent = ACTIVATIONS[part.config.hidden_act](linear(x, part.at("up_proj")), part.tap.at("act_fn"))',
        f"{MLP}.act_fn",
        "wrong-input wrong-operand",
    ),
    "gate never bent": (
        "gated = bent * up",
        "gated = gate * up",
        f"{MLP}.gated",
        "activation-missing wrong-operand",
    ),
    "gate added": ("gated = bent * up", "gated = bent + up", f"{MLP}.gated", "wrong-operand"),
    "epsilon outside the root": (
        "inverse_root = torch.rsqrt(above_zero)",
        "inverse_root = 1 / (mean_square.sqrt() + part.config.rms_norm_eps)",
        "model.layers.0.input_layernorm.inverse_root",
        "norm-eps-place norm-eps",
    ),
    "one plus the weight": (
        'return part.weights["weight"] * normed',
        'return (1 + part.weights["weight"]) * normed',
        "model.layers.0.input_layernorm",
        "norm-affine-wrong",
    ),
    "not added back": ("x = x + feed_forward(", "x = feed_forward(", f"{MLP}.residual", "residual-missing"),
    "the normed added back": (
        "    x = x + attended",
        "    x = normed + attended",
        f"{ATTN}.residual",
        "residual-wrong",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return small.model(tmp_path_factory.mktemp("models") / "llama", small.LLAMA, rms_norm_eps=0.01)


@pytest.fixture(scope="module")
def truth(copy: LocalCopy) -> Capture:
    question = ask(copy, token_ids=small.ROWS)
    return capture(type(question)(copy, question.inputs.with_padding("left"), "eager", False))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen_where_it_is_and_named(mistake: str, copy: LocalCopy, truth: Capture, figure):
    before, after, first, causes = MISTAKES[mistake]
    assert SOURCE.count(before) == 1
    module = types.ModuleType("llm_rebuild.models.llama_changed")
    sys.modules[module.__name__] = module
    try:
        exec(compile(SOURCE.replace(before, after), "<llama.py, changed>", "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    recorder = Recorder()
    module.forward(truth.inputs.batch, copy.rebuild.part(copy.weights(), recorder.tap()))
    shown = recorder.tensors
    assert next(name for name in truth if not compare(shown[name], truth[name]).identical) == first
    likeliest = diagnose(shown, truth, copy)[0]
    figure(f"{mistake}: {likeliest.cause} at {likeliest.checkpoint} ({likeliest.degree})")
    assert likeliest.checkpoint == first
    if causes:
        assert likeliest.cause in causes.split()
