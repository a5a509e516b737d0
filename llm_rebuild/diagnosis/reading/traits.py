"""What is peculiar to the operations that a person wrote for a step, however they spelled it.

A norm, a softmax, heads that are cut: each can be written in twenty ways, and of most of them no operation
stands beside an official one. But over which axis something is summed up, in which type it is kept and where
a small number is added can be seen in any.
"""

from __future__ import annotations

from collections import Counter

import torch

from llm_rebuild.diagnosis.reading.record import Record
from llm_rebuild.diagnosis.reading.slices import MOVES, Slice, constants, word
from llm_rebuild.verify.recording import Node

# The traits: numbers are brought together across rows; the variance is by n - 1; a small number is added to
# a root, or another one than officially below it; numbers are rounded, or kept in a narrower type; the same
# is computed as officially, and numbers are only moved.
ACROSS, BY_LESS, OUTSIDE, OTHER_EPS, NARROWER, MOVED_ONLY = (
    "across",
    "by less",
    "outside",
    "eps",
    "narrow",
    "moved",
)
SUMS_UP = {
    "mean",
    "sum",
    "var",
    "std",
    "var_mean",
    "amax",
    "amin",
    "norm",
    "linalg_vector_norm",
    "median",
    "softmax",
}
ROOTS = {"sqrt", "rsqrt", "reciprocal", "std", "norm", "linalg_vector_norm"}
PUTS_TOGETHER = MOVES | {"stack", "cat", "flip", "roll", "index", "constant_pad_nd", "lift_fresh"}
SMALL = 0.02  # an epsilon, whoever chose it
NARROW = {torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8}


def traits(between: Slice, number: int, other: int) -> tuple[str, ...]:
    """Those of the person's operations between what is right and a tensor, beside the official ones."""
    record, official = between.person.record, between.official.record
    own = [record[n] for n in between.operations(number) if record[n].value is not None and record[n].inputs]
    theirs = [official[n] for n in between.official_operations(other) if official[n].inputs]
    right = {x for node in theirs for x in constants(node) if type(x) is float}
    added = [(node, x) for node in own if word(node) == "add" for x in constants(node) if _small(x)]
    seen = {
        ACROSS: any(_across(record, node) for node in own) and not any(_across(official, n) for n in theirs),
        BY_LESS: any(
            word(node) in ("var", "std", "var_mean") and node.named.get("correction") != 0 for node in own
        ),
        OUTSIDE: any(_root(record, node) for node, _ in added),
        OTHER_EPS: any(x not in right and not _root(record, node) for node, x in added),
        NARROWER: any(node.value.dtype in NARROW or word(node) == "round" for node in own),
        MOVED_ONLY: _computing(own) == _computing(theirs),
    }
    return tuple(trait for trait, there in seen.items() if there)


def _small(x: object) -> bool:
    return type(x) is float and 0 < x < SMALL


def _root(record: Record, node: Node) -> bool:
    """Whether an operation is done to a root, or to one over it."""
    return any(
        record[i].operation in ROOTS
        or (record[i].operation == "pow" and abs(constants(record[i])[-1]) == 0.5)
        for i in node.inputs
    )


def _computing(nodes: list[Node]) -> Counter[str]:
    return Counter(word(node) for node in nodes if node.operation not in PUTS_TOGETHER)


def _across(record: Record, node: Node) -> bool:
    """Whether an operation brings numbers together that do not stand in one row of the last axis."""
    if word(node).strip("_") not in SUMS_UP:
        return False
    whole, left = record[node.inputs[0]].value.shape, node.value.shape
    if left == whole:  # each of a sum's parts is still there
        axis = next((x for x in constants(node) if type(x) is int), -1)
        return axis % len(whole) != len(whole) - 1
    return tuple(left) not in (tuple(whole[:-1]), (*whole[:-1], 1))
