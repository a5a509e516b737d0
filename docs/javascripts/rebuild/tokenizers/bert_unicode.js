// What the official tokenizer knows of Unicode, frozen. The twin of tokenizers/bert_unicode.py, which says whence. One
// thing is asked of the browser, which Unicode promises never to change: how a character of NORMALIZED decomposes.

import { characters } from "./encoding.js";
import { TABLES } from "./bert_tables.js";

const bert = TABLES;

/** The lower case of each character in a table of `first-last/step+distance` entries. */
function lowerCases(entries) {
  const pairs = new Map();
  for (const [, first, last, step, distance] of entries.matchAll(/(\w+)-(\w+)\/(\d)([+-]\w+)/g))
    for (let point = parseInt(first, 16); point <= parseInt(last, 16); point += Number(step))
      pairs.set(String.fromCodePoint(point), String.fromCodePoint(point + parseInt(distance, 16)));
  return pairs;
}

export const CONTROL = characters(bert.control);
export const WHITESPACE = characters(bert.whitespace);
export const NONSPACING_MARKS = characters(bert.nonspacingMarks);
export const PUNCTUATION = characters(bert.punctuation);
export const NORMALIZED = characters(bert.normalized);

// The only character whose lower case is two: I with a dot above gives i and a combining dot.
export const LOWER = lowerCases(bert.lower).set("\u0130", "i\u0307");

/** A mark -> where on the letter it goes: 220 below, 230 above, ... */
export const COMBINING = new Map(
  Object.entries(bert.combining).flatMap(([number, table]) => [...characters(table)].map((mark) => [mark, Number(number)])),
);

const within = (ranges) => (character) => {
  const point = character.codePointAt(0);
  return ranges.some(([first, last]) => first <= point && point <= last);
};

/** Private use (Co): 137,468 code points that Unicode promises never to assign. */
export const isPrivateUse = within([[0xe000, 0xf8ff], [0xf0000, 0xffffd], [0x100000, 0x10fffd]]);

/** A CJK ideograph, by the blocks that BERT's authors listed, and with the library's slip of one digit. */
export const isChinese = within([
  [0x3400, 0x4dbf], [0x4e00, 0x9fff], [0xf900, 0xfaff], [0x20000, 0x2a6df], [0x2a700, 0x2b81f], [0x2b920, 0x2ceaf],
  [0x2f800, 0x2fa1f],
]);
