// Unigram's lattice: every way to cut a word into pieces of the vocabulary, and the best one.

import { Unigram, bestPieces } from "../rebuild/tokenizers/unigram.js";
import { Drawing } from "./drawing.js";
import { filesOf } from "./files.js";

const MOST_LETTERS = 12, STEP = 54, LEVEL = 30, MOST_LEVELS = 7;

export const ask = {
  question: "A word can be cut into pieces in many ways. Which one does T5's tokenizer take?",
  answers: ["the one with the longest first piece", "the one with the fewest pieces", "the one with the highest sum of scores"],
  right: 2,
  reply: "A score is the logarithm of how frequent a piece was, so a sum of scores is the probability of the whole cut. Leave a piece out, and the next best wins.",
};

export const controls = [
  { name: "word", label: "a word of your own", value: "sleeps", most: MOST_LETTERS },
  { name: "without", label: "pieces of the best cut that are left out", value: 0, min: 0, max: MOST_LETTERS },
];

export const load = async () => Unigram.fromFiles(await filesOf("t5-small", ["spiece.model", "tokenizer_config.json"]));

/** The best cuts in turn: the longest piece of each is left out of the next one. */
function cut(letters, model, without) {
  const scores = new Map(model.scores);
  for (;; without--) {
    const pieces = bestPieces(letters, { ...model, scores });
    const longest = [...pieces].sort(([a, b], [c, d]) => d - c - (b - a))[0];
    if (without <= 0 || longest[1] - longest[0] < 2) return { pieces, scores };
    scores.delete(letters.slice(longest[0], longest[1]).join(""));
  }
}

export function draw({ word, without }, model) {
  const letters = ["▁", ...(word.replace(/\s/g, "") || "sleeps")].slice(0, MOST_LETTERS + 1);
  const { pieces, scores } = cut(letters, model, without);
  const taken = new Set(pieces.map(([start, end]) => `${start} ${end}`));
  const edges = letters.flatMap((_, start) => letters.slice(start).map((_, i) => [start, start + i + 1]))
    .filter(([start, end]) => scores.has(letters.slice(start, end).join("")) || taken.has(`${start} ${end}`));
  const levels = []; // how far to the right each is filled
  const placed = edges.sort(([a, b], [c, d]) => a - c || b - d).map(([start, end]) => {
    let level = levels.findIndex((filled) => filled <= start);
    if (level < 0) level = levels.push(0) - 1;
    levels[level] = end;
    return [start, end, level];
  });
  const rows = Math.min(levels.length, MOST_LEVELS), below = 44 + LEVEL * rows;
  const drawing = new Drawing(720, below + 20, `The pieces that ${letters.join("")} can be cut into, and the best cut.`);
  letters.forEach((letter, i) => drawing.text(10 + STEP * (i + 0.5), 22, letter, { mono: true, bold: true, size: 16 }));
  for (const [start, end, level] of placed.filter((one) => one[2] < MOST_LEVELS)) {
    const own = taken.has(`${start} ${end}`), piece = letters.slice(start, end).join("");
    drawing.box(12 + STEP * start, 34 + LEVEL * level, STEP * (end - start) - 4, LEVEL - 6, own ? "good" : "line", own ? 0.35 : 1);
    drawing.text(10 + STEP * (start + end) / 2, 51 + LEVEL * level, (scores.get(piece) ?? model.unknownScore).toFixed(1), { size: 12, bold: own, kind: own ? "ink" : "muted" });
  }
  const parts = pieces.map(([start, end, known]) => [letters.slice(start, end).join(""), known ? scores.get(letters.slice(start, end).join("")) : model.unknownScore]);
  const sum = parts.reduce((total, [, score]) => total + score, 0);
  drawing.text(10, below + 8, `${parts.map(([piece]) => piece).join("  ")}: ${sum.toFixed(2)}`, { at: "start", mono: true, bold: true });
  const more = placed.length - placed.filter((one) => one[2] < MOST_LEVELS).length;
  return { picture: drawing.svg, said: `${edges.length} pieces fit${more ? `, of which ${more} find no room in the picture` : ""}. The best cut is ${parts.map(([piece, score]) => `${piece} (${score.toFixed(2)})`).join(" + ")}, together ${sum.toFixed(2)}.` };
}
