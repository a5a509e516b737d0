// Splitting a tensor into heads and merging them again, on one small enough to follow every number.

import { mergeHeads, splitHeads } from "../rebuild/ops.js";
import { Drawing } from "./drawing.js";

const STEPS = ["before", "split", "merged"];
const WAYS = ["view and transpose", "a reshape alone"];
const TOKENS = 3, WIDTH = 6, SIDE = 40;
const KINDS = ["accent", "warm", "good"]; // a colour a token

export const ask = {
  question: "Three tokens of six numbers become two heads. Does a reshape to [2 heads, 3 tokens, 3 numbers] do it?",
  answers: ["yes: the same numbers, in the same order", "no: a transpose is missing"],
  right: 1,
  reply: "A reshape goes through the numbers in the order in which they lie. Then a head holds the whole of one token and half of another: the colours show it, and no error does.",
};

export const controls = [
  { name: "step", label: "the tensor", value: "before", options: STEPS },
  { name: "way", label: "split by", value: "view and transpose", options: WAYS },
  { name: "heads", label: "heads", value: 2, min: 1, max: 3 },
];

export function draw({ step, way, heads }) {
  const x = { shape: [1, TOKENS, WIDTH], data: Float32Array.from({ length: TOKENS * WIDTH }, (_, i) => i) };
  const size = WIDTH / heads;
  const split = way === WAYS[0] ? splitHeads(x, heads) : { shape: [1, heads, TOKENS, size], data: x.data };
  const shown = step === "before" ? x : step === "split" ? split : mergeHeads(split);
  const blocks = step === "split" ? heads : 1, columns = step === "split" ? size : WIDTH;
  const drawing = new Drawing(720, 200, `Three tokens of ${WIDTH} numbers, ${step}.`);
  let mixed = 0;
  for (let block = 0, at = 0, left = 130; block < blocks; block++, left += SIDE * columns + 36) {
    if (step === "split") drawing.text(left + (SIDE * columns) / 2, 24, `head ${block}`, { size: 13, bold: true });
    for (let token = 0; token < TOKENS; token++) {
      if (!block) drawing.text(left - 14, 62 + SIDE * token, `token ${token}`, { at: "end", size: 13, kind: "muted" });
      for (let column = 0; column < columns; column++, at++) {
        const number = shown.data[at], owner = Math.floor(number / WIDTH);
        mixed += owner !== token;
        drawing.box(left + SIDE * column, 36 + SIDE * token, SIDE - 2, SIDE - 2, KINDS[owner], 0.45);
        drawing.text(left + SIDE * (column + 0.5) - 1, 61 + SIDE * token, number, { size: 14 });
      }
    }
  }
  drawing.text(130, 184, `shape [${shown.shape.slice(1).join(", ")}]: ${step === "split" ? "head, token, number" : "token, number"}; a colour for the token that a number belongs to`, { at: "start", size: 13, kind: "muted" });
  const said = mixed ? `${mixed} of ${TOKENS * WIDTH} numbers stand in the row of a token that they do not belong to.` : "Every number stands in the row of its own token.";
  return { picture: drawing.svg, said: `${step}, ${heads === 1 ? "1 head" : `${heads} heads`}, by ${way}: ${said}` };
}
