"""The rebuild in JavaScript, in a browser, against the official models and the rebuild in Python.

A sum in JavaScript runs in double and is rounded once, torch's runs in float32 and in another order: so
numbers differ in their last bits, and are held to a share of each tensor's largest number. They differ
most in the probabilities of T5's self-attention, whose scores are not divided and reach 136: half of such a
score's last bit is 8e-6 of a probability, and torch is as far from the same model in float64. Token ids
are equal.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import regex
import torch
from playwright.sync_api import Browser, Page

from llm_rebuild import tokenizers
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.diagnosis.mutants import TEXTS
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.models.config import FIXED_EVERYWHERE
from llm_rebuild.tokenizers.graphemes import graphemes
from llm_rebuild.tokenizers.wordpiece import decompose
from llm_rebuild.using import decoding, inputs
from llm_rebuild.using.defaults import IDS, OBEYED, defaults
from llm_rebuild.using.generate import generate
from llm_rebuild.using.settings import Decoding, Settings
from llm_rebuild.verify import Capture, ask, capture
from llm_rebuild.verify.official import Official
from tests.models import small
from tests.tokenizers import test_byte_bpe_json
from tests.tokenizers import tokenizer_corpus as corpus
from tools import page_tables

from .conftest import REPOSITORY, Reader, Site, served

Figure = Callable[[str], None]
COMBINING = regex.findall(r"\p{M}", "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])))
NEAR = 1e-5  # of a tensor's largest number
REBUILD = REPOSITORY / "docs" / "javascripts" / "rebuild"
CALL = "([name, ...values]) => window.rebuild[name](...values)"
TOKENIZER_FILES = {
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.json", "tokenizer_config.json"
}  # fmt: skip
PIECES = [
    " ", "  ", "\t", "\n", "\r\n", "\u3000", "\x85", "\u2028", "\x1c", "\xa0", "a", "the", "and", "ing", "'s",
    "don't", "'ll", "É", "e\u0301", "ǖ\u0308", "\u0323", "İ", "Σ", "ß", "[MASK]", "[CLS]", "[mask]", "##s",
    "<|endoftext|>", "<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_99>", "<extra_id_100>", "＜pad＞",
    "▁", "▁▁", "ﬁ", "Å", "½", "½\u0301", "™", "ガ", "㎏", "日本", "中", "각", "ᄀ", "ᅡ", "ᆨ", "क", "\u094d",
    "ष", "\u0600", "\u200b", "\u200d", "\xad", "\ufeff", "\ufffd", "\x00", "\x7f", "\ue000",
    "👩\u200d👩\u200d👧", "🇩", "🇪", "---", "*******", "0", "12", ".", "\U0010ffff", "a" * 101,
]  # fmt: skip
MARKS = [
    "a", "é", "ǖ", "각", "가", "ᄀ", "ᅡ", "ᆨ", "\u0301", "\u0323", "\u0345", "\u302e", "\U0001d165",
    "\U0001d16d", "क", "\u094d", "ष", "\u0903", "\u093c", "\u200c", "\u200d", "\u0600", "\ufe0f", "🇩", "🇪",
    "👩", "❤", "\r", "\n", "क\u094d\u200cष", "क\u094d\u200dष",
]  # fmt: skip
PROMPTS = {
    "gpt2": [
        "The baker of Oru lives by the", "The cook", "Every morning", "The", "In the village", "Why",
        "A sailor gave", "The king", "the lamp", "river", "Once", "The old woman", "bread and", "He said:",
        "The farmer of", "They", "It is", "Ten", "The smith lives", "The weaver of",
    ],
    "t5-small": [
        f"translate English to German: {number}"
        for number in (
            "four hundred twenty-seven", "nine", "one thousand", "twelve", "three hundred and twelve", "zero",
            "sixty-six", "eleven", "one", "ninety-nine thousand", "two hundred", "seven", "thirty", "twenty",
            "forty-one", "five thousand and six", "eight hundred eighty-eight", "fifteen", "ten thousand ten",
            "six hundred five",
        )
    ],
}  # fmt: skip
PROMPTS["llama"] = PROMPTS["gpt2"]
SETTINGS = [
    Settings(max_new_tokens=16),
    Settings(max_new_tokens=12, repetition_penalty=1.3, no_repeat_ngram=2),
    Settings(max_new_tokens=12, beams=4),
    Settings(max_new_tokens=12, beams=3, early_stopping=True, length_penalty=0.5, no_repeat_ngram=2),
    Settings(max_new_tokens=12, beams=3, early_stopping="never", length_penalty=2.0),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The rebuild, the miniatures, and a page that has nothing but what this test asks of them."""
    folder = tmp_path_factory.mktemp("rebuild-in-the-page")
    shutil.copytree(REBUILD, folder / "rebuild")
    shutil.copytree(MINIATURES, folder, dirs_exist_ok=True)
    shutil.copy(Path(__file__).with_name("rebuild_in_the_page.js"), folder / "asked.js")
    (folder / "index.html").write_text('<!doctype html><link rel="icon" href="data:,">', encoding="utf-8")
    yield from served(folder)


@pytest.fixture(scope="module")
def page(site: Site, browser: Browser) -> Iterator[Page]:
    reader = Reader(browser)
    reader.page.goto(site.url)
    reader.page.evaluate("async () => { window.rebuild = await import('/asked.js'); }")
    yield reader.page
    assert (reader.errors, reader.outside) == ([], [])
    reader.context.close()


def call(page: Page, name: str, *values: Any) -> Any:
    """What a function of rebuild_in_the_page.js returns."""
    return page.evaluate(CALL, [name, *values])


def miniature(name: str) -> LocalCopy:
    return LocalCopy(name, MINIATURES / name, "miniature")


def linked(site: Site, name: str, folder: Path, files: set[str]) -> None:
    """Serve files of a folder from elsewhere."""
    (site.root / name).mkdir(exist_ok=True)
    for file in sorted(files):
        if (folder / file).is_file() and not (site.root / name / file).exists():
            (site.root / name / file).symlink_to((folder / file).resolve())


# -------------------------------------------------------------------------------------- checkpoints


def compare(
    page: Page, site: Site, copy: LocalCopy, folder: str, figure: Figure, rows: list[list[int]] | None = None
) -> None:
    """Every checkpoint of both texts, or `rows` of ids, in a batch and of the first one alone; where there is
    a cache, once more with it, and of the step that goes on from it."""
    official = Official(copy.folder)
    texts: list[Any] = TEXTS[folder.removesuffix("-real")] if rows is None else rows
    count, equal, worst, where = 0, 0, 0.0, ""
    for number, (batch, cached) in enumerate(
        (batch, cached)
        for batch in (texts, texts[:1])
        for cached in ((False, True) if copy.rebuild.architecture.generates else (False,))
    ):
        asked = {"texts": batch} if rows is None else {"token_ids": batch}
        question = ask(copy, **asked, use_cache=cached)
        captures: list[Capture] = [capture(question, official=official)]
        if cached:
            best = captures[0].tensors["lm_head"][:, -1].argmax(dim=-1)  # [batch]
            captures.append(capture(question.step(best), official=official))
        files = [f"{folder}-{number}-{step}.safetensors" for step in range(len(captures))]
        for file, official_side in zip(files, captures, strict=True):
            official_side.save(site.root / file)
        answers = call(page, "checkpoints", folder, files, cached)
        for official_side, answer in zip(captures, answers, strict=True):
            names = [checkpoint["name"] for checkpoint in answer]
            assert sorted(names) == sorted(official_side)
            for checkpoint in answer:
                name = checkpoint["name"]
                assert checkpoint["shape"] == list(official_side.tensors[name].shape), name
                assert checkpoint["worst"] is not None, f"{name}: other masks, or no finite number"
                if checkpoint["worst"] > worst:
                    worst, where = checkpoint["worst"], name
            count += len(names)
            equal += sum(checkpoint["equal"] for checkpoint in answer)
    figure(
        f"{folder} in the page: {count} checkpoints, {equal} equal bit for bit, "
        f"worst difference {worst:.1e} of the largest number ({where})"
    )
    assert worst <= NEAR, where


@pytest.mark.parametrize("name", NAMES)
def test_every_checkpoint_of_a_miniature_is_near_the_official_one(
    name: str, page: Page, site: Site, figure: Figure
) -> None:
    compare(page, site, miniature(name), name, figure)


def test_every_checkpoint_of_the_real_minilm_is_near_the_official_one(
    page: Page, site: Site, minilm: LocalCopy, figure: Figure
) -> None:
    linked(site, "minilm-real", minilm.folder, {"config.json", minilm.weights_file.name})
    compare(page, site, minilm, "minilm-real", figure)


@pytest.mark.parametrize("number", range(len(small.LLAMAS)))
def test_every_checkpoint_of_a_relative_of_llama_is_near_the_official_one(
    number: int, page: Page, site: Site, figure: Figure
) -> None:
    _, changes, optional = small.LLAMAS[number]
    folder = f"relative-{number}"
    copy = small.model(site.root / folder, small.LLAMA, optional, **changes)
    compare(page, site, copy, folder, figure, small.ROWS)


# --------------------------------------------------------------------------------------- tokenizers


@pytest.fixture(scope="module", params=[4, pytest.param(1, marks=pytest.mark.weekly)])
def lines(site: Site, request: pytest.FixtureRequest) -> list[str]:
    """Some 400 lines, or 1,300: real ones, ones made to hurt, and ones of characters from all over
    Unicode."""
    share = request.param
    made = [
        "",
        "x" * 10_000,
        "e\u0301" * 5_000,
        # Each mark that `regex` knows before and behind marks that others change places with.
        "".join(f"a{mark}\u0334\u0345{mark}" for mark in COMBINING),
        *corpus.real_lines(400 // share),
        *corpus.fuzz(500 // share, PIECES, seed=9),
        *corpus.fuzz(300 // share, test_byte_bpe_json.PIECES, seed=9),
        *islice(corpus.every_code_point(40, "a .中\u0301\u200d"), 100),
    ]
    (site.root / "lines.json").write_text(json.dumps(made), encoding="ascii")
    return made


@pytest.mark.parametrize("name", [*NAMES, "minilm-real", "gpt2-real", "t5-small-real"])
def test_token_ids_are_those_of_python(
    name: str, page: Page, site: Site, lines: list[str], request: pytest.FixtureRequest, figure: Figure
) -> None:
    if name == "minilm-real":
        folder = request.getfixturevalue("minilm").folder
    elif name.endswith("-real"):
        needed = {"gpt2-real": ["vocab.json", "merges.txt"], "t5-small-real": ["spiece.model"]}[name]
        folder = corpus.vocabulary_folder(name.removesuffix("-real"), needed)
    else:
        folder = MINIATURES / name
    compare_tokens(page, site, name, folder, lines)
    figure(f"{name} in the page: all of {len(lines)} lines as in Python")


@pytest.mark.parametrize("kind", ["gpt2, split", "smollm2", "llama3", "qwen2"])
def test_token_ids_of_each_kind_of_tokenizer_json_are_those_of_python(
    kind: str, page: Page, site: Site, lines: list[str], tmp_path: Path
) -> None:
    test_byte_bpe_json.trained(kind).save(str(tmp_path / "tokenizer.json"))
    compare_tokens(page, site, f"kind-{kind.partition(',')[0]}", tmp_path, lines)


def compare_tokens(page: Page, site: Site, name: str, folder: Path, lines: list[str]) -> None:
    """Ids, tokens, offsets, the way back, and what is cut off, of each line."""
    linked(site, name, folder, TOKENIZER_FILES)
    tokenizer: Any = tokenizers.load(folder)
    expected = []
    for line in lines:
        whole = tokenizer.encode(line)
        expected.append(
            [
                whole.ids,
                whole.tokens,
                whole.offsets,
                tokenizer.decode(whole.ids),
                tokenizer.decode(whole.ids, skip_special_tokens=True),
                tokenizer.encode(line, max_tokens=8).ids,
            ]
        )
    (site.root / f"{name}.tokens.json").write_text(json.dumps(expected), encoding="ascii")
    files = sorted(file.name for file in folder.iterdir() if file.name in TOKENIZER_FILES)
    answer = call(page, "tokens", name, files, "lines.json", f"{name}.tokens.json")
    assert (answer["count"], answer["lines"], answer["first"]) == (0, len(lines), [])


def test_graphemes_and_decompositions_are_those_of_python(page: Page) -> None:
    """Ids alone would not tell: a word of rare marks is unknown in any order."""
    texts = list(corpus.fuzz(1000, MARKS, seed=3))
    expected = [
        [graphemes(text), [list(placed) for placed in decompose([(c, i) for i, c in enumerate(text)])]]
        for text in texts
    ]
    for text, own, python in zip(texts, call(page, "apart", texts), expected, strict=True):
        assert own == python, ascii(text)


def test_a_text_or_a_file_that_is_none_is_refused_in_a_sentence(page: Page) -> None:
    bert, gpt2 = MINIATURES / "minilm" / "vocab.txt", MINIATURES / "gpt2"
    spiece = (MINIATURES / "t5-small" / "spiece.model").read_bytes()
    vocabulary, merges = (gpt2 / "vocab.json").read_bytes(), (gpt2 / "merges.txt").read_bytes()
    whole = bert.read_bytes()
    many_fields = b"\n\x05\n\x03abc" + b"\x12\x80\x89\x7a" + b"\x20\x01" * 1_000_000  # 2,000,000 bytes long
    cases: list[tuple[dict[str, bytes], str, str]] = [
        ({}, "", "no tokenizer"),
        ({"vocab.txt": b""}, "", "vocab.txt is empty"),
        ({"vocab.txt": b"\xff"}, "", "vocab.txt is not UTF-8"),
        ({"vocab.txt": b"a\nb"}, "", r"vocab.txt lacks [PAD]"),
        ({"vocab.txt": b"a\na\n"}, "", "lines 1 and 2 are the same"),
        ({"vocab.txt": whole, "tokenizer_config.json": b'{"strip_accents": 1}'}, "", "strip_accents is 1"),
        ({"vocab.txt": whole, "tokenizer_config.json": b'{"padding_side": "left"}'}, "", "padding_side"),
        ({"vocab.txt": whole, "tokenizer_config.json": b"[" * 10**6}, "", "is not JSON"),
        ({"vocab.txt": whole}, "a\ud800", "lone surrogate (U+D800) at character 1"),
        ({"merges.txt": merges}, "", "vocab.json is missing"),
        ({"merges.txt": merges, "vocab.json": b"[]"}, "", "vocab.json holds no JSON object"),
        ({"merges.txt": merges, "vocab.json": b'{"a": 1}'}, "", "need the ids 0 to 0"),
        ({"merges.txt": b"a b c", "vocab.json": vocabulary}, "", "merges.txt line 1 is broken"),
        ({"merges.txt": "é é".encode(), "vocab.json": vocabulary}, "", "is not in vocab.json"),
        ({"spiece.model": b""}, "", "it has no pieces"),
        ({"spiece.model": b"\xff" * 20}, "", "longer than 64 bits"),
        ({"spiece.model": many_fields}, "", '"<pad>" is no token'),
        *(
            ({"spiece.model": spiece[:length]}, "", "spiece.model")
            for length in (1, 7, 1000, len(spiece) - 1)
        ),
    ]
    answers = call(
        page,
        "refusals",
        [
            {"files": {name: data.decode("latin-1") for name, data in files.items()}, "text": text}
            for files, text, _ in cases
        ],
    )
    for (files, text, words), answer in zip(cases, answers, strict=True):
        assert answer is not None, (list(files), text, words)
        is_meant, message = answer
        assert is_meant, message
        assert words in message
        assert "\n" not in message
        assert len(message) < 300


def test_the_unicode_tables_are_those_of_python() -> None:
    for file, content in page_tables.modules().items():
        assert file.read_text(encoding="utf-8") == content


# ----------------------------------------------------------------------------------------- decoding


def in_javascript(settings: Settings) -> dict[str, Any]:
    """The settings that are not None, by their JavaScript names."""
    words = {name: name.split("_") for name in vars(settings)}
    names = {name: "".join([first, *map(str.title, others)]) for name, (first, *others) in words.items()}
    return {names[name]: value for name, value in vars(settings).items() if value is not None}


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.weekly)])
@pytest.mark.parametrize("name", PROMPTS)
def test_greedy_and_beam_tokens_are_those_of_python(
    name: str, count: int, page: Page, figure: Figure
) -> None:
    copy, prompts = miniature(name), PROMPTS[name][:count]
    assert len(prompts) == count
    special = defaults(copy).special
    assert special.padding is not None
    read = inputs.read(copy, prompts).with_padding("right" if special.start is not None else "left")
    case = {
        "tokenIds": read.token_ids.masked_fill(read.mask == 0, special.padding).tolist(),
        "mask": read.mask.tolist(),
        "special": {"ends": special.ends, "padding": special.padding, "start": special.start},
    }
    answers = call(
        page, "continuations", name, [{**case, "settings": in_javascript(settings)} for settings in SETTINGS]
    )
    for settings, answer in zip(SETTINGS, answers, strict=True):
        assert answer == generate(copy, prompts, settings).token_ids.tolist(), settings
    figure(f"{name} in the page: {len(prompts)} prompts in {len(SETTINGS)} ways, all tokens as in Python")


def test_settings_do_to_the_scores_what_they_do_in_python(page: Page) -> None:
    torch.manual_seed(0)
    scores, token_ids = torch.randn(1, 50) * 3, torch.tensor([[7, 3, 7, 3, 9, 7]])
    cases = [
        Settings(repetition_penalty=1.5),
        Settings(no_repeat_ngram=1),
        Settings(no_repeat_ngram=2),
        Settings(temperature=0.7),
        Settings(top_k=5),
        Settings(top_k=1000),
        Settings(top_p=0.8),
        Settings(top_p=0.01),
        Settings(temperature=1.3, top_k=20, top_p=0.9, repetition_penalty=0.8, no_repeat_ngram=3),
        Settings(temperature=1.0, top_k=1, top_p=0.1, beams=2),
    ]
    answers = call(
        page,
        "adjustments",
        scores[0].tolist(),
        token_ids[0].tolist(),
        [in_javascript(case) for case in cases],
    )
    for case, answer in zip(cases, answers, strict=True):
        whole: Decoding = case.complete()
        python = decoding.adjusted(scores, token_ids, whole, torch.zeros(1, dtype=torch.int64), 0)[0]
        own = torch.tensor([-torch.inf if score is None else score for score in answer])
        torch.testing.assert_close(own, python, msg=lambda words, case=case: f"{case}: {words}")


def test_tokens_are_drawn_by_their_probabilities_and_the_same_from_one_seed(page: Page) -> None:
    scores, rows = [0.0, 1.0, -1.0, 2.0, 0.5], 20_000
    settings = {"temperature": 2.0, "topK": 4, "seed": 1}
    counts = call(page, "draws", scores, settings, rows)
    kept = decoding.keep_top_k(decoding.warm(torch.tensor([scores]), 2.0), 4).softmax(dim=-1)[0]
    for count, share in zip(counts, kept.tolist(), strict=True):
        assert abs(count - rows * share) <= 4 * (rows * share * (1 - share)) ** 0.5
    assert call(page, "draws", scores, settings, rows) == counts
    assert call(page, "draws", scores, {**settings, "seed": 2}, rows) != counts


# ------------------------------------------------------------------------------------------ configs

ODD = (None, 0, -1, 1.5, 5, "4", True, [], {}, "constructor", "__proto__", 10**30)
ROPES: list[dict[str, Any]] = [
    {"rope_type": "linear", "factor": 2, "constructor": 1},
    {"rope_type": ["linear"], "factor": 2},
    {"rope_type": "linear", "type": "dynamic", "factor": 2},
    {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1},
    {"rope_type": "yarn", "factor": 2, "beta_fast": 0},
    {"rope_type": "yarn", "factor": 2, "truncate": 1},
    {"rope_type": "yarn", "factor": 2, "mscale": -1, "mscale_all_dim": 1},
    {"rope_type": "yarn", "factor": 2, "beta_fast": 1, "beta_slow": 32},
    {"rope_type": "default", "factor": None},
    {"rope_type": None},
    {"rope_theta": 1},
    {"rope_theta": None},
]
OTHERS: dict[str, list[dict[str, Any]]] = {
    "gpt2": [{"dtype": "int8"}, {"torch_dtype": "bfloat16"}, {"n_head": 4, "num_attention_heads": 4}],
    "t5-small": [
        {"relative_attention_num_buckets": 3},
        {"relative_attention_max_distance": 16},
        {"feed_forward_proj": "gated-relu", "dense_act_fn": "relu", "is_gated_act": True},
        {"dense_act_fn": "silu"},
        {"is_gated_act": True},
    ],
    "llama": [
        *({place: rope} for rope in ROPES for place in ("rope_scaling", "rope_parameters")),
        *(
            {"model_type": kind, "use_sliding_window": True, "sliding_window": 8, field: value}
            for kind in ("mistral", "qwen2", "qwen3")
            for field, value in (
                ("sliding_window", 1),
                ("use_sliding_window", "yes"),
                ("max_window_layers", -1),
                ("layer_types", ["full"]),
                ("layer_types", "sliding_attention"),
                ("attention_bias", 1),
            )
            if (kind, field) != ("mistral", "use_sliding_window")  # which nobody reads there
        ),
    ],
}


def refusal(copy: LocalCopy, config: dict[str, Any], generation: dict[str, Any] | None, folder: Path) -> str:
    """Why Python refuses these files; empty where it reads them."""
    try:
        rebuild_for(config)
        if generation is not None:
            for name, values in (("config.json", config), ("generation_config.json", generation)):
                (folder / name).write_text(json.dumps(values), encoding="utf-8")
            defaults(dataclasses.replace(copy, folder=folder))
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", NAMES)
def test_what_config_json_may_not_say_is_refused_as_in_python(
    page: Page, name: str, tmp_path: Path, figure: Figure
) -> None:
    """Neither takes what the other refuses. What JSON.parse cannot tell, 1 from 1.0, is left out."""
    copy = miniature(name)
    record = copy.rebuild.architecture
    fields = {field.name for field in dataclasses.fields(record.config)} - {"model_type"}
    fields |= {*FIXED_EVERYWHERE, *record.fixed, *record.aliases.values(), "dtype"}
    edits = [{field: value} for field in sorted(fields) for value in ODD] + OTHERS.get(name, [])
    cases: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
        ({**copy.config, **edit}, None) for edit in edits
    ]
    file = copy.folder / "generation_config.json"
    if file.exists():
        generation = json.loads(file.read_text("utf-8"))
        fields = {*OBEYED, *IDS, "max_length", "constructor", "unheard_of"} - {"bos_token_id"}
        cases += [(copy.config, {**generation, field: value}) for field in sorted(fields) for value in ODD]
    ours = [refusal(copy, config, asked, tmp_path) for config, asked in cases]
    theirs = call(page, "refusedConfigs", json.dumps(cases), record.encoder_decoder)
    figure(f"{name}: {len(cases)} odd configs, {sum(map(bool, ours))} refused")
    differ = [
        (python, javascript)
        for python, javascript in zip(ours, theirs, strict=True)
        if bool(python) != bool(javascript) and "with a decimal point" not in python
    ]
    assert differ == []
    assert not any("no InputError" in one for one in theirs)


TOKEN = {"content": "<x>", "special": True}
OF_TOKENIZERS: dict[str, dict[str, tuple[Any, ...]]] = {
    "tokenizer_config.json": {
        "tokenizer_class": ("X", "BertTokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", None, 3),
        "additional_special_tokens": (["<x>"], []),
        "extra_special_tokens": ({"a": "<x>"}, {}),
        "added_tokens_decoder": ({"0": TOKEN},),
        **{f"{name}_token": ("<y>", TOKEN, None, True) for name in ("bos", "eos", "unk", "pad", "cls")},
        **dict.fromkeys(("add_bos_token", "add_eos_token", "add_prefix_space"), (True,)),
        "split_special_tokens": (True,),
        "padding_side": ("left",),
        "do_lower_case": ("yes", 1),
    },
    "tokenizer.json": {
        "added_tokens": ([], [{"id": 0, **TOKEN}], "x"),
        "model": ({"vocab": {"a": 0}}, {"merges": ["a b"]}, None),
        "decoder": (None,),
    },
    "special_tokens_map.json": {"pad_token": ("<y>", TOKEN, None)},
    "added_tokens.json": {"<x>": (5,)},
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_tokenizer_s_files_may_not_say_is_refused_as_in_python(
    page: Page, name: str, tmp_path: Path
) -> None:
    """But that T5's tokenizer.json has the vocabulary of spiece.model is looked at in Python alone."""
    whole = {
        file.name: file.read_bytes() for file in (MINIATURES / name).iterdir() if file.name in TOKENIZER_FILES
    }
    cases, ours = [], []
    for file, fields in OF_TOKENIZERS.items():
        for field, values in fields.items():
            for value in values if (name, field) != ("t5-small", "model") else ():
                edited = json.loads(whole.get(file, b"{}")) | {field: value}
                cases.append((file, field, value, json.dumps(edited).encode()))
    cases.append(("tokenizer.json", "", "no JSON", b"x"))
    for number, (file, *_, edited) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        for part, content in (whole | {file: edited}).items():
            (folder / part).write_bytes(content)
        ours.append(tokenizer_refusal(folder))
    asked = [{"files": {file: edited.decode("latin-1")}, "text": "a"} for file, *_, edited in cases]
    theirs = call(
        page, "refusals", asked, {part: content.decode("latin-1") for part, content in whole.items()}
    )
    assert [
        case[:3] for case, own, other in zip(cases, ours, theirs, strict=True) if bool(own) != bool(other)
    ] == []
    assert all(refusal is None or refusal[0] for refusal in theirs)


def tokenizer_refusal(folder: Path) -> str:
    """Why Python refuses the files of a tokenizer; empty where it reads them."""
    try:
        tokenizers.load(folder)
    except InputError as error:
        return str(error)
    return ""
