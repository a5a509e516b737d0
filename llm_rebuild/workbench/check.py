"""Checking a learner's rebuild, a file or a notebook's function, in a process of its own."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.diagnosis.diagnose import Account, Diagnosis
from llm_rebuild.diagnosis.explain import explain, judge_steps
from llm_rebuild.diagnosis.reading.result import Reading
from llm_rebuild.errors import InputError, nearest
from llm_rebuild.models.part import ATTENTIONS
from llm_rebuild.process.limits import ENFORCED
from llm_rebuild.process.run import Outcome
from llm_rebuild.proof.isolation import leaks_of
from llm_rebuild.verify import Capture, Proof, Question, Report, ask, compare
from llm_rebuild.verify.compare import MISSING, Verdict
from llm_rebuild.verify.equality import identical
from llm_rebuild.verify.steps import first_pass
from llm_rebuild.weights import Weights
from llm_rebuild.workbench import cached, notebook
from llm_rebuild.workbench.result import FORWARD, UNFILLED, Check, OtherRun, StepVerdict
from llm_rebuild.workbench.runs import Officials, Run, all_names, other_text
from llm_rebuild.workbench.session import Learner, Limits, Session, learner_of
from llm_rebuild.workbench.steps import Place, Trial, trials

LIMITS = Limits()
CACHED = "cached step"
FAR = 512  # tokens; what only a longer text would show is not tried
WRONG = 3  # steps that are wrong alone, of which it is said why


def check_file(
    file: str | Path,
    question: Question,
    *,
    step: str | None = None,
    limits: Limits = LIMITS,
    progress: Callable[[str], None] = lambda step: None,
) -> Check:
    """Run a rebuild in a process of its own, and hold what it taps and returns against the official model.

    file      Defines `forward(token_ids, mask, weights, config, tap)`; for T5 decoder_ids and _mask, too. If
              it asks for `attention`, or for `cache`, it is also run with the other attention, and for one
              token behind keys and values that it kept.
    question  The model, the input and the attention, as `verify.ask` makes it.
    step      Try this step only, fed with official tensors: `h.0.attn.scores`, or `{layer}` for all blocks.

    It runs code that you wrote yourself, on your own machine: this protects from accidents, not from
    malice. Raises InputError where nothing can be run.
    """
    learner = learner_of(file)
    with cached.writable() as captures, contextlib.closing(Officials(captures)) as officials:
        bench = _Bench(learner, question, limits, officials)
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
    with cached.writable() as captures, contextlib.closing(Officials(captures)) as officials:
        checked = _Bench(learner, question, LIMITS, officials).whole(lambda step: None)
    return replace(checked, notes=(*checked.notes, checked.error)) if checked.error else checked


@dataclass
class _Bench:
    """One check of one file."""

    learner: Learner
    question: Question
    limits: Limits
    officials: Officials
    names: list[str] = field(default_factory=list)  # the checkpoints of any run of this model

    def session(self) -> Session:
        """A new process for the learner's file."""
        setting = {"model": cached.reference(self.question.copy), "dtype": self.question.dtype}
        setting |= {"names": self.names, "hidden": [str(self.officials.store)]}
        return Session(self.learner, setting, self.limits)

    # ----------------------------------------------------------------------------- the ways to run

    def main_run(self) -> Run:
        """The question's own way."""
        run = self.officials.run("", self.question)
        self.names = all_names(run, self.question)
        return run

    def other_runs(self) -> Iterator[Run]:
        """The ways to run forward that it offers beside the question's own: the other attention, on other
        texts, one so long that no distance is farther, for what holds only for the question's is not right;
        and one token behind a cache."""
        copy, inputs = self.question.copy, self.question.inputs
        if copy.architecture is None:
            others = inputs.others(0, inputs.token_ids.shape[1])
        else:
            config = copy.rebuild.config
            others = inputs.others(min(config.farthest + 2, FAR), config.positions)
        for way in self.question.untried():
            attention = way.removesuffix(" attention")
            if attention in ATTENTIONS and "attention" in self.learner.parameters:
                yield self.officials.run(way, replace(self.question, attention=attention, inputs=others))
            elif way == CACHED and "cache" in self.learner.parameters:
                with contextlib.suppress(InputError):  # no room for one more token
                    yield self.officials.run(way, first_pass(self.question, 1), cache=True)

    # ------------------------------------------------------------------------------------ checks

    def whole(self, progress: Callable[[str], None]) -> Check:
        """The forward pass, in every way that there is if the first is right, then every step by itself."""
        run = self.main_run()
        progress("official")
        tried: list[tuple[Run, Outcome, str | None, tuple[str, ...]]] = []
        outcomes: list[tuple[Trial, Outcome]] = []
        why = ""
        with self.session() as session:
            main = last = session.forward(run) if session.loaded.finished else session.loaded
            error, truth = session.problem(main), run.truth  # only now, what was tapped being here
            leaks = self.leaks(run, main, session)
            compared = self.compared(run, main.of(truth))
            right = main.finished and compared.report.passed
            for other in self.other_runs() if right else ():
                session.allow()
                last = session.forward(other)
                tried.append((other, last, session.problem(last), self.leaks(other, last, session)))
                if session.ended:
                    break
            progress("rebuild")
            try:
                outcomes, why = self.try_steps(run, session)
            except InputError as problem:
                error = error or f"{self.learner.name}: {problem}"
            reading = session.read(run, main)  # last: now all official tensors come in
            steps, tapped = self.judged(run, outcomes, why)  # while it reads
            readings = reading()
            unshown = {name: tapped[name] for name in tapped if name not in main.tapped}
            alone = self.alone(run, session, steps, unshown)
            progress("steps")
            others = tuple(self.other(*one, session) for one in tried)
        extents = {f"{self.learner.name}: {reading.extent}": 0 for reading in readings if reading.extent}
        end = last.end or main.end
        untapped = self.untapped(main, truth)
        if untapped and not compared.rebuilt and not error:
            advice = "tap(name, tensor) shows a tensor to the checker"
            error = f"{self.learner.name}: forward tapped nothing; {advice}"
        account = Account(RuntimeError(error) if error else None, partial(self.again, run))
        proof = self.explained(run, compared, account, readings, leave_out=untapped)
        report = replace(proof.report, leaks=leaks, mistakes=(*proof.report.mistakes, *alone))
        checked = self.check(replace(proof, report=report), steps, session, end)
        return replace(
            checked,
            error=error,
            notes=(*_not_compared(main, truth), *checked.notes, *extents),
            untapped=untapped,
            answer=_answer(main, truth, report) if main.finished else None,
            others=others,
            untried=self.untried(others, end.get("uncalled", ()) if main.finished else ()),
            empty=tuple(end.get("empty", ())) if main.finished else (),
            unfilled=main.end["problem"] if main.end.get("end") == "unfilled" else None,
        )

    def one_step(self, wanted: str, progress: Callable[[str], None]) -> Check:
        """Some steps only, each fed with the official tensors."""
        run = self.main_run()
        progress("official")
        pattern = re.escape(wanted).replace(r"\{layer\}", r"\d+")
        with self.session() as session:
            truth = run.truth
            chosen = [name for name in truth if re.fullmatch(pattern, name)]
            if not chosen:
                near = nearest(wanted, truth)
                raise InputError(f"--step {wanted}: this run has no checkpoint of this name{near}")
            if not session.loaded.finished or session.loaded.end["refused"]:
                error = session.problem(session.loaded)
                raise InputError(error or f"{self.learner.name}: it cannot be run")
            steps, tapped = self.judged(run, *self.try_steps(run, session, chosen))
            alone = self.alone(run, session, steps, tapped)
            missing = next((name for name in chosen if name not in steps), None)
            if missing:
                marked = [trial.name for trial in trials(_places(session), list(truth), self.names)]
                raise InputError(
                    f"--step {wanted}: {self.learner.name} has no function marked @step for {missing}"
                    f"{nearest(missing, marked)}"
                )
        rebuilt = {name: tapped[name][1] for name in chosen if name in tapped}
        others = [name for name in truth if name not in chosen]
        proof = self.explained(run, self.compared(run, rebuilt, True), Account(fed=True), leave_out=others)
        diagnosis = alone or proof.report.diagnosis
        proof = replace(proof, report=replace(proof.report, diagnosis=diagnosis, mistakes=alone))
        return replace(self.check(proof, steps, session, {}), untried={FORWARD: "check without --step"})

    def check(
        self, proof: Proof, steps: dict[str, StepVerdict], session: Session, end: Mapping[str, Any]
    ) -> Check:
        """What every check has. `end`: how the last forward pass ended."""
        notes = () if ENFORCED else ("on this system the limit to memory is not enforced",)
        if written := ", ".join(end.get("written", ())[:3]):
            notes = (*notes, f"your file wrote into the weights in memory: {written}")
        output, lost = (session.ended.output, session.ended.lost) if session.ended else ("", 0)
        return Check(self.learner.name, proof, steps, notes=notes, output=output, lost=lost)

    def compared(self, run: Run, rebuilt: Mapping[str, Tensor], fed: bool = False) -> Proof:
        """Tensors of a run held against the official ones. fed: whether each was computed from such."""
        report = judge_steps(rebuilt, run.truth, lambda: run.world, fed=fed)
        return Proof(self.question, report, run.truth, rebuilt)

    def explained(
        self,
        run: Run,
        compared: Proof,
        account: Account,
        readings: Sequence[Reading] = (),
        leave_out: Collection[str] | None = None,
    ) -> Proof:
        """What was compared, and what differs explained.

        leave_out  Checkpoints that nobody asked for. None: whatever is not there is missing.
        """
        asked = tuple(v for v in compared.report.verdicts if v.name not in (leave_out or ()))
        proof = replace(compared, report=replace(compared.report, verdicts=asked))
        unfinished, world = leave_out is not None, lambda: run.world
        return explain(proof, world=world, account=account, unfinished=unfinished, readings=readings)

    def other(
        self, run: Run, outcome: Outcome, error: str | None, leaks: tuple[str, ...], session: Session
    ) -> OtherRun:
        """One of the further runs, judged."""
        if outcome.end.get("end") == "unfilled":
            error = f"{outcome.end['problem']}: not filled in"
        account = Account(RuntimeError(error) if error else None, partial(self.again, run))
        compared = self.compared(run, outcome.of(run.truth))
        proof = self.explained(run, compared, account, session.read(run, outcome)())
        report = replace(proof.report, leaks=leaks)
        return OtherRun(run.way, report, _answer(outcome, run.truth, report), error)

    def try_steps(
        self, run: Run, session: Session, only: Collection[str] | None = None
    ) -> tuple[list[tuple[Trial, Outcome]], str]:
        """Every step by itself, in the process that has run forward, if it is still there, else in a new one:
        what came of each, and how the process ended, where it did before that of the last.

        Raises InputError for a @step that cannot be right.
        """
        truth = run.truth
        others = [name for name in self.names if name not in truth]
        tried = [t for t in trials(_places(session), list(truth), others) if only is None or t.name in only]
        official = {**truth.tensors, **run.passes[-1]}
        with self.session() if tried and session.ended else contextlib.nullcontext(session) as session:
            session.allow()
            outcomes = [(trial, session.step(trial, official, run.attention)) for trial in tried]
            return outcomes, session.ended.how if session.ended else ""

    def judged(
        self, run: Run, outcomes: Sequence[tuple[Trial, Outcome]], why: str
    ) -> tuple[dict[str, StepVerdict], dict[str, tuple[Trial, Tensor]]]:
        """The verdicts on steps by themselves, and the tensors that each gave."""
        truth, tapped = run.truth, dict[str, tuple[Trial, Tensor]]()
        for trial, outcome in outcomes:
            for name, tensor in outcome.tapped.items():
                if name == trial.name or name not in tapped:
                    tapped[name] = trial, tensor
        why = f"it takes longer than {self.limits.seconds:g} s" if why == "time" else why
        rebuilt = {name: tensor for name, (_, tensor) in tapped.items() if name in truth}
        judged = self.compared(run, rebuilt, fed=True).report.verdicts
        verdicts = {v.name: v for v in judged if v.verdict != MISSING}
        steps = {t.name: _step_verdict(t, o.end, verdicts.get(t.name), why) for t, o in outcomes}
        for name, verdict in verdicts.items():  # what a step tapped on its way
            steps.setdefault(name, StepVerdict(name, verdict))
        return {name: steps[name] for name in truth if name in steps}, tapped

    def alone(
        self,
        run: Run,
        session: Session,
        steps: Mapping[str, StepVerdict],
        tapped: Mapping[str, tuple[Trial, Tensor]],
    ) -> tuple[Diagnosis, ...]:
        """What is wrong with steps that were tried by themselves; of a step in several blocks, in the first.

        tapped  What the steps gave that are in question.
        """
        first: dict[int, Trial] = {}
        for name, step in steps.items():
            if name in tapped and not step.right:
                first.setdefault(tapped[name][0].function, tapped[name][0])
        mistakes: list[Diagnosis] = []
        for trial in list(first.values())[:WRONG]:
            rebuilt = {name: tensor for name, (by, tensor) in tapped.items() if by is trial}
            reading = session.read(run, Outcome(rebuilt), trial)
            compared = self.compared(run, rebuilt, fed=True)
            mistakes += self.explained(run, compared, Account(fed=True), reading(), ()).report.mistakes
        return tuple(mistakes)

    def leaks(self, run: Run, outcome: Outcome, session: Session) -> tuple[str, ...]:
        """Official tensors that came from elsewhere into the rebuild. What was computed out of sight, in
        NumPy say, is none: it is another where the text is another. Code that takes no longer text is given
        another of the same length. To be asked before any official tensor comes in.
        """
        weights = Weights({})  # copies of weights that a file makes for itself are their own affair
        leaks = leaks_of(outcome.foreign, run.truth, weights)
        for longer in (1, 0):
            if not leaks or not outcome.finished or session.ended is not None:
                break
            session.allow()
            again = session.forward(replace(run, passes=tuple(other_text(p, longer) for p in run.passes)))
            still = {leak.name for leak in leaks_of(again.foreign, run.truth, weights)}
            unseen = {name for name in run.truth if name not in again.tapped and not again.finished}
            leaks = tuple(leak for leak in leaks if leak.name in still | unseen)
            if again.finished:
                break
        return tuple(map(str, leaks))

    def again(self, run: Run) -> dict[str, Tensor]:
        """The forward pass once more with another seed: where it differs, something is drawn."""
        with self.session() as session:
            return session.forward(run, seed=1).tapped

    # ------------------------------------------------------------------------------------ pieces

    def untapped(self, main: Outcome, truth: Capture) -> tuple[str, ...]:
        """Checkpoints that nobody asked for: of a model that is none of the course's, what was not tapped."""
        if self.question.copy.architecture is not None:
            return ()
        return tuple(name for name in truth if name not in main.tapped)

    def untried(self, others: Sequence[OtherRun], uncalled: Sequence[str]) -> dict[str, str]:
        """What was not tried, and how it can be."""
        takes = self.learner.parameters
        remedies = {"padding": "give two texts of different length"}
        remedies[CACHED] = "give a shorter text" if "cache" in takes else "let `forward` take `cache`"
        ways = {way: remedies.get(way, "let `forward` take `attention`") for way in self.question.untried()}
        untried = {way: ways[way] for way in ways if way not in [run.way for run in others]}
        return untried | {f"step {name}": "nothing calls it" for name in uncalled}


def _not_compared(outcome: Outcome, truth: Capture) -> tuple[str, ...]:
    """A note on what was tapped and is no checkpoint of this run."""
    unknown = [name for name in outcome.tapped if name not in truth]
    shown = ", ".join(unknown[:3]) + (" …" if len(unknown) > 3 else "")
    note = f"not compared: {shown}, which the official model does not compute in this run"
    return (note,) if unknown else ()


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


def _places(session: Session) -> list[list[Place]]:
    """What the steps of the learner's file compute."""
    listed = session.loaded.end.get("steps", ())
    return [[Place(name, tuple(inputs)) for name, inputs in places] for places in listed]
