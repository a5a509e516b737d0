"""What numbers alone tell of a wrong tensor, beside the official one, when no computation gives it.

Shape comes first: of a tensor of another shape nothing is said but where its numbers come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from llm_rebuild.diagnosis.case import Case, Finding, Level
from llm_rebuild.diagnosis.graph import LOWEST, Formula, World, positions
from llm_rebuild.diagnosis.names import FACTOR, SHIFT, of_guess, of_result
from llm_rebuild.diagnosis.wrong.layers import act
from llm_rebuild.diagnosis.wrong.masks import patterns
from llm_rebuild.verify.equality import BEYOND, HIDDEN, apart, by_rounding, difference, identical, usual
from llm_rebuild.verify.functions import scaled_or_shifted
from llm_rebuild.verify.layouts import arrangement
from llm_rebuild.verify.transforms import NARROW, axes_of, layouts, narrowed

# How far a fitted number may be from all that it explains, as a share of the largest.
FITTED = 1e-5
# … where it was fitted to a gate, which is worked out from a quotient, or to rounded sums.
GATED = 1e-4
# A constant is fitted to a few 1e-7 of itself; this far from the right one, it is another.
SLIGHT = 2e-6
CLOSE = 1e-3
FEW_PLACES = 6  # along an axis: of so many each is named


def where(rebuilt: Tensor, official: Tensor) -> str:
    """In which part of the tensor the differences are, in words."""
    if rebuilt.shape != official.shape:
        return f"the shape is {list(rebuilt.shape)}, officially {list(official.shape)}"
    differ = apart(rebuilt, official)
    share = f"{int(differ.sum())} of {differ.numel()} numbers differ"
    return ", ".join([share, *(says for _, _, says in islice(parts_that_differ(rebuilt, official), 1))])


def parts_that_differ(rebuilt: Tensor, official: Tensor) -> Iterator[tuple[int, Tensor, str]]:
    """Axes along which some slices are right and others are not: the axis, the wrong slices, and words."""
    if rebuilt.shape != official.shape:
        return
    differ = apart(rebuilt, official)
    for axis, name in enumerate(axes_of(rebuilt)):
        others = [a for a in range(rebuilt.dim()) if a != axis]
        touched = differ.amax(dim=others) if others else differ
        places = touched.nonzero().flatten()
        if 0 < len(places) < len(touched):
            yield axis, places, _at(name, places.tolist(), len(touched))


def _at(axis: str, places: list[int], size: int) -> str:
    """Places along an axis, in words: the few that there are, or the few that are left out."""
    others = [number for number in range(size) if number not in set(places)]
    if len(places) <= FEW_PLACES:
        return f"only at {axis} {', '.join(map(str, places))}"
    if len(others) <= FEW_PLACES:
        return f"everywhere but at {axis} {', '.join(map(str, others))}"
    return f"at {len(places)} of {size} places along the {axis}"


def describe(case: Case) -> Iterator[Finding]:
    """What can be said of a wrong tensor without computing it again, the surest first."""
    rebuilt, official, world = case.mine, case.official, case.world
    formula = world.formulas.get(case.target)
    if rebuilt.shape != official.shape:
        yield from _of_another_shape(case, formula)
        return
    if formula is not None:
        yield from _bent(rebuilt, official, formula, world)
        yield from _speeds(rebuilt, formula, world)
    if case.rounding:
        yield Finding("rounding", f"off by {difference(rebuilt, official):.1e} at the most", Level.SEEN)
        return
    mask = formula is not None and formula.kind == "mask"
    if not mask:
        yield from _empty(rebuilt, official)
        if formula is None or formula.kind != "lookup":
            yield from _narrow(rebuilt, official)
    if formula is not None:
        yield from _added(rebuilt, official, formula)
        for look in (_combined, _hidden, _rows, _columns):
            yield from look(rebuilt, formula, world)
    if not mask:  # whose few different numbers say little
        yield from _elsewhere(case, formula)
    yield from _moved(rebuilt, official, formula, world)
    cause = of_guess(formula)
    says = "none of the computations that were tried gives it" if cause != "unknown" else ""
    yield Finding(cause, says, Level.GUESSED)
    if cause != "unknown":
        yield Finding("unknown", "", Level.GUESSED)


# --------------------------------------------------------------------------------- official numbers


def _of_another_shape(case: Case, formula: Formula | None) -> Iterator[Finding]:
    rebuilt, official = case.mine, case.official
    shapes = f"{list(rebuilt.shape)} instead of {list(official.shape)}"
    alike = rebuilt.numel() == official.numel()
    if alike and identical(official.reshape(rebuilt.shape).contiguous(), rebuilt):
        yield Finding("wrong-shape", f"the same numbers in another shape: {shapes}", Level.SHOWN)
    elif _broadcast(rebuilt, official):
        yield Finding("wrong-shape", f"the right numbers, not expanded: {shapes}", Level.SHOWN)
    elif formula is not None:
        yield from _hidden(rebuilt, formula, case.world)
        yield from _rows(rebuilt, formula, case.world)
    yield from _elsewhere(case, formula)
    yield Finding("wrong-shape", shapes, Level.GUESSED)


def _broadcast(rebuilt: Tensor, official: Tensor) -> bool:
    try:
        return identical(rebuilt.expand(official.shape).contiguous(), official)
    except RuntimeError:
        return False


def _elsewhere(case: Case, formula: Formula | None) -> Iterator[Finding]:
    """Official numbers at other places, or those of another checkpoint."""
    rebuilt, official = case.mine, case.official
    kind = formula.kind if formula is not None else ""
    cause = {"merge": "heads-merged", "split": "heads-split"}.get(kind, "permuted")
    if formula is not None and formula.facts.get("cross"):
        cause = "cross-attention-source"
    if rebuilt.numel() == official.numel() >= 4:
        if rebuilt.shape == official.shape:
            for says, do in layouts(official):
                if identical(do(official), rebuilt):
                    yield Finding(cause, says, Level.SHOWN)
        arranged = arrangement(rebuilt, official)
        if arranged is not None:
            shuffled = arranged[0].endswith("in another order")
            says = f"the official numbers{arranged[0]}"
            yield Finding(cause, says, Level.SEEN if shuffled else Level.SHOWN)
    for name, other in case.truth.items():
        if name != case.target and identical(other, rebuilt):
            yield Finding("another-checkpoint", f"it is the official {name}", Level.SHOWN)
            return


def _empty(rebuilt: Tensor, official: Tensor) -> Iterator[Finding]:
    infinite = int((rebuilt.isinf() & official.isfinite()).sum())
    missing = int(rebuilt.isnan().sum())
    if infinite:
        says = f"{infinite} {'numbers are' if infinite > 1 else 'number is'} infinite"
    elif missing:
        says = "every number is NaN" if missing == rebuilt.numel() else f"{missing} numbers are NaN"
    elif rebuilt.numel() > 1 and bool((rebuilt == rebuilt.flatten()[0]).all()):
        says = f"every number is {float(rebuilt.flatten()[0]):g}"
    else:
        return
    yield Finding("not-computed", says, Level.SEEN)


def _narrow(rebuilt: Tensor, official: Tensor) -> Iterator[Finding]:
    """Numbers that a narrower type can hold were in one."""
    if rebuilt.dtype != torch.float32 or rebuilt.numel() < 8:
        return
    varied = len(torch.unique(rebuilt.flatten()[:1000].nan_to_num())) >= 8
    for name, dtype in NARROW.items():
        rounded = narrowed(official, dtype)
        if identical(rounded, rebuilt):
            yield Finding("wrong-dtype", f"the official numbers, rounded to {name}", Level.SHOWN)
        elif varied and identical(narrowed(rebuilt, dtype), rebuilt) and not identical(rounded, official):
            yield Finding("wrong-dtype", f"every number fits into {name}", Level.SHOWN)


def dropped(rebuilt: Tensor, official: Tensor) -> Iterator[Finding]:
    """Dropout sets some numbers to 0 and multiplies all others by 1 / (1 - share)."""
    if rebuilt.shape != official.shape or rebuilt.numel() < 16:
        return
    solid = official.isfinite() & (official.abs() > 1e-20)
    zero = (rebuilt == 0) & solid
    rest = solid & ~zero
    share = float(zero.sum()) / max(1, int(solid.sum()))
    if not 0.005 < share < 0.95 or not bool(rest.any()):
        return
    ratio = (rebuilt.double() / official.double())[rest]
    factor = float(ratio.median())
    if float((ratio - factor).abs().max()) < GATED * abs(factor) and factor > 1.0 + GATED:
        rate = f"a rate of {1 - 1 / factor:.2g}"
        says = f"{share:.0%} of the numbers are 0, the others times {factor:.4g}: {rate}"
        yield Finding("dropout", says, Level.SHOWN)


# ------------------------------------------------------------------------------- numbers that are fitted


def _moved(rebuilt: Tensor, official: Tensor, formula: Formula | None, world: World) -> Iterator[Finding]:
    """A constant factor, or something added that is the same for all tokens: a weight, perhaps."""
    if rebuilt.numel() < 4 or not bool((usual(official, BEYOND) & usual(rebuilt, BEYOND)).all()):
        return
    changed = scaled_or_shifted(rebuilt, official, world.weights)
    if changed is not None:
        factor, words, key = changed
        cause = of_result(formula, FACTOR if factor else SHIFT)
        if key:
            cause = "bias-wrong" if key.endswith("bias") else "wrong-operand"
        yield Finding(cause, words.format("the official tensor"), Level.SEEN)


def _combined(rebuilt: Tensor, formula: Formula, world: World) -> Iterator[Finding]:
    """Of a sum: how much of each of its two parts is in it."""
    if formula.kind != "add":
        return
    parts = [part for name in formula.inputs if (part := world.value(name)) is not None]
    if len(parts) < 2 or not all(t.shape == rebuilt.shape and t.isfinite().all() for t in (*parts, rebuilt)):
        return
    columns = torch.stack([part.double().flatten() for part in parts], dim=1)
    numbers = rebuilt.double().flatten()
    shares = torch.linalg.lstsq(columns, numbers[:, None]).solution
    off = float((columns @ shares - numbers[:, None]).abs().max())
    a, b = (float(share) for share in shares)
    if off <= FITTED * float(rebuilt.abs().max()) and max(abs(a - 1), abs(b - 1)) > GATED:
        one, other = formula.inputs
        says = f"{a:.4g} times {one} plus {b:.4g} times {other}"
        yield Finding(of_result(formula, FACTOR), says, Level.SEEN)


def _added(rebuilt: Tensor, official: Tensor, formula: Formula) -> Iterator[Finding]:
    """Numbers that came on top and depend on the distance of two tokens."""
    if formula.kind not in ("product", "scale", "add mask", "add bias") or rebuilt.dim() != 4:
        return
    plain = usual(official, BEYOND) & usual(rebuilt, BEYOND)
    shift = (rebuilt.double() - official.double()).masked_fill(~plain, math.nan)
    if along_distance(shift):
        yield Finding("position-bias-extra", "what was added depends on the distance alone", Level.SEEN)


def along_distance(shift: Tensor) -> bool:
    """Whether numbers [..., query, key] depend on the distance alone, or grow evenly. NaN: not known."""
    scale = float(shift.abs().nan_to_num().max())
    if min(shift.shape[-2:]) < 3 or scale == 0:
        return False
    grows = shift.diff(dim=-1)
    off = (shift[..., 1:, 1:] - shift[..., :-1, :-1], grows.diff(dim=-1))
    even = any(float(x.abs().nan_to_num().max()) <= CLOSE * scale for x in off if bool(x.isfinite().any()))
    return even and float(grows.abs().nan_to_num().max()) > CLOSE * scale


def _bent(rebuilt: Tensor, official: Tensor, formula: Formula, world: World) -> Iterator[Finding]:
    """Another activation, computed less exactly than here; or x times a gate between 0 and 1: which it is and
    its constants, unless the official one has the same."""
    if "name" not in formula.facts or "whole" not in formula.facts:
        return
    for edit in act(world, formula):
        guess = edit.changes[formula.name](world)
        if guess is not None and by_rounding(rebuilt, guess, FITTED) and edit.cause != "rounding":
            yield Finding(edit.cause, edit.says, Level.SEEN)
            return
    x = world[formula.facts["whole"]]
    gate, right = _gate(x, rebuilt), _gate(x, official)
    if gate is None:
        return
    words, constants = gate
    pairs = zip(constants, right[1], strict=True) if right is not None and right[0] == words else None
    if pairs is not None and all(math.isclose(*both, rel_tol=SLIGHT) for both in pairs):
        return
    cause = "gelu-constant"
    if words == SIGMOID:  # that of x itself is SiLU's
        of_gelu = str(formula.facts["name"]).startswith("gelu") and abs(constants[0] - 1) >= CLOSE
        cause = "gelu-sigmoid" if of_gelu else "activation-other"
    yield Finding(cause, f"a gate by {words.format(*constants)}", Level.SEEN)


ERF, SIGMOID, TANH = "erf of {:.5g} x", "a sigmoid of {:.5g} x", "tanh of {:.5g} (x + {:.5g} x³)"


def _gate(x: Tensor, y: Tensor) -> tuple[str, tuple[float, ...]] | None:
    """The function of x that is the gate in y = x times a gate, and its constants; None where it is none."""
    x, y = x.double().flatten(), y.double().flatten()
    some = (x.abs() > 0.2) & (x.abs() < 2.5)
    if x.shape != y.shape or not bool(y.isfinite().all()) or int(some.sum()) < 8:
        return None
    x, gate = x[some], y[some] / x[some]
    far = gate[x > 1.5]
    whole = 2.0 if len(far) and float(far.median()) > 1.5 else 1.0  # the half that was forgotten
    gate = (gate / whole).clamp(1e-7, 1 - 1e-7)
    for words, straight in ((ERF, torch.erfinv(2 * gate - 1) / x), (SIGMOID, torch.logit(gate) / x)):
        middle = float(straight.median())
        if float((straight - middle).abs().median()) < GATED * abs(middle):
            return words, (middle,)
    bend, powers = torch.atanh(2 * gate - 1), torch.stack([x, x**3], dim=1)
    fitted = torch.linalg.lstsq(powers, bend[:, None]).solution
    if float((powers @ fitted - bend[:, None]).abs().median()) < GATED * float(bend.abs().median()):
        return TANH, (float(fitted[0]), float(fitted[1]) / float(fitted[0]))
    return None


# --------------------------------------------------------------------------------- masks and rows


def _hidden(rebuilt: Tensor, formula: Formula, world: World) -> Iterator[Finding]:
    """Which places a mask hides, whatever number it does it with."""
    mask = world.formulas[formula.inputs[1]] if formula.kind == "add mask" else formula
    if mask.kind != "mask":
        return
    if mask is formula:
        hidden = rebuilt < HIDDEN if rebuilt.is_floating_point() else ~rebuilt.bool()
        if not bool(hidden.any()) and bool((rebuilt != 0).any()):
            hidden = rebuilt != 0
    else:
        before = world[formula.inputs[0]]
        if before.shape != rebuilt.shape:
            return
        changed = ~((rebuilt == before) | ((rebuilt - before).abs() <= FITTED * before.abs()))
        hidden = changed.amax(dim=1, keepdim=True)
        if not torch.equal(hidden.expand_as(changed), changed):
            return
    official = world.value(mask.name)
    right = torch.zeros(1, dtype=torch.bool) if official is None else official < HIDDEN
    try:
        shape = (hidden | right).shape
        hidden, right = hidden.expand(shape), right.expand(shape)
    except RuntimeError:  # of a shape that does not even go with the official one
        return
    if torch.equal(hidden, right):
        yield Finding("mask-fill", "the right places, with another number", Level.SEEN)
        return
    for cause, says, pattern in patterns(world, mask):
        if pattern.shape[1:] == hidden.shape[1:] and torch.equal(pattern.expand_as(hidden), hidden):
            lowest = mask is formula and bool((rebuilt.expand(shape)[hidden] == LOWEST).all())
            number = "" if lowest else ", with another number than the lowest"
            yield Finding(cause, f"{says}{number}", Level.SEEN)
            return
    if not bool(hidden.any()):
        yield Finding("mask-missing", "nothing is hidden", Level.SEEN)
        return
    more, less = hidden & ~right, right & ~hidden
    tokens = world.tensors.get(mask.inputs[0])
    padding = (tokens == 0)[:, None, None, :] if tokens is not None else torch.zeros_like(less)
    if bool((less & padding).any()):
        yield Finding("mask-padding-missing", f"{int(less.sum())} places are not hidden", Level.SEEN)
    elif not bool(less.any()):
        yield Finding("mask-extra", f"{int(more.sum())} more places are hidden", Level.SEEN)
    elif not bool(more.any()):
        yield Finding("mask-missing", f"{int(less.sum())} places are not hidden", Level.SEEN)
    else:
        yield Finding("mask-direction", "other places are hidden", Level.SEEN)


def _speeds(rebuilt: Tensor, formula: Formula, world: World) -> Iterator[Finding]:
    """How far each pair turns from one place to the next, if places are right, and it is not the right one
    times one factor."""
    if formula.kind != "turns" or rebuilt.shape != world[formula.name].shape:
        return
    places, right = positions(*(world[name] for name in formula.inputs)).double(), formula.facts["speeds"]
    speeds = rebuilt[0, -1].double() / places[0, -1]
    ratio, even = speeds / right, by_rounding((places[..., None] * speeds).float(), rebuilt)
    if even and bool((ratio - ratio[0]).abs().max() > GATED * ratio.abs().max()):
        says = f"the pairs turn by {_listed(speeds)} instead of {_listed(right)}"
        yield Finding("rotary-base", says, Level.SEEN)


def _listed(numbers: Tensor) -> str:
    """The first few."""
    return ", ".join(f"{number:.4g}" for number in numbers.tolist()[:4]) + (", …" if len(numbers) > 4 else "")


def _rows(rebuilt: Tensor, formula: Formula, world: World) -> Iterator[Finding]:
    """Which rows of a table were looked up; or, of angles, those of which places."""
    turned = formula.kind == "turns"
    if not (turned or formula.kind == "lookup") or rebuilt.dim() < 2 or not bool(rebuilt.isfinite().all()):
        return
    inputs = [world[name] for name in formula.inputs]
    right = (positions(*inputs) if turned else inputs[0]).flatten()
    far = torch.arange(int(right.max()) + 2 * inputs[-1].numel())
    table = far[:, None] * formula.facts["speeds"] if turned else world.weights[formula.weights[0]]
    numbers = _taken(rebuilt.reshape(-1, rebuilt.shape[-1]), table)
    if numbers is None:
        return
    by = numbers.view(-1, len(right)) - right if len(numbers) % len(right) == 0 else numbers
    even = by.dim() == 2 and len(torch.unique(by)) == 1
    if even and int(by[0, 0]) == 0:  # in another shape
        return
    cause = of_result(formula, SHIFT)
    if turned or formula.facts["what"] == "position":
        behind = even and world.cached and int(by[0, 0]) < 0
        cause = "positions-not-advanced" if behind else "positions-shifted" if even else "positions-wrong"
    off = by.flatten().nonzero().flatten() if by.dim() == 2 else torch.arange(len(numbers))
    looked_up = ", ".join(map(str, numbers[off].tolist()[:8])) + (", …" if len(off) > 8 else "")
    of = f"{'the angles of places' if turned else 'rows'} {looked_up}{'' if turned else ' of the table'}"
    rows = right[off % len(right)].tolist()[:8]
    yield Finding(cause, f"{of} instead of {', '.join(map(str, rows))}", Level.SEEN)


def _columns(rebuilt: Tensor, formula: Formula, world: World) -> Iterator[Finding]:
    """Of linear layers that stand side by side: whose columns are in this one."""
    group, steps = formula.facts.get("group"), world.formulas.values()
    alike = (f.name for f in steps if f.facts.get("group") == group and f.inputs == formula.inputs)
    layers = list(alike) if group else []
    if len(layers) < 2 or not bool(rebuilt.isfinite().all()):
        return
    owners = [(name, at) for name in layers for at in range(world[name].shape[-1])]
    table = torch.cat([world[name].flatten(0, -2) for name in layers], dim=-1)
    numbers = _taken(rebuilt.flatten(0, -2).mT, table.mT)
    columns = [owners[number] for number in numbers] if numbers is not None else []
    if {name for name, _ in columns} - {formula.name}:
        says = f"its columns are {', '.join(f'{name} {at}' for name, at in columns[:3])}, …"
        yield Finding("qkv-interleaved" if len(layers) > 2 else "wrong-weight", says, Level.SEEN)


def _taken(rows: Tensor, table: Tensor) -> Tensor | None:
    """Which rows of a table these are; None where one of them is none."""
    if rows.shape[-1] != table.shape[-1]:
        return None
    few = torch.split(rows.double(), 256)  # of a large model all at once would not fit
    numbers = torch.cat([torch.cdist(some, table.double()).argmin(1) for some in few])
    return numbers if by_rounding(table[numbers], rows) else None
