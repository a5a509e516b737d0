"""An answer is checked: what is right passes, and what is not is told what is wrong with it."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from llm_rebuild import InputError
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.exercises import check, grade, names
from llm_rebuild.models import ops
from llm_rebuild.verify import capture
from llm_rebuild.workbench.session import Limits
from tools import course, fences

DOCS = Path(__file__).resolve().parents[2] / "docs"


def answers() -> dict[str, Callable[..., object]]:
    """Functions as a notebook has them: no module can be asked for them."""

    def softmax(x):
        powers = (x - x.max(dim=-1, keepdim=True).values).exp()
        return powers / powers.sum(dim=-1, keepdim=True)

    def overflowing(x):
        return x.exp() / x.exp().sum(dim=-1, keepdim=True)

    def along_the_first(x):
        return x.softmax(dim=0)

    def with_transformers(x):
        from transformers import AutoModel

        return AutoModel.from_config(x)

    def endless(x):
        while True:
            pass

    def crashing(x):
        raise SystemExit(3)

    def as_a_list(x):
        return x.tolist()

    def as_a_set(x):
        return {1}

    def as_a_list_of_rows(x):
        return [*x]

    return locals()


ANSWERS = answers()


def test_a_right_function_passes():
    assert check("softmax", ANSWERS["softmax"])
    assert str(check("softmax", lambda x: x.softmax(-1))) == "softmax: right. 3 inputs tried"


def test_one_number_may_be_torch_s_or_numpy_s():
    def steps(one, other):
        import numpy as np

        a, b = (np.float32(x).view(np.int32) for x in (one, other))
        return abs(a - b)

    assert check("ulps", steps)
    assert check("ulps", lambda one, other: torch.tensor(int(steps(one, other))))
    assert (
        "a tensor, where a whole number is expected"
        in check("ulps", lambda one, other: torch.ones(2)).message
    )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ANSWERS["overflowing"], r"of \(tensor \[2, 3\]\) it makes 5 of 6 numbers that are nan"),
        (
            ANSWERS["along_the_first"],
            r"it makes \[2, 2, 4\]  wrong values\n  worst at .*expected .*, rebuilt",
        ),
        (ANSWERS["with_transformers"], r"ImportError: .* cannot import transformers"),
        (ops.linear, r"cannot import llm_rebuild.models: that is the course's own"),
        (ANSWERS["crashing"], r"it called exit\(3\)"),
        (ANSWERS["as_a_list"], r"a list, where a tensor is expected"),
        (ANSWERS["as_a_set"], r"it returns a set; a tensor, a number, a text, or a list of numbers"),
        (ANSWERS["as_a_list_of_rows"], r"it returns a list; .* or a list of numbers and texts is wanted"),
        (lambda: 1, r"^test_exercises.py: TypeError: .* takes 0 positional arguments but 1 was given"),
        (torch.ones(3), r"tensor \[3\] is a Tensor; the answer is your function itself"),
        (None, r"None is a NoneType; the answer is your function itself"),
    ],
)
def test_a_function_that_is_not_right_is_told_why(answer: object, message: str):
    graded = check("softmax", answer)
    assert not graded
    assert re.search(message, graded.message), graded.message


def almost_right() -> dict[str, list[Callable[..., object]]]:
    """Functions that are right for what an exercise shows, and for most else."""

    def from_the_end(word, vocabulary, start=0):
        """Cuts back where the longest piece leads nowhere."""
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary and (rest := from_the_end(word, vocabulary, end)) != ["[UNK]"]:
                return [piece, *rest]
        return [] if start == len(word) else ["[UNK]"]

    def marks_ignored(word, vocabulary):
        made, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                if {word[start:end], f"##{word[start:end]}"} & {*vocabulary}:
                    break
            else:
                return ["[UNK]"]
            made.append(("##" if start else "") + word[start:end])
            start = end
        return made

    def two_pieces(word, vocabulary):
        first = next((word[:end] for end in range(len(word), 0, -1) if word[:end] in vocabulary), "")
        rest = f"##{word[len(first) :]}"
        return [first] if rest == "##" else [first, rest] if first and rest in vocabulary else ["[UNK]"]

    def less(x, what):
        powers = (x - what(x)).exp()
        return powers / powers.sum(dim=-1, keepdim=True)

    def of_four(x, weight, bias, eps):
        centred = x - x.sum(dim=-1, keepdim=True) / 4
        return centred / torch.sqrt(centred.pow(2).sum(dim=-1, keepdim=True) / 4 + eps) * weight + bias

    def bits(x):
        return torch.tensor(x).view(torch.int32).item()

    def by_the_spacing(one, other):
        return round(abs(one - other) / 2 ** (math.frexp(one)[1] - 24))

    def by_length(x, mask):
        return torch.stack([text[:count].mean(dim=0) for text, count in zip(x, mask.sum(dim=1), strict=True)])

    def not_zero(x, mask):
        real = x * mask.unsqueeze(-1)
        return real.sum(dim=1) / (real != 0).sum(dim=1)

    def passes_over_the_list(symbols, merges):
        text = "".join(f" {symbol} " for symbol in symbols)
        for _ in symbols:
            for one, other in merges:
                text = text.replace(f" {one}  {other} ", f" {one}{other} ")
        return text.split()

    def two_parts(word, scores, least=1):
        cuts = [[word]] * (least == 1) + [[word[:i], word[i:]] for i in range(1, len(word))]
        known = [cut for cut in cuts if {*cut} <= {*scores}]
        return max(known, key=lambda cut: sum(map(scores.get, cut)), default=[])

    return {
        "longest-pieces": [from_the_end, marks_ignored, two_pieces],
        "softmax": [
            lambda x: less(x, lambda x: x.min(dim=-1, keepdim=True).values),
            lambda x: less(x, lambda x: x.mean(dim=-1, keepdim=True)),
        ],
        "layer-norm": [of_four],
        "rms-norm": [lambda x, w, eps: w * x * torch.rsqrt(x.pow(2).sum(dim=-1, keepdim=True) / 4 + eps)],
        "ulps": [
            lambda one, other: bits(other) - bits(one),
            by_the_spacing,
            lambda one, other: by_the_spacing(other, one),
        ],
        "mean-pooling": [by_length, not_zero],
        "cosine": [
            lambda one, other: F.cosine_similarity(one, other, dim=0).abs(),
            lambda one, other: F.cosine_similarity(one, other, dim=0).clamp(min=0),
        ],
        "merges": [passes_over_the_list],
        "best-cut": [two_parts, lambda word, scores: two_parts(word, scores, 2)],
    }


ALMOST = [(name, answer) for name, wrong in almost_right().items() for answer in wrong]


@pytest.mark.parametrize(("name", "answer"), ALMOST, ids=range(len(ALMOST)))
def test_what_is_almost_right_fails_on_one_of_the_inputs(name: str, answer: Callable[..., object]):
    def differs(case: dict[str, object]) -> bool:
        *inputs, expected = (
            torch.tensor(v["numbers"]) if isinstance(v, dict) and "numbers" in v else v for v in case.values()
        )
        answered = answer(*inputs)
        if isinstance(expected, torch.Tensor):
            return not torch.allclose(answered, expected, rtol=0, atol=1e-5)
        return answered != expected

    cases = json.loads(grade.DATA.read_text(encoding="utf-8"))[name]["cases"]
    assert any(map(differs, cases))


def test_a_function_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grade, "LIMITS", Limits(seconds=0.5))
    graded = check("softmax", ANSWERS["endless"])
    assert not graded
    assert graded.message == "your function: it was stopped after 0.5 s; does a loop never end?"


@pytest.mark.parametrize(
    ("name", "answer", "message"),
    [
        ("parameters-of-gpt2", 124_439_807, "124439807 is too small"),
        ("parameters-of-gpt2", 163_037_184, "the token table is counted twice; the head is tied to it"),
        ("parameters-of-gpt2", True, "True is a bool; the answer is a whole number"),
        ("parameters-of-gpt2", "1e9", "'1e9' is a str; the answer is a whole number"),
        ("parameters-of-gpt2", float("nan"), "nan is a float; the answer is a whole number"),
        ("shape-of-shares", [2, 7, 7], "there is a table for each head"),
        ("shape-of-shares", (2, 12, 7), "3 items, where 4 are expected"),
        ("shape-of-shares", [2, 12, 9, 9], "the first 2 fit; at place 2 9 is not it"),
        ("name-of-a-checkpoint", "encoder.layer.4", "it is not 'encoder.layer.4'"),
        ("sha256-of-a-config", "953F9C", "it is not '953F9C'"),
    ],
)
def test_a_value_that_is_not_right_is_told_why(name: str, answer: object, message: str):
    graded = check(name, answer)
    assert not graded
    assert graded.message == message


def test_a_number_may_be_too_large_for_a_float():
    assert check("float-after-600", 10**400).message.endswith("is too large")


def test_a_right_value_passes_also_as_a_tensor_a_tuple_or_of_numpy():
    assert check("parameters-of-gpt2", torch.tensor(124_439_808))
    assert check("parameters-of-gpt2", torch.tensor(124_439_808).numpy()[()])
    assert check("shape-of-shares", (2, 12, 7, 7))
    assert check("shape-of-shares", torch.tensor([2, 12, 7, 7]))


def embeddings(types=True, eps=1e-12, row=slice(None)):
    """A forward that taps the embeddings: right, or with a mistake."""

    def forward(token_ids, weights, tap):
        from torch.nn import functional as F

        part = weights.at("embeddings")
        x = F.embedding(token_ids, part["word_embeddings.weight"])
        if types:
            x = x + F.embedding(torch.zeros_like(token_ids), part["token_type_embeddings.weight"])
        x = x + part["position_embeddings.weight"][: token_ids.shape[1]][None]
        norm = part.at("LayerNorm")
        tap("embeddings.LayerNorm", F.layer_norm(x, (384,), norm["weight"], norm["bias"], eps)[row])

    return forward


def test_a_piece_of_a_rebuild_is_held_against_the_official_tensors_and_its_mistake_named(minilm: LocalCopy):
    assert check("embeddings-of-a-sentence", embeddings())
    for answer, message in (
        (embeddings(eps=1e-5), "the norm has the wrong epsilon"),
        (embeddings(types=False), "the token type embedding was not added"),
        (embeddings(row=0), "wrong shape"),
        (embeddings(eps=float("nan")), "wrong values"),
        (torch.ones(1, 5, 384), "the answer is your function forward itself"),
    ):
        graded = check("embeddings-of-a-sentence", answer)
        assert not graded
        assert message in " ".join(graded.message.split()), graded.message


def test_an_official_tensor_is_no_answer_however_it_is_copied(minilm: LocalCopy):
    name = "embeddings.LayerNorm"
    official = capture(minilm, "They do.")[name].tensor
    for carried in (
        official,
        official.clone(),
        official + 0.0,
        official.numpy().copy(),
        official.tolist(),
        official.double(),
        official.numpy().tobytes(),
        official.view(torch.int32).clone(),
    ):

        def forward(tap, carried=carried):
            if isinstance(carried, bytes):
                x = torch.frombuffer(bytearray(carried), dtype=torch.float32)
            elif torch.is_tensor(carried):
                x = carried if carried.is_floating_point() else carried.clone().view(torch.float32)
            else:
                x = torch.as_tensor(carried)
            tap("embeddings.LayerNorm", x.float().reshape(1, 5, 384))

        graded = check("embeddings-of-a-sentence", forward)
        assert not graded, type(carried)
        assert f"the official {name} went into the rebuild" in " ".join(graded.message.split())


def test_a_forward_goes_to_the_workbench():
    def forward(token_ids, weights, tap):
        tap("wte", F.embedding(token_ids, weights["wte.weight"]))

    assert check("decoder-begins", forward).message == "wpe was not tapped"
    assert "your function forward itself" in check("decoder-begins", 3).message


@pytest.mark.parametrize("name", ["softmax", "embeddings-of-a-sentence"])
def test_what_cannot_be_sent_is_no_answer(minilm: LocalCopy, name: str):
    lock = threading.Lock()
    graded = check(name, lambda tap: lock)
    assert not graded
    assert graded.message.startswith("your function uses something that cannot be sent to a process")


def test_right_but_for_capitals_is_told_so():
    digest = "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
    assert check("sha256-of-a-config", digest)
    almost = check("sha256-of-a-config", f"{digest.upper()} ")
    assert not almost
    assert almost.message.endswith("is right but for blanks or capitals")


def test_a_merge_is_made_everywhere_in_the_word_before_the_next_one():
    def merge(symbols, merges):
        rank = {tuple(pair): number for number, pair in enumerate(merges)}
        while pairs := [pair for pair in itertools.pairwise(symbols) if pair in rank]:
            i = list(itertools.pairwise(symbols)).index(min(pairs, key=rank.__getitem__))
            symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]
        return symbols

    assert "it makes ['aba', 'b'], where ['ab', 'ab'] is expected" in check("merges", merge).message


def test_an_unknown_name_is_an_error():
    with pytest.raises(InputError, match="did you mean 'mean-pooling'"):
        check("mean-poolings", 1)
    with pytest.raises(InputError, match="there is no exercise 'nonsense'"):
        check("nonsense", 1)


def test_each_exercise_is_on_a_page_and_each_page_asks_for_one_that_there_is():
    asked = {
        name
        for page in [*fences.chapters(DOCS), *DOCS.glob("*.md")]
        for fence in fences.read_page(page).runnable
        for name in re.findall(r'\b(?:check|grade)\(\s*"([\w-]+)",', fence.source)
    }
    assert asked == set(names())


def test_each_objective_is_tested_by_an_exercise_and_each_exercise_has_an_answer():
    assert course.problems(course.read()) == []


def test_the_answers_are_not_to_be_read() -> None:
    def from_the_file(a, b):
        import json

        import llm_rebuild.errors

        folder = Path(llm_rebuild.errors.__file__).parent / "exercises"
        cases = json.loads((folder / "exercises.json").read_text(encoding="utf-8"))["ulps"]["cases"]
        return next(case["expected"] for case in cases if (case["one"], case["other"]) == (a, b))

    graded = check("ulps", from_the_file)
    assert not graded
    assert "exercises.json" in graded.message


class Odd:
    @property
    def ndim(self) -> int:
        raise ValueError("no")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("float-after-600", 10**400),
        ("float-after-600", torch.tensor(1, device="meta")),
        ("float-after-600", Odd()),
        ("shape-of-shares", [10**5000]),
        ("shape-of-shares", [torch.tensor([2, 12]), 12, 7, 7]),
        ("shape-of-shares", torch.zeros(4, device="meta")),
    ],
    ids=range(6),
)
def test_no_answer_is_an_error(name: str, answer: object) -> None:
    assert not check(name, answer)


def test_a_name_is_a_text() -> None:
    with pytest.raises(InputError, match="there is no exercise"):
        check([], 1)  # type: ignore[arg-type]
