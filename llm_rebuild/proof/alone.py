"""The rebuild in a process of its own: it has files and nothing else, and nothing official can be imported.

`proof/isolation.py` starts it with a folder that holds `job.json` (which weight file, which config.json,
which attention) and `inputs.safetensors` (token ids and masks), and finds `result.safetensors` there
afterwards. Neither side unpickles anything.

The forward pass runs twice. The first run gives the numbers. The second one, under the dispatcher's eyes,
gives every tensor that came from elsewhere than the weight file, the input or an operation of the rebuild:
whether it is an official one, only the process that has those can tell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llm_rebuild.checkpoints import NO_TAP, Recorder, Tap
from llm_rebuild.errors import InputError, one_line
from llm_rebuild.models import rebuild_for
from llm_rebuild.weights import Weights

# What may not be imported: the official models and tokenizers, and the side of this package that runs them.
REFUSED = ("transformers", "tokenizers", "sentence_transformers", "llm_rebuild.verify")
JOB, INPUTS, RESULT = "job.json", "inputs.safetensors", "result.safetensors"


class RefusedImportError(ImportError):
    """The rebuild asked for something official."""


class Refuse(MetaPathFinder):
    """Asked first whenever a module is imported; refuses the official ones."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if any(name == refused or name.startswith(f"{refused}.") for refused in REFUSED):
            raise RefusedImportError(f"the rebuild imports {name}, which a rebuild has to do without")


class Origins(TorchDispatchMode):
    """Knows, by the storage's address, which tensors are the rebuild's own, and reports every other one that
    goes into an operation. `outside` gets that tensor and the operation's name."""

    def __init__(self, own: Iterable[Tensor], outside: Callable[[Tensor, str], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._outside = outside
        self._own = {address(tensor) for tensor in own}
        self._alive: list[Tensor] = []  # so that no address is given to a second tensor meanwhile

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        foreign = set()
        for tensor in _tensors((args, kwargs)):
            if address(tensor) not in self._own:
                foreign.add(address(tensor))
                self._outside(tensor, function.overloadpacket.__name__)
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ == "set_":  # a window on memory that something else has filled
            return result
        for tensor in _tensors(result):
            if (
                address(tensor) not in self._own and address(tensor) not in foreign
            ):  # no view of a foreign one
                self._own.add(address(tensor))
                self._alive.append(tensor)
        return result


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def run(folder: Path) -> None:
    """Do the job in this folder."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])  # bits depend on it
    with safe_open(folder / INPUTS, framework="pt") as opened:
        inputs = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    rebuild = rebuild_for(json.loads(Path(job["config"]).read_text(encoding="utf-8")))
    weights = Weights.open(job["weights"])
    more: dict[str, Any] = {"use_cache": job["use_cache"]} if rebuild.architecture.generates else {}
    if "decoder_ids" in inputs:
        more |= {"decoder_ids": inputs["decoder_ids"], "decoder_mask": inputs["decoder_mask"]}

    def forward(tap: Tap) -> None:
        given = (inputs["token_ids"], inputs["mask"], weights, rebuild.config)
        rebuild.module.forward(*given, attention=job["attention"], tap=tap, **more)

    recorder = Recorder()
    foreign: dict[
        Any, tuple[Tensor, Tensor, str]
    ] = {}  # by place: itself, so that it stays there, and a copy

    def outside(tensor: Tensor, operation: str) -> None:
        place = (address(tensor), tensor.storage_offset(), tensor.shape, tensor.stride())
        if tensor.is_floating_point() and place not in foreign:
            foreign[place] = (tensor, tensor.detach().contiguous().clone(), operation)

    with torch.no_grad():
        forward(recorder.tap())
        with Origins([*weights.peek().values(), *inputs.values()], outside):
            forward(NO_TAP)
    official = [name for name in REFUSED if name in sys.modules]
    if official:
        raise RefusedImportError(f"the rebuild imported {official[0]}, which a rebuild has to do without")
    about = {
        "order": list(recorder.tensors),
        "operations": [operation for _, _, operation in foreign.values()],
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    tensors = {f"checkpoint/{name}": tensor.contiguous() for name, tensor in recorder.tensors.items()}
    tensors |= {f"foreign/{number}": kept for number, (_, kept, _) in enumerate(foreign.values())}
    try:
        save_file(tensors, folder / RESULT, metadata={"alone": json.dumps(about)})
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"the rebuild's tensors cannot be written to {folder.parent} ({one_line(error)}); make room "
            "there, or set TMPDIR to another folder"
        ) from None


if __name__ == "__main__":
    sys.meta_path.insert(0, Refuse())
    try:
        run(Path(sys.argv[1]))
    except (InputError, RefusedImportError) as error:
        sys.exit(f"{error}")  # on stderr, with exit code 1; the parent says it
