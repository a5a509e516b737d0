"""When two tensors are equal, or apart by rounding."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from llm_rebuild.diagnosis.reading.slices import fingerprint
from llm_rebuild.dumps.names import match
from llm_rebuild.process.exchange import pack
from llm_rebuild.proof.certificate import tensor_sha256
from llm_rebuild.verify.equality import (
    as_exact,
    by_rounding,
    difference,
    equal,
    identical,
    relative_difference,
    reproduces,
    same_bits,
    usual,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("one", "other", "bits", "numbers"),
    [
        ([1.0, NAN], [1.0, NAN], True, True),
        ([0.0], [-0.0], False, True),
        ([1.0], [1.0000001], False, False),
        ([math.inf], [-math.inf], False, False),
        ([NAN], [1.0], False, False),
        ([], [], True, True),
    ],
)
def test_identical_counts_a_zeros_sign_and_equal_does_not(
    one: list[float], other: list[float], bits: bool, numbers: bool
):
    a, b = torch.tensor(one), torch.tensor(other)
    assert identical(a, b) is bits
    assert equal(a, b) is numbers


def test_another_shape_or_dtype_is_never_equal():
    for other in (torch.ones(1, 2), torch.ones(2, dtype=torch.float64)):
        assert not identical(torch.ones(2), other)
        assert not equal(torch.ones(2), other)
        assert not by_rounding(torch.ones(2), other)


def test_identical_of_every_nan():
    """NaN has many bit patterns, and all of them are NaN."""
    odd = torch.tensor([0x7FC00001, 0x3F800000], dtype=torch.int32).view(torch.float32)
    assert identical(odd, torch.tensor([NAN, 1.0]))


def test_difference_is_infinite_where_only_one_side_is_finite():
    assert difference(torch.tensor([1.0, math.inf, NAN]), torch.tensor([1.5, math.inf, NAN])) == 0.5
    assert difference(torch.tensor([1.0, math.inf]), torch.tensor([1.0, 2.0])) == math.inf
    assert difference(torch.tensor([1.0, NAN]), torch.tensor([1.0, 2.0])) == math.inf
    assert difference(torch.tensor([]), torch.tensor([])) == 0.0


@pytest.mark.parametrize(
    ("rebuilt", "official", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [1.0, 4.0], 0.5),
        ([1.0, -3.4e38], [1.0, -1.7e308], 0.0),  # both say "never", each in its dtype
        ([1.0, -1e9], [1.0, -1.7e308], math.inf),
        ([1.0, NAN], [1.0, NAN], 0.0),
        ([1.0, NAN], [1.0, 2.0], math.inf),
        ([0.5, 0.0], [0.0, 0.0], 0.5),
        ([1.0], [1.0, 2.0], math.inf),
    ],
)
def test_relative_difference(rebuilt: list[float], official: list[float], expected: float):
    one = torch.tensor(rebuilt, dtype=torch.float64)
    assert relative_difference(one, torch.tensor(official, dtype=torch.float64)) == expected


# ---------------------------------------------------------------------------- rounding that is shown


def product(seed: int, large: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A linear layer of 3,072 numbers: its input, weight and bias, and what comes out in float64."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 9, 3072, generator=draw)
    x[..., 7] *= large  # a number as large as GPT-2 has them
    weight, bias = torch.randn(3072, 64, generator=draw) * 0.05, torch.randn(64, generator=draw)
    return x, weight, bias, x.double() @ weight.double() + bias.double()


@pytest.mark.parametrize("large", [1.0, 300.0])
@pytest.mark.parametrize("seed", range(5))
def test_another_spelling_is_as_exact(seed: int, large: float):
    """Also where float32 itself has no five decimals: the numbers reach a hundred there."""
    x, weight, bias, step = product(seed, large)
    official = torch.addmm(bias, x.view(-1, 3072), weight).view(2, 9, 64)
    for spelled in (
        x @ weight + bias,
        bias + (x[..., :1536] @ weight[:1536] + x[..., 1536:] @ weight[1536:]),
        torch.einsum("bti,io->bto", x, weight) + bias,
        step.float(),
    ):
        assert as_exact(spelled, step, official, step)


@pytest.mark.parametrize("seed", range(5))
def test_a_small_mistake_is_not_as_exact(seed: int):
    x, weight, bias, step = product(seed, 300.0)
    official = torch.addmm(bias, x.view(-1, 3072), weight).view(2, 9, 64)
    one_off = official.clone()
    one_off[1, 4, 5] += 2e-3
    for wrong in (
        official * (1 + 2e-5),
        official + 1e-4,
        one_off,
        (x.bfloat16().float() @ weight) + bias,
        x @ weight.half().float() + bias,
        torch.where(official.abs() < 1, torch.zeros_like(official), official),
        torch.full_like(official, NAN),
    ):
        assert not as_exact(wrong, step, official, step)


def test_an_epsilon_is_seen_and_a_norm_by_hand_is_not_accused():
    """A correct LayerNorm written by hand, with the epsilon that BERT has; and one with GPT-2's."""
    x = torch.randn(2, 9, 384, generator=torch.Generator().manual_seed(0)) * 0.7

    def norm(x: Tensor, eps: float) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + eps)

    official = torch.nn.functional.layer_norm(x, (384,), eps=1e-12)
    step = norm(x.double(), 1e-12)
    assert as_exact(norm(x, 1e-12), step, official, step)
    assert not as_exact(norm(x, 1e-5), step, official, step)


def test_masked_places_have_to_be_the_official_number():
    lowest = torch.finfo(torch.float32).min
    official = torch.tensor([1.0, lowest])
    step = torch.tensor([1.0, torch.finfo(torch.float64).min], dtype=torch.float64)
    assert as_exact(torch.tensor([1.0000001, lowest]), step, official, step)
    for fill in (-math.inf, -1e9, 0.0, NAN):
        assert not as_exact(torch.tensor([1.0, fill]), step, official, step)


def test_as_exact_of_another_shape_or_of_nothing():
    one = torch.ones(2)
    assert not as_exact(one, one.double(), torch.ones(3), torch.ones(3).double())
    none = torch.ones(0)
    assert as_exact(none, none.double(), none, none.double())


# ------------------------------------------------------------------------------------------ a guess


def test_a_guess_reproduces_to_the_bit_but_for_rounding_or_not():
    official, mine = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])
    assert reproduces(mine.clone(), mine, official) == 2
    assert reproduces(mine * (1 + 1e-6), mine, official) == 1
    assert reproduces(official, mine, official) == 0
    assert reproduces(mine[:2], mine, official) == 0


def test_a_guess_that_is_finite_is_no_infinity():
    official = torch.tensor([1.0, 2.0])
    assert reproduces(torch.tensor([1.0, 3.0]), torch.tensor([1.0, math.inf]), official) == 0
    assert reproduces(torch.tensor([1.0, math.inf]), torch.tensor([1.0, 3.0]), official) == 0
    assert reproduces(torch.tensor([1.0, -1e9]), torch.tensor([1.0, -1e9]), official) == 2
    assert reproduces(torch.tensor([1.0, -1e9]), torch.tensor([1.0, -1e8]), official) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_infinite_was_not_computed_in_any_type(dtype: torch.dtype):
    tensor = torch.tensor([1.0, -math.inf, math.inf, NAN], dtype=dtype)
    assert usual(tensor).tolist() == [True, False, False, False]


def test_one_number_has_bits_whatever_its_stride() -> None:
    """A window of one number counts as contiguous with any stride."""
    window = torch.arange(18).as_strided((1,), (9,), 3)
    assert same_bits(window, [torch.tensor([3])])
    assert tensor_sha256(window) == tensor_sha256(torch.tensor([3]))
    assert fingerprint(window) == fingerprint(torch.tensor([3]))
    assert match({"own": window}, {"official": torch.tensor([3])}).names == {"own": "official"}
    assert bytes(pack({}, {"window": window})[1]) == bytes(pack({}, {"window": torch.tensor([3])})[1])
