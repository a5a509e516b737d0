"""A hook of mkdocs: what the site takes from the package as it is. The map and the drawing of a tensor are
those of the report's page, and the live pages run on the miniatures' files. There is one copy of each."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).resolve().parents[1] / "llm_rebuild"
PLACES = {  # the folder or file of the package -> where the site has it
    "show/map.css": "stylesheets/map.css",
    "show/map.js": "javascripts/live/map.js",
    "show/tensor.js": "javascripts/live/tensor.js",
    "miniatures": "live/models",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The site's files, and these."""
    for source, uri in PLACES.items():
        for file in sorted(
            path for path in (PACKAGE / source, *(PACKAGE / source).rglob("*")) if path.is_file()
        ):
            inside = file.relative_to(PACKAGE / source).as_posix()
            place = uri if inside == "." else f"{uri}/{inside}"
            files.append(File.generated(config, place, abs_src_path=str(file)))
    return files
