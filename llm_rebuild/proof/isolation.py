"""Is the rebuild really a rebuild? Or does it lean on what it should explain?

Two leaks make a comparison worthless and leave every number right: an official interim tensor that is
carried into the rebuild, and weights that are taken from the official model's memory instead of the file.
Neither shows in the results. Both show in where the tensors come from.

`run_watched` runs a rebuild under the dispatcher's eyes, through which every operation passes. A tensor that
goes into an operation is the rebuild's own if an operation of the rebuild made it, or if it is a window on
the weight file or on the input. Every other one came from outside, and is held against the official tensors:
whole or a part of one, in whatever order the numbers lie, or a function of one, element by element (scaled,
shifted, rounded, cut off, through GELU). Fewer than 8 different numbers, as a mask of 0 and 1 has, are taken
for a constant. It cannot see what mixes the elements before it comes in (a product with a matrix, a sum over
an axis, a norm, a sum of two tensors that is no checkpoint), nor numbers that travel outside of tensors.

`prove_isolated` goes further for the rebuilds of this package: they run in a process of their own
(process/rebuild.py) that has the weights and the input; nothing official can be imported or read there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llm_rebuild import verify
from llm_rebuild.checkpoints import Recorder, Tap, memory_of
from llm_rebuild.errors import InputError
from llm_rebuild.process.origins import FEWEST, Origins
from llm_rebuild.process.rebuild import rebuild
from llm_rebuild.process.run import Process
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.equality import same_bits
from llm_rebuild.verify.question import Model, Question
from llm_rebuild.verify.transforms import ACTIVATIONS, Function
from llm_rebuild.weights import DTYPES, Weights

Forward = Callable[[Tensor, Tensor, Weights, Tap], Any]

FEWEST_IN_STEP = 16  # so many different numbers do not rise and fall together by chance


@dataclass(frozen=True)
class Leak:
    """Something official that reached the rebuild.

    kind       `interim tensor` or `live weight`.
    name       Its checkpoint, or its key in the weight file.
    operation  The operation that it went into first.
    derived    Whether it is not the official tensor itself but a function of it, element by element.
    """

    kind: str
    name: str
    operation: str
    derived: bool = False

    def __str__(self) -> str:
        if self.kind == "live weight":
            return (
                f"live weight: {self.name} did not come from the weight file (first used in {self.operation})"
            )
        what = f"a function of the official {self.name}" if self.derived else f"the official {self.name}"
        return f"leak: {what} went into the rebuild (first used in {self.operation})"


@dataclass(frozen=True)
class Isolated:
    """What a watched run gave: the tapped tensors, and what leaked into them."""

    tensors: dict[str, Tensor]
    leaks: tuple[Leak, ...]


def run_watched(forward: Forward, weights: Weights, truth: Capture) -> Isolated:
    """Run `forward(token_ids, mask, weights, tap)` on the capture's inputs and name what leaks into it.

    Tensors that were taken openly, by `truth.bridge(name)`, are no leaks: reports call them coupled.
    """
    recorder, foreign = Recorder(), list[tuple[str, Tensor]]()
    inputs = (truth.inputs.token_ids.clone(), truth.inputs.mask.clone())

    def outside(tensor: Tensor, operation: str) -> None:
        """Keep what came from elsewhere."""
        foreign.append((operation, tensor.clone()))

    with torch.no_grad(), Origins([*weights.peek().values(), *inputs], outside):
        forward(*inputs, weights, recorder.tap())
    return Isolated(recorder.tensors, leaks_of(foreign, truth, weights))


def leaks_of(foreign: Iterable[tuple[str, Tensor]], truth: Capture, weights: Weights) -> tuple[Leak, ...]:
    """What is official among tensors that came from elsewhere, each with the operation it went into: a leak
    for each name. What was bridged is none."""
    leaks: dict[str, Leak] = {}
    for operation, tensor in foreign:
        leak = _leak(tensor, operation, truth, weights)
        if leak is not None:
            leaks.setdefault(leak.name, leak)
    return tuple(leaks.values())


def _leak(tensor: Tensor, operation: str, truth: Capture, weights: Weights) -> Leak | None:
    integers = not tensor.is_floating_point()
    numbers = _as_floats(tensor, DTYPES[truth.dtype]) if integers else tensor
    names = _origins(numbers, truth.tensors)
    sources = [] if integers or (names and not truth.coupled) else _sources(tensor, truth.tensors)
    if any(name in truth.coupled for name in (*names, *sources)):
        return None
    if names:
        return Leak("interim tensor", names[0], operation)
    keys = _origins(numbers, weights.peek())
    if keys:
        return Leak("live weight", keys[0], operation)
    return Leak("interim tensor", sources[0], operation, derived=True) if sources else None


def _as_floats(integers: Tensor, dtype: torch.dtype) -> Tensor:
    """The same bytes, read as numbers with decimals."""
    raw, size = memory_of(integers), dtype.itemsize
    return raw[: len(raw) // size * size].clone().view(dtype)


def _origins(tensor: Tensor, among: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that this one may have been taken from: those that it equals, number by
    number; else those of its size that hold all its values; else the larger ones that do."""
    numbers = tensor.detach().flatten()
    parts = (numbers[:1000], numbers)  # the first thousand nearly always have enough to tell a tensor by
    if not any(len(torch.unique(part)) >= FEWEST for part in parts):
        return []
    equal = [n for n, t in among.items() if t.dtype == numbers.dtype and same_bits(numbers, (t,))]
    if equal:
        return equal
    larger = {n: t for n, t in among.items() if t.dtype == numbers.dtype and t.numel() >= numbers.numel()}
    holding = [n for n, t in larger.items() if _within(numbers, t)]
    return [n for n in holding if among[n].numel() == numbers.numel()] or holding


def _within(numbers: Tensor, tensor: Tensor) -> bool:
    """Whether each of these numbers occurs in the tensor. A few are tried first: usually one does not."""
    everything = tensor.detach().flatten()
    few = all((everything == number).any() for number in numbers[_few(numbers)])
    return few and bool(torch.isin(numbers, everything).all())


def _few(numbers: Tensor) -> slice:
    """Some of the numbers, from all over them."""
    return slice(None, None, max(1, len(numbers) // FEWEST))


def _sources(tensor: Tensor, among: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors of which this one is a function, element by element."""
    numbers = tensor.detach().flatten()
    if len(torch.unique(numbers)) < FEWEST_IN_STEP:
        return []
    alike = {n: t.flatten() for n, t in among.items() if t.numel() == len(numbers) and t.is_floating_point()}
    if not alike:
        return []
    some = torch.stack([official[_few(numbers)] for official in alike.values()])
    likely = torch.stack([_in_step(numbers[_few(numbers)], f(some)) for f in _FUNCTIONS]).any(dim=0)
    candidates = [official for official, fits in zip(alike.items(), likely, strict=True) if fits]
    return [name for name, official in candidates if any(_in_step(numbers, f(official)) for f in _FUNCTIONS)]


# Whatever rises or falls with one of these is found: sums, multiples, tanh, exp, roundings; squares; …
_FUNCTIONS: tuple[Function, ...] = (
    lambda x: x,
    torch.abs,
    *(ACTIVATIONS[name] for name in ("gelu", "gelu_new", "silu")),
)


def _in_step(numbers: Tensor, official: Tensor) -> Tensor:
    """Whether the numbers [n] rise, or fall, with the official ones [..., n] and stay with them. -> [...]"""
    official, order = official.sort(dim=-1)
    numbers = numbers[order]
    steps_up, steps_down = numbers[..., 1:] >= numbers[..., :-1], numbers[..., 1:] <= numbers[..., :-1]
    stay = (steps_up & steps_down) | (official[..., 1:] != official[..., :-1])
    return stay.all(dim=-1) & (steps_up.all(dim=-1) | steps_down.all(dim=-1))


# ------------------------------------------------------------------------ a process of its own


def prove_isolated(model: Model | Question, texts: Any = None, **options: Any) -> verify.Proof:
    """As `verify.prove`, with the rebuild in a process of its own. The report says `isolated`, and what
    leaked: every tensor in that process that is neither from a file nor computed there."""
    foreign: list[tuple[str, Tensor]] = []

    def run(question: Question) -> dict[str, Tensor]:
        """Run it apart, and keep what came from elsewhere."""
        tensors, outsiders = run_apart(question)
        foreign.extend(outsiders)
        return tensors

    proof = verify.prove(model, texts, run=run, **options)
    leaks = leaks_of(foreign, proof.truth, proof.question.weights)
    return replace(proof, report=replace(proof.report, isolated=True, leaks=tuple(map(str, leaks))))


def run_apart(question: Question) -> tuple[dict[str, Tensor], list[tuple[str, Tensor]]]:
    """Run the package's rebuild in a new process, which is sent the input and opens the weight file.

    Returns its tensors by checkpoint name, the same to the bit as those of this process, and the tensors
    from elsewhere that went into an operation there, each with the operation's name.
    Raises InputError where that process finds the input at fault, imports or reads something official, or
    is stopped by the system.
    """
    job = {
        "weights": str(question.copy.weights_file.absolute()),
        "config": question.copy.config,
        "attention": question.attention,
        "dtype": question.dtype,
        "cache": question.cache,
        "threads": torch.get_num_threads(),
    }
    with Process(rebuild) as process:
        outcome = process.outcome(job, question.inputs.tensors)
    end, ended = outcome.end, process.ended
    assert ended is not None
    if end.get("end") == "refused":
        raise InputError(str(end["problem"]))
    if not end and ended.how.startswith("signal"):
        raise InputError(
            f"the process of the rebuild was ended by {ended.how}, as happens when memory runs out; give it "
            "fewer or shorter texts"
        )
    if not end:
        raise RuntimeError(f"the rebuild failed in its process ({ended.how}):\n{ended.output}")
    return outcome.tapped, outcome.foreign
