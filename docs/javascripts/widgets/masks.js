// Who may look at whom: the masks of the three kinds of attention, and padding.

import { maskOf } from "../rebuild/ops.js";
import { Drawing } from "./drawing.js";

const TOKENS = 6, SIDE = 34;
const KINDS = ["encoder", "decoder", "decoder to encoder"];
const SIDES = ["right", "left"];

export const ask = {
  question: "A decoder reads six tokens, of which the first two are padding. At how many may the last one look?",
  answers: ["6", "4", "2"],
  right: 1,
  reply: "It may look back at everything but padding, and at itself: four. An encoder's tokens look at those four, too, whichever of them asks.",
};

export const controls = [
  { name: "kind", label: "attention", value: "decoder", options: KINDS },
  { name: "padding", label: "tokens that are padding", value: 0, min: 0, max: TOKENS - 1 },
  { name: "side", label: "padded on the", value: "right", options: SIDES },
];

export function draw({ kind, padding, side }) {
  const real = (key) => (side === "left" ? key >= padding : key < TOKENS - padding);
  const queries = kind === "decoder to encoder" ? 4 : TOKENS; // of a decoder that has its own tokens
  const { data } = maskOf(1, queries, TOKENS, (_, query, key) => real(key) && (kind !== "decoder" || key <= query));
  const drawing = new Drawing(720, 60 + SIDE * TOKENS, `The mask of ${kind} attention as a grid.`);
  const left = 250;
  drawing.text(left, 18, "key: looked at →", { at: "start", size: 13, kind: "muted" });
  drawing.text(left - 44, 18, "query ↓", { at: "end", size: 13, kind: "muted" });
  for (let key = 0; key < TOKENS; key++) drawing.text(left + SIDE * (key + 0.5), 42, real(key) ? key : "pad", { size: 13, kind: real(key) ? "ink" : "muted" });
  let open = 0;
  for (let query = 0; query < queries; query++) {
    drawing.text(left - 10, 56 + SIDE * (query + 0.5), kind === "decoder to encoder" || real(query) ? query : "pad", { at: "end", size: 13 });
    for (let key = 0; key < TOKENS; key++) {
      const looks = data[query * TOKENS + key] === 0;
      open += looks;
      drawing.box(left + SIDE * key, 50 + SIDE * query, SIDE - 2, SIDE - 2, looks ? "accent" : "line");
      drawing.text(left + SIDE * (key + 0.5) - 1, 55 + SIDE * (query + 0.5), looks ? "0" : "−∞", { size: 12, kind: looks ? "paper" : "muted" });
    }
  }
  drawing.text(490, 90, "0: may look", { at: "start", size: 13 });
  drawing.text(490, 112, "−∞: the lowest number, so that", { at: "start", size: 13, kind: "muted" });
  drawing.text(490, 130, "the softmax leaves nothing", { at: "start", size: 13, kind: "muted" });
  return { picture: drawing.svg, said: `${kind} attention, ${padding} of ${TOKENS} tokens are padding${padding ? ` on the ${side}` : ""}: ${open} of ${queries * TOKENS} looks are allowed.` };
}
