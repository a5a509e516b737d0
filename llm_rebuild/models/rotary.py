"""How far each pair of numbers turns from one position to the next: rotary positions, and what is done to
them where a model reads more than it was trained on.

Sources  Su et al. (2021); Chen et al. (2023) for linear scaling; Peng et al. (2023) for YaRN, which describes
         the dynamic one, too; Grattafiori et al. (2024) for Llama 3. Order of operations as in transformers
         5.23 modeling_rope_utils.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.errors import InputError
from llm_rebuild.json_fields import FLAG, NUMBER, Kind, check, one_of, shown, whole

ABOVE_1 = Kind("a number above 1", lambda v: NUMBER.accepts(v) and v > 1)
FROM_1 = Kind("a number from 1", lambda v: NUMBER.accepts(v) and v >= 1)
ABOVE_0 = Kind("a number above 0", lambda v: NUMBER.accepts(v) and v > 0)
WHOLE_HEADS = Kind("1, for this rebuild turns whole heads", lambda v: type(v) in (int, float) and v == 1)

# What each kind of scaling has to be told, and what else it may be told.
_LENGTH = {"original_max_position_embeddings": whole(1)}
_BANDS = {"low_freq_factor": ABOVE_0, "high_freq_factor": ABOVE_0}
_SLOPE = {"attention_factor": ABOVE_0, "beta_fast": ABOVE_0, "beta_slow": ABOVE_0, "truncate": FLAG}
_SLOPE |= {"mscale": NUMBER, "mscale_all_dim": NUMBER}
KINDS: Mapping[str, tuple[Mapping[str, Kind], Mapping[str, Kind]]] = {
    "default": ({}, {}),
    "linear": ({"factor": FROM_1}, {}),
    "dynamic": ({"factor": FROM_1}, {}),
    "llama3": ({"factor": FROM_1, **_BANDS}, _LENGTH),
    "yarn": ({"factor": FROM_1}, {**_LENGTH, **_SLOPE}),
}
PLACES = ("rope_scaling", "rope_parameters")  # of two names for the same, the older one
ABOVE = (
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
)  # or it stands beside them


@dataclass(frozen=True)
class Rope:
    """What config.json says of rotary positions, in its own spelling.

    trained  The longest text in training, in tokens: max_position_embeddings.
    """

    trained: int
    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int | None = None
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    truncate: bool = True

    @classmethod
    def read(cls, config: Mapping[str, Any], trained: int) -> Rope:
        """From config.json. Raises InputError, by the field's name, for what is not supported, for what means
        nothing for its kind, and for two settings that contradict each other."""
        section = next((field for field in PLACES if config.get(field)), PLACES[-1])
        kind, values = _kind(config), dict[str, Any]()
        needed, optional = KINDS[kind]
        fits = {"rope_theta": ABOVE_1, **needed, **optional, "partial_rotary_factor": WHOLE_HEADS}
        above = [name for name in ABOVE if name != ABOVE[2] or name in optional]  # read for these kinds only
        asked = [(name, name, config[name]) for name in above if name in config]
        asked += [(f"{field}.{n}", n, v) for field in PLACES for n, v in (config.get(field) or {}).items()]
        for path, name, value in asked:
            if name in ("rope_type", "type") or (value is None and name != "rope_theta"):
                continue
            if name not in fits:
                raise InputError(f"config.json: {path} means nothing for rope_type {kind!r}")
            check(value, fits[name], f"config.json: {path}")
            if values.setdefault(name, value) != value:
                other = shown(values[name])
                raise InputError(f"config.json: {path} is {shown(value)}, but elsewhere {other}")
        for name in needed:
            check(values.get(name), needed[name], f"config.json: {section}.{name}")
        values.pop("partial_rotary_factor", None)
        numbers: dict[str, Any] = {
            name: float(value) if type(value) is int and name not in _LENGTH else value
            for name, value in values.items()
        }
        rope = cls(trained, kind, **numbers)
        if rope.high_freq_factor <= rope.low_freq_factor:
            raise InputError(
                f"config.json: {section}.high_freq_factor is {rope.high_freq_factor}, which is not above "
                f"low_freq_factor, {rope.low_freq_factor}"
            )
        return rope

    @property
    def original(self) -> int:
        """The longest text before the model was made to read more."""
        return self.original_max_position_embeddings or self.trained

    @property
    def lengthened(self) -> float:
        """By what YaRN multiplies cosines and sines: queries and keys get longer, and the softmax sharper."""

        def scale(by: float) -> float:
            """0.1 · by · ln(factor) + 1: the paper's length, `by` of it."""
            return 1.0 if self.factor <= 1 else 0.1 * by * math.log(self.factor) + 1.0

        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return scale(self.mscale) / scale(self.mscale_all_dim)
        return scale(1.0)


def _kind(config: Mapping[str, Any]) -> str:
    """The kind of scaling. `type` is an older name of `rope_type`, which wins."""
    kinds = []
    for field in PLACES:
        asked = config.get(field)
        if not (asked is None or isinstance(asked, dict)):
            raise InputError(f"config.json: {field} is {shown(asked)}, expected an object or null")
        for name in ("rope_type", "type"):
            if asked and name in asked:
                check(asked[name], one_of(*KINDS), f"config.json: {field}.{name}")
                kinds.append(asked[name])
    if len(set(kinds)) > 1:
        raise InputError(
            f"config.json: the rope_type is {' and '.join(map(shown, kinds))}; it is one of them"
        )
    return kinds[0] if kinds else "default"


def frequencies(positions: Tensor, width: int, rope: Rope) -> Tensor:
    """How far each pair turns from one position to the next, in radians: 1 for the first, then ever less.

    positions [batch, token], of which the last is of interest; width of a head. -> [pair]
    """
    base = stretched(positions, width, rope) if rope.rope_type == "dynamic" else rope.rope_theta
    powers: Tensor = base ** (torch.arange(0, width, 2).float() / width)  # [pair]
    inverse = 1.0 / powers
    if rope.rope_type == "linear":  # as if positions stood nearer to each other
        return inverse / rope.factor
    if rope.rope_type == "llama3":
        return slow_ones_slower(inverse, rope)
    return by_parts(powers, width, rope) if rope.rope_type == "yarn" else inverse


def stretched(positions: Tensor, width: int, rope: Rope) -> Tensor | float:
    """The base for as many tokens as there are: the larger it is, the slower pairs turn ("dynamic NTK")."""
    length = positions.max() + 1
    tokens = length if int(length) > rope.trained else rope.trained  # a tensor: officially in float32 then
    longer: Tensor | float = rope.factor * tokens / rope.trained - (rope.factor - 1)
    return rope.rope_theta * longer ** (width / (width - 2))


def slow_ones_slower(inverse: Tensor, rope: Rope) -> Tensor:
    """Llama 3: what turns often within the trained length stays, what turns seldom is divided by `factor`,
    and between the two there is a slope. inverse [pair] -> [pair]."""
    wavelength = 2 * math.pi / inverse  # in tokens
    longest, shortest = rope.original / rope.low_freq_factor, rope.original / rope.high_freq_factor
    slower = torch.where(wavelength > longest, inverse / rope.factor, inverse)
    share = (rope.original / wavelength - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    slope = (1 - share) * slower / rope.factor + share * slower
    between = ~(wavelength < shortest) & ~(wavelength > longest)
    return torch.where(between, slope, slower)


def by_parts(powers: Tensor, width: int, rope: Rope) -> Tensor:
    """YaRN: a slope between turning as before and turning `factor` times slower. powers [pair] -> [pair]."""

    def pair_that_turns(times: float) -> float:
        """The pair that turns so many times within the trained length, as a fraction."""
        length = math.log(rope.original / (times * 2 * math.pi))
        return (width * length) / (2 * math.log(rope.rope_theta))

    first, last = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, width - 1)
    last += 0.001 if first == last else 0  # or nothing would lie between them
    slope = ((torch.arange(width // 2).float() - first) / (last - first)).clamp(0, 1)
    as_before = 1 - slope
    return 1.0 / (rope.factor * powers) * (1 - as_before) + 1.0 / powers * as_before
