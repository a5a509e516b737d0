"""T5's tokenizer: a unigram language model over pieces, rebuilt from spiece.model.

The text flows through this file from top to bottom:

    text         "Ｈｅllo  world <extra_id_0>"
    parts        "Ｈｅllo  world ", <extra_id_0>     special tokens are cut out first
    normalised   "Hello  world "                     CharacterMap: Unicode's NFKC and a little more
    words        "▁Hello", "▁world"                  ▁ (U+2581) for the space before each
    pieces       ▁Hello | ▁world                     best_pieces: Viterbi over the pieces' scores
    ids          8774, 296, 32099, 1                 spiece.model, sentinels from 32099 down, </s>

What no piece covers becomes one <unk> for the whole stretch, and is lost.

There are two official implementations: SentencePiece, which T5 was trained with, and the tokenizers
library, which transformers runs. Where they disagree this file does as the library does; the places
are marked "library", and tests/tokenizers/test_unigram.py counts them.

Sources  Kudo (2018), Subword Regularization; Raffel et al. (2020), section 3.1.4 for the sentinels;
         transformers 5.23 models/t5/tokenization_t5.py; tokenizers 0.23 (Precompiled, Unigram).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers import checks
from llm_rebuild.tokenizers.character_map import CharacterMap, owners
from llm_rebuild.tokenizers.encoding import Encoding
from llm_rebuild.tokenizers.spiece_file import CONTROL, Piece, read_spiece_model

SENTINELS = 100  # spans that T5 learned to fill in: <extra_id_0> ... <extra_id_99>
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SUPPORTED = {"extra_ids": SENTINELS, "pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN}
UNKNOWN_PENALTY = 10.0  # an unknown character scores this much less than the rarest piece

# 1. Words. --------------------------------------------------------------------------------------

# Library: words end at any white space of Unicode; SentencePiece knows only the space. (T5's character
# map makes spaces of all the others but U+0085, and of ▁, too.) A ▁ that is left begins a word.
SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
WORD = re.compile(f"▁[^▁{SPACES}]*|[^▁{SPACES}]+")

# 2. Pieces. -------------------------------------------------------------------------------------


def best_pieces(
    word: str, scores: dict[str, float], prefixes: Set[str], unknown: float
) -> list[tuple[int, int, bool]]:
    """The most probable way to cut a word: for each piece its [start, end) and whether it is known.

    Viterbi: the best way to reach a position is the best way to reach an earlier one, plus the one
    piece between. Probabilities multiply, so their logarithms, the scores, add up.
    `prefixes` holds all beginnings of pieces: what is none cannot grow into a piece.

    >>> scores = {"▁": -2, "▁cat": -8, "▁ca": -7, "s": -3, "ts": -6}
    >>> best_pieces("▁cats", scores, all_prefixes(scores), -20)
    [(0, 4, True), (4, 5, True)]
    """
    reached = [0.0] + [float("-inf")] * len(word)  # the best score up to each position
    step = [(0, True)] * (len(word) + 1)  # where the last piece on the way began, is it known
    for start, character in enumerate(word):
        so_far = reached[start]
        for end in range(start + 1, len(word) + 1):
            piece = word[start:end]
            score = scores.get(piece)
            if score is None:
                if piece not in prefixes:
                    break
            elif so_far + score > reached[end]:  # the first of equals stays
                reached[end], step[end] = so_far + score, (start, True)
        if character not in scores and so_far + unknown > reached[start + 1]:
            reached[start + 1], step[start + 1] = so_far + unknown, (start, False)

    pieces: list[tuple[int, int, bool]] = []
    end = len(word)
    while end > 0:
        start, is_known = step[end]
        if not is_known and pieces and not pieces[-1][2]:
            pieces[-1] = (start, pieces[-1][1], False)  # neighbouring unknowns are one
        else:
            pieces.append((start, end, is_known))
        end = start
    return pieces[::-1]


def all_prefixes(pieces: Iterable[str]) -> set[str]:
    """Every beginning of every piece, the whole piece among them."""
    return {piece[:length] for piece in pieces for length in range(1, len(piece) + 1)}


# 3. Ids, and all of it together. ----------------------------------------------------------------


class Unigram:
    """T5's tokenizer.

    The vocabulary has 32,100 tokens: 32,000 in the file and 100 sentinels, of which the first has the
    highest id. The model's embedding has 32,128 rows, the next multiple of 128, which suits the
    hardware; the ids 32,100 to 32,127 are no tokens, and decode to nothing.

    >>> tokenizer = Unigram.from_folder("t5-small")  # doctest: +SKIP
    >>> tokenizer.encode("Hello world").tokens  # doctest: +SKIP
    ['▁Hello', '▁world', '</s>']
    """

    def __init__(self, pieces: Sequence[Piece], charsmap: bytes = b"") -> None:
        sentinels = [f"<extra_id_{i}>" for i in reversed(range(SENTINELS))]
        self.tokens = [*(piece.text for piece in pieces), *sentinels]
        self.vocabulary = {token: i for i, token in enumerate(self.tokens)}  # the last of equals
        self.vocabulary_size = len(self.tokens)
        self.embedding_rows = -(-self.vocabulary_size // 128) * 128
        self.pad_id, self.end_id = self.token_id(PAD), self.token_id(END)
        self.unknown_id = self.token_id(UNKNOWN)
        if self.unknown_id != 2:  # Library: the unknown token is the third, whatever the file says
            raise InputError(f"spiece.model: {UNKNOWN!r} has id {self.unknown_id}; T5's has 2")
        self.special = {PAD, END, UNKNOWN, *sentinels}
        self.special |= {piece.text for piece in pieces if piece.kind == CONTROL}
        self._special_in_text = re.compile(f"({'|'.join(map(re.escape, self.special))})")

        # Library: the special tokens, with score 0, are pieces like the others here.
        self.by_id = [*(piece.score for piece in pieces), *[0.0] * SENTINELS]
        self.scores = {token: self.by_id[i] for token, i in self.vocabulary.items()}
        self.prefixes = all_prefixes(self.scores)
        self.unknown_score = min(self.by_id) - UNKNOWN_PENALTY

        self.character_map = CharacterMap(charsmap) if charsmap else None
        self._encoded = checks.Remembered(self.encode_word)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Unigram:
        """Read spiece.model; InputError says what is wrong with it, and which field of tokenizer_config.json
        asks for something else."""
        folder = Path(folder)
        pieces, charsmap = read_spiece_model(folder / "spiece.model")
        made = cls(pieces, charsmap)
        _, whole = checks.read_config(folder, SUPPORTED, "T5Tokenizer", made.special)
        checks.check_same(
            folder, whole, "vocab", list(zip(made.tokens, made.by_id, strict=True)), "spiece.model"
        )
        map_field = {"type": "Precompiled", "precompiled_charsmap": b64encode(charsmap).decode()}
        own_map = map_field if charsmap else None
        if isinstance(whole.get("model"), dict) and whole.get("normalizer") != own_map:
            path = folder / checks.LIBRARY
            raise InputError(f"{path}: its normalizer is not that of spiece.model: download both again")
        return made

    def encode(self, text: str, max_tokens: int | None = None) -> Encoding:
        """Text -> ids, tokens, and the characters [start, end) of the text that each token covers.

        </s> is added at the end and stays there when more than max_tokens tokens are cut. A token
        that is unknown is shown as the text it stands for, as the library does.
        """
        checks.refuse_lone_surrogates(text)
        ids, tokens, offsets = [], [], []
        start = 0  # of the part, in characters
        for part in self._special_in_text.split(text):
            if part in self.special:
                ids.append(self.vocabulary[part])
                tokens.append(part)
                offsets.append((start, start + len(part)))
            elif part:
                normalised, places = self.normalise(part)
                for word in WORD.finditer(normalised):
                    encoded = self._encoded[word[0]]
                    ids += encoded.ids
                    tokens += encoded.tokens
                    first = word.start()
                    if places is None:
                        first += start
                        offsets += [(first + left, first + right) for left, right in encoded.offsets]
                    else:
                        offsets += [
                            (start + places[first + left][0], start + places[first + right - 1][1])
                            for left, right in encoded.offsets
                        ]
            start += len(part)
        ids.append(self.end_id)
        tokens.append(END)
        offsets.append((0, 0))
        return checks.truncate(Encoding(ids, tokens, offsets), max_tokens, closing=1)

    def normalise(self, text: str) -> tuple[str, list[tuple[int, int]] | None]:
        """The text as the model knows it, and where its characters come from (None: unmoved)."""
        edits = self.character_map.edits(text) if self.character_map else None
        if edits is None:
            return text, None
        moved = any(old_length != len(new) for old_length, new in edits)
        return "".join([new for _, new in edits]), owners(edits) if moved else None

    def encode_word(self, word: str) -> Encoding:
        """One match of WORD; the offsets count from its first character."""
        added = 0 if word.startswith("▁") else 1  # the ▁ that stands for the space before the word
        escaped = "▁" * added + word
        ids, tokens, offsets = [], [], []
        for start, end, is_known in best_pieces(escaped, self.scores, self.prefixes, self.unknown_score):
            tokens.append(escaped[start:end])
            ids.append(self.vocabulary[escaped[start:end]] if is_known else self.unknown_id)
            offsets.append((max(start - added, 0), max(end - added, 1)))  # ▁ shares the next place
        return Encoding(ids, tokens, offsets)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Ids -> text. ▁ becomes a space, at the very start nothing; special tokens stay as they are."""
        checks.check_ids(ids, self.embedding_rows)
        tokens = [self.tokens[i] for i in ids if i < self.vocabulary_size]
        if skip_special_tokens:
            tokens = [token for token in tokens if token not in self.special]
        first, others = "".join(tokens[:1]), "".join(tokens[1:])
        return first.replace("▁", "") + others.replace("▁", " ")

    def token_id(self, token: str) -> int:
        """The id of a token, `▁` written for the space; InputError if unknown."""
        return checks.look_up(token, self.vocabulary)
