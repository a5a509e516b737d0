// What every tokenizer here takes and returns, and how texts of unequal length become a batch. The twin of
// tokenizers/encoding.py and of the tables' reader.
//
// A tokenizer's `encode(text)` gives {ids, tokens, offsets, truncated}: offsets[i] is [start, end), where token i stands
// in the text, in characters; [0, 0] for a token that was added. A character is one of `[...text]`: JavaScript counts
// an emoji as two in `text.length`, Python and these tokenizers as one.

import { InputError } from "../weights.js";

/** How many characters a text has. */
export const lengthOf = (text) => {
  let count = 0;
  for (const _ of text) count++;
  return count;
};

/** The [first, last] code points of a table of ranges: `rangesOf("41-43 5A")` is [[65, 67], [90, 90]]. */
export const rangesOf = (table) =>
  table.split(" ").map((entry) => {
    const [first, last = first] = entry.split("-").map((end) => parseInt(end, 16));
    return [first, last];
  });

/** The characters in a table of ranges. */
export function characters(table) {
  const members = new Set();
  for (const [first, last] of rangesOf(table))
    for (let point = first; point <= last; point++) members.add(String.fromCodePoint(point));
  return members;
}

/** Tables of ranges as the inside of a character class of a pattern with the flag u. */
export const members = (...tables) =>
  tables.flatMap(rangesOf).map((ends) => ends.map((end) => `\\u{${end.toString(16)}}`).join("-")).join("");

/**
 * Token ids and mask of a batch, {tokenIds, mask} [batch, token]: every row as long as the longest; the mask is 1 at
 * tokens and 0 at padding. `padId` null: the model has no padding token, so no row may be shorter.
 */
export function pad(encodings, padId, side = "right") {
  const longest = Math.max(0, ...encodings.map(({ ids }) => ids.length));
  if (padId === null && encodings.some(({ ids }) => ids.length < longest))
    throw new InputError("texts of unequal length need padding, but this model has no padding token");
  const shape = [encodings.length, longest];
  const tokenIds = { shape, data: new Int32Array(encodings.length * longest).fill(padId ?? 0) };
  const mask = { shape, data: new Int32Array(encodings.length * longest) };
  encodings.forEach(({ ids }, row) => {
    const start = row * longest + (side === "left" ? longest - ids.length : 0);
    tokenIds.data.set(ids, start);
    mask.data.fill(1, start, start + ids.length);
  });
  return { tokenIds, mask };
}
