"""What it costs to see inside a forward pass: our capture and trace, hooks, TorchLens and nnsight, beside the
official model with nothing around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness import NOT_INSTALLED, TITLES, Harness, Row, Run, digits, release
from benchmarks.passes import arguments_of, bare, question_of
from llm_rebuild.verify.capture import capture
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.operations import tensors_in
from llm_rebuild.verify.question import Question
from llm_rebuild.verify.recording import Products
from llm_rebuild.verify.trace import trace

CASES = (("minilm", 22, 1), ("minilm", 22, 16), ("gpt2", 64, 1))  # model, tokens, texts


def hooks(question: Question, official: Official) -> Run:
    """A hook on every module that keeps a copy of what it returns: what people write by themselves. It sees
    nothing within a module."""
    run = bare(question, official)

    def watched() -> object:
        outputs: dict[str, Tensor] = {}
        handles = [
            part.register_forward_hook(
                lambda _module, _inputs, output, path=path: outputs.update(
                    {f"{path}.{number}": tensor.clone() for number, tensor in enumerate(tensors_in(output))}
                )
            )
            for path, part in official.parts
        ]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        return outputs

    return watched


def torchlens(question: Question, official: Official) -> Run:
    """TorchLens, which keeps the output of every operation."""
    import torchlens as library

    arguments = arguments_of(question)
    options = library.options.CaptureOptions(unwrap_when_done=True)  # leaves torch as it was

    def watched() -> object:
        with torch.no_grad():
            return library.trace(official.model, (), dict(arguments), capture=options)

    return watched


def nnsight(question: Question, official: Official) -> Run:
    """nnsight, which keeps the output of every module that has none inside. It has to be asked for them in
    the order in which they run."""
    import nnsight as library

    order = called(official.model, bare(question, official))
    model, arguments = library.NNsight(official.model), arguments_of(question)
    envoys = {id(envoy._module): envoy for envoy in model.modules()}  # a path may be renamed in it
    wanted = [envoys[id(part)] for part in order]

    def watched() -> object:
        outputs: list[object] = []
        with torch.no_grad(), model.trace(**arguments):
            for envoy in wanted:
                outputs.append(envoy.output.save())  # noqa: PERF401 (nnsight runs the block elsewhere)
        return outputs

    return watched


def called(model: nn.Module, run: Run) -> list[nn.Module]:
    """The modules that have none inside, in the order in which they first run."""
    order: dict[nn.Module, None] = {}
    inner = [part for part in model.modules() if not list(part.children())]
    handles = [part.register_forward_hook(lambda part, _, __: order.setdefault(part)) for part in inner]
    run()
    for handle in handles:
        handle.remove()
    return list(order)


OTHERS: Mapping[str, Callable[[Question, Official], Run]] = {"torchlens": torchlens, "nnsight": nnsight}


class Idle(TorchDispatchMode):
    """Does what it is shown, and notes nothing."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def idling(question: Question, official: Official) -> Run:
    """A pass below modes that do nothing: the least that it costs to watch below torch."""
    run = bare(question, official)

    def watched() -> object:
        with Idle(), Products(lambda function, args, named: function(*args, **named)):
            return run()

    return watched


class Counting(TorchDispatchMode):
    """How many operations pass the dispatcher."""

    operations = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return function(*args, **(kwargs or {}))


def operations(run: Run) -> int:
    """How many operations a run asks of torch."""
    with Counting() as counting:
        run()
    return counting.operations


def measure(harness: Harness) -> Iterator[Row]:
    """Eager attention, which shows its scores. What takes much longer has rounds of its own."""
    for name, tokens, texts in CASES[:1] if harness.quick else CASES:
        copy = harness.copy(name)
        official = Official(copy.folder, "eager")
        question = question_of(copy, tokens, texts, "eager")
        runs: dict[str, Run] = {
            "bare forward": bare(question, official),
            "modes that do nothing": idling(question, official),
            "capture of every checkpoint": lambda q=question, o=official: capture(q, official=o),
            "trace of everything": lambda q=question, o=official: trace(q, official=o),
            "plain hooks": hooks(question, official),
        }
        case = {"model": TITLES[name], "tokens": tokens, "texts": texts}
        slow, refused = dict[str, Run](), list[Row]()
        for library, make in OTHERS.items():
            if release(library) is None:
                refused.append({"case": case, "what": library, "missing": NOT_INSTALLED})
                continue
            try:
                run = make(question, Official(copy.folder, "eager"))  # which it changes for good
                run()
            except Exception as error:  # another library, in any release: it is listed with its reason
                reason = f"does not run here ({type(error).__name__})"
                refused.append({"case": case, "what": library, "missing": reason})
            else:
                slow[library] = run
        count = operations(runs["bare forward"])
        measured = harness.compare(case, runs, "bare forward")
        for library, run in slow.items():
            both = {"bare forward": runs["bare forward"], library: run}
            measured += harness.compare(case, both, "bare forward")
        for one in measured:
            each = (one["seconds"] - one["baseline_seconds"]) / count
            yield one | {"microseconds_an_operation": digits(each * 1e6)}
        yield from refused
