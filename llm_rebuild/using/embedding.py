"""Sentence embeddings by the rebuild alone, as sentence-transformers makes them of the same folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, listed
from llm_rebuild.models import RECORDS
from llm_rebuild.models.part import Batch
from llm_rebuild.models.pipeline import Pipeline
from llm_rebuild.printing import Printable
from llm_rebuild.using import inputs
from llm_rebuild.weights import DTYPES, Numbers, computing_on


@dataclass(frozen=True)
class Embedded(Printable):
    """Texts and their embeddings, [text, width].

    token_ids  Each text's ids as the model read them, added tokens included.
    truncated  How many tokens each text lost to the model's limit.
    pipeline   What was done around the network, as the model's folder asks.
    """

    model: str
    texts: tuple[str, ...]
    token_ids: tuple[tuple[int, ...], ...]
    embeddings: Tensor
    truncated: tuple[int, ...]
    pipeline: Pipeline

    def to_json(self) -> dict[str, Any]:
        """The contract of `run --json`."""
        return {
            "model": self.model,
            "texts": list(self.texts),
            "token_ids": [list(ids) for ids in self.token_ids],
            "truncated": list(self.truncated),
            "pipeline": self.pipeline.to_json(),
            "embeddings": self.embeddings.tolist(),
        }

    def similarities(self, number: int) -> Tensor:
        """How near one of the texts is to each, as the model's folder compares them: [text]."""
        vectors = self.embeddings
        if self.pipeline.similarity == "cosine":
            vectors = F.normalize(vectors, dim=1)
        return vectors @ vectors[number]

    @property
    def notes(self) -> list[str]:
        """What a person should know of these embeddings, a line each."""
        notes = []
        if not self.pipeline.published:
            notes.append(
                f"{self.model} has no modules.json: as in sentence-transformers its embedding is the mean of "
                "its tokens' vectors, not brought to length 1"
            )
        if self.pipeline.prompt:
            notes.append(f"before each text stands the model's prompt, {self.pipeline.prompt!r}")
        if cut := [str(number) for number, lost in enumerate(self.truncated, 1) if lost]:
            read = len(self.token_ids[int(cut[0]) - 1])
            notes.append(f"text {listed(cut, 1)} cut: the model reads {read} tokens and no more")
        return notes


TOKENS = 512  # of a batch, padding included: in larger ones the tensors in between outgrow the caches


def batches(lengths: Sequence[int], batch_size: int) -> Iterator[slice]:
    """Neighbours that run together, of texts in ascending order of their tokens: at most `batch_size`, and
    where it is more than one, at most `TOKENS` tokens."""
    start = 0
    for number, tokens in enumerate(lengths):
        full = number - start == batch_size or (number + 1 - start) * tokens > TOKENS
        if full and number > start:
            yield slice(start, number)
            start = number
    if lengths:
        yield slice(start, len(lengths))


def embed(
    copy: LocalCopy,
    texts: str | Sequence[str],
    *,
    attention: str = "sdpa",
    batch_size: int = 32,
    **numbers: Unpack[Numbers],
) -> Embedded:
    """One embedding for each text, in the order given. A string is one text.

    Texts run sorted by length, in batches of neighbours of at most `batch_size`, so that little of a batch is
    padding; long texts in smaller ones. With a `batch_size` of 1 the numbers are those of
    sentence-transformers to the bit; in a batch a sum may run in another order. `numbers` are the type of
    number and the device, see `weights.Numbers`. Raises InputError for a model that makes no sentence
    embeddings.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}; it must be a whole number from 1")
    rebuild, pipeline = copy.rebuild, copy.pipeline
    if pipeline is None:
        able = " and ".join(a.published for a in RECORDS if a.embeds)
        raise InputError(f"{copy.name} makes no sentence embeddings; {able} does")
    if inputs.texts_of(texts) is None:
        raise InputError("embeddings are of texts; token ids were given")
    dtype, device = copy.numbers(**numbers)
    weights = copy.weights(dtype, device)
    rebuild.check(weights)
    model = rebuild.part(weights, attention=attention)
    read = inputs.read(copy, texts)
    lengths = read.mask.sum(dim=1)
    order = lengths.argsort(stable=True)
    width = getattr(rebuild.config, rebuild.architecture.width)
    embeddings = torch.empty(len(read.texts), width, dtype=DTYPES[dtype])
    with torch.no_grad(), computing_on(device):
        for neighbours in batches(lengths[order].tolist(), batch_size):
            rows = order[neighbours]
            longest = int(lengths[rows].max())
            ids, mask = read.token_ids[rows, :longest].to(device), read.mask[rows, :longest].to(device)
            embeddings[rows] = rebuild.run(Batch(ids, mask), model).sentence_embedding.cpu()
    if not bool(embeddings.isfinite().all()):
        raise InputError(f"{copy.name} makes NaN or infinity of it; try another type than {dtype}")
    token_ids = tuple(map(tuple, read.rows))
    return Embedded(copy.name, read.texts, token_ids, embeddings, read.truncated, pipeline)
