"""What T5's files hold, the fields of config.json and the keys of the weight file; and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_rebuild.errors import InputError
from llm_rebuild.json_fields import check, one_of, shown
from llm_rebuild.models.architecture import Architecture, Stack
from llm_rebuild.models.config import ModelConfig, read_config
from llm_rebuild.models.ops import ACTIVATIONS


@dataclass(frozen=True)
class Config(ModelConfig):
    """What config.json says, in its own spelling; where it is silent, as transformers' T5Config has it."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    scale_decoder_outputs: bool = True
    pad_token_id: int | None = 0
    decoder_start_token_id: int | None = 0

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """From config.json. Raises InputError, by the field's name, for what is not supported."""
        # T5 1.1 says that its head is not tied, and means that its decoder's output is not scaled either.
        scaled = config.get("tie_word_embeddings") is not False
        start = config.get("decoder_start_token_id", config.get("pad_token_id", 0))
        derived = {"scale_decoder_outputs": scaled, "decoder_start_token_id": start}
        read = read_config({**derived, **config}, cls, ARCHITECTURE)
        check(read.feed_forward_proj, one_of(*FEED_FORWARDS), "config.json: feed_forward_proj")
        buckets, farthest = read.relative_attention_num_buckets, read.relative_attention_max_distance
        if buckets < 4:
            raise InputError(f"config.json: relative_attention_num_buckets is {buckets}, expected 4 or more")
        if farthest <= buckets // 2:
            raise InputError(
                f"config.json: relative_attention_max_distance is {farthest}, expected more than half of "
                f"relative_attention_num_buckets, {buckets}"
            )
        for name, value in (("dense_act_fn", read.activation), ("is_gated_act", read.gated)):
            if config.get(name, value) != value:
                raise InputError(
                    f"config.json: {name} is {shown(config[name])}, but feed_forward_proj "
                    f"{read.feed_forward_proj!r} means {value!r}"
                )
        return read

    @property
    def gated(self) -> bool:
        """Whether the feed-forward has a second branch that lets the first through or not."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """The activation's name. What config.json calls "gated-gelu" is the tanh formula."""
        name = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.gated and name == "gelu" else name

    @property
    def decoder_layers(self) -> int:
        """As many as the encoder has, where config.json says nothing else."""
        return self.num_decoder_layers or self.num_layers

    @property
    def start_token(self) -> int | None:
        """What the decoder reads first."""
        return self.decoder_start_token_id

    @property
    def farthest(self) -> int:
        """From here on all distances share the last bucket."""
        return self.relative_attention_max_distance

    @property
    def conditions(self) -> frozenset[str]:
        """What this config adds to the conditions of a run."""
        head = {"scaled head"} if self.scale_decoder_outputs else set()
        return frozenset({self.activation, "gated" if self.gated else "plain", *head})

    @property
    def needed(self) -> frozenset[str]:
        """The optional keys that this config cannot do without."""
        return frozenset(key for key in ARCHITECTURE.optional if ("wi_" if self.gated else "wi.") in key)


FEED_FORWARDS = [*ACTIVATIONS, *(f"gated-{name}" for name in ACTIVATIONS)]


def _attention(path: str) -> dict[str, str]:
    inward = {f"{path}.{name}.weight": "[num_heads * d_kv, d_model]" for name in "qkv"}
    return {**inward, f"{path}.o.weight": "[d_model, num_heads * d_kv]"}


_ENCODER, _DECODER = "encoder.block.{layer}.layer", "decoder.block.{layer}.layer"
_BUCKETS = "[relative_attention_num_buckets, num_heads]"
_TASK = "translate English to German: "
_BUCKETS_WHY = "arithmetic with distances: whole numbers come out, and what they look up is a checkpoint"

# What is to be known of this model by those who name none.
ARCHITECTURE = Architecture(
    model_type="t5",
    file="t5",
    published="t5-small",
    title="T5",
    tokenizer="unigram",
    config=Config,
    official_class="AutoModelForSeq2SeqLM",
    fixed={"is_causal": True, "is_decoder": False, "is_encoder_decoder": True},
    aliases={
        "d_model": "hidden_size",
        "num_heads": "num_attention_heads",
        "num_layers": "num_hidden_layers",
        "d_kv": "head_dim",
    },
    weights={
        "shared.weight": "[vocab_size, d_model]",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": _BUCKETS,
        **_attention(f"{_ENCODER}.0.SelfAttention"),
        f"{_ENCODER}.0.layer_norm.weight": "[d_model]",
        f"{_ENCODER}.1.DenseReluDense.wo.weight": "[d_model, d_ff]",
        f"{_ENCODER}.1.layer_norm.weight": "[d_model]",
        "encoder.final_layer_norm.weight": "[d_model]",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": _BUCKETS,
        **_attention(f"{_DECODER}.0.SelfAttention"),
        f"{_DECODER}.0.layer_norm.weight": "[d_model]",
        **_attention(f"{_DECODER}.1.EncDecAttention"),
        f"{_DECODER}.1.layer_norm.weight": "[d_model]",
        f"{_DECODER}.2.DenseReluDense.wo.weight": "[d_model, d_ff]",
        f"{_DECODER}.2.layer_norm.weight": "[d_model]",
        "decoder.final_layer_norm.weight": "[d_model]",
    },
    optional={
        **{
            f"{ff}.DenseReluDense.{name}.weight": "[d_ff, d_model]"
            for ff in (f"{_ENCODER}.1", f"{_DECODER}.2")
            for name in ("wi", "wi_0", "wi_1")
        },
        "encoder.embed_tokens.weight": "[vocab_size, d_model]",
        "decoder.embed_tokens.weight": "[vocab_size, d_model]",
        "lm_head.weight": "[vocab_size, d_model]",
    },
    unused={
        "decoder.block.{layer}.layer.{layer}.EncDecAttention.relative_attention_bias.weight": (
            "left over from training: cross-attention knows no positions"
        )
    },
    parts={
        "shared": "which token it is, on both sides, and at the end the head's table, too",
        "encoder.block.{layer}": "self-attention, then a feed-forward",
        "encoder.final_layer_norm": "normalised a last time: what the decoder looks at",
        "decoder.block.{layer}": "self-attention, cross-attention, then a feed-forward",
        "decoder.final_layer_norm": "normalised a last time",
        "lm_head": "a score for every possible next token",
    },
    departures=(
        (
            "relative positions",
            "scores get a learned number for each of {relative_attention_num_buckets} distances",
        ),
        (
            "shared position bias",
            "only block 0 of each side has the table; the other blocks take over its numbers",
        ),
        ("RMSNorm", "scaled to length, never shifted: no mean is subtracted and there is no bias"),
        ("pre-LN", "normalised before each part of a block, and once more after the last block"),
        ("no biases", "no linear layer has one"),
        ("unscaled scores", "query times key is not divided by √{d_kv}; the initialisation made up for it"),
        (
            "tied, scaled head",
            "the token table at both ends, the output times {d_model} ** -0.5 (but T5 1.1: neither)",
        ),
    ),
    stacks=(
        Stack("encoder.block", "num_layers", "encoder.embed_tokens", "layer.1.residual", "layer", "encoder"),
        Stack(
            "decoder.block", "decoder_layers", "decoder.embed_tokens", "layer.2.residual", "layer", "decoder"
        ),
    ),
    width="d_model",
    crossing=(".EncDecAttention", "decoder.cross_"),
    wide=("wo",),
    whole=frozenset({"padding", "start", "decoder mask"}),
    uncovered=dict.fromkeys(("div", "log", "mul"), _BUCKETS_WHY),
    generates=True,
    texts=(f"{_TASK}The house is wonderful.", f"{_TASK}They do."),
    miniature_texts=(f"{_TASK}four hundred twenty-seven", f"{_TASK}nine"),
)
