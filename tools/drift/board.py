"""What the probes saw, release beside release: which checkpoints moved, how far, and where it began."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from llm_rebuild.weights import template
from tools.drift import LIBRARIES

NEWER = "A release that is newer than the pinned ones moved a checkpoint"
# Operations that compute no number: where one stands, nothing is rounded.
MOVES = {
    "view",
    "t",
    "transpose",
    "permute",
    "expand",
    "unsqueeze",
    "squeeze",
    "reshape",
    "contiguous",
    "detach",
}
MOVES |= {"to", "lift_fresh", "split", "slice", "index", "clone", "copy", "alias", "select", "unflatten"}
SHOWN = 4  # checkpoints in a row
OTHER = 1e-2  # of the largest number: so far apart two tensors are not the same one
NEAR_ZERO = 1e-3  # of the largest number: below it steps of a float are not counted


def order(release: str) -> tuple[int, ...]:
    """To sort releases by."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def board(folders: Sequence[Path], pinned: Mapping[str, str]) -> dict[str, Any]:
    """All comparisons: each release with the next one of the same library, the other library as pinned."""
    probes = {}
    for folder in folders:
        found = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
        probes[tuple(found["versions"].values())] = (folder, found)
    steps = []
    for place, library in enumerate(LIBRARIES):
        other = list(pinned.values())[1 - place]
        line = sorted((key for key in probes if key[1 - place] == other), key=lambda key: order(key[place]))
        for before, after in pairwise(line):
            runs = compared(*probes[before], *probes[after])
            steps.append({"library": library, "from": before[place], "to": after[place], "runs": runs})
    releases = [
        {**found["versions"], "runs": {name: _held(run) for name, run in found["runs"].items()}}
        for _, found in probes.values()
    ]
    releases.sort(key=lambda row: (order(row["transformers"]), order(row["torch"])))
    return {"pinned": dict(pinned), "releases": releases, "steps": steps}


def _held(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a release says of a model: how far the rebuild agrees, and what it has no tensor for."""
    if "error" in run:
        return {"error": _failure(run["error"])}
    return {key: run[key] for key in ("source", "rebuild", "missing")}


def compared(
    folder: Path, before: Mapping[str, Any], other: Path, after: Mapping[str, Any]
) -> dict[str, Any]:
    """Every model, in both spellings of attention: the official tensors of two releases."""
    from safetensors.torch import load_file  # with torch, which the page's test does not need

    runs = {}
    for name, run in before["runs"].items():
        new = after["runs"][name]
        if "error" in run or "error" in new:
            error = new["error"] if "error" in new else f"before: {run['error']}"
            runs[name] = {"error": _failure(error)}
            continue
        runs[name] = moved(load_file(folder / name), load_file(other / name), run["made"], new["made"])
    return runs


def moved(
    old: Mapping[str, Any], new: Mapping[str, Any], old_made: Mapping[str, Any], new_made: Mapping[str, Any]
) -> dict[str, Any]:
    """The checkpoints whose bits differ, and how far; and of those whose own inputs did not move, of what and
    by which operations each release made them."""
    from llm_rebuild.verify.equality import identical

    both = [name for name in new_made if name in old and name in new]
    far: dict[str, Any] = {}
    for name in both:
        if old[name].shape != new[name].shape or old[name].dtype != new[name].dtype:
            far[name] = {"shape": [list(old[name].shape), list(new[name].shape)]}
        elif not identical(old[name], new[name]):
            far[name] = _distance(old[name], new[name])
    began = {}
    for name in far:
        if not any(source in far for source in new_made[name]["of"]):
            began[name] = [_computation(made[name]) for made in (old_made, new_made)]
    only = {"gone": [n for n in old if n not in new], "new": [n for n in new if n not in old]}
    return {"checkpoints": len(both), "moved": far, "began": began, **only}


def _distance(old: Any, new: Any) -> dict[str, Any]:
    """How far a tensor moved: in steps of a float where its numbers are not small (near 0 the steps are so
    fine that their count says nothing), and as a share of its largest number. What a mask hides is left
    out."""
    from llm_rebuild.verify.equality import BEYOND, difference, largest, ulp_distance, usual

    shown = usual(old, BEYOND) & usual(new, BEYOND)
    size = largest(old[shown])
    clear = shown & (old.abs() >= size * NEAR_ZERO)
    steps = ulp_distance(old, new)[clear]
    share = difference(old[shown], new[shown]) / (size or 1.0)
    return {"ulp": int(steps.max()) if steps.numel() else 0, "share": float(f"{share:.2g}")}


def _computation(made: Mapping[str, Any]) -> dict[str, list[str]]:
    """Of which checkpoints a tensor was made, and by which operations that compute."""
    return {"of": sorted(made["of"]), "by": [word for word in made["by"] if word not in MOVES]}


# ------------------------------------------------------------------------------------------ in words


def page(numbers: Mapping[str, Any]) -> str:
    """The board as a page."""
    pins = numbers["pinned"]
    names = list(numbers["releases"][0]["runs"])
    lines = [
        "---",
        "description: Which interim tensors moved between releases of transformers and torch, and how far.",
        "---",
        "",
        "# Drift",
        "",
        "Bit-identical means: to the official model *of one release*. A newer transformers may add in",
        "another order, and a newer torch may bring another kernel; neither is wrong, and both move bits.",
        "Here the same verification ran under several releases, each in an environment of its own",
        "(`python -m tools.drift`), and the official tensors of each stand beside those of the next.",
        f"The course is pinned to transformers {pins['transformers']} and torch {pins['torch']}.",
        "",
        "## The rebuild against each release",
        "",
        "Checkpoints that the rebuild has to the bit, of those that the release computes. In brackets those",
        "that agree but for rounding.",
        "",
        f"| transformers | torch | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for row in numbers["releases"]:
        cells = (_cell(row["runs"][name]) for name in names)
        lines.append(f"| {row['transformers']} | {row['torch']} | {' | '.join(cells)} |")
    sources = {
        name.rpartition("-")[0]: run.get("source", "")
        for name, run in numbers["releases"][-1]["runs"].items()
    }
    real = ", ".join(
        f"{name}: {'a miniature' if s == 'miniature' else 'the published weights'}"
        for name, s in sources.items()
    )
    lines += ["", f"({real}.)", "", "## What moved between them", ""]
    for step in numbers["steps"]:
        lines += [f"### {step['library']} {step['from']} to {step['to']}", "", *_moves(step["runs"]), ""]
    return "\n".join(lines)


def _cell(run: Mapping[str, Any]) -> str:
    if "error" in run:
        return "does not run"
    held = run["rebuild"]
    count = sum(held.values())
    near = f" ({held['rounding']})" if held["rounding"] else ""
    lost = f"; {len(run['missing'])} not computed" if run["missing"] else ""
    return f"{held['identical']} of {count}{near}{lost}"


def _moves(runs: Mapping[str, Any]) -> list[str]:
    """What moved in each model, the first checkpoints with their operations."""
    still = [
        name
        for name, run in runs.items()
        if "error" not in run and not run["moved"] and not run["gone"] and not run["new"]
    ]
    lines = [f"- {', '.join(still)}: the same bits everywhere."] if still else []
    for name, run in runs.items():
        if "error" in run:
            lines.append(f"- {name}: {run['error']}")
            continue
        if run["moved"]:
            count = f"{len(run['moved'])} of {run['checkpoints']} checkpoints moved"
            lines.append(f"- {name}: {count}, {_far(run['moved'].values())}.")
            lines += [f"    - {line}" for line in _began(run)]
        for key, words in (("gone", "no longer computed"), ("new", "computed anew")):
            if run[key]:
                lines.append(f"- {name}: {words}: {_listed(run[key])}.")
    return lines or ["- Nothing was to be compared."]


def _far(moves: Iterable[Mapping[str, Any]]) -> str:
    """The largest of some distances."""
    moves = list(moves)
    if any("shape" in move for move in moves):
        return "in another shape"
    if any(move["share"] > OTHER for move in moves):
        return "where another tensor stands now"
    ulp = max(move["ulp"] for move in moves)
    share = max(move["share"] for move in moves)
    far = f"by {ulp:,} ulp at the most, {share:.1e} of the tensor's largest number"
    return far if ulp else "only where a mask hides something, or near 0"


def _began(run: Mapping[str, Any]) -> list[str]:
    """Where it began, blocks folded."""
    folded: dict[tuple[str, str, str], list[str]] = {}
    for name, (old, new) in run["began"].items():
        other = set(map(_short, old["of"])) != set(map(_short, new["of"]))
        key = (template(name), _in_words(old, other), _in_words(new, other))
        folded.setdefault(key, []).append(name)
    lines = []
    for (_, old, new), names in folded.items():
        how = f"before {old}, now {new}" if old != new else f"by the same operations ({new})"
        lines.append(f"it began at {_listed(names)}, {_far(run['moved'][name] for name in names)}: {how}")
    return lines


def _in_words(computation: Mapping[str, Sequence[str]], sources: bool) -> str:
    """The operations, and of what if that is asked."""
    by = f"`{', '.join(computation['by'])}`" if computation["by"] else "no operation of its own"
    return f"{by} of {_listed(list(map(_short, computation['of'])))}" if sources else by


def _listed(names: Sequence[str]) -> str:
    """Names, those of one step in several blocks said once."""
    folded: dict[str, list[str]] = {}
    for name in names:
        folded.setdefault(template(name), []).append(name)
    words = [
        f"`{same[0]}`" + (f" (in {len(same)} blocks)" if len(same) > 1 else "") for same in folded.values()
    ]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def _short(name: str) -> str:
    """A checkpoint's name without its block."""
    return ".".join(name.split(".")[-2:])


def _failure(error: str) -> str:
    """An error of a library, its beginning, without a path of the machine on which it was raised."""
    return re.sub(r"(?<!\S)/\S*/", "", error).partition("…")[0]


def issue(numbers: Mapping[str, Any]) -> str:
    """The text of an issue where a release newer than the pinned one moved something; else empty."""
    pins, lines = numbers["pinned"], list[str]()
    for step in numbers["steps"]:
        runs = {n: r for n, r in step["runs"].items() if "error" in r or r["moved"] or r["gone"]}
        if runs and order(step["to"]) > order(pins[step["library"]]):
            lines += [f"## {step['library']} {step['from']} to {step['to']}", "", *_moves(runs), ""]
    return "\n".join([f"# {NEWER}", "", *lines]) if lines else ""
