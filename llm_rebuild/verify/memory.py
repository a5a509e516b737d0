"""Is there memory for what is asked? Attention's numbers grow with the square of a text's length, and whoever
keeps every interim tensor keeps all of them."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from llm_rebuild.errors import InputError
from llm_rebuild.verify.question import Question
from llm_rebuild.weights import DTYPES

SHORT = 256  # tokens of one text that always fit
BESIDES = 1.2  # times the checkpoints: what else is computed, as it was measured
# Of a block of a model without a rebuild, roughly: what is computed, in the words of checkpoints.
BLOCK = ["[batch, head, query, key]"] * 5 + ["[batch, token, width]"] * 12 + ["[batch, token, wide]"] * 4
WHERE = {"/proc/meminfo": "MemAvailable:", "/sys/fs/cgroup/memory.max": ""}  # on Linux


def check(question: Question, model: Any, sides: int) -> None:
    """Refuse what does not fit into memory, before the official `model` runs. `sides` is 2 where the
    rebuild's tensors are kept, too. Raises InputError."""
    rows, tokens = question.inputs.token_ids.shape
    if rows * tokens**2 <= SHORT**2:
        return
    wanted, free = BESIDES * sides * needed(question, model), available()
    if free is not None and wanted > free:
        ask = "give shorter or fewer texts"
        ask += ", or sdpa attention, which keeps no scores" if question.attention == "eager" else ""
        raise InputError(
            f"{rows} × {tokens} tokens take about {wanted / 1e9:.1f} GB of memory, of which "
            f"{free / 1e9:.1f} GB are free; {ask}"
        )


def needed(question: Question, model: Any) -> int:
    """About how many bytes the checkpoints take that the official model computes."""
    inputs, config = question.inputs, model.config.get_text_config()
    vocabulary, width = model.get_input_embeddings().weight.shape
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    rows, tokens = inputs.token_ids.shape
    if inputs.decoder_ids is not None:
        tokens = max(tokens, inputs.decoder_ids.shape[1])
    sizes = dict.fromkeys(("token", "query", "key"), tokens)
    sizes |= {"batch": rows, "head": heads, "vocabulary": vocabulary, "wide": 4 * width, "1": 1}
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    head_width = int(getattr(config, "head_dim", None) or max(1, width // heads))
    sizes |= {"kv head": kv_heads, "head width": head_width, "pair": head_width // 2, "3 × width": 3 * width}
    sizes |= {"heads × head width": heads * head_width, "kv heads × head width": kv_heads * head_width}
    if question.copy.architecture is not None:
        shapes = [checkpoint.shape for checkpoint in question.checkpoints]
    else:
        shapes = BLOCK * int(getattr(config, "num_hidden_layers", None) or 1)
    words = (shape.strip("[]").split(", ") for shape in shapes)
    size = DTYPES[question.dtype].itemsize
    return size * int(sum(math.prod(sizes.get(word, width) for word in shape) for shape in words))


def available() -> int | None:
    """How many bytes are free; None where the system does not say."""
    free: list[int] = []
    for file, key in WHERE.items():
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path(file).read_text(encoding="ascii").splitlines()
            line = next(line for line in lines if line.startswith(key)).removeprefix(key)
            free.append(int(line.split()[0]) * (1024 if key else 1))
    return min(free, default=None)
