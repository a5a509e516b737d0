"""Close relatives of the four models: what config.json asks for, the rebuild does, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from llm_rebuild.anatomy import describe
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.models.part import Batch
from llm_rebuild.using.generate import Settings, generate
from llm_rebuild.verify import Question, Report, ask, capture, prove, verify, verify_steps
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.run import judge, rebuild_run
from tests.models import small
from tests.turns import in_turn

LM_HEAD = ("lm_head.weight",)
EMBED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")

# id -> base config, what is changed, optional keys that the file has
VARIATIONS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "gpt2": (small.GPT2, {}, ()),
    "gpt2 gelu": (small.GPT2, {"activation_function": "gelu"}, ()),
    "gpt2 relu": (small.GPT2, {"activation_function": "relu"}, ()),
    "gpt2 silu": (small.GPT2, {"activation_function": "silu"}, ()),
    "gpt2 gelu_pytorch_tanh": (small.GPT2, {"activation_function": "gelu_pytorch_tanh"}, ()),
    "gpt2 tanh": (small.GPT2, {"activation_function": "tanh"}, ()),
    "gpt2 n_inner": (small.GPT2, {"n_inner": 40}, ()),
    "gpt2 one block": (small.GPT2, {"n_layer": 1}, ()),
    "gpt2 one head": (small.GPT2, {"n_head": 1}, ()),
    "gpt2 odd head width": (small.GPT2, {"n_embd": 28}, ()),
    "gpt2 eps": (small.GPT2, {"layer_norm_epsilon": 0.1}, ()),
    "gpt2 inverse layer": (small.GPT2, {"scale_attn_by_inverse_layer_idx": True}, ()),
    "gpt2 unscaled": (small.GPT2, {"scale_attn_weights": False}, ()),
    "gpt2 untied": (small.GPT2, {"tie_word_embeddings": False}, LM_HEAD),
    "gpt2 said to be tied, is not": (small.GPT2, {}, LM_HEAD),
    "t5": (small.T5, {}, ()),
    "t5 1.1": (small.T5, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, LM_HEAD),
    "t5 1.1 without a head": (
        small.T5,
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        (),
    ),
    "t5 as saved": (small.T5, {"scale_decoder_outputs": False, "tie_word_embeddings": True}, ()),
    "t5 gelu": (small.T5, {"feed_forward_proj": "gelu"}, ()),
    "t5 gated-silu": (small.T5, {"feed_forward_proj": "gated-silu"}, ()),
    "t5 gelu_new": (small.T5, {"feed_forward_proj": "gelu_new"}, ()),
    "t5 deep encoder": (small.T5, {"num_layers": 3, "num_decoder_layers": 1}, ()),
    "t5 deep decoder": (small.T5, {"num_layers": 1, "num_decoder_layers": 3}, ()),
    "t5 buckets": (
        small.T5,
        {"relative_attention_num_buckets": 5, "relative_attention_max_distance": 7},
        (),
    ),
    "t5 eps": (small.T5, {"layer_norm_epsilon": 0.1}, ()),
    "t5 start": (small.T5, {"decoder_start_token_id": 7, "pad_token_id": 9}, ()),
    "t5 two tables": (small.T5, {}, EMBED),
    "t5 head width": (small.T5, {"d_kv": 8}, ()),
    "bert": (small.BERT, {}, small.POOLER),
    "bert no pooler": (small.BERT, {}, ()),
    "bert relu": (small.BERT, {"hidden_act": "relu"}, ()),
    "bert gelu_new": (small.BERT, {"hidden_act": "gelu_new"}, small.POOLER),
    "bert silu": (small.BERT, {"hidden_act": "silu"}, ()),
    "bert eps": (small.BERT, {"layer_norm_eps": 0.1}, small.POOLER),
    "bert types": (small.BERT, {"type_vocab_size": 1}, ()),
    # Heads merged lie in memory as they lay apart, and a product with a view adds in another order.
    "bert heads of width 1": (small.BERT, {"hidden_size": 5, "num_attention_heads": 5}, small.POOLER),
    **{
        f"{changes.get('model_type', 'llama')} {name}": (small.LLAMA, changes, optional)
        for name, changes, optional in small.LLAMAS
    },
    "gpt2 heads of width 1": (small.GPT2, {"n_embd": 5, "n_head": 5}, ()),
    "t5 heads of width 1": (small.T5, {"d_kv": 1, "num_heads": 5}, ()),
}


LLAMAS = sorted(name for name, (config, _, _) in VARIATIONS.items() if config is small.LLAMA)


def assert_exact(report: Report) -> None:
    assert report.verdicts
    assert report.exact, report.first_divergence


def asked(question: Question, official: Official) -> Report:
    """As `verify`, of an official model that is loaded already."""
    return judge(rebuild_run(question), capture(question, official=official))


@pytest.mark.parametrize(("variation", "attention"), in_turn(VARIATIONS, ["eager", "sdpa"]))
def test_bit_identical(variation: str, attention: str, tmp_path: Path):
    config, changes, optional = VARIATIONS[variation]
    copy = small.model(tmp_path / "model", config, optional, **changes)
    official = Official(copy.folder, attention)
    for rows in (small.ROWS[:1], small.ROWS):
        for use_cache in (False, True) if config is not small.BERT else (False,):
            assert_exact(asked(ask(copy, token_ids=rows, attention=attention, use_cache=use_cache), official))
    if config is not small.BERT:
        for report in verify_steps(copy, token_ids=small.ROWS, attention=attention, steps=2):
            assert_exact(report)


@pytest.mark.parametrize(("variation", "attention"), in_turn(LLAMAS, ["eager", "sdpa"]))
def test_padded_left_with_positions_of_its_own(variation: str, attention: str, tmp_path: Path):
    """As `generate` asks: padding takes no position, and a text goes on behind its cache."""
    config, changes, optional = VARIATIONS[variation]
    ids = {"pad_token_id": 0, "eos_token_id": None}
    copy = small.model(tmp_path / "model", config, optional, **changes, **ids)
    official = Official(copy.folder, attention)
    rows = torch.tensor([small.ROWS[0], [0] * 4 + small.ROWS[1]])
    mask = torch.tensor([[1] * 7, [0] * 4 + [1] * 3])
    wanted = official.model.generate(
        rows, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    written = generate(copy, small.ROWS, Settings(max_new_tokens=8), attention=attention)
    assert torch.equal(written.token_ids, wanted)
    question = ask(copy, token_ids=small.ROWS, attention=attention, use_cache=True)
    assert_exact(asked(replace(question, inputs=question.inputs.with_padding("left")), official))


def test_a_longer_text_before_it_changes_no_angle(tmp_path: Path):
    """Officially angles that were stretched for a long text stay so for the next one."""
    copy = small.model(
        tmp_path / "model",
        small.LLAMA,
        rope_scaling={"rope_type": "dynamic", "factor": 2.0},
        max_position_embeddings=3,
    )
    official = Official(copy.folder)
    for length in (9, 5, 3, 2):
        assert_exact(asked(ask(copy, token_ids=[[7] * length]), official))


def test_a_window_is_refused_where_it_is_reached(tmp_path: Path):
    for name, changes in {
        "mistral": {"model_type": "mistral", "sliding_window": 8},
        "qwen2": {
            "model_type": "qwen2",
            "use_sliding_window": True,
            "sliding_window": 8,
            "max_window_layers": 1,
        },
    }.items():
        copy = small.model(tmp_path / name, small.LLAMA, **changes)
        assert_exact(verify(copy, token_ids=[[1] * 7], attention="sdpa"))
        with pytest.raises(InputError, match="8 token ids are more than the 7 that the model takes"):
            verify(copy, token_ids=[[1] * 8])
        part = copy.rebuild.part(copy.weights())
        with pytest.raises(InputError, match="8 tokens reach as far as sliding_window, 8; give at most 7"):
            copy.rebuild.run(Batch(torch.ones(1, 8, dtype=torch.int64), torch.ones(1, 8)), part)
    for changes in (
        {"use_sliding_window": False},
        {"max_window_layers": 2},
        {"layer_types": ["full_attention"] * 2},
    ):
        fields = {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 8, **changes}
        assert rebuild_for({**small.LLAMA, **fields}).config.positions is None


def test_the_map_counts_the_heads_that_share(tmp_path: Path):
    for heads in (2, None):
        copy = small.model(tmp_path / str(heads), small.LLAMA, num_key_value_heads=heads)
        words = dict(describe(copy).departures)["grouped keys and values"]
        assert words == f"4 heads of queries share {heads or 4} of keys and values"


def test_a_bias_that_config_json_does_not_speak_of_is_refused(tmp_path: Path):
    key = "model.layers.0.self_attn.q_proj.bias"
    copy = rewritten(small.model(tmp_path / "model", small.LLAMA), lambda t: {**t, key: torch.ones(24)})
    with pytest.raises(InputError, match=r"holds model\.layers\.0\.self_attn\.q_proj\.bias"):
        verify(copy, token_ids=small.ROWS)


def test_a_variation_that_is_ignored_is_noticed(tmp_path: Path):
    """The test above can fail: a rebuild without scale_attn_by_inverse_layer_idx diverges in block 1."""
    copy = small.model(tmp_path / "model", small.GPT2, scale_attn_by_inverse_layer_idx=True)
    ignoring = LocalCopy(copy.name, copy.folder, copy.source)
    vars(ignoring)["config"] = copy.config | {"scale_attn_by_inverse_layer_idx": False}
    question = ask(copy, token_ids=small.ROWS)
    report = prove(question, coverage=False, run=lambda q: rebuild_run(replace(q, copy=ignoring))).report
    assert report.first_divergence is not None
    assert report.first_divergence.name == "h.1.attn.scaled"


local_rebuild = rebuild_for


# --------------------------------------------------------------------------- layouts of the weight file


def rewritten(copy: LocalCopy, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> LocalCopy:
    file = copy.folder / "model.safetensors"
    tensors = change(load_file(file))
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    return LocalCopy(copy.name, copy.folder, "folder")


@pytest.mark.parametrize(
    ("config", "optional", "prefix"),
    [
        (small.GPT2, (), "transformer."),
        ({**small.GPT2, "tie_word_embeddings": False}, LM_HEAD, "transformer."),
        (small.BERT, small.POOLER, "bert."),
    ],
    ids=["gpt2", "gpt2 untied", "bert"],
)
def test_files_with_the_prefix_of_a_model_saved_with_its_head(
    config: dict[str, Any], optional: tuple[str, ...], prefix: str, tmp_path: Path
):
    plain = small.model(tmp_path / "model", config, optional)
    before = verify(plain, token_ids=small.ROWS, coverage=False)
    prefixed = rewritten(
        plain, lambda tensors: {k if k in LM_HEAD else prefix + k: t for k, t in tensors.items()}
    )
    after = verify(prefixed, token_ids=small.ROWS, coverage=False)
    assert_exact(after)
    assert [v.name for v in after.verdicts] == [v.name for v in before.verdicts]


@pytest.mark.parametrize(
    ("base", "head"),
    [
        (small.BERT, "BertForMaskedLM"),
        (small.BERT, "BertForPreTraining"),
        (small.BERT, "BertForSequenceClassification"),
        (small.BERT, "BertForQuestionAnswering"),
        (small.GPT2, "GPT2DoubleHeadsModel"),
        (small.GPT2, "GPT2ForSequenceClassification"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_with_a_head(base: dict[str, Any], head: str, tmp_path: Path):
    """The body is read under its prefix, and what belongs to the head is known as not read."""
    import transformers

    plain = small.model(tmp_path / "plain", base, small.POOLER if base is small.BERT else ())
    model = getattr(transformers, head).from_pretrained(plain.folder)
    model.save_pretrained(tmp_path / "saved")
    copy = local_copy.get(tmp_path / "saved")
    left_over = set(rebuild_for(copy.config).shapes(copy.weights()))
    keys = {key.removeprefix("bert.").removeprefix("transformer.") for key in copy.weights()}
    assert keys - left_over, "no head is in the file"
    for attention in ("eager", "sdpa"):
        assert_exact(verify(copy, token_ids=small.ROWS, attention=attention, coverage=False))
    pooled = {"BertForPreTraining", "BertForSequenceClassification"}
    has_pooler = any(v.name.startswith("pooler") for v in verify(copy, token_ids=small.ROWS).verdicts)
    assert has_pooler == (head in pooled)
    unused = describe(copy).unused
    assert set(unused) == keys - left_over
    assert all("head" in why for why in unused.values())


def test_a_head_of_an_unknown_name_is_refused(tmp_path: Path):
    copy = rewritten(small.model(tmp_path / "model", small.BERT), lambda t: {**t, "head.bias": torch.ones(3)})
    with pytest.raises(InputError, match=r"holds head\.bias"):
        verify(copy, token_ids=small.ROWS)


def test_older_names_of_norms_are_read(tmp_path: Path):
    """As the first BERT files have them: gamma and beta."""
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def renamed(key: str) -> str:
        stem, _, last = key.rpartition("LayerNorm.")
        return f"bert.{stem}{older[f'LayerNorm.{last}']}" if stem else f"bert.{key}"

    plain = small.model(tmp_path / "model", small.BERT, small.POOLER)
    copy = rewritten(plain, lambda tensors: {renamed(key): t for key, t in tensors.items()})
    assert any(key.endswith("LayerNorm.gamma") for key in copy.weights())
    assert_exact(verify(copy, token_ids=small.ROWS, coverage=False))


def test_a_tensor_under_two_names_is_refused(tmp_path: Path):
    key = "embeddings.LayerNorm.bias"
    copy = rewritten(small.model(tmp_path / "model", small.BERT), lambda t: {**t, f"bert.{key}": t[key] + 1})
    with pytest.raises(InputError, match="holds tensors twice"):
        verify(copy, token_ids=small.ROWS)


def test_a_prefix_that_no_t5_file_has_is_refused(tmp_path: Path):
    copy = rewritten(
        small.model(tmp_path / "model", small.T5), lambda t: {f"transformer.{key}": x for key, x in t.items()}
    )
    with pytest.raises(InputError, match=r"lacks shared\.weight"):
        verify(copy, token_ids=small.ROWS)


def test_t5_file_with_the_left_over_bias_of_cross_attention(tmp_path: Path):
    left_over = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    copy = rewritten(small.model(tmp_path / "model", small.T5), lambda t: {**t, left_over: torch.ones(8, 3)})
    assert_exact(verify(copy, token_ids=small.ROWS, coverage=False))


@pytest.mark.parametrize("name", ["gpt2", "t5 1.1", "t5", "bert", *LLAMAS])
def test_a_folder_as_the_library_saves_it(name: str, tmp_path: Path):
    """Saved by the official class, config.json and weights: with its prefix, and fields that it adds."""
    import transformers

    config, changes, optional = VARIATIONS[name]
    first = small.model(tmp_path / "first", config, optional, **changes)
    official_class = rebuild_for(first.config).architecture.official_class
    official = getattr(transformers, official_class).from_pretrained(first.folder)
    official.save_pretrained(tmp_path / "saved")
    saved = local_copy.get(tmp_path / "saved")
    assert_exact(verify(saved, token_ids=small.ROWS, coverage=False))


def test_sharded_weights(tmp_path: Path):
    copy = small.model(tmp_path / "model", small.GPT2)
    shards = shard(copy.folder)
    store = tmp_path / "store"
    whole = local_copy.get(copy.folder, store=store)
    assert_exact(verify(whole, token_ids=small.ROWS, coverage=False))
    (copy.folder / shards[1]).unlink()
    with pytest.raises(InputError, match=shards[1]) as refusal:
        local_copy.get(copy.folder, store=store)
    assert "\n" not in str(refusal.value)


def shard(folder: Path) -> list[str]:
    """Split model.safetensors in two, with an index, as large models are."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    keys = sorted(tensors)
    halves = [keys[: len(keys) // 2], keys[len(keys) // 2 :]]
    for name, half in zip(names, halves, strict=True):
        save_file({key: tensors[key] for key in half}, folder / name, metadata={"format": "pt"})
    where = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return names


def test_what_config_json_does_not_explain_is_refused(tmp_path: Path):
    copy = rewritten(
        small.model(tmp_path / "model", small.GPT2), lambda t: {**t, "h.0.attn.extra.weight": torch.ones(3)}
    )
    with pytest.raises(InputError, match=r"holds h\.0\.attn\.extra\.weight"):
        verify(copy, token_ids=small.ROWS)


def test_an_untied_head_that_is_missing_is_refused(tmp_path: Path):
    copy = small.model(tmp_path / "model", small.GPT2, tie_word_embeddings=False)
    without = rewritten(copy, lambda t: {k: v for k, v in t.items() if k != "lm_head.weight"})
    with pytest.raises(InputError, match=r"lacks lm_head\.weight"):
        verify(without, token_ids=small.ROWS)


def test_official_configs_are_what_the_tool_writes(tmp_path: Path):
    """tools/full_size.py writes the architecture that the official classes have by default; a published
    one of other sizes, SmolLM2-135M, has them in itself."""
    from tools.full_size import CONFIGS

    for config in (config for name, config in CONFIGS.items() if name != "smollm2-135m"):
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        read = AutoConfig.from_pretrained(tmp_path).to_dict()
        default = AutoConfig.for_model(config["model_type"]).to_dict()
        added = {"architectures", "n_ctx", "decoder_start_token_id", "_name_or_path"}
        assert {k: v for k, v in read.items() if k not in added} == {
            k: v for k, v in default.items() if k not in added
        }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("config", [small.GPT2, small.LLAMA], ids=["gpt2", "llama"])
def test_a_file_of_half_the_width_is_computed_in_float32_on_both_sides(
    config: dict[str, Any], dtype: torch.dtype, tmp_path: Path
):
    copy = small.model(tmp_path / "model", config, torch_dtype=str(dtype).removeprefix("torch."))
    halves = {key: tensor.to(dtype) for key, tensor in load_file(copy.weights_file).items()}
    save_file(halves, copy.weights_file)
    assert_exact(verify(copy, token_ids=small.ROWS, coverage=False))


def test_a_llama_that_was_saved_without_its_head(tmp_path: Path):
    for tied in (True, False):
        copy = small.model(tmp_path / str(tied), small.LLAMA, tie_word_embeddings=tied)
        tensors = load_file(copy.weights_file)
        bare = {key.removeprefix("model."): t for key, t in tensors.items() if key != "lm_head.weight"}
        save_file(bare, copy.weights_file)
        if tied:
            assert_exact(verify(copy, token_ids=small.ROWS, coverage=False))
        else:
            with pytest.raises(InputError, match=r"lacks lm_head\.weight"):
                verify(copy, token_ids=small.ROWS)
