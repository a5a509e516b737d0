"""The fingerprint of where numbers were made. Bits depend on it: torch promises equal results only for
the same release on the same hardware."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from llm_rebuild import __version__
from llm_rebuild.copies.local_copy import LocalCopy

KERNELS = (  # variables that tell torch and its libraries how to compute
    "ATEN_CPU_CAPABILITY", "DNNL_CPU_ISA_HINTS", "DNNL_DEFAULT_FPMATH_MODE", "DNNL_MAX_CPU_ISA", "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE", "MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS", "MKL_NUM_THREADS",
    "ONEDNN_CPU_ISA_HINTS", "ONEDNN_DEFAULT_FPMATH_MODE", "ONEDNN_MAX_CPU_ISA",
)  # fmt: skip


version = cache(metadata.version)  # of a package


def environment(dtype: str = "float32") -> dict[str, str | int]:
    """Versions, the system and its processor, threads, the vector instructions and what was said of them, and
    in which type of number. JSON-ready."""
    settings = [f"{name}={ascii(os.environ[name])[1:-1]:.20}" for name in KERNELS if name in os.environ]
    return {
        "llm_rebuild": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {processor()}",
        "cpu_capability": ", ".join([torch.backends.cpu.get_cpu_capability(), *settings])[:300],
        "threads": torch.get_num_threads(),
        "dtype": dtype,
    }


@cache
def processor() -> str:
    """Its name: of two makers' processors the last bits differ, though the instructions are the same."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def made_with(copy: LocalCopy) -> str:
    """What a page's numbers rest on, in three lines: the files and the libraries. No machine's name."""
    weights, which = copy.weights_file.name, f"revision {copy.revision or 'unknown'}"
    if copy.source == "miniature":
        which = "the miniature that ships with llm_rebuild"
    return (
        f"{copy.name}, {which}\n{weights}, sha256 {copy.sha256[weights]}\n"
        f"torch {torch.__version__.partition('+')[0]}, transformers {version('transformers')}, "
        f"llm_rebuild {__version__}"
    )
