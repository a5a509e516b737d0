// A beam search as a tree: several beginnings at once, of which the best go on.

import { newest } from "./client.js";
import { visible } from "./sentence.js";
import { make } from "./tensor.js";

const SLIDERS = [["beams", "beams", 2, 5, 1, 3], ["maxNewTokens", "tokens", 2, 8, 1, 6], ["lengthPenalty", "length penalty", -2, 2, 0.5, 1]];
const WIDE = 158, LETTER = 7.6, TALL = 24, LEFT = 6, TOP = 22;

/** A token as there is room for it. */
const cut = (word) => ([...word].length > 11 ? `${[...word].slice(0, 10).join("")}…` : word);

export class Part {
  constructor(box, session) {
    this.session = session;
    this.sliders = SLIDERS.map(([setting, words, min, max, step, value]) => {
      const slider = make("input", { type: "range", min, max, step, value, "aria-label": words }), output = make("output", {}, String(value));
      slider.addEventListener("input", () => {
        output.textContent = slider.value;
        this.go();
      });
      return { setting, slider, label: make("label", {}, make("span", {}, words), slider, output) };
    });
    this.tree = make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "The tree of beginnings" });
    this.said = make("p", { class: "note-line", "aria-live": "polite" });
    this.table = make("details", { class: "numbers" }, make("summary", {}, "The tree as a table"));
    this.rows = make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of the tree" });
    this.table.append(this.rows);
    box.append(make("div", { class: "sliders across", role: "group", "aria-label": "The search" }, ...this.sliders.map(({ label }) => label)), this.tree, this.said, this.table);
    const settings = () => Object.fromEntries(this.sliders.map(({ setting, slider }) => [setting, Number(slider.value)]));
    this.go = newest(() => session.ask("beams", session.text, settings()), (answer) => this.show(answer), (problem) => (this.said.textContent = problem.message));
  }

  update() {
    this.go();
  }

  show({ levels, wonIds, text, greedy }) {
    // The winner's way through the tree: its token at each level, and whose child it is.
    let beam = 0, on = true;
    for (const [at, level] of levels.entries()) {
      level.sort((a, b) => b.score - a.score);
      const node = on && level.find(({ id, parent }) => id === wonIds[at] && parent === beam);
      if (node) node.won = true;
      on = Boolean(node) && node.beam >= 0;
      beam = node?.beam;
    }
    const tallest = Math.max(...levels.map((level) => level.length));
    const [width, height] = [LEFT + (levels.length + 1) * WIDE, TOP + tallest * TALL + 6];
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `A tree of ${levels.length} levels; the best text goes on with ${text}` });
    const place = (at, row) => [LEFT + (at + 1) * WIDE, TOP + row * TALL];
    const lines = make("g", {}), nodes = make("g", {});
    levels.forEach((level, at) => {
      level.forEach((node, row) => {
        const [x, y] = place(at, row);
        const from = at ? levels[at - 1].findIndex((one) => one.beam === node.parent) : 0;
        const [x0, y0] = at ? place(at - 1, from) : [LEFT, TOP];
        node.says = `${cut(visible(node.word))} ${node.score.toFixed(1)}${node.ends ? " ∎" : ""}`;
        const before = at ? levels[at - 1][from].says.length : "the sentence".length;
        const start = x0 + before * LETTER + 4;
        const kind = node.won ? "won" : node.beam >= 0 ? "alive" : "dead";
        lines.append(make("path", { d: `M${start} ${y0}C${(start + x) / 2} ${y0} ${(start + x) / 2} ${y} ${x - 4} ${y}`, class: kind }));
        nodes.append(make("text", { x, y: y + 4, class: kind }, node.says));
      });
    });
    nodes.append(make("text", { x: LEFT, y: TOP + 4, class: "won" }, "the sentence"));
    svg.append(lines, nodes);
    this.tree.replaceChildren(svg);
    const ends = levels.flat().some((node) => node.ends) ? " ∎ is where a text ends." : "";
    this.said.replaceChildren("The search goes on with ", make("b", {}, `“${text.trim()}”`), text === greedy ? ", and so does who takes the likeliest each time." : make("span", {}, "; who takes the likeliest each time gets ", make("b", {}, `“${greedy.trim()}”`), "."), ends);
    const line = (node, at) => make("tr", {}, make("td", {}, String(at + 1)), make("th", { scope: "row" }, visible(node.word)), make("td", {}, node.score.toFixed(3)), make("td", {}, node.won ? "in the best text" : node.beam >= 0 ? "goes on" : "dropped"));
    this.rows.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...["step", "token", "log-probability so far", "what becomes of it"].map((words) => make("th", { scope: "col" }, words)))), make("tbody", {}, ...levels.flatMap((level, at) => level.map((node) => line(node, at))))));
  }
}
