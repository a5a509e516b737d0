"""How everything here is timed: in alternating rounds in one process, as ratios with their spread.

The runs of one case take turns, and another one begins in every round, so that whatever else the machine does
meets all of them alike. A ratio is the median over the rounds of the ratio within a round, and beside it
stand its quartiles.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from math import log
from pathlib import Path
from statistics import linear_regression, median, quantiles
from typing import Any

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.environment import processor as processor_name
from tools import full_size

Run = Callable[[], object]
Row = dict[str, Any]
Times = dict[str, list[float]]

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "bench"  # full-size models, and what a short run writes
PEERS = ("sentence-transformers", "onnxruntime", "torchlens", "nnsight")
NOT_INSTALLED = "not installed"
TITLES = {"minilm": "MiniLM", "gpt2": "GPT-2", "t5-small": "T5-small", "smollm2-135m": "SmolLM2-135M"}


def processor() -> float:
    """Seconds of the processor, of this process and of the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": processor}


def full(name: str) -> LocalCopy:
    """A model at full size: MiniLM itself; the others with seeded weights, made once and kept."""
    if name == "minilm":
        return local_copy.get(name, strict=True)
    folder = BUILD / "models" / name
    if not (folder / "config.json").is_file():  # which is written last
        full_size.make(folder, full_size.CONFIGS[name])
    return LocalCopy(name, folder, "folder")


def silent(line: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Harness:
    """How long to measure, by which clock, and on which models.

    rounds   How many a case has at the most.
    least    How many it has at the least.
    seconds  No round of a case begins after so many seconds.
    quick    Whether fewer cases are asked, and smaller ones.
    copy     The model of a name.
    say      What is shown meanwhile, a line each.
    """

    rounds: int = 60
    least: int = 3
    seconds: float = 4.0
    clock: Callable[[], float] = time.perf_counter
    quick: bool = False
    copy: Callable[[str], LocalCopy] = full
    say: Callable[[str], None] = field(default=silent, repr=False)

    def times(self, runs: Mapping[str, Run], cold: bool = True) -> Times:
        """Seconds of every run, round by round. If they are `cold`, the first run of each is not counted."""
        for run in runs.values() if cold else ():
            run()
        names, begun = list(runs), self.clock()
        lasted: Times = {name: [] for name in names}
        for number in range(self.rounds):
            if number >= self.least and self.clock() - begun > self.seconds:
                break
            first = number % len(names)
            for name in names[first:] + names[:first]:
                start = self.clock()
                runs[name]()
                lasted[name].append(self.clock() - start)
        return lasted

    def compare(
        self, case: Mapping[str, Any], runs: Mapping[str, Run], baseline: str, cold: bool = True
    ) -> list[Row]:
        """A row for each run other than the `baseline`, which each is held against. `cold` as in `times`."""
        lasted = self.times(runs, cold)
        rows = [row(case, name, baseline, lasted) for name in runs if name != baseline]
        for one in rows:
            words = ", ".join(f"{v} {k}" if isinstance(v, int) else str(v) for k, v in case.items())
            self.say(f"  {words}: {one['what']} ÷ {baseline} {one['ratio']:.3f}, {one['seconds']:.4f} s")
        return rows


def row(case: Mapping[str, Any], what: str, baseline: str, lasted: Times) -> Row:
    """What one run takes of another's time: the median of each round's ratio, and its quartiles."""
    ratios = [one / other for one, other in zip(lasted[what], lasted[baseline], strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {
        "case": dict(case),
        "what": what,
        "baseline": baseline,
        "rounds": len(ratios),
        "ratio": digits(median(ratios)),
        "quartiles": [digits(low), digits(high)],
        "seconds": digits(median(lasted[what])),
        "baseline_seconds": digits(median(lasted[baseline])),
    }


def digits(number: float) -> float:
    """A measured number to four digits: the others are never the same twice."""
    return float(f"{number:.4g}")


def exponent(sizes: Sequence[float], amounts: Sequence[float]) -> float:
    """With which power of the size an amount grows: the slope of the line through their logarithms."""
    slope = linear_regression([log(size) for size in sizes], [log(amount) for amount in amounts]).slope
    return round(slope, 3)


def peers() -> dict[str, str | None]:
    """What a person would otherwise use, and its release here; None where it is not installed."""
    return {name: release(name) for name in PEERS}


def release(name: str) -> str | None:
    """Which release of a package is installed; None where it is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """What the numbers depend on: the processor, its cores, how busy it is, and the releases."""
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    facts = {"processor": processor_name(), "cores": os.cpu_count(), "load": load}
    return facts | environment() | {"peers": peers()}
