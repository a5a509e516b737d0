"""What the files of Llama and its relatives hold, the fields of config.json and the keys of the weight file;
and their record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llm_rebuild.errors import InputError
from llm_rebuild.json_fields import FLAG, Kind, check, one_of, whole
from llm_rebuild.models.architecture import Architecture, Stack
from llm_rebuild.models.config import ModelConfig, divides, read_config
from llm_rebuild.models.ops import ACTIVATIONS
from llm_rebuild.models.rotary import Rope

# config.json's model_type -> what silence means, where it is not what it means for Llama.
_QWEN = {
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}
RELATIVES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 4096 * 32},
    "qwen2": _QWEN,
    "qwen3": {**_QWEN, "head_dim": 128},
}
# What each may say of a window over which blocks look back.
SLIDING = "sliding_attention"
_LAYERS_SAY = Kind(
    f"a list of full_attention and {SLIDING}",
    lambda v: isinstance(v, list) and all(kind in ("full_attention", SLIDING) for kind in v),
)
_SLIDES = {
    "sliding_window": whole(2),
    "use_sliding_window": FLAG,
    "max_window_layers": whole(),
    "layer_types": _LAYERS_SAY,
}
WINDOWS: Mapping[str, Mapping[str, Kind]] = {
    "llama": {},
    "mistral": {"sliding_window": whole(2)},
    "qwen2": _SLIDES,
    "qwen3": _SLIDES,
}


@dataclass(frozen=True)
class Config(ModelConfig):
    """What config.json says, in its own spelling; where it is silent, as transformers' config class of this
    model_type has it.

    rope    Of its rotary positions.
    window  How many tokens one looks back over, itself included; None: over all.
    """

    rope: Rope
    window: int | None
    model_type: str = "llama"
    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Config:
        """From config.json. Raises InputError, by the field's name, for what is not supported."""
        kind = config["model_type"]
        asked = {**RELATIVES[kind], **config}
        plain = {name: value for name, value in asked.items() if name not in WINDOWS[kind]}
        read = read_config({**plain, "rope": None, "window": None}, cls, ARCHITECTURE)
        check(read.hidden_act, one_of(*ACTIVATIONS), "config.json: hidden_act")
        if kind == "llama":
            divides("hidden_size", read.hidden_size, "num_attention_heads", read.num_attention_heads)
        divides("num_attention_heads", read.num_attention_heads, "num_key_value_heads", read.kv_heads)
        if read.head_width % 2 or read.head_width < 4:
            raise InputError(f"config.json: head_dim is {read.head_width}, expected an even number from 4")
        rope = Rope.read(config, read.max_position_embeddings)
        window = _window(asked, kind, read.num_hidden_layers)
        read = replace(read, num_key_value_heads=read.kv_heads, head_dim=read.head_width)
        return replace(read, rope=rope, window=window)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: as many as of queries, where config.json says nothing else."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def group(self) -> int:
        """How many heads of queries share one of keys and values."""
        return self.num_attention_heads // self.kv_heads

    @property
    def head_width(self) -> int:
        """The width of a head: that of the model shared among them, where config.json says nothing else."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def biases(self) -> frozenset[str]:
        """The layers that have a bias, each by the last word of its path."""
        inward, outward = ("q_proj", "k_proj", "v_proj"), ("o_proj",)
        attention = self.attention_bias and self.model_type in ("llama", "qwen3")
        mlp = ("gate_proj", "up_proj", "down_proj") if self.mlp_bias and self.model_type == "llama" else ()
        return frozenset(
            (*(inward if attention or self.model_type == "qwen2" else ()), *(outward * attention), *mlp)
        )

    @property
    def norms_query_and_key(self) -> bool:
        """Whether each head's query and key are normalised before they are turned."""
        return self.model_type == "qwen3"

    @property
    def positions(self) -> int | None:
        """The longest input, in tokens: no position is too far, but a window may be too small."""
        return None if self.window is None else self.window - 1

    @property
    def conditions(self) -> frozenset[str]:
        """What this config adds to the conditions of a run."""
        norms = {"norms of query and key"} if self.norms_query_and_key else set()
        return frozenset({self.hidden_act, self.rope.rope_type, *norms})

    @property
    def needed(self) -> frozenset[str]:
        """The optional keys that this config cannot do without."""
        layers = {f"{key}.bias" for key in self.biases}
        layers |= {"q_norm.weight", "k_norm.weight"} if self.norms_query_and_key else set()
        layers |= set() if self.tie_word_embeddings else {"lm_head.weight"}
        return frozenset(k for k in ARCHITECTURE.optional if ".".join(k.split(".")[-2:]) in layers)


def _window(config: Mapping[str, Any], kind: str, blocks: int) -> int | None:
    """How many tokens one looks back over, in the blocks that look over a window, if there are any."""
    asked = {name: value for name in WINDOWS[kind] if (value := config.get(name)) is not None}
    check(asked, {name: WINDOWS[kind][name] for name in asked}, "config.json: ")
    types = asked.get("layer_types", [SLIDING] if asked.get("max_window_layers", 28) < blocks else [])
    slides = kind == "mistral" or (asked.get("use_sliding_window", False) and SLIDING in types)
    return asked.get("sliding_window", None if "sliding_window" in config else 4096) if slides else None


_BLOCK, _WIDTH = "model.layers.{layer}", "hidden_size"
_HEAD = "of another head that the model was trained with"
_QUERIES, _PAIRS = "num_attention_heads * head_width", "kv_heads * head_width"
_LAYERS = {
    f"{_BLOCK}.self_attn.q_proj": (_QUERIES, _WIDTH),
    f"{_BLOCK}.self_attn.k_proj": (_PAIRS, _WIDTH),
    f"{_BLOCK}.self_attn.v_proj": (_PAIRS, _WIDTH),
    f"{_BLOCK}.self_attn.o_proj": (_WIDTH, _QUERIES),
    f"{_BLOCK}.mlp.gate_proj": ("intermediate_size", _WIDTH),
    f"{_BLOCK}.mlp.up_proj": ("intermediate_size", _WIDTH),
    f"{_BLOCK}.mlp.down_proj": (_WIDTH, "intermediate_size"),
}

# What is to be known of this model by those who name none.
ARCHITECTURE = Architecture(
    model_type="llama",
    relatives=tuple(kind for kind in RELATIVES if kind != "llama"),
    file="llama",
    published="llama",
    title="Llama",
    tokenizer="byte_bpe_json",
    body="model.",
    config=Config,
    official_class="AutoModelForCausalLM",
    fixed={"is_causal": True, "is_encoder_decoder": False},
    weights={
        "model.embed_tokens.weight": "[vocab_size, hidden_size]",
        f"{_BLOCK}.input_layernorm.weight": "[hidden_size]",
        **{f"{path}.weight": f"[{outward}, {inward}]" for path, (outward, inward) in _LAYERS.items()},
        f"{_BLOCK}.post_attention_layernorm.weight": "[hidden_size]",
        "model.norm.weight": "[hidden_size]",
    },
    optional={
        **{f"{path}.bias": f"[{outward}]" for path, (outward, _) in _LAYERS.items()},
        f"{_BLOCK}.self_attn.q_norm.weight": "[head_width]",
        f"{_BLOCK}.self_attn.k_norm.weight": "[head_width]",
        "lm_head.weight": "[vocab_size, hidden_size]",
    },
    unused={
        f"{_BLOCK}.self_attn.rotary_emb.inv_freq": "the frequencies, which a power makes as well",
        **dict.fromkeys(("score.*", "qa_outputs.*"), _HEAD),
    },
    parts={
        "model.embed_tokens": "which token it is: one row for each token",
        "model.rotary_emb": "where it stands: an angle for each pair of numbers",
        _BLOCK: "self-attention, then a feed-forward",
        "model.norm": "normalised a last time",
        "lm_head": "a score for every possible next token",
    },
    departures=(
        ("decoder only", "no encoder and no cross-attention: it continues what it is given"),
        ("rotary positions", "queries and keys are turned by their position; nothing is added to the tokens"),
        (
            "grouped keys and values",
            "{num_attention_heads} heads of queries share {num_key_value_heads} of keys and values",
        ),
        ("RMSNorm", "scaled to length, never shifted: no mean is subtracted and there is no bias"),
        ("pre-LN", "normalised before each half of a block, and once more after the last block"),
        ("SwiGLU", "the feed-forward has a gate: one branch says how much of the other goes on"),
        ("few biases", "no linear layer has one, but query, key and value in Qwen 2"),
    ),
    stacks=(Stack("model.layers", "num_hidden_layers", enters="model.embed_tokens", leaves="mlp.residual"),),
    width="hidden_size",
    uncovered=dict.fromkeys(
        ("add", "div", "mul", "pow", "reciprocal", "sub"),
        "the base for a text that is longer than those in training (dynamic scaling)",
    ),
    generates=True,
    texts=("Open-source LLMs rock.", "They do."),
    miniature_texts=("The baker of Oru lives by the", "The cook"),
)
