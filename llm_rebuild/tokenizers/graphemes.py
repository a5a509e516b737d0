"""Graphemes: what a reader takes for one character, though it may be several code points.

    e + U+0301 (an accent)    🙂 + U+200D + 🙂    क + U+094D + ष    \\r + \\n

The pattern spells the rules of Unicode Standard Annex 29 (extended grapheme clusters) as the official library
has them. `regex` has them as \\X, but that joins a letter to a virama that no consonant precedes
(½ + U+094D + ष); and its tables follow each new version of Unicode, where the `tokenizers` library 0.23 stays
at version 17. So the tables are frozen, in `unicode.json`; tests/tokenizers/test_unigram.py compares
them with the library, character by character.
"""

from __future__ import annotations

import re

from llm_rebuild.tokenizers.unicode_tables import TABLES, members

RANGES = TABLES["graphemes"]
EXTEND = RANGES["extend"]  # what belongs to the character before it: accents, vowel signs, selectors
SPACING = RANGES["spacing"]  # the same, with a width of its own
CONSONANT = RANGES["consonant"]  # consonants that grow together, …
LINKER = RANGES["linker"]  # … and the signs that make two of them do so (Indic conjuncts)
PREPENDED = RANGES["prepended"]  # signs that belong to what follows
PICTURE = RANGES["picture"]  # emoji, and places that were kept free for more
VOWELS = RANGES["vowels"]  # of Korean, and of Kirat Rai
CONTROL = RANGES["control"]  # what stands alone, beside \r and \n

MARK = f"[{members(EXTEND, SPACING)}\u200d]"
JOINED = f"[{members(EXTEND.replace('200C', '200D'))}]"  # between two consonants: a joiner, but no separator
PIC, CONS = f"[{members(PICTURE)}]", f"[{members(CONSONANT)}]"
# Korean letters: first ones, vowels, last ones. A syllable of two is [가개갸…]; those of three lie between.
FIRST, VOWEL, LAST = (f"[{members(t)}]" for t in ("1100-115F A960-A97C", VOWELS, "11A8-11FF D7CB-D7FB"))
OPEN = "[" + "".join(map(chr, range(0xAC00, 0xD7A4, 28))) + "]"

GRAPHEME = rf"""
    \r\n
    | [\r\n{members(CONTROL)}]                           # these stand alone
    | [{members(PREPENDED)}]* (?:                        # signs that belong to what follows
          {CONS} (?: {JOINED}* [{members(LINKER)}] {JOINED}* {CONS} )*    # conjuncts of Indic scripts
        | {FIRST}* (?: {VOWEL}+ | {OPEN} {VOWEL}* | [가-힣] ) {LAST}*
        | {FIRST}+ | {LAST}+                             # Korean syllables, whole or in parts
        | [\U0001f1e6-\U0001f1ff]{{2}}                   # a flag: 🇩 + 🇪
        | {PIC} (?: [{members(EXTEND)}]* \u200d {PIC} )* # emoji in a row, joined
        | [^\r\n{members(CONTROL)}]
      ) {MARK}*                                          # and all accents and the like
    | [{members(PREPENDED)}]+ {MARK}*                    # at the end of the text
"""


def graphemes(text: str) -> list[str]:
    """A text's graphemes, in order. The pattern is compiled when it is first needed, and then kept by `re`:
    it takes longer than all else that makes a tokenizer, and most texts are plain ASCII."""
    return re.findall(GRAPHEME, text, re.VERBOSE)
