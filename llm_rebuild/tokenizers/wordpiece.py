"""WordPiece, the tokenizer of BERT and MiniLM, in the order in which text flows through it.

    "Été 中 [MASK]unseen"  special tokens    "Été 中 ", [MASK], "unseen"
                           clean up, CJK     "Été  中  "
                           accents, case     "ete  中  "
                           words             "ete", "中"
                           longest match     "et", "##e", "中"

Until the last step text is a list of `(character, position)`: what the character has become, and where in the
original text it came from. That is all it takes to say which part of the text a token stands for.

Ids, tokens and offsets equal those of the `tokenizers` library 0.23.3 (its BertNormalizer,
BertPreTokenizer, WordPiece and TemplateProcessing); the algorithm is that of Google's BERT (2018).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from llm_rebuild.tokenizers import bert_unicode, checks
from llm_rebuild.tokenizers.bert_files import SPECIAL_TOKENS, Settings, read_settings, read_vocabulary
from llm_rebuild.tokenizers.encoding import Encoding

LONGEST_WORD = 100  # characters; a longer word is [UNK] as a whole

Placed = list[tuple[str, int]]  # a character, and its position in the original text
Pieces = list[tuple[str, int, int]]  # a token, and where in the original text it starts and ends


def split_special(text: str) -> Iterator[tuple[str, int, bool]]:
    """Special tokens written in the text stand for themselves; yields (part, start, is it special?).

    They are looked for before anything is changed, so `[mask]` is not one.

    >>> list(split_special("a [MASK]b"))
    [('a ', 0, False), ('[MASK]', 2, True), ('b', 8, False)]
    """
    start = 0
    for part in re.split(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])", text):
        if part:
            yield part, start, part in SPECIAL_TOKENS
        start += len(part)


def split_whitespace(text: str) -> Iterator[tuple[str, int]]:
    """The stretches between whitespace, and where they start.

    The library first normalises, then splits. Splitting first gives the same, since no later step makes
    or reads whitespace across such a border, and stretches that come again need not be computed again.

    >>> list(split_whitespace("an  owl"))
    [('an', 0), ('owl', 4)]
    """
    for match in NOT_WHITESPACE.finditer(text):
        yield match[0], match.start()


NOT_WHITESPACE = re.compile(f"[^{''.join(sorted(bert_unicode.WHITESPACE))}]+")


def clean(characters: Placed) -> Placed:
    """Drop control characters, private ones, and U+FFFD: the sign for what could not be decoded.

    >>> clean([("a", 0), ("\\x00", 1), ("b", 2)])
    [('a', 0), ('b', 2)]
    """
    return [
        (character, position)
        for character, position in characters
        if character not in bert_unicode.CONTROL and not bert_unicode.is_private_use(character)
    ]


def space_chinese(characters: Placed) -> Placed:
    """Put spaces around CJK ideographs: each becomes a word. The spaces share its position.

    >>> space_chinese([("a", 0), ("中", 1)])
    [('a', 0), (' ', 1), ('中', 1), (' ', 1)]
    """
    spaced: Placed = []
    for character, position in characters:
        if bert_unicode.is_chinese(character):
            spaced += [(" ", position), (character, position), (" ", position)]
        else:
            spaced.append((character, position))
    return spaced


def strip_accents(characters: Placed) -> Placed:
    """Take letters and accents apart, then drop the accents.

    >>> strip_accents([("É", 0), ("t", 1), ("é", 2)])
    [('E', 0), ('t', 1), ('e', 2)]
    """
    return [
        (character, position)
        for character, position in decompose(characters)
        if character not in bert_unicode.NONSPACING_MARKS
    ]


def decompose(characters: Placed) -> Placed:
    """Unicode's NFD: every character in its parts, marks on the same letter sorted by combining class.

    The first part of each character brings a position, its other parts take over the one before them. Places
    stay in order even where marks were swapped: that is how the library counts, too.

    >>> decompose([("é", 0), ("\\u0323", 1)])  # acute (class 230), then dot below (class 220)
    [('e', 0), ('̣', 1), ('́', 1)]
    """
    if bert_unicode.NORMALIZED.isdisjoint(character for character, _ in characters):
        return characters  # nothing to take apart or to move: most text

    parts: list[tuple[str, bool]] = []  # and: does it bring a position?
    for character, _ in characters:
        if character in bert_unicode.NORMALIZED:
            own_parts = unicodedata.normalize("NFD", character)
            parts += [(part, number == 0) for number, part in enumerate(own_parts)]
        else:
            parts.append((character, True))

    classes = [combining_class(part) for part, _ in parts]
    letters = accumulate(combining == 0 for combining in classes)  # number of the letter each is on
    sorting = sorted(zip(letters, classes, range(len(parts)), strict=True))

    places = iter([position for _, position in characters])
    position = 0
    decomposed: Placed = []
    for _, _, index in sorting:
        part, brings_place = parts[index]
        position = next(places) if brings_place else position
        decomposed.append((part, position))
    return decomposed


def combining_class(character: str) -> int:
    """0 for a letter; for a mark, where on the letter it goes: 220 below, 230 above, ..."""
    return unicodedata.combining(character) if character in bert_unicode.NORMALIZED else 0


def lower_case(characters: Placed) -> Placed:
    """One character at a time; only İ, if its dot is still on, becomes two.

    >>> lower_case([("Ω", 0), ("İ", 1)])
    [('ω', 0), ('i', 1), ('̇', 1)]
    """
    return [
        (lowered, position)
        for character, position in characters
        for lowered in bert_unicode.LOWER.get(character, character)
    ]


def split_words(characters: Placed) -> list[Placed]:
    """Words end at spaces; a punctuation mark is a word by itself.

    >>> split_words([("a", 0), (",", 1), ("b", 2), (" ", 3), ("c", 4)])
    [[('a', 0)], [(',', 1)], [('b', 2)], [('c', 4)]]
    """
    words: list[Placed] = [[]]
    for character, position in characters:
        if character in bert_unicode.PUNCTUATION:
            words += [[(character, position)], []]
        elif character == " ":
            words.append([])
        else:
            words[-1].append((character, position))
    return [word for word in words if word]


def longest_match(word: Placed, vocabulary: Mapping[str, int], longest: int) -> Pieces:
    """The longest token that the word begins with, then the longest that the rest begins with, ...

    Tokens inside a word are written with ## in front. A word with a rest that no token fits is [UNK] as a
    whole. `longest` is the length of the longest token: no use in trying more.

    >>> longest_match([("o", 0), ("w", 1), ("l", 2), ("s", 3)], {"owl": 0, "##s": 1, "o": 2}, longest=3)
    [('owl', 0, 3), ('##s', 3, 4)]
    """
    text = "".join([character for character, _ in word])
    unknown = [("[UNK]", word[0][1], word[-1][1] + 1)]
    if len(text) > LONGEST_WORD:
        return unknown
    pieces: Pieces = []
    start = 0
    while start < len(text):
        for end in range(min(len(text), start + longest), start, -1):
            token = text[start:end] if start == 0 else "##" + text[start:end]
            if token in vocabulary:
                break
        else:
            return unknown
        pieces.append((token, word[start][1], word[end - 1][1] + 1))
        start = end
    return pieces


# What the decoder closes up, in this order; each token gets all of them, so most never happen.
CLEAN_UP = [
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
    (" do not", " don't"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
]  # fmt: skip


def join(tokens: Sequence[str]) -> str:
    """Tokens back to text: ## continues the word, anything else begins a new one.

    >>> join(["two", "owl", "##s", "."])
    'two owls.'
    """
    text = ""
    for index, token in enumerate(tokens):
        if index > 0:
            token = token[2:] if token.startswith("##") else " " + token
        for spaced, closed in CLEAN_UP:
            token = token.replace(spaced, closed)
        text += token
    return text


class WordPiece:
    """All of the steps, with a vocabulary.

    >>> tokenizer = WordPiece.from_folder(Path("minilm"))  # doctest: +SKIP
    >>> tokenizer.encode("Owls hoot").tokens  # doctest: +SKIP
    ['[CLS]', 'owls', 'ho', '##ot', '[SEP]']
    """

    def __init__(self, vocabulary: Mapping[str, int], settings: Settings) -> None:
        self.vocabulary = vocabulary  # token -> id
        self.settings = settings
        self.pad_id, self.vocabulary_size = vocabulary["[PAD]"], len(vocabulary)
        self._tokens = sorted(vocabulary, key=vocabulary.__getitem__)  # id -> token
        self._longest = max(map(len, vocabulary))
        self._pieces = checks.Remembered(self.pieces)

    @classmethod
    def from_folder(cls, folder: str | Path) -> WordPiece:
        """Read vocab.txt and, where present, tokenizer.json and tokenizer_config.json.

        Raises InputError that names the file and field where one is broken or not supported.
        """
        vocabulary = read_vocabulary(Path(folder) / "vocab.txt")
        return cls(vocabulary, read_settings(Path(folder), vocabulary))

    def lower_cased(self) -> WordPiece:
        """The same, of text that is lower-cased first. That alone takes no accents off."""
        return WordPiece(
            self.vocabulary,
            replace(self.settings, lower_case=True, strip_accents=self.settings.strips_accents),
        )

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        """[CLS], the text's tokens, [SEP]; cut at the end to `max_tokens` in all.

        Raises InputError for a lone surrogate in the text, and for `max_tokens` below 2.
        """
        checks.refuse_lone_surrogates(text)
        pieces: Pieces = []
        for part, part_start, is_special in split_special(text):
            if is_special:
                pieces.append((part, part_start, part_start + len(part)))
                continue
            for chunk, chunk_start in split_whitespace(part):
                offset = part_start + chunk_start
                pieces += [(token, offset + start, offset + end) for token, start, end in self._pieces[chunk]]
        tokens = ["[CLS]", *(token for token, _, _ in pieces), "[SEP]"]
        ids = [self.vocabulary[token] for token in tokens]
        offsets = [(0, 0), *((start, end) for _, start, end in pieces), (0, 0)]
        return checks.truncate(Encoding(ids, tokens, offsets), max_tokens, closing=1)

    def pieces(self, chunk: str) -> Pieces:
        """The tokens of a stretch without whitespace, places counted from its start."""
        characters = clean([(character, position) for position, character in enumerate(chunk)])
        beyond_ascii = not chunk.isascii()  # the next two steps have nothing to do in ASCII
        if self.settings.space_chinese and beyond_ascii:
            characters = space_chinese(characters)
        if self.settings.strips_accents and beyond_ascii:
            characters = strip_accents(characters)
        if self.settings.lower_case:
            characters = lower_case(characters)
        return [
            piece
            for word in split_words(characters)
            for piece in longest_match(word, self.vocabulary, self._longest)
        ]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Ids -> text, lower-cased and without accents as the tokens are; InputError if out of range."""
        checks.check_ids(ids, self.vocabulary_size)
        tokens = [self._tokens[token_id] for token_id in ids]
        return join([t for t in tokens if not (skip_special_tokens and t in SPECIAL_TOKENS)])
