"""The official interim tensors of one run, by checkpoint name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from typing_extensions import Unpack

from llm_rebuild.checkpoints import Checkpoint, aligned
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError, NoSuchNameError, listed, nearest
from llm_rebuild.files import check_regular, reason, replacing
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.any_model import Step, checkpoints_of
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.environment import environment
from llm_rebuild.verify.find import Candidate, SearchResult, find
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Model, Options, Question, ask, describe
from llm_rebuild.verify.tokens import TokenVerdict, compare_tokens
from llm_rebuild.verify.trace import Observer, observe
from llm_rebuild.weights import DTYPES

FORMAT = "llm_rebuild capture 3"  # of a file
Part = tuple[Mapping[str, Any], Mapping[str, Tensor]]  # of a file: what is said, as JSON, and tensors
Memory: Any = StorageWeakRef  # tells whether a storage still lives, and does not keep it alive


class Copies:
    """Which tensors are copies of official ones. Handed in as rebuilt they would be right for nothing."""

    def __init__(self) -> None:
        # Where the memory begins, for it is that of a copy where another library holds it, too -> a weak
        # reference, which tells whether it still lives, and the checkpoint.
        self._sources: dict[int, tuple[Any, str]] = {}

    def remember(self, copy: Tensor, source: str) -> None:
        """Say that `copy` is a copy of the checkpoint `source`."""
        if copy.numel():
            self._sources[copy.untyped_storage().data_ptr()] = Memory(copy.untyped_storage()), source

    def source_of(self, tensor: Tensor) -> str | None:
        """The checkpoint whose copy a tensor is a window on; None for any other tensor."""
        memory, source = self._sources.get(tensor.untyped_storage().data_ptr(), (None, None))
        return source if memory is not None and not memory.expired() else None


@dataclass(frozen=True)
class Interim:
    """One official interim tensor and its name. `compare` takes it; `.tensor` is a copy of its own, which its
    capture's `copies` remember."""

    name: str
    _tensor: Tensor = field(repr=False)
    copies: Copies = field(default_factory=Copies, repr=False, compare=False)

    @property
    def tensor(self) -> Tensor:
        """A copy of the official numbers, remembered as one."""
        copy = self._tensor.clone()
        self.copies.remember(copy, self.name)
        return copy

    @property
    def shape(self) -> list[int]:
        """The official shape."""
        return list(self._tensor.shape)

    @property
    def dtype(self) -> str:
        """The official dtype, `float32` or another."""
        return str(self._tensor.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Capture(Mapping[str, Interim]):
    """What the official model computed for these inputs: `capture["embeddings.sum"]`.

    Iterating gives the names in the order in which the model computed them.

    coupled      The bridges: checkpoints that somebody went on from. Every report says so.
    checkpoints  What each is: its axes, its meaning, its source; of a model without a rebuild nothing.
    steps        How each came to be, where that was asked for; of a model without a rebuild always.
    model_type   The architecture, by config.json's name.
    tokenizer    Whether the token ids are the official tokenizer's.
    """

    model: Mapping[str, Any]
    attention: str
    inputs: Inputs
    environment: Mapping[str, Any]
    tensors: Mapping[str, Tensor] = field(repr=False)
    coupled: list[str] = field(default_factory=list)
    steps: Mapping[str, Step] = field(default_factory=dict, repr=False)
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict, repr=False)
    model_type: str = ""
    tokenizer: TokenVerdict | None = None
    copies: Copies = field(default_factory=Copies, init=False, repr=False, compare=False)

    def bridge(self, name: str) -> Tensor:
        """A copy of an official interim tensor, to go on from where you are stuck. Openly: from now on
        every report on this capture says `coupled at NAME`."""
        tensor = self[name]._tensor.clone()  # not remembered: this way is open
        if name not in self.coupled:
            self.coupled.append(name)
        return tensor

    def find(self, tensor: Any, limit: int = 5) -> SearchResult:
        """Which checkpoint is this tensor, or what is it of one? `llm_rebuild.verify.find` says how."""
        if self.dtype != "float32":
            raise InputError(f"find looks in float32, and this capture is of {self.dtype}; make another")
        candidates = [Candidate(name, official, name) for name, official in self.tensors.items()]
        return find(tensor, candidates, {}, limit)

    def __getitem__(self, name: str) -> Interim:
        try:
            return Interim(name, self.tensors[name], self.copies)
        except KeyError:
            raise NoSuchNameError(
                f"the capture has no checkpoint {name!r}{nearest(name, self.tensors)}"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def save(self, file: str | Path, more: Mapping[str, Part] = {}) -> None:
        """Write a safetensors file, whole or not at all; and into it what belongs to the capture, by name."""
        about = {
            "format": FORMAT,
            "model": dict(self.model),
            "attention": self.attention,
            "environment": dict(self.environment),
            "texts": self.inputs.texts,
            "tokens": self.inputs.tokens,
            "truncated": self.inputs.truncated,
            "order": list(self.tensors),
            "coupled": self.coupled,
            "model_type": self.model_type,
            "tokenizer": vars(self.tokenizer) if self.tokenizer else None,
            "checkpoints": {name: [c.shape, c.meaning, c.source] for name, c in self.checkpoints.items()},
            "steps": {name: asdict(step) for name, step in self.steps.items()},
        }
        tensors = {f"checkpoint/{name}": tensor.contiguous() for name, tensor in self.tensors.items()}
        tensors |= {f"inputs/{name}": tensor for name, tensor in self.inputs.tensors.items()}
        words = {"llm_rebuild": json.dumps(about)}
        for part, (facts, numbers) in more.items():
            words[part] = json.dumps(facts)
            tensors |= {f"{part}/{name}": tensor.contiguous() for name, tensor in numbers.items()}
        try:
            with replacing(Path(file)) as unfinished:
                save_file(tensors, unfinished, metadata=words)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write {file}: {reason(error)}") from None

    @property
    def dtype(self) -> str:
        """The type that the model computed in."""
        return str(self.environment.get("dtype", "float32"))

    @classmethod
    def load(cls, file: str | Path) -> Capture:
        """Read a file that `save` wrote."""
        check_regular(Path(file), "`llm-rebuild capture` makes one")
        try:
            with safe_open(file, framework="pt") as opened:
                about = json.loads((opened.metadata() or {})["llm_rebuild"])
                stored = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            inputs = Inputs(
                texts=tuple(about["texts"]),
                tokens=tuple(tuple(row) for row in about["tokens"]),
                truncated=tuple(about["truncated"]),
                **{key[7:]: tensor for key, tensor in stored.items() if key.startswith("inputs/")},
            )
            tensors = {name: aligned(stored[f"checkpoint/{name}"]) for name in about["order"]}
            steps: dict[str, Any] = {
                name: {key: tuple(v) if isinstance(v, list) else v for key, v in step.items()}
                for name, step in about.get("steps", {}).items()
            }
            if about["environment"]["dtype"] not in DTYPES:
                raise ValueError(about["environment"]["dtype"])
            checkpoints = {
                name: Checkpoint(name, str(shape), str(meaning), str(source))
                for name, (shape, meaning, source) in about.get("checkpoints", {}).items()
            }
            return cls(
                about["model"], about["attention"], inputs, about["environment"], tensors,
                coupled=[name for name in map(str, about.get("coupled", ())) if name in tensors],
                steps={name: Step(**step) for name, step in steps.items()},
                checkpoints=checkpoints,
                model_type=str(about.get("model_type", "")),
                tokenizer=TokenVerdict(**about["tokenizer"]) if about.get("tokenizer") else None,
            )  # fmt: skip
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            raise InputError(f"{file} is not a capture file; `llm-rebuild capture` makes one") from None


def capture(
    model: Model | Question,
    texts: str | Sequence[str] | None = None,
    *,
    official: Official | None = None,
    steps: bool = False,
    **options: Unpack[Options],
) -> Capture:
    """Run the official model once and keep a copy of every checkpoint.

    steps  Whether to note how each came to be, too. A diagnosis needs it, and else runs the model once more.

    The model, texts and options are those of `question.ask`: `capture("gpt2", "The dog", attention="sdpa")`,
    and a question that is made already serves as well. `official` is the model where it is loaded already.
    """
    question = ask(model, texts, **options)
    return read_capture(question, observe(question, official), steps or question.copy.architecture is None)


def read_capture(question: Question, observer: Observer, with_steps: bool = True) -> Capture:
    """The checkpoints of a run, as its observer saw them."""
    tensors: Mapping[str, Tensor]
    entries, steps = checkpoints_of(observer.trace()) if with_steps else ({}, {})
    if question.copy.architecture is not None:
        checkpoints = {checkpoint.name: checkpoint for checkpoint in question.checkpoints}
        tensors = observer.checkpoints()
        missing = [name for name in checkpoints if name not in tensors]
        if missing:  # the official code is another: never a skip
            release = environment()["transformers"]
            raise InputError(
                f"the official model of transformers {release} never computed {listed(missing)}: its steps "
                "are others than those that llm_rebuild follows; `pip check` names the release that it needs"
            )
    else:
        checkpoints = {}
        tensors = {name: entry.value for name, entry in entries.items()}
    return Capture(
        describe(question.copy),
        question.attention,
        question.inputs,
        environment(question.dtype),
        dict(zip(tensors, _apart(tensors.values(), question.cache), strict=True)),
        steps=steps,
        checkpoints=checkpoints,
        model_type=str(question.copy.config.get("model_type")),
        tokenizer=None if question.goes_on else compare_tokens(question.copy, question.inputs),
    )


def steps_of(truth: Capture, copy: LocalCopy, prompt: Capture | None = None) -> Mapping[str, Step]:
    """How the checkpoints of a capture came to be. Where it does not say so, the official model runs again.

    prompt  The capture of the pass before, where this one goes on from its keys and values.
    """
    return truth.steps or checkpoints_of(trace_of(truth, copy, prompt))[1]


def trace_of(
    truth: Capture, copy: LocalCopy, prompt: Capture | None = None, official: Official | None = None
) -> Trace:
    """Everything that there was to see when a capture was made. The official model runs again: a trace keeps
    its weights in memory, and so no capture holds one."""
    official = official or Official(copy.folder, truth.attention, truth.dtype)
    inputs, cache = (prompt or truth).inputs, prompt is not None
    question = Question(copy, inputs, truth.attention, cache, dtype=truth.dtype)
    traced = observe(question, official).trace()
    if prompt is not None:
        question = replace(question, inputs=truth.inputs, goes_on=True)
        traced = observe(question, official, before=traced).trace()
    return traced


def _apart(tensors: Iterable[Tensor], cache: bool) -> Iterator[Tensor]:
    """Tensors, each in memory of its own; with a `cache` the model may write into its own at a next step."""
    addresses: set[int] = set()
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if cache or storage.nbytes() != tensor.nbytes or storage.data_ptr() in addresses:
            tensor = tensor.clone()
        addresses.add(storage.data_ptr())
        yield tensor
