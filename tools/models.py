"""Bring the course's models to this disk, or say which miniature stands in for one that is not to be had.

    python -m tools.models             the models, each with a line on stderr that says where it is from
    python -m tools.models --verify    and a line for each way to compute attention: is it bit-identical?

All in one process, because a process remembers a hub that does not answer: its absence is waited for once.
"""

from __future__ import annotations

import argparse
import sys

from llm_rebuild.copies import local_copy
from llm_rebuild.copies.local_copy import LocalCopy
from llm_rebuild.copies.pins import NAMES
from llm_rebuild.errors import InputError

TEXTS = ["Open-source LLMs rock.", "They do."]


def verified(copy: LocalCopy) -> bool:
    """Verify a padded batch of two texts in both kinds of attention. Prints a line for each."""
    from llm_rebuild.verify import verify

    exact = True
    for attention in ("eager", "sdpa"):
        report = verify(copy, TEXTS, attention=attention, coverage=False)
        what = "miniature" if copy.source == "miniature" else f"real, revision {str(copy.revision)[:7]}"
        count = f"{report.bit_identical} of {len(report.verdicts)} checkpoints bit-identical"
        print(f"  {attention:5}  {count} ({copy.name}, {what})", flush=True)
        if report.first_divergence is not None:
            print(f"         first divergence: {report.first_divergence}", flush=True)
        exact = exact and report.exact
    return exact


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Bring the course's models to this disk.")
    parser.add_argument("--verify", action="store_true", help="verify each one, too")
    options = parser.parse_args(arguments)
    print(f"The models are kept in {local_copy.store_folder()}", flush=True)
    exact = True
    for name in NAMES:
        try:
            copy = local_copy.get(name)
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
        if options.verify:
            exact = verified(copy) and exact
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
