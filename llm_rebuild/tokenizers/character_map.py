"""T5's normaliser: the replacements that come, precompiled, in spiece.model.

They are Unicode's NFKC (ﬁ -> fi, Ａ -> A, ½ -> 1⁄2) and a little more: control characters vanish, and
most kinds of white space become the space.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers.checks import Remembered
from llm_rebuild.tokenizers.graphemes import graphemes

Edit = tuple[int, str]  # how many characters of the text, and what they become


class CharacterMap:
    """The replacements of the model's normaliser, as the file stores them.

    4 bytes say how long the first half is, a trie (prefix tree) in a "double array" of 32-bit units;
    the second half holds the replacements, each ended by a zero byte. From the unit of a prefix, the
    unit for one more byte lies at `node ^ offset ^ byte`, and is the right one if its label is
    that byte. Format: the Darts-clone library; SentencePiece's PrefixMatcher.
    """

    def __init__(self, data: bytes) -> None:
        """`data` is precompiled_charsmap of the file's normalizer_spec."""
        (size,) = struct.unpack_from("<I", data) if len(data) >= 4 else (len(data),)
        if size % 4 or size < 4 or size > len(data) - 4:
            raise InputError("spiece.model: its character map is cut off: download it again")
        self.units: tuple[int, ...] = struct.unpack_from(f"<{size // 4}I", data, 4)
        self.replacements = data[4 + size :]
        self._rewritten = Remembered(self.rewrite, longest=5)
        # Most texts are plain ASCII, which the map of T5 leaves alone: no need to look up each letter.
        self._plain = all(self.find(chr(code)) is None for code in range(32, 127))

    def edits(self, text: str) -> list[Edit] | None:
        """How the text is rewritten, part by part; None if it stays as it is."""
        if self._plain and text.isascii() and text.isprintable():
            return None
        return [edit for grapheme in graphemes(text) for edit in self._rewritten[grapheme]]

    def rewrite(self, grapheme: str) -> list[Edit]:
        """Library: a grapheme of up to five bytes is looked up as a whole, then each character."""
        if len(grapheme.encode()) < 6 and (new := self.find(grapheme)) is not None:
            return [(len(grapheme), new)]
        return [(1, old if (new := self.find(old)) is None else new) for old in grapheme]

    def find(self, text: str) -> str | None:
        """What `text` becomes; None if it stays.

        Library: the *shortest* entry that `text` begins with replaces all of `text`. SentencePiece
        takes the longest and goes on behind it.
        """
        node = self.offset(0)
        for byte in text.encode():
            node ^= byte
            if byte == 0 or self.unit(node) & 0x800000FF != byte:  # the label
                return None
            is_entry = self.unit(node) >> 8 & 1
            node ^= self.offset(node)
            if is_entry:
                return self.replacement(self.unit(node) & 0x7FFFFFFF)
        return None

    def unit(self, node: int) -> int:
        """The 32 bits of a node. InputError where there is none."""
        if node >= len(self.units):
            raise InputError("spiece.model: its character map leads nowhere: download it again")
        return self.units[node]

    def offset(self, node: int) -> int:
        """22 bits, or 30 in steps of 256 where bit 9 is set."""
        unit = self.unit(node)
        return unit >> 10 << (8 if unit & 0x200 else 0)

    def replacement(self, start: int) -> str:
        """The text that begins at this byte of the second half. InputError where it does not end."""
        end = self.replacements.find(b"\0", start)
        if end < 0:
            raise InputError("spiece.model: its character map leads nowhere: download it again")
        return self.replacements[start:end].decode(errors="replace")


def owners(edits: Iterable[Edit]) -> list[tuple[int, int]]:
    """For every normalised character, the characters [start, end) of the text it comes from.

    The library notes for each new character how many others (beyond its own) were removed after it,
    or that it was inserted (1); a removal with nothing before it is forgotten, so what follows
    points too far left. We do the same, because offsets are compared.

    >>> owners([(1, "a"), (2, "é"), (1, "fi"), (1, "b")])
    [(0, 1), (1, 2), (3, 4), (3, 4), (4, 5)]
    """
    changes: list[int] = []
    for old_length, new in edits:
        longer = len(new) - old_length
        changes += [0] * (len(new) - max(longer, 0)) + [1] * max(longer, 0)
        if longer < 0 and changes:
            changes[-1] += longer
    spans, position = [], 0
    for change in changes:
        if change > 0:
            spans.append((position - 1, position) if position else (0, 0))
        else:
            spans.append((position, position + 1))
            position += 1 - change
    return spans
