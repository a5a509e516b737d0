"""What the catalogue calls it: from the kind of step and the kind of edit to a cause.

An edit is described without its name (`edits.py`, `numbers.py`); here stands what it means at the step where
it was made, in one table and, for what goes into a step, one ladder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llm_rebuild.checkpoints import part_of
from llm_rebuild.diagnosis.graph import MINE, Make, World
from llm_rebuild.diagnosis.wrong import called
from llm_rebuild.models.formulas import PAST, Formula

# Kinds of edit.
FACTOR, SHIFT, MOVED, NARROW, NORM, BENT, OTHER = (
    "factor",
    "shift",
    "moved",
    "narrow",
    "norm",
    "bent",
    "other",
)
ANYWHERE = {NARROW: "wrong-dtype", NORM: "norm-twice", BENT: "activation-other"}

# What it means of a step's result: that it is the right one times a number, that something was added, and
# that it is wrong in any other way.
OF_RESULT: Mapping[str, tuple[str, str, str]] = {
    "token": ("embedding-scaled", "token-ids-wrong", "token-ids-wrong"),
    "position": ("embedding-scaled", "positions-wrong", "positions-wrong"),
    "type": ("embedding-scaled", "token-types-wrong", "token-types-wrong"),
    "bucket": ("embedding-scaled", "buckets-count", "buckets-count"),
    "add": ("embedding-scaled", "shifted", "wrong-operand"),
    "residual": ("residual-scaled", "shifted", "residual-wrong"),
    "linear": ("scaled", "bias-wrong", "unknown"),
    "conv1d": ("scaled", "bias-wrong", "unknown"),
    "head": ("output-scale-wrong", "bias-wrong", "untied-head"),
    "output": ("output-scale-wrong", "shifted", "output-scale-wrong"),
    "cat": ("cache-mixed", "shifted", "cache-mixed"),
    "product": ("scale-order", "shifted", "wrong-operand"),
    "unscaled": ("scale-extra", "shifted", "wrong-operand"),
    "scale": ("scale-wrong", "shifted", "scale-wrong"),
    "add bias": ("scale-extra", "shifted", "position-bias-wrong"),
    "add mask": ("scale-order", "shifted", "mask-fill"),
    "softmax": ("softmax-changed", "shifted", "softmax-changed"),
    "mix": ("wrong-operand", "shifted", "wrong-operand"),
    "merge": ("heads-merged", "shifted", "heads-merged"),
    "act": ("activation-other", "shifted", "activation-other"),
    "gelu": ("gelu-constant", "gelu-constant", "gelu-constant"),
    "layer norm": ("norm-affine-wrong", "norm-affine-wrong", "norm-affine-wrong"),
    "stretch": ("norm-affine-wrong", "norm-affine-wrong", "norm-affine-wrong"),
    "square": ("norm-variance", "shifted", "norm-variance"),
    "mean square": ("norm-variance", "shifted", "norm-variance"),
    "plus eps": ("scaled", "norm-eps", "unknown"),
    "inverse root": ("norm-variance", "norm-eps-place", "norm-variance"),
    "normed": ("norm-variance", "shifted", "unknown"),
    "multiply": ("norm-variance", "shifted", "unknown"),
    "first token": ("pooler-token", "shifted", "pooler-token"),
    "masked": ("pool-other", "shifted", "pool-other"),
    "total": ("pool-other", "shifted", "pool-other"),
    "count": ("pool-other", "pool-other", "pool-other"),
    "divide": ("pool-other", "shifted", "pool-other"),
    "unit": ("normalised-wrong", "shifted", "normalised-wrong"),
}
# What it means that something else went into a step of this kind.
OF_INPUT = {
    "product": "wrong-operand",
    "mix": "wrong-operand",
    "merge": "heads-merged",
    "unit": "normalised-wrong",
    "softmax": "softmax-changed",
    "masked": "pool-other",
    "total": "pool-other",
    "count": "pool-other",
    "divide": "pool-other",
}


def role(formula: Formula) -> str:
    """What a step is in `OF_RESULT`."""
    for fact in ("head", "output", "unscaled"):
        if formula.facts.get(fact):
            return fact
    return called(formula).partition(" ")[0] if formula.kind == "elementwise" else called(formula)


def of_result(formula: Formula | None, action: str) -> str:
    """The cause of an edit of a step's result; `None` is a step that nothing is known of."""
    if action in ANYWHERE:
        return ANYWHERE[action]
    column = {FACTOR: 0, SHIFT: 1}.get(action, 2)
    unknown = ("scaled", "shifted", "unknown")
    return (OF_RESULT.get(role(formula), unknown) if formula is not None else unknown)[column]


def of_guess(formula: Formula | None) -> str:
    """What is most often wrong with a step, where nothing is known but that it is wrong."""
    if formula is None or formula.facts.get("what") == "bucket":
        return "unknown" if formula is None else "position-bias-wrong"
    if formula.kind == "elementwise" and "name" in formula.facts:
        return "activation-other"
    return of_result(formula, OTHER)


def of_input(world: World, formula: Formula, right: str, action: str) -> str:
    """The cause of an edit of what goes into a step, where `right` belongs."""
    if action in ANYWHERE:
        return ANYWHERE[action]
    before, facts, scaled = world.formulas.get(right), formula.facts, action == FACTOR
    kind = before.kind if before is not None else ""
    residual = facts.get("residual")
    if residual is not None:
        return "residual-scaled" if scaled else "residual-wrong" if right == residual else "wrong-operand"
    if kind == "lookup" and scaled:
        return "embedding-scaled"
    if formula.kind == "split" and "part" in facts and action == MOVED:
        return "qkv-order"
    if facts.get("cross") == right:
        return "cross-attention-source"
    if right.startswith(PAST) or (
        before is not None and kind == "same" and before.inputs[0].startswith(PAST)
    ):
        return "cache-order"
    if kind in ("bias by head", "biased mask"):
        return "position-bias-wrong"
    if kind == "mask":
        return "mask-fill" if scaled else "mask-direction"
    if formula.kind == "product" and scaled:
        return "scale-extra" if facts.get("unscaled") else "scale-order"
    if facts.get("head") and scaled:
        return "output-scale-wrong"
    return OF_INPUT.get(formula.kind, "scaled" if scaled else "wrong-input")


def of_weight(formula: Formula, action: str) -> str:
    """The cause of an edit of a weight of a step."""
    if action == NARROW:
        return ANYWHERE[NARROW]
    if action == MOVED:
        return "weight-transposed"
    if action == FACTOR and formula.kind == "lookup":
        return "embedding-scaled"
    if formula.facts.get("head"):
        return "output-scale-wrong" if action == FACTOR else "untied-head"
    return "norm-affine-wrong" if formula.kind in ("layer norm", "stretch") else "wrong-weight"


def of_other_input(
    world: World, formula: Formula, right: str, name: str, shown: bool
) -> Iterator[tuple[str, str, dict[str, Make] | None]]:
    """What it can mean that `name` went in where `right` belongs: the cause, in words, and what would then
    be changed if it is more than this step. `shown`: the person has `right`, as it should be."""
    other, own, facts = name.removeprefix(MINE), name.startswith(MINE), formula.facts
    says = f"{'your own ' if own else ''}{other.replace('#', '')} went in instead of {right.replace('#', '')}"
    everywhere: dict[str, Make] = {right: lambda w: world.value(name)}
    into, came = world.run.blocks.get(right), world.run.blocks.get(other)
    before = world.formulas.get(right)
    if into is not None and came is not None and facts.get("residual") != right:
        if own:
            yield "block-order", f"{says}: another block ran before", None
        elif came <= into:
            yield "block-skipped", f"{says}: what lies between was left out", everywhere
            yield "wrong-input", says, None
        else:
            yield "block-repeated", f"{says}: this block ran before already", everywhere
        return
    if facts.get("norm") == other:
        yield "norm-twice", says, None
    elif own and after_its_half_block(formula, other):
        yield "norm-position", f"{says}: the norm stands after the half-block", None
    elif right.startswith(PAST):
        yield "cache-order", says, None
    elif facts.get("cross") == right:
        yield "cross-attention-source", says, None
    elif facts.get("residual") == right:
        yield "residual-wrong", says, None
    elif formula.kind == "add bias" and right == formula.inputs[1]:
        yield "position-bias-wrong", says, None
    elif formula.kind in ("product", "mix", "multiply", "add"):
        yield "wrong-operand", says, None
    elif before is not None and before.kind == "scale" and before.facts.get("output"):
        yield "output-scale-missing", says, None
    else:
        yield from _left_out(before, other, says, shown)
        if right in world.formulas and world.formulas[right].facts.get("residual") and not own:
            yield "block-skipped", f"{says}: the half-block between them has no effect", everywhere


def _left_out(before: Formula | None, other: str, says: str, shown: bool) -> Iterator[tuple[str, str, None]]:
    """The step before was passed over, or simply another tensor was taken. Where a norm's own result was
    shown, and is right, it was hardly forgotten."""
    norm = before is not None and before.kind in ("layer norm", "stretch")
    source = before.facts.get("norm of", next(iter(before.inputs), "")) if before is not None else ""
    forgotten = "norm-missing", f"{says}: what should have been normalised first", None
    if norm and other == source and not shown:
        yield forgotten
    elif before is not None and "name" in before.facts and other == before.facts.get("x"):
        yield "activation-missing", says, None
    yield "wrong-input", says, None
    if norm and other == source and shown:
        yield forgotten


def after_its_half_block(formula: Formula, other: str) -> bool:
    """Whether a norm, or a step of one, was given something that its own half-block made."""
    norm = formula.kind == "layer norm" or "norm" in formula.facts
    return norm and part_of(other) == part_of(formula.name)
