"""What both sides are asked: whose files, which input, which attention, with keys and values kept or not.

`ask` makes a question, once; the capture, the rebuild's run, the proof and the decoding steps are answers
to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import Unpack

from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import Rebuild
from llm_rebuild.models.part import ATTENTIONS, check_attention
from llm_rebuild.using import inputs
from llm_rebuild.using.inputs import Inputs, Prompts
from llm_rebuild.verify.loading import official_config
from llm_rebuild.verify.tokens import OfficialTokenizer
from llm_rebuild.weights import DTYPES, Numbers, Weights

Model = str | Path | LocalCopy


class Options(Numbers, total=False):
    """What `ask` takes besides a model and texts; `verify`, `capture` and `trace` hand it on."""

    token_ids: Sequence[Sequence[int]] | None
    decoder_ids: Sequence[Sequence[int]] | None
    attention: str
    use_cache: bool


# What a model is shown that the course has no rebuild of, and so no record with texts of its own.
ANY_TEXTS = ("Open-source LLMs rock.", "They do.")


@dataclass(frozen=True)
class Question:
    """One forward pass that is asked of the official model and of a rebuild.

    copy       The model's files.
    inputs     Token ids and masks.
    attention  `eager` or `sdpa`.
    cache      Whether keys and values are kept for a next step.
    goes_on    Whether it is such a step: keys and values of the tokens before are there already.
    dtype      The type of number that both sides compute in, one of `weights.DTYPES`.
    device     Where the rebuild computes, as torch calls it. The official model does on the CPU.
    """

    copy: LocalCopy
    inputs: Inputs
    attention: str = "eager"
    cache: bool = False
    goes_on: bool = False
    dtype: str = "float32"
    device: str = "cpu"

    @cached_property
    def weights(self) -> Weights:
        """The weight file, mapped."""
        return self.copy.weights(self.dtype)

    @property
    def rebuild(self) -> Rebuild:
        """The rebuild that the config asks for. InputError where there is none."""
        return self.copy.rebuild

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint of this pass, in order, from the list that the rebuild has."""
        return self.rebuild.checkpoints(self.conditions() | self.rebuild.conditions(self.weights))

    def conditions(self) -> set[str]:
        """What holds in this pass, for the list of checkpoints: `eager` or `sdpa`; `padding` where a row is
        shorter than the longest; `decoder mask` where a decoder beside an encoder reads several tokens, or
        padding; `cache` where keys and values are kept, and `start` where none were kept before."""
        inputs = self.inputs
        masked = inputs.decoder_mask is not None and not bool(inputs.decoder_mask.all())
        several = inputs.decoder_ids is not None and inputs.decoder_ids.shape[1] > 1
        holding = {
            "padding": inputs.padded,
            "decoder mask": several or masked,
            "cache": self.cache,
            "start": not self.goes_on,
        }
        return {self.attention, *(condition for condition, holds in holding.items() if holds)}

    def untried(self) -> tuple[str, ...]:
        """What this pass leaves open: padding, the other spelling of attention, a step from a cache."""
        others = [f"{attention} attention" for attention in ATTENTIONS if attention != self.attention]
        architecture = self.copy.architecture
        keeps = architecture is not None and architecture.generates and not self.cache
        return (*([] if self.inputs.padded else ["padding"]), *others, *(["cached step"] if keeps else []))

    def step(self, new_ids: Tensor) -> Question:
        """The next step of decoding: one new id a row, and a mask that counts it. new_ids [batch]."""
        inputs, ids, one = self.inputs, new_ids.unsqueeze(1), torch.ones(len(new_ids), 1, dtype=torch.int64)
        if inputs.decoder_mask is not None:
            mask = torch.cat([inputs.decoder_mask, one], dim=1)
            inputs = replace(inputs, decoder_ids=ids, decoder_mask=mask)
        else:
            inputs = replace(inputs, token_ids=ids, mask=torch.cat([inputs.mask, one], dim=1))
        return replace(self, inputs=inputs, cache=True, goes_on=True)


def ask(
    model: Model | Question,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    decoder_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
    use_cache: bool = False,
    **numbers: Unpack[Numbers],
) -> Question:
    """A question from what people have at hand.

    model        A name, a folder, or an opened local copy. A question is handed back as it is.
    texts        One text or several; several make one padded batch.
    token_ids    Ids instead of texts, for a folder without a tokenizer.
    decoder_ids  What the decoder reads, for T5. If None, the start token and then the text itself.
    attention    `eager` or `sdpa`. With `sdpa` scores and probabilities do not exist.
    use_cache    Keep keys and values for a next step, as generation does. It changes their bits.
    numbers      `dtype` and `device`, see `weights.Numbers`. The official model always computes on the CPU.

    Raises InputError for input that cannot be used.
    """
    if isinstance(model, Question):
        return model
    check_attention(attention)
    copy = local_copy.get(model)
    if use_cache and copy.architecture is not None and not copy.architecture.generates:
        raise InputError(f"{copy.name} writes no text and keeps no keys and values; ask without use_cache")
    dtype, device = copy.numbers(**numbers)
    prompts: Prompts = token_ids if token_ids is not None else () if texts is None else texts
    read = _read_any if copy.architecture is None else inputs.read
    batch = read(copy, prompts, decoder_ids)
    return Question(copy, batch, attention, use_cache, dtype=dtype, device=device)


def or_default(copy: LocalCopy, inputs: dict[str, Any], padded: bool = False) -> dict[str, Any]:
    """The inputs, with a text that this model understands where none was given; `padded`: with two texts of
    different length."""
    if inputs.get("texts") or inputs.get("token_ids"):
        return inputs
    default = copy.architecture.default_texts(copy.source) if copy.architecture else ANY_TEXTS
    count = len(inputs.get("decoder_ids") or default) if padded else 1  # a text for each row of the decoder
    return {**inputs, "texts": list(default[:count])}


def check(copy: LocalCopy, weights: Weights) -> None:
    """Refuse a folder whose files do not fit each other, before the official model is built from it and fills
    gaps with random numbers. Raises InputError."""
    if copy.architecture is not None:
        copy.rebuild.check(weights)
        return
    keys = len(weights)
    for field, value in copy.config.items():
        counts = "layer" in field or "expert" in field or "block" in field
        if counts and type(value) is int and value > max(keys, 64):  # before so many modules are made
            raise InputError(f"config.json: {field} is {value}; the weight file has only {keys} tensors")
    numbers = {key: tuple(t.shape) for key, t in weights.peek().items() if t.dtype in DTYPES.values()}
    weights.check(numbers, {"*": "whatever its official code makes of it"})


def describe(copy: LocalCopy) -> dict[str, Any]:
    """Which files the numbers come from. JSON-ready."""
    return {
        "name": copy.name,
        "source": copy.source,
        "revision": copy.revision,
        "sha256": copy.sha256[copy.weights_file.name],
    }


# ------------------------------------------------------------------------------------------ inputs


def _read_any(
    copy: LocalCopy, prompts: Prompts, decoder_ids: Sequence[Sequence[int]] | None = None
) -> Inputs:
    """As `inputs.read`, for a model without a rebuild: its config and its tokenizer are read by
    transformers."""
    config = official_config(copy.folder)
    reads = config.get_text_config()
    vocabulary, positions = getattr(reads, "vocab_size", None), _positions(reads)
    if type(vocabulary) is not int or vocabulary < 1:
        raise InputError(f"config.json: vocab_size is {vocabulary!r}, expected a whole number from 1")
    texts = inputs.texts_of(prompts)
    if texts is None:
        rows = cast("Sequence[Sequence[int]]", prompts)
        batch = Inputs.from_token_ids(rows, vocabulary, positions)
    else:
        batch = Inputs.from_texts(OfficialTokenizer(copy), texts, positions)
        if (highest := int(batch.token_ids.max())) >= vocabulary:
            raise InputError(
                f"the tokenizer of {copy.name} gives id {highest}, config.json's vocab_size is {vocabulary}; "
                "they belong to different models"
            )
    pad = _first_id(reads, "pad_token_id", vocabulary)
    if pad is not None:  # RoBERTa's positions count the tokens that are not this one
        batch = replace(batch, token_ids=batch.token_ids.masked_fill(batch.mask == 0, pad))
    start = _first_id(config, "decoder_start_token_id", vocabulary) if config.is_encoder_decoder else None
    if config.is_encoder_decoder and start is None:
        raise InputError("config.json has no decoder_start_token_id; add the id its decoder begins with")
    return batch.with_decoder(decoder_ids, start, vocabulary)


def _positions(config: Any) -> int | None:
    """The most tokens that the model can take, where its config says so in one of the usual words."""
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        value = getattr(config, field, None)
        if type(value) is int and value > 0:
            return value
    return None


def _first_id(config: Any, field: str, vocabulary: int) -> int | None:
    value = getattr(config, field, None)
    value = value[0] if isinstance(value, list) and value else value
    return value if type(value) is int and 0 <= value < vocabulary else None
