"""Sentence embeddings by the rebuild alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.models.part import Batch
from llm_rebuild.printing import Printable
from llm_rebuild.using.inputs import Inputs


@dataclass(frozen=True)
class Embedded(Printable):
    """Texts and their embeddings, [text, width], each of length 1."""

    model: str
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    embeddings: Tensor

    def to_json(self) -> dict[str, Any]:
        """The contract of `run --json`."""
        return {
            "model": self.model,
            "texts": list(self.texts),
            "token_ids": [list(ids) for ids in self.token_ids],
            "embeddings": self.embeddings.tolist(),
        }


def embed(
    copy: LocalCopy, texts: Sequence[str], *, attention: str = "sdpa", batch_size: int = 32
) -> Embedded:
    """One embedding for each text, in the order given.

    Texts run sorted by length, in batches of neighbours, so that little of a batch is padding.
    Raises InputError for a model that makes no sentence embeddings.
    """
    rebuild = rebuild_for(copy.config)
    if copy.config["model_type"] != "bert":
        raise InputError(f"{copy.name} makes no sentence embeddings; minilm does")
    weights = copy.weights()
    rebuild.check(weights)
    model = rebuild.part(weights, attention=attention)
    everything = Inputs.from_texts(copy.tokenizer(), texts, rebuild.config.positions)
    lengths = everything.mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    embeddings = torch.empty(len(texts), rebuild.config.hidden_size)
    with torch.no_grad():
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            longest = int(lengths[rows].max())
            token_ids, mask = everything.token_ids[rows, :longest], everything.mask[rows, :longest]
            output = rebuild.run(Batch(token_ids, mask), model)
            embeddings[rows] = output.sentence_embedding
    ids = tuple(
        tuple(row[:length].tolist())
        for row, length in zip(everything.token_ids, lengths.tolist(), strict=True)
    )
    return Embedded(copy.name, tuple(texts), ids, embeddings)
