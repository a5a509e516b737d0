"""Hostile files through every reader of what came from somebody else: dumps, mapping files, tokenizer.json,
the configs of Llama and its relatives. Each is read, or refused in one line; nothing hangs or is unpickled."""

# ruff: noqa: E501 (tables: a try is a line)

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llm_rebuild.dumps.files import read_dump, write_dump
from llm_rebuild.dumps.names import read_names
from llm_rebuild.errors import InputError
from llm_rebuild.models import rebuild_for
from llm_rebuild.tokenizers.byte_bpe import BYTE_SYMBOLS
from llm_rebuild.tokenizers.byte_bpe_json import LLAMA3, ByteBPEJson
from tests.models import small

TENSORS = {"a/0": torch.arange(12.0).view(3, 4), "b": torch.tensor([1.0])}
NOTHING: Any = object()  # a key that is left out


def refused(read: Callable[[], object], must: bool = True) -> None:
    """One clear line; where it need not be refused, it may be read."""
    try:
        read()
    except InputError as error:
        line = str(error)
        assert "\n" not in line
        assert 15 < len(line) < 1000
    else:
        assert not must


def changed(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a JSON tree with one value exchanged."""
    tree = json.loads(json.dumps(tree))
    *outer, last = path.split(".")
    inner: Any = tree
    for word in outer:
        inner = inner[int(word) if word.isdigit() else word]
    if value is NOTHING:
        del inner[last]
    else:
        inner[int(last) if last.isdigit() else last] = value
    return tree


# ----------------------------------------------------------------------------------------- dumps


@pytest.mark.parametrize("ending", ["npz", "safetensors", "npy"])
@pytest.mark.parametrize("part", range(20))
def test_a_dump_cut_short_or_with_other_bytes(ending: str, part: int, tmp_path: Path) -> None:
    """Cut at a twentieth of its length each, and with that piece overwritten."""
    file = tmp_path / f"x.{ending}"
    if ending == "npy":
        np.save(file, TENSORS["a/0"].numpy())
    else:
        write_dump(TENSORS, file)
    whole = file.read_bytes()
    at, size = len(whole) * part // 20, max(1, len(whole) // 20)
    file.write_bytes(whole[:at])
    refused(lambda: read_dump(file), must=True)
    for filling in (b"\xff", b"\0", b"9"):
        file.write_bytes(whole[:at] + filling * size + whole[at + size :])
        refused(lambda: read_dump(file), must=False)  # numbers that are others are numbers


def entry(descr: str, shape: str, order: str = "False", data: bytes = b"\0" * 64) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


HEADERS = {
    "a shape of words": entry("'<f4'", "('a', 2)"),
    "a shape below zero": entry("'<f4'", "(-2, -2)"),
    "a shape of decimals": entry("'<f4'", "(2.0, 2)"),
    "a shape that is none": entry("'<f4'", "None"),
    "a shape of truths": entry("'<f4'", "(True,)"),
    "a shape below zero without end": entry("'<f4'", "-" * 9000),
    "a shape without end": entry("'<f4'", f"({'1, ' * 70})"),
    "more than there is": entry("'<f4'", "(999999999999,)"),
    "more than can be counted": entry("'<f4'", f"({'4294967296, ' * 5})"),
    "a pickle": entry("'|O'", "(1,)"),
    "a record": entry("[('a', '<f4')]", "(1,)"),
    "a text": entry("'<U4'", "(1,)"),
    "dates": entry("'<M8[s]'", "(1,)"),
    "complex numbers": entry("'<c8'", "(1,)"),
    "no type": entry("'zz'", "(1,)"),
    "code for a type": entry("__import__('os').getpid()", "(1,)"),
    "an order of its own": entry("'<f4'", "(1,)", order="'C'"),
    "no header": b"\x93NUMPY\x01\x00\x04\x00{}}}",
    "another version": b"\x93NUMPY\x09\x00" + b"\0" * 99,
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_an_array_s_header_is_not_believed(kind: str, ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{ending}"
    if ending == "npy":
        file.write_bytes(HEADERS[kind])
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("../../a.npy", HEADERS[kind])
    refused(lambda: read_dump(file))


def test_an_archive_that_unpacks_to_gigabytes_and_one_of_too_many_entries(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as opened:
        opened.write(entry("'<f4'", "(4294967296,)", data=b""))
        for _ in range(64):
            opened.write(bytes(2**20))
    refused(lambda: read_dump(bomb))
    many, stream = tmp_path / "many.safetensors", io.BytesIO()
    about = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(number): about for number in range(100_001)}).encode()  # one more than is read
    stream.write(len(header).to_bytes(8, "little") + header)
    many.write_bytes(stream.getvalue())
    refused(lambda: read_dump(many))


# --------------------------------------------------------------------------------- mapping files

MAPPINGS = [
    "", "null", "[]", "3", '"a"', "{", '{"a/0": }', '{"a/0": 3}', '{"a/0": ["x"]}', '{"a/0": {"x": 1}}',
    '{"a/0": true}', '{"a/0": ""}', '{"": "x"}', '{"c": "x"}', '{"a/0": "y"}', '{"../a/0": "x"}',
    '{"a/0": "x", "b": "x"}', '{"a/0": "x\\u0000"}', '{"a/0": "' + "x" * 400 + '"}', "[" * 5000,
    '{"a/0": ' * 200 + "1" + "}" * 200, "\ufeff{}", '{"a/0": null, "a/0": null}',
    json.dumps({str(n): "x" for n in range(100_001)}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MAPPINGS)))
def test_a_mapping_file(number: int, tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text(MAPPINGS[number], encoding="utf-8")
    refused(lambda: read_names(file, TENSORS, {"x": TENSORS["b"]}))


# -------------------------------------------------------------------------------- tokenizer.json

SPLIT = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
VOCABULARY = {s: n for n, s in enumerate(BYTE_SYMBOLS)} | {"ab": 256}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<no>"}}]}
TOKENIZER: dict[str, Any] = {
    "model": {"type": "BPE", "vocab": VOCABULARY, "merges": [["a", "b"]]},
    "added_tokens": [{"id": 257, "content": "<end>", "special": True}],
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT, LEVEL]},
    "decoder": {"type": "ByteLevel"},
    "normalizer": None,
    "post_processor": None,
}  # fmt: skip
PATTERN = "pre_tokenizer.pretokenizers.0.pattern"
WRONG_TOKENIZERS: list[tuple[str, Any]] = [
    *((PATTERN, {"Regex": p}) for p in ("(a+)+$", "(a|a)*b", "(.*)*x", "a{99999}{99999}", "(", "", "\\p{L}+", 7, None)),
    *((PATTERN, value) for value in ({"String": " "}, None, [], "x", {})),
    ("pre_tokenizer.pretokenizers.0.invert", True),
    ("pre_tokenizer.pretokenizers.0.behavior", "Removed"),
    ("pre_tokenizer.pretokenizers", []),
    ("pre_tokenizer.pretokenizers", [[]]),
    ("pre_tokenizer", {"type": "Whitespace"}),
    ("pre_tokenizer", "ByteLevel"),
    *(("model.type", kind) for kind in ("WordPiece", "Unigram", "WordLevel", None, 3, [])),
    *(("model.vocab", value) for value in (NOTHING, [], {}, {"a": -1}, {"a": 1.5}, {"a": "1"}, {"a": None})),
    *(("model.vocab.ab", value) for value in (0, 10**12, -1, True, None, "256", [])),
    *(("model.merges", value) for value in (NOTHING, {}, "ab", [[]], [["a"]], ["a b c"], [["a", "x"]], [[1, 2]], [None])),
    *(("added_tokens", value) for value in ("x", [[]], [None], [{"id": 257}], [{"content": "<end>"}])),
    *(("added_tokens.0.id", value) for value in (-1, 0, 10**9, None, "257", True)),
    *(("added_tokens.0.content", value) for value in ("", None, 3, [])),
    *((f"added_tokens.0.{flag}", True) for flag in ("lstrip", "rstrip", "single_word")),
    *(("normalizer", value) for value in ({"type": "NFKC"}, {"type": "Replace"}, "NFC", [], {"type": "Sequence"})),
    *(("post_processor", value) for value in ("x", {"type": "Bert"}, TEMPLATE)),
    *(("decoder", value) for value in (None, {"type": "WordPiece"}, [])),
    ("model", NOTHING),
    ("model", []),
    ("model.byte_fallback", True),
    ("model.dropout", 0.5),
]  # fmt: skip


def test_the_right_tokenizer_is_read(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    assert ByteBPEJson.from_folder(tmp_path).encode("ab<end>").ids == [256, 257]


@pytest.mark.parametrize("number", range(len(WRONG_TOKENIZERS)))
def test_a_tokenizer_file(number: int, tmp_path: Path) -> None:
    tree = changed(TOKENIZER, *WRONG_TOKENIZERS[number])
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    refused(lambda: ByteBPEJson.from_folder(tmp_path))


# ----------------------------------------------------------------------------------- llama configs

LLAMA3_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
WRONG_CONFIGS: list[dict[str, Any]] = [
    *({"num_attention_heads": n} for n in (5, 7, 0, -4, 2.5, "4", None, True, 10**30)),
    *({"num_key_value_heads": n} for n in (3, 8, 0, -2, 1.5, "2")),
    *({"head_dim": n} for n in (3, 2, 0, -8, 1.5, "8")),
    *({"hidden_size": n} for n in (0, -24, 23, 24.0, "24", None)),
    *({"num_hidden_layers": n} for n in (0, -1, 1.5, None)),
    *({"rms_norm_eps": n} for n in (-1e-6, 1, "1e-6", None, float("inf"), float("nan"))),
    *({"hidden_act": n} for n in ("swishy", "", None, 3)),
    *({"rope_theta": n} for n in (0, -1.0, "10000", float("nan"), 1.0)),
    *({"rope_scaling": n} for n in ("linear", [], 3, {"rope_type": "ntk"}, {"type": 3})),
    *({"rope_scaling": {"rope_type": "linear", "factor": n}} for n in (0, -2, None, "2", 0.5, float("inf"))),
    {"rope_scaling": {"rope_type": "linear"}},
    {"rope_scaling": {"rope_type": "linear", "type": "dynamic", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 3.0}},
    {"rope_theta": 100.0, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    {"rope_scaling": {"rope_type": "default", "factor": 2.0}},
    {"rope_scaling": {**LLAMA3_ROPE, "low_freq_factor": 4.0}},
    {"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 0.5}},
    {"rope_scaling": {**LLAMA3_ROPE, "original_max_position_embeddings": 0}},
    {"rope_scaling": {**LLAMA3_ROPE, "beta_fast": 3}},
    {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "attention_factor": -1.0}},
    {"partial_rotary_factor": 0.5},
    {"tie_word_embeddings": "yes"},
    {"attention_bias": 1},
    {"quantization_config": {"bits": 4}},
    {"torch_dtype": "int8"},
    {"model_type": "mistral", "sliding_window": 0},
    {"model_type": "qwen2", "use_sliding_window": "yes"},
    {"model_type": "qwen2", "layer_types": ["full"]},
    {"model_type": "llamas"},
    {"sliding_window": 4},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(WRONG_CONFIGS)))
def test_a_config_of_llama(number: int) -> None:
    refused(lambda: rebuild_for({**small.LLAMA, **WRONG_CONFIGS[number]}))
