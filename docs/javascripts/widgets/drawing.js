// What widgets draw with: a picture in the colours of the page, as tools/figures/ draws those that stand still.

import { make } from "../live/tensor.js";

export class Drawing {
  constructor(width, height, title) {
    this.svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title, "data-search-exclude": "" });
  }

  text(x, y, words, { kind = "ink", size = 14, at = "middle", bold = false, mono = false } = {}) {
    const look = { "font-weight": bold ? 600 : null, "font-family": mono ? "var(--md-code-font-family)" : null };
    this.svg.append(make("text", { x, y, "font-size": size, "text-anchor": at, ...look, fill: `var(--fig-${kind})` }, String(words)));
  }

  box(x, y, width, height, kind = "line", share = 1) {
    const edge = kind === "line" || kind === "paper" ? "var(--fig-line)" : "none";
    this.svg.append(make("rect", { x, y, width, height, fill: `var(--fig-${kind === "line" ? "paper" : kind})`, "fill-opacity": share === 1 ? null : share, stroke: edge }));
  }

  line(x, y, toX, toY, kind = "muted") {
    this.svg.append(make("path", { d: `M${x} ${y}L${toX} ${toY}`, fill: "none", stroke: `var(--fig-${kind})`, "stroke-width": 1.5 }));
  }

  /** Words in boxes, side by side from x on -> where the row ends. marked: which of them stand out, by their number. */
  row(x, y, words, marked = []) {
    for (const [i, word] of words.entries()) {
      const width = 14 + 9 * [...word].length;
      this.box(x, y, width, 26, marked.includes(i) ? "accent-soft" : "line");
      this.text(x + width / 2, y + 18, word, { mono: true, bold: marked.includes(i) });
      x += width + 4;
    }
    return x;
  }
}

/** Of a long list its first entries, and how many there are beyond. */
export const first = (list, most) => [list.slice(0, most), Math.max(0, list.length - most)];
