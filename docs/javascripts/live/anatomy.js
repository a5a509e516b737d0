// The map of the running model: each cell a checkpoint of the reader's sentence.

import { Explorer } from "./map.js";
import { make, short } from "./tensor.js";

const ROLES = {
  embedding: ["", "tables of tokens and places"], residual: ["", "the stream: what is added up"], norm: ["", "normalised"],
  qkv: ["", "query, key and value"], query: ["", "query"], key: ["", "key"], attention: ["", "who looks at whom"],
  value: ["", "value, and what is taken of it"], "feed-forward": ["", "feed-forward"], answer: ["", "the answer"],
};
const VERDICTS = {
  identical: ["", "bit-identical"], near: ["≈", "other order of sums"], wrong: ["≠", "wrong"], missing: ["∅", "missing"],
};

export class Part {
  constructor(box, session, element) {
    this.session = session;
    this.colours = "roles";
    this.choice = make("fieldset", { class: "colours" }, make("legend", {}, "Colours"));
    this.note = make("p", { class: "note-line" });
    const map = make("div", { class: "explorer", "data-label": `Map of ${session.record.title}` });
    box.append(this.choice, this.note, map);
    this.explorer = new Explorer(map, { kinds: ROLES, stacks: session.record.stacks, about: (name) => this.about(name) });
    for (const [value, words] of [["roles", "what it is"], ["verdicts", "how near to the official tensors"]]) {
      const radio = make("input", { type: "radio", name: `colours-${session.name}`, value, checked: value === this.colours });
      radio.addEventListener("change", () => {
        this.colours = value;
        this.draw();
      });
      this.choice.append(make("label", {}, radio, ` ${words}`));
    }
    this.element = element;
    this.scheme = new MutationObserver(() => this.explorer.panel.redraw?.());
    this.scheme.observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
  }

  close() {
    this.explorer.close();
    this.scheme.disconnect();
  }

  update() {
    const first = !this.explorer.cells.length;
    this.draw();
    if (first && location.hash.length > 1) this.explorer.arrive(true);
    else if (first) return this.explorer.choose(this.element.dataset.shown ?? this.session.run.names.find(([name]) => name.endsWith("probs"))[0]);
    return this.explorer.refresh();
  }

  draw() {
    const { verdicts, run, record, own } = this.session;
    const [, radio] = this.choice.querySelectorAll("input");
    radio.disabled = !verdicts;
    const judged = verdicts && this.colours === "verdicts";
    this.explorer.kinds = judged ? VERDICTS : ROLES;
    const cells = run.names.map(([name]) => {
      const entry = this.session.entry(name);
      const verdict = verdicts?.[name];
      return { name, meaning: entry?.meaning ?? "", kind: judged ? (verdict?.kind ?? "missing") : (entry?.role ?? "answer"), words: verdict ? verdict.words : "" };
    });
    this.explorer.show(cells);
    this.note.replaceChildren(...this.said(cells, verdicts, record, own));
  }

  said(cells, verdicts, record, own) {
    if (!verdicts) return [own ? "Of your own copy no official tensors are at hand here: " : "Of this sentence no official tensors are at hand here: ", make("code", {}, "llm-rebuild verify"), " computes them. ",
      own ? "" : `The first example comes with them.`];
    const all = Object.values(verdicts), count = (kind) => all.filter((verdict) => verdict.kind === kind).length;
    const worst = Math.max(...all.map((verdict) => verdict.worst ?? Infinity));
    return [`Of this sentence the page has the official tensors: ${count("identical")} of ${all.length} are bit-identical, ${count("near")} differ by rounding, ${count("wrong") + count("missing")} are wrong. `,
      `JavaScript adds in another order than PyTorch: the worst is off by ${worst.toExponential(0)} of its tensor’s largest number.`];
  }

  async about(name) {
    const { session } = this;
    const entry = session.entry(name);
    const shape = session.run.names.find(([one]) => one === name)[1];
    const axes = entry ? entry.shape.replace(/[[\]]/g, "").split(", ") : shape.map((_, i) => `axis ${i}`);
    const [picture, facts] = await Promise.all([session.ask("picture", name, axes), session.ask("facts", name)]);
    const numbers = `${short(facts.low)} to ${short(facts.high)}, mean ${short(facts.mean)}, spread ${short(facts.spread)}`;
    const list = (names) => names.flatMap((link, i) => [i ? ", " : "", { link }]);
    const users = session.run.names.map(([one]) => one).filter((one) => session.entry(one)?.inputs.includes(name));
    const verdict = session.verdicts?.[name];
    const rows = [
      ["shape", entry ? [{ code: entry.shape }, ` = ${shape.join(" × ")}`] : shape.join(" × ")],
      entry && ["formula", entry.formula],
      ["numbers", facts.count ? numbers + (facts.other ? `; ${facts.other.toLocaleString("en")} masked` : "") : "none that is finite"],
      verdict && ["official", verdict.words + (verdict.worst ? `, off by ${verdict.worst.toExponential(0)} of its largest number` : "")],
      entry && ["in Python", [{ code: `${entry.code[0]}:${entry.code[1]}` }, make("code", { class: "line" }, entry.code[2])]],
      entry && ["officially", entry.official.split("`").map((words, i) => (i % 2 ? { code: words } : words))],
      entry?.weights.length && ["weights", entry.weights.flatMap((key, i) => [i ? ", " : "", { code: key }])],
      entry?.inputs.length && ["computed from", list(entry.inputs)],
      users.length && ["goes into", list(users)],
    ].filter(Boolean);
    return { facts: rows, ...picture, numbers: (head) => session.ask("numbers", name, axes, head) };
  }
}
