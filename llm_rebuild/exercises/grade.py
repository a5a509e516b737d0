"""Checking the answer to an exercise: a number, a function, or a `forward`.

What there is to answer stands in exercises.json, a name for each. A function runs in a process of its own, on
inputs that its author has not seen; a `forward` goes to the workbench, where its tensors are held against the
official model's and a mistake gets its name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.errors import InputError, counted, nearest, one_line
from llm_rebuild.verify import ask, compare
from llm_rebuild.verify.compare import MISSING
from llm_rebuild.workbench import notebook
from llm_rebuild.workbench.check import check as check_forward
from llm_rebuild.workbench.session import Learner, Limits, Session

DATA = Path(__file__).with_name("exercises.json")
LIMITS = Limits()  # of an answer's function
KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", list: "a list"}


@dataclass(frozen=True)
class Graded:
    """What came of an answer. It is true where the answer is right; `message` says what is wrong, or what
    else is worth knowing."""

    name: str
    passed: bool
    message: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        verdict = "right" if self.passed else "not yet"
        return f"{self.name}: {verdict}" + (f". {self.message}" if self.message else "")

    __repr__ = __str__  # a notebook shows the last line of a cell by it


def names() -> tuple[str, ...]:
    """Every exercise that `check` knows."""
    return tuple(_exercises())


def check(name: str, answer: Any) -> Graded:
    """Check the answer to an exercise.

    name    As the exercise's page writes it: `check("softmax-by-hand", softmax)`.
    answer  A number, text or list; or your function itself, not what it returns.

    Raises InputError for a name that there is not, and where the model that the exercise is about cannot be
    had. A wrong answer, of whatever kind, is no error: the result is false, and says why.
    """
    if not isinstance(name, str) or name not in _exercises():
        near = nearest(str(name), names()) or "; llm_rebuild.exercises.names() has all"
        raise InputError(f"there is no exercise {one_line(repr(name))}{near}")
    exercise = _exercises()[name]
    grade = {"value": _value, "function": _function, "forward": _forward}[exercise["kind"]]
    if "model" in exercise:  # one that cannot be had is no fault of the answer
        exercise = {**exercise, "question": ask(exercise["model"], exercise["texts"])}
    try:
        return Graded(name, *grade(exercise, answer))
    except InputError as refused:
        reason = str(refused).replace("forward uses", "your function uses")
        return Graded(name, False, reason.partition("; write")[0])
    except Exception as error:  # of an answer that is not what it seems: a tensor without numbers, say
        return Graded(name, False, f"it cannot be looked at ({type(error).__name__}: {one_line(error)})")


@functools.cache
def _exercises() -> dict[str, Any]:
    exercises: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return exercises


# ------------------------------------------------------------------------------------------- values


def _value(exercise: Mapping[str, Any], answer: Any) -> tuple[bool, str]:
    """`expected`; for a number `within` so much; `wrong`: answers that people give, and what to say then."""
    expected = exercise["expected"]
    if getattr(answer, "ndim", None) == 0:  # one number, of torch's or of numpy's
        answer = answer.item()
    if isinstance(answer, tuple | Tensor) and isinstance(expected, list):
        answer = answer.tolist() if isinstance(answer, Tensor) else list(answer)
    number = isinstance(expected, int | float) and not isinstance(expected, bool)
    if not _fits(answer, expected):
        return False, f"{_shown(answer)} is {_kind_of(answer)}; the answer is {KINDS[type(expected)]}"
    if number and answer != answer:  # nan; math.isnan cannot take every whole number
        return False, "nan is no number: an infinity or a zero was divided by its like"
    if answer == expected or (number and abs(answer - expected) <= exercise.get("within", 0)):
        return True, exercise.get("note", "")
    if reply := exercise.get("wrong", {}).get(str(answer)):
        return False, reply
    if isinstance(expected, list):
        return False, _list_difference(answer, expected)
    if number:
        return False, f"{_shown(answer)} is too {'small' if answer < expected else 'large'}"
    if isinstance(expected, str) and answer.strip().casefold() == expected.casefold():
        return False, f"{_shown(answer)} is right but for blanks or capitals"
    return False, f"it is not {_shown(answer)}"


def _fits(answer: Any, expected: Any) -> bool:
    """Whether an answer is of the kind that is expected: a float where one is, and no bool for a number."""
    if isinstance(expected, float):
        return isinstance(answer, int | float) and not isinstance(answer, bool)
    return type(answer) is type(expected)


def _list_difference(answer: list[Any], expected: list[Any]) -> str:
    for index, (one, other) in enumerate(zip(answer, expected, strict=False)):
        if one != other:
            return f"the first {index} fit; at place {index} {_shown(one)} is not it"
    return f"{counted(len(answer), 'item')}, where {len(expected)} are expected"


# ----------------------------------------------------------------------------------------- rebuilds


def _forward(exercise: Mapping[str, Any], answer: Any) -> tuple[bool, str]:
    """A rebuild, or a piece of one: the `checkpoints` have to pass, and whatever else it taps. It runs where
    there is no official tensor, and what it brings along of one is named."""
    if not callable(answer):
        return False, f"{_shown(answer)} is {_kind_of(answer)}; the answer is your function forward itself"
    whole = check_forward(answer, exercise["question"])
    named = exercise["checkpoints"]
    asked = tuple(v for v in whole.report.verdicts if v.name in named or v.verdict != MISSING)
    left = {v.name for v in whole.report.verdicts} - {v.name for v in asked}
    report = replace(whole.report, verdicts=asked)
    checked = replace(whole, proof=replace(whole.proof, report=report), untapped=tuple(left))
    absent = [v.name for v in asked if v.verdict == MISSING]
    if checked.error or report.leaks or not all(v.passes for v in asked if v.name not in absent):
        return False, f"\n{checked}"
    if absent:
        return False, f"{absent[0]} was not tapped"
    return True, f"{asked[0].name} passes" if len(asked) == 1 else f"{len(asked)} checkpoints pass"


# ---------------------------------------------------------------------------------------- functions


def _function(exercise: Mapping[str, Any], answer: Any) -> tuple[bool, str]:
    """In each case what is `expected` of its inputs; `exact` where every bit has to be."""
    if not callable(answer):
        return False, f"{_shown(answer)} is {_kind_of(answer)}; the answer is your function itself"
    learner = Learner("your function", Path("notebook"), notebook.pack(answer), set(), notebook=True)
    with Session(learner, {"model": None, "names": [], "hidden": [str(DATA.parent)]}, LIMITS) as session:
        if session.loaded.finished:
            for stored in exercise["cases"]:
                case = {name: _made(value) for name, value in stored.items()}
                expected = case.pop("expected")
                outcome = session.call(list(case.values()))
                if not outcome.finished:
                    return False, session.problem(outcome) or ""
                result = outcome.end.get("value") if outcome.answer is None else outcome.answer
                if difference := _difference(result, expected, exercise.get("exact", False)):
                    shown = ", ".join(_shown(value) for value in case.values())
                    return False, f"of ({shown}) it makes {difference}"
            return True, f"{counted(len(exercise['cases']), 'input')} tried"
        return False, session.problem(session.loaded) or ""


def _made(value: Any) -> Any:
    """`{"numbers": [[1, 2]]}` is a tensor of these; -1e999 among them is minus infinity."""
    return torch.tensor(value["numbers"]) if isinstance(value, dict) and "numbers" in value else value


def _difference(result: Any, expected: Any, exact: bool) -> str:
    """What is wrong with a function's result, or nothing."""
    if isinstance(expected, Tensor):
        if not isinstance(result, Tensor):
            return f"{_shown(result)}, {_kind_of(result)}, where a tensor is expected"
        verdict = compare(result, expected)
        if verdict.identical or (verdict.passes and not exact):
            return ""
        return _not_numbers(result) or str(verdict).strip().replace("official", "expected")
    if isinstance(result, Tensor):
        if result.ndim:
            return f"a tensor, where {KINDS[type(expected)]} is expected"
        result = result.item()
    if not _fits(result, expected):
        return f"{_shown(result)}, {_kind_of(result)}, where {KINDS[type(expected)]} is expected"
    return "" if result == expected else f"{_shown(result)}, where {_shown(expected)} is expected"


def _not_numbers(tensor: Tensor) -> str:
    """What to say of a tensor with NaN in it; nothing of another."""
    count = int(torch.isnan(tensor).sum()) if tensor.is_floating_point() else 0
    return (
        f"{count} of {tensor.numel()} numbers that are nan: an infinity or a zero divided by its like"
        if count
        else ""
    )


def _shown(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"tensor {list(value.shape)}"
    try:
        return one_line(repr(value), 80)
    except Exception:  # an object of the learner's own, whose __repr__ fails
        return f"your {type(value).__name__}"


def _kind_of(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
