"""The miniatures that ship: whole, loaded by the official classes, as good as their cards say."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertModel,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    T5ForConditionalGeneration,
)

from tests.threads import one_thread as one_thread
from tools.miniatures import evaluate, model_cards, number_words, paraphrases, world
from tools.miniatures.training import (
    FIGURES,
    NAMES,
    REPOSITORY,
    SHIPPED,
    SIZE_LIMIT,
    Curve,
    loss_figure,
    sha256,
)

FILES = {
    "minilm": {
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    },
    "gpt2": {
        "config.json",
        "generation_config.json",
        "merges.txt",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    },
    "t5-small": {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "spiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
    },
    "llama": {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    },
}
OFFICIAL = {
    "minilm": BertModel,
    "gpt2": GPT2LMHeadModel,
    "t5-small": T5ForConditionalGeneration,
    "llama": LlamaForCausalLM,
}
# What only the tokenizers' library reads; without it the tokenizer is built from the vocabulary proper.
LIBRARY_FILE = "tokenizer.json"

VOCABULARIES = {
    "minilm": ["vocab.txt", LIBRARY_FILE],
    "gpt2": ["vocab.json", "merges.txt", LIBRARY_FILE],
    "t5-small": ["spiece.model", LIBRARY_FILE],
    "llama": [LIBRARY_FILE],
}

each_miniature = pytest.mark.parametrize("name", NAMES)


def tensors(name: str) -> dict[str, torch.Tensor]:
    with safe_open(SHIPPED / name / "model.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no dict)


def sample_texts(name: str) -> list[str]:
    generator = random.Random(5)
    own = {
        "minilm": lambda: paraphrases.draw_scene(generator, held_out=True).two_tellings(generator)[0],
        "gpt2": lambda: world.draw_passage(generator),
        "llama": lambda: world.draw_passage(generator),
        "t5-small": lambda: number_words.draw_pair(generator, held_out=True, to_german=True)[0],
    }[name]
    foreign = ["The weather is lovely today!", "Ça coûte 12 € – naïve?", "snow  in\tJuly", "x", ""]
    return [own() for _ in range(50)] + foreign


# -------------------------------------------------------------------------------------------------- the files


@each_miniature
def test_the_folder_holds_what_a_hub_copy_holds(name: str) -> None:
    folder = SHIPPED / name
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert present == FILES[name] | {"provenance.json"}


@each_miniature
def test_the_manifest_is_true_of_every_file(name: str) -> None:
    folder = SHIPPED / name
    provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
    assert provenance["source"] == "miniature"
    assert provenance["name"] == name
    assert {"seed", "steps", "script", "versions", "revision", "date"} <= provenance.keys()
    assert provenance["files"].keys() == FILES[name]
    for file, record in provenance["files"].items():
        content = (folder / file).read_bytes()
        assert len(content) == record["size"], file
        assert hashlib.sha256(content).hexdigest() == record["sha256"], file


@each_miniature
def test_the_weights_are_small_and_float32(name: str) -> None:
    assert (SHIPPED / name / "model.safetensors").stat().st_size <= SIZE_LIMIT
    others = {key: tensor.dtype for key, tensor in tensors(name).items() if tensor.dtype != torch.float32}
    assert others == ({"embeddings.position_ids": torch.int64} if name == "minilm" else {})


@each_miniature
def test_the_keys_are_the_published_ones(name: str) -> None:
    config = AutoConfig.from_pretrained(SHIPPED / name)
    with torch.device("meta"):
        state = OFFICIAL[name](config).state_dict()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    tied |= {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    wanted = {key.removeprefix("transformer.") for key in state.keys() - tied}
    # What the published files hold besides parameters.
    wanted |= {
        "minilm": {"embeddings.position_ids"},
        "gpt2": {f"h.{block}.attn.bias" for block in range(getattr(config, "n_layer", 0))},
        "t5-small": {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"},
    }.get(name, set())
    assert tensors(name).keys() == wanted


@each_miniature
def test_no_norm_or_bias_is_at_a_value_that_hides_a_swap(name: str) -> None:
    for key, tensor in tensors(name).items():
        if key.endswith(("attn.bias", "position_ids")) and tensor.dim() != 1:
            continue  # the mask and the position numbers are no parameters
        assert tensor.unique().numel() > 1, f"{key} is constant"
        if tensor.dim() == 1:
            assert not (tensor == 0).any(), f"{key} holds exact zeros"
            assert not (tensor == 1).any(), f"{key} holds exact ones"
            assert tensor.std() > 1e-3, f"{key} hardly varies"
        assert torch.isfinite(tensor).all(), key


def test_no_two_norms_or_biases_of_a_shape_are_alike() -> None:
    for name in NAMES:
        seen: dict[bytes, str] = {}
        for key, tensor in tensors(name).items():
            if tensor.dim() == 1:
                twin = seen.setdefault(tensor.numpy().tobytes(), key)
                assert twin == key, f"{name}: {twin} and {key} hold the same numbers"


@each_miniature
def test_several_heads_several_blocks_and_an_inexact_head_width(name: str) -> None:
    config = AutoConfig.from_pretrained(SHIPPED / name)
    head_width = getattr(config, "d_kv", None) or config.hidden_size // config.num_attention_heads
    assert config.num_attention_heads > 1
    assert config.num_hidden_layers >= 2
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(scores / head_width**0.5, scores * head_width**-0.5)


# -------------------------------------------------------------------------------------- the official classes


@each_miniature
def test_the_official_class_loads_every_key(name: str) -> None:
    _, loading = OFFICIAL[name].from_pretrained(SHIPPED / name, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), loading


@each_miniature
def test_auto_classes_know_the_folder(name: str) -> None:
    model, tokenizer = (
        AutoModel.from_pretrained(SHIPPED / name),
        AutoTokenizer.from_pretrained(SHIPPED / name),
    )
    assert len(tokenizer) <= model.get_input_embeddings().weight.shape[0]
    ids = tokenizer(sample_texts(name))["input_ids"]
    assert max(max(row, default=0) for row in ids) < len(tokenizer)


@pytest.mark.parametrize("name", [name for name in NAMES if len(VOCABULARIES[name]) > 1])
def test_the_vocabulary_alone_gives_the_same_tokens(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(SHIPPED / name, folder)
    (folder / LIBRARY_FILE).unlink()
    texts = sample_texts(name)
    from_vocabulary, from_library = (
        AutoTokenizer.from_pretrained(folder),
        AutoTokenizer.from_pretrained(SHIPPED / name),
    )
    assert from_vocabulary(texts)["input_ids"] == from_library(texts)["input_ids"]


def test_the_spiece_model_is_read_alike_by_both_official_implementations() -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is in the dev extra")
    original = sentencepiece.SentencePieceProcessor(model_file=str(SHIPPED / "t5-small" / "spiece.model"))
    library = AutoTokenizer.from_pretrained(SHIPPED / "t5-small")
    for text in sample_texts("t5-small"):
        assert library(text)["input_ids"] == [*original.encode(text), 1], text


def test_special_tokens_have_the_published_order() -> None:
    t5 = AutoTokenizer.from_pretrained(SHIPPED / "t5-small")
    assert t5.convert_tokens_to_ids(["<pad>", "</s>", "<unk>"]) == [0, 1, 2]
    assert len(t5) == 484
    assert t5.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [483, 384]
    gpt2 = AutoTokenizer.from_pretrained(SHIPPED / "gpt2")
    assert gpt2.convert_tokens_to_ids("<|endoftext|>") == len(gpt2) - 1 == 1023
    assert gpt2.decode(gpt2("Ça coûte 12 €\n\x00🦆")["input_ids"]) == "Ça coûte 12 €\n\x00🦆"
    llama = AutoTokenizer.from_pretrained(SHIPPED / "llama")
    assert llama.convert_tokens_to_ids(["<|begin_of_text|>", "<|end_of_text|>"]) == [1022, 1023]
    assert llama("They do.")["input_ids"][0] == 1022
    minilm = AutoTokenizer.from_pretrained(SHIPPED / "minilm")
    assert minilm.convert_tokens_to_ids("[PAD]") == 0
    assert (
        minilm.unk_token_id not in minilm("any English word, 1234567890 of them: quiz vex jumpy")["input_ids"]
    )


def test_sentence_transformers_reads_the_encoder() -> None:
    library = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is in the test extra"
    )
    sentences = ["The cook gave the sailor a lamp.", "The king is older than the queen."]
    vectors = torch.from_numpy(
        library.SentenceTransformer(str(SHIPPED / "minilm"), device="cpu").encode(sentences)
    )
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "minilm")
    inputs = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(SHIPPED / "minilm").eval()(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    assert torch.allclose(vectors, means, atol=1e-6)


# ------------------------------------------------------------------------------------------------- the scores


@torch.no_grad()
def test_the_encoder_finds_paraphrases() -> None:
    scores = evaluate.evaluate_minilm(SHIPPED / "minilm", scenes=300)
    assert scores["retrieval"]["score"] >= 0.90
    assert scores["retrieval_bag_of_words"]["score"] < 0.70  # else the task would need no model
    assert scores["closer_than_twin"]["score"] >= 0.90


@pytest.mark.parametrize(("name", "facts", "true"), [("gpt2", 0.88, 0.75), ("llama", 0.84, 0.75)])
@torch.no_grad()
def test_the_decoder_knows_its_world(name: str, facts: float, true: float) -> None:
    scores = evaluate.evaluate_writer(SHIPPED / name, questions=150, strangers=20, passages=50)
    assert scores["facts"]["score"] >= facts
    assert scores["free_true"]["score"] >= true


@torch.no_grad()
def test_the_translator_translates() -> None:
    scores = evaluate.evaluate_t5(SHIPPED / "t5-small", numbers=200)
    assert scores["english_to_german"]["score"] >= 0.95
    assert scores["german_to_english"]["score"] >= 0.95


def test_the_published_scores_are_of_these_weights_and_above_the_bars() -> None:
    results = json.loads(model_cards.SCORES.read_text("utf-8"))
    assert tuple(results) == NAMES
    for name in NAMES:
        assert results[name]["sha256"] == sha256(SHIPPED / name / "model.safetensors"), (
            f"measure {name} again"
        )
        assert results[name]["training_minutes"] <= 20
    assert results["minilm"]["scores"]["retrieval"]["score"] >= 0.90
    assert results["minilm"]["scores"]["retrieval"]["items"] == 1000
    assert results["t5-small"]["scores"]["english_to_german"]["score"] >= 0.95
    assert results["gpt2"]["scores"]["facts"]["score"] >= 0.92
    assert results["llama"]["scores"]["facts"]["score"] >= 0.89


def test_the_page_shows_the_published_scores() -> None:
    results = json.loads(model_cards.SCORES.read_text("utf-8"))
    page = model_cards.PAGE.read_text("utf-8")
    assert model_cards.render(page, results) == page, "run python -m tools.miniatures.model_cards"
    results["t5-small"]["scores"]["millions"]["score"] += 0.5
    assert model_cards.render(page, results) != page


@each_miniature
def test_the_figure_is_drawn_from_the_curve(name: str) -> None:
    curve = Curve(**json.loads((FIGURES / f"miniature-{name}-loss.json").read_text("utf-8")))
    assert curve.steps[-1] == json.loads((SHIPPED / name / "provenance.json").read_text("utf-8"))["steps"]
    assert (FIGURES / f"miniature-{name}-loss.svg").read_text("utf-8") == loss_figure(curve)
    assert f"docs/figures/miniature-{name}-loss.svg" in model_cards.PAGE.read_text("utf-8")
    changed = dataclasses.replace(curve, loss=[2 * loss for loss in curve.loss])
    assert loss_figure(changed) != loss_figure(curve)


# ------------------------------------------------------------------------------------------------- the splits

NUMBERS = {
    0: ("zero", "null"),
    1: ("one", "eins"),
    7: ("seven", "sieben"),
    16: ("sixteen", "sechzehn"),
    17: ("seventeen", "siebzehn"),
    21: ("twenty-one", "einundzwanzig"),
    30: ("thirty", "dreißig"),
    66: ("sixty-six", "sechsundsechzig"),
    77: ("seventy-seven", "siebenundsiebzig"),
    100: ("one hundred", "einhundert"),
    101: ("one hundred one", "einhunderteins"),
    427: ("four hundred twenty-seven", "vierhundertsiebenundzwanzig"),
    1_000: ("one thousand", "eintausend"),
    1_001: ("one thousand one", "eintausendeins"),
    12_012: ("twelve thousand twelve", "zwölftausendzwölf"),
    31_000: ("thirty-one thousand", "einunddreißigtausend"),
    101_101: ("one hundred one thousand one hundred one", "einhunderteintausendeinhunderteins"),
    999_999: (
        "nine hundred ninety-nine thousand nine hundred ninety-nine",
        "neunhundertneunundneunzigtausendneunhundertneunundneunzig",
    ),
}


@pytest.mark.parametrize("number", NUMBERS)
def test_number_words(number: int) -> None:
    assert (number_words.english(number), number_words.german(number)) == NUMBERS[number]


def test_number_words_are_never_ambiguous() -> None:
    for write in (number_words.english, number_words.german):
        assert len({write(number) for number in range(0, number_words.LIMIT, 7)}) == len(
            range(0, 1_000_000, 7)
        )
    assert number_words.english(427, british=True) == "four hundred and twenty-seven"
    assert number_words.english(1_005, british=True) == "one thousand and five"
    with pytest.raises(ValueError, match="1000000"):
        number_words.german(1_000_000)


def test_numbers_are_held_out_one_in_ten_and_never_drawn_for_training() -> None:
    held_out = sum(map(number_words.is_held_out, range(100_000)))
    assert 9_500 < held_out < 10_500
    assert not any(map(number_words.is_held_out, range(100)))
    generator = random.Random(1)
    assert not any(
        number_words.is_held_out(number_words.draw_number(generator, held_out=False)) for _ in range(5000)
    )
    assert all(
        number_words.is_held_out(number_words.draw_number(generator, held_out=True)) for _ in range(500)
    )


def test_training_passages_never_state_a_held_out_sentence() -> None:
    held_out = {beginning + answer for beginning, answer in world.held_out_questions()}
    assert len(held_out) == len(world.PEOPLE) * len(world.FACTS) == 576
    generator = random.Random(2)
    passages = [world.draw_passage(generator) for _ in range(20_000)]
    stated = {words for passage in passages for words, _ in world.check(passage)}
    assert not held_out & stated
    # Every other way to state a fact does occur, so the fact itself is taught.
    other_ways = {
        world.sentence(template, who, person.facts[fact])
        for person in world.PEOPLE
        for fact in world.FACTS
        for template in world.PERSON_SENTENCES[fact]
        for who in (person.name, person.role)
    } - held_out
    assert len(other_ways & stated) > 0.95 * len(other_ways)


def test_the_world_tells_truth_from_falsehood() -> None:
    generator = random.Random(3)
    verdicts = {verdict for _ in range(2000) for _, verdict in world.check(world.draw_passage(generator))}
    assert verdicts == {"true"}
    person = world.PEOPLE[0]
    home = next(home for home in world.HOMES if home != person.facts["home"])
    pronoun = person.pronoun.capitalize()
    wrong_pronoun = {"She": "He", "He": "She"}[pronoun]
    text = (
        f"{person.name} lives by the {person.facts['home']}. {pronoun} lives by the {home}. "
        f"{pronoun} lives by the moon. {wrong_pronoun} lives by the {person.facts['home']}. Blue the of. "
        "A stranger came to Oru with a red hat, a blue bag and a green belt. The bag was blue. "
        "The hat was blue. The coat was blue. "
    )
    assert [verdict for _, verdict in world.check(text)] == [
        "true",
        "false",
        "not of the grammar",
        "not of the grammar",
        "not of the grammar",
        "true",
        "true",
        "false",
        "not of the grammar",
    ]


def test_scenes_and_their_twins_are_on_one_side_of_the_split() -> None:
    generator = random.Random(4)
    for held_out in (False, True):
        for _ in range(500):
            scene = paraphrases.draw_scene(generator, held_out=held_out)
            assert scene.is_held_out == held_out
            assert scene.twin is None or (scene.twin != scene and scene.twin.is_held_out == held_out)
    assert len(set(paraphrases.held_out_scenes(0, 400))) == 400


def test_no_two_held_out_scenes_share_a_telling() -> None:
    generator = random.Random(6)
    told: dict[str, paraphrases.Scene] = {}
    for scene in paraphrases.held_out_scenes(evaluate.EVALUATION_SEED, 1000):
        for pattern in range(len(paraphrases.SENTENCES[scene.frame])):
            for _ in range(5):
                telling = scene.tell(generator, pattern)
                assert told.setdefault(telling, scene) == scene, telling


# ------------------------------------------------------------------------------------------------ the scripts


SCRIPTS = {name: f"train_{name.removesuffix('-small')}" for name in NAMES}
IN_ONE_PROCESS = """
import runpy, sys
folder, *scripts = sys.argv[1:]
for name, script in zip(scripts[::2], scripts[1::2]):
    sys.argv = [script, "--out", f"{folder}/{name}", "--figures", folder, "--steps", "2"]
    runpy.run_module(f"tools.miniatures.{script}", run_name="__main__")
"""


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the scripts make in two steps of training, in a process of their own."""
    folder = tmp_path_factory.mktemp("one")
    pairs = [word for pair in SCRIPTS.items() for word in pair]
    command = [sys.executable, "-c", IN_ONE_PROCESS, str(folder), *pairs]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=600)
    return folder


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script in this process, where Python's hashes are others, and other things ran before it."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_module(f"tools.miniatures.{SCRIPTS[name]}", run_name="__main__")

    return run


@pytest.mark.parametrize(
    "name", [name if name == "gpt2" else pytest.param(name, marks=pytest.mark.weekly) for name in SCRIPTS]
)
def test_the_script_makes_the_same_weights_twice(
    name: str, made_once: Path, script: Callable[..., None], tmp_path: Path
) -> None:
    script(name, "--out", tmp_path / name, "--figures", tmp_path, "--steps", 2)
    for file in ("model.safetensors", *VOCABULARIES[name]):
        assert sha256(tmp_path / name / file) == sha256(made_once / name / file), file


@pytest.mark.parametrize(("name", "vocabulary"), VOCABULARIES.items())
def test_the_script_makes_the_shipped_tokenizer(name: str, vocabulary: list[str], made_once: Path) -> None:
    provenance = json.loads((SHIPPED / name / "provenance.json").read_text("utf-8"))
    maker = "sentencepiece" if name == "t5-small" else "tokenizers"
    if version(maker) != provenance["versions"][maker]:
        pytest.skip(f"{maker} {version(maker)} is not the release that made the shipped tokenizer")
    for file in vocabulary:
        assert sha256(made_once / name / file) == provenance["files"][file]["sha256"], file


def test_the_script_does_not_write_over_a_folder_that_is_not_a_miniature(
    script: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(SystemExit, match=r"choose another folder$"):
        script("t5-small", "--out", tmp_path, "--steps", 1)
    assert [file.name for file in tmp_path.iterdir()] == ["diary.txt"]
