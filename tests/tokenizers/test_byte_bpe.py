"""Byte BPE against the official GPT-2 tokenizer, on the real vocabulary.

"Official" is what transformers' AutoTokenizer builds from a folder with vocab.json, merges.txt and
config.json: GPT2Tokenizer, and behind it the tokenizers library.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tokenizer_corpus as corpus

from llm_rebuild import tokenizers
from llm_rebuild.copies.local_copy import MINIATURES
from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers import byte_bpe, checks
from llm_rebuild.tokenizers.byte_bpe import ByteBPE

SPECIAL = "<|endoftext|>"
PIECES = [" ", "  ", "\t", "\n", "\r\n", "\u3000", "\u0085", "\u2028", "\x1c", "'s", "'t", "'re", "'ve", "'m",
          "'ll", "'d", "'", "'S", "’s", "a", "É", "é", "hello", "World", "7", "42", "²", "Ⅷ", "٣", ".", "...",
          "_", "<|", "|>", "<|endoftext", SPECIAL, "\u0301", "\u200d", "\ufeff", "日本", "한국어", "🙂",
          "👩‍👩‍👧", "\x00", "\U0010ffff"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = corpus.vocabulary_folder("gpt2", ["vocab.json", "merges.txt"])
    return corpus.model_folder(source, "gpt2", tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def rebuilt(folder: Path) -> ByteBPE:
    return ByteBPE.from_folder(folder)


@pytest.fixture(scope="module")
def official(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_ids_are_the_official_ones_and_decode_back(rebuilt: ByteBPE, official: Any) -> None:
    """Sources and READMEs of this machine, every code point, and fuzz of what the splitting looks at."""
    hard = [*corpus.every_code_point(20, " a1.' \n"), *corpus.fuzz(corpus.LINES // 4, PIECES, seed=1)]
    real = corpus.real_lines(max(corpus.LINES - len(hard), corpus.LINES // 4))
    lines = [*real, *hard, *corpus.fuzz(corpus.LINES - len(real) - len(hard), PIECES, seed=2)]
    assert set("".join(hard)) >= set(map(chr, corpus.POINTS))

    mismatches, lossy, tokens = [], [], 0
    for batch in batches(lines, 20_000):
        theirs = official.backend_tokenizer.encode_batch_fast(batch)
        for line, their in zip(batch, theirs, strict=True):
            ids = rebuilt.encode(line).ids
            tokens += len(ids)
            if ids != their.ids:
                mismatches.append(line)
            if rebuilt.decode(ids) != line:
                lossy.append(line)
    print(f"\n{len(lines):,} lines ({len(real):,} real), {tokens:,} tokens: ", end="")
    print(f"{len(mismatches)} with other ids, {len(lossy)} that do not decode back")
    assert len(lines) >= corpus.LINES
    assert not mismatches, mismatches[:5]
    assert not lossy, lossy[:5]


def test_tokens_and_offsets_are_the_official_ones(rebuilt: ByteBPE, official: Any) -> None:
    lines = [*corpus.fuzz(corpus.LINES // 3, PIECES, seed=3), *corpus.real_lines(corpus.LINES // 3)]
    theirs = official.backend_tokenizer.encode_batch(lines)
    for line, their in zip(lines, theirs, strict=True):
        ours = rebuilt.encode(line)
        assert (ours.ids, ours.tokens, ours.offsets) == (their.ids, their.tokens, their.offsets), line
    print(f"\n{len(lines):,} lines: tokens and offsets equal")


def test_decoding_any_ids_is_the_official_decoding(rebuilt: ByteBPE, official: Any) -> None:
    """Random ids make broken UTF-8; the replacement characters must be the same ones, as many."""
    draw = random.Random(4)
    of_bytes = [rebuilt.token_id(symbol) for symbol in byte_bpe.BYTE_SYMBOLS]
    for _ in range(20_000):
        pool = of_bytes if draw.random() < 0.5 else range(rebuilt.vocabulary_size)
        ids = [*draw.choices(pool, k=draw.randrange(8)), *draw.choices([50256, 15496], k=draw.randrange(2))]
        assert rebuilt.decode(ids) == official.decode(ids), ids
        assert rebuilt.decode(ids, skip_special_tokens=True) == official.decode(ids, skip_special_tokens=True)


def test_the_special_token_is_recognised_in_the_text(rebuilt: ByteBPE) -> None:
    encoding = rebuilt.encode(f"a {SPECIAL}b{SPECIAL}{SPECIAL}")
    assert encoding.tokens == ["a", "Ġ", SPECIAL, "b", SPECIAL, SPECIAL]
    assert encoding.offsets == [(0, 1), (1, 2), (2, 15), (15, 16), (16, 29), (29, 42)]
    assert rebuilt.token_id(SPECIAL) == 50256
    assert (rebuilt.vocabulary_size, rebuilt.pad_id) == (50257, None)


def test_load_picks_it_by_the_vocabulary(folder: Path) -> None:
    assert isinstance(tokenizers.load(folder), ByteBPE)


def test_truncation_is_the_official_one(rebuilt: ByteBPE, official: Any) -> None:
    text = "one two three four five"
    for limit in range(1, 7):
        ours = rebuilt.encode(text, max_tokens=limit)
        assert ours.ids == official(text, truncation=True, max_length=limit)["input_ids"]
        assert len(ours.tokens) == len(ours.offsets) == len(ours.ids) == 5 - ours.truncated
    with pytest.raises(InputError, match="max_tokens is 0; it must be at least 1"):
        rebuilt.encode(text, max_tokens=0)


def test_the_steps_that_a_learner_reads_end_where_the_fast_merge_ends(rebuilt: ByteBPE) -> None:
    steps = [" ".join(step) for step in rebuilt.merge_steps(" world")]
    assert steps == ["Ġ w o r l d", "Ġw o r l d", "Ġw or l d", "Ġw or ld", "Ġwor ld", "Ġworld"]
    words = {word for line in corpus.real_lines(3_000) for word in byte_bpe.SPLIT.findall(line)}
    draw = random.Random(5)
    words |= {"".join(draw.choices("aeinrst é日", k=30)) for _ in range(300)}
    for word in words:
        *_, last = rebuilt.merge_steps(word)
        assert byte_bpe.merge(byte_bpe.to_symbols(word), rebuilt.ranks) == last, word


@pytest.mark.parametrize("unit", ["a", "ab", " ", "é", "日", "=", "\n", "random"])
def test_a_word_of_100_kilobytes_takes_seconds_of_processor_time_at_most(
    rebuilt: ByteBPE, official: Any, unit: str
) -> None:
    word = unit * (100_000 // len(unit.encode()))
    if unit == "random":
        word = "".join(random.Random(6).choices("etaoinshr", k=100_000))
    start = time.process_time()
    ids = rebuilt.encode(word).ids
    assert time.process_time() - start < 5
    assert ids == official(word)["input_ids"]
    assert len(rebuilt._encoded) <= checks.CACHE_SIZE


def test_the_cache_stays_bounded(rebuilt: ByteBPE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CACHE_SIZE", 100)
    fresh = ByteBPE(rebuilt.vocabulary, rebuilt.ranks)
    for number in range(1000):
        fresh.encode(f"{number}")
    fresh.encode("x" * 1000)
    assert 0 < len(fresh._encoded) <= 100
    assert max(map(len, fresh._encoded)) <= checks.CACHED_LENGTH


# Bad input. -------------------------------------------------------------------------------------


def write(folder: Path, vocabulary: object = None, merges: str = "#version: 0.2\na b\n") -> Path:
    """A small vocabulary that loads, unless the arguments spoil it."""
    (folder / "vocab.json").write_text(
        vocabulary if isinstance(vocabulary, str) else json.dumps(vocabulary or small()), encoding="utf-8"
    )
    (folder / "merges.txt").write_bytes(merges.encode("utf-8", "surrogateescape"))
    return folder


def small(**changes: object) -> dict[str, object]:
    tokens = [*byte_bpe.BYTE_SYMBOLS, "ab", "abab", SPECIAL]
    return {**{token: i for i, token in enumerate(tokens)}, **changes}


def without(token: str) -> dict[str, int]:
    return {other: i for i, other in enumerate(name for name in small() if name != token)}


def test_the_small_vocabulary_is_sound(tmp_path: Path) -> None:
    tokenizer = ByteBPE.from_folder(write(tmp_path, merges="#version: 0.2\r\na b\r\nab ab"))
    assert tokenizer.encode("ababab").tokens == ["abab", "ab"]


def test_a_repeated_merge_counts_where_it_stands_last_as_officially(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    vocabulary = {t: i for i, t in enumerate([*byte_bpe.BYTE_SYMBOLS, "ab", "bc", SPECIAL])}
    write(tmp_path, vocabulary, "#version: 0.2\na b\nb c\na b\n")
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert theirs.tokenize("abc") == ByteBPE.from_folder(tmp_path).encode("abc").tokens == ["a", "bc"]


@pytest.mark.parametrize(
    ("vocabulary", "merges", "message"),
    [
        ("{", "", "vocab.json is not JSON"),
        ("[" * 100_000, "", "vocab.json is nested too deeply"),
        ("[1]", "", "holds no JSON object"),
        (small(ab="7"), "", "the id of 'ab' is '7', not an integer"),
        (small(ab=True), "", "the id of 'ab' is True, not an integer"),
        (small(ab=1.0), "", "the id of 'ab' is 1.0, not an integer"),
        (small(ab=0), "", "'Ā' and 'ab' share id 0"),
        (small(ab=-1), "", "'ab' has id -1"),
        (small(ab=999), "", "'ab' has id 999, but 259 tokens need the ids 0 to 258"),
        (without("Ġ"), "", "lacks 'Ġ'"),
        (without(SPECIAL), "", "lacks '<|endoftext|>'"),
        (None, "#version: 0.2\na b\na\n", "line 3 is broken: 'a'"),
        (None, "#version: 0.2\na b c\n", "line 2 is broken"),
        (None, "#version: 0.2\na  b\n", "line 2 is broken"),
        (None, "#version: 0.2\n\na b\n", "line 2 is broken: ''"),
        (None, "a \n", "line 1 is broken"),
        (None, "a b\nb a\n", "line 2: 'ba' is no token"),
        (None, "zz a\n", "line 1: 'zz' is no token"),
        (None, "a b\n\udcff", "merges.txt is not UTF-8"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(
    tmp_path: Path, vocabulary: object, merges: str, message: str
) -> None:
    write(tmp_path, vocabulary, merges)
    with pytest.raises(InputError) as caught:
        ByteBPE.from_folder(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("download it again")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        ByteBPE.from_folder(tmp_path)


def test_bad_texts_ids_and_tokens_are_refused(tmp_path: Path) -> None:
    tokenizer = ByteBPE.from_folder(write(tmp_path))
    with pytest.raises(InputError, match=r"lone surrogate \(U\+D800\) at character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(InputError, match="lone surrogate"):
        tokenizer.merge_steps("\udfff")
    for token_id in (-1, 259, 10**9):
        with pytest.raises(InputError, match=f"token id {token_id} is out of range: .* 0 to 258"):
            tokenizer.decode([0, token_id])
    with pytest.raises(InputError, match="'<mask>' is no token of this vocabulary"):
        tokenizer.token_id("<mask>")


def batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(lines)
    while batch := list(islice(iterator, size)):
        yield batch


@pytest.mark.parametrize("field", ["add_prefix_space", "add_bos_token", "add_eos_token"])
def test_a_tokenizer_config_that_asks_for_more_is_refused(tmp_path: Path, field: str) -> None:
    for file in ("vocab.json", "merges.txt"):
        shutil.copyfile(MINIATURES / "gpt2" / file, tmp_path / file)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({field: False, "model_max_length": 8}))
    ByteBPE.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({field: True}))
    with pytest.raises(InputError, match=f"{field} is True; only False is supported"):
        ByteBPE.from_folder(tmp_path)
