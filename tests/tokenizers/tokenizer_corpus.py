"""What the tokenizer tests feed to both sides: real vocabularies, real lines, and lines made to hurt."""

from __future__ import annotations

import json
import os
import random
import shutil
import sysconfig
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# `make weekly` tries 60,000 lines, `python -m benchmarks.tokenizers` half a million and every code point.
LINES = int(os.environ.get("LLM_REBUILD_TOKENIZER_LINES", "6000"))
# Ideographs that are not normalised, what is private, and what no Unicode has assigned, or ever will: of
# these code points, which are alike, one in so many is tried, and those at the borders of each kind.
IDEOGRAPHS = (
    *range(0x3400, 0x4DC0),
    *range(0x4E00, 0xA000),
    *range(0x20000, 0x2F800),
    *range(0x2FA20, 0x40000),
)
PRIVATE = range(0xE000, 0xF900)
CATEGORIES = [unicodedata.category(chr(i)) for i in range(0x110000)]
UNASSIGNED = tuple(i for i in range(0x10000, 0x20000) if CATEGORIES[i] == "Cn")
FAR = (*range(0x40000, 0xE0000), *range(0xE1000, 0x110000))
MANY = LINES >= 60_000
BORDERS = {place for i in range(1, 0x110000) if CATEGORIES[i] != CATEGORIES[i - 1] for place in (i - 1, i)}
POINTS = sorted(
    {*range(0x110000)} - {*range(0xD800, 0xE000), *IDEOGRAPHS, *PRIVATE, *UNASSIGNED, *FAR}
    | {*IDEOGRAPHS[:: 1 if MANY else 64], *PRIVATE[:: 1 if MANY else 16], *UNASSIGNED[:: 1 if MANY else 16]}
    | {*FAR[:: 1 if LINES >= 500_000 else 64 if MANY else 512]}
    | BORDERS.difference(range(0xD800, 0xE000))
)
VOCABULARIES = Path(os.environ.get("LLM_REBUILD_VOCAB", PROJECT.parent / "shared" / "vocab"))


def vocabulary_folder(name: str, files: Iterable[str]) -> Path:
    """Where the real vocabulary lies; skips the test, saying how to get it, if it is not there."""
    folder = VOCABULARIES / name
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)} in {folder}: set LLM_REBUILD_VOCAB to a folder that has {name}/"
        )
    return folder


def model_folder(source: Path, model_type: str, target: Path) -> Path:
    """A folder as a download makes it: the vocabulary files and a config.json."""
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
    (target / "config.json").write_text(json.dumps({"model_type": model_type}))
    return target


@cache
def real_lines(limit: int) -> list[str]:
    """Different lines of Python's own library and of the READMEs and sources of installed packages."""
    paths = sysconfig.get_paths()
    readmes = Path(paths["purelib"]).glob("*.dist-info/METADATA")
    library = Path(paths["stdlib"]).rglob("*.py")
    packages = Path(paths["purelib"]).glob("*/*.py")
    lines: dict[str, None] = {}
    for files in (readmes, library, packages):
        for file in sorted(files) if len(lines) < limit else ():
            lines.update(dict.fromkeys(file.read_text(encoding="utf-8", errors="replace").split("\n")))
            if len(lines) >= limit:
                break
    return list(lines)[:limit]


def every_code_point(per_line: int, between: str) -> Iterator[str]:
    """Lines of shuffled characters that together hold all of `POINTS`.

    Before every second, on average, stands one of `between`, so that classes of characters meet.
    """
    draw = random.Random(0)
    points = [chr(i) for i in POINTS]
    draw.shuffle(points)
    for start in range(0, len(points), per_line):
        line = points[start : start + per_line]
        yield "".join(draw.choice(between) * draw.randrange(2) + point for point in line)


def fuzz(count: int, pieces: list[str], seed: int) -> Iterator[str]:
    """Lines of up to 12 random pieces; of each ten, one piece is a random character of Unicode."""
    draw = random.Random(seed)
    for _ in range(count):
        line = [
            draw.choice(pieces) if draw.random() < 0.9 else chr(draw.choice(PLANES) + draw.randrange(256))
            for _ in range(draw.randrange(13))
        ]
        yield "".join(line)


# Where characters live that normalise, join, or are letters: 256 from each.
PLANES = [*range(0, 0x3200, 256), 0xA600, 0xAC00, 0xF900, 0xFB00, 0xFE00, 0xFF00, 0x1D400, 0x1F300, 0x1F600]
