"""Which checkpoint of the official models moved between releases of transformers and torch, and how far.

    python -m tools.drift                          all releases below, each in an environment of its own
    python -m tools.drift transformers==newest     with others beside them
    python -m tools.drift --page                   only the page, from the numbers that are there

Each environment is made by pip under build/drift and kept. The numbers go to docs/reference/drift.json, the
page to docs/reference/drift.md. Where a release that is newer than the pinned one moves something, the text
of an issue goes to build/drift/issue.md, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from tools.drift import LIBRARIES
from tools.drift.board import NEWER, board, issue, page

ROOT = Path(__file__).resolve().parents[2]
BUILD, NUMBERS, PAGE = (
    ROOT / part for part in ("build/drift", "docs/reference/drift.json", "docs/reference/drift.md")
)
# The last of its kind in each case; between them the official code changed.
TRANSFORMERS = ("4.57.6", "5.0.0", "5.8.1", "5.16.1", "5.24.0")
TORCH = ("2.11.0", "2.14.1")
NEWEST = "newest"
HELD = {*LIBRARIES, "huggingface-hub"}  # of the hub each transformers wants its own, and nothing here asks it


def pinned() -> dict[str, str]:
    """The releases of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    releases = dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    return {library: releases[library] for library in LIBRARIES}


def environments(more: list[str]) -> list[dict[str, str]]:
    """Every pair of releases that is tried: one library is moved, the other as pinned."""
    chosen = {"transformers": list(TRANSFORMERS), "torch": list(TORCH)}
    for word in more:
        library, _, release = word.partition("==")
        if library not in chosen or not re.fullmatch(rf"{NEWEST}|\d+(\.\w+)+", release):
            raise SystemExit(f"{word} is no release; write transformers==5.9.0 or torch=={NEWEST}")
        chosen[library].append(release)
    pins = pinned()
    pairs = [pins, *({**pins, library: r} for library in LIBRARIES for r in chosen[library])]
    return list({tuple(pair.values()): pair for pair in pairs}.values())


def requirements(pair: Mapping[str, str]) -> list[str]:
    """What pip installs: the two libraries as given, and what else the package imports."""
    names = {line: re.split(r"[<>=]", line)[0] for line in metadata.requires("llm-rebuild") or ()}
    others = [line for line, name in names.items() if "extra ==" not in line and name not in HELD]
    wanted = (library if release == NEWEST else f"{library}=={release}" for library, release in pair.items())
    return [*wanted, *others]


def probe(pair: Mapping[str, str]) -> Path | None:
    """Install a pair of releases, unless that was done, and run the probe there. Where the tensors are; None,
    and a line that says so, where pip or the release itself failed."""
    folder = BUILD / "-".join(pair[library] for library in LIBRARIES)
    python = folder / "venv" / "bin" / "python"
    try:
        if not (folder / "installed").exists() or NEWEST in pair.values():
            print(f"{folder.name}: installing", flush=True)
            venv.create(folder / "venv", clear=True, with_pip=True)
            command = [str(python), "-m", "pip", "install", "--quiet", *requirements(pair)]
            subprocess.run(command, check=True)
            (folder / "installed").touch()
        print(f"{folder.name}: running", flush=True)
        subprocess.run([str(python), "-m", "tools.drift.probe", str(folder)], check=True, cwd=ROOT)
    except subprocess.CalledProcessError as error:
        print(f"{folder.name} is left out: {error}", file=sys.stderr)
        return None
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("releases", nargs="*", help="more releases: transformers==5.9.0")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    options = parser.parse_args()
    if not options.page:
        folders = []
        for pair in environments(options.releases):
            folder = probe(pair)
            if folder is not None:
                folders.append(folder)
        numbers: dict[str, Any] = board(folders, pinned())
        NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    PAGE.write_text(page(numbers), encoding="utf-8")
    text = issue(numbers)
    if text:
        (BUILD / "issue.md").write_text(text, encoding="utf-8")
        print(f"{NEWER}: {BUILD / 'issue.md'}")
    return 1 if text else 0


if __name__ == "__main__":
    sys.exit(main())
