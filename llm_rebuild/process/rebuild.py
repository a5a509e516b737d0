"""This package's rebuild, in a process that has the weight file, config.json's fields, ids, masks: no more.

Every tensor that goes into an operation there and comes from elsewhere is handed back: whether it is an
official one, only the process that has those can tell.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Tap
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
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
    end = {
        "end": "done",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    try:
        _run(job["config"], Path(job["weights"]), inputs, {**job["options"]}, channel)
    except (InputError, ImportError, PermissionError) as error:
        end = {"end": "refused", "problem": str(error)}
    channel.send(end)


def _run(
    config: dict[str, object],
    file: Path,
    inputs: dict[str, Tensor],
    options: dict[str, object],
    channel: Channel,
) -> None:
    rebuilt, weights = rebuild_for(config), Weights.open(file)
    module, tensors = rebuilt.module, weights.peek()
    Guard(file, tensors, (), forbidden_to_rebuilds, sources=True)

    def foreign(tensor: Tensor, operation: str) -> None:
        channel.send({"foreign": operation}, {"": tensor})

    origins = Origins([*tensors.values(), *inputs.values()], foreign)

    def show(name: str, tensor: Tensor) -> None:
        origins.look(tensor, "tap")
        channel.send({"tapped": name}, {name: tensor})

    ids, mask = inputs.pop("token_ids"), inputs.pop("mask")
    with torch.no_grad(), origins:
        module.forward(ids, mask, weights, rebuilt.config, tap=Tap(show), **inputs, **options)
