"""Writing, token by token: the rebuild and the official `generate`, full-size GPT-2, greedy, one prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import TITLES, Harness, Row, Run, digits
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.using.ahead import write_ahead
from llm_rebuild.using.decoding import decode
from llm_rebuild.using.defaults import defaults
from llm_rebuild.using.generate import decoder_step
from llm_rebuild.using.settings import Settings
from llm_rebuild.verify.official import Official

PROMPT, NEW, QUICK = 16, 32, 8  # tokens
PASSES = 8  # over the memory, for its bandwidth


def rebuilt(copy: LocalCopy, prompt: Tensor, new: int) -> Mapping[str, Run]:
    """The ways of the rebuild to write. None of them loads weights in the time that is measured."""
    rebuild, weights, special = copy.rebuild, copy.weights(), defaults(copy).special
    rebuild.check(weights)
    part = rebuild.part(weights, attention="sdpa")

    def plain() -> Tensor:
        return decode(decoder_step(rebuild, part, torch.ones_like(prompt)), prompt, Settings(new), special)

    def ahead() -> Tensor:
        step = decoder_step(rebuild, part, torch.ones_like(prompt), each=True)
        return write_ahead(step, prompt, Settings(new).complete(), special)

    return {"rebuild": plain, "rebuild, fast": ahead}


def generated(official: Official, prompt: Tensor, new: int) -> Run:
    """The official `generate` with its cache."""

    def run() -> Tensor:
        result: Tensor = official.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=new,
            use_cache=True,
        )
        return result

    return run


def bandwidth(harness: Harness, megabytes: int) -> float:
    """Bytes a second that all threads together read from memory, at the best of several passes."""
    numbers = torch.ones(megabytes * 2**18)
    passes = {"sum": numbers.sum, "largest": numbers.max, "product": lambda: torch.dot(numbers, numbers)}
    quickest = min(min(lasted) for lasted in harness.times(passes).values())
    return numbers.nbytes / quickest


def measure(harness: Harness) -> Iterator[Row]:
    """Tokens are compared first. Beside the ratio: how much of the memory's bandwidth the weights take."""
    new = QUICK if harness.quick else NEW
    copy = harness.copy("gpt2")
    seeded = torch.Generator().manual_seed(0)
    prompt = torch.randint(copy.rebuild.config.vocab_size, (1, PROMPT), generator=seeded)
    official = Official(copy.folder, "sdpa")
    runs = {"official": generated(official, prompt, new), **rebuilt(copy, prompt, new)}
    texts: dict[str, Any] = {name: run() for name, run in runs.items()}
    read = sum(parameter.nbytes for parameter in official.model.parameters())
    fastest = bandwidth(harness, 64 if harness.quick else 512)
    rows = harness.compare(
        {"model": TITLES["gpt2"], "prompt tokens": PROMPT, "new tokens": new}, runs, "official"
    )
    for one in rows:
        a_token = one["seconds"] / (texts["official"].shape[1] - PROMPT)
        yield one | {
            "tokens_equal": torch.equal(texts[one["what"]], texts["official"]),
            "tokens_a_second": digits(1 / a_token),
            "official_tokens_a_second": digits(one["seconds"] / one["baseline_seconds"] / a_token),
            "bandwidth_share": digits(read / a_token / fastest),
            "bandwidth": digits(fastest),
        }
