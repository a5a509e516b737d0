"""What the pictures are drawn from: the local copies, and their official runs, each made once."""

from __future__ import annotations

from functools import cache

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.verify import capture
from llm_rebuild.verify.capture import Capture


@cache
def copy_of(model: str) -> LocalCopy:
    """MiniLM itself; GPT-2 and T5 always as miniatures, so that a picture is the same on every machine."""
    if model == "minilm":
        return local_copy.get(model, strict=True)
    return LocalCopy(model, local_copy.MINIATURES / model, "miniature")


@cache
def run_of(copy: LocalCopy, text: str) -> Capture:
    """Every checkpoint of the official model on this text."""
    return capture(copy, text)
