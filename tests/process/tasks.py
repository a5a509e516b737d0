"""What the tests have a process of their own do."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import torch

from llm_rebuild.process.exchange import Channel
from llm_rebuild.process.guard import Guard, forbidden_to_learners
from llm_rebuild.process.limits import limit
from llm_rebuild.weights import Weights


def echo(channel: Channel) -> None:
    """Do what a message asks, or send it back."""
    while (message := channel.receive()) is not None:
        if code := message.about.get("run"):
            exec(code, {"os": os, "sys": sys, "channel": channel, "torch": torch})
        channel.send({**message.about, "end": True}, message.tensors)


def hungry(channel: Channel) -> None:
    limit(500)
    echo(channel)


def guarded(channel: Channel) -> None:
    """Try each way that is asked for under a guard, and say how it went."""
    message = channel.receive()
    assert message is not None
    file = Path(message.about["weights"])
    weights = Weights.open(file).peek()
    import numpy, pickle, safetensors, subprocess, tempfile  # noqa: E401, F401, I001

    tempfile.tempdir = str(file.parent)
    guard = Guard(file, weights, [Path(message.about["hidden"])], [file.parent], forbidden_to_learners)
    for name, way in message.about["ways"].items():
        guard.refused = None
        try:
            exec(way, {"torch": torch, "os": os, "sys": sys, "weights": weights})
        except BaseException as error:
            channel.send({"way": name, "error": f"{type(error).__name__}: {error}", "refused": guard.refused})
        else:
            channel.send({"way": name, "error": "", "refused": guard.refused})
    guard.sealed = True
    for name, way in message.about["sealed"].items():
        with contextlib.suppress(PermissionError):
            exec(way, {"torch": torch})
            continue
        channel.send({"way": name, "error": "refused"})
    channel.send({"end": True})
