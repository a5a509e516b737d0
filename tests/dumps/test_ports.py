"""Four ports of GPT-2, on kernels of their own and under names of their own: each right, and each with ten
mistakes. `python -m pytest tests/dumps/test_ports.py` says how many names, places and causes are right."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_rebuild import verify
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.dumps.compare import proof_of
from llm_rebuild.dumps.names import match
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.divergence import first_mistake
from tests.dumps import port, ports

MINIATURE = Path(__file__).parents[2] / "llm_rebuild" / "miniatures" / "gpt2"
TEXTS = ["The dog was glad.", "They do."]
NAMES = 0.98  # of a port's names, that have to be right in all of its dumps together
CAUSES = 0.9  # of the mistakes


@pytest.fixture(scope="module")
def truth() -> Capture:
    return verify.capture(MINIATURE, TEXTS, steps=True)


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.weekly)])  # of the ten mistakes
@pytest.mark.parametrize("name", ports.PORTS)
def test_a_port_in_another_library(
    name: str, every: int, truth: Capture, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    missing = [module for module in ports.NEEDS.get(name, ()) if importlib.util.find_spec(module) is None]
    if missing or (name == "javascript" and shutil.which("node") is None):
        pytest.skip(f"no {', '.join(missing) or 'node'} here: pip install 'llm-rebuild[ports]', or Node 20")
    question = verify.ask(MINIATURE, TEXTS)
    world = world_of(truth, question.copy)
    right, names, places, causes, problems = 0, 0, 0, 0, []
    mistakes = list(port.MISTAKES)[::every]
    for mistake in ["", *mistakes]:
        tensors, meant = ports.PORTS[name](question.copy, truth.inputs, mistake, tmp_path)
        matched = match(tensors, truth.tensors, lambda: world)
        meant = ports.as_seen(meant, mistake)
        right += sum(matched.names.get(own) == checkpoint for own, checkpoint in meant.items())
        names += len(meant)
        report = proof_of(question, truth, matched).report
        if not mistake:
            assert matched.names == meant
            assert report.passed
            assert [diagnosis.cause for diagnosis in report.diagnosis] == ["rounding"]
            continue
        assert not report.passed
        assert report.rounding is not None
        first = first_mistake(report.verdicts, report.rounding)
        place = next(c for c in port.MISTAKES[mistake].first if c in matched.tensors)
        cause = report.mistakes[0].cause if report.mistakes else ""
        places += first is not None and first.name == place
        causes += cause in port.MISTAKES[mistake].causes
        if first is None or first.name != place or cause not in port.MISTAKES[mistake].causes:
            problems.append(f"{mistake}: {first}, {cause}")
    of = len(mistakes)
    figure(f"{name}: {right} of {names} names, {places} of {of} places, {causes} of {of} causes {problems}")
    assert places == of, problems
    assert causes >= CAUSES * of, problems
    assert right >= NAMES * names
