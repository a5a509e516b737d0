"""The report's JSON is the contract, strict; its table fits 80 columns and says what counts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from llm_rebuild.copies import local_copy
from llm_rebuild.show.report import shown
from llm_rebuild.verify import capture
from llm_rebuild.verify.compare import MISSING, Verdict, compare, finite
from llm_rebuild.verify.coverage import Coverage
from llm_rebuild.verify.divergence import Divergence
from llm_rebuild.verify.report import Report
from llm_rebuild.verify.run import judge

WHY = {"linalg_vector_norm": "norm statistic inside F.normalize"}
UNCOVERED, ASIDE = Counter({"linalg_vector_norm": 1}), Counter({"plain copies": 4})
COVERAGE = Coverage(covered=99, uncovered=UNCOVERED, aside=ASIDE, why=WHY)
NAME = "encoder.layer.0.attention.self.query"


def report(*verdicts: Verdict, coverage: Coverage | None = COVERAGE) -> Report:
    return Report(
        model={"name": "minilm", "source": "folder", "revision": None, "sha256": "00"},
        environment={"torch": "2.13.0"},
        attention="eager",
        texts=2,
        tokens=7,
        verdicts=verdicts,
        coverage=coverage,
        first_divergence=next((Divergence(v) for v in verdicts if not v.identical), None),
    )


def verdict(difference: float, name: str = NAME) -> Verdict:
    official = torch.zeros(2, 3, dtype=torch.float64)
    rebuilt = official.clone()
    rebuilt[1, 2] = difference
    return compare(rebuilt, official, name)


GOOD, NEAR, WRONG, NAN = verdict(0.0), verdict(1e-6), verdict(1.0), verdict(float("nan"))
NOT_ASKED = {"words": "", "inputs_identical": True, "rounding": None}  # nobody ran a capture or float64
LOST = Verdict(NAME, (2, 3), "float32", MISSING)


def test_official_numbers_that_are_none_are_said():
    """Where both sides are NaN they are equal, and that proves nothing."""
    truth = capture(local_copy.MINIATURES / "gpt2", token_ids=[[5, 9]])
    assert judge({}, truth).notes == ()
    tensors = {**truth.tensors, "ln_f": truth.tensors["ln_f"] / 0 * 0}
    notes = judge({}, replace(truth, tensors=tensors)).notes
    assert notes == ("the official ln_f holds NaN; there and behind it NaN is right",)


def test_json_has_the_contract_keys():
    """docs/reference/json.md; other programs rest on these."""
    found = report(GOOD, WRONG).to_json()
    assert list(found)[:8] == [
        "model",
        "environment",
        "attention",
        "inputs",
        "checkpoints",
        "summary",
        "first_divergence",
        "diagnosis",
    ]
    assert set(found["model"]) == {"name", "source", "revision", "sha256"}
    assert set(found["inputs"]) == {"texts", "tokens"}
    assert set(found["summary"]) == {
        "checkpoints",
        "bit_identical",
        "five_decimals",
        "rounding",
        "failed",
        "coverage",
    }
    assert set(found["first_divergence"]) == {
        "name",
        "coordinate",
        "official",
        "rebuilt",
        "words",
        "inputs_identical",
        "rounding",
    }
    keys = {"name", "shape", "dtype", "verdict", "max_abs_diff", "max_ulp", "decimals", "coupled"}
    assert all(set(checkpoint) == keys for checkpoint in found["checkpoints"])
    assert found["diagnosis"] == []


def test_coverage_is_a_number_in_the_summary_with_details_beside_it():
    found = report(GOOD).to_json()
    assert found["summary"]["coverage"] == 0.99
    assert found["coverage"]["uncovered"]["linalg_vector_norm"]["count"] == 1
    assert "norm statistic" in found["coverage"]["uncovered"]["linalg_vector_norm"]["reason"]
    assert found["coverage"]["set_aside"] == {"plain copies": 4}
    assert report(GOOD, coverage=None).to_json()["summary"]["coverage"] is None


def test_the_summary_counts():
    summary = report(GOOD, NEAR, WRONG, LOST).to_json()["summary"]
    assert summary == {
        "checkpoints": 4,
        "bit_identical": 1,
        "five_decimals": 2,
        "rounding": 0,
        "failed": 2,
        "coverage": 0.99,
    }


def test_passed_and_exact():
    assert (report(GOOD).passed, report(GOOD).exact) == (True, True)
    assert (report(GOOD, NEAR).passed, report(GOOD, NEAR).exact) == (True, False)
    assert (report(GOOD, WRONG).passed, report(GOOD, WRONG).exact) == (False, False)
    assert not report(GOOD, LOST).passed
    assert not report(GOOD, NAN).passed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_json_is_strict(value: float):
    text = json.dumps(report(verdict(value)).to_json(), allow_nan=False)
    first = json.loads(text)["first_divergence"]
    assert first == {"name": NAME, "coordinate": [1, 2], "official": 0.0, "rebuilt": str(value), **NOT_ASKED}


def test_first_divergence_is_the_first_that_is_not_identical():
    assert report(GOOD).to_json()["first_divergence"] is None
    found = report(GOOD, replace(NEAR, name="second"), WRONG).to_json()["first_divergence"]
    assert found == {"name": "second", "coordinate": [1, 2], "official": 0.0, "rebuilt": 1e-6, **NOT_ASKED}
    missing = report(LOST).to_json()["first_divergence"]
    assert missing == {"name": NAME, "coordinate": None, "official": None, "rebuilt": None, **NOT_ASKED}


def test_a_first_divergence_is_true():
    """The obvious `if report.first_divergence:` fires, although the verdict in it is false."""
    first = report(GOOD, WRONG).first_divergence
    assert first
    assert isinstance(first, Divergence)
    assert (first.name, first.verdict) == (NAME, WRONG)
    assert not first.verdict
    assert report(GOOD).first_divergence is None
    assert "wrong values" in str(first)


def test_rounding_passes_and_is_counted_by_itself():
    """It is no five decimals, and no failure."""
    shown = replace(WRONG, verdict="rounding")
    found = report(GOOD, NEAR, shown)
    assert (found.passed, found.exact) == (True, False)
    summary = found.to_json()["summary"]
    assert (summary["five_decimals"], summary["rounding"], summary["failed"]) == (2, 1, 0)
    assert not report(shown, WRONG).passed


def test_the_table_fits_80_columns_and_ends_in_the_count():
    long = "encoder.layer.11.intermediate.intermediate_act_fn"
    wide = compare(torch.zeros(2, 12, 512, 512), torch.zeros(2, 12, 512, 512), long)
    lines = str(report(wide, GOOD, NEAR, WRONG, LOST, NAN)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("2 of 6 checkpoints bit-identical")
    assert "2×12×512×512" in str(report(wide))


def test_the_brief_table_has_a_line_for_each_part_that_is_whole():
    names = ("embeddings.sum", "embeddings.LayerNorm", "h.0.ln_1", "h.0.attn.scores", "ln_f")
    good = [replace(GOOD, name=name) for name in names]

    def rows(*verdicts: Verdict) -> list[str]:
        console = Console(width=80)
        with console.capture() as captured:
            console.print(shown(report(*verdicts), brief=True))
        return [" ".join(line.split()) for line in captured.get().splitlines()[1:]]

    whole = rows(*good)
    assert whole[:3] == [
        "embeddings 2 tensors bit-identical 0",
        "h.0 2 tensors bit-identical 0",
        "ln_f",
    ]
    assert whole[-1].startswith("5 of 5 checkpoints bit-identical")
    broken = rows(*good[:3], replace(WRONG, name=names[3]), good[4])
    assert broken[1:4] == ["h.0", "ln_1 2×3 bit-identical 0", "attn.scores 2×3 wrong values 1.0e+00"]
    coupled = rows(good[0], replace(good[1], coupled=True))
    assert "LayerNorm 2×3 bit-identical, coupled 0" in coupled
    assert len(str(report(*good)).splitlines()) > len(whole)  # __str__ shows them all


def test_the_table_shows_what_is_not_covered_and_why():
    text = " ".join(str(report(GOOD)).split())
    assert "coverage 99.0%: 99 of the 100 official tensors that count equal a checkpoint" in text
    assert "; 4 copies and by-products are set aside" in text
    assert "not: 1 × linalg_vector_norm: norm statistic inside F.normalize" in text


def test_the_table_says_coupling_and_notes():
    found = replace(report(GOOD), coupled=(NAME,), notes=("text 1 was cut",))
    assert f"coupled at {NAME}" in str(found)
    assert str(found).startswith("text 1 was cut")


def test_finite():
    assert finite(None) is None
    assert finite(1.5) == 1.5
    assert [finite(float(x)) for x in ("nan", "inf", "-inf")] == ["nan", "inf", "-inf"]
