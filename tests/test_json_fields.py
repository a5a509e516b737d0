"""Values of a JSON file are refused by their path, in one line."""

from __future__ import annotations

from typing import Any

import pytest

from llm_rebuild.errors import InputError
from llm_rebuild.json_fields import FLAG, NUMBER, SHA256, WORD, Each, check, one_of, or_null, whole

WANTED = {"name": WORD, "rows": [[whole()]], "sums": Each(SHA256, most=2), "how": one_of("a", "b")}
GOOD: dict[str, Any] = {"name": "x", "rows": [[1, 0], []], "sums": {"f": "0" * 64}, "how": "b"}


def test_what_is_as_wanted_passes():
    check(GOOD, WANTED, "f.json: ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "f.json: name is '', expected a short text"),
        ({"name": "a\x1b[1m"}, r"f.json: name is 'a\x1b[1m', expected a short text"),
        ({"rows": [[1, True]]}, "f.json: rows[0][1] is True, expected a whole number from 0"),
        ({"rows": [[2**63]]}, "f.json: rows[0][0] is 9223372036854775808, expected a whole number from 0"),
        ({"rows": [1]}, "f.json: rows[0] is 1, expected a list"),
        ({"sums": []}, "f.json: sums is [], expected an object"),
        ({"sums": {"f": "0"}}, "f.json: sums.f is '0', expected a sha256"),
        ({"sums": dict.fromkeys("abc", "0" * 64)}, "f.json: sums has 3 keys, and 2 at the most"),
        ({"sums": {"": "0"}}, "f.json: sums has keys that it cannot have"),
        ({"how": ["a"]}, "f.json: how is ['a'], expected a or b"),
        ({"extra": 1}, "f.json: 'extra' is a key that nothing here has"),
    ],
)
def test_what_is_not_is_refused_by_its_path(change: dict[str, Any], said: str):
    with pytest.raises(InputError) as refusal:
        check({**GOOD, **change}, WANTED, "f.json: ")
    assert str(refusal.value) == said


def test_a_key_that_is_missing_and_a_file_that_is_no_object():
    with pytest.raises(InputError, match=r"^f\.json: how is missing$"):
        check({k: v for k, v in GOOD.items() if k != "how"}, WANTED, "f.json: ")
    with pytest.raises(InputError, match=r"^f\.json is None, expected an object$"):
        check(None, WANTED, "f.json: ")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, True, "1", 10**400, None])
def test_numbers_that_are_none(value: Any):
    with pytest.raises(InputError, match=r"expected a finite number from 0$") as refusal:
        check(value, NUMBER, "eps")
    assert len(str(refusal.value)) < 120


def test_null_where_it_is_allowed():
    check(None, or_null(FLAG), "x")
    with pytest.raises(InputError, match="x is 0, expected true or false or null"):
        check(0, or_null(FLAG), "x")
