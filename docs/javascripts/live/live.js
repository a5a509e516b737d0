// A live page: one model, one sentence, and parts that show what becomes of it.
//
// A part is an element with data-live="gpt2" and data-part="map". All parts of a page share one session: one worker,
// in which the rebuild of javascripts/rebuild/ runs. Nothing is loaded before a part comes into view, and nothing that is
// typed or dropped leaves the page.

import { Client, newest } from "./client.js";
import { styled } from "./styled.js";
import { make } from "./tensor.js";

const ROOT = new URL("../../live/", import.meta.url);
const STYLES = ["../../stylesheets/map.css", "../../stylesheets/live.css"];
const PARTS = {
  sentence: () => import("./sentence.js"),
  map: () => import("./anatomy.js"),
  mistakes: () => import("./mistakes.js"),
  next: () => import("./next.js"),
  write: () => import("./write.js"),
  beams: () => import("./beams.js"),
  similar: () => import("./similar.js"),
  crossing: () => import("./crossing.js"),
  hero: () => import("./hero.js"),
};

let sessions = [];

/** Bring the parts of a page to life, as they come into view or now. */
export function start(boxes, now = false) {
  sessions = sessions.filter((session) => session.alive || session.close());
  const byModel = new Map();
  for (const box of boxes) {
    if (box.dataset.started) continue;
    box.dataset.started = "waiting";
    if (!byModel.has(box.dataset.live)) byModel.set(box.dataset.live, new Session(box.dataset.live));
    byModel.get(box.dataset.live).add(box, now);
  }
  sessions.push(...byModel.values());
}

/** What the parts of one model on one page share. */
export class Session {
  parts = [];
  boxes = [];
  own = null; // the name of the reader's own copy, where one is open
  run = null; // the last answer of `run`
  mistake = null; // the line that is changed: an entry of data/mistakes.json
  looked = null; // while the mistake is to be found: the checkpoints that were compared

  constructor(name) {
    this.name = name;
    this.client = new Client();
    this.ask = (...values) => this.client.ask(...values);
    this.go = newest((text) => this.ask("run", text), (run, text) => this.show(run, text), (problem) => this.fail(problem));
    this.observer = new IntersectionObserver((seen) => {
      for (const { target, isIntersecting } of seen) if (isIntersecting) this.begin(target);
    }, { rootMargin: "200px" });
  }

  get alive() {
    return this.boxes.some((box) => box.isConnected);
  }

  close() {
    this.observer.disconnect();
    this.client.close();
    for (const part of this.parts) part.close?.();
  }

  add(box, now) {
    this.boxes.push(box);
    if (now) this.begin(box);
    else this.observer.observe(box);
    if (box.dataset.part === "mistakes" && /^[#?](break|find)=/.test(location.hash || location.search)) this.begin(box).then(() => box.scrollIntoView());
  }

  /** Something has come into view: open the model, once, and build the parts of the page in their order. */
  async begin(box) {
    if (box.dataset.started !== "waiting") return;
    this.observer.unobserve(box);
    box.dataset.started = "yes";
    try {
      this.opening ??= this.open();
      const [{ Part }] = await Promise.all([PARTS[box.dataset.part](), this.opening, ...STYLES.map(styled)]);
      if (!box.isConnected) return;
      const inside = make("div", { class: "live-inside" });
      box.classList.add("live");
      box.replaceChildren(inside);
      const part = new Part(inside, this, box);
      this.parts.push(part);
      await part.ready; // what it has to fetch first, where it has to
      if (this.run) await part.update?.(this.run, this.text);
      if (this.problem) part.fail?.(this.problem);
    } catch (problem) {
      box.append(make("p", { class: "live-problem", role: "alert" }, problem.message)); // below the picture that stands there
    }
    box.dataset.started = "done";
    this.settled(this.run);
  }

  async open() {
    this.record = await (await fetch(new URL(`data/${this.name}.json`, ROOT))).json();
    this.about = new Map(this.record.checkpoints.map((entry) => [entry.name, entry]));
    await this.openMiniature();
  }

  /** The model that the site carries, on its first sentence. */
  async openMiniature() {
    this.model = await this.ask("fetch", this.record, new URL(`models/${this.name}/`, ROOT).href);
    this.own = null;
    await this.say(this.record.sentences[0]);
  }

  /** A model of the reader's own: name -> File. */
  async openOwn(name, files) {
    this.model = await this.ask("open", this.record, files);
    this.own = name;
    await this.say(this.text);
  }

  /** Run on a sentence and wait for it. */
  async say(text) {
    try {
      await this.show(await this.ask("run", text), text);
    } catch (problem) {
      this.fail(problem);
    }
  }

  /** Run on a sentence as soon as there is time; of several only the last. */
  type(text) {
    this.typed = text;
    this.go(text);
  }

  async show(run, text) {
    [this.run, this.text, this.problem, this.verdicts, this.guest] = [run, text, null, null, null];
    if (this.mistake) this.judgeMistake(await this.ask("compareWithRight"));
    await Promise.all(this.parts.map((part) => part.update?.(run, text)));
    this.settled(run);
  }

  /** A run is shown by all parts but those that are being made. No answer waits for the official tensors, at hand of the first sentence. */
  async settled(run) {
    if (!run || run !== this.run || !this.parts.length) return;
    for (const box of this.boxes) if (box.dataset.started !== "yes") box.dataset.answered = this.text;
    if (this.compared === run || this.mistake || this.own || this.text !== this.record.sentences[0]) return;
    this.compared = run;
    try {
      const verdicts = await this.ask("official", new URL(`data/${this.name}.safetensors`, ROOT).href);
      if (this.run !== run || this.mistake || !verdicts) return;
      this.verdicts = verdicts;
      for (const part of this.parts) part.judge?.();
    } catch (problem) {
      this.fail(problem);
    }
  }

  /** The mistakes that can be made on the page: {causes, mistakes}. */
  async catalogue() {
    this.fetched ??= fetch(new URL("data/mistakes.json", ROOT)).then((answer) => answer.json());
    this.catalogued = await this.fetched;
    return { causes: this.catalogued.causes, mistakes: this.catalogued.mistakes.filter(({ model }) => model === this.name) };
  }

  /** Go on with a line changed; null: with none. Of one that is to be found the map shows no verdict before it is asked. */
  async make(mistake, hidden = false) {
    await this.opening;
    [this.mistake, this.looked] = [mistake, hidden ? new Set() : null];
    await this.ask("edit", mistake ? { [mistake.file]: [[mistake.before, mistake.after]] } : {});
    await this.say(this.text);
  }

  /** all: how each checkpoint compares with the right one. Known of a mistake that is to be found are those that were compared. */
  judgeMistake(all) {
    this.truth = all;
    this.verdicts = this.looked ? Object.fromEntries(Object.entries(all).filter(([name]) => this.looked.has(name))) : all;
  }

  /** Compare one checkpoint; or give up, and see all. */
  look(name) {
    if (name === null) this.looked = null;
    else this.looked.add(name);
    this.judgeMistake(this.truth);
    for (const part of this.parts) part.judge?.();
  }

  /** A report or a capture that the reader has dropped, on the map instead of the run; until the next sentence. */
  async receive(guest) {
    this.guest = guest;
    const map = this.boxes.find((box) => box.dataset.part === "map");
    map?.scrollIntoView({ block: "start" });
    for (const part of this.parts) await part.welcome?.();
  }

  fail(problem) {
    this.problem = problem;
    for (const part of this.parts) part.fail?.(problem);
  }

  /** What is known of a checkpoint, with the numbers of its block filled in. */
  entry(name) {
    if (this.about.has(name)) return { ...this.about.get(name), inputs: this.resolved(this.about.get(name).inputs, -1) };
    const stack = this.record.stacks.find(({ path }) => name.startsWith(`${path}.`));
    if (!stack) return null;
    const [number, ...rest] = name.slice(stack.path.length + 1).split(".");
    const entry = this.about.get([stack.path, "{layer}", ...rest].join("."));
    if (!entry) return null;
    const layer = Number(number), filled = (words) => words.replaceAll("{layer}", layer).replaceAll("{before}", layer - 1);
    return {
      ...entry, name, official: filled(entry.official), weights: entry.weights.map(filled),
      inputs: this.resolved(layer === 0 && entry.first ? entry.first : entry.inputs, layer),
    };
  }

  /** Names of checkpoints with their numbers; those that this run does not have are left out. */
  resolved(names, layer) {
    const shown = (this.guest ?? this.run)?.names ?? [];
    if (this.shown !== shown) [this.shown, this.present] = [shown, new Map(shown)];
    const { present } = this;
    const last = (path) => Math.max(...[...present.keys()].filter((name) => name.startsWith(`${path}.`)).map((name) => Number(name.slice(path.length + 1).split(".")[0])));
    return names
      .map((name) => name.replaceAll("{layer}", layer).replaceAll("{before}", layer - 1).replace(/^(.*)\.\{last\}/, (_, path) => `${path}.${last(path)}`))
      .filter((name) => present.has(name));
  }
}
