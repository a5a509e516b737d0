// Widgets of the chapters: a picture that one can change. What stands there without JavaScript, in print and in a notebook, is a
// picture; it stays until the reader has answered a question about what will be seen. Then there are controls, each for one
// thing, a way back to the beginning, and a link to what is shown.
//
// A widget is a module that exports
//     ask        {question, answers, right, reply}: `right` is the number of the right answer
//     controls   [{name, label, value, …}]: a text (`most`: characters), a number (`min`, `max`), or a choice (`options`: words)
//     load       () -> what it needs, or a promise of it; asked for once, after the answer
//     draw       (state, data) -> {picture, said, limits}: an element, the same in words, and new ends of numbers, by name
//     beside     whether the picture stays where it is and the widget's own comes below it

import { styled } from "../live/styled.js";
import { make } from "../live/tensor.js";

const WIDGETS = {
  wordpiece: () => import("./wordpiece.js"),
  bpe: () => import("./bpe.js"),
  unigram: () => import("./unigram.js"),
  masks: () => import("./masks.js"),
  heads: () => import("./heads.js"),
  buckets: () => import("./buckets.js"),
  floats: () => import("./floats.js"),
  file: () => import("./file.js"),
  depth: () => import("./depth.js"),
  catalogue: () => import("./catalogue.js"),
};

/** Bring these figures to life, each as soon as it comes into view; at once where the address names it. */
export function start(figures) {
  const observer = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) if (isIntersecting) begin(target);
  }, { rootMargin: "200px" });
  const begin = async (figure) => {
    observer.unobserve(figure);
    if (figure.dataset.started) return;
    figure.dataset.started = "waiting";
    const [widget] = await Promise.all([WIDGETS[figure.dataset.widget](), styled("../../stylesheets/widgets.css")]);
    if (figure.isConnected) new Shell(figure, widget);
    figure.dataset.started = "done";
  };
  for (const figure of figures) {
    observer.observe(figure);
    if (location.hash.startsWith(`#${figure.dataset.widget}?`)) begin(figure).then(() => figure.scrollIntoView());
  }
}

/** What is around a widget. */
class Shell {
  constructor(figure, widget) {
    Object.assign(this, { figure, widget, name: figure.dataset.widget });
    this.state = Object.fromEntries(widget.controls.map(({ name, value }) => [name, value]));
    this.beginning = { ...this.state };
    const still = figure.querySelector(".figure-scroll");
    this.frame = widget.beside ? make("div", { class: "figure-scroll" }) : still;
    this.reply = make("p", { class: "reply", "aria-live": "polite" });
    this.said = make("p", { class: "said", "aria-live": "polite" });
    this.controls = make("div", { class: "controls", hidden: true });
    this.question = this.asks(widget.ask);
    still.after(...(widget.beside ? [this.frame] : []), make("div", { class: "widget" }, this.question, this.reply, this.controls, this.said));
    this.build();
    const asked = this.asked();
    if (asked) this.open(asked);
  }

  /** The question that comes first. */
  asks({ question, answers, right, reply }) {
    const answer = (words, says) => {
      const button = make("button", { type: "button" }, words);
      button.addEventListener("click", () => {
        this.reply.replaceChildren(...(says ? [make("strong", {}, `${says} `)] : []), reply);
        this.open({});
        this.fields.values().next().value.focus();
      });
      return button;
    };
    return make("fieldset", { class: "ask" }, make("legend", {}, question),
      ...answers.map((words, i) => answer(words, i === right ? `“${words}” is right.` : `Not “${words}”.`)), answer("Show me", ""));
  }

  build() {
    this.fields = new Map(this.widget.controls.map((control) => [control.name, this.field(control)]));
    const back = make("button", { type: "button" }, "Back to the beginning");
    back.addEventListener("click", () => {
      this.limits = null; // those of what is shown now
      this.change(this.beginning);
    });
    this.link = make("a", {}, "Link to this");
    this.link.addEventListener("click", (event) => {
      event.preventDefault();
      event.stopPropagation(); // the theme would follow it
      history.replaceState(history.state, "", this.link.hash);
    });
    const labelled = this.widget.controls.map(({ name, label }) => make("label", {}, make("span", {}, label), this.fields.get(name)));
    this.controls.append(...labelled, make("span", { class: "ways" }, back, " ", this.link));
  }

  field({ name, value, most, min, max, options }) {
    const field = options ? make("select", {}, ...options.map((words) => make("option", { value: words }, words)))
      : make("input", most ? { type: "text", maxlength: most, autocomplete: "off", spellcheck: "false" } : { type: "range", min, max, step: 1 });
    field.value = value;
    field.addEventListener("input", () => this.change({ [name]: field.value }));
    return field;
  }

  /** The state that the address asks for, as far as it is one. */
  asked() {
    if (!location.hash.startsWith(`#${this.name}?`)) return null;
    return Object.fromEntries(new URLSearchParams(location.hash.slice(this.name.length + 2)));
  }

  /** What a control can say: of anything else the beginning stays. */
  checked({ name, most, min, max, options, value }, wanted) {
    if (wanted === undefined) return this.state[name];
    if (options) return options.includes(wanted) ? wanted : value;
    if (most) return [...String(wanted)].slice(0, most).join("").toWellFormed?.() ?? String(wanted).slice(0, most);
    return Number.isFinite(Number(wanted)) ? Math.max(min, Math.min(this.limits?.[name] ?? max, Math.round(Number(wanted)))) : value;
  }

  async open(state) {
    this.question.hidden = true;
    this.controls.hidden = false;
    await this.change(state);
  }

  /** Show another state: what is wanted of it, one thing or several. */
  async change(wanted) {
    for (const control of this.widget.controls) this.state[control.name] = this.checked(control, wanted[control.name]);
    const turn = (this.turn = {});
    try {
      this.loaded ??= this.widget.load?.();
      const { picture, said, limits } = await this.widget.draw(this.state, await this.loaded);
      if (turn !== this.turn) return; // meanwhile there is a newer one
      this.limits = limits;
      this.frame.replaceChildren(picture);
      if (this.frame.scrollWidth > this.frame.clientWidth) this.frame.tabIndex = 0; // what scrolls is reached by the keyboard
      this.said.textContent = said;
    } catch (problem) {
      this.loaded = null;
      this.said.textContent = problem.message;
    }
    for (const [name, field] of this.fields) {
      if (this.limits?.[name] !== undefined) field.max = this.limits[name];
      if (field.value !== String(this.state[name])) field.value = this.state[name];
    }
    this.link.href = `${location.pathname}#${this.name}?${new URLSearchParams(this.state)}`;
    this.figure.dataset.shown = JSON.stringify(this.state);
  }
}
