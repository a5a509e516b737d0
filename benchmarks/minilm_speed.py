"""How fast is the rebuild of MiniLM beside the official model? `python -m benchmarks.minilm_speed`

Both run in one process, by turns, on the same ids and with the same attention. A ratio is the median of the
ratios of neighbouring runs, so that whatever else the machine does slows both alike.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from llm_rebuild.copies import local_copy
from llm_rebuild.verify.capture import capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question, ask

Run = Callable[[], object]
SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody in the village has ever asked it why."


def milliseconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1000


def by_turns(
    one: Callable[[], object], other: Callable[[], object], rounds: int
) -> tuple[float, float, float]:
    """Median ratio one ÷ other, and the medians of both in milliseconds. Who begins changes every round."""
    for _ in range(3):
        one(), other()
    ours, theirs = [], []
    for number in range(rounds):
        if number % 2:
            ours.append(milliseconds(one))
            theirs.append(milliseconds(other))
        else:
            theirs.append(milliseconds(other))
            ours.append(milliseconds(one))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), statistics.median(ours), statistics.median(theirs)


def forward(question: Question, official: Official, rounds: int) -> tuple[float, float, float]:
    """The rebuild's forward pass ÷ the official one: ids to sentence embedding."""
    rebuild, weights, inputs = question.rebuild, question.copy.weights(), question.inputs

    def ours() -> object:
        return rebuild.run(inputs.batch, rebuild.part(weights, attention=official.attention))

    def theirs() -> object:
        output = official.model(input_ids=inputs.token_ids, attention_mask=inputs.mask)
        return official.sentence(output.last_hidden_state, inputs.mask)

    with torch.no_grad():
        return by_turns(ours, theirs, rounds)


def capturing(question: Question, official: Official, rounds: int) -> tuple[float, float, float]:
    """A forward pass with a copy of every checkpoint ÷ the bare one, both official."""
    return by_turns(lambda: capture(question, official=official), lambda: official.run(question), rounds)


def peak_memory() -> float:
    """MB at the most, of a whole `llm-rebuild verify minilm` in a process of its own."""
    command = [sys.executable, "-m", "llm_rebuild", "verify", "minilm"]
    subprocess.run(command, check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    copy = local_copy.get("minilm", strict=True)
    texts = {
        "1 sentence": [SENTENCE],
        "16 sentences": [SENTENCE] * 16,
        "16, padded": [SENTENCE[: 20 + 5 * n] for n in range(16)],
    }
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.rounds} rounds, medians")
    for attention in ("eager", "sdpa"):
        official = Official(copy.folder, attention)
        for title, given in texts.items():
            question = ask(copy, given, attention=attention)
            for what, measure in (("forward", forward), ("capture", capturing)):
                ratio, ours, theirs = measure(question, official, arguments.rounds)
                line = f"{what}  {attention:5}  {title:12}  {ratio:.2f}  ({ours:.1f} ms ÷ {theirs:.1f} ms)"
                print(line, flush=True)
    print(f"verify   peak memory {peak_memory():.0f} MB")


if __name__ == "__main__":
    main()
