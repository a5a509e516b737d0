// WordPiece, step by step: the longest token that the word begins with, then the longest that the rest begins with.

import { WordPiece, clean, longestMatch, lowerCase, splitWords, stripAccents } from "../rebuild/tokenizers/wordpiece.js";
import { Drawing } from "./drawing.js";
import { filesOf } from "./files.js";

const MOST_TRIES = 14; // rows of the picture

export const ask = {
  question: "The beginning of a word is a token, but no token fits the rest. What becomes of the word?",
  answers: ["the rest becomes [UNK]", "the whole word becomes [UNK]", "the rest becomes single letters"],
  right: 1,
  reply: "There is one token for a word that does not come out even, and it swallows the beginning that was found. Try it with a letter that the vocabulary does not have, such as é inside of a word of your own, or ж.",
};

export const controls = [
  { name: "word", label: "a word of your own", value: "sleeps", most: 20 },
  { name: "step", label: "how many tries", value: 99, min: 0, max: 99 },
];

export const load = async () => WordPiece.fromFiles(await filesOf("minilm", ["vocab.txt", "tokenizer_config.json"]));

/** Every try of the search, [start, end, token, whether the vocabulary has it]. The twin of `longestMatch`, which does the same. */
export function triesOf(word, vocabulary, longest) {
  const tries = [];
  for (let start = 0, end; start < word.length; start = end) {
    for (end = Math.min(word.length, start + longest); end > start; end--) {
      const token = (start ? "##" : "") + word.slice(start, end).join("");
      tries.push([start, end, token, vocabulary.has(token)]);
      if (vocabulary.has(token)) break;
    }
    if (end === start) break; // no token begins the rest
  }
  return tries;
}

export function draw({ word, step }, tokenizer) {
  const placed = lowerCase(stripAccents(clean([...(word.trim() || "sleeps")].map((letter, i) => [letter, i]))));
  const [own = [["?", 0]]] = splitWords(placed.filter(([letter]) => letter.trim())); // one word: what comes after a comma is another
  const letters = own.map(([letter]) => letter), text = letters.join("");
  const tries = triesOf(letters, tokenizer.vocabulary, tokenizer.longest), shown = tries.slice(0, step), rows = shown.slice(-MOST_TRIES);
  const done = step >= tries.length, pieces = longestMatch(own, tokenizer.vocabulary, tokenizer.longest).map(([token]) => token);
  const drawing = new Drawing(720, 60 + 26 * MOST_TRIES + 40, `WordPiece on the word ${text}: ${shown.length} tries.`);
  drawing.text(20, 24, "tried, the longest first", { at: "start", bold: true });
  drawing.text(470, 24, "in the vocabulary?", { at: "start", bold: true });
  rows.forEach(([start, end, token, known], row) => {
    const y = 40 + 26 * row;
    letters.forEach((letter, i) => {
      drawing.box(20 + 20 * i, y, 19, 22, i >= start && i < end ? (known ? "good-soft" : "warm-soft") : "line");
      drawing.text(29.5 + 20 * i, y + 16, letter, { mono: true, size: 13, kind: i < start ? "muted" : "ink" });
    });
    drawing.text(470, y + 16, `${token}: ${known ? "yes" : "no"}`, { at: "start", size: 13, mono: true, kind: known ? "good" : "muted", bold: known });
  });
  if (done) drawing.row(20, 54 + 26 * MOST_TRIES, pieces, pieces.map((_, i) => i));
  const said = done ? `${tries.length === 1 ? "1 try" : `${tries.length} tries`}: ${pieces.join(" ")}` : `${shown.length} of ${tries.length} tries${shown.length ? `; the last: ${shown.at(-1)[2]}, ${shown.at(-1)[3] ? "which is a token" : "no token"}` : ""}.`;
  return { picture: drawing.svg, said, limits: { step: tries.length } };
}
