"""The official interim tensors of one run, by checkpoint name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.files import replacing
from llm_rebuild.models import architecture_for, rebuild_for
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.official import Official

if TYPE_CHECKING:
    from llm_rebuild.verify.find import Found


@dataclass(frozen=True)
class Interim:
    """One official interim tensor and its name. `compare` takes it; `.tensor` is a copy of its own."""

    name: str
    _tensor: Tensor = field(repr=False)

    @property
    def tensor(self) -> Tensor:
        return self._tensor.clone()

    @property
    def shape(self) -> list[int]:
        return list(self._tensor.shape)

    @property
    def dtype(self) -> str:
        return str(self._tensor.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Step:
    """How a checkpoint of a model without a rebuild came to be.

    kind     The class of the module that returned it, `Linear`, or the operation that made it, `matmul`.
    path     The module that returned it, or in which it was made.
    inputs   The checkpoints that went into the operation.
    given    The checkpoints that the module was given.
    same_as  The checkpoint whose very numbers it has, where a module hands on what a part of it returned.
    """

    kind: str
    path: str
    inputs: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    same_as: str | None = None


@dataclass(frozen=True)
class Capture(Mapping[str, Interim]):
    """What the official model computed for these inputs: `capture["embeddings.sum"]`.

    Iterating gives the names in the order in which the model computed them. `steps` says how each came to
    be, for a model without a rebuild; for the course's models, whose list says it, it is empty.
    """

    model: Mapping[str, Any]
    attention: str
    inputs: Inputs
    environment: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    coupled: list[str] = field(default_factory=list)
    steps: Mapping[str, Step] = field(default_factory=dict, repr=False)

    def bridge(self, name: str) -> Tensor:
        """A copy of an official interim tensor, to go on from where you are stuck. Openly: from now on
        every report on this capture says `coupled at NAME`."""
        tensor = self[name].tensor
        if name not in self.coupled:
            self.coupled.append(name)
        return tensor

    def find(self, tensor: Tensor, limit: int = 5) -> Found:
        """Which checkpoint is this tensor, or what is it of one? `llm_rebuild.verify.find` says how."""
        from llm_rebuild.verify.find import find_in_capture

        return find_in_capture(tensor, self, limit)

    def __getitem__(self, name: str) -> Interim:
        try:
            return Interim(name, self.tensors[name])
        except KeyError:
            raise InputError(
                f"the capture has no checkpoint {name!r}{_nearest(name, self.tensors)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def save(self, file: str | Path) -> None:
        """Write a safetensors file, whole or not at all."""
        about = {
            "format": "llm_rebuild capture 1",
            "model": dict(self.model),
            "attention": self.attention,
            "environment": dict(self.environment),
            "texts": self.inputs.texts,
            "tokens": self.inputs.tokens,
            "truncated": self.inputs.truncated,
            "order": list(self.tensors),
            "steps": {name: asdict(step) for name, step in self.steps.items()},
        }
        tensors = {f"checkpoint/{name}": tensor.contiguous() for name, tensor in self.tensors.items()}
        tensors |= {"inputs/token_ids": self.inputs.token_ids, "inputs/mask": self.inputs.mask}
        if self.inputs.decoder_ids is not None and self.inputs.decoder_mask is not None:
            tensors["inputs/decoder_ids"] = self.inputs.decoder_ids
            tensors["inputs/decoder_mask"] = self.inputs.decoder_mask
        try:
            with replacing(Path(file)) as part:
                save_file(tensors, part, metadata={"llm_rebuild": json.dumps(about)})
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write {file}: {one_line(error)}") from None

    @classmethod
    def load(cls, file: str | Path) -> Capture:
        """Read a file that `save` wrote."""
        try:
            with safe_open(file, framework="pt") as opened:
                about = json.loads((opened.metadata() or {})["llm_rebuild"])
                stored = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            inputs = Inputs(
                stored["inputs/token_ids"],
                stored["inputs/mask"],
                tuple(about["texts"]),
                tuple(tuple(row) for row in about["tokens"]),
                tuple(about["truncated"]),
                stored.get("inputs/decoder_ids"),
                stored.get("inputs/decoder_mask"),
            )
            tensors = {name: stored[f"checkpoint/{name}"] for name in about["order"]}
            steps = {name: _step(step) for name, step in about.get("steps", {}).items()}
            return cls(about["model"], about["attention"], inputs, about["environment"], tensors, steps=steps)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            raise InputError(f"{file} is not a capture file; `llm-rebuild capture` makes one") from None


def capture(
    model: str | Path | LocalCopy,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
    decoder_ids: Sequence[Sequence[int]] | None = None,
    use_cache: bool = False,
) -> Capture:
    """Run the official model once and keep a copy of every checkpoint.

    model      A name, a folder, or an opened local copy.
    texts      One text or several; several make one padded batch.
    token_ids  Ids instead of texts, for a folder without a tokenizer.
    attention  `eager` or `sdpa`. With `sdpa` scores and probabilities do not exist.
    decoder_ids  What the decoder reads, for T5. If None, the start token and then the text itself.
    use_cache  Keep keys and values for a next step, as generation does. It changes their bits.
    """
    copy = open_copy(model)
    return capture_inputs(copy, read_inputs(copy, texts, token_ids, decoder_ids), attention, use_cache)


def has_rebuild(copy: LocalCopy) -> bool:
    """Whether the folder is of a family that the course rebuilds. Of others the trace gives a capture."""
    return architecture_for(copy.config) is not None


def open_copy(model: str | Path | LocalCopy) -> LocalCopy:
    """The local copy that a name or a folder means."""
    return model if isinstance(model, LocalCopy) else local_copy.get(model)


def read_inputs(
    copy: LocalCopy,
    texts: str | Sequence[str] | None = None,
    token_ids: Sequence[Sequence[int]] | None = None,
    decoder_ids: Sequence[Sequence[int]] | None = None,
    side: str = "right",
) -> Inputs:
    """Texts or ids as one padded batch that fits the model. `side` is where the padding goes."""
    if not has_rebuild(copy):
        from llm_rebuild.verify.any_model import read_any_inputs

        return read_any_inputs(copy, texts, token_ids, decoder_ids, side)
    config = rebuild_for(copy.config).config
    if token_ids is not None:
        inputs = Inputs.from_token_ids(token_ids, config.vocab_size, config.positions, side)
    else:
        texts = [texts] if isinstance(texts, str) else list(texts or ())
        tokenizer = copy.tokenizer()
        if tokenizer.vocabulary_size > config.vocab_size:
            raise InputError(
                f"the tokenizer of {copy.name} has {tokenizer.vocabulary_size} ids, config.json's vocab_size "
                f"is {config.vocab_size}; they belong to different models"
            )
        inputs = Inputs.from_texts(tokenizer, texts, config.positions, side, cut=config.cuts_texts)
    start = getattr(config, "decoder_start_token_id", None)
    if start is not None:
        return inputs.with_decoder(decoder_ids, start, config.vocab_size)
    if decoder_ids is not None:
        raise InputError(f"{copy.name} has no decoder beside its encoder; leave the decoder ids out")
    return inputs


def capture_inputs(
    copy: LocalCopy,
    inputs: Inputs,
    attention: str = "eager",
    use_cache: bool = False,
    official: Official | None = None,
) -> Capture:
    """The same, from inputs that are ready. `official` is the model, where it is loaded already."""
    if not has_rebuild(copy):
        from llm_rebuild.verify.any_model import capture_any

        return capture_any(copy, inputs, attention, use_cache, official)
    if official is None:
        rebuild_for(copy.config).check(copy.weights())
        official = Official(copy.folder, attention)
    holding = {"start", "cache"} if use_cache else {"start"}
    return watch(official, copy, inputs, partial(official.run, use_cache=use_cache), holding)


def watch(
    official: Official,
    copy: LocalCopy,
    inputs: Inputs,
    run: Callable[[Inputs], Any],
    holding: set[str],
) -> Capture:
    """Run an official model that is loaded already, and keep every checkpoint.

    run      How to run it: `official.run` or `official.step`.
    holding  Conditions of this run that the inputs do not tell: `cache` where keys and values are
             kept, `start` where none were kept before.
    """
    rebuild, attention = rebuild_for(copy.config), official.attention
    tensors: dict[str, Tensor] = {}
    wanted = rebuild.checkpoints(conditions(attention, inputs) | rebuild.conditions(copy.weights()) | holding)
    official.watch(wanted, inputs, tensors.__setitem__, run)
    missing = [c.name for c in wanted if c.name not in tensors]
    if missing:  # the official code has changed under us: never a skip
        raise RuntimeError(f"the official model never computed {', '.join(missing)}")
    ordered = {c.name: tensors[c.name] for c in wanted}
    return Capture(describe(copy), attention, inputs, environment(), ordered)


def conditions(attention: str, inputs: Inputs) -> set[str]:
    """What holds in this run, for the list of checkpoints: `eager` or `sdpa`; `padding` where a row is
    shorter than the longest; `decoder mask` where a decoder beside an encoder reads several tokens, or
    padding."""
    holding = {attention, "padding"} if inputs.padded else {attention}
    if inputs.decoder_ids is not None and inputs.decoder_mask is not None:
        several = inputs.decoder_ids.shape[1] > 1
        if several or not bool(inputs.decoder_mask.all()):
            holding.add("decoder mask")
    return holding


def describe(copy: LocalCopy) -> dict[str, Any]:
    """Which files these numbers come from. JSON-ready."""
    return {
        "name": copy.name,
        "source": copy.source,
        "revision": copy.revision,
        "sha256": copy.sha256[copy.weights_file.name],
    }


def _step(stored: Mapping[str, Any]) -> Step:
    inputs, given = tuple(map(str, stored["inputs"])), tuple(map(str, stored["given"]))
    return Step(str(stored["kind"]), str(stored["path"]), inputs, given, stored["same_as"])


def _nearest(name: str, names: Mapping[str, Tensor]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
