"""Hundreds of tries to bring the command line down: files, fields, arguments, dumps, terminals, signals.

    python -m tools.tries [--only WORDS] [--show]

Each runs in a process of its own, in a fresh folder, and says beforehand with which exit code it may end: 2
where the input is at fault, with one line on stderr that says so; 0 where it is only odd. A traceback, another
code, more than a line, and a process that does not end are printed, and end this with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import pty
import random
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tools import full_size

LIMIT = 120.0  # seconds after which a try hangs
LONGEST = 700  # characters of the line
REFUSED, RIGHT, WRONG = frozenset({2}), frozenset({0}), frozenset({1})
EITHER = REFUSED | RIGHT

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 283,  # as many as its tokenizer has
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
IDS = ("--token-ids", "5,17,3")


@dataclass(frozen=True)
class Try:
    """One try.

    arguments  Of `llm-rebuild`.
    before     Changes the folder in which it runs; there stands `m`, a small Llama with its files.
    codes      Exit codes that are right.
    where      Environment variables besides.
    screen     The width of a terminal that it runs on; 0: it writes into pipes.
    stop       A signal that it gets, and after how many seconds.
    closed     File descriptors that are closed.
    leaves     What must not have come to be.
    """

    name: str
    arguments: Sequence[str]
    before: Callable[[Path], Any] = lambda folder: None
    codes: frozenset[int] = REFUSED
    where: Mapping[str, str | None] = field(default_factory=dict)
    screen: int = 0
    stop: tuple[signal.Signals, float] | None = None
    closed: tuple[int, ...] = ()
    leaves: tuple[str, ...] = ()


def base(folder: Path) -> Path:
    """The small Llama and its files, from which each try begins."""
    full_size.make(folder, CONFIG, seed=1)
    official = Tokenizer(models.BPE())
    official.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    official.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    official.train_from_iterator(["the cook gave the sailor a lamp", "they do, they do"], trainer)
    official.save(str(folder / "tokenizer.json"))
    return folder


# --------------------------------------------------------------------------------------- the tries


def said(**fields: Any) -> Callable[[Path], Any]:
    """config.json with other fields; one that is `...` is left out."""

    def change(folder: Path) -> None:
        config = {name: value for name, value in (CONFIG | fields).items() if value is not ...}
        (folder / "m" / "config.json").write_text(json.dumps(config), encoding="utf-8")

    return change


def configs() -> Iterator[Try]:
    bad: dict[str, Sequence[Any]] = {
        "model_type": [..., None, "", "Llama", "llama ", ["llama"], 7, "mixtral", "\u202ellama"],
        "vocab_size": [0, -1, 1.5, "400", None, True, 2**63, 282, float("nan")],
        "hidden_size": [0, 15, -16, "16", [16], 2**40],
        "num_attention_heads": [0, 3, -4, 16.5, "4", 2**31],
        "num_key_value_heads": [0, 3, 8, -2, "2", 1.5, {}],
        "num_hidden_layers": [0, -1, 3, 10**9, "2", None],
        "head_dim": [0, 3, 2, 5, -4, "4", 1e300],
        "intermediate_size": [0, 23, -24, "24", False],
        "rms_norm_eps": [-1e-5, "1e-5", None, float("nan"), float("inf"), True, [1]],
        "hidden_act": ["", "SILU", None, 3, "silu\n", "os.system", ["silu"]],
        "tie_word_embeddings": ["false", 0, 1, None, [], "no"],
        "attention_bias": [True, "yes", 1, None],
        "mlp_bias": [True, {}, "0"],
        "rope_theta": [0, -1, 1, "10000", float("nan"), True, []],
        "rope_scaling": [
            [], "linear", {"rope_type": "longrope"}, {"rope_type": "linear"}, {"type": "linear", "factor": 0.5},
            {"rope_type": "linear", "type": "dynamic", "factor": 2}, {"rope_type": "yarn", "factor": "4"},
            {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
             "original_max_position_embeddings": 8},
            {"rope_type": "linear", "factor": 2, "mscale": 1}, {"rope_type": None, "factor": 2},
            {"rope_type": "dynamic", "factor": float("inf")},
        ],
        "rope_parameters": [{"rope_type": "linear", "factor": 2, "rope_theta": "x"}, 7, {"rope_theta": -1}],
        "max_position_embeddings": [0, -5, "64", None, 1.5],
        "sliding_window": [4, 0, "x"],
        "layer_types": [["chunked_attention"], "full_attention"],
        "quantization_config": [{"bits": 4}, {}],
        "num_local_experts": [8],
        "partial_rotary_factor": [0.5, 0, "1"],
        "unheard_of": [1, None],
    }  # fmt: skip
    commands = [["map", "m"], ["verify", "m", *IDS], ["run", "m", "a"], ["dump", "m", "--out", "d.npz", *IDS]]
    number = 0
    for name, values in bad.items():
        for value in values:
            command = commands[number % len(commands)]
            number += 1
            codes = RIGHT if name in ("num_local_experts", "unheard_of") else REFUSED  # as officially
            yield Try(f"config {name}={value!r:.60}", command, said(**{name: value}), codes)


def rewritten(name: str, text: str | bytes) -> Callable[[Path], Any]:
    content = text.encode() if isinstance(text, str) else text
    return lambda folder: (folder / "m" / name).write_bytes(content)


def tokenizers() -> Iterator[Try]:
    def changed(*path: str | int, value: Any) -> Callable[[Path], Any]:
        def change(folder: Path) -> None:
            file = folder / "m" / "tokenizer.json"
            saved = json.loads(file.read_text(encoding="utf-8"))
            at = saved
            for step in path[:-1]:
                at = at[step]
            if value is ...:
                del at[path[-1]]
            else:
                at[path[-1]] = value
            file.write_text(json.dumps(saved), encoding="utf-8")

        return change

    command = ["run", "m", "they do"]
    for text in ("", "{", "[]", "null", "7", "{}", '{"model": {}}', "\ufeff{}", "{" * 100_000, '"' * 9):
        yield Try(f"tokenizer.json of {text[:12]!r}", command, rewritten("tokenizer.json", text))
    yield Try("tokenizer.json not UTF-8", command, rewritten("tokenizer.json", b"\xff\xfe{}"))
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    changes: list[tuple[tuple[str | int, ...], Any]] = [
        (("model", "vocab"), {}),
        (("model", "vocab", "a"), -1),
        (("model", "vocab", "a"), 2**70),
        (("model", "vocab", "a"), 1.0),
        (("model", "vocab", "a"), None),
        (("model", "vocab", "a"), 0),
        (("model", "vocab", "a"), ...),
        (("model", "merges"), [["t"]]),
        (("model", "merges"), ["t h e"]),
        (("model", "merges"), {}),
        (("model", "merges"), [["", ""]]),
        (("model", "type"), "WordPiece"),
        (("model", "type"), None),
        (("model", "end_of_word_suffix"), "</w>"),
        (("model", "continuing_subword_prefix"), "##"),
        (("model", "fuse_unk"), "yes"),
        (("pre_tokenizer",), None),
        (("pre_tokenizer",), {"type": "Metaspace"}),
        (("pre_tokenizer",), {**split, "pattern": {"Regex": "(a+)+$"}}),
        (("pre_tokenizer",), {**split, "pattern": {"Regex": "("}}),
        (("pre_tokenizer",), []),
        (("pre_tokenizer", "add_prefix_space"), True),
        (("normalizer",), {"type": "Lowercase"}),
        (("normalizer",), 7),
        (("decoder",), {"type": "WordPiece"}),
        (("post_processor",), {"type": "BertProcessing"}),
        (("added_tokens",), None),
        (("added_tokens",), [{"id": 0, "content": ""}]),
        (("added_tokens",), [{"id": 0}]),
        (("added_tokens",), [{"id": 10**9, "content": "<far>", "special": True}]),
        (("truncation",), {"max_length": -1}),
    ]
    for path, value in changes:
        codes = (
            RIGHT if path[0] in ("added_tokens", "truncation") and not isinstance(value, list) else REFUSED
        )
        yield Try(f"tokenizer.json {path} {value!r:.50}", command, changed(*path, value=value), codes)


def weights() -> Iterator[Try]:
    def changed(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
        def rewrite(folder: Path) -> None:
            file = folder / "m" / "model.safetensors"
            tensors = {key: tensor.clone() for key, tensor in load_file(file).items()}
            change(tensors)
            file.unlink()
            save_file(tensors, file)

        return rewrite

    def bytes_changed(change: Callable[[bytearray], Any]) -> Callable[[Path], Any]:
        def rewrite(folder: Path) -> None:
            file = folder / "m" / "model.safetensors"
            content = bytearray(file.read_bytes())
            file.write_bytes(change(content) or content)

        return rewrite

    norm, query = "model.layers.1.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight"
    named = {
        "a number is NaN": lambda t: t[query].view(-1).__setitem__(5, float("nan")),
        "a number is infinite": lambda t: t[norm].__setitem__(0, float("-inf")),
        "half": lambda t: t.update({query: t[query].half()}),
        "bfloat16": lambda t: t.update({k: v.bfloat16() for k, v in t.items()}),
        "float64": lambda t: t.update({norm: t[norm].double()}),
        "whole numbers": lambda t: t.update({norm: t[norm].to(torch.int8)}),
        "truth values": lambda t: t.update({norm: t[norm] > 0}),
        "turned": lambda t: t.update({"lm_head.weight": t["lm_head.weight"].t().contiguous()}),
        "an axis more": lambda t: t.update({norm: t[norm][None]}),
        "no axis": lambda t: t.update({norm: torch.tensor(1.0)}),
        "empty": lambda t: t.update({norm: torch.empty(0)}),
        "a key is missing": lambda t: t.pop(query),
        "a block is missing": lambda t: [t.pop(k) for k in list(t) if ".1." in k],
        "a key too many": lambda t: t.update({"model.extra": torch.ones(2)}),
        "a bias too many": lambda t: t.update({query.replace("weight", "bias"): torch.ones(16)}),
        "a key in capitals": lambda t: t.update({query.upper(): t.pop(query)}),
        "a block too many": lambda t: t.update(
            {k.replace(".1.", ".2."): v.clone() for k, v in t.items() if ".1." in k}
        ),
        "a Qwen's norms": lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(4)}),
        "a key that colours": lambda t: t.update({"\x1b[31mred": torch.ones(1)}),
        "nothing": lambda t: t.clear(),
        "with a prefix": lambda t: t.update({"base_model." + k: t.pop(k) for k in list(t)}),
    }
    kept = {"a bias too many": EITHER, "a block too many": EITHER}
    for number, (words, change) in enumerate(named.items()):
        command = [["verify", "m", *IDS], ["capture", "m", "--out", "c.safetensors", *IDS], ["map", "m"]][
            number % 3
        ]
        yield Try(f"weights: {words}", command, changed(change), kept.get(words, REFUSED))
    size = struct.Struct("<Q")
    raw: dict[str, Callable[[bytearray], Any]] = {
        "one byte less": lambda c: c[:-1],
        "one byte more": lambda c: c + b"\0",
        "half of it": lambda c: c[: len(c) // 2],
        "header only": lambda c: c[: 8 + size.unpack_from(c)[0]],
        "header longer than all": lambda c: size.pack_into(c, 0, 2**63),
        "header of nothing": lambda c: size.pack_into(c, 0, 0),
        "header off by one": lambda c: size.pack_into(c, 0, size.unpack_from(c)[0] - 1),
        "offsets turned": lambda c: c.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1),
        "an unknown type": lambda c: c.replace(b'"F32"', b'"F31"', 1),
        "a shape below zero": lambda c: c.replace(b'"shape":[16', b'"shape":[-6', 1),
        "not UTF-8": lambda c: c.__setitem__(20, 0xFF),
        "a pickle": lambda c: pickle.dumps({"a": 1}),
        "text": lambda c: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "seven bytes": lambda c: c[:7],
        "nothing": lambda c: bytearray(b" "),
    }
    for words, cut in raw.items():
        yield Try(f"weight file: {words}", ["verify", "m", *IDS], bytes_changed(cut))
    files: dict[str, Callable[[Path], Any]] = {
        "is a folder": lambda f: ((f / "m/model.safetensors").unlink(), (f / "m/model.safetensors").mkdir()),
        "is a link to itself": lambda f: ((f / "m/model.safetensors").unlink(), (f / "m/model.safetensors").symlink_to("model.safetensors")),
        "is a link to nowhere": lambda f: ((f / "m/model.safetensors").unlink(), (f / "m/model.safetensors").symlink_to("/nowhere")),
        "is a device": lambda f: ((f / "m/model.safetensors").unlink(), (f / "m/model.safetensors").symlink_to("/dev/zero")),
        "is a pipe": lambda f: ((f / "m/model.safetensors").unlink(), os.mkfifo(f / "m/model.safetensors")),
        "has a config that is a pipe": lambda f: ((f / "m/config.json").unlink(), os.mkfifo(f / "m/config.json")),
        "has a config that is a device": lambda f: ((f / "m/config.json").unlink(), (f / "m/config.json").symlink_to("/dev/zero")),
        "has shards": lambda f: ((f / "m/model.safetensors").rename(f / "m/model-00001-of-00002.safetensors"), (f / "m/model.safetensors.index.json").write_text('{"weight_map": {"../../x": "../../etc/passwd"}}')),
        "has only a pickle": lambda f: ((f / "m/model.safetensors").unlink(), (f / "m/pytorch_model.bin").write_bytes(pickle.dumps({}))),
    }  # fmt: skip
    for words, make in files.items():
        yield Try(f"model {words}", ["map", "m"], make)


def arguments() -> Iterator[Try]:
    long = "x" * 100_000
    wrong: list[Sequence[str]] = [
        ["verify", "m", "--token-ids", ""],
        ["verify", "m", "--token-ids", ","],
        ["verify", "m", "--token-ids", "1,,2"],
        ["verify", "m", "--token-ids", "1 2"],
        ["verify", "m", "--token-ids", "0x10"],
        ["verify", "m", "--token-ids", "1e2"],
        ["verify", "m", "--token-ids", "٣٤٥٦"],
        ["verify", "m", "--token-ids", "-1"],
        ["verify", "m", "--token-ids", "283"],
        ["verify", "m", "--token-ids", "9" * 5000],
        ["verify", "m", "--token-ids", "1_0_0_0"],
        ["verify", "m", *IDS, "--decoder-ids", "0,1"],
        ["verify", "m", *IDS, "--text", "a"],
        ["verify", "m", *IDS, "--attention", "flash"],
        ["verify", "m", *IDS, "--attention", ""],
        ["verify", "m", *IDS, "--attention", "eager,sdpa"],
        ["verify", "m", *IDS, "--steps", "-1"],
        ["verify", "m", *IDS, "--steps", "1.5"],
        ["verify", "m", *IDS, "--steps", "two"],
        ["verify", "m", *IDS, "--steps", "1", "--cache"],
        ["verify", "m", *IDS, "--steps", "1", "--html", "x.html"],
        ["verify", "m", *IDS, "--json", ""],
        ["verify", "m", *IDS, "--json", "no/such/folder/x.json"],
        ["verify", "m", *IDS, "--json", "m"],
        ["verify", "m", *IDS, "--json", "m/config.json/x"],
        ["verify", "m", *IDS, "--html", "-"],
        ["verify", "m", *IDS, "--html", "/proc/x.html"],
        ["verify", "m", *IDS, "--certificate", ""],
        ["verify", "m", "--texts", "nowhere.txt"],
        ["verify", "m", "--texts", "m"],
        ["verify", "m", "--texts", "/dev/null"],
        ["verify", "m", "--text", ""],
        ["verify", "m", "--text", "\udc80"],
        ["verify", "m", *IDS, "--strict", "extra"],
        ["verify"],
        ["verify", "", *IDS],
        ["verify", ".", *IDS],
        ["verify", "m/", "--tex", "a"],
        ["verify", "m/config.json", *IDS],
        ["verify", "m\x00n".replace("\x00", "\\0"), *IDS],
        ["verify", "../" * 50 + "etc", *IDS],
        ["verify", "hub:meta-llama/Llama-2-7b", *IDS],
        ["verify", "~nobody-of-this-name/m", *IDS],
        ["verify", long, *IDS],
        ["verify", "\x1b[2Jm", *IDS],
        ["run", "m", "--temperature", "nan"],
        ["run", "m", "a", "--temperature", "0"],
        ["run", "m", "a", "--temperature", "-1"],
        ["run", "m", "a", "--temperature", "inf"],
        ["run", "m", "a", "--top-k", "0"],
        ["run", "m", "a", "--top-p", "0"],
        ["run", "m", "a", "--top-p", "1.0001"],
        ["run", "m", "a", "--beams", "0"],
        ["run", "m", "a", "--beams", "100000"],
        ["run", "m", "a", "--beams", "2", "--temperature", "1"],
        ["run", "m", "a", "--length-penalty", "1"],
        ["run", "m", "a", "--max-new-tokens", "0"],
        ["run", "m", "a", "--max-new-tokens", "-3"],
        ["run", "m", "a", "--seed", str(2**70)],
        ["run", "m", "a", "--seed", "1"],
        ["run", "m", "a", "--repetition-penalty", "0"],
        ["run", "m", "a", "--no-repeat-ngram", "-1"],
        ["run", "m", ""],
        ["run", "m", "\ud800"],
        ["map"],
        ["map", "m", "m"],
        ["map", "m", "--attention", "none"],
        ["capture", "m", *IDS],
        ["capture", "m", "--out", "m", *IDS],
        ["capture", "m", "--out", "x/y.safetensors", *IDS],
        ["capture", "m", "--out", "", *IDS],
        ["dump", "m", "--out", "x.pt", *IDS],
        ["dump", "m", "--out", "x", *IDS],
        ["dump", "m", "--out", "-", *IDS],
        ["dump", "m", "--out", "m/x/y.npz", *IDS],
        ["find", "nowhere.safetensors", "--model", "m", *IDS],
        ["find", "m", "--model", "m", *IDS],
        ["find", "m/model.safetensors", "--model", "m", *IDS],
        ["find", "m/model.safetensors", "--model", "m", "--key", "nowhere", *IDS],
        ["find", "m/model.safetensors", "--model", "m", "--key", "", *IDS],
        ["find", "m/config.json", "--model", "m", *IDS],
        ["find", "m/model.safetensors", "--key", "model.norm.weight", *IDS],
        ["compare", "m", "--model", "nowhere", *IDS],
        ["compare", "nowhere", "--model", "m", *IDS],
        ["compare", "m/config.json", "--model", "m", *IDS],
        ["compare", "m/tokenizer.json", "--model", "m", *IDS],
        ["compare", "m/model.safetensors", "--model", "m", *IDS, "--names", "nowhere.json"],
        ["compare", "m/model.safetensors", "--model", "m", *IDS, "--names", "m/model.safetensors"],
        ["compare", "m/model.safetensors", "--model", "m", *IDS, "--write-names", "m"],
        ["compare", "m/model.safetensors", "--model", "m", *IDS, "--json", "m/model.safetensors"],
        ["recheck", "nowhere.json", "--model", "m"],
        ["recheck", "m/config.json", "--model", "m"],
        ["recheck", "m/model.safetensors", "--model", "m"],
        ["recheck", "m", "--model", "m"],
        ["explain", "no-such-cause"],
        ["explain", ""],
        ["explain", "../../etc/passwd"],
        ["explain", long],
        ["new", "nothing", "x.py"],
        ["new", "gpt2", "m"],
        ["new", "gpt2", "no/such/x.py"],
        ["new", "gpt2", ""],
        ["new", "gpt2", "x.py", "--solved", "--bare"],
        ["mark", "nowhere", "--out", "x.csv"],
        ["mark", "m", "--out", "m/x.csv"],
        ["mark", "m/config.json", "--out", "x.csv"],
        ["mark", "m"],
        ["mark", "m", "--out", "x.csv", "--seconds", "0"],
        ["mark", "m", "--out", "x.csv", "--memory", "-5"],
        ["mark", "m", "--out", "x.csv", "--seconds", "nan"],
        ["check", "nowhere.py", "--model", "m", *IDS],
        ["check", "m", "--model", "m", *IDS],
        ["check", "m/config.json", "--model", "m", *IDS],
        ["check", "/dev/stdin", "--model", "m", *IDS],
        ["check", "x.py", "--model", "m", "--watch", "--json", "-"],
        ["download", "nothing"],
        ["download", "gpt2", "--from", "nowhere"],
        ["download", "gpt2", "--from", "m"],
        ["download", "gpt2", "--from", "m/config.json"],
        ["download", "minilm", "--from", ""],
        ["download", "../x"],
        ["--vers"],
        ["verfy", "m"],
        ["-x"],
        ["--", "verify"],
        ["verify", "m", *IDS, "--exact=maybe"],
        ["verify", "m", *IDS, "--json"],
        ["verify", "m", *IDS, "--json", "a.json", "--html", "a.json"],
        ["verify", "m", *IDS, "--json", "a.json", "--certificate", "./a.json"],
    ]  # fmt: skip
    for words in wrong:
        yield Try("arguments " + " ".join(words)[:90], words, leaves=("a.json", "x.csv", "x.py", "x.npz"))
    odd: list[tuple[Sequence[str], frozenset[int]]] = [
        (["verify", "m", *IDS, *IDS], RIGHT),
        (["verify", "m", "--token-ids", " 5 , 17,3 "], EITHER),
        (["verify", "m", "--token-ids", "+5,017"], EITHER),
        (["verify", "m", *IDS, "--steps", "0"], EITHER),
        (["verify", "m", "--text", "\u202eabc\x07\x1b[31m"], RIGHT),
        (["verify", "m", "--text", "🙂" * 200], EITHER),
        (["run", "m", "--", "--temperature"], RIGHT),
        (["run", "m", "a\x00b".replace("\x00", "\x01")], RIGHT),
        (["verify", "./m/../m//", *IDS], RIGHT),
        (["verify", "m", *IDS, "--json", "/dev/null"], RIGHT),
        (["explain", "--list"], RIGHT),
        (["new", "gpt2", "x.txt"], RIGHT),
        (["new", "gpt2", "x.py", "--break", str(-(10**30))], RIGHT),
        (["mark", "m", "--out", "x.csv"], WRONG),
        (["--version"], RIGHT),
        ([], RIGHT),
        (["compare", "m/model.safetensors", "--model", "m", *IDS], WRONG | REFUSED),
        (
            ["find", "m/model.safetensors", "--model", "m", "--key", "model.norm.weight", *IDS],
            WRONG | RIGHT | REFUSED,
        ),
    ]
    for words, codes in odd:
        yield Try("odd " + " ".join(words)[:90], words, codes=codes)


def npz(entries: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(values), allow_pickle=True)
    return stream.getvalue()


def dumps() -> Iterator[Try]:
    def there(name: str, content: bytes) -> Callable[[Path], Any]:
        return lambda folder: (folder / name).write_bytes(content)

    f32 = np.float32
    whole = npy(np.ones((1, 3, 16), f32))
    files: dict[str, tuple[str, bytes]] = {
        "a name that climbs": ("d.npz", npz({"../../up.npy": whole})),
        "a name that is absolute": ("d.npz", npz({"/tmp/abs.npy": whole})),
        "a name that colours": ("d.npz", npz({"\x1b[31m.npy": whole})),
        "a name of nothing": ("d.npz", npz({".npy": whole})),
        "a name of 60,000 characters": ("d.npz", npz({"x" * 60_000 + ".npy": whole})),
        "a folder within": ("d.npz", npz({"a/": b"", "a/b.npy": whole})),
        "objects": ("d.npz", npz({"a.npy": npy(np.array([{}, []], dtype=object))})),
        "a bomb": (
            "d.npz",
            npz({"a.npy": npy(np.zeros(0, f32))[:-1] + b" " + b"\0" * 10**8}, zipfile.ZIP_DEFLATED),
        ),
        "a header that says 10^12": ("d.npy", npy(np.ones(3, f32)).replace(b"(3,)", b"(999999999999,)")),
        "a header that computes": ("d.npy", npy(np.ones(3, f32)).replace(b"(3,), ", b"(3**9),")),
        "no array": ("d.npz", npz({"a.txt": b"hello"})),
        "an archive within": ("d.npz", npz({"a.npy": npz({"b.npy": whole})})),
        "cut": ("d.npz", npz({"a.npy": whole})[:-30]),
        "cut in front": ("d.npz", npz({"a.npy": whole})[30:]),
        "text": ("d.npz", b"hello"),
        "a safetensors called npz": ("d.npz", b"\x02\0\0\0\0\0\0\0{}"),
        "an npz called safetensors": ("d.safetensors", npz({"a.npy": whole})),
        "an empty safetensors": ("d.safetensors", b"\x02\0\0\0\0\0\0\0{}"),
        "an empty file": ("d.npz", b""),
        "JSON of depth 100,000": ("d.json", b"[" * 100_000 + b"]" * 100_000),
        "JSON that is a number": ("d.json", b"1e999"),
        "JSON of no tensors": ("d.json", b'{"module_path": "x", "children": []}'),
        "pickle called npy": ("d.npy", pickle.dumps(np.ones(3))),
        "words": ("d.npy", npy(np.array(["a", "b"]))),
        "times": ("d.npy", npy(np.array(["2020-01-01"], dtype="datetime64[D]"))),
        "complex": ("d.npz", npz({"a.npy": npy(np.ones(3, np.complex64))})),
        "pt": ("d.pt", pickle.dumps({})),
        "no ending": ("d", whole),
    }
    for words, (name, content) in files.items():
        codes = WRONG | REFUSED if words.startswith(("a name", "a folder", "a bomb")) else REFUSED
        yield Try(f"dump: {words}", ["compare", name, "--model", "m", *IDS], there(name, content), codes)
    odd: dict[str, Any] = {
        "no axis": np.float32(3),
        "NaN": np.full((1, 3, 16), np.nan, f32),
        "infinite": np.full((1, 3, 16), np.inf, f32),
        "nothing in it": np.ones((0, 16), f32),
        "truth values": np.ones((1, 3, 16), bool),
        "whole numbers": np.ones((1, 3, 16), np.int64),
        "halves": np.ones((1, 3, 16), np.float16),
        "big-endian": np.ones((1, 3, 16), ">f4"),
        "Fortran's order": np.asfortranarray(np.ones((1, 3, 16), f32)),
        "thirty axes": np.ones((1,) * 30, f32),
        "doubles beyond float32": np.full((1, 3, 16), 1e300),
    }
    for words, values in odd.items():
        content = npz({"model.embed_tokens.npy": npy(values)})
        yield Try(
            f"dump: {words}",
            ["compare", "d.npz", "--model", "m", *IDS],
            there("d.npz", content),
            WRONG | REFUSED,
        )
    listed: dict[str, str] = {
        "not JSON": "{", "a list": "[]", "numbers": '{"a": 1}', "an unknown checkpoint": '{"a": "nowhere"}',
        "an unknown tensor": '{"b": "model.embed_tokens"}', "another shape": '{"a": "lm_head"}',
        "one checkpoint twice": '{"a": "model.embed_tokens", "c": "model.embed_tokens"}',
        "twin keys": '{"a": "model.embed_tokens", "a": "model.norm"}', "deep": '{"a": {"b": {}}}', "nothing": "",
    }  # fmt: skip
    for words, text in listed.items():

        def before(folder: Path, text: str = text) -> None:
            (folder / "d.npz").write_bytes(npz({"a.npy": whole, "c.npy": whole}))
            (folder / "n.json").write_text(text, encoding="utf-8")

        yield Try(
            f"names: {words}",
            ["compare", "d.npz", "--model", "m", *IDS, "--names", "n.json"],
            before,
            WRONG | REFUSED if words in ("twin keys", "another shape") else REFUSED,
        )


def rebuilds() -> Iterator[Try]:
    """Files for `check`: whatever a learner's file does, the answer is a line or a report."""
    texts: dict[str, tuple[str | bytes, frozenset[int]]] = {
        "empty": ("", REFUSED),
        "no forward": ("x = 1\n", REFUSED),
        "forward is a number": ("forward = 7\n", REFUSED),
        "a syntax error": ("def forward(:\n", REFUSED | WRONG),
        "zeros": (b"\0\0\0", REFUSED),
        "not UTF-8": (b"# \xff\xfe\ndef forward(*a): pass\n", REFUSED),
        "leaves at import": ("raise SystemExit(0)\n", REFUSED | WRONG),
        "leaves within": ("import os\ndef forward(*a): os._exit(0)\n", REFUSED | WRONG),
        "never ends": ("def forward(*a):\n    while True: pass\n", REFUSED | WRONG),
        "calls itself": ("def forward(*a): forward(*a)\n", REFUSED | WRONG),
        "raises what is no error": ("def forward(*a): raise KeyboardInterrupt\n", REFUSED | WRONG),
        "an error that cannot be printed": ("class E(Exception):\n    def __str__(self): raise E\ndef forward(*a): raise E\n", REFUSED | WRONG),
        "kills its parent": ("import os, signal\ndef forward(*a): os.kill(os.getppid(), signal.SIGKILL)\n", REFUSED | WRONG),
        "writes a lot": ("def forward(*a): print('x' * 10**8)\n", REFUSED | WRONG),
        "takes no argument": ("def forward(): pass\n", REFUSED | WRONG),
        "a class": ("class forward:\n    def __init__(self, *a): pass\n", REFUSED | WRONG),
        "async": ("async def forward(*a): pass\n", REFUSED | WRONG),
        "a generator": ("def forward(*a): yield 1\n", REFUSED | WRONG),
        "100,000 brackets": ("(" * 100_000 + "\n", REFUSED | WRONG),
    }  # fmt: skip
    for words, (text, codes) in texts.items():
        content = text.encode() if isinstance(text, str) else text

        def before(folder: Path, content: bytes = content) -> None:
            (folder / "r.py").write_bytes(content)

        yield Try(
            f"check: {words}", ["check", "r.py", "--model", "m", *IDS, "--seconds", "20"], before, codes
        )


def screens() -> Iterator[Try]:
    verify = ["verify", "m", *IDS]
    for columns in ("0", "1", "-5", "abc", "", "99999999999"):
        yield Try(f"COLUMNS={columns!r}", verify, codes=RIGHT, where={"COLUMNS": columns})
    for width in (1, 5, 20, 300):
        yield Try(
            f"a terminal of {width} columns", ["verify", "m", *IDS, "--steps", "1"], codes=RIGHT, screen=width
        )
        yield Try(f"map on {width} columns", ["map", "m"], codes=RIGHT, screen=width)
    for name, value in (
        ("TERM", "dumb"), ("TERM", ""), ("TERM", "nothing-such"), ("LANG", "C"), ("LC_ALL", "POSIX"), ("PYTHONIOENCODING", "ascii"),
        ("NO_COLOR", "1"), ("FORCE_COLOR", "1"), ("HOME", ""), ("HOME", "/nowhere"), ("HOME", None), ("PATH", ""),
        ("LLM_REBUILD_STORE", ""), ("LLM_REBUILD_STORE", "m/config.json"), ("LLM_REBUILD_STORE", "/proc/1"), ("LLM_REBUILD_STORE", "\x1b[31m"),
        ("TMPDIR", "/nowhere"), ("OMP_NUM_THREADS", "x"), ("HF_HOME", "/nowhere"), ("PYTHONWARNINGS", "error"),
    ):  # fmt: skip
        yield Try(f"{name}={value!r}", verify, codes=RIGHT, where={name: value})
        yield Try(f"{name}={value!r}, by name", ["map", "gpt2"], codes=EITHER, where={name: value})
    for closed in ((0,), (1,), (2,), (0, 1, 2), (1, 2)):
        yield Try(f"without {closed}", ["map", "m"], codes=RIGHT, closed=closed)
        yield Try(f"refused without {closed}", ["map", "nowhere"], closed=closed)


def signals() -> Iterator[Try]:
    draw = random.Random(4)
    commands = [
        ["verify", "m", *IDS, "--json", "o.json"], ["capture", "m", *IDS, "--out", "o.safetensors"],
        ["run", "m", "they do", "--max-new-tokens", "60"], ["dump", "m", *IDS, "--out", "o.npz"],
        ["map", "m"], ["compare", "m/model.safetensors", "--model", "m", *IDS],
        ["find", "m/model.safetensors", "--key", "model.norm.weight", "--model", "m", *IDS], ["verify", "m", *IDS, "--steps", "5"],
    ]  # fmt: skip
    for command in commands:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            after = draw.uniform(0.0, 0.5)
            codes = frozenset({0, 1, 2, 128 + number, -number})  # the last: before it listens
            yield Try(
                f"{number.name} after {after:.2f}: {command[0]}", command, codes=codes, stop=(number, after)
            )


def table(folder: Path, name: str = "o.parquet", **columns: Any) -> Path:
    """A Parquet file such as a sweep writes, of two rows; or with other columns (`...`: without it)."""
    import pyarrow
    from pyarrow import parquet

    from llm_rebuild.proof.sweep import COLUMNS

    values: dict[str, Any] = {
        column: ["a", "b"] if kind == "string" else [1, 2] for column, kind in COLUMNS.items()
    }
    values = {column: value for column, value in (values | columns).items() if value is not ...}
    (folder / name).parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.table(values), folder / name)
    return folder / name


def server(answers: Callable[[socket.socket], Any]) -> int:
    """The port of somebody who is no Ray cluster: whoever connects is given to `answers`."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            answers(listening.accept()[0])

    threading.Thread(target=serve, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


def sweeps() -> Iterator[Try]:
    """What a sweep may meet where its rows should go, among its texts, and at the address of its cluster."""
    command = ["sweep", "m", "--texts", "t.txt", "--out", "o.parquet"]

    def texts(folder: Path, content: str | bytes = "they do\nthe cook\n") -> None:
        (folder / "t.txt").write_bytes(content.encode() if isinstance(content, str) else content)

    def out(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda folder: (texts(folder), make(folder))

    def cut(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
        def make(folder: Path) -> None:
            file = table(folder)
            file.write_bytes(change(file.read_bytes()))

        return make

    def part(content: bytes) -> Callable[[Path], Any]:
        return lambda f: (
            (f / "o.parquet.parts").mkdir(),
            (f / "o.parquet.parts/1.parquet").write_bytes(content),
        )

    files: dict[str, Callable[[Path], Any]] = {
        "is empty": lambda f: (f / "o.parquet").touch(),
        "is text": lambda f: (f / "o.parquet").write_text("hello"),
        "is eight bytes of Parquet": lambda f: (f / "o.parquet").write_bytes(b"PAR1PAR1"),
        "is cut in half": cut(lambda c: c[: len(c) // 2]),
        "lacks its last byte": cut(lambda c: c[:-1]),
        "lacks its first bytes": cut(lambda c: c[4:]),
        "ends in a length beyond all": cut(lambda c: c[:-8] + b"\xff\xff\xff\x7fPAR1"),
        "ends in no length": cut(lambda c: c[:-8] + b"\0\0\0\0PAR1"),
        "has a foot of zeros": cut(lambda c: c[:-200] + bytes(192) + c[-8:]),
        "has pages of zeros": cut(lambda c: c[:4] + bytes(600) + c[604:]),
        "is a safetensors file": lambda f: shutil.copy(f / "m/model.safetensors", f / "o.parquet"),
        "is a pickle": lambda f: (f / "o.parquet").write_bytes(pickle.dumps({})),
        "has other columns": lambda f: table(f, key=...),
        "has a column more": lambda f: table(f, extra=[1, 2]),
        "has numbers for keys": lambda f: table(f, key=[1, 2]),
        "has words for counts": lambda f: table(f, failed=["0", "0"]),
        "has fractions for counts": lambda f: table(f, failed=[0.5, 1.0]),
        "has lists for counts": lambda f: table(f, failed=[[1], [2]]),
        "has truth values for errors": lambda f: table(f, error=[True, False]),
        "is a folder": lambda f: (f / "o.parquet").mkdir(),
        "is a pipe": lambda f: os.mkfifo(f / "o.parquet"),
        "is a device": lambda f: (f / "o.parquet").symlink_to("/dev/zero"),
        "is a device that is full": lambda f: (f / "o.parquet").symlink_to("/dev/full"),
        "is a link to a folder": lambda f: (f / "o.parquet").symlink_to("m"),
        "is a link to itself": lambda f: (f / "o.parquet").symlink_to("o.parquet"),
        "is a link to text": lambda f: (f / "o.parquet").symlink_to("m/config.json"),
        "is a link into a folder that is not there": lambda f: (f / "o.parquet").symlink_to("nowhere/o.parquet"),
        "has parts that are a file": lambda f: (f / "o.parquet.parts").touch(),
        "has parts that are a link to a file": lambda f: (f / "o.parquet.parts").symlink_to("t.txt"),
        "has parts that are a link to nowhere": lambda f: (f / "o.parquet.parts").symlink_to("nowhere"),
        "has a part that is text": part(b"hello"),
        "has a part of nothing": part(b""),
        "has a part of other columns": lambda f: table(f, "o.parquet.parts/1.parquet", key=...),
        "has a part that is a folder": lambda f: (f / "o.parquet.parts/1.parquet").mkdir(parents=True),
        "has a part that is a pipe": lambda f: ((f / "o.parquet.parts").mkdir(), os.mkfifo(f / "o.parquet.parts/1.parquet")),
        "has a part that is a device": lambda f: ((f / "o.parquet.parts").mkdir(), (f / "o.parquet.parts/1.parquet").symlink_to("/dev/zero")),
        "has a lock that is a folder": lambda f: (f / "o.parquet.parts/lock").mkdir(parents=True),
        "has a lock that is a link to itself": lambda f: ((f / "o.parquet.parts").mkdir(), (f / "o.parquet.parts/lock").symlink_to("lock")),
        "has parts that are somebody's": lambda f: ((f / "o.parquet.parts").mkdir(), (f / "o.parquet.parts/thesis.txt").write_text("x")),
    }  # fmt: skip
    for words, make in files.items():
        codes = RIGHT if words.endswith("somebody's") else REFUSED
        yield Try(f"sweep: its file {words}", command, out(make), codes)
    wrong: dict[str, Sequence[str]] = {
        "no texts": ["sweep", "m", "--out", "o.parquet"],
        "no models": ["sweep", "--texts", "t.txt"],
        "a model that is not there": [*command, "nowhere"],
        "a model of nothing": ["sweep", "", *command[2:]],
        "a file that is its texts": [*command[:-1], "t.txt"],
        "a file that is its page": [*command, "--html", "o.parquet"],
        "a file that is its JSON": [*command, "--json", "./o.parquet"],
        "a file of nothing": [*command[:-1], ""],
        "a file that is stdout": [*command[:-1], "-"],
        "a folder that is not there": [*command[:-1], "no/such/o.parquet"],
        "a name that colours": [*command[:-1], "no/\x1b[31m/o.parquet"],
        "a name of 100,000 characters": [*command[:-1], "x" * 100_000],
        "a name too long for its parts": [*command[:-1], "x" * 250],
        "no attention": [*command, "--attention", ""],
        "an attention too few": [*command, "--attention", "eager,"],
        "an attention of another kind": [*command, "--attention", "eager,flash"],
        "no batch": [*command, "--batch", "0"],
        "a batch of a million": [*command, "--batch", "1000000"],
        "texts that are a folder": ["sweep", "m", "--texts", "m"],
        "texts that are not there": ["sweep", "m", "--texts", "nowhere.txt"],
    }
    for words, arguments in wrong.items():
        yield Try(f"sweep: {words}", arguments, texts, leaves=("o.parquet", "o.parquet.parts"))
    for words, content in {
        "nothing": b"",
        "not UTF-8": b"a\xff\n",
        "UTF-16": "they do".encode("utf-16"),
    }.items():
        yield Try(
            f"sweep: texts of {words}", command, lambda f, c=content: texts(f, c), leaves=("o.parquet",)
        )
    addresses = {
        "nobody": "127.0.0.1:1", "no port": "127.0.0.1", "a port too high": "127.0.0.1:99999", "port 0": "127.0.0.1:0",
        "no such host": "nobody.invalid:6379", "a web address": "http://127.0.0.1:1", "a Ray client's": "ray://127.0.0.1:1",
        "colons": ":::", "nothing but a port": ":1", "nothing": "", "one that breaks the line": "127.0.0.1:1\n2", "what colours": "\x1b[31m:1",
        "no cluster found by itself": "auto", "another scheme": "nothing://x:1", "somebody who hangs up": f"127.0.0.1:{server(socket.socket.close)}",
        "somebody who speaks HTTP": f"127.0.0.1:{server(lambda s: (s.sendall(b'HTTP/1.1 200 OK' + bytes(4)), s.close()))}",
        "somebody who is silent": f"127.0.0.1:{server(lambda s, held=[]: held.append(s))}",
    }  # fmt: skip
    for words, address in addresses.items():
        yield Try(
            f"sweep: at the address of {words}",
            [*command, "--address", address],
            texts,
            leaves=("o.parquet", "o.parquet.parts"),
        )


def sizes() -> Iterator[Try]:
    """Shards, texts of a million tokens, types and devices that there are not."""
    names = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]

    def shards(change: Callable[[Path, dict[str, Any]], Any]) -> Callable[[Path], Any]:
        def make(folder: Path) -> None:
            m = folder / "m"
            keys = sorted(tensors := load_file(m / "model.safetensors"))
            weight_map = {key: names[3 * n // len(keys)] for n, key in enumerate(keys)}
            for name in names:
                of = {key: tensors[key].clone() for key, shard in weight_map.items() if shard == name}
                save_file(of, m / name)
            (m / "model.safetensors").unlink()
            index: dict[str, Any] = {"weight_map": weight_map}
            text = change(m, index)
            content = text if isinstance(text, str) else json.dumps(index)
            (m / "model.safetensors.index.json").write_text(content, encoding="utf-8")

        return make

    def moved(to: str) -> Callable[[Path, dict[str, Any]], Any]:
        return lambda m, i: i["weight_map"].update(
            {k: to for k, v in i["weight_map"].items() if v == names[1]}
        )

    def instead(make: Callable[[Path], Any]) -> Callable[[Path, dict[str, Any]], Any]:
        return lambda m, i: ((m / names[1]).unlink(), make(m / names[1]), None)[2]

    changes: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
        "all there": lambda m, i: None,
        "one more that nobody names": lambda m, i: shutil.copy(m / names[0], m / "other.safetensors") and None,
        "one in the middle missing": lambda m, i: (m / names[1]).unlink(),
        "one cut": lambda m, i: os.truncate(m / names[1], 200),
        "one empty": lambda m, i: os.truncate(m / names[1], 0),
        "two exchanged": lambda m, i: ((m / names[1]).rename(m / "x"), (m / names[2]).rename(m / names[1]), (m / "x").rename(m / names[2]), None)[3],
        "one a folder": instead(Path.mkdir),
        "one a pipe": instead(os.mkfifo),
        "one a device": instead(lambda file: file.symlink_to("/dev/zero")),
        "one a link to itself": instead(lambda file: file.symlink_to(file.name)),
        "one a link to the first": instead(lambda file: file.symlink_to(names[0])),
        "one a pickle": instead(lambda file: file.write_bytes(pickle.dumps({}))),
        "an index that climbs": moved("../m/" + names[1]),
        "an index of another place": moved("/etc/passwd"),
        "an index of a folder": moved("."),
        "an index of nothing": moved(""),
        "an index of numbers": lambda m, i: i["weight_map"].update(dict.fromkeys(i["weight_map"], 7)),
        "an index of lists": lambda m, i: i["weight_map"].update({key: [names[0]] for key in i["weight_map"]}),
        "an index that is a list": lambda m, i: i.update(weight_map=names),
        "an index without a map": lambda m, i: i.pop("weight_map") and None,
        "an index of no keys": lambda m, i: i["weight_map"].clear(),
        "an index of a key less": lambda m, i: i["weight_map"].popitem() and None,
        "an index of a key more": lambda m, i: i["weight_map"].update(nowhere=names[0]),
        "an index that is cut": lambda m, i: json.dumps(i)[:-9],
        "an index that colours": moved("\x1b[31m"),
        "an index of a million keys": lambda m, i: i["weight_map"].update({f"k{n}": names[0] for n in range(10**6)}),
        "an index of 100,000 files": lambda m, i: i["weight_map"].update({f"k{n}": f"{n}.safetensors" for n in range(10**5)}),
    }  # fmt: skip
    for words, change in changes.items():
        codes = RIGHT if words in ("all there", "one more that nobody names") else REFUSED
        yield Try(f"shards: {words}", ["verify", "m", *IDS], shards(change), codes)

    def text(content: str) -> Callable[[Path], Any]:
        return lambda folder: (folder / "t.txt").write_text(content, encoding="utf-8")

    long = {"a million tokens": "a b " * 500_000, "a word of a million letters": "x" * 10**6}
    long |= {
        "100,000 tokens": "a b " * 50_000,
        "a million spaces": " " * 10**6,
    }
    for words, content in long.items():
        for command in ("verify", "dump", "capture"):
            out = ["--out", "o.npz" if command == "dump" else "o.safetensors"][: 2 * (command != "verify")]
            yield Try(
                f"long: {words}, {command}", [command, "m", "--texts", "t.txt", *out], text(content), EITHER
            )
    for option, values in {
        "--dtype": ("", "float8", "FLOAT16", "int8", "torch.float16", "complex64", "float16,float32", "half"),
        "--device": ("", "cuda", "cuda:99", "cuda:-1", "mps", "meta", "tpu", "CPU", "\x1b[31m"),
    }.items():
        for value in values:
            yield Try(f"{option} {value!r}", ["verify", "m", *IDS, option, value])


GROUPS: dict[str, Callable[[], Iterator[Try]]] = {
    "configs": configs,
    "tokenizers": tokenizers,
    "weights": weights,
    "arguments": arguments,
    "dumps": dumps,
    "rebuilds": rebuilds,
    "screens": screens,
    "signals": signals,
    "sweeps": sweeps,
    "sizes": sizes,
}


# ------------------------------------------------------------------------------------- how it is run


@dataclass(frozen=True)
class Ended:
    """How a try ended: its exit code (None: it did not end), what it wrote, what it left."""

    code: int | None
    out: str
    err: str
    left: tuple[str, ...]

    def faults(self, tried: Try) -> list[str]:
        """What is wrong with it."""
        lines = [line for line in self.err.splitlines() if line.startswith("llm-rebuild: ")]
        heard = not set(tried.closed) & {2} and not tried.screen
        found = {
            "it hangs": self.code is None,
            "a traceback": "Traceback (most" in self.err + self.out,
            f"exit code {self.code}, not {sorted(tried.codes)}": self.code is not None and self.code not in tried.codes,
            "refused without a line": self.code == 2 and heard and len(lines) != 1,
            "more than a line": self.code == 2 and heard and self.err.count("\n") > 1 + ("its weights as one" in self.err),
            "a long line": self.code == 2 and len(self.err) > LONGEST,
            "a line that is obeyed": any(ord(c) < 32 and c != "\n" for c in self.err) and not tried.screen and not tried.where,
            f"it left {self.left}": self.code == 2 and bool(self.left),
        }  # fmt: skip
        return [words for words, holds in found.items() if holds]


def run(tried: Try, source: Path, folder: Path) -> Ended:
    """One try, in a process that begins where this one stands: everything is imported already."""
    shutil.copytree(source, folder / "m")
    tried.before(folder)
    before = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    outputs = [folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"]
    if tried.screen:
        process, screen = pty.fork()
    else:
        process, screen = os.fork(), -1
    if process == 0:
        _play(tried, folder, outputs)
    if tried.screen:
        import fcntl
        import termios

        fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, tried.screen, 0, 0))
    shown = bytearray()
    code = _wait(tried, process, screen, shown)
    if screen >= 0:
        os.close(screen)
    out, err = (
        file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in outputs
    )
    left = {str(path.relative_to(folder)) for path in folder.rglob("*")} - before
    return Ended(code, out + shown.decode(errors="replace"), err, tuple(sorted(left & set(tried.leaves))))


def _play(tried: Try, folder: Path, outputs: Sequence[Path]) -> None:
    """In the child: the command line as it is started. Does not return."""
    os.chdir(folder)
    os.environ["LLM_REBUILD_STORE"] = str(folder / "store")
    for name, value in tried.where.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if not tried.screen:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, file in enumerate(outputs, 1):
            os.dup2(os.open(file, os.O_CREAT | os.O_WRONLY), descriptor)
    encoding = "ascii" if tried.where.get("PYTHONIOENCODING") == "ascii" else "utf-8"
    sys.stdin, sys.stdout, sys.stderr = (
        None if descriptor in tried.closed else os.fdopen(descriptor, mode, encoding=encoding)
        for descriptor, mode in enumerate("rww")
    )
    for descriptor in tried.closed:
        os.close(descriptor)
    sys.argv = ["llm-rebuild", *tried.arguments]
    code = 70
    try:
        from llm_rebuild.cli.main import main

        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):  # a stream that is closed, or has nobody at its end
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(tried: Try, process: int, screen: int, shown: bytearray) -> int | None:
    """Its exit code; None where it does not end, and is killed. What it writes on a terminal is read."""
    begun, stopped = time.monotonic(), tried.stop is None
    if screen >= 0:
        os.set_blocking(screen, False)
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if screen >= 0:
            with contextlib.suppress(OSError):
                shown += os.read(screen, 1 << 20)
        if ended:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - begun
        if not stopped and tried.stop and passed > tried.stop[1]:
            os.kill(process, tried.stop[0])
            stopped = True
        if passed > LIMIT:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.005)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="those with these words in their name, or a group's name")
    parser.add_argument("--show", action="store_true", help="how each ended")
    arguments = parser.parse_args()
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # as the command line has it
    # What a command imports is imported once, and not by each process anew.
    import transformers.models.llama.modeling_llama  # noqa: F401

    import llm_rebuild.dumps.compare
    import llm_rebuild.show.results
    import llm_rebuild.verify  # noqa: F401
    from llm_rebuild.cli import bench, compare, copies, find, prove, sweep  # noqa: F401

    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="tries-") as temporary:
        source = base(Path(temporary) / "source")
        for group, tries in GROUPS.items():
            for number, tried in enumerate(tries()):
                if arguments.only not in (group, "") and arguments.only not in tried.name:
                    continue
                folder = Path(temporary) / f"{group}-{number}"
                folder.mkdir()
                ended = run(tried, source, folder)
                faults = ended.faults(tried)
                counts[group] += 1
                counts["faults"] += bool(faults)
                if faults or arguments.show:
                    print(
                        f"{group} | {tried.name!a}: {'; '.join(faults) or ended.code}\n    {(ended.err or ended.out)[-300:]!a}",
                        flush=True,
                    )
                shutil.rmtree(folder, ignore_errors=True)
    faulty = counts.pop("faults", 0)
    print(
        f"{sum(counts.values())} tries ({', '.join(f'{g} {n}' for g, n in counts.items())}): {faulty} with a fault"
    )
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main())
