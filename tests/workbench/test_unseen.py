"""Code that reading does not see through: a check says how far it read, and proves no line that is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_rebuild.copies import local_copy
from llm_rebuild.diagnosis.reading.record import STEPS
from llm_rebuild.diagnosis.reading.unseen import MADE, WRITTEN
from llm_rebuild.workbench import new as writing
from tests.workbench.bench import Bench

MODEL = local_copy.MINIATURES / "gpt2"
SOLVED = writing.source("gpt2", solved=True)
IMPORTS = "from llm_rebuild.workbench import step\n"
HEAD = """import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

CALLS, POOL = [], ThreadPoolExecutor(1)
"""
SCALE, WRONG_SCALE = "return product * power", "return product * power * (1.1 if {} else 1)"
CUBE, WRONG_CUBE = "0.044715 * cube", "(0.044715 if {} else 0.0447) * cube"
Checked = Callable[..., dict[str, Any]]


@pytest.fixture
def checked(bench: Bench, tmp_path: Path) -> Checked:
    """Check the solution with pieces of it exchanged; the JSON, and the lines of the first mistake."""

    def run(*changes: tuple[str, str]) -> dict[str, Any]:
        source = SOLVED.replace(IMPORTS, IMPORTS + HEAD, 1)
        for before, after in changes:
            assert source.count(before) == 1
            source = source.replace(before, after)
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        command = ["check", "mine.py", "--model", MODEL, "--token-ids", "5,9,11", "--token-ids", "7"]
        assert bench.run(*command, "--json", "found.json", folder=tmp_path).code == 1
        found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
        lines = source.splitlines()
        found["shown"] = [lines[line["number"] - 1].strip() for line in found["mistakes"][0]["lines"]]
        return found

    return run


def repairs(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [mistake["repair"] for mistake in found["mistakes"] if mistake.get("repair")]


@pytest.mark.parametrize(
    ("before", "after", "line", "extent"),
    [
        pytest.param(
            "    return scaled + may_look",
            "    array = scaled.numpy()\n    array *= 0.5\n    return scaled + may_look",
            "array *= 0.5",
            WRITTEN,
            id="numpy writes into what was right",
        ),
        pytest.param(
            "    return F.softmax(scores, dim=-1)",
            "    shares = F.softmax(scores, dim=-1)\n"
            "    POOL.submit(shares.mul_, 0.5).result()\n    return shares",
            "POOL.submit(shares.mul_, 0.5).result()",
            WRITTEN,
            id="another thread writes into it",
        ),
        pytest.param(
            "    return F.softmax(scores, dim=-1)",
            "    return POOL.submit(F.softmax, scores, dim=-2).result()",
            "return POOL.submit(F.softmax, scores, dim=-2).result()",
            MADE,
            id="another thread makes it",
        ),
        pytest.param(
            "    return one + other",
            "    return torch.from_numpy(one.numpy() - other.numpy())",
            "return torch.from_numpy(one.numpy() - other.numpy())",
            MADE,
            id="numpy makes it",
        ),
    ],
)
def test_what_is_not_seen_has_a_line_and_no_repair(
    checked: Checked, before: str, after: str, line: str, extent: str
) -> None:
    found = checked((before, after))
    assert found["shown"][0] == line
    assert repairs(found) == []
    assert f"mine.py: {extent}" in found["notes"]


@pytest.mark.parametrize("first", ["len(CALLS) <= 3", "not sys.gettrace()"])
def test_what_goes_wrong_elsewhere_the_next_time_is_not_read(checked: Checked, first: str) -> None:
    counted = "    CALLS.append(1)\n    " + WRONG_SCALE.format(first)
    found = checked((f"    {SCALE}", counted), (CUBE, WRONG_CUBE.format(first)))
    assert found["next"] == "h.0.attn.scaled"
    assert (found["shown"], repairs(found)) == ([], [])
    where = "run once more, it differs elsewhere than at h.0.attn.scaled"
    assert f"mine.py: not read: {where}" in found["notes"]


def test_weights_that_were_written_into_are_the_file_s_again(checked: Checked) -> None:
    head = '    return F.linear(x, weights["wte.weight"])'
    found = checked((head, f'    weights["wte.weight"].mul_(1.1)\n{head}'))
    assert found["shown"][0] == 'weights["wte.weight"].mul_(1.1)'
    assert [repair["degree"] for repair in repairs(found)] == ["proved"]


def test_weights_that_numpy_wrote_into_are_no_right_operand(checked: Checked) -> None:
    head = '    return F.linear(x, weights["wte.weight"])'
    found = checked((head, f'    table = weights["wte.weight"].numpy()\n    table *= 1.1\n{head}'))
    assert repairs(found) == []
    assert f"mine.py: {WRITTEN}" in found["notes"]


def test_an_exception_while_reading_is_said(checked: Checked) -> None:
    found = checked((SCALE, 'if sys.gettrace(): raise ValueError("seen")\n    return product * power * 1.1'))
    assert (found["shown"], repairs(found)) == ([], [])
    assert "mine.py: not read: run once more, this code ended with ValueError('seen')" in found["notes"]


def test_more_lines_than_are_read_are_said(checked: Checked) -> None:
    loop = f"    for _ in range({STEPS}):\n        pass\n    return which + where"
    power = "** -0.5\n    return product", "** -0.4\n    return product"
    found = checked(("    return which + where", loop), power)
    assert repairs(found) == []
    assert f"mine.py: the run has more than {STEPS:,} lines" in found["notes"]


def test_code_that_takes_the_trace_for_itself_is_not_read(checked: Checked) -> None:
    helper = "    power: float = (config.n_embd // config.n_head) ** -0.5"
    found = checked((helper, f"    sys.settrace(None)\n{helper.replace('-0.5', '-0.4')}"))
    assert (found["shown"], repairs(found)) == ([], [])
    assert any("takes sys.settrace for itself" in note for note in found["notes"])


def test_an_endless_recursion_is_no_code_that_takes_the_trace(checked: Checked) -> None:
    found = checked(
        (SCALE, "if sys.gettrace(): (again := lambda: again())()\n    return product * power * 1.1")
    )
    assert not any("settrace" in note for note in found["notes"])
    assert any("this code ended with RecursionError" in note for note in found["notes"])
