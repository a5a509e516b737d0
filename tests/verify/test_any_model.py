"""Models that the course does not rebuild: their map, their captures, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from llm_rebuild import anatomy, verify
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question, ask
from tests.models import small

IDS = [[5, 17, 3, 44, 9], [11, 5, 8]]
SMALL: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 36, "max_position_embeddings": 32,
}  # fmt: skip
BART: dict[str, Any] = {
    "vocab_size": 61, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 36, "decoder_ffn_dim": 36, "max_position_embeddings": 32,
}  # fmt: skip
IDS_IN = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
PLAIN = {"attention_bias": False, "attention_out_bias": False, **IDS_IN}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "seed_oss": ("SeedOssForCausalLM", "SeedOssConfig", SMALL | {"num_key_value_heads": 2, **PLAIN}),
    "apertus": ("ApertusForCausalLM", "ApertusConfig", SMALL | {"num_key_value_heads": 2, **IDS_IN}),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", SMALL | {"pad_token_id": 1}),
    "albert": ("AlbertModel", "AlbertConfig", SMALL | {"embedding_size": 12}),
    "bart": ("BartForConditionalGeneration", "BartConfig", BART),
    "dots1": (
        "Dots1ForCausalLM",
        "Dots1Config",
        SMALL
        | {
            "num_key_value_heads": 2,
            "head_dim": 8,
            "moe_intermediate_size": 12,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            **IDS_IN,
        },
    ),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        SMALL | {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, **IDS_IN},
    ),
    "mixtral": (
        "MixtralForCausalLM",
        "MixtralConfig",
        SMALL | {"num_key_value_heads": 2, "num_local_experts": 4},
    ),
}


def make(folder: Path, name: str) -> LocalCopy:
    """A seeded model. Norms and biases are random, too, so that none of them is idle."""
    model_class, config_class, fields = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return LocalCopy(name, folder, "folder")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LocalCopy]:
    root, made = tmp_path_factory.mktemp("models"), {}

    def copy(name: str) -> LocalCopy:
        if name not in made:
            made[name] = make(root / name, name)
        return made[name]

    return copy


@pytest.fixture(scope="module")
def seed_oss(copies: Callable[[str], LocalCopy]) -> LocalCopy:
    return copies("seed_oss")


def returned_by_modules(copy: LocalCopy) -> dict[str, Tensor]:
    """What plain hooks see: an independent capture of what each module returns the first time."""
    official, seen = Official(copy.folder), {}

    def hook(path: str) -> Any:
        def keep(module: nn.Module, given: Any, answer: Any) -> None:
            values = answer if isinstance(answer, tuple | list) else [answer]
            values = list(answer.values()) if isinstance(answer, dict) else values
            first = next((v for v in values if torch.is_tensor(v) and v.is_floating_point()), None)
            idle = not any(True for _ in module.parameters()) and isinstance(module, nn.Dropout)
            if path and first is not None and not idle:
                seen.setdefault(path, first.clone())

        return keep

    for path, module in official.model.named_modules():
        module.register_forward_hook(hook(path))
    official.run(verify.ask(copy, token_ids=IDS))
    return seen


@pytest.mark.parametrize("name", MODELS)
def test_what_each_module_returns_is_a_checkpoint(copies: Callable[[str], LocalCopy], name: str):
    copy = copies(name)
    truth, seen = verify.capture(copy, token_ids=IDS), returned_by_modules(copy)
    assert len(seen) > 20
    assert [path for path in seen if path not in truth] == []
    assert all(torch.equal(truth.tensors[path], tensor) for path, tensor in seen.items())
    modules = dict(Official(copy.folder).model.named_modules())
    assert all(truth.steps[path].kind == type(modules[path]).__name__ for path in seen)


@pytest.mark.parametrize("name", MODELS)
def test_steps_tell_of_every_checkpoint_and_go_back_in_time_only(
    copies: Callable[[str], LocalCopy], name: str
):
    truth = verify.capture(copies(name), token_ids=IDS)
    order = {checkpoint: number for number, checkpoint in enumerate(truth)}
    assert list(truth.steps) == list(truth)
    for checkpoint, step in truth.steps.items():
        assert all(order[source] < order[checkpoint] for source in (*step.inputs, *step.arguments))
        if step.same_as is not None:
            assert torch.equal(truth.tensors[checkpoint].flatten(), truth.tensors[step.same_as].flatten())
    addresses = [tensor.untyped_storage().data_ptr() for tensor in truth.tensors.values()]
    assert len(set(addresses)) == len(addresses)


def test_steps_can_be_computed_again_from_their_inputs(seed_oss: LocalCopy):
    """Which is what steps are for: each names what went in."""
    truth, weights = verify.capture(seed_oss, token_ids=IDS), seed_oss.weights()
    at = "model.layers.1.self_attn"
    assert truth.steps[f"{at}.softmax[0]"].inputs == (f"{at}.add[2]",)
    assert torch.equal(truth[f"{at}.add[2]"].tensor.softmax(-1), truth[f"{at}.softmax[0]"].tensor)
    step = truth.steps[f"{at}.q_proj"]
    assert (step.kind, step.arguments) == ("Linear", ("model.layers.1.input_layernorm",))
    again = F.linear(truth[step.arguments[0]].tensor, weights[f"{at}.q_proj.weight"])
    assert torch.equal(again, truth[f"{at}.q_proj"].tensor)
    product = truth.steps[f"{at}.matmul[0]"]
    assert (product.kind, product.path) == ("matmul", at)
    query, key = (truth[name].tensor for name in product.inputs)
    assert torch.equal(query @ key.repeat_interleave(2, dim=1).mT, truth[f"{at}.matmul[0]"].tensor)
    assert truth.steps[at].same_as == f"{at}.o_proj"
    residual = truth.steps["model.layers.1"].inputs
    assert torch.equal(sum(truth[name].tensor for name in residual), truth["model.layers.1"].tensor)


def test_a_module_that_runs_twice_has_a_number(copies: Callable[[str], LocalCopy]):
    truth = verify.capture(copies("albert"), token_ids=IDS)
    shared = "encoder.albert_layer_groups.0.albert_layers.0.attention.query"
    assert {shared, f"{shared}[1]"} <= set(truth)
    assert not torch.equal(truth[shared].tensor, truth[f"{shared}[1]"].tensor)


def test_a_capture_is_saved_and_read_with_its_steps(seed_oss: LocalCopy, tmp_path: Path):
    truth = verify.capture(seed_oss, token_ids=IDS, attention="sdpa")
    truth.save(tmp_path / "f")
    loaded = Capture.load(tmp_path / "f")
    assert loaded.steps == truth.steps
    assert all(torch.equal(loaded[name].tensor, truth[name].tensor) for name in truth)
    assert "model.layers.0.self_attn.sdpa[0]" in loaded
    assert "model.layers.0.self_attn.softmax[0]" not in loaded


def test_padding_is_the_models_own(copies: Callable[[str], LocalCopy]):
    inputs = ask(copies("roberta"), token_ids=IDS).inputs
    assert inputs.token_ids.tolist() == [[5, 17, 3, 44, 9], [11, 5, 8, 1, 1]]
    decoder = ask(copies("bart"), token_ids=IDS).inputs
    assert decoder.decoder_ids is not None
    assert decoder.decoder_ids.tolist()[0] == [2, 5, 17, 3, 44]


def test_texts_go_through_the_folders_own_tokenizer(tmp_path: Path):
    copy = make(tmp_path / "roberta", "roberta")
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "big": 4, "dog": 5}
    content = {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None, "decoder": None, "truncation": None, "padding": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }  # fmt: skip
    (copy.folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (copy.folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}), encoding="utf-8"
    )
    inputs = verify.capture(copy, ["big big dog", "dog cat"]).inputs
    assert inputs.token_ids.tolist() == [[4, 4, 5], [5, 3, 1]]
    assert inputs.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert inputs.tokens[0] == ("big", "big", "dog")


# ---------------------------------------------------------------------------------------------- map


@pytest.mark.parametrize("name", MODELS)
def test_the_map_adds_up(copies: Callable[[str], LocalCopy], name: str):
    copy = copies(name)
    found = anatomy.describe(copy)
    assert found.parameters == sum(t.numel() for t in copy.weights().peek().values())
    keys = {
        f"{part.path}.{key}".replace(f"{part.path}.{part.path}", part.path)
        for part in found.parts
        for key in part.shapes
    }
    assert keys == set(copy.weights())
    modules = {checkpoint.name for checkpoint in found.checkpoints}
    assert set(returned_by_modules(copy)) <= modules
    assert (found.departures, found.rebuilt) == ((), False)


# -------------------------------------------------------------------------------- what is refused


def test_the_commands(run, seed_oss: LocalCopy, tmp_path: Path):
    code, out, err = run("map", seed_oss.folder)
    assert (code, err) == (0, "")
    assert "SeedOssDecoderLayer" in out
    assert "31 checkpoints are returned by modules" in out
    assert "Departures" not in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, err = run("capture", seed_oss.folder, "--token-ids", "5,6,7", "--out", tmp_path / "f")
    assert (code, err) == (0, "")
    assert out.startswith("96 checkpoints of seed_oss in ")
    assert len(Capture.load(tmp_path / "f")) == 96


def test_what_needs_a_rebuild_says_what_works_without(run, seed_oss: LocalCopy):
    for command in (("verify", seed_oss.folder, "--token-ids", "5,6"), ("run", seed_oss.folder, "dog")):
        code, out, err = run(*command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "model_type is 'seed_oss'" in err
        assert "`map`, `capture` and `check` work on any text model" in err


def changed(copy: LocalCopy, folder: Path, **fields: object) -> LocalCopy:
    folder.mkdir()
    config = copy.config | fields
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(load_file(copy.weights_file), folder / "model.safetensors", metadata={"format": "pt"})
    return LocalCopy(folder.name, folder, "folder")


CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "an unknown family": ({"model_type": "nonsuch"}, "transformers does not take it"),
    "code of its own": (
        {"model_type": "nonsuch", "auto_map": {"AutoConfig": "configuration.MyConfig"}},
        "transformers does not take it",
    ),
    "a picture model": ({"model_type": "vit", "architectures": ["ViTModel"]}, "does not read token ids"),
    "more blocks than memory": ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; the "),
    "another width": ({"hidden_size": 48}, "cannot load"),
    "one block more": ({"num_hidden_layers": 3}, "the weight file lacks model.layers.2"),
    "no vocabulary": ({"vocab_size": 0}, "vocab_size is 0, expected a whole number from 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_refused(seed_oss: LocalCopy, tmp_path: Path, name: str):
    fields, words = CONFIGS[name]
    copy = changed(seed_oss, tmp_path / "changed", **fields)
    with pytest.raises(InputError) as refused:
        verify.capture(copy, token_ids=IDS)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_inputs_that_are_refused(seed_oss: LocalCopy, copies: Callable[[str], LocalCopy]):
    with pytest.raises(
        InputError, match=r"give --token-ids, for .* has no tokenizer that transformers can read"
    ):
        verify.capture(seed_oss, "a text")
    with pytest.raises(InputError, match="token id 61 is outside the vocabulary of 0 to 60"):
        verify.capture(seed_oss, token_ids=[[61]])
    with pytest.raises(InputError, match="33 token ids are more than the 32 that the model takes"):
        verify.capture(seed_oss, token_ids=[[1] * 33])
    with pytest.raises(InputError, match="has no decoder beside its encoder"):
        verify.capture(seed_oss, token_ids=[[1]], decoder_ids=[[1]])
    with pytest.raises(InputError, match="the official roberta model cannot read this input"):
        verify.capture(copies("roberta"), token_ids=[[5] * 32])  # its positions begin at 2


def test_a_folder_that_the_map_refuses(seed_oss: LocalCopy, tmp_path: Path):
    tensors = load_file(seed_oss.weights_file)
    del tensors["model.norm.weight"]
    copy = changed(seed_oss, tmp_path / "less")
    save_file(tensors, copy.weights_file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks model\.norm\.weight; it does not fit its config\.json"):
        anatomy.describe(copy)
    with pytest.raises(InputError, match=r"lacks model\.norm\.weight"):
        verify.capture(copy, token_ids=IDS)


def with_field(folder: Path, field: dict[str, Any]) -> LocalCopy:
    copy = small.model(folder / "bert", small.BERT)
    config = json.loads((copy.folder / "config.json").read_text(encoding="utf-8"))
    (copy.folder / "config.json").write_text(json.dumps(config | field), encoding="utf-8")
    return copy


@pytest.mark.parametrize(
    "field",
    [{"hidden_dropout_prob": "x"}, {"id2label": [1, 2]}, {"layer_norm_eps": 1}],
    ids=str,
)
def test_the_courses_families_are_loaded_behind_the_same_guard(tmp_path: Path, field: dict[str, Any]):
    with pytest.raises(InputError, match=r"config\.json: ") as refused:
        Official(with_field(tmp_path, field).folder)
    assert "\n" not in str(refused.value)


def test_the_form_of_the_answer_is_not_asked_for(tmp_path: Path):
    copy = with_field(tmp_path, {"return_dict": False})
    answer = Official(copy.folder).run(Question(copy, Inputs.from_token_ids(IDS, 61, None)))
    assert answer["sentence_embedding"].shape == (2, 24)
