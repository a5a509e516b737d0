// Graphemes: what a reader takes for one character, though it may be several code points. The twin of
// tokenizers/graphemes.py, which says why the browser's own tables are not asked.

import { members } from "./encoding.js";
import { TABLES } from "./graphemes_tables.js";

const { extend, spacing, consonant, linker, prepended, picture, vowels, control } = TABLES;

const MARK = `[${members(extend, spacing)}\\u200d]`;
const JOINED = `[${members(extend.replace("200C", "200D"))}]`; // between two consonants: a joiner, but no separator
const [PIC, CONS] = [picture, consonant].map((table) => `[${members(table)}]`);
// Korean letters: first ones, vowels, last ones. A syllable of two is [가개갸…]; those of three lie between.
const [FIRST, VOWEL, LAST] = ["1100-115F A960-A97C", vowels, "11A8-11FF D7CB-D7FB"].map((table) => `[${members(table)}]`);
const OPEN = `[${Array.from({ length: 399 }, (_, i) => String.fromCodePoint(0xac00 + 28 * i)).join("")}]`;
const PREPENDED = `[${members(prepended)}]`;
const ALONE = `\\r\\n${members(control)}`;

export const GRAPHEME = new RegExp(
  [
    "\\r\\n",
    `[${ALONE}]`, // these stand alone
    `${PREPENDED}*(?:${[ // signs that belong to what follows
      `${CONS}(?:${JOINED}*[${members(linker)}]${JOINED}*${CONS})*`, // conjuncts of Indic scripts
      `${FIRST}*(?:${VOWEL}+|${OPEN}${VOWEL}*|[가-힣])${LAST}*`,
      `${FIRST}+`, `${LAST}+`, // Korean syllables, whole or in parts
      "[\\u{1f1e6}-\\u{1f1ff}]{2}", // a flag: 🇩 + 🇪
      `${PIC}(?:[${members(extend)}]*\\u200d${PIC})*`, // emoji in a row, joined
      `[^${ALONE}]`,
    ].join("|")})${MARK}*`, // and all accents and the like
    `${PREPENDED}+${MARK}*`, // at the end of the text
  ].join("|"),
  "gu",
);
