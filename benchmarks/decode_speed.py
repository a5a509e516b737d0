"""Tokens a second when GPT-2 writes: the rebuild and the official `generate`, side by side.

    python -m benchmarks.decode_speed [--rounds 9] [--tokens 32] [--threads N] [--model DIR]

Greedy, one prompt, fused attention (sdpa), key/value cache, full size. The two take turns in one process, so
that what else the machine does meets both alike; the figure is the median of each round's ratio. Both
write the same tokens, which is checked. Without --model the weights are seeded ones at the official config.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor

from llm_rebuild.decoding import Settings, decode
from llm_rebuild.generate import gpt2_step, special_ids
from llm_rebuild.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from tools import full_size


def measure(folder: Path, rounds: int, tokens: int, prompt_tokens: int = 16) -> list[tuple[float, float]]:
    """Seconds of each round, the official one's and ours. Neither loads weights in this time."""
    copy = LocalCopy("gpt2", folder, "folder")
    rebuild = rebuild_for(copy.config)
    weights = copy.weights()
    rebuild.check(weights)
    special = special_ids(copy.config)
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
        step = gpt2_step(weights, rebuild.config, mask, attention="sdpa")
        return decode(step, prompt, Settings(tokens), special)

    if not torch.equal(official(), ours()):  # and both are warm now
        raise SystemExit("the two do not write the same tokens; a comparison of their speed means nothing")
    new = ours().shape[1] - prompt_tokens
    if new < tokens:
        raise SystemExit(f"the text ended after {new} tokens; choose other weights or fewer tokens")
    times = []
    for number in range(rounds):
        first, second = (official, ours) if number % 2 == 0 else (ours, official)
        taken = {run: seconds(run) for run in (first, second)}
        times.append((taken[official], taken[ours]))
    return times


def seconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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

    table = Table("round", "official, tokens/s", "rebuild, tokens/s", "ratio")
    for number, (official, ours) in enumerate(times, 1):
        speeds = [f"{arguments.tokens / taken:.2f}" for taken in (official, ours)]
        table.add_row(str(number), *speeds, f"{official / ours:.3f}")
    middle = [statistics.median(arguments.tokens / pair[side] for pair in times) for side in (0, 1)]
    ratio = statistics.median(official / ours for official, ours in times)
    table.add_row("median", *(f"{speed:.2f}" for speed in middle), f"{ratio:.3f}", style="bold")
    Console().print(table)
    print(
        f"GPT-2 {folder.name if arguments.model else 'full size, seeded weights'}; greedy, batch 1, "
        f"{arguments.tokens} new tokens; torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
