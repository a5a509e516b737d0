"""The benchmarks' harness, with a clock that only counts, and the page that is made of their numbers."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from benchmarks import board, growth, harness, watching
from benchmarks.__main__ import NUMBERS, PAGE, write
from benchmarks.harness import NOT_INSTALLED, PEERS, TITLES, Harness, Row, exponent, row
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy


class Clock:
    """A clock that only goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def small(name: str) -> LocalCopy:
    """The miniature of a model."""
    name = "llama" if name == "smollm2-135m" else name
    return LocalCopy(name, MINIATURES / name, "miniature")


@pytest.fixture
def tiny() -> Harness:
    """One round of small cases on miniatures, by a clock that counts how often it was looked at."""
    ticks: Iterator[int] = count()
    return Harness(rounds=1, least=1, clock=lambda: float(next(ticks)), quick=True, copy=small)


def test_runs_take_turns_and_another_begins_every_round() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    Harness(rounds=3, clock=Clock()).times(runs)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"  # the first three are not counted


def test_what_has_run_before_is_counted_from_its_first_run() -> None:
    order: list[str] = []
    runs = {name: lambda name=name: order.append(name) for name in "ab"}
    lasted = Harness(rounds=2, clock=Clock()).times(runs, cold=False)
    assert "".join(order) == "ab" + "ba"
    assert len(lasted["a"]) == 2


def test_a_ratio_whose_quartiles_are_far_apart_is_about_so_much() -> None:
    lasted = {"ours": [1.0, 1.0, 1.0], "theirs": [1.0, 1.0, 1.02]}
    assert board.spread(row({}, "ours", "theirs", lasted)) == "1.00 (0.99 to 1.00)"
    lasted["theirs"] = [1.0, 0.5, 2.0]
    assert board.spread(row({}, "ours", "theirs", lasted)) == "≈ 1.00 (0.75 to 1.50)"


def test_a_ratio_is_that_of_one_round_and_not_that_of_two_medians() -> None:
    lasted = {"ours": [1.0, 10.0, 2.0], "theirs": [1.0, 5.0, 4.0]}  # the machine was slow in the second round
    one = row({"model": "a"}, "ours", "theirs", lasted)
    assert (one["ratio"], one["quartiles"], one["rounds"]) == (1.0, [0.75, 1.5], 3)
    assert (one["seconds"], one["baseline_seconds"]) == (2.0, 4.0)


@pytest.mark.parametrize(("least", "rounds"), [(1, 3), (7, 7)])
def test_no_round_begins_when_time_is_up_but_the_least(least: int, rounds: int) -> None:
    clock = Clock()

    def second() -> None:
        clock.now += 1

    lasted = Harness(rounds=50, least=least, seconds=5, clock=clock).times({"a": second, "b": second})
    assert len(lasted["a"]) == rounds


def test_an_exponent_is_that_of_the_power() -> None:
    assert exponent([1, 2, 4, 8], [3, 12, 48, 192]) == 2.0
    assert exponent([10, 100, 1000], [5, 5, 5]) == 0.0


@pytest.mark.parametrize("name", ["forward", "watching", "decode", "proving", "tokenizing"])
def test_a_benchmark_runs_and_its_rows_make_a_table(name: str, tiny: Harness) -> None:
    rows = list(importlib.import_module(f"benchmarks.{name}").measure(tiny))
    assert all(one.get("ratio", 1.0) == 1.0 for one in rows)  # the clock ticks once a run
    lines = board.SECTIONS[name].table(rows)
    assert len(lines) > 2
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_all_shapes_of_a_forward_pass_have_the_official_bits(tiny: Harness) -> None:
    from benchmarks import forward

    rows = list(forward.measure(tiny))
    assert {one["case"]["model"] for one in rows} == set(TITLES.values())
    assert all(one["identical"] for one in rows)


def test_growth_has_its_exponents_and_sizes_take_turns(tiny: Harness) -> None:
    asked: list[tuple[str, int]] = []

    def probe(kind: str, size: int) -> dict[str, float]:
        asked.append((kind, size))
        return {"seconds": size**1.5, "megabytes": 400.0}

    rows = list(growth.measure(replace(tiny, quick=False), probe))
    assert [(one["time_exponent"], one["memory_exponent"]) for one in rows] == [(1.5, 0.0)] * 4
    sizes = growth.KINDS["proofs"][1]
    assert [size for kind, size in asked if kind == "proofs"] == [*sizes, *sizes[::-1]]
    assert "time grows with the power 1.50 of the texts, peak memory with 0.00" in "\n".join(
        board.growth(rows)
    )


@pytest.mark.parametrize(
    ("is_there", "words"), [(False, NOT_INSTALLED), (True, "does not run here (KeyError)")]
)
def test_a_peer_that_cannot_take_part_is_listed(
    is_there: bool, words: str, tiny: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(question: object, official: object) -> harness.Run:
        raise KeyError("another release")

    monkeypatch.setattr(watching, "OTHERS", {"torchlens": broken})
    monkeypatch.setattr(watching, "release", lambda name: "1.0" if is_there else None)
    rows = list(watching.measure(tiny))
    assert any("torchlens" in line and words in line for line in board.watching(rows))


def test_the_page_names_every_peer() -> None:
    numbers = {"growth": {"machine": fact(peers=dict.fromkeys(PEERS)), "rows": []}}
    for name in PEERS:
        assert f"{name} ({NOT_INSTALLED})" in board.page(numbers)


def test_the_page_says_what_was_not_measured() -> None:
    page = board.page({"growth": {"machine": fact(), "rows": []}})
    assert "Not measured yet: `forward`, `watching`, " in page
    assert "## How it grows" in page
    assert "## A forward pass" not in page


def fact(**changes: object) -> Row:
    """A machine, as it stands in the numbers."""
    return {**harness.machine(), "clock": "wall", "quick": False, **changes}


def test_the_page_says_how_long_it_took_to_measure() -> None:
    parts = {
        name: {"machine": fact(took=took), "rows": []} for name, took in (("growth", 200), ("start", 400))
    }
    assert "To measure all that stands here took 10 minutes of one processor." in board.page(parts)


def test_a_part_that_was_not_measured_to_its_end_says_so_and_has_no_figure() -> None:
    rows = json.loads(NUMBERS.read_text(encoding="utf-8"))["tokenizing"]["rows"]
    for whole in (True, False):
        page = board.page({"tokenizing": {"machine": fact(whole=whole), "rows": rows}, "start": part(whole)})
        assert ("Not measured to the end: `tokenizing`, `start`." in page) is not whole
        assert ("speed-start.svg" in page) is whole


def part(whole: bool) -> Row:
    """Numbers of one that has a figure."""
    return {"machine": fact(whole=whole), "rows": []}


def test_memory_is_that_of_a_process_and_not_of_the_one_that_began_it() -> None:
    large = bytearray(b"x") * 400_000_000
    megabytes = growth.probe("proofs", 1)["megabytes"]  # eight texts make one: it proves none
    assert growth.peak() / 1024 > len(large) / 2**20
    assert megabytes < growth.peak() / 1024


def test_parts_of_different_measurements_say_so_one_by_one() -> None:
    parts = {name: {"machine": fact(threads=1), "rows": []} for name in ("growth", "start")}
    assert board.page(parts).count("Measured on ") == 1
    parts["growth"]["machine"] = fact(threads=1, load=99.0)
    assert board.page(parts).count("Measured on ") == 1  # the load is another every minute
    parts["growth"]["machine"] = fact(threads=8)
    assert board.page(parts).count("Measured on ") == 2


def test_numbers_are_read_as_they_were_written(tmp_path: Path) -> None:
    numbers = {
        "growth": {"machine": fact(), "rows": [{"a": 1}, {"b": "÷"}]},
        "start": {"machine": {}, "rows": []},
    }
    write(tmp_path / "speed.json", numbers)
    assert json.loads((tmp_path / "speed.json").read_text(encoding="utf-8")) == numbers


def test_the_page_is_what_the_numbers_say() -> None:
    numbers = json.loads(NUMBERS.read_text(encoding="utf-8"))
    assert set(numbers) <= set(board.SECTIONS)
    assert PAGE.read_text(encoding="utf-8") == board.page(numbers)
