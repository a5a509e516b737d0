"""The words of every figure, in a browser: they lie within it, apart from each other, and can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FIGURES = sorted((DOCS / "figures").glob("*.svg"))

LOOKED_AT = (Path(__file__).parent / "figures.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["default", "slate"], ids=["light", "dark"])
def test_the_words_of_every_figure_can_be_read(scheme: str, reader: Any) -> None:
    style = (DOCS / "stylesheets" / "extra.css").read_text("utf-8")
    pictures = "".join(
        f'<figure id="{figure.stem}" style="width: 720px">{figure.read_text("utf-8")}</figure>'
        for figure in FIGURES
    )
    page = reader().page
    look = "background: var(--rebuild-paper); color: var(--rebuild-ink)"
    page.set_content(
        f'<body data-md-color-scheme="{scheme}" style="{look}"><style>{style}</style>'
        f'<div class="md-typeset">{pictures}</div></body>'
    )
    assert len(FIGURES) > 60
    assert page.evaluate(LOOKED_AT) == []
