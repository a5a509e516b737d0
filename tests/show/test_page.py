"""The report as a page: whole in one file, small, strict, and inert whatever the texts and names are."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup
from torch import Tensor

import llm_rebuild
from llm_rebuild import verify
from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.cli import main as cli
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.diagnosis.mutants import Mutant, mutated
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.show.charts import pooled, shades, usual
from llm_rebuild.show.page import render
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.run import judge

TEXTS = ["The baker of Oru lives by the river", "The cook"]
UNSCALED = Mutant("no-scale", "gpt2", "scaled = product * scale", "scaled = product", "", "")
HOSTILE = "</script><img src=x onerror=alert(1)>"


def miniature(name: str) -> LocalCopy:
    return LocalCopy(name, MINIATURES / name, "miniature")


def data_of(page: str) -> dict[str, Any]:
    """What the script is given."""
    data = str(BeautifulSoup(page, "html.parser").find(id="page-data").string)
    return json.loads(data, parse_constant=lambda word: pytest.fail(word))


def charts_of(page: str) -> dict[str, dict[str, Any]]:
    """What the script draws, by checkpoint."""
    data = data_of(page)
    return {cell["name"]: entry["chart"] for cell, entry in zip(data["cells"], data["entries"], strict=True)}


@pytest.fixture(scope="module")
def clean() -> verify.Proof:
    return verify.prove(miniature("gpt2"), TEXTS)


@pytest.fixture(scope="module")
def wrong() -> verify.Proof:
    with mutated([UNSCALED]):
        return verify.prove(miniature("gpt2"), TEXTS, coverage=False)


def test_every_checkpoint_has_a_cell_and_a_row(clean: verify.Proof, wrong: verify.Proof):
    for proof in (clean, wrong):
        page = render(proof)
        soup, cells = BeautifulSoup(page, "html.parser"), data_of(page)["cells"]
        names = [v.name for v in proof.report.verdicts]
        assert [row.text for row in soup.select(".all th code")] == names
        assert [cell["name"] for cell in cells] == names
        shown = [
            "identical" if v.identical else "near" if v.passes else "wrong" for v in proof.report.verdicts
        ]
        assert [row["data-kind"] for row in soup.select(".all tr[data-kind]")] == shown
        assert [cell["kind"] for cell in cells] == shown
        assert [cell["words"] for cell in cells] == [v.verdict for v in proof.report.verdicts]
        assert f"{proof.report.bit_identical} of {len(names)}" in soup.select_one(".result").text


def test_what_it_rests_on_is_there(clean: verify.Proof):
    copy = miniature("gpt2")
    text = BeautifulSoup(render(clean), "html.parser").text
    assert all(sha256 in text for sha256 in copy.sha256.values())
    assert all(str(value) in text for value in clean.report.environment.values())
    assert all(given in text for given in TEXTS)
    assert "100.0% of the official tensors that count" in text


def test_the_first_divergence_stands_on_top_with_its_diagnosis(wrong: verify.Proof):
    copy = miniature("gpt2")
    explained = explain(wrong)
    inputs_of = world_of(wrong.truth, copy).inputs_of
    page = render(explained, inputs_of)
    soup = BeautifulSoup(page, "html.parser")
    finding = soup.select_one(".finding")
    assert finding.find_next("h2", id="page-map") is not None
    text = " ".join(finding.text.split())
    assert finding.select_one(".where code").text == "h.0.attn.scaled"
    assert "head" in text
    assert "query token" in text
    assert "What belongs into it (h.0.attn.product) is bit-identical, and the rebuilt tensor is" in text
    assert "Diagnosis: scale missing" in text
    assert "#scale-missing" in text
    data = data_of(page)
    assert data["first"] == "h.0.attn.scaled"
    at = [cell["name"] for cell in data["cells"]].index("h.0.attn.scores")
    facts = dict(data["entries"][at]["facts"])
    assert facts["computed from"] == [{"link": "h.0.attn.scaled"}, ", ", {"link": "mask"}]
    assert facts["shape"][0] == {"code": "[batch, head, query, key]"}
    assert "query token" in facts["worst"][0]


def test_a_clean_run_has_no_finding_and_shows_every_head(clean: verify.Proof):
    page = render(clean)
    assert BeautifulSoup(page, "html.parser").select(".finding") == []
    assert data_of(page)["first"] is None
    heat = charts_of(page)["h.1.attn.probs"]["heat"]
    assert heat["heads"] == 4
    cells = torch.tensor(list(base64.b64decode(heat["maps"][0]["cells"])), dtype=torch.float64)
    low, high = heat["maps"][0]["low"], heat["maps"][0]["high"]
    official = clean.truth.tensors["h.1.attn.probs"][0]
    restored = (low + (cells - 2) / 253 * (high - low)).view(official.shape)
    assert (restored - official).abs().max() <= (high - low) / 253
    assert "heat" not in charts_of(page)["h.1.ln_1"]


def test_the_worst_head_is_shown_on_both_sides(wrong: verify.Proof):
    first = wrong.report.first_divergence
    assert first is not None
    worst = first.verdict
    assert worst.coordinate is not None
    row, head, query, key = worst.coordinate
    heat = charts_of(render(wrong))[first.name]["heat"]
    assert heat["at"] == f"text {row + 1} of 2, head {head}"
    assert heat["worst"] == [query, key]
    assert [drawn["name"] for drawn in heat["maps"]] == ["official", "rebuilt", "difference"]
    for drawn, value in zip(heat["maps"], (worst.official, worst.rebuilt, worst.max_abs_diff), strict=True):
        byte = base64.b64decode(drawn["cells"])[query * heat["columns"] + key]
        shade = drawn["low"] + (byte - 2) / 253 * (drawn["high"] - drawn["low"])
        assert math.isclose(shade, value, abs_tol=(drawn["high"] - drawn["low"]) / 253)
    assert max(base64.b64decode(heat["maps"][2]["cells"])) == 255
    wide = charts_of(render(wrong))["h.2.mlp.act"]["heat"]
    assert [drawn["name"] for drawn in wide["maps"]] == ["difference"]
    assert (wide["rows"], wide["columns"], wide["size"]) == (wide["size"][0], 48, [wide["size"][0], 384])


def test_masked_and_not_a_number_have_shades_of_their_own():
    cells = torch.tensor([[[1.0, 3.0, float("-inf"), -3.4e38, float("nan"), 2.0]]], dtype=torch.float64)
    drawn = shades("official", cells)
    assert (drawn["low"], drawn["high"]) == (1.0, 3.0)
    assert list(base64.b64decode(drawn["cells"])) == [2, 255, 0, 0, 1, 128]
    assert usual(cells).tolist() == [1.0, 3.0, 2.0]
    beyond = shades("difference", torch.tensor([[[0.0, math.inf]]], dtype=torch.float64), 0.0)
    assert list(base64.b64decode(beyond["cells"]))[1] == 255


def test_large_maps_are_means_and_differences_their_largest():
    big = torch.zeros(1, 96, 96, dtype=torch.float64)
    big[0, 0, 0], big[0, 0, 1] = 4.0, -math.inf
    means, worst = pooled(big), pooled(big.clamp(min=0), worst=True)
    assert means.shape == worst.shape == (1, 48, 48)
    assert means[0, 0, 0] == pytest.approx(4 / 3)  # of three cells: one is masked
    assert worst[0, 0, 0] == 4
    assert means.isfinite().all()
    assert pooled(torch.full((1, 96, 96), -math.inf, dtype=torch.float64)).isinf().all()


def test_differences_that_are_rounding_are_not_called_wrong():
    """Divided where the official model multiplies: here and there that sums up to more than five decimals."""
    divided = ("scaled = product * query.shape[-1] ** -0.5", "scaled = product / query.shape[-1] ** 0.5")
    with mutated([Mutant("divided", "minilm", *divided, "", "")]):
        texts = ["The cook gave the sailor a lamp.", "The cook."]
        proof = llm_rebuild.prove(miniature("minilm"), texts, coverage=False)
    soup = BeautifulSoup(render(proof), "html.parser")
    result = soup.select_one(".result")
    assert "differ by rounding alone" in result.text
    assert result["class"] == ["result", "near"]
    kinds = {entry["data-kind"] for entry in soup.select(".all tr[data-kind]")}
    assert kinds >= {"identical", "near"}
    assert "rounding, no mistake" in soup.select_one(".finding").text


# --------------------------------------------------------------------------------------- one inert file


def test_nothing_outside_is_asked_for(wrong: verify.Proof):
    page = render(wrong)
    soup = BeautifulSoup(page, "html.parser")
    addresses = [
        tag[a] for a in ("src", "href", "action", "data", "srcset") for tag in soup.find_all(**{a: True})
    ]
    assert all(address.startswith(("#", "data:image/svg+xml,")) for address in addresses)
    assert "@import" not in page
    assert "url(" not in page


def test_no_script_or_style_but_its_own_may_run(wrong: verify.Proof):
    soup = BeautifulSoup(render(wrong), "html.parser")
    policy = soup.find("meta", {"http-equiv": "Content-Security-Policy"})["content"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    scripts = [s for s in soup.find_all("script") if s.get("type") != "application/json"]
    for kind, (only,) in (("script", scripts), ("style", soup.find_all("style"))):
        digest = base64.b64encode(hashlib.sha256(str(only.string).encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    handlers = [
        name for tag in soup.find_all(True) for name in tag.attrs if name.startswith("on") or name == "style"
    ]
    assert handlers == []


def fabricated(tensors: dict[str, Tensor], rebuilt: dict[str, Tensor], text: str = "a b") -> str:
    """A page of any tensors under any names."""
    ids = torch.tensor([[1, 2, 3]])
    inputs = Inputs(ids, torch.ones_like(ids), (text,), ((text, "b", "c"),), (0,))
    model = {"name": text, "source": "folder", "revision": text, "sha256": text}
    known = {n: Checkpoint(n, "[batch, head, query, key]", "", "") for n in tensors if n.endswith("probs")}
    truth = Capture(model, "eager", inputs, {}, tensors, checkpoints=known)
    question: Any = SimpleNamespace(copy=SimpleNamespace(sha256={text: text}))
    return render(verify.Proof(question, judge(rebuilt, truth), truth, rebuilt))


def test_texts_tokens_and_names_stay_what_they_are():
    tensors = {
        HOSTILE: torch.rand(1, 3, 4),
        "encoder.layer.0." + HOSTILE: torch.rand(2, 2),
        "mask": torch.rand(1, 1, 3, 3),
    }
    page = fabricated(tensors, {HOSTILE: torch.rand(1, 3, 4)}, text=HOSTILE)
    soup = BeautifulSoup(page, "html.parser")
    assert soup.find_all("img") == []
    assert len(soup.find_all("script")) == 2
    assert page.count("</script>") == 2
    assert soup.select_one(".all th code").text == HOSTILE
    assert soup.select_one(".tokens code").text == HOSTILE
    assert list(charts_of(page)) == list(tensors)


def test_a_token_among_the_numbers_cannot_end_the_script():
    """Labels of heat maps stand inside a script element, where escaping works in another way."""
    probs = {"encoder.layer.0.attention.self.probs": torch.rand(1, 2, 3, 3)}
    page = fabricated(probs, {name: tensor.clone() for name, tensor in probs.items()}, text=HOSTILE)
    assert data_of(page)["labels"][0][0].startswith('"</script>')
    assert page.count("</script>") == 2


def test_whatever_a_rebuild_gives_the_page_is_made_and_its_json_is_strict():
    one = torch.rand(1, 3, 4)
    nan, huge = one.clone(), one.clone()
    nan[0, 0, 0], huge[0, 0, 0], huge[0, 0, 1] = math.nan, math.inf, -3e38
    official = {
        "same": one, "nan": one, "huge": one, "both nan": nan, "shape": one, "dtype": one, "missing": one,
        "number": torch.tensor(1.0), "empty": torch.zeros(0, 3), "constant": torch.full((2, 2), 1e29),
        "all nan": torch.full((2, 2), math.nan), "whole": torch.ones(2, 2, dtype=torch.int64),
    }  # fmt: skip
    rebuilt = {
        "same": one.clone(), "nan": nan.clone(), "huge": huge, "both nan": nan.clone(),
        "shape": torch.rand(2), "dtype": one.double(), "number": torch.tensor(2.0),
        "empty": torch.zeros(0, 3),
        "constant": torch.full((2, 2), 1e29), "all nan": torch.rand(2, 2),
        "whole": torch.zeros(2, 2, dtype=torch.int64),
    }  # fmt: skip
    page = fabricated(official, rebuilt)
    charts = charts_of(page)
    assert list(charts) == list(official)
    assert charts["huge"]["heat"]["worst"] == [0, 0]
    for name, drawn in charts.items():
        histogram = drawn.get("histogram")
        assert histogram is None or histogram["low"] < histogram["high"], name
    kinds = {cell["name"]: cell["kind"] for cell in data_of(page)["cells"]}
    assert [kinds[name] for name in ("same", "both nan", "nan", "shape", "missing")] == [
        "identical", "identical", "wrong", "wrong", "missing"
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------ size, command


@pytest.mark.parametrize("name", ["gpt2", "t5-small"])
def test_size_of_a_page_on_which_nearly_everything_is_wrong(name: str, figure):
    """Full-size T5 has 447 checkpoints and must stay below 4 MB: 9 kB for each."""
    before, after = {
        "gpt2": ("scaled = product * scale", "scaled = product"),
        "t5-small": ("square = x.float().pow(2)", "square = x.float().pow(2) * 1.1"),
    }[name]
    rows = [[(7 * i) % 900 + 5 for i in range(60)], [9, 8, 7]]
    with mutated([Mutant("m", name, before, after, "", "")]):
        proof = verify.prove(miniature(name), token_ids=rows, coverage=False)
    size = len(render(proof).encode())
    figure(
        f"page of {name}, miniature, {len(proof.report.verdicts)} checkpoints, most wrong: "
        f"{size / 1e6:.2f} MB"
    )
    assert sum(not v.identical for v in proof.report.verdicts) > 60
    assert size / len(proof.report.verdicts) < 9_000


def test_size_of_the_real_minilm(minilm: LocalCopy, figure):
    proof = verify.prove(minilm, "Open-source LLMs rock.", coverage=False)
    size = len(render(proof).encode())
    figure(f"page of minilm, {len(proof.report.verdicts)} checkpoints: {size / 1e6:.2f} MB")
    assert size < 2_000_000


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["llm-rebuild", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    file = tmp_path / "report.html"
    folder = MINIATURES / "gpt2"
    assert command(monkeypatch, "verify", folder, "--text", "The cook", "--html", file) == 0
    assert "72 of 72 checkpoints bit-identical" in file.read_text(encoding="utf-8")
    with mutated([UNSCALED]):
        assert command(monkeypatch, "verify", folder, "--text", "The cook", "--html", file) == 1
    assert "Diagnosis: scale missing" in re.sub(r"\s+", " ", file.read_text(encoding="utf-8"))
    out = " ".join(capsys.readouterr().out.split())
    assert "diagnosis: scale-missing" in out
    assert "what belongs into it (h.0.attn.product) is bit-identical" in out
    assert [path.name for path in tmp_path.glob("*report*")] == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--html", "nowhere/report.html"], "--html nowhere/report.html: there is no folder"),
        (["--html", "-"], "--html -: give the name of a file"),
        (["--html", "."], "--html .: that is a folder"),
        (["--html", "report.html", "--steps", "2"], "--html serves a single pass; leave --steps out"),
    ],
)
def test_a_place_that_is_none_is_refused_first(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "verify", MINIATURES / "gpt2", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
