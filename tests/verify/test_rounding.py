"""What is said of rounding and mistakes."""

from __future__ import annotations

import math

from llm_rebuild.verify.rounding import INHERITED, MISTAKE, ROUNDING, UNCLEAR, Rounding

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
