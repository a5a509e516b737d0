"""What decoding rests on: padding on either side, positions, the cache as a value, reordered rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import gpt2, rebuild_for, t5
from llm_rebuild.models.part import Batch, Part
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify import Question, capture, verify_steps
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.run import judge, rebuild_run
from tests.models import small

ATTENTIONS = ["eager", "sdpa"]
NEW = torch.tensor([[7], [30]])


@pytest.fixture(scope="module")
def gpt2_copy(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return small.model(tmp_path_factory.mktemp("models") / "gpt2", small.GPT2)


@pytest.fixture(scope="module")
def t5_copy(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return small.model(tmp_path_factory.mktemp("models") / "t5", small.T5)


def inputs_of(copy: LocalCopy, side: str = "right") -> Inputs:
    inputs = Inputs.from_token_ids(small.ROWS, 61, None).with_padding(side)
    return inputs.with_decoder(None, 0, 61) if copy.config["model_type"] == "t5" else inputs


def same(rebuilt: Tensor, official: Tensor) -> bool:
    return torch.equal(rebuilt, official)


# ------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("use_cache", [False, True], ids=["plain", "cache"])
def test_padding_on_either_side(gpt2_copy: LocalCopy, attention: str, side: str, use_cache: bool):
    question = Question(gpt2_copy, inputs_of(gpt2_copy, side), attention, use_cache)
    truth, rebuilt = capture(question), rebuild_run(question)
    report = judge(rebuilt, truth)
    assert report.exact, report.first_divergence
    assert list(rebuilt) == list(truth)  # the order of the list is the order of the taps


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("use_cache", [False, True], ids=["plain", "cache"])
def test_t5_names_come_in_the_order_of_the_list(t5_copy: LocalCopy, attention: str, use_cache: bool):
    question = Question(t5_copy, inputs_of(t5_copy), attention, use_cache)
    assert list(rebuild_run(question)) == list(capture(question))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_positions_that_leave_padding_out(gpt2_copy: LocalCopy, attention: str):
    """As the official `generate` counts them."""
    inputs = inputs_of(gpt2_copy, "left")
    positions = (inputs.mask.cumsum(-1) - 1).clamp(min=0)
    model = part_of(gpt2_copy, attention)
    with torch.no_grad():
        official = Official(gpt2_copy.folder, attention).model(
            inputs.token_ids,
            attention_mask=inputs.mask,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=1,
        )
        x, _ = gpt2.body(inputs.batch._replace(positions=positions), model, None)
        mine = gpt2.head(x[:, -1:], model)
    assert mine.shape == (2, 1, 61)
    assert same(mine, official.logits)


# --------------------------------------------------------------------------------------------- cache


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_several_new_tokens_at_once(gpt2_copy: LocalCopy, t5_copy: LocalCopy, attention: str):
    """A step may bring more than one token: then these must not look at each other's future."""
    new = torch.tensor([[7, 8, 9], [30, 2, 1]])
    for copy in (gpt2_copy, t5_copy):
        start, official = first_pass(copy, attention)
        assert same(start.logits, official.logits)
        mine, theirs = next_step(copy, start.cache, official, new, attention)
        assert same(mine.logits, theirs.logits)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("rows", [[1, 0], [0, 0], [1, 1]])
def test_reordered_rows(gpt2_copy: LocalCopy, t5_copy: LocalCopy, attention: str, rows: list[int]):
    """As beam search reorders: keys and values follow their row."""
    order = torch.tensor(rows)
    for copy in (gpt2_copy, t5_copy):
        start, official = first_pass(copy, attention)
        official.past_key_values.reorder_cache(order)
        mine, theirs = next_step(copy, start.cache.reorder(order), official, NEW, attention)
        assert same(mine.logits, theirs.logits)


def test_the_cache_is_a_value(gpt2_copy: LocalCopy, t5_copy: LocalCopy):
    """A step leaves the cache that it was given as it was, so it can be gone on from twice."""
    for copy in (gpt2_copy, t5_copy):
        start, official = first_pass(copy, "eager")
        before = start.cache.tokens
        one, _ = next_step(copy, start.cache, official, NEW, "eager")
        start_again, official_again = first_pass(copy, "eager")
        two, _ = next_step(copy, start.cache, official_again, NEW, "eager")
        assert start.cache.tokens == before == start_again.cache.tokens
        assert one.cache.tokens == before + 1
        assert same(one.logits, two.logits)


def part_of(copy: LocalCopy, attention: str = "eager") -> Part[Any]:
    return rebuild_for(copy.config).part(copy.weights(), attention=attention)


def first_pass(copy: LocalCopy, attention: str) -> tuple[Any, Any]:
    """Both sides on the prompt, with a cache. The official side unpadded below, so masks are given here."""
    inputs = inputs_of(copy, "left")
    official = Official(copy.folder, attention).model
    with torch.no_grad():
        if copy.config["model_type"] == "t5":
            start = torch.zeros(2, 1, dtype=torch.int64)
            batch = Batch(inputs.token_ids, inputs.mask, start)
            mine = t5.forward(batch, part_of(copy, attention), t5.Cache())
            theirs = official(
                inputs.token_ids, attention_mask=inputs.mask, decoder_input_ids=start, use_cache=True
            )
        else:
            mine = gpt2.forward(inputs.batch, part_of(copy, attention), gpt2.Cache())
            theirs = official(inputs.token_ids, attention_mask=inputs.mask, use_cache=True)
    theirs.model = official
    return mine, theirs


def next_step(copy: LocalCopy, cache: Any, official: Any, new: Tensor, attention: str) -> tuple[Any, Any]:
    inputs = inputs_of(copy, "left")
    with torch.no_grad():
        if copy.config["model_type"] == "t5":
            batch = Batch(inputs.token_ids, inputs.mask, new)
            mine = t5.forward(batch, part_of(copy, attention), cache)
            theirs = official.model(
                encoder_outputs=(official.encoder_last_hidden_state,),
                attention_mask=inputs.mask,
                decoder_input_ids=new,
                past_key_values=official.past_key_values,
            )
        else:
            mask = torch.cat([inputs.mask, torch.ones_like(new)], dim=1)
            mine = gpt2.forward(Batch(new, mask), part_of(copy, attention), cache)
            theirs = official.model(
                new, attention_mask=mask, past_key_values=official.past_key_values, use_cache=True
            )
    return mine, theirs


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cached", [False, True], ids=["no cache", "empty cache"])
def test_cross_attention_with_nothing_to_look_at_is_refused(t5_copy: LocalCopy, attention: str, cached: bool):
    """It used to look at the answer itself, where both sides had as many tokens."""
    model, ids = part_of(t5_copy, attention), torch.tensor([[3, 4, 5]])
    cache = t5.Cache() if cached else None
    with torch.no_grad(), pytest.raises(InputError, match="cross-attention has nothing to look at"):
        t5.decode(Batch(ids, torch.ones_like(ids), ids), None, model, cache)


def test_an_empty_cache_lets_the_encoder_run(t5_copy: LocalCopy):
    inputs = inputs_of(t5_copy)
    with torch.no_grad():
        without = t5.forward(inputs.batch, part_of(t5_copy))
        output = t5.forward(inputs.batch, part_of(t5_copy), t5.Cache())
    assert output.encoded is not None
    assert same(output.encoded, without.encoded)


@pytest.mark.parametrize("attention", ["flash", "", None, "EAGER"])
def test_another_attention_is_refused_by_name(gpt2_copy: LocalCopy, attention: str):
    with pytest.raises(InputError, match="it is either eager or sdpa"):
        part_of(gpt2_copy, attention)


def test_no_cache_where_none_is_asked_for(gpt2_copy: LocalCopy):
    with torch.no_grad():
        assert gpt2.forward(inputs_of(gpt2_copy).batch, part_of(gpt2_copy)).cache is None


def test_weights_are_never_written(gpt2_copy: LocalCopy, t5_copy: LocalCopy):
    for copy in (gpt2_copy, t5_copy):
        rebuild, weights, inputs = rebuild_for(copy.config), copy.weights(), inputs_of(copy)
        with torch.no_grad():
            rebuild.run(inputs.batch, rebuild.part(weights), rebuild.module.Cache())
        assert weights.written() == []
        assert {rebuild.module.__name__: weights.unread()} == {
            rebuild.module.__name__: [key for key in weights.unread() if ".attn.bias" in key]
        }


# ----------------------------------------------------------------------------------------- bad input


def gpt2_forward(copy: LocalCopy, tokens: int, cached: int = 0) -> None:
    model = part_of(copy)
    ids = torch.ones(1, tokens, dtype=torch.int64)
    cache = None
    with torch.no_grad():
        if cached:
            past = torch.ones(1, cached, dtype=torch.int64)
            cache = gpt2.forward(Batch(past, past), model, gpt2.Cache()).cache
        mask = torch.ones(1, cached + tokens, dtype=torch.int64)
        gpt2.forward(Batch(ids, mask), model, cache)


def test_the_last_position_still_works(gpt2_copy: LocalCopy):
    gpt2_forward(gpt2_copy, 24)
    gpt2_forward(gpt2_copy, 1, cached=23)


@pytest.mark.parametrize(("tokens", "cached"), [(25, 0), (1, 24), (2, 23)])
def test_past_the_last_position(gpt2_copy: LocalCopy, tokens: int, cached: int):
    with pytest.raises(InputError, match="25 tokens are more than the 24 positions"):
        gpt2_forward(gpt2_copy, tokens, cached)


def test_steps_past_the_last_position(gpt2_copy: LocalCopy):
    with pytest.raises(InputError, match="7 tokens and 18 steps do not fit the model's 24 positions"):
        verify_steps(gpt2_copy, token_ids=small.ROWS, steps=18)


def test_an_empty_prompt(gpt2_copy: LocalCopy, t5_copy: LocalCopy):
    nothing = torch.ones(1, 0, dtype=torch.int64)
    for copy in (gpt2_copy, t5_copy):
        rebuild = rebuild_for(copy.config)
        with pytest.raises(InputError, match="at least one"):
            rebuild.run(Batch(nothing, nothing), rebuild.part(copy.weights()))


def test_an_encoder_has_no_steps(tmp_path: Path):
    bert = small.model(tmp_path / "bert", small.BERT, small.POOLER)
    with pytest.raises(InputError, match="is an encoder"):
        verify_steps(bert, token_ids=small.ROWS)
