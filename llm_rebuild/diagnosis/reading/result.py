"""What was read of a person's code: the lines, what they do otherwise, and what puts it right.

    official = OfficialRun.of(truth, copy, prompt)    # the official run, operation by operation
    readings = read(run, official, own)               # `run` is anything that calls a tap

`read` runs the person's code a few times more, in the process in which it is called, and only after its
tensors were compared: what is tapped in these runs decides nothing. In a learner's process the official run
comes in behind the end of `forward`, as some kilobytes of JSON and a few tensors (`OfficialRun.store`, made
where the capture is made and kept beside it; `OfficialRun.load`); what goes out are readings as JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# How well a repair is known: the person's code ran once more with it, and the checkpoint was official.
TO_THE_BIT = "proved"
ROUNDED = "proved but for rounding"


@dataclass(frozen=True)
class Line:
    """A line of a person's code. `code` is its text without indentation; empty where there is no source."""

    file: str
    number: int
    function: str
    code: str


@dataclass(frozen=True)
class Repair:
    """One thing put right with which the checkpoint is the official one.

    words   What to do: `divide by √32 instead of √384`.
    line    Where; None where the run shows what is to be put right, and not on which of the reading's lines.
    before  The line as it is, and `after`, as it would be right; both empty where it cannot be written so,
            or `line` is None.
    degree  `proved` or `proved but for rounding`.
    kind    What kind of edit it is: `constant`, `operand`, `drop`, `insert`, `replace`, `layout`, `value`
            (whole numbers or truth values), or `whole`: official operations in the place of what lies between
            the last right tensors and the wrong one. Of this no line is claimed.
    operation  What is edited, or missing, by the name that programs use: `mul`, `softmax`.
    right   The official checkpoint or weight that belongs there, or at which the edit is made; `wrong` is
            that which was taken instead, or went into an operation too many. Empty where it has no name.
    edits   How many edits it takes; `kind` and what follows are of the last.
    traits  What is peculiar to the operations that were read there, as `reading/traits.py` has it: however a
            step is spelled, and whatever of it is put right.
    """

    words: str
    line: Line | None
    before: str
    after: str
    degree: str
    kind: str = ""
    operation: str = ""
    right: str = ""
    wrong: str = ""
    edits: int = 1
    traits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """One mistake.

    checkpoint  The first that it makes wrong, or that is missing because of it; empty where none was found
                and `extent` says why.
    lines       Where it is made, the likeliest first; at most three.
    difference  What the person's code does there, and what the official model does: whole words.
    repairs     What puts it right. Of several any one would do.
    extent      How far it could be read and why not further; empty where nothing was in the way.
    also        Later checkpoints that the same line makes wrong in the same way.
    """

    checkpoint: str
    lines: tuple[Line, ...]
    difference: str
    repairs: tuple[Repair, ...] = ()
    extent: str = ""
    also: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Reading:
        """What `to_json` gave. KeyError or TypeError for anything else."""
        repairs = [
            Repair(**one | {"line": one["line"] and Line(**one["line"]), "traits": tuple(one["traits"])})
            for one in stored["repairs"]
        ]
        lines = tuple(Line(**line) for line in stored["lines"])
        return cls(**{**stored, "lines": lines, "repairs": tuple(repairs), "also": tuple(stored["also"])})
