// Cross-attention: what the decoder looked at in the text while it wrote each token.

import { make, pictures } from "./tensor.js";

export class Part {
  constructor(box, session) {
    this.session = session;
    this.box = box;
    this.block = 0;
    this.choice = make("fieldset", { class: "colours" }, make("legend", {}, "Decoder block"));
    this.answer = make("p", { class: "written" });
    this.panel = make("div", { class: "explorer" });
    box.append(this.answer, this.choice, this.panel);
    this.scheme = new MutationObserver(() => this.panel.redraw?.());
    this.scheme.observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
  }

  close() {
    this.scheme.disconnect();
  }

  async update(run) {
    const names = run.names.map(([name]) => name).filter((name) => name.endsWith("EncDecAttention.probs"));
    if (this.choice.children.length !== names.length + 1) {
      this.block = Math.min(names.length - 1, 2);
      const radios = names.map((_, block) => {
        const radio = make("input", { type: "radio", name: "crossing", checked: block === this.block });
        radio.addEventListener("change", () => {
          this.block = block;
          this.draw();
        });
        return make("label", {}, radio, ` ${block}`);
      });
      this.choice.replaceChildren(this.choice.firstChild, ...radios);
    }
    this.names = names;
    this.answer.replaceChildren("It writes ", make("strong", {}, run.answer || "nothing"));
    await this.draw();
  }

  async draw() {
    const axes = ["batch", "head", "query", "key"], name = this.names[this.block];
    const picture = await this.session.ask("picture", name, axes);
    delete picture.chart.histogram;
    picture.chart.heat.axes = ["decoder token", "token of the text"];
    const open = this.panel.querySelector(".numbers")?.open ?? false;
    this.panel.replaceChildren(pictures({ ...picture, numbers: (head) => this.session.ask("numbers", name, axes, head) }, this.panel, open));
  }
}
