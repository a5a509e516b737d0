"""The browser in which the site is looked at, printed and drawn: a Chromium of this machine.

Debian's headless shell has no menus, no start page and no extensions: of eight pages of this site it takes a
third of the processor's time of the whole program. Where it is not installed the whole program does.
"""

from __future__ import annotations

import os
import shutil

NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
)


def executable() -> str | None:
    """Its path: what the environment's CHROMIUM says, or the first of `NAMES` that is there. None: there is
    none, and Playwright looks for its own."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


if __name__ == "__main__":
    raise SystemExit(executable() is None)
