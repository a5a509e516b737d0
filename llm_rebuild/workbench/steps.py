"""A step: a function of the learner's that computes one checkpoint from others.

    @step("h.{layer}.attn.scaled", "h.{layer}.attn.product")
    def scaled(product): ...

The function stays what it is and is called as any other. But now it can also be tried by itself: it is given
the *official* product, and what it returns is held against the official scaled one. So a mistake in an
earlier step does not count against this one.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from llm_rebuild.errors import InputError, nearest

F = TypeVar("F", bound=Callable[..., Any])
# {layer}, or with what it may be: {side:encoder|decoder}
PLACEHOLDER = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
COUNTED = re.compile(r"\{(\w+)(-1)?\}")  # {layer}, and {layer-1} for the one before
LAST = "{last}"
INPUTS = "inputs."  # what the model reads is no checkpoint: `inputs.token_ids`
READS = ("token_ids", "mask", "decoder_ids", "decoder_mask")


class UnfilledError(NotImplementedError):
    """A step that has no body yet."""


def step(name: str, *inputs: str) -> Callable[[F], F]:
    """Say which checkpoint the function below computes, and from which.

    name    The checkpoint. `{layer}` stands for any number, `{side:encoder|decoder}` for one of these.
    inputs  The checkpoints that the function gets as its first arguments, in this order. `{layer-1}` is the
            block before and `{last}` the highest number there is; `a or b` is the first of the two that
            exists; with a `?` at its end it is None where the run has none. `inputs.token_ids`,
            `inputs.mask`, `inputs.decoder_ids` and `inputs.decoder_mask` are what the model reads.

    The function's other parameters are filled in by their names when it is tried by itself: `weights`,
    `config`, `tap`, `name` (of the checkpoint), `attention`, and what the braces stand for, such as `layer`.
    It may be marked several times, where it computes several checkpoints.
    """

    def mark(function: F) -> F:
        """The function, which knows its places."""
        marked: Any = function
        if not hasattr(marked, "places"):
            marked = _counted(function)
            marked.places = []
        marked.places.insert(0, Place(name, inputs))
        result: F = marked
        return result

    return mark


def _counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which counts its calls and refuses to return nothing."""

    @functools.wraps(function)
    def stepped(*arguments: Any, **named: Any) -> Any:
        """Call it, counted. UnfilledError where it has no body yet."""
        counter.calls.append(True)
        result = function(*arguments, **named)
        if result is None or result is ...:
            if is_empty(function):
                raise UnfilledError(function.__name__)
            raise TypeError(f"{function.__name__} returned nothing; is a `return` missing?")
        return result

    counter: Any = stepped
    counter.calls = []  # one with whatever is wrapped around it
    return stepped


@functools.cache
def is_empty(function: Callable[..., Any]) -> bool:
    """Whether a body is nothing but its docstring, `...`, `pass` or `raise NotImplementedError`."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
        body = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):  # made in some other way than by writing it down
        return False
    statements = body.body if isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef) else []
    return bool(statements) and all(
        isinstance(s, ast.Pass)
        or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
        or (isinstance(s, ast.Raise) and s.exc is not None and "NotImplementedError" in ast.dump(s.exc))
        for s in statements
    )


@dataclass(frozen=True)
class Place:
    """A checkpoint that a function computes, or one in every block, and what it computes it from."""

    name: str
    inputs: tuple[str, ...]

    def values(self, name: str) -> dict[str, Any] | None:
        """What the braces stand for in `name`; None where it is not of this form."""
        match = _pattern(self.name).fullmatch(name)
        if match is None:
            return None
        return {key: int(value) if value.isdigit() else value for key, value in match.groupdict().items()}


@dataclass(frozen=True)
class Trial:
    """One function tried by itself for one checkpoint.

    function  Its number among the file's steps.
    values    What the braces stand for, `{"layer": 3}`.
    inputs    The checkpoints that it is given; None for one that this run has not.
    """

    name: str
    function: int
    values: Mapping[str, Any]
    inputs: tuple[str | None, ...]


def trials(
    steps: Sequence[Sequence[Place]], names: Collection[str], others: Collection[str] = ()
) -> Iterator[Trial]:
    """Every checkpoint that some function computes, in the order of `names`.

    steps   The places of each function of the file.
    names   The checkpoints of this run, in order.
    others  Checkpoints that the model has in other runs only. A step that needs one is left out in this.
    Raises InputError for a place that names a checkpoint that there is not.
    """
    for marked in (p for places in steps for p in places):
        if not any(marked.values(name) is not None for name in (*names, *others)):
            from llm_rebuild.weights import template  # torch with it: not for every `import step`

            close = nearest(marked.name, {template(name) for name in (*names, *others)})
            raise InputError(f"@step({marked.name!r}, …): there is no checkpoint of this name{close}")
    order = {name: number for number, name in enumerate(names)}
    reachable = {*names, *(INPUTS + word for word in READS)}
    for name in names:
        problem: InputError | None = None
        for number, marked in ((n, p) for n, places in enumerate(steps) for p in places):
            values = marked.values(name)
            if values is None:
                continue
            try:
                inputs = tuple(_input(words, values, reachable, others, name) for words in marked.inputs)
            except InputError as error:
                problem = problem or error
                continue
            except LookupError:
                continue  # of another run
            later = [i for i in inputs if i is not None and order.get(i, -1) >= order[name]]
            if later:
                raise InputError(f"@step for {name} asks for {later[0]}, which is not computed before it")
            yield Trial(name, number, values, inputs)
            problem = None
            break
        if problem is not None:
            raise problem


def arguments(
    function: Callable[..., Any], inputs: Sequence[Any], named: Mapping[str, Any]
) -> inspect.BoundArguments:
    """What a function that is tried by itself is called with: `inputs` first, the others by name."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # what is written in C tells none
        signature = inspect.signature(function, follow_wrapped=False)
    parameters = list(signature.parameters.values())
    rest = next((n for n, p in enumerate(parameters) if p.kind is p.VAR_POSITIONAL), len(inputs))
    first = [*inputs[:rest], inputs[rest:]] if rest < len(inputs) else inputs
    if len(parameters) < len(first):
        raise InputError(f"@step names {len(inputs)} inputs, but {function.__name__} takes {len(parameters)}")
    bound = signature.bind_partial()
    values = bound.arguments
    values |= {p.name: value for p, value in zip(parameters, first, strict=False)}
    for parameter in parameters[len(first) :]:
        if parameter.name in named:
            values[parameter.name] = named[parameter.name]
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise InputError(
                f"{function.__name__} asks for {parameter.name!r}, which @step does not name as an input and "
                f"which is none of {', '.join(named)}"
            )
    return bound


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """The regular expression of a name with braces."""
    pattern, end = "", 0
    for match in PLACEHOLDER.finditer(template):
        word, choice = match.groups()
        among = "|".join(map(re.escape, choice.split("|"))) if choice else r"\d+"
        again = f"(?P<{word}>" in pattern
        pattern += re.escape(template[end : match.start()])
        pattern += f"(?P={word})" if again else f"(?P<{word}>{among})"
        end = match.end()
    return re.compile(pattern + re.escape(template[end:]))


def _input(
    words: str, values: Mapping[str, Any], names: Collection[str], others: Collection[str], wanted: str
) -> str | None:
    """The checkpoint that an input means, for the checkpoint `wanted`. LookupError: another run has it."""
    optional = words.endswith("?")
    ways = [_filled(way.strip(), values, names) for way in words.removesuffix("?").split(" or ")]
    for way in ways:
        if way in names:
            return way
    if optional:
        return None
    if any(way in others for way in ways):
        raise LookupError(wanted)
    raise InputError(
        f"@step for {wanted} asks for {ways[0]!r}, no checkpoint of this run{nearest(ways[0], names)}"
    )


def _filled(template: str, values: Mapping[str, Any], names: Collection[str]) -> str:
    """A template with its braces filled in. `{last}` stays where no name is of this form."""

    def value(match: re.Match[str]) -> str:
        """What stands for one pair of braces."""
        word, before = match.groups()
        if word not in values:
            return match.group()
        return str(values[word] - 1 if before else values[word])

    name = COUNTED.sub(value, template)
    if LAST not in name:
        return name
    pattern = re.compile(re.escape(name).replace(re.escape(LAST), r"(\d+)"))
    numbers = [int(match[1]) for match in map(pattern.fullmatch, names) if match]
    return name.replace(LAST, str(max(numbers))) if numbers else name
