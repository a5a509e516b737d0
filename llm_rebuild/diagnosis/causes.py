"""The catalogue of mistakes: what can go wrong when a transformer is rebuilt, each with one name.

The name is the cause that a diagnosis gives, the anchor of its section on the page of mistakes, and the label
of the mutants that make the mistake on purpose. The words are data, `causes.json`: by group, for each name a
clause that can stand behind "block 3: ", and what to do about it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

PAGE = "part-4/mistakes"

GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = json.loads(
    Path(__file__).with_suffix(".json").read_text(encoding="utf-8")
)
CAUSES = {cause: clause for group in GROUPS.values() for cause, (clause, _) in group.items()}
REMEDIES = {cause: remedy for group in GROUPS.values() for cause, (_, remedy) in group.items()}


def chapter(cause: str) -> str:
    """Where the course explains it: a page's path and an anchor."""
    return f"{PAGE}/#{cause}"
