"""Mistakes where two tensors are added: embeddings and residuals."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.diagnosis.formulas import Formula, World
from llm_rebuild.diagnosis.hypotheses.base import Tries


def add(world: World, f: Formula) -> Tries:
    a, b = f.inputs
    residual, lack = f.facts.get("residual"), f.facts.get("lack", {})
    for absent, kept in ((a, b), (b, a)):
        if residual:
            what = "residual-missing" if absent == residual else "wrong-operand"
            says = (
                "the half-block's result alone"
                if absent == residual
                else "the residual alone, without the result"
            )
        else:
            what, says = lack.get(absent, "wrong-operand"), f"{absent} left out"
        yield what, says, lambda w, kept=kept: w[kept]  # type: ignore[misc]
    if residual:
        new = b if a == residual else a
        yield "residual-scaled", "the residual twice", lambda w: w[new] + w[residual] + w[residual]
        yield "residual-scaled", "the result twice", lambda w: w[new] + w[new]
        yield "residual-scaled", "result minus residual", lambda w: w[new] - w[residual]
        yield "residual-scaled", "residual minus result", lambda w: w[residual] - w[new]
        yield "residual-scaled", "the sum halved", lambda w: (w[new] + w[residual]) * 0.5
        yield "residual-scaled", "the sum divided by √2", lambda w: (w[new] + w[residual]) / 2**0.5
        yield "residual-scaled", "the product of both", lambda w: w[new] * w[residual]
        yield "residual-scaled", "the residual halved", lambda w: w[new] + 0.5 * w[residual]
        yield "residual-scaled", "the result halved", lambda w: 0.5 * w[new] + w[residual]
        norm = world.formulas.get(f.facts.get("norm", ""))
        if norm is not None:
            for one, other, says in (
                (new, residual, "the result was normalised before the residual was added"),
                (residual, new, "the residual was normalised before it was added"),
            ):

                def before(w: World, one: str = one, other: str = other) -> Tensor:
                    weight, bias = (w.weights[key] for key in norm.weights)
                    return F.layer_norm(w[one], w[one].shape[-1:], weight, bias, norm.facts["eps"]) + w[other]

                yield "norm-position", says, before
    else:
        width = world[a].shape[-1]
        yield "embedding-scaled", f"{a} times √{width}", lambda w: w[a] * width**0.5 + w[b]
        yield "wrong-operand", f"{b} subtracted", lambda w: w[a] - w[b]
        yield "wrong-operand", "multiplied instead of added", lambda w: w[a] * w[b]
