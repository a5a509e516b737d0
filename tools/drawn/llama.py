"""Configs of Llama and its relatives."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tools.drawn import ANY_ACTIVATION, EPSILONS, HEAD, LONGEST, STEPS


@st.composite
def config(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[str, ...]]:
    kind = draw(st.sampled_from(["llama", "llama", "mistral", "qwen2", "qwen3"]))
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    heads, width = kv_heads * group, 2 * draw(st.integers(2, 8))
    own_width = kind == "qwen3" or draw(st.booleans())
    fields: dict[str, Any] = {
        "model_type": kind,
        "hidden_size": heads * (draw(st.integers(1, 8)) if own_width else width),
        "intermediate_size": draw(st.integers(1, 40)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": draw(st.integers(2, 40)),
        "hidden_act": draw(st.just("silu") | ANY_ACTIVATION),
        "rms_norm_eps": draw(EPSILONS),
        "tie_word_embeddings": draw(st.booleans()),
        "rope_theta": draw(st.sampled_from([10.0, 100.0, 10000.0, 500000.0])),
        "rope_scaling": draw(scaling()),
    }
    if own_width:
        fields["head_dim"] = width
    if kind in ("llama", "qwen3"):
        fields["attention_bias"] = draw(st.booleans())
    if kind == "llama":
        fields["mlp_bias"] = draw(st.booleans())
    if kind == "mistral":
        fields["sliding_window"] = draw(st.none() | st.integers(LONGEST + STEPS + 1, 64))
    return fields, (HEAD,) if not fields["tie_word_embeddings"] or draw(st.booleans()) else ()


@st.composite
def scaling(draw: st.DrawFn) -> dict[str, Any] | None:
    """What config.json may say of rotary positions."""
    kind = draw(st.sampled_from([None, None, "linear", "dynamic", "llama3", "yarn"]))
    if kind is None:
        return None
    said: dict[str, Any] = {"rope_type": kind, "factor": draw(st.sampled_from([1.0, 1.5, 2.0, 8.0]))}
    if kind == "llama3":
        low = draw(st.sampled_from([0.5, 1.0, 2.0]))
        said |= {"low_freq_factor": low, "high_freq_factor": low * draw(st.sampled_from([1.5, 4.0]))}
        said["original_max_position_embeddings"] = draw(st.integers(1, 40))
    if kind == "yarn":
        said["original_max_position_embeddings"] = draw(st.integers(1, 40))
        said["beta_slow"] = draw(st.sampled_from([0.1, 0.5, 1.0]))
        said["beta_fast"] = said["beta_slow"] * draw(st.sampled_from([1.5, 4.0, 32.0]))
        said["truncate"] = draw(st.booleans())
        if draw(st.booleans()):
            said["attention_factor"] = draw(st.sampled_from([0.5, 1.0, 1.7]))
        elif draw(st.booleans()):
            said |= {"mscale": 0.7, "mscale_all_dim": draw(st.sampled_from([0.3, 1.0]))}
    return said
