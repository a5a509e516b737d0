"""Reading a person's code: the line of a mistake, and never a wrong one where the code cannot be read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import llm_rebuild
from llm_rebuild.checkpoints import Tap
from llm_rebuild.diagnosis.mutants import Mutant, Scene, mutated
from llm_rebuild.diagnosis.reading import record, words
from llm_rebuild.diagnosis.reading.read import OfficialRun, observe, read
from llm_rebuild.diagnosis.reading.result import Reading
from llm_rebuild.diagnosis.reading.slices import Side
from tools.mutants import READ, read_set
from tools.mutation import BLIND
from tools.reading import changed_lines, explained, near, readings
from tools.reading import stage as stage_of

MINIATURES = Path(llm_rebuild.__file__).parent / "miniatures"
MUTANTS = {
    mutant.name: mutant for name in (*READ, "today") if name != BLIND for mutant in read_set(name).mutants
}
SCALED = "scaled = product * query.shape[-1] ** -0.5"


def stage(model: str, run: str = "padded") -> tuple[Scene, OfficialRun]:
    """A model's scene and the official run beside which one reads."""
    return stage_of(model, "", run, "eager")


def own(file: str) -> bool:
    return file.endswith(", changed>")


def read_mutants(*mutants: Mutant) -> tuple[Reading, ...]:
    """What is read of a rebuild with these mistakes in it."""
    played, official = stage(mutants[0].model, mutants[0].run)
    with mutated(mutants) as module:
        return read(lambda tap: played.play(module, tap), official, own)


def minilm(after: str, before: str = SCALED) -> Mutant:
    return Mutant("minilm-here", "minilm", before, after, "", "")


def line_with(text: str) -> int:
    """The line of the original MiniLM in which a text stands."""
    lines = (Path(llm_rebuild.__file__).parent / "models" / "minilm.py").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def unchanged(model: str, run: str) -> Mutant:
    same = "from typing import NamedTuple"
    return Mutant("as-it-stands", model, same, same, "", "", run=run)


@pytest.mark.parametrize(("model", "run"), [("minilm", "padded"), ("gpt2", "cached"), ("t5-small", "padded")])
def test_of_a_right_rebuild_nothing_is_said(model: str, run: str):
    assert read_mutants(unchanged(model, run)) == ()


@pytest.mark.parametrize(
    "after",
    [
        "scaled = torch.from_numpy((product * query.shape[-1] ** -0.5).numpy())",
        "scaled = query.shape[-1] ** -0.5 * product",
        "scaled = product / query.shape[-1] ** 0.5",
        "scaled = product.clone().mul_(query.shape[-1] ** -0.5)",
        "scaled = torch.einsum('bhqd,bhkd->bhqk', query, key) * query.shape[-1] ** -0.5",
    ],
)
def test_of_another_spelling_nothing_is_said(after: str):
    assert read_mutants(minilm(after)) == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("minilm-embedding-norm-eps", "constant"),
        ("minilm-embeddings-averaged", "drop"),
        ("minilm-mish", "replace"),
        ("minilm-query-bias-cut-short", "operand"),
        ("gpt2-scale-missing", "insert"),
        ("gpt2-heads-merged-without-transpose", "insert"),
        ("gpt2-key-value-query", "constant"),
        ("gpt2-mask-window-like-mistral", "drop"),
    ],
)
def test_a_mistake_of_each_kind_is_read_and_repaired(name: str, kind: str):
    first, *_ = read_mutants(MUTANTS[name])
    assert first.checkpoint == MUTANTS[name].first
    assert [repair.kind for repair in first.repairs] == [kind]
    assert first.repairs[0].degree == "proved"
    assert near(first.lines[0], changed_lines([MUTANTS[name]], MUTANTS[name]))


@pytest.mark.parametrize("name", ["gpt2-hand-norm-absolute-deviation", "t5-hand-norm-free-letter"])
def test_what_is_left_out_may_be_younger_than_all_official_tensors(name: str):
    first, *_ = read_mutants(MUTANTS[name])
    assert first.repairs[0].degree == "proved"
    assert near(first.lines[0], changed_lines([MUTANTS[name]], MUTANTS[name]))


def test_what_was_written_by_hand_is_repaired_by_what_computes_it_officially():
    mutant = MUTANTS["minilm-hand-norm-uncentred-square"]
    first, *_ = read_mutants(mutant)
    (repair,) = first.repairs
    assert (repair.kind, repair.degree, repair.line) == ("whole", "proved", None)
    assert repair.words.startswith(
        "compute it by `layer_norm` (96, 1e-12 (config.layer_norm_eps), `embeddings.sum`"
    )
    assert near(first.lines[0], changed_lines([mutant], mutant))


def test_of_a_long_way_only_where_it_begins_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(words, "SPOKEN", 0)
    (repair,) = read_mutants(MUTANTS["minilm-hand-norm-uncentred-square"])[0].repairs
    begins = "`embeddings.LayerNorm.bias`, `embeddings.LayerNorm.weight`, `embeddings.sum`"
    assert repair.words == f"compute it as the official model does, from {begins}"


def test_views_are_told_apart_by_their_shapes():
    before = "(split_heads(third, part.config.n_head) for third in"
    after = "(third.reshape(x.shape[0], part.config.n_head, x.shape[1], -1) for third in"
    (repair,) = read_mutants(Mutant("heads-at-once", "gpt2", before, after, "", ""))[0].repairs
    assert repair.words.startswith("add `view` [2, ")
    assert "leave out `view` [2, 4, " in repair.words


def test_infinity_in_a_mask_is_no_rounding():
    mutant = MUTANTS["minilm-mask-by-logarithm"]
    first, *_ = read_mutants(mutant)
    assert first.checkpoint == "mask"
    assert near(first.lines[0], changed_lines([mutant], mutant))


@pytest.mark.parametrize(
    "name", ["t5-self-attention-returns-the-old-x", "t5-feed-forward-returns-the-new-alone"]
)
def test_what_a_call_gave_back_is_followed_into_it(name: str):
    first, *_ = read_mutants(MUTANTS[name])
    assert near(first.lines[0], changed_lines([MUTANTS[name]], MUTANTS[name]))


@pytest.mark.parametrize(
    "name",
    ["t5-pair-turned", "t5-encoder-attention-lost", "minilm-loop-first-weights-counted-down"],
    ids=["exchanged", "dropped", "in the loop"],
)
def test_the_line_is_where_a_tensor_went_another_way(name: str):
    first, *_ = read_mutants(MUTANTS[name])
    assert any(near(line, changed_lines([MUTANTS[name]], MUTANTS[name])) for line in first.lines)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("gpt2-scores-first-hidden-in-place", "mask-extra"),  # no column of a mask that is turned
        ("gpt2-scores-mask-raised-in-place", "mask-fill"),
        ("gpt2-loop-neighbours-weights", "wrong-block-weights"),  # and no other order of blocks
        ("gpt2-thirds-key-scaled-in-place", "scaled"),
        ("t5-norm-root-of-first-token", "wrong-input"),
        ("t5-encoder-ends-before-its-last-norm", "wrong-input"),  # and no other tokens
        ("llama-log-probabilities-for-logits", "shifted"),
        ("llama-mask-turned-to-integers-and-inverted", "mask-missing"),
        ("llama-positions-of-the-whole-batch-in-a-row", "positions-wrong"),  # of another shape
        ("gpt2-new-token-at-the-first-position", "positions-not-advanced"),
        ("llama-frequencies-rounded-to-half", "wrong-dtype"),
        ("llama-angles-only-for-the-first-half", "rotary-wrong"),
        ("llama-sine-of-the-cosine-in-place", "rotary-wrong"),
        ("llama-swapped-by-a-roll-without-the-sign", "rotary-wrong"),
        ("llama-fused-product-cut-by-groups", "qkv-interleaved"),
        ("llama-gate-from-an-interleaved-product", "wrong-weight"),
        ("llama-linear-modules-with-biases-nobody-loaded", "bias-wrong"),
        ("minilm-query-of-a-module-not-loaded", "wrong-weight"),  # random, and no dropout
        ("llama-softmax-of-all-heads-together", "softmax-axis"),
        ("llama-one-new-token-called-causal", "mask-extra"),
        ("llama-heads-normed-after-they-were-turned", "wrong-input"),
        ("llama-heads-brought-to-length-one", "norm-variance"),
        ("gpt2-gelu-not-halved", "gelu-constant"),
        ("minilm-widened-with-relu-at-once", "activation-relu"),
        ("llama-second-norm-of-the-normed-sum", "wrong-input"),  # and the norm is right
        ("llama-row-of-the-batch-lost-in-the-loop", "wrong-input"),
        ("llama-rows-moved-once-more", "permuted"),  # and no other weights
        ("llama-bias-moved-as-rows-once-were", "bias-wrong"),
        ("llama-fused-kernel-scaled-by-the-kv-width", "scale-wrong"),
        ("llama-step-counted-by-its-real-tokens", "positions-wrong"),  # and no other base
        ("minilm-words-scaled-before-positions", "embedding-scaled"),
        ("t5-text-looked-at-before-the-answer", "wrong-input"),  # the norm stands where it stood
    ],
)
def test_a_mistake_is_named_by_what_was_read_and_by_its_numbers(name: str, cause: str):
    made = [MUTANTS[name]]
    report = explained(made, readings(made))
    assert report.mistakes[0].cause == cause


@pytest.mark.parametrize(
    "name",
    [
        "llama-turned-key-never-assigned",  # which heads share: what is passed, not how it is laid out
        "t5-buckets-up-to-half-the-distance",  # a plain number, in a formula of plain numbers
        "llama-dynamic-by-the-factor-alone",  # … where the official model has a tensor
        "llama-yarn-logarithm-of-ten",  # … behind numbers that officially were made before the run
        "llama-rows-moved-once-more",  # the right weight, laid out otherwise
        "gpt2-cache-of-block-before",  # chosen in what was called
        "gpt2-gelu-by-a-sigmoid",  # what is right is not to blame for being another operation
        "gpt2-cache-values-replaced",  # what does it to another tensor is no operation of this one
    ],
)
def test_the_line_is_among_three(name: str):
    first, *_ = readings([MUTANTS[name]])
    changed = changed_lines([MUTANTS[name]], MUTANTS[name])
    assert any(near(line, changed) for line in first.lines)


@pytest.mark.parametrize(
    "name",
    [
        "llama-from-the-top-of-the-stack",  # the head of the loop, where blocks run in another order
        "llama-loop-from-one",  # … or one of them not at all
        "yarn-one-of-two",  # what is missing behind another checkpoint is not taken for it
        "minilm-mask-not-in-block-one",  # the caller that passed None
        "llama-k-and-k",  # of two operands the one that this pass made
        "llama-right-hand-side",  # the right weight, in the wrong layout
        "llama-w-one-and-w-three",  # what another call gave: the line that both came from
        "qwen3-q-norm-for-k",  # a weight's name, spelled on a line before
        "llama-mask-turned",  # what is only laid out otherwise
        "t5-encoded-normed-again",  # a helper that is right for others
        "t5-decoder-every-text-the-first",  # … and got what is nowhere official
        "t5-cross-value-from-key",  # through a call by another name
        "t5-cross-past-turned",  # fields of what was kept, exchanged
        "gpt2-seen-exchanged",  # … and shown in each other's place
        "gpt2-values-cached-in-bfloat16",  # all that differs is no line of a helper's
    ],
)
def test_the_line_is_the_first(name: str):
    first, *_ = readings([MUTANTS[name]])
    assert near(first.lines[0], changed_lines([MUTANTS[name]], MUTANTS[name]))


def test_a_line_that_was_passed_the_wrong_tensor_is_not_to_blame():
    first, *_ = read_mutants(MUTANTS["minilm-pool-block-before-last"])
    assert "sentence(before" in first.lines[0].code


def test_what_a_function_should_have_returned_is_put_right_in_it():
    mutant = MUTANTS["minilm-embed-returns-the-sum"]
    first, *_ = read_mutants(mutant)
    assert near(first.lines[0], changed_lines([mutant], mutant))


def test_what_an_earlier_repair_puts_right_is_no_mistake():
    mutant = MUTANTS["gpt2-as-many-heads-as-blocks"]
    (reading,) = read_mutants(mutant)
    assert near(reading.lines[0], changed_lines([mutant], mutant))
    assert "h.0.attn.scaled" in reading.also


@pytest.mark.parametrize(
    "after",
    [
        "scaled = torch.from_numpy(product.numpy() * 0.3)",
        "scaled = Scale.apply(product)",
        "with torch.enable_grad():\n        scaled = (product.requires_grad_() * 0.3).detach()",
        "scaled = torch.jit.script(halve)(product)",
        "scaled = in_a_thread(product)",
        "scaled = product * torch.rand(())",
        "part.weights['query.bias'].mul_(2)\n    scaled = product * 0.3",
    ],
    ids=["numpy", "custom function", "autograd", "jit", "thread", "random", "into a weight"],
)
def test_code_that_hides_what_it_does_is_never_blamed_on_another_line(after: str):
    helpers = (
        "class Scale(torch.autograd.Function):\n"
        "    @staticmethod\n"
        "    def forward(ctx, x):\n"
        "        return x * 0.3\n\n\n"
        "def halve(x: Tensor) -> Tensor:\n"
        "    return x * 0.3\n\n\n"
        "def in_a_thread(x: Tensor) -> Tensor:\n"
        "    from concurrent.futures import ThreadPoolExecutor\n\n"
        "    with ThreadPoolExecutor(1) as pool:\n"
        "        return pool.submit(torch.mul, x, 0.3).result()\n\n\n"
        "def eager_attention("
    )
    readings = read_mutants(minilm(after), minilm(helpers, "def eager_attention("))
    assert readings[0].checkpoint == "encoder.layer.0.attention.self.scaled"
    shift = helpers.count("\n")
    for line in (repair.line for repair in readings[0].repairs if repair.line is not None):
        number = line.number
        changed = range(line_with(SCALED) + shift, line_with(SCALED) + shift + 1 + after.count("\n"))
        assert number in changed or number in range(
            line_with("def eager_att"), line_with("def eager_att") + shift
        )


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (SCALED, "scaled = product @ query.mT", "`matmul` of [2, 4, 10, 10] and [2, 4, 24, 10]"),
        ('linear(x, part.at("query"))', 'linear(x, part.at("queries"))', "has no tensor"),
        (
            'linear(x, part.at("query"))',
            'linear(x[..., 1:], part.at("query"))',
            "officially [96] and [20, 96] and [96, 96]",
        ),
    ],
    ids=["shapes", "a key", "shapes that the official operation has"],
)
def test_where_a_run_ended_is_read(before: str, after: str, words: str):
    mutant = minilm(after, before)
    (reading,) = read_mutants(mutant)
    changed = changed_lines([mutant], mutant)
    assert any(near(line, changed) for line in reading.lines)
    assert "this code ended here with" in reading.difference
    assert words in reading.difference
    assert reading.repairs == ()


SOFTMAX = "probs = F.softmax(scores, dim=-1)  # [batch, head, query, key]"
BY_HAND = """grown = torch.exp(scores - scores.amax(-1, keepdim=True))
    whole = grown.sum(-2, keepdim=True)
    probs = grown / whole"""
WITHOUT_BIAS = """inside, bias = part.at("query").weights, None
    if "bias" not in inside:
        bias = inside["bias"]
    query = F.linear(x, inside["weight"], bias)"""
REVERSED = """order = range(heads)[::-1]
    context = torch.cat([head_context[:, head] for head in order], dim=-1)"""
HIDDEN = """from_whom = mask.bool()[:, None, :, None]
    nobody = torch.zeros(batch, 1, token, token, dtype=torch.bool)
    may_look = nobody | from_whom"""
MAY_LOOK = "may_look = mask.bool()[:, None, None, :].expand(batch, 1, token, token)"


@pytest.mark.parametrize(
    ("before", "after", "line", "at"),
    [
        (SOFTMAX, BY_HAND, "whole = grown.sum(-2, keepdim=True)", 0),
        ('query = linear(x, part.at("query"))', WITHOUT_BIAS, 'if "bias" not in inside:', 2),
        ("context = merge_heads(head_context)", REVERSED, "order = range(heads)[::-1]", 2),
        (MAY_LOOK, HIDDEN, "from_whom = mask.bool()[:, None, :, None]", 2),
    ],
    ids=["over which axis", "under which condition", "behind a comprehension", "before the helper's caller"],
)
def test_of_a_step_in_other_words_the_line_is_shown(before: str, after: str, line: str, at: int):
    """A step that somebody wrote anew is repaired as a whole: the line is the one that says what is wrong by
    itself, or one that feeds what is shown."""
    first, *_ = read_mutants(minilm(after, before))
    assert line in [shown.code for shown in first.lines[: at + 1]]


def test_a_part_of_a_weights_name_is_spelled_somewhere():
    right = 'position = F.embedding(positions, part.weights["position_embeddings.weight"])'
    wrong = 'name = "position_embeddings.weight".replace("position", "word")'
    first, *_ = read_mutants(
        minilm(f"{wrong}\n    position = F.embedding(positions, part.weights[name])", right)
    )
    assert first.lines[0].code == wrong


def test_two_runs_that_differ_are_said_to_differ():
    first, *_ = read_mutants(minilm("scaled = product * __import__('random').random()"))
    assert "two runs of this code differ" in first.extent
    assert first.repairs == ()


def test_a_run_of_too_many_operations_is_read_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(record, "OPERATIONS", 200)
    many = "for _ in range(300):\n        product = product + 0\n    scaled = product * 0.3"
    for reading in read_mutants(minilm(many)):
        assert "more than 200 operations" in reading.extent
        assert all(repair.degree != "proved" for repair in reading.repairs)


def test_a_tensor_of_their_own_is_said_to_come_from_elsewhere():
    first, *_ = read_mutants(minilm("scaled = torch.from_numpy(product.numpy() * 0.3)"))
    assert first.repairs == ()
    assert any("from_numpy" in line.code for line in first.lines)


def test_numbers_of_a_record_hold_after_something_was_written():
    x = torch.arange(6.0)
    with record.Recorder(lambda file: file == __file__) as recorder:
        row = x.view(2, 3)
        doubled = row * 2
        row[0].fill_(0)
        after = row + 1
    nodes = recorder.record.nodes
    values = {node.operation: node.value for node in nodes}
    assert torch.equal(values["mul"], torch.arange(6.0).view(2, 3) * 2)
    assert torch.equal(values["view"], torch.arange(6.0).view(2, 3))
    assert torch.equal(values["add"], after)
    assert doubled.sum() == 30
    add = next(node for node in nodes if node.operation == "add")
    assert nodes[add.inputs[0]].operation == "overwritten"


def test_of_a_run_again_only_what_is_tapped_is_noted_and_nothing_right_is_taken_for_wrong():
    """A wrong tensor is let go at once, and the next lies in its memory, unless that is kept."""

    def run(tap: Tap) -> None:
        tap("wrong", torch.full((4096,), 3.0))
        others = [torch.full((4096,), 4.0) for _ in range(50)]
        tap("right", torch.stack([other * 2 for other in others]))

    tensors = {"wrong": torch.ones(4096), "right": torch.full((50, 4096), 8.0)}
    official = OfficialRun(Side(record.Record()), tensors, {}, {})
    again = observe(run, official, lambda file: file == __file__, until=())
    assert again.wrong == {"wrong"}
    assert len(again.nodes) == 3  # and what was put in its place
    assert not again.steps


def test_what_is_put_right_inside_a_repeat_ends_no_process():
    """Each angle twice in a row, not all of them twice: taken apart, torch's repeat writes beside its memory
    where an operation inside it is put right, and the process ends some time later."""
    script = (
        "from tests.diagnosis.test_reading import MUTANTS, read_mutants\n"
        "readings = [read_mutants(MUTANTS['llama-angles-twice-in-a-row']) for _ in range(3)]\n"
        "print(*(reading[0].checkpoint for reading in readings))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert (ended.returncode, ended.stdout) == (
        0,
        "model.rotary_emb.angles " * 2 + "model.rotary_emb.angles\n",
    )
