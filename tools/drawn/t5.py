"""Configs of T5."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tools.drawn import ANY_ACTIVATION, EPSILONS, HEAD, VOCABULARY


@st.composite
def config(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[str, ...]]:
    buckets = draw(st.integers(4, 12))
    fields = {
        "model_type": "t5",
        "d_model": draw(st.integers(1, 24)),
        "d_kv": draw(st.integers(1, 10)),
        "d_ff": draw(st.integers(1, 36)),
        "num_layers": draw(st.integers(1, 3)),
        "num_decoder_layers": draw(st.none() | st.integers(1, 3)),
        "num_heads": draw(st.integers(1, 4)),
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": draw(st.integers(buckets // 2 + 1, 20)),
        "feed_forward_proj": draw(st.sampled_from(["", "gated-"])) + draw(ANY_ACTIVATION),
        "layer_norm_epsilon": draw(EPSILONS),
        "decoder_start_token_id": draw(st.integers(0, VOCABULARY - 1)),
    }
    if draw(st.booleans()):
        fields["tie_word_embeddings"] = draw(st.booleans())
    tables = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    return fields, (*(tables * draw(st.booleans())), *((HEAD,) * draw(st.booleans())))
