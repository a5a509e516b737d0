"""Which function of an official tensor is this one: scaled, shifted, through GELU, masked, normalised?

Each test looks at a few rows first, and at all of them only where these agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llm_rebuild.verify.equality import FILLED, ROUNDED, difference, largest
from llm_rebuild.verify.transforms import ACTIVATIONS, Function, layer_norm, rms_norm, spelled, to_length_one

ROWS = 4  # that are looked at first

Answer = tuple[str, float] | None  # words around the name, and the difference


@dataclass(frozen=True)
class Pair:
    """The tensor and an official one in the same shape, [rows, width], and a few rows of both.

    rounding  The difference that counts as rounding.
    weights   The vectors of the weight file that are as long as a row.
    """

    target: Tensor
    official: Tensor
    few: Tensor
    official_few: Tensor
    rounding: float
    weights: Mapping[str, Tensor]

    def answer(self, words: str, function: Function, tolerance: float = 1.0) -> Answer:
        """The answer, if a function of the official rows is the tensor, but for a few times the rounding."""
        for target, official in ((self.few, self.official_few), (self.target, self.official)):
            off = difference(target, function(official))
            if off > tolerance * self.rounding:
                return None
        return words, off


def pair_of(target: Tensor, official: Tensor, rounding: float, weights: Mapping[str, Tensor]) -> Pair:
    """Two tensors of one size as rows, and a few rows of both. weights: of the file, by key."""
    width = target.shape[-1] if target.dim() else 1
    target = target.reshape(-1, width)
    official = official.reshape(target.shape)
    some = torch.linspace(0, len(target) - 1, min(ROWS, len(target)), dtype=torch.float64).long()
    vectors = {k: w for k, w in weights.items() if w.dim() == 1 and len(w) == width}
    return Pair(target, official, target[some], official[some], rounding, vectors)


def scaled_or_shifted(
    target: Tensor, official: Tensor, weights: Mapping[str, Tensor]
) -> tuple[bool, str, str] | None:
    """Whether a tensor is the official one times a number, or with the same numbers added to each row: then
    whether it is a factor, the words, and the key of the weight that was added, if it is one."""
    pair = pair_of(target, official, max(largest(target), 1e-12) * ROUNDED, weights)
    if scaled := _scaled(pair):
        return True, scaled[0], ""
    if shifted := _shifted(pair):
        return False, shifted[0], next((key for key in pair.weights if shifted[0].endswith(f" {key}")), "")
    return None


def explain(pair: Pair) -> tuple[int, str, float] | None:
    """What was done to the official rows to get the target's: which test says so, the words, the difference
    that is left. None where no test has an answer."""
    for number, test in enumerate(_TESTS):
        if answer := test(pair):
            return number, *answer
    return None


def _scaled(pair: Pair) -> Answer:
    official = pair.official_few.flatten()
    at = int(torch.where(official.isfinite(), official.abs(), 0.0).argmax())
    factor = float(pair.few.flatten()[at] / official[at])
    if not 1e-6 < abs(factor) < 1e6 or abs(factor - 1.0) < 1e-4:
        return None
    return pair.answer(f"{{}}, scaled by {spelled(factor)}", lambda x: x * factor)


def _shifted(pair: Pair) -> Answer:
    """The same number added everywhere, or the same numbers to every row."""
    apart = pair.few - pair.official_few
    by = torch.where(apart.isfinite(), apart, torch.nan).nanmedian(dim=0).values.nan_to_num(0.0)
    middle = float(by.median())
    if middle and (answer := pair.answer(f"{{}}, shifted by {middle:.6g}", lambda x: x + middle)):
        return answer
    answer = pair.answer("", lambda x: x + by, 2) if len(pair.target) > 1 else None
    if answer is None:
        return None
    for sign, word in ((1.0, "plus"), (-1.0, "without")):
        for key, weight in pair.weights.items():
            if difference(by * sign, weight) <= 2 * pair.rounding:
                return f"{{}}, {word} {key}", answer[1]
    return "{}, plus the same numbers in every row (a bias that is no tensor of the weight file)", answer[1]


_OF_NUMBERS: dict[str, Function] = {
    "exact GELU of {}": ACTIVATIONS["gelu"],
    "tanh GELU of {}": ACTIVATIONS["gelu_pytorch_tanh"],
    "sigmoid GELU of {}": ACTIVATIONS["quick_gelu"],
    "ReLU of {}": ACTIVATIONS["relu"],
    "SiLU of {}": ACTIVATIONS["silu"],
    "tanh of {}": ACTIVATIONS["tanh"],
    "sigmoid of {}": ACTIVATIONS["sigmoid"],
    "exp of {}": torch.exp,
    "the square of {}": torch.square,
}
_OF_ROWS: dict[str, tuple[Function, float]] = {  # and how many times the rounding they may be off
    "softmax of {} over its last axis": (lambda x: x.softmax(dim=-1), 1),
    "log-softmax of {} over its last axis": (lambda x: x.log_softmax(dim=-1), 1),
    "LayerNorm without weight and bias of {}": (layer_norm, 50),
    "RMSNorm without weight of {}": (rms_norm, 50),
    "each row brought to length 1 of {}": (to_length_one, 50),
}


def _of_numbers(pair: Pair) -> Answer:
    answers = (pair.answer(words, function) for words, function in _OF_NUMBERS.items())
    return next((answer for answer in answers if answer), None)


def _of_rows(pair: Pair) -> Answer:
    if pair.target.shape[-1] == 1:
        return None
    for words, (function, tolerance) in _OF_ROWS.items():
        if answer := pair.answer(words, function, tolerance):
            return answer
    if difference(pair.few.softmax(dim=-1), pair.official_few) > ROUNDED:
        return None
    off = difference(pair.target.softmax(dim=-1), pair.official)
    return "what becomes {} by a softmax over its last axis", off


def _masked(pair: Pair) -> Answer:
    """Equal where it is not filled, and filled with one value: on either side."""
    same = pair.target == pair.official
    if not 0.02 < float(same.float().mean()) < 0.9999:
        return None
    for side, words in (
        (pair.target, "{{}}, masked: {} of {} numbers are {}{}"),
        (pair.official, "{{}}, without its mask: there {} of {} numbers are {}{}"),
    ):
        values = side[~same]
        one, low = bool((values == values[0]).all()), bool((values <= FILLED).all())
        if low or (one and float(values[0]) == 0.0):
            fill = f"{float(values[0]):.4g}" if one else "below -9000"
            return words.format(len(values), same.numel(), fill, _pattern(~same)), 0.0
    return None


def _pattern(filled: Tensor) -> str:
    """Where a mask lies, if in every square it is what is above the diagonal, or below. [rows, width]"""
    width = filled.shape[-1]
    if width < 2 or len(filled) % width:
        return ""
    squares = filled.reshape(-1, width, width)
    one = torch.ones(width, width, dtype=torch.bool)
    for mask, words in (
        (one.triu(1), "above the diagonal"),
        (one.triu(), "on and above the diagonal"),
        (one.tril(-1), "below the diagonal"),
    ):
        if bool((squares == mask).all()):
            return f", {words}"
    return ""


def _softmaxed_elsewhere(pair: Pair) -> Answer:
    """Softmax over the last axis but one, where blocks of rows are as long as rows: attention's mistake."""
    width = pair.target.shape[-1]
    if (
        len(pair.target) % width
        or width < 2
        or difference(pair.target[:width].sum(0), torch.ones(width)) > 1e-3
    ):
        return None
    result = pair.official.reshape(-1, width, width).softmax(dim=-2)
    off = difference(pair.target, result.reshape(pair.target.shape))
    return ("softmax of {} over its last axis but one", off) if off <= pair.rounding else None


def _stretched(pair: Pair) -> Answer:
    """A norm of each row, then stretched and moved by the same numbers in every row."""
    target = pair.target
    if len(target) < 4:
        return None
    for words, function in (("LayerNorm", layer_norm), ("RMSNorm", rms_norm)):
        normed = function(pair.official)
        centred, mean = normed - normed.mean(dim=0), target.mean(dim=0)
        stretch = (centred * (target - mean)).sum(dim=0) / centred.square().sum(dim=0)
        move = mean - stretch * normed.mean(dim=0)
        off = difference(target, normed * stretch + move)
        if not off <= 50 * pair.rounding:
            continue
        names = [
            key
            for numbers in (stretch, move)
            for key, weight in pair.weights.items()
            if difference(numbers, weight) <= 1e-2 * float(weight.abs().max())
        ]
        of = " and ".join(dict.fromkeys(names)) or "numbers that are not in the weight file"
        return f"{words} of {{}}, with {of}", off
    return None


_TESTS: tuple[Callable[[Pair], Answer], ...] = (
    _scaled,
    _shifted,
    _of_numbers,
    _masked,
    _of_rows,
    _softmaxed_elsewhere,
    _stretched,
)
