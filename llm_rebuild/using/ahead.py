"""Greedy decoding of one text, several tokens a pass where the text repeats itself, and the same tokens.

A pass takes about as long as the weights take to come out of memory, and little longer for a few tokens than
for one. So what followed the last time is guessed to follow again, the model reads the whole guess at once,
and of it stays what the model would have written itself.

Sums of several tokens run in another order than those of one, so scores are off by rounding. Where that may
decide which of them is the best, the tokens since the last exact pass are read once more, one at a time.

Sources  Leviathan, Kalman and Matias (2023), Fast Inference from Transformers via Speculative Decoding: to
         read a guess at once. Saxena (2023), Prompt Lookup Decoding: to take it from the text itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from llm_rebuild.using.decoding import Step, adjusted
from llm_rebuild.using.settings import Decoding, SpecialIds

ALIKE = 3  # so many tokens that stood in a row before are a reason to guess
FEW, MANY = 2, 16  # how many tokens a guess has: at first, and where every guess was right
# Scores nearer to each other than this share of the largest may change places by rounding. The most that was
# seen of it, in full-size GPT-2 and the miniatures, is 1.4e-6.
NEAR = 2e-5


@torch.no_grad()
def write_ahead(
    step: Step,
    prompt: Tensor,
    settings: Decoding,
    special: SpecialIds,
    stream: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """What `decoding.decode` makes of one prompt without draws and beams, token by token the same.

    prompt [1, token] -> [1, token and at most max_new_tokens more]. `step` gives the scores behind each of
    the new tokens, [1, new token, vocab], but of the prompt those behind its last; a state's `cut(tokens)` is
    the one after so many. `stream` is called with each token, [1].
    """
    ids: list[int] = prompt[0].tolist()
    longest = len(ids) + settings.max_new_tokens
    exact, exact_tokens = None, 0  # the state after one token at a time, and how many tokens it has read
    state, new, reach = None, prompt, FEW
    guess: list[int] = []
    while True:
        scores, after = step(new, state)
        one_at_a_time = state is exact and not guess
        begun = len(ids)
        for row, guessed in zip(scores[0], [*guess, None], strict=True):
            token, sure = best(row, ids, settings, special)
            if not (sure or one_at_a_time):
                for number in range(exact_tokens, len(ids)):
                    passed = torch.tensor([ids[number : number + 1]])
                    scores, exact = step(passed, exact)
                token, _ = best(scores[0, -1], ids, settings, special)
                after, exact_tokens, guessed = exact, len(ids), None
            ids.append(token)
            if stream is not None:
                stream(torch.tensor([token]))
            if token in special.ends or len(ids) == longest:
                return torch.tensor([ids])
            if token != guessed:
                break
        state = after if after is exact else after.cut(len(ids) - 1)
        if one_at_a_time:
            exact, exact_tokens = state, len(ids) - 1
        reach = min(MANY, FEW + 2 * (len(ids) - begun - 1))
        guess = repeated(ids, min(reach, longest - 1 - len(ids)))
        new = torch.tensor([[ids[-1], *guess]])


def best(scores: Tensor, ids: list[int], settings: Decoding, special: SpecialIds) -> tuple[int, bool]:
    """The token with the best score, scores [vocab], behind ids; and whether rounding cannot change it."""
    none = torch.zeros(1, dtype=torch.int64)  # of one text nothing is padding
    changed = adjusted(scores[None], torch.tensor([ids]), settings, none, len(special.ends))[0]
    penalty = settings.repetition_penalty or 1.0
    rounding = NEAR * float(scores.abs().max()) * max(penalty, 1 / penalty)
    first, *second = changed.topk(min(2, len(changed))).values.tolist()
    return int(changed.argmax()), not second or first - second[0] > rounding


def repeated(ids: list[int], most: int) -> list[int]:
    """At most so many tokens, which follow if the text goes on as it did behind the same `ALIKE` tokens."""
    for start in range(len(ids) - ALIKE - 1, -1, -1):
        if ids[start : start + ALIKE] == ids[-ALIKE:]:
            grown = list(ids)  # a text that goes round in a circle follows its own guess
            for number in range(start + ALIKE, start + ALIKE + most):
                grown.append(grown[number])
            return grown[len(ids) :]
    return []
