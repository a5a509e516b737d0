"""What GPT-2's files hold, the fields of config.json and the keys of the weight file; and its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm_rebuild.json_fields import check, one_of
from llm_rebuild.models.architecture import Architecture, Stack
from llm_rebuild.models.config import ModelConfig, divides, read_config, with_bias
from llm_rebuild.models.ops import ACTIVATIONS


@dataclass(frozen=True)
class Config(ModelConfig):
    """What config.json says, in its own spelling; where it is silent, as transformers' GPT2Config has it."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """From config.json. Raises InputError, by the field's name, for what is not supported."""
        read = read_config(config, cls, ARCHITECTURE)
        check(read.activation_function, one_of(*ACTIVATIONS), "config.json: activation_function")
        divides("n_embd", read.n_embd, "n_head", read.n_head)
        return read

    @property
    def positions(self) -> int:
        """The longest input, in tokens."""
        return self.n_positions

    @property
    def wide(self) -> int:
        """The width inside the feed-forward: four times the model's where config.json has no other."""
        return self.n_inner or 4 * self.n_embd

    @property
    def conditions(self) -> frozenset[str]:
        """What this config adds to the conditions of a run: its activation."""
        return frozenset({self.activation_function})

    @property
    def needed(self) -> frozenset[str]:
        """The optional keys that this config cannot do without."""
        return frozenset() if self.tie_word_embeddings else frozenset({"lm_head.weight"})


_BLOCK = "h.{layer}"

# What is to be known of this model by those who name none.
ARCHITECTURE = Architecture(
    model_type="gpt2",
    file="gpt2",
    published="gpt2",
    title="GPT-2",
    tokenizer="byte_bpe",
    config=Config,
    official_class="AutoModelForCausalLM",
    fixed={
        "add_cross_attention": False,
        "is_causal": True,
        "is_encoder_decoder": False,
        "reorder_and_upcast_attn": False,  # another operation for the product of query and key
    },
    aliases={
        "n_embd": "hidden_size",
        "n_positions": "max_position_embeddings",
        "n_head": "num_attention_heads",
        "n_layer": "num_hidden_layers",
    },
    weights={
        "wte.weight": "[vocab_size, n_embd]",
        "wpe.weight": "[n_positions, n_embd]",
        **with_bias(f"{_BLOCK}.ln_1", "[n_embd]", "[n_embd]"),
        **with_bias(f"{_BLOCK}.attn.c_attn", "[n_embd, 3 * n_embd]", "[3 * n_embd]"),
        **with_bias(f"{_BLOCK}.attn.c_proj", "[n_embd, n_embd]", "[n_embd]"),
        **with_bias(f"{_BLOCK}.ln_2", "[n_embd]", "[n_embd]"),
        **with_bias(f"{_BLOCK}.mlp.c_fc", "[n_embd, wide]", "[wide]"),
        **with_bias(f"{_BLOCK}.mlp.c_proj", "[wide, n_embd]", "[n_embd]"),
        **with_bias("ln_f", "[n_embd]", "[n_embd]"),
    },
    optional={"lm_head.weight": "[vocab_size, n_embd]"},
    unused={
        f"{_BLOCK}.attn.bias": "a triangle of ones, the causal mask, which arange makes as well",
        f"{_BLOCK}.attn.masked_bias": "the number that masks a score in older releases",
        **dict.fromkeys(
            ("score.*", "classifier.*", "qa_outputs.*", "multiple_choice_head.*"),
            "of another head that the model was trained with",
        ),
    },
    prefix="transformer.",
    parts={
        "wte": "which token it is: one row for each token, and at the end the head's table, too",
        "wpe": "where it stands: one row for each position",
        "h.{layer}": "self-attention, then a feed-forward",
        "ln_f": "normalised a last time",
        "lm_head": "a score for every possible next token",
    },
    departures=(
        ("decoder only", "no encoder and no cross-attention: it continues what it is given"),
        ("positions are learned", "a table of {n_positions} rows instead of sines and cosines"),
        ("pre-LN", "normalised before each half of a block, and once more after the last block"),
        ("Conv1D", "weights lie in the file as [in, out], the transpose of what torch's Linear stores"),
        ("fused query, key and value", "one matrix makes all three, side by side"),
        ("GELU by tanh", "config.json says {activation_function}; the textbook has ReLU"),
        ("tied head", "the token table serves at both ends, unless tie_word_embeddings is false"),
    ),
    stacks=(Stack("h", "n_layer", enters="embeddings", leaves="mlp.residual"),),
    width="n_embd",
    official_body="transformer",
    generates=True,
    texts=("Open-source LLMs rock.", "They do."),
    miniature_texts=("The baker of Oru lives by the", "The cook"),
)
