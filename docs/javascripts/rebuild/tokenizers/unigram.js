// T5's tokenizer: a unigram language model over pieces, rebuilt from spiece.model. The twin of tokenizers/unigram.py;
// the text flows through this file from top to bottom:
//
//     text         "Ｈｅllo  world <extra_id_0>"
//     parts        "Ｈｅllo  world ", <extra_id_0>     special tokens are cut out first
//     normalised   "Hello  world "                     CharacterMap: Unicode's NFKC and a little more
//     words        "▁Hello", "▁world"                  ▁ (U+2581) for the space before each
//     pieces       ▁Hello | ▁world                     bestPieces: Viterbi over the pieces' scores
//     ids          8774, 296, 32099, 1                 spiece.model, sentinels from 32099 down, </s>
//
// What no piece covers becomes one <unk> for the whole stretch, and is lost.

import { InputError } from "../weights.js";
import { CharacterMap, owners } from "./character_map.js";
import * as checks from "./checks.js";
import { lengthOf } from "./encoding.js";
import { CONTROL, readSpieceModel } from "./spiece_file.js";

const SENTINELS = 100; // spans that T5 learned to fill in: <extra_id_0> ... <extra_id_99>
const [PAD, END, UNKNOWN] = ["<pad>", "</s>", "<unk>"];
const SUPPORTED = { extra_ids: SENTINELS, pad_token: PAD, eos_token: END, unk_token: UNKNOWN };
const UNKNOWN_PENALTY = 10; // an unknown character scores this much less than the rarest piece

// 1. Words. ----------------------------------------------------------------------------------------------------------

// Library: words end at any white space of Unicode. A ▁ that is left begins a word.
const SPACES = "\\t-\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORD = new RegExp(`▁[^▁${SPACES}]*|[^▁${SPACES}]+`, "gu");

// 2. Pieces. ---------------------------------------------------------------------------------------------------------

/**
 * The most probable way to cut a word, a list of characters: for each piece [start, end, is it known?].
 *
 * Viterbi: the best way to reach a position is the best way to reach an earlier one, plus the one piece between.
 * Probabilities multiply, so their logarithms, the scores, add up. `prefixes` holds all beginnings of pieces: what is
 * none cannot grow into a piece.
 */
export function bestPieces(word, { scores, prefixes, unknownScore }) {
  const reached = [0, ...word.map(() => -Infinity)]; // the best score up to each position
  const step = reached.map(() => [0, true]); // where the last piece on the way began, is it known
  word.forEach((character, start) => {
    let piece = "";
    for (let end = start + 1; end <= word.length; end++) {
      piece += word[end - 1];
      const score = scores.get(piece);
      if (score === undefined) {
        if (!prefixes.has(piece)) break;
      } else if (reached[start] + score > reached[end]) {
        [reached[end], step[end]] = [reached[start] + score, [start, true]]; // the first of equals stays
      }
    }
    const unknown = reached[start] + unknownScore;
    if (!scores.has(character) && unknown > reached[start + 1]) [reached[start + 1], step[start + 1]] = [unknown, [start, false]];
  });

  const pieces = []; // from the end
  for (let end = word.length; end > 0; ) {
    const [start, isKnown] = step[end];
    if (!isKnown && pieces.length && !pieces.at(-1)[2]) pieces.at(-1)[0] = start; // neighbouring unknowns are one
    else pieces.push([start, end, isKnown]);
    end = start;
  }
  return pieces.reverse();
}

/** All beginnings of all pieces. */
export function allPrefixes(pieces) {
  const prefixes = new Set();
  for (const piece of pieces) {
    let prefix = "";
    for (const character of piece) prefixes.add((prefix += character));
  }
  return prefixes;
}

// 3. Ids, and all of it together. ------------------------------------------------------------------------------------

/**
 * T5's tokenizer. `Unigram.fromFiles(files).encode("Hello world").tokens`
 *
 * The vocabulary has 32,100 tokens: 32,000 in the file and 100 sentinels, of which the first has the highest id. The
 * model's embedding has 32,128 rows, the next multiple of 128; the ids 32,100 to 32,127 decode to nothing.
 */
export class Unigram {
  constructor({ pieces, charsmap }) {
    const sentinels = Array.from({ length: SENTINELS }, (_, i) => `<extra_id_${SENTINELS - 1 - i}>`);
    this.tokens = [...pieces.map(({ text }) => text), ...sentinels];
    this.vocabulary = new Map(this.tokens.map((token, id) => [token, id])); // the last of equals
    this.vocabularySize = this.tokens.length;
    this.embeddingRows = Math.ceil(this.vocabularySize / 128) * 128;
    [this.padId, this.endId, this.unknownId] = [PAD, END, UNKNOWN].map((token) => this.tokenId(token));
    if (this.unknownId !== 2) throw new InputError(`spiece.model: ${UNKNOWN} has id ${this.unknownId}; T5's has 2`);
    const controls = pieces.filter(({ kind }) => kind === CONTROL).map(({ text }) => text);
    this.special = new Set([PAD, END, UNKNOWN, ...sentinels, ...controls]);
    const spelt = [...this.special].map((token) => token.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"));
    this.specialInText = new RegExp(`(${spelt.join("|")})`, "u");

    // Library: the special tokens, with score 0, are pieces like the others here.
    this.scores = new Map([...this.vocabulary].map(([token, id]) => [token, pieces[id]?.score ?? 0]));
    this.prefixes = allPrefixes(this.vocabulary.keys());
    this.unknownScore = pieces.reduce((least, { score }) => Math.min(least, score), 0) - UNKNOWN_PENALTY;
    this.characterMap = charsmap.length ? new CharacterMap(charsmap) : null;
  }

  /** Of spiece.model; InputError says what is wrong with it, or what tokenizer_config.json asks for. */
  static fromFiles(files) {
    const made = new Unigram(readSpieceModel(files));
    checks.readConfig(files, SUPPORTED, "T5Tokenizer", [...made.special]);
    return made;
  }

  /**
   * Text -> {ids, tokens, offsets, truncated}: the characters [start, end) of the text that each token covers.
   *
   * </s> is added at the end and stays there when more than maxTokens tokens are cut. A token that is unknown is shown
   * as the text it stands for, as the library does.
   */
  encode(text, maxTokens = null) {
    checks.refuseLoneSurrogates(text);
    const encoding = { ids: [], tokens: [], offsets: [] };
    const append = (id, token, offset) => {
      encoding.ids.push(id);
      encoding.tokens.push(token);
      encoding.offsets.push(offset);
    };
    let start = 0; // of the part, in characters
    for (const part of text.split(this.specialInText)) {
      const length = lengthOf(part);
      if (this.special.has(part)) append(this.vocabulary.get(part), part, [start, start + length]);
      else if (part) {
        const { normalised, places } = this.normalise(part);
        let first = 0, behind = 0; // where the word begins, in characters; where the one before ends, in normalised
        for (const { 0: word, index } of normalised.matchAll(WORD)) {
          first += lengthOf(normalised.slice(behind, index));
          for (const { id, token, left, right } of this.encodeWord(word))
            append(id, token, [start + places[first + left][0], start + places[first + right - 1][1]]);
          first += lengthOf(word);
          behind = index + word.length;
        }
      }
      start += length;
    }
    append(this.endId, END, [0, 0]);
    return checks.truncate(encoding, maxTokens, 1);
  }

  /** The text as the model knows it, and where each of its characters comes from: {normalised, places}. */
  normalise(text) {
    const edits = this.characterMap ? this.characterMap.edits(text) : [...text].map((character) => [1, character]);
    return { normalised: edits.map(([, replacement]) => replacement).join(""), places: owners(edits) };
  }

  /** One match of WORD -> {id, token, left, right} of each piece; left and right count from its first character. */
  encodeWord(word) {
    const added = word.startsWith("▁") ? 0 : 1; // the ▁ that stands for the space before the word
    const escaped = [..."▁".repeat(added), ...word];
    return bestPieces(escaped, this).map(([start, end, isKnown]) => {
      const token = escaped.slice(start, end).join("");
      const id = isKnown ? this.vocabulary.get(token) : this.unknownId;
      return { id, token, left: Math.max(start - added, 0), right: Math.max(end - added, 1) }; // ▁ shares the next place
    });
  }

  /** Ids -> text. ▁ becomes a space, at the very start nothing; special tokens stay as they are. */
  decode(ids, skipSpecialTokens = false) {
    checks.checkIds(ids, this.embeddingRows);
    const tokens = [...ids].filter((id) => id < this.vocabularySize).map((id) => this.tokens[id]);
    const [first = "", ...others] = tokens.filter((token) => !(skipSpecialTokens && this.special.has(token)));
    return first.replaceAll("▁", "") + others.join("").replaceAll("▁", " ");
  }

  /** The id of a token, `▁` written for the space; InputError if unknown. */
  tokenId(token) {
    return checks.lookUp(token, this.vocabulary);
  }
}
