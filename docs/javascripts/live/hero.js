// The home page's picture: a sentence to type, a cell for every tensor that comes of it, and what the model says.

import { rowsOf } from "./map.js";
import { labelOf } from "./label.js";
import { visible } from "./sentence.js";
import { make } from "./tensor.js";

const SAID = 4;
const BREAKS = ["gpt2-scale-missing", "gpt2-residual-missing", "gpt2-mask-missing"]; // of data/mistakes.json

export class Part {
  constructor(box, session) {
    this.session = session;
    this.field = make("input", { type: "text", value: session.record.sentences[0], autocomplete: "off", spellcheck: "false" });
    this.field.addEventListener("input", () => session.type(this.field.value));
    const form = make("form", {}, make("label", {}, make("span", {}, "Type something: a small GPT-2 runs in this page"), this.field));
    form.addEventListener("submit", (event) => event.preventDefault());
    this.tokens = make("ol", { class: "tokens", "aria-label": "Its tokens" });
    this.map = make("div", { class: "hero-map explorer" }); // an image once there is something to say of it
    this.says = make("p", { class: "says", "aria-live": "polite" });
    this.note = make("p", { class: "note-line" });
    this.problem = make("p", { class: "live-problem", role: "alert", hidden: true });
    this.breaks = make("p", { class: "breaks" });
    const apart = make("a", { href: new URL("../../live/gpt2/", import.meta.url).href }, "Open every cell");
    box.append(form, this.tokens, this.map, this.breaks, this.says, this.problem, this.note, make("p", {}, apart));
    this.fill().catch((problem) => this.fail(problem));
  }

  /** The lines to break come when they come: the answer does not wait for them. */
  async fill() {
    const { mistakes } = await this.session.catalogue();
    this.mistakes = BREAKS.map((name) => mistakes.find((mistake) => mistake.name === name));
    this.drawBreaks();
  }

  /** Three lines to break. */
  drawBreaks() {
    const { session } = this;
    const focused = [...this.breaks.children].indexOf(document.activeElement);
    this.breaks.replaceChildren("Break one line: ", ...(this.mistakes ?? []).map((mistake) => {
      const button = make("button", { type: "button", role: "switch", "aria-checked": String(session.mistake === mistake) }, labelOf(mistake));
      button.addEventListener("click", () => session.make(session.mistake === mistake ? null : mistake));
      return button;
    }));
    this.breaks.children[focused]?.focus();
  }

  async update(run) {
    const { session } = this;
    this.problem.hidden = true;
    this.drawBreaks();
    this.tokens.replaceChildren(...run.tokens.map((token) => make("li", {}, visible(token))));
    this.judge();
    const { bars } = await session.ask("next", {});
    this.says.replaceChildren("What comes next: ", ...bars.slice(0, SAID).flatMap(({ word, before }, i) => [i ? " " : "", make("span", { class: "bet", style: `--share: ${Math.round(100 * before)}%` }, make("code", {}, visible(word)), before < 0.005 ? " < 1 %" : ` ${Math.round(100 * before)} %`)]));
  }

  /** What the map shows, in words. */
  name(words) {
    this.map.setAttribute("aria-label", words);
    this.map.setAttribute("role", "img");
  }

  /** The cells in the colours of what they are; or, where official tensors are at hand, of how near they are to them. */
  judge() {
    const { session } = this, { run, verdicts } = session;
    let count = 0;
    const cell = (name) => make("i", { class: `cell ${verdicts?.[name]?.kind ?? session.entry(name)?.role ?? "answer"}`, style: `--at: ${count++}` });
    const rows = rowsOf(run.names.map(([name]) => ({ name })), session.record.stacks);
    this.map.replaceChildren(
      ...rows.map(({ label, part, groups }, at) =>
        make("div", { class: "line" }, make("span", {}, part ? label : at ? "out" : "in"), make("div", { class: "cells" }, ...groups.flatMap(([, cells]) => cells.map(({ name }) => cell(name)))))),
    );
    if (session.mistake) return this.judgeMistake(run.names.map(([name]) => name), verdicts);
    const all = Object.values(verdicts ?? {}), identical = all.filter(({ kind }) => kind === "identical").length;
    this.name(`${run.names.length} tensors between the sentence and the answer`);
    this.note.replaceChildren(
      ...(verdicts
        ? [`${run.names.length} tensors, each compared with the official one: `, make("b", { class: "identical" }, `${identical} to the bit`), ", ", make("b", { class: "near" }, `${all.length - identical} but for rounding`), ", for JavaScript adds in another order. In Python all are equal, bit for bit."]
        : [`${run.names.length} tensors, in the colours of what they are. For a sentence of your own, the Python package computes the official ones to compare with.`]),
    );
  }

  /** What the broken line has done. */
  judgeMistake(names, verdicts) {
    const { mistake } = this.session, wrong = names.filter((name) => verdicts[name].kind !== "identical");
    this.name(`${names.length} tensors, of which ${wrong.length} are wrong`);
    const [right, now] = mistake.python.slice(1).map((line) => make("code", {}, line.split("  #")[0])); // without its comment
    this.note.replaceChildren(now, " instead of ", right, ": ", make("b", { class: "wrong-count" }, `${wrong.length} of ${names.length} tensors are wrong`),
      ...(wrong.length ? [", the first of them ", make("code", {}, wrong[0])] : []), ". And yet it answers.");
  }

  fail(problem) {
    this.problem.textContent = problem.message;
    this.problem.hidden = false;
  }
}
