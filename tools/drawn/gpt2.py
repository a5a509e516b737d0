"""Configs of GPT-2."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tools.drawn import ANY_ACTIVATION, EPSILONS, HEAD, LONGEST, STEPS


@st.composite
def config(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[str, ...]]:
    heads, width = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    tied = draw(st.booleans())
    fields = {
        "model_type": "gpt2",
        "n_positions": draw(st.integers(LONGEST + STEPS, 40)),
        "n_embd": heads * width,
        "n_head": heads,
        "n_layer": draw(st.integers(1, 3)),
        "n_inner": draw(st.none() | st.integers(1, 40)),
        "activation_function": draw(ANY_ACTIVATION),
        "layer_norm_epsilon": draw(EPSILONS),
        "scale_attn_weights": draw(st.booleans()),
        "scale_attn_by_inverse_layer_idx": draw(st.booleans()),
        "tie_word_embeddings": tied,
    }
    return fields, (HEAD,) if not tied or draw(st.booleans()) else ()
