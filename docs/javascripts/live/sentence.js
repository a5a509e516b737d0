// The reader's sentence: the field, its tokens, which model runs, and the door for models and reports of one's own.

import { Problem } from "./client.js";
import { make } from "./tensor.js";

export class Part {
  constructor(box, session) {
    this.session = session;
    this.field = make("input", { type: "text", value: session.text ?? session.record.sentences[0], autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
    this.field.addEventListener("input", () => session.type(this.field.value));
    const examples = session.record.sentences.map((text) => {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        this.field.value = text;
        session.type(text);
      });
      return button;
    });
    const form = make("form", {}, make("label", {}, make("span", {}, "Your sentence"), this.field));
    form.addEventListener("submit", (event) => event.preventDefault());
    this.tokens = make("ol", { class: "tokens", "aria-label": "Its tokens" });
    this.problem = make("p", { class: "live-problem", role: "alert", hidden: true });
    this.source = make("p", { class: "source" });
    this.chooser = make("input", { type: "file", webkitdirectory: true, multiple: true, tabindex: "-1", "aria-hidden": "true", hidden: true });
    this.reports = make("input", { type: "file", accept: ".json,.safetensors", tabindex: "-1", "aria-hidden": "true", hidden: true });
    const choose = this.door("Open a model of your own …", this.chooser);
    const chooseReport = this.door("Open a report or a capture …", this.reports);
    this.back = make("button", { type: "button", hidden: true }, "Back to the miniature");
    this.back.addEventListener("click", () => this.work(() => session.openMiniature()));
    box.append(
      form, make("p", { class: "examples" }, make("span", {}, "Or: "), ...examples), this.tokens, this.problem,
      make("div", { class: "door" }, this.source, make("p", {}, choose, " ", chooseReport, " ", this.back, this.chooser, this.reports)),
    );
    this.dropping(box.parentElement);
  }

  /** A button for a field that chooses files. */
  door(words, field) {
    const button = make("button", { type: "button" }, words);
    button.addEventListener("click", () => field.click());
    field.addEventListener("change", () => {
      this.receive(Array.from(field.files, (file) => ({ path: file.webkitRelativePath || file.name, file })));
      field.value = "";
    });
    return button;
  }

  /** Files may be dropped anywhere on the part. */
  dropping(zone) {
    const mark = (on) => zone.classList.toggle("dropping", on);
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      mark(true);
    });
    zone.addEventListener("dragleave", () => mark(false));
    zone.addEventListener("drop", async (event) => {
      event.preventDefault();
      mark(false);
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
      const loose = Array.from(event.dataTransfer.files, (file) => ({ path: file.name, file }));
      this.receive(entries.length ? (await Promise.all(entries.map((entry) => filesIn(entry)))).flat() : loose);
    });
  }

  /** A folder with a model, a report, or a capture. */
  receive(chosen) {
    return this.work(async () => {
      const [only] = chosen;
      if (chosen.length === 1 && /\.json$/i.test(only.path)) return this.session.receive(await (await import("./report.js")).readReport(only.file));
      if (chosen.length === 1 && /\.safetensors$/i.test(only.path)) return this.session.receive({ kind: "capture", title: only.path, ...(await this.session.ask("capture", only.file)) });
      const { modelIn } = await import("./folder.js");
      const { name, files } = modelIn(chosen, (words) => new Problem(words));
      await this.session.openOwn(name, files);
    });
  }

  async work(does) {
    this.say("");
    this.source.textContent = "Reading …";
    try {
      await does();
    } catch (problem) {
      this.say(problem.message);
    }
    this.describe();
  }

  say(words) {
    this.problem.textContent = words;
    this.problem.hidden = !words;
  }

  describe() {
    const { model, own, record } = this.session;
    this.back.hidden = !own;
    const what = own ? `Your copy, ${own}` : `A miniature of ${record.title}, trained for this course`;
    const hash = model.sha256 ? make("code", { title: model.sha256, class: "hash" }, `sha256 ${model.sha256.slice(0, 12)}…`) : "";
    this.source.replaceChildren(make("strong", {}, what), `: ${model.parameters.toLocaleString("en")} numbers, ${(model.bytes / 1e6).toFixed(1)} MB, `, hash,
      ". It runs in this page; nothing that you type or open leaves it.");
  }

  update(run, text) {
    if (this.field.value !== text && document.activeElement !== this.field) this.field.value = text;
    this.say(run.truncated ? `Only the first ${run.tokens.length} tokens are read here; ${run.truncated} more do not fit.` : "");
    const line = (tokens, ids, words) => [
      make("li", { class: "side" }, words),
      ...tokens.map((token, i) => make("li", {}, make("span", {}, visible(token)), make("small", {}, String(ids[i])))),
    ];
    const both = run.decoderTokens ? [...line(run.tokens, run.ids, "reads"), ...line(run.decoderTokens, run.decoderIds, this.session.mistake ? "is given" : "writes")] : line(run.tokens, run.ids, `${run.tokens.length} tokens`);
    this.tokens.replaceChildren(...both);
    this.describe();
  }

  fail(problem) {
    this.say(problem.message);
  }
}

/** A token with its space made visible. */
export const visible = (token) => token.replace(/^ /, "·").replaceAll("\n", "⏎") || "∅";

/** The files below an entry that was dropped. */
async function filesIn(entry, path = "") {
  if (entry.isFile) return [{ path: path + entry.name, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) }];
  const reader = entry.createReader(), found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
    if (found.length > 2000) break; // this is no model's folder
  }
  return (await Promise.all(found.map((one) => filesIn(one, `${path}${entry.name}/`)))).flat();
}
