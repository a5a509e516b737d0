"""The words of the field and the sources that the pages name, against the glossary and the bibliography."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools import fences

DOCS = Path(__file__).resolve().parents[1] / "docs"

# Words of the field that a reader may have to look up.
TERMS = """
ablation, activation, activation function, attention, attention mask, batch, beam, beam search, bfloat16,
bias, bit-identical, block, BPE, bridge, bucket, cache, causal mask, certificate, checkpoint, cosine,
coverage, cross-attention, decoder, dispatcher, dropout, dtype, embedding, encoder, epsilon, exponent, feed-
forward, float32, fraction, fused, gate, GELU, greedy, head, head width, hook, kernel, KV cache, LayerNorm,
learned positions, logits, merges, min-p, mutant, norm, padding, parameter, pickle, pin, pooling, position
bias, post-LN, pre-hook, pre-LN, probability, query, relative positions, ReLU, residual, residual stream,
revision, RMSNorm, rotary positions, rounding, safetensors, sampling, scale, self-attention, sentence
embedding, SiLU, softmax, special token, SwiGLU, temperature, tensor, tied, token, token type, tokenizer,
tolerance, top-k, top-p, trace, transformer, ulp, Unigram, vocabulary, weights, width, WordPiece
"""

CITED = re.compile(r"[A-Z][a-zé]+ et al\.|[A-Z][a-zé]+(?: and [A-Z][a-zé]+)?(?:,| \()\s?(?:19|20)\d\d\b")


def prose_of(page: fences.Page) -> str:
    """A page without code, outputs, comments, and addresses of links."""
    inside = {number for fence in page.fences for number in range(fence.first, fence.last + 1)}
    prose = "\n".join(line for number, line in enumerate(page.lines, start=1) if number not in inside)
    return re.sub(r"<!--.*?-->|\]\([^)]*\)|<[^>]*>|\{[^}]*\}", "", prose, flags=re.S)


def glossary() -> set[str]:
    """What the glossary defines: its headings, and in its text what is in italics."""
    text = (DOCS / "glossary.md").read_text(encoding="utf-8").lower()
    headings = {word.strip() for line in re.findall(r"^### (.+)$", text, re.M) for word in line.split(",")}
    return headings | set(re.findall(r"\*([^*\n]+)\*", text))


def used(pages: Iterable[fences.Page]) -> list[str]:
    """The words of the field that occur in the prose of these pages."""
    prose = "\n".join(map(prose_of, pages)).lower()
    words = [" ".join(term.split()).lower() for term in TERMS.split(",")]
    return [word for word in words if re.search(rf"(?<![\w-]){re.escape(word)}s?(?![\w-])", prose)]


def undefined(pages: Iterable[fences.Page]) -> list[str]:
    """Those of them that the glossary does not have."""
    defined = glossary()
    return [word for word in used(pages) if word not in defined and f"{word}s" not in defined]


def entries() -> set[str]:
    """The anchors of the bibliography."""
    return set(re.findall(r"\{ #([\w-]+) \}", (DOCS / "bibliography.md").read_text(encoding="utf-8")))


def cited() -> set[str]:
    """The anchors of the bibliography to which pages link."""
    return {anchor for _, text in _texts() for anchor in re.findall(r"bibliography\.md#([\w-]+)", text)}


def uncited() -> list[str]:
    """Sources that a page names without a link to the bibliography, each with its page."""
    found = []
    for page, text in _texts():
        without = re.sub(r"\[[^\]]*\]\([^)]*bibliography\.md[^)]*\)", "", text)
        found += [f"{page}: {name}" for name in CITED.findall(without) if not name.startswith("In ")]
    return found


def _texts() -> Iterator[tuple[str, str]]:
    """What readers of the course see: the pages, but not the bibliography, the source and those for
    contributors."""
    for file in sorted(DOCS.rglob("*.md")):
        page = file.relative_to(DOCS)
        if page.name != "bibliography.md" and page.parts[0] not in ("source", "contributing"):
            yield page.as_posix(), file.read_text(encoding="utf-8")
