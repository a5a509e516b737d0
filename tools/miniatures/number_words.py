"""The text of the T5 miniature: whole numbers below a million as English and as German words.

English comes with and without the "and" of British usage ("four hundred and seven"); German is one word
("vierhundertsieben"). Which numbers are held out follows from the number alone, so the split is the same for
the tokenizer, the training and the evaluation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

LIMIT = 1_000_000

TO_GERMAN = "translate English to German: "
TO_ENGLISH = "translate German to English: "

_ENGLISH_BELOW_20 = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_ENGLISH_TENS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

_GERMAN_BELOW_20 = [
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf",
    "zwölf", "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
]  # fmt: skip
_GERMAN_TENS = [
    "_", "_", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig",
]  # fmt: skip


def english(number: int, *, british: bool = False) -> str:
    """`427` → "four hundred twenty-seven"; British: "four hundred and twenty-seven"."""
    _check(number)
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _english_below_1000(rest, british)
    words = _english_below_1000(thousands, british) + " thousand"
    if rest:
        joint = " and " if british and rest < 100 else " "
        words += joint + _english_below_1000(rest, british)
    return words


def _english_below_1000(number: int, british: bool) -> str:
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _english_below_100(rest)
    words = f"{_ENGLISH_BELOW_20[hundreds]} hundred"
    if rest:
        words += (" and " if british else " ") + _english_below_100(rest)
    return words


def _english_below_100(number: int) -> str:
    if number < 20:
        return _ENGLISH_BELOW_20[number]
    tens, ones = divmod(number, 10)
    return _ENGLISH_TENS[tens] + (f"-{_ENGLISH_BELOW_20[ones]}" if ones else "")


def german(number: int) -> str:
    """`427` → "vierhundertsiebenundzwanzig": one word, and the ones stand before the tens."""
    _check(number)
    thousands, rest = divmod(number, 1000)
    word = _german_below_1000(thousands, before_noun=True) + "tausend" if thousands else ""
    if rest or not word:
        word += _german_below_1000(rest, before_noun=False)
    return word


def _german_below_1000(number: int, *, before_noun: bool) -> str:
    hundreds, rest = divmod(number, 100)
    word = _german_one(hundreds, before_noun=True) + "hundert" if hundreds else ""
    if rest or not word:
        word += _german_below_100(rest, before_noun=before_noun)
    return word


def _german_below_100(number: int, *, before_noun: bool) -> str:
    if number < 20:
        return _german_one(number, before_noun=before_noun)
    tens, ones = divmod(number, 10)
    return (_german_one(ones, before_noun=True) + "und" if ones else "") + _GERMAN_TENS[tens]


def _german_one(number: int, *, before_noun: bool) -> str:
    # "eins" is the number alone; in front of "und", "hundert" and "tausend" it loses its s.
    return "ein" if number == 1 and before_noun else _GERMAN_BELOW_20[number]


def _check(number: int) -> None:
    if not 0 <= number < LIMIT:
        raise ValueError(f"{number} is outside 0 … {LIMIT - 1:,}")


def is_held_out(number: int) -> bool:
    """About one number in ten from 100 up. The numbers below 100 are the words themselves: all are taught."""
    # Multiplying by an odd constant near 2**32 ÷ golden ratio and keeping the high bits scatters neighbours.
    scattered = (number * 2_654_435_761) % 2**32
    return number >= 100 and scattered < 2**32 // 10


def draw_number(generator: random.Random, *, held_out: bool) -> int:
    """A number from one side of the split; each count of digits is equally likely (held out: 3 to 6)."""
    while True:
        digits = generator.randint(3 if held_out else 1, 6)
        number = generator.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits)
        if is_held_out(number) == held_out:
            return number


def draw_pair(generator: random.Random, *, held_out: bool, to_german: bool) -> tuple[str, str]:
    """(source with its task prefix, target). One English source in four is British."""
    number = draw_number(generator, held_out=held_out)
    if to_german:
        british = generator.random() < 0.25
        return TO_GERMAN + english(number, british=british), german(number)
    return TO_ENGLISH + german(number), english(number)


# A little prose about the task, so that the tokenizer learns some everyday pieces (and the words of the task
# prefix) besides number words. The trainer looks for pieces that several different words share.
PROSE = """
Translate this number into German. The translator translates it, and the translation is one word.
translate English to German: translate, translated, translating, translation, translator
The English say the tens first and the ones after. In English, "twenty-seven" has a hyphen: \
twenty comes first.
The Germans say the ones first, then "und", then the tens. In German it is one long word; \
Germany, German, Germans.
How many apples are in the basket? There are forty of them, and eleven more are on the table.
The house is old, but the door is new. The teacher counts the children at the door and writes the number down.
It is good to check a result. That is good. This is better, and the other one is the best.
Numbers can be added, multiplied and compared. A model reads the words and writes words; it does not count.
Four plus five is nine. A hundred is ten times ten; a thousand is ten times a hundred.
Übersetze diese Zahl ins Deutsche. Der Übersetzer übersetzt sie, und die Übersetzung ist ein Wort.
Die Engländer sagen zuerst die Zehner und dann die Einer; auf Englisch steht ein Bindestrich dazwischen.
Die Deutschen sagen zuerst die Einer, dann "und", dann die Zehner. Das Deutsche schreibt alles zusammen.
Wie viele Äpfel sind in dem Korb? Es sind vierzig, und elf weitere liegen auf dem Tisch.
Das Haus ist alt, aber die Tür ist neu. Die Lehrerin zählt die Kinder an der Tür und schreibt die Zahl auf.
Es ist gut, ein Ergebnis zu prüfen. Das ist gut. Dieses ist besser, und das andere ist das beste.
Vier und fünf sind neun. Hundert ist zehn mal zehn, und tausend ist zehn mal hundert.
""".strip().splitlines()


def tokenizer_lines(generator: random.Random, count: int) -> Iterator[str]:
    """Sources and targets of the training side, and prose, for the tokenizer."""
    for _ in range(count):
        yield from draw_pair(generator, held_out=False, to_german=generator.random() < 0.5)
        yield generator.choice(PROSE)
