"""Tokens a second when GPT-2 writes: the rebuild and the official `generate`, side by side.

    python -m benchmarks.decode_speed [--rounds 9] [--tokens 32] [--threads N] [--model DIR]

Greedy, one prompt, fused attention (sdpa), key/value cache, full size. The two take turns in one process, so
that what else the machine does meets both alike; the figure is the median of each round's ratio. Both
write the same tokens, which is checked. On a machine that is busy with other things the ratio of the
processor's time, with --threads 1, is the steadier figure. Without --model the weights are seeded ones at
the official config.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from llm_rebuild.using.decoding import decode
from llm_rebuild.using.defaults import defaults
from llm_rebuild.using.generate import decoder_step
from llm_rebuild.using.settings import Settings
from tools import full_size


class Taken(NamedTuple):
    wall: float  # seconds
    processor: float  # seconds, of all threads together


def measure(folder: Path, rounds: int, tokens: int, prompt_tokens: int = 16) -> list[tuple[Taken, Taken]]:
    """What each round took, the official one and ours. Neither loads weights in this time."""
    copy = LocalCopy("gpt2", folder, "folder")
    rebuild = rebuild_for(copy.config)
    weights = copy.weights()
    rebuild.check(weights)
    special = defaults(copy).special
    random = torch.Generator().manual_seed(0)
    prompt = torch.randint(rebuild.config.vocab_size, (1, prompt_tokens), generator=random)
    mask = torch.ones_like(prompt)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder, attn_implementation="sdpa").eval()

    def official() -> Tensor:
        result: Tensor = model.generate(
            prompt, attention_mask=mask, do_sample=False, max_new_tokens=tokens, use_cache=True
        )
        return result

    def ours() -> Tensor:
        step = decoder_step(rebuild, rebuild.part(weights, attention="sdpa"), mask)
        return decode(step, prompt, Settings(tokens), special)

    if not torch.equal(official(), ours()):  # and both are warm now
        raise SystemExit("the two do not write the same tokens; a comparison of their speed means nothing")
    new = ours().shape[1] - prompt_tokens
    if new < tokens:
        raise SystemExit(f"the text ended after {new} tokens; choose other weights or fewer tokens")
    times = []
    for number in range(rounds):
        first, second = (official, ours) if number % 2 == 0 else (ours, official)
        taken = {run: timed(run) for run in (first, second)}
        times.append((taken[official], taken[ours]))
    return times


def timed(run: Callable[[], Tensor]) -> Taken:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return Taken(time.perf_counter() - wall, time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.model or full_size.make(Path(temporary), full_size.CONFIGS["gpt2"])
        times = measure(folder, arguments.rounds, arguments.tokens)

    table = Table("round", "official, tokens/s", "rebuild, tokens/s", "ratio", "of processor time")
    rows = [
        [
            arguments.tokens / official.wall,
            arguments.tokens / ours.wall,
            official.wall / ours.wall,
            official.processor / ours.processor,
        ]
        for official, ours in times
    ]
    middle = [statistics.median(column) for column in zip(*rows, strict=True)]
    for name, row in [*((str(number), row) for number, row in enumerate(rows, 1)), ("median", middle)]:
        bold = "bold" if name == "median" else ""
        table.add_row(name, *(f"{n:.2f}" for n in row[:2]), *(f"{n:.3f}" for n in row[2:]), style=bold)
    Console().print(table)
    print(
        f"GPT-2 {folder.name if arguments.model else 'full size, seeded weights'}; greedy, batch 1, "
        f"{arguments.tokens} new tokens; torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
