"""A rebuild in another library's arrays is checked as one in torch: right ones leak nothing, official numbers
that were brought along are caught, and a mistake has its line where that can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_rebuild import check, verify
from llm_rebuild.copies import local_copy
from llm_rebuild.diagnosis.reading.unseen import MADE
from llm_rebuild.workbench import new as writing
from tests.workbench import gpt2_in_arrays
from tests.workbench.bench import Bench

MODEL = local_copy.MINIATURES / "gpt2"
IDS = [[5, 9, 11], [7]]
SOURCE = Path(gpt2_in_arrays.__file__).read_text(encoding="utf-8")
SOLVED = writing.source("gpt2", solved=True)
CONTEXT = 'context = tell("attn.context", heads.swapaxes(1, 2).reshape(batch, token, -1))'
Checked = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def checked(bench: Bench, tmp_path: Path) -> Checked:
    """Check a source with pieces of it exchanged: exit code and JSON."""

    def run(source: str, *changes: tuple[str, str]) -> tuple[int, dict[str, Any]]:
        for before, after in changes:
            assert source.count(before) == 1
            source = source.replace(before, after)
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
        command = ["check", "mine.py", "--model", MODEL, "--token-ids", "5,9,11", "--token-ids", "7"]
        result = bench.run(*command, "--json", "found.json", folder=tmp_path)
        return result.code, json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))

    return run


@pytest.mark.parametrize("library", ["numpy", "jax.numpy"])
def test_right_code_passes(checked: Checked, library: str) -> None:
    pytest.importorskip(library)
    code, result = checked(SOURCE, ("import numpy as xp", f"import {library} as xp"))
    assert (code, result["leaks"]) == (0, [])
    assert result["summary"]["failed"] == 0
    assert result["summary"]["bit_identical"] >= 4
    assert [d["cause"] for d in result["diagnosis"]] == ["rounding"]  # nothing is said about a right rebuild


MISTAKES = {
    "scale": ("query.shape[-1] ** -0.5", "config.n_embd ** -0.5", "h.0.attn.scaled", "scale-wrong"),
    "positions": ("xp.arange(token)][None]", "xp.arange(token) + 1][None]", "wpe", "positions-shifted"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_guessed_and_said_to_be_out_of_sight(checked: Checked, mistake: str) -> None:
    before, after, where, cause = MISTAKES[mistake]
    code, result = checked(SOURCE, (before, after))
    assert code == 1
    assert (result["mistakes"][0]["checkpoint"], result["mistakes"][0]["cause"]) == (where, cause)
    assert f"mine.py: {MADE}" in result["notes"]
    assert not any(d.get("repair") for d in result["mistakes"])


def test_numpy_in_the_middle_of_torch_is_no_leak(checked: Checked) -> None:
    """What numpy makes of right numbers may be right to the bit."""
    for before, after in (
        ("    return which + where", "    return torch.from_numpy(which.numpy() + where.numpy())"),
        ("    return one + other", "    return torch.from_numpy(one.numpy() + other.numpy()) * 1"),
    ):
        code, result = checked(SOLVED, (before, after))
        assert (code, result["leaks"]) == (0, [])
        assert result["summary"]["bit_identical"] == 72


OFFICIAL = ["as it is", "from a file of bytes", "through torch"]


@pytest.mark.parametrize("way", OFFICIAL)
def test_official_numbers_that_were_brought_along_are_named(
    checked: Checked, way: str, tmp_path: Path
) -> None:
    truth = verify.capture(MODEL, token_ids=IDS)
    official = truth.tensors["h.1.attn.context"].numpy()
    np.save(tmp_path / "numbers.npy", official)
    (tmp_path / "numbers.npy").rename(tmp_path / "numbers.bytes")  # no name that the guard knows
    brought = f"xp.array({official.tolist()}, dtype=xp.float32)"
    if way == "from a file of bytes":
        brought = f"xp.load({str(tmp_path / 'numbers.bytes')!r})"
    used = "(torch.from_numpy(OFFICIAL) * 1).numpy()" if way == "through torch" else "OFFICIAL"
    taken = CONTEXT.replace("heads.", f"heads.shape and ({used}) if layer == 1 else heads.")
    head = "import numpy as xp\n"
    code, result = checked(SOURCE, (head, f"{head}import torch\nOFFICIAL = {brought}\n"), (CONTEXT, taken))
    assert code == 1
    # What is made of it alone stays the same, too: the product behind it. Nothing before it is named.
    assert "official h.1.attn.context went into the rebuild" in result["leaks"][0]
    assert len(result["leaks"]) <= 2


def test_a_step_in_numpy_is_tried_by_itself(checked: Checked) -> None:
    scale = "    return product * power\n"
    code, result = checked(SOLVED, (scale, "    return product.numpy() * power\n"))
    assert code == 2  # torch's softmax, behind it, takes no array: the file's own affair
    steps = {step["name"]: step["right"] for step in result["steps"]}
    assert steps["h.0.attn.scaled"]


def test_a_notebook_s_function_may_be_of_numpy() -> None:
    result = check(gpt2_in_arrays.forward, MODEL, token_ids=IDS)
    assert result.report.leaks == ()
    assert result.report.passed


def test_what_is_no_array_of_numbers_is_refused(checked: Checked) -> None:
    for after, words in (
        (
            "return tap('lm_head', xp.array(['a']))",
            "was given a ndarray of <U1; it takes one of real numbers",
        ),
        ("return xp.array([object()])", "forward returned a ndarray of object"),
    ):
        code, result = checked(SOURCE, ('return tap("lm_head", x @ w["wte.weight"].T)', after))
        assert code == 2
        assert words in result["error"]
