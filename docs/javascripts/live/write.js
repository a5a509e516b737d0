// A text gone on with, a token at a time, and what the cache of keys and values spares.

import { visible } from "./sentence.js";
import { make } from "./tensor.js";

const WAYS = {
  greedy: ["the likeliest", {}],
  drawn: ["drawn, at temperature 0.8", { sample: true, temperature: 0.8, topK: 50 }],
};
const COUNTS = [4, 8, 16, 32];

export class Part {
  constructor(box, session) {
    this.session = session;
    this.way = make("select", {}, ...Object.entries(WAYS).map(([value, [words]]) => make("option", { value }, words)));
    this.count = make("select", {}, ...COUNTS.map((count) => make("option", { value: count, selected: count === 16 }, String(count))));
    const go = make("button", { type: "button" }, "Write");
    go.addEventListener("click", () => this.write());
    this.text = make("p", { class: "written", "aria-live": "polite" });
    this.cache = make("div", { class: "cache" });
    box.append(make("p", { class: "controls" }, go, make("label", {}, " each token ", this.way), make("label", {}, " at most ", this.count, " tokens")), this.text, this.cache);
    for (const control of [this.way, this.count]) control.addEventListener("change", () => this.write());
  }

  update() {
    return this.write();
  }

  async write() {
    const [, settings] = WAYS[this.way.value];
    try {
      const answer = await this.session.ask("write", this.session.text, { ...settings, maxNewTokens: Number(this.count.value) });
      this.show(answer);
    } catch (problem) {
      this.text.textContent = problem.message;
    }
  }

  show({ prompt, words, text, steps, ended }) {
    this.text.replaceChildren(make("span", { class: "given" }, this.session.text), " → ", make("strong", {}, text), ended ? "" : " …");
    const tokens = [...prompt, ...words];
    const slider = make("input", { type: "range", min: 1, max: steps.length, value: steps.length });
    const grid = make("div", { class: "grid", role: "img", style: `--columns: ${tokens.length}` });
    const said = make("p", { class: "note-line", "aria-live": "polite" });
    const draw = () => {
      const shown = steps.slice(0, Number(slider.value));
      grid.replaceChildren(
        ...tokens.map((token, i) => make("b", { class: i < prompt.length ? "given" : "" }, visible(token))),
        ...shown.flatMap(({ fresh, seen }) => tokens.map((_, i) => make("i", { class: i < seen ? "kept" : i < seen + fresh ? "fresh" : "" }))),
      );
      const anew = shown.reduce((sum, { fresh }) => sum + fresh, 0), without = shown.reduce((sum, { fresh, seen }) => sum + fresh + seen, 0);
      said.replaceChildren(
        `In ${shown.length} ${shown.length === 1 ? "pass" : "passes"} the decoder read `, make("b", {}, `${anew} tokens anew`), `. Without a cache it would have read ${without}: `,
        make("b", {}, `${without - anew} were not computed again`), ".");
      grid.setAttribute("aria-label", `A row a pass, a column a token: ${anew} tokens read anew, ${without - anew} from the cache`);
    };
    slider.addEventListener("input", draw);
    draw();
    const key = make("p", { class: "key note-line" }, make("i", { class: "fresh" }), " computed in this pass ", make("i", { class: "kept" }), " keys and values from the cache");
    this.cache.replaceChildren(make("label", {}, "Pass by pass ", slider), make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "The cache, pass by pass" }, grid), key, said);
  }
}
