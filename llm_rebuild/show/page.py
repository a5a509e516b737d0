"""A report as one HTML file that can be sent around: the model as a map, and every checkpoint in pictures.

The file holds everything it shows and asks for nothing outside: styles, script, numbers. Tensors are drawn
from samples: a histogram of 40 bars, heat maps of at most 48 × 48 cells in 254 shades. What comes from texts,
tokens or names of tensors is escaped, and the content security policy lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.models import ARCHITECTURES
from llm_rebuild.show.charts import Labels, charts, usual
from llm_rebuild.verify import equality
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import MISSING, Verdict
from llm_rebuild.verify.divergence import (
    InputsOf,
    in_words,
    place,
)
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.rounding import INHERITED, MISTAKE, ROUNDING, UNCLEAR

HERE = Path(__file__).parent
MOST_TEXTS, MOST_TOKENS = 8, 80
ROOMY, TIGHT = 26, 36  # cells in the longest row of the map: up to here large ones fit, from here only small

# Verdicts as the page groups and draws them: class -> symbol, and what it is called there.
KINDS = {
    "identical": ("=", "bit-identical"),
    "near": ("≈", "five decimals or rounding"),
    "wrong": ("≠", "wrong"),
    "missing": ("∅", "missing"),
}


def render(
    report: Report,
    truth: Capture,
    rebuilt: Mapping[str, Tensor],
    *,
    files: Mapping[str, str] | None = None,
    inputs_of: InputsOf | None = None,
) -> str:
    """The page.

    truth, rebuilt  The tensors that the report is about.
    files           sha256 of the model's files by name.
    inputs_of       Which checkpoints a checkpoint is computed from, for the links between them.
    """
    tokens = Labels()
    entries = [_entry(v, report, truth, rebuilt, inputs_of, tokens) for v in report.verdicts]
    stacks = list(_stacks(entries, truth))
    widest = max(sum(len(group) for _, group in row.groups) for stack in stacks for row in stack)
    data = {"charts": [entry.charts for entry in entries], "labels": tokens.lists}
    # A `<` inside a script could end it; inside a JSON string it may as well be written so.
    numbers = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    style, script = (_read(f"page.{kind}") for kind in ("css", "js"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["number"] = lambda x: "–" if x is None else f"{x:.6g}"
    return environment.get_template("page.html").render(
        report=report,
        entries=entries,
        stacks=stacks,
        size="roomy" if widest <= ROOMY else "tight" if widest > TIGHT else "",
        kinds=KINDS,
        only_rounding=only_rounding(report),
        counts=Counter(entry.kind for entry in entries),
        texts=list(_texts(truth)),
        more_texts=max(0, report.texts - MOST_TEXTS),
        files=dict(files or {}),
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        # Marked as safe: written by this module's own files, or by json.dumps above.
        style=Markup(style),
        script=Markup(script),
        numbers=Markup(numbers),
        policy=f"default-src 'none'; img-src data:; style-src {_source(style)}; "
        f"script-src {_source(script)}; base-uri 'none'; form-action 'none'",
    )


def _read(file: str) -> str:
    return (HERE / file).read_text(encoding="utf-8").strip()


def _source(content: str) -> str:
    """What a content security policy calls this very script or style, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# ------------------------------------------------------------------------------------ one checkpoint


@dataclass(frozen=True)
class Entry:
    """What the page says of one checkpoint. `charts` is for the script that draws them."""

    name: str
    part: str
    short: str  # the name without its part
    kind: str  # a key of KINDS
    verdict: Verdict
    axes: str
    meaning: str
    where: str
    float64: str
    inputs: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    charts: dict[str, Any]

    @property
    def symbol(self) -> str:
        return KINDS[self.kind][0]

    @property
    def spoken(self) -> str:
        return f"{self.name}: {self.verdict.verdict}" + (", coupled" if self.verdict.coupled else "")


def _entry(
    verdict: Verdict,
    report: Report,
    truth: Capture,
    rebuilt: Mapping[str, Tensor],
    inputs_of: InputsOf | None,
    tokens: Labels,
) -> Entry:
    name = verdict.name
    part, listed = part_of(name), truth.checkpoints.get(name)
    sides = {"official": truth.tensors[name]}
    if name in rebuilt and not verdict.identical:
        sides["rebuilt"] = rebuilt[name]
    numbers = {side: usual(tensor) for side, tensor in sides.items() if tensor.is_floating_point()}
    return Entry(
        name=name,
        part=part,
        short=name.removeprefix(part + "."),
        kind=kind_of(verdict),
        verdict=verdict,
        axes=listed.shape if listed else "",
        meaning=listed.meaning if listed else "",
        where=in_words(verdict, truth),
        float64=_float64(verdict, report),
        inputs=tuple(n for n in inputs_of(name) if n in truth) if inputs_of else (),
        facts=tuple(_facts(sides, numbers)),
        charts=charts(verdict, sides, numbers, truth, tokens),
    )


def kind_of(verdict: Verdict) -> str:
    if verdict.verdict == MISSING:
        return "missing"
    return "identical" if verdict.identical else "near" if verdict.passes else "wrong"


def only_rounding(report: Report) -> bool:
    """Whether there are differences, and none of them stays in float64."""
    different = [v.name for v in report.verdicts if not v.identical]
    rounding = report.rounding
    return bool(different) and rounding is not None and all(rounding.kind(n) == ROUNDING for n in different)


def _float64(verdict: Verdict, report: Report) -> str:
    """What became of the difference in float64."""
    if verdict.identical or report.rounding is None:
        return ""
    kind = report.rounding.kind(verdict.name)
    if kind == UNCLEAR:
        return report.rounding.problems.get(verdict.name, "")
    means = {ROUNDING: "rounding", MISTAKE: "a mistake", INHERITED: "right, but what goes into it is not"}
    return f"{report.rounding.words(verdict.name)}: {means[kind]}"


def _facts(sides: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Smallest, largest, mean and spread of the numbers that are numbers."""
    for side, finite in numbers.items():
        line = "no finite numbers"
        if finite.numel():
            spread = float(finite.std(correction=0))
            line = f"{finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}, spread {spread:.4g}"
        odd = sides[side].numel() - finite.numel()
        masked = int((sides[side] < -equality.NEVER).sum()) if odd else 0
        line += f"; {masked:,} masked" if masked else ""
        line += f"; {odd - masked:,} not finite" if odd > masked else ""
        yield side, line


# ------------------------------------------------------------------------------------------- the map


@dataclass(frozen=True)
class Row:
    """A row of the map: a block, or what lies before, between and after the blocks."""

    label: str
    part: str  # `encoder.layer.3`; empty where there are several
    groups: list[tuple[str, list[Entry]]]

    @property
    def stack(self) -> str:
        """Rows of one stack are drawn under each other."""
        return self.part.rpartition(".")[0]

    @property
    def entries(self) -> list[Entry]:
        return [entry for _, members in self.groups for entry in members]


def _stacks(entries: Sequence[Entry], truth: Capture) -> Iterator[list[Row]]:
    """Rows that stand under each other, cell under cell: blocks with the same checkpoints."""
    rows_of = _rows(entries, truth)
    for alike, rows in groupby(rows_of, key=lambda row: (row.stack, [len(g) for _, g in row.groups])):
        together = list(rows)
        if alike[0]:
            yield together
        else:
            yield from ([row] for row in together)


def _rows(entries: Sequence[Entry], truth: Capture) -> Iterator[Row]:
    architecture = ARCHITECTURES.get(truth.model_type)
    runs = [(part, list(members)) for part, members in groupby(entries, key=lambda e: e.part)]
    loose: list[Entry] = []
    for number, (part, members) in enumerate(runs):
        again = any(part == later for later, _ in runs[number + 1 :])  # some of block 0 is made beforehand
        if not part.rpartition(".")[2].isdigit() or again:
            loose += members
            continue
        if loose:
            yield _loose(loose)
            loose = []
        stack = architecture.stack_of(members[0].name) if architecture else None
        groups = _groups(members, f"{stack.inside}." if stack and stack.inside else "")
        yield Row(", ".join(place(part, truth)), part, list(groups))
    if loose:
        yield _loose(loose)


def _loose(entries: list[Entry]) -> Row:
    names = list(dict.fromkeys(entry.name.partition(".")[0] for entry in entries))
    return Row(", ".join(names), "", list(_groups(entries)))


def _caption(path: str, members: list[Entry], inside: str) -> str:
    """A part of a block, as there is room for it: without what stands inside every block. Of a single cell
    its own name, or `+`."""
    if len(members) == 1:
        last = members[0].name.rpartition(".")[2]
        return "+" if last == "residual" else last
    return path.removeprefix(inside)


def _groups(entries: list[Entry], inside: str = "") -> Iterator[tuple[str, list[Entry]]]:
    """Neighbours that live in one part of the block. A part's own output goes with what is inside it."""
    current = ""
    members: list[Entry] = []
    for entry in entries:
        path = entry.short.rpartition(".")[0] or entry.short
        if members and path != current and entry.short != current:
            yield _caption(current, members, inside), members
            members = []
        if not members:
            current = path
        members.append(entry)
    yield _caption(current, members, inside), members


def _texts(truth: Capture) -> Iterator[dict[str, Any]]:
    """The input, row by row: the text where one was given, and its tokens or ids."""
    inputs = truth.inputs
    for row in range(min(len(inputs.token_ids), MOST_TEXTS)):
        real = inputs.mask[row, -inputs.token_ids.shape[1] :].bool()
        ids = inputs.token_ids[row][real].tolist()
        tokens = list(inputs.tokens[row]) if row < len(inputs.tokens) else [str(i) for i in ids]
        yield {
            "text": inputs.texts[row] if row < len(inputs.texts) else None,
            "tokens": tokens[:MOST_TOKENS],
            "more": max(0, len(tokens) - MOST_TOKENS),
        }
