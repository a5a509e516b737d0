"""What MiniLM's files hold, the fields of config.json and the keys of the weight file; and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_rebuild.json_fields import check, one_of
from llm_rebuild.models.architecture import Architecture, Stack
from llm_rebuild.models.config import ModelConfig, divides, read_config, with_bias
from llm_rebuild.models.ops import ACTIVATIONS
from llm_rebuild.models.pipeline import KEY, Pipeline


@dataclass(frozen=True)
class Config(ModelConfig):
    """What config.json says, in its own spelling; where it is silent, as transformers' BertConfig has it."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    pooling: str = "mean"  # this and what follows: of the files beside config.json, see pipeline.py
    normalize: bool = False
    max_tokens: int | None = None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """From config.json. Raises InputError, by the field's name, for what is not supported."""
        pipeline = config.get(KEY, Pipeline().to_json())
        around = {name: pipeline[name] for name in ("pooling", "normalize", "max_tokens")}
        read = read_config({**config, **around}, cls, ARCHITECTURE)
        check(read.hidden_act, one_of(*ACTIVATIONS), "config.json: hidden_act")
        divides("hidden_size", read.hidden_size, "num_attention_heads", read.num_attention_heads)
        return read

    @property
    def positions(self) -> int:
        """The longest input, in tokens."""
        return self.max_position_embeddings

    @property
    def conditions(self) -> frozenset[str]:
        """What this config adds to the conditions of a run: its activation, and what makes the answer."""
        return frozenset({self.hidden_act, self.pooling, "normalize" if self.normalize else "as it is"})

    @property
    def text_limit(self) -> int:
        """To how many tokens a longer text is cut, as sentence encoders do."""
        return min(self.max_tokens or self.positions, self.positions)


_BLOCK = "encoder.layer.{layer}"
_HEAD = "of the head that the model was trained with, and not of the model"

# What is to be known of this model by those who name none.
ARCHITECTURE = Architecture(
    model_type="bert",
    file="minilm",
    published="minilm",
    title="MiniLM",
    tokenizer="wordpiece",
    config=Config,
    official_class="AutoModel",
    fixed={
        "is_causal": False,
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
        "is_encoder_decoder": False,
    },
    weights={
        "embeddings.word_embeddings.weight": "[vocab_size, hidden_size]",
        "embeddings.position_embeddings.weight": "[max_position_embeddings, hidden_size]",
        "embeddings.token_type_embeddings.weight": "[type_vocab_size, hidden_size]",
        **with_bias("embeddings.LayerNorm", "[hidden_size]", "[hidden_size]"),
        **with_bias(f"{_BLOCK}.attention.self.query", "[hidden_size, hidden_size]", "[hidden_size]"),
        **with_bias(f"{_BLOCK}.attention.self.key", "[hidden_size, hidden_size]", "[hidden_size]"),
        **with_bias(f"{_BLOCK}.attention.self.value", "[hidden_size, hidden_size]", "[hidden_size]"),
        **with_bias(f"{_BLOCK}.attention.output.dense", "[hidden_size, hidden_size]", "[hidden_size]"),
        **with_bias(f"{_BLOCK}.attention.output.LayerNorm", "[hidden_size]", "[hidden_size]"),
        **with_bias(
            f"{_BLOCK}.intermediate.dense", "[intermediate_size, hidden_size]", "[intermediate_size]"
        ),
        **with_bias(f"{_BLOCK}.output.dense", "[hidden_size, intermediate_size]", "[hidden_size]"),
        **with_bias(f"{_BLOCK}.output.LayerNorm", "[hidden_size]", "[hidden_size]"),
    },
    optional={**with_bias("pooler.dense", "[hidden_size, hidden_size]", "[hidden_size]")},
    unused={
        "embeddings.position_ids": "the numbers 0 to 511 in order, which arange makes as well",
        **dict.fromkeys(("cls.*", "classifier.*", "qa_outputs.*"), _HEAD),
    },
    prefix="bert.",
    older_names={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    parts={
        "embeddings": "token, type and place, added and normalised",
        "encoder.layer.{layer}": "self-attention, then a feed-forward",
        "pooler": "from the first token; the embedding does not use it",
        "sentence": "the mean over real tokens, at length 1",
    },
    departures=(
        ("positions are learned", "a table of {max_position_embeddings} rows instead of sines and cosines"),
        ("token types", "a second table says whether a token is of the first or the second sentence"),
        ("post-LN", "normalised after the input is added back, and once right after the embeddings"),
        ("exact GELU", "x · Φ(x) by the error function, where the textbook has ReLU"),
        ("biases everywhere", "every linear layer and every norm has one"),
        ("no decoder, no output head", "the answer is one vector, the mean of the last block's tokens"),
    ),
    stacks=(
        Stack("encoder.layer", "num_hidden_layers", enters="embeddings.LayerNorm", leaves="output.LayerNorm"),
    ),
    width="hidden_size",
    whole=frozenset({"padding"}),
    uncovered={"linalg_vector_norm": "norm statistic inside F.normalize"},
    embeds=True,
    texts=("Open-source LLMs rock.", "They do."),
    miniature_texts=("The cook gave the sailor a lamp.", "The cook."),
)
