"""A verdict is right at every edge: NaN, infinities, both zeros, the boundary, shapes, dtypes, storage."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llm_rebuild.checkpoints import Recorder
from llm_rebuild.errors import InputError
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import Capture, Interim
from llm_rebuild.verify.compare import Verdict, compare, decimals_of
from llm_rebuild.verify.equality import ulp_distance
from llm_rebuild.verify.run import judge

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INF, NAN = math.inf, math.nan
INPUTS = Inputs(
    torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.int64), ("a",), (("a", "b", "c"),), (0,)
)


def verdict(rebuilt: list[float] | float, official: list[float] | float, dtype=torch.float64) -> Verdict:
    return compare(torch.tensor(rebuilt, dtype=dtype), torch.tensor(official, dtype=dtype), "name")


# ------------------------------------------------------------------------------- each verdict


def test_bit_identical():
    found = verdict([1.5, -2.0], [1.5, -2.0])
    assert (found.verdict, found.max_abs_diff, found.max_ulp) == ("bit-identical", 0.0, 0)
    assert found
    assert found.identical
    assert found.passes


@pytest.mark.parametrize("dtype", FLOATS)
def test_few_ulp(dtype: torch.dtype):
    official = torch.tensor([0.0, 1e-4], dtype=dtype)
    rebuilt = torch.nextafter(official, torch.tensor([0.0, 1.0], dtype=dtype))
    found = compare(rebuilt, official)
    assert found.verdict == "1 ulp"
    assert (found.max_ulp, found.coordinate) == (1, (1,))
    assert found.passes
    assert not found.identical
    assert not found


def test_decimals():
    found = verdict([1.0, 2.0], [1.0, 2.0 + 2e-6])
    assert (found.verdict, found.decimals) == ("5 decimals", 5)
    assert found.passes


def test_wrong_values_say_the_worst_coordinate_and_both_values():
    official = torch.zeros(2, 3, 4)
    rebuilt = official.clone()
    rebuilt[0, 1, 1], rebuilt[1, 2, 3] = 0.25, -0.5
    found = compare(rebuilt, official, "embeddings.sum")
    assert found.verdict == "wrong values"
    assert (found.coordinate, found.official, found.rebuilt, found.max_abs_diff) == (
        (1, 2, 3),
        0.0,
        -0.5,
        0.5,
    )
    assert not found.passes
    assert "embeddings.sum" in str(found)
    assert "worst at [1, 2, 3]: official 0, rebuilt -0.5" in str(found)


def test_shape_comes_before_dtype_and_dtype_before_values():
    official = torch.zeros(2, 3)
    shape = compare(torch.ones(3, 2, dtype=torch.float64), official)
    assert (shape.verdict, shape.max_abs_diff) == ("wrong shape", None)
    assert "rebuilt [3, 2], official [2, 3]" in str(shape)
    dtype = compare(torch.ones(2, 3, dtype=torch.float64), official)
    assert (dtype.verdict, dtype.max_abs_diff) == ("wrong dtype", None)
    assert "rebuilt float64, official float32" in str(dtype)
    assert compare(torch.ones(2, 3), official).verdict == "wrong values"
    assert not any(v.passes for v in (shape, dtype))


def test_broadcastable_shapes_are_wrong_shapes():
    assert compare(torch.zeros(1, 3), torch.zeros(2, 3)).verdict == "wrong shape"
    assert compare(torch.zeros(()), torch.zeros(1)).verdict == "wrong shape"


# ------------------------------------------------------------------------- what is not a number


def test_nan_equals_nan_and_inf_equals_inf_of_the_same_sign():
    assert verdict([NAN, INF, -INF, 1.0], [NAN, INF, -INF, 1.0]).verdict == "bit-identical"


@pytest.mark.parametrize(
    ("rebuilt", "official"), [(NAN, 1.0), (1.0, NAN), (INF, -INF), (INF, 1.0), (1.0, -INF), (NAN, INF)]
)
def test_what_is_not_a_number_is_worse_than_any_number(rebuilt: float, official: float):
    found = verdict([0.0, 1e30, rebuilt], [0.0, 1.0, official])
    assert found.verdict == "wrong values"
    assert found.coordinate == (2,)
    assert repr(found.official) == repr(official)
    assert repr(found.rebuilt) == repr(rebuilt)
    assert not found.passes


@pytest.mark.parametrize("same", [NAN, INF, -INF])
def test_what_is_not_a_number_hides_no_mismatch(same: float):
    found = verdict([same, 1.0, same], [same, 1.5, same])
    assert (found.verdict, found.coordinate, found.max_abs_diff) == ("wrong values", (1,), 0.5)


def test_minus_zero_is_not_zero():
    found = verdict([-0.0, 1.0], [0.0, 1.0], torch.float32)
    assert (found.verdict, found.max_ulp, found.max_abs_diff) == ("1 ulp", 1, 0.0)
    assert (found.coordinate, repr(found.rebuilt), repr(found.official)) == ((0,), "-0.0", "0.0")
    assert found.passes
    assert verdict([-0.0], [-0.0]).identical


# --------------------------------------------------------------------------------- the boundary


def test_exactly_five_decimals_is_not_enough():
    below = math.nextafter(5e-6, 0)
    assert verdict([5e-6], [0.0]).verdict == "wrong values"
    assert not verdict([5e-6], [0.0]).passes
    assert verdict([-5e-6], [0.0]).verdict == "wrong values"
    assert verdict([below], [0.0]).verdict == "5 decimals"
    assert verdict([below], [0.0]).passes


def test_few_ulp_are_no_excuse_for_large_differences():
    one = torch.tensor([1e6])
    found = compare(torch.nextafter(one, one + 1), one)
    assert (found.verdict, found.max_ulp) == ("wrong values", 1)


@pytest.mark.parametrize(
    ("difference", "decimals"),
    [
        (0.5, 0),
        (0.49, 0),
        (0.05, 0),
        (0.049, 1),
        (5e-6, 4),
        (4.99e-6, 5),
        (5e-7, 5),
        (1e300, 0),
        (1.7e308, 0),
    ],
)
def test_decimals_of(difference: float, decimals: int):
    assert decimals_of(difference) == decimals


def test_decimals_of_is_the_largest_that_agrees():
    generator = np.random.default_rng(1)
    for exponent in generator.uniform(-300, 2, 2000):
        difference = float(10**exponent)
        n = decimals_of(difference)
        assert n == 0 or difference < 0.5 * 10.0**-n
        assert difference >= 0.5 * 10.0 ** -(n + 1)


# --------------------------------------------------------------------- units in the last place


def test_ulp_across_zero():
    tiny = torch.finfo(torch.float32).smallest_normal * torch.finfo(torch.float32).eps  # smallest of all
    one, other = torch.tensor([tiny, 3 * tiny]), torch.tensor([-tiny, -2 * tiny])
    assert ulp_distance(one, other).tolist() == [3, 6]  # both zeros lie between


@pytest.mark.parametrize("dtype", FLOATS)
def test_ulp_distance_counts_steps(dtype: torch.dtype):
    one = torch.tensor([-1.0, 0.0, 1.0, 3.5], dtype=dtype)
    other = one
    for steps in range(1, 5):
        other = torch.nextafter(other, torch.full_like(other, 100.0))
        assert ulp_distance(other, one).tolist() == [steps] * 4
        assert ulp_distance(one, other).tolist() == [steps] * 4


def test_ulp_distance_of_float64_that_does_not_fit_is_the_largest_count():
    one, other = torch.tensor([1e308], dtype=torch.float64), torch.tensor([-1e308], dtype=torch.float64)
    assert ulp_distance(one, other).tolist() == [torch.iinfo(torch.int64).max]
    assert ulp_distance(other, one).tolist() == [torch.iinfo(torch.int64).max]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
def test_whole_numbers_and_booleans(dtype: torch.dtype):
    one = torch.tensor([0, 1, 1]).to(dtype)
    assert compare(one.clone(), one).identical
    assert compare(1 - one.to(torch.int64), one.to(torch.int64)).verdict == "wrong values"


# ---------------------------------------------------------------------- against itself: an error


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x.view(6, 4),
        lambda x: x.transpose(0, 1),
        lambda x: x[1:],
        lambda x: x.detach(),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: torch.nn.Parameter(x, requires_grad=False),
    ],
    ids=["itself", "view", "transposed", "slice", "detached", "through numpy", "parameter"],
)
def test_a_tensor_against_itself_is_an_error(view):
    x = torch.arange(24.0).reshape(4, 6)
    with pytest.raises(InputError, match="itself"):
        compare(view(x), x)
    with pytest.raises(InputError, match="itself"):
        compare(x, view(x))


def test_two_windows_on_one_storage_are_an_error_even_where_they_do_not_overlap():
    x = torch.zeros(8)
    with pytest.raises(InputError, match="itself"):
        compare(x[:4], x[4:])


def test_an_official_tensor_on_the_rebuilt_side_is_an_error():
    interim = Interim("embeddings.sum", torch.zeros(3))
    with pytest.raises(InputError, match="official too"):
        compare(interim, interim)
    assert compare(torch.zeros(3), interim).name == "embeddings.sum"
    assert compare(torch.zeros(3), interim).identical


@pytest.mark.parametrize("wrong", [None, 1.0, [1.0], np.ndarray])
def test_what_is_no_tensor_is_refused(wrong: object):
    for pair in ((wrong, torch.zeros(3)), (torch.zeros(3), wrong)):
        with pytest.raises(InputError, match=f"one side is a {type(wrong).__name__}; it takes a tensor"):
            compare(*pair)


class Liar(Tensor):
    """A tensor that says it is equal to whatever it is asked about."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        asked.append(function)
        return True


class Actor(Tensor):
    """A tensor whose numbers are what its code says."""

    @staticmethod
    def __new__(cls, tensor: Tensor) -> Actor:
        return Tensor._make_wrapper_subclass(cls, tensor.shape, dtype=tensor.dtype)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("its code runs")


asked: list[Any] = []


def test_a_subclass_that_lies_is_compared_by_its_numbers():
    """None of its code runs: not in compare, not in judge, not in a tap."""
    truth = Capture({}, "eager", INPUTS, {}, {"wte": torch.zeros(3)})
    liar = torch.ones(3).as_subclass(Liar)
    asked.clear()
    assert compare(liar, truth["wte"]).verdict == "wrong values"
    assert judge({"wte": liar}, truth).verdicts[0].verdict == "wrong values"
    recorder = Recorder()
    recorder.tap()("wte", liar)
    assert type(recorder.tensors["wte"]) is Tensor
    assert recorder.tensors["wte"].tolist() == [1.0, 1.0, 1.0]
    assert compare(torch.zeros(3), torch.ones(3).as_subclass(Liar)).verdict == "wrong values"
    assert asked == []


def test_a_parameter_and_a_tensor_with_a_gradient_are_plain():
    assert compare(torch.nn.Parameter(torch.zeros(3)), torch.zeros(3)).identical
    assert compare(torch.zeros(3, requires_grad=True) * 1, torch.zeros(3)).identical


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("odd", "kind"),
    [
        (lambda: torch.zeros(3).to_sparse(), "sparse_coo tensor on cpu"),
        (lambda: torch.zeros(3, 3).to_sparse_csr(), "sparse_csr tensor on cpu"),
        (lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.quint8), "quantised tensor on cpu"),
        (lambda: torch.zeros(3, device="meta"), "strided tensor on meta"),
        (lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(1)]), "nested tensor on cpu"),
        (lambda: torch.zeros(3).to_mkldnn(), "_mkldnn tensor on cpu"),
        (lambda: Actor(torch.zeros(3)), "Actor"),
    ],
)
def test_what_has_no_plain_numbers_is_refused_in_one_line(odd: Callable[[], Tensor], kind: str):
    truth = Capture({}, "eager", INPUTS, {}, {"wte": torch.zeros(3)})
    for ask in (
        lambda: compare(odd(), torch.zeros(3)),
        lambda: compare(torch.zeros(3), odd()),
        lambda: compare(odd(), truth["wte"]),
        lambda: judge({"wte": odd()}, truth),
        lambda: Recorder().tap()("wte", odd()),
    ):
        with pytest.raises(InputError, match=f" a {kind}; it takes a plain") as refused:
            ask()
        assert "\n" not in str(refused.value)


def test_complex_numbers():
    one = torch.zeros(3, dtype=torch.complex64)
    assert compare(one, torch.zeros(3)).verdict == "wrong dtype"
    with pytest.raises(InputError, match="complex numbers"):
        compare(one, torch.ones(3, dtype=torch.complex64))
    negative = torch.complex(torch.zeros(3), torch.ones(3)).conj().imag  # a view that means its negative
    assert compare(negative, -torch.ones(3)).identical


# -------------------------------------------------------------------------- scalars, nothing, odd


def test_scalars():
    assert verdict(1.0, 1.0).identical
    found = verdict(1.0, 2.0)
    assert (found.verdict, found.coordinate, found.shape) == ("wrong values", (), ())
    assert "worst at []" in str(found)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_empty_tensors(shape: tuple[int, ...]):
    assert compare(torch.zeros(shape), torch.zeros(shape)).identical
    assert compare(torch.zeros(shape), torch.zeros(*shape, 1)).verdict == "wrong shape"


def test_layout_in_memory_does_not_matter():
    official = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert compare(official.t().contiguous().t(), official).identical
    found = compare(official.t().contiguous().t() + 1, official)
    assert found.max_ulp is not None
    assert found.verdict == "wrong values"


def test_gradients_do_not_matter():
    assert compare(torch.zeros(3, requires_grad=True), torch.zeros(3)).identical


# ------------------------------------------------------------------------------ seeded properties


def random_bits(shape: tuple[int, ...], seed: int) -> Tensor:
    """float32 of every kind: denormal, NaN, infinite, both zeros."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2**32, shape, dtype=np.uint32)
    special = random.choice(
        np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000], dtype=np.uint32), shape
    )
    chosen = np.where(random.random(shape) < 0.2, special, bits)
    return torch.from_numpy(chosen.astype(np.uint32).view(np.float32).copy())


@pytest.mark.parametrize("seed", range(20))
def test_properties_on_random_bits(seed: int):
    official, rebuilt = random_bits((3, 5), seed), random_bits((3, 5), seed + 1000)
    assert compare(official.clone(), official).identical
    one, other = compare(rebuilt, official), compare(official, rebuilt)
    assert one.verdict == other.verdict
    assert one.max_ulp == other.max_ulp
    json.dumps(one.to_json(), allow_nan=False)
    mine, theirs = rebuilt.numpy().astype(np.float64), official.numpy().astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(mine - theirs)
    difference[np.isnan(difference)] = INF
    difference[(np.isnan(mine) & np.isnan(theirs)) | (mine == theirs)] = 0
    assert one.max_abs_diff is not None
    assert one.coordinate is not None
    assert (INF if math.isnan(one.max_abs_diff) else one.max_abs_diff) == difference.max()
    assert difference[one.coordinate] == difference.max()


@pytest.mark.parametrize(("seed", "bit"), list(itertools.product(range(3), range(32))))
def test_one_flipped_bit_anywhere_is_seen(seed: int, bit: int):
    """No change of a single bit is called identical, other NaNs aside: they all count as one."""
    official = random_bits((4, 4), seed)
    at = seed * 5
    changed = official.clone().numpy()
    changed.view(np.uint32).reshape(-1)[at] ^= np.uint32(1 << bit)
    rebuilt = torch.from_numpy(changed)
    both_nan = bool(rebuilt.flatten()[at].isnan()) and bool(official.flatten()[at].isnan())
    assert compare(rebuilt, official).identical == both_nan


def test_json_of_a_verdict_has_the_contract_keys():
    keys = ["name", "shape", "dtype", "verdict", "max_abs_diff", "max_ulp", "decimals", "coupled"]
    for found in (verdict([1.0], [1.0]), verdict([1.0], [NAN]), verdict([1.0], [1.0, 2.0])):
        assert list(json.loads(json.dumps(found.to_json(), allow_nan=False))) == keys
