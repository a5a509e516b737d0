"""What is peculiar to the operations that a person wrote for a step, however they spelled it.

A norm, a softmax, heads that are cut: each can be written in twenty ways, and of most of them no operation
stands beside an official one. But over which axis something is summed up, in which type it is kept and where
a small number is added can be seen in any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from llm_rebuild.diagnosis.reading.record import Record
from llm_rebuild.diagnosis.reading.slices import MOVES, REPEATS, Difference, Slice, constants, word
from llm_rebuild.verify.recording import Node

ROOTS = {"sqrt", "rsqrt", "reciprocal", "std", "norm", "linalg_vector_norm"}
SPREADS = {"var", "std", "var_mean"}
SUMS_UP = SPREADS | {"mean", "sum", "amax", "amin", "norm", "linalg_vector_norm", "median", "softmax"}
PUTS_TOGETHER = MOVES | REPEATS | {"stack", "cat", "flip", "roll", "embedding"}
NARROW = {torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8}
DRAWN = {"uniform", "normal", "rand", "randn", "trunc_normal"}
SMALL = 0.02  # an epsilon, whoever chose it


def traits(between: Slice, edit: Difference, number: int, other: int) -> tuple[str, ...]:
    """Those of the person's operations between what is right and a tensor, beside the official ones: those
    that `telling` finds; numbers are only `moved` otherwise; what is edited is one operation too many, `by a
    tensor` of many numbers; and the tensor is right, and `another` checkpoint."""
    record = between.person.record
    seen = {
        **telling(between, number, other),
        "moved": _moved(between, *_sides(between, number, other)),
        "by a tensor": edit.kind == "drop" and _by_a_tensor(record, record[edit.node], edit.other),
        "another": between.another(number),
    }
    return tuple(trait for trait, shown in seen.items() if shown)


def telling(between: Slice, number: int, other: int) -> dict[str, list[Node]]:
    """Of the same operations those of which one alone says something: numbers are `rounded`, or kept in a
    `narrow` type; random ones are `drawn`; something is summed up `across` rows; a variance is one `by less`
    than there are; a small number is added `outside`, to a root, or is another `eps`."""
    record, official = between.person.record, between.official.record
    own, theirs = _sides(between, number, other)
    right = {x for node in theirs for x in constants(node) if type(x) is float}
    added = [(node, x) for node in own if word(node) == "add" for x in constants(node)]
    small = [(node, x) for node, x in added if type(x) is float and 0 < x < SMALL]
    across = [node for node in own if _across(record, node)]
    return {
        "narrow": [node for node in own if node.value.dtype in NARROW],
        "rounded": [node for node in own if word(node) == "round"],
        "across": [] if any(_across(official, node) for node in theirs) else across,
        "drawn": [node for node in own if node.operation.strip("_") in DRAWN],
        "by less": [n for n in own if word(n) in SPREADS and n.named.get("correction") != 0],
        "outside": [node for node, _ in small if _to_a_root(record, node)],
        "eps": [node for node, x in small if x not in right and not _to_a_root(record, node)],
    }


def _sides(between: Slice, number: int, other: int) -> tuple[list[Node], list[Node]]:
    """What was computed between what is right and a tensor, and officially."""
    own = [between.person.record[n] for n in between.operations(number)]
    theirs = [between.official.record[n] for n in between.official_operations(other)]
    return [n for n in own if n.value is not None and n.inputs], [n for n in theirs if n.inputs]


def _moved(between: Slice, own: Sequence[Node], theirs: Sequence[Node]) -> bool:
    """Whether the same is computed, and with the same numbers."""
    computes = lambda node: word(node) not in PUTS_TOGETHER  # noqa: E731
    computing = [sorted(filter(computes, nodes), key=word) for nodes in (own, theirs)]
    if Counter(map(word, computing[0])) != Counter(map(word, computing[1])):
        return False
    records, computed = (between.person.record, between.official.record), set[int]()
    for node in own:  # what was computed before has other numbers where these were put otherwise
        if node in computing[0] or computed & set(node.inputs):
            computed.add(node.number)
    for one, two in zip(*computing, strict=True):
        right = torch.cat([_numbers(records[1][o]) for o in two.inputs])
        if not all(torch.isin(_numbers(records[0][i]), right).all() for i in {*one.inputs} - computed):
            return False
    return True


def _numbers(node: Node) -> Tensor:
    """A tensor's numbers in a row, of whatever type."""
    value: Tensor = node.value
    return (torch.view_as_real(value) if value.is_complex() else value).double().flatten()


def _to_a_root(record: Record, node: Node) -> bool:
    """Whether an operation is done to a root, or to one over it."""
    made = [record[i] for i in node.inputs]
    return any(word(n) in ROOTS or (word(n) == "pow" and constants(n)[-1:] in ([0.5], [-0.5])) for n in made)


def _by_a_tensor(record: Record, node: Node, changed: int) -> bool:
    """Whether an operation changes a tensor by many numbers, and not by a single one; or divides by it."""
    at = node.inputs.index(changed)
    others = (*node.inputs[:at], *node.inputs[at + 1 :])
    return any(record[i].value.numel() > 1 for i in others) or (at > 0 and word(node) == "div")


def _across(record: Record, node: Node) -> bool:
    """Whether an operation brings numbers together that do not stand in one row of the last axis."""
    if word(node) not in SUMS_UP:
        return False
    before, after = tuple(record[node.inputs[0]].value.shape), tuple(node.value.shape)
    if after == before:  # each of a sum's parts is still there
        axis = next((x for x in constants(node) if type(x) is int), -1)
        return axis % max(len(before), 1) != len(before) - 1
    return after not in (before[:-1], (*before[:-1], 1))
