"""What a process of ours may use, and when it has to end. On Linux; elsewhere these limits do not hold."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

ENFORCED = sys.platform == "linux"
MEGABYTE = 1024 * 1024
LARGEST = 2**62  # bytes of a limit, as the system counts them
PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Have this process killed when the one that started it ends, however that may be."""
    if ENFORCED:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(1)


def limit(memory: int) -> None:
    """So many MB of memory on top of what is in use now, and files no longer than that."""
    if not ENFORCED:
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    for kind, before in ((resource.RLIMIT_AS, pages * resource.getpagesize()), (resource.RLIMIT_FSIZE, 0)):
        hard = resource.getrlimit(kind)[1]  # what nobody may go above
        allowed = LARGEST if hard == resource.RLIM_INFINITY else hard
        most = min(before + memory * MEGABYTE, allowed)
        resource.setrlimit(kind, (most, most))
