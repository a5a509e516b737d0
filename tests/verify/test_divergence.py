"""The first divergence in words: which axis means what, which token stands there, which step is to blame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from llm_rebuild import verify
from llm_rebuild.checkpoints import expand
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.diagnosis.mutants import Mutant, run, scene
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.models import ARCHITECTURES
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import Capture, capture
from llm_rebuild.verify.compare import Verdict
from llm_rebuild.verify.divergence import Divergence, describe, in_words
from llm_rebuild.verify.rounding import Rounding
from llm_rebuild.verify.run import judge

IDS = torch.tensor([[101, 7, 8, 102], [101, 9, 102, 0]])
RIGHT = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
TOKENS = (("[CLS]", "open", "rock", "[SEP]"), ("[CLS]", "they", "[SEP]"))
RIGHT_PADDED = Inputs(IDS, RIGHT, ("open rock", "they"), TOKENS, (0, 0))
LEFT_PADDED = replace(
    RIGHT_PADDED, token_ids=torch.tensor([[101, 7, 8, 102], [0, 101, 9, 102]]), mask=RIGHT.flip(1)
)
ONLY_IDS = replace(RIGHT_PADDED, texts=(), tokens=())
DECODING = replace(RIGHT_PADDED, decoder_ids=torch.tensor([[0, 7], [0, 55]]), decoder_mask=torch.ones(2, 2))
# A step after the prompt: one new id, and a mask that counts all tokens so far.
STEP = replace(
    LEFT_PADDED, token_ids=torch.tensor([[33], [44]]), mask=torch.cat([RIGHT.flip(1), torch.ones(2, 1)], 1)
)
MINILM, GPT2 = "encoder.layer.3.attention.self.", "h.3.attn."
SELF, CROSS = "decoder.block.2.layer.0.SelfAttention.", "decoder.block.2.layer.1.EncDecAttention."


def of_a_model(name: str, tensor: Tensor, inputs: Inputs = RIGHT_PADDED, attention: str = "eager") -> Capture:
    """A capture of one checkpoint, of the model that has it."""
    for model_type, architecture in ARCHITECTURES.items():
        other = {"eager", "sdpa"} - {attention}
        listed = [replace(c, only=frozenset()) for c in architecture.checkpoints if not c.only & other]
        run = {c.name: c for c in expand(listed, dict.fromkeys([s.path for s in architecture.stacks], 9), ())}
        if name in run:
            tensors, checkpoints = {name: tensor}, {name: run[name]}
            return Capture({}, attention, inputs, {}, tensors, checkpoints=checkpoints, model_type=model_type)
    return Capture({}, attention, inputs, {}, {name: tensor})


def words(name: str, shape: tuple[int, ...], at: tuple[int, ...], inputs: Inputs = RIGHT_PADDED) -> str:
    truth = of_a_model(name, torch.zeros(shape), inputs)
    return in_words(Verdict(name, shape, "float32", "wrong values", 1.0, 1, 0, at, 0.0, 1.0), truth)


@pytest.mark.parametrize(
    ("name", "shape", "at", "inputs", "expected"),
    [
        (
            MINILM + "scaled", (2, 12, 4, 4), (0, 7, 2, 1), RIGHT_PADDED,
            'block 3, text 1 of 2, head 7, query token 2 "rock", key token 1 "open"',
        ),
        (
            MINILM + "probs", (2, 12, 4, 4), (1, 0, 1, 3), RIGHT_PADDED,
            'block 3, text 2 of 2, head 0, query token 1 "they", key token 3 (padding)',
        ),
        (
            MINILM + "probs", (2, 12, 4, 4), (1, 0, 3, 0), LEFT_PADDED,
            'block 3, text 2 of 2, head 0, query token 3 "[SEP]", key token 0 (padding)',
        ),
        (
            MINILM + "query", (2, 4, 384), (0, 3, 17), ONLY_IDS,
            "block 3, text 1 of 2, token 3 id 102, number 17 of 384",
        ),
        (
            "mask", (2, 1, 4, 4), (1, 0, 0, 3), RIGHT_PADDED,
            'text 2 of 2, query token 0 "[CLS]", key token 3 (padding)',
        ),
        ("sentence.count", (2, 384), (1, 5), RIGHT_PADDED, "text 2 of 2, number 5 of 384"),
        ("wpe", (1, 4, 768), (0, 2, 9), LEFT_PADDED, "token 2, number 9 of 768"),  # another in each row
        (
            GPT2 + "c_attn", (2, 4, 2304), (0, 1, 800), RIGHT_PADDED,
            'block 3, text 1 of 2, token 1 "open", key, number 32 of 768',
        ),
        (
            GPT2 + "head_context", (2, 12, 4, 64), (0, 5, 1, 9), RIGHT_PADDED,
            'block 3, text 1 of 2, head 5, query token 1 "open", number 9 of 64',
        ),
        (
            "lm_head", (2, 4, 50257), (0, 3, 262), RIGHT_PADDED,
            'text 1 of 2, token 3 "[SEP]", score of id 262',
        ),
        (
            GPT2 + "probs", (2, 12, 1, 5), (1, 2, 0, 2), STEP,
            'block 3, text 2 of 2, head 2, query token 0 id 44, key token 2 "they"',
        ),
        (
            SELF + "probs", (2, 8, 2, 2), (0, 1, 1, 0), DECODING,
            'decoder block 2, text 1 of 2, head 1, query token 1 "open", key token 0 id 0 (start)',
        ),
        (
            CROSS + "probs", (2, 8, 2, 4), (1, 1, 1, 1), DECODING,
            'decoder block 2, cross-attention, text 2 of 2, head 1, query token 1 id 55, key token 1 "they"',
        ),
        (
            CROSS + "k", (2, 4, 512), (0, 2, 1), DECODING,
            'decoder block 2, cross-attention, text 1 of 2, token 2 "rock", number 1 of 512',
        ),
        (
            "encoder.block.1.layer.0.layer_norm.mean_square", (2, 4, 1), (0, 2, 0), DECODING,
            'encoder block 1, text 1 of 2, token 2 "rock"',
        ),
        ("model.layers.0.mystery", (2, 3), (1, 2), RIGHT_PADDED, "block 0, at [1, 2]"),  # of no model we know
    ],
)  # fmt: skip
def test_a_coordinate_in_words(name, shape, at, inputs, expected):
    assert words(name, shape, at, inputs) == expected


def test_one_text_is_not_counted():
    one = Inputs(IDS[:1], RIGHT[:1], ("open rock",), TOKENS[:1], (0,))
    assert words("wpe", (1, 4, 768), (0, 2, 9), one) == 'token 2 "rock", number 9 of 768'


def test_tokens_are_shown_on_one_line_and_not_too_long():
    odd = replace(RIGHT_PADDED, tokens=(("a\nb\u202e", "x" * 100, "c", "d"), TOKENS[1]))
    assert '"a\\nb\\u202e"' in words("sentence.masked", (2, 4, 8), (0, 0, 1), odd)
    assert len(words("sentence.masked", (2, 4, 8), (0, 1, 1), odd)) < 80


def test_every_checkpoint_of_the_models_has_its_shape_in_words():
    for name in NAMES:
        for attention in ("eager", "sdpa"):
            copy = LocalCopy(name, MINIATURES / name, "miniature")
            truth = capture(copy, token_ids=[[5, 6, 7], [8, 9]], attention=attention)
            for checkpoint, tensor in truth.tensors.items():
                found = truth.checkpoints.get(checkpoint)
                assert found is not None, checkpoint
                axes = found.shape.strip("[]").split(", ")
                assert len(axes) == tensor.dim(), checkpoint
                assert [n for a, n in zip(axes, tensor.shape, strict=True) if a == "1"] == [1] * axes.count(
                    "1"
                )


@pytest.mark.parametrize(
    ("attention", "meaning"), [("eager", "values by these shares"), ("sdpa", "values by attention")]
)
def test_a_checkpoint_that_is_listed_twice_is_the_one_of_this_attention(attention: str, meaning: str):
    name = GPT2 + "head_context"
    found = of_a_model(name, torch.zeros(1, 1, 1, 1), attention=attention).checkpoints[name]
    assert found.meaning == meaning


# -------------------------------------------------------------------------------------- which step


def verdicts(**kinds: bool) -> list[Verdict]:
    return [
        Verdict(n, (1,), "float32", "bit-identical" if identical else "wrong values")
        for n, identical in kinds.items()
    ]


NOTHING = Capture({}, "eager", RIGHT_PADDED, {}, {})
GIVEN: Mapping[str, list[str]] = {"b": ["a"], "c": ["b"], "e": ["c", "elsewhere"], "a": []}


def test_what_goes_into_the_step_is_named():
    found = describe(verdicts(a=True, b=True, c=False, e=False), NOTHING, lambda name: GIVEN[name])
    assert found == Divergence(verdicts(c=False)[0], "", ("b",), before=2)
    assert found.inputs_identical
    assert found.blame() == "what belongs into it (b) is bit-identical: the difference arises here"


def test_where_an_input_differs_the_step_is_not_blamed():
    late = describe(verdicts(c=False, b=False), NOTHING, lambda name: GIVEN[name])
    assert late is not None
    assert not late.inputs_identical
    assert late.blame() == "what belongs into it differs already: b"


def test_without_a_graph_everything_before_stands_for_the_inputs():
    found = describe(verdicts(a=True, b=True, c=False), NOTHING)
    assert found is not None
    assert found.blame().startswith("all 2 checkpoints before it are bit-identical")
    first = describe(verdicts(a=False), NOTHING)
    assert first is not None
    assert first.blame().startswith("nothing is computed before it")


def test_nothing_differs():
    assert describe(verdicts(a=True, b=True), NOTHING) is None


@pytest.mark.parametrize(
    ("rounding", "said"),
    [
        (
            Rounding({"c": "rounding"}, {"c": (2e-7, 1e-7)}),
            "the rebuilt tensor is 2e-07 of its largest number away from this step in float64, the official "
            "one 1e-07: rounding, no mistake",
        ),
        (
            Rounding({"c": "mistake"}, {"c": (0.3, 1e-7)}),
            "the rebuilt tensor is 3e-01 of its largest number away from this step in float64, the official "
            "one 1e-07: the mistake is made here",
        ),
        (
            Rounding({"c": "mistake"}, {"c": (0.0, 0.0)}),  # -inf where a mask has the lowest number
            "this step in float64 gives something else: the mistake is made here",
        ),
        (Rounding({}, {}, {"c": "no formula"}), "are bit-identical: the difference arises here"),
    ],
)
def test_the_blame_says_rounding_or_mistake(rounding: Rounding, said: str):
    found = describe(verdicts(a=True, b=True, c=False), NOTHING)
    assert found is not None
    assert found.blame(rounding).endswith(said)


def test_a_mistake_in_a_real_run_is_placed_and_blamed():
    """GPT-2 without its scale: the scaled scores differ, the product before them does not."""
    copy = LocalCopy("gpt2", MINIATURES / "gpt2", "miniature")
    played = scene(copy, texts=["The baker of Oru lives by the", "The cook"])
    mutant = Mutant("no-scale", "gpt2", "scaled = product * scale", "scaled = product", "", "")
    rebuilt = run(mutant, played).tensors
    report = judge(rebuilt, played.truth)
    assert report.first_divergence is not None
    assert report.first_divergence is not None
    at = report.first_divergence.verdict.coordinate
    assert at is not None
    here: Tensor = played.truth.tensors["h.0.attn.scaled"]
    difference = (rebuilt["h.0.attn.scaled"] - here).abs()
    assert difference[at] == difference.max()
    tokens = played.truth.inputs.tokens[at[0]]
    assert report.first_divergence.words == (
        f'block 0, text {at[0] + 1} of 2, head {at[1]}, query token {at[2]} "{tokens[at[2]]}", '
        f'key token {at[3]} "{tokens[at[3]]}"'
    )
    found = describe(report.verdicts, played.truth, world_of(played.truth, copy).inputs_of)
    assert found is not None
    assert found.inputs == ("h.0.attn.product",)
    text = " ".join(str(replace(report, first_divergence=found)).split())
    assert "worst at block 0, text" in text
    assert "what belongs into it (h.0.attn.product) is bit-identical" in text
    first = replace(report, first_divergence=found).to_json()["first_divergence"]
    assert (first["words"], first["inputs_identical"], first["rounding"]) == (found.words, True, None)


def test_every_formula_names_checkpoints_that_come_before():
    """What `inputs_of` gives is always there and earlier: or a later step would be blamed."""
    for name in NAMES:
        copy = LocalCopy(name, MINIATURES / name, "miniature")
        truth = verify.capture(copy, token_ids=[[5, 6, 7], [8, 9]])
        world, seen = world_of(truth, copy), set()
        for checkpoint in truth:
            assert set(world.inputs_of(checkpoint)) <= seen, checkpoint
            seen.add(checkpoint)
