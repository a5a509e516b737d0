"""Tensors of other libraries: what shows its numbers is taken by every function that takes tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from llm_rebuild import verify
from llm_rebuild.checkpoints import Recorder, plain
from llm_rebuild.errors import InputError
from llm_rebuild.verify.capture import Capture

MINIATURE = Path(__file__).parents[1] / "llm_rebuild" / "miniatures" / "gpt2"


class Lent:
    """What another library might hold: nothing but `__dlpack__`."""

    def __init__(self, tensor: Tensor, device: int = 1) -> None:
        self._tensor, self._device = tensor, device

    def __dlpack__(self, **asked: Any) -> Any:
        if self._device != 1:
            raise BufferError("it lies on a device of another kind")
        return self._tensor.__dlpack__(**asked)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0


class Shown:
    """Nothing but `__array__`."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if isinstance(self._array, Exception):
            raise self._array
        return self._array


class OnAnotherDevice(Lent):
    """As MLX and CuPy have it on a graphics card: what comes by `__array__` is a copy, or is refused."""

    __array__ = Shown.__array__

    def __init__(self, array: Any) -> None:
        super().__init__(torch.zeros(1), device=8)
        self._array = array


def of_jax(tensor: Tensor) -> Any:
    return pytest.importorskip("jax.numpy").asarray(tensor.numpy())


def backwards(tensor: Tensor) -> Any:
    return np.flip(np.flip(tensor.numpy()).copy())


def frozen(tensor: Tensor) -> Any:
    array = tensor.numpy().copy()
    array.setflags(write=False)
    return array


KINDS = {
    "numpy": Tensor.numpy,
    "numpy, columns first": lambda t: np.asfortranarray(t.numpy()),
    "numpy, of the other byte order": lambda t: t.numpy().astype(">f4"),
    "numpy, backwards": backwards,
    "numpy, not to be written": frozen,
    "dlpack": Lent,
    "array": lambda t: Shown(t.numpy()),
    "another device, copied": lambda t: OnAnotherDevice(t.numpy()),
    "jax": of_jax,
}


@pytest.fixture(scope="module")
def truth() -> Capture:
    return verify.capture(MINIATURE, "The dog")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_compared_judged_and_found(kind: str, truth: Capture) -> None:
    official = truth.tensors["h.1.attn.context"]
    mine = KINDS[kind](official.clone())
    assert verify.compare(mine, truth["h.1.attn.context"]).identical
    assert verify.compare(mine, official).identical
    verdicts = {v.name: v.verdict for v in verify.judge({"h.1.attn.context": mine}, truth).verdicts}
    assert verdicts["h.1.attn.context"] == "bit-identical"
    assert truth.find(mine).best.name == "h.1.attn.context"
    recorder = Recorder()
    recorder.tap()("a", mine)
    assert torch.equal(recorder.tensors["a"], official)


REFUSED = {
    "objects": (np.array([object()]), "a ndarray of object; it takes one of real numbers"),
    "texts": (np.array(["a", "b"]), "a ndarray of <U1; it takes"),
    "complex": (np.zeros(3, dtype=np.complex64), "a ndarray of complex64; it takes one of real numbers"),
    "dates": (np.zeros(3, dtype="datetime64[s]"), "a ndarray of datetime64"),
    "records": (np.zeros(3, dtype=[("a", "f4")]), "a ndarray of"),
    "long doubles": (np.zeros(3, dtype=np.longdouble), "cannot be had here"),
    "another device": (Lent(torch.zeros(3), device=2), r"a Lent whose numbers cannot be had here \("),
    "an error of its own": (
        Shown(RuntimeError("two\nlines")),
        "had here (two lines); give a copy",
    ),
    "no array after all": (Shown("text"), "cannot be had here"),
    "a class": (np.ndarray, "a type; it takes a tensor"),
    "a list": ([1.0], "a list; it takes a tensor"),
    "a shape without numbers": (torch.empty(3, device="meta"), "on meta"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_numbers_here_is_refused_in_a_line(kind: str, truth: Capture) -> None:
    value, words = REFUSED[kind]
    for refuse in (
        lambda: plain(value, "it is"),
        lambda: verify.compare(value, torch.zeros(3)),
        lambda: verify.judge({"ln_f": value}, truth),
        lambda: truth.find(value),
    ):
        with pytest.raises(InputError) as refused:
            refuse()
        assert words.replace("\\", "") in str(refused.value)
        assert "\n" not in str(refused.value)


def test_an_official_copy_is_one_in_any_library_s_hands(truth: Capture) -> None:
    copy = truth["ln_f"].tensor
    for lent in (copy.numpy(), Lent(copy), Shown(copy.numpy())):
        with pytest.raises(InputError, match="copy of the official ln_f"):
            verify.compare(lent, truth["ln_f"])
        with pytest.raises(InputError, match="copy of the official ln_f"):
            verify.judge({"ln_f": lent}, truth)
    with pytest.raises(InputError, match="compared with itself"):
        verify.compare(truth.tensors["ln_f"].numpy(), truth["ln_f"])
