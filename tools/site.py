"""Build the site: the notebooks, the source, the pages, and then without what nobody asks for.

    python -m tools.site                  builds site/
    python -m tools.site --site-dir DIR   builds it elsewhere

mkdocs builds strictly: a broken link, anchor or snippet ends it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools import notebooks, sources

PROJECT = Path(__file__).resolve().parents[1]
MAP = re.compile(r"\n?(?://|/\*)# sourceMappingURL=\S+(?: ?\*/)?\s*\Z")


def build(site: Path) -> None:
    """Build the site into this folder. Raises CalledProcessError where mkdocs finds something wrong."""
    notebooks.write_notebooks(PROJECT / "docs")
    sources.write()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    subprocess.run(command, cwd=PROJECT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    without_what_nobody_asks_for(site)


def without_what_nobody_asks_for(site: Path) -> None:
    """The theme brings maps of its sources, for those who work on it, and search in other languages."""
    shutil.rmtree(site / "assets" / "javascripts" / "lunr", ignore_errors=True)
    for file in (site / "assets").rglob("*.map"):
        file.unlink()
        compiled = file.with_suffix("")
        compiled.write_text(MAP.sub("\n", compiled.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the site.")
    parser.add_argument("--site-dir", type=Path, default=PROJECT / "site", help="where to")
    try:
        build(parser.parse_args().site_dir.resolve())
    except ValueError as reason:
        sys.exit(f"no notebooks: {reason}")
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)


if __name__ == "__main__":
    main()
