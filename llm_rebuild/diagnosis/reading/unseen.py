"""What a person's code did where reading does not see: in numpy, in another thread, in compiled code.

It leaves two traces. A tensor is there that no operation made; or a tensor holds other numbers than its
operation gives for what went in, because something wrote into its memory. From there on nothing is said but
that.
"""

from __future__ import annotations

import torch

from llm_rebuild.diagnosis.reading.record import Record
from llm_rebuild.diagnosis.reading.slices import VIEWS, Slice
from llm_rebuild.verify.equality import by_rounding, identical
from llm_rebuild.verify.recording import Frame, Node, again

WHERE = "where it is not seen (numpy, a list, another thread, compiled code)"
MADE = f"read up to this tensor, which was made {WHERE}"
WRITTEN = f"read up to this tensor, into which something wrote {WHERE}"


def unseen(between: Slice, target: int) -> tuple[str, list[Frame]]:
    """What ends the way back from a tensor, in words, and the lines of it; empty where all was seen."""
    record = between.person.record
    operations = between.operations(target)
    for number in sorted({i for n in operations for i in (n, *record[n].inputs)}):
        node = record[number]
        if node.function is not None and number in operations and not _gives(record, node):
            user = next((n for n in operations if n > number and record[n].operation not in VIEWS), None)
            return WRITTEN, [*(_after(record, node) if user is None else _before(record, user)), *node.frames]
        if node.function is None and node.name and not _as_official(between, node):
            return WRITTEN, []
        if node.function is None and not (node.name or node.value.numel() == 1 or between.right(number)):
            before = [] if record.full else _before(record, number)
            tapped = any(
                n == number and record.taps[name][:1] == node.frames[:1] for name, n in record.tapped.items()
            )
            return record.full or MADE, [*before, *node.frames] if tapped else [*node.frames, *before]
    return "", []


def _as_official(between: Slice, node: Node) -> bool:
    """Whether a weight, or what else comes from outside by a name, holds the official numbers."""
    named = (other.value for other in between.official.record.nodes if other.name == node.name)
    official = next(named, None)
    return official is None or identical(node.value, official)


def _gives(record: Record, node: Node) -> bool:
    """Whether an operation gives what the tensor holds. What draws or leaves numbers is not asked."""
    drawn = torch.Tag.nondeterministic_seeded in getattr(node.function, "tags", ())
    if drawn or node.value is None or "empty" in node.operation:
        return True
    try:
        value = again(node, record.nodes)
    except Exception:  # what an operation needs beside its arguments may be gone
        return True
    return bool(value.shape == node.value.shape and by_rounding(value, node.value))


def _before(record: Record, number: int) -> list[Frame]:
    """The two lines that ran last before the one on which a tensor was seen first, the later one first."""
    line = [frame.line for frame in record[number].frames[:1]]
    ran = [step[0] for step in record.steps if step[1] <= number]
    return [frame for frame in ran[:-4:-1] if frame.line not in line][:2]


def _after(record: Record, node: Node) -> list[Frame]:
    """The lines that ran in the same call after a tensor was made, the last one first."""
    if not node.frames:
        return []
    made = node.frames[0]
    same = [step[0] for step in record.steps if step[1] >= node.number and step[0].call == made.call]
    after = [frame for frame in same if frame.number > made.number]
    return after[-2::-1][:2]  # the last one hands it on
