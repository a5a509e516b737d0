"""Which mistake is it? Not a table of symptoms: every possible mistake is tried out.

The first checkpoint that differs has inputs that are still right. So its wrong value can be computed again,
from the official inputs and the weight file, once for each mistake that can be made at this step: if the
scores had not been scaled, they would be *these*. Where that gives the tensor at hand, bit for bit, the
mistake is found; where none does, the diagnosis says so, and in which part the numbers differ.

In three rounds: the mistakes that are known for this kind of step (`hypotheses.py`); then the same step with
any other tensor or weight that would fit in; then what can be said about the numbers alone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import part_of
from llm_rebuild.local_copy import LocalCopy
from llm_rebuild.models import FAMILIES
from llm_rebuild.traps import numbers
from llm_rebuild.traps.causes import CAUSES, REMEDIES, chapter
from llm_rebuild.traps.formulas import Formula, World, world_of
from llm_rebuild.traps.formulas.any_model import world_of_any
from llm_rebuild.traps.hypotheses import Hypothesis, hypotheses
from llm_rebuild.traps.hypotheses.base import Make
from llm_rebuild.traps.transforms import called, of_weights, transforms
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import same_numbers
from llm_rebuild.weights import template

# Seconds for the search among all tensors and weights, which in a large model with few checkpoints is long.
PATIENCE = 4.0
TURNED = " (transposed)"  # follows the key of a weight
MINE = "#mine."  # followed by a checkpoint: the tensor that the person has there


@dataclass(frozen=True)
class Diagnosis:
    """One explanation of a first difference.

    cause        Its name in `causes.py`.
    explanation  What happened, and what to do: two sentences.
    confidence   Between 0 and 1; above 0.9 the wrong tensor was reproduced.
    evidence     What was computed, and how well it agrees with the tensor at hand.
    chapter      The section of the course about it.
    checkpoint   Where.
    """

    cause: str
    explanation: str
    confidence: float
    evidence: str
    chapter: str
    checkpoint: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.explanation}\n  {self.evidence} (confidence {self.confidence:.0%}; {self.chapter})"


def diagnose(
    rebuilt: Mapping[str, Tensor],
    truth: Capture,
    copy: LocalCopy,
    *,
    prompt: Capture | None = None,
    error: BaseException | None = None,
    again: Callable[[], Mapping[str, Tensor]] | None = None,
    limit: int = 3,
) -> tuple[Diagnosis, ...]:
    """Explain the first checkpoint that is not bit-identical, the likeliest cause first.

    rebuilt  The person's tensors by checkpoint name, in the order in which they were tapped.
    truth    The official ones of the same run.
    copy     The local copy that both were computed from.
    prompt   For a run that goes on from keys and values: the official tensors of the pass before it.
    error    What stopped the rebuild, if something did.
    again    Runs the rebuild once more. It is called only where nothing explains the tensor, to see whether
             two runs agree.
    Empty where everything is bit-identical.
    """
    case = _Case.of(rebuilt, truth, copy, prompt)
    if case is None:
        return ()
    if case.target is None:
        return (_never_shown(case, error),)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a wrong formula may well divide by n - 1 = 0
        found = list(_explanations(case))
    if error is not None and "tapped twice" in str(error):
        found.insert(0, _Found("block-repeated", str(error), 2, 0.9))
    if again is not None and not any(f.level for f in found):
        found[:0] = _chance(case, again())
    found = _ranked(case, found)
    return tuple(_said(case, f) for f in _confident(found)[:limit])


def world_for(truth: Capture, copy: LocalCopy, prompt: Capture | None = None) -> World | None:
    """The graph of a captured run: written down for the course's models, read off a trace for others."""
    if copy.config.get("model_type") in FAMILIES:
        return world_of(truth, copy, prompt)
    return world_of_any(truth, copy.config, copy.weights().peek()) if truth.steps else None


# ------------------------------------------------------------------------------------ the case


@dataclass(frozen=True)
class _Case:
    """What is known before any hypothesis is tried.

    world   The official run as a graph. For other architectures there is none.
    first   The first checkpoint that is missing or differs.
    target  The first that is there and differs: what has to be explained.
    same    The checkpoints that are bit-identical.
    part    The axis and the slices to which the question is narrowed, where others are right.
    """

    world: World | None
    rebuilt: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    first: str
    target: str | None
    same: frozenset[str]
    part: tuple[int, Tensor] | None = None

    @classmethod
    def of(
        cls, rebuilt: Mapping[str, Tensor], truth: Capture, copy: LocalCopy, prompt: Capture | None
    ) -> _Case | None:
        same = frozenset(n for n, t in truth.tensors.items() if n in rebuilt and same_numbers(rebuilt[n], t))
        different = [n for n in truth.tensors if n not in same]
        if not different:
            return None
        target = next((n for n in different if n in rebuilt), None)
        world = world_for(truth, copy, prompt)
        if world is not None:
            mine = {f"{MINE}{n}": t for n, t in rebuilt.items() if n not in same}
            world = world.given(mine)
        return cls(world, rebuilt, truth.tensors, different[0], target, same)

    @property
    def mine(self) -> Tensor:
        assert self.target is not None
        return self.narrowed(self.rebuilt[self.target])

    @property
    def official(self) -> Tensor:
        assert self.target is not None
        return self.narrowed(self.truth[self.target])

    def narrowed(self, tensor: Tensor) -> Tensor:
        """The part of the target, or of a guess at it, that is in question."""
        assert self.target is not None
        if self.part is None or tensor.shape != self.truth[self.target].shape:
            return tensor
        axis, places = self.part
        return tensor.index_select(axis, places)


@dataclass(frozen=True)
class _Found:
    """What fits. level 2: to the bit; 1: but for rounding; 0: a description and no computation."""

    cause: str
    says: str
    level: int
    confidence: float
    site: str = ""
    hypothesis: Hypothesis | None = None


def _explanations(case: _Case) -> Iterator[_Found]:
    """All that fits, in the order in which it is tried."""
    assert case.target is not None
    yield from _by_type(case)
    if not case.mine.is_floating_point():
        return
    drawn = [_Found(*description) for description in numbers.dropped(case.mine, case.official)]
    if drawn:
        yield from drawn
        return
    if case.world is not None and case.target in case.world.formulas:
        known = [*_whole_blocks(case, case.world), *_no_mistake(case, case.world)]
        if not known:
            known = list(_known_mistakes(case, case.world))
        for search in (_elsewhere, _on_the_way, _in_part):
            if not known:
                known = list(search(case, case.world))
        yield from known
    formula = case.world.formulas.get(case.target) if case.world is not None else None
    others = {n: t for n, t in case.truth.items() if n != case.target}
    for cause, says, level, confidence in numbers.describe(
        case.mine, case.official, others, formula, case.world
    ):
        yield _Found(cause, says, level, confidence)


def _chance(case: _Case, second: Mapping[str, Tensor]) -> Iterator[_Found]:
    """Two runs on the same input that do not agree: something is drawn."""
    assert case.target is not None
    if case.target in second and not same_numbers(second[case.target], case.mine):
        formula = case.world.formulas.get(case.target) if case.world is not None else None
        head = formula is not None and bool(formula.facts.get("head"))
        says = "two runs on the same input differ: random numbers take part"
        yield _Found("untied-head" if head else "dropout", says, 2, 0.9)


def _by_type(case: _Case) -> Iterator[_Found]:
    if case.mine.dtype != case.official.dtype:
        kind = str(case.mine.dtype).removeprefix("torch.")
        yield _Found("wrong-dtype", f"the tensor is {kind}", 2, 0.95)


def _whole_blocks(case: _Case, world: World) -> Iterator[_Found]:
    """A block of which nothing was shown, and the next step went on without it."""
    assert case.target is not None
    formula = world.formulas[case.target]
    for slot, right in enumerate(formula.inputs):
        block = _block_output(world, right)
        part = part_of(right)
        lost = [name for name in world.reaching(right, case.same) if "#" not in name]
        if block is None or block < 0 or any(name in case.rebuilt for name in lost):
            continue
        for name in world.known:
            came = _block_output(world, name)
            if came is None or came >= block or name.startswith(MINE):
                continue
            inputs = (*formula.inputs[:slot], name, *formula.inputs[slot + 1 :])
            skipping = replace(formula, inputs=inputs)
            change: dict[str, Make] = {formula.name: lambda w, c=skipping: world.compute(c)}  # type: ignore[misc]
            hypothesis = Hypothesis("block-skipped", f"nothing of {part} was shown", change)
            level = _fits(case, world, hypothesis)
            if level:
                yield _Found(
                    "block-skipped",
                    f"nothing of {part} was shown, and {name} went on",
                    level,
                    0.98,
                    hypothesis=hypothesis,
                )
                return


def _no_mistake(case: _Case, world: World) -> Iterator[_Found]:
    """The same steps one by one, where the official model has them in one kernel."""
    assert case.target is not None
    steps = [world.formulas[name] for name in world.reaching(case.target, case.same)]
    alone = Hypothesis("rounding", "", {s.name: lambda w, s=s: w.compute(s) for s in steps})  # type: ignore[misc]
    if _fits(case, world, alone) == 2:
        yield _Found(
            "rounding", "the steps one by one instead of the fused kernel", 2, 0.97, hypothesis=alone
        )


# ------------------------------------------------------------------- first round: known mistakes


def _known_mistakes(case: _Case, world: World) -> Iterator[_Found]:
    """Try each known mistake at the target and at the steps before it that nobody has checked."""
    assert case.target is not None
    together: dict[tuple[str, str, str], list[Hypothesis]] = {}
    for site in reversed(world.reaching(case.target, case.same)):  # in the order of computation
        for hypothesis in hypotheses(world, world.formulas[site]):
            key = (template(site), hypothesis.cause, hypothesis.says)
            together.setdefault(key, []).append(hypothesis)
    for (_, cause, says), several in together.items():
        # The same mistake in every block, as one function makes it; and in a single one.
        merged = replace(several[0], changes={k: v for h in several for k, v in h.changes.items()})
        for hypothesis in [merged, *(several if len(several) > 1 else [])]:
            level = _fits(case, world, hypothesis)
            if level and (cause != "rounding" or level == 2):
                confidence = 0.99 if level == 2 else 0.9
                yield _Found(cause, says, level, confidence, next(iter(hypothesis.changes)), hypothesis)
                break


def _on_the_way(case: _Case, world: World) -> Iterator[_Found]:
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
                if not _worth_it(case, formula, world, given):
                    continue

                def before(w: World, given=given, formula=formula) -> Any:  # type: ignore[no-untyped-def]
                    return world.given(given).compute(formula)

                tried.append((cause, f"what went in ({right.replace('#', '')}): {says}", before))
        for key in formula.weights:
            weight = world.weights[key]
            for cause, says, do in of_weights(world, formula, weight):
                if time.monotonic() > until:
                    return
                if not _worth_it(case, formula, world.with_weights({key: do(weight)}), values):
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
            level = _fits(case, world, Hypothesis(cause, says, {site: make}))
            if level:
                yield _Found(cause, says, level, 0.9 if level == 2 else 0.8, site)
                return
            if time.monotonic() > until:
                return


def _in_part(case: _Case, world: World) -> Iterator[_Found]:
    """A mistake that was made in some heads, tokens or rows only: the others are right."""
    for axis, places, says in numbers.parts_that_differ(case.mine, case.official):
        narrow = replace(case, part=(axis, places))
        found = [*_known_mistakes(narrow, world), *_elsewhere(narrow, world)]
        for f in found:
            yield replace(f, says=f"{f.says}, {says}", confidence=f.confidence - 0.05, hypothesis=None)
        if found:
            return


# Steps that treat every token by itself: a few tokens tell already whether a guess can be right.
ROWWISE = {
    "layer norm", "linear", "conv1d", "act", "elementwise", "square", "mean square", "plus eps",
    "inverse root", "multiply", "stretch", "add", "masked",
}  # fmt: skip


def _worth_it(case: _Case, formula: Formula, world: World, values: Mapping[str, Tensor | None]) -> bool:
    """Whether a guess agrees for the first few tokens. Saves most of the work in a large model."""
    if formula.kind not in ROWWISE or formula.name != case.target or case.part is not None:
        return True
    if case.mine.shape != case.official.shape or case.mine.dim() < 2:
        return True
    size = case.mine.shape[:2]

    def by_token(value: Tensor | None) -> bool:
        alike = value is not None and value.dim() > 1 and value.shape[1] == size[1]
        return alike and value is not None and len(value) in (1, size[0])

    few = {n: v[:1, :4] if v is not None and by_token(v) else v for n, v in values.items()}
    try:
        guess = world.given(few).compute(formula)
    except (RuntimeError, IndexError, LookupError, ValueError):
        return False
    return guess is not None and numbers.fits(guess, case.mine[:1, :4], case.official[:1, :4]) > 0


def _fits(case: _Case, world: World, hypothesis: Hypothesis) -> int:
    """2 if the hypothesis gives the tensor at hand to the bit, 1 if but for rounding, else 0."""
    assert case.target is not None
    try:
        guess = world.changed(hypothesis.changes, case.same).value(case.target)
    except (RuntimeError, IndexError, LookupError, ValueError):
        return 0  # these numbers cannot be computed here: other shapes, or no such tensor in this run
    level = 0 if guess is None else numbers.fits(case.narrowed(guess), case.mine, case.official)
    several = len(hypothesis.changes) > 1
    return 0 if level and several and _contradicted(case, world, hypothesis) else level


def _contradicted(case: _Case, world: World, hypothesis: Hypothesis) -> bool:
    """Whether the changes would also have changed a checkpoint that is right."""
    changed = world.changed(hypothesis.changes, frozenset())
    for name, formula in world.formulas.items():
        if name in case.same and any(i in hypothesis.changes for i in formula.inputs):
            try:
                value = changed.value(name)
            except (RuntimeError, IndexError, LookupError, ValueError):
                return True
            if value is None or not same_numbers(value, case.truth[name]):
                return True
    return False


# ---------------------------------------------------- second round: another tensor, another weight


def _elsewhere(case: _Case, world: World) -> Iterator[_Found]:
    """The same steps with another tensor put in, or with another weight."""
    assert case.target is not None
    until = time.monotonic() + PATIENCE
    for site in world.reaching(case.target, case.same):
        formula = world.formulas[site]
        for search in (_other_inputs, _other_weights, _twice):
            for found in search(case, world, formula):
                yield found
                if found.level == 2 and site != case.target:
                    return
            if time.monotonic() > until:
                return  # a step far from the last one that is right, in a large model


def _other_inputs(case: _Case, world: World, formula: Formula) -> Iterator[_Found]:
    for slot, right in enumerate(formula.inputs):
        official = world.value(right)
        if official is None or not official.is_floating_point():
            continue
        for name, tensor in list(world.known.items()):
            if name == right or tensor is None or tensor.shape[1:] != official.shape[1:]:
                continue
            if not tensor.is_floating_point() or name == MINE + formula.name:
                continue
            if name.startswith(MINE) and not _may_be_later(world, formula, right, name):
                continue
            inputs = (*formula.inputs[:slot], name, *formula.inputs[slot + 1 :])
            changed = replace(formula, inputs=inputs)
            if not _worth_it(case, changed, world, {i: world.value(i) for i in inputs}):
                continue
            only_here = Hypothesis("", "", {formula.name: lambda w, c=changed: world.compute(c)})  # type: ignore[misc]
            level = _fits(case, world, only_here)
            if level:
                for cause, says, change in _causes_of_input(case, world, formula, right, name):
                    hypothesis = Hypothesis(cause, says, change or only_here.changes)
                    if change is not None and _contradicted(case, world, hypothesis):
                        continue
                    yield _Found(cause, says, level, 0.97 if level == 2 else 0.88, hypothesis=hypothesis)


def _may_be_later(world: World, f: Formula, right: str, name: str) -> bool:
    """Whether a tensor of the person's own, which differs, can have gone in here although this step is the
    first that differs: only where blocks or halves of a block run in another order."""
    shown = name.removeprefix(MINE)
    blocks = _block_output(world, right) is not None and _block_output(world, shown) is not None
    after = part_of(shown) == part_of(f.name) and (f.kind == "layer norm" or "norm" in f.facts)
    return blocks or after


def _causes_of_input(
    case: _Case, world: World, f: Formula, right: str, name: str
) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """What it can mean that `name` went in where `right` belongs: the cause, in words, and what would then
    be changed if it is more than this step."""
    shown = name.removeprefix(MINE)
    own = "your own " if name.startswith(MINE) else ""
    says = f"{own}{shown.replace('#', '')} went in instead of {right.replace('#', '')}"
    everywhere = {right: lambda w: world.value(name)}
    into, came = _block_output(world, right), _block_output(world, shown)
    before = world.formulas.get(right)
    if into is not None and came is not None and f.facts.get("residual") != right:
        if own:
            yield "block-order", f"{says}: another block ran before", None
        elif came <= into:
            yield "block-skipped", f"{says}: what lies between was left out", everywhere
            yield "wrong-input", says, None
        else:
            yield "block-repeated", f"{says}: this block ran before already", everywhere
    elif f.facts.get("norm") == shown:
        yield "norm-twice", says, None
    elif own and part_of(shown) == part_of(f.name) and (f.kind == "layer norm" or "norm" in f.facts):
        yield "norm-position", f"{says}: the norm stands after the half-block", None
    elif right.startswith("#past."):
        yield "cache-order", says, None
    elif f.facts.get("cross") == right:
        yield "cross-attention-source", says, None
    elif f.facts.get("residual") == right:
        yield "residual-wrong", says, None
    elif f.kind == "add bias" and right == f.inputs[1]:
        yield "position-bias-wrong", says, None
    elif f.kind in ("product", "mix", "multiply", "add"):
        yield "wrong-operand", says, None
    elif before is not None and before.kind == "scale" and before.facts.get("output"):
        yield "output-scale-missing", says, None
    else:
        computed = right in case.same
        source = before.facts.get("norm of", before.inputs[0] if before.inputs else "") if before else ""
        left_out = before is not None and shown == source and before.kind in ("layer norm", "stretch")
        bent = before is not None and before.kind in ("act", "elementwise") and shown == before.facts.get("x")
        if left_out and not computed:
            yield "norm-missing", f"{says}: what should have been normalised first", None
        elif bent:
            yield "activation-missing", says, None
        if right in world.formulas and world.formulas[right].facts.get("residual") and not own:
            yield "wrong-input", says, None
            yield "block-skipped", f"{says}: the half-block between them has no effect", everywhere
        else:
            yield "wrong-input", says, None
        if left_out and computed:
            yield "norm-missing", f"{says}: what should have been normalised first", None


def _block_output(world: World, name: str) -> int | None:
    """The number of the block whose output this is; -1 for what goes into the first block."""
    for words in (".output.LayerNorm", ".mlp.residual", ".layer.1.residual", ".layer.2.residual"):
        if (
            name.endswith(words)
            and name in world.formulas
            and not name.endswith("attention.output.LayerNorm")
        ):
            if name.startswith("decoder") and words == ".layer.1.residual":
                continue
            return next((int(word) for word in name.split(".") if word.isdigit()), None)
    last = name.rpartition(".")[2]
    if last.isdigit():
        return int(last)  # a whole block, as a module
    first = (
        "embeddings",
        "embeddings.LayerNorm",
        "encoder.embed_tokens",
        "decoder.embed_tokens",
        "model.embed_tokens",
    )
    return -1 if name in first else None


def _twice(case: _Case, world: World, formula: Formula) -> Iterator[_Found]:
    """What goes in went through its block, or through a part of it, a second time."""
    for right in formula.inputs:
        value = world.value(right)
        if value is None or right not in world.formulas or value.dim() != 3:
            continue
        if _block_output(world, right) is None and "residual" not in world.formulas[right].facts:
            continue
        part = world.reaching(right, ())[1:]
        upstream = [n for n in part if n in world.known and world.known[n] is not None]
        for start in upstream[:60]:
            tensor = world.known[start]
            if tensor is None or tensor.shape != value.shape or not tensor.is_floating_point():
                continue
            again = Hypothesis("block-repeated", "", {start: lambda w, r=right: world.value(r)})  # type: ignore[misc]
            try:
                second = world.changed(again.changes, case.same - {right, *part}).value(right)
            except (RuntimeError, IndexError, LookupError, ValueError):
                continue
            change = {right: lambda w, s=second: s}
            hypothesis = Hypothesis("block-repeated", "", change)  # type: ignore[arg-type]
            level = _fits_through(case, world, hypothesis)
            if level:
                between = [n for n in part if start in world.reaching(n, ())[1:]]
                kinds = {world.formulas[n].kind for n in (right, *between)}
                norm = kinds <= {
                    "layer norm",
                    "square",
                    "mean square",
                    "plus eps",
                    "inverse root",
                    "multiply",
                    "stretch",
                }
                cause = "norm-twice" if norm else "block-repeated"
                yield _Found(
                    cause,
                    f"what lies between {start} and {right} ran twice",
                    level,
                    0.95,
                    hypothesis=hypothesis,
                )
                return


def _fits_through(case: _Case, world: World, hypothesis: Hypothesis) -> int:
    """As `_fits`, for a change before the target of a checkpoint that the person has right."""
    assert case.target is not None
    fixed = case.same - set(hypothesis.changes)
    guess = world.changed(hypothesis.changes, fixed).value(case.target)
    return 0 if guess is None else numbers.fits(case.narrowed(guess), case.mine, case.official)


def _other_weights(case: _Case, world: World, formula: Formula) -> Iterator[_Found]:
    """The same step with weights of another part: all of them, or one."""
    if not formula.weights:
        return
    shapes = [world.weights[key].shape for key in formula.weights]
    tried: list[tuple[str, ...]] = []
    if len(formula.weights) > 1:
        last = [key.rpartition(".")[2] for key in formula.weights]
        for key in world.weights:
            path, _, word = key.rpartition(".")
            keys = tuple(f"{path}.{w}" for w in last)
            if word == last[0] and all(k in world.weights for k in keys):
                tried.append(keys)
    for slot, right in enumerate(formula.weights):
        alike = [k for k in world.weights if k != right and world.weights[k].dim() == len(shapes[slot])]
        tried += [(*formula.weights[:slot], key, *formula.weights[slot + 1 :]) for key in alike]
        if formula.kind in ("linear", "conv1d") and len(shapes[slot]) == 2:
            turned = [k for k in world.weights if world.weights[k].shape[::-1] == shapes[slot] and k != right]
            tried += [(*formula.weights[:slot], k + TURNED, *formula.weights[slot + 1 :]) for k in turned]
    world = world.with_weights(
        {k: world.weights[k.removesuffix(TURNED)].mT for keys in tried for k in keys if k.endswith(TURNED)}
    )
    for keys in tried:
        if keys == formula.weights:
            continue
        if formula.kind != "lookup" and [world.weights[k].shape for k in keys] != shapes:
            continue
        changed = replace(formula, weights=keys)
        if not _worth_it(case, changed, world, {i: world.value(i) for i in formula.inputs}):
            continue
        hypothesis = Hypothesis("wrong-weight", "", {formula.name: lambda w, c=changed: w.compute(c)})  # type: ignore[misc]
        level = _fits(case, world, hypothesis)
        if level:
            cause, says = _cause_of_weights(case, world, formula, keys)
            yield _Found(cause, says, level, 0.97 if level == 2 else 0.88, hypothesis=hypothesis)


def _cause_of_weights(case: _Case, world: World, f: Formula, keys: tuple[str, ...]) -> tuple[str, str]:
    """What it means that these weights were used."""
    wrong = [(k, right) for k, right in zip(keys, f.weights, strict=True) if k != right]
    says = "; ".join(f"{k} was used instead of {right}" for k, right in wrong)
    key, right = wrong[0]
    if f.facts.get("head"):
        return "untied-head", says
    if f.facts.get("what") == "bucket":
        return "position-bias-wrong", says
    if template(key) == template(right) and part_of(key) != part_of(right):
        if _exchanged(case, world, f, key, right):
            return "block-order", f"{says}, and so in the other blocks: they run in another order"
        return "wrong-block-weights", says
    group = f.facts.get("group")
    if group and len(wrong) == len(keys):
        other = key.removesuffix(".weight")
        names = {word.rpartition(".")[2] for word in (other, f.name)}
        both = other in case.rebuilt and same_numbers(case.rebuilt[other], case.truth[f.name])
        if both and names in ({"query", "key"}, {"q", "k"}):
            return "query-key-swapped", says
    if len(wrong) == 1 and right.endswith("bias") and len(f.weights) > 1:
        return ("norm-affine-wrong" if f.kind == "layer norm" else "bias-wrong"), says
    return "wrong-weight", says


def _exchanged(case: _Case, world: World, f: Formula, key: str, right: str) -> bool:
    """Whether the block whose weights were used here, uses others itself."""
    there = f.name.replace(part_of(right), part_of(key), 1)
    formula = world.formulas.get(there)
    if formula is None or there not in case.rebuilt or there in case.same:
        return False
    inputs = tuple(MINE + i if MINE + i in world.known else i for i in formula.inputs)
    mine = case.rebuilt[there]
    with_own = world.compute(replace(formula, inputs=inputs))
    return with_own is not None and not numbers.fits(with_own, mine, torch.zeros_like(mine))


# ------------------------------------------------------------------------------------ the verdict


def _ranked(case: _Case, found: list[_Found]) -> list[_Found]:
    """To the bit before nearly; where several fit alike, first those that also explain what follows."""
    best = max((f.level for f in found), default=0)
    rivals = [f for f in found if f.level == best and f.hypothesis is not None]
    after: dict[int, int] = {}
    if case.world is not None and len({f.cause for f in rivals}) > 1:
        names = list(case.truth)
        assert case.target is not None
        here = names.index(case.target)
        part = part_of(case.target)
        following = [n for n in names[here + 1 :] if n in case.rebuilt and part_of(n) == part][:8]
        following = following or [n for n in names[here + 1 : here + 9] if n in case.rebuilt]
        for f in rivals:
            assert f.hypothesis is not None
            after[id(f)] = _explained(case, case.world, f.hypothesis, following)
    order = {id(f): number for number, f in enumerate(found)}
    return sorted(found, key=lambda f: (-f.level, -after.get(id(f), 0), order[id(f)]))


def _explained(case: _Case, world: World, hypothesis: Hypothesis, names: list[str]) -> int:
    """How many of these checkpoints a hypothesis gives as they are."""
    changed, count = world.changed(hypothesis.changes, case.same - set(hypothesis.changes)), 0
    for name in names:
        try:
            guess = changed.value(name) if name in world.formulas else None
        except (RuntimeError, IndexError, LookupError, ValueError):
            break
        fit = guess is not None and (
            same_numbers(guess, case.rebuilt[name])
            or numbers.fits(guess, case.rebuilt[name], case.truth[name]) > 0
        )
        if not fit:
            break
        count += 1
    return count


def _confident(found: list[_Found]) -> list[_Found]:
    """One explanation a cause, each less sure where others fit as well."""
    kept: list[_Found] = []
    for f in found:
        if f.cause not in {k.cause for k in kept}:
            kept.append(f)
    rivals = [f for f in kept if f.level == kept[0].level and f.level and f.hypothesis is not None]
    sure = []
    for at, f in enumerate(kept):
        doubt = 0.1 * max(0, len(rivals) - 1) + 0.05 * at + (0.3 if f.level < kept[0].level else 0.0)
        sure.append(replace(f, confidence=round(max(0.05, f.confidence - doubt), 2)))
    return sure


def _said(case: _Case, f: _Found) -> Diagnosis:
    assert case.target is not None
    site = f.site if f.site and "#" not in f.site else case.target
    what = CAUSES[f.cause]
    explanation = f"At {site}: {what}" + (f" ({f.says})" if f.says else "") + f". {REMEDIES[f.cause]}"
    if f.level == 2 and f.hypothesis is not None:
        evidence = f"Computed in this way from the official inputs, {case.target} is yours to the bit."
    elif f.hypothesis is not None:
        evidence = f"Computed in this way from the official inputs, {case.target} is yours but for rounding."
    elif f.level == 2:
        evidence = f"Seen in the numbers of {case.target}, to the bit."
    else:
        evidence = f"Seen in the numbers of {case.target}; {numbers.where(case.mine, case.official)}."
    return Diagnosis(f.cause, explanation, f.confidence, evidence, chapter(f.cause), site)


def _never_shown(case: _Case, error: BaseException | None) -> Diagnosis:
    """Nothing that is there differs: the rest is missing."""
    cause, says, confidence = "missing", "", 0.9
    if error is not None:
        says = f"the run stopped here: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        cause, confidence = "unknown", 0.3
        if "tapped twice" in str(error):
            cause, confidence = "block-repeated", 0.9
        elif _turned(case, error):
            cause, confidence = "weight-transposed", 0.9
    else:
        part = part_of(case.first)
        if not any(part_of(name) == part for name in case.rebuilt) and any(c.isdigit() for c in part):
            cause, says = "block-skipped", f"nothing of {part} was shown"
    explanation = (
        f"At {case.first}: {CAUSES[cause]}" + (f" ({says})" if says else "") + f". {REMEDIES[cause]}"
    )
    evidence = f"All {len(case.same)} checkpoints that were shown are bit-identical."
    return Diagnosis(cause, explanation, confidence, evidence, chapter(cause), case.first)


def _turned(case: _Case, error: BaseException) -> bool:
    """Whether torch complains about just the shapes that the next step's weight has when it is turned."""
    formula = case.world.formulas.get(case.first) if case.world is not None else None
    if formula is None or formula.kind not in ("linear", "conv1d") or case.world is None:
        return False
    weight = case.world.weights[formula.weights[0]]
    out, into = weight.shape if formula.kind == "linear" else weight.T.shape
    return any(f"{a}x{b}" in str(error) for a, b in ((out, into), (into, out))) and "shapes" in str(error)
