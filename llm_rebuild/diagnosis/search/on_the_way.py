"""The third round of a diagnosis: what is done to a tensor on its way, and mistakes in a part of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from llm_rebuild.diagnosis import numbers
from llm_rebuild.diagnosis.case import Case, Found
from llm_rebuild.diagnosis.formulas import World
from llm_rebuild.diagnosis.hypotheses import Hypothesis
from llm_rebuild.diagnosis.hypotheses.base import Make
from llm_rebuild.diagnosis.search.elsewhere import PATIENCE, elsewhere
from llm_rebuild.diagnosis.search.known import fits, known_mistakes, worth_it
from llm_rebuild.diagnosis.transforms import called, of_weights, transforms


def on_the_way(case: Case, world: World) -> Iterator[Found]:
    """Something was done to what went into a step, or to what came out of it."""
    assert case.target is not None
    until = time.monotonic() + PATIENCE
    for site in world.reaching(case.target, case.same):
        formula = world.formulas[site]
        tried: list[tuple[str, str, Make]] = []
        values = {name: world.value(name) for name in formula.inputs}
        for right, value in values.items():
            if value is None or not value.is_floating_point() or formula.kind == "mask":
                continue
            for action, says, do in transforms(world, value):
                cause = called(world, formula, right, action)
                given = {**values, right: do(value)}
                if not worth_it(case, formula, world, given):
                    continue

                def before(w: World, given=given, formula=formula) -> Any:  # type: ignore[no-untyped-def]
                    return world.given(given).compute(formula)

                tried.append((cause, f"what went in ({right.replace('#', '')}): {says}", before))
        for key in formula.weights:
            weight = world.weights[key]
            for cause, says, do in of_weights(world, formula, weight):
                if time.monotonic() > until:
                    return
                if not worth_it(case, formula, world.with_weights({key: do(weight)}), values):
                    continue

                def with_it(w: World, do=do, key=key, weight=weight, formula=formula) -> Any:  # type: ignore[no-untyped-def]
                    return world.with_weights({key: do(weight)}).compute(formula)

                tried.append((cause, f"{key}: {says}", with_it))
        result = world.value(site)
        if result is not None and result.is_floating_point() and formula.kind != "mask":
            for action, says, do in transforms(world, result):
                cause = called(world, formula, None, action)
                after = f"what came out: {says}"
                tried.append((cause, after, lambda w, do=do, result=result: do(result)))  # type: ignore[misc]
        for cause, says, make in tried:
            level = fits(case, world, Hypothesis(cause, says, {site: make}))
            if level:
                yield Found(cause, says, level, 0.9 if level == 2 else 0.8, site)
                return
            if time.monotonic() > until:
                return


def in_part(case: Case, world: World) -> Iterator[Found]:
    """A mistake that was made in some heads, tokens or rows only: the others are right."""
    for axis, places, says in numbers.parts_that_differ(case.mine, case.official):
        narrow = replace(case, part=(axis, places))
        found = [*known_mistakes(narrow, world), *elsewhere(narrow, world)]
        for f in found:
            yield replace(f, says=f"{f.says}, {says}", confidence=f.confidence - 0.05, hypothesis=None)
        if found:
            return
