"""What `tools.parity` may draw as a model's config, a file for each architecture: its `config` draws one, and
which optional keys the weight file has. Here is what they share."""

from __future__ import annotations

from hypothesis import strategies as st

from llm_rebuild.models.ops import ACTIVATIONS

VOCABULARY = 41
LONGEST = 12  # tokens of a row
STEPS = 3
HEAD = "lm_head.weight"
EPSILONS = st.sampled_from([1e-12, 1e-6, 1e-5, 1e-2, 0.1])
ANY_ACTIVATION = st.sampled_from(sorted(ACTIVATIONS))
