"""What runs in a process of its own: a learner's function, on each case of an exercise."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import plain
from llm_rebuild.errors import InputError
from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.limits import limit
from llm_rebuild.workbench import notebook
from llm_rebuild.workbench.child import explained

# Modules that would answer in the learner's place. Here they cannot be imported.
CLOSED = (
    "transformers",
    "tokenizers",
    "sentence_transformers",
    "llm_rebuild.exercises.references",
    "llm_rebuild.models",
    "llm_rebuild.tokenizers",
    "llm_rebuild.verify",
)


def run(channel: Channel) -> None:
    """Answer one request: the packed function, and for each case its arguments by position."""
    request = channel.receive()
    if request is None:
        return
    about, tensors = request.about, request.tensors
    below = tuple(f"{module}." for module in CLOSED)
    closed: Any = None  # what makes Python refuse to import a module
    for name in [*CLOSED, *(loaded for loaded in sys.modules if loaded.startswith(below))]:
        sys.modules[name] = closed
    limit(about["memory"])
    problem = None
    try:
        function, _ = notebook.unpack(tensors["source"].numpy().tobytes())
        for number, (order, values) in enumerate(zip(about["order"], about["values"], strict=True)):
            arguments = [values[name] if name in values else tensors[f"{number}/{name}"] for name in order]
            torch.manual_seed(0)
            with torch.no_grad():
                result = function(*arguments)
            channel.send({"case": number, **_plain(result)}, _tensor(result))
    except BaseException as error:
        problem = _problem(error)
    channel.send({"end": "done", "problem": problem})


def _tensor(result: Any) -> dict[str, Tensor]:
    return {"value": plain(result, "it returns").contiguous()} if isinstance(result, Tensor) else {}


def _plain(result: Any) -> dict[str, Any]:
    """A result that is no tensor, as JSON has it. Raises InputError for what is neither."""
    if isinstance(result, Tensor):
        return {}
    try:
        return {"value": json.loads(json.dumps(result))}
    except (TypeError, ValueError, RecursionError):
        kind = type(result).__name__
        raise InputError(f"it returns a {kind}; a tensor, a number, a text or a list is wanted") from None


def _problem(error: BaseException) -> str:
    """A learner's exception in one line. A closed module is said to be closed."""
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.startswith(CLOSED):
        return f"it uses {error.name}, which would answer in your place; compute it with torch alone"
    return explained(error)
