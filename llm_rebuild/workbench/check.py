"""Checking a learner's rebuild: from a file, in a process of its own, or from a notebook, in this one."""

from __future__ import annotations

import ast
import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from llm_rebuild.checkpoints import Tap
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.case import world_for
from llm_rebuild.diagnosis.diagnose import diagnose
from llm_rebuild.errors import InputError
from llm_rebuild.files import write
from llm_rebuild.models import architecture_for, rebuild_for
from llm_rebuild.verify import Capture, Report, judge
from llm_rebuild.verify.compare import MISSING
from llm_rebuild.verify.divergence import checkpoint_of, describe
from llm_rebuild.verify.question import open_copy
from llm_rebuild.workbench import cached, runner
from llm_rebuild.workbench.child import checked, explained, forward_arguments, wrong_answer
from llm_rebuild.workbench.result import UNFILLED, Alone, Check
from llm_rebuild.workbench.steps import GIVEN, Place, UnfilledError, nearest, trials

SECONDS, MEMORY = 60.0, 4096
LARGEST_FILE = 5_000_000


def check_file(
    file: str | Path,
    model: str | Path | LocalCopy,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    decoder_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
    step: str | None = None,
    seconds: float = SECONDS,
    memory: int = MEMORY,
    fork: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Check:
    """Run a rebuild in a process of its own, and hold what it taps against the official model.

    file     Defines `forward(token_ids, mask, weights, config, tap)`; for T5 decoder_ids and _mask, too.
    step     Try this step only, fed with official tensors: `h.0.attn.scores`, or `{layer}` for all blocks.
    seconds  The longest that it may run, and `memory` how much it may use on top of what torch needs, in MB
             (on Linux; elsewhere the result says that the second limit does not hold).
    fork     Take this process for the learner's, too: quicker, if it has computed nothing with torch yet.

    The other arguments are as for `verify.capture`. It runs code that you wrote yourself, on your own
    machine: this protects from accidents, not from malice. Raises InputError where nothing can be run.
    """
    file = Path(file).expanduser().absolute()
    _read(file)
    copy = open_copy(model)
    inputs = {
        "texts": [texts] if isinstance(texts, str) else list(texts) if texts else None,
        "token_ids": [list(row) for row in token_ids] if token_ids else None,
        "decoder_ids": [list(row) for row in decoder_ids] if decoder_ids else None,
    }
    with tempfile.TemporaryDirectory(prefix="llm-rebuild-", ignore_cleanup_errors=True) as exchange:
        bench = _Bench(file, copy, inputs, attention, seconds, memory, fork, Path(exchange))
        bench.capture()
        progress("official")
        return bench.step(step) if step else bench.whole(progress)


def check(
    forward: Callable[..., Any],
    model: str | Path | LocalCopy,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    decoder_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
) -> Check:
    """Run your `forward` here, in this process, and hold what it taps against the official model.

        from llm_rebuild import check
        check(forward, model="gpt2", texts="The dog")

    Arguments as for `check_file`. An exception of yours reaches you as it is. What `forward` changes of
    torch's global state (default dtype, threads, gradients, functions that are replaced) is put back, and the
    result says so.
    """
    if not callable(forward):
        raise InputError(f"check takes your function forward, not a {type(forward).__name__}")
    copy = open_copy(model)
    from llm_rebuild import verify

    truth = verify.capture(copy, texts, token_ids=token_ids, decoder_ids=decoder_ids, attention=attention)
    names, kept = _all_names(copy, truth), dict[str, Tensor]()

    def keep(name: str, tensor: Any) -> None:
        kept[name] = checked(name, tensor, set(names), set(kept)).clone()

    weights, config = _weights_and_config(copy)
    given = {name.removeprefix(GIVEN): tensor.clone() for name, tensor in _given(truth).items()}
    named = {**given, "weights": weights, "config": config, "attention": attention, "tap": Tap(keep)}
    unfilled = None
    with torch.no_grad(), _put_back() as changed:
        arguments = forward_arguments(forward, named)
        try:
            problem = wrong_answer(forward(**arguments))
            if problem:
                raise InputError(f"forward returned {problem}; it has to return the model's answer, a tensor")
        except (UnfilledError, NotImplementedError) as error:
            unfilled = str(error) or "the step that raises NotImplementedError"
    notes = [f"your forward changed {what}; it was put back" for what in changed]
    notes += _written(weights.written())
    return _checked(
        getattr(forward, "__name__", "forward"), copy, truth, kept, {}, unfilled=unfilled, notes=notes
    )


# ------------------------------------------------------------------------------------- a file, checked


@dataclass
class _Bench:
    """One check of one file."""

    file: Path
    copy: LocalCopy
    inputs: Mapping[str, Any]
    attention: str
    seconds: float
    memory: int
    fork: bool
    exchange: Path
    capture_file: Path = Path()

    def capture(self) -> None:
        """The official side, from the cache or made now in a process of its own."""

        def make(out: Path) -> None:
            place = self._place("capture")
            job = {
                "task": "capture",
                "model": cached.told(self.copy),
                "inputs": self.inputs,
                "attention": self.attention,
                "out": str(out),
            }
            ended = runner.run(job, place, None, self.fork)
            result = _json(place / "result.json")
            if result.get("refused"):
                raise InputError(result["refused"])
            if ended.how or not result:
                last = (ended.output.strip().splitlines() or ["it said nothing"])[-1]
                raise InputError(
                    f"the official model could not be run ({ended.how or 'no result'}): {last[:300]}"
                )

        self.capture_file = cached.find(self.copy, self.inputs, self.attention, make, self.exchange)

    def whole(self, progress: Callable[[str], None]) -> Check:
        """The forward pass, then every step alone."""
        place = self._place("run")
        given, names = _opened(self.capture_file)
        save_file(given, place / "given.safetensors")
        names = _all_names(self.copy, names)
        with runner.Running(self._job("run", place, names), place, self.fork) as running:
            ended = running.wait(self.seconds, until=place / "result.json")
            progress("rebuild")
            result, places = _json(place / "result.json"), _json(place / "module.json").get("steps")
            error = self._error(ended, result)
            truth = Capture.load(self.capture_file)
            alone: dict[str, Alone] = {}
            if places:
                try:
                    alone = self._alone(truth, names, places, None, running if ended is None else None)
                except InputError as problem:
                    error = error or f"{self.file.name}: {problem}"
                if not (place / "then.json").exists():
                    running.close()  # it waits for steps to try, and there are none
            ended = ended or running.wait(self.seconds)
        kept = _tensors(place, "tapped-*.safetensors")
        unfilled = result["problem"] if result.get("end") == "unfilled" else None
        progress("steps")
        return _checked(
            self.file.name,
            self.copy,
            truth,
            kept,
            alone,
            error=error,
            unfilled=unfilled,
            again=lambda: self._again(names),
            notes=[*self._limits(), *_written(result.get("written", []))],
            output=ended.output if ended else "",
            lost=ended.lost if ended else 0,
        )

    def _again(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The forward pass once more with another seed: where it differs, something is drawn."""
        place = self._place("again")
        given, _ = _opened(self.capture_file)
        save_file(given, place / "given.safetensors")
        job = {**self._job("run", place, names), "then": False, "seed": 1}
        runner.run(job, place, self.seconds, self.fork)
        return _tensors(place, "tapped-*.safetensors")

    def step(self, wanted: str) -> Check:
        """Some steps only, each fed with the official tensors."""
        place = self._place("run")
        truth = Capture.load(self.capture_file)
        names = _all_names(self.copy, truth)
        pattern = re.escape(wanted).replace(r"\{layer\}", r"\d+")
        chosen = [name for name in truth if re.fullmatch(pattern, name)]
        if not chosen:
            raise InputError(
                f"--step {wanted}: this run has no checkpoint of this name{nearest(wanted, truth)}"
            )
        save_file(_given(truth), place / "given.safetensors")
        ended = runner.run(self._job("load", place, names), place, self.seconds, self.fork)
        result, places = _json(place / "result.json"), _json(place / "module.json").get("steps")
        error = self._error(ended, result)
        if error or places is None:
            raise InputError(error or f"{self.file.name}: it cannot be run")
        alone = self._alone(truth, names, places, set(chosen), None)
        missing = [name for name in chosen if name not in alone]
        if missing:
            there = [t.name for t in trials(_places(places), list(truth), names)]
            raise InputError(
                f"--step {wanted}: {self.file.name} has no function marked @step for {missing[0]}"
                f"{nearest(missing[0], there)}"
            )
        kept = {name: t for name, t in _tensors(place.parent / "alone", "alone-*").items() if name in chosen}
        found = _checked(self.file.name, self.copy, truth, kept, alone, only=chosen, output=ended.output)
        return replace(found, notes=self._limits())

    def _alone(
        self,
        truth: Capture,
        names: Sequence[str],
        places: Any,
        only: set[str] | None,
        running: runner.Running | None,
    ) -> dict[str, Alone]:
        """Every step by itself: in the process that has run forward, if it is still there, else in a new one.

        Raises InputError for a @step that cannot be right.
        """
        found = trials(_places(places), list(truth), [name for name in names if name not in truth])
        tried = [trial for trial in found if only is None or trial.name in only]
        if not tried:
            return {}
        place = self.exchange / "run" if running else self._place("alone")
        given = _given(truth)
        for trial in tried:
            for name in trial.inputs:
                if name is not None and name not in given:
                    given[name] = truth.tensors[name].contiguous()
        save_file(given, place / "alone.safetensors")
        job = self._job("trials", place, names)
        job["given"] = str(place / "alone.safetensors")
        job["trials"] = [vars(trial) for trial in tried]
        if running:
            write(place / "then.json", json.dumps(job))
            ended = running.wait(self.seconds)
            assert ended is not None
        else:
            ended = runner.run(job, place, self.seconds, self.fork)
        kept = _tensors(place, "alone-*.safetensors")
        told = {line["name"]: line for line in _json_lines(place / "trials.jsonl")}
        judged = judge({name: tensor for name, tensor in kept.items() if name in truth}, truth)
        verdicts = {v.name: v for v in judged.verdicts if v.verdict != MISSING}
        alone: dict[str, Alone] = {}
        for trial in tried:
            line = told.get(trial.name)
            if line is None:  # the process ended before, or in it
                why = {"time": f"it takes longer than {self.seconds:g} s"}.get(ended.how, ended.how)
                alone[trial.name] = Alone(trial.name, None, why or "not tried")
            elif line["state"] == "done":
                alone[trial.name] = Alone(trial.name, verdicts.get(trial.name))
            else:
                problem = UNFILLED if line["state"] == "unfilled" else line["problem"]
                alone[trial.name] = Alone(trial.name, None, problem)
        for name in verdicts:  # what a step tapped on its way
            alone.setdefault(name, Alone(name, verdicts[name]))
        return {name: alone[name] for name in truth if name in alone}

    def _error(self, ended: runner.Ended | None, result: Mapping[str, Any]) -> str | None:
        """What ended the run before its end, in one line."""
        name = self.file.name
        if result.get("refused"):
            problem = str(result.get("problem") or "")
            return problem if str(result["refused"]) in problem else f"{name}: {result['refused']}"
        if result.get("end") == "error":
            return str(result["problem"])
        if result or ended is None:
            return None
        if ended.how == "time":
            return f"{name}: it was stopped after {self.seconds:g} s (--seconds); does a loop never end?"
        if "bad_alloc" in ended.output or ended.how in ("signal SIGKILL", "signal SIGXFSZ"):
            return f"{name}: it asked for too much memory, more than the limit of {self.memory} MB (--memory)"
        if ended.how == "signal SIGXCPU":
            return f"{name}: it was stopped, its processor time was used up (--seconds)"
        if ended.how.startswith("signal"):
            return f"{name}: it crashed ({ended.how})"
        how = ended.how or "exit 0"
        return f"{name}: its process ended with {how} before forward was done; does it call exit?"

    def _job(self, task: str, place: Path, names: Sequence[str]) -> dict[str, Any]:
        return {
            "task": task,
            "file": str(self.file),
            "model": cached.told(self.copy),
            "given": str(place / "given.safetensors"),
            "then": task == "run",
            "names": list(names),
            "seed": 0,
            "attention": self.attention,
            "captures": str(cached.folder()),
            "seconds": self.seconds,
            "memory": self.memory,
        }

    def _limits(self) -> tuple[str, ...]:
        return () if runner.ENFORCED else ("on this system the limit to memory is not enforced",)

    def _place(self, name: str) -> Path:
        place = self.exchange / name
        place.mkdir()
        return place


def _read(file: Path) -> None:
    """Refuse, before anything is run, what is no Python file."""
    try:
        if file.is_file() and file.stat().st_size > LARGEST_FILE:
            raise InputError(f"{file.name} is too large to be a Python file")
        source = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    try:
        ast.parse(source)
    except SyntaxError as error:
        if error.lineno is None:
            raise InputError(f"{file.name} is no Python file ({error.msg})") from None
        line = (error.text or "").strip()
        shown = f" (the line is `{line[:100]}`)" if line else ""
        raise InputError(
            f"{file.name}, line {error.lineno}, column {error.offset}: {error.msg}{shown}"
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{file.name} is no Python file ({' '.join(str(error).split())})") from None


def _checked(
    name: str,
    copy: LocalCopy,
    truth: Capture,
    kept: Mapping[str, Tensor],
    alone: Mapping[str, Alone],
    *,
    only: Sequence[str] | None = None,
    again: Callable[[], Mapping[str, Tensor]] | None = None,
    notes: Sequence[str] = (),
    **more: Any,
) -> Check:
    """The verdicts, the diagnosis, and all the rest."""
    fed = only is not None  # each step was given official tensors
    rebuilt = {tapped: tensor for tapped, tensor in kept.items() if tapped in truth}
    elsewhere = [tapped for tapped in kept if tapped not in truth]
    if elsewhere:
        shown = ", ".join(elsewhere[:3]) + (" …" if len(elsewhere) > 3 else "")
        notes = [*notes, f"not compared: {shown}, which the official model does not compute in this run"]
    report = judge(rebuilt, truth)
    untapped: tuple[str, ...] = ()
    if only is None and architecture_for(copy.config) is None:
        untapped = tuple(v.name for v in report.verdicts if v.verdict == MISSING)
        only = [v.name for v in report.verdicts if v.verdict != MISSING]
        if not only and not more.get("error"):
            more["error"] = f"{name}: forward tapped nothing; tap(name, tensor) shows a tensor to the checker"
    if only is not None:
        verdicts = tuple(v for v in report.verdicts if v.name in only)
        report = replace(report, verdicts=verdicts)
    there = tuple(v for v in report.verdicts if v.verdict != MISSING)
    if any(not v.identical for v in there):
        # Where single steps were tried, what they were fed is official.
        around = {n: t.clone() for n, t in truth.tensors.items()} if fed else {}
        problem = RuntimeError(more["error"]) if more.get("error") else None
        causes = diagnose({**around, **rebuilt}, truth, copy, error=problem, again=again, fed=fed)
        world = world_for(truth, copy)
        blame = describe(there, truth, world.inputs_of if world else None)
        report = replace(report, divergence=blame, diagnosis=causes)
    meanings = {n: found.meaning for n in truth if (found := checkpoint_of(n, truth)) is not None}
    return Check(name, report, alone, notes=tuple(notes), untapped=untapped, meanings=meanings, **more)


def _all_names(copy: LocalCopy, names: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """The checkpoints of this run, and those that the model has in another: padded, in other attention."""
    found = dict.fromkeys(names)
    if architecture_for(copy.config) is not None:
        from llm_rebuild.checkpoints import expand

        rebuild = rebuild_for(copy.config)
        listed = [replace(c, only=frozenset()) for c in rebuild.architecture.checkpoints]
        found |= dict.fromkeys(c.name for c in expand(listed, rebuild.config.depth, ()))
    return list(found)


def _written(keys: Sequence[str]) -> list[str]:
    """A note on weights that a rebuild wrote into, which no rebuild has to."""
    return [f"your file wrote into the weights in memory: {', '.join(keys[:3])}"] if keys else []


def _weights_and_config(copy: LocalCopy) -> tuple[Any, Any]:
    from types import SimpleNamespace

    if architecture_for(copy.config) is not None:
        rebuild = rebuild_for(copy.config)
        return rebuild.renamed(copy.weights()), rebuild.config
    return copy.weights(), SimpleNamespace(**copy.config)


def _given(truth: Capture) -> dict[str, Tensor]:
    """What the model is given, by name."""
    names = ("token_ids", "mask", "decoder_ids", "decoder_mask")
    found = {name: getattr(truth.inputs, name) for name in names}
    return {GIVEN + name: tensor for name, tensor in found.items() if tensor is not None}


def _opened(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Of a capture only the inputs and the names: the official tensors stay on the disk."""
    with safe_open(file, framework="pt") as opened:
        keys = list(opened.keys())
        given = {
            GIVEN + k.removeprefix("inputs/"): opened.get_tensor(k) for k in keys if k.startswith("inputs/")
        }
        order = json.loads((opened.metadata() or {})["llm_rebuild"])["order"]
    return given, list(order)


def _places(found: Any) -> list[list[Place]]:
    return [[Place(name, tuple(inputs)) for name, inputs in places] for places in found]


def _tensors(place: Path, pattern: str) -> dict[str, Tensor]:
    """What a process left behind; a file that it could not finish is left out."""
    found: dict[str, Tensor] = {}
    for file in sorted(place.glob(pattern)):
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="pt") as opened:
            found |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


# ------------------------------------------------------------------------------------- in this process

WATCHED: tuple[Any, ...] = (torch, F, Tensor, torch.nn.Module)


@contextlib.contextmanager
def _put_back() -> Iterator[list[str]]:
    """Whatever of torch's global state is changed inside is put back; the list says what it was."""
    changed: list[str] = []
    dtype, threads, gradients = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    random, functions = torch.get_rng_state(), [dict(vars(place)) for place in WATCHED]
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield changed
    finally:
        for place, before in zip(WATCHED, functions, strict=True):
            for name, value in before.items():
                if callable(value) and vars(place).get(name) is not value:
                    setattr(place, name, value)
                    changed.append(f"{place.__name__}.{name}")
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
            changed.append("the default dtype")
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
            changed.append("the number of threads")
        if torch.is_grad_enabled() != gradients:
            torch.set_grad_enabled(gradients)
            changed.append("whether gradients are computed")
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
            changed.append("the choice of deterministic algorithms")
        torch.set_rng_state(random)


__all__ = ["Check", "Report", "check", "check_file", "explained"]
