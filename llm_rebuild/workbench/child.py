"""What runs in a process of its own: a learner's file, its steps alone, or the official model.

It is given a folder with `job.json` in it, and leaves there what came of it: a safetensors file for each
tapped tensor as it comes, so that nothing that was right is lost in a crash, and `result.json`.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import inspect
import json
import os
import sys
import time
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors

from llm_rebuild.checkpoints import NO_TAP, plain
from llm_rebuild.errors import InputError
from llm_rebuild.files import write
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.workbench import notebook
from llm_rebuild.workbench.steps import INPUTS, UnfilledError, arguments, is_empty, nearest

MEGABYTE = 1024 * 1024
LINE = 300  # characters of a message
OPEN = safetensors.safe_open  # before a guard is put in its place


def main(folder: str) -> None:
    """Do the job that lies in `folder`."""
    place = Path(folder)
    job = json.loads((place / "job.json").read_text(encoding="utf-8"))
    {"run": run, "load": load, "trials": try_alone, "capture": capture}[job["task"]](job, place)


# ------------------------------------------------------------------------------------ the official side


def capture(job: Mapping[str, Any], place: Path) -> None:
    """Run the official model and save what it computed; for a cached step, what it computed in that."""
    from llm_rebuild import verify
    from llm_rebuild.verify.official import Official
    from llm_rebuild.verify.steps import likeliest
    from llm_rebuild.workbench.cached import copy_of

    try:
        texts: dict[str, Any] = {key: tuple(map(_tuple, value)) for key, value in job["texts"].items()}
        inputs = replace(Inputs(**_read_inputs(job["inputs"])), **texts)
        question = verify.Question(copy_of(job["model"]), inputs, job["attention"], job["cache"])
        official = None
        if job["cache"]:
            official = Official(question.copy.folder, question.attention)
            question = question.step(likeliest(verify.capture(question, official=official)))
        verify.capture(question, official=official).save(job["out"])
    except InputError as error:
        _write(place, {"refused": str(error)})
    else:
        _write(place, {"refused": None})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# ------------------------------------------------------------------------------------- the learner's side


def run(job: Mapping[str, Any], place: Path) -> None:
    """The learner's forward passes, from ids, masks, config and the weight file, one after another as long
    as each comes to its end. Each leaves `result.json` in its own folder."""
    learner = _Learner(job)
    learner.enter()
    folder = Path(job["runs"][0]["folder"])
    try:
        _write(place, {"steps": learner.load()}, "module.json")
        for each in job["runs"]:
            folder = Path(each["folder"])
            learner.forward(each, folder)
            _write(folder, {"end": "done", "problem": None})
    except BaseException as error:
        _write(folder, learner.told(error))
    result = {
        "refused": learner.refused,
        "written": learner.weights.written(),
        "uncalled": [f.__name__ for f in learner.steps if not f.calls],  # type: ignore[attr-defined]
        "empty": [learner.line_of(f) for f in learner.steps if is_empty(f)],
    }
    sys.stdout.flush()
    _write(place, result)
    if learner.steps and job["then"]:  # only now, the run being over, do official tensors come in here
        _silence()
        while not (place / "then.json").exists():
            time.sleep(0.002)
        _alone(learner, json.loads((place / "then.json").read_text(encoding="utf-8")), place)


def load(job: Mapping[str, Any], place: Path) -> None:
    """The learner's file without its forward pass: which steps does it have?"""
    learner = _Learner(job)
    learner.enter()
    result: dict[str, Any] = {"end": "done", "problem": None}
    try:
        _write(place, {"steps": learner.load()}, "module.json")
    except BaseException as error:
        result = learner.told(error)
    result["refused"] = learner.refused
    _write(place, result)


def try_alone(job: Mapping[str, Any], place: Path) -> None:
    """Every step by itself, fed with official tensors, in a process that has not run forward."""
    learner = _Learner(job)
    learner.enter()
    learner.load()
    _alone(learner, job, place)


def _alone(learner: _Learner, job: Mapping[str, Any], place: Path) -> None:
    import torch

    from llm_rebuild.checkpoints import Tap

    given = _load_tensors(job["given"])
    common = learner.named(job["given"], job["attention"])
    with (place / "trials.jsonl").open("w", encoding="utf-8") as told, torch.no_grad():
        for number, trial in enumerate(job["trials"]):
            function = learner.steps[trial["function"]]
            keep = Keeper(place, job["names"], f"step-{number:05}-")
            inputs = [None if name is None else given[name].clone() for name in trial["inputs"]]
            named = {**common, **trial["values"], "name": trial["name"], "tap": Tap(keep.keep)}
            line: dict[str, Any] = {"name": trial["name"], "state": "done", "problem": None}
            try:
                result = function(**arguments(function, inputs, named))
                if not isinstance(result, torch.Tensor):
                    what = type(result).__name__
                    raise InputError(f"{function.__name__} returned a {what}; it has to return a tensor")
                if trial["name"] not in keep.kept:  # it may have tapped its own result
                    keep.keep(trial["name"], result)
            except BaseException as error:
                found = learner.told(error)
                line |= {"state": found["end"], "problem": found["problem"]}
            finally:
                keep.closed = True
            told.write(json.dumps(line) + "\n")
            told.flush()


def _silence() -> None:
    """What steps print when they are tried alone is of no interest."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)


class Keeper:
    """Writes each tapped tensor to a file as it comes, and refuses what is no checkpoint."""

    def __init__(self, place: Path, names: Sequence[str], prefix: str = "tapped-") -> None:
        self._place, self._names, self._prefix = place, set(names), prefix
        self.kept: set[str] = set()
        self.closed = False
        self._number = 0

    def tap(self) -> Any:
        from llm_rebuild.checkpoints import Tap

        return Tap(self.keep)

    def keep(self, name: str, tensor: Any) -> None:
        """Save one tensor. Raises InputError for what cannot be a checkpoint. Once it is closed nothing is
        saved: then official tensors are at hand, and a tap that a helper still holds would show those."""
        from safetensors.torch import save_file

        if self.closed:
            return
        plain = checked(name, tensor, self._names, self.kept)
        file = self._place / f"{self._prefix}{self._number:06}.safetensors"
        save_file({name: plain}, file)
        self.kept.add(name)
        self._number += 1


def checked(name: Any, tensor: Any, names: set[str], before: set[str]) -> Any:
    """A tapped tensor, plain and whole in memory.

    Raises UnfilledError where there is none yet, and InputError for what cannot be compared: no tensor, a
    name that is no checkpoint, one that was tapped before.
    """
    import torch

    if tensor is None or tensor is ...:
        raise UnfilledError(name)
    if not isinstance(name, str):
        raise InputError(f"tap(name, tensor) takes the name first, not a {type(name).__name__}")
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"tap({name!r}, …) was given a {type(tensor).__name__}; it takes a tensor")
    if name not in names:
        raise InputError(f"tap({name!r}, …): there is no checkpoint of this name{nearest(name, names)}")
    if name in before:
        raise InputError(f"tap({name!r}, …) for the second time; each checkpoint is tapped once")
    return plain(tensor, f"tap({name!r}, …) was given").contiguous()


def answer_of(answer: Any) -> Any:
    """What forward returned, plain and whole in memory; None where it returned nothing.

    Raises InputError for what is no answer: `forward returned a tuple`.
    """
    import torch

    if answer is None:
        return None
    if not isinstance(answer, torch.Tensor):
        kind = type(answer).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        raise InputError(f"forward returned {article} {kind}; it has to return the model's answer, a tensor")
    return plain(answer, "forward returned").contiguous()


class _Learner:
    """A learner's file in this process."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.file = Path(job["file"])
        self.steps: list[Callable[..., Any]] = []
        self.refused: str | None = None
        self._function: Callable[..., Any] = print
        self._packed: bytes | None = None
        self._cells: set[str] = set()

    def enter(self) -> None:
        """Everything that has to be there before the learner's first line runs; then the limits."""
        import torch

        from llm_rebuild.models import architecture_for, rebuild_for
        from llm_rebuild.workbench.cached import copy_of

        copy = copy_of(self.job["model"])
        self.weights, self.config = copy.weights(), types.SimpleNamespace(**copy.config)
        if architecture_for(copy.config) is not None:
            rebuild = rebuild_for(copy.config)
            self.weights, self.config = rebuild.renamed(self.weights), rebuild.config
        torch.manual_seed(self.job["seed"])
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(self.file.parent))
        sys.argv = [str(self.file)]
        _limit(self.job["memory"], self.job["seconds"])
        if self.job["notebook"]:
            self._packed = self.file.read_bytes()
        self._guard(copy.weights_file)

    def load(self) -> list[list[Any]]:
        """Run the file, or unpack the notebook's function. The places of its steps, for `steps.trials`."""
        if self._packed is not None:
            function, self._cells = notebook.unpack(self._packed)
            among = getattr(inspect.unwrap(function), "__globals__", {})
        else:
            module = types.ModuleType("rebuild")
            module.__file__ = str(self.file)
            sys.modules["rebuild"] = module
            exec(compile(self.file.read_bytes(), str(self.file), "exec"), module.__dict__)
            among = module.__dict__
            if not callable(among.get("forward")):
                raise InputError("it defines no function `forward(token_ids, mask, weights, config, tap)`")
            function = among["forward"]
        self._function = function
        self.steps = list({id(f): f for f in among.values() if hasattr(f, "places")}.values())
        return [[[place.name, list(place.inputs)] for place in f.places] for f in self.steps]  # type: ignore[attr-defined]

    def forward(self, each: Mapping[str, Any], folder: Path) -> None:
        """Call forward with what it asks for, and keep what it taps and returns.

        Where keys and values are kept there are two passes, which share a dictionary that is the learner's
        own. What counts is the last.
        """
        import torch
        from safetensors.torch import save_file

        forward = self._function
        cache: dict[Any, Any] | None = {} if each["cache"] else None
        *earlier, last = each["passes"]
        with torch.no_grad():
            for inputs in earlier:
                named = {**self.named(inputs, each["attention"]), "cache": cache, "tap": NO_TAP}
                forward(**forward_arguments(forward, named))
            keep = Keeper(folder, each["names"])
            named = {**self.named(last, each["attention"]), "cache": cache, "tap": keep.tap()}
            try:
                answer = answer_of(forward(**forward_arguments(forward, named)))
            finally:
                keep.closed = True
        if answer is not None:
            save_file({"answer": answer}, folder / "answer.safetensors")

    def named(self, inputs: str, attention: str) -> dict[str, Any]:
        """What a function may ask for by its name."""
        common = {"weights": self.weights, "config": self.config, "attention": attention}
        return {**_read_inputs(inputs), **common}

    def line_of(self, function: Callable[..., Any]) -> str:
        """Where a function begins: `my_gpt2.py, line 40, in scale`."""
        lines, first = inspect.getsourcelines(function)
        number = next((n for n, line in enumerate(lines, first) if line.lstrip().startswith("def ")), first)
        file = self._name_of(inspect.unwrap(function).__code__.co_filename)
        return f"{file}, line {number}, in {function.__name__}"

    def _name_of(self, filename: str) -> str:
        return "the notebook" if filename in self._cells else Path(filename).name

    def told(self, error: BaseException) -> dict[str, Any]:
        """An exception in the learner's file, in one line: where, what, and the line itself."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if self._own(f.filename)]
        where, line = self._name_of(str(self.file)), None
        if frames:
            last = frames[-1]
            where, line = f"{self._name_of(last.filename)}, line {last.lineno}", last.lineno
            if last.name != "<module>":
                where += f", in {last.name}"
        if self.refused:
            return {"end": "error", "problem": f"{where}: {self.refused}", "line": line}
        if isinstance(error, UnfilledError) or (
            isinstance(error, NotImplementedError) and frames and (frames[-1].line or "").startswith("raise")
        ):
            return {"end": "unfilled", "problem": where, "line": line}
        text = explained(error, self.job["memory"])
        if frames and frames[-1].line and not isinstance(error, (InputError, SystemExit, SyntaxError)):
            text += f" (the line is `{cut(frames[-1].line, 100)}`)"
        return {"end": "error", "problem": f"{where}: {text}", "line": line}

    def _own(self, filename: str) -> bool:
        """Whether a piece of code is the learner's: the file, or another in its folder, but no package."""
        path = Path(filename)
        return (
            filename in self._cells
            or path == self.file
            or (path.parent == self.file.parent and path.is_file())
        )

    def _guard(self, weight_file: Path) -> None:
        """From here on the official model cannot be imported, nor what it computed be read."""
        for name in [n for n in sys.modules if n.partition(".")[0] in OFFICIAL]:
            del sys.modules[name]
        sys.meta_path.insert(0, _NoOfficialModel())
        allowed, captures = weight_file.resolve(), Path(self.job["captures"]).resolve()

        def refuse(path: Any) -> None:
            try:
                text = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (quick: every file comes by here)
                if not text.endswith(TENSORS) and captures.name not in text:
                    return
                asked = Path(text).resolve()
            except (TypeError, ValueError, OSError):
                return  # a file descriptor, or no path at all
            if asked == captures or captures in asked.parents:
                self.refused = f"it reads {asked.name}, where official results are kept; compute it instead"
            elif asked != allowed and (
                asked.suffix == ".safetensors" or (asked.suffix in TENSORS and asked.is_file())
            ):
                self.refused = (
                    f"it reads {asked.name}; a rebuild reads one file of tensors, the weight file, which it "
                    "gets as `weights`"
                )
            else:
                return
            raise PermissionError(self.refused)

        def hook(event: str, given: tuple[Any, ...]) -> None:
            if event in ("open", "os.listdir", "os.scandir") and given and isinstance(given[0], (str, bytes)):
                refuse(given[0])

        sys.addaudithook(hook)
        _guard_safetensors(refuse)


# How files of tensors end.
TENSORS = (".safetensors", ".pt", ".pth", ".bin", ".npy", ".npz", ".ckpt")
OFFICIAL = ("transformers", "sentence_transformers")


class _NoOfficialModel(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in OFFICIAL:
            raise ImportError(
                f"a rebuild cannot import {name.partition('.')[0]}: it is held against it, and would be "
                "compared with itself"
            )


def _load_tensors(file: str) -> dict[str, Any]:
    """The tensors of a safetensors file, by the library's own way in, which stays open to us."""
    with OPEN(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118


def _read_inputs(file: str) -> dict[str, Any]:
    """What the model reads, by name: `token_ids`."""
    tensors = _load_tensors(file).items()
    return {name.removeprefix(INPUTS): tensor for name, tensor in tensors if name.startswith(INPUTS)}


def _guard_safetensors(refuse: Callable[[Any], None]) -> None:
    """The safetensors library opens files by itself, unseen by Python's audit hooks."""
    import safetensors.torch

    def guarded(filename: Any, *given: Any, **named: Any) -> Any:
        refuse(filename)
        return OPEN(filename, *given, **named)

    for module in (safetensors, safetensors.torch):
        setattr(module, "safe_open", guarded)  # noqa: B010


def forward_arguments(forward: Callable[..., Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `forward` asks for. Raises InputError for one that there is not."""
    try:
        return arguments(forward, (), named)
    except InputError:
        wanted = "forward(token_ids, mask, weights, config, tap)"
        extra = " and, of T5, decoder_ids and decoder_mask" if "decoder_ids" in named else ""
        raise InputError(f"forward has to be {wanted}{extra}; it asks for something else") from None


def explained(error: BaseException, memory: int | None = None) -> str:
    """An exception in one line."""
    if isinstance(error, SystemExit):
        return f"it called exit({'' if error.code is None else error.code})"
    message = cut(" ".join(str(error).split()), LINE)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in message or "allocate memory" in message:
        limit = f", more than the limit of {memory} MB (--memory)" if memory else ""
        return f"it asked for too much memory{limit}"
    if isinstance(error, SyntaxError):
        return f"line {error.lineno}, column {error.offset}: {error.msg}"
    if isinstance(error, InputError):
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def cut(text: str, most: int) -> str:
    """A text, with … at its end where it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _limit(memory: int | None, seconds: float | None) -> None:
    """Memory on top of what is in use now, and processor time, which stops what nobody waits for any more."""
    from llm_rebuild.workbench.runner import ENFORCED

    if not ENFORCED:
        return
    import ctypes
    import resource
    import signal

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    if memory is not None:
        most = pages * resource.getpagesize() + memory * MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory * MEGABYTE, memory * MEGABYTE))
    if seconds is not None:
        of_all = int(2 * seconds * (os.cpu_count() or 1)) + 2  # forward, and then the steps alone
        resource.setrlimit(resource.RLIMIT_CPU, (of_all, of_all))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: if the one that waits is killed


def _write(place: Path, result: Mapping[str, Any], name: str = "result.json") -> None:
    write(place / name, json.dumps(dict(result)))
