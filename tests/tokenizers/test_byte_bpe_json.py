"""Byte BPE from tokenizer.json against the tokenizers library, on vocabularies that it trains for the
purpose, one a published kind, and on the real GPT-2's saved again."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from llm_rebuild import tokenizers
from llm_rebuild.errors import InputError
from llm_rebuild.tokenizers.byte_bpe_json import EACH_DIGIT, GPT2, LLAMA3, QWEN2, SPLITS, ByteBPEJson
from tests.tokenizers import tokenizer_corpus as corpus

PIECES = [" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u3000", "\u0085", "\x1c", "'s", "'T", "'RE", "'\u017f",
          "'ll", "'", "’s", "a", "É", "e\u0301", "hello", "World", "7", "42", "12345", "²", "Ⅷ", "٣", ".",
          "...", "_", "<|", "|>", "<|end|>", "<|end", "<|im_start|>", "<tool>", "\u0301", "\u0338",
          "\u0c3c", "\u089f", "\u200d", "日本", "한국어", "\u1112\u1161", "🙂", "\x00"]  # fmt: skip
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split_by(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False), BYTE_LEVEL]
    )


KINDS: dict[str, dict[str, Any]] = {
    "gpt2": {"pre": pre_tokenizers.ByteLevel(add_prefix_space=False)},
    "gpt2, split": {"pre": split_by(GPT2)},
    "smollm2": {
        "pre": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    },
    "llama3": {"pre": split_by(LLAMA3), "whole": True, "begin": True},
    "qwen2": {"pre": split_by(QWEN2), "composed": True},
}


def trained(kind: str) -> Tokenizer:
    """A vocabulary of its own for each kind, from texts of this machine."""
    rules = KINDS[kind]
    official = Tokenizer(models.BPE(ignore_merges=rules.get("whole", False)))
    official.pre_tokenizer = rules["pre"]
    official.decoder = decoders.ByteLevel()
    if rules.get("composed"):
        official.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|end|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    official.train_from_iterator([*corpus.real_lines(8000), *corpus.fuzz(4000, PIECES, seed=5)], trainer)
    if rules.get("whole"):  # words that the merges would not make
        saved = json.loads(official.to_str())
        size = official.get_vocab_size()
        saved["model"]["vocab"] |= {"Ġworldhello": size, "hellohello": size + 1}
        official = Tokenizer.from_str(json.dumps(saved))
    official.add_tokens(["<tool>", "<tool>s"])  # no special tokens, and the longer one counts
    if rules.get("begin"):
        official.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single="<|im_start|> $A <|end|>", special_tokens=[("<|im_start|>", 1), ("<|end|>", 0)]
                ),
            ]
        )
    return official


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Tokenizer, ByteBPEJson]]:
    made: dict[str, tuple[Tokenizer, ByteBPEJson]] = {}

    def get(kind: str) -> tuple[Tokenizer, ByteBPEJson]:
        if kind not in made:
            folder = tmp_path_factory.mktemp("kind")
            official = real_gpt2(folder) if kind == "the real gpt2" else trained(kind)
            official.save(str(folder / "tokenizer.json"))
            ours = tokenizers.load(folder)
            assert isinstance(ours, ByteBPEJson)
            made[kind] = official, ours
        return made[kind]

    return get


def real_gpt2(folder: Path) -> Tokenizer:
    source = corpus.vocabulary_folder("gpt2", ["vocab.json", "merges.txt"])
    merged = models.BPE.from_file(str(source / "vocab.json"), str(source / "merges.txt"))
    official = Tokenizer(merged)
    official.pre_tokenizer, official.decoder = KINDS["gpt2"]["pre"], decoders.ByteLevel()
    official.add_special_tokens(["<|endoftext|>"])
    return official


@pytest.mark.parametrize("pattern", [*SPLITS, "digits"], ids=["gpt2", "llama3", "qwen2", "each digit"])
def test_every_character_splits_words_as_in_the_library(pattern: str):
    """Ids would not show it: hardly a merge crosses the border of a word of rare characters."""
    digits = pattern == "digits"
    official = pre_tokenizers.Digits(True) if digits else pre_tokenizers.Split(Regex(pattern), "isolated")
    ours = EACH_DIGIT if digits else SPLITS[pattern]
    for start in range(0, len(corpus.POINTS), 4096):
        points = corpus.POINTS[start : start + 4096]
        text = "".join(f"a{c}1{c}.{c} {c}" for c in map(chr, points))
        theirs = [word for word, _ in official.pre_tokenize_str(text)]
        assert ours.findall(text) == theirs, f"in the characters from U+{points[0]:04X} on"


@pytest.mark.parametrize("kind", [*KINDS, "the real gpt2"])
def test_ids_tokens_and_texts_are_those_of_the_library(kind: str, pair: Any):
    official, ours = pair(kind)
    count = corpus.LINES // 6
    points = corpus.every_code_point(20, " a1.' \n")
    if kind in ("gpt2", "llama3", "the real gpt2") and corpus.LINES < 60_000:
        points = islice(points, 1000)  # only the pattern is their own, which the test above tries in full
    hard = [*points, *corpus.fuzz(count // 3, PIECES, seed=7)]
    lines = [*hard, *corpus.real_lines(max(count - len(hard), 1000))]
    theirs = official.encode_batch(lines)
    wrong, unlike = [], []
    for line, their in zip(lines, theirs, strict=True):
        mine = ours.encode(line)
        if mine.ids != their.ids or mine.tokens != their.tokens:
            wrong.append(line)
        texts = [ours.decode(mine.ids, skip_special_tokens=skip) for skip in (False, True)]
        if texts != [official.decode(mine.ids, skip_special_tokens=skip) for skip in (False, True)]:
            unlike.append(line)
    print(f"\n{kind}: {len(lines):,} lines, {len(wrong)} with other ids, {len(unlike)} with other texts")
    assert not wrong, wrong[:5]
    assert not unlike, unlike[:5]


@pytest.mark.parametrize("kind", ["smollm2", "llama3"])
def test_offsets_are_those_of_the_library(kind: str, pair: Any):
    official, ours = pair(kind)
    for line in corpus.fuzz(2000, PIECES, seed=9):
        assert ours.encode(line).offsets == official.encode(line).offsets, line


def test_what_is_put_around_a_text_stays_when_it_is_cut(pair: Any):
    official, ours = pair("llama3")
    text = "hello world and much more of it"
    official.enable_truncation(5)
    assert ours.encode(text, max_tokens=5).ids == official.encode(text).ids
    official.no_truncation()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("model", "byte_fallback"), True, "model.byte_fallback is True"),
        (("model", "type"), "Unigram", "model.type is 'Unigram'"),
        (("model", "unk_token"), "<unk>", "model.unk_token"),
        (("model", "dropout"), 0.1, "model.dropout"),
        (("model",), [], "model is"),
        (("model", "vocab"), [], "model.vocab"),
        (("model", "vocab"), {"<|end|>": 0}, "'<tool>' has id 2000, but 4 tokens"),
        (("model", "vocab", "<|end|>"), 5, "has the ids 5 and 0"),
        (("model", "merges"), None, "model.merges"),
        (("model", "merges"), ["a"], "model.merges 0 is broken: 'a'"),
        (("model", "merges"), [["a", 7]], "model.merges 0 is broken"),
        (("model", "merges"), [["a", "zzz"]], "model.merges 0: 'zzz' is no token"),
        (("added_tokens",), {"a": 1}, "added_tokens is"),
        (("added_tokens",), [7], r"added_tokens\[0\]"),
        (("added_tokens",), [{"content": "<x>", "id": True}], r"added_tokens\[0\].id"),
        (("added_tokens",), [{"content": "<x>", "id": 1, "lstrip": True}], r"added_tokens\[0\].lstrip"),
        (("added_tokens",), [{"content": "<x>", "id": 10**9}], "has id 1000000000"),
        (("normalizer",), {"type": "Lowercase"}, "normalizer"),
        (("normalizer",), {"type": "Sequence", "normalizers": 7}, "normalizer"),
        (("pre_tokenizer",), None, "pre_tokenizer"),
        (("pre_tokenizer",), {"type": "Metaspace"}, "pre_tokenizer"),
        (("pre_tokenizer",), {"type": "ByteLevel", "add_prefix_space": True}, "add_prefix_space"),
        (
            ("pre_tokenizer",),
            {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
            "pre_tokenizer has",
        ),
        (("post_processor",), {"type": "BertProcessing"}, "post_processor"),
        (("post_processor",), {"type": "TemplateProcessing", "single": [7]}, "post_processor.single"),
        (("decoder",), {"type": "Metaspace"}, "decoder"),
    ],
    ids=str,
)
def test_a_file_of_another_kind_is_refused_by_the_field(
    path: tuple[str, ...], value: Any, words: str, pair: Any, tmp_path: Path
):
    saved = json.loads(pair("smollm2")[0].to_str())
    inner = saved
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(InputError, match=words) as refusal:
        tokenizers.load(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_word_that_is_a_token_passes_the_merges_by(pair: Any):
    official, ours = pair("llama3")
    tokens = ours.encode("hellohello worldhello").tokens
    assert tokens == official.encode("hellohello worldhello").tokens
    assert tokens == ["<|im_start|>", "hellohello", "Ġworldhello", "<|end|>"]


def test_the_longest_of_the_tokens_that_are_cut_out_counts(pair: Any):
    official, ours = pair("qwen2")
    text = "a<tool>s<tool>b<|end|><|end"
    assert ours.encode(text).ids == official.encode(text).ids
    assert ours.encode(text).tokens[:4] == ["a", "<tool>s", "<tool>", "b"]
