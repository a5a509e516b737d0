// The map of the running model: each cell a checkpoint of the reader's sentence.

import { Explorer } from "./map.js";
import { labelOf } from "./label.js";
import { make, pictures, short } from "./tensor.js";

const ROLES = {
  embedding: ["", "tables of tokens and places"], residual: ["", "the stream: what is added up"], norm: ["", "normalised"],
  qkv: ["", "query, key and value"], query: ["", "query"], key: ["", "key"], attention: ["", "who looks at whom"],
  value: ["", "value, and what is taken of it"], "feed-forward": ["", "feed-forward"], answer: ["", "the answer"],
};
const VERDICTS = {
  identical: ["", "bit-identical"], near: ["≈", "other order of sums"], wrong: ["≠", "wrong"], missing: ["∅", "missing"],
};

const SOURCE = new URL("../../source/llm_rebuild/", import.meta.url);

/** The address of a line of the rebuild on this site. */
function sourceOf({ code: [file, line] }) {
  return make("a", { href: new URL(`${file.replace(/\.py$/, "")}/#L${line}`, SOURCE).href }, make("code", {}, `${file}:${line}`));
}

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
    if (this.session.guest) return this.welcome();
    this.draw();
    if (first && location.hash.length > 1) this.explorer.arrive(true);
    if (first && !this.explorer.chosen) return this.explorer.choose(this.element.dataset.shown ?? this.session.run.names.find(([name]) => name.endsWith("probs"))[0]);
    return this.explorer.refresh();
  }

  /** The official tensors have come: verdicts can be shown. */
  judge() {
    this.draw();
    return this.explorer.refresh();
  }

  /** A report or a capture instead of the run. */
  welcome() {
    const { guest } = this.session;
    this.draw();
    const back = make("button", { type: "button" }, "Back to the sentence");
    back.addEventListener("click", () => this.session.say(this.session.text));
    const lines = guest.kind === "report" ? guest.said : [`A capture of ${guest.model}, ${guest.names.length} checkpoints of ${guest.texts.length === 1 ? `“${guest.texts[0].slice(0, 200)}”` : `${guest.texts.length} texts, of which the first is shown`}.`];
    this.note.replaceChildren(make("strong", {}, guest.title), ": ", lines.join(" "), " ", back);
    return this.explorer.choose(guest.first || (guest.names.some(([name]) => name === this.explorer.chosen) ? this.explorer.chosen : guest.names[0][0]));
  }

  draw() {
    const { run, record, own, guest } = this.session;
    const verdicts = guest ? guest.verdicts : this.session.verdicts;
    const [roles, radio] = this.choice.querySelectorAll("input");
    const { mistake, looked } = this.session, broken = mistake && !guest;
    this.choice.hidden = Boolean(broken);
    radio.disabled = !verdicts;
    if (guest?.verdicts) this.colours = "verdicts";
    radio.checked = this.colours === "verdicts";
    roles.checked = !radio.checked;
    const judged = verdicts && (broken || this.colours === "verdicts");
    this.explorer.kinds = broken && looked ? { ...ROLES, ...VERDICTS } : judged ? VERDICTS : ROLES;
    const cells = (guest ?? run).names.map(([name]) => {
      const entry = this.session.entry(name), verdict = verdicts?.[name];
      return { name, meaning: entry?.meaning ?? guest?.entries?.[name]?.[1] ?? "", kind: judged ? (verdict?.kind ?? (looked ? (entry?.role ?? "answer") : "missing")) : (entry?.role ?? "answer"), words: verdict ? verdict.words : "" };
    });
    this.explorer.show(cells);
    if (!guest) this.note.replaceChildren(...this.said(cells, verdicts, record, own));
  }

  said(cells, verdicts, record, own) {
    if (this.session.looked) return ["A line of this model is wrong. The cells are in the colours of what they are; those that you compare get a verdict."];
    if (this.session.mistake) {
      const wrong = cells.filter(({ kind }) => kind !== "identical").length;
      return [wrong ? `Each cell is compared with the same code without the mistake: ${cells.length - wrong} are equal to the bit, ${wrong} are not.` : "On this sentence the mistake changes no number."];
    }
    if (!verdicts) return [own ? "Of your own copy no official tensors are at hand here: " : "Of this sentence no official tensors are at hand here: ", make("code", {}, "llm-rebuild verify"), " computes them. ",
      own ? "" : `The first example comes with them.`];
    const all = Object.values(verdicts), count = (kind) => all.filter((verdict) => verdict.kind === kind).length;
    const worst = Math.max(...all.map((verdict) => verdict.worst ?? Infinity));
    return [`Of this sentence the page has the official tensors: ${count("identical")} of ${all.length} are bit-identical, ${count("near")} differ by rounding, ${count("wrong") + count("missing")} are wrong. `,
      `JavaScript adds in another order than PyTorch: the worst is off by ${worst.toExponential(0)} of its tensor’s largest number.`];
  }

  async about(name) {
    const { session } = this, { guest } = session;
    const entry = session.entry(name);
    const shown = (guest ?? session.run).names;
    const shape = shown.find(([one]) => one === name)[1];
    const words = entry?.shape ?? guest?.entries?.[name]?.[0];
    const named = words ? words.replace(/[[\]]/g, "").split(", ") : [];
    const axes = named.length === shape.length ? named : shape.map((_, i) => `axis ${i}`);
    const verdict = (guest ? guest.verdicts : session.verdicts)?.[name];
    // A report has verdicts and no tensors.
    const alone = Boolean(session.looked && !session.looked.has(name));
    const [picture, facts] = guest?.kind === "report" ? [{}, null] : await Promise.all([session.ask("picture", name, axes, alone), session.ask("facts", name)]);
    const numbers = facts && `${short(facts.low)} to ${short(facts.high)}, mean ${short(facts.mean)}, spread ${short(facts.spread)}`;
    const list = (names) => names.flatMap((link, i) => [i ? ", " : "", { link }]);
    const users = shown.map(([one]) => one).filter((one) => session.entry(one)?.inputs.includes(name));
    const off = verdict?.worst ? `, off by ${verdict.worst.toExponential(0)} of its largest number` : Number.isFinite(verdict?.off) && verdict.off > 0 ? `, off by ${verdict.off.toExponential(1)}` : "";
    const rows = [
      ["shape", words ? [{ code: words }, ` = ${shape.join(" × ")}`] : shape.join(" × ")],
      entry && ["formula", entry.formula],
      facts && ["numbers", facts.count ? numbers + (facts.other ? `; ${facts.other.toLocaleString("en")} masked` : "") : "none that is finite"],
      verdict && [session.mistake && !guest ? "the right one" : "official", `${verdict.words}${off}${verdict.coupled ? ", coupled" : ""}`],
      entry && ["in Python", [sourceOf(entry), make("code", { class: "line" }, entry.code[2])]],
      entry && ["officially", entry.official.split("`").map((words, i) => (i % 2 ? { code: words } : words))],
      entry?.weights.length && ["weights", entry.weights.flatMap((key, i) => [i ? ", " : "", { code: key }])],
      entry?.inputs.length && ["computed from", list(entry.inputs)],
      users.length && ["goes into", list(users)],
      !guest && ["side by side", this.pinning(name, axes, picture.pinned)],
      !guest && !session.looked && ["break it", await this.switches(name)],
    ].filter((row) => row && row[1].length);
    const after = picture.pinned && ((panel) => beside(panel, picture.pinned));
    return { facts: rows, ...picture, after, numbers: facts && ((head) => session.ask("numbers", name, axes, head)) };
  }

  /** A button that pins the checkpoint, and one that lets go what is pinned. */
  pinning(name, axes, pinned) {
    const { session } = this;
    const button = (words, ...pin) => {
      const element = make("button", { type: "button" }, words);
      element.addEventListener("click", async () => {
        await session.ask("pin", ...pin);
        await this.explorer.refresh();
      });
      return element;
    };
    const own = button("Pin this one, and choose another cell or sentence", name, axes, session.text);
    return pinned ? [own, " ", button("Let the pinned one go", null)] : [own];
  }

  /** A button for each mistake that can be made at this step, in whatever block. */
  async switches(name) {
    const { session } = this, { mistakes } = await session.catalogue();
    const step = (words) => words.replace(/\.\d+\./, ".#.");
    return mistakes.filter(({ first }) => step(first) === step(name)).flatMap((mistake) => {
      const button = make("button", { type: "button", role: "switch", "aria-checked": String(session.mistake === mistake) }, labelOf(mistake));
      button.addEventListener("click", () => session.make(session.mistake === mistake ? null : mistake));
      return [button, " "];
    });
  }
}

/** The pinned checkpoint to the left of the chosen one, and how they differ where they have one shape. */
function beside(panel, pinned) {
  const section = make("div", { class: "pinned" }, make("p", { class: "meaning" }, "Pinned: ", make("code", {}, pinned.name), ` of “${pinned.text.slice(0, 120)}”`));
  panel.querySelector(".inside").append(section);
  section.append(pictures(pinned, section));
  const redraw = panel.redraw;
  panel.redraw = () => {
    redraw();
    section.redraw();
  };
}
