"""GPT-2's tokenizer: byte-level byte pair encoding (BPE), rebuilt from vocab.json and merges.txt.

The text flows through this file from top to bottom:

    text     "Hello world"
    words    "Hello", " world"                     SPLIT: a word keeps the space before it
    symbols  H e l l o | Ġ w o r l d               BYTE_SYMBOLS: one printable character per byte
    tokens   Hello | Ġworld                        merges: join neighbours, best rank first
    ids      15496, 995                            vocab.json

Because the smallest symbol is a byte, no text is unknown, and decode(encode(text)) == text.

Sources  Radford et al. (2019), section 2.2; Sennrich et al. (2016) for BPE itself; the behaviour
         matched is the one of transformers 5.23 models/gpt2/tokenization_gpt2.py, which builds its
         tokenizer from the same two files with the tokenizers library 0.23.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import regex

from llm_rebuild.tokenizers import checks
from llm_rebuild.tokenizers.encoding import Encoding
from llm_rebuild.tokenizers.unicode_tables import TABLES, members

END_OF_TEXT = "<|endoftext|>"  # the only special token: it separated the documents of the training text

# What tokenizer_config.json may say: other values give other tokens.
SUPPORTED = {"add_prefix_space": False, "add_bos_token": False, "add_eos_token": False, "errors": "replace"}
SUPPORTED |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)

# 1. Words. --------------------------------------------------------------------------------------
#
# Letters and digits that Unicode assigned after version 16. The official library carries the tables
# of Unicode 16, where these are still unassigned, so they count as neither letter nor digit; the
# `regex` package may carry newer tables. Wide ranges also hold what is still unassigned today.
AFTER_UNICODE_16 = members(TABLES["byte_bpe"]["after_unicode_16"])
LETTER = rf"[\p{{L}}--[{AFTER_UNICODE_16}]]"
DIGIT = rf"[\p{{N}}--[{AFTER_UNICODE_16}]]"

# The first alternative that fits, from left to right; together they leave no character out.
SPLIT = regex.compile(
    rf"""(?V1x)
    '(?:s|t|re|ve|m|ll|d)              # the end of an English contraction: don|'t, they|'ll
    | [ ]?{LETTER}+                    # letters, with at most one space before them
    | [ ]?{DIGIT}+                     # digits, likewise: "GPT2" is two words
    | [ ]?[^\s{LETTER}{DIGIT}]+        # everything else that can be seen, likewise
    | \s+(?!\S)                        # white space, but the last character before a word is left
    | \s+                              #   over: a space then joins the word, a newline stands alone
    """
)

# 2. Symbols. ------------------------------------------------------------------------------------


def byte_symbols() -> list[str]:
    """One printable character per byte, so that tokens can be written in a text file.

    188 bytes are printable in Latin-1 and stand for themselves; the other 68 (control characters,
    the space, ...) are given the characters from 256 on, in order.

    >>> [byte_symbols()[byte] for byte in b"A \\n"]
    ['A', 'Ġ', 'Ċ']
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


BYTE_SYMBOLS = byte_symbols()
SYMBOL_BYTES = {symbol: byte for byte, symbol in enumerate(BYTE_SYMBOLS)}


def to_symbols(word: str) -> list[str]:
    """The UTF-8 bytes of a word as symbols; `é` is two bytes: [195, 169] -> ['Ã', '©']."""
    return [BYTE_SYMBOLS[byte] for byte in word.encode()]


# 3. Tokens. -------------------------------------------------------------------------------------

Ranks = dict[tuple[str, str], int]  # (left, right) -> line in merges.txt: learned earlier is better


def merge_steps(word: str, ranks: Ranks) -> Iterator[list[str]]:
    """Watch the merges of one word happen: yields its symbols, then each list after a merge.

    The rule in its plainest form: of all neighbours that may merge, join the pair of the lowest
    rank, the leftmost if it occurs twice; repeat. `merge` does the same in less time.

    >>> ranks = {("h", "e"): 0, ("l", "l"): 1, ("he", "ll"): 2}
    >>> [" ".join(symbols) for symbols in merge_steps("hello", ranks)]
    ['h e l l o', 'he l l o', 'he ll o', 'hell o']
    """
    symbols = to_symbols(word)
    yield symbols
    while mergeable := [pair for pair in pairwise(symbols) if pair in ranks]:
        best = min(mergeable, key=ranks.__getitem__)
        i = list(pairwise(symbols)).index(best)
        symbols = [*symbols[:i], best[0] + best[1], *symbols[i + 2 :]]
        yield symbols


def merge(symbols: list[str], ranks: Ranks) -> list[str]:
    """The last list of `merge_steps`, in n log n steps: a word may be a megabyte long.

    The symbols form a linked list, so a merge touches its two neighbours only; a heap hands out the
    best pair. An entry of the heap is not removed when a merge changes one of its two symbols:
    it is recognised as stale when it comes up, because its rank no longer fits the pair.

    >>> merge(list("hello"), {("h", "e"): 0, ("l", "l"): 1, ("he", "ll"): 2})
    ['hell', 'o']
    """
    symbols = symbols.copy()  # symbols[i] becomes "" once it is merged into its left neighbour
    end = len(symbols)
    before = list(range(-1, end - 1))  # where the left neighbour of i is, -1: none
    after = list(range(1, end + 1))  # where the right neighbour of i is, end: none
    heap = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
    heapify(heap)
    while heap:
        rank, i = heappop(heap)
        j = after[i]
        if j == end or ranks.get((symbols[i], symbols[j])) != rank:
            continue  # stale
        symbols[i] += symbols[j]
        symbols[j] = ""
        after[i] = after[j]
        if after[i] != end:
            before[after[i]] = i
        for left in (before[i], i):  # two new pairs: (left neighbour, i) and (i, right neighbour)
            if left != -1 and after[left] != end:
                new_rank = ranks.get((symbols[left], symbols[after[left]]))
                if new_rank is not None:
                    heappush(heap, (new_rank, left))
    return [symbol for symbol in symbols if symbol]


def character_spans(word: str, tokens: Iterable[str]) -> list[tuple[int, int]]:
    """Which characters of the word each token covers, [start, end).

    A token may end inside a character; then this and the next token both claim the character.

    >>> character_spans("aé!", ["aÃ", "©", "!"])
    [(0, 2), (1, 2), (2, 3)]
    """
    owner = [i for i, character in enumerate(word) for _ in character.encode()]  # of each byte
    spans, start = [], 0
    for token in tokens:
        end = start + len(token)  # a symbol is a byte
        spans.append((owner[start], owner[end - 1] + 1))
        start = end
    return spans


# 4. Ids, and all of it together. ----------------------------------------------------------------


class Rules(NamedTuple):
    """What is done around the merges.

    splits       Patterns that split a text into words, one after the other.
    cut          Tokens that are cut out of a text before anything else.
    cut_later    Tokens that are cut out once characters are composed.
    special      The ids that `decode` may leave out.
    composed     Whether characters are composed (NFC).
    whole_words  Whether a word that is a token is one, whatever the merges say.
    before       Tokens that are put before every text, and behind it: `after`.
    """

    splits: tuple[regex.Pattern[str], ...] = (SPLIT,)
    cut: tuple[str, ...] = (END_OF_TEXT,)
    cut_later: tuple[str, ...] = ()
    special: frozenset[int] = frozenset()
    composed: bool = False
    whole_words: bool = False
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


class ByteBPE:
    """GPT-2's tokenizer; with other rules that of models which came later (byte_bpe_json.py).

    >>> tokenizer = ByteBPE.from_folder("gpt2")  # doctest: +SKIP
    >>> tokenizer.encode("Hello world")  # doctest: +SKIP
    Encoding(ids=[15496, 995], tokens=['Hello', 'Ġworld'], offsets=[(0, 5), (5, 11)], truncated=0)
    """

    pad_id = None  # GPT-2 was trained without padding; whoever pads must choose an id and mask it

    def __init__(self, vocabulary: dict[str, int], ranks: Ranks, rules: Rules | None = None) -> None:
        self.vocabulary = vocabulary  # token -> id
        self.ranks = ranks
        self.rules = rules or Rules(special=frozenset({vocabulary[END_OF_TEXT]}))
        self.vocabulary_size = len(vocabulary)
        self._cut, self._cut_later = _any_of(self.rules.cut), _any_of(self.rules.cut_later)
        self._whole = {*self.rules.cut, *self.rules.cut_later}
        self._bytes = [token_bytes(token) for token in sorted(vocabulary, key=vocabulary.__getitem__)]
        self._encoded = checks.Remembered(self.encode_word)

    @classmethod
    def from_folder(cls, folder: str | Path) -> ByteBPE:
        """Read vocab.json and merges.txt; InputError says what is wrong with them, and which field of
        tokenizer_config.json asks for something else."""
        _, whole = checks.read_config(Path(folder), SUPPORTED, "GPT2Tokenizer", {END_OF_TEXT})
        needed = [*BYTE_SYMBOLS, END_OF_TEXT]
        vocabulary = checks.read_vocabulary(Path(folder) / "vocab.json", needed)
        ranks = checks.read_merges(Path(folder) / "merges.txt", vocabulary)
        checks.check_same(Path(folder), whole, "vocab", vocabulary, "vocab.json")
        checks.check_same(Path(folder), whole, "merges", list(ranks), "merges.txt")
        return cls(vocabulary, ranks)

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        """Text -> ids, tokens, and the characters [start, end) of the text that each token covers.

        GPT-2 adds nothing at either end. `<|endoftext|>` in the text is the special token. Beyond
        max_tokens, tokens are cut off at the end and counted in `truncated`. Where characters are composed
        first, offsets count those of the composed text.
        """
        checks.refuse_lone_surrogates(text)
        before, after = self.rules.before, self.rules.after
        ids, tokens = [self.vocabulary[token] for token in before], [*before]
        offsets = [(0, 0) for _ in before]
        position = 0  # in characters
        for word in self._words(text):
            encoded = self._encoded[word]
            ids += encoded.ids
            tokens += encoded.tokens
            offsets += [(position + start, position + end) for start, end in encoded.offsets]
            position += len(word)
        ids += [self.vocabulary[token] for token in after]
        whole = Encoding(ids, [*tokens, *after], [*offsets, *((0, 0) for _ in after)])
        return checks.truncate(whole, max_tokens, len(after))

    def _words(self, text: str) -> Iterator[str]:
        """The text in words; a token that is cut out whole is one of them."""
        for part in self._cut.split(text):
            composed = compose(part) if self.rules.composed else part
            for piece in [part] if part in self.rules.cut else self._cut_later.split(composed):
                words = [piece]
                for split in () if piece in self._whole else self.rules.splits:
                    words = [word for one in words for word in split.findall(one)]
                yield from filter(None, words)

    def encode_word(self, word: str) -> Encoding:
        """One word of SPLIT, offsets counted from its first character."""
        symbols = to_symbols(word)
        if word in self._whole:
            tokens, spans = [word], [(0, len(word))]
        elif self.rules.whole_words and "".join(symbols) in self.vocabulary:
            tokens, spans = ["".join(symbols)], [(0, len(word))]
        else:
            tokens = merge(symbols, self.ranks)
            spans = character_spans(word, tokens)
        return Encoding([self.vocabulary[token] for token in tokens], tokens, spans)

    def merge_steps(self, word: str) -> Iterator[list[str]]:
        """`merge_steps` with this vocabulary's ranks; give a word of SPLIT, its space included."""
        checks.refuse_lone_surrogates(word)
        return merge_steps(word, self.ranks)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Ids -> text. What is no valid UTF-8 (a character cut in two) becomes U+FFFD: �."""
        checks.check_ids(ids, self.vocabulary_size)
        spoken = [i for i in ids if not (skip_special_tokens and i in self.rules.special)]
        return b"".join(self._bytes[token_id] for token_id in spoken).decode(errors="replace")

    def token_id(self, token: str) -> int:
        """The id of a token as vocab.json writes it (`Ġ` for the space); InputError if unknown."""
        return checks.look_up(token, self.vocabulary)


# Marks that the official library's tables for composing do not have yet: there each stands for itself.
NEW_MARKS = regex.compile(f"([{members(TABLES['byte_bpe']['new_marks'])}])")


def compose(text: str) -> str:
    """Characters composed (NFC): an e and an accent become é."""
    return "".join(unicodedata.normalize("NFC", part) for part in NEW_MARKS.split(text))


def _any_of(tokens: Sequence[str]) -> regex.Pattern[str]:
    """Any of these tokens, the longest first; with none of them a pattern that fits nowhere."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return regex.compile(f"({'|'.join(map(regex.escape, longest_first)) or '(?!)'})")


def token_bytes(token: str) -> bytes:
    """The bytes a token stands for: `Ġworld` -> b" world"; a foreign token stands for itself."""
    if all(symbol in SYMBOL_BYTES for symbol in token):
        return bytes(SYMBOL_BYTES[symbol] for symbol in token)
    return token.encode()
