"""How to generate: what may be asked for, and what holds where nothing is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch

from llm_rebuild.errors import InputError
from llm_rebuild.json_fields import Kind, shown


class SettingError(InputError):
    """A setting makes no sense. The message calls settings by their names here; a caller who has other
    names for them may say it in those."""


@dataclass(frozen=True)
class Settings:
    """How to generate. None leaves a thing to the model's folder, and where that says nothing, out.
    Raises SettingError for what makes no sense.

    `sample` says whether tokens are drawn (the official `do_sample`); where it is None they are if
    `temperature`, `top_k` or `top_p` is given. A top_k of None means none, unless the folder has one;
    officially it means 50. Without a `seed` draws come from torch's own generator.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram: int | None = None
    beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None
    sample: bool | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for kind, names in KINDS:
            for name in names:
                value = getattr(self, name)
                if value is not None and not kind.accepts(value):
                    raise SettingError(f"{name} is {shown(value)}; it must be {kind.words}")

    @property
    def sampling(self) -> bool:
        """Whether the next token is drawn, not chosen."""
        if self.sample is not None:
            return self.sample
        return not (self.temperature is None and self.top_k is None and self.top_p is None)

    def over(self, others: Settings) -> Settings:
        """These settings, and where one is None, the others'."""
        own = {name: value for name, value in vars(self).items() if value is not None}
        sample = self.sampling or (self.sample is None and others.sampling)
        return Settings(**{**vars(others), **own, "sample": sample})

    def complete(self) -> Decoding:
        """With nothing left open. Raises SettingError where settings do not go together."""
        if self.seed is not None and not self.sampling:
            raise SettingError("a seed changes nothing without sampling; give a temperature, 1.0 for none")
        whole = Decoding(
            **{name: value for name, value in vars(self).items() if value is not None}
            | {"sample": self.sampling}
        )
        exponent = abs(whole.length_penalty * math.log(whole.max_new_tokens))
        if whole.beams > 1 and exponent > 80:  # float32 ends at about e ** 88
            raise SettingError(
                f"length_penalty is {whole.length_penalty}; take one nearer to 0, for a length of "
                f"{whole.max_new_tokens} to that power is no number any more"
            )
        return whole if whole.sample else replace(whole, temperature=None, top_k=None, top_p=None)


def _up_to(most: int) -> Kind:
    """The most that is asked for in earnest. What is above it runs out of memory, or never ends."""
    return Kind(f"at most {most:,}", lambda value: value <= most)


COUNTS = ("max_new_tokens", "top_k", "no_repeat_ngram", "beams")
POSITIVE = Kind("a number above 0", lambda value: 0 < value < float("inf"))
# What a setting must be where it is not None.
KINDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (Kind("a whole number from 1", lambda value: type(value) is int and value >= 1), COUNTS),
    (_up_to(10**6), ("max_new_tokens",)),
    (_up_to(10**9), ("top_k", "no_repeat_ngram")),
    (_up_to(1000), ("beams",)),
    (
        Kind(f"{POSITIVE.words}; for the best token every time leave it out", POSITIVE.accepts),
        ("temperature",),
    ),
    (POSITIVE, ("repetition_penalty",)),
    (Kind("above 0 and at most 1", lambda value: 0 < value <= 1), ("top_p",)),
    (Kind("a finite number", lambda value: abs(value) < float("inf")), ("length_penalty",)),
    (Kind('True, False or "never"', lambda value: value in (True, False, "never")), ("early_stopping",)),
    (
        Kind("a whole number of 64 bits", lambda value: type(value) is int and -(2**63) <= value < 2**64),
        ("seed",),
    ),
)


@dataclass(frozen=True)
class Decoding(Settings):
    """Settings with nothing left open: what is None is not done."""

    max_new_tokens: int = 20
    beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    sample: bool = False

    def generator(self) -> torch.Generator | None:
        """Where draws come from: None is torch's own."""
        return (
            None if self.seed is None else torch.Generator(torch.get_default_device()).manual_seed(self.seed)
        )


@dataclass(frozen=True)
class SpecialIds:
    """Token ids with a meaning: those that end a text, the one that pads, the one a decoder starts with."""

    ends: tuple[int, ...] = ()
    padding: int | None = None
    start: int | None = None
