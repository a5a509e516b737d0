"""Reading config.json without guessing.

Every field that the official config class knows is one of three things for a rebuild: *used*, then it is
a field of the model's `Config`; *fixed*, then any other value is refused by the field's name; or
*irrelevant* to the forward pass in evaluation. There is no fourth thing, so a config cannot ask for
something and silently not get it. A test walks the official classes to keep it so; it lists what is
irrelevant, each field with the reason, and tries it out (tests/models/irrelevant.py).
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from llm_rebuild.errors import InputError
from llm_rebuild.json_fields import FLAG, NUMBER, TEXT, Kind, check, one_of, or_null, shown, whole
from llm_rebuild.models.architecture import Architecture
from llm_rebuild.weights import DTYPES


@dataclass(frozen=True)
class ModelConfig:
    """What is asked of every model's config. Each has its own fields, and answers what is not so here."""

    @property
    def positions(self) -> int | None:
        """The longest input, in tokens. None: none is too long."""
        return None

    @property
    def text_limit(self) -> int | None:
        """To how many tokens a longer text is cut. None is: its end is what a decoder continues."""
        return None

    @property
    def start_token(self) -> int | None:
        """What a decoder beside an encoder reads first. None: there is none."""
        return None

    @property
    def farthest(self) -> int:
        """So many tokens apart or more is all the same to it. 0: to it no two distances are the same."""
        return 0

    @property
    def conditions(self) -> frozenset[str]:
        """What this config adds to the conditions of a run."""
        return frozenset()

    @property
    def needed(self) -> frozenset[str]:
        """The optional keys that this config cannot do without."""
        return frozenset()


C = TypeVar("C", bound=ModelConfig)
# A whole number, `1` for `1.0`, is refused by the official classes, too.
DECIMAL = Kind(f"{NUMBER.words} with a decimal point", lambda v: type(v) is float and NUMBER.accepts(v))


# Fields that official code reads in any config, whether its class knows them or not. Each could change bits.
FIXED_EVERYWHERE: Mapping[str, Any] = {
    "attention_chunk_size": None,
    "chunk_size_feed_forward": 0,  # products of fewer rows add in another order
    "fusion_config": None,
    "kv_sharing_modes": None,
    "layer_types": None,
    "per_layer_config": None,
    "quantization_config": None,
    "sliding_window": None,
    "transformers_weights": None,  # another weight file
}


def read_config(config: Mapping[str, Any], cls: type[C], architecture: Architecture) -> C:
    """Fill the dataclass `cls` from the fields of a config.json whose model_type is the architecture's; its
    defaults are the official class's.

    Raises InputError, naming the field, for a value that the rebuild does not support.
    """
    for name in ("dtype", "torch_dtype"):
        check(config.get(name), or_null(one_of(*DTYPES)), f"config.json: {name}")
    for name, value in {**FIXED_EVERYWHERE, **architecture.fixed}.items():
        asked = config.get(name, value)
        if (type(asked), asked) != (type(value), value):
            raise InputError(f"config.json: {name} is {shown(asked)}; this rebuild supports only {value!r}")
    kinds = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for used in dataclasses.fields(cls):
        value = config.get(used.name, used.default)
        alias = architecture.aliases.get(used.name, "")
        if alias in config:
            if used.name in config and value != config[alias]:
                differ = f"{used.name} is {shown(value)} but {alias} is {shown(config[alias])}"
                raise InputError(f"config.json: {differ}")
            value = config[alias]
        values[used.name] = _checked(used.name, value, kinds[used.name])
    return cls(**values)


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value as `kind`, or a refusal. JSON's true is no number, a size is at least 1, a token id 0."""
    kinds = typing.get_args(kind) or (kind,)  # of one or null both
    if dataclasses.is_dataclass(kinds[0]):  # several fields, read by the model's own `Config.read`
        return value
    least = 0 if name.endswith("_token_id") else 1
    wanted = {float: DECIMAL, int: whole(least), bool: FLAG, str: TEXT}[kinds[0]]
    check(value, or_null(wanted) if type(None) in kinds else wanted, f"config.json: {name}")
    return value


def divides(width_name: str, width: int, heads_name: str, heads: int) -> None:
    """Refuse heads that do not share the width evenly."""
    if width % heads:
        raise InputError(f"config.json: {heads_name} is {heads}, which does not divide {width_name} {width}")


def with_bias(path: str, weight: str, bias: str) -> dict[str, str]:
    """The two keys of a layer or a norm, and their shapes in words."""
    return {f"{path}.weight": weight, f"{path}.bias": bias}


def shapes(table: Mapping[str, str], config: Any, depth: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The weight file's keys and shapes, from a table in words.

    `{"encoder.layer.{layer}.output.dense.bias": "[hidden_size]"}` gives one entry for each block. A
    number of the shape is a config field, or a product such as `3 * n_embd`.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    for key, words in table.items():
        shape = tuple(_size(word, config) for word in words.strip("[]").split(","))
        stack, repeated, _ = key.partition(".{layer}")
        for layer in range(depth[stack]) if repeated else range(1):
            sizes[key.replace("{layer}", str(layer))] = shape
    return sizes


def _size(words: str, config: Any) -> int:
    factors = [word.strip() for word in words.split("*")]
    return math.prod(int(factor) if factor.isdigit() else getattr(config, factor) for factor in factors)
