"""Relative positions: every distance falls into the official bucket."""

from __future__ import annotations

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from llm_rebuild.models.t5 import bucket_of
from llm_rebuild.models.t5_config import Config
from tests.models import small


@pytest.mark.parametrize("both_ways", [True, False], ids=["encoder", "decoder"])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (32, 17), (4, 3), (7, 50), (64, 1000)])
def test_every_distance_has_the_official_bucket(both_ways: bool, buckets: int, farthest: int):
    sizes = {"relative_attention_num_buckets": buckets, "relative_attention_max_distance": farthest}
    config = Config.read({**small.T5, **sizes})
    where = torch.arange(3000)
    distance = torch.stack([where - 2999, where - 1500, where])  # [query, key]
    official = T5Attention._relative_position_bucket(distance, both_ways, buckets, farthest)
    assert torch.equal(bucket_of(distance, both_ways, config), official)
    assert int(official.max()) <= buckets - 1
