"""A whole proof (official run, rebuild, every checkpoint compared) beside the bare official pass of the same
texts, and a search for a tensor among all that the official model computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness import TITLES, Harness, Row, digits
from benchmarks.passes import bare, question_of
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.proof import prove
from llm_rebuild.verify.trace import trace

BATCH, LENGTH = 8, 29  # texts a proof, as in a sweep, and tokens a text
MODELS, TEXTS, HOUR = 1_000, 1_000_000, 3600.0  # of the estimate
TOKENS = 64  # of the run that is searched


def proofs(harness: Harness) -> Iterator[Row]:
    """Of MiniLM and of a full-size GPT-2, in both spellings of attention."""
    for name in ("minilm",) if harness.quick else ("minilm", "gpt2"):
        copy = harness.copy(name)
        for attention in ("eager", "sdpa"):
            official = Official(copy.folder, attention)
            question = question_of(copy, LENGTH, BATCH, attention)
            runs = {
                "proof": lambda q=question: explain(prove(q, coverage=False)),
                "official": bare(question, official),
            }
            case = {"model": TITLES[name], "attention": attention, "tokens": LENGTH, "texts": BATCH}
            for one in harness.compare(case, runs, "official"):
                a_text = one["seconds"] / BATCH
                hours = a_text * MODELS * TEXTS / HOUR
                yield one | {"seconds_a_text": digits(a_text), "sweep_hours": round(hours)}


def wanted(seen: Trace) -> dict[str, Tensor]:
    """Tensors such as people look for."""

    def of(name: str) -> Tensor:
        return seen[name].value.clone()

    probs, scaled, wide = of("h.2.attn.probs"), of("h.2.attn.scaled"), of("h.2.mlp.c_fc")
    tokens, seeded = probs.shape[-1], torch.Generator().manual_seed(1)
    return {
        "itself": probs,
        "transposed": probs.mT.contiguous(),
        "one head": probs[0, 3].clone(),
        "columns": wide[:, :, 10:20].clone(),
        "scaled": scaled / 3,
        "bias missing": wide - seen.weights["h.2.mlp.c_fc.bias"],
        "masked": scaled.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf),
        "softmax": scaled.softmax(dim=-1),
        "exact GELU": F.gelu(wide),
        "transposed, and rounded": probs.mT + 1e-7 * torch.randn(probs.shape, generator=seeded),
        "random numbers": torch.randn(1, tokens, wide.shape[-1], generator=seeded),
    }


def searches(harness: Harness) -> list[Row]:
    """Of full-size GPT-2."""
    copy = harness.copy("gpt2")
    official = Official(copy.folder)
    question = question_of(copy, TOKENS, 1, "eager")
    seen = trace(question, official=official)
    kinds = list(wanted(seen).items())
    runs = {f"find: {name}": lambda tensor=tensor: seen.find(tensor) for name, tensor in kinds}
    case = {"model": TITLES["gpt2"], "entries": len(list(seen)), "tokens": TOKENS}
    few = replace(harness, rounds=min(harness.rounds, 5))
    return few.compare(case, runs | {"official": bare(question, official)}, "official")


def measure(harness: Harness) -> Iterator[Row]:
    """Proofs, then searches."""
    yield from proofs(harness)
    yield from [] if harness.quick else searches(harness)
