"""A forward pass: the rebuild beside the official model, from ids to answer."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.harness import TITLES, Harness, Row
from benchmarks.passes import bare, question_of, rebuilt
from llm_rebuild.verify.official import Official

TOKENS, TEXTS = (1, 8, 64, 256, 512), (1, 16)
EAGER = 64  # tokens at which the other spelling of attention is timed, too


def cases(quick: bool) -> Iterator[tuple[str, int, int]]:
    """Attention, tokens, texts."""
    for tokens in (8, 64) if quick else TOKENS:
        for texts in TEXTS:
            yield "sdpa", tokens, texts
            if tokens == EAGER and not quick:
                yield "eager", tokens, texts


def measure(harness: Harness) -> Iterator[Row]:
    """Four models, every shape. Whether both answers have the same bits is looked at before."""
    for name, title in TITLES.items():
        copy = harness.copy(name)
        officials = {attention: Official(copy.folder, attention) for attention in ("sdpa", "eager")}
        for attention, tokens, texts in sorted(cases(harness.quick)):
            question = question_of(copy, tokens, texts, attention)
            runs = {"rebuild": rebuilt(question), "official": bare(question, officials[attention])}
            case = {"model": title, "attention": attention, "tokens": tokens, "texts": texts}
            ours, theirs = runs["rebuild"](), runs["official"]()
            assert isinstance(ours, torch.Tensor)
            assert isinstance(theirs, torch.Tensor)
            same = torch.equal(ours, theirs)
            del ours, theirs  # logits of 16 × 512 tokens take 1.6 GB
            for one in harness.compare(case, runs, "official", cold=False):
                yield one | {"identical": same}
