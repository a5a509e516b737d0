"""Configs of BERT."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tools.drawn import ANY_ACTIVATION, EPSILONS, LONGEST


@st.composite
def config(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[str, ...]]:
    heads, width = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    fields = {
        "model_type": "bert",
        "hidden_size": heads * width,
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 40)),
        "max_position_embeddings": draw(st.integers(LONGEST, 40)),
        "type_vocab_size": draw(st.integers(1, 3)),
        "hidden_act": draw(ANY_ACTIVATION),
        "layer_norm_eps": draw(EPSILONS),
    }
    return fields, ("pooler.dense.weight", "pooler.dense.bias") * draw(st.booleans())
