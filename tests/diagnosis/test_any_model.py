"""Formulas that are read off a trace, and the diagnosis of a model that the course does not have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import Tensor

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.diagnose import diagnose
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.verify import Capture, capture
from tests.verify import test_any_model as any_model
from tests.workbench import tiny_smollm3

IDS = [[5, 17, 3, 44, 9, 50, 2]]


@pytest.fixture(scope="module")
def smollm3(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return local_copy.get(tiny_smollm3.write(tmp_path_factory.mktemp("models") / "tiny-smollm3"))


@pytest.fixture(scope="module")
def truth(smollm3: LocalCopy) -> Capture:
    return capture(smollm3, token_ids=IDS)


def rebuilt(source: str, smollm3: LocalCopy, truth: Capture) -> dict[str, Tensor]:
    mine: dict[str, object] = {"__name__": "mine"}
    exec(compile(source, "mine.py", "exec"), mine)
    config = SimpleNamespace(**json.loads((smollm3.folder / "config.json").read_text(encoding="utf-8")))
    recorder = Recorder()
    with torch.no_grad():
        mine["forward"](truth.inputs.token_ids, truth.inputs.mask, smollm3.weights(), config, recorder.tap())  # type: ignore[operator]
    return recorder.tensors


def test_most_steps_have_a_formula(smollm3: LocalCopy, truth: Capture) -> None:
    world = world_of(truth, smollm3)
    found = {name for name, formula in world.formulas.items() if formula.kind != "given" and name in truth}
    assert len(found) > 0.75 * len(truth)
    kinds = {world.formulas[name].kind for name in found}
    assert kinds >= {"lookup", "stretch", "linear", "product", "scale", "add mask", "softmax", "mix", "act"}


def test_the_right_rebuild_is_right(smollm3: LocalCopy, truth: Capture) -> None:
    shown = rebuilt(tiny_smollm3.REBUILD, smollm3, truth)
    seen = replace(truth, tensors={n: t for n, t in truth.tensors.items() if n in shown})
    assert diagnose(shown, seen, smollm3) == ()


# What is shown of this rebuild is about a sixth of the official tensors: the rest is computed from them.
MISTAKES = [
    ("* width**-0.5", "", "scale-missing"),
    ("* width**-0.5", "/ width", "scale-wrong or scale-extra"),  # the same number
    # Of one text nothing is hidden but the future: the same mask.
    ("* width**-0.5 + later", "* width**-0.5", "mask-missing or mask-causal-missing"),
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
    ("rotate(query, cos, sin), rotate(key, cos, sin)", "query, key", "rotary-missing"),
    ("rotate(key, cos, sin)", "key", "rotary-missing"),
    ("(-x[..., half:], x[..., :half])", "(x[..., half:], -x[..., :half])", "rotary-wrong"),
    ("(-x[..., half:], x[..., :half])", "(x[..., half:], x[..., :half])", "rotary-wrong"),
    ("/ config.rope_theta **", "/ 500000.0 **", "rotary-base"),
    ("torch.arange(token).float()", "torch.arange(1, token + 1).float()", "positions-shifted"),
    (
        "t.repeat_interleave(heads // groups, dim=1)",
        "t.repeat(1, heads // groups, 1, 1)",
        "heads-shared-wrong",
    ),
    (".triu(1)", ".triu(2)", "mask-off-by-one"),
    ("gate * up", "gate + up", "unknown"),  # in words: two parts put together by another operation
]


@pytest.mark.parametrize(("before", "after", "cause"), MISTAKES)
def test_a_mistake_gets_its_name(
    before: str, after: str, cause: str, smollm3: LocalCopy, truth: Capture
) -> None:
    assert before in tiny_smollm3.REBUILD
    shown = rebuilt(tiny_smollm3.REBUILD.replace(before, after), smollm3, truth)
    assert diagnose(shown, truth, smollm3)[0].cause in cause.split(" or ")


SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
QWEN3_MOE = {"num_key_value_heads": 2, "num_experts": 4, "head_dim": 16, "mlp_only_layers": [0, 1]}
OTHERS = {
    "seed_oss": ({"num_key_value_heads": 2}, {"rotate", "repeat", "mask", "multiply", "split"}),
    "qwen3_moe": (QWEN3_MOE, {"rotate", "repeat", "by head", "stretch"}),
    "roberta": ({"type_vocab_size": 1}, {"layer norm", "lookup", "positions", "merge", "act"}),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_architectures_are_read(kind: str, tmp_path: Path) -> None:
    fields, kinds = OTHERS[kind]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES, **fields)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    copy = local_copy.get(tmp_path)
    truth = capture(copy, token_ids=IDS)
    world = world_of(truth, copy)
    assert {formula.kind for formula in world.formulas.values()} >= kinds
    given = {name for name, formula in world.formulas.items() if formula.kind == "given"}
    assert len(given) < 0.2 * len(truth), given  # the tables of angles, and products inside a rotation
    # Where a step is left out, it is named, whatever else the model has.
    step = next(f for f in world.formulas.values() if f.kind in ("rotate", "layer norm"))
    wrong = world.changed({step.name: lambda w: w[step.inputs[0]]}, frozenset())
    cause = "rotary-missing" if step.kind == "rotate" else "norm-missing"
    assert diagnose({name: wrong[name] for name in truth}, truth, copy)[0].cause == cause


def test_a_mask_between_texts_of_different_lengths(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    config = transformers.AutoConfig.for_model("bart", vocab_size=96, d_model=32, **sizes, **heads)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    copy = local_copy.get(tmp_path)
    truth = capture(copy, token_ids=[[5, 17, 3, 44, 9, 50, 2], [7, 8, 9]], decoder_ids=[[2, 5, 6], [2, 9, 4]])
    world = world_of(truth, copy)
    masks = [f for f in world.formulas.values() if f.kind == "mask"]
    assert [truth.tensors[mask.name].shape[-2:] for mask in masks][-1] == (3, 7)
    layers = [f for f in world.formulas.values() if f.kind == "linear"]
    across = [formula.name for formula in layers if formula.facts.get("cross")]
    assert [name.rpartition(".")[2] for name in across] == ["k_proj", "v_proj"]
    for mask in masks:
        wrong = {**truth.tensors, mask.name: torch.zeros_like(truth.tensors[mask.name])}
        assert diagnose(wrong, truth, copy)[0].cause != "unknown"


@pytest.mark.parametrize("name", ["apertus", "dots1", "gemma3_text"])
def test_a_step_into_which_a_weight_alone_goes_is_read_around(name: str, tmp_path: Path) -> None:
    """An activation with a number that was learned, a router's bias, a weight to which a norm adds 1."""
    copy = any_model.make(tmp_path / name, name)
    truth = capture(copy, token_ids=IDS)
    formulas = world_of(truth, copy).formulas
    assert sum(formula.kind != "given" for formula in formulas.values()) > len(truth) / 2
