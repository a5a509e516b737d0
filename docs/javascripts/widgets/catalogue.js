// The catalogue of mistakes as a list to choose from: by model, by kind, by the checkpoint where each is first seen.

import { make } from "../live/tensor.js";
import { labelOf } from "../live/label.js";
import { MODELS } from "../live/titles.js";

const DATA = new URL("../../live/data/mistakes.json", import.meta.url);
const LIVE = new URL("../../live/", import.meta.url);
const MOST = 30; // entries at once
const KINDS = ["any", "embeddings", "queries, keys, values, heads", "scores", "feed-forward", "norms", "residuals and blocks", "which numbers of the weight file", "sentence embedding", "T5"];

export const beside = true;

export const ask = {
  question: "A line of a rebuild is wrong, and the model still answers. Where is the mistake seen first?",
  answers: ["in the answer", "in the last block", "at the checkpoint that the line computes"],
  right: 2,
  reply: "Each of these lines has a first checkpoint that differs. Whoever compares every checkpoint is led to the line; whoever compares answers often sees nothing.",
};

export const controls = [
  { name: "model", label: "model", value: "all", options: ["all", ...Object.keys(MODELS)] },
  { name: "kind", label: "kind", value: "any", options: KINDS },
  { name: "first", label: "first seen at a checkpoint with", value: "", most: 30 },
];

export const load = async () => (await fetch(DATA)).json();

export function draw({ model, kind, first }, { causes, mistakes, pages }) {
  const fits = mistakes.filter((one) => (model === "all" || one.model === MODELS[model]) && (kind === "any" || causes[one.cause].kind === kind) && one.first.includes(first.trim()));
  const line = (sign, text) => make("code", {}, `${sign} ${text || "(the line is gone)"}`);
  const entry = (one) => {
    const [file, right, wrong] = one.python;
    return make("details", {}, make("summary", {}, make("strong", {}, labelOf(one)), ", first seen at ", make("code", {}, one.first)),
      make("p", {}, make("code", {}, file), ": ", causes[one.cause].did, "."), make("p", {}, line("−", right), make("br"), line("+", wrong)), make("p", {}, causes[one.cause].should, " ",
        make("a", { href: `#${one.cause}` }, "In the catalogue"), ", ", make("a", { href: new URL(`${pages[one.model]}/?break=${one.name}`, LIVE).href }, "break it and see how it spreads"), "."));
  };
  return { picture: make("div", { class: "widget-list", tabindex: 0, role: "region", "aria-label": "Mistakes" }, ...fits.slice(0, MOST).map(entry)), said: `${fits.length} of ${mistakes.length} mistakes${fits.length > MOST ? `, of which the first ${MOST} are listed` : ""}.` };
}
