"""Several tokens a pass: the tokens of one at a time, in fewer passes where the text repeats itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.using import decoding
from llm_rebuild.using.ahead import write_ahead
from llm_rebuild.using.generate import Settings, generate
from llm_rebuild.using.settings import SpecialIds
from tests.models.small import LLAMA
from tests.using.test_generate import prompts_of
from tools import full_size

MINIATURES = Path(decoding.__file__).parents[1] / "miniatures"
SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {**full_size.CONFIGS["gpt2"], "vocab_size": 31, "n_positions": 64, "n_embd": 32, "n_layer": 2}
    | {"n_head": 4, "eos_token_id": 7},
    "t5-small": {**full_size.CONFIGS["t5-small"], "vocab_size": 31, "d_model": 32, "d_kv": 8, "d_ff": 64}
    | {"num_layers": 2, "num_heads": 4},
    "llama": {**LLAMA, "vocab_size": 31, "hidden_size": 32, "max_position_embeddings": 64},
}
SETTINGS = (
    Settings(40),
    Settings(40, repetition_penalty=1.1),
    Settings(40, repetition_penalty=0.6),
    Settings(40, no_repeat_ngram=5),
)


def same(copy: LocalCopy, prompt: list[int], settings: Settings, **mode: Any) -> None:
    slowly = generate(copy, [prompt], settings, **mode)
    fast = generate(copy, [prompt], settings, fast=True, **mode)
    assert torch.equal(fast.token_ids, slowly.token_ids), (prompt, settings, mode)
    assert fast.rows == slowly.rows


@pytest.mark.parametrize("name", SMALL)
def test_the_tokens_are_the_same(name: str, tmp_path: Path) -> None:
    seeded = LocalCopy(name, full_size.make(tmp_path, SMALL[name], seed=4), "folder")
    for copy, times in ((seeded, 6), (LocalCopy(name, MINIATURES / name, "miniature"), 2)):
        for number in range(times * len(SETTINGS)):
            (prompt,) = prompts_of(copy.rebuild.config.vocab_size, 1, 4 * number + 3)
            same(copy, prompt, SETTINGS[number % len(SETTINGS)], attention=("sdpa", "eager")[number % 2])


class Read:
    """The state of `circle`: what was read, and whether always one token at a time."""

    def __init__(self, tokens: list[int], exact: bool) -> None:
        self.tokens, self.exact = tokens, exact

    def cut(self, tokens: int) -> Read:
        return Read(self.tokens[:tokens], self.exact)


Passes = list[tuple[list[int], list[int]]]  # what was read before, and what is read at once


def circle(passes: Passes, rounding: float = 0.0) -> decoding.Step:
    """A model that counts to 9 and begins again, and prefers a 5 behind the 3 of its third round, by so
    little that several tokens at once, or what they have left in the state, round it away."""

    def step(token_ids: Tensor, state: Read | None) -> tuple[Tensor, Read]:
        new = token_ids[0].tolist()
        passes.append((state.tokens if state else [], new))
        exact = state is None or (state.exact and len(new) == 1)
        read = [*(state.tokens if state else []), *new]
        scores = torch.zeros(1, len(new), 10)
        for place, token in enumerate(new):
            scores[0, place, (token + 1) % 10] = 10.0
            if token == 3 and read[: len(read) - len(new) + place + 1].count(3) == 3:
                scores[0, place, 5] = 10.0 - rounding if not exact else 10.0 + 1e-5
        return scores if state else scores[:, -1:], Read(read, exact)

    return step


def written(rounding: float = 0.0, tokens: int = 60) -> tuple[list[int], list[int]]:
    """The text, and how many tokens each pass has read. What a pass builds on is always the text itself."""
    passes: Passes = []
    step, settings = circle(passes, rounding), Settings(tokens).complete()
    text: list[int] = write_ahead(step, torch.tensor([[0, 1]]), settings, SpecialIds())[0].tolist()
    assert len(text) == 2 + tokens
    for before, new in passes:
        assert before == text[: len(before)]
        assert new[0] == text[len(before)]
        assert len(before) + len(new) < len(text)  # the last token is never read
    return text, [len(new) for _, new in passes]


@pytest.mark.parametrize("tokens", [*range(1, 36), 60])
def test_rounding_decides_nothing(tokens: int) -> None:
    text, _ = written(rounding=1e-5, tokens=tokens)
    slowly = [*range(10), *range(10), 0, 1, 2, 3, 5, *(n % 10 for n in range(6, 60))]
    assert text == slowly[: len(text)]


def test_what_repeats_itself_takes_fewer_passes() -> None:
    _, passes = written(tokens=120)
    assert len(passes) < 60
    assert max(passes) == 17  # the last token, and a guess of 16


def test_it_ends_at_an_end_inside_a_guess() -> None:
    passes: Passes = []
    prompt = torch.tensor([[*range(10), *range(9)]])
    ids = write_ahead(circle(passes), prompt, Settings(30).complete(), SpecialIds((2,)))
    assert ids[0].tolist() == [*range(10), *range(10), 0, 1, 2]


@pytest.mark.parametrize(
    ("prompts", "settings"),
    [([[5], [6]], Settings(3)), ([[5]], Settings(3, top_k=2)), ([[5]], Settings(3, beams=2))],
)
def test_what_it_does_not_do_is_refused(prompts: Any, settings: Settings) -> None:
    with pytest.raises(InputError, match="fast writes one text"):
        generate(LocalCopy("gpt2", MINIATURES / "gpt2", "miniature"), prompts, settings, fast=True)


def test_what_rounds_more_than_it_allows_for_is_refused() -> None:
    copy = LocalCopy("gpt2", MINIATURES / "gpt2", "miniature")
    with pytest.raises(InputError, match="fast computes in float32 or float64"):
        generate(copy, [[5]], Settings(3), fast=True, dtype="bfloat16")
    same(copy, [5, 6], Settings(12), dtype="float64")
