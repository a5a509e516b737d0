"""The pen: a small SVG in the making.

Inline SVG with the site's CSS variables, so a figure follows the light and the dark page. One tag a line
and no blank line, because Markdown ends an HTML block at one.
"""

from __future__ import annotations

from html import escape


class Drawing:
    """A small SVG in the making. Sizes are in pixels at the width of a page's column."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size = (width, height)
        self.title = title
        self.tags: list[str] = []

    def box(
        self, x: float, y: float, w: float, h: float, kind: str = "surface", *, dashed: bool = False
    ) -> None:
        """kind: surface (plain), accent (weights), warm (what a learner builds), query, key, value, good (the
        residual stream, what is right), near, bad."""
        fill = "surface" if kind == "surface" else f"{kind}-soft"
        stroke = "line" if kind == "surface" else kind
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.tags.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="4" '
            f'fill="var(--fig-{fill})" stroke="var(--fig-{stroke})"{dash}/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        kind: str = "ink",
        size: int = 14,
        at: str = "middle",
        bold: bool = False,
        mono: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        family = ' font-family="var(--md-code-font-family)"' if mono else ""
        self.tags.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{at}"{weight}{family} '
            f'fill="var(--fig-{kind})">{escape(words, quote=False)}</text>'
        )

    def slanted(self, x: float, y: float, words: str) -> None:
        """The label of a column, rising to the right from its foot."""
        self.tags.append(
            f'<text x="{x:g}" y="{y:g}" font-size="13" font-family="var(--md-code-font-family)" '
            f'transform="rotate(-55 {x:g} {y:g})" fill="var(--fig-ink)">{escape(words)}</text>'
        )

    def line(self, path: str, kind: str = "muted", *, arrow: bool = True, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        end = f' marker-end="url(#arrow-{kind}-{self._key()})"' if arrow else ""
        self.tags.append(
            f'<path d="{path}" fill="none" stroke="var(--fig-{kind})" stroke-width="1.5"{dash}{end}/>'
        )

    def cell(
        self,
        x: float,
        y: float,
        side: float,
        share: float,
        kind: str = "accent",
        *,
        height: float | None = None,
    ) -> None:
        """One square of a heat map: `share` from 0 to 1, in steps of a twentieth, as ink on paper."""
        self.tags.append(
            f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side if height is None else height:g}" '
            f'fill="var(--fig-{kind})" fill-opacity="{round(share * 20) / 20:g}"/>'
        )

    def strokes(self, path: str, kind: str, share: float, width: float) -> None:
        """Many squares of one shade: lines as thick as the squares are high, with `share` of the ink."""
        self.tags.append(
            f'<path d="{path}" fill="none" stroke="var(--fig-{kind})" stroke-opacity="{share:g}" '
            f'stroke-width="{width:g}"/>'
        )

    def dot(self, x: float, y: float, kind: str = "accent", radius: float = 5) -> None:
        self.tags.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="var(--fig-{kind})"/>')

    def step(self, x: float, y: float, words: str, below: str, kind: str = "surface", w: float = 176) -> None:
        """A step of a block, in the middle of x: what it is called, and the shape of what it makes."""
        self.box(x - w / 2, y, w, 50, kind)
        self.text(x, y + 21, words, bold=True)
        self.text(x, y + 40, below, size=13, mono=True, kind="muted")

    def plus(self, x: float, y: float) -> None:
        """Where something is added to the residual stream."""
        self.box(x - 14, y - 14, 28, 28, "good")
        self.text(x, y + 6, "+", size=18, bold=True, kind="good")

    def frame(self, x: float, y: float, w: float, h: float, kind: str = "line") -> None:
        """A thin line around something, and nothing in it."""
        self.tags.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" fill="none" stroke="var(--fig-{kind})"/>'
        )

    def _key(self) -> str:
        return f"{self.size[0]}-{self.size[1]}"  # an id has to be unique on a page with several figures

    def svg(self) -> str:
        width, height = self.size
        head = [
            f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.title)}" '
            'data-search-exclude="">',
            "<defs>",
        ]
        drawn = str(self.tags)
        head += [
            f'<marker id="arrow-{kind}-{self._key()}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="var(--fig-{kind})"/></marker>'
            for kind in ("accent", "bad", "good", "key", "muted", "query", "value", "warm")
            if f"arrow-{kind}-" in drawn
        ]
        return "\n".join([*head, "</defs>", *self.tags, "</svg>"]) + "\n"


def shape(*sizes: int) -> str:
    return "[" + ", ".join(f"{size:,}" if size > 9999 else str(size) for size in sizes) + "]"
