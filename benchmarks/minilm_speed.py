"""How fast is the rebuild of MiniLM beside the official model, and what does watching it cost?
`python -m benchmarks.minilm_speed`

Everything runs in one process, by turns, on the same ids and with the same attention. A ratio is the median
of the ratios of neighbouring runs, so that whatever else the machine does slows both alike. With
`--processor`, seconds are those of the processor, for a machine that has other work.

`--against FOLDER` names a checkout of an earlier commit: its whole proof takes turns with this one's, each in
a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify.capture import capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question, ask
from llm_rebuild.verify.recording import Products

Run = Callable[[], object]
SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody in the village has ever asked it why."
SIXTEEN = [SENTENCE] * 16


def rows(copy: LocalCopy, texts: list[str]) -> list[list[int]]:
    """The texts' ids: all that is measured begins with them."""
    inputs = ask(copy, texts).inputs
    return [ids[real.bool()].tolist() for ids, real in zip(inputs.token_ids, inputs.mask, strict=True)]


def milliseconds(run: Run, clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return (clock() - start) * 1000


def by_turns(
    one: Run, other: Run, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float, float]:
    """Median ratio one ÷ other, and the medians of both in milliseconds. Who begins changes every round."""
    for _ in range(3):
        one(), other()
    ours, theirs = [], []
    for number in range(rounds):
        if number % 2:
            ours.append(milliseconds(one, clock))
            theirs.append(milliseconds(other, clock))
        else:
            theirs.append(milliseconds(other, clock))
            ours.append(milliseconds(one, clock))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), statistics.median(ours), statistics.median(theirs)


def forward(question: Question, official: Official) -> tuple[Run, Run]:
    """The rebuild's forward pass, and the official one: ids to sentence embedding."""
    model = question.rebuild.part(question.weights, attention=question.attention)

    def rebuilt() -> object:
        with torch.no_grad():
            return question.rebuild.run(question.inputs.batch, model)

    return rebuilt, lambda: official.run(question, copies=False)


def capturing(question: Question, official: Official) -> tuple[Run, Run]:
    """An official pass with every checkpoint of it, and the bare one."""
    return lambda: capture(question, official=official), lambda: official.run(question, copies=False)


class Idle(TorchDispatchMode):
    """Does what it is shown, and notes nothing."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return function(*args, **(kwargs or {}))


def idling(question: Question, official: Official) -> tuple[Run, Run]:
    """An official pass below modes that do nothing, and the bare one: the least that watching costs."""

    def watched() -> None:
        with Idle(), Products(lambda function, args, named: function(*args, **named)):
            official.run(question, copies=False)

    return watched, lambda: official.run(question, copies=False)


class Counting(TorchDispatchMode):
    """How many operations pass the dispatcher."""

    operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.operations += 1
        return function(*args, **(kwargs or {}))


def operations(question: Question, official: Official) -> int:
    with Counting() as counting:
        official.run(question, copies=False)
    return counting.operations


PROOFS = """
import json, sys, time, torch
sys.path.insert(0, sys.argv[1])
try:
    from llm_rebuild.copies import local_copy
except ImportError:
    from llm_rebuild import local_copy
import llm_rebuild.verify as verify
assert verify.__file__.startswith(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
clock = time.process_time if sys.argv[3] == "processor" else time.perf_counter
copy, ids = local_copy.get("minilm", strict=True), json.loads(sys.stdin.readline())
package = sys.modules["llm_rebuild.verify.proof"] if "llm_rebuild.verify.proof" in sys.modules else verify
official = package.Official(copy.folder, "eager")
package.Official = lambda *given, **named: official  # loading it is no part of the proof
for line in sys.stdin:
    start = clock()
    verify.verify(copy, token_ids=ids)
    print((clock() - start) * 1000, flush=True)
"""


def proofs(
    against: Path, ids: list[list[int]], rounds: int, threads: int, clock: str
) -> tuple[float, float, float]:
    """A whole proof (official run, capture, rebuild, comparison, coverage) ÷ an earlier commit's."""
    here = Path(__file__).resolve().parents[1]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROOFS, str(folder), str(threads), clock],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/",
        )
        for folder in (here, against.resolve())
    ]  # fmt: skip

    def proof(worker: subprocess.Popen[str]) -> float:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        return float(worker.stdout.readline())

    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(ids) + "\n")
    times = [(proof(workers[0]), proof(workers[1])) for _ in range(rounds + 2)][2:]
    for worker in workers:
        worker.communicate()
    return (
        statistics.median(a / b for a, b in times),
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
    )


LOADED = """
import torch, transformers
from llm_rebuild.copies import local_copy
from llm_rebuild.verify import ask
from llm_rebuild.verify.official import Official
copy = local_copy.get("minilm", strict=True)
Official(copy.folder).run(ask(copy, ["Open-source LLMs rock.", "They do."]))
"""


def from_the_shell(rounds: int) -> tuple[float, float, float]:
    """`llm-rebuild verify minilm` from the shell to the answer ÷ imports, loading and one forward pass."""

    def seconds(*command: str) -> Run:
        return lambda: subprocess.run([sys.executable, *command], check=True, capture_output=True)

    return by_turns(seconds("-m", "llm_rebuild", "verify", "minilm"), seconds("-c", LOADED), rounds)


def peak_memory() -> float:
    """MB at the most, of a whole `llm-rebuild verify minilm` in a process of its own."""
    command = [sys.executable, "-m", "llm_rebuild", "verify", "minilm"]
    subprocess.run(command, check=True, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor", action="store_true", help="count the processor's seconds")
    parser.add_argument("--against", type=Path, help="a checkout of an earlier commit", metavar="FOLDER")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.processor else time.perf_counter
    copy = local_copy.get("minilm", strict=True)
    texts = {
        "1 sentence": [SENTENCE],
        "16 sentences": SIXTEEN,
        "16, padded": [SENTENCE[: 20 + 5 * n] for n in range(16)],
    }
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.rounds} rounds, medians")
    for attention in ("eager", "sdpa"):
        official = Official(copy.folder, attention)
        for title, given in texts.items():
            question = ask(copy, token_ids=rows(copy, given), attention=attention)
            for what, runs in (("forward", forward), ("idle", idling), ("capture", capturing)):
                ratio, ours, theirs = by_turns(*runs(question, official), arguments.rounds, clock)
                line = f"{what:7}  {attention:5}  {title:12}  {ratio:.2f}  ({ours:.1f} ms ÷ {theirs:.1f} ms)"
                if what != "forward" and len(given) == 1:
                    each = (ours - theirs) * 1000 / operations(question, official)
                    line += f", {each:.1f} µs an operation"
                print(line, flush=True)
    if arguments.against:
        for title in ("1 sentence", "16 sentences"):
            ids = rows(copy, texts[title])
            which = "processor" if arguments.processor else "wall"
            ratio, ours, theirs = proofs(arguments.against, ids, arguments.rounds, arguments.threads, which)
            print(f"proof    eager  {title:12}  {ratio:.2f}  ({ours:.1f} ms ÷ {theirs:.1f} ms)", flush=True)
    ratio, ours, theirs = from_the_shell(max(3, arguments.rounds // 8))
    print(f"verify   shell to answer  {ratio:.2f}  ({ours / 1000:.2f} s ÷ {theirs / 1000:.2f} s)")
    print(f"verify   peak memory {peak_memory():.0f} MB")


if __name__ == "__main__":
    main()
