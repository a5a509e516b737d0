"""What a verification proved, written down so that anybody can run it again and see what has changed.

A certificate names everything that the result rests on (files, versions, input, options) and everything that
was found (each verdict, and a sum over the bits of each tensor on both sides). The digest over it shows that
a file was damaged or edited. It is no signature: whoever edits the file can make a new digest. What convinces
is not the file but `recheck.py`, which believes none of it.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from llm_rebuild import files
from llm_rebuild.checkpoints import memory_of
from llm_rebuild.errors import InputError
from llm_rebuild.files import sha256_of
from llm_rebuild.json_fields import FLAG, SHA256, TEXT, WORD, Each, Kind, check, one_of, or_null, whole
from llm_rebuild.models.part import ATTENTIONS
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify import Proof
from llm_rebuild.verify.compare import finite
from llm_rebuild.verify.environment import environment
from llm_rebuild.weights import DTYPES

FORMAT = "llm_rebuild certificate"
NUMBER = 1
NOTE = "The digest shows damage and edits. It is no signature; `llm-rebuild recheck` runs everything again."

# What a certificate may hold. A file that asks for more is refused before anything is computed.
LARGEST_FILE = 64 * 2**20  # bytes
MOST_TOKENS, LONGEST_ROW = 2**18, 2**14

# ----------------------------------------------------------------------------------- writing it


def certify(proof: Proof) -> dict[str, Any]:
    """The certificate of a verification, JSON-ready. Hashes every file of the local copy as it is now.

    proof  As `diagnosis.explain` gives it, where the two sides part: a recheck explains its own, too.
    """
    report, truth, copy = proof.report, proof.truth, proof.question.copy
    about = report.to_json()
    # Said in full, or for people.
    for key in ("attention", "dtype", "device", "inputs", "isolated", "diagnosis", "mistakes"):
        del about[key]
    certificate = {
        "format": f"{FORMAT} {NUMBER}",
        "note": NOTE,
        "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **about,
        "files": {file: sha256_of(copy.folder / file) for file in sorted(copy.sha256)},
        "options": {
            "attention": report.attention,
            "cache": proof.question.cache,
            "isolated": report.isolated,
        },
        "inputs": _inputs(truth.inputs),
        "checkpoints": [
            {
                **checkpoint,
                "official_sha256": tensor_sha256(truth.tensors[checkpoint["name"]]),
                "rebuilt_sha256": tensor_sha256(proof.rebuilt[checkpoint["name"]])
                if checkpoint["name"] in proof.rebuilt
                else None,
            }
            for checkpoint in about["checkpoints"]
        ],
        "worst": _worst(proof),
    }
    written: dict[str, Any] = json.loads(canonical({**certificate, "digest": digest(certificate)}))
    return written  # as a file gives it back


def _inputs(inputs: Inputs) -> dict[str, Any]:
    """The texts and ids, row by row without padding, and one sum over all of it."""
    decoder = None
    if inputs.decoder_ids is not None and inputs.decoder_mask is not None:
        decoder = Inputs(inputs.decoder_ids, inputs.decoder_mask).rows
    content = {"texts": list(inputs.texts), "token_ids": inputs.rows, "decoder_ids": decoder}
    if _too_many(inputs.rows, decoder or []):
        raise InputError(
            f"a certificate holds {MOST_TOKENS} tokens at the most, {LONGEST_ROW} in a text; give it less"
        )
    return {**content, "tokens": inputs.count, "sha256": sum_of_inputs(content)}


def sum_of_inputs(inputs: Mapping[str, Any]) -> str:
    """The sha256 of the texts and ids."""
    content = {key: inputs[key] for key in ("texts", "token_ids", "decoder_ids")}
    return hashlib.sha256(canonical(content)).hexdigest()


def _too_many(rows: Sequence[Sequence[int]], decoder_rows: Sequence[Sequence[int]]) -> bool:
    longest = max(map(len, (*rows, *decoder_rows)))
    return longest > LONGEST_ROW or longest * len(rows) > MOST_TOKENS


def _worst(proof: Proof) -> dict[str, Any] | None:
    """The largest difference anywhere, and where; a NaN on one side only is larger than any number."""
    measured = [v for v in proof.report.verdicts if v.max_abs_diff is not None]
    if not measured:
        return None
    worst = max(measured, key=lambda v: math.inf if math.isnan(v.max_abs_diff or 0) else v.max_abs_diff or 0)
    return {"name": worst.name, "max_abs_diff": finite(worst.max_abs_diff), "max_ulp": worst.max_ulp}


def tensor_sha256(tensor: Tensor) -> str:
    """A sum over a tensor's dtype, shape and bits."""
    kind = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n"
    sum_ = hashlib.sha256(kind.encode())
    sum_.update(memory_of(tensor).numpy().data)
    return sum_.hexdigest()


def digest(certificate: Mapping[str, Any]) -> str:
    """The sha256 of everything in a certificate but its digest: keys sorted, no spaces, ASCII."""
    content = {key: value for key, value in certificate.items() if key != "digest"}
    return f"sha256:{hashlib.sha256(canonical(content)).hexdigest()}"


def canonical(content: Any) -> bytes:
    """JSON in the one form over which sums are made. ValueError for numbers that JSON has not."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


# ----------------------------------------------------------------------------------- reading it


def read(file: str | Path) -> dict[str, Any]:
    """A certificate from a file that may be anything. InputError says in one line what is wrong with it.

    What is looked at here is what running it again needs, and that it is whole. The rest is held against the
    new certificate.
    """
    advice = "`llm-rebuild verify NAME --certificate FILE` writes one"
    certificate: dict[str, Any] = files.read_json(Path(file), advice, LARGEST_FILE)
    format_ = certificate.get("format")
    if not isinstance(format_, str) or not format_.startswith(f"{FORMAT} "):
        raise InputError(f"{file} is no certificate; {advice}")
    if format_ != f"{FORMAT} {NUMBER}":
        number = repr(format_.removeprefix(f"{FORMAT} "))[:20]
        raise InputError(
            f"{file} has format {number}; this llm_rebuild reads {NUMBER}, another release made it"
        )
    try:
        content_digest = digest(certificate)
    except (ValueError, RecursionError):  # NaN, infinities, half characters
        raise InputError(f"{file} holds what no certificate does; {advice}") from None
    if certificate.get("digest") != content_digest:
        raise InputError(f"{file} was changed after it was written: its digest does not fit; {advice}")
    for key, wanted in _WANTED.items():
        if key not in certificate:
            raise InputError(f"{file}: {key} is missing; {advice}")
        check(certificate[key], wanted, f"{file}: {key}")
    _check_inputs(certificate["inputs"], f"{file}: inputs")
    names = [checkpoint["name"] for checkpoint in certificate["checkpoints"]]
    if len(set(names)) != len(names):
        raise InputError(f"{file}: checkpoints has a name twice; {advice}")
    return certificate


VERDICTS = (  # from best to worst; within a kind the larger number is worse
    ("bit-identical", None),
    (r"\d+ ulp", "max_ulp"),
    (r"\d+ decimals", "max_abs_diff"),
    ("rounding", "max_abs_diff"),
    ("wrong values", "max_abs_diff"),
    ("wrong dtype", None),
    ("wrong shape", None),
    ("missing", None),
)


def rank(checkpoint: Mapping[str, Any]) -> tuple[float, float]:
    """How good a verdict is; 0 is best. Within a kind by how much is wrong, of which NaN is null."""
    for kind, (pattern, amount) in enumerate(VERDICTS):
        if re.fullmatch(pattern, checkpoint["verdict"]):
            size = checkpoint[amount] if amount else 0.0
            return (kind, math.inf if size is None else float(size))
    return (len(VERDICTS), 0.0)


_COUNT = whole()
_SIZE = Kind("a number from 0", lambda v: type(v) in (int, float) and 0 <= v < math.inf)
_VERDICT = Kind(
    "a verdict", lambda v: isinstance(v, str) and any(re.fullmatch(word, v) for word, _ in VERDICTS)
)
_DATE = Kind(
    "a date", lambda v: isinstance(v, str) and bool(re.fullmatch(r"\d{4}(-\d\d){2}T\d\d(:\d\d){2}\+00:00", v))
)
_ROWS = Kind("rows of ids or null", lambda v: v is None or isinstance(v, list))
_WANTED: dict[str, Any] = {
    "made": _DATE,
    "model": {"name": WORD, "source": WORD, "revision": or_null(WORD), "sha256": SHA256},
    "files": Each(SHA256),
    "environment": {
        **dict.fromkeys(
            environment(), Kind("a short text or a number", lambda v: WORD.accepts(v) or _COUNT.accepts(v))
        ),
        "dtype": one_of(*DTYPES),
    },
    "options": {"attention": one_of(*ATTENTIONS), "cache": FLAG, "isolated": FLAG},
    "inputs": {
        "texts": [TEXT],
        "token_ids": [[_COUNT]],
        "decoder_ids": _ROWS,
        "tokens": _COUNT,
        "sha256": SHA256,
    },
    "checkpoints": [
        {
            "name": WORD,
            "shape": [_COUNT],
            "dtype": WORD,
            "verdict": _VERDICT,
            "max_abs_diff": or_null(_SIZE),
            "max_ulp": or_null(_COUNT),
            "decimals": or_null(_COUNT),
            "coupled": FLAG,
            "official_sha256": SHA256,
            "rebuilt_sha256": or_null(SHA256),
        }
    ],
    "coverage": Kind("an object or null", lambda v: v is None or isinstance(v, dict)),
}


def _check_inputs(inputs: Mapping[str, Any], path: str) -> None:
    """What the kinds alone do not say: how many rows, how long, and that all of it belongs together."""
    rows, decoder_rows = inputs["token_ids"], inputs["decoder_ids"]
    if decoder_rows is not None:
        check(decoder_rows, [[_COUNT]], f"{path}.decoder_ids")
    every = [*rows, *(decoder_rows or ())]
    if not rows or not all(every):
        raise InputError(f"{path}.token_ids has no ids")
    if _too_many(rows, decoder_rows or []):
        raise InputError(f"{path} has more tokens than a certificate can have")
    if inputs["texts"] and len(inputs["texts"]) != len(rows):
        raise InputError(f"{path}.texts and inputs.token_ids are not equally many")
    if inputs["sha256"] != sum_of_inputs(inputs):
        raise InputError(f"{path}.sha256 is not the sum of these texts and ids")
