"""Texts continued (GPT-2) or turned into other texts (T5), by the rebuild alone.

>>> from llm_rebuild.copies import local_copy
>>> from llm_rebuild.using.generate import Settings, generate
>>> print(generate(local_copy.get("gpt2"), "Once upon a time", Settings(max_new_tokens=20)).texts[0])

How the next token is chosen is `decoding.py`'s matter. Here a rebuild becomes a step for it, and texts
become token ids and texts again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, counted
from llm_rebuild.models import RECORDS, Rebuild
from llm_rebuild.models.cache import Cache, EncoderDecoderCache
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.printing import Printable, notice
from llm_rebuild.tokenizers import Tokenizer
from llm_rebuild.using.ahead import write_ahead
from llm_rebuild.using.decoding import Step, decode
from llm_rebuild.using.defaults import NEW_TOKENS, defaults
from llm_rebuild.using.inputs import Inputs, Prompts, read, texts_of
from llm_rebuild.using.settings import SettingError, Settings, SpecialIds
from llm_rebuild.weights import Numbers, computing_on

__all__ = ["Generated", "Settings", "generate"]


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
    prompts: Prompts,
    settings: Settings | None = None,
    *,
    stream: Callable[[int, str], None] | None = None,
    attention: str = "sdpa",
    fast: bool = False,
    **numbers: Unpack[Numbers],
) -> Generated:
    """Continue texts, or rows of token ids, all in one batch. Greedy unless something else is asked for.

    settings  How; what they leave open is as the model's folder asks, see `defaults.py`. Without them 40 new
              tokens are written.
    stream    Called with a row's number and its next piece of text as soon as that is known. A piece is
              whole characters: one that takes several tokens waits for the last of them. Not called where
              the folder asks for a beam search, which knows its text at the end only.
    fast      The same tokens, sooner where the text repeats itself, see `ahead.py`: of one prompt, without
              draws and beams, in float32 or float64 on the cpu.
    numbers   The type of number and the device that are computed with, see `weights.Numbers`.

    Raises InputError for a model that does not write texts, for settings that make no sense, an empty
    prompt, ids outside the vocabulary, and where the text would run past the model's positions.
    """
    rebuild, asked = copy.rebuild, settings or Settings()
    if not rebuild.architecture.generates:
        *able, last = (a.published for a in RECORDS if a.generates)
        raise InputError(f"{copy.name} does not write texts; {', '.join(able)} and {last} do")
    dtype, device = copy.numbers(**numbers)
    if fast and (dtype not in ("float32", "float64") or device != "cpu"):
        raise SettingError("fast computes in float32 or float64 on the cpu; leave it out, or take these")
    weights = copy.weights(dtype, device)
    rebuild.check(weights)
    with computing_on(device):
        return _generated(copy, prompts, asked, rebuild.part(weights, attention=attention), stream, fast)


def _generated(
    copy: LocalCopy,
    prompts: Prompts,
    asked: Settings,
    part: Part[Any],
    stream: Callable[[int, str], None] | None,
    fast: bool,
) -> Generated:
    """The same, by the model as its functions want to have it."""
    rebuild = copy.rebuild
    folder = defaults(copy, asked.sampling)
    special, texts = folder.special, texts_of(prompts)
    for number, text in enumerate(texts or (), 1):
        if not text:
            raise InputError(f"prompt {number} is empty; give the model something to start from")
    inputs = read(copy, prompts)
    if special.start is None:
        inputs = _padded(inputs, special.padding)
        prompt, padding = inputs.token_ids, (inputs.mask == 0).sum(dim=1)
    else:
        prompt = torch.full((len(inputs.mask), 1), special.start)
        padding = torch.zeros(len(prompt), dtype=torch.int64)
    settings = _fitting(
        asked.over(folder.settings), folder.longest, prompt.shape[1], rebuild.config.positions
    )
    whole = settings.complete()
    if fast and (whole.sample or whole.beams > 1 or len(prompt) > 1):
        raise SettingError(
            "fast writes one text, of the likeliest tokens; leave it out, or draws, beams and further prompts"
        )
    beams = whole.beams
    step = step_of(rebuild, part, inputs, beams, each=fast)
    stream = None if beams > 1 and asked.beams is None else stream
    tokenizer = copy.tokenizer() if texts or stream is not None else None
    pieces = None if stream is None or tokenizer is None else Pieces(tokenizer, stream, len(prompt), special)
    if fast:
        token_ids = write_ahead(step, prompt, whole, special, pieces)
    else:
        token_ids = decode(step, prompt, settings, special, padding=padding, stream=pieces)
    if pieces is not None:
        pieces.finish()
    trained = getattr(rebuild.config, "max_position_embeddings", None)
    if trained is not None and (length := token_ids.shape[1]) > trained:
        notice(f"{length:,} tokens, where {copy.name} was trained on {trained:,}: the last may make no sense")

    rows = tuple(
        _until_end(row[first:], prompt.shape[1] - first, special)
        for row, first in zip(token_ids.tolist(), padding.tolist(), strict=True)
    )
    written = tuple(_text(tokenizer, row, special) for row in rows) if tokenizer else ()
    return Generated(copy.name, tuple(texts or ()), token_ids, rows, written)


def _fitting(settings: Settings, longest: int | None, prompt: int, positions: int | None) -> Settings:
    """With a number of new tokens, which fits the model behind a prompt of so many tokens."""
    new = settings.max_new_tokens
    if new is None and longest is not None:
        new = longest - prompt
        if new < 1:
            raise InputError(f"max_length is {longest}, the prompt has {prompt}; say max_new_tokens")
    settings = replace(settings, max_new_tokens=new or NEW_TOKENS)
    most = None if positions is None else positions - prompt + 1  # the last new token is never read
    if most is not None and settings.max_new_tokens is not None and settings.max_new_tokens > most:
        if new is None:
            return replace(settings, max_new_tokens=most)
        raise InputError(
            f"a prompt of {counted(prompt, 'token')} and {new} new ones do not fit the model's {positions} "
            f"positions; ask for at most {most}"
        )
    return settings


def _padded(inputs: Inputs, padding: int | None) -> Inputs:
    """Prompts of unequal length with the model's own padding, on the left."""
    if not inputs.padded:
        return inputs
    if padding is None:
        raise InputError(
            "prompts of unequal length need padding, and the model's folder has no pad or eos id"
        )
    return inputs.with_padding("left", padding)


# ---------------------------------------------------------------------------------- steps


def step_of(
    rebuild: Rebuild, model: Part[Any], inputs: Inputs, beams: int = 1, *, each: bool = False
) -> Step:
    """A rebuild as a step, for prompts each of which has so many rows, one a beam.

    each  Scores behind each of the new tokens, [row, new token, vocab], as `write_ahead` wants them.
    """
    mask = inputs.mask.repeat_interleave(beams, dim=0)  # [row, token]
    if not rebuild.architecture.encoder_decoder:
        return decoder_step(rebuild, model, mask, each)
    with torch.no_grad():
        encoded = rebuild.module.encode(inputs.batch, model)  # [batch, token, width]
    return decoder_beside_encoder_step(rebuild, model, encoded.repeat_interleave(beams, dim=0), mask, each)


def decoder_step(rebuild: Rebuild, model: Part[Any], mask: Tensor, each: bool = False) -> Step:
    """A decoder as a step. mask [row, token]: 1 for the prompts' tokens and 0 for the padding left of them.

    Padding takes no position: a row's first real token is at position 0, as in the official `generate`.
    """

    def step(token_ids: Tensor, state: Cache | None) -> tuple[Tensor, Cache]:
        """See `decoding.Step`."""
        before, new = state or Cache(), token_ids.shape[1]
        seen = F.pad(mask, (0, before.tokens + new - mask.shape[1]), value=1)  # [row, token so far]
        positions = (seen.cumsum(dim=1) - 1).clamp(min=0)[:, -new:]  # [row, new token]
        batch = Batch(token_ids, seen, positions=positions)
        x, after = rebuild.module.body(batch, model, before)
        scored = x if each and state is not None else x[:, -1:]  # of the prompt only the last token is
        scores: Tensor = rebuild.module.head(scored, model)  # [row, new token or 1, vocab]
        return scores.float() if each else scores[:, -1].float(), after

    return step


def decoder_beside_encoder_step(
    rebuild: Rebuild, model: Part[Any], encoded: Tensor, mask: Tensor, each: bool = False
) -> Step:
    """A decoder beside an encoder as a step. What the encoder made of the texts, encoded [row, token, width]
    with its mask [row, token], stays the same in every step."""

    def step(token_ids: Tensor, state: EncoderDecoderCache | None) -> tuple[Tensor, EncoderDecoderCache]:
        """See `decoding.Step`."""
        batch = Batch(token_ids[:, :0], mask, decoder_ids=token_ids)
        output = rebuild.module.decode(batch, encoded, model, state or EncoderDecoderCache())
        logits = output.logits.float()
        return logits if each else logits[:, -1], output.cache

    return step


# --------------------------------------------------------------------------- ids and texts


def _until_end(row: Sequence[int], prompt: int, special: SpecialIds) -> tuple[int, ...]:
    """A row as far as the first new token that ends it. Its first `prompt` ids are not new."""
    new = row[prompt:]
    length = next((i + 1 for i, token in enumerate(new) if token in special.ends), len(new))
    return tuple(row[: prompt + length])


def _text(tokenizer: Tokenizer, row: Sequence[int], special: SpecialIds) -> str:
    """The text of a row, without the token that ended it and without special ones, such as T5's first."""
    ended = row[:-1] if row and row[-1] in special.ends else row
    return tokenizer.decode(ended, skip_special_tokens=True)


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
