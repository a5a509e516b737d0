"""What the official tokenizer knows of Unicode, frozen: it must not change when Python's tables do.

Python's `unicodedata` and `str.lower` follow the Unicode version of the interpreter (3.10 has 13.0, 3.11
has 14.0, 3.12 has 15.0, ...). The `tokenizers` library 0.23.3 is compiled with three versions at once: its
categories are those of Unicode 8.0, its decompositions those of 9.0, its lower case that of 17.0. So a
mark added in Unicode 10 is no mark to it, and asking Python would give other tokens for such text.

Each table was read off the library by giving it every character there is, one at a time;
tests/tokenizers/test_wordpiece.py does so again and compares. Only one thing is still asked of Python: how
a character of `NORMALIZED` decomposes. The Unicode Consortium promises never to change that for a
character once assigned, and all of these are older than any Python that runs this package.
"""

from __future__ import annotations

from llm_rebuild.tokenizers.unicode_tables import TABLES, characters


def lower_cases(entries: str) -> dict[str, str]:
    """The lower case of each character in a table of `first-last/step+distance` entries.

    >>> lower_cases("41-43/1+32 100-102/2+1")
    {'A': 'a', 'B': 'b', 'C': 'c', 'Ā': 'ā', 'Ă': 'ă'}
    """
    pairs: dict[str, str] = {}
    for entry in entries.split():
        ends, _, rule = entry.partition("/")
        first, last = (int(end, 16) for end in ends.split("-"))
        step, distance = int(rule[0]), int(rule[1:])
        pairs |= {chr(point): chr(point + distance) for point in range(first, last + 1, step)}
    return pairs


RANGES = TABLES["bert"]
# Control and format characters (Cc, Cf), except tab, line feed and carriage return, which count as white
# space; and U+FFFD, which stands for what could not be decoded. Private use is in is_private_use below.
CONTROL = characters(RANGES["control"])
# Whitespace, once the control characters are gone. (Python's str.isspace also names seven controls.)
WHITESPACE = characters(RANGES["whitespace"])
# Nonspacing marks (Mn): what is drawn onto the character before it. Marks that decompose are not here: their
# parts are.
NONSPACING_MARKS = characters(RANGES["nonspacing_marks"])
# Punctuation (P*), and every ASCII character that is neither letter, digit, space nor control: BERT counts
# $ + < = > ^ ` | ~ as punctuation although Unicode calls them symbols.
PUNCTUATION = characters(RANGES["punctuation"])
# Characters that have a canonical decomposition, or a combining class, which is to say: everything NFD can
# change or move.
NORMALIZED = characters(RANGES["normalized"])
# The only character whose lower case is two: I with a dot above gives i and a combining dot. And a capital
# sigma gives σ even at the end of a word, where str.lower gives ς: one character is looked at at a time.
LOWER = lower_cases(RANGES["lower"]) | {"\u0130": "i\u0307"}


def is_private_use(character: str) -> bool:
    """Private use (Co): 137,468 code points that Unicode promises never to assign.

    >>> is_private_use("\ue000"), is_private_use("e")
    (True, False)
    """
    return (
        "\ue000" <= character <= "\uf8ff"
        or "\U000f0000" <= character <= "\U000ffffd"
        or "\U00100000" <= character <= "\U0010fffd"
    )


def is_chinese(character: str) -> bool:
    """A CJK ideograph, by the blocks that BERT's authors listed (not kana, not hangul).

    U+2B820 to U+2B91F belong to the last-but-one block, and to the list of BERT's authors, but not to the
    library's: a slip of one digit there, which we repeat in order to equal it.

    >>> is_chinese("中"), is_chinese("の")
    (True, False)
    """
    return character >= "\u3400" and (
        "\u3400" <= character <= "\u4dbf"
        or "\u4e00" <= character <= "\u9fff"
        or "\uf900" <= character <= "\ufaff"
        or "\U00020000" <= character <= "\U0002a6df"
        or "\U0002a700" <= character <= "\U0002b81f"
        or "\U0002b920" <= character <= "\U0002ceaf"
        or "\U0002f800" <= character <= "\U0002fa1f"
    )
