"""When are two tensors equal? Every notion of it, and every threshold, stands here and nowhere else.

identical    every bit, but that NaN equals NaN
same_bits    one of several has every bit, in whatever shape
equal        every number: a zero's sign does not count
by_rounding  apart by no more than other orders of operations make it
is_rounded_from  so, and then saved in less precision
as_exact     as near to the true result as the official tensor is: then it is rounding, and shown
reproduces   a guess at a tensor: to the bit, but for rounding, or not
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from llm_rebuild.checkpoints import memory_of

# The lowest bar that passes: every difference below half a unit of the fifth decimal.
FIVE_DECIMALS = 5e-6
# A difference of so few units in the last place is said in these units: one operation's rounding.
FEW_ULP = 16
# Types that have no five decimals. In them the bar is one unit in the last place: sums in two orders may be
# rounded to neighbours.
SHORT, SHORT_ULP = ("bfloat16", "float16"), 1

# The shares below are of the tensor's largest number.
# Two orders of one float32 sum, of up to a few thousand summands, stay below.
ONE_SUM = 4e-6
# A few such operations in a row, as in a whole block, and a function of their result.
ROUNDED = 2e-5
# A guess is the tensor at hand but for rounding if it is a thousand times nearer to it than the official …
NEARER = 1e-3
# … and within this of it: rounding that whole blocks have passed on.
REPRODUCED = 1e-4

# How many times further from the true result than the official tensor a harmless spelling may be. Measured on
# the mutants of the first and the third set, with three sets of kernels: those that are only another spelling
# stay below 3.5, and the smallest mistake begins above 7. A tanh by an exponential reaches 4.2.
AS_NEAR = 5.0

# What masks put there. Beyond NEVER only the lowest number of a dtype lies, which is another one in float64.
NEVER = 1e30
# People fill in -1e9 or 1e8 as well, which would drown all other numbers. No activation gets there.
BEYOND = 1e6
# The weakest fill in use is -10,000. Among scores, this and what is lower was filled in.
FILLED = -9e3
FEW = 64  # numbers of two tensors that are compared first
# In a mask that is added, what may be seen is 0, and the rest below.
HIDDEN = -0.5

# dtype -> the integer of the same width
_INTEGERS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def apart(one: Tensor, other: Tensor) -> Tensor:
    """Where two tensors of one shape differ, as true and false. NaN equals NaN, and 0 equals -0."""
    return ~((one == other) | ((one != one) & (other != other)))


def identical(one: Tensor, other: Tensor) -> bool:
    """The same shape, dtype and bits, all NaN counting as the same. Minus zero is not plus zero."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype in _INTEGERS:
        integer = _INTEGERS[one.dtype]
        if torch.equal(one.contiguous().view(integer), other.contiguous().view(integer)):
            return True
        if not bool(one.isnan().any()):
            return False  # what follows is for NaN, which has many bit patterns
    if bool(apart(one, other).any()):
        return False
    zero = one == 0
    return one.is_complex() or not bool((torch.signbit(one) != torch.signbit(other))[zero].any())


def equal(one: Tensor, other: Tensor) -> bool:
    """The same shape, dtype and numbers; a zero's sign does not count."""
    return one.shape == other.shape and one.dtype == other.dtype and not bool(apart(one, other).any())


def same_bits(tensor: Tensor, others: Iterable[Tensor]) -> bool:
    """Whether one of these has the same bits in order, whatever its shape: [10, 384] or [2, 5, 384]."""
    bits = memory_of(tensor)
    return any(other.nbytes == tensor.nbytes and torch.equal(bits, memory_of(other)) for other in others)


def difference(one: Tensor, other: Tensor) -> float:
    """The largest, for tensors of one shape. Equal infinities and two NaN do not differ; where only one side
    is finite, the difference is infinite. 0 of empty tensors."""
    if not one.numel():
        return 0.0
    off = (one - other).abs()
    if not bool(torch.isfinite(off.sum())):
        off = torch.where(apart(one, other), off.nan_to_num(torch.inf, torch.inf), torch.zeros_like(off))
    return float(off.max())


def usual(tensor: Tensor, beyond: float = NEVER) -> Tensor:
    """Where a tensor has numbers that were computed: neither NaN, nor infinite, nor put there by a mask."""
    if tensor.is_floating_point():
        beyond = min(beyond, torch.finfo(tensor.dtype).max)  # of float16 the bound itself would be infinite
    return tensor.abs() <= beyond  # never true of NaN


def largest(tensor: Tensor, beyond: float = NEVER) -> float:
    """The size of the largest usual number; 0 where there is none."""
    sizes = tensor.detach().abs()
    if not (sizes.numel() and float(sizes.max()) <= beyond):  # never true of NaN
        sizes = sizes[usual(tensor, beyond)]
    return float(sizes.max()) if sizes.numel() else 0.0


def relative_difference(rebuilt: Tensor, official: Tensor) -> float:
    """The largest difference over the largest official number. Numbers beyond NEVER with the same sign do not
    differ: both sides mean that something is masked. Infinite for other shapes."""
    if rebuilt.shape != official.shape:
        return float("inf")
    off = distance(rebuilt.detach(), official)
    return float(off.max()) / (largest(official) or 1.0) if off.numel() else 0.0


def by_rounding(rebuilt: Tensor, official: Tensor, share: float = ROUNDED) -> bool:
    """Whether the difference is as small as other orders of operations make it, a few of them in a row.

    That is an upper bound, and no proof: a mistake may be as small.
    """
    if equal(rebuilt, official):
        return True
    if rebuilt.dtype != official.dtype or not official.is_floating_point():
        return False
    return relative_difference(rebuilt, official) <= share


def is_rounded_from(saved: Tensor, official: Tensor) -> bool:
    """Whether numbers of less precision may be the official ones, which differ by rounding at the most and
    were saved so: one rounded up then, its neighbour down."""
    if saved.shape != official.shape:
        return False
    neighbour = torch.finfo(saved.dtype).eps * official.abs().double()  # of what is infinite none is near
    bar = neighbour + ROUNDED * largest(official)
    return bool((distance(saved, official.to(saved.dtype)) <= bar).all())


def as_exact(rebuilt: Tensor, step: Tensor, official: Tensor, official_step: Tensor) -> bool:
    """Whether a rebuilt tensor is as near to the true result of its step as the official one is to its own.

    step, official_step  The step in float64, from what went into it on either side.

    In root mean square and in the largest distance, so that neither many small errors nor a single larger
    one get by. What masks put there has to be the official number.
    """
    if not rebuilt.shape == step.shape == official.shape == official_step.shape:
        return False
    if (odd := ~usual(official)).any() and bool((odd & apart(rebuilt, official)).any()):
        return False
    off, official_off = distance(rebuilt, step), distance(official, official_step)
    if not off.numel():
        return True
    if not bool((off.isfinite() & official_off.isfinite()).all()):
        return False
    lone = 0.5 * torch.finfo(official.dtype).eps * largest(official_step)  # one number, rounded once
    typical = max(float(official_off.square().mean().sqrt()), lone / off.numel() ** 0.5)
    return float(off.square().mean().sqrt()) <= AS_NEAR * typical and float(off.max()) <= AS_NEAR * max(
        float(official_off.max()), lone
    )


def distance(tensor: Tensor, exact: Tensor) -> Tensor:
    """How far each number is from the float64 result: 0 where both are NaN or both mean "never", infinite
    where only one does. float64."""
    one, other = tensor.double(), exact.double()
    off = (one - other).abs()
    if one.numel() and float(one.abs().max()) <= NEVER and float(other.abs().max()) <= NEVER:
        return off
    both = ~usual(one) & ~usual(other)
    alike = (one == other) | (one.isnan() & other.isnan()) | (both & (torch.sign(one) == torch.sign(other)))
    off = torch.where(usual(one) & usual(other), off, torch.full_like(off, torch.inf))
    return torch.where(alike, torch.zeros_like(off), off)


def reproduces(guess: Tensor, rebuilt: Tensor, official: Tensor) -> int:
    """Whether `guess` is the tensor at hand. 2: to the bit; 1: but for rounding, so much nearer than the
    official tensor that it is no accident; 0: no."""
    if guess.shape != rebuilt.shape:
        return 0
    if not _may_be(guess, rebuilt):
        return 0
    if bool(guess.isnan().all()):  # which everything can give
        return 0
    if identical(guess, rebuilt):
        return 2
    g, r = guess.detach().double(), rebuilt.detach().double()
    huge = ~(usual(g, BEYOND) & usual(r, BEYOND))
    fills = r.isfinite() & ((g - r).abs() <= ONE_SUM * r.abs())
    if bool((apart(g, r) & huge & ~fills).any()):
        return 0  # only one of them is finite, or something else was filled in
    if bool(huge.all()):
        return 1
    off = difference(g[~huge], r[~huge])
    size = before = float(r.abs()[~huge].max())
    if official.shape == rebuilt.shape:
        away = (official.detach().double() - r).abs()[~huge]
        away = away[away.isfinite()]
        before = float(away.max()) if len(away) else size
    return 1 if off <= NEARER * before and off <= REPRODUCED * size else 0


def _may_be(guess: Tensor, rebuilt: Tensor) -> bool:
    """Whether a few numbers agree so far that all of them may. Most guesses are told apart by these."""
    step = max(1, guess.numel() // FEW)
    g, r = guess.detach().flatten()[::step].double(), rebuilt.detach().flatten()[::step].double()
    off = (g - r).abs()[usual(g, BEYOND) & usual(r, BEYOND)]
    return not len(off) or float(off.max()) <= REPRODUCED * float(largest(rebuilt, BEYOND))


def ulp_distance(one: Tensor, other: Tensor) -> Tensor:
    """How many representable numbers lie between, element by element. int64.

    A float's bits, read as an integer, count the numbers from zero up; negative ones count backwards. So
    after mirroring the negative half, neighbours on the number line are neighbours as integers. Minus
    zero is a number of its own here, one step below zero: its bits are others. Of float64s, more than
    2⁶³ - 1 steps apart are counted as so many: int64 holds no more.
    """
    if one.dtype not in _INTEGERS:
        return (one != other).to(torch.int64)
    integer = _INTEGERS[one.dtype]

    def ladder(x: Tensor) -> Tensor:
        """The number of each value on the line of all values of its type."""
        bits = x.contiguous().view(integer).to(torch.int64)
        return torch.where(bits < 0, ~(bits & torch.iinfo(integer).max), bits)  # every bit but the sign

    first, second = ladder(one), ladder(other)
    distance = torch.maximum(first, second) - torch.minimum(first, second)
    return torch.where(distance < 0, torch.iinfo(torch.int64).max, distance)  # it did not fit
