"""Build the site: the notebooks, the source, the pages, and then what mkdocs leaves to be done.

    python -m tools.site                  builds site/
    python -m tools.site --site-dir DIR   builds it elsewhere
    python -m tools.site --zip FILE       packs what was built; the same site gives the same bytes

mkdocs builds strictly: a broken link, anchor or snippet ends it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from llm_rebuild.workbench.new import WITHOUT_SOLUTIONS
from tools import notebooks, sources

PROJECT = Path(__file__).resolve().parents[1]
MAP = re.compile(r"\n?(?://|/\*)# sourceMappingURL=\S+(?: ?\*/)?\s*\Z")
SWITCHING = re.compile(r"\[data-md-color-switching\] \*,[^{}]*\{[^{}]*\}")
TABLE = re.compile("<table>.*?</table>", re.S)
FENCE = re.compile(r"\s*<pre>.*?</pre>\s*", re.S)
PART = re.compile(r'<(?:link rel="stylesheet" href|script[^>]* src)="([^"]+)"[^>]*>')
IMPORT = re.compile(r'^(?:import|.*\bfrom) "(\.[^"]+)";', re.M)
INLINE = re.compile(r"<script>(.*?)</script>", re.S)  # with a type, such as JSON's, it is not run
CHARSET = '<meta charset="utf-8">'

# What a page may do. Scripts are the site's own files, the few lines of the theme that stand in the pages, by
# their hashes, and `blob:`, since search and the live pages make modules and workers of the site's own text.
# Styles may stand in a page: the theme and the drawings have them.
POLICY = (
    "default-src 'self'; script-src 'self' blob: {hashes}; worker-src 'self' blob:; "
    "connect-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'"
)


def build(site: Path) -> None:
    """Build the site into this folder. Raises CalledProcessError where mkdocs finds something wrong."""
    notebooks.write_notebooks(PROJECT / "docs")
    sources.write()
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    subprocess.run(command, cwd=PROJECT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=True)
    finish(site)


def finish(site: Path) -> None:
    """What mkdocs leaves to be done to a site that it has built."""
    leave_out_what_nobody_asks_for(site)
    let_colours_fade(site)
    give_tables_a_place(site)
    name_what_is_fetched(site)
    state_the_policy(site)


def leave_out_what_nobody_asks_for(site: Path) -> None:
    """The theme brings maps of its sources, for those who work on it, and search in other languages. And it
    searches code and outputs, whose words hide the sentences that explain them: a quarter of the index."""
    shutil.rmtree(site / "assets" / "javascripts" / "lunr", ignore_errors=True)
    for file in (site / "assets").rglob("*.map"):
        file.unlink()
        compiled = file.with_suffix("")
        compiled.write_text(MAP.sub("\n", compiled.read_text(encoding="utf-8")), encoding="utf-8")
    file = site / "search" / "search_index.json"
    index = json.loads(file.read_text(encoding="utf-8"))
    for entry in index["docs"]:
        entry["text"] = FENCE.sub(" ", entry["text"])
    file.write_text(json.dumps(index, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def let_colours_fade(site: Path) -> None:
    """The theme has a rule for all elements, against fading while light changes to dark. While a page opens
    it applies it, too, and takes it back: all is styled twice more. Raises ValueError where there is none."""
    [sheet] = (site / "assets" / "stylesheets").glob("palette.*.css")
    text, rules = SWITCHING.subn("", sheet.read_text(encoding="utf-8"))
    if rules != 1:
        raise ValueError(f"{sheet.name} has another rule for a change of colours")
    sheet.write_text(text, encoding="utf-8")


def give_tables_a_place(site: Path) -> None:
    """The theme puts each table into a frame when the page opens, and whatever stands beside it may by then
    be another's neighbour: all of a chapter is styled anew. So each stands alone in a place of its own."""
    for file in site.rglob("index.html"):
        text = file.read_text(encoding="utf-8")
        file.write_text(TABLE.sub(r"<div>\g<0></div>", text), encoding="utf-8")


def name_what_is_fetched(site: Path) -> None:
    """Name at the top of each page the styles and scripts that it fetches. A browser looks ahead for them by
    itself, but not behind a policy, and would come upon each only when the one before has arrived."""
    for file in sorted(site.rglob("index.html")):
        text, hints = file.read_text(encoding="utf-8"), ""
        for part in PART.finditer(text):
            element, address = part[0], part[1]
            if 'type="module"' in element:
                for module in with_imports([(file.parent / address).resolve()]):
                    path = Path(os.path.relpath(module, file.parent)).as_posix()
                    hints += f'<link rel="modulepreload" href="{path}">'
            else:
                what = "style" if element.startswith("<link") else "script"
                hints += f'<link rel="preload" as="{what}" href="{address}">'
        file.write_text(text.replace(CHARSET, CHARSET + hints, 1), encoding="utf-8")


def with_imports(modules: list[Path]) -> list[Path]:
    """Modules, and all that they import, and so on; each once."""
    for module in modules:  # the list grows meanwhile
        for address in IMPORT.findall(module.read_text(encoding="utf-8")):
            other = (module.parent / address).resolve()
            modules += [other] * (other not in modules)
    return modules


def state_the_policy(site: Path) -> None:
    """Write the content security policy into every page, so that it holds wherever the site is served from.

    One policy for all: a page that comes by instant navigation runs under that of the page before it.
    """
    pages = {file: file.read_text(encoding="utf-8") for file in sorted(site.rglob("*.html"))}
    scripts = sorted({script for text in pages.values() for script in INLINE.findall(text)})
    digests = [
        base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode() for script in scripts
    ]
    policy = POLICY.format(hashes=" ".join(f"'sha256-{digest}'" for digest in digests))
    tag = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    for file, text in pages.items():
        file.write_text(text.replace(CHARSET, CHARSET + tag, 1), encoding="utf-8")


def pack(site: Path, archive: Path) -> None:
    """The site as a zip. Nothing of this machine goes in: no dates, no owners, names in order."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for file in sorted(file for file in site.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(f"llm-rebuild-site/{file.relative_to(site).as_posix()}")
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, file.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the site.")
    parser.add_argument("--site-dir", type=Path, default=PROJECT / "site", help="where to")
    parser.add_argument("--zip", type=Path, metavar="FILE", help="pack what stands there instead")
    parser.add_argument("--without-solutions", action="store_true", help="the edition for a class")
    arguments = parser.parse_args()
    if arguments.without_solutions:
        os.environ[WITHOUT_SOLUTIONS] = "1"
    site = arguments.site_dir.resolve()
    if arguments.zip:
        if not (site / "index.html").is_file():
            sys.exit(f"{site} has no site: build it first")
        pack(site, arguments.zip)
        return
    try:
        build(site)
    except ValueError as reason:
        sys.exit(f"no site: {reason}")
    except subprocess.CalledProcessError as failure:
        sys.exit(failure.returncode)


if __name__ == "__main__":
    main()
