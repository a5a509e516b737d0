// Sentences of the reader's own, and how similar the model finds each two: the cosine of their vectors.

import { newest } from "./client.js";
import { make } from "./tensor.js";

const MOST = 12;

export class Part {
  constructor(box, session) {
    this.session = session;
    this.field = make("textarea", { rows: 5, spellcheck: "false" });
    this.field.value = [...session.record.sentences, "The lamp was given to a sailor.", "A king gave the cook bread."].join("\n");
    this.matrix = make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Similarities" });
    this.said = make("p", { class: "note-line", "aria-live": "polite" });
    this.field.addEventListener("input", () => this.go());
    box.append(make("div", { class: "similar" }, make("label", {}, make("span", {}, `Sentences, one a line, at most ${MOST}`), this.field), make("div", {}, this.matrix, this.said)));
    this.go = newest(() => this.ask(), (answer) => this.show(answer), (problem) => (this.said.textContent = problem.message));
  }

  async ask() {
    const texts = this.field.value.split("\n").map((text) => text.trim()).filter(Boolean).slice(0, MOST);
    return { texts, cosines: texts.length ? await this.session.ask("similar", texts) : [] };
  }

  update() {
    this.go();
  }

  show({ texts, cosines }) {
    const cut = (text) => (text.length > 34 ? `${text.slice(0, 33)}…` : text);
    const cell = (value) => make("td", { style: `--share: ${Math.round(45 * Math.max(0, value))}%` }, value.toFixed(2));
    const head = make("tr", {}, make("td", {}), ...texts.map((_, i) => make("th", { scope: "col" }, String(i + 1))));
    const rows = texts.map((text, i) => make("tr", {}, make("th", { scope: "row", title: text }, `${i + 1} ${cut(text)}`), ...cosines[i].map(cell)));
    this.matrix.replaceChildren(texts.length ? make("table", { class: "matrix" }, make("thead", {}, head), make("tbody", {}, ...rows)) : "");
    const pairs = cosines.flatMap((row, i) => row.slice(i + 1).map((value, j) => [value, i, i + 1 + j])).sort(([a], [b]) => b - a);
    this.said.textContent = pairs.length ? `Nearest to each other: ${pairs[0][1] + 1} and ${pairs[0][2] + 1}, at ${pairs[0][0].toFixed(3)}.` : "Two sentences can be compared.";
  }
}
