// GPT-2's tokenizer: byte-level byte pair encoding (BPE), rebuilt from vocab.json and merges.txt. The twin of
// tokenizers/byte_bpe.py; the text flows through this file from top to bottom:
//
//     text     "Hello world"
//     words    "Hello", " world"                     SPLIT: a word keeps the space before it
//     symbols  H e l l o | Ġ w o r l d               BYTE_SYMBOLS: one printable character per byte
//     tokens   Hello | Ġworld                        merges: join neighbours, best rank first
//     ids      15496, 995                            vocab.json
//
// Because the smallest symbol is a byte, no text is unknown, and decode(encode(text)) is the text.

import { checkSame, readMerges, readVocabulary } from "./bpe_files.js";
import * as checks from "./checks.js";
import { lengthOf, members } from "./encoding.js";
import { TABLES } from "./byte_bpe_tables.js";

const END_OF_TEXT = "<|endoftext|>"; // the only special token: it separated the documents of the training text

// What tokenizer_config.json may say: other values give other tokens.
const SUPPORTED = {
  add_prefix_space: false, add_bos_token: false, add_eos_token: false, errors: "replace",
  bos_token: END_OF_TEXT, eos_token: END_OF_TEXT, unk_token: END_OF_TEXT,
};

// 1. Words. ----------------------------------------------------------------------------------------------------------

export const [LETTER, DIGIT, SPACE] = [TABLES.letter, TABLES.digit, TABLES.space].map((table) => members(table));

// The first alternative that fits, from left to right; together they leave no character out.
export const SPLIT = new RegExp(
  [
    "'(?:s|t|re|ve|m|ll|d)", // the end of an English contraction: don|'t, they|'ll
    ` ?[${LETTER}]+`, // letters, with at most one space before them
    ` ?[${DIGIT}]+`, // digits, likewise: "GPT2" is two words
    ` ?[^${SPACE}${LETTER}${DIGIT}]+`, // everything else that can be seen, likewise
    `[${SPACE}]+(?![^${SPACE}])`, // white space, but the last character before a word is left over: a space then
    `[${SPACE}]+`, //                joins the word, a newline stands alone
  ].join("|"),
  "gu",
);

/** Any of these tokens, the longest first; with none of them a pattern that fits nowhere. */
function anyOf(tokens) {
  const spelt = [...tokens].sort((a, b) => lengthOf(b) - lengthOf(a)).map((token) => token.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
  return new RegExp(`(${spelt.join("|") || "(?!)"})`, "u");
}

/** A text in words by `rules`; a token that is cut out whole is one of them. */
export function splitWords(text, rules = GPT2_RULES) {
  const apart = (part) => (rules.composed ? compose(part) : part).split(anyOf(rules.cutLater));
  const pieces = text.split(anyOf(rules.cut)).flatMap((part) => (rules.cut.includes(part) ? [part] : apart(part)));
  return pieces.flatMap((piece) => {
    if (rules.cut.includes(piece) || rules.cutLater.includes(piece)) return [piece];
    return rules.splits.reduce((words, split) => words.flatMap((word) => word.match(split) ?? []), piece ? [piece] : []);
  });
}

// Marks that the official library's tables for composing do not have yet: there each stands for itself.
const NEW_MARKS = new RegExp(`([${members(TABLES.newMarks)}])`, "u");

/** Characters composed (NFC): an e and an accent become é. */
const compose = (text) => text.split(NEW_MARKS).map((part) => part.normalize("NFC")).join("");

/**
 * What is done around the merges: GPT-2's, and what others have.
 *
 * splits     Patterns that split a text into words, one after the other.
 * cut        Tokens that are cut out of a text before anything else; `cutLater`, once characters are composed.
 * special    The ids that `decode` may leave out.
 * composed   Whether characters are composed (NFC).
 * wholeWords Whether a word that is a token is one, whatever the merges say.
 * before     Tokens that are put before every text, and behind it: `after`.
 */
const GPT2_RULES = { splits: [SPLIT], cut: [END_OF_TEXT], cutLater: [], special: new Set(), composed: false, wholeWords: false, before: [], after: [] };

// 2. Symbols. --------------------------------------------------------------------------------------------------------

/**
 * One printable character per byte, so that tokens can be written in a text file.
 *
 * 188 bytes are printable in Latin-1 and stand for themselves; the other 68 (control characters, the space, ...) are
 * given the characters from 256 on, in order.
 */
export function byteSymbols() {
  const printable = (byte) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let other = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : other++));
}

export const BYTE_SYMBOLS = byteSymbols();
const SYMBOL_BYTES = new Map(BYTE_SYMBOLS.map((symbol, byte) => [symbol, byte]));
const bytesOf = (text) => new TextEncoder().encode(text);

/** The UTF-8 bytes of a word as symbols; `é` is two bytes: [195, 169] -> ["Ã", "©"]. */
export const toSymbols = (word) => Array.from(bytesOf(word), (byte) => BYTE_SYMBOLS[byte]);

// 3. Tokens. ---------------------------------------------------------------------------------------------------------
// Ranks are a Map of "left right", a line of merges.txt, to the line's number: learned earlier is better.

/**
 * Watch the merges of one word happen: its symbols, then the list after each merge.
 *
 * The rule in its plainest form: of all neighbours that may merge, join the pair of the lowest rank, the leftmost if it
 * occurs twice; repeat. `merge` does the same in less time.
 */
export function* mergeSteps(word, ranks) {
  let symbols = toSymbols(word);
  for (;;) {
    yield symbols;
    let best = -1, lowest = Infinity;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const rank = ranks.get(`${symbols[i]} ${symbols[i + 1]}`) ?? Infinity;
      if (rank < lowest) [best, lowest] = [i, rank];
    }
    if (best < 0) return;
    symbols = [...symbols.slice(0, best), symbols[best] + symbols[best + 1], ...symbols.slice(best + 2)];
  }
}

/**
 * The last list of `mergeSteps`, in n log n steps: a word may be a megabyte long.
 *
 * The symbols form a linked list, so a merge touches its two neighbours only; a heap hands out the best pair. An entry
 * of the heap is not removed when a merge changes one of its two symbols: it is recognised as stale when it comes up,
 * because its rank no longer fits the pair.
 */
export function merge(word, ranks) {
  const symbols = toSymbols(word); // symbols[i] becomes "" once it is merged into its left neighbour
  const end = symbols.length;
  const before = symbols.map((_, i) => i - 1); // where the left neighbour of i is, -1: none
  const after = symbols.map((_, i) => i + 1); // where the right neighbour of i is, end: none
  const rankOf = (i) => (i < 0 || after[i] >= end ? undefined : ranks.get(`${symbols[i]} ${symbols[after[i]]}`));
  const heap = new Heap();
  for (let i = 0; i < end; i++) heap.push(rankOf(i), i);
  for (let best = heap.pop(); best; best = heap.pop()) {
    const [rank, i] = best;
    if (!symbols[i] || rankOf(i) !== rank) continue; // stale
    symbols[i] += symbols[after[i]];
    symbols[after[i]] = "";
    after[i] = after[after[i]];
    if (after[i] < end) before[after[i]] = i;
    heap.push(rankOf(before[i]), before[i]); // two new pairs: (left neighbour, i) and (i, right neighbour)
    heap.push(rankOf(i), i);
  }
  return symbols.filter((symbol) => symbol);
}

/** Hands out the lowest rank first, the leftmost of equals: Python's heapq. An entry is not later than its two children. */
class Heap {
  entries = [];

  earlier(a, b) {
    const [[rank, i], [otherRank, j]] = [this.entries[a], this.entries[b]];
    return rank < otherRank || (rank === otherRank && i < j);
  }

  swap(a, b) {
    [this.entries[a], this.entries[b]] = [this.entries[b], this.entries[a]];
  }

  /** A pair that may not merge has no rank and is left out. */
  push(rank, i) {
    if (rank === undefined) return;
    let at = this.entries.push([rank, i]) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && this.earlier(at, parent); at = parent, parent = (at - 1) >> 1) this.swap(at, parent);
  }

  pop() {
    if (this.entries.length < 2) return this.entries.pop();
    this.swap(0, this.entries.length - 1);
    const first = this.entries.pop();
    for (let at = 0, child; ; at = child) {
      child = 2 * at + 1;
      if (child + 1 < this.entries.length && this.earlier(child + 1, child)) child++;
      if (child >= this.entries.length || !this.earlier(child, at)) return first;
      this.swap(at, child);
    }
  }
}

/**
 * Which characters of the word each token covers, [start, end).
 *
 * A token may end inside a character; then this and the next token both claim the character.
 */
export function characterSpans(word, tokens) {
  const owner = [...word].flatMap((character, i) => Array(bytesOf(character).length).fill(i)); // of each byte
  let start = 0;
  return tokens.map((token) => {
    const end = start + token.length; // a symbol is a byte
    const span = [owner[start], owner[end - 1] + 1];
    start = end;
    return span;
  });
}

// 4. Ids, and all of it together. ------------------------------------------------------------------------------------

/** GPT-2's tokenizer, `ByteBPE.fromFiles(files).encode("Hello world").ids`; with other rules that of models which came later. */
export class ByteBPE {
  padId = null; // GPT-2 was trained without padding; whoever pads must choose an id and mask it

  constructor(vocabulary, ranks, rules = null) {
    this.vocabulary = vocabulary; // token -> id
    this.ranks = ranks;
    this.rules = rules ?? { ...GPT2_RULES, special: new Set([vocabulary.get(END_OF_TEXT)]) };
    this.vocabularySize = vocabulary.size;
    this.bytes = []; // id -> the bytes that its token stands for
    for (const [token, id] of vocabulary) this.bytes[id] = tokenBytes(token);
  }

  /** Of vocab.json and merges.txt; InputError says what is wrong in them, or what tokenizer_config.json asks for. */
  static fromFiles(files) {
    const [, whole] = checks.readConfig(files, SUPPORTED, "GPT2Tokenizer", [END_OF_TEXT]);
    const vocabulary = readVocabulary(files, "vocab.json", [...BYTE_SYMBOLS, END_OF_TEXT]);
    const ranks = readMerges(files, "merges.txt", vocabulary);
    checkSame(whole, vocabulary, [...ranks.keys()], "vocab.json or merges.txt");
    return new ByteBPE(vocabulary, ranks);
  }

  /**
   * Text -> {ids, tokens, offsets, truncated}: the characters [start, end) of the text that each token covers.
   *
   * GPT-2 adds nothing at either end. `<|endoftext|>` in the text is the special token. Beyond maxTokens, tokens are cut
   * off at the end and counted in `truncated`. Where characters are composed first, offsets count those of the composed text.
   */
  encode(text, maxTokens = null) {
    checks.refuseLoneSurrogates(text);
    const { before, after } = this.rules;
    const tokens = [...before], offsets = before.map(() => [0, 0]);
    let position = 0; // in characters
    for (const word of splitWords(text, this.rules)) {
      const pieces = this.encodeWord(word);
      for (const token of pieces.tokens) tokens.push(token);
      for (const span of pieces.spans) offsets.push(span.map((end) => position + end));
      position += lengthOf(word);
    }
    tokens.push(...after);
    offsets.push(...after.map(() => [0, 0]));
    return checks.truncate({ ids: tokens.map((token) => this.vocabulary.get(token)), tokens, offsets }, maxTokens, after.length);
  }

  /** One word -> {tokens, spans}; spans count from its first character. */
  encodeWord(word) {
    const { cut, cutLater, wholeWords } = this.rules, whole = [[0, lengthOf(word)]];
    if (cut.includes(word) || cutLater.includes(word)) return { tokens: [word], spans: whole };
    const symbols = wholeWords ? toSymbols(word).join("") : "";
    if (this.vocabulary.has(symbols)) return { tokens: [symbols], spans: whole };
    const tokens = merge(word, this.ranks);
    return { tokens, spans: characterSpans(word, tokens) };
  }

  /** Ids -> text. What is no valid UTF-8 (a character cut in two) becomes U+FFFD: �. */
  decode(ids, skipSpecialTokens = false) {
    checks.checkIds(ids, this.vocabularySize);
    const spoken = [...ids].filter((id) => !(skipSpecialTokens && this.rules.special.has(id)));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(spoken.flatMap((id) => [...this.bytes[id]])));
  }

  /** The id of a token as vocab.json writes it (`Ġ` for the space); InputError if unknown. */
  tokenId(token) {
    return checks.lookUp(token, this.vocabulary);
  }
}

/** The bytes a token stands for: `Ġworld` -> those of " world"; a foreign token stands for itself. */
function tokenBytes(token) {
  const symbols = [...token];
  return symbols.every((symbol) => SYMBOL_BYTES.has(symbol)) ? Uint8Array.from(symbols, (symbol) => SYMBOL_BYTES.get(symbol)) : bytesOf(token);
}
