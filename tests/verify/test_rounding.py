"""What is said of rounding and mistakes, and what float64 means."""

from __future__ import annotations

import math

import pytest
import torch

from llm_rebuild.verify.rounding import INHERITED, MISTAKE, ROUNDING, UNCLEAR, Rounding, in_float64

SEEN = Rounding(
    {"a": ROUNDING, "b": MISTAKE, "c": INHERITED, "d": MISTAKE},
    {"a": (2e-7, 1e-7), "b": (0.5, 1e-7), "c": (1e-7, 1e-7), "d": (math.inf, 0.0)},
    {"e": "no formula"},
)


def test_what_was_never_computed_is_unclear():
    assert [SEEN.kind(name) for name in "abcdef"] == [
        ROUNDING, MISTAKE, INHERITED, MISTAKE, UNCLEAR, UNCLEAR,
    ]  # fmt: skip


def test_json_has_no_infinity_and_says_the_problem():
    assert SEEN.to_json("a") == {"kind": "rounding", "float64_difference": 2e-7, "problem": None}
    assert SEEN.to_json("d") == {"kind": "mistake", "float64_difference": None, "problem": None}
    assert SEEN.to_json("e") == {"kind": "unclear", "float64_difference": None, "problem": "no formula"}


def test_words_say_how_far_both_sides_are_away():
    assert SEEN.words("a") == (
        "the rebuilt tensor is 2e-07 of its largest number away from this step in float64, the official one "
        "1e-07"
    )
    assert SEEN.words("d") == "this step in float64 gives something else"


def test_in_float64_whole_numbers_become_what_they_are_told():
    wide, whole = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.int64)
    with in_float64():
        assert torch.zeros(1).dtype == torch.float64
        kept = (wide.float(), wide.to(torch.float32), wide.to(dtype=torch.float32))
        assert {t.dtype for t in kept} == {torch.float64}
        assert torch.softmax(wide, -1, dtype=torch.float32).dtype == torch.float64
        assert whole.float().dtype == torch.float32
        assert wide.to(torch.bfloat16).dtype == torch.bfloat16  # that would be a mistake, and stays one
    assert torch.ones(1).double().float().dtype == torch.float32  # and nothing stays wide afterwards


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_float64_ends_with_an_error(error: type[BaseException]):
    with pytest.raises(error), in_float64():
        raise error
    assert torch.get_default_dtype() == torch.float32
