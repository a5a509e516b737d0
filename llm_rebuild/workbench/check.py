"""Checking a learner's rebuild, a file or a notebook's function, in a process of its own."""

from __future__ import annotations

import ast
import contextlib
import inspect
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llm_rebuild.checkpoints import expand
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.explain import explain, judge_steps
from llm_rebuild.errors import InputError
from llm_rebuild.files import write
from llm_rebuild.models.part import ATTENTIONS
from llm_rebuild.verify import Capture, Proof, Question, Report, ask, compare, judge
from llm_rebuild.verify.compare import MISSING, Verdict
from llm_rebuild.verify.equality import identical
from llm_rebuild.verify.question import has_rebuild
from llm_rebuild.verify.steps import first_pass
from llm_rebuild.workbench import cached, notebook, runner
from llm_rebuild.workbench.result import FORWARD, UNFILLED, Check, OtherRun, StepVerdict
from llm_rebuild.workbench.steps import INPUTS, READS, Place, Trial, nearest, trials

LARGEST_FILE = 5_000_000
CACHED = "cached step"


@dataclass(frozen=True)
class Limits:
    """What a rebuild may use.

    seconds  The longest that a forward pass may take, and all steps by themselves.
    memory   In MB, on top of what torch needs. On Linux; elsewhere a check says that it does not hold.
    """

    seconds: float = 60.0
    memory: int = 4096


LIMITS = Limits()


def check_file(
    file: str | Path,
    question: Question,
    *,
    step: str | None = None,
    limits: Limits = LIMITS,
    fork: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Check:
    """Run a rebuild in a process of its own, and hold what it taps and returns against the official model.

    file      Defines `forward(token_ids, mask, weights, config, tap)`; for T5 decoder_ids and _mask, too. If
              it asks for `attention`, or for `cache`, it is also run with the other attention, and for one
              token behind keys and values that it kept.
    question  The model, the input and the attention, as `verify.ask` makes it.
    step      Try this step only, fed with official tensors: `h.0.attn.scores`, or `{layer}` for all blocks.
    fork      Take this process for the learner's, too: quicker, if it has computed nothing with torch yet.

    It runs code that you wrote yourself, on your own machine: this protects from accidents, not from
    malice. Raises InputError where nothing can be run.
    """
    file = Path(file).expanduser().absolute()
    learner = _Learner(file.name, file, _parameters(file))
    with tempfile.TemporaryDirectory(prefix="llm-rebuild-", ignore_cleanup_errors=True) as exchange:
        bench = _Bench(learner, question, limits, fork, Path(exchange))
        return bench.one_step(step, progress) if step else bench.whole(progress)


def check(
    forward: Callable[..., Any],
    model: str | Path | LocalCopy | Question,
    texts: str | Sequence[str] | None = None,
    *,
    token_ids: Sequence[Sequence[int]] | None = None,
    decoder_ids: Sequence[Sequence[int]] | None = None,
    attention: str = "eager",
) -> Check:
    """Hold your `forward` against the official model, in a process of its own.

        from llm_rebuild import check
        check(forward, model="gpt2", texts=["The dog", "A"])

    Your function goes there with all that it uses, so whatever it changes there (torch's global state, say)
    stays there. The arguments are those of `verify.ask`; an exception of yours is the result's `error`.
    Raises InputError where nothing can be run.
    """
    if not callable(forward):
        raise InputError(f"check takes your function forward, not a {type(forward).__name__}")
    question = ask(model, texts, token_ids=token_ids, decoder_ids=decoder_ids, attention=attention)
    name, parameters = getattr(forward, "__name__", "forward"), set(inspect.signature(forward).parameters)
    with tempfile.TemporaryDirectory(prefix="llm-rebuild-", ignore_cleanup_errors=True) as exchange:
        file = Path(exchange) / "notebook"
        file.write_bytes(notebook.pack(forward))
        learner = _Learner(name, file, parameters, notebook=True)
        checked = _Bench(learner, question, LIMITS, False, Path(exchange)).whole(lambda step: None)
    return replace(checked, notes=(*checked.notes, checked.error)) if checked.error else checked


@dataclass(frozen=True)
class _Learner:
    """A learner's file, or the file that a notebook's function was packed into.

    parameters  What forward asks for.
    """

    name: str
    file: Path
    parameters: set[str]
    notebook: bool = False


@dataclass(frozen=True)
class _Run:
    """One way to run forward.

    way      What to call it.
    folder   Where the tensors that it taps lie, and what it returned.
    capture  The official side's file.
    passes   The files of what the model reads, one a pass; the last counts.
    """

    way: str
    folder: Path
    capture: Path
    passes: tuple[Path, ...]
    attention: str

    def job(self, names: Sequence[str]) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "passes": [str(file) for file in self.passes],
            "cache": len(self.passes) > 1,
            "attention": self.attention,
            "names": list(names),
        }


@dataclass
class _Bench:
    """One check of one file."""

    learner: _Learner
    question: Question
    limits: Limits
    fork: bool
    exchange: Path
    names: list[str] = field(default_factory=list)  # the checkpoints of any run of this model

    @property
    def copy(self) -> LocalCopy:
        return self.question.copy

    # ----------------------------------------------------------------------------- the ways to run

    def runs(self) -> tuple[_Run, ...]:
        """The question's own run, then the other attention and a cached step, where forward offers them."""
        question = self.question
        runs = [self.run("", question)]
        if "attention" in self.learner.parameters:
            runs += [self.run(f"{a} attention", replace(question, attention=a)) for a in self.others()]
        if "cache" in self.learner.parameters and self.decodes():
            with contextlib.suppress(InputError):  # no room for one more token
                runs.append(self.run(CACHED, first_pass(question, 1), cache=True))
        return tuple(runs)

    def others(self) -> list[str]:
        return [attention for attention in ATTENTIONS if attention != self.question.attention]

    def decodes(self) -> bool:
        return has_rebuild(self.copy) and self.question.rebuild.architecture.generates

    def run(self, way: str, question: Question, cache: bool = False) -> _Run:
        """A run, with its official side from the store, or made now in a process of its own."""
        folder = self.place(f"run {way}".strip())
        read = folder / "read.safetensors"
        save_file(_read(question), read)
        inputs = question.inputs
        texts = {"texts": inputs.texts, "tokens": inputs.tokens, "truncated": inputs.truncated}

        def make(out: Path) -> None:
            place = self.place(f"capture {way}".strip())
            job = {
                "task": "capture",
                "model": cached.told(self.copy),
                "inputs": str(read),
                "texts": texts,
                "attention": question.attention,
                "cache": cache,
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

        about = {name: tensor.tolist() for name, tensor in _read(question).items()}
        key = {**about, **texts, "cached step": cache}
        file = cached.find(self.copy, key, question.attention, make, folder)
        passes = [read]
        if cache:
            passes.append(folder / "step.safetensors")
            save_file(_opened(file)[0], passes[-1])
        if not self.names:
            self.names = _all_names(self.question, _opened(file)[1])
        return _Run(way, folder, file, tuple(passes), question.attention)

    # ------------------------------------------------------------------------------------ checks

    def whole(self, progress: Callable[[str], None]) -> Check:
        """The forward pass in every way that there is, then every step by itself."""
        runs = self.runs()
        progress("official")
        main, *others = runs
        place = self.place("rebuild")
        job = self.job("run", main.passes[0]) | {"runs": [run.job(self.names) for run in runs], "then": True}
        job["seconds"] *= len(runs)
        with runner.Running(job, place, self.fork) as running:
            ended = running.wait(self.limits.seconds * len(runs), until=place / "result.json")
            progress("rebuild")
            result, places = _json(place / "result.json"), _json(place / "module.json").get("steps")
            error = self.error(ended, main, result)
            truth = Capture.load(main.capture)
            steps: dict[str, StepVerdict] = {}
            if places:
                try:
                    steps = self.try_steps(truth, places, None, running if ended is None else None, place)
                except InputError as problem:
                    error = error or f"{self.learner.name}: {problem}"
                if not (place / "then.json").exists():
                    running.close()  # it waits for steps to try, and there are none
            printed = ended or running.wait(self.limits.seconds)
        end = _json(main.folder / "result.json")
        finished = end.get("end") == "done"
        progress("steps")
        checked = self.judged(truth, _tensors(main.folder, "tapped-*"), error=error)
        return replace(
            checked,
            steps=steps,
            answer=_answer(main.folder, truth, checked.report) if finished else None,
            others=tuple(self.other(run, ended, result, truth) for run in others) if finished else (),
            untried=self.untried(runs if finished else (), result),
            empty=tuple(result.get("empty", ())) if finished else (),
            unfilled=end["problem"] if end.get("end") == "unfilled" else None,
            notes=(*checked.notes, *self.notes(result)),
            output=printed.output if printed else "",
            lost=printed.lost if printed else 0,
        )

    def other(
        self, run: _Run, ended: runner.Ended | None, result: Mapping[str, Any], first: Capture
    ) -> OtherRun:
        """One of the further runs, judged. `first` is the official side of the first one."""
        truth, prompt = Capture.load(run.capture), first if run.way == CACHED else None
        error = self.error(ended, run, result)
        end = _json(run.folder / "result.json")
        if end.get("end") == "unfilled":
            error = f"{end['problem']}: not filled in"
        kept = _tensors(run.folder, "tapped-*")
        rebuilt = {name: tensor for name, tensor in kept.items() if name in truth}
        report = judge_steps(rebuilt, truth, self.copy, prompt=prompt)
        return OtherRun(run.way, report, _answer(run.folder, truth, report), error)

    def untried(self, runs: Sequence[_Run], result: Mapping[str, Any]) -> dict[str, str]:
        """What was not tried, and how it can be."""
        done = [run.way for run in runs]
        untried = {} if self.question.inputs.padded else {"padding": "give two texts of different length"}
        untried |= {f"{a} attention": "let `forward` take `attention`" for a in self.others()}
        if self.decodes():
            takes = "cache" in self.learner.parameters
            untried[CACHED] = "give a shorter text" if takes else "let `forward` take `cache`"
        for name in result.get("uncalled", ()) if done else ():
            untried[f"step {name}"] = "nothing calls it"
        return {what: remedy for what, remedy in untried.items() if what not in done}

    def one_step(self, wanted: str, progress: Callable[[str], None]) -> Check:
        """Some steps only, each fed with the official tensors."""
        main = self.run("", self.question)
        progress("official")
        truth, place = Capture.load(main.capture), self.place("rebuild")
        pattern = re.escape(wanted).replace(r"\{layer\}", r"\d+")
        chosen = [name for name in truth if re.fullmatch(pattern, name)]
        if not chosen:
            raise InputError(
                f"--step {wanted}: this run has no checkpoint of this name{nearest(wanted, truth)}"
            )
        ended = runner.run(self.job("load", main.passes[0]), place, self.limits.seconds, self.fork)
        result, places = _json(place / "result.json"), _json(place / "module.json").get("steps")
        error = self.error(ended, main, result)
        if places is None or result.get("refused"):
            raise InputError(error or f"{self.learner.name}: it cannot be run")
        alone = self.place("steps")
        steps = self.try_steps(truth, places, set(chosen), None, alone)
        missing = [name for name in chosen if name not in steps]
        if missing:
            marked = [trial.name for trial in trials(_places(places), list(truth), self.names)]
            raise InputError(
                f"--step {wanted}: {self.learner.name} has no function marked @step for {missing[0]}"
                f"{nearest(missing[0], marked)}"
            )
        rebuilt = {name: t for name, t in _tensors(alone, "step-*").items() if name in chosen}
        checked = self.judged(truth, rebuilt, only=chosen)
        return replace(
            checked,
            steps=steps,
            untried={FORWARD: "check without --step"},
            notes=self.notes({}),
            output=ended.output,
        )

    def try_steps(
        self,
        truth: Capture,
        places: Any,
        only: set[str] | None,
        running: runner.Running | None,
        place: Path,
    ) -> dict[str, StepVerdict]:
        """Every step by itself: in the process that has run forward, if it is still there, else in a new one.

        Raises InputError for a @step that cannot be right.
        """
        others = [name for name in self.names if name not in truth]
        tried = [t for t in trials(_places(places), list(truth), others) if only is None or t.name in only]
        if not tried:
            return {}
        if running is None and only is None:
            place = self.place("steps")
        fed = _read(replace(self.question, inputs=truth.inputs))
        for name in {name for trial in tried for name in trial.inputs if name is not None} - set(fed):
            fed[name] = truth.tensors[name].contiguous()
        save_file(fed, place / "fed.safetensors")
        job = self.job("trials", place / "fed.safetensors") | {"trials": [vars(trial) for trial in tried]}
        if running:
            write(place / "then.json", json.dumps(job))
            ended = running.wait(self.limits.seconds)
        else:
            ended = runner.run(job, place, self.limits.seconds, self.fork)
        why = ended.how if ended else ""
        why = f"it takes longer than {self.limits.seconds:g} s" if why == "time" else why
        lines = {str(line.get("name")): line for line in _json_lines(place / "trials.jsonl")}
        kept = {name: t for name, t in _tensors(place, "step-*").items() if name in truth}
        judged = judge_steps(kept, truth, self.copy, fed=True).verdicts
        verdicts = {v.name: v for v in judged if v.verdict != MISSING}
        steps = {t.name: _step_verdict(t, lines.get(t.name), verdicts.get(t.name), why) for t in tried}
        for name, verdict in verdicts.items():  # what a step tapped on its way
            steps.setdefault(name, StepVerdict(name, verdict))
        return {name: steps[name] for name in truth if name in steps}

    def judged(
        self,
        truth: Capture,
        kept: Mapping[str, Tensor],
        only: Sequence[str] | None = None,
        error: str | None = None,
    ) -> Check:
        """The verdicts, the diagnosis, and what a person should know of them.

        only  The steps that were tried by themselves, each fed with official tensors. None: forward was run.
        """
        fed, notes = only is not None, []
        rebuilt = {name: tensor for name, tensor in kept.items() if name in truth}
        unknown = [name for name in kept if name not in truth]
        if unknown:
            shown = ", ".join(unknown[:3]) + (" …" if len(unknown) > 3 else "")
            notes.append(f"not compared: {shown}, which the official model does not compute in this run")
        report = judge(rebuilt, truth)
        untapped: tuple[str, ...] = ()
        if only is None and not has_rebuild(self.copy):
            untapped = tuple(v.name for v in report.verdicts if v.verdict == MISSING)
            only = [v.name for v in report.verdicts if v.verdict != MISSING]
            if not only and not error:
                error = (
                    f"{self.learner.name}: forward tapped nothing; tap(name, tensor) shows a tensor to the "
                    "checker"
                )
        if only is not None:
            report = replace(report, verdicts=tuple(v for v in report.verdicts if v.name in only))
        report = self.explained(report, truth, rebuilt, error, fed)
        meanings = {name: checkpoint.meaning for name, checkpoint in truth.checkpoints.items()}
        return Check(
            self.learner.name,
            report,
            {},
            error=error,
            notes=tuple(notes),
            untapped=untapped,
            meanings=meanings,
        )

    def explained(
        self,
        report: Report,
        truth: Capture,
        rebuilt: Mapping[str, Tensor],
        error: str | None,
        fed: bool,
    ) -> Report:
        """The report with the first divergence of what is there, and its diagnosis."""
        proof = Proof(self.question, report, truth, rebuilt)
        problem = RuntimeError(error) if error else None
        again = None if fed else self.again
        return explain(proof, error=problem, again=again, fed=fed, unfinished=True).report

    def again(self) -> dict[str, Tensor]:
        """The forward pass once more with another seed: where it differs, something is drawn."""
        main = self.exchange / "run"
        read, folder = main / "read.safetensors", self.place("again")
        run = _Run("again", folder, main, (read,), self.question.attention)
        job = self.job("run", read) | {"runs": [run.job(self.names)], "then": False, "seed": 1}
        runner.run(job, folder, self.limits.seconds, self.fork)
        return _tensors(folder, "tapped-*")

    # ------------------------------------------------------------------------------------ pieces

    def error(self, ended: runner.Ended | None, run: _Run, result: Mapping[str, Any]) -> str | None:
        """What ended a run before its end, in one line."""
        name, end = self.learner.name, _json(run.folder / "result.json")
        refused = str(result.get("refused") or "")
        if refused:
            problem = str(end.get("problem") or result.get("problem") or "")
            return problem if refused in problem else f"{name}: {refused}"
        if "error" in (end.get("end"), result.get("end")):
            return str(end.get("problem") or result["problem"])
        if end or ended is None:
            return None
        if ended.how == "time":
            return (
                f"{name}: it was stopped after {self.limits.seconds:g} s (--seconds); does a loop never end?"
            )
        if "bad_alloc" in ended.output or ended.how in ("signal SIGKILL", "signal SIGXFSZ"):
            return (
                f"{name}: it asked for too much memory, more than the limit of {self.limits.memory} MB "
                "(--memory)"
            )
        if ended.how == "signal SIGXCPU":
            return f"{name}: it was stopped, its processor time was used up (--seconds)"
        if ended.how.startswith("signal"):
            return f"{name}: it crashed ({ended.how})"
        how = ended.how or "exit 0"
        return f"{name}: its process ended with {how} before forward was done; does it call exit?"

    def job(self, task: str, given: Path) -> dict[str, Any]:
        return {
            "task": task,
            "file": str(self.learner.file),
            "notebook": self.learner.notebook,
            "model": cached.told(self.copy),
            "given": str(given),
            "names": self.names,
            "seed": 0,
            "attention": self.question.attention,
            "captures": str(cached.folder()),
            "seconds": self.limits.seconds,
            "memory": self.limits.memory,
        }

    def notes(self, result: Mapping[str, Any]) -> tuple[str, ...]:
        """A limit that does not hold here; weights that were written into, which no rebuild has to."""
        notes = () if runner.ENFORCED else ("on this system the limit to memory is not enforced",)
        written = ", ".join(result.get("written", ())[:3])
        return (*notes, f"your file wrote into the weights in memory: {written}") if written else notes

    def place(self, name: str) -> Path:
        place = self.exchange / name
        place.mkdir()
        return place


def _parameters(file: Path) -> set[str]:
    """What a file's `forward` asks for. Refuses, before anything is run, what is no Python file."""
    try:
        if file.is_file() and file.stat().st_size > LARGEST_FILE:
            raise InputError(f"{file.name} is too large to be a Python file")
        tree = ast.parse(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
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
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "forward"]
    return {a.arg for f in functions[-1:] for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)}


def _step_verdict(
    trial: Trial, line: Mapping[str, Any] | None, verdict: Verdict | None, why: str
) -> StepVerdict:
    """line  What the process said of this trial; None where it ended before, for the reason `why`."""
    if line is None:
        return StepVerdict(trial.name, None, why or "not tried")
    if line["state"] == "done":
        return StepVerdict(trial.name, verdict)
    if line["state"] == "unfilled":
        return StepVerdict(trial.name, None, UNFILLED, line["problem"])
    return StepVerdict(trial.name, None, line["problem"])


def _answer(folder: Path, truth: Capture, report: Report) -> Verdict | None:
    """What forward returned, held against the last checkpoint. None where it did not tap that."""
    name = list(truth)[-1]
    tapped = _tensors(folder, "tapped-*").get(name)
    if tapped is None:
        return None
    answer = _tensors(folder, "answer*").get("answer")
    official = truth[name]
    if answer is None:
        return Verdict(name, tuple(official.shape), official.dtype, MISSING)
    if identical(answer, tapped):  # and so is what was found out about it
        return next(verdict for verdict in report.verdicts if verdict.name == name)
    return compare(answer, official)


def _all_names(question: Question, names: Sequence[str]) -> list[str]:
    """The checkpoints of this run, and those that the model has in another: padded, in other attention."""
    merged = dict.fromkeys(names)
    if has_rebuild(question.copy):
        rebuild = question.rebuild
        listed = [replace(c, only=frozenset()) for c in rebuild.architecture.checkpoints]
        merged |= dict.fromkeys(c.name for c in expand(listed, rebuild.depth, ()))
    return list(merged)


def _read(question: Question) -> dict[str, Tensor]:
    """What the model reads, by name."""
    tensors = {name: getattr(question.inputs, name) for name in READS}
    return {INPUTS + name: tensor for name, tensor in tensors.items() if tensor is not None}


def _opened(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Of a capture only what the model read, and the names: the official tensors stay on the disk."""
    with safe_open(file, framework="pt") as opened:
        keys = [key for key in opened.keys() if key.startswith("inputs/")]  # noqa: SIM118
        read = {INPUTS + key.removeprefix("inputs/"): opened.get_tensor(key) for key in keys}
        order = json.loads((opened.metadata() or {})["llm_rebuild"])["order"]
    return read, list(order)


def _places(listed: Any) -> list[list[Place]]:
    return [[Place(name, tuple(inputs)) for name, inputs in places] for places in listed]


def _tensors(place: Path, pattern: str) -> dict[str, Tensor]:
    """What a process left behind; a file that it could not finish is left out."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(place.glob(f"{pattern}.safetensors")):
        with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="pt") as opened:
            tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    return tensors


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)
