"""A certificate says what was proved; a recheck believes none of it and says what has changed."""

from __future__ import annotations

import contextlib
import copy as copying
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llm_rebuild import verify
from llm_rebuild.cli import main as cli
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.models import minilm as model
from llm_rebuild.process import fork_server
from llm_rebuild.proof import certificate as certificates
from llm_rebuild.proof import isolation
from llm_rebuild.proof.certificate import certify, digest, read, tensor_sha256
from llm_rebuild.proof.recheck import Change, Recheck, changes, recheck
from llm_rebuild.verify.environment import KERNELS
from tests import tiny_bert

Run = Callable[..., tuple[int, str, str]]
Certificate = dict[str, Any]
NAME = "encoder.layer.0.output.LayerNorm"
HOLDS = "the certificate holds: all but its date came out again, to the bit"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LocalCopy:
    return tiny_bert.copy(tiny_bert.write(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture(scope="module")
def written(tiny: LocalCopy) -> Certificate:
    return certify(verify.prove(tiny, ["a b c d e", "f g"]))


@pytest.fixture
def edited(written: Certificate, tmp_path: Path) -> Callable[[Callable[[Certificate], Any]], Path]:
    """The certificate with a change in it and a digest that fits, in a file."""

    def edit(change: Callable[[Certificate], Any]) -> Path:
        certificate = copying.deepcopy(written)
        change(certificate)
        certificate["digest"] = digest(certificate)
        file = tmp_path / "edited.json"
        file.write_text(json.dumps(certificate), encoding="utf-8")
        return file

    return edit


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("LLM_REBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("COLUMNS", raising=False)

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llm-rebuild", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return command


# ------------------------------------------------------------------------------------ what is in it


def test_it_names_what_the_result_rests_on_and_what_was_found(tiny: LocalCopy, written: Certificate):
    assert set(written["files"]) == {"config.json", "model.safetensors", "vocab.txt"}
    assert written["files"]["model.safetensors"] == written["model"]["sha256"]
    assert written["environment"]["torch"] == torch.__version__
    assert written["options"] == {"attention": "eager", "cache": False, "isolated": False}
    assert written["inputs"]["texts"] == ["a b c d e", "f g"]
    assert [len(row) for row in written["inputs"]["token_ids"]] == [7, 4]
    truth = verify.capture(tiny, ["a b c d e", "f g"])
    assert [c["name"] for c in written["checkpoints"]] == list(truth)
    for checkpoint in written["checkpoints"]:
        assert checkpoint["official_sha256"] == tensor_sha256(truth.tensors[checkpoint["name"]])
        assert checkpoint["rebuilt_sha256"] == checkpoint["official_sha256"]
    assert written["worst"] == {"name": "embeddings.word_embeddings", "max_abs_diff": 0.0, "max_ulp": 0}
    assert written["summary"]["coverage"] == written["coverage"]["share"] > 0.9
    assert str(tiny.folder) not in json.dumps(written)  # nobody else's business


def test_the_sum_of_a_tensor_sees_each_bit_the_shape_and_the_dtype():
    x = torch.zeros(2, 3)
    changed = x.clone()
    changed[1, 2] = -0.0
    others = [x, changed, x.reshape(3, 2), x.to(torch.int32)]
    assert len({tensor_sha256(t) for t in others}) == len(others)
    assert tensor_sha256(x.t().contiguous().t()) == tensor_sha256(x)  # how it lies in memory does not matter


def test_a_difference_is_in_it(tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch):
    fault(monkeypatch, 1e-3)
    found = certify(verify.prove(tiny, ["a b c"], coverage=False))
    (one, *_) = [c for c in found["checkpoints"] if c["name"] == "pooler.dense"]
    assert one["official_sha256"] != one["rebuilt_sha256"]
    assert found["worst"]["name"] in ("pooler.dense", "pooler.activation")
    assert found["worst"]["max_abs_diff"] > 1e-5
    assert found["first_divergence"]["name"] == "pooler.dense"


def test_more_than_a_certificate_holds_is_refused(tiny: LocalCopy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(certificates, "LONGEST_ROW", 4)
    with pytest.raises(InputError, match="4 in a text; give it less"):
        certify(verify.prove(tiny, ["a b c d"], coverage=False))


# ---------------------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"format": "llm_rebuild certificate 1", "x": NaN}', "holds what no certificate does"),
        (b'{"format": "llm_rebuild certificate 1", "x": 1e999}', "holds what no certificate does"),
        (b'{"format": "llm_rebuild certificate 1", "x": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[]", "holds no JSON object; `llm-rebuild verify NAME --certificate FILE` writes one"),
        (b'{"format": 1}', "is no certificate;"),
        (b'{"format": "llm_rebuild certificate 2"}', "has format '2'; this llm_rebuild reads 1"),
        (b'{"format": "llm_rebuild certificate 1"}', "was changed after it was written"),
    ],
    ids=["empty", "bytes", "deep", "NaN", "1e999", "long", "list", "number", "format 2", "no digest"],
)
def test_a_file_that_is_no_certificate(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "some.json"
    file.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(file)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_file_a_folder_and_a_huge_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="is missing"):
        read(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)
    monkeypatch.setattr(certificates, "LARGEST_FILE", 2**20)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**20 + 1)
    with pytest.raises(InputError, match="more than 1,048,576 bytes"):
        read(tmp_path / "huge.json")


def test_an_edit_is_noticed(written: Certificate, tmp_path: Path):
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(written, indent=3), encoding="utf-8")  # spaces do not matter
    assert read(file) == written
    file.write_text(json.dumps({**written, "made": "yesterday"}), encoding="utf-8")
    with pytest.raises(InputError, match="was changed after it was written: its digest does not fit"):
        read(file)


def put(*keys_and_value: Any) -> Callable[[Certificate], None]:
    """Set one value deep in a certificate."""
    *path, last, value = keys_and_value

    def change(certificate: Any) -> None:
        for key in path:
            certificate = certificate[key]
        certificate[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("files"), "files is missing"),
        (lambda c: c["checkpoints"][3].pop("verdict"), "checkpoints[3].verdict is missing"),
        (put("model", "../.."), "model is '../..', expected an object"),
        (put("model", "name", "tiny\x1b[31m"), "expected a short text"),
        (put("files", "model.safetensors", "00"), "files.model.safetensors is '00', expected a sha256"),
        (put("options", "attention", "flash"), "options.attention is 'flash', expected eager or sdpa"),
        (put("options", "isolated", 1), "options.isolated is 1, expected true or false"),
        (put("options", "fast", True), "options.'fast' is a key that nothing here has"),
        (put("inputs", "token_ids", 1, [5, True]), "inputs.token_ids[1][1] is True, expected a whole number"),
        (put("inputs", "token_ids", 1, [5, 6, -1]), "inputs.token_ids[1][2] is -1, expected a whole number"),
        (put("inputs", "token_ids", []), "inputs.token_ids has no ids"),
        (put("inputs", "token_ids", 1, [1] * 20_000), "inputs has more tokens than a certificate can have"),
        (put("inputs", "decoder_ids", [1]), "inputs.decoder_ids[0] is 1, expected a list"),
        (put("inputs", "texts", ["a"]), "are not equally many"),
        (put("inputs", "texts", 0, "a b"), "inputs.sha256 is not the sum of these texts and ids"),
        (put("checkpoints", {}), "checkpoints is {}, expected a list"),
        (put("checkpoints", 1, "name", "embeddings.word_embeddings"), "checkpoints has a name twice"),
        (
            put("checkpoints", 1, "verdict", "splendid"),
            "checkpoints[1].verdict is 'splendid', expected a verdict",
        ),
        (put("checkpoints", 1, "max_abs_diff", "0"), "checkpoints[1].max_abs_diff is '0', expected a number"),
        (put("environment", {}), "environment.llm_rebuild is missing"),
        (put("environment", "torch", []), "environment.torch is [], expected a short text or a number"),
        (put("made", "yesterday"), "made is 'yesterday', expected a date"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(edited, change, message: str):
    with pytest.raises(InputError) as refused:
        read(edited(change))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


# --------------------------------------------------------------------------------- running it again


def fault(monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    pooler = model.pooler
    monkeypatch.setattr(model, "pooler", lambda x, *more: pooler(x * (1 + by), *more))


def kinds(changes: tuple[Change, ...]) -> list[tuple[str, str]]:
    return [(change.kind, change.what) for change in changes if change.kind != "same"]


def test_unchanged(tiny: LocalCopy, written: Certificate):
    found = recheck(written, tiny.folder)
    assert found.holds
    assert kinds(found.changes) == []
    assert found.closing() == HOLDS


def test_other_kernels_are_another_place(
    tiny: LocalCopy, written: Certificate, monkeypatch: pytest.MonkeyPatch
):
    """Where torch's libraries are told to compute otherwise, bits may be others, and nothing got worse."""
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    rechecked = recheck(written, tiny.folder)
    assert kinds(rechecked.changes) == [("other", "environment")]
    assert rechecked.holds


def test_whatever_the_libraries_are_told_a_certificate_can_be_read(
    tiny: LocalCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in KERNELS:
        monkeypatch.setenv(name, "\t/a/path/that/is/long" * 9)
    file = tmp_path / "proof.json"
    certificate = certify(verify.prove(tiny, token_ids=[[2, 5, 6, 3]], coverage=False))
    file.write_text(json.dumps(certificate), encoding="utf-8")
    assert read(file) == certificate


def test_the_options_and_the_input_are_those_of_the_certificate(tiny: LocalCopy):
    before = certify(verify.prove(tiny, token_ids=[[2, 5, 6, 3]], attention="sdpa", coverage=False))
    found = recheck(before, tiny.folder)
    assert kinds(found.changes) == []
    for key in ("options", "inputs"):
        assert found.certificate[key] == before[key]
    assert before["inputs"]["texts"] == []


def test_a_miniature_with_a_decoder_and_a_cache_needs_no_folder():
    copy = LocalCopy("t5-small", MINIATURES / "t5-small", "miniature")
    options = {"use_cache": True, "decoder_ids": [[0, 5, 6]], "coverage": False}
    before = certify(verify.prove(copy, ["translate English to German: four"], **options))
    assert before["inputs"]["decoder_ids"] == [[0, 5, 6]]
    assert kinds(recheck(before).changes) == []


def test_a_certificate_of_an_isolated_run_is_rechecked_in_isolation(
    tiny: LocalCopy, written: Certificate, monkeypatch: pytest.MonkeyPatch
):
    def prove_isolated(*given: Any, **options: Any) -> Any:
        raise InputError("in isolation")

    monkeypatch.setattr(isolation, "prove_isolated", prove_isolated)
    isolated = {**written, "options": {**written["options"], "isolated": True}}
    with pytest.raises(InputError, match="in isolation"):
        recheck(isolated, tiny.folder)


def test_a_rebuild_that_got_worse(tiny: LocalCopy, written: Certificate, monkeypatch: pytest.MonkeyPatch):
    fault(monkeypatch, 1e-3)
    found = recheck(written, tiny.folder)
    assert not found.holds
    assert kinds(found.changes) == [
        ("worse", "rebuilt bits"),
        ("worse", "verdicts"),
        ("worse", "verdicts"),
        ("worse", "all the rest"),
        ("worse", "all the rest"),
        ("worse", "all the rest"),
        ("worse", "all the rest"),
        ("worse", "all the rest"),
        ("worse", "all the rest"),
    ]
    assert "pooler.dense is wrong values, off by" in "\n".join(map(str, found.changes))
    assert found.closing() == "the certificate does not hold: rebuilt bits, verdicts, all the rest"


def test_other_weights_are_refused_and_another_vocabulary_is_named(
    tiny: LocalCopy, written: Certificate, tmp_path: Path
):
    other = tiny_bert.write(tmp_path / "other", tensors=tiny_bert.weights(seed=1))
    with pytest.raises(
        InputError, match=r"has sha256 .*, the certificate is about .*: these are other weights"
    ):
        recheck(written, other)
    words = tiny_bert.write(tmp_path / "words")
    lines = (words / "vocab.txt").read_text(encoding="utf-8").splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    (words / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    found = recheck(written, words)
    assert ("worse", "files") in kinds(found.changes)
    assert ("worse", "input") in kinds(found.changes)
    assert "files: vocab.txt is " in "\n".join(map(str, found.changes))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "about a folder called tiny; say where it is with --model DIR"),
        ({"name": "/etc", "source": "hub", "revision": "1"}, "about a folder called /etc; say where it is"),
        ({"name": "gpt2", "source": "hub", "revision": "607a"}, "gpt2 is not in the store any more; "),
        ({"name": "gpt2", "source": "miniature"}, "these are other weights"),
    ],
    ids=["folder", "a path for a name", "not in the store", "miniature"],
)
def test_the_certificate_never_says_where_to_look(
    written: Certificate, about: dict[str, str], message: str, tmp_path: Path
):
    certificate = {**written, "model": {**written["model"], **about}}
    with pytest.raises(InputError, match=message):
        recheck(certificate, store=tmp_path)


def checkpoint(certificate: Certificate, name: str = NAME) -> Certificate:
    (found,) = [c for c in certificate["checkpoints"] if c["name"] == name]
    return found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: None, []),
        (put("environment", "torch", "2.99"), [("other", "environment")]),
        (lambda c: checkpoint(c).update(official_sha256="0" * 64), [("worse", "official bits")]),
        (
            lambda c: (checkpoint(c).update(rebuilt_sha256="0" * 64), c["environment"].update(threads=99)),
            [("other", "environment"), ("other", "rebuilt bits")],
        ),
        (lambda c: checkpoint(c).update(verdict="1 ulp", max_ulp=1), [("worse", "verdicts")]),
        (lambda c: c["checkpoints"].pop(7), [("worse", "checkpoints")]),
        (lambda c: c["files"].pop("vocab.txt"), [("worse", "files")]),
        (put("files", "merges.txt", "0" * 64), [("worse", "files")]),
        (put("coverage", "share", 0.5), [("worse", "coverage")]),
        (put("leaks", ["leak: x"]), [("worse", "leaks")]),
    ],
    ids=["none", "torch", "official", "threads", "ulp", "gone", "file gone", "file new", "coverage", "leak"],
)
def test_each_change_is_told(written: Certificate, change, expected: list[tuple[str, str]]):
    now = copying.deepcopy(written)
    change(now)
    assert kinds(tuple(changes(written, now))) == expected


@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (("1 ulp", 1, 1e-7), ("2 ulp", 2, 1e-7), "worse"),
        (("16 ulp", 16, 1e-6), ("6 decimals", 30, 4e-7), "worse"),
        (("6 decimals", 30, 4e-7), ("6 decimals", 30, 3e-7), "better"),
        (("wrong values", None, 1.0), ("wrong values", None, None), "worse"),  # NaN
        (("missing", None, None), ("wrong shape", None, None), "better"),
        (("1 ulp", 1, 1e-7), ("bit-identical", 0, 0.0), "better"),
    ],
    ids=["ulp", "ulp or decimals", "decimals", "NaN", "missing", "identical"],
)
def test_which_verdict_is_better(written: Certificate, before, now, kind: str):
    one, other = copying.deepcopy(written), copying.deepcopy(written)
    for certificate, (verdict, ulp, difference) in ((one, before), (other, now)):
        checkpoint(certificate).update(verdict=verdict, max_ulp=ulp, max_abs_diff=difference)
    checkpoint(other)["rebuilt_sha256"] = "0" * 64
    other["environment"]["threads"] = 99
    assert kinds(tuple(changes(one, other))) == [
        ("other", "environment"),
        ("other", "rebuilt bits"),
        (kind, "verdicts"),
    ]


# ----------------------------------------------------------------------------------------- forgeries

# What nothing can bear out: when and where it was made, and what the folder was called there.
WORD_OF_THE_MAKER = {("made",), ("model", "name"), ("model", "source")}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a certificate, from the top down."""
    if path:
        yield path
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield from places(member, (*path, key))


def others(value: Any) -> Iterator[Any]:
    """Other values of the same kind, and empty ones."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (value + 1, value * 2 + 0.5, 0, -1)
    elif isinstance(value, str):
        alike = value.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
        yield from (alike, value + "0", "", "bit-identical", "1 ulp", "sdpa", "x" * len(value))
    elif isinstance(value, list):
        yield from (value + value[:1], value[::-1], value[1:], [*value, 1], [])
    elif isinstance(value, dict):
        yield from ({**value, "more": 1}, {})
    else:
        yield from (0, False, "", [], {}, [1], "x")
    if value is not None:
        yield None


def forged(certificate: Certificate) -> Iterator[tuple[tuple[Any, ...], Certificate]]:
    """The certificate with one value changed, emptied, added or removed, anywhere; the digest fits."""
    for path in list(places(certificate)):
        if path == ("digest",) or (path[0] == "checkpoints" and path[1:] and path[1] not in (0, 7, 40)):
            continue  # three checkpoints stand for all
        holder: Any = certificate
        for key in path[:-1]:
            holder = holder[key]
        true = holder[path[-1]]
        for other in others(true):
            if (type(other), other) != (type(true), true):
                holder[path[-1]] = other
                yield path, certificate
        holder[path[-1]] = true
        if isinstance(holder, dict):
            del holder[path[-1]]
            yield path, certificate
            holder[path[-1]] = true
    yield ("more",), {**certificate, "more": 1}


def test_no_forgery_of_any_field_holds(tiny: LocalCopy, written: Certificate, tmp_path: Path):
    """Each is refused, or does not hold; or nothing can bear it out, and then the recheck says just that."""
    unchanged = recheck(written, tiny.folder).certificate
    file, tried, word = tmp_path / "forged.json", 0, 0
    for path, certificate in forged(copying.deepcopy(written)):
        tried += 1
        file.write_text(json.dumps({**certificate, "digest": digest(certificate)}), encoding="utf-8")
        found = None
        with contextlib.suppress(InputError):
            certificate = read(file)
            found = Recheck(tuple(changes(certificate, unchanged)), unchanged)
            if path[0] in ("options", "model", "inputs"):  # on which the new one depends
                found = recheck(certificate, tiny.folder)
        if found is not None and (path in WORD_OF_THE_MAKER or path[0] == "environment"):
            word += 1
            others_ = [str(change) for change in found.changes if change.kind == "other"]
            assert found.holds
            assert path == ("made",) or any(str(path[-1]) in line for line in others_), path
            assert path == ("made",) or "to the bit" not in found.closing()
        elif found is not None:
            assert not found.holds, path
    assert tried > 700
    assert word < 80


def test_several_fields_forged_together_do_not_hold(tiny: LocalCopy, written: Certificate, edited):
    def other_text(certificate: Certificate) -> None:
        certificate["inputs"]["texts"][1] = "f a"
        certificate["inputs"]["sha256"] = certificates.sum_of_inputs(certificate["inputs"])

    def fewer(certificate: Certificate) -> None:
        certificate["checkpoints"].pop(7)
        certificate["summary"]["checkpoints"] -= 1
        certificate["summary"]["bit_identical"] -= 1

    def more_sure(certificate: Certificate) -> None:
        certificate["environment"]["torch"] = "2.99"
        certificate["coverage"]["share"] = certificate["summary"]["coverage"] = 1.5

    for change in (other_text, fewer, more_sure):
        found = recheck(read(edited(change)), tiny.folder)
        assert not found.holds, change.__name__


def test_bits_of_another_place_are_not_called_the_same(tiny: LocalCopy, written: Certificate, edited):
    def elsewhere(certificate: Certificate) -> None:
        certificate["environment"]["threads"] = 99
        for made in certificate["checkpoints"]:
            made["official_sha256"] = made["rebuilt_sha256"] = "0" * 64

    found = recheck(read(edited(elsewhere)), tiny.folder)
    assert found.holds
    assert kinds(found.changes) == [
        ("other", "environment"),
        ("other", "official bits"),
        ("other", "rebuilt bits"),
    ]
    assert found.closing() == "the certificate holds: not all is as it was, and no verdict is worse"


# ---------------------------------------------------------------------------------- the command line


def test_a_copy_is_taken_before_anything_is_computed(
    run: Run, written: Certificate, tiny: LocalCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    order = []

    def ask(*question: object, **options: object) -> None:
        order.append("asked")
        raise InputError("enough")

    (tmp_path / "proof.json").write_text(json.dumps(written), encoding="utf-8")
    monkeypatch.setattr(fork_server, "begin", lambda: order.append("copied"))
    for module in ("verify.question", "proof.recheck"):
        monkeypatch.setattr(sys.modules[f"llm_rebuild.{module}"], "ask", ask)
    assert run("verify", tiny.folder, "--isolated") == (2, "", "llm-rebuild: enough\n")
    assert run("recheck", tmp_path / "proof.json", "--model", tiny.folder)[::2] == (
        2,
        "llm-rebuild: enough\n",
    )
    assert order == ["copied", "asked"] * 2


def test_the_commands(run: Run, tiny: LocalCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "proof.json"
    file.write_text("old", encoding="utf-8")
    code, out, _ = run("verify", tiny.folder, "--text", "a b c", "--certificate", file)
    assert code == 0
    assert "47 of 47 checkpoints bit-identical" in out
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []
    code, out, err = run("recheck", file)
    assert (code, out) == (2, "")
    assert err == (
        "llm-rebuild: the certificate is about a folder called tiny; say where it is with --model DIR\n"
    )
    code, out, _ = run("recheck", file, "--model", tiny.folder)
    assert code == 0
    assert out.splitlines()[0].startswith("certificate of tiny, eager attention, 20")
    assert "same   verdicts: as they were, 47 of 47 checkpoints bit-identical" in out
    assert out.splitlines()[-1] == HOLDS
    fault(monkeypatch, 1e-3)
    code, out, _ = run("recheck", file, "--model", tiny.folder, "--json", "-")
    assert code == 1
    assert json.loads(out)["holds"] is False


def test_a_difference_that_is_still_there_is_as_it_was(
    run: Run, tiny: LocalCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fault(monkeypatch, 1e-3)
    file = tmp_path / "proof.json"
    assert run("verify", tiny.folder, "--text", "a b c", "--certificate", file)[0] == 1
    code, out, _ = run("recheck", file, "--model", tiny.folder)
    assert (code, out.splitlines()[-1]) == (0, HOLDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--certificate", "-"], "--certificate -: give the name of a file"),
        (["--certificate", "none/proof.json"], "--certificate none/proof.json: there is no folder"),
        (
            ["--certificate", "proof.json", "--steps", "2"],
            "--certificate serves a single pass; leave --steps out",
        ),
    ],
)
def test_refused_before_the_work(
    run: Run, tiny: LocalCopy, arguments: list[str], message: str, monkeypatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("verify", tiny.folder, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"llm-rebuild: {message}")
