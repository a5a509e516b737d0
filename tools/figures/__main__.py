"""Which figures there are, and what each is drawn from."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from pkgutil import iter_modules

from llm_rebuild.errors import InputError
from tools import figures, portable
from tools.figures.runs import copy_of

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"

# A file of this folder says in `OF` which model its pictures are drawn from; None: from none.
# `gpt2_cache` draws gpt2-cache.svg.
MODULES = [
    importlib.import_module(f"tools.figures.{file.name}")
    for file in iter_modules(figures.__path__)
    if file.name != "__main__"
]
SETS = [(drawn, model) for module in MODULES for model, drawn in getattr(module, "OF", {}).items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the committed figures, write nothing"
    )
    parser.add_argument("names", nargs="*", help="which: minilm-block, for example; all of them without")
    arguments = parser.parse_args()
    check = arguments.check
    stale = []
    for draw, model in ((draw, model) for drawn, model in SETS for draw in drawn):
        name = f"{draw.__name__.replace('_', '-')}.svg"
        if arguments.names and name.removesuffix(".svg") not in arguments.names:
            continue
        try:
            file, svg = FIGURES / name, draw(copy_of(model)) if model else draw()
        except InputError as reason:
            print(f"{name}: {reason}", file=sys.stderr)
            return 2
        if check and (not file.is_file() or file.read_text(encoding="utf-8") != svg):
            stale.append(name)
        elif not check:
            FIGURES.mkdir(exist_ok=True)
            file.write_text(svg, encoding="utf-8")
    if stale:
        print(
            f"not what would be drawn now: {', '.join(stale)}; run `python -m tools.figures`", file=sys.stderr
        )
    return 1 if stale else 0


if __name__ == "__main__":
    portable.need("tools.figures")  # some curves are of the last bits
    sys.exit(main())
