"""What a verification proved, written down so that anybody can run it again and see what has changed.

A certificate names everything that the result rests on (files, versions, input, options) and everything that
was found (each verdict, and a sum over the bits of each tensor on both sides). The digest over it shows that
a file was damaged or edited. It is no signature: whoever edits the file can make a new digest. What convinces
is not the file but `recheck`, which believes none of it and runs the verification again.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.hub import sha256_of
from llm_rebuild.copies.local_copy import MINIATURES, PINS, LocalCopy
from llm_rebuild.errors import InputError
from llm_rebuild.proof import isolation
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify import Proof, prove
from llm_rebuild.verify.report import finite

FORMAT = "llm_rebuild certificate"
NUMBER = 1
NOTE = "The digest shows damage and edits. It is no signature; `llm-rebuild recheck` runs everything again."

# What a certificate may hold. A file that asks for more is refused before anything is computed.
LARGEST_FILE = 64 * 2**20  # bytes
MOST_TOKENS, LONGEST_ROW = 2**18, 2**14


# ----------------------------------------------------------------------------------- writing it


def certify(copy: LocalCopy, proof: Proof, use_cache: bool = False) -> dict[str, Any]:
    """The certificate of a verification, JSON-ready. Hashes every file of the local copy as it is now."""
    report, truth = proof.report, proof.truth
    found = report.to_json()
    certificate = {
        "format": f"{FORMAT} {NUMBER}",
        "note": NOTE,
        "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "model": found["model"],
        "files": {file: sha256_of(copy.folder / file) for file in sorted(copy.sha256)},
        "environment": found["environment"],
        "options": {"attention": report.attention, "cache": use_cache, "isolated": report.isolated},
        "inputs": _inputs(truth.inputs),
        "checkpoints": [
            {
                **checkpoint,
                "official_sha256": tensor_sha256(truth.tensors[checkpoint["name"]]),
                "rebuilt_sha256": tensor_sha256(proof.rebuilt[checkpoint["name"]])
                if checkpoint["name"] in proof.rebuilt
                else None,
            }
            for checkpoint in found["checkpoints"]
        ],
        "summary": found["summary"],
        "worst": _worst(proof),
        **{key: found[key] for key in ("first_divergence", "coverage", "coupled", "leaks")},
    }
    return {**certificate, "digest": digest(certificate)}


def _inputs(inputs: Inputs) -> dict[str, Any]:
    """The texts and ids, row by row without padding, and one sum over all of it."""
    rows = {"token_ids": _rows(inputs.token_ids, inputs.mask), "decoder_ids": None}
    if inputs.decoder_ids is not None and inputs.decoder_mask is not None:
        rows["decoder_ids"] = _rows(inputs.decoder_ids, inputs.decoder_mask)
    longest = max(len(row) for row in (*(rows["token_ids"] or ()), *(rows["decoder_ids"] or ())))
    if longest > LONGEST_ROW or inputs.token_ids.numel() > MOST_TOKENS:
        raise InputError(
            f"a certificate holds {MOST_TOKENS} tokens at the most, {LONGEST_ROW} in a text; give it less"
        )
    given = {"texts": list(inputs.texts), **rows}
    return {**given, "tokens": inputs.count, "sha256": hashlib.sha256(_canonical(given)).hexdigest()}


def _rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]


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
    sum_.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return sum_.hexdigest()


def digest(certificate: Mapping[str, Any]) -> str:
    """The sha256 of everything in a certificate but its digest: keys sorted, no spaces, ASCII."""
    content = {key: value for key, value in certificate.items() if key != "digest"}
    return f"sha256:{hashlib.sha256(_canonical(content)).hexdigest()}"


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


# ----------------------------------------------------------------------------------- reading it


def read(file: str | Path) -> dict[str, Any]:
    """A certificate from a file that may be anything. InputError says in one line what is wrong with it."""
    file = Path(file)
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from None
    if len(content) > LARGEST_FILE:
        raise InputError(f"{file} is larger than {LARGEST_FILE >> 20} MB; no certificate is")
    advice = "`llm-rebuild verify NAME --certificate FILE` writes one"
    try:
        certificate = json.loads(content)  # NaN and infinities: `digest` refuses them
        content_digest = digest(certificate) if isinstance(certificate, dict) else None
    except (ValueError, RecursionError):
        raise InputError(f"{file} is not JSON, so it is no certificate; {advice}") from None
    format_ = certificate.get("format") if isinstance(certificate, dict) else None
    if not isinstance(format_, str) or not format_.startswith(f"{FORMAT} "):
        raise InputError(f"{file} is no certificate; {advice}")
    if format_ != f"{FORMAT} {NUMBER}":
        number = repr(format_.removeprefix(f"{FORMAT} "))[:20]
        raise InputError(
            f"{file} has format {number}; this llm_rebuild reads {NUMBER}, another release made it"
        )
    if certificate.get("digest") != content_digest:
        raise InputError(f"{file} was changed after it was written: its digest does not fit; {advice}")
    try:
        _check(certificate, _SCHEMA, "")
        _check_sizes(certificate)
    except _WrongError as wrong:
        raise InputError(f"{file} is no certificate as llm_rebuild writes it: {wrong}; {advice}") from None
    return dict(certificate)


class _WrongError(Exception):
    """Where the content is not as it should be."""


@dataclass(frozen=True)
class _Is:
    """A value that a test accepts, and that in words."""

    words: str
    test: Callable[[Any], bool]


@dataclass(frozen=True)
class _Each:
    """An object with any keys (at most `most`) whose every value is like this."""

    value: Any
    most: int = 1000


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 300 and value.isprintable()


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _or_null(kind: _Is) -> _Is:
    return _Is(f"{kind.words} or null", lambda value: value is None or kind.test(value))


_WORD = _Is("a short text", _is_word)
_SUM = _Is("a sha256", _is_sha256)
_COUNT = _Is("a whole number from 0", _is_count)
_NUMBER = _Is("a number from 0", _is_number)
_FLAG = _Is("true or false", lambda value: type(value) is bool)
_ANY_ROWS = _Is("rows of ids or null", lambda value: value is None or isinstance(value, list))
_SCHEMA: dict[str, Any] = {
    "made": _WORD,
    "model": {"name": _WORD, "source": _WORD, "revision": _or_null(_WORD), "sha256": _SUM},
    "files": _Each(_SUM),
    "environment": _Each(_Is("a short text or a number", lambda v: _is_word(v) or _is_count(v))),
    "options": {
        "attention": _Is("eager or sdpa", lambda value: value in ("eager", "sdpa")),
        "cache": _FLAG,
        "isolated": _FLAG,
    },
    "inputs": {
        "texts": [_Is("a text", lambda value: isinstance(value, str))],
        "token_ids": [[_COUNT]],
        "decoder_ids": _ANY_ROWS,
        "tokens": _COUNT,
        "sha256": _SUM,
    },
    "checkpoints": [
        {
            "name": _WORD,
            "shape": [_COUNT],
            "dtype": _WORD,
            "verdict": _WORD,
            "max_abs_diff": _or_null(_NUMBER),
            "max_ulp": _or_null(_COUNT),
            "decimals": _or_null(_COUNT),
            "official_sha256": _SUM,
            "rebuilt_sha256": _or_null(_SUM),
        }
    ],
    "coverage": _Is("an object or null", lambda value: value is None or isinstance(value, dict)),
    "coupled": [_WORD],
    "leaks": _Is("a list or null", lambda value: value is None or isinstance(value, list)),
}


def _check(value: Any, wanted: Any, where: str) -> None:
    """Compare a value with what is wanted of it: an object of at least these keys, a list of such, …"""
    if isinstance(wanted, _Is):
        if not wanted.test(value):
            raise _WrongError(f"{where} is not {wanted.words}")
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            raise _WrongError(f"{where} is not a list")
        for number, item in enumerate(value):
            _check(item, wanted[0], f"{where}[{number}]")
    elif not isinstance(value, dict):
        raise _WrongError(f"{where} is not an object")
    elif isinstance(wanted, _Each):
        if len(value) > wanted.most or not all(_is_word(key) for key in value):
            raise _WrongError(f"{where} has keys that it cannot have")
        for key, item in value.items():
            _check(item, wanted.value, f"{where}.{key}")
    else:
        for key, inner in wanted.items():
            path = f"{where}.{key}" if where else key
            if key not in value:
                raise _WrongError(f"{path} is missing")
            _check(value[key], inner, path)


def _check_sizes(certificate: Mapping[str, Any]) -> None:
    """What the shapes alone do not say: how many rows, how long, and that names are not given twice."""
    inputs = certificate["inputs"]
    rows, decoder_rows = inputs["token_ids"], inputs["decoder_ids"]
    if decoder_rows is not None:
        _check(decoder_rows, [[_COUNT]], "inputs.decoder_ids")
    every = [*rows, *(decoder_rows or ())]
    if not rows or not all(every):
        raise _WrongError("inputs.token_ids has no ids")
    longest = max(map(len, every))
    if longest > LONGEST_ROW or longest * len(rows) > MOST_TOKENS:
        raise _WrongError("inputs has more tokens than a certificate can have")
    if inputs["texts"] and len(inputs["texts"]) != len(rows):
        raise _WrongError("inputs.texts and inputs.token_ids are not equally many")
    names = [checkpoint["name"] for checkpoint in certificate["checkpoints"]]
    if len(set(names)) != len(names):
        raise _WrongError("checkpoints has a name twice")
    coverage = certificate["coverage"]
    if coverage is not None and not _is_number(coverage.get("share")):
        raise _WrongError("coverage.share is not a number from 0")


# ----------------------------------------------------------------------------- running it again

SAME, OTHER, BETTER, WORSE = "same", "other", "better", "worse"


@dataclass(frozen=True)
class Change:
    """One line of what a recheck found.

    kind  `same`; `other` (not as it was, and nothing depends on it); `better`; or `worse`, which is also
          what could not be compared because something is missing.
    """

    kind: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.what}: {self.text}"


@dataclass(frozen=True)
class Recheck:
    """What has changed since a certificate was written, and the new one."""

    changes: tuple[Change, ...]
    certificate: Mapping[str, Any]

    @property
    def holds(self) -> bool:
        """Whether nothing got worse; bits may differ in another environment only."""
        return not any(change.kind == WORSE for change in self.changes)

    def closing(self) -> str:
        """The result in one line."""
        worse = [change.what for change in self.changes if change.kind == WORSE]
        if worse:
            return f"the certificate does not hold: {', '.join(dict.fromkeys(worse))}"
        if all(change.kind == SAME for change in self.changes):
            return "the certificate holds: everything is as it was, to the bit"
        return "the certificate holds: not everything is as it was, and no verdict is worse"

    def to_json(self) -> dict[str, Any]:
        changes = [{"kind": c.kind, "what": c.what, "text": c.text} for c in self.changes]
        return {"holds": self.holds, "changes": changes, "certificate": dict(self.certificate)}


def recheck(
    certificate: Mapping[str, Any],
    model: str | Path | None = None,
    *,
    store: Path | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Recheck:
    """Run the verification of a certificate again, and say what has changed.

    certificate  What `read` gave.
    model        Where the model is, for a certificate about a folder: its path is not written down.
    Raises InputError where the model is not there any more, or its weights are others.
    """
    copy = _copy_meant(certificate["model"], model, store)
    weights, wanted = sha256_of(copy.weights_file), certificate["model"]["sha256"]
    if weights != wanted:
        raise InputError(
            f"{copy.weights_file} has sha256 {weights[:12]}…, the certificate is about {wanted[:12]}…: "
            "these are other weights; name the folder of the right ones with --model"
        )
    options, inputs = certificate["options"], certificate["inputs"]
    given: dict[str, Any] = {"texts": inputs["texts"] or None, "decoder_ids": inputs["decoder_ids"]}
    if not inputs["texts"]:
        given["token_ids"] = inputs["token_ids"]
    again = isolation.prove_isolated if options["isolated"] else prove
    proof = again(
        copy,
        attention=options["attention"],
        use_cache=options["cache"],
        coverage=certificate["coverage"] is not None,
        progress=progress,
        **given,
    )
    now = certify(copy, proof, options["cache"])
    return Recheck(tuple(changes(certificate, now)), now)


def _copy_meant(about: Mapping[str, Any], model: str | Path | None, store: Path | None) -> LocalCopy:
    """The local copy that a certificate is about. The file says a name; it never says where to look."""
    name = about["name"]
    if model is not None:
        return local_copy.get(model, store=store, strict=True)
    if about["source"] == "miniature" and name in PINS:
        return LocalCopy(name, MINIATURES / name, "miniature")
    if name not in PINS or about["revision"] is None:
        raise InputError(f"the certificate is about a folder called {name}; say where it is with --model DIR")
    if not (local_copy.store_folder(store) / name).exists():
        raise InputError(
            f"{name} is not in the store any more; `llm-rebuild download {name}` brings it back, or name a "
            "folder with its files with --model"
        )
    return local_copy.get(name, store=store, strict=True)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """What differs between two certificates of one model, in the order in which one rests on another."""
    same_place = before["environment"] == now["environment"]
    found = [
        *_changes_of_files(before["files"], now["files"]),
        *_changes_of_words("environment", before["environment"], now["environment"]),
    ]
    found += [
        Change(WORSE, "input", f"the {what} are others; the tokenizer or its files changed")
        for what in ("token_ids", "decoder_ids")
        if before["inputs"][what] != now["inputs"][what]
    ]
    found += _changes_of_bits(before["checkpoints"], now["checkpoints"], same_place)
    found += _changes_of_verdicts(before["checkpoints"], now["checkpoints"])
    share, share_now = (_share(certificate) for certificate in (before, now))
    if share == share_now:
        found.append(Change(SAME, "coverage", f"{share:.1%} as before"))
    else:
        kind = WORSE if share_now < share else BETTER
        found.append(Change(kind, "coverage", f"{share_now:.1%}, was {share:.1%}"))
    if now["leaks"]:
        kind = WORSE if now["leaks"] != before["leaks"] else SAME
        found += [Change(kind, "leak", str(leak)) for leak in now["leaks"]]
    return found


def _share(certificate: Mapping[str, Any]) -> float:
    return float(certificate["coverage"]["share"]) if certificate["coverage"] else 0.0


def _changes_of_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    gone = [Change(WORSE, "files", f"{file} is not there any more") for file in before if file not in now]
    new = [Change(OTHER, "files", f"{file} is new") for file in now if file not in before]
    other = [
        Change(WORSE, "files", f"{file} is another: sha256 {now[file][:12]}…, was {sum_[:12]}…")
        for file, sum_ in before.items()
        if now.get(file, sum_) != sum_
    ]
    return [*gone, *new, *other] or [Change(SAME, "files", f"all {len(before)} as they were")]


def _changes_of_words(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    keys = dict.fromkeys((*before, *now))
    other = [key for key in keys if before.get(key) != now.get(key)]
    if not other:
        return [Change(SAME, what, "as it was")]
    return [Change(OTHER, what, f"{key} {now.get(key, '–')}, was {before.get(key, '–')}") for key in other]


def _changes_of_bits(before: list[Any], now: list[Any], same_place: bool) -> list[Change]:
    """Whether the tensors are the same to the bit, on each side. Elsewhere they need not be."""
    found = []
    for side in ("official", "rebuilt"):
        sums = {c["name"]: c[f"{side}_sha256"] for c in now}
        both = [c for c in before if c["name"] in sums]
        other = [c["name"] for c in both if sums[c["name"]] != c[f"{side}_sha256"]]
        if other:
            kind = WORSE if same_place else OTHER
            text = f"{len(other)} of {len(both)} tensors have other bits, the first is {other[0]}"
            found.append(Change(kind, f"{side} bits", text))
        else:
            found.append(Change(SAME, f"{side} bits", f"all {len(both)} tensors as they were"))
    return found


def _changes_of_verdicts(before: list[Any], now: list[Any]) -> list[Change]:
    there = {c["name"]: c for c in now}
    found = []
    gone = [c["name"] for c in before if c["name"] not in there]
    if gone:
        found.append(Change(WORSE, "checkpoints", f"{len(gone)} are gone, the first is {gone[0]}"))
    new = len(there) + len(gone) - len(before)
    if new:
        found.append(Change(OTHER, "checkpoints", f"{new} are new"))
    pairs = [(c, there[c["name"]]) for c in before if c["name"] in there]
    for kind, sign in ((WORSE, 1), (BETTER, -1)):
        moved = [(was, is_) for was, is_ in pairs if _compared(_rank(is_), _rank(was)) == sign]
        found += [
            Change(kind, "verdicts", f"{was['name']} is {is_['verdict']}, was {was['verdict']}")
            for was, is_ in moved[:5]
        ]
        if len(moved) > 5:
            found.append(Change(kind, "verdicts", f"and {len(moved) - 5} more"))
    if not any(change.what == "verdicts" for change in found):
        identical = sum(c["verdict"] == "bit-identical" for c in now)
        found.append(
            Change(SAME, "verdicts", f"as they were, {identical} of {len(now)} checkpoints bit-identical")
        )
    return found


def _compared(one: tuple[float, float], other: tuple[float, float]) -> int:
    return (one > other) - (one < other)


def _rank(checkpoint: Mapping[str, Any]) -> tuple[float, float]:
    """How good a verdict is; 0 is best. Within a kind by how much is wrong."""
    verdict = checkpoint["verdict"]
    kinds = ("bit-identical", " ulp", " decimals", "wrong values", "wrong dtype", "wrong shape", "missing")
    kind = next((n for n, ending in enumerate(kinds) if verdict.endswith(ending)), len(kinds))
    amount = {1: "max_ulp", 2: "max_abs_diff", 3: "max_abs_diff"}.get(kind)
    if amount is None:
        return (kind, 0.0)
    size = checkpoint[amount]
    return (kind, math.inf if size is None else float(size))
