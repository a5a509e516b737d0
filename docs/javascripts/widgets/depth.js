// How large an error is at each checkpoint: rounding alone, or a mistake in one line.

import { Client } from "../live/client.js";
import { Drawing } from "./drawing.js";

const DATA = new URL("../../live/data/", import.meta.url);
const BREAKS = { "none: JavaScript against Python": null, "no scaling of the scores": "minilm-scale-missing", "the other GELU": "minilm-gelu-tanh", "no token types": "minilm-token-types-missing" };
const SMALLEST = 1e-8, LARGEST = 10; // as a share of the tensor's largest number

export const beside = true;

export const ask = {
  question: "In one block a line is wrong. What does the error do in the blocks behind it?",
  answers: ["it shrinks", "it stays in about the same range", "it doubles with each block"],
  right: 1,
  reply: "Norms keep the numbers of the stream in one range, and an error with them: it neither dies out nor explodes. Rounding is a million times smaller and behaves alike.",
};

export const controls = [{ name: "broken", label: "what is wrong in it", value: Object.keys(BREAKS)[0], options: Object.keys(BREAKS) }];

/** MiniLM, running on its first sentence. */
export async function load() {
  const json = async (name) => (await fetch(new URL(name, DATA))).json();
  const [record, { mistakes }] = await Promise.all([json("minilm.json"), json("mistakes.json")]);
  const client = new Client();
  await client.ask("fetch", record, new URL("../models/minilm/", DATA).href);
  return { record, mistakes, client };
}

export async function draw({ broken }, { record, mistakes, client }) {
  const mistake = mistakes.find(({ name }) => name === BREAKS[broken]);
  await client.ask("edit", mistake ? { [mistake.file]: [[mistake.before, mistake.after]] } : {});
  await client.ask("run", record.sentences[0]);
  const verdicts = await (mistake ? client.ask("compareWithRight") : client.ask("official", new URL("minilm.safetensors", DATA).href));
  const names = Object.keys(verdicts), step = 660 / names.length, height = 150;
  const drawing = new Drawing(720, height + 56, `The size of the error at each of ${names.length} checkpoints of MiniLM.`);
  const level = (share) => Math.max(0, Math.min(1, Math.log(share / SMALLEST) / Math.log(LARGEST / SMALLEST)));
  for (const power of [-8, -6, -4, -2, 0]) {
    const y = 20 + height * (1 - level(10 ** power));
    drawing.line(46, y, 710, y, "line");
    drawing.text(40, y + 4, power ? `1e${power}` : "1", { at: "end", size: 12, kind: "muted" });
  }
  let worst = "", equal = 0;
  names.forEach((name, i) => {
    const { kind, worst: share = 0 } = verdicts[name];
    equal += kind === "identical";
    if (kind !== "identical" && share > (verdicts[worst]?.worst ?? 0)) worst = name;
    const tall = kind === "identical" ? 1 : Math.max(2, height * level(share));
    drawing.box(48 + step * i, 20 + height - tall, Math.max(1, step - 1), tall, kind === "identical" ? "good" : mistake ? "bad" : "accent");
  });
  record.stacks.forEach(({ path }) => {
    for (let block = 0, at; (at = names.findIndex((name) => name.startsWith(`${path}.${block}.`))) >= 0; block++) drawing.text(48 + step * at, height + 38, `block ${block}`, { at: "start", size: 12, kind: "muted" });
  });
  return { picture: drawing.svg, said: `${names.length - equal} of ${names.length} checkpoints differ${worst ? `; most of all ${worst}, by ${verdicts[worst].worst.toExponential(0)} of its largest number` : ""}.` };
}
