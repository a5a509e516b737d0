"""Types of number: in each both sides have the same bits, and verdicts count in its units."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm_rebuild.checkpoints import Tap
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.diagnosis.explain import prove as prove_and_explain
from llm_rebuild.errors import InputError
from llm_rebuild.models import RECORDS
from llm_rebuild.proof import certificate, isolation
from llm_rebuild.proof.recheck import recheck
from llm_rebuild.show.results import text
from llm_rebuild.using.embedding import embed
from llm_rebuild.using.generate import Settings, generate
from llm_rebuild.verify import Capture, ask, capture, compare, prove, verify, verify_steps
from llm_rebuild.verify.run import rebuild_run, run_rebuild
from llm_rebuild.weights import DTYPES, computing_on
from tests.models import small
from tests.turns import in_turn

COPIES = {r.published: LocalCopy(r.published, MINIATURES / r.published, "miniature") for r in RECORDS}
WRITERS = [name for name, copy in COPIES.items() if copy.rebuild.architecture.generates]
OTHERS = [name for name in DTYPES if name != "float32"]
SHORT = ["bfloat16", "float16"]

Run = Callable[..., tuple[int, str, str]]


def texts(name: str) -> tuple[str, str]:
    """Two of different length."""
    return COPIES[name].rebuild.architecture.default_texts("miniature")


@cache
def usual_coverage(name: str, attention: str) -> float:
    """The share of the work that is compared in float32."""
    coverage = verify(COPIES[name], texts(name), attention=attention).coverage
    assert coverage is not None
    return coverage.share


# ------------------------------------------------------------------------------ the same bits


@pytest.mark.parametrize(("name", "dtype", "attention"), in_turn(COPIES, OTHERS, ["eager", "sdpa"]))
def test_every_checkpoint_is_bit_identical(name: str, dtype: str, attention: str):
    report = verify(COPIES[name], texts(name), dtype=dtype, attention=attention)
    assert report.exact, report.first_divergence
    assert report.dtype == dtype == report.to_json()["dtype"] == report.to_json()["environment"]["dtype"]
    assert dtype in {verdict.dtype for verdict in report.verdicts}
    assert report.coverage is not None
    assert report.coverage.share >= usual_coverage(name, attention)


@pytest.mark.parametrize(("name", "dtype", "attention"), in_turn(WRITERS, OTHERS, ["eager", "sdpa"]))
def test_every_step_of_decoding_is_bit_identical(name: str, dtype: str, attention: str):
    for report in verify_steps(COPIES[name], texts(name), dtype=dtype, attention=attention, steps=3):
        assert report.exact, report.first_divergence
        assert report.dtype == dtype


@pytest.mark.parametrize(("dtype", "attention"), in_turn(OTHERS, ["eager", "sdpa"]))
def test_the_real_minilm_is_bit_identical(minilm: LocalCopy, dtype: str, attention: str):
    report = verify(minilm, ["Open-source LLMs rock.", "They do."], dtype=dtype, attention=attention)
    assert report.exact, report.first_divergence


RELATIVES = {
    "qwen3": {**small.LLAMA, "model_type": "qwen3", "head_dim": 8},
    "yarn": {**small.LLAMA, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "t5 1.1": {**small.T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": True},
}


@pytest.mark.parametrize(("relative", "dtype", "attention"), in_turn(RELATIVES, OTHERS, ["eager", "sdpa"]))
def test_relatives_are_bit_identical(relative: str, dtype: str, attention: str, tmp_path: Path):
    copy = small.model(tmp_path / "model", RELATIVES[relative])
    for use_cache in (False, True):
        report = verify(copy, token_ids=small.ROWS, dtype=dtype, attention=attention, use_cache=use_cache)
        assert report.exact, report.first_divergence


def test_what_goes_beyond_float16_is_cut_as_officially(tmp_path: Path):
    """T5's vectors may be too large for float16: there both sides go on with the same finite number."""
    copy = small.model(tmp_path / "model", small.T5)
    tensors = load_file(copy.weights_file)
    for key in tensors:
        if key.endswith("block.0.layer.0.SelfAttention.o.weight"):
            tensors[key] *= 60_000 / tensors[key].abs().max()
    save_file(tensors, copy.weights_file, {"format": "pt"})
    proof = prove(copy, token_ids=small.ROWS, dtype="float16")
    assert any(bool(tensor.isinf().any()) for tensor in proof.rebuilt.values())
    assert proof.report.exact, proof.report.first_divergence
    assert bool(proof.rebuilt["lm_head"].isfinite().all())


@pytest.mark.parametrize("dtype", OTHERS)
@pytest.mark.parametrize("name", WRITERS)
def test_the_same_tokens_are_written(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch):
    import transformers

    types, weights = [], LocalCopy.weights
    monkeypatch.setattr(LocalCopy, "weights", lambda c, *how: types.append(how[0]) or weights(c, *how))
    copy = COPIES[name]
    kind = "AutoModelForSeq2SeqLM" if copy.rebuild.architecture.encoder_decoder else "AutoModelForCausalLM"
    official = getattr(transformers, kind).from_pretrained(copy.folder, dtype=DTYPES[dtype]).eval()
    ids = torch.tensor([copy.tokenizer().encode(texts(name)[0]).ids])
    for beams in (1, 3):
        wanted = official.generate(ids, max_new_tokens=12, do_sample=False, num_beams=beams)
        written = generate(copy, ids.tolist(), Settings(max_new_tokens=12, beams=beams), dtype=dtype)
        assert written.token_ids.tolist() == wanted.tolist()
    assert types == [dtype, dtype]


@pytest.mark.parametrize("dtype", OTHERS)
def test_embeddings_are_in_the_type(dtype: str):
    made = embed(COPIES["minilm"], "They do.", dtype=dtype)
    proof = prove(COPIES["minilm"], "They do.", dtype=dtype, attention="sdpa")
    assert torch.equal(made.embeddings, proof.rebuilt["sentence.embedding"])
    assert made.embeddings.dtype == DTYPES[dtype]


@pytest.mark.parametrize("dtype", SHORT)
def test_a_process_of_its_own_has_the_same_bits(dtype: str):
    for name in ("gpt2", "t5-small"):  # of T5 one weight stays float32
        report = isolation.prove_isolated(COPIES[name], texts(name), dtype=dtype).report
        assert report.exact, report.first_divergence
        assert report.leaks == ()


# ------------------------------------------------------------------------- the file's own type


@pytest.mark.parametrize("dtype", OTHERS)
def test_a_file_is_opened_as_it_is(dtype: str, tmp_path: Path):
    """Its tensors are windows on the file, and what they are is what both sides compute in."""
    copy = small.model(tmp_path / "model", small.GPT2)
    tensors = {key: tensor.to(DTYPES[dtype]) for key, tensor in load_file(copy.weights_file).items()}
    save_file(tensors, copy.weights_file, {"format": "pt"})
    opened = copy.weights(dtype)
    assert all(torch.equal(opened[key], tensor) for key, tensor in tensors.items())
    assert all(opened[key].dtype == DTYPES[dtype] for key in tensors)
    assert len(opened.pages.spans) == 1  # one window, and no copies beside it
    report = verify(copy, token_ids=small.ROWS, dtype="auto")
    assert report.exact, report.first_divergence
    assert report.dtype == dtype
    assert verify(copy, token_ids=small.ROWS).dtype == "float32"


def test_what_stays_wide_in_float16_does_not_count(tmp_path: Path):
    """As transformers saves a T5 in float16: one weight of each block in float32."""
    copy = small.model(tmp_path / "model", small.T5)
    tensors = {
        key: tensor if ".wo." in key else tensor.half()
        for key, tensor in load_file(copy.weights_file).items()
    }
    save_file(tensors, copy.weights_file, {"format": "pt"})
    report = verify(copy, token_ids=small.ROWS, dtype="auto")
    assert report.exact, report.first_divergence
    assert report.dtype == "float16"


def test_a_file_of_several_types_has_none_of_its_own(tmp_path: Path):
    copy = small.model(tmp_path / "model", small.GPT2)
    tensors = load_file(copy.weights_file)
    tensors["wpe.weight"] = tensors["wpe.weight"].bfloat16()
    save_file(tensors, copy.weights_file, {"format": "pt"})
    with pytest.raises(InputError, match=r"holds bfloat16 and float32; say in which type to compute"):
        verify(copy, token_ids=small.ROWS, dtype="auto")
    assert verify(copy, token_ids=small.ROWS, dtype="float16").exact


def test_numbers_beyond_float16_are_said(tmp_path: Path):
    copy = small.model(tmp_path / "model", small.GPT2)
    tensors = load_file(copy.weights_file)
    tensors["wpe.weight"][0, 0] = 70_000.0
    save_file(tensors, copy.weights_file, {"format": "pt"})
    with pytest.raises(InputError, match=r"wpe.weight has .* beyond 65504, where float16 ends"):
        verify(copy, token_ids=small.ROWS, dtype="float16")
    assert verify(copy, token_ids=small.ROWS, dtype="bfloat16").exact


# ------------------------------------------------------------------ verdicts in units of the type


@pytest.mark.parametrize("dtype", SHORT)
def test_neighbours_pass_and_others_do_not(dtype: str):
    official = torch.tensor([-3.0, 0.5, 1.0, 100.0], dtype=DTYPES[dtype])
    up = torch.nextafter(official, torch.full_like(official, 1000.0))
    near = compare(up, official.clone())
    assert (near.verdict, near.passes, near.max_ulp, near.five_decimals) == ("1 ulp", True, 1, False)
    far = compare(torch.nextafter(up, torch.full_like(up, 1000.0)), official.clone())
    assert (far.verdict, far.passes, far.max_ulp) == ("wrong values", False, 2)
    wide = compare(up.float(), official.float())  # the same numbers, in a type that has decimals
    assert (wide.verdict, wide.passes) == ("wrong values", False)


def off_by(ulp: int, name: str) -> Callable[..., Any]:
    """A rebuild whose tensor of that name is off by so many units in the last place."""

    def run(question: Any) -> dict[str, Tensor]:
        tensors = rebuild_run(question)
        for _ in range(ulp):
            tensors[name] = torch.nextafter(tensors[name], torch.full_like(tensors[name], 1000.0))
        return tensors

    return run


def test_a_report_counts_in_them_and_names_no_mistake():
    name = "h.1.mlp.c_proj"
    report = prove_and_explain(COPIES["gpt2"], texts("gpt2"), dtype="bfloat16", run=off_by(40, name)).report
    assert not report.passed
    assert report.first_divergence is not None
    assert report.first_divergence.name == name
    assert (report.diagnosis, report.mistakes) == ((), ())
    shown = " ".join(text(report).split())
    assert "40 ulp" in shown
    assert "is looked for in float32, and not in bfloat16" in shown
    assert "eager attention, bfloat16)" in shown
    near = prove_and_explain(COPIES["gpt2"], texts("gpt2"), dtype="bfloat16", run=off_by(1, name)).report
    assert near.passed
    assert not near.exact
    assert "looked for in float32" not in text(near)


def test_integers_of_the_same_bits_are_a_leak():
    truth = capture(COPIES["gpt2"], texts("gpt2"), dtype="bfloat16")
    bits = truth["h.0.ln_1"].tensor.view(torch.int16)
    weights = COPIES["gpt2"].weights("bfloat16")
    assert [leak.name for leak in isolation.leaks_of([("add", bits)], truth, weights)] == ["h.0.ln_1"]


# ----------------------------------------------------------------------- captures and certificates


def test_a_capture_knows_its_type(tmp_path: Path):
    capture(COPIES["gpt2"], texts("gpt2"), dtype="float16").save(tmp_path / "c.safetensors")
    loaded = Capture.load(tmp_path / "c.safetensors")
    assert loaded.dtype == "float16" == loaded["wte"].dtype
    with pytest.raises(InputError, match="find looks in float32, and this capture is of float16"):
        loaded.find(loaded["wte"].tensor)


def test_a_certificate_is_rechecked_in_its_type(tmp_path: Path):
    proof = prove(COPIES["gpt2"], texts("gpt2"), dtype="bfloat16")
    written = certificate.certify(proof)
    assert written["environment"]["dtype"] == "bfloat16"
    assert recheck(written).holds
    edited = json.loads(json.dumps(written))
    edited["environment"]["dtype"] = "float32"
    edited["digest"] = certificate.digest(edited)
    assert not recheck(edited).holds
    edited["environment"]["dtype"] = "float8_e4m3fn"
    edited["digest"] = certificate.digest(edited)
    (tmp_path / "edited.json").write_text(json.dumps(edited), encoding="utf-8")
    with pytest.raises(InputError, match=r"environment\.dtype"):
        certificate.read(tmp_path / "edited.json")


# ------------------------------------------------------------------------------- the command line


def test_verify_in_another_type(run: Run, tmp_path: Path):
    file = tmp_path / "c.json"
    options = ("--text", "The cook", "--dtype", "bfloat16")
    code, out, _ = run("verify", MINIATURES / "gpt2", *options, "--certificate", file, "--exact")
    assert (code, out.splitlines()[-1].endswith("(gpt2, eager attention, bfloat16)")) == (0, True)
    code, out, _ = run("recheck", file, "--model", MINIATURES / "gpt2")
    assert (code, ", eager attention, bfloat16, " in out) == (0, True)
    code, out, _ = run("verify", MINIATURES / "gpt2", *options, "--json", "-")
    said = json.loads(out)
    assert (said["dtype"], said["device"]) == ("bfloat16", "cpu")


def test_capture_and_run_in_another_type(run: Run, tmp_path: Path):
    out = tmp_path / "c.safetensors"
    assert (
        run("capture", MINIATURES / "gpt2", "--text", "The cook", "--dtype", "float64", "--out", out)[0] == 0
    )
    assert Capture.load(out).dtype == "float64"
    code, written, _ = run("run", MINIATURES / "gpt2", "The cook", "--dtype", "float16", "--device", "cpu")
    assert (code, written.startswith("The cook")) == (0, True)


@pytest.mark.parametrize("command", ["verify", "run"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--dtype", "int8"), "dtype is 'int8'; it is one of float32, bfloat16, float16, float64, or auto"),
        (("--dtype", "float8_e4m3fn"), "dtype is 'float8_e4m3fn'"),
        (("--dtype", ""), "'--dtype' is empty"),
        (("--device", "meta"), "device 'meta' holds shapes and no numbers; this machine has cpu"),
        (("--device", "cuda:77"), "device 'cuda:77' cannot be had"),
        (("--device", "cpu:99"), "device 'cpu:99' is no other than cpu"),
        (("--device", "abacus"), "device 'abacus' cannot be had"),
        (("--device", "privateuseone"), "device 'privateuseone' cannot be had"),
        (("--device", ""), "'--device' is empty"),
    ],
    ids=str,
)
def test_what_there_is_not_is_refused_in_a_line(run: Run, command: str, options: tuple[str, str], said: str):
    text = ("--text",) if command == "verify" else ()
    code, out, err = run(command, MINIATURES / "gpt2", *text, "The cook", *options)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", [("--isolated",), ("--certificate", "c.json")], ids=str)
def test_what_is_for_bits_stays_on_the_cpu(run: Run, option: tuple[str, ...]):
    code, _, err = run("verify", MINIATURES / "gpt2", "--text", "The", "--device", "cuda", *option)
    assert (code, f"{option[0]} is for bits" in err) == (2, True)


# --------------------------------------------------------------------------------- other devices


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", COPIES)
def test_a_rebuild_stays_on_its_device(
    name: str, attention: str, padded: bool, monkeypatch: pytest.MonkeyPatch
):
    """No machine with another is needed: `meta` has shapes and no numbers, and what mixes devices fails."""
    question, devices = ask(COPIES[name], texts(name), attention=attention), set[str]()
    monkeypatch.setattr(Tensor, "__bool__", lambda tensor: not padded)  # asked whether a mask is all ones
    tap = Tap(lambda name, tensor: devices.add(tensor.device.type))
    run_rebuild(replace(question, device="meta"), tap)
    assert devices == {"meta"}


def test_a_report_says_where_the_rebuild_ran():
    report = verify(COPIES["gpt2"], texts("gpt2"))
    assert report.device == "cpu" == report.to_json()["device"]
    shown = " ".join(text(replace(report, device="cuda:0")).split())
    assert "ran on cuda:0, the official model on the CPU" in shown
    assert "equal bits are not expected" in shown


def test_new_tensors_are_made_on_the_device():
    with computing_on("meta"):
        assert torch.arange(3).is_meta
    with computing_on("cpu"):
        assert torch.arange(3).device.type == "cpu"
