"""What a folder asks of generation is done as the official `generate` does it, or refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.using import defaults as module
from llm_rebuild.using.defaults import defaults
from llm_rebuild.using.generate import Settings, generate
from tests.using.test_generate import SMALL
from tools import full_size

PROMPTS = torch.tensor([[5, 6, 9], [8, 30, 31]])
Make = Callable[..., LocalCopy]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: full_size.make(tmp_path_factory.mktemp(name), c, seed=4) for name, c in SMALL.items()}


@pytest.fixture
def make(tmp_path: Path, weights: dict[str, Path]) -> Make:
    """A seeded model with changes in config.json (None takes a field out), and a generation_config.json."""

    def make(
        name: str, config: dict[str, Any] | None = None, asked: dict[str, Any] | None = None
    ) -> LocalCopy:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "model.safetensors").symlink_to(weights[name] / "model.safetensors")
        fields = {key: value for key, value in (SMALL[name] | (config or {})).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")
        if asked is not None:
            (folder / "generation_config.json").write_text(json.dumps(asked), encoding="utf-8")
        return LocalCopy(name, folder, "folder")

    return make


def officially(copy: LocalCopy, **options: Any) -> torch.Tensor:
    transformers.logging.set_verbosity_error()
    cls: Any = getattr(transformers, copy.architecture.official_class)
    model = cls.from_pretrained(copy.folder, attn_implementation="sdpa").eval()
    torch.manual_seed(0)
    result: torch.Tensor = model.generate(PROMPTS, attention_mask=torch.ones_like(PROMPTS), **options)
    return result


ENDS = {"eos_token_id": [*range(60, 90)], "pad_token_id": 3, "decoder_start_token_id": 4}
# What the folder says, and what its caller says besides, in our words and in theirs.
ASKED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (ENDS, {"max_new_tokens": 12}, {}),
    ({"eos_token_id": None, "decoder_start_token_id": 4}, {"max_new_tokens": 12}, {}),
    ({"bos_token_id": 9}, {"max_new_tokens": 12}, {}),
    (ENDS | {"max_new_tokens": 7}, {}, {}),
    (ENDS | {"max_length": 9}, {}, {}),
    (ENDS | {"max_length": 9}, {"max_new_tokens": 3}, {}),
    (ENDS | {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True}, {"max_new_tokens": 9}, {}),
    (ENDS | {"num_beams": 3, "early_stopping": "never"}, {"max_new_tokens": 9, "beams": 2}, {"num_beams": 2}),
    (ENDS | {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}, {"max_new_tokens": 12}, {}),
    (ENDS | {"do_sample": True}, {"max_new_tokens": 12}, {}),
    (ENDS | {"do_sample": True, "temperature": 0.6, "top_p": 0.8, "top_k": 0}, {"max_new_tokens": 12}, {}),
    (
        ENDS | {"do_sample": True, "temperature": 0.6, "typical_p": 1.0},
        {"max_new_tokens": 12, "temperature": 1.4, "top_k": 7},
        {"temperature": 1.4, "top_k": 7},
    ),
    (ENDS | {"do_sample": True, "top_k": 5}, {"max_new_tokens": 12, "sample": False}, {"do_sample": False}),
    (ENDS | {"temperature": 0.6, "top_p": 0.2, "min_p": 0.3}, {"max_new_tokens": 12}, {}),
    (
        ENDS | {"top_p": 0.5},
        {"max_new_tokens": 9, "temperature": 2.0},
        {"do_sample": True, "temperature": 2.0, "top_k": 0},
    ),
    (
        ENDS | {"min_length": 0, "num_return_sequences": 1, "_from_model_config": True},
        {"max_new_tokens": 9},
        {},
    ),
]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("number", range(len(ASKED)))
def test_a_folder_is_obeyed_as_officially(name: str, where: str, number: int, make: Make) -> None:
    folder, ours, theirs = ASKED[number]
    copy = make(name, *((None, folder) if where == "generation_config.json" else (folder,)))
    if "max_new_tokens" in ours:
        theirs = theirs | {"max_new_tokens": ours["max_new_tokens"]}
    wanted = officially(copy, **theirs)
    torch.manual_seed(0)
    assert torch.equal(generate(copy, PROMPTS, Settings(**ours)).token_ids, wanted)


def test_generation_config_json_is_all_that_counts_where_it_is(make: Make) -> None:
    """Not even the end of a text is looked for in config.json then, as officially."""
    special = defaults(make("gpt2", {"eos_token_id": 7, "do_sample": True}, {})).special
    assert (special.ends, special.padding) == ((), None)


def test_where_both_are_silent_nothing_ends_a_text(make: Make) -> None:
    copy = make("gpt2", {"eos_token_id": None, "bos_token_id": None})
    assert defaults(copy).special.ends == ()
    assert torch.equal(generate(copy, PROMPTS, Settings(9)).token_ids, officially(copy, max_new_tokens=9))


def test_every_field_of_the_official_class_is_obeyed_or_refused_or_has_a_reason() -> None:
    official = set(transformers.GenerationConfig().to_dict()) | set(
        transformers.GenerationConfig._get_default_generation_params()
    )
    known = {
        *module.OBEYED,
        *module.IDS,
        *module.FIXED,
        *module.FIXED_IN_DRAWS,
        *module.IRRELEVANT,
        "max_length",
    }
    attributes = {name for name in vars(transformers.GenerationConfig()) if not name.startswith("_")}
    assert official | attributes <= known


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"min_new_tokens": 4}, "generation_config.json: min_new_tokens is 4; only None is supported"),
        ({"suppress_tokens": [4]}, "suppress_tokens is [4]"),
        ({"forced_eos_token_id": 4}, "forced_eos_token_id is 4"),
        ({"use_cache": False}, "use_cache is False; only True is supported"),
        ({"cache_implementation": "static"}, "cache_implementation is 'static'"),
        ({"do_sample": True, "min_p": 0.1}, "min_p is 0.1"),
        ({"do_sample": 1}, "do_sample is 1, expected true or false"),
        ({"num_beams": 0}, "num_beams is 0, expected a whole number from 1"),
        ({"temperature": "hot"}, "temperature is 'hot', expected a finite number from 0"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be a number above 0"),
        ({"top_p": 1.5}, "top_p is 1.5; it must be above 0 and at most 1"),
        ({"early_stopping": "maybe"}, "early_stopping is 'maybe', expected true, false or never"),
        ({"eos_token_id": 999}, "eos_token_id is 999; the vocabulary has 0 to 210"),
        ({"my_own_field": 1}, "my_own_field is 1; this field is not supported"),
        ({"max_length": 2}, "max_length is 2, the prompt has 3; say max_new_tokens"),
    ],
)
def test_what_is_not_done_is_refused_by_its_field(asked: dict[str, Any], told: str, make: Make) -> None:
    with pytest.raises(InputError) as refused:
        generate(make("gpt2", None, asked), PROMPTS)
    assert told in str(refused.value)


def test_forty_tokens_where_nobody_says_how_many_but_no_more_than_fit(make: Make) -> None:
    copy = make("gpt2", {"eos_token_id": None})
    assert generate(copy, [[5] * 3]).token_ids.shape == (1, 43)
    assert generate(copy, [[5] * 60]).token_ids.shape == (1, 65)
