"""Graphemes: what a reader takes for one character, though it may be several code points.

    e + U+0301 (an accent)    🙂 + U+200D + 🙂    क + U+094D + ष    \\r + \\n

The pattern spells the rules of Unicode Standard Annex 29 (extended grapheme clusters). `regex` has
them as \\X, but that joins a letter to a virama that no consonant precedes (½ + U+094D + ष), and
knows marks of Unicode versions that the official library does not know yet.
"""

from __future__ import annotations

import regex

# Assigned or changed after Unicode 17, whose tables the tokenizers library 0.23 carries; the wide
# ranges also hold what is unassigned today.
NEW_MARKS = r"\u05c8-\u05cf\u0b53\u0b54\u1ade\u1adf\u1aec-\u1aff"

FORMER_PICTURES = r"\U0001f1ae\U0001f7da\U0001f7db\U0001f7f1-\U0001f7ff"  # reserved for them, then not
NEW_LINKERS = r"\u1cf5\u1cf6\U00011a3a"

MARK = rf"[[\p{{GCB=Extend}}\p{{GCB=SpacingMark}}\u200d]--[{NEW_MARKS}]]"
EXTEND = rf"[\p{{GCB=Extend}}--[{NEW_MARKS}]]"
CONSONANT = r"\p{InCB=Consonant}"
LINKER = rf"[\p{{InCB=Linker}}--[{NEW_LINKERS}]]"
JOINED = rf"[\p{{InCB=Extend}}{LINKER}]"
PREPENDED = r"\p{GCB=Prepend}"
PICTURE = rf"[\p{{Extended_Pictographic}}{FORMER_PICTURES}]"
FLAG_LETTER = r"\p{GCB=Regional_Indicator}"

GRAPHEME = regex.compile(
    rf"""(?V1x)
    \r\n
    | [\r\n\p{{GCB=Control}}]                            # these stand alone
    | {PREPENDED}* (?:                                   # signs that belong to what follows
          {CONSONANT} (?: {JOINED}* {LINKER} {JOINED}* {CONSONANT} )*     # conjuncts of Indic scripts
        | \p{{GCB=L}}* (?: \p{{GCB=V}}+ | \p{{GCB=LV}} \p{{GCB=V}}* | \p{{GCB=LVT}} ) \p{{GCB=T}}*
        | \p{{GCB=L}}+ | \p{{GCB=T}}+                    # Korean syllables, whole or in parts
        | {FLAG_LETTER}{{2}}                             # a flag: 🇩 + 🇪
        | {PICTURE} (?: {EXTEND}* \u200d {PICTURE} )*    # emoji in a row, joined
        | [^\r\n\p{{GCB=Control}}]
      ) {MARK}*                                          # and all accents and the like
    | {PREPENDED}+ {MARK}*                               # at the end of the text
    """
)
