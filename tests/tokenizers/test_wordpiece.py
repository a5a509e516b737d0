"""WordPiece against the `tokenizers` library, on the real MiniLM vocabulary.

"Official" is the library reading the model's own tokenizer.json, truncation and padding switched off.
"""

from __future__ import annotations

import doctest
import json
import random
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from tokenizers import Tokenizer as OfficialTokenizer
from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from llm_rebuild import tokenizers
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers import bert_unicode, unicode_tables, wordpiece
from llm_rebuild.tokenizers.wordpiece import Placed, WordPiece
from llm_rebuild.using.inputs import Inputs
from tests.tokenizers.tokenizer_corpus import LINES, POINTS, every_code_point, real_lines

Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def rebuilt(minilm: LocalCopy) -> WordPiece:
    return WordPiece.from_folder(minilm.folder)


@pytest.fixture(scope="module")
def official(minilm: LocalCopy) -> OfficialTokenizer:
    tokenizer = OfficialTokenizer.from_file(str(minilm.folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


# ------------------------------------------------------------------------------- step by step


@pytest.mark.parametrize("module", [wordpiece, bert_unicode, unicode_tables])
def test_the_examples_in_docstrings_hold(module: ModuleType) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def place(text: str) -> Placed:
    return list(zip(text, range(len(text)), strict=True))


def text_of(characters: Placed) -> str:
    return "".join(character for character, _ in characters)


def test_special_tokens_are_found_literally() -> None:
    text = "[CLS][cls] [MASK]s[SEP[PAD]][UNK]"
    parts = list(wordpiece.split_special(text))
    assert [part for part, _, special in parts if special] == ["[CLS]", "[MASK]", "[PAD]", "[UNK]"]
    assert all(text[start : start + len(part)] == part for part, start, _ in parts)


def test_cleaning_joins_what_stood_around_a_control_character() -> None:
    assert wordpiece.clean(place("a\x00b\ufffdc\u200bd\ue000e")) == [
        ("a", 0), ("b", 2), ("c", 4), ("d", 6), ("e", 8),
    ]  # fmt: skip


def test_ideographs_become_words_and_kana_do_not() -> None:
    assert text_of(wordpiece.space_chinese(place("a中の文"))) == "a 中 の 文 "


def test_a_dotted_capital_i_keeps_its_dot_only_when_accents_stay() -> None:
    assert wordpiece.lower_case(place("İx")) == [("i", 0), ("\u0307", 0), ("x", 1)]
    assert wordpiece.lower_case(wordpiece.strip_accents(place("İx"))) == [("i", 0), ("x", 1)]


def test_a_capital_sigma_at_the_end_is_no_final_sigma() -> None:
    assert text_of(wordpiece.lower_case(place("ΟΔΟΣ"))) == "οδοσ"  # "ΟΔΟΣ".lower() ends in ς


def test_places_stay_in_order_where_marks_are_swapped() -> None:
    # U+302E (class 224) is no nonspacing mark, so it survives to show whose place it got.
    assert wordpiece.strip_accents(place("a\u302e\u0323")) == [("a", 0), ("\u302e", 2)]


def test_punctuation_is_a_word_each() -> None:
    assert [text_of(word) for word in wordpiece.split_words(place("it's $5--ok"))] == [
        "it", "'", "s", "$", "5", "-", "-", "ok",
    ]  # fmt: skip


def test_the_longest_token_wins_even_where_that_leads_nowhere() -> None:
    vocabulary = {"a": 0, "ab": 1, "##bc": 2, "##d": 3}
    assert wordpiece.longest_match(place("abd"), vocabulary, 4) == [("ab", 0, 2), ("##d", 2, 3)]
    # "a" + "##bc" would fit, but "ab" is longer and leaves "c", for which there is no token.
    assert wordpiece.longest_match(place("abc"), vocabulary, 4) == [("[UNK]", 0, 3)]


def test_a_word_of_more_than_100_characters_is_unknown(rebuilt: WordPiece) -> None:
    assert rebuilt.encode("a" * 101).tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert "[UNK]" not in rebuilt.encode("a" * 100).tokens


# -------------------------------------------------------- the frozen Unicode tables, in full

ALL_CHARACTERS = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
TRIED = ALL_CHARACTERS if LINES >= 60_000 else [*map(chr, POINTS)]


def in_context(context: str) -> Iterator[tuple[str, str]]:
    """Texts of 4096 lines, a character in its context each, and the name of the first. In the planes that no
    table names, unassigned or private throughout, the characters stand side by side instead."""
    for start in range(0, len(TRIED), 4096):
        some = TRIED[start : start + 4096]
        named = not 0x40000 <= ord(some[0]) < 0xE0000 and ord(some[0]) < 0xF0000
        text = "\n".join(context.format(c=c) for c in some) if named else "".join(some)
        yield f"U+{ord(some[0]):04X}", text


def keep_all(**chosen: bool) -> BertNormalizer:
    options = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    return BertNormalizer(**{option: chosen.get(option, False) for option in options})


# {c} is every character of TRIED in turn. Between marks of the classes 1 and 230, a character with any
# combining class of its own changes places with one of them; between capital sigmas, lower case shows whether
# context counts.
@pytest.mark.parametrize(
    ("step", "normalizer", "context"),
    [
        (wordpiece.space_chinese, keep_all(handle_chinese_chars=True), "a{c}"),
        (wordpiece.decompose, NFD(), "{c}\u0334\u0301{c}"),
        (wordpiece.strip_accents, keep_all(strip_accents=True), "a{c}"),
        (wordpiece.lower_case, keep_all(lowercase=True), "Σ{c}Σ"),
    ],
    ids=["chinese", "decompose", "accents", "lower case"],
)
def test_a_step_treats_every_character_as_the_library_does(
    step: Callable[[Placed], Placed], normalizer: BertNormalizer | NFD, context: str
) -> None:
    for first, text in in_context(context):
        ours, theirs = text_of(step(place(text))), normalizer.normalize_str(text)
        if ours != theirs:  # compare all at once, which is cheap; then say which differ
            pairs = zip(ours.split("\n"), theirs.split("\n"), strict=False)
            pytest.fail(f"from {first} on: {[ascii(pair) for pair in pairs if pair[0] != pair[1]][:10]}")


def test_every_character_is_cleaned_as_in_the_library() -> None:
    clean = keep_all(clean_text=True)
    to_space = str.maketrans(dict.fromkeys(bert_unicode.WHITESPACE, " "))
    for first, text in in_context("a{c}"):
        ours = text_of(wordpiece.clean(place(text))).translate(to_space)
        assert ours == clean.normalize_str(text), f"in the 4096 characters from {first} on"


def test_every_character_splits_words_as_in_the_library() -> None:
    split = BertPreTokenizer()
    spaces = bert_unicode.WHITESPACE | {"\x0b", "\x0c", "\x85"}  # these are gone or spaces by now
    for first, text in in_context("a{c}b"):
        text = "".join(" " if c in spaces else c for c in text)
        ours = [text_of(word) for word in wordpiece.split_words(place(text))]
        theirs = [word for word, _ in split.pre_tokenize_str(text)]
        assert ours == theirs, f"in the 4096 characters from {first} on"


# --------------------------------------------------------------- whole lines: ids, tokens, offsets

SPECIMENS = [
    "hello", "Tokenization", "UNAFFABLE", "##ing", "don't", "3.14", "e-mail", "naïve", "Ångström",
    "straße", "ΟΔΟΣ", "ΌΣΟΣ,", "İstanbul", "ısı", "ﬁne", "Ǆ", "ẞ", "Ⅷ", "½", "ａｂｃ", "中文",
    "東京タワー", "の", "한국어", "\u1112\u1161\u11ab", "ไทย", "हिन्दी", "עברית", "שָׁלוֹם",
    "العَرَبِيَّة", "ქართული", "Ꭰ", "𝔘𝔫𝔦", "豈", "\U0002b820", "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇺🇳",
    "1️⃣", "☕", "e\u0301", "a\u0323\u0301", "a\u0301\u0323\u302e", "\u302e\u0323", "q\u0307\u0323",
    "\u0344", "\u0f73\u0f71", "\U0001d15e\u0323", "\U0001d165\u0301\U0001d16d", "\U0001e944\u0323a",
    "\u08d4\u302e", "o\u031b\u0300", "ệ", "\u1fef", "≠", "\u037e", "[CLS]", "[SEP]", "[PAD]",
    "[UNK]", "[MASK]", "[mask]", "[MASK", "]", "[[MASK]]", "[CLS][SEP]", " ", "  ", "\t", "\n",
    "\r\n", "\u00a0", "\u2003", "\u2028", "\u3000", "\u1680", "\x0b", "\x0c", "\x1c", "\x85",
    "\x00", "\ufffd", "\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u180e", "\ue000",
    "\U0010fffd", "\uffff", "x" * 99, "é" * 100, "x" * 101, "\u0301" * 5, "￦", "$", "^`~", "§",
    "—", "…", "¿", "«»",
]  # fmt: skip


def mixtures(count: int) -> Iterator[str]:
    """Specimens side by side, with and without a random character between."""
    draw = random.Random(1)
    for _ in range(count):
        line = draw.choices(SPECIMENS, k=draw.randrange(1, 7))
        line.insert(
            draw.randrange(len(line)), ALL_CHARACTERS[draw.randrange(draw.choice([128, 0x3000, 0x20000]))]
        )
        yield "".join(line)


def pages(lines_per_page: int) -> Iterator[str]:
    """For every page of 256 with an assigned character: its characters among marks and Latin letters."""
    draw = random.Random(2)
    marks = [chr(point) for point in (*range(0x300, 0x370), 0x302E, 0x302F, 0x20D0, 0x1DC4)]
    for start in range(0, len(ALL_CHARACTERS), 256):
        page = ALL_CHARACTERS[start : start + 256]
        assigned = [c for c in page if unicodedata.category(c) not in ("Cn", "Co")] + ["\u0378"]
        if len(assigned) == 1:
            continue
        for _ in range(lines_per_page):
            pools = draw.choices(
                [assigned, page, marks, "abCD ,.'é"], weights=[6, 1, 2, 4], k=draw.randrange(2, 25)
            )
            yield "".join(draw.choice(pool) for pool in pools)


def mismatches(
    rebuilt: WordPiece, official: OfficialTokenizer, lines: Sequence[str]
) -> tuple[int, str, float]:
    """How many lines differ in anything, the first of them, and the seconds of processor time we took."""
    wrong, first, seconds = 0, "", 0.0
    for start in range(0, len(lines), 10_000):
        batch = lines[start : start + 10_000]
        began = time.process_time()
        ours = [rebuilt.encode(line) for line in batch]
        seconds += time.process_time() - began
        for line, mine, theirs in zip(batch, ours, official.encode_batch(batch), strict=True):
            if (mine.ids, mine.tokens, mine.offsets) != (theirs.ids, theirs.tokens, theirs.offsets):
                first = (
                    first
                    or f"{line!a}: {mine.tokens} {mine.offsets}, official {theirs.tokens} {theirs.offsets}"
                )
                wrong += 1
    return wrong, first, seconds


def test_ids_tokens_and_offsets_equal_the_library(
    rebuilt: WordPiece, official: OfficialTokenizer, figure: Figure
) -> None:
    sources = {
        "every code point in contexts": list(every_code_point(10, "aZ é,中\u0301\u0323")),
        "mixtures of specimens": list(mixtures(LINES // 10)),
        "every assigned page": list(pages(max(1, LINES // 10_000))),
        "real text": real_lines(LINES // 8),
    }
    assert set("".join(sources["every code point in contexts"])) >= set(map(chr, POINTS))
    total, total_wrong, firsts = 0, 0, []
    for name, lines in sources.items():
        wrong, first, seconds = mismatches(rebuilt, official, lines)
        speed = len(lines) / seconds
        figure(f"WordPiece, {name}: {len(lines):,} lines, {wrong} mismatches; {speed:,.0f} lines a second")
        total, total_wrong, firsts = total + len(lines), total_wrong + wrong, [*firsts, first]
    figure(f"WordPiece in all: {total:,} lines, {total_wrong} mismatches in ids, tokens or offsets")
    assert total_wrong == 0, firsts


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False, None])
@pytest.mark.parametrize("handle_chinese_chars", [True, False])
def test_relatives_with_other_settings_equal_the_library_too(
    minilm: LocalCopy,
    tmp_path: Path,
    lowercase: bool,
    strip_accents: bool | None,
    handle_chinese_chars: bool,
) -> None:
    whole = json.loads((minilm.folder / "tokenizer.json").read_bytes())
    whole["normalizer"] |= {
        "lowercase": lowercase, "strip_accents": strip_accents, "handle_chinese_chars": handle_chinese_chars,
    }  # fmt: skip
    whole["truncation"] = whole["padding"] = None
    shutil.copyfile(minilm.folder / "vocab.txt", tmp_path / "vocab.txt")
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    relative = WordPiece.from_folder(tmp_path)
    official = OfficialTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    lines = [*mixtures(2000), *SPECIMENS]
    assert mismatches(relative, official, lines)[:2] == (0, "")

    (tmp_path / "tokenizer.json").unlink()  # the same settings in the older file
    older = {
        "do_lower_case": lowercase,
        "strip_accents": strip_accents,
        "tokenize_chinese_chars": handle_chinese_chars,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(older))
    assert WordPiece.from_folder(tmp_path).settings == relative.settings


def test_a_text_of_many_lines_and_one_without_any_space(
    rebuilt: WordPiece, official: OfficialTokenizer
) -> None:
    long = ["\n".join(real_lines(3000)), "中é[MASK]x," * 10_000, "a" * 100_000, "\u0301" * 20_000]
    assert mismatches(rebuilt, official, long)[:2] == (0, "")


# --------------------------------------------------------------- truncation, padding, decoding


@pytest.mark.parametrize("max_tokens", [2, 3, 4, 7, 16, 128])
def test_truncation_equals_the_library(minilm: LocalCopy, rebuilt: WordPiece, max_tokens: int) -> None:
    official = OfficialTokenizer.from_file(str(minilm.folder / "tokenizer.json"))
    official.no_padding()
    official.enable_truncation(max_tokens, strategy="longest_first")
    lines = [*mixtures(1000), " ".join(real_lines(200)), ""]
    for line, theirs in zip(lines, official.encode_batch(lines), strict=True):
        mine = rebuilt.encode(line, max_tokens=max_tokens)
        assert (mine.ids, mine.tokens, mine.offsets) == (theirs.ids, theirs.tokens, theirs.offsets)
        assert mine.truncated == len(rebuilt.encode(line).ids) - len(mine.ids)
    assert mine.truncated == 0
    assert rebuilt.encode(lines[-2], max_tokens=max_tokens).truncated > 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_equals_the_library(minilm: LocalCopy, rebuilt: WordPiece, side: str) -> None:
    official = OfficialTokenizer.from_file(str(minilm.folder / "tokenizer.json"))
    official.no_truncation()
    official.enable_padding(direction=side)
    lines = [*mixtures(50), ""]
    theirs = official.encode_batch(lines)
    ours = Inputs.from_texts(rebuilt, lines, None, side)
    assert ours.token_ids.tolist() == [row.ids for row in theirs]
    assert ours.mask.tolist() == [row.attention_mask for row in theirs]
    with pytest.raises(InputError, match="padding side is 'top'"):
        Inputs.from_texts(rebuilt, lines, None, "top")


@pytest.mark.parametrize("skip", [True, False])
def test_decoding_equals_the_library(rebuilt: WordPiece, official: OfficialTokenizer, skip: bool) -> None:
    draw = random.Random(3)
    rows = [rebuilt.encode(line).ids for line in [*mixtures(3000), *real_lines(3000)]]
    rows += [draw.choices(range(rebuilt.vocabulary_size), k=draw.randrange(12)) for _ in range(3000)]
    closing = [
        rebuilt.vocabulary[t]
        for t in [".", "?", "!", ",", "'", "s", "n", "##t", "do", "not", "##."]
        if t in rebuilt.vocabulary
    ]
    rows += [draw.choices(closing, k=8) for _ in range(1000)]
    for row, theirs in zip(rows, official.decode_batch(rows, skip_special_tokens=skip), strict=True):
        assert rebuilt.decode(row, skip_special_tokens=skip) == theirs


def test_clean_up_of_tokens_that_this_vocabulary_lacks() -> None:
    from tokenizers.decoders import WordPiece as OfficialDecoder

    tokens = ["do not", "do", "n't", "'m", "'s", "x 's y", "'ve", "'re", " ' ", "##.", "## .", "a . b", "##"]
    draw = random.Random(4)
    for _ in range(2000):
        row = draw.choices(tokens, k=draw.randrange(5))
        assert wordpiece.join(row) == OfficialDecoder().decode(row)


# ------------------------------------------------------------------------------------ bad input


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    flags = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    model = {"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 100}
    single = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    whole = {
        "added_tokens": [{"id": i, "content": word, **flags} for i, word in enumerate(words[:5])],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": model | {"continuing_subword_prefix": "##", "vocab": {w: i for i, w in enumerate(words)}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    return tmp_path


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(InputError) as raised:
        action()
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_the_small_folder_is_fine_as_it_is(folder: Path) -> None:
    assert WordPiece.from_folder(folder).encode("ab").tokens == ["[CLS]", "a", "##b", "[SEP]"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "vocab.txt"),
        (b"", "empty"),
        (b"[PAD]\n\xff\xfe\n", "not UTF-8"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nan\nan\n", "lines 6 and 7 are the same, 'an'"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nan\n", "lacks [MASK]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nan\n", "different vocabularies"),
    ],
)
def test_a_vocabulary_that_cannot_be_used(folder: Path, content: bytes | None, told: str) -> None:
    (folder / "vocab.txt").unlink()
    if content is not None:
        (folder / "vocab.txt").write_bytes(content)
    assert told in refused(lambda: WordPiece.from_folder(folder))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("normalizer.type", "Lowercase"),
        ("normalizer.clean_text", False),
        ("normalizer.lowercase", "yes"),
        ("normalizer", None),
        ("pre_tokenizer.type", "Whitespace"),
        ("model.type", "BPE"),
        ("model.unk_token", "<unk>"),
        ("model.continuing_subword_prefix", "@@"),
        ("model.max_input_chars_per_word", 200),
        ("decoder.cleanup", False),
        ("post_processor.single", []),
        ("added_tokens", None),
        ("added_tokens", []),
        ("added_tokens", [{"id": 9, "content": "<extra>"}]),
    ],
)
def test_a_tokenizer_json_that_asks_for_something_else(folder: Path, field: str, value: object) -> None:
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    *way, last = field.split(".")
    inner = whole
    for key in way:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(whole))
    message = refused(lambda: WordPiece.from_folder(folder))
    assert last in message
    assert "tokenizer.json" in message


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip", "normalized"])
def test_a_special_token_with_a_flag(folder: Path, flag: str) -> None:
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    whole["added_tokens"][4][flag] = True
    path.write_text(json.dumps(whole))
    assert f"[MASK] {flag}" in refused(lambda: WordPiece.from_folder(folder))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object"),
        ('{"do_lower_case": 1}', "do_lower_case"),
        ('{"do_lower_case": false}', "correct the wrong one"),
        ('{"never_split": ["a"]}', "never_split"),
        ('{"do_basic_tokenize": false}', "do_basic_tokenize"),
        ('{"unk_token": {"content": "<unk>"}}', "unk_token"),
    ],
)
def test_a_tokenizer_config_that_cannot_be_followed(folder: Path, config: str, told: str) -> None:
    (folder / "tokenizer_config.json").write_text(config)
    assert told in refused(lambda: WordPiece.from_folder(folder))


def test_texts_limits_and_ids_out_of_range(folder: Path) -> None:
    tokenizer = WordPiece.from_folder(folder)
    assert "U+D800) at character 1" in refused(lambda: tokenizer.encode("a\ud800b"))
    assert "max_tokens is 1" in refused(lambda: tokenizer.encode("a", max_tokens=1))
    assert "id 7 is out of range" in refused(lambda: tokenizer.decode([5, 7]))
    assert "id -1 is out of range" in refused(lambda: tokenizer.decode([-1]))


def test_load_picks_an_algorithm_by_the_vocabulary(folder: Path, tmp_path: Path) -> None:
    assert isinstance(tokenizers.load(folder), WordPiece)
    assert isinstance(tokenizers.load(folder, "wordpiece"), WordPiece)
    assert "spiece.model" in refused(lambda: tokenizers.load(folder, "unigram"))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no tokenizer" in refused(lambda: tokenizers.load(empty))
