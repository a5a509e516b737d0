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
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.errors import InputError
from llm_rebuild.using.settings import Decoding, SettingError, Settings, SpecialIds

NEVER = -1e9  # added to a score, it makes a beam lose against every other

# One forward pass: new tokens [row, new token] and the state after the earlier ones (None before the
# first) -> scores of the next token [row, vocab] and the state after these. What a state is, is the step's
# own matter. It is a value, so the step returns a new one; and `state.reorder(rows)`, rows [row] int64, is
# the state of these rows, for beam search: in the place of each stands a row of the same prompt.
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]

# ----------------------------------------------------------------- what is done to the scores, in order


def adjusted(scores: Tensor, token_ids: Tensor, settings: Decoding, padding: Tensor, ends: int) -> Tensor:
    """Everything that is done to the scores of the next token, in the order in which it is done.

    scores [row, vocab] -> [row, vocab]. token_ids [row, token] are those so far, padding [row] says how
    many of each row's first are padding, and `ends` how many tokens end a text. Raises InputError for NaN.
    """
    if bool(scores.isnan().any()):  # the best of which would be the first
        raise InputError("the model's scores are NaN, of which none is the best; try another type of number")
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
    whole = settings.complete()
    padding = torch.zeros(len(prompt), dtype=torch.int64) if padding is None else padding
    if whole.beams == 1:
        return one_by_one(step, prompt, whole, special, padding, stream)
    if stream is not None:
        raise InputError("a beam search cannot stream: which text wins is only known at the end")
    return beam_search(step, prompt, whole, special, padding)


def one_by_one(
    step: Step,
    prompt: Tensor,
    settings: Decoding,
    special: SpecialIds,
    padding: Tensor,
    stream: Callable[[Tensor], None] | None,
) -> Tensor:
    """Greedy decoding and sampling: take the best token, or draw one, and go on after it."""
    ends = torch.tensor(special.ends, dtype=torch.int64)
    running = torch.ones(len(prompt), dtype=torch.bool)
    token_ids, new = prompt, prompt
    state, generator = None, settings.generator()
    for _ in range(settings.max_new_tokens):
        logits, state = step(new, state)  # [batch, vocab]
        scores = adjusted(logits, token_ids, settings, padding, len(ends))
        # [batch]
        chosen = draw(scores, 1, generator).squeeze(1) if settings.sample else scores.argmax(dim=-1)
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


def draw(scores: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Different entries of each row, drawn by their probabilities. [row, entry] -> [row, count]."""
    probabilities = scores.softmax(dim=-1)
    if not bool(torch.isfinite(probabilities).all()):
        raise SettingError(
            "temperature or repetition_penalty makes scores too large to draw by; take one nearer to 1"
        )
    return torch.multinomial(probabilities, count, generator=generator)


def beam_search(
    step: Step, prompt: Tensor, settings: Decoding, special: SpecialIds, padding: Tensor
) -> Tensor:
    """Keeps several beginnings of each text, and returns the finished text with the best score.

    A beginning's score is the sum of its tokens' log-probabilities; a finished text's is divided by its
    length to the power of the length penalty, for otherwise the short would always win.
    Lowerre (1976), The Harpy Speech Recognition System; length: Wu et al. (2016), GNMT, section 7.
    """
    ends = torch.tensor(special.ends, dtype=torch.int64)
    (batch, prompt_length), beams = prompt.shape, settings.beams
    # So many that, even if every end is among the best of each beam, enough are left to go on with.
    candidates = beams * max(2, 1 + len(ends))
    among_best = torch.arange(candidates) < beams  # only these may finish; the others are in reserve
    first_row = torch.arange(batch)[:, None] * beams  # [batch, 1]: where a prompt's beams stand in the step

    # Beginnings that go on. All are the prompt at first, so only the first counts until they differ.
    running = prompt[:, None].expand(batch, beams, prompt_length)  # [batch, beam, token]
    scores = torch.where(torch.arange(beams) == 0, 0.0, NEVER).expand(batch, beams)  # [batch, beam]
    finished = Finished.none(running, settings, special)
    hopeful = torch.ones(batch, 1, dtype=torch.bool)  # whether a beginning may still beat a finished text

    padding = padding.repeat_interleave(beams, dim=0)
    new = running.flatten(0, 1)  # [row, token]
    state, generator = None, settings.generator()
    for length in range(1, settings.max_new_tokens + 1):
        # 1. Every token after every beginning, and the best of all these.
        logits, state = step(new, state)
        log_probs = adjusted(
            logits.log_softmax(dim=-1), running.flatten(0, 1), settings, padding, len(ends)
        ).view(batch, beams, -1)  # [batch, beam, vocab]
        total = (log_probs + scores[:, :, None]).flatten(1)  # [batch, beam × vocab]
        if settings.sample:
            picked = draw(total, candidates, generator)
            best = total.gather(1, picked)  # [batch, candidate]
        else:
            best, picked = total.topk(candidates)  # [batch, candidate]
        parent, token = picked // log_probs.shape[-1], picked % log_probs.shape[-1]
        grown = torch.cat([chosen_of(running, parent), token[:, :, None]], dim=2)  # [batch, candidate, token]
        ended = torch.isin(token, ends) | (length == settings.max_new_tokens)  # [batch, candidate]

        # 2. The best that have not ended go on, with what the step remembers of their beginning.
        still_open = best + ended * NEVER
        onward = still_open.topk(beams).indices  # [batch, beam]
        running, scores = chosen_of(grown, onward), chosen_of(still_open, onward)
        state = state.reorder((first_row + chosen_of(parent, onward)).flatten())
        new = running[:, :, -1].flatten()[:, None]

        # 3. Those that have ended take their place among the finished, if they are good enough.
        final = best / length**settings.length_penalty
        finished = finished.joined(grown, final, ended & among_best, hopeful, settings)

        # 4. Stop when no beginning can become better than the worst finished text.
        hopeful = hopeful & finished.may_be_beaten(scores[:, :1], length, settings)
        all_done = bool(finished.done.all()) and settings.early_stopping is True
        if not hopeful.any() or all_done or ended.all():
            break
    return finished.best(prompt_length)


@dataclass(frozen=True)
class Finished:
    """Texts of a beam search that are finished, the best first.

    texts    [batch, beam, longest], filled up
    scores   [batch, beam]: their log-probability, divided by the length's power
    lengths  [batch, beam]: how many new tokens each has
    done     [batch, beam]: whether there is such a text yet
    fill     What texts are filled up with.
    """

    texts: Tensor
    scores: Tensor
    lengths: Tensor
    done: Tensor
    fill: int

    @classmethod
    def none(cls, running: Tensor, settings: Decoding, special: SpecialIds) -> Finished:
        """Nothing yet, for beginnings [batch, beam, token]."""
        fill = (special.padding or special.ends[0]) if special.ends else 0  # 0 fills no row officially
        batch_and_beam = running.shape[:2]
        return cls(
            F.pad(running, (0, settings.max_new_tokens), value=fill),
            torch.full(batch_and_beam, NEVER),
            torch.zeros(batch_and_beam, dtype=torch.int64),
            torch.zeros(batch_and_beam, dtype=torch.bool),
            fill,
        )

    def joined(
        self, grown: Tensor, scores: Tensor, newly: Tensor, hopeful: Tensor, settings: Decoding
    ) -> Finished:
        """With those of the candidates that are good enough.

        grown [batch, candidate, token], scores [batch, candidate]; `newly` [batch, candidate] says which of
        them have ended, hopeful [batch, 1] where one may still be better than those that are here.
        """
        scores = scores + (self.done.all(dim=1, keepdim=True) & (settings.early_stopping is True)) * NEVER
        scores = scores + ~hopeful * NEVER
        scores = scores + ~newly * NEVER
        best, order = torch.cat([self.scores, scores], dim=1).topk(settings.beams)
        left = self.texts.shape[2] - grown.shape[2]
        length = settings.max_new_tokens - left
        return Finished(
            chosen_of(torch.cat([self.texts, F.pad(grown, (0, left), value=self.fill)], dim=1), order),
            best,
            chosen_of(
                torch.cat([self.lengths, torch.full_like(newly, length, dtype=torch.int64)], dim=1), order
            ),
            chosen_of(torch.cat([self.done, newly], dim=1), order),
            self.fill,
        )

    def may_be_beaten(self, score: Tensor, length: int, settings: Decoding) -> Tensor:
        """Whether the best beginning, score [batch, 1], may become better than the worst text. [batch, 1].

        Which length to judge it by is a guess: its own, or with "never" and a penalty for short texts the
        longest possible.
        """
        never = settings.early_stopping == "never" and settings.length_penalty > 0
        reach = score / (settings.max_new_tokens if never else length) ** settings.length_penalty
        worst = torch.where(self.done, self.scores.min(dim=1, keepdim=True).values, NEVER)
        may: Tensor = (reach > worst).any(dim=1, keepdim=True)
        return may

    def best(self, prompt_length: int) -> Tensor:
        """The best text of each prompt, as long as the longest. [batch, token]."""
        return self.texts[:, 0, : prompt_length + int(self.lengths[:, 0].max())]


def chosen_of(rows: Tensor, which: Tensor) -> Tensor:
    """rows [batch, n, ...], which [batch, m] -> [batch, m, ...]: of each prompt's rows those named."""
    return rows[torch.arange(len(rows))[:, None], which]
