"""A sweep whose workers are killed at random moments, and it itself once: what is lost, and what doubled.

    python -m benchmarks.sweep_kills [--tasks 200] [--kills 20]

It needs Ray (`pip install -e '.[sweep]'`) and Linux, whose /proc tells which processes are workers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from llm_rebuild.copies import local_copy

COMMAND = [sys.executable, "-m", "llm_rebuild", "sweep"]
WORKER = b"ray::prove_task"


def workers(first: int) -> list[int]:
    """The processes that work on a task now, of the cluster that a process began: those that descend from it.
    Another cluster's are left alone."""
    above, working = dict[int, int](), list[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        number = int(folder.name)
        try:
            above[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            working += [number] * (folder / "cmdline").read_bytes().startswith(WORKER)
        except OSError:
            continue  # it ended meanwhile

    def own(number: int) -> bool:
        return number == first or (number in above and own(above[number]))

    return [number for number in working if own(number)]


def killed(process: subprocess.Popen[bytes], kills: int) -> int:
    """Kill workers while the sweep runs, at moments spread over it; how many were."""
    count, chosen = 0, random.Random(7)
    while process.poll() is None and count < kills:
        time.sleep(chosen.uniform(0.2, 1.5))
        if running := workers(process.pid):
            os.kill(chosen.choice(running), signal.SIGKILL)
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    from pyarrow import parquet

    with tempfile.TemporaryDirectory() as folder:
        texts, file = Path(folder) / "texts.txt", Path(folder) / "out.parquet"
        lines = [f"The baker of Oru sells {number} loaves." for number in range(options.tasks // 2)]
        texts.write_text("\n".join(lines), encoding="utf-8")
        model = str(local_copy.MINIATURES / "gpt2")
        command = [*COMMAND, model, "--texts", str(texts), "--batch", "1", "--out", str(file)]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        half = killed(first, options.kills // 2)
        parts = file.with_name(f"{file.name}.parts")
        while first.poll() is None and not list(parts.glob("*.parquet")):
            time.sleep(0.1)
        left = workers(first.pid)
        first.send_signal(signal.SIGKILL)  # the sweep itself, in the middle
        first.wait()
        before = sum(parquet.read_table(part).num_rows for part in parts.glob("*.parquet"))
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        rest = killed(second, options.kills - half)
        code = second.wait()
        table = parquet.read_table(file)
        keys = Counter(table["key"].to_pylist())
        print(f"{options.tasks} tasks, {half + rest} workers killed; the sweep, too, at {before} rows")
        print(
            f"exit code {code}; rows {table.num_rows}; lost {options.tasks - len(keys)}; "
            f"doubled {sum(keys.values()) - len(keys)}; errors {table.num_rows - table['error'].null_count}"
        )


if __name__ == "__main__":
    main()
