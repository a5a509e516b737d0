"""Everything that an official model computes in one forward pass, in order: the one way to watch it.

Checkpoints are a chosen list. A trace is all there is: below torch's functions stands the dispatcher, through
which every tensor that is computed has to pass, also those inside composite operations. A mode that sits
there is shown each result, and what runs around each module's `forward` tells where in the model it was made.
What else is to be known of a run (its checkpoints, the coverage, which tensor somebody has found) is read off
its trace. torch has such an observer of its own, `torch.utils._debug_mode.DebugMode`; it is private.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from typing_extensions import Unpack

from llm_rebuild.checkpoints import join, tensors_in
from llm_rebuild.verify import memory
from llm_rebuild.verify.entries import Trace, is_entry
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.operations import Operations, answer_of, facts_of, outputs_of, written_by
from llm_rebuild.verify.question import Model, Options, Question, ask
from llm_rebuild.verify.recording import Products, Recording, Returned, address_of
from llm_rebuild.verify.sources import Named, Sources


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


def observe(
    question: Question, official: Official | None = None, before: Trace | None = None, sides: int = 1
) -> Observer:
    """Run the official model once, watched. What it saw is read off the observer. `before`: the trace of the
    pass from whose keys and values it goes on; `sides`: see `memory.check`."""
    official = official or Official(question.copy.folder, question.attention, question.dtype)
    memory.check(question, official.model, sides)
    observer = Observer(question, official, Recording() if before is None else before.recording)
    with observer.watching():
        official.run(question)
    return observer


class Observer:
    """Watches the official model while it runs. It is shown every operation and changes none.

    In the run it picks the checkpoints and notes everything else that it sees, which keeps it alive; the
    notes are read when somebody asks for the trace. They are read at once where a tensor will not stay as it
    is: where something is about to be written into it.
    """

    def __init__(self, question: Question, official: Official, recording: Recording) -> None:
        self._question, self._official, self._recording = question, official, recording
        self._sources = Sources(question.checkpoints if question.copy.architecture else ())
        self._inside = ("", type(official.model).__name__)  # the module that computes, by path and class
        self._in_product = False  # of which it is not looked at what it consists of
        # An operation, or None for a module itself; the module; the arguments, and as nodes, where it writes
        # into them; what it gave; and the checkpoints that it shows.
        self._notes: list[tuple[Any, tuple[str, str], Any, Any, Any, Named]] = []
        self._checkpoints: dict[str, Tensor] = {}
        self._numbers: dict[str, int] = {}  # checkpoint -> its node
        self._times: Counter[tuple[str, str]] = Counter()
        self._first = len(recording.nodes)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs, the model is watched."""
        for path, part in self._official.parts:  # quicker than hooks, and past the check of what it is given
            vars(part)["forward"] = self._watched(path, part)
        try:
            with Operations(self.show), Products(self._product):
                yield
        finally:
            for _, part in self._official.parts:
                del vars(part)["forward"]

    def trace(self) -> Trace:
        """Everything that the model computed, by entries."""
        self._read_notes()
        nodes = self._recording.nodes
        numbers = {name: self._numbers[name] for name in self._sources.names if name in self._numbers}
        for name, number in numbers.items():
            nodes[number].checkpoint = nodes[number].checkpoint or name
        own = range(self._first, len(nodes))
        return Trace(self._question.copy.name, self._question.weights.peek(), self._recording, numbers, own)

    def checkpoints(self) -> dict[str, Tensor]:
        """The checkpoints by name, in the order of the list; one that was not computed is left out."""
        return {name: self._checkpoints[name] for name in self._sources.names if name in self._checkpoints}

    # ----------------------------------------------------------------------------------- what happens

    def show(self, function: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do an operation, and note it."""
        refs = self._before_writing(function, args, named) if facts_of(function).written else None
        result = function(*args, **named)
        if not self._in_product:
            self._note(function, (args, named), result, refs)
        return result

    def _product(self, function: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Do a product, and note it."""
        self._in_product = True
        try:
            result = function(*args, **named)
        finally:
            self._in_product = False
        self._note(function, (args, named), result)
        return result

    def _before_writing(self, function: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """What was noted of the tensors that are about to be written into is read, and what is kept of them
        copied."""
        memory = {address_of(tensor) for tensor in written_by(function, args, named)}
        for name, tensor in self._checkpoints.items():
            if address_of(tensor) in memory:
                self._checkpoints[name] = tensor.clone()
        self._read_notes()
        return self._recording.before(function, args, named)

    def _note(self, function: Any, arguments: Any, result: Any, refs: Any = None) -> None:
        outputs = outputs_of(result, written_by(function, *arguments))
        shown = self._sources.computed(facts_of(function).word, self._inside[0], arguments, outputs)
        self._checkpoints.update(shown)
        self._notes.append((function, self._inside, arguments, refs, outputs, shown))

    def _watched(self, path: str, part: nn.Module) -> Callable[..., Any]:
        """A module's `forward` with a look at what it is given and what it returns."""
        forward, module = part.forward, (path, type(part).__name__)

        def watched(*arguments: Any, **named: Any) -> Any:
            """Call it, and note what went in and came out."""
            outside, self._inside = self._inside, module
            try:
                output = forward(*arguments, **named)
            finally:
                self._inside = outside
            if path:
                shown = self._sources.returned(path, (arguments, named), output)
                self._checkpoints.update(shown)
                self._notes.append((None, module, (arguments, named), None, output, shown))
            return output

        vars(watched)["__wrapped__"] = forward  # for those who ask for its signature
        return watched

    # ---------------------------------------------------------------------------------- what was noted

    def _read_notes(self) -> None:
        """Make nodes of what is noted."""
        for function, part, arguments, refs, outputs, shown in self._notes:
            if function is None:
                self._returned(part, arguments, outputs)
            else:
                refs = refs or self._recording.before(function, *arguments)
                self._computed(function, part[0], refs, outputs)
            for name, tensor in shown:  # what is said last counts
                number = self._recording.seen(tensor)
                if number is not None:
                    self._numbers[name] = number
        self._notes.clear()

    def _computed(self, function: Any, path: str, refs: Any, outputs: Sequence[Any]) -> None:
        """The nodes of an operation, with their names."""
        word, nodes = facts_of(function).word, self._recording.nodes
        times = self._times[path, word]
        added = self._recording.add(function, refs, outputs, (word, path, times))
        entries = [node for node in added if is_entry(node, nodes)]
        self._times[path, word] += bool(entries)
        for node in entries:
            node.name = f"{join(path, word)}[{times}]{f'.{node.output}' if node.output else ''}"

    def _returned(self, part: tuple[str, str], arguments: Any, result: Any) -> None:
        """A module returned: what it had been given, and what it gave, of which the first tensor counts."""
        (path, kind), answer = part, answer_of(result)
        number = None if answer is None else self._recording.seen(answer)
        seen = map(self._recording.seen, tensors_in(arguments))
        into = {number for number in seen if number is not None}
        if number is not None and number not in into:  # dropout in evaluation hands on what it was given
            times = self._times[path, ""]
            self._times[path, ""] += 1
            nodes = self._recording.nodes
            name = f"{path}[{times}]" if times else path
            nodes[number].returned.append(Returned(name, kind, len(nodes), tuple(sorted(into))))
