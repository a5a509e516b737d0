// What comes next: the chance of each token, before and after temperature, top-k, top-p and penalty.

import { newest } from "./client.js";
import { visible } from "./sentence.js";
import { make } from "./tensor.js";

// setting, its name, smallest, largest, step, where it changes nothing
const SLIDERS = [
  ["temperature", "temperature", 0.1, 2, 0.05, 1],
  ["topK", "top-k", 1, 50, 1, 50],
  ["topP", "top-p", 0.05, 1, 0.05, 1],
  ["repetitionPenalty", "penalty", 1, 3, 0.05, 1],
];
const percent = (share) => (share >= 0.0005 ? `${(100 * share).toFixed(1)} %` : share > 0 ? "< 0.1 %" : "0");

export class Part {
  constructor(box, session) {
    this.session = session;
    this.chart = make("table", { class: "bars" });
    this.said = make("p", { class: "note-line", "aria-live": "polite" });
    this.sliders = SLIDERS.map(([setting, words, min, max, step, neutral]) => {
      const slider = make("input", { type: "range", min, max, step, value: neutral, "aria-label": words });
      const output = make("output", {}, this.shown(setting, neutral));
      slider.addEventListener("input", () => {
        output.textContent = this.shown(setting, Number(slider.value));
        this.go();
      });
      return { setting, neutral, slider, output, label: make("label", {}, make("span", {}, words), slider, output) };
    });
    const back = make("button", { type: "button" }, "As the model says it");
    back.addEventListener("click", () => {
      for (const { slider, output, setting, neutral } of this.sliders) {
        slider.value = neutral;
        output.textContent = this.shown(setting, neutral);
      }
      this.go();
    });
    const draw = make("button", { type: "button" }, "Draw one");
    draw.addEventListener("click", () => this.draw());
    box.append(make("div", { class: "next" }, make("div", { class: "sliders", role: "group", "aria-label": "What is done to the chances" }, ...this.sliders.map(({ label }) => label), make("p", {}, back, " ", draw)),
      make("div", {}, this.chart, this.said)));
    this.go = newest(() => session.ask("next", this.settings()), (answer) => this.show(answer), (problem) => (this.said.textContent = problem.message));
  }

  shown(setting, value) {
    const off = SLIDERS.find(([name]) => name === setting)[5] === value && setting !== "temperature";
    return off ? "off" : String(value);
  }

  /** What is off is not done at all. */
  settings() {
    return Object.fromEntries(this.sliders.filter(({ slider, neutral }) => Number(slider.value) !== neutral).map(({ setting, slider }) => [setting, Number(slider.value)]));
  }

  update() {
    this.go();
  }

  show({ bars, left, vocabulary }) {
    this.bars = bars;
    const most = Math.max(...bars.flatMap(({ before, after }) => [before, after]), 1e-9);
    const line = ({ word, before, after }) =>
      make("tr", { class: after ? "" : "out" }, make("th", { scope: "row" }, make("code", {}, visible(word))),
        make("td", { class: "bar" }, make("i", { class: "before", style: `width: ${(100 * before) / most}%` }), make("i", { class: "after", style: `width: ${(100 * after) / most}%` })),
        make("td", {}, percent(before)), make("td", {}, percent(after)));
    const head = make("tr", {}, make("th", { scope: "col" }, "next token"), make("th", { scope: "col" }, make("span", { class: "unseen" }, "as a bar")), make("th", { scope: "col" }, "says"), make("th", { scope: "col" }, "after"));
    this.chart.replaceChildren(make("caption", {}, `The likeliest of ${vocabulary.toLocaleString("en")} tokens`), make("thead", {}, head), make("tbody", {}, ...bars.map(line)));
    this.said.textContent = left === vocabulary ? "Any token may still be drawn." : `${left.toLocaleString("en")} of ${vocabulary.toLocaleString("en")} tokens may still be drawn.`;
  }

  /** One token, drawn by these chances, behind the sentence. */
  async draw() {
    const { session } = this;
    if (session.record.crossing.length) return; // what it writes is no continuation
    const { text } = await session.ask("write", session.text, { ...this.settings(), sample: true, maxNewTokens: 1 }, false);
    session.type(session.text + text);
  }
}
