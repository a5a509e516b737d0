"""Dumps that are no dumps: one line each, and nothing is unpickled."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib import format as npy
from safetensors.torch import save_file

from llm_rebuild.dumps.files import MOST, read_dump, write_dump
from llm_rebuild.errors import InputError


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("unpickled",)


def lying(shape: tuple[int, ...]) -> bytes:
    """An array whose header says more than there is."""
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + b"\0" * 16


def npz_of(file: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file


def array(values: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values))
    return stream.getvalue()


def objects() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    return stream.getvalue()


NPY = {
    "objects": (objects(), "nothing is unpickled"),
    "a pickle": (pickle.dumps(Bomb()), "is not a whole numpy array"),
    "empty": (b"", "is not a whole numpy array"),
    "cut in its header": (array([1.0])[:20], "is not a whole numpy array"),
    "cut in its numbers": (array([1.0] * 9)[:-4], "is not a whole numpy array"),
    "a terabyte": (lying((2**38,)), "more than the file holds"),
    "an overflow": (lying((2**62, 2**62)), "more than the file holds"),
    "many axes": (lying((1,) * 33), "has 33 axes; 32 are the most"),
    "axes below zero": (lying((-1, -4)), "numpy array|more than"),
    "complex": (array([1j]), "holds complex128; save it in float32"),
    "words": (array(["a"]), "nothing is unpickled"),
    "records": (array(np.zeros(2, dtype=[("a", "<f4")])), "nothing is unpickled"),
    "long doubles": (array(np.zeros(2, dtype=np.longdouble)), "save it in float32"),
}


@pytest.mark.parametrize("kind", NPY)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_arrays_that_are_none(
    kind: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content, words = NPY[kind]
    file = tmp_path / f"x.{ending}"
    if ending == "npy":
        file.write_bytes(content)
    else:
        npz_of(file, {"a.npy": content})
    with pytest.raises(InputError, match=words) as refused:
        read_dump(file)
    assert "\n" not in str(refused.value)
    assert not Path("unpickled").exists()


OTHER: dict[str, Callable[[Path], Path]] = {
    "no such file": lambda folder: folder / "x.npz",
    "another ending": lambda folder: write(folder / "x.pt", b"PK"),
    "an empty folder": lambda folder: folder,
    "no archive": lambda folder: write(folder / "x.npz", b"PK\x03\x04 and so on"),
    "an archive cut short": lambda folder: cut(npz_of(folder / "x.npz", {"a.npy": array([1.0] * 999)})),
    "no tensor": lambda folder: npz_of(folder / "x.npz", {}),
    "twins": lambda folder: twins(folder / "x.npz"),
    "no safetensors": lambda folder: write(folder / "x.safetensors", b"\xff" * 40),
    "numbers of eight bits": lambda folder: saved(folder, torch.zeros(4).to(torch.float8_e4m3fn)),
    "complex numbers": lambda folder: saved(folder, torch.zeros(4, dtype=torch.complex64)),
    "no JSON": lambda folder: write(folder / "x.json", b"{"),
    "printed tensors": lambda folder: write(
        folder / "x.json", json.dumps({"module_path": "a", "outputs": {"value": ["tensor(1.)"]}}).encode()
    ),
    "a tensor elsewhere": lambda folder: write(
        folder / "x.json",
        json.dumps({"module_path": "a", "outputs": {"value": "../../etc/x.safetensors"}}).encode(),
    ),
    "JSON of nothing": lambda folder: write(folder / "x.json", b'{"children": [1, null, "a", {}]}'),
    "a pipe": lambda folder: pipe(folder / "x.npz"),
    **{
        f"packed by method {method}, and broken": lambda folder, method=method: broken(
            folder / "x.npz", method
        )
        for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    },
}


def saved(folder: Path, tensor: torch.Tensor) -> Path:
    save_file({"a": tensor}, folder / "x.safetensors")
    return folder / "x.safetensors"


def write(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def cut(file: Path) -> Path:
    return write(file, file.read_bytes()[:-60])


def twins(file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", array([1.0]))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", array([2.0]))
    return file


def broken(file: Path, method: int) -> Path:
    """What is packed there has other bytes in its middle."""
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.npy", array(np.random.default_rng(0).random(500)))
    content = file.read_bytes()
    return write(file, content[:60] + bytes(reversed(content[60:90])) + content[90:])


def pipe(file: Path) -> Path:
    os.mkfifo(file)
    return file


@pytest.mark.parametrize("kind", OTHER)
def test_files_that_are_no_dumps(kind: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        read_dump(OTHER[kind](tmp_path))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_no_more_than_can_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST == 10_000
    monkeypatch.setattr("llm_rebuild.dumps.files.MOST", 3)
    file = npz_of(tmp_path / "x.npz", {f"{number}.npy": array([1.0]) for number in range(4)})
    with pytest.raises(InputError, match="more than 3 tensors"):
        read_dump(file)


def test_what_unpacks_to_more_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_rebuild.dumps.files.LARGEST", 1000)
    file = npz_of(tmp_path / "x.npz", {"a.npy": b"no array", "b.npy": bytes(1000)})
    with pytest.raises(InputError, match="more than"):
        read_dump(file)


def test_every_kind_is_read(tmp_path: Path) -> None:
    tensors = {"../a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
    write_dump(tensors, tmp_path / "x.npz")
    write_dump(tensors, tmp_path / "x.safetensors")
    folder = tmp_path / "folder" / "layers"
    folder.mkdir(parents=True)
    np.save(folder / "q.npy", np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)))
    for file in ("x.npz", "x.safetensors"):
        read = read_dump(tmp_path / file)
        assert read.keys() == tensors.keys()  # a name is a name, and no path
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert torch.equal(read_dump(tmp_path / "folder")["layers/q"], tensors["../a"])


def test_what_the_debugger_of_transformers_writes(tmp_path: Path) -> None:
    save_file({"data": torch.ones(2)}, tmp_path / "inner_outputs.safetensors")
    tree = {
        "module_path": "Model",
        "children": [{"module_path": "Model.inner", "outputs": {"value": "./inner_outputs.safetensors"}}],
    }
    file = tmp_path / "Model_debug_tree_FULL_TENSORS.json"
    file.write_text(json.dumps(tree))
    assert list(read_dump(file)) == ["Model.inner"]
    assert list(read_dump(tmp_path)) == ["Model.inner"]
