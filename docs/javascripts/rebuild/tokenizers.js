// Text into token ids and back, from the vocabulary files alone. The twin of tokenizers/__init__.py.
//
// One module an algorithm: wordpiece.js (MiniLM and its relatives), byte_bpe.js (GPT-2), unigram.js (T5).

import { ByteBPE } from "./tokenizers/byte_bpe.js";
import { Unigram } from "./tokenizers/unigram.js";
import { WordPiece } from "./tokenizers/wordpiece.js";
import { InputError } from "./weights.js";

export { pad } from "./tokenizers/encoding.js";

// Each algorithm's class, and the file that only it has.
const ALGORITHMS = { "vocab.txt": WordPiece, "merges.txt": ByteBPE, "spiece.model": Unigram };

/**
 * The tokenizer of a model's folder. `files`: a Map of file names to their bytes (ArrayBuffer or Uint8Array).
 *
 * encode(text, maxTokens) gives {ids, tokens, offsets, truncated}; decode(ids) the text. InputError where there is none.
 */
export function load(files) {
  const file = Object.keys(ALGORITHMS).find((name) => files.has(name));
  if (!file) throw new InputError(`the folder has no tokenizer that can be rebuilt: it needs ${Object.keys(ALGORITHMS).join(" or ")}`);
  return ALGORITHMS[file].fromFiles(files);
}
