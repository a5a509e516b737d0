"""This package's rebuild, in a process that has the weight file, config.json's fields, ids, masks: no more.

Every tensor that goes into an operation there and comes from elsewhere is handed back: whether it is an
official one, only the process that has those can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Tap
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.models.part import Batch
from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.guard import Guard, forbidden_to_rebuilds
from llm_rebuild.process.origins import Origins
from llm_rebuild.weights import Weights


def rebuild(channel: Channel) -> None:
    """Run the rebuild once, as the first message asks, and send what it taps."""
    message = channel.receive()
    if message is None:
        return
    job, inputs = message.about, dict(message.tensors)
    torch.set_num_threads(job["threads"])  # bits depend on it
    end = {"end": "done"}
    try:
        _run(job, inputs, channel)
    except (InputError, ImportError, PermissionError) as error:
        end = {"end": "refused", "problem": str(error)}
    channel.send(end)


def _run(job: Mapping[str, Any], inputs: dict[str, Tensor], channel: Channel) -> None:
    file = Path(job["weights"])
    rebuilt = rebuild_for(job["config"])
    weights = Weights.open(file, dtype=job["dtype"], wide=rebuilt.architecture.wide)
    cache, tensors = rebuilt.module.Cache() if job["cache"] else None, weights.peek()
    Guard(file, tensors, (), (), forbidden_to_rebuilds)

    def foreign(tensor: Tensor, operation: str) -> None:
        """Hand back what came from elsewhere."""
        channel.send({"foreign": operation}, {"": tensor})

    origins = Origins([*tensors.values(), *inputs.values()], foreign)

    def show(name: str, tensor: Tensor) -> None:
        """Hand back what is tapped."""
        origins.look(tensor, "tap")
        with origins.away():
            channel.send({"tapped": name}, {name: tensor})

    part = rebuilt.part(weights, Tap(show), job["attention"])
    with torch.no_grad(), origins:
        rebuilt.run(Batch(**inputs), part, cache)
