"""How a check looks: the map of the model, where two runs first part, what is next, what was not tried."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from llm_rebuild.checkpoints import part_of
from llm_rebuild.show.report import all_diagnosed, parting
from llm_rebuild.show.terminal import columns, indented, renderable
from llm_rebuild.verify.compare import BIT_IDENTICAL, MISSING, Verdict
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.tokens import SAME
from llm_rebuild.weights import template
from llm_rebuild.workbench.result import FORWARD, Check, OtherRun, StepVerdict

ROWS = 10  # checkpoints of one part that are shown one by one
LINES = 12  # lines of what the file printed
LINE = 200  # characters of each

Part = tuple[str, list[Verdict]]


@renderable.register
def _check(result: Check) -> RenderableType:
    return Group(*_shown(result))


def _shown(check: Check) -> Iterator[RenderableType]:
    if check.output:
        yield from _printed(check)
    for note in (*check.report.notes, *check.notes):
        yield Text(note, style="yellow")
    tokens = check.report.tokenizer
    if tokens is not None and tokens.verdict != SAME:
        yield Text(str(tokens), style="yellow" if tokens.passes else "bold red")
    if check.report.verdicts:
        yield _map(check)
        yield ""
        for leak in check.report.leaks or ():
            yield Text(leak, style="red")
        yield from _first(check)
        yield from _by_themselves(check)
        yield from _answer(check.answer, check.report)
        for run in check.others:
            yield from _other(run)
        yield from _next(check)
        yield from _untried(check)
        style = "bold green" if check.exact else "bold yellow" if check.passed else "bold red"
        yield Text(f"{check.count}: done" if check.done else check.count, style=style)


def _printed(check: Check) -> Iterator[RenderableType]:
    lines = check.output.rstrip("\n").split("\n")
    yield Text("your file printed", style="dim")
    for line in lines[:LINES]:
        yield indented(line[:LINE])
    rest = sum(len(line) + 1 for line in lines[LINES:]) + check.lost
    if rest:
        yield indented(f"… {rest:,} more characters are left out", "dim")


# --------------------------------------------------------------------------------------- the map


def _map(check: Check) -> Table:
    """The model's parts in order; what is whole in a line, what comes next in full."""
    table = columns(header=False)
    for names in (True, False, True):  # a name, and a word of `step`, are not broken
        table.add_column(no_wrap=names)
    parts: dict[str, list[Verdict]] = {}
    for verdict in check.report.verdicts:
        parts.setdefault(part_of(verdict.name), []).append(verdict)
    first = check.next or (check.differs.name if check.differs else None)
    for group in _together(list(parts.items()), first):
        verdicts = [v for _, of_part in group for v in of_part]
        name = group[0][0] if len(group) == 1 else f"{group[0][0]} … {group[-1][0]}"
        if all(v.identical for v in verdicts):
            words = f"{len(verdicts)} of {len(verdicts)} matched"
            table.add_row(Text(name, style="bold"), Text(words, style="green"))
        elif first in [v.name for v in verdicts]:
            _rows(table, name, verdicts, check)
        else:
            table.add_row(Text(name, style="bold"), *_in_a_line(verdicts, check))
    return table


def _rows(table: Table, part: str, verdicts: list[Verdict], check: Check) -> None:
    """The part where the work is: what comes first and what is wrong itself, one by one."""
    matched = sum(v.identical for v in verdicts)
    table.add_row(Text(part, style="bold"), Text(f"{matched} of {len(verdicts)} matched"))
    unmatched = [v for v in verdicts if not v.identical]
    chosen = [v for v in unmatched if v is unmatched[0] or _calls_for_a_look(v, check)][:ROWS]
    for v in chosen:
        name = v.name.removeprefix(part + ".") if v.name != part else v.name
        word = v.verdict if v.max_abs_diff is None else f"off by {v.max_abs_diff:.1e}"
        style = "yellow" if v.passes else "red"
        if v.note:
            word = f"{v.verdict}: {v.note}"
        if v.verdict == MISSING:
            word, style = ("next", "bold") if v.name == check.next else ("not yet", "dim")
        step = check.steps.get(v.name)
        by_itself = Text("")
        if step is not None:
            by_itself = Text(step.word, "dim" if step.unfilled else "green" if step.right else "red")
        table.add_row("  " + name, Text(word, style=style), by_itself)
    rest = [v for v in unmatched if v not in chosen]
    if rest:
        table.add_row(Text("  after it", style="dim"), *_in_a_line(rest, check))


def _calls_for_a_look(v: Verdict, check: Check) -> bool:
    """Whether a checkpoint differs for a reason of its own, or is what comes next."""
    step = check.steps.get(v.name)
    return v.name == check.next or (step is not None and not step.right and not step.unfilled)


def _in_a_line(verdicts: list[Verdict], check: Check) -> tuple[Text, Text]:
    """What comes later, counted."""
    matched = sum(v.identical for v in verdicts)
    close = sum(v.passes and not v.identical for v in verdicts)
    missing = sum(v.verdict == MISSING for v in verdicts)
    wrong = len(verdicts) - matched - close - missing
    counts = ((matched, "matched"), (close, "to rounding"), (wrong, "differ"), (missing, "not yet"))
    words = ", ".join(f"{count} {word}" for count, word in counts if count)
    steps = [check.steps[v.name] for v in verdicts if v.name in check.steps and not v.identical]
    right = sum(step.right for step in steps)
    style = "red" if wrong else "yellow" if close else "dim"
    return Text(words, style=style), Text(f"{right} right alone" if right else "", style="green")


def _together(parts: list[Part], first: str | None) -> list[list[Part]]:
    """Neighbouring blocks of one stack that are matched wholly, or that all come later, in one."""

    def kind(numbered: tuple[int, Part]) -> object:
        """Of neighbours that go together the same; of what stands alone its number."""
        at, (part, verdicts) = numbered
        stack, _, number = part.rpartition(".")
        alone = not number.isdigit() or first in [v.name for v in verdicts]
        return at if alone else (stack, all(v.identical for v in verdicts))

    return [[part for _, part in group] for _, group in groupby(enumerate(parts), kind)]


# ---------------------------------------------------------------------------------- below the map


def _first(check: Check) -> Iterator[RenderableType]:
    """Where the two runs part, whose fault it is, and which mistake it may be."""
    first = check.differs
    if first is None:
        return
    report = check.report
    divergence = report.first_divergence
    divergence = divergence if divergence and divergence.name == first.name else None
    where, blame = (divergence.words, divergence.blame(report.rounding)) if divergence else ("", "")
    yield from parting(first, first.in_words(where), _blame(check.steps.get(first.name), blame))
    yield from all_diagnosed(report)


def _blame(step: StepVerdict | None, otherwise: str) -> str:
    """Whose fault it is, by the step alone; `otherwise` where that was not tried or gave nothing."""
    if step is None or step.verdict is None:
        return otherwise
    if not step.right:
        return "its step is wrong itself: fed with official numbers it differs as well"
    if not step.verdict.identical:
        return "it arises in this step, and passes: fed with official numbers it rounds so, too"
    return "its step is right alone: the mistake is in `forward`, in what it hands to it or does with it"


def _by_themselves(check: Check) -> Iterator[RenderableType]:
    """How many steps are right by themselves, and those that fail."""
    steps = check.steps.values()
    if not steps:
        return
    unfilled = sum(step.unfilled for step in steps)
    words = f"steps fed with official numbers: {sum(step.right for step in steps)} of {len(steps)} right"
    yield Text(words + (f", {unfilled} not filled in" if unfilled else ""))
    alike: dict[str, list[StepVerdict]] = {}
    for step in steps:
        if not step.right and not step.unfilled:
            alike.setdefault(template(step.name), []).append(step)
    for first, *others in list(alike.values())[:3]:
        why = first.problem or (first.verdict.verdict if first.verdict is not None else "")
        more = f" (and {len(others)} more like it)" if others else ""
        yield indented(f"{first.name}: {why}{more}", "red")
    if len(alike) > 3:
        yield indented(f"and {len(alike) - 3} more")


def _answer(answer: Verdict | None, report: Report) -> Iterator[RenderableType]:
    """What forward returned, where the last checkpoint is right and that is not."""
    if answer is None or answer.identical or answer.verdict == report.verdicts[-1].verdict:
        return
    wanted = f"it has to return {answer.name} {list(report.verdicts[-1].shape)}"
    if answer.verdict == MISSING:
        yield Text(f"`forward` returned nothing; {wanted}", style="red")
        return
    problem = f"{answer.verdict}: {answer.note}" if answer.note else answer.verdict
    style = "yellow" if answer.passes else "red"
    yield Text(f"what `forward` returned differs ({problem}); {wanted}", style=style)


def _other(run: OtherRun) -> Iterator[RenderableType]:
    report = run.report
    style = "green" if run.exact else "yellow" if run.passed else "red"
    counts = f"{report.bit_identical} of {len(report.verdicts)} checkpoints {BIT_IDENTICAL}"
    yield Text(f"{run.title}: {counts}", style)
    if run.error:
        yield indented(run.error, "red")
        return
    wrong = next((v for v in report.verdicts if not v.passes), report.first_divergence)
    if wrong is not None:
        for line in str(wrong).splitlines():
            yield indented(line.strip(), style)
        yield from all_diagnosed(report)
    yield from _answer(run.answer, report)


def _next(check: Check) -> Iterator[RenderableType]:
    if check.next is None or check.error:
        return
    at = [v.name for v in check.report.verdicts].index(check.next)
    verdict, *later = check.report.verdicts[at:]
    if verdict.verdict != MISSING:
        return
    checkpoint = check.proof.truth.checkpoints.get(check.next)
    meaning = f", {checkpoint.meaning}" if checkpoint and checkpoint.meaning else ""
    yield Text(f"next: {check.next} {list(verdict.shape)}{meaning}", style="bold")
    step = check.steps.get(check.next)
    if step is not None and step.line:
        yield indented(f"fill in {step.line}")
    elif step is not None and step.right:
        yield indented("its step is filled in and right alone; `forward` does not tap it")
    elif any(v.verdict != MISSING for v in later):
        yield indented("it was passed without a tap of this name")
    elif check.unfilled:
        yield indented(f"fill in {check.unfilled}")


def _untried(check: Check) -> Iterator[RenderableType]:
    """What is left although all that ran is right."""
    for line in check.empty:
        yield Text(f"not filled in, and nothing called it: {line}", style="red")
    if check.passed and check.untried and not check.untapped and FORWARD not in check.untried:
        yield Text("not tried, so not done yet:", style="yellow")
        for what, remedy in check.untried.items():
            yield indented(f"{what} ({remedy})", "yellow")
