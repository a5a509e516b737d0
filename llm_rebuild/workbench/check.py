"""Checking a learner's rebuild, a file or a notebook's function, in a process of its own."""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from llm_rebuild.checkpoints import expand
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.diagnose import Account, Diagnosis
from llm_rebuild.diagnosis.explain import explain, judge_steps
from llm_rebuild.diagnosis.reading.result import Reading
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.files import expanded, read
from llm_rebuild.models.part import ATTENTIONS
from llm_rebuild.process.limits import ENFORCED
from llm_rebuild.process.run import Ended, Process
from llm_rebuild.proof.isolation import leaks_of
from llm_rebuild.verify import Capture, Proof, Question, Report, ask, compare, judge
from llm_rebuild.verify.compare import MISSING, Verdict
from llm_rebuild.verify.equality import identical
from llm_rebuild.verify.question import has_rebuild
from llm_rebuild.verify.steps import first_pass
from llm_rebuild.weights import Weights
from llm_rebuild.workbench import cached, child, notebook
from llm_rebuild.workbench.result import FORWARD, UNFILLED, Check, OtherRun, StepVerdict
from llm_rebuild.workbench.session import Learner, Limits, Outcome, Run, Session
from llm_rebuild.workbench.steps import INPUTS, Place, Trial, nearest, trials

LARGEST_FILE = 5_000_000
LIMITS = Limits()
CACHED = "cached step"
WRONG = 3  # steps that are wrong alone, of which it is said why


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
    file = expanded(file).absolute()
    source = read(file, largest=LARGEST_FILE)
    learner = Learner(file.name, file, source, _parameters(file.name, source))
    with cached.writable() as captures:
        bench = _Bench(learner, question, limits, fork, captures)
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
    learner = Learner(name, Path("notebook"), notebook.pack(forward), parameters, notebook=True)
    with cached.writable() as captures:
        checked = _Bench(learner, question, LIMITS, False, captures).whole(lambda step: None)
    return replace(checked, notes=(*checked.notes, checked.error)) if checked.error else checked


@dataclass
class _Bench:
    """One check of one file. `captures` is the folder where official results are kept."""

    learner: Learner
    question: Question
    limits: Limits
    fork: bool
    captures: Path
    names: list[str] = field(default_factory=list)  # the checkpoints of any run of this model
    trials: dict[str, Trial] = field(default_factory=dict)  # by checkpoint, as they were tried

    @property
    def copy(self) -> LocalCopy:
        return self.question.copy

    def session(self) -> Session:
        """A new process for the learner's file."""
        hidden = [str(self.captures)]
        setting = {"model": cached.reference(self.copy), "names": self.names, "hidden": hidden}
        return Session(self.learner, setting, self.limits, self.fork)

    # ----------------------------------------------------------------------------- the ways to run

    def other_runs(self) -> Iterator[Run]:
        """The ways to run forward that it offers beside the question's own."""
        for way in self.question.untried():
            attention = way.removesuffix(" attention")
            if attention in ATTENTIONS and "attention" in self.learner.parameters:
                yield self.run(way, replace(self.question, attention=attention))
            elif way == CACHED and "cache" in self.learner.parameters:
                with contextlib.suppress(InputError):  # no room for one more token
                    yield self.run(way, first_pass(self.question, 1), cache=True)

    def run(self, way: str, question: Question, cache: bool = False) -> Run:
        """A run, with its official side from the store, or made now in a process of its own."""
        inputs = question.inputs
        texts = {"texts": inputs.texts, "tokens": inputs.tokens, "truncated": inputs.truncated}
        about = {name: tensor.tolist() for name, tensor in _read(question).items()}

        def make(out: Path) -> None:
            job = {"model": cached.reference(self.copy), "texts": texts, "cache": cache, "out": str(out)}
            with Process(child.capture, self.fork) as process:
                job["attention"] = question.attention
                end = [message.about for message in process.ask(job, _read(question))]
            if end and end[-1].get("refused"):
                raise InputError(end[-1]["refused"])
            if not end:
                ended = process.ended or Ended("", "", 0)
                last = (ended.output.strip().splitlines() or ["it said nothing"])[-1]
                raise InputError(
                    f"the official model could not be run ({ended.how or 'no result'}): {last[:300]}"
                )

        key = {**about, **texts, "cached step": cache}
        file = cached.find(self.copy, key, question.attention, make, self.captures)
        read, names = cached.contents(file)
        passes = (_read(question), {INPUTS + name: tensor for name, tensor in read.items()})
        if not self.names:
            self.names = _all_names(self.question, names)
        return Run(way, file, passes if cache else passes[:1], question.attention)

    # ------------------------------------------------------------------------------------ checks

    def whole(self, progress: Callable[[str], None]) -> Check:
        """The forward pass, in every way that there is if the first is right, then every step by itself."""
        run = self.run("", self.question)
        progress("official")
        tried: list[tuple[Run, Outcome, str | None]] = []
        with self.session() as session:
            main = session.forward(run) if session.loaded.finished else session.loaded
            finished = main.finished and session.loaded.finished
            truth = Capture.load(run.capture)  # only now, what was tapped being here
            right = finished and judge_steps(_known(main, truth), truth, self.copy).passed
            last, self.fork = main, False  # threads do not survive a fork, and something was computed
            for other in self.other_runs() if right else ():
                session.allow()
                last = session.forward(other)
                tried.append((other, last, session.problem(last)))
                if session.ended:
                    break
            progress("rebuild")
            error = session.problem(main)
            steps: dict[str, StepVerdict] = {}
            alone: tuple[Diagnosis, ...] = ()
            readings: tuple[Reading, ...] = ()
            try:
                steps, tapped = self.try_steps(truth, session, None)
                readings = session.read(run, main, truth)  # last: now all official tensors come in
                unshown = {name: tapped[name] for name in tapped if name not in main.tapped}
                alone = self.alone(unshown, steps, run, session, truth)
            except InputError as problem:
                error = error or f"{self.learner.name}: {problem}"
            progress("steps")
            others = [self.other(*one, session) for one in tried]
        checked = self.judged(truth, main.tapped, error=error, readings=readings)
        mistakes = (*checked.report.mistakes, *alone)
        return replace(
            checked,
            report=replace(checked.report, leaks=self.leaks(main, truth), mistakes=mistakes),
            steps=steps,
            answer=_answer(main, truth, checked.report) if finished else None,
            others=tuple(others),
            untried=self.untried(others, (last.end or main.end).get("uncalled", ()) if finished else ()),
            empty=tuple((last.end or main.end).get("empty", ())) if finished else (),
            unfilled=main.end["problem"] if main.end.get("end") == "unfilled" else None,
            notes=(*checked.notes, *self.notes(last.end or main.end)),
            output=session.ended.output if session.ended else "",
            lost=session.ended.lost if session.ended else 0,
        )

    def other(self, run: Run, outcome: Outcome, error: str | None, session: Session) -> OtherRun:
        """One of the further runs, judged."""
        truth, before = Capture.load(run.capture), cached.more(run.capture, cached.PROMPT)
        prompt = None if before is None else replace(truth, tensors=before[1])
        if outcome.end.get("end") == "unfilled":
            error = f"{outcome.end['problem']}: not filled in"
        rebuilt = _known(outcome, truth)
        proof = Proof(self.question, judge(rebuilt, truth), truth, rebuilt)
        account = Account(RuntimeError(error) if error else None)
        readings = session.read(run, outcome, truth)
        report = explain(proof, prompt=prompt, account=account, readings=readings).report
        report = replace(report, leaks=self.leaks(outcome, truth))
        return OtherRun(run.way, report, _answer(outcome, truth, report), error)

    def leaks(self, outcome: Outcome, truth: Capture) -> tuple[str, ...]:
        """Official tensors that came from elsewhere into the rebuild."""
        weights = Weights({})  # copies of weights that a file makes for itself are its own affair
        return tuple(map(str, leaks_of(outcome.foreign, truth, weights)))

    def untried(self, others: Sequence[OtherRun], uncalled: Sequence[str]) -> dict[str, str]:
        """What was not tried, and how it can be."""
        takes = self.learner.parameters
        remedies = {"padding": "give two texts of different length"}
        remedies[CACHED] = "give a shorter text" if "cache" in takes else "let `forward` take `cache`"
        ways = {way: remedies.get(way, "let `forward` take `attention`") for way in self.question.untried()}
        untried = {way: ways[way] for way in ways if way not in [run.way for run in others]}
        return untried | {f"step {name}": "nothing calls it" for name in uncalled}

    def one_step(self, wanted: str, progress: Callable[[str], None]) -> Check:
        """Some steps only, each fed with the official tensors."""
        main = self.run("", self.question)
        progress("official")
        truth = Capture.load(main.capture)
        pattern = re.escape(wanted).replace(r"\{layer\}", r"\d+")
        chosen = [name for name in truth if re.fullmatch(pattern, name)]
        if not chosen:
            raise InputError(
                f"--step {wanted}: this run has no checkpoint of this name{nearest(wanted, truth)}"
            )
        with self.session() as session:
            if not session.loaded.finished or session.loaded.end["refused"]:
                error = session.problem(session.loaded)
                raise InputError(error or f"{self.learner.name}: it cannot be run")
            steps, tapped = self.try_steps(truth, session, set(chosen))
            alone = self.alone(tapped, steps, main, session, truth)
        missing = [name for name in chosen if name not in steps]
        if missing:
            places = _places(session.loaded.end["steps"])
            marked = [trial.name for trial in trials(places, list(truth), self.names)]
            raise InputError(
                f"--step {wanted}: {self.learner.name} has no function marked @step for {missing[0]}"
                f"{nearest(missing[0], marked)}"
            )
        checked = self.judged(truth, {name: t for name, t in tapped.items() if name in chosen}, only=chosen)
        return replace(
            checked,
            report=replace(checked.report, diagnosis=alone or checked.report.diagnosis, mistakes=alone),
            steps=steps,
            untried={FORWARD: "check without --step"},
            notes=self.notes({}),
            output=session.ended.output if session.ended else "",
        )

    def try_steps(
        self, truth: Capture, session: Session, only: set[str] | None
    ) -> tuple[dict[str, StepVerdict], dict[str, Tensor]]:
        """Every step by itself: in the process that has run forward, if it is still there, else in a new one.
        Their verdicts, and the tensors that they gave.

        Raises InputError for a @step that cannot be right.
        """
        others = [name for name in self.names if name not in truth]
        places = _places(session.loaded.end.get("steps", ()))
        tried = [t for t in trials(places, list(truth), others) if only is None or t.name in only]
        if not tried:
            return {}, {}
        if session.ended is not None:
            with self.session() as new:
                return self.tried(truth, new, tried)
        return self.tried(truth, session, tried)

    def alone(
        self,
        tapped: Mapping[str, Tensor],
        steps: Mapping[str, StepVerdict],
        run: Run,
        session: Session,
        truth: Capture,
    ) -> tuple[Diagnosis, ...]:
        """What is wrong with steps that were tried by themselves; of a step in several blocks, in the first.

        tapped  What the steps gave that are in question.
        """
        trials: dict[int, Trial] = {}
        for name, step in steps.items():
            if name in tapped and not step.right and (trial := self.trials.get(name)):
                trials.setdefault(trial.function, trial)
        mistakes: list[Diagnosis] = []
        for trial in list(trials.values())[:WRONG]:
            rebuilt = {name: tensor for name, tensor in tapped.items() if self.trials[name] is trial}
            readings = session.read(run, Outcome(rebuilt), truth, trial)
            proof = Proof(self.question, judge(rebuilt, truth), truth, rebuilt)
            proof = explain(proof, account=Account(fed=True), unfinished=True, readings=readings)
            mistakes += proof.report.mistakes
        return tuple(mistakes)

    def tried(
        self, truth: Capture, session: Session, trials: Sequence[Trial]
    ) -> tuple[dict[str, StepVerdict], dict[str, Tensor]]:
        official = {**truth.tensors, **_read(replace(self.question, inputs=truth.inputs))}
        session.allow()
        ends: dict[str, Mapping[str, Any]] = {}
        tapped: dict[str, Tensor] = {}
        for trial in trials:
            if session.ended is not None:
                break
            outcome = session.step(trial, official, self.question.attention)
            ends[trial.name] = outcome.end
            self.trials |= {
                name: trial for name in outcome.tapped if name not in tapped or name == trial.name
            }
            tapped |= {
                name: t for name, t in outcome.tapped.items() if name == trial.name or name not in tapped
            }
        why = session.ended.how if session.ended else ""
        why = f"it takes longer than {self.limits.seconds:g} s" if why == "time" else why
        rebuilt = {name: t for name, t in tapped.items() if name in truth}
        judged = judge_steps(rebuilt, truth, self.copy, fed=True).verdicts
        verdicts = {v.name: v for v in judged if v.verdict != MISSING}
        steps = {t.name: _step_verdict(t, ends.get(t.name, {}), verdicts.get(t.name), why) for t in trials}
        for name, verdict in verdicts.items():  # what a step tapped on its way
            steps.setdefault(name, StepVerdict(name, verdict))
        return {name: steps[name] for name in truth if name in steps}, tapped

    def judged(
        self,
        truth: Capture,
        kept: Mapping[str, Tensor],
        only: Sequence[str] | None = None,
        error: str | None = None,
        readings: Sequence[Reading] = (),
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
        account = Account(RuntimeError(error) if error else None, None if fed else self.again, fed)
        proof = Proof(self.question, report, truth, rebuilt)
        report = explain(proof, account=account, unfinished=True, readings=readings).report
        meanings = {name: checkpoint.meaning for name, checkpoint in truth.checkpoints.items()}
        return Check(
            self.learner.name,
            report,
            {},
            error=error,
            notes=tuple(notes),
            untapped=untapped,
            meanings=meanings,
            proof=proof,
        )

    def again(self) -> dict[str, Tensor]:
        """The forward pass once more with another seed: where it differs, something is drawn."""
        run = Run("again", Path(), (_read(self.question),), self.question.attention)
        with self.session() as session:
            return session.forward(run, seed=1).tapped

    # ------------------------------------------------------------------------------------ pieces

    def notes(self, result: Mapping[str, Any]) -> tuple[str, ...]:
        """A limit that does not hold here; weights that were written into, which no rebuild has to."""
        notes = () if ENFORCED else ("on this system the limit to memory is not enforced",)
        written = ", ".join(result.get("written", ())[:3])
        return (*notes, f"your file wrote into the weights in memory: {written}") if written else notes


def _parameters(name: str, source: bytes) -> set[str]:
    """What a file's `forward` asks for. Refuses, before anything is run, what is no Python file."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        if error.lineno is None:
            raise InputError(f"{name} is no Python file ({error.msg})") from None
        line = (error.text or "").strip()
        shown = f" (the line is `{line[:100]}`)" if line else ""
        raise InputError(f"{name}, line {error.lineno}, column {error.offset}: {error.msg}{shown}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{name} is no Python file ({one_line(error)})") from None
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "forward"]
    return {a.arg for f in functions[-1:] for a in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)}


def _known(outcome: Outcome, truth: Capture) -> dict[str, Tensor]:
    """What was tapped of this run's checkpoints."""
    return {name: tensor for name, tensor in outcome.tapped.items() if name in truth}


def _step_verdict(trial: Trial, end: Mapping[str, Any], verdict: Verdict | None, why: str) -> StepVerdict:
    """end  How it ended; empty where the process ended before, for the reason `why`."""
    if not end:
        return StepVerdict(trial.name, None, why or "not tried")
    if end["end"] == "done":
        return StepVerdict(trial.name, verdict)
    if end["end"] == "unfilled":
        return StepVerdict(trial.name, None, UNFILLED, end["problem"])
    return StepVerdict(trial.name, None, end["problem"])


def _answer(outcome: Outcome, truth: Capture, report: Report) -> Verdict | None:
    """What forward returned, held against the last checkpoint. None where it did not tap that."""
    name = list(truth)[-1]
    tapped = outcome.tapped.get(name)
    if tapped is None:
        return None
    official = truth[name]
    if outcome.answer is None:
        return Verdict(name, tuple(official.shape), official.dtype, MISSING)
    if identical(outcome.answer, tapped):  # and so is what was found out about it
        return next(verdict for verdict in report.verdicts if verdict.name == name)
    return compare(outcome.answer, official)


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
    return {INPUTS + name: tensor for name, tensor in question.inputs.tensors.items()}


def _places(listed: Any) -> list[list[Place]]:
    return [[Place(name, tuple(inputs)) for name, inputs in places] for places in listed]
