"""Weights that come in another form, pickled or in shards, as one safetensors file."""

from __future__ import annotations

import errno
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from llm_rebuild.errors import InputError, one_line
from llm_rebuild.files import read_json, to_disk

if TYPE_CHECKING:
    from torch import Tensor

INDEX, PICKLED = "model.safetensors.index.json", "pytorch_model.bin"


def one_weight_file(folder: Path, target: Path) -> None:
    """Write the weights of a folder that has them pickled, or in shards, as one safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    index = folder / INDEX
    tensors = _sharded(index) if index.is_file() else _unpickled(folder / PICKLED)
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()  # safetensors stores no two names for one tensor
        own[key] = tensor.clone().contiguous() if storage in storages else tensor.contiguous()
        storages.add(storage)
    try:
        save_file(own, target, metadata={"format": "pt"})
    except SafetensorError as error:  # which is how it tells of a full disk
        full = "os error 28" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, one_line(error)) from error
    with target.open("rb+") as file:
        to_disk(file)


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled file, by torch's safe loader: tensors and plain containers, no code."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a protocol that it may not know: then it is refused
            # Files of before 2020 are no zip and cannot be mapped; the loader is the safe one all the same.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        first = one_line(error).split(". ")[0]
        raise InputError(f"{path} is refused by the safe loader: {first}") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no table of tensors; give the model's own weights")
    for key, tensor in content.items():
        dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not isinstance(key, str) or not dense or tensor.nbytes > path.stat().st_size:
            raise InputError(f"{path} holds {key!r}, which is no plain tensor of its size")
    return content


def _sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of a sharded safetensors file, by its index: {"weight_map": {key: shard}}."""
    from llm_rebuild.weights import Weights

    try:
        weight_map = read_json(index)["weight_map"]
        shards = sorted(set(weight_map.values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index} is no index of shards ({one_line(error)})") from error
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        path = index.parent / str(shard)
        if Path(str(shard)).name != shard or not path.is_file():
            raise InputError(f"{index.name} names {shard!r}, which is not in {index.parent}; put it there")
        weights = Weights.open(path, dtype="auto")
        tensors |= {key: weights[key] for key, name in weight_map.items() if name == shard}
    return tensors
