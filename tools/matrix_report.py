"""What a run of the matrix says: the versions of the libraries, and the tests that failed, as Markdown.

python -m tools.matrix_report report.xml
"""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from xml.etree import ElementTree

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def report(junit: str) -> str:
    """The run that pytest wrote down in this file, as a short list."""
    cases = list(ElementTree.parse(junit).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    lines = [
        f"Python {platform.python_version()}, {versions}",
        "",
        f"{len(failed)} of {len(cases)} failed",
        "",
    ]
    return "\n".join([*lines, *(f"- `{case.get('classname')}::{case.get('name')}`" for case in failed)])


if __name__ == "__main__":
    print(report(sys.argv[1]))
