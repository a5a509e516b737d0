"""What a verification proved, written down so that anybody can run it again and see what has changed.

A certificate names everything that the result rests on (files, versions, input, options) and everything that
was found (each verdict, and a sum over the bits of each tensor on both sides). The digest over it shows that
a file was damaged or edited. It is no signature: whoever edits the file can make a new digest. What convinces
is not the file but `recheck`, which believes none of it, makes the whole certificate anew, and compares the
two key by key.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llm_rebuild import files
from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.copies.pins import PINS
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.errors import InputError
from llm_rebuild.files import sha256_of
from llm_rebuild.json_fields import FLAG, SHA256, TEXT, WORD, Each, Kind, check, one_of, or_null, shown, whole
from llm_rebuild.models.part import ATTENTIONS
from llm_rebuild.proof import isolation
from llm_rebuild.using.inputs import Inputs
from llm_rebuild.verify import Proof, ask, prove
from llm_rebuild.verify.compare import finite
from llm_rebuild.verify.environment import environment

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
    for key in ("attention", "inputs", "isolated", "diagnosis", "mistakes"):  # said in full, or for people
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
    written: dict[str, Any] = json.loads(_canonical({**certificate, "digest": digest(certificate)}))
    return written  # as a file gives it back


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
    content = {"texts": list(inputs.texts), **rows}
    return {**content, "tokens": inputs.count, "sha256": sum_of_inputs(content)}


def sum_of_inputs(inputs: Mapping[str, Any]) -> str:
    """The sha256 of the texts and ids."""
    content = {key: inputs[key] for key in ("texts", "token_ids", "decoder_ids")}
    return hashlib.sha256(_canonical(content)).hexdigest()


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
    """A certificate from a file that may be anything. InputError says in one line what is wrong with it.

    What is looked at here is what running it again needs, and that it is whole. The rest is held against the
    new certificate.
    """
    advice = "`llm-rebuild verify NAME --certificate FILE` writes one"
    certificate = files.read_json(Path(file), advice, LARGEST_FILE)
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


def _rank(checkpoint: Mapping[str, Any]) -> tuple[float, float]:
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
    "environment": dict.fromkeys(
        environment(), Kind("a short text or a number", lambda v: WORD.accepts(v) or _COUNT.accepts(v))
    ),
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
    longest = max(map(len, every))
    if longest > LONGEST_ROW or longest * len(rows) > MOST_TOKENS:
        raise InputError(f"{path} has more tokens than a certificate can have")
    if inputs["texts"] and len(inputs["texts"]) != len(rows):
        raise InputError(f"{path}.texts and inputs.token_ids are not equally many")
    if inputs["sha256"] != sum_of_inputs(inputs):
        raise InputError(f"{path}.sha256 is not the sum of these texts and ids")


# ----------------------------------------------------------------------------- running it again

SAME, OTHER, BETTER, WORSE = "same", "other", "better", "worse"
SHOWN = 5  # changes of one kind that are told one by one


@dataclass(frozen=True)
class Change:
    """One line of what a recheck found.

    kind  `same`; `other` (not as it was, and no verdict depends on it); `better`; or `worse`, which is also
          whatever the new certificate does not bear out.
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
            return "the certificate holds: all but its date came out again, to the bit"
        return "the certificate holds: not all is as it was, and no verdict is worse"

    def to_json(self) -> dict[str, Any]:
        changes = [{"kind": c.kind, "what": c.what, "text": c.text} for c in self.changes]
        return {"holds": self.holds, "changes": changes, "certificate": dict(self.certificate)}


def recheck(
    certificate: Mapping[str, Any],
    model: str | Path | None = None,
    *,
    store: str | Path | None = None,
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
    question = ask(
        copy,
        inputs["texts"] or None,
        token_ids=None if inputs["texts"] else inputs["token_ids"],
        decoder_ids=inputs["decoder_ids"],
        attention=options["attention"],
        use_cache=options["cache"],
    )
    again = isolation.prove_isolated if options["isolated"] else prove
    proof = again(question, coverage=certificate["coverage"] is not None, progress=progress)
    now = certify(explain(proof))
    return Recheck(tuple(changes(certificate, now)), now)


def _copy_meant(about: Mapping[str, Any], model: str | Path | None, store: str | Path | None) -> LocalCopy:
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
    """What differs between two certificates of one model, in the order in which one rests on another. Every
    key of either takes part but the date, and the digest over it."""
    checkpoints, same_place = now["checkpoints"], before["environment"] == now["environment"]
    identical = sum(checkpoint["verdict"] == VERDICTS[0][0] for checkpoint in checkpoints)
    bits = f"all {len(checkpoints)} tensors as they were"
    parts = {
        "files": f"all {len(now['files'])} as they were",
        "environment": "as it was",
        "input": "as it was",
        "checkpoints": "",
        "official bits": bits,
        "rebuilt bits": bits,
        "verdicts": f"as they were, {identical} of {len(checkpoints)} checkpoints bit-identical",
        "coverage": f"{now['coverage']['share']:.1%} as before"
        if now["coverage"]
        else "not measured, as before",
        "leaks": "".join(now["leaks"] or ()),
        "all the rest": "as it was",
    }
    lines: dict[str, list[Change]] = {part: [] for part in parts}
    for path, was, is_ in _differences(_by_name(before), _by_name(now)):
        if path == ("order",) and set(was) != set(is_):
            continue  # which ones are new and gone is told
        part = _part_of(path)
        kind = _verdict_kind(was, is_) if part == "verdicts" else _kind(path, was, is_, same_place)
        lines[part].append(Change(kind, part, _sentence(path, was, is_)))
    listed: list[Change] = []
    for part, same in parts.items():
        listed += _shortened(lines[part], part) if lines[part] else [Change(SAME, part, same)] if same else []
    return listed


Path_ = tuple[str, ...]
_ABSENT = object()
_NUMBERS = ("verdict", "max_abs_diff", "max_ulp", "decimals")  # of a checkpoint: they are told of together


def _by_name(certificate: Mapping[str, Any]) -> dict[str, Any]:
    """A certificate as it is compared: its checkpoints by their names, each with its place in the order."""
    about = {key: value for key, value in certificate.items() if key not in ("made", "digest")}
    about["checkpoints"] = {
        checkpoint["name"]: {
            **{key: value for key, value in checkpoint.items() if key not in _NUMBERS},
            "verdict": {key: checkpoint[key] for key in (*_NUMBERS, "official_sha256", "rebuilt_sha256")},
        }
        for checkpoint in certificate["checkpoints"]
    }
    about["order"] = list(about["checkpoints"])
    return about


def _differences(before: Any, now: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any, Any]]:
    """Every value that differs between two JSON values, by its path. What one side lacks is `_ABSENT`."""
    if path[:1] == ("checkpoints",) and path[2:] == ("verdict",):
        if any(_canonical(before[key]) != _canonical(now[key]) for key in _NUMBERS):
            yield path, before, now
    elif isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(key, _ABSENT), now.get(key, _ABSENT), (*path, key))
    elif before is _ABSENT or now is _ABSENT or _canonical(before) != _canonical(now):  # 1 is not true
        yield path, before, now


def _part_of(path: Path_) -> str:
    """Which line tells of a difference."""
    if path[0] == "checkpoints" and len(path) > 2:
        sums = {"official_sha256": "official bits", "rebuilt_sha256": "rebuilt bits", "verdict": "verdicts"}
        return sums.get(path[-1], "checkpoints")
    parts = {"inputs": "input", "order": "checkpoints"}
    parts |= {key: key for key in ("files", "environment", "checkpoints", "coverage", "leaks")}
    return parts.get(path[0]) or "all the rest"


def _kind(path: Path_, was: Any, is_: Any, same_place: bool) -> str:
    """Whether another place explains a difference. Where numbers were made, and what the folder is called, is
    the word of whoever made the certificate: it cannot be borne out, and nothing depends on it."""
    if was is _ABSENT or is_ is _ABSENT:
        return WORSE
    if path[0] == "environment" or path in (("model", "name"), ("model", "source")):
        return OTHER
    if same_place:
        return WORSE
    if path == ("coverage", "share"):
        return WORSE if is_ < was else BETTER
    bits = path[0] == "checkpoints" and path[-1] in ("official_sha256", "rebuilt_sha256")
    return OTHER if bits or path[0] in ("summary", "worst", "first_divergence", "coverage") else WORSE


def _verdict_kind(was: Mapping[str, Any], is_: Mapping[str, Any]) -> str:
    """Whether a verdict is better or worse. Of the same bits on both sides there is only one."""
    if all(was[side] == is_[side] for side in ("official_sha256", "rebuilt_sha256")):
        return WORSE
    before, now = _rank(was), _rank(is_)
    return WORSE if now > before else BETTER if now < before else OTHER


def _sentence(path: Path_, was: Any, is_: Any) -> str:
    """`threads is 2, was 1`."""
    name = path[1] if path[0] == "checkpoints" and len(path) > 1 else ".".join(path)
    if path[0] in ("files", "environment", "inputs"):
        name = ".".join(path[1:])
    if path[0] == "checkpoints" and len(path) > 2 and path[-1] != "verdict":
        name = f"{path[-1]} of {name}"
    if is_ is _ABSENT:
        return f"{name} is not there any more"
    return f"{name} is new" if was is _ABSENT else f"{name} is {_shown(is_)}, was {_shown(was)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "rebuilt_sha256" in value:  # a checkpoint's numbers
        size = value["max_abs_diff"]
        return f"{value['verdict']}, off by {size:.2g}" if size else str(value["verdict"])
    if SHA256.accepts(value):
        return f"{value[:12]}…"
    return value if isinstance(value, str) and len(value) <= 60 else shown(value)


def _shortened(lines: Sequence[Change], part: str) -> list[Change]:
    """The first few, the worst in front. Of sums, which tell nothing one by one, only how many."""
    ordered = sorted(lines, key=lambda change: (WORSE, OTHER, BETTER).index(change.kind))
    if part.endswith("bits"):
        first = ordered[0].text.partition(" is ")[0].rpartition(" ")[2]
        return [Change(ordered[0].kind, part, f"{len(lines)} tensors have other bits, the first is {first}")]
    more = [Change(ordered[SHOWN].kind, part, f"and {len(ordered) - SHOWN} more")] if ordered[SHOWN:] else []
    return ordered[:SHOWN] + more
