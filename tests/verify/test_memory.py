"""What does not fit into memory is refused before it is computed, in one line that says what to do."""

from __future__ import annotations

import pytest

from llm_rebuild import verify
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.errors import InputError
from llm_rebuild.verify import memory
from llm_rebuild.verify.official import Official
from llm_rebuild.verify.trace import trace

LONG = [[5] * 200, [7] * 200]


def question(name: str, attention: str = "eager") -> verify.Question:
    copy = LocalCopy(name, MINIATURES / name, "miniature")
    return verify.ask(copy, token_ids=[row[:120] for row in LONG], attention=attention)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_the_estimate_is_about_what_a_capture_takes(name: str, attention: str):
    asked = question(name, attention)
    official = Official(asked.copy.folder, attention)
    taken = sum(tensor.nbytes for tensor in verify.capture(asked, official=official).tensors.values())
    assert 0.6 * taken < memory.needed(asked, official.model) < 1.6 * taken


@pytest.mark.parametrize("ways", [verify.capture, verify.verify, trace])
def test_what_does_not_fit_is_refused_in_one_line(ways, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    monkeypatch.setattr(memory, "SHORT", 10)
    with pytest.raises(InputError, match=r"^2 × 120 tokens take about .* GB of memory, of which 0\.0 GB are"):
        ways(question("minilm"))
    with pytest.raises(InputError, match=r"give shorter or fewer texts$"):
        ways(question("minilm", "sdpa"))


def test_both_sides_of_a_proof_have_to_fit(monkeypatch: pytest.MonkeyPatch):
    asked = question("minilm")
    one = memory.needed(asked, Official(asked.copy.folder).model)
    monkeypatch.setattr(memory, "available", lambda: int(1.5 * memory.BESIDES * one))
    monkeypatch.setattr(memory, "SHORT", 10)
    verify.capture(asked)
    with pytest.raises(InputError, match=r"sdpa attention, which keeps no scores$"):
        verify.verify(asked)


def test_a_system_that_does_not_say_refuses_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "WHERE", {"/absent": ""})
    monkeypatch.setattr(memory, "SHORT", 10)
    assert memory.available() is None
    verify.capture(question("minilm"))
