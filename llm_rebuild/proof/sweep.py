"""Many proofs: every model on every text, on as many processors or machines as there are, into one file.

Ray (an extra, `pip install llm-rebuild[sweep]`) hands each task to a worker and gives it to another one where
a worker dies. Only the process that began the sweep writes, and a row has the key of its task: what was lost
is done again, and nothing counts twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from llm_rebuild.copies import local_copy
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.files import PART, check_regular, reason, replacing
from llm_rebuild.printing import Printable
from llm_rebuild.verify.environment import environment

AGAIN = 5  # workers that may die of one task
FEWEST = 5  # rows of a part
REACH = 5  # seconds to wait for a cluster's answer
AHEAD = 2  # tasks that wait for each processor
SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # with which each side of HTTP/2 begins (RFC 9113): here with none
RELEASES = ("llm_rebuild", "torch", "transformers")
# A row of the file: a task, its verdicts in numbers, and where it was made.
COLUMNS = {
    "key": "string", "model": "string", "weights": "string", "attention": "string", "dtype": "string",
    "first_text": "int64", "texts": "int64", "tokens": "int64",
    "checkpoints": "int64", "bit_identical": "int64", "rounding": "int64", "failed": "int64",
    "first_divergence": "string", "cause": "string", "note": "string", "error": "string",
    **dict.fromkeys(RELEASES, "string"),
}  # fmt: skip
COUNTS = ("texts", "tokens", "checkpoints", "bit_identical", "rounding", "failed")
Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One proof: a model's name or folder, some texts as one batch, and the number of the first among all."""

    model: str
    weights: str  # the sha256 of the file
    attention: str
    first_text: int
    texts: tuple[str, ...]
    dtype: str = "float32"

    @property
    def key(self) -> str:
        """Equal for tasks that ask the same of the same weights under the same releases."""
        asked = [self.weights, self.attention, self.first_text, self.texts, self.dtype, releases()]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()

    def row(self) -> Row:
        """Its row without verdicts."""
        return dict.fromkeys(COLUMNS) | vars(self) | releases() | {"texts": len(self.texts), "key": self.key}


def releases() -> dict[str, str | int]:
    """Those that a verdict rests on."""
    return {name: environment()[name] for name in RELEASES}


def tasks(
    models: Sequence[str],
    texts: Sequence[str],
    attentions: Sequence[str],
    batch: int = 8,
    dtype: str = "float32",
) -> Iterator[Task]:
    """Every model on every text, in each spelling of attention, in one type of number, one of
    `weights.DTYPES` or `auto`. Raises InputError for a model that is not there."""
    for model in models:
        copy = local_copy.get(model)
        weights, own = copy.sha256[copy.weights_file.name], copy.numbers(dtype)[0]
        for attention in attentions:
            for first in range(0, len(texts), batch):
                yield Task(model, weights, attention, first, tuple(texts[first : first + batch]), own)


opened = cache(local_copy.get)  # a worker reads a model's files once


def prove_task(task: Task) -> Row:
    """A task's row. What cannot be proved is a row, too, with the error in it."""
    import torch

    from llm_rebuild.diagnosis.explain import explain
    from llm_rebuild.verify.proof import prove

    torch.set_num_threads(1)  # bits depend on how many add
    row = task.row()
    try:
        copy = opened(task.model)
        proof = prove(copy, task.texts, attention=task.attention, dtype=task.dtype, coverage=False)
        report = explain(proof).report
    except InputError as error:
        return row | {"error": one_line(error)}
    counts = {"tokens": report.tokens, **report.to_json()["summary"]}
    row |= {column: counts[column] for column in COUNTS if column in counts}
    first = report.first_divergence
    cause = report.diagnosis[0].cause if report.diagnosis else None
    note = next((note for note in report.notes if "NaN" in note), None)
    return row | {"first_divergence": first and first.verdict.name, "cause": cause, "note": note}


class Results:
    """The rows of a sweep: a Parquet file, and beside it, while the sweep goes on, the parts that follow."""

    def __init__(self, file: Path) -> None:
        self.file, self.parts = file, file.with_name(f"{file.name}.parts")
        self._new: list[Row] = []
        self.table = self._read()

    def _read(self) -> Any:
        """All rows that are on the disk, as a table: of one key the last, which may have mended an error."""
        pa = _extra("pyarrow")
        schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
        files = [file for file in (self.file, *sorted(self.parts.glob("*.parquet"))) if file.exists()]
        table = pa.concat_tables([schema.empty_table(), *(_rows_in(file, schema) for file in files)])
        last = {key: number for number, key in enumerate(table["key"].to_pylist())}
        return table.take(pa.array(sorted(last.values()), type=pa.int64()))

    def done(self) -> set[str]:
        """The keys of the tasks that have a verdict. What ended in an error is tried again."""
        keys, errors = self.table["key"].to_pylist(), self.table["error"].to_pylist()
        return {key for key, error in zip(keys, errors, strict=True) if error is None}

    def add(self, row: Row) -> None:
        """A row; with enough of them, a part. The parts grow with what is there, so that they stay few."""
        self._new.append(row)
        if len(self._new) >= max(FEWEST, len(self.table) // 50):
            self.flush()

    def flush(self) -> None:
        """Write what is new into a part of its own, whole or not at all."""
        if self._new:
            pa, pq = _extra("pyarrow"), _extra("pyarrow.parquet")
            new = pa.Table.from_pylist(self._new, schema=self.table.schema)
            before = [int(part.stem) for part in self.parts.glob("*.parquet") if part.stem.isdecimal()]
            with replacing(self.parts / f"{max(before, default=0) + 1:012}.parquet") as part:
                pq.write_table(new, part)
            self.table, self._new = pa.concat_tables([self.table, new]), []

    def merge(self) -> None:
        """All rows into the file, and the parts away. Interrupted in between it leaves both, which is no
        harm: of one key one row counts."""
        pq = _extra("pyarrow.parquet")
        self.flush()
        self.table = self._read()
        if len(self.table):
            with replacing(self.file) as whole:
                pq.write_table(self.table, whole)
        for ours in ("*.parquet", f".*{PART}", "lock"):
            for part in self.parts.glob(ours):
                part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty: somebody keeps other files there
            self.parts.rmdir()


def _rows_in(file: Path, schema: Any) -> Any:
    """A file's rows. Raises InputError where it has others."""
    pq = _extra("pyarrow.parquet")
    check_regular(file)
    try:
        table = pq.read_table(file)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise InputError(f"{file} is no file of a sweep ({one_line(error)}); choose another") from None
    column = schema.get_field_index("note")
    if table.schema.equals(schema.remove(column)):  # a file of before there were notes
        notes = _extra("pyarrow").nulls(len(table), schema.field(column).type)
        table = table.add_column(column, schema.field(column), notes)
    if not table.schema.equals(schema):
        raise InputError(f"{file} is no file of a sweep (it has other columns); choose another")
    return table


@dataclass(frozen=True)
class Sweep(Printable):
    """What a sweep found: its rows, one for each task, in the columns of `COLUMNS`."""

    file: Path
    rows: Sequence[Row]

    @property
    def passed(self) -> bool:
        """Whether every checkpoint of every row agrees to five decimals, and no row is an error."""
        return not any(row["failed"] or row["error"] for row in self.rows)

    def summary(self) -> list[Row]:
        """A line for each model, spelling of attention and type: the sums, and where it first differed."""
        lines: dict[tuple[str, ...], Row] = {}
        for row in self.rows:
            kind = {column: row[column] for column in ("model", "attention", "dtype")}
            line = lines.setdefault(tuple(kind.values()), kind | {"rows": 0, "errors": 0})
            for column in COUNTS:
                line[column] = line.get(column, 0) + (row[column] or 0)
            for column in ("first_divergence", "cause", "note", "error"):
                line[column] = line.get(column) or row[column]
            line["rows"] += 1
            line["errors"] += row["error"] is not None
        return list(lines.values())

    def to_json(self) -> dict[str, Any]:
        """The contract of `sweep --json`, docs/reference/json.md."""
        return {"file": str(self.file), "rows": len(self.rows), "summary": self.summary()}


def sweep(
    asked: Sequence[Task],
    file: Path,
    address: str | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Sweep:
    """Do the tasks that have no verdict yet. What comes back has the rows of all of them.

    address   A Ray cluster's; None starts Ray on this machine. Models lie under the same names everywhere.
    progress  Is told of each row.

    Raises InputError where Ray or the disk fails. What was done by then is in the file, and the same call
    goes on from it.
    """
    from filelock import FileLock, Timeout

    results = Results(file)
    try:
        results.parts.mkdir(exist_ok=True)
        with FileLock(results.parts / "lock").acquire(blocking=False):
            try:
                done = results.done()
                waiting = [task for task in asked if task.key not in done]
                for _ in range(len(asked) - len(waiting)):
                    progress("done before")
                for row in _rows(waiting, address) if waiting else ():
                    results.add(row)
                    progress(row["model"])
            finally:  # whatever ends it, what was done by then is written
                results.merge()
    except Timeout:
        raise InputError(f"another sweep writes to {file}; wait for it, or choose another file") from None
    except OSError as error:
        raise InputError(
            f"{file} and its parts: {reason(error)}; the rows that are written count when it goes on"
        ) from None
    keys = {task.key for task in asked}
    return Sweep(file, [row for row in results.table.to_pylist() if row["key"] in keys])


def _rows(waiting: Sequence[Task], address: str | None) -> Iterator[Row]:
    """The rows of the tasks, in the order in which they are ready."""
    ray = _extra("ray")
    for file in map("{}.py".format, ("torch", "numpy", "transformers", "safetensors", "tokenizers")):
        if Path(file).exists():
            raise InputError(f"{file} in this folder is what Ray's workers would import; rename it")
    try:
        _reach(address)
        ray.init(
            address=address or "local",
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        where = f"at {address}" if address else "on this machine"
        token = "; if that cluster wants a token, set RAY_AUTH_MODE=token" if address else ""
        raise InputError(f"Ray does not start {where} ({one_line(error)}){token}") from None
    try:
        head = address or ray.get_runtime_context().gcs_address
        remote = ray.remote(max_retries=AGAIN, num_cpus=1)(prove_task)
        ahead = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        pending: dict[Any, Task] = {}
        following, look = iter(waiting), time.monotonic() + REACH
        while True:
            pending |= {remote.remote(task): task for task in islice(following, ahead - len(pending))}
            if not pending:
                break
            yield from _ready(ray, pending)
            if time.monotonic() > look:  # Ray itself would end this process after a minute
                _reach(head)
                look = time.monotonic() + REACH
    except (ray.exceptions.RaySystemError, OSError) as error:
        raise InputError(
            f"the Ray cluster is lost ({one_line(error)}); the same command goes on from what is done"
        ) from None
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Ask at the address whether somebody is there who speaks HTTP/2, as Ray does, for a few seconds: Ray
    itself would ask for minutes. Under TLS only whether somebody is there."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH) as asked:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                asked.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS)
                if asked.recv(9)[3:4] != SETTINGS[3:4]:
                    raise OSError("who answers there is no Ray cluster")


def _ready(ray: Any, pending: dict[Any, Task]) -> Iterator[Row]:
    """The rows of the tasks that are ready, if some are within a few seconds."""
    for reference in ray.wait(list(pending), timeout=REACH)[0]:
        task = pending.pop(reference)
        try:
            yield ray.get(reference)
        except ray.exceptions.RayError as error:  # its workers died of it, or it raised what nobody foresaw
            if isinstance(error, ray.exceptions.RaySystemError):
                raise
            yield task.row() | {"error": one_line(error)}


def _extra(module: str) -> Any:
    """A module that comes with the extra `sweep`. InputError where it was not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise InputError(f"a sweep needs {module}; pip install 'llm-rebuild[sweep]'") from None
