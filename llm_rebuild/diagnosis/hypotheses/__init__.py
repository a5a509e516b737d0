"""What a person may have done instead. For every kind of step the mistakes that are made there, each as a
computation: if this had happened, the tensor would be *that*. `diagnose.py` tries which of them gives the
tensor that the person has.

A hypothesis computes with the same numbers as the step itself: the official tensors before it and the weight
file. It never looks at the tensor that it should explain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses import (
    embeddings,
    feed_forward,
    heads,
    linear,
    masks,
    norms,
    scores,
    sentence,
    sums,
)
from llm_rebuild.diagnosis.hypotheses.base import Make, Tries


@dataclass(frozen=True)
class Hypothesis:
    """One possible mistake.

    cause    Its name in `causes.py`.
    says     What exactly would have been done.
    changes  The steps that are computed in another way, and how.
    """

    cause: str
    says: str
    changes: dict[str, Make]


def hypotheses(world: World, formula: Formula) -> Iterator[Hypothesis]:
    """All mistakes that are tried at this step, the likelier first."""
    for cause, says, make in _OF_KIND[formula.kind](world, formula) if formula.kind in _OF_KIND else ():
        if isinstance(make, dict):
            yield Hypothesis(cause, says, make)
        else:
            yield Hypothesis(cause, says, {formula.name: make})


_OF_KIND: dict[str, Callable[[World, Formula], Tries]] = {
    "lookup": embeddings.lookup,
    "add": sums.add,
    "layer norm": norms.layer_norm,
    "square": norms.square,
    "mean square": norms.mean_square,
    "plus eps": norms.plus_eps,
    "inverse root": norms.inverse_root,
    "multiply": norms.multiply,
    "stretch": norms.stretch,
    "linear": linear.linear,
    "conv1d": linear.linear,
    "first token": linear.first_token,
    "split": heads.split,
    "cat": heads.cat,
    "same": heads.same,
    "product": scores.product,
    "scale": scores.scale,
    "add bias": scores.add_bias,
    "mask": masks.mask,
    "add mask": masks.add_mask,
    "biased mask": masks.biased_mask,
    "softmax": scores.softmax,
    "mix": scores.mix,
    "merge": heads.merge,
    "act": feed_forward.act,
    "elementwise": feed_forward.elementwise,
    "masked": sentence.masked,
    "total": sentence.total,
    "count": sentence.count,
    "divide": sentence.divide,
    "unit": sentence.unit,
}
