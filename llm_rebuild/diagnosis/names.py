"""What the catalogue calls it: from the kind of step and the kind of edit to a cause.

An edit is described without its name (`edits.py`, `numbers.py`); here stands what it means at the step where
it was made, in one table and, for what goes into a step, one ladder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from llm_rebuild.diagnosis.graph import MINE, NORM_STEPS, PAST, Formula, Make, World
from llm_rebuild.diagnosis.reading.result import Repair
from llm_rebuild.weights import template

# Kinds of edit.
LEFT, FACTOR, SHIFT, MOVED = "left out", "factor", "shift", "moved"
NARROW, NORM, BENT, RELU, OTHER = "narrow", "norm", "bent", "relu", "other"
ANYWHERE = {NARROW: "wrong-dtype", NORM: "norm-twice", BENT: "activation-other", RELU: "activation-relu"}

# What it means of a step: that it was left out; that its result is the right one times a number; that
# something was added to it; that it is wrong in any other way.
OF_STEP: Mapping[str, tuple[str, str, str, str]] = {
    "token": ("token-ids-wrong", "embedding-scaled", "token-ids-wrong", "token-ids-wrong"),
    "position": ("positions-missing", "embedding-scaled", "positions-wrong", "positions-wrong"),
    "type": ("token-types-missing", "embedding-scaled", "token-types-wrong", "token-types-wrong"),
    "bucket": ("position-bias-missing", "scaled", "buckets-count", "buckets-count"),
    "add": ("wrong-operand", "embedding-scaled", "shifted", "wrong-operand"),
    "residual": ("wrong-operand", "residual-scaled", "shifted", "residual-wrong"),
    "linear": ("unknown", "scaled", "bias-wrong", "unknown"),
    "conv1d": ("unknown", "scaled", "bias-wrong", "unknown"),
    "head": ("unknown", "output-scale-wrong", "shifted", "untied-head"),
    "output": ("output-scale-missing", "output-scale-wrong", "shifted", "output-scale-wrong"),
    "cat": ("cache-not-appended", "scaled", "shifted", "cache-mixed"),
    "embedding": ("embedding-scaled", "embedding-scaled", "shifted", "embedding-scaled"),
    "turns": ("rotary-wrong", "scaled", "positions-shifted", "rotary-base"),
    "twice": ("rotary-wrong", "rotary-wrong", "positions-shifted", "rotary-wrong"),
    "longer wave": ("scaled", "scaled", "shifted", "scaled"),
    **dict.fromkeys(("wave", "minus", "swapped"), ("rotary-wrong",) * 4),
    "by wave": ("rotary-missing", "rotary-wrong", "rotary-wrong", "rotary-wrong"),
    "rotate": ("rotary-missing", "scale-extra", "shifted", "rotary-wrong"),
    "grouped": ("heads-shared-wrong", "scale-extra", "shifted", "heads-shared-wrong"),
    "repeat": ("heads-shared-wrong", "scale-extra", "shifted", "heads-shared-wrong"),
    **dict.fromkeys(("product", "unscaled"), ("wrong-operand", "scale-extra", "shifted", "wrong-operand")),
    "scale": ("scale-missing", "scale-wrong", "shifted", "scale-wrong"),
    "add bias": ("position-bias-missing", "scale-extra", "shifted", "position-bias-wrong"),
    "add mask": ("mask-missing", "scale-order", "shifted", "mask-fill"),
    "softmax": ("softmax-missing", "softmax-changed", "shifted", "softmax-changed"),
    "mix": ("wrong-operand", "wrong-operand", "shifted", "wrong-operand"),
    **dict.fromkeys(("merge", "by token"), ("heads-merged", "heads-merged", "shifted", "heads-merged")),
    "act": ("activation-missing", "activation-other", "shifted", "activation-other"),
    "gelu": ("gelu-constant",) * 4,
    "layer norm": ("norm-missing", "norm-affine-wrong", "norm-affine-wrong", "norm-affine-wrong"),
    "stretch": ("norm-affine-missing", "norm-affine-wrong", "norm-affine-wrong", "norm-affine-wrong"),
    "square": ("norm-variance", "norm-variance", "shifted", "norm-variance"),
    "mean square": ("norm-variance", "norm-variance", "shifted", "norm-variance"),
    "plus eps": ("norm-eps-place", "scaled", "norm-eps", "unknown"),
    "inverse root": ("norm-variance", "norm-variance", "norm-eps-place", "norm-variance"),
    "normed": ("norm-missing", "norm-variance", "shifted", "unknown"),
    "multiply": ("wrong-operand", "norm-variance", "shifted", "wrong-operand"),
    "first token": ("pooler-token", "pooler-token", "shifted", "pooler-token"),
    "masked": ("pool-padding", "pool-other", "shifted", "pool-other"),
    "total": ("pool-other", "pool-other", "shifted", "pool-other"),
    "count": ("pool-other", "pool-other", "pool-other", "pool-other"),
    "divide": ("pool-other", "pool-other", "shifted", "pool-other"),
    "unit": ("not-normalised", "normalised-wrong", "shifted", "normalised-wrong"),
}
COLUMN = {LEFT: 0, FACTOR: 1, SHIFT: 2}
NOTHING_KNOWN = ("unknown", "scaled", "shifted", "unknown")
# Kinds into which something wrong goes as seldom as something wrong comes out: it is called the same.
AS_RESULT = {"product", "mix", "merge", "unit", "softmax", "masked", "total", "count", "divide"}
AS_RESULT |= {"elementwise"}
ANGLES = {"twice", "wave", "minus", "swapped"}
TURNS = {*ANGLES, "by wave", "rotate"}
# Kinds of which it is a wrong operand, and no wrong input, that was taken.
OF_OPERANDS = {"product", "mix", "multiply", "add", "split", "repeat", "by wave"}
# What it is to do a step twice, where it has a name of its own.
TWICE = {"layer norm": "norm-twice", "normed": "norm-twice", "scale": "scale-extra"}
# What it is to compute with another number, by the fact's name.
OF_FACT = {
    "eps": "norm-eps", "both_ways": "buckets-direction", "count": "buckets-count",
    "limit": "buckets-count", "by": "scale-wrong", "first": "positions-shifted",
}  # fmt: skip


def called(formula: Formula) -> str:
    """A step's kind, or more exactly: what is looked up, added, or computed in an activation."""
    facts, kind = formula.facts, formula.kind
    if kind == "lookup":
        return str(facts["what"])
    if kind == "add" and facts.get("residual"):
        return "residual"
    if kind == "multiply" and facts.get("whole"):
        return "normed"
    if kind == "elementwise":
        return "gelu " if "name" in facts else f"gelu {facts['step']}"
    return kind


# What it means that something was put right in a person's code, where that is more than the columns above
# say: by the kind of step and of repair, those of `reading/result.py`; or, at whatever step, by what was
# edited.
REPLACED, LAID_OUT, VALUE, WHOLE = "replace", "layout", "value", "whole"
CONSTANT, OPERAND, DROP, INSERT = "constant", "operand", "drop", "insert"
OF_REPAIR = {
    ("scale", INSERT): "scale-missing", ("position", CONSTANT): "positions-shifted",
    **dict.fromkeys((("layer norm", CONSTANT), ("plus eps", CONSTANT), ("plus eps", DROP)), "norm-eps"),
    ("inverse root", DROP): "norm-eps", ("plus eps", REPLACED): "norm-eps-place",
    ("square", INSERT): "norm-variance", ("gelu", CONSTANT): "gelu-constant",
    ("act", INSERT): "activation-missing", ("softmax", CONSTANT): "softmax-axis",
    ("linear", INSERT): "bias-missing", ("conv1d", INSERT): "bias-missing",
    ("mask", INSERT): "mask-missing", ("mask", VALUE): "mask-padding-missing",
    **dict.fromkeys((("mask", CONSTANT), ("biased mask", CONSTANT), ("biased mask", REPLACED)), "mask-fill"),
    **{(step, LAID_OUT): "heads-split" for step in ("product", "unscaled", "mix")},
    ("merge", LAID_OUT): "heads-merged", ("cat", LAID_OUT): "cache-order",
    ("add", CONSTANT): "embedding-scaled", ("residual", CONSTANT): "residual-scaled",
}  # fmt: skip
OF_OPERATION = {
    **{(name, DROP): "dropout" for name in ("native_dropout", "dropout", "bernoulli", "_fused_dropout")},
    **{(name, kind): "wrong-dtype" for name in ("_to_copy", "to") for kind in (DROP, LAID_OUT, CONSTANT)},
    **{(name, DROP): "norm-twice" for name in ("native_layer_norm", "layer_norm", "rms_norm")},
    **{(name, LAID_OUT): "qkv-order" for name in ("split", "split_with_sizes", "chunk", "unbind")},
}
# Where a mask is made: a step that makes none compares for something else.
MASKS = ("mask", "biased mask")
OF_MASK = {
    **{(name, kind): "mask-inverted" for name in ("bitwise_not", "logical_not") for kind in (DROP, VALUE)},
    **{(name, CONSTANT): "mask-off-by-one" for name in ("tril", "triu")},
    **{(name, REPLACED): "mask-off-by-one" for name in ("le", "lt", "ge", "gt", "tril", "triu")},
    **{(name, INSERT): "mask-causal-missing" for name in ("le", "lt", "ge", "gt", "tril", "triu")},
    **{(name, VALUE): "mask-direction" for name in ("transpose", "permute", "t")},
}
# What says no more than that another tensor went in; or that a step is otherwise, whatever was done.
TAKEN = {"wrong-operand", "wrong-input", "residual-wrong", "cross-attention-source"}
FROM_ELSEWHERE = {"residual-wrong", "cross-attention-source"}  # and of these, that it stood elsewhere
LOOSE = {"softmax-changed", "activation-other", "norm-affine-wrong", "norm-variance", "heads-merged"}
LOOSE |= {"buckets-count", "token-ids-wrong", "positions-wrong", "normalised-wrong", "pool-other"}
# What the traits of the operations mean that were written for a step: at any; in a norm; in a softmax.
NORMS = {"layer norm", "square", "mean square", "plus eps", "inverse root", "normed", "stretch"}
OF_NORM = {"across": "norm-axis", "by less": "norm-variance", "outside": "norm-eps-place", "eps": "norm-eps"}
OF_TRAIT = {(step, trait): cause for step in NORMS for trait, cause in OF_NORM.items()}
OF_TRAIT["softmax", "across"] = "softmax-axis"
AND, OR = {"bitwise_and", "logical_and"}, {"bitwise_or", "logical_or"}
# What an operation does that was one too many.
DOES = {
    **dict.fromkeys(("mul", "div", "neg"), FACTOR),
    **dict.fromkeys(("add", "sub", "rsub", "_log_softmax"), SHIFT),
    "relu": RELU,
    **dict.fromkeys(("gelu", "tanh", "sigmoid", "silu", "erf"), BENT),
    **dict.fromkeys(("transpose", "permute", "t", "flip", "roll"), MOVED),
}
BINARY = ("add", "add bias", "add mask", "multiply", "stretch", "divide", "elementwise")  # of two tensors
JOINING = ("add", "sub", "rsub", "mul", "div", "pow", "maximum", "minimum")
CHOOSING = ("select", "slice", "expand", "index_select")  # some of a tensor's numbers, or one for several
# What says of a step only how its numbers look: the code that was read says more.
VAGUE = {"unknown", "scaled", "shifted", "permuted", "another-checkpoint", "not-computed"}


def shares_heads(formula: Formula) -> bool:
    """Whether a step lays out keys or values that several queries share."""
    return formula.kind in ("grouped", "repeat")


def role(formula: Formula) -> str:
    """What a step is in `OF_STEP`."""
    for fact in ("head", "output", "embedding", "unscaled"):
        if formula.facts.get(fact):
            return fact
    if formula.kind == "scale" and formula.facts.get("wave"):
        return "longer wave"
    return called(formula).partition(" ")[0] if formula.kind == "elementwise" else called(formula)


def of_result(formula: Formula | None, action: str) -> str:
    """The cause of an edit of a step's result; `None` is a step that nothing is known of."""
    if action in ANYWHERE and (formula is None or formula.kind != "unit" or action == NARROW):
        return ANYWHERE[action]
    row = OF_STEP.get(role(formula), NOTHING_KNOWN) if formula is not None else NOTHING_KNOWN
    cause = row[COLUMN.get(action, 3)]
    if action == MOVED:  # the right numbers at other places
        names = {"unknown": "permuted", "untied-head": "permuted", "buckets-count": "position-bias-wrong"}
        cause = names.get(cause, cause)
    return cause


def is_telling(formula: Formula, cause: str, action: str) -> bool:
    """Whether something done to a tensor is what a cause says. One of many ways to change numbers, or to put
    them elsewhere, has only the likeliest name; and where no activation belongs, none is another."""
    if action in (RELU, BENT):
        return role(formula) in ("act", "gelu")
    return action not in (MOVED, OTHER) or cause in TAKEN | LOOSE | VAGUE


def left_out(world: World, formula: Formula, present: str) -> str:
    """The cause where a tensor that goes into a step came out of it as it was."""
    if formula.facts.get("whole") == present and formula.kind == "stretch":
        return "norm-missing"
    if formula.facts.get("whole") == present and "name" in formula.facts:
        return "activation-missing"
    for absent in formula.inputs:
        if absent != present and formula.kind == "add":
            before = world.formulas.get(absent)
            if absent == formula.facts.get("residual"):
                return "residual-missing"
            if before is not None and before.kind == "biased mask":
                return "mask-missing"
            if before is not None and before.kind == "lookup":
                return of_result(before, LEFT) if before.facts["what"] != "token" else "wrong-operand"
    return of_result(formula, LEFT)


def in_part(formula: Formula | None, cause: str) -> str:
    """The cause where a mistake shows in a part of a tensor: then positions are counted in no one way, and
    what is turned nowhere is turned elsewhere."""
    if formula is None or formula.kind not in ("turns", *TURNS):
        return cause
    return {"positions-shifted": "positions-wrong", "rotary-missing": "rotary-wrong"}.get(cause, cause)


def of_twice(world: World, formula: Formula, right: str) -> str:
    """The cause where a step was done a second time to what came out of it, in the place of `right`."""
    if formula.kind.startswith("add"):
        return of_input(world, formula, next((i for i in formula.inputs if i != right), right), FACTOR)
    if role(formula) in ("output", "longer wave"):
        return of_result(formula, FACTOR)
    return TWICE.get(called(formula), of_result(formula, OTHER))


def of_fact(formula: Formula, fact: str) -> str:
    """The cause of another number at a step."""
    scaled = role(formula) in ("output", "embedding", "longer wave")
    return of_result(formula, FACTOR) if scaled else OF_FACT[fact]


def of_operator(formula: Formula, sign: str) -> str:
    """The cause of another operation of two; `unknown` where it would say that another tensor went in."""
    named = {"elementwise": ANYWHERE[BENT], "add mask": "mask-inverted" if sign == "-" else "unknown"}
    if formula.kind in named:
        return named[formula.kind]
    part = sign == "-" and formula.kind == "add"
    cause = of_result(formula, FACTOR if part or called(formula) == "normed" else OTHER)
    return "unknown" if cause in TAKEN else cause


def of_repair(world: World, formula: Formula | None, repair: Repair) -> str:
    """The cause of what was put right in a person's code; `unknown` where the catalogue has no name. Empty
    where the repair tells no more than that the step is wrong."""
    kind, operation, right = repair.kind, repair.operation, _laid_out(world, formula, repair)
    masks = formula is None or _masks(world, formula)
    of_mask = OF_MASK.get((operation, kind)) if masks else None
    if formula is None:
        return of_mask or OF_OPERATION.get((operation, kind), "unknown")
    step = role(formula)
    action = _does(repair)
    if "narrow" in repair.traits or ("rounded" in repair.traits and formula.kind != "turns"):
        return ANYWHERE[NARROW]
    if "another" in repair.traits:
        return "another-checkpoint"
    if kind == OPERAND:
        return _of_operand(world, formula, right, repair.wrong)
    if kind == VALUE and masks and formula.kind not in MASKS:  # what else a kernel is given has fractions
        return of_mask or "unknown"
    if right in world.weights and (kind == LAID_OUT or action == MOVED):
        return _of_weight_moved(formula, right, operation)
    if step == "scale" and kind == DROP and action != OTHER:
        return {FACTOR: "scale-extra", MOVED: "permuted"}.get(action) or of_result(formula, action)
    if formula.kind in MASKS and operation in AND | OR and kind == DROP:
        shown = "mask-causal-missing" if formula.facts.get("causal") else "mask-padding-missing"
        return "mask-extra" if operation in AND else shown
    if "moved" in repair.traits and (kind == WHOLE or repair.edits > 1):
        kind = LAID_OUT
    if repair.edits == 1 or kind == LAID_OUT:
        named = of_mask or OF_REPAIR.get((step, kind)) or OF_OPERATION.get((operation, kind))
        if named is not None:
            return named
    named = next((OF_TRAIT[step, trait] for trait in repair.traits if (step, trait) in OF_TRAIT), None)
    if named is not None:
        return named
    if kind in (WHOLE, LAID_OUT) and repair.kind == WHOLE:
        return of_weight(formula, "", OTHER) if "drawn" in repair.traits and formula.weights else ""
    name = _of_way(world, formula, replace(repair, right=right), action)
    whole = kind == DROP and right == formula.name  # the step itself was right
    return _of_inside(world, formula) if name == "unknown" and not whole else name


def _does(repair: Repair) -> str:
    """What an operation does that was one too many. A product with a whole tensor is no factor."""
    does = DOES.get(repair.operation, OTHER) if repair.edits == 1 else OTHER
    return OTHER if does == FACTOR and "by a tensor" in repair.traits else does


def _laid_out(world: World, formula: Formula | None, repair: Repair) -> str:
    """What belongs into a step, as it goes in there: a product is cut into heads first."""
    inputs = formula.inputs if formula is not None and repair.kind in (OPERAND, DROP) else ()
    inside = (f for name in inputs if "#" in name and (f := world.formulas.get(name)))
    return next((f.name for f in inside if repair.right in f.inputs), repair.right)


def _masks(world: World, formula: Formula) -> bool:
    """Whether a mask is made at a step, or is given to the kernel in which the step is hidden."""
    shown = [name for name in world.tensors if "#" not in name]
    return any(world.formulas[name].kind in MASKS for name in world.reaching(formula.name, shown))


def tells(world: World, formula: Formula | None, repair: Repair, cause: str) -> bool:
    """Whether what was put right says why a step was wrong, and not only that it was. It does not where the
    step has this name whatever is done to it, nor of a whole kernel, whole numbers, or what has no name."""
    kind, right = repair.kind, _laid_out(world, formula, repair)
    if cause == ANYWHERE[NARROW] and "narrow" in repair.traits:
        return True
    if kind == DROP and cause in FROM_ELSEWHERE and (repair.operation, DROP) not in OF_OPERATION:
        return False
    if formula is None or kind == VALUE:
        return cause in LOOSE or (kind != VALUE and (repair.operation, kind) not in OF_MASK)
    does = _does(repair) if kind == DROP else OTHER
    if does in (FACTOR, RELU, BENT) and (right in formula.inputs or cause == of_result(formula, does)):
        return is_telling(formula, cause, does)
    if cause in LOOSE or (right in formula.inputs and cause in TAKEN):
        return True
    if kind == OPERAND:
        return right in world.weights or bool(right and repair.wrong)
    if does == SHIFT:  # by what, was asked of a residual only
        return cause == "residual-scaled"
    bare = of_repair(world, formula, replace(repair, kind="", operation="", traits=(), edits=1))
    step, layout = role(formula), LAID_OUT if "moved" in repair.traits else kind
    named = [OF_REPAIR.get((step, layout)), *(OF_TRAIT.get((step, trait)) for trait in repair.traits)]
    return (cause != bare or cause in named) and not (kind == WHOLE and world.run.fused and step == "mix")


def _of_weight_moved(formula: Formula, key: str, operation: str) -> str:
    """The cause where a weight was laid out otherwise, or its rows stood in another order."""
    if operation not in ("flip", "roll"):
        return "weight-transposed"
    if formula.kind == "lookup":
        return "position-bias-wrong" if formula.facts["what"] == "bucket" else of_result(formula, OTHER)
    return "wrong-weight" if formula.kind in ("linear", "conv1d") else of_weight(formula, key, OTHER)


def contradicts(world: World, formula: Formula | None, repair: Repair, cause: str) -> bool:
    """Whether code that was read cannot have made a mistake of this name, though the numbers fit: a block is
    not left out whose result was there and not taken; one operation does not scale scores twice."""
    if formula is None:
        return False
    if cause == "dropout":
        return "drawn" in repair.traits and bool(formula.weights)
    if cause == "block-order":
        return repair.kind == OPERAND and repair.right in world.weights
    if cause in ("block-skipped", "block-repeated"):
        other = repair.kind == OPERAND and bool(repair.right and repair.wrong)
        return other or (repair.kind == DROP and repair.operation == "add" and repair.edits == 1)
    if repair.kind == OPERAND and formula.kind == "elementwise" and repair.wrong in world.formulas:
        other = repair.wrong != formula.facts.get("whole")  # of which a step is made, and was left out
        return other and repair.right in formula.inputs and cause == "gelu-constant"
    other = cause in ("wrong-operand", "wrong-input", "norm-eps-place")
    if other and repair.kind == CONSTANT and repair.edits == 1:
        return True  # what is given another number is there, and where it belongs
    return cause == "scale-extra" and role(formula) == "scale" and repair.kind == REPLACED


def by_a_factor(formula: Formula | None, repair: Repair, cause: str) -> bool:
    """Whether a factor was one operation too many, and the numbers show the step's result to be scaled."""
    factor = repair.kind == DROP and _does(repair) == FACTOR
    return factor and cause == of_result(formula, FACTOR)


def _of_way(world: World, formula: Formula, repair: Repair, action: str) -> str:
    """The cause of an operation too many, too few or another, in front of a step or behind it."""
    kind, right = repair.kind, repair.right
    joined = formula.kind in BINARY and len(formula.inputs) + len(formula.weights) == 2
    if kind == REPLACED and right == formula.name and joined and repair.operation in JOINING:
        return of_operator(formula, "-" if repair.operation == "sub" else "")
    if kind == INSERT:
        if formula.kind == "turns" and repair.edits > 1:  # of the places, or of how fast they turn
            return ""
        return left_out(world, formula, right) if right in formula.inputs else of_result(formula, OTHER)
    product = formula.kind in ("linear", "conv1d") and repair.operation.endswith(("mm", "matmul"))
    if product and kind == REPLACED:  # one with a bias, or without
        return "bias-wrong" if "add" in repair.operation else "bias-missing"
    if kind == DROP and right == formula.name:
        own = formula.kind.replace(" ", "_").partition("_")[0]
        if repair.operation.strip("_").startswith(own):
            return of_twice(world, formula, right)
        name = of_result(formula, action)  # of a step that is called so by whatever it was multiplied, too
        by_any = "by a tensor" in repair.traits and name == of_result(formula, FACTOR)
        return name if action != OTHER or by_any else "unknown"
    if repair.edits > 1:
        return ""
    if kind == DROP and right in formula.inputs:
        return _of_input_put_right(world, formula, repair, action)
    if kind == DROP and action == FACTOR and formula.kind in ("product", "scale", "add bias"):
        return of_result(formula, FACTOR)
    return of_result(formula, OTHER)


def _of_inside(world: World, formula: Formula) -> str:
    """The cause where the step itself has no name for it: that of what goes in and is no checkpoint."""
    inside = [world.formulas[name] for name in formula.inputs if "#" in name and name in world.formulas]
    named = (of_result(before, OTHER) for before in inside)
    cause = next((cause for cause in named if cause not in VAGUE), "unknown")
    if cause == "unknown" and formula.kind in ("linear", "conv1d"):
        return "cross-attention-source" if formula.facts.get("cross") else "wrong-input"
    return cause


def _of_operand(world: World, formula: Formula, right: str, wrong: str) -> str:
    """The cause where another tensor or weight was taken."""
    if right in world.weights:
        if wrong == right:  # the same, laid out otherwise
            return of_weight(formula, right, OTHER) if right.endswith("bias") else "permuted"
        if wrong in world.weights and template(right) == template(wrong):
            return "wrong-block-weights"
        if right in formula.weights and wrong in formula.weights:
            return of_weight(formula, right, OTHER)
        if formula.facts.get("what") == "bucket":
            return "position-bias-wrong"
        return "wrong-weight" if wrong in world.weights else of_weight(formula, right, OTHER)
    if right in world.formulas and wrong in world.formulas and right in formula.inputs:
        causes = [cause for cause, *_ in of_other_input(world, formula, right, wrong, True)]
        cause = next((cause for cause in causes if not cause.startswith("block-")), "wrong-input")
        return of_result(formula, OTHER) if cause == "wrong-input" and formula.kind == "cat" else cause
    if right in formula.inputs:
        return of_input(world, formula, right, OTHER)
    cause = of_result(formula, OTHER)
    vague = cause == "unknown" or formula.kind == "square"
    return "wrong-input" if vague and wrong in world.formulas else cause


def _of_input_put_right(world: World, formula: Formula, repair: Repair, action: str) -> str:
    """The cause of an operation too many on what goes into a step."""
    right = repair.right
    before = world.formulas.get(right)
    if repair.operation in CHOOSING and formula.kind in ("layer norm", "square"):
        return "wrong-input"
    if before is not None and before.facts.get("residual") and action in (FACTOR, SHIFT):
        twice = action == FACTOR or repair.wrong in before.inputs  # one of the two parts of the sum
        return "residual-scaled" if twice else "residual-wrong"
    masked = kind_of(world, repair.wrong) in MASKS
    if formula.kind.startswith("add ") and action == SHIFT and right == formula.inputs[0] and not masked:
        none = formula.kind == "add mask" or world.formulas[formula.inputs[1]].kind == "no bias"
        return "position-bias-extra" if none else "position-bias-wrong"
    if before is not None and before.kind == "lookup" and formula.kind == "add":
        return of_result(before, action)
    return of_input(world, formula, right, OTHER if action == SHIFT else action)


def of_guess(formula: Formula | None) -> str:
    """What is most often wrong with a step, where nothing is known but that it is wrong."""
    if formula is None or formula.facts.get("what") == "bucket":
        return "unknown" if formula is None else "position-bias-wrong"
    if formula.kind == "elementwise" and "name" in formula.facts:
        return "activation-other"
    return of_result(formula, OTHER)


def of_input(world: World, formula: Formula, right: str, action: str) -> str:
    """The cause of an edit of what goes into a step, where `right` belongs."""
    before, facts, scaled = world.formulas.get(right), formula.facts, action == FACTOR
    residual = facts.get("residual")
    if action in ANYWHERE and formula.kind != "unit" and (action == NARROW or right != residual):
        return ANYWHERE[action]
    kind = before.kind if before is not None else ""
    if residual is not None:
        return "residual-scaled" if scaled else "residual-wrong" if right == residual else "wrong-operand"
    if before is not None and kind == "lookup" and (scaled or formula.kind == "add"):
        return of_result(before, action)
    if kind in ("bias by head", "biased mask"):
        return "position-bias-wrong"
    if scaled and called(formula) == "add":  # a sum of looked-up rows
        return of_result(formula, action)
    if formula.kind == "split" and "part" in facts and action == MOVED:
        return "qkv-order"
    if facts.get("cross") == right:
        return "cross-attention-source"
    if of_the_pass_before(world, right):
        return "cache-order"
    if before is not None and kind == "repeat":
        return of_result(before, OTHER)
    if kind == "mask":
        return "mask-direction" if action == MOVED else "mask-fill"
    if scaled and formula.kind == "add mask":
        return "scale-extra"
    if scaled and (facts.get("head") or formula.kind in ("product", "scale", "add bias")):
        return of_result(formula, action)
    if formula.kind == "stretch" and before is not None and not scaled:
        return "norm-variance" if (cause := of_result(before, action)) == "unknown" else cause
    if formula.kind == "softmax" and scaled and world.run.fused:  # nobody sees what it is made of
        return "scale-wrong"
    if formula.kind in ("layer norm", "square") and action == MOVED:  # it norms another tensor
        return "wrong-input"
    moved = formula.kind in ("product", "mix") and action == MOVED
    if moved and any(map(shares_heads, world.formulas.values())):
        return "heads-shared-wrong"
    if formula.kind in AS_RESULT | ANGLES or (formula.kind in NORM_STEPS | TURNS and not scaled):
        cause = of_result(formula, action)
        return "wrong-input" if cause == "unknown" else cause
    return "scaled" if scaled else "wrong-input"


def gated_by(world: World, act: Formula) -> str:
    """What goes through the gate that an activation opens; empty where it opens none."""
    users = world.users(act.name, "multiply")
    return next((x for f in users for x in f.inputs if x != act.name and f.inputs[0] == act.name), "")


def kind_of(world: World, name: str) -> str:
    """The kind of the step that made a tensor; empty where none did."""
    return world.formulas[name].kind if name in world.formulas else ""


def of_the_pass_before(world: World, name: str) -> bool:
    """Whether a tensor is of the pass before, as it was kept."""
    step = world.formulas.get(name)
    first = step.inputs[0] if step is not None and step.kind == "same" else name
    return first.startswith(PAST)


def of_weight(formula: Formula, key: str, action: str) -> str:
    """The cause of an edit of a weight of a step."""
    if action == NARROW:
        return ANYWHERE[NARROW]
    if action == MOVED:
        return "weight-transposed"
    norm = formula.kind in ("layer norm", "stretch")
    if key.endswith("bias") and not norm:
        return "bias-missing" if action == LEFT else "bias-wrong"
    if action == FACTOR and formula.kind == "lookup":
        return "embedding-scaled"
    if formula.facts.get("head"):
        return "output-scale-wrong" if action == FACTOR else "untied-head"
    return ("norm-affine-missing" if action == LEFT else "norm-affine-wrong") if norm else "wrong-weight"


def of_other_input(
    world: World, formula: Formula, right: str, name: str, shown: bool
) -> Iterator[tuple[str, str, dict[str, Make] | None]]:
    """What it can mean that `name` went in where `right` belongs: the cause, in words, and what would then
    be changed if it is more than this step. `shown`: the person has `right`, as it should be."""
    other, own, facts = name.removeprefix(MINE), name.startswith(MINE), formula.facts
    says = f"{'your own ' if own else ''}{other.replace('#', '')} went in instead of {right.replace('#', '')}"
    everywhere: dict[str, Make] = {right: lambda w: world.value(name)}
    into, came = world.run.blocks.get(right), world.run.blocks.get(other)
    before, kind = world.formulas.get(right), formula.kind
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
    elif of_the_pass_before(world, right):
        yield "cache-order", says, None
    elif facts.get("cross") == right and (before is None or before.facts.get("whole") != other):
        yield "cross-attention-source", says, None
    elif kind in ANGLES or (kind == "by wave" and kind_of(world, other) == "rotate"):  # turned once more
        yield of_result(formula, OTHER), says, None
    elif kind == "by wave" and before is not None and before.kind in NORMS:
        yield from _left_out(before, other, says, shown)
    elif facts.get("residual") in (right, other):
        yield "residual-scaled" if facts["residual"] == other else "residual-wrong", says, None
    elif kind == "add bias" and right == formula.inputs[1]:
        yield "position-bias-wrong", says, None
    elif before is not None and before.kind == "act" and other == before.facts["whole"]:
        yield "activation-missing", says, None
    elif kind in OF_OPERANDS or (kind == "elementwise" and len(formula.inputs) == 2):
        yield "wrong-operand", says, None
    elif kind == "act" and other == gated_by(world, formula):
        yield "gate-swapped", says, None
    elif before and before.kind == "scale" and (before.facts.get("output") or other in before.inputs):
        yield of_result(before, LEFT), says, None
    else:
        half = before is not None and bool(before.facts.get("residual")) and not own
        skipped = ("block-skipped", f"{says}: the half-block between them has no effect", everywhere)
        yield from [skipped] if half and into is not None else []
        yield from _left_out(before, other, says, shown)
        yield from [skipped] if half and into is None else []


def _left_out(before: Formula | None, other: str, says: str, shown: bool) -> Iterator[tuple[str, str, None]]:
    """The step before was passed over, or simply another tensor was taken. Where a norm's own result was
    shown, and is right, it was hardly forgotten."""
    norm = before is not None and before.kind in ("layer norm", "stretch")
    source = before.facts.get("whole", next(iter(before.inputs), "")) if before is not None else ""
    forgotten = "norm-missing", f"{says}: what should have been normalised first", None
    if norm and other == source and not shown:
        yield forgotten
    elif before is not None and "name" in before.facts and other == before.facts.get("whole"):
        yield "activation-missing", says, None
    yield "wrong-input", says, None
    if norm and other == source and shown:
        yield forgotten


def after_its_half_block(formula: Formula, other: str) -> bool:
    """Whether a norm, or a step of one, was given something that its own half-block made."""
    norm = formula.kind == "layer norm" or "norm" in formula.facts
    half, own = (re.findall(r".*\.\d+\.", name) for name in (other, formula.name))  # T5's end in `layer.0`
    return norm and bool(own) and half == own
