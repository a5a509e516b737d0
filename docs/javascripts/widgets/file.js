// A safetensors file as a bar: the length of the header, the header, and then nothing but numbers.

import { MODELS } from "../live/titles.js";
import { readHeader } from "../rebuild/weights.js";
import { Drawing } from "./drawing.js";
import { filesOf } from "./files.js";

const ZOOMS = ["the whole file", "one part", "one tensor"];
const WIDTH = 700;

export const beside = true;

export const ask = {
  question: "How much of a safetensors file has to be read before one knows the name and shape of every tensor?",
  answers: ["all of it", "its beginning", "its end"],
  right: 1,
  reply: "The first 8 bytes are the length of a header in JSON, the header says where each tensor begins and ends, and then come the numbers. So a page can refuse a wrong file before it reads it.",
};

export const controls = [
  { name: "model", label: "the miniature of", value: "MiniLM", options: Object.keys(MODELS) },
  { name: "zoom", label: "zoom", value: ZOOMS[0], options: ZOOMS },
  { name: "at", label: "which", value: 0, min: 0, max: 999 },
];

const opened = new Map(); // model -> its file and what its header says

async function open(model) {
  if (!opened.has(model)) {
    const buffer = (await filesOf(MODELS[model], ["model.safetensors"])).get("model.safetensors");
    const { start, entries } = readHeader(buffer, buffer.byteLength);
    opened.set(model, { buffer, start, tensors: entries.map(([key, { shape, data_offsets: [from, to] }]) => ({ key, shape, from: start + from, to: start + to })).sort((a, b) => a.from - b.from) });
  }
  return opened.get(model);
}

/** Neighbours of one part of the model: its block, or its first word. */
function partsOf(tensors) {
  const parts = [];
  for (const tensor of tensors) {
    const name = tensor.key.match(/^(.*?\.\d+)\./)?.[1] ?? tensor.key.split(".")[0];
    if (parts.at(-1)?.key === name) parts.at(-1).to = tensor.to, parts.at(-1).tensors.push(tensor);
    else parts.push({ key: name, from: tensor.from, to: tensor.to, tensors: [tensor] });
  }
  return parts;
}

const size = (bytes) => (bytes < 10_000 ? `${bytes.toLocaleString("en")} bytes` : `${(bytes / 1000).toFixed(0)} kB`);

export async function draw({ model, zoom, at }) {
  const { buffer, start, tensors } = await open(model);
  const whole = [{ key: "length", from: 0, to: 8 }, { key: "header", from: 8, to: start }, ...partsOf(tensors)];
  const level = ZOOMS.indexOf(zoom), parts = whole.slice(2);
  const list = level === 0 ? whole : level === 1 ? parts : tensors;
  const chosen = list[Math.min(at, list.length - 1)], shown = level === 1 ? chosen.tensors : level === 2 ? [chosen] : whole;
  const [low, high] = [shown[0].from, shown.at(-1).to], scale = WIDTH / (high - low);
  const drawing = new Drawing(720, 176, `The file model.safetensors of ${model}: ${zoom}.`);
  drawing.text(10, 24, level ? `${chosen.key}, bytes ${low.toLocaleString("en")} to ${high.toLocaleString("en")}` : `model.safetensors, ${size(buffer.byteLength)}`, { at: "start", bold: true });
  shown.forEach((one, i) => {
    const x = 10 + (one.from - low) * scale, width = Math.max(1, (one.to - one.from) * scale), own = one === chosen;
    drawing.box(x, 40, width, 46, own ? "good" : one.key === "header" || one.key === "length" ? "warm" : "accent", own ? 0.6 : i % 2 ? 0.3 : 0.5);
    if (width > 9 * one.key.length) drawing.text(x + width / 2, 68, one.key, { size: 12 });
  });
  const shape = chosen.shape ? `, shape [${chosen.shape.join(", ")}]` : "";
  drawing.text(10, 114, `${chosen.key}: ${size(chosen.to - chosen.from)}${shape}`, { at: "start" });
  const text = chosen.key === "header" ? new TextDecoder().decode(new Uint8Array(buffer, 8, Math.min(64, start - 8)))
    : [...new Uint8Array(buffer, chosen.from, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  drawing.text(10, 140, `its first bytes: ${text}`, { at: "start", mono: true, size: 12, kind: "muted" });
  if (level === 2) {
    const numbers = new Float32Array(buffer.slice(chosen.from, chosen.from + 8));
    drawing.text(10, 164, `as numbers: ${[...numbers].map((x) => x.toPrecision(6)).join(", ")}, …`, { at: "start", mono: true, size: 12, kind: "muted" });
  }
  return { picture: drawing.svg, said: `${zoom}: ${chosen.key}${shape}, ${size(chosen.to - chosen.from)} of ${size(buffer.byteLength)}.`, limits: { at: list.length - 1 } };
}
