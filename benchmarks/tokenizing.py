"""Tokenizers: ours, in plain Python, beside the tokenizers library's, which is compiled. Line by line, and
other lines in every round: words that came before are remembered on both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle

from benchmarks.harness import ROOT, Harness, Row
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.models import RECORDS

LINES, ROUNDS = 100, 40  # of them a round, and how many rounds there are lines for
KINDS = {"byte_bpe": "byte BPE", "byte_bpe_json": "byte BPE", "unigram": "Unigram"}
NAMES = {r.published: f"{KINDS[r.tokenizer]} ({r.title})" for r in RECORDS if r.tokenizer in KINDS}


def lines() -> list[list[str]]:
    """Lines of the course's own pages, in the order of their paths, for one round after the other."""
    pages = sorted((ROOT / "docs").glob("part-*/*.md"))
    texts = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if line.strip()]
    starts = range(0, min(len(texts) - LINES, LINES * ROUNDS), LINES)
    return [texts[start : start + LINES] for start in starts]


def each(encode: Callable[[str], object], rounds: Sequence[Sequence[str]]) -> Callable[[], object]:
    """All lines of the next round, one after the other."""
    following = cycle(rounds)
    return lambda: [encode(text) for text in next(following)]


def library(copy: LocalCopy) -> Callable[[str], object]:
    """The compiled tokenizer of a folder, without what transformers puts around it."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(copy.folder, local_files_only=True)
    encode: Callable[[str], object] = tokenizer.backend_tokenizer.encode
    return encode


def measure(harness: Harness) -> Iterator[Row]:
    """WordPiece with MiniLM's own vocabulary, the others with those of the miniatures."""
    texts = lines()
    copies = {"WordPiece (MiniLM)": harness.copy("minilm")}
    copies |= {title: LocalCopy(name, MINIATURES / name, "miniature") for name, title in NAMES.items()}
    harness = replace(harness, rounds=min(harness.rounds, len(texts) - 1))
    for title, copy in copies.items():
        runs = {"rebuild": each(copy.tokenizer().encode, texts), "tokenizers": each(library(copy), texts)}
        for one in harness.compare({"tokenizer": title, "lines": LINES}, runs, "tokenizers"):
            yield one | {"lines_a_second": round(LINES / one["seconds"])}
