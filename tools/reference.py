"""The reference pages of checkpoints, written from the models' own lists.

python -m tools.reference            # writes docs/reference/checkpoints-*.md
python -m tools.reference --check    # exit 1 if a page is not what would be written now
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llm_rebuild.checkpoints import Checkpoint
from llm_rebuild.models import RECORDS

PAGES = Path(__file__).parent.parent / "docs" / "reference"
MODELS = {record.published: record for record in RECORDS}
# How many blocks the published model has, and what it is called, where its record does not say it.
BLOCKS, TITLES = {"minilm": 6}, {"t5-small": "T5-small"}

HEAD = """---
hide: [toc]
search:
  boost: 0.25
---

# Checkpoints of {title}

Every interim tensor of the {title} rebuild, in the order in which it is computed. `N` is the number of a
block, from 0.
A name here is the name in the weight file, in `capture[...]`, in a report and in this page's address:
`#{example}` leads to its row.

| checkpoint | shape | what it holds | where the official model shows it |
|---|---|---|---|
"""


def page(name: str) -> str:
    """One model's page, as Markdown."""
    record, title = MODELS[name], TITLES.get(name, MODELS[name].title)
    checkpoints, depth = (
        record.checkpoints,
        BLOCKS.get(name) or getattr(record.config, record.stacks[0].blocks),
    )
    rows, seen = [], set()
    for c in checkpoints:
        anchors = ""
        if c.name not in seen:  # a name with two sources, one an attention, has two rows and one address
            blocks = range(depth if "{layer}" in c.name else 1)
            anchors = "".join(f'<span id="{c.name.replace("{layer}", str(i))}"></span>' for i in blocks)
            seen.add(c.name)
        rows.append(
            f"| {anchors}`{c.name.replace('{layer}', 'N')}` | `{c.shape}` | {c.meaning} | {_source(c)} |"
        )
    example = checkpoints[-1].name.replace("{layer}", "0")
    closing = "\n\nThis page is written by `python -m tools.reference`.\n"
    return HEAD.format(title=title, example=example) + "\n".join(rows) + closing


def _source(c: Checkpoint) -> str:
    words = "output of the module" if c.source == "output" else f"`{c.source}`"
    only = ", ".join(sorted(c.only))
    return f"{words} (only: {only})" if only else words


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed pages, write nothing"
    )
    check = parser.parse_args().check
    stale = []
    for name in MODELS:
        file, text = PAGES / f"checkpoints-{name}.md", page(name)
        if check and (not file.is_file() or file.read_text(encoding="utf-8") != text):
            stale.append(file.name)
        elif not check:
            file.write_text(text, encoding="utf-8")
    if stale:
        print(
            f"not what would be written now: {', '.join(stale)}; run `python -m tools.reference`",
            file=sys.stderr,
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
