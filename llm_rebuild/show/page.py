"""A report as one HTML file that can be sent around: the model as a map, and every checkpoint in pictures.

The file holds everything it shows and asks for nothing outside: styles, script, numbers. Tensors are drawn
from samples: a histogram of 40 bars, heat maps of at most 48 × 48 cells in 254 shades. What comes from texts,
tokens or names of tensors is escaped, and the content security policy lets no script run but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from torch import Tensor

from llm_rebuild.models import ARCHITECTURES
from llm_rebuild.show.charts import Labels, charts, usual
from llm_rebuild.verify import equality
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import MISSING, Verdict
from llm_rebuild.verify.divergence import InputsOf, in_words
from llm_rebuild.verify.proof import Proof
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.rounding import INHERITED, MISTAKE, ROUNDING, UNCLEAR

HERE = Path(__file__).parent
MOST_TEXTS, MOST_TOKENS = 8, 80
SCRIPTS = ("tensor.js", "map.js", "page.js")  # what each imports comes before it
STYLES = ("map.css", "page.css")

# Verdicts as the page groups and draws them: class -> symbol, and what it is called there.
KINDS = {
    "identical": ("=", "bit-identical"),
    "near": ("≈", "five decimals or rounding"),
    "wrong": ("≠", "wrong"),
    "missing": ("∅", "missing"),
}


def render(proof: Proof, inputs_of: InputsOf = lambda name: ()) -> str:
    """The page. `inputs_of`: which checkpoints a checkpoint is computed from, for the links between them."""
    report, truth, tokens = proof.report, proof.truth, Labels()
    entries = [_entry(v, proof, inputs_of, tokens) for v in report.verdicts]
    architecture = ARCHITECTURES.get(truth.model_type)
    first = report.first_divergence
    data = {
        "kinds": {
            kind: ["" if kind == "identical" else symbol, words] for kind, (symbol, words) in KINDS.items()
        },
        "stacks": [vars(stack) for stack in architecture.stacks] if architecture else [],
        "cells": [entry.cell for entry in entries],
        "entries": [{"facts": entry.facts, "chart": entry.charts} for entry in entries],
        "labels": list(tokens),
        "first": first.name if first else None,
    }
    # A `<` inside a script could end it; inside a JSON string it may as well be written so.
    numbers = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    style, script = "\n".join(map(_read, STYLES)), "\n".join(map(_read, SCRIPTS))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["number"] = lambda x: "–" if x is None else f"{x:.6g}"
    return environment.get_template("page.html").render(
        report=report,
        entries=entries,
        kinds=KINDS,
        only_rounding=only_rounding(report),
        counts=Counter(entry.kind for entry in entries),
        texts=list(_texts(truth)),
        more_texts=max(0, report.texts - MOST_TEXTS),
        files=proof.question.copy.sha256,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        # Marked as safe: written by this module's own files, or by json.dumps above.
        style=Markup(style),
        script=Markup(script),
        numbers=Markup(numbers),
        policy=f"default-src 'none'; img-src data:; style-src {_source(style)}; "
        f"script-src {_source(script)}; base-uri 'none'; form-action 'none'",
    )


def _read(file: str) -> str:
    """A style, or a module as a piece of one: what it imports stands before it in the page."""
    return re.sub(r"^(import .*|export )", "", (HERE / file).read_text(encoding="utf-8"), flags=re.M).strip()


def _source(content: str) -> str:
    """What a content security policy calls this very script or style, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


# ------------------------------------------------------------------------------------ one checkpoint


@dataclass(frozen=True)
class Entry:
    """What the page says of one checkpoint.

    kind    A key of KINDS.
    facts   What it is, and what is known of it: a word, and strings, {"code": …} or {"link": checkpoint}.
    charts  For the script that draws them.
    """

    name: str
    kind: str
    verdict: Verdict
    axes: str
    meaning: str
    where: str
    facts: list[tuple[str, list[Any]]]
    charts: dict[str, Any]

    @property
    def symbol(self) -> str:
        """How it is drawn where there is no colour."""
        return KINDS[self.kind][0]

    @property
    def words(self) -> str:
        """The verdict, and whether it rests on an official tensor."""
        return self.verdict.verdict + (", coupled" if self.verdict.coupled else "")

    @property
    def cell(self) -> dict[str, str]:
        """Its cell on the map."""
        return {"name": self.name, "kind": self.kind, "meaning": self.meaning, "words": self.words}


def _entry(verdict: Verdict, proof: Proof, inputs_of: InputsOf, tokens: Labels) -> Entry:
    name, truth = verdict.name, proof.truth
    listed = truth.checkpoints.get(name)
    sides = {"official": truth.tensors[name]}
    if name in proof.rebuilt and not verdict.identical:
        sides["rebuilt"] = proof.rebuilt[name]
    numbers = {side: usual(tensor) for side, tensor in sides.items() if tensor.is_floating_point()}
    axes, where = listed.shape if listed else "", in_words(verdict, truth)
    links = [part for n in inputs_of(name) if n in truth for part in (", ", {"link": n})][1:]
    shape = f"{' × '.join(map(str, verdict.shape))}, {verdict.dtype}"
    facts: list[tuple[str, list[Any]]] = [
        ("shape", [{"code": axes}, " ", shape] if axes else [shape]),
        ("note", [verdict.note]),
        ("worst", [_worst(verdict, where)]),
        ("in float64", [_float64(verdict, proof.report)]),
        ("computed from", links),
        *((whose if len(numbers) > 1 else "numbers", [line]) for whose, line in _numbers(sides, numbers)),
    ]
    return Entry(
        name=name,
        kind=kind_of(verdict),
        verdict=verdict,
        axes=axes,
        meaning=listed.meaning if listed else "",
        where=where,
        facts=[(word, parts) for word, parts in facts if any(parts)],
        charts=charts(verdict, sides, numbers, truth, tokens),
    )


def _worst(verdict: Verdict, where: str) -> str:
    """Where the two are furthest apart, and by how much."""
    if not where:
        return ""
    ulp = f" ({verdict.max_ulp:,} ulp)" if verdict.max_ulp is not None else ""
    return (
        f"{where}: official {verdict.official:.9g}, rebuilt {verdict.rebuilt:.9g}, off by "
        f"{verdict.max_abs_diff:.1e}{ulp}"
    )


def kind_of(verdict: Verdict) -> str:
    """The key of KINDS that a verdict is drawn as."""
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


def _numbers(sides: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
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
