"""Texts continued (GPT-2) or turned into other texts (T5), by the rebuild alone.

>>> from llm_rebuild.copies import local_copy
>>> from llm_rebuild.using.generate import generate
>>> print(generate(local_copy.get("gpt2"), ["Once upon a time"], max_new_tokens=20).texts[0])

How the next token is chosen is `decoding.py`'s matter. Here a rebuild becomes a step for it, and texts
become token ids and texts again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import gpt2, gpt2_config, rebuild_for, t5, t5_config
from llm_rebuild.models.cache import Cache, EncoderDecoderCache
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.printing import Printable
from llm_rebuild.tokenizers import Tokenizer
from llm_rebuild.using.decoding import Settings, SpecialIds, Step, decode
from llm_rebuild.using.inputs import Inputs

GENERATE = ("gpt2", "t5")  # config.json's model_type


@dataclass(frozen=True)
class Generated(Printable):
    """What became of the prompts.

    token_ids  [batch, token], as the official `generate` returns them: GPT-2's rows with the prompt,
               T5's from the start token on, padded.
    texts      What GPT-2's prompts have become, continuation and all; what T5 wrote.
    rows       Each row's ids without padding, as far as the token that ended it. `texts` says these.
    """

    model: str
    prompts: tuple[str, ...]
    token_ids: Tensor
    rows: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The contract of `run --json`."""
        return {
            "model": self.model,
            "texts": list(self.prompts),
            "token_ids": [list(row) for row in self.rows],
            "generated": list(self.texts),
        }


def generate(
    copy: LocalCopy,
    prompts: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    seed: int | None = None,
    stream: Callable[[int, str], None] | None = None,
    attention: str = "sdpa",
) -> Generated:
    """Continue texts, or rows of token ids, all in one batch. Greedy unless something else is asked for.

    stream   Called with a row's number and its next piece of text as soon as that is known. A piece is
             whole characters: one that takes several tokens waits for the last of them.
    Others   See `decoding.Settings`.

    Raises InputError for a model that does not write texts, for settings that make no sense, an empty
    prompt, ids outside the vocabulary, and where the text would run past the model's positions.
    """
    settings = Settings(
        max_new_tokens, temperature, top_k, top_p, repetition_penalty, no_repeat_ngram, beams,
        length_penalty, early_stopping, seed,
    )  # fmt: skip
    if attention not in ("eager", "sdpa"):
        raise InputError(f"attention is {attention!r}; it is either eager or sdpa")
    rebuild = rebuild_for(copy.config)
    if copy.config["model_type"] not in GENERATE:
        raise InputError(f"{copy.name} does not write texts; gpt2 and t5-small do")
    special = special_ids(copy.config)
    prompts = [prompts] if isinstance(prompts, str) else prompts
    given_texts = tuple(prompt for prompt in prompts if isinstance(prompt, str))
    tokenizer = copy.tokenizer() if given_texts or stream is not None else None
    inputs = _inputs(prompts, given_texts, tokenizer, settings, rebuild.config, special)
    weights = copy.weights()
    rebuild.check(weights)

    model = rebuild.part(weights, attention=attention)
    mask = inputs.mask.repeat_interleave(beams, dim=0)  # [row, token]: one row a beam
    if special.start is None:
        prompt, padding = inputs.token_ids, (inputs.mask == 0).sum(dim=1)
        step = gpt2_step(model, mask)
    else:
        prompt = torch.full((len(inputs.token_ids), 1), special.start)  # [batch, 1]
        padding = torch.zeros(len(prompt), dtype=torch.int64)
        with torch.no_grad():
            encoded = t5.encode(inputs.batch, model)
        encoded = encoded.repeat_interleave(beams, dim=0)  # [row, token, width]
        step = t5_step(model, encoded, mask)
    pieces = None if stream is None or tokenizer is None else Pieces(tokenizer, stream, len(prompt), special)
    token_ids = decode(step, prompt, settings, special, padding=padding, stream=pieces)
    if pieces is not None:
        pieces.finish()

    rows = tuple(
        _until_end(row[first:], prompt.shape[1] - first, special)
        for row, first in zip(token_ids.tolist(), padding.tolist(), strict=True)
    )
    texts = tuple(_text(tokenizer, row, special) for row in rows) if tokenizer else ()
    return Generated(copy.name, given_texts, token_ids, rows, texts)


# ---------------------------------------------------------------------------------- steps


@dataclass(frozen=True)
class GPT2State:
    """Keys and values of the tokens so far, and which of these are padding: mask [row, token]."""

    cache: Cache
    mask: Tensor

    def reorder(self, rows: Tensor) -> GPT2State:
        """The state of other rows, or of the same in another order."""
        return GPT2State(self.cache.reorder(rows), self.mask[rows])


def gpt2_step(model: Part[gpt2_config.Config], mask: Tensor) -> Step:
    """GPT-2 as a step. mask [row, token]: 1 for the prompts' tokens and 0 for the padding left of them.

    Padding takes no position: a row's first real token is at position 0, as in the official `generate`.
    """

    def step(token_ids: Tensor, state: GPT2State | None) -> tuple[Tensor, GPT2State]:
        new = token_ids.shape[1]
        seen = mask if state is None else F.pad(state.mask, (0, new), value=1)  # [row, token so far]
        positions = (seen.cumsum(dim=1) - 1).clamp(min=0)[:, -new:]  # [row, new token]
        batch = Batch(token_ids, seen, positions=positions)
        x, cache = gpt2.body(batch, model, Cache() if state is None else state.cache)
        assert cache is not None
        return gpt2.head(x[:, -1:], model)[:, -1], GPT2State(cache, seen)  # only the last token is scored

    return step


def t5_step(model: Part[t5_config.Config], encoded: Tensor, mask: Tensor) -> Step:
    """T5's decoder as a step. What the encoder made of the texts, encoded [row, token, width] with its
    mask [row, token], stays the same in every step."""

    def step(token_ids: Tensor, state: EncoderDecoderCache | None) -> tuple[Tensor, EncoderDecoderCache]:
        batch = Batch(token_ids[:, :0], mask, decoder_ids=token_ids)
        output = t5.decode(batch, encoded, model, EncoderDecoderCache() if state is None else state)
        assert output.cache is not None
        return output.logits[:, -1], output.cache

    return step


# --------------------------------------------------------------------------- ids and texts


def special_ids(config: Mapping[str, Any]) -> SpecialIds:
    """From config.json; where it is silent, the official classes' defaults.

    Raises InputError for an id that is not in the vocabulary, and where T5's start token is missing.
    """
    is_t5 = config["model_type"] == "t5"
    defaults = {"eos_token_id": 1, "pad_token_id": 0} if is_t5 else {"eos_token_id": 50256}
    vocab = rebuild_for(config).config.vocab_size

    def ids(name: str) -> tuple[int, ...]:
        value = config.get(name, defaults.get(name))
        found = value if isinstance(value, list) else [] if value is None else [value]
        for token in found:
            if type(token) is not int or not 0 <= token < vocab:
                raise InputError(f"config.json: {name} is {token!r}; the vocabulary has 0 to {vocab - 1}")
        return tuple(found)

    ends, padding, start = ids("eos_token_id"), ids("pad_token_id"), ids("decoder_start_token_id")
    if is_t5 and not start:
        raise InputError("config.json: decoder_start_token_id is missing; T5's decoder starts with it")
    return SpecialIds(ends, (padding or ends or (None,))[0], start[0] if is_t5 else None)


def _inputs(
    prompts: Sequence[str] | Sequence[Sequence[int]],
    texts: tuple[str, ...],
    tokenizer: Tokenizer | None,
    settings: Settings,
    config: Any,
    special: SpecialIds,
) -> Inputs:
    """The prompts as one batch. GPT-2's padding goes to the left: the next token must follow a real one."""
    is_decoder = special.start is None
    positions = config.positions if is_decoder else None  # T5's are relative, and have no last one
    side = "left" if is_decoder else "right"
    if texts and tokenizer is not None:
        if len(texts) != len(prompts):
            raise InputError("prompts are either all texts or all rows of token ids")
        for number, text in enumerate(texts, 1):
            if not text:
                raise InputError(f"prompt {number} is empty; give the model something to start from")
        inputs = Inputs.from_texts(tokenizer, texts, positions, side=side, cut=False)
    else:
        rows: Any = prompts
        inputs = Inputs.from_token_ids(rows, config.vocab_size, positions, side=side)
    longest = inputs.token_ids.shape[1]
    most = None if positions is None else positions - longest + 1  # the last new token is never read
    if most is not None and settings.max_new_tokens > most:
        raise InputError(
            f"a prompt of {longest} tokens and {settings.max_new_tokens} new ones do not fit the model's "
            f"{positions} positions; ask for at most {most}"
        )
    if inputs.padded:
        if special.padding is None:
            raise InputError("prompts of unequal length need padding, and config.json has no pad or eos id")
        padded = inputs.token_ids.masked_fill(inputs.mask == 0, special.padding)
        inputs = replace(inputs, token_ids=padded)
    return inputs


def _until_end(row: Sequence[int], prompt: int, special: SpecialIds) -> tuple[int, ...]:
    """A row as far as the first new token that ends it. Its first `prompt` ids are not new."""
    new = row[prompt:]
    length = next((i + 1 for i, token in enumerate(new) if token in special.ends), len(new))
    return tuple(row[: prompt + length])


def _text(tokenizer: Tokenizer, row: Sequence[int], special: SpecialIds) -> str:
    """The text of a row, without the token that ended it and those that only T5's decoder needs."""
    silent = {special.padding, special.start} if special.start is not None else set()
    ended = row[:-1] if row and row[-1] in special.ends else row
    return tokenizer.decode([token for token in ended if token not in silent])


class Pieces:
    """Turns each step's tokens into pieces of text, and hands these on as soon as they are whole."""

    def __init__(
        self, tokenizer: Tokenizer, write: Callable[[int, str], None], rows: int, special: SpecialIds
    ) -> None:
        self.tokenizer, self.write, self.special = tokenizer, write, special
        self.new: list[list[int]] = [[] for _ in range(rows)]
        self.shown = [""] * rows

    def __call__(self, tokens: Tensor) -> None:
        """tokens [batch]: the next one of each row."""
        for row, token in enumerate(tokens.tolist()):
            if self.new[row][-1:] and self.new[row][-1] in self.special.ends:
                continue  # what comes after the end is padding
            self.new[row].append(token)
            text = _text(self.tokenizer, self.new[row], self.special)
            if not text.endswith("\ufffd"):  # a character whose other bytes are still to come
                self._show(row, text)

    def finish(self) -> None:
        """Show what is still held back: nothing follows that could complete it."""
        for row, new in enumerate(self.new):
            self._show(row, _text(self.tokenizer, new, self.special))

    def _show(self, row: int, text: str) -> None:
        piece = text[len(self.shown[row]) :]
        if piece:
            self.write(row, piece)
            self.shown[row] = text
