"""On which line a repair is proved: on none, where the value came from elsewhere."""

from __future__ import annotations

import pytest

from tests.diagnosis.test_reading import MUTANTS, minilm, read_mutants
from tools.reading import changed_lines, near

TRAVELLED = [
    "minilm-query-key-swapped",  # made with the other weights, and right for one another
    "minilm-split-pieces-of-heads",  # a length, read off what is wrong already
    "minilm-heads-reshaped",  # in a helper that looks right to its caller
    "gpt2-last-norm-missing",  # between a block and a tap, with a function between
    "gpt2-cache-keys-as-values",  # kept by one function, used by another
    "t5-cross-cache-key-value-swapped",  # exchanged by a caller
    "t5-encoder-mask-missing",  # made elsewhere
    "t5-buckets-halved",  # whole numbers can be put right wherever they go wrong and below
    "t5-decoder-bias-from-the-encoder",  # a weight that a caller chose
    "t5-bias-in-the-first-encoder-block-only",  # added, and 0: what a caller passed
    "llama-one-row-of-cosines-for-all-tokens",  # multiplied by, and 1
    "llama-cache-cropped-one-too-short",  # a number that a caller passed to a helper that is right
]


@pytest.mark.parametrize("name", TRAVELLED)
def test_of_what_travelled_the_value_is_proved_and_no_line(name: str):
    changed = changed_lines([MUTANTS[name]], MUTANTS[name])
    for reading in read_mutants(MUTANTS[name]):
        assert reading.lines
        for repair in reading.repairs:
            assert repair.line is None or near(repair.line, changed)


@pytest.mark.parametrize(
    "name", ["minilm-embedding-norm-eps", "minilm-embeddings-averaged", "gpt2-scale-missing"]
)
def test_what_stands_on_one_line_is_proved_of_it(name: str):
    first, *_ = read_mutants(MUTANTS[name])
    (repair,) = first.repairs
    assert repair.line == first.lines[0]
    assert near(repair.line, changed_lines([MUTANTS[name]], MUTANTS[name]))


def test_under_a_condition_no_line_is_claimed():
    decided = "scaled = product * query.shape[-1] ** -0.5 if part is None else product"
    first, *_ = read_mutants(minilm(decided))
    assert [(repair.degree, repair.line) for repair in first.repairs] == [("proved", None)]
