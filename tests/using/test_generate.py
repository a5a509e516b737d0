"""Generation equals the official `generate`, token by token, draws included; and bad input is refused."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.using import decoding
from llm_rebuild.using.generate import generate
from llm_rebuild.using.settings import Settings, SpecialIds
from tests.models.small import LLAMA
from tools import full_size

MINIATURES = Path(decoding.__file__).parents[1] / "miniatures"
Figure = Callable[[str], None]

# The smallest of each architecture. Several tokens end a text, so that seeded weights do end some.
NUMBERS = [6, pytest.param(18, marks=pytest.mark.weekly)]  # of prompts in a batch
SMALL: dict[str, dict[str, Any]] = {
    "gpt2": full_size.CONFIGS["gpt2"]
    | {"vocab_size": 211, "n_positions": 64, "n_ctx": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    | {"eos_token_id": [7, *range(150, 160)], "bos_token_id": 7},
    "t5-small": full_size.CONFIGS["t5-small"]
    | {"vocab_size": 211, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    | {"eos_token_id": [1, *range(150, 160)]},
    "llama": {**LLAMA, "vocab_size": 211, "hidden_size": 32, "max_position_embeddings": 64}
    | {"eos_token_id": [7, *range(150, 160)], "bos_token_id": 7},
}

# Every mode alone, and those whose order matters together. `early_stopping` and `length_penalty` at the
# values that take another path through the beam search.
MODES: list[dict[str, Any]] = [
    {},
    {"attention": "eager"},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8, "no_repeat_ngram": 3},
    {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 1},
    {"temperature": 1.0},
    {"temperature": 0.7, "attention": "eager"},
    {"top_k": 5},
    {"top_p": 0.8},
    {"temperature": 1.6, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.2, "no_repeat_ngram": 2},
    {"temperature": 0.9, "top_k": 1000, "top_p": 1.0},
    {"beams": 2},
    {"beams": 4, "early_stopping": True},
    {"beams": 4, "early_stopping": "never", "length_penalty": 2.0, "attention": "eager"},
    {"beams": 3, "length_penalty": -1.0, "no_repeat_ngram": 2, "repetition_penalty": 1.1},
    {"beams": 3, "length_penalty": 0.0, "early_stopping": "never"},
    {"beams": 3, "temperature": 1.3, "top_k": 20, "top_p": 0.9},
    {"beams": 2, "temperature": 1.0, "top_k": 1},
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tiny products gain nothing from threads, and lose much where other programs run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LocalCopy]:
    folders = {
        name: full_size.make(tmp_path_factory.mktemp(name), config, seed=4) for name, config in SMALL.items()
    }
    return lambda name: LocalCopy(name, folders[name], "folder")


def official(copy: LocalCopy, attention: str) -> Any:
    """The official model of a folder."""
    transformers.logging.set_verbosity_error()
    cls: Any = getattr(transformers, copy.architecture.official_class)
    return cls.from_pretrained(copy.folder, attn_implementation=attention).eval()


def officially(model: Any, prompts: list[list[int]], padding: int, **mode: Any) -> Tensor:
    """The same prompts and settings through the official `generate`."""
    settings = Settings(**{key: value for key, value in mode.items() if key != "attention"}).complete()
    left = not model.config.is_encoder_decoder
    longest = max(len(row) for row in prompts)
    fill = [[padding] * (longest - len(row)) for row in prompts]
    rows = [more + row if left else row + more for row, more in zip(prompts, fill, strict=True)]
    masks = [[0] * len(more) + [1] * len(row) for row, more in zip(prompts, fill, strict=True)]
    options: dict[str, Any] = {
        "max_new_tokens": settings.max_new_tokens,
        "num_beams": settings.beams,
        "length_penalty": settings.length_penalty,
        "early_stopping": settings.early_stopping,
        "repetition_penalty": settings.repetition_penalty,
        "no_repeat_ngram_size": settings.no_repeat_ngram,
        "do_sample": settings.sample,
    }
    if settings.sample:  # there, none means 50
        options["top_k"] = settings.top_k or 0
        options["top_p"] = settings.top_p
        options["temperature"] = settings.temperature
        torch.manual_seed(settings.seed or 0)
    mask = torch.tensor(masks if left else [row[::-1] for row in masks])
    result: Tensor = model.generate(
        torch.tensor(rows), attention_mask=mask, **{k: v for k, v in options.items() if v is not None}
    )
    return result


def prompts_of(vocab: int, number: int, seed: int, longest: int = 12) -> list[list[int]]:
    """Rows of random ids, of unequal lengths. Every fourth batch is one prompt, without padding."""
    chance = random.Random(seed)
    number = 1 if seed % 4 == 3 else number
    return [[chance.randrange(3, vocab) for _ in range(chance.randint(1, longest))] for _ in range(number)]


def compare(copy: LocalCopy, modes: list[dict[str, Any]], number: int, tokens: int) -> dict[str, int]:
    """Run every mode on both sides. Returns what was compared; fails where a token differs."""
    models = {
        attention: official(copy, attention) for attention in {m.get("attention", "sdpa") for m in modes}
    }
    config = models["sdpa"].config
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    padding = ends[0] if config.pad_token_id is None else config.pad_token_id
    count = {"prompts": 0, "tokens": 0, "ended": 0}
    for seed, mode in enumerate(modes):
        prompts = prompts_of(config.vocab_size, number, seed)
        full: dict[str, Any] = {"max_new_tokens": tokens, "attention": "sdpa", **mode}
        if {"temperature", "top_k", "top_p"} & mode.keys():
            full["seed"] = seed
        wanted = officially(models[full["attention"]], prompts, padding, **full)
        asked = Settings(**{key: value for key, value in full.items() if key != "attention"})
        got = generate(copy, prompts, asked, attention=full["attention"])
        assert torch.equal(got.token_ids, wanted), f"{mode}: {got.token_ids.tolist()} {wanted.tolist()}"
        count["prompts"] += len(prompts)
        count["tokens"] += sum(len(row) for row in got.rows)
        count["ended"] += sum(row[-1] in ends for row in got.rows)
    return count


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", SMALL)
def test_every_mode_is_token_exact_on_seeded_models(
    name: str, number: int, small: Any, figure: Figure
) -> None:
    count = compare(small(name), MODES, number, tokens=40)
    figure(
        f"generate, small seeded {name}: {len(MODES)} modes, {count['prompts']} prompts of up to 40 new "
        f"tokens, all token-exact; {count['ended']} rows ended by themselves"
    )
    assert count["prompts"] >= 13 * number
    assert 2 * number <= count["ended"] <= count["prompts"] - 2 * number  # neither path is untested


@pytest.mark.parametrize(
    ("every", "number"), [(3, 6), *(pytest.param(1, n, marks=pytest.mark.weekly) for n in (6, 18))]
)
@pytest.mark.parametrize("name", SMALL)
def test_every_mode_is_token_exact_on_the_miniatures(
    name: str, every: int, number: int, figure: Figure
) -> None:
    """One mode in so many, and others for each model: greedy, drawn, and beam searches."""
    if not (MINIATURES / name / "model.safetensors").is_file():
        pytest.skip(f"the {name} miniature does not ship yet; tools/miniatures trains it")
    modes = MODES[list(SMALL).index(name) % every :: every]
    count = compare(LocalCopy(name, MINIATURES / name, "miniature"), modes, number, tokens=40)
    figure(
        f"generate, {name} miniature: {len(modes)} modes, {count['prompts']} prompts of up to 40 new "
        f"tokens, all token-exact; {count['ended']} rows ended by themselves"
    )
    assert count["prompts"] * len(MODES) >= 13 * number * len(modes)


@pytest.mark.parametrize("number", [2, pytest.param(10, marks=pytest.mark.weekly)])
@pytest.mark.parametrize("name", ["gpt2", "t5-small"])
def test_full_size_is_token_exact(name: str, number: int, tmp_path: Path, figure: Figure) -> None:
    copy = LocalCopy(name, full_size.make(tmp_path, full_size.CONFIGS[name]), "folder")
    modes: list[dict[str, Any]] = [
        {"repetition_penalty": 1.2},
        {"temperature": 0.9, "top_k": 40, "top_p": 0.95},
        {"beams": 2, "no_repeat_ngram": 2},
    ]
    count = compare(copy, modes, number, tokens=6)
    figure(
        f"generate, full-size seeded {name}: {len(modes)} modes, {count['prompts']} prompts of up to 6 "
        "new tokens, all token-exact"
    )
    assert count["prompts"] >= 3 * number


# ------------------------------------------------------------------------------ by hand


def chain(table: dict[int, dict[int, float]], vocab: int) -> decoding.Step[Any]:
    """A model that looks at the last token only: table[last][next] is a probability, times any factor."""

    class Nothing:
        def reorder(self, rows: Tensor) -> Nothing:
            return self

    def step(token_ids: Tensor, state: Nothing | None) -> tuple[Tensor, Nothing]:
        rows = [
            [table[last].get(token, 1e-9) for token in range(vocab)] for last in token_ids[:, -1].tolist()
        ]
        return torch.tensor(rows).log(), state or Nothing()

    return step


def test_a_beam_finds_what_greed_misses() -> None:
    # 0 is followed by 1 (0.6), then all of 3, 4, 5 alike; or by 2 (0.4) and then surely by 6. 7 ends.
    step = chain(
        {0: {1: 6, 2: 4}, 1: {3: 1, 4: 1, 5: 1}, 2: {6: 3}} | {last: {7: 1} for last in range(3, 8)}, 8
    )
    special = SpecialIds(ends=(7,), padding=7)
    prompt = torch.tensor([[0]])
    greedy = decoding.decode(step, prompt, Settings(5), special)
    assert greedy.tolist() == [[0, 1, 3, 7]]
    beam = decoding.decode(step, prompt, Settings(5, beams=2), special)
    assert beam.tolist() == [[0, 2, 6, 7]]


@pytest.mark.parametrize("settings", [Settings(5), Settings(5, beams=2), Settings(5, temperature=2.0)])
def test_scores_that_are_nan_are_no_answer(settings: Settings) -> None:
    step = chain({0: {1: 1}, 1: {2: math.nan}}, 3)
    with pytest.raises(InputError, match="the model's scores are NaN, of which none is the best"):
        decoding.decode(step, torch.tensor([[0]]), settings, SpecialIds((), None))


def test_when_a_beam_search_gives_up() -> None:
    # From 0 a text most likely ends at once (3); a row of 2s is worse at first, and better when it is long.
    table = {0: {0: 1, 1: 1, 2: 1, 3: 5}, 1: {0: 2, 1: 5, 2: 5, 3: 2}, 2: {0: 1, 1: 2, 2: 9, 3: 9}, 3: {0: 1}}
    model = chain({last: dict(row) for last, row in table.items()}, 4)
    steps: list[int] = []

    def found(early_stopping: Any) -> list[int]:
        def step(token_ids: Tensor, state: Any) -> tuple[Tensor, Any]:
            steps[-1] += 1
            return model(token_ids, state)

        steps.append(0)
        settings = Settings(8, beams=2, length_penalty=2.0, early_stopping=early_stopping)
        row: list[int] = decoding.decode(step, torch.tensor([[0]]), settings, SpecialIds((3,), 3))[0].tolist()
        return row

    assert found(False) == [0, 3]
    assert found("never") == [0, 2, 2, 2, 2, 2, 2, 2, 3]
    assert found(True) == [0, 3]
    assert steps[2] <= steps[0] < steps[1] == 8
    # Two texts are finished after two steps, and nothing more is asked for; without, hope goes on.
    model = chain({0: {3: 5, 2: 4}, 2: {3: 5, 2: 4}, 1: {1: 1}, 3: {3: 1}}, 4)
    found(True), found(False)
    assert steps[-2] == 2 < steps[-1]


def test_rows_end_one_by_one_and_are_filled_up() -> None:
    step = chain({0: {1: 1}, 1: {2: 1}, 2: {3: 1}, 3: {3: 1}, 4: {3: 1}}, 5)
    special = SpecialIds(ends=(3,), padding=4)
    seen: list[list[int]] = []
    rows = decoding.decode(
        step, torch.tensor([[0], [2]]), Settings(9), special, stream=lambda new: seen.append(new.tolist())
    )
    assert rows.tolist() == [[0, 1, 2, 3], [2, 3, 4, 4]]
    assert seen == [[1, 3], [2, 4], [3, 4]]
    assert decoding.decode(step, torch.tensor([[0]]), Settings(2), special).tolist() == [[0, 1, 2]]
    assert decoding.decode(step, torch.tensor([[2]]), Settings(3), SpecialIds()).tolist() == [[2, 3, 3, 3]]


def test_each_change_of_the_scores_by_hand() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5, 0.5, 0.0]])
    out = -torch.inf
    assert decoding.warm(scores, 0.5).tolist() == [[4.0, -2.0, 1.0, 1.0, 0.0]]
    assert decoding.keep_top_k(scores, 1).tolist() == [[2.0, out, out, out, out]]
    assert decoding.keep_top_k(scores, 2).tolist() == [[2.0, out, 0.5, 0.5, out]]  # a tie stays
    assert decoding.keep_top_k(scores, 99).equal(scores)
    probabilities = torch.tensor([[0.5, 0.1, 0.25, 0.15]])
    assert decoding.keep_top_p(probabilities.log(), 0.7, 1).exp().tolist() == [[0.5, 0.0, 0.25, 0.0]]
    assert (decoding.keep_top_p(probabilities.log(), 0.01, 1) > out).tolist() == [[True, False, False, False]]
    assert (decoding.keep_top_p(probabilities.log(), 0.01, 2) > out).tolist() == [[True, False, True, False]]
    padded = torch.tensor([[2, 1, 1, 0]])
    repeated = decoding.penalise_repetition(scores, padded, 2.0, torch.tensor([1]))
    assert repeated.tolist() == [[1.0, -2.0, 0.5, 0.5, 0.0]]  # below zero further down; padding is spared
    runs = torch.tensor([[1, 2, 3, 1, 2]])
    assert (decoding.forbid_repeated_ngrams(scores, runs, 3) > out).tolist() == [[True] * 3 + [False, True]]
    assert decoding.forbid_repeated_ngrams(scores, runs, 6).equal(scores)


def test_draws_follow_the_seed_and_leave_the_global_generator_alone(small: Any) -> None:
    def drawn(seed: int | None) -> list[list[int]]:
        result = generate(small("gpt2"), [[9, 8]] * 3, Settings(8, temperature=1.5, seed=seed))
        return result.token_ids.tolist()

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = drawn(5)
    assert torch.get_rng_state().equal(before)
    assert drawn(5) == first != drawn(6)
    torch.manual_seed(5)
    assert drawn(None) == first


# ------------------------------------------------------------------------------ texts


class Letters:
    """A tokenizer of bytes: id 100 + b is the byte b."""

    pad_id = None
    vocabulary_size = 356

    def encode(self, text: str, max_tokens: int | None = None) -> Any:
        from llm_rebuild.tokenizers import Encoding

        ids = [100 + byte for byte in text.encode()][:max_tokens]
        return Encoding(ids, [chr(i - 100) for i in ids], [(0, 0)] * len(ids))

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        return bytes(i - 100 for i in ids).decode(errors="replace")


def test_a_stream_hands_out_whole_characters_and_nothing_after_the_end() -> None:
    from llm_rebuild.using.generate import Pieces

    pieces: list[tuple[int, str]] = []
    stream = Pieces(Letters(), lambda row, piece: pieces.append((row, piece)), 2, SpecialIds((7,), 7))
    words = "né €".encode(), b"a"
    for place in range(len(words[0])):
        second = 100 + words[1][place] if place < len(words[1]) else 7
        stream(torch.tensor([100 + words[0][place], second]))
    stream(torch.tensor([100 + 0xC3, 7]))  # cut off in the middle of a character
    stream.finish()
    assert [piece for row, piece in pieces if row == 0] == ["n", "é", " ", "€", "\ufffd"]
    assert [piece for row, piece in pieces if row == 1] == ["a"]


@pytest.mark.parametrize("name", ["gpt2", "t5-small", "llama"])
def test_a_text_has_no_special_token_as_officially(name: str) -> None:
    copy = LocalCopy(name, MINIATURES / name, "miniature")
    official = transformers.AutoTokenizer.from_pretrained(copy.folder)
    prompt = {"t5-small": "translate English to German: nine"}.get(name, "The baker of Oru")
    streamed: list[str] = []
    written = generate(copy, prompt, Settings(12), stream=lambda _, piece: streamed.append(piece))
    [row], [text] = written.rows, written.texts
    assert text == official.decode(row, skip_special_tokens=True)
    assert text == ("" if name == "t5-small" else prompt) + "".join(streamed)


def test_texts_go_in_and_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SMALL["gpt2"] | {"vocab_size": 356, "eos_token_id": 7}
    copy = LocalCopy("bytes", full_size.make(tmp_path, config), "folder")
    monkeypatch.setattr(LocalCopy, "tokenizer", lambda self: Letters())
    streamed = {0: "", 1: ""}

    def show(row: int, piece: str) -> None:
        streamed[row] += piece

    # The seeded model knows ids that Letters cannot decode; they are below 100 and never drawn from the top.
    result = generate(copy, ["Hi", "Hello"], Settings(6, top_k=1, seed=0), stream=show)
    assert result.prompts == ("Hi", "Hello")
    assert result.token_ids.shape == (2, 11)
    for row, prompt in enumerate(result.prompts):
        assert result.texts[row] == prompt + streamed[row]
        assert result.texts[row] == Letters().decode(result.rows[row])
    alone = generate(copy, "Hi", Settings(6))
    assert alone.texts[0] == result.texts[0]
    assert json.loads(json.dumps(alone.to_json())) == {
        "model": "bytes",
        "texts": ["Hi"],
        "token_ids": [list(alone.rows[0])],
        "generated": [alone.texts[0]],
    }


# -------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be a whole number from 1"),
        ({"beams": 0}, "beams is 0; it must be a whole number from 1"),
        ({"beams": True}, "beams is True; it must be a whole number from 1"),
        ({"top_k": 0}, "top_k is 0; it must be a whole number from 1"),
        ({"top_k": 2.5}, "top_k is 2.5; it must be a whole number from 1"),
        ({"no_repeat_ngram": 0}, "no_repeat_ngram is 0; it must be a whole number from 1"),
        ({"temperature": 0}, "temperature is 0; it must be a number above 0; for the best token"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be a number above 0"),
        ({"temperature": float("nan")}, "temperature is nan; it must be a number above 0"),
        ({"top_p": 0}, "top_p is 0; it must be above 0 and at most 1"),
        ({"top_p": 1.01}, "top_p is 1.01; it must be above 0 and at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be a number above 0"),
        ({"length_penalty": float("inf")}, "length_penalty is inf; it must be a finite number"),
        ({"early_stopping": "maybe"}, "early_stopping is 'maybe'; it must be True, False or"),
        ({"beams": 10**18}, "beams is 1000000000000000000; it must be at most 1,000"),
        ({"max_new_tokens": 10**19}, "max_new_tokens is 10000000000000000000; it must be at most 1,000,000"),
        ({"beams": 2, "length_penalty": 1e308}, "length_penalty is 1e+308; take one nearer to 0"),
        ({"beams": 2, "length_penalty": -1e308}, "length_penalty is -1e+308; take one nearer to 0"),
        ({"temperature": 1e-308, "seed": 1}, "temperature or repetition_penalty makes scores too large"),
        ({"temperature": 1.0, "seed": 2**64}, "seed is 18446744073709551616; it must be"),
        ({"seed": 3}, "a seed changes nothing without sampling"),
        ({"attention": "flash"}, "attention is 'flash'; it is either eager or sdpa"),
        ({"beams": 2, "stream": print}, "a beam search cannot stream"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, Any], message: str, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalCopy, "tokenizer", lambda self: Letters())
    options = {key: settings[key] for key in ("attention", "stream") if key in settings}
    others = {key: value for key, value in settings.items() if key not in options}
    copy = small("gpt2")
    with pytest.raises(InputError) as refused:
        generate(copy, [[5, 6]], Settings(**{"max_new_tokens": 3, **others}), **options)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["gpt2", "t5-small"])
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "no"),
        ([[]], "no token ids were given"),
        ([[5], []], "no token ids were given"),
        ([""], "prompt 1 is empty"),
        (["Hi", ""], "prompt 2 is empty"),
        (["Hi", [5]], "prompts are either all texts or all rows of token ids"),
        ([[5, 211]], "token id 211 is outside the vocabulary of 0 to 210"),
        ([[-1]], "token id -1 is outside the vocabulary of 0 to 210"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(
    name: str, prompts: Any, message: str, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalCopy, "tokenizer", lambda self: Letters())
    with pytest.raises(InputError) as refused:
        generate(small(name), prompts, Settings(3))
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_the_last_position_is_used_and_none_after_it(small: Any) -> None:
    copy = small("gpt2")  # 64 positions
    full = generate(copy, [[9] * 60], Settings(5))  # the fifth new token is never read
    assert full.token_ids.shape[1] <= 65
    with pytest.raises(InputError, match=r"60 tokens and 6 new ones do not fit the model's 64.*at most 5"):
        generate(copy, [[9] * 60], Settings(6))
    with pytest.raises(InputError, match="65 token ids are more than the 64 that the model takes"):
        generate(copy, [[9] * 65], Settings(1))


def test_a_text_longer_than_those_of_the_training_is_said(small: Any, capsys: pytest.CaptureFixture) -> None:
    copy = small("llama")  # trained on 64 tokens
    generate(copy, [[9] * 62], Settings(2))
    assert capsys.readouterr().err == ""
    generate(copy, [[9] * 64], Settings(1))
    assert capsys.readouterr().err.startswith("65 tokens, where ")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gpt2", {"eos_token_id": 211}, "config.json: eos_token_id is 211; the vocabulary has 0 to 210"),
        ("gpt2", {"eos_token_id": [7, -2]}, "config.json: eos_token_id is -2; the vocabulary"),
        ("gpt2", {"eos_token_id": "</s>"}, "config.json: eos_token_id is '</s>'; the vocabulary"),
        ("gpt2", {"pad_token_id": 999}, "config.json: pad_token_id is 999; the vocabulary"),
        ("t5-small", {"decoder_start_token_id": 500}, "config.json: decoder_start_token_id is 500"),
        ("t5-small", {"decoder_start_token_id": None}, "config.json: decoder_start_token_id is missing"),
    ],
)
def test_unknown_special_tokens_are_refused(
    name: str, change: dict[str, Any], message: str, small: Any, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL[name] | change))
    (tmp_path / "model.safetensors").symlink_to(small(name).weights_file)
    with pytest.raises(InputError) as refused:
        generate(LocalCopy(name, tmp_path, "folder"), [[5]], Settings(3))
    assert str(refused.value).startswith(message)


def test_without_an_end_a_batch_needs_equal_lengths(small: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL["gpt2"] | {"eos_token_id": None}))
    (tmp_path / "model.safetensors").symlink_to(small("gpt2").weights_file)
    copy = LocalCopy("gpt2", tmp_path, "folder")
    assert generate(copy, [[5], [6]], Settings(30)).token_ids.shape == (2, 31)  # nothing ends it
    with pytest.raises(InputError, match="prompts of unequal length need padding"):
        generate(copy, [[5], [6, 7]], Settings(3))


def test_a_model_that_does_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match="minilm does not write texts; gpt2, t5-small and llama do"):
        generate(LocalCopy("minilm", tmp_path, "folder"), [[5]], Settings(3))
