"""What the functions of a model are given: a part of the model, and a batch of texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from torch import Tensor

from llm_rebuild.checkpoints import NO_TAP, Tap, join
from llm_rebuild.errors import InputError
from llm_rebuild.weights import Weights

ATTENTIONS = ("eager", "sdpa")  # step by step, or in torch's fused kernel, which never shows its scores

C = TypeVar("C")


def check_attention(attention: str) -> None:
    """Refuse a spelling of attention that there is none of. Raises InputError."""
    if attention not in ATTENTIONS:
        raise InputError(f"attention is {attention!r}; it is either {' or '.join(ATTENTIONS)}")


@dataclass(frozen=True)
class Part(Generic[C]):
    """A model, or a part of it, under its one name: its weights, and where to show what comes to be.

    weights    The part's tensors by their keys below its path.
    config     The whole model's config.
    tap        Shows the part's interim tensors by their names below its path.
    attention  `eager` or `sdpa`, for the whole model. Raises InputError for any other.
    path       `encoder.layer.0`; empty for the model.
    """

    weights: Weights
    config: C
    tap: Tap = NO_TAP
    attention: str = "eager"
    path: str = ""
    _parts: dict[str, Part[C]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_attention(self.attention)

    def at(self, name: str) -> Part[C]:
        """A part of this part. Weights and taps of the same path belong together."""
        part = self._parts.get(name)
        if part is None:
            weights, tap, path = self.weights.at(name), self.tap.at(name), join(self.path, name)
            part = self._parts[name] = Part(weights, self.config, tap, self.attention, path)
        return part

    @property
    def layer(self) -> int:
        """The number of the block that the part is, or is in."""
        return next(int(word) for word in self.path.split(".") if word.isdigit())


class Batch(NamedTuple):
    """Texts that run together, shorter ones padded.

    token_ids     [batch, token], int64. With a decoder's cache: what came after the tokens in it.
    mask          [batch, token], 1 for a token and 0 for padding. With a cache: of those in it, too.
    decoder_ids   [batch, decoder token]: what a decoder beside an encoder reads, the start token first. None:
                  the start token alone. With a cache: what came after the tokens in it.
    decoder_mask  [batch, cached and new decoder tokens]. None: no padding.
    positions     [batch, token], where a model has positions and they are not simply counted.
    """

    token_ids: Tensor
    mask: Tensor
    decoder_ids: Tensor | None = None
    decoder_mask: Tensor | None = None
    positions: Tensor | None = None
