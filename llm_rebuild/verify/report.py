"""What a verification found: for people as a table, for programs as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_rebuild.checkpoints import part_of
from llm_rebuild.verify.compare import BIT_IDENTICAL, Verdict
from llm_rebuild.verify.coverage import Coverage
from llm_rebuild.verify.divergence import Divergence, first_mistake
from llm_rebuild.verify.rounding import ROUNDING, Rounding


class Diagnosis(Protocol):
    """What a report needs to know of a diagnosis; `diagnosis/diagnose.py` makes them."""

    @property
    def cause(self) -> str: ...
    @property
    def explanation(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def evidence(self) -> str: ...
    @property
    def chapter(self) -> str: ...
    @property
    def checkpoint(self) -> str: ...
    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Report:
    """The verdicts of one run in the order in which the model computes, and what they rest on.

    isolated    Whether the rebuild ran in a process of its own, from files alone.
    leaks       What official tensors were seen to go into the rebuild; None where nobody looked.
    divergence  The first divergence in words, and what went into that step.
    rounding    What is left of the differences in float64; None where nobody looked.
    diagnosis   Which mistake it may be, the best guess first.
    """

    model: Mapping[str, Any]
    environment: Mapping[str, Any]
    attention: str
    texts: int
    tokens: int
    verdicts: tuple[Verdict, ...]
    coverage: Coverage | None = None
    coupled: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    isolated: bool = False
    leaks: tuple[str, ...] | None = None
    divergence: Divergence | None = None
    rounding: Rounding | None = None
    diagnosis: tuple[Diagnosis, ...] = ()

    @property
    def bit_identical(self) -> int:
        return sum(v.identical for v in self.verdicts)

    @property
    def passed(self) -> bool:
        """Five decimals at every checkpoint, and no leak."""
        return all(v.passes for v in self.verdicts) and not self.leaks

    @property
    def exact(self) -> bool:
        """Bit-identical at every checkpoint, and no leak."""
        return all(v.identical for v in self.verdicts) and not self.leaks

    @property
    def first_divergence(self) -> Verdict | None:
        """The first checkpoint, in the order of computation, that is not bit-identical."""
        return next((v for v in self.verdicts if not v.identical), None)

    def to_json(self) -> dict[str, Any]:
        """The contract of `verify --json`, docs/contributing/design.md."""
        first = self.first_divergence
        summary: dict[str, Any] = {
            "checkpoints": len(self.verdicts),
            "bit_identical": self.bit_identical,
            "five_decimals": sum(v.passes for v in self.verdicts),
            "failed": sum(not v.passes for v in self.verdicts),
            "coverage": self.coverage.share if self.coverage else None,
        }
        return {
            "model": dict(self.model),
            "environment": dict(self.environment),
            "attention": self.attention,
            "inputs": {"texts": self.texts, "tokens": self.tokens},
            "checkpoints": [v.to_json() for v in self.verdicts],
            "summary": summary,
            "first_divergence": None
            if first is None  # a verdict that is not bit-identical counts as false
            else {
                "name": first.name,
                "coordinate": list(first.coordinate) if first.coordinate is not None else None,
                "official": finite(first.official),
                "rebuilt": finite(first.rebuilt),
                "words": self.divergence.words if self.divergence else None,
                "inputs_identical": self.divergence.inputs_identical if self.divergence else None,
                "rounding": self.rounding.to_json(first.name) if self.rounding else None,
            },
            "diagnosis": [diagnosis.to_json() for diagnosis in self.diagnosis],
            "coverage": self.coverage.to_json() if self.coverage else None,
            "coupled": list(self.coupled),
            "isolated": self.isolated,
            "leaks": None if self.leaks is None else list(self.leaks),
        }

    def __rich__(self) -> RenderableType:
        return self._lines(self._table())

    def brief(self) -> RenderableType:
        """As it is printed, with one line for each part of the model in which all is bit-identical."""
        return self._lines(self._table(brief=True))

    def _lines(self, table: Table) -> RenderableType:
        notes = [Text(note, style="yellow") for note in self.notes]
        return Group(*notes, table, *self._closing())

    def __str__(self) -> str:
        console = Console(width=80, no_color=True, force_terminal=False, legacy_windows=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def _table(self, brief: bool = False) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("checkpoint", overflow="fold")
        table.add_column("shape", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("worst", no_wrap=True, justify="right")
        for part, them in groupby(self.verdicts, key=lambda v: part_of(v.name)):
            verdicts = list(them)
            if brief and len(verdicts) > 1 and all(v.identical and not v.coupled for v in verdicts):
                table.add_row(Text(part, style="bold"), f"{len(verdicts)} tensors", _shown(verdicts[0]), "0")
                continue
            table.add_row(Text(part, style="bold"))
            for v in verdicts:
                table.add_row(
                    "  " + v.name.removeprefix(part + "."),
                    "×".join(map(str, v.shape)),
                    _shown(v),
                    "–" if v.max_abs_diff is None else "0" if v.identical else f"{v.max_abs_diff:.1e}",
                )
        return table

    def _closing(self) -> Iterator[RenderableType]:
        yield ""
        if self.coverage is not None:
            c = self.coverage
            why: dict[str, list[str]] = {}
            for operation, reason in c.reasons().items():
                why.setdefault(reason, []).append(f"{c.uncovered[operation]} × {operation}")
            missing = "; ".join(f"{', '.join(them)}: {reason}" for reason, them in why.items())
            line = f"{c.covered} of the {c.total} tensors that the official model computes equal a checkpoint"
            yield Text(f"coverage {c.share:.1%}: {line}" + (f" (not: {missing})" if missing else ""))
        first = self.first_divergence
        if first is not None:
            yield from self._first(first)
        for name in self.coupled:
            yield Text(f"coupled at {name}: later checkpoints start from an official tensor", style="yellow")
        for leak in self.leaks or ():
            yield Text(leak, style="red")
        if self.isolated:
            leaks = len(self.leaks or ())
            yield Text(
                "isolated: the rebuild ran in a process of its own, from files alone, where transformers "
                f"cannot be imported; {leaks} leak{'' if leaks == 1 else 's'}"
            )
        clean = self.exact and not self.coupled
        style = "bold green" if clean else "bold yellow" if self.passed else "bold red"
        count = f"{self.bit_identical} of {len(self.verdicts)} checkpoints {BIT_IDENTICAL}"
        if self.coupled:
            count += f", {sum(v.coupled for v in self.verdicts)} coupled"
        which = f"{self.model['name']}, {self.attention} attention"
        if self.model["source"] == "miniature":
            which = f"the miniature of {which}"
        yield Text(f"{count} ({which})", style=style)

    def _first(self, first: Verdict) -> Iterator[RenderableType]:
        """Where the two runs part, which step is to blame, and which mistake it may be."""
        seen, *worst = first.in_words(self.divergence.words if self.divergence else "").splitlines()
        yield Text(f"first divergence: {seen}", style="red")
        yield from (_indented(line.strip(), "red") for line in worst)
        if self.divergence is not None:
            yield _indented(self.divergence.blame(self.rounding), "red")
        if self.rounding is not None and self.rounding.kind(first.name) == ROUNDING:
            mistake = first_mistake(self.verdicts, self.rounding)
            if mistake is not None:
                yield _indented(f"the first difference that stays in float64: {mistake.name}", "red")
        for best in self.diagnosis[:1]:
            sure = f"{best.confidence:.0%} sure"
            yield Text(f"diagnosis: {best.cause} ({sure})", style="bold")
            yield _indented(best.explanation)
            yield _indented(f"evidence: {best.evidence}")
            yield _indented(f"read: {best.chapter}")


def _indented(line: str, style: str = "") -> Padding:
    """A line below another; where it is broken, its parts stay below."""
    return Padding(Text(line, style=style), (0, 0, 0, 2), expand=False)


def _shown(verdict: Verdict) -> Text:
    """The verdict in its colour, and whether it rests on an official tensor."""
    good = verdict.identical and not verdict.coupled
    style = "green" if good else "yellow" if verdict.passes else "red"
    return Text(f"{verdict.verdict}, coupled" if verdict.coupled else verdict.verdict, style=style)


def finite(number: float | None) -> float | str | None:
    """A number as JSON can hold it: NaN and the infinities as words."""
    if number is None or number - number == 0:
        return number
    return str(number)
