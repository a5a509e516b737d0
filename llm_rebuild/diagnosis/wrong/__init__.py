"""What is peculiar to a kind of step and goes wrong there: tables of functions of tensors.

A mistake computes with the same numbers as the step itself: the official tensors before it and the weight
file. It never looks at the tensor that it should explain. What can happen at any step (it is left out, done
twice, with another number, tensor or weight, or something is done on the way) is not here but in `edits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from llm_rebuild.diagnosis.graph import Edit, Formula, World
from llm_rebuild.diagnosis.names import called
from llm_rebuild.diagnosis.wrong import attention, layers, masks, sentence
from llm_rebuild.diagnosis.wrong.base import Table, edits

TABLES: dict[str, Table] = {**layers.TABLES, **attention.TABLES, **masks.TABLES, **sentence.TABLES}
TABLES["conv1d"] = TABLES["linear"]
# What changes several steps at once, or depends on the run: functions. These come before the table …
FIRST: dict[str, Callable[[World, Formula], Iterator[Edit]]] = {
    "bucket": layers.bucket,
    "split": attention.split,
    "product": attention.product,
    "scale": attention.scale,
    "mask": masks.mask,
    "act": layers.act,
    "gelu ": layers.act,
}
# … and these after it.
LAST: dict[str, Callable[[World, Formula], Iterator[Edit]]] = {
    "add bias": attention.add_bias,
    "add mask": attention.add_mask,
}


def mistakes(world: World, formula: Formula) -> Iterator[Edit]:
    """All mistakes that are known at this step, the likelier first."""
    name = called(formula)
    if name in FIRST:
        yield from FIRST[name](world, formula)
    yield from edits(world, formula, TABLES.get(name, ()))
    if name in LAST:
        yield from LAST[name](world, formula)
