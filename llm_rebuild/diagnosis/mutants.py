"""Mistakes made on purpose. A mutant is a rebuild with one line of its source changed.

They measure the tools: whatever a person may get wrong should be caught, first seen at the right checkpoint,
and named. The changes are made in the source, as a person makes them, and not by switches in the models.
"""

from __future__ import annotations

import importlib
import importlib.util
import linecache
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from llm_rebuild.checkpoints import Recorder, Tap
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import RECORDS, rebuild_for
from llm_rebuild.verify.capture import Capture, capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import ask
from llm_rebuild.verify.steps import likeliest

# What the mutants of the miniatures are run on: texts of different lengths, so that there is padding, and of
# more than 16 tokens for T5, so that far distances share buckets on both sides.
TEXTS = {
    "minilm": ["The cook gave the sailor a lamp.", "The cook."],
    "gpt2": ["The baker of Oru lives by the river and sells bread.", "The cook"],
    "t5-small": [
        "translate English to German: four hundred twenty-seven thousand three hundred and twelve",
        "translate English to German: nine",
    ],
    "llama": ["The baker of Oru lives by the river and sells bread.", "The cook"],
}

# Which source files belong to which rebuild, in the order in which they import each other.
SOURCES = {r.published: ("cache", "ops", "rotary", r.file) for r in RECORDS}


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    name        `gpt2-scale-missing`: the model and what was done; unique.
    model       By the name of its local copy: `gpt2`.
    before      A piece of the source, which must stand there exactly once.
    after       What replaces it.
    cause       Its name in `diagnosis/causes.py`. Several, where two mistakes give the same numbers.
    first       The checkpoint that must be the first to differ.
    file        The source file without `.py`; None is the model's own.
    attention   The spelling in which it shows.
    run         `padded`: one pass over a padded batch. `single`: over one text. `cached`: a pass that keeps
                keys and values, and then one step that goes on from them; `first` is looked for in the step.
    equivalent  Why it changes no number at all, where it does not. Then `first` is empty.
    kind        Of a family of models, the one in which it can be made; empty: the miniature.
    """

    name: str
    model: str
    before: str
    after: str
    cause: str | tuple[str, ...]
    first: str
    file: str | None = None
    attention: str = "eager"
    run: str = "padded"
    equivalent: str = ""
    kind: str = field(default="", repr=False)

    @property
    def causes(self) -> tuple[str, ...]:
        """All names that are right for it."""
        return (self.cause,) if isinstance(self.cause, str) else self.cause

    @property
    def source(self) -> str:
        """The source file that it changes, without `.py`."""
        return self.file or SOURCES[self.model][-1]


@contextmanager
def mutated(mutants: Sequence[Mutant]) -> Iterator[types.ModuleType]:
    """The rebuild's module with the mistakes of all `mutants` in it, which are of one model.

    The changed files are executed as modules of their own beside the real ones, which stay as they are.
    Raises ValueError where a `before` does not stand in the source exactly once.
    """
    model = mutants[0].model
    originals = {name: sys.modules.get(name) for name in map(_module, SOURCES[model])}
    package = importlib.import_module("llm_rebuild.models")
    try:
        for file in SOURCES[model]:
            real = importlib.import_module(_module(file))
            source = Path(str(real.__file__)).read_text(encoding="utf-8")
            for mutant in mutants:
                if mutant.source == file:
                    source = changed(source, mutant)
            module = types.ModuleType(_module(file))
            shown = f"<{file}.py, changed>"
            module.__file__, module.__package__ = shown, "llm_rebuild.models"
            sys.modules[_module(file)] = module
            linecache.cache[shown] = (len(source), None, source.splitlines(keepends=True), shown)
            exec(compile(source, shown, "exec"), module.__dict__)
        yield sys.modules[_module(SOURCES[model][-1])]
    finally:
        for name, module_before in originals.items():
            if module_before is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module_before
                setattr(package, name.rpartition(".")[2], module_before)


def changed(source: str, mutant: Mutant) -> str:
    """The source with the mutant's mistake in it."""
    count = source.count(mutant.before)
    if count != 1:
        raise ValueError(f"{mutant.name}: its `before` stands {count} times in {mutant.source}.py, not once")
    return source.replace(mutant.before, mutant.after)


@dataclass(frozen=True)
class Scene:
    """What a mutant is run on: a local copy, an input, and what the official model makes of it.

    truth   The official interim tensors of the pass that is compared.
    prompt  For a cached run, those of the pass before it.
    """

    copy: LocalCopy
    truth: Capture
    prompt: Capture | None = None

    def play(self, module: types.ModuleType, tap: Tap) -> None:
        """Run a rebuild's module on it. Only the pass that is compared is tapped."""
        part = partial(
            rebuild_for(self.copy.config).part, self.copy.weights(), attention=self.truth.attention
        )
        with torch.no_grad():
            if self.prompt is None:
                module.forward(self.truth.inputs.batch, part(tap))
                return
            prompt = module.forward(self.prompt.inputs.batch, part(), module.Cache())
            module.forward(self.truth.inputs.batch, part(tap), prompt.cache)


def scene(
    copy: LocalCopy,
    run: str = "padded",
    attention: str = "eager",
    texts: Sequence[str] | None = None,
    token_ids: Sequence[Sequence[int]] | None = None,
    official: Official | None = None,
) -> Scene:
    """A scene from two texts or rows of ids, of which a single run takes the first."""
    one = run == "single"
    rows, ids = texts[:1] if texts and one else texts, token_ids[:1] if token_ids and one else token_ids
    model = official or Official(copy.folder, attention)
    question = ask(copy, rows, token_ids=ids, attention=attention)
    if run != "cached":
        return Scene(copy, capture(question, official=model, steps=True))
    if question.inputs.decoder_ids is None:
        question = replace(question, inputs=question.inputs.with_padding("left"))
    question = replace(question, cache=True)
    prompt = capture(question, official=model, steps=True)
    after = question.step(likeliest(prompt))
    return Scene(copy, capture(after, official=model, steps=True), prompt)


@dataclass(frozen=True)
class Mutated:
    """What a mutant computed: its checkpoints up to the end, or up to the error that stopped it. What it
    tapped under other names is not among them."""

    tensors: dict[str, Tensor]
    error: Exception | None = None


def run(mutants: Mutant | Sequence[Mutant], scene: Scene, seed: int = 0) -> Mutated:
    """Run a mutant, or several mistakes at once, on a scene. The seed is for a mistake that draws numbers."""
    recorder, error = Recorder(), None
    torch.manual_seed(seed)
    with mutated([mutants] if isinstance(mutants, Mutant) else mutants) as module:
        try:
            scene.play(module, recorder.tap())
        except Exception as problem:  # what a person's mistake raises can be anything
            error = problem
    return Mutated({name: t for name, t in recorder.tensors.items() if name in scene.truth}, error)


def _module(file: str) -> str:
    return f"llm_rebuild.models.{file}"
