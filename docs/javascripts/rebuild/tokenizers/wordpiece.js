// WordPiece, the tokenizer of BERT and MiniLM, in the order in which text flows through it: the twin of
// tokenizers/wordpiece.py, with the same steps under the same names.
//
//     "Été 中 [MASK]unseen"  special tokens    "Été 中 ", [MASK], "unseen"
//                            clean up, CJK     "Été  中  "
//                            accents, case     "ete  中  "
//                            words             "ete", "中"
//                            longest match     "et", "##e", "中"
//
// Until the last step text is a list of [character, position]: what the character has become, and where in the original
// text it came from. That is all it takes to say which part of the text a token stands for.

import * as checks from "./checks.js";
import { SPECIAL_TOKENS, readSettings, readVocabulary } from "./bert_files.js";
import { COMBINING, CONTROL, LOWER, NONSPACING_MARKS, NORMALIZED, PUNCTUATION, WHITESPACE, isChinese, isPrivateUse } from "./bert_unicode.js";
import { lengthOf } from "./encoding.js";

const LONGEST_WORD = 100; // characters; a longer word is [UNK] as a whole

/**
 * Special tokens written in the text stand for themselves -> [part, start, is it special?] of each part.
 *
 * They are looked for before anything is changed, so `[mask]` is not one.
 */
export function splitSpecial(text) {
  const parts = [];
  let start = 0;
  for (const part of text.split(/(\[(?:PAD|UNK|CLS|SEP|MASK)\])/)) {
    if (part) parts.push([part, start, SPECIAL_TOKENS.includes(part)]);
    start += lengthOf(part);
  }
  return parts;
}

/** The stretches between whitespace: lists of [character, position]. */
export function splitWhitespace(placed) {
  const stretches = [[]];
  for (const [character, position] of placed)
    if (WHITESPACE.has(character)) stretches.push([]);
    else stretches.at(-1).push([character, position]);
  return stretches.filter((stretch) => stretch.length);
}

/** Drop control characters, private ones, and U+FFFD: the sign for what could not be decoded. */
export const clean = (placed) => placed.filter(([character]) => !CONTROL.has(character) && !isPrivateUse(character));

/** Put spaces around CJK ideographs: each becomes a word. The spaces share its position. */
export const spaceChinese = (placed) =>
  placed.flatMap(([character, position]) =>
    isChinese(character) ? [[" ", position], [character, position], [" ", position]] : [[character, position]],
  );

/** Take letters and accents apart, then drop the accents. */
export const stripAccents = (placed) => decompose(placed).filter(([character]) => !NONSPACING_MARKS.has(character));

/**
 * Unicode's NFD: every character in its parts, marks on the same letter sorted by combining class.
 *
 * The first part of each character brings a position, its other parts take over the one before them. Places stay in
 * order even where marks were swapped: that is how the library counts, too.
 */
export function decompose(placed) {
  if (!placed.some(([character]) => NORMALIZED.has(character))) return placed; // nothing to take apart: most text

  const parts = []; // of each: what it is, does it bring a position?, its class, and the number of the letter it is on
  let letter = 0;
  for (const [character] of placed) {
    const own = NORMALIZED.has(character) ? [...character.normalize("NFD")] : [character];
    own.forEach((part, number) => {
      const combining = COMBINING.get(part) ?? 0; // 0 for a letter
      if (combining === 0) letter++;
      parts.push({ part, bringsPlace: number === 0, combining, letter });
    });
  }
  parts.sort((a, b) => a.letter - b.letter || a.combining - b.combining); // equals stay in order

  let next = 0, position = 0;
  return parts.map(({ part, bringsPlace }) => {
    if (bringsPlace) position = placed[next++][1];
    return [part, position];
  });
}

/** One character at a time; only İ, if its dot is still on, becomes two. */
export const lowerCase = (placed) =>
  placed.flatMap(([character, position]) => [...(LOWER.get(character) ?? character)].map((lowered) => [lowered, position]));

/** Words end at spaces; a punctuation mark is a word by itself. */
export function splitWords(placed) {
  const words = [[]];
  for (const [character, position] of placed)
    if (PUNCTUATION.has(character)) words.push([[character, position]], []);
    else if (character === " ") words.push([]);
    else words.at(-1).push([character, position]);
  return words.filter((word) => word.length);
}

/**
 * The longest token that the word begins with, then the longest that the rest begins with, ... -> [token, start, end].
 *
 * Tokens inside a word are written with ## in front. A word with a rest that no token fits is [UNK] as a whole.
 * `longest` is the length of the longest token: no use in trying more.
 */
export function longestMatch(word, vocabulary, longest) {
  const unknown = [["[UNK]", word[0][1], word.at(-1)[1] + 1]];
  if (word.length > LONGEST_WORD) return unknown;
  const pieces = [];
  for (let start = 0, end; start < word.length; start = end) {
    let token = null;
    for (end = Math.min(word.length, start + longest); end > start; end--) {
      token = (start ? "##" : "") + word.slice(start, end).map(([character]) => character).join("");
      if (vocabulary.has(token)) break;
    }
    if (end === start) return unknown;
    pieces.push([token, word[start][1], word[end - 1][1] + 1]);
  }
  return pieces;
}

// What the decoder closes up, in this order; each token gets all of them, so most never happen.
const CLEAN_UP = [
  [" .", "."], [" ?", "?"], [" !", "!"], [" ,", ","], [" ' ", "'"], [" n't", "n't"], [" 'm", "'m"],
  [" do not", " don't"], [" 's", "'s"], [" 've", "'ve"], [" 're", "'re"],
];

/** Tokens back to text: ## continues the word, anything else begins a new one. */
export function join(tokens) {
  const spelt = (token, index) => (index === 0 ? token : token.startsWith("##") ? token.slice(2) : ` ${token}`);
  const closed = (token) => CLEAN_UP.reduce((word, [spaced, close]) => word.replaceAll(spaced, close), token);
  return tokens.map((token, index) => closed(spelt(token, index))).join("");
}

/** All of the steps, with a vocabulary. `new WordPiece(vocabulary, settings).encode("Owls hoot").tokens` */
export class WordPiece {
  constructor(vocabulary, settings) {
    this.vocabulary = vocabulary; // token -> id
    this.settings = settings;
    this.tokens = [...vocabulary].sort(([, a], [, b]) => a - b).map(([token]) => token); // id -> token
    this.longest = this.tokens.reduce((most, token) => Math.max(most, lengthOf(token)), 0);
  }

  /** Of vocab.txt and, where present, tokenizer.json and tokenizer_config.json. InputError says what is wrong in them. */
  static fromFiles(files) {
    const vocabulary = readVocabulary(files);
    return new WordPiece(vocabulary, readSettings(files, vocabulary));
  }

  /** The same, of text that is lower-cased first. That alone takes no accents off. */
  lowerCased() {
    return new WordPiece(this.vocabulary, { ...this.settings, lowerCase: true, stripAccents: this.stripsAccents });
  }

  get stripsAccents() {
    return this.settings.stripAccents ?? this.settings.lowerCase;
  }

  get padId() {
    return this.vocabulary.get("[PAD]");
  }

  get vocabularySize() {
    return this.vocabulary.size;
  }

  /** [CLS], the text's tokens, [SEP] -> {ids, tokens, offsets, truncated}; cut at the end to `maxTokens` in all. */
  encode(text, maxTokens = null) {
    checks.refuseLoneSurrogates(text);
    const inside = splitSpecial(text).flatMap(([part, start, isSpecial]) => {
      if (isSpecial) return [[part, start, start + lengthOf(part)]];
      const placed = [...part].map((character, i) => [character, start + i]);
      return splitWhitespace(placed).flatMap((stretch) => this.pieces(stretch));
    });
    const pieces = [["[CLS]", 0, 0], ...inside, ["[SEP]", 0, 0]];
    const tokens = pieces.map(([token]) => token);
    const encoding = { ids: tokens.map((token) => this.vocabulary.get(token)), tokens, offsets: pieces.map(([, start, end]) => [start, end]) };
    return checks.truncate(encoding, maxTokens, 1);
  }

  /** The tokens of a stretch without whitespace, [token, start, end]. */
  pieces(stretch) {
    let placed = clean(stretch);
    if (this.settings.spaceChinese) placed = spaceChinese(placed);
    if (this.stripsAccents) placed = stripAccents(placed);
    if (this.settings.lowerCase) placed = lowerCase(placed);
    return splitWords(placed).flatMap((word) => longestMatch(word, this.vocabulary, this.longest));
  }

  /** Ids -> text, lower-cased and without accents as the tokens are; InputError if out of range. */
  decode(ids, skipSpecialTokens = false) {
    checks.checkIds(ids, this.vocabularySize);
    const tokens = Array.from(ids, (id) => this.tokens[id]);
    return join(tokens.filter((token) => !(skipSpecialTokens && SPECIAL_TOKENS.includes(token))));
  }

  /** The id of a token; InputError if unknown. */
  tokenId(token) {
    return checks.lookUp(token, this.vocabulary);
  }
}
