"""Reads a SentencePiece model file (spiece.model), which is one protobuf message, without protobuf.

Protobuf's wire format is a list of fields. Each begins with a varint, `number << 3 | wire type`:

    wire type 0   a varint: 7 bits per byte, the lowest first; the top bit says that more follow
              1   8 bytes          5   4 bytes (a float, say)
              2   a varint length, then that many bytes: a string, or again a message

What the numbers mean stands in SentencePiece's sentencepiece_model.proto, of which we need

    ModelProto      1 pieces (repeated)   2 trainer_spec   3 normalizer_spec
    SentencePiece   1 piece: string       2 score: float   3 type: 1 normal, 2 unknown, 3 control ...
    TrainerSpec     3 model_type: 1 unigram, 2 BPE, 3 word, 4 character
    NormalizerSpec  2 precompiled_charsmap: bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from llm_rebuild.errors import InputError
from llm_rebuild.files import read

MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}
NORMAL, UNKNOWN, CONTROL = 1, 2, 3  # kinds of pieces; 4 to 6 are user-defined, unused, byte


class BrokenMessageError(Exception):
    """The bytes are no protobuf message, or not the one expected."""


def varint(data: bytes, position: int) -> tuple[int, int]:
    """The number that starts at `position`, and the position after it.

    >>> varint(bytes([0b10010110, 0b00000001]), 0)  # 0010110 + 0000001 << 7
    (150, 2)
    """
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise BrokenMessageError("it ends inside a number")
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
    raise BrokenMessageError("a number is longer than 64 bits")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Every field of one message: its number and its value; a length beyond the end is an error.

    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02]) + b"hi"))
    [(1, 150), (2, b'hi')]
    """
    position = 0
    while position < len(data):
        key, position = varint(data, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            value, position = varint(data, position)
            yield number, value
            continue
        if wire_type == 2:
            length, position = varint(data, position)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise BrokenMessageError(f"wire type {wire_type} is not one of 0, 1, 2, 5")
        if length > len(data) - position:
            raise BrokenMessageError(f"a field claims {length} bytes where {len(data) - position} are left")
        yield number, data[position : position + length]
        position += length


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place in the file."""

    text: str  # "▁the": ▁ (U+2581) stands for the space before
    score: float  # the logarithm of its probability
    kind: int


def read_piece(data: bytes) -> Piece:
    """One message of a piece. BrokenMessageError where it is none."""
    text, score, kind = b"", 0.0, NORMAL
    for number, value in fields(data):
        match number, value:
            case 1, bytes():
                text = value
            case 2, bytes() if len(value) == 4:
                (score,) = struct.unpack("<f", value)
            case 3, int():
                kind = value
            case ((1 | 2 | 3), _):
                raise BrokenMessageError(f"field {number} of a piece has the wrong type")
    if not text or not isfinite(score):
        raise BrokenMessageError(f"a piece is {text!r} with score {score}")
    return Piece(text.decode(), score, kind)


def read_spiece_model(path: Path) -> tuple[list[Piece], bytes]:
    """The pieces in order, and the precompiled character map (empty if the file has none)."""
    data = read(path, "download it again")
    try:
        pieces, trainer, normalizer = read_model(data)
        model_type = next((value for number, value in reversed(trainer) if number == 3), 1)
        charsmap = next((value for number, value in reversed(normalizer) if number == 2), b"")
    except (BrokenMessageError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no SentencePiece model, or only a part of one ({error}): download it again"
        ) from None
    if model_type != 1:
        name = MODEL_TYPES.get(model_type, "unknown") if isinstance(model_type, int) else "unknown"
        raise InputError(f"{path} has a model of type {name} ({model_type!r}); T5's are unigram")
    for number, piece in enumerate(pieces):
        if piece.kind not in (NORMAL, UNKNOWN, CONTROL):
            raise InputError(
                f"{path}: piece {number} ({piece.text!r}) is of kind {piece.kind}: user-defined, "
                "unused and byte pieces are not supported; T5 has none"
            )
    if not isinstance(charsmap, bytes):
        raise InputError(f"{path}: its character map is a number: download it again")
    return pieces, charsmap


Fields = list[tuple[int, int | bytes]]


def read_model(data: bytes) -> tuple[list[Piece], Fields, Fields]:
    """The outermost message: its pieces, and the fields of trainer_spec and normalizer_spec."""
    pieces, trainer, normalizer = [], b"", b""
    for number, value in fields(data):
        match number, value:
            case 1, bytes():
                pieces.append(read_piece(value))
            case 2, bytes():
                trainer += value  # a message that comes in parts is the parts in a row
            case 3, bytes():
                normalizer += value
            case ((1 | 2 | 3), _):
                raise BrokenMessageError(f"field {number} has the wrong type")
    if not pieces:
        raise BrokenMessageError("it has no pieces")
    if not trainer:
        raise BrokenMessageError("it has no trainer_spec")
    return pieces, list(fields(trainer)), list(fields(normalizer))
