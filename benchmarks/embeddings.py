"""Sentence embeddings of texts of any length: the rebuild's and sentence-transformers', number by number.

    python -m benchmarks.embeddings [--texts 1000] [--tokens 2000] [--model minilm]

Each text alone, where every bit has to be the same, and all of them in batches, where the two sort and pad
differently and a sum may run in another order. Texts are words of the vocabulary, drawn from a seed.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.using.embedding import embed


def texts_of(copy: LocalCopy, count: int, tokens: int, seed: int = 0) -> list[str]:
    """Texts of one to so many tokens, of whole words, names and signs."""
    chance, tokenizer = random.Random(seed), copy.tokenizer()
    words = [tokenizer.decode([i]) for i in range(tokenizer.vocabulary_size)]
    whole = [word for word in words if word and not word.startswith(("##", "["))]
    return [" ".join(chance.choices(whole, k=chance.randint(1, tokens))) for _ in range(count)]


def differences(copy: LocalCopy, texts: list[str], library: Any) -> tuple[int, float, float]:
    """How many texts alone have the same bits, the largest difference alone, and that in batches."""
    same, alone = 0, 0.0
    for text in texts:
        ours, theirs = embed(copy, text).embeddings, library.encode([text], convert_to_tensor=True)
        same += torch.equal(ours, theirs)
        alone = max(alone, float((ours - theirs).abs().max()))
    together = embed(copy, texts).embeddings - library.encode(texts, convert_to_tensor=True)
    return same, alone, float(together.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--model", default="minilm")
    options = parser.parse_args()
    copy = local_copy.get(options.model)
    library = SentenceTransformer(str(copy.folder), device="cpu", local_files_only=True)
    texts = texts_of(copy, options.texts, options.tokens)
    longest = max(len(copy.tokenizer().encode(text).ids) for text in texts)
    same, alone, together = differences(copy, texts, library)
    print(f"{len(texts):,} texts of up to {longest:,} tokens, {copy.pipeline}")
    print(f"alone: {same:,} bit-identical, largest difference {alone:.1e}; in batches: {together:.1e}")


if __name__ == "__main__":
    main()
