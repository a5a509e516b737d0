"""The fingerprint of where numbers were made. Bits depend on it: torch promises equal results only for
the same release on the same hardware."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

import torch

from llm_rebuild import __version__
from llm_rebuild.copies.local_copy import LocalCopy


def environment(dtype: str = "float32") -> dict[str, str | int]:
    """Versions, threads, the processor's vector instructions, and in which type of number. JSON-ready."""
    return {
        "llm_rebuild": __version__,
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
    }


@cache
def _version(package: str) -> str:
    return metadata.version(package)


def made_with(copy: LocalCopy) -> str:
    """What a page's numbers rest on, in three lines: the files and the libraries. No machine's name."""
    weights, which = copy.weights_file.name, f"revision {copy.revision or 'unknown'}"
    if copy.source == "miniature":
        which = "the miniature that ships with llm_rebuild"
    return (
        f"{copy.name}, {which}\n{weights}, sha256 {copy.sha256[weights]}\n"
        f"torch {torch.__version__.partition('+')[0]}, transformers {_version('transformers')}, "
        f"llm_rebuild {__version__}"
    )
