"""What GPT-2's files hold, the fields of config.json and the keys of the weight file; and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_rebuild.models.architecture import Architecture, Stack
from llm_rebuild.models.config import IRRELEVANT_EVERYWHERE, Reading, divides, one_of, read_config
from llm_rebuild.models.ops import ACTIVATIONS


@dataclass(frozen=True)
class Config:
    """What config.json says, in its own spelling."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None
    activation_function: str
    layer_norm_epsilon: float
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool
    tie_word_embeddings: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """From config.json. Raises InputError, by the field's name, for what is not supported."""
        read = read_config(config, cls, READING)
        one_of("activation_function", read.activation_function, ACTIVATIONS)
        divides("n_embd", read.n_embd, "n_head", read.n_head)
        return read

    @property
    def depth(self) -> dict[str, int]:
        """How many blocks stand under which path."""
        return {"h": self.n_layer}

    @property
    def positions(self) -> int:
        """The longest input, in tokens."""
        return self.n_positions

    @property
    def wide(self) -> int:
        """The width inside the feed-forward: four times the model's where config.json has no other."""
        return self.n_inner or 4 * self.n_embd

    @property
    def start_token(self) -> None:
        """What a decoder beside an encoder reads first; there is none."""
        return None

    @property
    def conditions(self) -> frozenset[str]:
        """What this config adds to the conditions of a run: its activation."""
        return frozenset({self.activation_function})

    @property
    def needed(self) -> frozenset[str]:
        """The optional keys that this config cannot do without."""
        return frozenset() if self.tie_word_embeddings else frozenset({"lm_head.weight"})

    @property
    def text_limit(self) -> None:
        """To how many tokens a longer text is cut. None is: its end is what a decoder continues."""
        return None


READING = Reading(
    model_type="gpt2",
    defaults={  # transformers' GPT2Config
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    },
    fixed={
        "add_cross_attention": False,
        "is_causal": True,
        "is_encoder_decoder": False,
        "reorder_and_upcast_attn": False,  # another operation for the product of query and key
    },
    irrelevant={
        **IRRELEVANT_EVERYWHERE,
        "attn_pdrop": "no dropout in evaluation",
        "embd_pdrop": "no dropout in evaluation",
        "resid_pdrop": "no dropout in evaluation",
        "initializer_range": "the weights come from the file",
        "summary_activation": "for a head of two tasks that the language model does not have",
        "summary_first_dropout": "for a head of two tasks that the language model does not have",
        "summary_proj_to_labels": "for a head of two tasks that the language model does not have",
        "summary_type": "for a head of two tasks that the language model does not have",
        "summary_use_proj": "for a head of two tasks that the language model does not have",
        "bos_token_id": "for generation, which gets it from its caller",
        "eos_token_id": "for generation, which gets it from its caller",
        "pad_token_id": "padding is known from the mask",
        "use_cache": "chosen by the caller",
    },
    aliases={
        "n_embd": "hidden_size",
        "n_positions": "max_position_embeddings",
        "n_head": "num_attention_heads",
        "n_layer": "num_hidden_layers",
    },
)

_BLOCK = "h.{layer}"
WEIGHTS = {
    "wte.weight": "[vocab_size, n_embd]",
    "wpe.weight": "[n_positions, n_embd]",
    f"{_BLOCK}.ln_1.weight": "[n_embd]",
    f"{_BLOCK}.ln_1.bias": "[n_embd]",
    f"{_BLOCK}.attn.c_attn.weight": "[n_embd, 3 * n_embd]",
    f"{_BLOCK}.attn.c_attn.bias": "[3 * n_embd]",
    f"{_BLOCK}.attn.c_proj.weight": "[n_embd, n_embd]",
    f"{_BLOCK}.attn.c_proj.bias": "[n_embd]",
    f"{_BLOCK}.ln_2.weight": "[n_embd]",
    f"{_BLOCK}.ln_2.bias": "[n_embd]",
    f"{_BLOCK}.mlp.c_fc.weight": "[n_embd, wide]",
    f"{_BLOCK}.mlp.c_fc.bias": "[wide]",
    f"{_BLOCK}.mlp.c_proj.weight": "[wide, n_embd]",
    f"{_BLOCK}.mlp.c_proj.bias": "[n_embd]",
    "ln_f.weight": "[n_embd]",
    "ln_f.bias": "[n_embd]",
}

# Keys that are read where the file has them. A tied head needs none: it is the token table itself.
OPTIONAL = {"lm_head.weight": "[vocab_size, n_embd]"}

# Keys that a file may hold and the rebuild does not read, each with the reason.
UNUSED = {
    f"{_BLOCK}.attn.bias": "a triangle of ones, the causal mask, which arange makes as well",
    f"{_BLOCK}.attn.masked_bias": "the number that masks a score in older releases",
    **dict.fromkeys(
        ("score.*", "classifier.*", "qa_outputs.*", "multiple_choice_head.*"),
        "of another head that the model was trained with",
    ),
}

# The parts of the model in data-flow order, and what each is for.
PARTS = {
    "wte": "which token it is: one row for each token, and at the end the head's table, too",
    "wpe": "where it stands: one row for each position",
    "h.{layer}": "self-attention, then a feed-forward",
    "ln_f": "normalised a last time",
    "lm_head": "a score for every possible next token",
}

# Where this model is not what the textbook figure of a transformer shows.
DEPARTURES = (
    ("decoder only", "no encoder and no cross-attention: it continues what it is given"),
    ("positions are learned", "a table of {n_positions} rows instead of sines and cosines"),
    ("pre-LN", "normalised before each half of a block, and once more after the last block"),
    ("Conv1D", "weights lie in the file as [in, out], the transpose of what torch's Linear stores"),
    ("fused query, key and value", "one matrix makes all three, side by side"),
    ("GELU by tanh", "config.json says {activation_function}; the textbook has ReLU"),
    ("tied head", "the token table serves at both ends, unless tie_word_embeddings is false"),
)

# What those need to know of this model who do not know it.
ARCHITECTURE = Architecture(
    model_type=READING.model_type,
    file="gpt2",
    published="gpt2",
    tokenizer="byte_bpe",
    config=Config,
    weights=WEIGHTS,
    optional=OPTIONAL,
    unused=UNUSED,
    prefix="transformer.",
    parts=PARTS,
    departures=DEPARTURES,
    stacks=(Stack("h", enters="embeddings", leaves="mlp.residual"),),
    width="n_embd",
    heads="n_head",
    official_class="AutoModelForCausalLM",
    official_body="transformer",
    generates=True,
    texts=("Open-source LLMs rock.", "They do."),
    miniature_texts=("The baker of Oru lives by the", "The cook"),
)
