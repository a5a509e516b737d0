"""Numbers that others printed for the published models, reached by our rebuilds and tokenizers alone.

They need the real weights. Where these are not in the store the tests are skipped, and the reason says how to
get them; `.github/workflows/real-weights.yml` runs them every week where there is a network. What can be
checked from a vocabulary alone is also checked where somebody has only that (`LLM_REBUILD_VOCAB`).
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from llm_rebuild import tokenizers
from llm_rebuild.copies import local_copy, store
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.models import rebuild_for
from llm_rebuild.using.defaults import defaults
from llm_rebuild.using.generate import Settings, generate
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify import Question
from llm_rebuild.verify.run import rebuild_run
from tests.tokenizers.tokenizer_corpus import VOCABULARIES

SENTENCE = "Open-source LLMs rock."


def real(name: str) -> LocalCopy:
    """The real copy in the store. Nothing is fetched here: half a gigabyte is nobody's test."""
    if not (local_copy.store_folder() / name).exists():
        pytest.skip(f"{name}: the real copy is not in the store; `llm-rebuild download {name}` brings it")
    return local_copy.get(name, strict=True)


@pytest.fixture(scope="module")
def gpt2() -> LocalCopy:
    return real("gpt2")


@pytest.fixture(scope="module")
def t5_small() -> LocalCopy:
    return real("t5-small")


# ------------------------------------------------------------------------------------- token ids

# MiniLM's as in the notebook of the book whose strategy this course follows, T5's by its own tokenizer.
IDS = {
    "minilm": [101, 2330, 1011, 3120, 2222, 5244, 2600, 1012, 102],
    "gpt2": [11505, 12, 10459, 27140, 10128, 3881, 13],
    "t5-small": [2384, 18, 7928, 301, 11160, 7, 2480, 5, 1],
}


@pytest.mark.parametrize("name", IDS)
def test_token_ids_of_the_sentence(name: str) -> None:
    tokenizer = real(name).tokenizer()
    assert tokenizer.encode(SENTENCE).ids == IDS[name]
    if name == "gpt2":
        assert tokenizer.decode(IDS[name]) == SENTENCE
        assert tokenizer.encode("The dog").ids == [464, 3290]


@pytest.mark.parametrize("name", ["gpt2", "t5-small"])
def test_token_ids_of_the_sentence_from_the_vocabulary_alone(name: str) -> None:
    folder = VOCABULARIES / name
    if not folder.is_dir():
        pytest.skip(f"no real vocabulary of {name} in {folder}; LLM_REBUILD_VOCAB names another folder")
    for file, pin in local_copy.PINS[name].files.items():
        if (folder / file).is_file():
            assert local_copy.sha256_of(folder / file) == pin.sha256, file
    tokenizer = tokenizers.load(folder)
    assert tokenizer.encode(SENTENCE).ids == IDS[name]
    assert SENTENCE in tokenizer.decode(IDS[name])


# ------------------------------------------------------------------------------------------ GPT-2


def test_gpt2_writes_what_it_is_known_to_write(gpt2: LocalCopy) -> None:
    """transformers, tests/models/gpt2/test_modeling_gpt2.py: greedy, max_length 20."""
    written = generate(gpt2, [[464, 3290]], Settings(18))
    assert list(written.rows[0]) == [
        464, 3290, 373, 1043, 287, 257, 2214, 1474, 262, 16246, 286, 2688, 290, 2688, 27262, 13, 198, 198,
        464, 3290,
    ]  # fmt: skip


# Checkpoint, first of five places in the last axis, the numbers at the first token as printed. c_attn gives
# query, key and value side by side, 768 numbers each.
FIRST_NUMBERS = [
    ("embeddings", 0, [0.094007, -0.323282, 0.111917, -0.174867, 0.205223], 1e-6),
    ("h.0.attn.c_attn", 0, [-3.0921, 2.8398, 1.3211, -2.8124, 0.5560], 1e-4),
    ("h.0.attn.c_attn", 768, [-11.1340, 16.9833, 9.8151, 1.2522, 5.7914], 1e-4),
    ("h.0.attn.c_attn", 2 * 768, [0.1662, -0.0763, 0.2380, 0.1444, -0.0268], 1e-4),
    ("h.1.mlp.residual", 0, [1.3345, -0.3729, 1.1140, 0.0153, 0.9656], 1e-4),
    ("h.11.mlp.residual", 0, [1.1101, 0.3077, -0.6339, 0.5480, 1.2614], 1e-4),
    ("ln_f", 0, [0.0603, 0.0134, -0.2300, 0.0012, 0.0006], 1e-4),
]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gpt2_computes_the_numbers_that_were_printed(
    gpt2: LocalCopy, attention: str, figure: Callable[[str], None]
) -> None:
    """The notebook of the book whose strategy this course follows, on "Open-source LLMs rock."."""
    tokenizer = gpt2.tokenizer()
    inputs = Inputs.from_texts(tokenizer, [SENTENCE], 1024)
    tensors = rebuild_run(Question(gpt2, inputs, attention))
    worst = 0.0
    for name, start, printed, tolerance in FIRST_NUMBERS:
        numbers = tensors[name][0, 0, start : start + 5]
        apart = float((numbers - torch.tensor(printed)).abs().max())
        assert apart <= tolerance, (name, numbers.tolist(), printed)
        worst = max(worst, apart)
    figure(f"gpt2, {attention}: printed numbers met within {worst:.1e}")
    likeliest = tensors["lm_head"][0].argmax(dim=-1).tolist()
    assert tokenizer.decode(likeliest) == ".source codeVM are.\n"


# --------------------------------------------------------------------------------------------- T5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_t5_has_the_loss_it_is_known_to_have(t5_small: LocalCopy, attention: str) -> None:
    """transformers, tests/models/t5/test_modeling_t5.py: minus the summed loss of the label's tokens."""
    tokenizer, rebuild = t5_small.tokenizer(), rebuild_for(t5_small.config)
    start = defaults(t5_small).special.start
    assert start == 0
    labels = tokenizer.encode("Hi I am").ids
    inputs = Inputs.from_texts(tokenizer, ["Hello there"], None)
    inputs = inputs.with_decoder([[start, *labels[:-1]]], start, rebuild.config.vocab_size)
    with torch.no_grad():
        logits = rebuild.run(inputs.batch, rebuild.part(t5_small.weights(), attention=attention)).logits
    score = -float(F.cross_entropy(logits[0], torch.tensor(labels), reduction="sum"))
    assert score == pytest.approx(-19.0845, abs=1e-4)


# ------------------------------------------------------------------------------- what is published


@pytest.mark.parametrize("name", local_copy.PINS)
def test_the_real_copy_is_the_pinned_one(name: str) -> None:
    """Every byte of it is read again, and the config is the one that the chapters describe."""
    copy = real(name)
    assert store.verified(copy.folder, True, "")["revision"] == local_copy.PINS[name].revision
    sizes = {
        "minilm": {"hidden_size": 384, "num_hidden_layers": 6},
        "gpt2": {"n_embd": 768, "n_layer": 12, "vocab_size": 50257},
        "t5-small": {"d_model": 512, "num_layers": 6, "vocab_size": 32128},
    }[name]
    config = json.loads((copy.folder / "config.json").read_text("utf-8"))
    assert sizes.items() <= config.items()
