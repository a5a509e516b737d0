// The map of a model: every checkpoint a cell, in the order in which the model computes, block under block.
//
// One component for the pages of `verify --html` and for the site's live pages. It knows no model: cells come with
// names, and a name says where it belongs. What is said of a cell is text, never markup.

import { make, pictures } from "./tensor.js";

// ------------------------------------------------------------------------------------ rows and groups

/** The part of the model that a checkpoint lives in: its numbered block, or its first word. */
export function partOf(name) {
  const words = name.split(".");
  const number = words.findIndex((word) => /^\d+$/.test(word));
  return number < 0 ? words[0] : words.slice(0, number + 1).join(".");
}

/** Neighbours for which `key` is the same -> [[key, members], …]. */
function runs(list, key) {
  const grouped = [];
  for (const one of list) {
    const own = key(one);
    if (grouped.length && grouped.at(-1)[0] === own) grouped.at(-1)[1].push(one);
    else grouped.push([own, [one]]);
  }
  return grouped;
}

/** Cells as rows {label, part, groups: [[caption, cells], …]}: a row a block, and one for what lies between blocks. */
export function rowsOf(cells, stacks) {
  const byPart = runs(cells, (cell) => partOf(cell.name));
  const last = new Map(byPart.map(([part], at) => [part, at])); // where each stands for the last time
  const rows = [];
  let loose = [];
  const flush = () => {
    const names = new Set(loose.map((cell) => cell.name.split(".")[0]));
    if (loose.length) rows.push({ label: [...names].join(", "), part: "", groups: groupsOf(loose, "", "") });
    loose = [];
  };
  byPart.forEach(([part, members], at) => {
    const number = part.split(".").at(-1);
    const again = last.get(part) > at; // some of block 0 is made beforehand
    if (!/^\d+$/.test(number) || again) return void loose.push(...members);
    flush();
    const stack = stacks.find(({ path }) => part === `${path}.${number}`);
    const label = `${stack?.side ? `${stack.side} ` : ""}block ${number}`;
    rows.push({ label, part, groups: groupsOf(members, part, stack?.inside ? `${stack.inside}.` : "") });
  });
  flush();
  return rows;
}

/** Neighbours that live in one part of a block. A part's own output goes with what is inside it. */
function groupsOf(cells, part, inside) {
  const groups = [];
  let current = null;
  for (const cell of cells) {
    const short = part ? cell.name.slice(part.length + 1) : cell.name;
    const path = short.includes(".") ? short.slice(0, short.lastIndexOf(".")) : short;
    if (current === null || (path !== current && short !== current)) groups.push([(current = path), []]);
    groups.at(-1)[1].push(cell);
  }
  return groups.map(([path, members]) => [caption(path, members, inside), members]);
}

/** What a group is called, as there is room for it. Of a single cell its own name, or `+`. */
function caption(path, members, inside) {
  const last = members[0].name.split(".").at(-1);
  if (members.length === 1) return last === "residual" ? "+" : last;
  return path.startsWith(inside) ? path.slice(inside.length) : path;
}

// ----------------------------------------------------------------------------------------- the explorer

/** A name, which may go on in the next line behind each dot. */
const named = (name) => make("code", {}, ...name.split(/(?<=\.)/).flatMap((word) => [word, make("wbr")]));

const ROOMY = 26, TIGHT = 36; // cells in the longest row: up to here large ones fit, from here only small
const MOST_ROWS = 6; // of blocks under each other that are alike, before those in the middle are folded

/**
 * A map, what finds a cell on it, and the chosen checkpoint in words and pictures.
 *
 * kinds   {kind: [symbol, words]}: how cells are marked and what that is called.
 * stacks  [{path, side, inside}] of the architecture; empty where nobody knows it.
 * about   name -> what `panel` shows, or a promise of it.
 */
export class Explorer {
  cells = [];
  chosen = "";

  constructor(box, { kinds, stacks, about }) {
    Object.assign(this, { box, kinds, stacks, about });
    const label = box.dataset.label ?? "Map of the model";
    this.legend = make("ul", { class: "legend" });
    this.find = make("input", { type: "search", placeholder: "probs, h.1, head …", autocomplete: "off", spellcheck: "false" });
    this.count = make("output", {});
    const form = make("form", { class: "filter", role: "search", "aria-label": "Checkpoints" }, make("label", {}, "Find ", this.find), this.count);
    this.map = make("div", { class: "map", role: "group", "aria-label": label });
    this.reading = make("p", { class: "readout", "aria-hidden": "true" }, "\u00a0");
    this.panel = make("section", { class: "tensor", "aria-label": "The chosen checkpoint", "aria-live": "polite", hidden: true });
    box.replaceChildren(this.legend, form, this.map, this.reading, this.panel);
    form.addEventListener("submit", (event) => event.preventDefault());
    this.find.addEventListener("input", () => this.filter());
    for (const kind of ["pointerover", "focusin"])
      this.map.addEventListener(kind, (event) => this.say(event.target.closest?.("a.cell")));
    this.map.addEventListener("keydown", (event) => this.walk(event));
    box.addEventListener("click", (event) => this.follow(event));
    this.kind = "";
    this.listening = new AbortController();
    addEventListener("hashchange", () => this.arrive(true), { signal: this.listening.signal });
  }

  /** A link to a checkpoint changes the address and nothing else, whatever the page around makes of links. */
  follow(event) {
    const link = event.target.closest?.('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    history.replaceState(history.state, "", link.hash);
    this.arrive();
  }

  /** Nothing is listened to any more: the page that it stood on has gone. */
  close() {
    this.listening.abort();
  }

  /** Show these cells: [{name, kind, meaning, words}]. Where the names are those that are shown, only marks change. */
  show(cells) {
    const same = cells.length === this.cells.length && cells.every(({ name }, i) => name === this.cells[i].name);
    this.cells = cells;
    if (!same) this.draw();
    cells.forEach((cell, i) => this.mark(this.links[i], cell));
    this.drawLegend();
    this.filter();
  }

  mark(link, { name, kind, meaning, words }) {
    const [symbol] = this.kinds[kind];
    const dim = link.classList.contains("dim") ? " dim" : "";
    const here = name === this.chosen ? " here" : "";
    link.className = `cell ${kind}${dim}${here}`;
    link.textContent = symbol;
    link.setAttribute("aria-label", `${name}: ${words || this.kinds[kind][1]}`);
    link.dataset.say = [meaning ? `${name}: ${meaning}` : name, words].filter(Boolean).join(", ");
  }

  draw() {
    const linkOf = new Map(this.cells.map((cell) => [cell, make("a", { class: "cell", href: `#${encodeURIComponent(cell.name)}`, tabindex: "-1" })]));
    this.links = this.cells.map((cell) => linkOf.get(cell));
    const rows = rowsOf(this.cells, this.stacks);
    const widest = Math.max(0, ...rows.map(({ groups }) => groups.reduce((sum, [, members]) => sum + members.length, 0)));
    this.map.className = `map ${widest <= ROOMY ? "roomy" : widest > TIGHT ? "tight" : ""}`;
    const stackOf = (row) => row.part.slice(0, row.part.lastIndexOf("."));
    const alike = runs(rows, (row) => (row.part ? `${stackOf(row)}: ${row.groups.map(([, members]) => members.length)}` : row));
    this.map.replaceChildren(
      ...alike.map(([, together]) => {
        const stack = make("div", { class: together[0].part ? "stack" : "stack loose" });
        together.forEach((row, number) => {
          const groups = row.groups.map(([words, members]) =>
            make("div", { class: "group" }, make("span", { class: number ? "caption again" : "caption" }, words),
              make("span", { class: "cells" }, ...members.map((cell) => linkOf.get(cell)))));
          stack.append(make("div", { class: "row" }, make("p", { class: "label" }, row.label), ...groups));
        });
        this.fold(stack, together);
        return stack;
      }),
    );
    if (this.links.length) this.links[Math.max(0, this.cells.findIndex(({ name }) => name === this.chosen))].tabIndex = 0;
  }

  /** Of many blocks that are alike only the first and the last are shown, until one asks for all. */
  fold(stack, rows) {
    if (rows.length <= MOST_ROWS) return;
    const middle = [...stack.children].slice(2, -1);
    if (rows.slice(2, -1).some(({ groups }) => groups.some(([, cells]) => cells.some(({ name }) => name === this.chosen)))) return;
    const button = make("button", { type: "button", class: "unfold" }, `${middle.length} more blocks, all alike: show them`);
    middle.forEach((row) => (row.hidden = true));
    button.addEventListener("click", () => {
      middle.forEach((row) => (row.hidden = false));
      button.parentElement.remove();
      middle[0].querySelector("a.cell").focus();
    });
    middle[0].before(make("div", { class: "row folded" }, make("p", { class: "label" }), make("div", { class: "group" }, button)));
    stack.folded = middle;
  }

  drawLegend() {
    const counts = {};
    for (const { kind } of this.cells) counts[kind] = (counts[kind] ?? 0) + 1;
    const focused = [...this.legend.querySelectorAll("button")].findIndex((button) => button === document.activeElement);
    this.legend.replaceChildren(
      ...Object.entries(this.kinds).filter(([kind]) => counts[kind]).map(([kind, [symbol, words]]) => {
        const button = make("button", { type: "button", "aria-pressed": String(kind === this.kind) },
          make("i", { class: `cell ${kind}`, "aria-hidden": "true" }, symbol), ` ${words} `, make("b", {}, String(counts[kind])));
        button.addEventListener("click", () => {
          this.kind = this.kind === kind ? "" : kind;
          this.drawLegend();
          this.filter();
        });
        return make("li", {}, button);
      }),
    );
    if (focused >= 0) this.legend.querySelectorAll("button")[focused]?.focus();
  }

  /** Cells that do not fit the words and the kind that are asked for step back. */
  filter() {
    const words = this.find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    this.cells.forEach((cell, i) => {
      const text = `${cell.name} ${cell.meaning} ${cell.words} ${this.kinds[cell.kind][1]}`.toLowerCase();
      const fits = (!this.kind || cell.kind === this.kind) && words.every((word) => text.includes(word));
      this.links[i].classList.toggle("dim", !fits);
      count += fits;
    });
    this.count.textContent = count === 1 ? "1 checkpoint" : `${count} checkpoints`;
  }

  say(link) {
    this.reading.textContent = link ? link.dataset.say : "\u00a0";
  }

  /** Arrow keys: right and left in the order of computation, up and down to the nearest cell of the next row. */
  walk(event) {
    const links = this.links.filter((link) => !link.closest("[hidden]"));
    const at = links.indexOf(document.activeElement);
    if (at < 0) return;
    const here = links[at].getBoundingClientRect();
    const vertical = (down) => {
      const lines = links.map((link) => [link, link.getBoundingClientRect()]).filter(([, box]) => (down ? box.top > here.top + 4 : box.top < here.top - 4));
      const next = down ? Math.min(...lines.map(([, box]) => box.top)) : Math.max(...lines.map(([, box]) => box.top));
      const near = lines.filter(([, box]) => Math.abs(box.top - next) < 4).sort(([, a], [, b]) => Math.abs(a.left - here.left) - Math.abs(b.left - here.left));
      return near[0]?.[0];
    };
    const next = {
      ArrowRight: () => links[at + 1], ArrowLeft: () => links[at - 1], Home: () => links[0], End: () => links.at(-1),
      ArrowDown: () => vertical(true), ArrowUp: () => vertical(false),
    }[event.key]?.();
    if (!next) return;
    event.preventDefault();
    links[at].tabIndex = -1;
    next.tabIndex = 0; // one stop for the tab key, arrows from there
    next.focus();
  }

  /** The checkpoint that the address names, if it names one. */
  arrive(scroll = false) {
    let name;
    try {
      name = decodeURIComponent(location.hash.slice(1));
    } catch {
      return; // no such name
    }
    if (!this.cells.some((cell) => cell.name === name)) return;
    this.choose(name);
    if (scroll) this.panel.scrollIntoView({ block: "nearest" });
  }

  choose(name) {
    this.chosen = name;
    for (const stack of this.map.children)
      if (stack.folded?.some((row) => row.hidden && row.querySelector(`a[href="#${CSS.escape(encodeURIComponent(name))}"]`))) {
        stack.folded.forEach((row) => (row.hidden = false));
        stack.querySelector(".folded").remove();
      }
    this.cells.forEach((cell, i) => {
      const own = cell.name === name;
      this.links[i].classList.toggle("here", own);
      if (own) this.links[i].setAttribute("aria-current", "true");
      else this.links[i].removeAttribute("aria-current");
      this.links[i].tabIndex = own ? 0 : -1;
    });
    return this.refresh();
  }

  /** Show the chosen checkpoint once more: what is said of it may have changed. */
  async refresh() {
    const name = this.chosen, present = () => this.cells.find((one) => one.name === name);
    if (!present()) return void (this.panel.hidden = true);
    const said = await this.about(name);
    if (name !== this.chosen || !said || !present()) return; // another one was chosen meanwhile, or others are shown
    this.panel.hidden = false;
    this.fill(present(), said); // as it is by now
  }

  /** said: {badge, facts: [[word, parts]], chart, labels, numbers, after: what is done with the filled panel}; parts are strings, {code}, {link} and elements. */
  fill(cell, said) {
    const at = this.cells.indexOf(cell);
    const step = (by, words) => {
      const other = this.cells[at + by];
      return other ? make("a", { href: `#${encodeURIComponent(other.name)}`, "aria-label": `${words}: ${other.name}` }, by < 0 ? "←" : "→") : "";
    };
    const [symbol, words] = this.kinds[cell.kind];
    const badge = make("span", { class: `badge ${cell.kind}` }, `${symbol} ${cell.words || words}`.trim());
    const part = (one) =>
      one instanceof Node || typeof one === "string" ? one
        : one.link ? make("a", { href: `#${encodeURIComponent(one.link)}` }, named(one.link)) : make("code", {}, one.code);
    const facts = make("dl", {}, ...said.facts.map(([word, parts]) => make("div", {}, make("dt", {}, word), make("dd", {}, ...[parts].flat().map(part)))));
    const open = this.panel.querySelector(".numbers")?.open ?? false;
    this.panel.replaceChildren(
      make("div", { class: "head" }, make("h3", {}, named(cell.name)), badge, make("span", { class: "steps" }, step(-1, "the one before"), " ", step(1, "the next"))),
      make("p", { class: "meaning" }, cell.meaning),
      make("div", { class: "inside" }, facts, pictures(said, this.panel, open)),
    );
    said.after?.(this.panel);
  }
}
