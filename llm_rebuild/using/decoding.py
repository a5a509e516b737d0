"""Decoding: from a model that scores the next token to a row of tokens, one at a time.

A model only ever says how well each token of the vocabulary would come next. What to do with that is
decided here: take the best (greedy), draw one (sampling), or keep several beginnings (beam search).
Nothing here knows a model: a *step* is any function that scores the next token.

Axes     batch   prompts that run together          beam   one of several beginnings of one text
         token   a position in prompt and answer    vocab  every token that could come next
         row     one sequence: batch, or with beams batch × beam, beams of a prompt next to each other
Sources  Named at each function. Order of operations, padding, ties and random draws as in transformers
         5.23 generation/utils.py and logits_process.py: the same tokens, and from one seed the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.errors import InputError

NEVER = -1e9  # added to a score, it makes a beam lose against every other

# ------------------------------------------------------------------------------- what is asked for


# One forward pass: new tokens [row, new token] and the state after the earlier ones (None before the
# first) -> scores of the next token [row, vocab] and the state after these. What a state is, is the step's
# own matter. It is a value, so the step returns a new one; and `state.reorder(rows)`, rows [row] int64, is
# the state of other rows of the batch, or of the same in another order, for beam search.
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


class SettingError(InputError):
    """A setting makes no sense. The message calls settings by their names here; a caller who has other
    names for them may say it in those."""


@dataclass(frozen=True)
class Settings:
    """How to generate. None, or a default, leaves a thing out. Raises SettingError for what makes no sense.

    It samples if `temperature`, `top_k` or `top_p` is given (the official `do_sample=True`, which has a
    top_k of 50 where none is given; here none means none), and is deterministic otherwise. Without a
    `seed` it draws from torch's own generator.
    """

    max_new_tokens: int
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram: int | None = None
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    seed: int | None = None

    def __post_init__(self) -> None:
        def refuse(name: str, must: str) -> None:
            raise SettingError(f"{name} is {getattr(self, name)}; it must be {must}")

        for name in ("max_new_tokens", "top_k", "no_repeat_ngram", "beams"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                refuse(name, "a whole number from 1")
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                also = "; for the best token every time leave it out" if name == "temperature" else ""
                refuse(name, f"a number above 0{also}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            refuse("top_p", "above 0 and at most 1")
        if not abs(self.length_penalty) < float("inf"):
            refuse("length_penalty", "a finite number")
        if self.early_stopping not in (True, False, "never"):
            refuse("early_stopping", 'True, False or "never"')
        if self.seed is not None and not self.sampling:
            raise SettingError("a seed changes nothing without sampling; give a temperature, 1.0 for none")

    @property
    def sampling(self) -> bool:
        """Whether the next token is drawn, not chosen."""
        return not (self.temperature is None and self.top_k is None and self.top_p is None)


@dataclass(frozen=True)
class SpecialIds:
    """Token ids with a meaning: those that end a text, the one that pads, the one a decoder starts with."""

    ends: tuple[int, ...] = ()
    padding: int | None = None
    start: int | None = None


# ----------------------------------------------------------------- what is done to the scores, in order


def adjusted(scores: Tensor, token_ids: Tensor, settings: Settings, padding: Tensor, ends: int) -> Tensor:
    """Everything that is done to the scores of the next token, in the order in which it is done.

    scores [row, vocab] -> [row, vocab]. token_ids [row, token] are those so far, padding [row] says how
    many of each row's first are padding, and `ends` how many tokens end a text.
    """
    if settings.repetition_penalty is not None:
        scores = penalise_repetition(scores, token_ids, settings.repetition_penalty, padding)
    if settings.no_repeat_ngram is not None:
        scores = forbid_repeated_ngrams(scores, token_ids, settings.no_repeat_ngram)
    # A beam that can only end leaves no beginning to go on with, so one token more than ends must stay.
    at_least = 1 if settings.beams == 1 else max(2, ends + 1)
    if settings.temperature is not None:
        scores = warm(scores, settings.temperature)
    if settings.top_k is not None:
        scores = keep_top_k(scores, max(settings.top_k, at_least))
    if settings.top_p is not None and settings.top_p < 1:
        scores = keep_top_p(scores, settings.top_p, at_least)
    return scores


def penalise_repetition(scores: Tensor, token_ids: Tensor, penalty: float, padding: Tensor) -> Tensor:
    """Makes every token that was there before less likely (a penalty above 1), by the same factor of its
    score however often it was there. Padding was not there. [row, vocab] -> [row, vocab].

    Keskar et al. (2019), CTRL, section 4.1. A score below zero is multiplied, for divided it would rise.
    """
    row, vocab = scores.shape
    is_padding = torch.arange(token_ids.shape[1]) < padding[:, None]  # [row, token]
    spare = token_ids.masked_fill(is_padding, vocab)  # padding goes to a column that is then cut off
    seen = torch.zeros(row, vocab + 1, dtype=torch.bool).scatter_(1, spare, True)[:, :vocab]
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def forbid_repeated_ngrams(scores: Tensor, token_ids: Tensor, size: int) -> Tensor:
    """No probability for a token that would complete a run of `size` tokens that is there already.
    Padding counts as tokens here, for it does officially. [row, vocab] -> [row, vocab].

    Paulus et al. (2017), A Deep Reinforced Model for Abstractive Summarization, section 2.5.
    """
    row, token = token_ids.shape
    if token < size:
        return scores
    vocab = scores.shape[1]
    beginning = token_ids[:, token + 1 - size :]  # [row, size - 1]: what the next token would complete
    runs = token_ids.unfold(1, size, 1)  # [row, run, size]
    repeats = (runs[:, :, :-1] == beginning[:, None]).all(dim=-1)  # [row, run]
    last = torch.where(repeats, runs[:, :, -1], vocab)  # the others go to a column that is then cut off
    forbidden = torch.zeros(row, vocab + 1, dtype=torch.bool).scatter_(1, last, True)[:, :vocab]
    return scores.masked_fill(forbidden, -torch.inf)


def warm(scores: Tensor, temperature: float) -> Tensor:
    """Sharpens the distribution below 1 and flattens it above: probabilities to the power of
    1/temperature, made to sum to 1 again. [row, vocab] -> [row, vocab].

    Ackley, Hinton and Sejnowski (1985), A Learning Algorithm for Boltzmann Machines.
    """
    return scores / temperature


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """No probability for tokens below the k-th best; those that tie with it stay. [row, vocab] -> same.

    Fan, Lewis and Dauphin (2018), Hierarchical Neural Story Generation, section 5.4.
    """
    worst_kept = scores.topk(min(k, scores.shape[-1])).values[:, -1:]  # [row, 1]
    return scores.masked_fill(scores < worst_kept, -torch.inf)


def keep_top_p(scores: Tensor, p: float, at_least: int) -> Tensor:
    """The nucleus: only the likeliest tokens, as few as have probability p together. [row, vocab] -> same.

    Holtzman et al. (2020), The Curious Case of Neural Text Degeneration, section 3.1.
    """
    ascending, order = scores.sort()  # the unlikeliest first, so the sum of the tail is what is cut
    tail = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - p  # [row, vocab]
    tail[:, -at_least:] = False
    return scores.masked_fill(tail.scatter(1, order, tail), -torch.inf)


# ------------------------------------------------------------------------------------------ decoding


@torch.no_grad()
def decode(
    step: Step,
    prompt: Tensor,
    settings: Settings,
    special: SpecialIds,
    *,
    padding: Tensor | None = None,
    stream: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Prompts with their continuations: [batch, token] -> [batch, token and at most max_new_tokens more].

    step     Scores the next token. With beams it is called with batch × beam rows, beams of a prompt
             next to each other, from the first call on.
    padding  [batch]: how many of each row's first tokens are padding, on the left. None: none.
    stream   Called with each step's tokens, [batch], as soon as they are known.

    A row that has ended is filled up with padding until all have.
    """
    padding = torch.zeros(len(prompt), dtype=torch.int64) if padding is None else padding
    generator = None if settings.seed is None else torch.Generator().manual_seed(settings.seed)
    if settings.beams == 1:
        return one_by_one(step, prompt, settings, special, padding, generator, stream)
    if stream is not None:
        raise InputError("a beam search cannot stream: which text wins is only known at the end")
    return beam_search(step, prompt, settings, special, padding, generator)


def one_by_one(
    step: Step,
    prompt: Tensor,
    settings: Settings,
    special: SpecialIds,
    padding: Tensor,
    generator: torch.Generator | None,
    stream: Callable[[Tensor], None] | None,
) -> Tensor:
    """Greedy decoding and sampling: take the best token, or draw one, and go on after it."""
    ends = torch.tensor(special.ends, dtype=torch.int64)
    running = torch.ones(len(prompt), dtype=torch.bool)
    token_ids, new = prompt, prompt
    state = None
    for _ in range(settings.max_new_tokens):
        logits, state = step(new, state)  # [batch, vocab]
        scores = adjusted(logits, token_ids, settings, padding, len(ends))
        if settings.sampling:
            chosen = torch.multinomial(scores.softmax(dim=-1), 1, generator=generator).squeeze(1)  # [batch]
        else:
            chosen = scores.argmax(dim=-1)  # [batch]
        if special.ends and special.padding is not None:
            chosen = torch.where(running, chosen, special.padding)
        new = chosen[:, None]
        token_ids = torch.cat([token_ids, new], dim=1)  # [batch, token]
        if stream is not None:
            stream(chosen)
        running &= ~torch.isin(chosen, ends)
        if not running.any():
            break
    return token_ids


def beam_search(
    step: Step,
    prompt: Tensor,
    settings: Settings,
    special: SpecialIds,
    padding: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Keeps several beginnings of each text, and returns the finished text with the best score.

    A beginning's score is the sum of its tokens' log-probabilities; a finished text's is divided by its
    length to the power of the length penalty, for otherwise the short would always win.
    Lowerre (1976), The Harpy Speech Recognition System; length: Wu et al. (2016), GNMT, section 7.
    """
    ends = torch.tensor(special.ends, dtype=torch.int64)
    (batch, prompt_length), beams = prompt.shape, settings.beams
    longest = prompt_length + settings.max_new_tokens
    # So many that, even if every end is among the best of each beam, enough are left to go on with.
    candidates = beams * max(2, 1 + len(ends))
    among_best = torch.arange(candidates) < beams  # only these may finish; the others are in reserve
    first_row = torch.arange(batch)[:, None] * beams  # [batch, 1]: where a prompt's beams stand in the step

    # Beginnings that go on. All are the prompt at first, so only the first counts until they differ.
    running = prompt[:, None].expand(batch, beams, prompt_length)  # [batch, beam, token]
    scores = torch.where(torch.arange(beams) == 0, 0.0, NEVER).expand(batch, beams)  # [batch, beam]
    # Texts that are finished, the best first: nothing yet. 0 fills no row officially, an end does.
    fill = (special.padding or special.ends[0]) if special.ends else 0
    texts = F.pad(running, (0, settings.max_new_tokens), value=fill)  # [batch, beam, longest]
    text_scores = torch.full((batch, beams), NEVER)
    text_lengths = torch.zeros(batch, beams, dtype=torch.int64)  # new tokens of each
    finished = torch.zeros(batch, beams, dtype=torch.bool)
    hopeful = torch.ones(batch, 1, dtype=torch.bool)  # whether a beginning may still beat a finished text

    padding = padding.repeat_interleave(beams, dim=0)
    new = running.flatten(0, 1)  # [row, token]
    state = None
    for length in range(1, settings.max_new_tokens + 1):
        # 1. Every token after every beginning, and the best of all these.
        logits, state = step(new, state)
        log_probs = adjusted(
            logits.log_softmax(dim=-1), running.flatten(0, 1), settings, padding, len(ends)
        ).view(batch, beams, -1)  # [batch, beam, vocab]
        total = (log_probs + scores[:, :, None]).flatten(1)  # [batch, beam × vocab]
        if settings.sampling:
            picked = torch.multinomial(total.softmax(dim=-1), candidates, generator=generator)
            best = total.gather(1, picked)  # [batch, candidate]
        else:
            best, picked = total.topk(candidates)  # [batch, candidate]
        parent, token = picked // log_probs.shape[-1], picked % log_probs.shape[-1]
        grown = torch.cat([taken(running, parent), token[:, :, None]], dim=2)  # [batch, candidate, token]
        ended = torch.isin(token, ends) | (length == settings.max_new_tokens)  # [batch, candidate]

        # 2. The best that have not ended go on, with what the step remembers of their beginning.
        still_open = best + ended * NEVER
        onward = still_open.topk(beams).indices  # [batch, beam]
        running, scores = taken(grown, onward), taken(still_open, onward)
        state = state.reorder((first_row + taken(parent, onward)).flatten())
        new = running[:, :, -1].flatten()[:, None]

        # 3. Those that have ended take their place among the finished, if they are good enough.
        newly = ended & among_best
        final = best / length**settings.length_penalty
        final = final + (finished.all(dim=1, keepdim=True) & (settings.early_stopping is True)) * NEVER
        final = final + ~hopeful * NEVER
        final = final + ~newly * NEVER
        text_scores, order = torch.cat([text_scores, final], dim=1).topk(beams)
        filled = F.pad(grown, (0, longest - prompt_length - length), value=fill)
        texts = taken(torch.cat([texts, filled], dim=1), order)
        lengths = torch.full((batch, candidates), length)
        text_lengths = taken(torch.cat([text_lengths, lengths], dim=1), order)
        finished = taken(torch.cat([finished, newly], dim=1), order)

        # 4. Stop when no beginning can become better than the worst finished text. Which length to judge
        #    it by is a guess: its own, or with "never" and a penalty for short texts the longest possible.
        never = settings.early_stopping == "never" and settings.length_penalty > 0
        reach = scores[:, :1] / (settings.max_new_tokens if never else length) ** settings.length_penalty
        worst = torch.where(finished, text_scores.min(dim=1, keepdim=True).values, NEVER)
        hopeful = hopeful & (reach > worst).any(dim=1, keepdim=True)
        if not hopeful.any() or (finished.all() and settings.early_stopping is True) or ended.all():
            break
    return texts[:, 0, : prompt_length + int(text_lengths[:, 0].max())]


def taken(rows: Tensor, which: Tensor) -> Tensor:
    """rows [batch, n, ...], which [batch, m] -> [batch, m, ...]: of each prompt's rows those named."""
    return rows[torch.arange(len(rows))[:, None], which]
