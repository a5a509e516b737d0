"""What is peculiar to a kind of step and goes wrong there: tables of functions of tensors.

A mistake computes with the same numbers as the step itself: the official tensors before it and the weight
file. It never looks at the tensor that it should explain. What can happen at any step (another tensor,
another weight, something done on the way) is not here but in `edits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llm_rebuild.diagnosis.graph import Edit, World
from llm_rebuild.diagnosis.wrong import (
    embeddings,
    feed_forward,
    heads,
    linear,
    masks,
    norms,
    scores,
    sentence,
    sums,
)
from llm_rebuild.diagnosis.wrong.base import Also, Table, edits
from llm_rebuild.models.formulas import Formula

TABLES: dict[str, tuple[Also, Table]] = {
    kind: table
    for module in (embeddings, sums, norms, linear, heads, scores, masks, feed_forward, sentence)
    for kind, table in module.TABLES.items()
}
TABLES["conv1d"] = TABLES["linear"]
# What changes several steps at once, or depends on the run: functions. These come before the table …
FIRST: dict[str, Callable[[World, Formula], Iterator[Edit]]] = {
    "bucket": embeddings.bucket,
    "add": sums.add,
    "residual": sums.add,
    "split": heads.split,
    "product": scores.product,
    "scale": scores.scale,
    "mask": masks.mask,
    "act": feed_forward.act,
    "gelu ": feed_forward.act,
}
# … and these after it.
LAST: dict[str, Callable[[World, Formula], Iterator[Edit]]] = {
    "cat": heads.of_other_blocks,
    "same": heads.of_other_blocks,
    "add bias": scores.add_bias,
    "add mask": scores.add_mask,
}


def called(formula: Formula) -> str:
    """A step's kind, or more exactly: what is looked up, added, or computed in an activation."""
    facts, kind = formula.facts, formula.kind
    if kind == "lookup":
        return str(facts["what"])
    if kind == "add" and facts.get("residual"):
        return "residual"
    if kind == "multiply" and facts.get("norm of"):
        return "normed"
    if kind == "elementwise":
        return "gelu " if "name" in facts else f"gelu {formula.name.rpartition('.')[2]}"
    return kind


def mistakes(world: World, formula: Formula) -> Iterator[Edit]:
    """All mistakes that are known at this step, the likelier first."""
    name = called(formula)
    if name in FIRST:
        yield from FIRST[name](world, formula)
    also, table = TABLES.get(name, ({}, ()))
    yield from edits(world, formula, table, also)
    if name in LAST:
        yield from LAST[name](world, formula)
