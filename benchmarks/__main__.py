"""How fast, beside what a person would pick instead: `make bench`, or `python -m benchmarks`.

    python -m benchmarks                       everything; forty minutes of a processor, by an estimate
    python -m benchmarks forward encode        these; what else the page says stays
    python -m benchmarks --missing             what has no numbers yet, or only those of a short run
    python -m benchmarks --quick               few rounds and small cases, in minutes, into build/bench
    python -m benchmarks --page                only the page, from the numbers that are there
    python -m benchmarks --processor           seconds of the processor, for a machine that has other work

Numbers go to docs/reference/speed.json, the page to docs/reference/speed.md, its plots to docs/figures. Peers
come with the extra `bench`; one that is not installed is listed as such.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from benchmarks import board
from benchmarks.harness import BUILD, CLOCKS, ROOT, Harness, Row, machine, processor

NUMBERS, PAGE = ROOT / "docs/reference/speed.json", ROOT / "docs/reference/speed.md"
Files = tuple[Path, Path]  # of the numbers, and the page
QUICK = {"rounds": 5, "least": 2, "seconds": 2.0, "quick": True}


def measured(name: str, harness: Harness, clock: str) -> Iterator[dict[str, Any]]:
    """One benchmark's part of the numbers, row by row: what there is by then, what it was measured on, and
    whether something is still to come."""
    harness.say(name)
    facts = machine() | {"clock": clock, "quick": harness.quick}
    begun, rows = processor(), list[Row]()
    for row in importlib.import_module(f"benchmarks.{name}").measure(harness):
        rows.append(row)
        yield {"machine": facts | {"took": round(processor() - begun), "whole": False}, "rows": rows}
    took = round(processor() - begun)
    harness.say(f"  {took} seconds of the processor")
    yield {"machine": facts | {"took": took, "whole": True}, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(board.SECTIONS)}")
    parser.add_argument("--quick", action="store_true", help="few rounds, small cases, into build/bench")
    parser.add_argument("--missing", action="store_true", help="what has no numbers of the full form yet")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    parser.add_argument("--processor", action="store_true", help="count the processor's seconds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    unknown = sorted({*options.names} - {*board.SECTIONS})
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(board.SECTIONS)}")
    numbers_file, page_file = NUMBERS, PAGE
    if options.quick:
        numbers_file, page_file = BUILD / "speed.json", BUILD / "speed.md"
        BUILD.mkdir(parents=True, exist_ok=True)
    numbers = json.loads(numbers_file.read_text(encoding="utf-8")) if numbers_file.is_file() else {}
    names = options.names or list(board.SECTIONS)
    if options.missing:
        names = [name for name in names if name not in numbers or not _in_full(numbers[name])]
    failed: list[str] = []
    if not options.page:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(options.threads)
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # of processes that are begun here
        clock = "processor" if options.processor else "wall"
        form: dict[str, Any] = QUICK if options.quick else {}
        harness = Harness(clock=CLOCKS[clock], say=lambda line: print(line, flush=True), **form)
        parts = {name: measured(name, harness, clock) for name in names}
        failed = [name for name in names if not kept(name, parts[name], numbers, (numbers_file, page_file))]
    publish(numbers, (numbers_file, page_file))
    if not options.quick:
        from tools.figures import speed  # which looks at the numbers for what there is to draw

        for draw in speed.FIGURES:
            file = ROOT / "docs/figures" / f"{draw.__name__.replace('_', '-')}.svg"
            file.write_text(draw(), encoding="utf-8")
    print(page_file.relative_to(ROOT))
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _in_full(part: dict[str, Any]) -> bool:
    """Whether a part was measured to its end, and in the full form."""
    return board.is_whole(part) and not part["machine"]["quick"]


def kept(name: str, parts: Iterator[dict[str, Any]], numbers: dict[str, Any], files: Files) -> bool:
    """Write down a part as it grows. False where something went wrong with it: the others are measured all
    the same."""
    try:
        for part in parts:
            numbers[name] = part
            publish(numbers, files)
    except Exception:
        traceback.print_exc()
        return False
    return True


def publish(numbers: dict[str, Any], files: Files) -> None:
    """Write the numbers and the page: what is measured by now stays, whatever ends the run."""
    numbers_file, page_file = files
    write(numbers_file, numbers)
    page_file.write_text(board.page(numbers), encoding="utf-8")


def write(file: Path, numbers: dict[str, Any]) -> None:
    """A row a line: a measurement that is made again changes its own lines."""
    parts = []
    for name in board.SECTIONS:
        if name in numbers:
            rows = ",\n".join(f"   {json.dumps(row, ensure_ascii=False)}" for row in numbers[name]["rows"])
            facts = json.dumps(numbers[name]["machine"], ensure_ascii=False)
            parts.append(f' "{name}": {{\n  "machine": {facts},\n  "rows": [\n{rows}\n  ]\n }}')
    file.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
