"""A certificate's verification, run again: the certificate is not believed, but made anew, and the two are
compared key by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import MINIATURES, LocalCopy
from llm_rebuild.copies.pins import NAMES, PINS
from llm_rebuild.diagnosis.explain import explain
from llm_rebuild.errors import InputError
from llm_rebuild.files import sha256_of
from llm_rebuild.json_fields import SHA256, shown
from llm_rebuild.proof import isolation
from llm_rebuild.proof.certificate import VERDICTS, canonical, certify, rank
from llm_rebuild.verify import ask, prove

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
        """What `recheck --json` writes."""
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
        dtype=certificate["environment"]["dtype"],
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
    if about["source"] == "miniature" and name in NAMES:
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
        if any(canonical(before[key]) != canonical(now[key]) for key in _NUMBERS):
            yield path, before, now
    elif isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(before.get(key, _ABSENT), now.get(key, _ABSENT), (*path, key))
    elif before is _ABSENT or now is _ABSENT or canonical(before) != canonical(now):  # 1 is not true
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
    before, now = rank(was), rank(is_)
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
