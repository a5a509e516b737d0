"""What runs in a process of its own: a learner's file, and its steps by themselves.

It is asked to load the file, to run `forward`, to try a step, and to read what was done; or to call a
function that is no rebuild. Each tapped tensor is sent as it comes, so that nothing that was right is lost in
a crash. An official tensor comes in only when `forward` is done and what it tapped is with the one who asks,
and only after the step that computes it was tried: what a step could find in here is what it was given
anyway. Reading comes last.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.checkpoints import NO_TAP, Tap, is_tensor, plain
from llm_rebuild.diagnosis.reading.read import OfficialRun, read
from llm_rebuild.errors import InputError, nearest, one_line
from llm_rebuild.process.child import silence
from llm_rebuild.process.exchange import Channel, Message
from llm_rebuild.process.guard import Guard, forbidden_to_learners
from llm_rebuild.process.limits import limit
from llm_rebuild.process.origins import Origins
from llm_rebuild.verify.equality import identical
from llm_rebuild.weights import Weights
from llm_rebuild.workbench import notebook
from llm_rebuild.workbench.cached import copy_of
from llm_rebuild.workbench.steps import INPUTS, UnfilledError, arguments, is_empty

LINE = 300  # characters of a message


def learner(channel: Channel) -> None:
    """A learner's file, or a notebook's function: answer requests about it."""
    request = channel.receive()
    if request is None:
        return
    file = _Learner(request, channel)
    while (request := channel.receive()) is not None:
        channel.send(*file.answer(request))


class _Learner:
    """A learner's file in this process."""

    def __init__(self, request: Message, channel: Channel) -> None:
        """Everything that has to be there before the learner's first line runs; then the limits.

        request  `file`, and whether its `source` is a packed `notebook`; `model`, the local copy, if it is a
                 rebuild, and the `dtype` that it computes in; `names`, the checkpoints that there are;
                 `hidden`, folders of official results; `memory` in MB.
        """
        job = request.about
        self._channel, self._file, self._memory = channel, Path(job["file"]), job["memory"]
        self._source, self._notebook = request.tensors["source"].numpy().tobytes(), job["notebook"]
        self._names, self._tensors = set(job["names"]), dict[str, Tensor]()
        self._steps: list[Any] = []
        self._cells: set[str] = set()
        self._taken: set[str] | None = None  # what was tapped in the run that goes on
        self._function: Callable[..., Any] = print
        copy = copy_of(job["model"]) if job["model"] else None
        self._weights = copy.weights(job["dtype"]) if copy else Weights({})
        self._settings = copy.config if copy else {}
        self._config: Any = types.SimpleNamespace(**self._settings)
        self._sources = self._weights.peek()
        # The file once more, for when the learner's was written into.
        self._untouched: Mapping[str, Tensor] = copy.weights(job["dtype"]).peek() if copy else {}
        if copy and copy.architecture:
            self._weights, self._config = copy.rebuild.renamed(self._weights), copy.rebuild.config
        self._origins = Origins(self._sources.values(), self._foreign)
        sys.dont_write_bytecode = True
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # what is compiled runs as it is written, and seen as such
        sys.path.insert(0, str(self._file.parent))
        sys.argv = [str(self._file)]
        limit(self._memory)
        hidden = [Path(folder) for folder in job["hidden"]]
        file = copy.weights_file if copy else self._file
        own = [self._file.parent, Path.cwd(), Path(tempfile.gettempdir())]
        self._guard = Guard(file, self._sources, hidden, own, forbidden_to_learners)

    def answer(self, request: Message) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Do what is asked. The answer says how it went: `end` is `done`, `unfilled` or `error`."""
        about, answer = request.about, dict[str, Tensor]()
        result: dict[str, Any] = {"end": "done", "problem": None}
        torch.default_generator.manual_seed(about.get("seed", 0))  # of the other devices each keeps the stack
        try:
            if about["do"] == "load":
                with self._origins:
                    result["steps"] = self._load()
            elif about["do"] == "forward":
                self._origins.begin()
                with torch.no_grad(), self._origins:
                    answer = answer_of(self._passes(about, request.tensors, self._recording()))
            elif about["do"] == "call":
                result["value"], answer = self._call(about["arguments"], request.tensors)
            elif about["do"] == "read":
                result["readings"] = self._read(about, request.tensors)
            else:  # one step by itself, fed with official tensors
                self._tensors |= request.tensors
                self._seal()
                with torch.no_grad():
                    self._alone(about, self._recording())
        except BaseException as error:
            result |= self._explained(error)
        finally:
            self._taken = None
        if about["do"] == "forward":
            result["uncalled"] = [function.__name__ for function in self._steps if not function.calls]
            result["empty"] = [self._line_of(function) for function in self._steps if is_empty(function)]
        return result | {"refused": self._guard.refused, "written": self._weights.written()}, answer

    def _load(self) -> list[list[Any]]:
        """Run the file, or unpack the notebook's function. The places of its steps, for `steps.trials`."""
        if self._notebook:
            self._function, self._cells = notebook.unpack(self._source)
            among = getattr(inspect.unwrap(self._function), "__globals__", {})
        else:
            module = types.ModuleType("rebuild")
            module.__file__ = str(self._file)
            sys.modules["rebuild"] = module
            exec(compile(self._source, str(self._file), "exec"), module.__dict__)
            among = module.__dict__
            if not callable(among.get("forward")):
                raise InputError("it defines no function `forward(token_ids, mask, weights, config, tap)`")
            self._function = among["forward"]
        marked = {id(f): f for f in among.values() if isinstance(getattr(f, "places", None), list)}
        self._steps = list(marked.values())
        return [[[p.name, list(p.inputs)] for p in f.places] for f in self._steps]

    def _passes(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor], tap: Tap) -> Any:
        """Call forward with what it asks for; where keys and values are kept twice, with one dictionary,
        which is the learner's own. What it returned last."""
        cache: dict[Any, Any] | None = {} if about["cache"] else None
        answer = None
        for number in range(about["passes"]):
            last = number + 1 == about["passes"]
            named = self._named(_under(tensors, f"{number}/"), about["attention"])
            named |= {"cache": cache, "tap": tap if last else NO_TAP}
            asked = forward_arguments(self._function, named)
            answer = self._function(*asked.args, **asked.kwargs)
            if not last and cache == {}:
                raise InputError("forward left no keys and values in `cache`")
        return answer

    def _call(self, values: Sequence[Any], tensors: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """Call a function that is no rebuild. `tensors` are those of its arguments, by their number. What it
        returned: as JSON has it, or a tensor."""
        with torch.no_grad():
            answer = self._function(*(tensors.get(str(n), value) for n, value in enumerate(values)))
        if isinstance(answer, Tensor):
            return None, {"answer": plain(answer, "it returns").contiguous()}
        if getattr(answer, "ndim", None) == 0:  # one number, of numpy's
            answer = answer.item()
        try:
            return json.loads(json.dumps(answer)), {}
        except (TypeError, ValueError, RecursionError):
            wanted = "a tensor, a number, a text, or a list of numbers and texts"
            raise InputError(f"it returns a {type(answer).__name__}; {wanted} is wanted") from None

    def _read(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Where forward, or a `trial` of a step, leaves the official run, by which line, and what puts it
        right. Only the checkpoints that came with it are looked at."""
        self._seal()
        touched = [
            key for key, tensor in self._untouched.items() if not identical(self._sources[key], tensor)
        ]
        sources = dict(self._untouched if touched else self._sources)
        for number in range(about["passes"]):
            sources |= _under(tensors, f"{number}/")
        record = about["record"], _under(tensors, "record/")
        official = OfficialRun.load(record, _under(tensors, "truth/"), sources, self._settings)

        def run(tap: Tap) -> None:
            """The forward pass, or the step, once more."""
            for key in touched:  # each run begins with what the file holds
                self._sources[key].copy_(self._untouched[key])
            if about["trial"]:
                self._alone(about["trial"], tap)
            else:
                self._passes(about, tensors, tap)

        readings = [reading.to_json() for reading in read(run, official, self._own, about["first"])]
        cells = {Path(cell).name: self._name_of(cell) for cell in self._cells}
        lines = [line for one in readings for line in one["lines"]]
        lines += [repair["line"] for one in readings for repair in one["repairs"] if repair["line"]]
        for line in lines:
            line["file"] = cells.get(line["file"], line["file"])
        return readings

    def _alone(self, trial: Mapping[str, Any], tap: Tap) -> None:
        """Call a step with its official inputs. It may tap its own result; else that is done here."""
        function, tapped = self._steps[trial["function"]], set[str]()

        def note(name: Any, tensor: Any) -> None:
            """Tap it, and know that it was."""
            tap(name, tensor)
            tapped.add(name)

        inputs = [None if name is None else self._tensors[name].clone() for name in trial["inputs"]]
        named = {**self._named(self._tensors, trial["attention"]), **trial["values"]}
        named |= {"name": trial["name"], "tap": Tap(note)}
        asked = arguments(function, inputs, named)
        result = function(*asked.args, **asked.kwargs)
        if not is_tensor(result):
            what = type(result).__name__
            raise InputError(f"{function.__name__} returned a {what}; it has to return a tensor")
        if trial["name"] not in tapped:
            tap(trial["name"], result)

    def _seal(self) -> None:
        """Official tensors are in here from now on."""
        if not self._guard.sealed:
            silence()
            self._guard.sealed = True

    def _named(self, tensors: Mapping[str, Tensor], attention: str) -> dict[str, Any]:
        """What a function may ask for by its name."""
        inputs = {name: tensor.clone() for name, tensor in _under(tensors, INPUTS).items()}
        for tensor in inputs.values():
            self._origins.own(tensor)
        return {**inputs, "weights": self._weights, "config": self._config, "attention": attention}

    def _recording(self) -> Tap:
        """A tap for one run, which sends each tensor once, and refuses what is no checkpoint. When the run is
        over it sends no more: then official tensors are at hand, and a tap that a helper still holds would
        show those."""
        names = self._taken = set[str]()

        def tap(name: Any, tensor: Any) -> None:
            """Raises UnfilledError where there is no tensor yet, InputError for what cannot be compared."""
            if names is not self._taken:
                return
            if tensor is None or tensor is ...:
                raise UnfilledError(name)
            if not isinstance(name, str):
                raise InputError(f"tap(name, tensor) takes the name first, not a {type(name).__name__}")
            shown = f"tap({one_line(repr(name), 100)}, …)"
            numbers = plain(tensor, f"{shown} was given")
            if name not in self._names:
                raise InputError(f"{shown}: there is no checkpoint of this name{nearest(name, self._names)}")
            if name in names:
                raise InputError(f"{shown} for the second time; each checkpoint is tapped once")
            names.add(name)
            if not self._guard.sealed:
                self._origins.look(numbers, "tap")
            with self._origins.away():
                self._channel.send({"tapped": name}, {name: numbers})

        return Tap(tap)

    def _foreign(self, tensor: Tensor, operation: str) -> None:
        """A tensor that neither the rebuild nor the weight file made: whether it is official, others know."""
        if tensor.layout is torch.strided and not tensor.is_quantized:
            self._channel.send({"foreign": operation}, {"": tensor})

    def _line_of(self, function: Callable[..., Any]) -> str:
        """Where a function begins: `my_gpt2.py, line 40, in scale`."""
        lines, first = inspect.getsourcelines(function)
        number = next((n for n, line in enumerate(lines, first) if line.lstrip().startswith("def ")), first)
        file = self._name_of(inspect.unwrap(function).__code__.co_filename)
        return f"{file}, line {number}, in {function.__name__}"

    def _name_of(self, filename: str) -> str:
        """What a file is called. A function that was handed over may come from a script; a notebook's cell is
        no file, or one that Jupyter's debugger wrote."""
        path = Path(filename)
        script = path.is_file() and not path.parent.name.startswith("ipykernel_")
        return path.name if script or not self._notebook else "the notebook"

    def _explained(self, error: BaseException) -> dict[str, Any]:
        """An exception in the learner's file, in one line: where, what, and the line itself."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if self._own(f.filename)]
        code = getattr(inspect.unwrap(self._function), "__code__", None) if self._notebook else None
        where = self._name_of(code.co_filename if code else str(self._file))
        if frames:
            last = frames[-1]
            where = f"{self._name_of(last.filename)}, line {last.lineno}"
            if last.name != "<module>":
                where += f", in {last.name}"
        if self._guard.refused:
            return {"end": "error", "problem": f"{where}: {self._guard.refused}"}
        if isinstance(error, UnfilledError) or (
            isinstance(error, NotImplementedError) and frames and (frames[-1].line or "").startswith("raise")
        ):
            return {"end": "unfilled", "problem": where}
        text = explained(error, f"{self._memory} MB" + ("" if self._notebook else " (--memory)"))
        if isinstance(error, AttributeError) and error.obj is self._config and error.name:
            text += nearest(error.name, dir(self._config))
        if frames and frames[-1].line and not isinstance(error, (InputError, SystemExit, SyntaxError)):
            text += f" (the line is `{one_line(frames[-1].line, 100)}`)"
        return {"end": "error", "problem": f"{where}: {text}"}

    def _own(self, filename: str) -> bool:
        """Whether a piece of code is the learner's: the file, or another in its folder, but no package."""
        path = Path(filename)
        beside_it = path.parent == self._file.parent and path.is_file() and not self._notebook
        return filename in self._cells or path == self._file or beside_it


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, by what is behind it: `inputs.mask` for `0/inputs.mask`."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def answer_of(answer: Any) -> dict[str, Tensor]:
    """What forward returned; nothing where it returned nothing. Raises InputError for what is no answer."""
    if answer is None:
        return {}
    if not is_tensor(answer):
        kind = type(answer).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        raise InputError(f"forward returned {article} {kind}; it has to return the model's answer, a tensor")
    return {"answer": plain(answer, "forward returned").contiguous()}


def forward_arguments(forward: Callable[..., Any], named: Mapping[str, Any]) -> inspect.BoundArguments:
    """The arguments that `forward` asks for. Raises InputError for one that there is not."""
    with contextlib.suppress(InputError):
        asked = arguments(forward, (), named)
        if asked.arguments:  # `**anything` asks for nothing
            return asked
    wanted = "forward(token_ids, mask, weights, config, tap)"
    if "decoder_ids" in named:
        wanted += " and, with a decoder beside the encoder, decoder_ids and decoder_mask"
    raise InputError(f"forward has to be {wanted}; it asks for something else")


def explained(error: BaseException, memory: str) -> str:
    """An exception in one line. `memory` is what there was."""
    if isinstance(error, SystemExit):
        return f"it called exit({'' if error.code is None else error.code})"
    kind = type(error).__name__
    try:
        message = one_line(error, LINE)  # of an error without words its kind
    except Exception:  # of a class of the learner's own, whose __str__ fails
        message = kind
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in message or "allocate memory" in message:
        return f"it asked for too much memory, more than the limit of {memory}"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}, column {error.offset}: {error.msg}"
    return message if message == kind or isinstance(error, InputError) else f"{kind}: {message}"
