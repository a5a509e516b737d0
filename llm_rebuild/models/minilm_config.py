"""What MiniLM's files hold, the fields of config.json and the keys of the weight file; and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_rebuild.models.architecture import Architecture, Stack
from llm_rebuild.models.config import IRRELEVANT_EVERYWHERE, Reading, divides, one_of, read_config
from llm_rebuild.models.ops import ACTIVATIONS
from llm_rebuild.models.pipeline import KEY, Pipeline


@dataclass(frozen=True)
class Config:
    """What config.json says, in its own spelling."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float
    hidden_act: str
    pooling: str  # this and what follows: of the files beside config.json, see pipeline.py
    normalize: bool
    max_tokens: int | None

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """From config.json. Raises InputError, by the field's name, for what is not supported."""
        pipeline = config.get(KEY, Pipeline().to_json())
        around = {name: pipeline[name] for name in ("pooling", "normalize", "max_tokens")}
        read = read_config({**config, **around}, cls, READING)
        one_of("hidden_act", read.hidden_act, ACTIVATIONS)
        divides("hidden_size", read.hidden_size, "num_attention_heads", read.num_attention_heads)
        return read

    @property
    def depth(self) -> dict[str, int]:
        """How many blocks stand under which path."""
        return {"encoder.layer": self.num_hidden_layers}

    @property
    def positions(self) -> int:
        """The longest input, in tokens."""
        return self.max_position_embeddings

    @property
    def start_token(self) -> None:
        """What a decoder beside an encoder reads first; there is none."""
        return None

    @property
    def conditions(self) -> frozenset[str]:
        """What this config adds to the conditions of a run: its activation, and what makes the answer."""
        return frozenset({self.hidden_act, self.pooling, "normalize" if self.normalize else "as it is"})

    @property
    def needed(self) -> frozenset[str]:
        """The optional keys that this config cannot do without."""
        return frozenset()

    @property
    def text_limit(self) -> int:
        """To how many tokens a longer text is cut, as sentence encoders do."""
        return min(self.max_tokens or self.positions, self.positions)


READING = Reading(
    model_type="bert",
    defaults={  # transformers' BertConfig
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    },
    fixed={
        "is_causal": False,
        "is_decoder": False,
        "add_cross_attention": False,
        "position_embedding_type": "absolute",
        "is_encoder_decoder": False,
    },
    irrelevant={
        **IRRELEVANT_EVERYWHERE,
        "attention_probs_dropout_prob": "no dropout in evaluation",
        "hidden_dropout_prob": "no dropout in evaluation",
        "classifier_dropout": "no classifier here, and no dropout in evaluation",
        "initializer_range": "the weights come from the file",
        "pad_token_id": "padding is known from the mask; the row for padding is in the file",
        "bos_token_id": "the tokenizer adds special tokens",
        "eos_token_id": "the tokenizer adds special tokens",
        "use_cache": "an encoder keeps no keys and values",
        "tie_word_embeddings": "no output head here",
    },
)

_BLOCK = "encoder.layer.{layer}"
WEIGHTS = {
    "embeddings.word_embeddings.weight": "[vocab_size, hidden_size]",
    "embeddings.position_embeddings.weight": "[max_position_embeddings, hidden_size]",
    "embeddings.token_type_embeddings.weight": "[type_vocab_size, hidden_size]",
    "embeddings.LayerNorm.weight": "[hidden_size]",
    "embeddings.LayerNorm.bias": "[hidden_size]",
    f"{_BLOCK}.attention.self.query.weight": "[hidden_size, hidden_size]",
    f"{_BLOCK}.attention.self.query.bias": "[hidden_size]",
    f"{_BLOCK}.attention.self.key.weight": "[hidden_size, hidden_size]",
    f"{_BLOCK}.attention.self.key.bias": "[hidden_size]",
    f"{_BLOCK}.attention.self.value.weight": "[hidden_size, hidden_size]",
    f"{_BLOCK}.attention.self.value.bias": "[hidden_size]",
    f"{_BLOCK}.attention.output.dense.weight": "[hidden_size, hidden_size]",
    f"{_BLOCK}.attention.output.dense.bias": "[hidden_size]",
    f"{_BLOCK}.attention.output.LayerNorm.weight": "[hidden_size]",
    f"{_BLOCK}.attention.output.LayerNorm.bias": "[hidden_size]",
    f"{_BLOCK}.intermediate.dense.weight": "[intermediate_size, hidden_size]",
    f"{_BLOCK}.intermediate.dense.bias": "[intermediate_size]",
    f"{_BLOCK}.output.dense.weight": "[hidden_size, intermediate_size]",
    f"{_BLOCK}.output.dense.bias": "[hidden_size]",
    f"{_BLOCK}.output.LayerNorm.weight": "[hidden_size]",
    f"{_BLOCK}.output.LayerNorm.bias": "[hidden_size]",
}

# Keys that are read where the file has them: a model saved without its pooler has no pooler checkpoints.
OPTIONAL = {
    "pooler.dense.weight": "[hidden_size, hidden_size]",
    "pooler.dense.bias": "[hidden_size]",
}

# Keys that a file may hold and the rebuild does not read, each with the reason.
_HEAD = "of the head that the model was trained with, and not of the model"
UNUSED = {
    "embeddings.position_ids": "the numbers 0 to 511 in order, which arange makes as well",
    **dict.fromkeys(("cls.*", "classifier.*", "qa_outputs.*"), _HEAD),
}

# The parts of the model in data-flow order, and what each is for.
PARTS = {
    "embeddings": "token, type and place, added and normalised",
    "encoder.layer.{layer}": "self-attention, then a feed-forward",
    "pooler": "from the first token; the embedding does not use it",
    "sentence": "the mean over real tokens, at length 1",
}

# Where this model is not what the textbook figure of a transformer shows.
DEPARTURES = (
    ("positions are learned", "a table of {max_position_embeddings} rows instead of sines and cosines"),
    ("token types", "a second table says whether a token is of the first or the second sentence"),
    ("post-LN", "normalised after the input is added back, and once right after the embeddings"),
    ("exact GELU", "x · Φ(x) by the error function, where the textbook has ReLU"),
    ("biases everywhere", "every linear layer and every norm has one"),
    ("no decoder, no output head", "the answer is one vector, the mean of the last block's tokens"),
)

# What those need to know of this model who do not know it.
ARCHITECTURE = Architecture(
    model_type=READING.model_type,
    file="minilm",
    published="minilm",
    tokenizer="wordpiece",
    config=Config,
    weights=WEIGHTS,
    optional=OPTIONAL,
    unused=UNUSED,
    prefix="bert.",
    older_names={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    parts=PARTS,
    departures=DEPARTURES,
    stacks=(Stack("encoder.layer", enters="embeddings.LayerNorm", leaves="output.LayerNorm"),),
    width="hidden_size",
    heads="num_attention_heads",
    whole=frozenset({"padding"}),
    official_class="AutoModel",
    uncovered={"linalg_vector_norm": "norm statistic inside F.normalize"},
    embeds=True,
    texts=("Open-source LLMs rock.", "They do."),
    miniature_texts=("The cook gave the sailor a lamp.", "The cook."),
)
