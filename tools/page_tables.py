"""What the Python tokenizers know of Unicode, for their twins in JavaScript, so that it is never typed twice.

    python -m tools.page_tables            # writes docs/javascripts/rebuild/tokenizers/*_tables.js
    python -m tools.page_tables --check    # exit 1 if one of them is not what would be written now

A browser follows the Unicode version it was built with, as Python does; these tables follow none.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import regex

from llm_rebuild.tokenizers import bert_unicode, byte_bpe, graphemes, unicode_tables

FOLDER = Path(__file__).parent.parent / "docs" / "javascripts" / "rebuild" / "tokenizers"
HEADER = """\
// What {source} knows of Unicode: hexadecimal code points, both ends included.
// JSON inside, and a module around it, since not every browser imports JSON yet.
// Written by `python -m tools.page_tables`.{more}
"""
SOURCES = {
    "bert": (
        "llm_rebuild/tokenizers/bert_unicode.py",
        "\n//\n// `lower` has first-last/step+distance, `combining` the class of each mark that moves when\n"
        "// text is taken apart.",
    ),
    "byte_bpe": ("the pattern of llm_rebuild/tokenizers/byte_bpe.py", ""),
    "graphemes": ("llm_rebuild/tokenizers/graphemes.py", ""),
}
EVERY = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)


def ranges(characters: Iterable[str]) -> str:
    """Characters as a table of ranges.

    >>> ranges("CABZ")
    '41-43 5A'
    """
    entries: list[list[int]] = []
    for point in sorted(map(ord, characters)):
        if entries and entries[-1][1] == point - 1:
            entries[-1][1] = point
        else:
            entries.append([point, point])
    return " ".join(f"{first:X}" if first == last else f"{first:X}-{last:X}" for first, last in entries)


def lower_cases(lower: dict[str, str]) -> str:
    """Characters with their lower case as a table of `first-last/step+distance` entries.

    >>> lower_cases({"A": "a", "B": "b", "C": "c", "Ā": "ā", "Ă": "ă"})
    '41-43/1+20 100-102/2+1'
    """
    entries: list[list[int]] = []  # first, last, step (0: not known yet), distance
    for point, distance in sorted((ord(upper), ord(own) - ord(upper)) for upper, own in lower.items()):
        first, last, step, same = entries[-1] if entries else (0, 0, 0, 0)
        if entries and distance == same and point - last in ((step,) if step else (1, 2)):
            entries[-1] = [first, point, point - last, distance]
        else:
            entries.append([point, point, 0, distance])
    return " ".join(f"{a:X}-{b:X}/{step or 1}{distance:+X}" for a, b, step, distance in entries)


def combining_classes() -> dict[int, str]:
    """Where on a letter a mark goes -> the marks that go there, of those that WordPiece sorts."""
    marks = defaultdict(list)
    for character in bert_unicode.NORMALIZED:
        if unicodedata.combining(character):
            marks[unicodedata.combining(character)].append(character)
    return {number: ranges(marks[number]) for number in sorted(marks)}


def matches(pattern: str) -> str:
    """Every character that a pattern of `regex` matches, as ranges."""
    return ranges(regex.findall(f"(?V1){pattern}", EVERY))


def tables() -> dict[str, dict[str, object]]:
    """The tables of each file by the names that its JavaScript has for them."""
    bert = bert_unicode
    single = {upper: lower for upper, lower in bert.LOWER.items() if len(lower) == 1}
    return {
        "bert": {
            "control": ranges(bert.CONTROL),
            "whitespace": ranges(bert.WHITESPACE),
            "nonspacingMarks": ranges(bert.NONSPACING_MARKS),
            "punctuation": ranges(bert.PUNCTUATION),
            "normalized": ranges(bert.NORMALIZED),
            "combining": combining_classes(),
            "lower": lower_cases(single),
        },
        "byte_bpe": {
            "letter": matches(byte_bpe.LETTER),
            "digit": matches(byte_bpe.DIGIT),
            "space": matches(r"\s"),
            "newMarks": unicode_tables.TABLES["byte_bpe"]["new_marks"],
        },
        "graphemes": graphemes.RANGES,
    }


def modules() -> dict[Path, str]:
    """Each file, and the whole of it."""
    files = {}
    for name, entries in tables().items():
        source, more = SOURCES[name]
        header = HEADER.format(source=source, more=more)
        files[FOLDER / f"{name}_tables.js"] = (
            f"{header}export const TABLES = {json.dumps(entries, indent=2)};\n"
        )
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed files, write nothing"
    )
    check = parser.parse_args().check
    for file, content in modules().items():
        if not check:
            file.write_text(content, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != content:
            print(
                f"not what would be written now: {file.name}; run `python -m tools.page_tables`",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
