// Byte pair encoding with fewer merges: what GPT-2's tokenizer would do of a word, had it learned less.

import { ByteBPE, mergeSteps, splitWords } from "../rebuild/tokenizers/byte_bpe.js";
import { Drawing, first } from "./drawing.js";
import { filesOf } from "./files.js";

const MOST_ROWS = 11;

export const beside = true;

export const ask = {
  question: "Of the merges only the first few are allowed. What becomes of a word?",
  answers: ["more and shorter tokens", "fewer and longer tokens", "an unknown word"],
  right: 0,
  reply: "Each merge joins two symbols, so fewer merges leave more of them; with none at all each byte is a token. Nothing is ever unknown.",
};

export const controls = [
  { name: "word", label: "a word of your own", value: " sleeping", most: 20 },
  { name: "ranks", label: "merges that are allowed", value: 9999, min: 0, max: 9999 },
];

export const load = async () => ByteBPE.fromFiles(await filesOf("gpt2", ["vocab.json", "merges.txt", "tokenizer_config.json"]));

export function draw({ word, ranks }, { ranks: all }) {
  const [own = " sleeping"] = splitWords(word);
  const allowed = new Map([...all].filter(([, rank]) => rank < ranks));
  const steps = [...mergeSteps(own, allowed)];
  const [early, more] = first(steps, MOST_ROWS - 1), rows = more ? [...early.slice(0, -1), steps.at(-1)] : early;
  const drawing = new Drawing(720, 40 + 32 * rows.length, `Byte pair encoding of ${own}: ${steps.at(-1).length} tokens.`);
  drawing.text(20, 22, "symbols, then the list after each merge", { at: "start", bold: true });
  drawing.text(700, 22, "pair and its rank", { at: "end", bold: true });
  rows.forEach((symbols, row) => {
    const before = row && rows[row - 1], at = before ? symbols.findIndex((symbol, i) => symbol !== before[i]) : -1;
    drawing.row(20, 34 + 32 * row, symbols, row === rows.length - 1 && more ? [] : [at]);
    if (at >= 0) {
      const pair = `${before[at]} ${before[at + 1]}`;
      drawing.text(700, 52 + 32 * row, more && row === rows.length - 1 ? `${more + 1} steps later` : `${pair}   ${all.get(pair)}`, { at: "end", size: 13, mono: true, kind: "muted" });
    }
  });
  return { picture: drawing.svg, said: `With ${allowed.size} of ${all.size} merges “${own}” takes ${steps.length - 1} of them and is ${steps.at(-1).length} tokens: ${steps.at(-1).join(" | ")}`, limits: { ranks: all.size } };
}
