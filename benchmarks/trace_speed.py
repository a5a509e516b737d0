"""What it costs to see everything: a trace of full-size GPT-2, and a search in it.

    python -m benchmarks.trace_speed [--rounds 7] [--threads N] [--model DIR]

Speed: bare forward pass, our trace, and TorchLens saving everything take turns in one process on the same 64
ids; a figure is the median of each round's ratio to its bare forward. TorchLens (`pip install torchlens`) is
left out where it is not installed.

Search: `Trace.find` of tensors of every kind, among all entries of the 64 tokens' trace.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question, ask
from llm_rebuild.verify.trace import trace
from tools import full_size

TOKENS = 64


def ids(copy: LocalCopy, count: int) -> list[int]:
    random = torch.Generator().manual_seed(0)
    drawn: list[int] = torch.randint(copy.config["vocab_size"], (count,), generator=random).tolist()
    return drawn


# ---------------------------------------------------------------------------------------------- speed


def ways(question: Question, official: Official) -> dict[str, Callable[[], object]]:
    """What takes turns. Each is asked to do the same forward pass."""
    inputs = question.inputs
    arguments = {"input_ids": inputs.token_ids, "attention_mask": inputs.mask, "use_cache": False}

    def bare() -> object:
        with torch.no_grad():
            return official.model(**arguments)

    found: dict[str, Callable[[], object]] = {
        "bare forward": bare,
        "trace": lambda: trace(question, official=official),
    }
    try:
        import torchlens
    except ImportError:
        return found
    options = torchlens.options.CaptureOptions(unwrap_when_done=True)  # leaves torch as it was

    def other() -> object:
        with torch.no_grad():
            return torchlens.trace(official.model, (), dict(arguments), capture=options)

    found[f"TorchLens {torchlens.__version__}"] = other
    return found


def measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of wall and of processor time, way by way and round by round."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            if number:  # the first round warms up
                taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return taken


def show_speed(taken: dict[str, list[tuple[float, float]]]) -> None:
    bare = taken["bare forward"]
    table = Table("", "seconds", "÷ bare forward", "of processor time")
    for name, times in taken.items():
        wall = statistics.median(one[0] / other[0] for one, other in zip(times, bare, strict=True))
        processor = statistics.median(one[1] / other[1] for one, other in zip(times, bare, strict=True))
        seconds = statistics.median(one[0] for one in times)
        table.add_row(name, f"{seconds:.3f}", f"{wall:.2f}", f"{processor:.2f}")
    Console().print(table)


# --------------------------------------------------------------------------------------------- search


def searched(taken: Trace) -> dict[str, Tensor]:
    """Tensors such as people look for."""

    def of(name: str) -> Tensor:
        return taken[name].value.clone()

    probs, scaled, wide = of("h.3.attn.probs"), of("h.3.attn.scaled"), of("h.7.mlp.c_fc")
    random = torch.Generator().manual_seed(1)
    return {
        "itself": probs,
        "transposed": probs.mT.contiguous(),
        "heads split": of("h.2.ln_1").view(1, TOKENS, 12, 64).transpose(1, 2).contiguous(),
        "one head": probs[0, 3].clone(),
        "columns": wide[:, :, 100:200].clone(),
        "scaled": scaled / 3,
        "bias missing": wide - taken.weights["h.7.mlp.c_fc.bias"],
        "masked": scaled.masked_fill(torch.ones(TOKENS, TOKENS).triu(1).bool(), -torch.inf),
        "softmax": scaled.softmax(dim=-1),
        "exact GELU": F.gelu(wide),
        "LayerNorm": F.layer_norm(of("h.1.mlp.residual"), (768,)),
        "transposed, and rounded": probs.mT + 1e-7 * torch.randn(probs.shape, generator=random),
        "random numbers": torch.randn(1, TOKENS, 768, generator=random),
    }


def show_search(taken: Trace) -> None:
    table = Table("find", "seconds", "answer")
    slowest = 0.0
    for name, tensor in searched(taken).items():
        begun = time.perf_counter()
        found = taken.find(tensor)
        seconds = time.perf_counter() - begun
        slowest = max(slowest, seconds)
        answer: Any = found.best.words if found and found.best else "nothing like it"
        table.add_row(name, f"{seconds:.2f}", answer)
    Console().print(table)
    print(f"slowest search among {len(list(taken))} entries: {slowest:.2f} s (must be under 2 s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--model", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.model or full_size.make(Path(temporary, "gpt2"), full_size.CONFIGS["gpt2"])
        copy = LocalCopy("gpt2", folder, "folder")
        question = ask(copy, token_ids=[ids(copy, TOKENS)])
        official = Official(copy.folder)
        show_speed(measure(ways(question, official), arguments.rounds))
        show_search(trace(question, official=official))
    print(
        f"GPT-2 {'' if arguments.model is None else folder.name + ' '}at full size, eager, {TOKENS} tokens; "
        f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads"
    )


if __name__ == "__main__":
    main()
