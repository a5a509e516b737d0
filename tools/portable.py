"""Run a Python command with kernels whose bits are the same on every x86-64 processor with AVX2.

    python -m tools.portable -m pytest docs

torch chooses its kernels by what the processor can do, and so does oneDNN, which computes torch's GELU; MKL
chooses its matrix products also by who made it. Each choice adds in another order, so each has other last
bits, and where a page shows nine digits, or a difference of one unit in the last place, another processor
prints something else. So a page's numbers are made and compared with these kernels, which are slower.
Everything else runs with those of the processor.
"""

from __future__ import annotations

import os
import platform
import sys

KERNELS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # without it, GELU has other bits where there is AVX-512
    "MKL_CBWR": "COMPATIBLE",  # MKL's one branch that is the same on processors of all makers
}


def there() -> bool:
    """Whether this processor has them."""
    return platform.machine().lower() in ("x86_64", "amd64")


def in_force() -> bool:
    """Whether this process computes so. torch reads them when it is imported, and never again."""
    return there() and KERNELS.items() <= os.environ.items()


def run(*arguments: str) -> None:
    """Go on as `python ARGUMENTS` with these kernels. Does not return."""
    os.execve(sys.executable, [sys.executable, *arguments], os.environ | KERNELS)


def need(module: str) -> None:
    """Go on as `python -m MODULE` with these kernels, where a process has others and could have them."""
    if there() and not in_force():
        run("-m", module, *sys.argv[1:])


if __name__ == "__main__":
    run(*sys.argv[1:])
