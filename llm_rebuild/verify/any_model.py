"""Any Hugging Face text model in a folder, also one that there is no rebuild for.

The course's models have a list of checkpoints, made by hand. For another model the list is what its official
code does: what each module returns, under the module's path, and what happens between modules, under the
path of the module in which it happens, `model.layers.0.self_attn.softmax[0]`. It is read off a trace.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.tokenizers import Encoding
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import Capture, Step, has_rebuild
from llm_rebuild.verify.official import Official, official_class, official_config
from llm_rebuild.verify.trace import Entry, Trace, trace_inputs

# What has no checkpoint of its own: numbers brought into another place or type, and constants.
COPIES = {"clone", "copy", "to", "contiguous", "lift_fresh", "detach", "alias", "dropout"}
CONSTANTS = {"zeros", "ones", "full", "new_zeros", "new_ones", "new_full", "scalar_tensor", "arange", "eye"}
CONSTANTS |= {"zeros_like", "ones_like", "full_like", "fill", "zero"}
# Second and later results of these are statistics for the backward pass.
STATISTICS = {"layer_norm", "sdpa", "rms_norm", "group_norm", "batch_norm"}


def check(copy: LocalCopy) -> None:
    """Refuse a folder before the official model is built from it. Raises InputError."""
    if has_rebuild(copy):
        rebuild_for(copy.config).check(copy.weights())
        return
    keys = len(copy.weights())
    for field, value in copy.config.items():
        counts = "layer" in field or "expert" in field or "block" in field
        if counts and type(value) is int and value > max(keys, 64):  # before so many modules are made
            raise InputError(f"config.json: {field} is {value}; the weight file has only {keys} tensors")


# ------------------------------------------------------------------------------------------ inputs


class OfficialTokenizer:
    """A folder's own tokenizer, run by transformers: there is no rebuild of it here."""

    def __init__(self, copy: LocalCopy) -> None:
        import transformers

        ask = f"give --token-ids, for {copy.folder} has no tokenizer that transformers can read"
        files = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json")
        if not any((copy.folder / file).is_file() for file in (*files, "vocab.txt")):
            raise InputError(ask)
        try:
            self._official = transformers.AutoTokenizer.from_pretrained(
                copy.folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # each tokenizer class refuses in its own way
            raise InputError(f"{ask} ({' '.join(str(error).split())[:120]})") from None

    @property
    def pad_id(self) -> int | None:
        number: int | None = self._official.pad_token_id
        return number

    @property
    def vocabulary_size(self) -> int:
        return len(self._official)

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        ids = list(self._official(text)["input_ids"])
        kept = ids if max_tokens is None else ids[:max_tokens]
        tokens = [str(token) for token in self._official.convert_ids_to_tokens(kept)]
        return Encoding(kept, tokens, [(0, 0)] * len(kept), len(ids) - len(kept))

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._official.decode(list(ids))
        return text


def read_any_inputs(
    copy: LocalCopy,
    texts: str | Sequence[str] | None = None,
    token_ids: Sequence[Sequence[int]] | None = None,
    decoder_ids: Sequence[Sequence[int]] | None = None,
    side: str = "right",
) -> Inputs:
    """`read_inputs` for a model without a rebuild."""
    config = official_config(copy.folder)
    reads = config.get_text_config()
    vocabulary, positions = getattr(reads, "vocab_size", None), _positions(reads)
    if type(vocabulary) is not int or vocabulary < 1:
        raise InputError(f"config.json: vocab_size is {vocabulary!r}, expected a whole number from 1")
    if token_ids is not None:
        inputs = Inputs.from_token_ids(token_ids, vocabulary, positions, side)
    else:
        rows = [texts] if isinstance(texts, str) else list(texts or ())
        inputs = Inputs.from_texts(OfficialTokenizer(copy), rows, positions, side, cut=False)
        if (highest := int(inputs.token_ids.max())) >= vocabulary:
            raise InputError(
                f"the tokenizer of {copy.name} gives id {highest}, config.json's vocab_size is {vocabulary}; "
                "they belong to different models"
            )
    pad = _first_id(reads, "pad_token_id", vocabulary)
    if pad is not None:  # RoBERTa's positions count the tokens that are not this one
        inputs = replace(inputs, token_ids=inputs.token_ids.masked_fill(inputs.mask == 0, pad))
    if config.is_encoder_decoder:
        start = _first_id(config, "decoder_start_token_id", vocabulary)
        if start is None:
            raise InputError("config.json has no decoder_start_token_id; add the id its decoder begins with")
        return inputs.with_decoder(decoder_ids, start, vocabulary)
    if decoder_ids is not None:
        raise InputError(f"{copy.name} has no decoder beside its encoder; leave the decoder ids out")
    return inputs


def _positions(config: Any) -> int | None:
    """The most tokens that the model can take, where its config says so in one of the usual words."""
    for field in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        value = getattr(config, field, None)
        if type(value) is int and value > 0:
            return value
    return None


def _first_id(config: Any, field: str, vocabulary: int) -> int | None:
    value = getattr(config, field, None)
    value = value[0] if isinstance(value, list) and value else value
    return value if type(value) is int and 0 <= value < vocabulary else None


# ---------------------------------------------------------------------------------------- capture


def capture_any(
    copy: LocalCopy,
    inputs: Inputs,
    attention: str = "eager",
    use_cache: bool = False,
    official: Official | None = None,
) -> Capture:
    """A capture of any model: its checkpoints are read off a trace, and `steps` says how each was made."""
    if official is None:
        check(copy)
        official = Official(copy.folder, attention)
    return capture_of(trace_inputs(copy, inputs, official, use_cache))


def capture_of(taken: Trace) -> Capture:
    """The checkpoints of a trace, each with a copy of its numbers, in the order in which they came to be."""
    tensors: dict[str, Tensor] = {}
    steps: dict[str, Step] = {}
    known: dict[int, list[str]] = {}  # computed entry -> its names so far
    for _, name, entry, module in _events(taken):
        base = entry.number if entry.view_of is None else entry.view_of
        names = known.get(base, [])
        inputs = _names(taken, taken.entries[base].inputs, known)
        given: tuple[str, ...] = ()
        if module is not None:
            given = tuple(n for n in _names(taken, module.given, known) if n != name)
        steps[name] = Step(
            kind=module.kind if module else taken.entries[base].operation,
            path=entry.path if module is None else name.partition("[")[0],
            inputs=(names[-1],) if names else inputs,
            given=given,
            same_as=names[0] if names and _whole(entry, taken) else None,
        )
        known[base] = [*names, name]
        tensors[name] = taken.tensor(entry).clone(memory_format=torch.contiguous_format)
    return Capture(taken.model, taken.attention, taken.inputs, taken.environment, tensors, steps=steps)


def _events(taken: Trace) -> list[tuple[int, str, Entry, Any]]:
    """Every checkpoint: since which entry, its name, where its numbers are, who returned it."""
    found: list[tuple[int, str, Entry, Any]] = []
    shown: dict[int, Entry] = {}  # computed entry -> the view that is the product in its final shape
    returned: set[int] = set()
    for entry in taken:
        if entry.view_of is not None and entry.aten == "aten._unsafe_view":
            shown.setdefault(entry.view_of, entry)
        if entry.returned and _whole(entry, taken):
            returned.add(entry.number if entry.view_of is None else entry.view_of)
        found += [(module.at, module.name, entry, module) for module in entry.returned]
    for entry in taken.computed():
        if entry.number not in returned and _is_step(entry):
            found.append((entry.number + 1, entry.name, shown.get(entry.number, entry), None))
    return sorted(found, key=lambda event: event[0])


def _is_step(entry: Entry) -> bool:
    """Whether numbers of the model came to be here, and not only moved."""
    if entry.operation in COPIES | CONSTANTS or not entry.shape:
        return False
    return not (entry.output and entry.operation in STATISTICS)


def _whole(entry: Entry, taken: Trace) -> bool:
    """Whether an entry holds all numbers of what was computed, and not a slice of it."""
    return entry.view_of is None or taken.entries[entry.view_of].bytes == entry.bytes


def _names(taken: Trace, numbers: Sequence[int], known: dict[int, list[str]]) -> tuple[str, ...]:
    """The checkpoints that these entries are, or were made of where they are none themselves."""
    found: dict[str, None] = {}
    for number in numbers:
        entry = taken.entries[number]
        base = number if entry.view_of is None else entry.view_of
        if base in known:
            found[known[base][-1]] = None
        else:
            found.update(dict.fromkeys(_names(taken, taken.entries[base].inputs, known)))
    return tuple(found)


# ---------------------------------------------------------------------------------------- anatomy


def skeleton(copy: LocalCopy) -> nn.Module:
    """The official model's modules with shapes and no numbers."""
    check(copy)
    config = official_config(copy.folder)
    official = official_class(config)
    if "input_ids" not in inspect.signature(official.forward).parameters:
        raise InputError(f"config.json: {official.__name__} does not read token ids; it is no text model")
    try:
        with torch.device("meta"):
            model: nn.Module = official(config)
    except Exception as error:  # each model class refuses in its own way
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"config.json: transformers builds no model of it ({reason})") from None
    return model


def fitting(copy: LocalCopy, model: nn.Module) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The weight file's keys that the model uses, with their shapes, and those that it does not.

    Raises InputError where a key is missing or has another shape.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    needed = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {})
    used: dict[str, tuple[int, ...]] = {}
    found: set[str] = set()
    unused: list[str] = []
    for key, tensor in copy.weights().peek().items():
        name = next((n for n in (key, key.removeprefix(prefix), prefix + key) if n in needed), None)
        if name is None:
            unused.append(key)
            continue
        if tuple(tensor.shape) != needed[name]:
            raise InputError(
                f"{copy.weights_file.name}: {key} has shape {list(tensor.shape)}, its config.json says "
                f"{list(needed[name])}"
            )
        used[key] = needed[name]
        found.add(name)
    missing = [key for key in needed if key not in found and key not in tied]
    if missing and unused:  # transformers makes the ones from the others, as it does for Mixtral's experts
        weights = copy.weights().peek()
        return used | {key: tuple(weights[key].shape) for key in unused}, []
    if missing:
        several = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{copy.weights_file.name} lacks {missing[0]}{several}; it does not fit its config.json"
        )
    return used, unused
