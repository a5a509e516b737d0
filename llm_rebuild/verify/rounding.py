"""Is a difference rounding, or a mistake? Both sides run once more, in float64.

Two spellings of one formula round differently; in float64 their difference shrinks by nine orders of
magnitude. A mistake stays as large as it was. So the official model and the rebuild compute everything again
from the same weights, widened, and each checkpoint's difference is measured against the size of its numbers.

Code written for float32 narrows here and there: T5's norm says `.to(torch.float32)`, its softmax `.float()`.
While this runs, what would narrow a float64 tensor to float32 leaves it as it is, on both sides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from llm_rebuild.checkpoints import Recorder, Tap
from llm_rebuild.models.part import Batch
from llm_rebuild.verify.capture import capture
from llm_rebuild.verify.equality import FLOAT32_NOISE, VANISHED, relative_difference
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Question

ROUNDING = "rounding"
MISTAKE = "mistake"
UNCLEAR = "unclear"


@dataclass(frozen=True)
class Rounding:
    """What is left of the differences in float64.

    differences  Checkpoint -> the largest difference, divided by the largest official number; infinite where
                 the shapes differ or only one side is finite.
    narrow       Checkpoints that the rebuild computed in another dtype even so.
    problem      Why nothing could be said, in one line; empty where it could.
    """

    differences: Mapping[str, float] = field(default_factory=dict)
    narrow: frozenset[str] = frozenset()
    problem: str = ""

    def kind(self, name: str) -> str:
        """`rounding`, `mistake`, or `unclear`, of a checkpoint that differs in float32."""
        difference = self.differences.get(name)
        if difference is None:
            return UNCLEAR if self.problem else MISTAKE  # it was never computed
        if difference < VANISHED:
            return ROUNDING
        return UNCLEAR if name in self.narrow and difference < FLOAT32_NOISE else MISTAKE

    def to_json(self, name: str) -> dict[str, Any]:
        """Of one checkpoint. JSON has no infinity: there the difference is null."""
        difference = self.differences.get(name)
        finite = difference is not None and difference < float("inf")
        return {
            "kind": self.kind(name),
            "float64_difference": difference if finite else None,
            "problem": self.problem or None,
        }


def separate(question: Question, forward: Callable[..., Any] | None = None) -> Rounding:
    """Run the official model and a rebuild in float64 and hold every checkpoint against each other.

    forward  The rebuild: called as `forward(token_ids, mask, weights, config, tap=tap)`, and with
             `decoder_ids` and `decoder_mask` where the model has a decoder beside its encoder. If None, the
             one in `llm_rebuild.models`. Where it cannot run in float64, the answer says so: `problem`.

    Costs one forward pass of each, at twice the memory.
    """
    rebuild, inputs, copy = question.rebuild, question.inputs, question.copy
    arguments: dict[str, Any] = {}
    if inputs.decoder_ids is not None and inputs.decoder_mask is not None:
        arguments = {"decoder_ids": inputs.decoder_ids.clone(), "decoder_mask": inputs.decoder_mask.clone()}
    recorder = Recorder()
    with in_float64():
        official = Official(copy.folder, question.attention, torch.float64)
        truth = capture(question, official=official).tensors
        del official
        weights = copy.weights().converted(widened)
        token_ids, mask = inputs.token_ids.clone(), inputs.mask.clone()
        try:
            with torch.no_grad():
                tap = Tap(_only_tensors(recorder))
                if forward is None:
                    cache = rebuild.module.Cache() if question.cache else None
                    batch = Batch(token_ids, mask, **arguments)
                    rebuild.run(batch, rebuild.part(weights, tap, question.attention), cache)
                else:
                    forward(token_ids, mask, weights, rebuild.config, tap=tap, **arguments)
        except (Exception, SystemExit) as error:  # a learner's code raises anything; what it tapped counts
            said = (str(error).splitlines() or [""])[0][:120]
            problem = f"the rebuild does not run in float64 ({type(error).__name__}: {said})"
            return _held(recorder.tensors, truth, problem)
    return _held(recorder.tensors, truth, "")


def widened(tensor: Tensor) -> Tensor:
    """A floating-point tensor in float64, any other as it is."""
    return tensor.double() if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """New tensors are float64, and what is float64 is not narrowed to float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _StayWide():
            yield
    finally:
        torch.set_default_dtype(before)


class _StayWide(TorchFunctionMode):
    """Turns `x.float()`, `x.to(torch.float32)` and `softmax(x, dtype=torch.float32)` of a float64 tensor into
    what keeps float64. Whole numbers become float32 as they are told: no digit of theirs is lost."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        wide = bool(args) and isinstance(args[0], Tensor) and args[0].dtype == torch.float64
        if wide and function is Tensor.float:
            return args[0]
        if wide and (function in (Tensor.to, Tensor.type) or "dtype" in kwargs):
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            if kwargs.get("dtype") is torch.float32:
                kwargs["dtype"] = torch.float64
        return function(*args, **kwargs)


def _only_tensors(recorder: Recorder) -> Callable[[str, Tensor], None]:
    """What a learner taps may be anything, and twice: that is for the comparison to refuse, not for this."""
    keep = recorder.tap()

    def observe(name: str, tensor: Tensor) -> None:
        if isinstance(tensor, Tensor) and name not in recorder.tensors:
            keep(name, tensor)

    return observe


def _held(rebuilt: Mapping[str, Tensor], truth: Mapping[str, Tensor], problem: str) -> Rounding:
    there = [name for name in truth if name in rebuilt]
    return Rounding(
        {name: relative_difference(rebuilt[name], truth[name]) for name in there},
        frozenset(name for name in there if rebuilt[name].dtype != torch.float64),
        problem,
    )
