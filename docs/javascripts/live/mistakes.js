// Break it: one line of the rebuild changed as people change it, where that is first seen, how it spreads, and what the model
// says now. Or the other way round: something is wrong, and the reader finds where.

import { visible } from "./sentence.js";
import { make } from "./tensor.js";
import { labelOf } from "./label.js";

const SMALLEST = 1e-8, LARGEST = 10; // of a difference on the chart, as a share of the tensor's largest number
const CHOICES = 4;

/** A share of a tensor's largest number, in words. */
const sizeOf = (verdict) =>
  verdict.kind === "missing" ? "it is not there any more"
    : verdict.worst === undefined || verdict.worst === Infinity ? verdict.words
      : verdict.worst >= 0.005 ? `off by ${Math.round(100 * verdict.worst)} % of its largest number` : `off by ${verdict.worst.toExponential(0)} of its largest number`;

const cut = (text) => (text.length > 100 ? `${text.slice(0, 100)}…` : text);
const link = (name) => make("a", { href: `#${encodeURIComponent(name)}` }, make("code", {}, name));
const button = (words, does) => {
  const element = make("button", { type: "button" }, words);
  element.addEventListener("click", does);
  return element;
};

export class Part {
  constructor(box, session) {
    this.session = session;
    this.list = make("ul", { class: "switches" });
    this.kind = make("select", {});
    this.kind.addEventListener("change", () => this.drawList());
    this.choice = make("details", { class: "numbers breaking" }, make("summary", {}, "Break one line"), make("p", {}, make("label", {}, "Of which kind ", this.kind)), this.list);
    this.game = make("div", { class: "game", "aria-live": "polite", hidden: true });
    this.card = make("section", { class: "mistake", "aria-label": "What is broken", hidden: true });
    box.append(make("div", { class: "breakers" }, this.choice, button("Give me a mistake to find", () => this.begin(1 + Math.floor(Math.random() * 9999)))), this.game, this.card);
    box.addEventListener("click", (event) => this.follow(event));
    this.ready = this.fill();
    this.listening = new AbortController();
    addEventListener("hashchange", () => this.arrive(), { signal: this.listening.signal });
  }

  close() {
    this.listening.abort();
  }

  /** A link to a checkpoint leads to it on the map, whatever the page around makes of links. */
  follow(event) {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    history.replaceState(history.state, "", link.hash);
    if (this.map) this.map.arrive(true);
    else this.session.boxes.find(({ dataset }) => dataset.part === "map")?.scrollIntoView();
  }

  async fill() {
    this.known = await this.session.catalogue();
    const { causes, mistakes } = this.known;
    this.choice.querySelector("summary").textContent = `Break one line: ${mistakes.length} mistakes that people make`;
    const kinds = [...new Set(Object.values(causes).map(({ kind }) => kind))].map((kind) => [kind, mistakes.filter(({ cause }) => causes[cause].kind === kind).length]);
    this.kind.append(make("option", { value: "" }, `all ${mistakes.length}`), ...kinds.filter(([, count]) => count).map(([kind, count]) => make("option", { value: kind }, `${kind}, ${count}`)));
    this.drawList();
    await this.session.opening;
    await this.arrive();
  }

  /** What the address asks for: `#break=gpt2-scale-missing` or `?break=…`, or `#find=7`. */
  async arrive() {
    const asked = location.hash || location.search;
    const [, what, which] = asked.match(/^[#?](break|find)=([\w-]{1,80})$/) ?? [];
    if (what === "find" && /^\d{1,4}$/.test(which) && Number(which) !== this.number) await this.begin(Number(which));
    const mistake = what === "break" && this.known.mistakes.find(({ name }) => name === which);
    if (mistake && (mistake !== this.session.mistake || this.session.looked)) await this.choose(mistake);
  }

  drawList() {
    const { causes, mistakes } = this.known;
    this.list.replaceChildren(...mistakes.filter(({ cause }) => !this.kind.value || causes[cause].kind === this.kind.value).map((mistake) => {
      const on = mistake === this.session.mistake && !this.session.looked;
      const one = button(labelOf(mistake), () => this.choose(on ? null : mistake));
      one.setAttribute("role", "switch");
      one.setAttribute("aria-checked", String(on));
      return make("li", {}, one, make("small", {}, ` ${causes[mistake.cause].did} `, link(mistake.first)));
    }));
  }

  /** Make a mistake, or repair it. */
  async choose(mistake) {
    const focused = [...this.list.querySelectorAll("button")].indexOf(document.activeElement);
    this.number = null;
    history.replaceState(history.state, "", mistake ? `#break=${mistake.name}` : location.pathname);
    await this.session.make(mistake);
    if (focused >= 0) this.list.querySelectorAll("button")[focused]?.focus();
  }

  // ------------------------------------------------------------------------------- what is broken

  async update(run, text) {
    const { session } = this;
    if (!this.known) return;
    this.drawList();
    this.card.hidden = !session.mistake || Boolean(session.looked);
    this.game.hidden = this.number == null;
    if (this.card.hidden) return;
    const others = session.record.sentences.filter((other) => other !== text);
    const says = await session.ask("says", text, others);
    if (session.run === run) this.show(session.mistake, run, says, others);
  }

  show(mistake, run, says, others) {
    const { verdicts, record } = this.session, cause = this.known.causes[mistake.cause];
    const names = run.names.map(([name]) => name);
    const first = names.find((name) => verdicts[name].kind !== "identical"), last = names.at(-1);
    const where = first
      ? make("p", {}, "First seen at ", link(first), `: ${sizeOf(verdicts[first])}. At the end, `, link(last), verdicts[last].kind === "identical" ? ": to the bit as it should be." : `: ${sizeOf(verdicts[last])}.`)
      : make("p", {}, "On this sentence and this model it changes no number.");
    const address = new URL(`../../part-4/mistakes/#${mistake.cause}`, import.meta.url).href;
    this.card.replaceChildren(
      make("div", { class: "head" }, make("h3", {}, labelOf(mistake)), make("span", {}, button("Repair it", () => this.choose(null)), " ", make("a", { href: `#break=${mistake.name}` }, "Link to this"))),
      make("p", {}, `${cause.did[0].toUpperCase()}${cause.did.slice(1)}. ${cause.why} `, make("a", { href: address }, `In the catalogue: ${cause.title}`)),
      make("div", { class: "sides" },
        make("div", {}, ...code("in JavaScript, as it runs here", mistake.file, mistake.javascript), ...code("in Python", mistake.python[0], mistake.python.slice(1)), make("p", { class: "note-line" }, cause.should)),
        make("div", {}, where, ...(first ? this.depth(names, verdicts, record.stacks) : []), this.said(says, others, run)),
      ),
    );
  }

  /** How large the difference is at each checkpoint, in the order of computation: a picture, and a table behind it. */
  depth(names, verdicts, stacks) {
    const left = 34, width = 640, height = 110, foot = 16, step = (width - left) / names.length;
    const level = (worst) => Math.max(0, Math.min(1, Math.log(worst / SMALLEST) / Math.log(LARGEST / SMALLEST)));
    const sizeAt = (name) => (verdicts[name].kind === "identical" ? 0 : verdicts[name].worst === undefined || !Number.isFinite(verdicts[name].worst) ? LARGEST : Math.max(verdicts[name].worst, 1.5 * SMALLEST));
    const svg = make("svg", { viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": "The size of the difference at each checkpoint, in the order of computation; the numbers are in the table below", class: "depth" });
    for (const power of [-6, -4, -2, 0]) {
      const y = height - level(10 ** power) * height;
      svg.append(make("line", { x1: left, x2: width, y1: y, y2: y }), make("text", { x: left - 5, y: y + 4, "text-anchor": "end" }, power ? `1e${power}` : "1"));
    }
    for (const { path, side } of stacks)
      for (let number = 0, at; (at = names.findIndex((name) => name.startsWith(`${path}.${number}.`) && !name.includes("relative_attention_bias"))) >= 0; number++)
        svg.append(make("text", { x: left + at * step, y: height + 12 }, `${side.slice(0, 1)}${number}`));
    names.forEach((name, at) => {
      const tall = level(sizeAt(name)) * height;
      svg.append(make("rect", { x: left + at * step, y: height - tall - 1, width: Math.max(1, step - 1), height: tall + 1, class: tall ? "wrong" : "right" }));
    });
    const rows = make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of the differences" });
    const details = make("details", { class: "numbers" }, make("summary", {}, "The differences as a table"), rows);
    details.addEventListener("toggle", () => {
      if (!details.open) return;
      const line = (name) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, verdicts[name].kind === "identical" ? "bit-identical" : sizeOf(verdicts[name])));
      rows.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "checkpoint"), make("th", { scope: "col" }, "difference"))), make("tbody", {}, ...names.map(line))));
    });
    return [make("figure", {}, make("figcaption", {}, "Error by depth: the difference as a share of the tensor’s largest number; blocks are numbered below."), svg), details];
  }

  /** What the right and the wrong model answer. */
  said({ right, wrong }, others, run) {
    const percent = (share) => (share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`);
    const cell = (side) => {
      if (side.problem) return ["It stops: ", make("code", {}, side.problem.slice(0, 200))];
      if (side.next) return [...side.next.map(({ word, share }) => make("span", { class: "bet", style: `--share: ${Math.round(100 * share)}%` }, make("code", {}, visible(word)), ` ${percent(share)}`)), make("p", {}, side.text ? `“${cut(side.text.trim())}”` : "nothing")];
      return [make("ul", {}, ...others.map((other, i) => make("li", {}, `${side.cosines[i].toFixed(3)} to “${other}”`)), ...(side === wrong ? [make("li", {}, `${side.like.toFixed(3)} to the right vector`)] : []))];
    };
    const row = (words, side) => make("div", {}, make("dt", {}, words), make("dd", {}, ...cell(side)));
    const same = !wrong.problem && (right.cosines ? right.cosines.every((value, i) => value.toFixed(2) === wrong.cosines[i].toFixed(2)) : right.text === wrong.text);
    return make("div", { class: "says-now" }, make("dl", {}, row("it should say", right), row("it says", wrong)),
      make("p", { class: "note-line" }, run.stopped ? "" : same ? "Who looks at answers only sees nothing." : ""));
  }

  // --------------------------------------------------------------------------------- one to be found

  /** The mistake of a number, the same for everybody who has the number. */
  async begin(number) {
    if (!this.known) return; // its data is on its way
    const { mistakes, causes } = this.known;
    const random = randomOf(number);
    this.number = number;
    this.hunted = mistakes[Math.floor(random() * mistakes.length)];
    const kinds = [...new Set(mistakes.map(({ cause }) => cause))].filter((cause) => cause !== this.hunted.cause);
    const near = kinds.sort((a, b) => (causes[b].kind === causes[this.hunted.cause].kind) - (causes[a].kind === causes[this.hunted.cause].kind));
    const drawn = near.slice(0, 6).map((cause) => [random(), cause]).sort(([a], [b]) => a - b).slice(0, CHOICES - 1).map(([, cause]) => cause);
    this.choices = [this.hunted.cause, ...drawn].map((cause) => [random(), cause]).sort(([a], [b]) => a - b).map(([, cause]) => cause);
    this.placed = null;
    history.replaceState(history.state, "", `#find=${number}`);
    await this.session.make(this.hunted, true);
    this.drawGame("");
  }

  get map() {
    return this.session.parts.find(({ explorer }) => explorer)?.explorer;
  }

  first() {
    return this.session.run.names.map(([name]) => name).find((name) => this.session.truth[name].kind !== "identical");
  }

  drawGame(words) {
    const { session } = this, { causes } = this.known, looks = session.looked?.size ?? 0;
    const most = Math.ceil(Math.log2(session.run.names.length));
    const compare = button("Compare the chosen cell", () => {
      const name = this.map?.chosen;
      if (!name) return this.drawGame("Choose a cell of the map first.");
      session.look(name);
      const kind = session.truth[name].kind;
      this.drawGame([link(name), kind === "identical" ? " is right, to the bit: the mistake comes later." : " is wrong: the mistake is here or earlier."]);
    });
    const place = button("It begins at the chosen cell", () => this.guess());
    const parts = [make("p", {}, make("strong", {}, `Mistake number ${this.number}. `), "One line of this model is wrong. Which checkpoint is the first that differs from the right one? Choose cells of the map, and look at their numbers. Each comparison with the right tensor counts: ",
      make("strong", {}, `${looks} so far`), `; halving needs at most ${most}.`)];
    if (this.placed) parts.push(make("fieldset", {}, make("legend", {}, "It begins at ", link(this.placed), ". And what was done there?"), ...this.choices.map((cause) => button(causes[cause].did, () => this.name(cause)))));
    else parts.push(make("p", { class: "controls" }, compare, place));
    parts.push(make("p", { class: "note-line answer" }, ...[words].flat()));
    parts.push(make("p", { class: "controls" }, button("Show me", () => this.reveal("")), button("Another one", () => this.begin((this.number % 9999) + 1)), button("Leave", () => this.choose(null)), make("a", { href: `#find=${this.number}` }, "Link to this one")));
    this.game.hidden = false;
    this.game.replaceChildren(...parts);
  }

  guess() {
    const name = this.map?.chosen, names = this.session.run.names.map(([one]) => one), first = this.first();
    if (!name) return this.drawGame("Choose a cell of the map first.");
    if (name === first) {
      this.placed = name;
      return this.drawGame("That is the one.");
    }
    this.drawGame(names.indexOf(name) < names.indexOf(first) ? [link(name), " is not the first: it is right still. Look further on."] : [link(name), " is not the first: something before it is wrong already."]);
  }

  name(cause) {
    const { causes } = this.known;
    if (cause === this.hunted.cause) return this.reveal(`Found, with ${this.session.looked.size} comparisons. ${causes[cause].should}`);
    this.drawGame(`That would be another mistake: ${causes[cause].why}`);
  }

  /** Show the mistake: what was found, or given up. */
  async reveal(words) {
    this.session.look(null);
    await this.update(this.session.run, this.session.text);
    this.drawList();
    this.game.replaceChildren(make("p", {}, make("strong", {}, words || `It was: ${labelOf(this.hunted)}.`), " ", button("Another one", () => this.begin((this.number % 9999) + 1))));
  }
}

/** The wrong line beside the right one. */
function code(words, file, [right, wrong]) {
  const lines = (text, kind, sign) => (text ? text.split("\n") : ["(the line is gone)"]).map((line) => make("span", { class: kind }, `${sign} ${line}\n`));
  return [make("p", { class: "note-line" }, make("code", {}, file), `, ${words}`),
    make("pre", { tabindex: "0", role: "region", "aria-label": `${file}: the right line and the wrong one` }, make("code", {}, ...lines(right, "taken", "−"), ...lines(wrong, "put", "+")))];
}

/** Numbers from 0 to 1 that a seed decides. */
function randomOf(seed) {
  let state = (seed * 2654435761) >>> 0;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) >>> 0;
    return state / 2 ** 32;
  };
}
