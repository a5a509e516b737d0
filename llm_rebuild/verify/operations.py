"""The dispatcher's operations, as `trace.py` is shown them: what there is to know of one, and how to do it
again by itself, with one thing changed. Its function and its arguments are enough for that."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.checkpoints import tensors_in

# Operations that have another name in everybody's programs.
_WORDS = {
    "bmm": "matmul",
    "mm": "matmul",
    "mv": "matmul",
    "dot": "matmul",
    "_softmax": "softmax",
    "_safe_softmax": "softmax",
    "_log_softmax": "log_softmax",
    "native_layer_norm": "layer_norm",
    "native_group_norm": "group_norm",
    "native_batch_norm": "batch_norm",
    "native_dropout": "dropout",
    "_fused_rms_norm": "rms_norm",
    "_scaled_dot_product_flash_attention_for_cpu": "sdpa",
    "_scaled_dot_product_fused_attention_overrideable": "sdpa",
    "_unsafe_view": "view",
    "_reshape_alias": "view",
    "_to_copy": "to",
}


class Facts(NamedTuple):
    """What the dispatcher says of an operation.

    name     Its own, without the mark of what writes in place: `mul`, `native_layer_norm`.
    word     Its name in programs: `layer_norm`.
    written  Which of its arguments it writes into, by place or by name.
    """

    name: str
    word: str
    written: tuple[int | str, ...]


@functools.cache
def facts_of(function: Any) -> Facts:
    """What there is to know of an operation, looked up once; of None, which made what came from outside,
    nothing."""
    if function is None:
        return Facts("", "", ())
    name = str(getattr(function, "__name__", function)).partition(".")[0]  # `mul_.Tensor` -> `mul_` -> `mul`
    name = name if name.startswith("_") or not name.endswith("_") else name.rstrip("_")
    schema = getattr(function, "_schema", None)
    written = tuple(
        argument.name if argument.kwarg_only else number
        for number, argument in enumerate(() if schema is None else schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
    return Facts(name, _WORDS.get(name, name.removesuffix("_")), written)


class Operations(TorchDispatchMode):
    """Shows every operation."""

    def __init__(self, show: Callable[[Any, Any, Any], Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._show = show

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and torch's guard costs as much as all of this

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return self._show(function, args, kwargs or {})


# ------------------------------------------------------------------------------- nests of arguments


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    """Everything in nested lists, tuples and dicts. A tuple with names of its own is one thing."""
    for value in values:
        if type(value) in (list, tuple):
            yield from leaves(value)
        elif type(value) is dict:
            yield from leaves(value.values())
        else:
            yield value


def mapped(values: Any, change: Callable[[Any], Any]) -> Any:
    """The same nest with each leaf changed."""
    kind = type(values)
    if kind is tuple or kind is list:
        return kind([mapped(value, change) for value in values])
    return {k: mapped(v, change) for k, v in values.items()} if kind is dict else change(values)


def answer_of(result: Any) -> Tensor | None:
    """Of what a module or an operation gave, the tensor that it is known by: the first with decimals."""
    if isinstance(result, Tensor):
        return result
    return next((tensor for tensor in tensors_in((result,)) if tensor.is_floating_point()), None)


def written_by(function: Any, args: Sequence[Any], named: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes into."""
    which = facts_of(function).written
    return tensors_in(
        named.get(w) if isinstance(w, str) else args[w] if w < len(args) else None for w in which
    )


def outputs_of(result: Any, written: Sequence[Tensor]) -> Sequence[Any]:
    """What an operation gave, one after the other; where it gave nothing, what it wrote into."""
    outputs = result if isinstance(result, (list, tuple)) else (result,)
    return outputs if any(isinstance(output, Tensor) for output in outputs) else written or outputs


# -------------------------------------------------------------------------------- to do one again


def compute(function: Any, arguments: Sequence[Any], named: Mapping[str, Any], output: int) -> Any:
    """One operation by itself: its result, or of several the one of this number. What it writes into is a
    copy."""
    if facts_of(function).written:
        arguments, named = mapped(list(arguments), copied), mapped(dict(named), copied)
    result = call(function, arguments, named)
    if result is None or isinstance(result, (list, tuple)):
        return outputs_of(result, written_by(function, arguments, named))[output]
    return result


def copied(value: Any) -> Any:
    """A tensor's copy, which may be written into; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) else value


def call(function: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The same in the open. A view becomes a reshape: what it is a view of may be laid out otherwise now."""
    name = facts_of(function).name
    if name in ("view", "_unsafe_view") and not isinstance(arguments[1], torch.dtype):
        return arguments[0].reshape(arguments[1])
    if name.startswith("_scaled_dot_product"):
        query, key, value = (tensor.shape for tensor in arguments[:3])
        _fitting(query, key, value, named.get("attn_mask"))
    return function(*arguments, **named)


def _fitting(query: torch.Size, key: torch.Size, value: torch.Size, mask: Tensor | None) -> None:
    """Raises RuntimeError for shapes that do not fit. The kernel trusts who calls it: it would end the
    process, or read what lies beside the tensors."""
    scores = (*query[:-1], key[-2])
    if not (
        len(query) == len(key) == len(value) == 4
        and (query[0], query[-1]) == (key[0], key[-1])
        and key[:-1] == value[:-1]
        and 0 not in scores
        and query[1] % key[1] == 0
        and (mask is None or mask.expand(scores).shape == scores)
    ):
        raise RuntimeError(f"query {query}, key {key} and value {value} make no attention")


def overwritten(whole: Tensor, part: Tensor, shape: Any, stride: Any, offset: int) -> Tensor:
    """A tensor after something was written through a window on it."""
    result = whole.clone()
    if result.stride() != whole.stride():
        raise ValueError("the memory cannot be laid out again")
    result.as_strided(shape, stride, offset).copy_(part)
    return result
