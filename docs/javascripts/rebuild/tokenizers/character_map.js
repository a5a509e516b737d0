// T5's normaliser: the replacements that come, precompiled, in spiece.model. The twin of tokenizers/character_map.py.
//
// They are Unicode's NFKC (ﬁ -> fi, Ａ -> A, ½ -> 1⁄2) and a little more: control characters vanish, and most kinds of
// white space become the space. An edit is [how many characters of the text, what they become].

import { InputError } from "../weights.js";
import { lengthOf } from "./encoding.js";
import { GRAPHEME } from "./graphemes.js";

const bytesOf = (text) => new TextEncoder().encode(text);

/**
 * The replacements of the model's normaliser, as the file stores them.
 *
 * 4 bytes say how long the first half is, a trie (prefix tree) in a "double array" of 32-bit units; the second half holds
 * the replacements, each ended by a zero byte. From the unit of a prefix, the unit for one more byte lies at
 * `node ^ offset ^ byte`, and is the right one if its label is that byte. Format: the Darts-clone library.
 */
export class CharacterMap {
  /** `data` is precompiled_charsmap of the file's normalizer_spec, a Uint8Array. */
  constructor(data) {
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    const size = data.length >= 4 ? view.getUint32(0, true) : data.length;
    if (size % 4 || size < 4 || size > data.length - 4)
      throw new InputError("spiece.model: its character map is cut off: download it again");
    this.units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.replacements = data.subarray(4 + size);
  }

  /** How the text is rewritten, part by part. */
  edits(text) {
    return (text.match(GRAPHEME) ?? []).flatMap((grapheme) => this.rewrite(grapheme));
  }

  /** Library: a grapheme of up to five bytes is looked up as a whole, then each character. */
  rewrite(grapheme) {
    const whole = bytesOf(grapheme).length < 6 ? this.find(grapheme) : null;
    if (whole !== null) return [[lengthOf(grapheme), whole]];
    return [...grapheme].map((old) => [1, this.find(old) ?? old]);
  }

  /**
   * What `text` becomes; null if it stays.
   *
   * Library: the *shortest* entry that `text` begins with replaces all of `text`. SentencePiece takes the longest and
   * goes on behind it.
   */
  find(text) {
    let node = this.offset(0);
    for (const byte of bytesOf(text)) {
      node ^= byte;
      const unit = this.unit(node);
      if (byte === 0 || (unit & 0x800000ff) !== byte) return null; // the label
      node ^= this.offset(node);
      if ((unit >> 8) & 1) return this.replacement(this.unit(node) & 0x7fffffff); // an entry ends here
    }
    return null;
  }

  unit(node) {
    if (node >= this.units.length) throw new InputError("spiece.model: its character map leads nowhere: download it again");
    return this.units[node];
  }

  /** 22 bits, or 30 in steps of 256 where bit 9 is set. */
  offset(node) {
    const unit = this.unit(node);
    return (unit >>> 10) << (unit & 0x200 ? 8 : 0);
  }

  replacement(start) {
    const end = this.replacements.indexOf(0, start);
    if (end < 0) throw new InputError("spiece.model: its character map leads nowhere: download it again");
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.replacements.subarray(start, end));
  }
}

/**
 * For every normalised character, the characters [start, end) of the text it comes from.
 *
 * The library notes for each new character how many others (beyond its own) were removed after it, or that it was
 * inserted (1); a removal with nothing before it is forgotten, so what follows points too far left. So do we.
 */
export function owners(edits) {
  const changes = [];
  for (const [oldLength, replacement] of edits) {
    const length = lengthOf(replacement);
    const longer = length - oldLength;
    for (let i = 0; i < length; i++) changes.push(i < length - Math.max(longer, 0) ? 0 : 1);
    if (longer < 0 && changes.length) changes[changes.length - 1] += longer;
  }
  let position = 0;
  return changes.map((change) => {
    if (change > 0) return position ? [position - 1, position] : [0, 0];
    const start = position;
    position += 1 - change;
    return [start, start + 1];
  });
}
