"""What numbers alone tell: whether a computed tensor is the one at hand, and what a tensor looks like beside
the official one when no computation gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor

from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses import hypotheses
from llm_rebuild.diagnosis.transforms import LOOKUPS, OTHERWISE, added_weight, along_distance
from llm_rebuild.verify.equality import (
    BEYOND,
    HIDDEN,
    ONE_SUM,
    apart,
    by_rounding,
    difference,
    identical,
    usual,
)

Description = tuple[str, str, int, float]  # cause, says, level, confidence


def where(mine: Tensor, official: Tensor) -> str:
    """In which part of the tensor the differences are, in words."""
    if mine.shape != official.shape:
        return f"the shape is {list(mine.shape)}, officially {list(official.shape)}"
    differ = apart(mine, official)
    share = f"{int(differ.sum())} of {differ.numel()} numbers differ"
    return ", ".join([share, *(says for _, _, says in islice(parts_that_differ(mine, official), 1))])


def _axes(tensor: Tensor) -> tuple[str, ...]:
    return {
        1: ("place",),
        2: ("row", "width"),
        3: ("row", "token", "width"),
        4: ("row", "head", "query", "key"),
    }.get(tensor.dim(), tuple(f"axis {i}" for i in range(tensor.dim())))


def parts_that_differ(mine: Tensor, official: Tensor) -> Iterator[tuple[int, Tensor, str]]:
    """Axes along which some slices are right and others are not: the axis, the wrong slices, and words."""
    if mine.shape != official.shape:
        return
    differ = apart(mine, official)
    for axis, name in enumerate(_axes(mine)):
        others = [a for a in range(mine.dim()) if a != axis]
        touched = differ.amax(dim=others) if others else differ
        places = touched.nonzero().flatten()
        if 0 < len(places) < len(touched):
            listed = ", ".join(map(str, places.tolist()[:6])) + (", …" if len(places) > 6 else "")
            yield axis, places, f"only at {name} {listed}"


# ------------------------------------------------------------------ what a tensor looks like

# What a constant factor or an added constant means, by the kind of step.
_SCALED = {
    "scale": "scale-wrong",
    "product": "scale-order",
    "add bias": "scale-extra",
    "lookup": "embedding-scaled",
    "add": "residual-scaled",
    "layer norm": "norm-affine-wrong",
    "stretch": "norm-affine-wrong",
    "elementwise": "gelu-constant",
    "act": "activation-other",
    "softmax": "softmax-changed",
    "masked": "pool-other",
    "total": "pool-other",
    "count": "pool-other",
    "divide": "pool-other",
    "unit": "normalised-wrong",
    "mean square": "norm-variance",
    "inverse root": "norm-variance",
    "square": "norm-variance",
    "multiply": "norm-variance",
}
_SHIFTED = {
    "linear": "bias-wrong",
    "conv1d": "bias-wrong",
    "plus eps": "norm-eps",
    "layer norm": "norm-affine-wrong",
    "stretch": "norm-affine-wrong",
    "elementwise": "gelu-constant",
    "inverse root": "norm-eps-place",
    "count": "pool-other",
}


def describe(
    mine: Tensor,
    official: Tensor,
    others: Mapping[str, Tensor],
    formula: Formula | None,
    world: World | None,
) -> Iterator[Description]:
    """What can be said of a wrong tensor without computing it again, the surest first.

    others   The official tensors of other checkpoints, by name.
    formula  The step that makes this one, if it is known, and the run that it belongs to.
    """
    kind = formula.kind if formula is not None else ""
    if kind != "mask":
        yield from _empty(mine, official)
    if kind not in ("lookup", "mask"):
        yield from _narrow(mine, official)
    if world is not None:
        yield from _added(mine, official, kind, world)
    if formula is not None and world is not None:
        yield from _combined(mine, formula, world)
        yield from _hidden(mine, formula, world)
        yield from _rows(mine, formula, world)
        yield from _bent(mine, formula, world)
    if kind != "mask":  # whose few different numbers say little
        yield from _rearranged(mine, official, formula)
        for name, other in others.items():
            if identical(other, mine):
                yield "another-checkpoint", f"it is the official {name}", 2, 0.7
                break
    yield from _moved(mine, official, formula)
    if mine.shape != official.shape:
        yield "wrong-shape", f"{list(mine.shape)} instead of {list(official.shape)}", 0, 0.6
        return
    if by_rounding(mine, official, ONE_SUM):
        yield "rounding", f"off by {difference(mine, official):.1e} at the most", 1, 0.6
    if formula is not None:
        cause = LOOKUPS.get(formula.facts.get("what", ""), OTHERWISE.get(kind))
        if kind in ("elementwise", "act") and "name" in formula.facts:
            cause = "activation-other"
        if kind == "add":
            cause = "residual-wrong" if "residual" in formula.facts else "wrong-operand"
        if formula.facts.get("head"):
            cause = "untied-head"
        if formula.facts.get("output"):
            cause = "output-scale-wrong"
        if formula.facts.get("what") == "bucket":
            cause = "position-bias-wrong"
        if cause:
            yield cause, "none of the computations that were tried gives it", 0, 0.3
    yield "unknown", "", 0, 0.1


def _empty(mine: Tensor, official: Tensor) -> Iterator[Description]:
    if mine.shape == official.shape and bool((mine.isinf() & official.isfinite()).any()):
        count = int((mine.isinf() & official.isfinite()).sum())
        yield "not-computed", f"{count} {'numbers are' if count > 1 else 'number is'} infinite", 1, 0.7
        return
    if bool(mine.isnan().all()):
        yield "not-computed", "every number is NaN", 1, 0.7
    elif mine.numel() > 1 and bool((mine == mine.flatten()[0]).all()):
        yield "not-computed", f"every number is {float(mine.flatten()[0]):g}", 1, 0.6
    elif bool(mine.isnan().any()):
        yield "not-computed", f"{int(mine.isnan().sum())} numbers are NaN", 1, 0.7


def dropped(mine: Tensor, official: Tensor) -> Iterator[Description]:
    """Dropout sets some numbers to 0 and multiplies all others by 1 / (1 - share)."""
    if mine.shape != official.shape or mine.numel() < 16:
        return
    there = (official != 0) & official.isfinite() & (official.abs() > 1e-20)
    zero = (mine == 0) & there
    kept = there & ~zero
    share = float(zero.sum()) / max(1, int(there.sum()))
    if not 0.005 < share < 0.95 or not bool(kept.any()):
        return
    ratio = (mine.double() / official.double())[kept]
    factor = float(ratio.median())
    if float((ratio - factor).abs().max()) < 1e-4 * abs(factor) and factor > 1.0 + 1e-4:
        rate = 1 - 1 / factor
        yield (
            "dropout",
            f"{share:.0%} of the numbers are 0, the others times {factor:.4g}: a rate of {rate:.2g}",
            2,
            0.97,
        )


def _narrow(mine: Tensor, official: Tensor) -> Iterator[Description]:
    """Numbers that a narrower type can hold were in one."""
    if mine.dtype != torch.float32 or mine.numel() < 8:
        return
    for narrow in (torch.bfloat16, torch.float16):
        short = str(narrow).removeprefix("torch.")
        if official.shape == mine.shape and identical(official.to(narrow).float(), mine):
            yield "wrong-dtype", f"the official numbers, rounded to {short}", 2, 0.95
        elif identical(mine.to(narrow).float(), mine) and not identical(
            official.to(narrow).float(), official
        ):
            few = len(torch.unique(mine.flatten()[:1000])) < 8
            if not few:
                yield "wrong-dtype", f"every number fits into {short}", 2, 0.9


def _rearranged(mine: Tensor, official: Tensor, formula: Formula | None) -> Iterator[Description]:
    """The official numbers at other places."""
    kind = formula.kind if formula is not None else ""
    cause = {"merge": "heads-merged", "split": "heads-split"}.get(kind, "permuted")
    if formula is not None and formula.facts.get("cross"):
        cause = "cross-attention-source"
    if mine.numel() != official.numel() or mine.numel() < 4:
        return
    names = _axes(official)
    if mine.shape == official.shape:
        for axis, name in enumerate(names):
            if official.shape[axis] < 2:
                continue
            if identical(official.flip(axis), mine):
                yield cause, f"along {name} in reverse", 2, 0.85
            for by in (1, -1):
                if identical(official.roll(by, axis), mine):
                    yield cause, f"along {name} moved by {by:+d}", 2, 0.85
    elif identical(official.reshape(mine.shape).contiguous(), mine):
        yield "wrong-shape", "the same numbers in another shape", 2, 0.9
    for one in range(official.dim()):
        for other in range(one + 1, official.dim()):
            turned = official.transpose(one, other)
            if turned.shape == mine.shape and identical(turned.contiguous(), mine):
                yield cause, f"{names[one]} and {names[other]} exchanged", 2, 0.85
            elif mine.shape == official.shape and identical(turned.reshape(mine.shape), mine):
                yield cause, f"{names[one]} and {names[other]} exchanged, then reshaped", 2, 0.8
    if identical(mine.flatten().sort().values, official.flatten().sort().values):
        yield cause, "all of its numbers are official ones, elsewhere", 1, 0.6


def _moved(mine: Tensor, official: Tensor, formula: Formula | None) -> Iterator[Description]:
    """A constant factor, or something added that is the same for all tokens."""
    if mine.shape != official.shape or mine.numel() < 4:
        return
    kind = formula.kind if formula is not None else ""
    m, o = mine.double(), official.double()
    if not bool((usual(o, BEYOND) & usual(m, BEYOND)).all()):
        return
    scale = float(m.abs().max())
    square = float((o * o).sum())
    factor = float((m * o).sum()) / square if square else 0.0
    if abs(factor) > 1e-9 and abs(factor - 1) > 1e-5 and float((m - factor * o).abs().max()) <= 1e-5 * scale:
        cause = _SCALED.get(kind, "scaled")
        if kind == "add" and formula is not None and "residual" not in formula.facts:
            cause = "embedding-scaled"
        if formula is not None and formula.facts.get("output"):
            cause = "output-scale-wrong"
        if formula is not None and formula.facts.get("unscaled"):
            cause = "scale-extra"
        if formula is not None and formula.facts.get("head"):
            cause = "output-scale-wrong"
        if (
            kind == "scale"
            and not formula_output(formula)
            and formula is not None
            and factor == formula.facts["by"]
        ):
            cause = "scale-extra"
        yield cause, f"the official tensor times {factor:.6g}{_as_root(factor)}", 1, 0.8
        return
    shift = m - o
    added = shift.mean(dim=tuple(range(shift.dim() - 1)), keepdim=True) if shift.dim() > 1 else shift
    if (
        float((shift - added).abs().max()) <= 1e-5 * max(scale, 1e-30)
        and float(shift.abs().max()) > 1e-4 * scale
    ):
        cause = _SHIFTED.get(kind, "shifted")
        if formula is not None and kind == "lookup":
            cause = LOOKUPS[formula.facts["what"]]
        same = float((added - added.mean()).abs().max()) <= 1e-5 * scale
        says = (
            f"the official tensor plus {float(added.mean()):.6g}"
            if same
            else "the official tensor plus a vector"
        )
        yield cause, says, 1, 0.75


def _combined(mine: Tensor, formula: Formula, world: World) -> Iterator[Description]:
    """Of a sum: how much of each of its two parts is in it."""
    if formula.kind != "add" or not bool(mine.isfinite().all()):
        return
    parts = [world.value(name) for name in formula.inputs]
    if any(part is None or part.shape != mine.shape for part in parts):
        return
    columns = torch.stack([part.double().flatten() for part in parts if part is not None], dim=1)
    shares = torch.linalg.lstsq(columns, mine.double().flatten()[:, None]).solution
    off = float((columns @ shares - mine.double().flatten()[:, None]).abs().max())
    a, b = (float(share) for share in shares)
    if off <= 1e-5 * float(mine.abs().max()) and max(abs(a - 1), abs(b - 1)) > 1e-4:
        cause = "residual-scaled" if "residual" in formula.facts else "embedding-scaled"
        one, other = formula.inputs
        yield cause, f"{a:.4g} times {one} plus {b:.4g} times {other}", 1, 0.85


def _added(mine: Tensor, official: Tensor, kind: str, world: World) -> Iterator[Description]:
    """A vector of the weight file that came on top, or numbers that depend on the distance."""
    if mine.shape != official.shape:
        return
    plain = usual(official, BEYOND) & usual(mine, BEYOND)
    shift = torch.where(plain, mine.double() - official.double(), torch.zeros((), dtype=torch.float64))
    scale = float(mine.double().abs()[plain].max()) if bool(plain.any()) else 0.0
    if float(shift.abs().max()) < 1e-4 * scale:
        return
    if bool(plain.all()):
        vector = added_weight(shift, world.weights)
        if vector is not None:
            key, times = vector
            cause = "bias-wrong" if key.endswith("bias") else "wrong-operand"
            yield cause, f"{key} came on top, {times:+.3g} times", 1, 0.85
    if kind in ("product", "scale", "add mask", "add bias"):
        rows = [bool(plain[row].all()) for row in range(len(plain))] if plain.dim() == 4 else []
        whole = shift[torch.tensor(rows)] if any(rows) else shift[:0]
        if len(whole) and along_distance(whole):
            yield "position-bias-extra", "numbers were added that depend on the distance alone", 1, 0.8


def formula_output(formula: Formula | None) -> bool:
    return bool(formula is not None and formula.facts.get("output"))


def _as_root(factor: float) -> str:
    """`0.125` is 1/√64."""
    for power, words in ((-2.0, "1/√{}"), (2.0, "√{}"), (-1.0, "1/{}")):
        number = abs(factor) ** power
        if 1.5 < number < 1e5 and abs(number - round(number)) < 1e-3 * number**0.5 * 0.1:
            return " = " + ("-" if factor < 0 else "") + words.format(round(number))
    return ""


def _bent(mine: Tensor, formula: Formula, world: World) -> Iterator[Description]:
    """x times a gate between 0 and 1: which gate it is, and with which constants."""
    if "x" not in formula.facts or formula.facts.get("name") not in ("gelu", "gelu_new", "gelu_pytorch_tanh"):
        return
    x, y = world[formula.facts["x"]].double().flatten(), mine.double().flatten()
    if x.shape != y.shape or not bool(y.isfinite().all()):
        return
    some = (x.abs() > 0.2) & (x.abs() < 2.5)
    if int(some.sum()) < 8:
        return
    x, gate = x[some], y[some] / x[some]
    far = gate[x > 1.5]
    whole = 2.0 if len(far) and float(far.median()) > 1.5 else 1.0  # the half that was forgotten
    gate = (gate / whole).clamp(1e-7, 1 - 1e-7)
    for cause, words, straight in (
        ("gelu-constant", "erf", torch.erfinv(2 * gate - 1) / x),
        ("gelu-sigmoid", "a sigmoid", torch.logit(gate) / x),
    ):
        middle = float(straight.median())
        if float((straight - middle).abs().median()) < 1e-4 * abs(middle):
            cause = "activation-other" if words == "a sigmoid" and abs(middle - 1) < 1e-3 else cause
            yield cause, f"a gate by {words} of {middle:.5g} x", 1, 0.85
            return
    bend = torch.atanh(2 * gate - 1)
    powers = torch.stack([x, x**3], dim=1)
    fitted = torch.linalg.lstsq(powers, bend[:, None]).solution
    off = float((powers @ fitted - bend[:, None]).abs().median())
    if off < 1e-4 * float(bend.abs().median()):
        root, cubic = float(fitted[0]), float(fitted[1]) / float(fitted[0])
        yield "gelu-constant", f"a gate by tanh of {root:.5g} (x + {cubic:.5g} x³)", 1, 0.85


def _hidden(mine: Tensor, formula: Formula, world: World) -> Iterator[Description]:
    """Which places a mask hides, whatever number it does it with."""
    if formula.kind == "mask":
        mask, hidden = formula, mine < HIDDEN if mine.is_floating_point() else ~mine.bool()
        if not bool(hidden.any()) and bool((mine != 0).any()):
            hidden = mine != 0
        official = world.value(formula.name)
    elif formula.kind == "add mask":
        mask = world.formulas[formula.inputs[1]]
        before = world[formula.inputs[0]]
        if before.shape != mine.shape:
            return
        changed = ~((mine == before) | ((mine - before).abs() <= 1e-5 * before.abs()))
        hidden = changed.amax(dim=1, keepdim=True)
        if not torch.equal(hidden.expand_as(changed), changed):
            return
        official = world.value(mask.name)
    else:
        return
    if mask.kind != "mask":
        return
    right = official < HIDDEN if official is not None else torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    try:
        shape = (hidden | right).shape
        hidden, right = hidden.expand(shape), right.expand(shape)
    except RuntimeError:
        return
    if torch.equal(hidden, right):
        yield "mask-fill", "the right places, with another number", 1, 0.85
        return
    for hypothesis in hypotheses(world, mask):
        if hypothesis.cause == "mask-fill" or mask.name not in hypothesis.changes:
            continue
        try:
            guess = hypothesis.changes[mask.name](world)
        except (RuntimeError, LookupError, IndexError):
            continue
        pattern = torch.zeros_like(hidden) if guess is None else guess < HIDDEN
        if pattern.dim() == hidden.dim() and torch.equal(pattern.expand_as(hidden), hidden):
            yield hypothesis.cause, f"{hypothesis.says}, with another number than the lowest", 1, 0.85
            return
    more, less = bool((hidden & ~right).any()), bool((right & ~hidden).any())
    padding = world.known.get(mask.inputs[0])
    if less and padding is not None and padding.shape[-1] == hidden.shape[-1]:
        columns = (padding == 0)[:, None, None, :].expand_as(hidden)
        if bool((columns & right & ~hidden).any()):
            yield "mask-padding-missing", f"{int((right & ~hidden).sum())} places are not hidden", 1, 0.6
            return
    if more and not less:
        yield "mask-extra", f"{int((hidden & ~right).sum())} more places are hidden", 1, 0.6
    elif less and not more:
        yield "mask-missing", f"{int((right & ~hidden).sum())} places are not hidden", 1, 0.6
    else:
        yield "mask-direction", "other places are hidden", 1, 0.4


def _rows(mine: Tensor, formula: Formula, world: World) -> Iterator[Description]:
    """Which rows of the table were looked up."""
    if formula.kind != "lookup" or mine.dim() < 2 or not bool(mine.isfinite().all()):
        return
    table = world.weights[formula.weights[0]]
    if mine.shape[-1] != table.shape[-1]:
        return
    rows = mine.reshape(-1, mine.shape[-1])
    found = torch.cdist(rows.double(), table.double()).argmin(1)
    if not identical(table[found], rows):
        return
    what, right = formula.facts["what"], world[formula.inputs[0]]
    ids = found.view(mine.shape[:-1])
    says = "rows " + ", ".join(map(str, found.tolist()[:8])) + (", …" if len(found) > 8 else "")
    cause = LOOKUPS[what]
    if what == "position" and ids.shape == right.shape and len(torch.unique(ids - right)) == 1:
        cause = "positions-shifted"
    yield (
        cause,
        f"{says} of the table instead of {', '.join(map(str, right.flatten().tolist()[:8]))}",
        1,
        0.85,
    )
