"""Numbers of the published GPT-2 and T5-small beside the miniatures', for the pages on these models.

    python -m tools.real_weights       # writes docs/reference/real-weights.json

It takes the real copies that are in the store, and leaves a model out that is not; the weekly run on the real
weights has both. A page prints the table of a model, where the file has it, in place of a comment
`real weights: gpt2` (mkdocs.yml has this file as a hook).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy

FILE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "real-weights.json"
MODELS = ("gpt2", "t5-small")
SENTENCE = "Open-source LLMs rock."
SHOWN = 5  # numbers of each checkpoint, those of the first token
MARK = re.compile(r"^<!-- real weights: (?P<model>[\w-]+) -->$", re.M)


def numbers_of(copy: LocalCopy) -> dict[str, list[float]]:
    """What goes into the blocks, what leaves the first and the last of them, the answer: of each the first
    numbers."""
    from llm_rebuild.verify import ask  # with torch, which the site's build does not need
    from llm_rebuild.verify.run import rebuild_run

    rebuild = copy.rebuild
    names = []
    for stack in rebuild.architecture.stacks:
        last = rebuild.depth[stack.path] - 1
        names += [stack.enters, stack.output(0), stack.output(last)]
    tensors = rebuild_run(ask(copy, SENTENCE))
    names.append(list(tensors)[-1])
    return {name: tensors[name][0, 0, :SHOWN].tolist() for name in names}


def measured(published: LocalCopy) -> dict[str, Any]:
    """One model's entry in the file."""
    miniature = LocalCopy(published.name, local_copy.MINIATURES / published.name, "miniature")
    columns = {"published": numbers_of(published), "miniature": numbers_of(miniature)}
    return {"sentence": SENTENCE, "revision": published.revision, **columns}


def table(entry: Mapping[str, Any]) -> str:
    """The entry as Markdown. The last block of a smaller model has another name: rows go by their order."""
    lines = ["| the first numbers of | the published model | the miniature |", "|---|---|---|"]
    columns = zip(entry["published"].items(), entry["miniature"].values(), strict=True)
    for (name, published), miniature in columns:
        rows = (", ".join(f"{number:.4f}" for number in row) for row in (published, miniature))
        lines.append(f"| `{name}` | {' | '.join(rows)} |")
    revision = str(entry["revision"])[:7]
    note = f"Made by the rebuild, for *{entry['sentence']}*, at revision {revision}"
    return "\n".join([*lines, "", f"{note} (`python -m tools.real_weights`)."])


def on_page_markdown(markdown: str, **more: Any) -> str:
    """A page with the tables in place of its marks, as far as the file has them."""
    if not FILE.exists():
        return markdown
    entries = json.loads(FILE.read_text(encoding="utf-8"))
    return MARK.sub(
        lambda mark: table(entries[mark["model"]]) if mark["model"] in entries else mark[0], markdown
    )


def main() -> int:
    entries = {}
    for name in MODELS:
        if (local_copy.store_folder() / name).exists():
            entries[name] = measured(local_copy.get(name, strict=True))
        else:
            print(f"{name}: not in the store; `llm-rebuild download {name}` brings it", file=sys.stderr)
    if entries:
        FILE.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return 0 if len(entries) == len(MODELS) else 1


if __name__ == "__main__":
    sys.exit(main())
