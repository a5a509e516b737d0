"""Everything that an official model computes in one forward pass, in order: the one way to watch it.

Checkpoints are a chosen list. A trace is all there is: below torch's functions stands the dispatcher, through
which every tensor that is computed has to pass, also those inside composite operations. A mode that sits
there is shown each result, and what runs around each module's `forward` tells where in the model it was made.
What else is to be known of a run (its checkpoints, the coverage, which tensor somebody has found) is read off
its trace. torch has such an observer of its own, `torch.utils._debug_mode.DebugMode`; it is private.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from llm_rebuild.verify import memory
from llm_rebuild.verify.entries import Trace
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.question import Model, Options, Question, ask, has_rebuild
from llm_rebuild.verify.recording import Facts, Note, Recording, facts_of, written_by
from llm_rebuild.verify.sources import Sources

if TYPE_CHECKING:
    from typing_extensions import Unpack


def trace(
    model: Model | Question,
    texts: str | Sequence[str] | None = None,
    *,
    official: Official | None = None,
    **options: Unpack[Options],
) -> Trace:
    """Run the official model once and keep every floating-point tensor that it computes.

    model     As in `capture`, with texts and options: any Hugging Face text model's folder, or a question.
    official  The model, where it is loaded already.

    Raises InputError for input that cannot be used.
    """
    return observe(ask(model, texts, **options), official).trace()


def observe(question: Question, official: Official | None = None, everything: bool = True) -> Observer:
    """Run the official model once, watched. What it saw is read off the observer: without `everything` only
    the checkpoints, which takes less memory."""
    if official is None:
        question.check()
        official = Official(question.copy.folder, question.attention)
    memory.check(question, official.model)
    observer = Observer(question, official, everything)
    with observer.watching():
        official.run(question, copies=False)
    return observer


class Observer:
    """Watches the official model while it runs. It is shown every operation and changes none.

    In the run it picks the checkpoints and notes everything else that it sees, which keeps it alive; the
    notes are read when somebody asks for the trace. They are read at once where a tensor will not stay as it
    is: where something is about to be written into it.
    """

    def __init__(self, question: Question, official: Official, everything: bool) -> None:
        self._trace = Trace(question.copy.name, question.weights.peek())
        self._recording = Recording(self._trace, official.memory, question.cache)
        self._sources = Sources(question.checkpoints if has_rebuild(question.copy) else ())
        self._official, self.everything = official, everything
        self.inside = ("", type(official.model).__name__)  # the module that computes, by path and class
        self.looks = everything or self._sources.sought("")  # whether its operations are of interest
        self._notes: list[Note] = []
        self._checkpoints: dict[str, Tensor] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs, the model is watched."""
        for path, part in self._official.parts:  # quicker than hooks, and past the check of what it is given
            vars(part)["forward"] = self._watched(path, part)
        try:
            with _Mode(self):
                yield
        finally:
            for _, part in self._official.parts:
                del vars(part)["forward"]

    def trace(self) -> Trace:
        """Everything that the model computed, by entries."""
        self._read_notes()
        self._recording.name(self._sources.names)
        return self._trace

    def checkpoints(self) -> dict[str, Tensor]:
        """The checkpoints by name, in the order of the list; one that was not computed is left out."""
        return {name: self._checkpoints[name] for name in self._sources.names if name in self._checkpoints}

    # ------------------------------------------------------------------------------------------- notes

    def note(
        self, facts: Facts | None, part: tuple[str, str], arguments: tuple[Any, ...], result: Any
    ) -> None:
        """Keep what was seen, and look whether it shows checkpoints."""
        if facts is None:
            shown = self._sources.returned(part[0], arguments, result)
        else:
            shown = self._sources.computed(facts, part[0], arguments, result)
        for name, tensor in shown:
            self._checkpoints[name] = tensor
        if self.everything:
            self._notes.append((facts, part, arguments, result, shown))
            if facts is not None and facts.passing:
                self._read_notes()

    def _read_notes(self) -> None:
        """Make entries of what is noted."""
        for facts, part, arguments, result, shown in self._notes:
            if facts is None:
                self._recording.returned(part, arguments, result)
            else:
                self._recording.computed(facts, part[0], arguments, result)
            for name, tensor in shown:
                self._recording.named(name, tensor)
        self._notes.clear()

    def before_writing(self, written: list[Tensor]) -> None:
        """Copies of what is about to be overwritten."""
        self._read_notes()
        self._recording.before_writing(written)
        memory = {tensor.untyped_storage().data_ptr() for tensor in written}
        for name, tensor in self._checkpoints.items():
            if tensor.untyped_storage().data_ptr() in memory:
                self._checkpoints[name] = tensor.clone()

    # ----------------------------------------------------------------------------------- what happens

    def _watched(self, path: str, part: nn.Module) -> Callable[..., Any]:
        """A module's `forward` with a look at what it is given and what it returns."""
        forward, module = part.forward, (path, type(part).__name__)
        looks = self.everything or self._sources.sought(path)

        def watched(*arguments: Any, **named: Any) -> Any:
            outside = self.inside, self.looks
            self.inside, self.looks = module, looks
            try:
                output = forward(*arguments, **named)
            finally:
                self.inside, self.looks = outside
            if path:
                self.note(None, module, (arguments, named), output)
            return output

        vars(watched)["__wrapped__"] = forward  # for those who ask for its signature
        return watched


class _Mode(TorchDispatchMode):
    """Shows an observer every operation."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and torch's guard costs as much as all of this

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        observer, facts = self._observer, facts_of(function)
        written = written_by(facts, args, kwargs or {}) if facts.written else None
        if written is not None:
            observer.before_writing(written)
        result = function(*args, **kwargs) if kwargs else function(*args)
        if observer.looks:
            arguments = (*args, kwargs) if kwargs else args
            observer.note(facts, observer.inside, arguments, result if written is None else written)
        return result
