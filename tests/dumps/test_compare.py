"""A port in NumPy under names of its own: matched, compared, and told its mistake."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from llm_rebuild import verify
from llm_rebuild.diagnosis.read_off import world_of
from llm_rebuild.dumps.compare import proof_of
from llm_rebuild.dumps.names import Matched, arranged, match
from llm_rebuild.verify.capture import Capture
from llm_rebuild.verify.compare import WRONG_VALUES
from llm_rebuild.verify.divergence import first_mistake
from llm_rebuild.verify.proof import Proof
from tests.dumps import ports
from tests.dumps.port import MISTAKES

Run = Callable[..., tuple[int, str, str]]

MINIATURE = Path(__file__).parents[2] / "llm_rebuild" / "miniatures" / "gpt2"
TEXTS = ["The dog was glad.", "They do."]


@pytest.fixture(scope="module")
def truth() -> Capture:
    return verify.capture(MINIATURE, TEXTS, steps=True)


def ported(truth: Capture, mistake: str = "") -> dict[str, Tensor]:
    """What the port computes, by the alphabet of its names."""
    copy = verify.ask(MINIATURE, TEXTS).copy
    return ports.numpy_port(copy, truth.inputs, mistake, MINIATURE).tensors


MEANT = ports.named_in_numpy(3)


def proved(truth: Capture, matched: Matched) -> Proof:
    return proof_of(verify.ask(MINIATURE, TEXTS), truth, matched)


def test_a_right_port_is_right_and_its_names_are_known(truth: Capture) -> None:
    matched = match(ported(truth), truth.tensors)
    assert matched.names == MEANT
    assert matched.unmatched == ()
    report = proved(truth, matched).report
    assert report.passed
    assert len(report.verdicts) == 39  # three names each for what one layer makes
    assert [diagnosis.cause for diagnosis in report.diagnosis] == ["rounding"]


def test_minus_infinity_hides_as_well_as_the_lowest_float(truth: Capture) -> None:
    tensors = ported(truth)
    hidden = {name: t.masked_fill(t < -1e30, -math.inf) for name, t in tensors.items()}
    assert any(tensor.isinf().any() for tensor in hidden.values())
    matched = match(hidden, truth.tensors)
    assert matched.names == MEANT
    assert matched.layouts["block0/scores"] == ", -inf where a mask hides"
    assert proved(truth, matched).report.passed
    wrong = {name: t.masked_fill(t > 5, -math.inf) if "scores" in name else t for name, t in hidden.items()}
    assert not proved(truth, match(wrong, truth.tensors)).report.passed  # nothing is hidden there


@pytest.mark.parametrize("fill", [-1e4, -1e9, -1e10])
def test_so_does_a_number_that_is_low_enough(truth: Capture, fill: float) -> None:
    tensors = ported(truth)
    hidden = {name: t.masked_fill(t < -1e30, fill) for name, t in tensors.items()}
    matched = match(hidden, truth.tensors)
    assert matched.names == MEANT
    assert matched.layouts["block0/scores"] == f", {fill:g} where a mask hides"
    assert proved(truth, matched).report.passed


def test_one_that_is_not_low_enough_is_another_fill(truth: Capture) -> None:
    weak = {name: t.masked_fill(t < -1e30, -100.0) for name, t in ported(truth).items()}
    assert proved(truth, match(weak, truth.tensors)).report.mistakes[0].cause == "mask-fill"


def test_a_low_number_does_not_hide_all_keys_of_a_query() -> None:
    """What it was put in place of, or added to, is then seen: the lowest float makes all keys alike."""
    lowest = torch.finfo(torch.float32).min
    official = torch.tensor([[lowest, 1.0], [lowest, lowest]])
    port = torch.tensor([[-1e9, 1.0], [-1e9, -1e9]])
    [lies] = arranged({"a": port}, {"scores": official}, {"a": "scores"}).tensors.values()
    assert lies.tolist() == [[lowest, 1.0], [-1e9, -1e9]]


@pytest.mark.parametrize(("mistake", "causes"), [("", []), ("erf-gelu", ["gelu-exact"])])
def test_a_port_in_float64_is_told_of_its_mistakes_alone(
    truth: Capture, mistake: str, causes: list[str]
) -> None:
    wide = {name: tensor.double() for name, tensor in ported(truth, mistake).items()}
    wide |= {name: t.masked_fill(t < -1e30, torch.finfo(t.dtype).min) for name, t in wide.items()}
    matched = match(wide, truth.tensors)
    assert matched.names == MEANT
    assert "rounded from float64, -inf where a mask hides" in matched.layouts["block0/scores"]
    report = proved(truth, matched).report
    assert report.passed == (not mistake)
    assert [found.cause for found in report.mistakes] == causes


def test_minus_infinity_where_nothing_should_be_hidden_is_a_mask_of_its_own(truth: Capture) -> None:
    tensors = ported(truth)
    scores = {name: t.masked_fill(t < -1e30, -math.inf) for name, t in tensors.items() if "scores" in name}
    for hidden in scores.values():
        hidden[..., 2, 0] = -math.inf
    report = proved(truth, match({**tensors, **scores}, truth.tensors)).report
    first = report.mistakes[0]
    assert (first.cause, first.seen) == ("mask-extra", "h.0.attn.scores")


def test_wrong_logits_without_the_batch_are_logits(truth: Capture) -> None:
    """They are the only tensor of their shape that is left, and nothing passes without them."""
    single = verify.capture(MINIATURE, TEXTS[:1])
    wrong = {name.replace(".", "/"): tensor[0] for name, tensor in single.tensors.items()}
    wrong["lm_head"] = torch.randn_like(wrong["lm_head"])
    matched = match({"out" if name == "lm_head" else name: t for name, t in wrong.items()}, single.tensors)
    assert matched.names["out"] == "lm_head"


def test_what_belongs_into_a_tensor_is_the_next_before_it_that_is_there() -> None:
    """Llama's norm has stages, which nobody need dump."""
    copy = verify.ask(MINIATURE.with_name("llama"), TEXTS)
    official = verify.capture(copy, steps=True)
    names = ["model.embed_tokens", "model.layers.0.input_layernorm"]
    dump = {names[0]: official.tensors[names[0]].clone(), names[1]: official.tensors[names[1]] * 2}
    found = proof_of(copy, official, match(dump, official.tensors)).report.first_divergence
    assert found is not None
    assert (found.name, found.inputs) == (names[1], (names[0],))


def test_whole_numbers_are_no_checkpoint_that_has_others(truth: Capture) -> None:
    """Nor is the only tensor that is left of a shape."""
    matched = match({"logits": truth.tensors["lm_head"].int()}, truth.tensors)
    assert matched.unmatched == ("logits",)
    assert not proved(truth, matched).report.verdicts


@pytest.mark.parametrize(("mistake", "first"), [("", None), ("norm-late", "h.0.ln_2")])
def test_half_the_precision_is_held_against_as_much(truth: Capture, mistake: str, first: str | None) -> None:
    """What is rounded to the other neighbour is rounding, and official steps go on from what is wrong."""
    world = world_of(truth, verify.ask(MINIATURE, TEXTS).copy)
    half = {name: tensor.half() for name, tensor in ported(truth, mistake).items()}
    matched = match(half, truth.tensors, lambda: world)
    assert matched.names == MEANT  # also where the lowest float has become minus infinity
    report = proved(truth, matched).report
    assert {verdict.dtype for verdict in report.verdicts} == {"float16"}
    assert mistake or 5 < sum(verdict.identical for verdict in report.verdicts) < 39
    assert report.passed == (not mistake)
    wrong = first_mistake(report.verdicts, report.rounding)
    assert (None if wrong is None else wrong.name) == first
    seen = report.first_divergence
    assert seen is not None
    assert seen.blame(report.rounding).endswith("before it are bit-identical: rounding, no mistake")


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_in_half_the_precision_mistakes_are_seen(truth: Capture, mistake: str) -> None:
    half = {name: tensor.half() for name, tensor in ported(truth, mistake).items()}
    report = proved(truth, match(half, truth.tensors)).report
    right = proved(truth, match(ported(truth, mistake), truth.tensors)).report
    wrong, also = ({v.name for v in r.verdicts if v.verdict == WRONG_VALUES} for r in (report, right))
    assert wrong & also


def test_what_is_right_in_most_blocks_is_so_called_in_the_last(truth: Capture) -> None:
    """Its residual was left out there: the sum is then what another tensor is in all blocks."""
    wanted = {"ffn_gelu": "h.#.mlp.act", "ffn_out": "h.#.mlp.c_proj", "l_out": "h.#.mlp.residual"}
    meant = {f"{name}-{n}": c.replace("#", str(n)) for n in range(3) for name, c in wanted.items()}
    dump = {name: truth.tensors[checkpoint].clone() for name, checkpoint in meant.items()}
    dump["l_out-2"] = dump["ffn_out-2"].clone()
    assert match(dump, truth.tensors).names == meant


def test_the_root_of_a_mean_square_is_none_of_the_steps_beside_it() -> None:
    """It points where the mean square does. Nor does it become one because what goes in twice is alike."""
    copy = verify.ask(MINIATURE.with_name("llama"), TEXTS)
    official = verify.capture(copy, steps=True)
    dump = {n: t.clone() for n, t in official.tensors.items() if n.rpartition(".")[0] not in official.tensors}
    norms = {n: t for n, t in official.tensors.items() if n.endswith(".mean_square")}
    roots = {n.replace("mean_square", "rms"): (t + 1e-5).sqrt() for n, t in norms.items()}
    world = world_of(official, copy.copy)
    assert set(match(dump | roots, official.tensors, lambda: world).unmatched) == set(roots)
    wrong = {n: t * (1 + ("layernorm" in n)) for n, t in dump.items()}
    assert set(roots) <= set(match(wrong | roots, official.tensors, lambda: world).unmatched)


def test_what_a_mistake_has_made_wrong_is_known_by_its_step(truth: Capture) -> None:
    """Behind exchanged keys and values nothing points where the official tensors do, and no name says it."""
    tensors, world = ported(truth, "swapped-kv"), world_of(truth, verify.ask(MINIATURE, TEXTS).copy)
    assert match(tensors, truth.tensors, lambda: world).names == ports.as_seen(MEANT, "swapped-kv")


@pytest.mark.parametrize(
    ("mistake", "dtype"),
    [("erf-gelu", torch.float32), ("norm-late", torch.float32), ("norm-late", torch.float16)],
)
def test_a_wrong_tensor_is_what_the_others_follow_from(
    truth: Capture, mistake: str, dtype: torch.dtype
) -> None:
    """Though its name is a number only, and where some are not dumped."""
    tensors, world = ported(truth, mistake), world_of(truth, verify.ask(MINIATURE, TEXTS).copy)
    inside = [name for name in MEANT if "/" in name and not name.endswith(("/scores", "/up"))]
    order = ["embedded", *inside, "last_norm", "logits"]
    dump = {f"t{number}": tensors[name].to(dtype) for number, name in enumerate(order)}
    meant = {f"t{number}": MEANT[name] for number, name in enumerate(order)}
    assert match(dump, truth.tensors, lambda: world).names == meant


def test_shifted_positions_lie_as_the_official_ones(truth: Capture) -> None:
    """Rows 1 to 8 of a trained table point nearly where rows 1, 5, 2, 6, … do, too."""
    rows = verify.ask(MINIATURE, TEXTS).weights["wpe.weight"]
    shifted = rows[1 : 1 + truth.tensors["wpe"].shape[1]][None]
    assert match({"positions": shifted}, truth.tensors).layouts == {"positions": ""}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_infinity_is_rounded_from_no_number(truth: Capture, dtype: torch.dtype) -> None:
    dump = {name: tensor.to(dtype) for name, tensor in ported(truth).items()}
    dump["logits"][0, 0, 9] = math.inf
    report = proved(truth, match(dump, truth.tensors)).report
    assert [v.name for v in report.verdicts if v.verdict == WRONG_VALUES] == ["lm_head"]


def test_dumps_of_zeros_are_compared(truth: Capture) -> None:
    """Twins in all blocks, which stay in theirs."""
    everywhere = {name: torch.zeros_like(tensor) for name, tensor in truth.tensors.items()}
    half = {n: everywhere[n] if "attn." in n else t.clone() for n, t in truth.tensors.items()}
    for dump in (everywhere, half):
        matched = match(dump, truth.tensors)
        assert all(name == matched.names[name] for name in dump if name.startswith("h."))
        assert not proved(truth, matched).report.passed


@pytest.mark.parametrize("only", ["", "ln_"])
@pytest.mark.parametrize("blocks", ["012", "01", "0"])
def test_the_number_of_a_block_may_stand_twice_in_a_name(truth: Capture, blocks: str, only: str) -> None:
    named = {re.sub(r"^h\.(\d)\.", r"layer\1/layer\1_", c): c for c in truth.tensors if only in c}
    named = {name: c for name, c in named.items() if not c.startswith("h.") or c[2] in blocks}
    assert match({name: truth.tensors[c] for name, c in named.items()}, truth.tensors).names == named


@pytest.mark.parametrize(
    "change", [lambda t: t.roll(1, 1), lambda t: -t, lambda t: t * math.nan], ids=["rolled", "turned", "NaN"]
)
def test_what_is_called_as_a_checkpoint_is_that_however_wrong(
    truth: Capture, change: Callable[[Tensor], Tensor]
) -> None:
    dump = {**truth.tensors, "ln_f": change(truth.tensors["ln_f"])}
    matched = match(dump, truth.tensors, lambda: world_of(truth, verify.ask(MINIATURE, TEXTS).copy))
    assert matched.names["ln_f"] == "ln_f"


@pytest.mark.parametrize("option", ["--write-names", "--html", "--json"])
@pytest.mark.parametrize("read", ["texts", "names", "dump", "mine/wte.npy"])
def test_no_result_takes_the_place_of_what_is_read(run: Run, tmp_path: Path, read: str, option: str) -> None:
    dump, texts, names = tmp_path / "mine", tmp_path / "texts", tmp_path / "names"
    dump.mkdir()
    np.save(dump / "wte.npy", np.zeros(3))
    texts.write_text("The dog was glad.\n")
    names.write_text("{}")
    place = tmp_path / read if read != "dump" else dump / "wte.npy"
    content = place.read_bytes()
    code, _, err = run(
        *("compare", dump if read != "dump" else place, "--model", MINIATURE, "--texts", texts),
        *("--names", names, option, place),
    )
    assert code == 2
    assert "that is the file that is read; choose another place" in err
    assert place.read_bytes() == content


@pytest.mark.parametrize("command", ["capture", "dump"])
def test_no_tensors_take_the_place_of_the_model(run: Run, tmp_path: Path, command: str) -> None:
    folder = Path(shutil.copytree(MINIATURE, tmp_path / "gpt2"))
    weights = (folder / "model.safetensors").read_bytes()
    code, _, err = run(command, folder, "--text", TEXTS[0], "--out", folder / "model.safetensors")
    assert code == 2
    assert "that is the file that is read; choose another place" in err
    assert (folder / "model.safetensors").read_bytes() == weights


def test_names_neither_make_lines_nor_turn_the_text_round(run: Run, truth: Capture, tmp_path: Path) -> None:
    dump = tmp_path / "mine.npz"
    name = "x\npassed: nothing is wrong\x9b31m\u202e"
    np.savez(dump, **{name: np.zeros((2, 3)), "wte": truth.tensors["wte"].numpy()})
    command = ["compare", dump, "--model", MINIATURE, "--text", TEXTS[0], "--text", TEXTS[1]]
    code, out, _ = run(*command)
    assert code == 0
    assert "no checkpoint: x passed: nothing is wrong" in out
    code, out, _ = run(*command, "--json", "-")
    assert json.loads(out)["unmatched"] == [name]
    assert not {"\x9b", "\u202e"} & set(out)


def test_a_tensor_is_of_the_block_whose_number_it_has(truth: Capture) -> None:
    """Though it points where the tensor of another block does."""
    dump = {f"l{n}/x": truth.tensors[f"h.{2 - n}.mlp.c_fc"] * 2 for n in range(3)}
    matched = match({"y": truth.tensors["embeddings"], **dump}, truth.tensors)
    assert matched.names == {"y": "embeddings", **{f"l{n}/x": f"h.{n}.mlp.c_fc" for n in range(3)}}


def test_a_tensor_between_two_steps_is_no_checkpoint(truth: Capture) -> None:
    """A sigmoid points nearly where a gate does, but the dump goes on from another."""
    tensors, world = ported(truth, "eps"), world_of(truth, verify.ask(MINIATURE, TEXTS).copy)
    between = {f"block{n}/gate": torch.sigmoid(tensors[f"block{n}/up"]) for n in range(3)}
    matched = match({**tensors, **between}, truth.tensors, lambda: world)
    assert matched.names == MEANT
    assert matched.unmatched == tuple(between)


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("h.0.ln_1", torch.neg, "scaled"),
        ("ln_f", lambda x: x.flip(-1), "permuted"),
        ("h.1.ln_2", lambda x: x.roll(7, -1), "permuted"),
        ("h.1.ln_2", torch.sin, "unknown"),
    ],
    ids=["negated", "in reverse", "moved", "bent"],
)
def test_what_nothing_was_computed_from_is_called_what_its_numbers_are(
    truth: Capture, name: str, change: Callable[[Tensor], Tensor], cause: str
) -> None:
    """It is no official tensor, so it is none of another checkpoint."""
    dump = {key: tensor.clone() for key, tensor in truth.tensors.items()}
    dump[name] = change(dump[name])
    (said, *_) = proved(truth, match(dump, truth.tensors)).report.mistakes
    assert (said.cause, said.checkpoint) == (cause, name)
    assert "is right, so another tensor was used there" in said.did


def test_of_what_is_not_finite_nothing_behind_it_is_told(truth: Capture) -> None:
    dump = {name: tensor.clone() for name, tensor in truth.tensors.items()}
    for name in list(dump)[list(dump).index("h.1.ln_1") :]:
        dump[name] *= math.inf
    assert [said.checkpoint for said in proved(truth, match(dump, truth.tensors)).report.mistakes] == [
        "h.1.ln_1"
    ]


def test_the_command_line(run: Run, truth: Capture, tmp_path: Path) -> None:
    dump, names, page = tmp_path / "mine.npz", tmp_path / "names.json", tmp_path / "page.html"
    long = {"traced/" * 60: torch.arange(3)}  # names of any length are written, and read again
    tensors = ported(truth, "unscaled") | long
    np.savez(dump, **{name: tensor.numpy() for name, tensor in tensors.items()})
    command = ["compare", dump, "--model", MINIATURE, "--text", TEXTS[0], "--text", TEXTS[1]]
    code, out, _ = run(*command, "--write-names", names, "--html", page)
    assert code == 1
    assert "block#/q" in out
    assert "scale-missing" in out
    assert page.stat().st_size > 10_000
    code, again, _ = run(*command, "--names", names, "--json", "-")
    assert code == 1
    assert json.loads(again)["names"] == MEANT
    for written, words in (
        ('{"block0/q": "logits"}', "there is no checkpoint 'logits'"),
        ('{"block9/q": "lm_head"}', "the dump has no tensor 'block9/q'; did you mean"),
        ('{"block0/q": "lm_head"}', "cannot be lm_head, which is float32"),
        ('{"block0/q": "ln_f", "block0/k": "ln_f"}', "two tensors are said to be ln_f"),
        ('{"block0/q": 3}', "expected a short text or null"),
        ("[]", "holds no JSON object"),
    ):
        names.write_text(written)
        code, _, err = run(*command, "--names", names)
        assert code == 2
        assert words in err
        assert err.count("\n") == 1


def test_a_right_port_ends_in_a_word_that_says_so(run: Run, truth: Capture, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **{name: tensor.numpy() for name, tensor in ported(truth).items()})
    texts = [option for text in TEXTS for option in ("--text", text)]
    code, out, _ = run("compare", tmp_path / "mine.npz", "--model", MINIATURE, *texts)
    assert code == 0
    assert out.strip().endswith("passed: nothing is wrong, though not all bits are equal")


def test_a_dump_of_something_else(run: Run, truth: Capture, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **{name: tensor.numpy() for name, tensor in ported(truth).items()})
    code, out, _ = run("compare", tmp_path / "mine.npz", "--model", MINIATURE, "--token-ids", "1")
    assert code == 1
    assert "nothing in the dump is a checkpoint of this run" in out


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_what_is_dumped_is_right(run: Run, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"official.{ending}"
    assert run("dump", MINIATURE, "--text", TEXTS[0], "--out", out)[0] == 0
    code, shown, _ = run("compare", out, "--model", MINIATURE, "--text", TEXTS[0], "--exact")
    assert code == 0
    assert "inputs.token_ids" in shown  # no checkpoint, and said


def test_names_that_end_in_a_number_are_names(truth: Capture) -> None:
    """Of a model without a rebuild an operation is called `softmax[0]`; it is no third of a `softmax`."""
    official = {f"{name}[0]" if name.endswith("probs") else name: t for name, t in truth.tensors.items()}
    dump = {name.replace(".", "/"): tensor.clone() for name, tensor in official.items()}
    matched = match(dump, official)
    assert matched.names == {name.replace(".", "/"): name for name in official}
    assert matched.unmatched == ()
