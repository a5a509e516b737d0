"""Text into token ids and back, from the vocabulary files alone.

One module an algorithm: `wordpiece` (MiniLM and its relatives), `byte_bpe` (GPT-2), `byte_bpe_json` (models
of today), `unigram` (T5). What they share stands in `encoding`; `load` picks one by the vocabulary's file.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers.encoding import Encoding, Tokenizer

__all__ = ["Encoding", "Tokenizer", "load"]

# Each algorithm's module, its class, and the file that only it has.
ALGORITHMS = {
    "wordpiece": ("WordPiece", "vocab.txt"),
    "byte_bpe": ("ByteBPE", "merges.txt"),
    "unigram": ("Unigram", "spiece.model"),
    "byte_bpe_json": ("ByteBPEJson", "tokenizer.json"),  # last, for every folder may have it
}


def load(folder: Path, algorithm: str | None = None, lower_case: bool = False) -> Tokenizer:
    """The tokenizer of the model in `folder`.

    algorithm   One of `ALGORITHMS`, as the model's architecture tells. Otherwise the first whose
                file is there.
    lower_case  Whether texts are lower-cased first, whatever the vocabulary's files say (WordPiece only).
    Raises InputError if there is no tokenizer here that we can rebuild.
    """
    folder = Path(folder)
    algorithm = algorithm or next(
        (a for a, (_, file) in ALGORITHMS.items() if (folder / file).exists()), None
    )
    if algorithm is None:
        needed = " or ".join(file for _, file in ALGORITHMS.values())
        raise InputError(f"{folder} has no tokenizer that can be rebuilt: it needs {needed}")
    module = import_module(f"llm_rebuild.tokenizers.{algorithm}")
    made = getattr(module, ALGORITHMS[algorithm][0]).from_folder(folder)
    tokenizer: Tokenizer = made.lower_cased() if lower_case else made
    return tokenizer
